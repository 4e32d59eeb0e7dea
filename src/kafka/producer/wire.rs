//! How batches get to brokers and answers come back: what the threads need of the network.

use std::collections::HashMap;
use std::time::Duration;

use super::super::cluster::{Cluster, Leader};
use super::super::connection::{Deadline, Receiver, Sender, Sent};
use super::super::protocol::messages::{ProducePartition, ProduceRequest, TopicPartitions};
use super::lane::Answer;
use crate::changelog::Partition;
use crate::error::Result;
use crate::sync::Arc;

/// The brokers that lead the partitions of one task. The partitions go by their number, as in the
/// claim.
pub(crate) trait Wire: Send + Sync + 'static {
    /// What was sent and is not answered.
    type Ticket: Send + 'static;
    type Outbound: Outbound<Ticket = Self::Ticket>;
    type Inbound: Inbound<Ticket = Self::Ticket>;

    /// Who leads a partition; `former` was given up. Does not wait for long: then it fails.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such partition, `Closed` after a shutdown.
    fn leader(&self, lane: usize, former: Option<Leader>) -> Result<Leader>;

    /// Connects to a broker: one attempt, after a pause if the last one failed.
    ///
    /// # Errors
    ///
    /// `Closed` after a shutdown.
    fn connect(&self, node: i32) -> Result<(Self::Outbound, Self::Inbound)>;

    /// Ends the waits of all threads in here, with `Closed`.
    fn shut_down(&self);
}

/// The half of a connection that sends. Dropping either half closes both.
pub(crate) trait Outbound: Send + 'static {
    /// See [`Wire::Ticket`].
    type Ticket;

    /// Sends one batch for each of some partitions, in one request.
    fn send(&mut self, batches: &[(usize, &[u8])]) -> Result<Self::Ticket>;
}

/// The half that receives.
pub(crate) trait Inbound: Send + 'static {
    /// See [`Wire::Ticket`].
    type Ticket;

    /// Waits for the answer to the oldest request that has none, hands what it says of each
    /// partition to `visit`, and returns when the request was sent, by the wall clock.
    fn receive(
        &mut self,
        ticket: &Self::Ticket,
        visit: &mut dyn FnMut(usize, Answer<'_>),
    ) -> Result<u64>;
}

/// How long a question for a leader may take before other partitions have their turn.
const LEADER_WAIT: Duration = Duration::from_secs(1);
/// Acknowledged by all replicas that are in sync.
const ACKS_ALL: i16 = -1;

/// The real brokers.
#[derive(Debug)]
pub(crate) struct Brokers {
    cluster: Cluster,
    names: Arc<Names>,
}

/// How requests and answers name what the threads number.
#[derive(Debug)]
struct Names {
    partitions: Vec<Partition>,
    /// By topic and partition, the place among `partitions`.
    lanes: HashMap<String, HashMap<u32, usize>>,
    /// Of the task, if its records belong to transactions.
    transactional_id: Option<String>,
    /// How long brokers may wait for their replicas.
    timeout_ms: i32,
}

impl Brokers {
    /// For these partitions; `cluster` has a shutdown of its own.
    pub(crate) fn new(
        cluster: Cluster,
        partitions: &[Partition],
        transactional_id: Option<String>,
    ) -> Self {
        let mut lanes: HashMap<String, HashMap<u32, usize>> = HashMap::new();
        for (lane, partition) in partitions.iter().enumerate() {
            let topic = lanes.entry(partition.topic.clone()).or_default();
            topic.insert(partition.partition, lane);
        }
        let timeout = cluster.settings().options().request_timeout;
        let names = Names {
            partitions: partitions.to_vec(),
            lanes,
            transactional_id,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        };
        Self {
            cluster,
            names: Arc::new(names),
        }
    }

    fn deadline(&self, wait: Duration) -> Deadline {
        self.cluster.settings().deadline(wait)
    }
}

impl Wire for Brokers {
    type Ticket = Sent<ProduceRequest<'static>>;
    type Outbound = BrokerOutbound;
    type Inbound = BrokerInbound;

    fn leader(&self, lane: usize, former: Option<Leader>) -> Result<Leader> {
        let partition = &self.names.partitions[lane];
        if let Some(former) = former {
            self.cluster.leader_failed(partition, former);
        }
        self.cluster.leader(partition, self.deadline(LEADER_WAIT))
    }

    fn connect(&self, node: i32) -> Result<(BrokerOutbound, BrokerInbound)> {
        let wait = self.cluster.settings().options().connect_timeout;
        let connection = self.cluster.connect(node, self.deadline(wait))?;
        let (sender, receiver) = connection.split();
        let names = Arc::clone(&self.names);
        let outbound = BrokerOutbound { sender, names };
        let names = Arc::clone(&self.names);
        Ok((outbound, BrokerInbound { receiver, names }))
    }

    fn shut_down(&self) {
        self.cluster.settings().shutdown().begin();
    }
}

#[derive(Debug)]
pub(crate) struct BrokerOutbound {
    sender: Sender,
    names: Arc<Names>,
}

impl Outbound for BrokerOutbound {
    type Ticket = Sent<ProduceRequest<'static>>;

    fn send(&mut self, batches: &[(usize, &[u8])]) -> Result<Self::Ticket> {
        let mut topic_data: Vec<TopicPartitions<'_, ProducePartition<'_>>> = Vec::new();
        for (lane, records) in batches {
            let partition = &self.names.partitions[*lane];
            let data = ProducePartition {
                index: partition.partition.cast_signed(),
                records,
            };
            let known = |topic: &&mut TopicPartitions<'_, _>| topic.name == partition.topic;
            match topic_data.iter_mut().find(known) {
                Some(topic) => topic.partitions.push(data),
                None => topic_data.push(TopicPartitions {
                    name: &partition.topic,
                    partitions: vec![data],
                }),
            }
        }
        let request = ProduceRequest {
            transactional_id: self.names.transactional_id.as_deref(),
            acks: ACKS_ALL,
            timeout_ms: self.names.timeout_ms,
            topic_data,
        };
        // An answer needs nothing of the request that it answers.
        self.sender.send(&request)
    }
}

#[derive(Debug)]
pub(crate) struct BrokerInbound {
    receiver: Receiver,
    names: Arc<Names>,
}

impl Inbound for BrokerInbound {
    type Ticket = Sent<ProduceRequest<'static>>;

    fn receive(
        &mut self,
        ticket: &Self::Ticket,
        visit: &mut dyn FnMut(usize, Answer<'_>),
    ) -> Result<u64> {
        let response = self.receiver.receive(ticket)?;
        for topic in &response.responses {
            let lanes = self.names.lanes.get(topic.name);
            for partition in &topic.partitions {
                let index = u32::try_from(partition.index).ok();
                let lane = index.and_then(|index| lanes?.get(&index));
                if let Some(lane) = lane {
                    let answer = Answer {
                        code: partition.error_code,
                        base_offset: partition.base_offset,
                        message: partition.error_message,
                    };
                    visit(*lane, answer);
                }
            }
        }
        Ok(ticket.wall_ms)
    }
}
