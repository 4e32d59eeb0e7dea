//! The questions of a stream over the network, on a connection of its own.

use super::bounds::log_bounds;
use super::stream::Source;
use crate::changelog::{Offset, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::cluster::{Cluster, Leader};
use crate::kafka::connection::{Backoff, Connection, Deadline, Sent};
use crate::kafka::protocol::Request;
use crate::kafka::protocol::messages::{
    FetchPartition, FetchPartitionResponse, FetchRequest, IsolationLevel, TopicPartitions,
};
use std::collections::VecDeque;

/// The leader of one partition.
#[derive(Debug)]
pub(crate) struct BrokerSource {
    cluster: Cluster,
    partition: Partition,
    /// The topic that is read; another one of the same name is not it.
    topic_id: [u8; 16],
    leader: Option<Leader>,
    connection: Option<Connection>,
    sent: VecDeque<Sent<FetchRequest<'static>>>,
}

impl BrokerSource {
    /// # Errors
    ///
    /// `NotFound` if the partition does not exist; `Changelog`, `Closed`.
    pub(crate) fn new(cluster: Cluster, partition: Partition) -> Result<Self> {
        let deadline = cluster.settings().operation_deadline();
        let topic = cluster.topic(&partition.topic, deadline)?;
        let Some(topic) = topic.filter(|topic| partition.partition < topic.partitions) else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no partition {partition}"),
            ));
        };
        Ok(Self {
            cluster,
            partition,
            topic_id: topic.id,
            leader: None,
            connection: None,
            sent: VecDeque::new(),
        })
    }

    fn connect(&mut self, deadline: Deadline) -> Result<(&mut Connection, Leader)> {
        let leader = match self.leader {
            Some(leader) if self.connection.is_some() => leader,
            _ => {
                let leader = self.cluster.leader(&self.partition, deadline)?;
                if leader.topic_id != self.topic_id {
                    return Err(Error::new(
                        ErrorKind::Diverged,
                        format!("topic {} was created anew", self.partition.topic),
                    ));
                }
                self.leader = Some(leader);
                self.connection = Some(self.cluster.borrow(leader.node, deadline)?);
                leader
            }
        };
        let connection = self.connection.as_mut();
        Ok((connection.expect("it was just opened"), leader))
    }
}

impl Drop for BrokerSource {
    fn drop(&mut self) {
        // One that has to answer still is of no use to others.
        if let (Some(leader), Some(connection), true) =
            (self.leader, self.connection.take(), self.sent.is_empty())
        {
            self.cluster.give_back(leader.node, connection);
        }
    }
}

impl Source for BrokerSource {
    fn ask(&mut self, offset: u64, bytes_max: usize, deadline: Deadline) -> Result<()> {
        let partition = self.partition.clone();
        let (connection, leader) = self.connect(deadline)?;
        let bytes_max = i32::try_from(bytes_max).unwrap_or(i32::MAX);
        let offset = i64::try_from(offset)
            .map_err(|_| Error::invalid(format!("{partition} has no offset {offset}")))?;
        let sent = connection.send(&FetchRequest {
            // What is there is asked for, be it nothing; whoever waits for more asks again. To a
            // question that may not even wait for a moment, not everybody answers anything.
            max_wait_ms: 1,
            min_bytes: 0,
            max_bytes: bytes_max,
            isolation_level: IsolationLevel::ReadCommitted,
            topics: vec![TopicPartitions {
                name: &partition.topic,
                partitions: vec![FetchPartition {
                    partition: partition.partition.cast_signed(),
                    current_leader_epoch: leader.epoch,
                    fetch_offset: offset,
                    partition_max_bytes: bytes_max,
                }],
            }],
        })?;
        self.sent.push_back(sent);
        Ok(())
    }

    fn answer<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<(FetchPartitionResponse<'b>, u64)> {
        let sent = self.sent.pop_front();
        let (Some(sent), Some(connection)) = (sent, self.connection.as_mut()) else {
            return Err(Error::new(ErrorKind::Io, "the connection was given up"));
        };
        let response = connection.receive_into(&sent, buffer)?;
        let number = self.partition.partition.cast_signed();
        let mut partitions = response
            .responses
            .into_iter()
            .filter(|topic| topic.name == self.partition.topic)
            .flat_map(|topic| topic.partitions)
            .filter(|partition| partition.partition_index == number);
        let partition = match partitions.next() {
            // An error of the whole request comes without partitions.
            None if !response.error_code.is_ok() => FetchPartitionResponse {
                partition_index: number,
                error_code: response.error_code,
                high_watermark: -1,
                last_stable_offset: -1,
                log_start_offset: -1,
                current_leader: None,
                aborted_transactions: Vec::new(),
                preferred_read_replica: -1,
                records: &[],
            },
            None => {
                return Err(Error::corruption(format!(
                    "{} response: partition {} is missing",
                    FetchRequest::NAME,
                    self.partition
                )));
            }
            Some(partition) => partition,
        };
        Ok((partition, sent.wall_ms))
    }

    fn renew(&mut self, leader_failed: bool) {
        self.sent.clear();
        self.connection = None;
        if let Some(leader) = self.leader.take().filter(|_| leader_failed) {
            self.cluster.leader_failed(&self.partition, leader);
        }
    }

    fn bounds(&mut self, deadline: Deadline) -> Result<(Offset, Offset)> {
        log_bounds(&self.cluster, &self.partition, deadline)
    }

    fn pause(&mut self, backoff: &mut Backoff, deadline: Deadline) -> Result<()> {
        let settings = self.cluster.settings();
        settings.pause(backoff.next(settings.env().random_u64()), deadline)
    }

    fn deadline(&self) -> Deadline {
        self.cluster.settings().operation_deadline()
    }

    fn is_over(&self, deadline: Deadline) -> bool {
        deadline.is_over(self.cluster.settings().env())
    }
}
