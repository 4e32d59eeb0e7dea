//! The transaction coordinator of one task over the network.

use std::time::Duration;

use super::answers::decisive;
use super::{Coordinator, Decision, Identity};
use crate::changelog::Partition;
use crate::error::{Error, Result};
use crate::kafka::cluster::Cluster;
use crate::kafka::connection::{Backoff, Connection, Deadline};
use crate::kafka::protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest, TopicPartitions,
};
use crate::kafka::protocol::{ErrorCode, Request};

/// The first version of `InitProducerId` that tells whom it continues.
const RESUMABLE_FROM: i16 = 3;

/// The coordinator of one transactional id: found when it is first asked, and again after trouble.
#[derive(Debug)]
pub(crate) struct BrokerCoordinator {
    cluster: Cluster,
    transactional_id: String,
    transaction_timeout: Duration,
    connection: Option<Connection>,
    was_connected: bool,
}

impl BrokerCoordinator {
    pub(crate) fn new(
        cluster: Cluster,
        transactional_id: String,
        transaction_timeout: Duration,
    ) -> Self {
        Self {
            cluster,
            transactional_id,
            transaction_timeout,
            connection: None,
            was_connected: false,
        }
    }

    fn connection(&mut self, deadline: Deadline) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let id = &self.transactional_id;
            let was = self.was_connected;
            self.connection = Some(self.cluster.connect_coordinator(id, was, deadline)?);
            self.was_connected = true;
        }
        let connection = self.connection.as_mut();
        Ok(connection.expect("it was just opened"))
    }
}

impl Coordinator for BrokerCoordinator {
    fn init_producer_id(
        &mut self,
        resume: Option<Identity>,
        deadline: Deadline,
    ) -> Result<(ErrorCode, Identity)> {
        let id = self.transactional_id.clone();
        let resume = resume.unwrap_or(Identity { id: -1, epoch: -1 });
        let timeout_ms = i32::try_from(self.transaction_timeout.as_millis()).unwrap_or(i32::MAX);
        let response = self.connection(deadline)?.call(&InitProducerIdRequest {
            transactional_id: Some(&id),
            transaction_timeout_ms: timeout_ms,
            producer_id: resume.id,
            producer_epoch: resume.epoch,
        })?;
        let identity = Identity {
            id: response.producer_id,
            epoch: response.producer_epoch,
        };
        Ok((response.error_code, identity))
    }

    fn can_resume(&mut self, deadline: Deadline) -> Result<bool> {
        let connection = self.connection(deadline)?;
        Ok(connection.version::<InitProducerIdRequest<'_>>()? >= RESUMABLE_FROM)
    }

    fn add_partitions(
        &mut self,
        identity: Identity,
        partitions: &[Partition],
        deadline: Deadline,
    ) -> Result<ErrorCode> {
        let id = self.transactional_id.clone();
        let response = self
            .connection(deadline)?
            .call(&AddPartitionsToTxnRequest {
                transactional_id: &id,
                producer_id: identity.id,
                producer_epoch: identity.epoch,
                topics: by_topic(partitions),
            })?;
        let results = response.results.iter().flat_map(|topic| &topic.partitions);
        // An answer that leaves partitions out has not said that they were added.
        if results.clone().count() < partitions.len() {
            return Err(Error::corruption(format!(
                "{} response: a partition is missing",
                AddPartitionsToTxnRequest::NAME
            )));
        }
        Ok(decisive(results.map(|result| result.error_code)))
    }

    fn end_transaction(
        &mut self,
        identity: Identity,
        decision: Decision,
        deadline: Deadline,
    ) -> Result<ErrorCode> {
        let id = self.transactional_id.clone();
        let response = self.connection(deadline)?.call(&EndTxnRequest {
            transactional_id: &id,
            producer_id: identity.id,
            producer_epoch: identity.epoch,
            committed: decision == Decision::Commit,
        })?;
        Ok(response.error_code)
    }

    fn find_anew(&mut self) {
        self.connection = None;
    }

    fn pause(&mut self, backoff: &mut Backoff, deadline: Deadline) -> Result<()> {
        let settings = self.cluster.settings();
        settings.pause(backoff.next(settings.env().random_u64()), deadline)
    }

    fn is_over(&self, deadline: Deadline) -> bool {
        deadline.is_over(self.cluster.settings().env())
    }

    fn now(&self) -> (Duration, u64) {
        let env = self.cluster.settings().env();
        (env.monotonic(), env.wall_clock_ms())
    }

    fn transaction_timeout(&self) -> Duration {
        self.transaction_timeout
    }

    fn transactional_id(&self) -> &str {
        &self.transactional_id
    }
}

/// The partitions as requests name them.
fn by_topic(partitions: &[Partition]) -> Vec<TopicPartitions<'_, i32>> {
    let mut topics: Vec<TopicPartitions<'_, i32>> = Vec::new();
    for partition in partitions {
        let number = partition.partition.cast_signed();
        match topics
            .iter_mut()
            .find(|topic| topic.name == partition.topic)
        {
            Some(topic) => topic.partitions.push(number),
            None => topics.push(TopicPartitions {
                name: &partition.topic,
                partitions: vec![number],
            }),
        }
    }
    topics
}
