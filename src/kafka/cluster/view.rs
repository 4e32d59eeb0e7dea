//! What is known of a cluster: plain data, and how an answer changes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Expirations, Leader, Topic};
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::{Address, Backoff, Deadline};
use crate::kafka::protocol::ErrorCode;
use crate::kafka::protocol::messages::{MetadataResponse, MetadataTopic};

/// For how long nobody asks again about what brokers did not tell.
const ASSUMED_AGE_MAX: Duration = Duration::from_secs(5);

/// What the brokers said, and when.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) cluster_id: Option<String>,
    pub(super) controller: Option<i32>,
    pub(super) brokers: BTreeMap<i32, Address>,
    topics: HashMap<String, Known>,
    /// When the brokers were asked, by the monotonic clock, for how long they remember idle
    /// producers and transactional ids; and what is known of it.
    expirations: Option<(Duration, Expirations)>,
    /// Brokers that could not be reached, and when to try again.
    pub(super) unreachable: HashMap<i32, (Backoff, Deadline)>,
}

/// A topic.
#[derive(Debug)]
struct Known {
    topic: Topic,
    /// By partition; `None` where there is none.
    leaders: Vec<Option<Leader>>,
    /// When the brokers said so, by the monotonic clock.
    asked: Duration,
    /// A leader of it turned out to be wrong.
    is_doubtful: bool,
}

/// What an answer says of one topic.
#[derive(Debug)]
pub(super) enum Answer {
    Is(Topic),
    /// The brokers know no such topic.
    Missing,
    /// It is there, but there is no telling who leads it; ask again.
    Undecided(Error),
}

/// A leader as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nothing speaks against it.
    Known(Leader),
    /// It has failed, or the answer is old.
    Doubtful(Option<Leader>),
    /// The topic has fewer partitions.
    NoPartition,
    /// Nobody asked yet, or there is no such topic.
    NoTopic,
}

impl View {
    /// Takes in an answer that was asked for at `asked`.
    ///
    /// # Errors
    ///
    /// `Diverged` for an answer of another cluster.
    pub(super) fn merge(&mut self, asked: Duration, answer: &MetadataResponse<'_>) -> Result<()> {
        let cluster_id = answer.cluster_id.unwrap_or_default();
        match &self.cluster_id {
            Some(known) if known != cluster_id => {
                return Err(Error::new(
                    ErrorKind::Diverged,
                    format!("a broker belongs to cluster {cluster_id:?}, the others to {known:?}"),
                ));
            }
            _ => self.cluster_id = Some(cluster_id.to_owned()),
        }
        self.controller = Some(answer.controller_id).filter(|node| *node >= 0);
        self.brokers.clear();
        for broker in &answer.brokers {
            let Ok(port) = u16::try_from(broker.port) else {
                let what = format!("broker {} has port {}", broker.node_id, broker.port);
                return Err(Error::corruption(what));
            };
            let host = broker.host.to_owned();
            self.brokers.insert(broker.node_id, Address { host, port });
        }
        let brokers = &self.brokers;
        self.unreachable
            .retain(|node, _| brokers.contains_key(node));
        for topic in &answer.topics {
            self.merge_topic(asked, topic)?;
        }
        Ok(())
    }

    /// What was found of the expirations, unless it is older than `age_max`.
    pub(super) fn expirations(&self, now: Duration, age_max: Duration) -> Option<Expirations> {
        let (asked, known) = self.expirations?;
        let age_max = if known.is_assumed {
            age_max.min(ASSUMED_AGE_MAX)
        } else {
            age_max
        };
        (now.saturating_sub(asked) < age_max).then_some(known)
    }

    /// Takes in what was found, and answers what is known then. What is assumed, because a broker
    /// did not answer, makes nothing longer that is known already.
    pub(super) fn set_expirations(&mut self, now: Duration, found: Expirations) -> Expirations {
        let mut taken = found;
        if let (true, Some((_, known))) = (found.is_assumed, self.expirations) {
            taken.producer_id = taken.producer_id.min(known.producer_id);
            taken.transactional_id = taken.transactional_id.min(known.transactional_id);
        }
        self.expirations = Some((now, taken));
        taken
    }

    fn merge_topic(&mut self, asked: Duration, answer: &MetadataTopic<'_>) -> Result<()> {
        let Some(name) = answer.name else {
            return Ok(());
        };
        if answer.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            self.topics.remove(name);
            return Ok(());
        }
        if !answer.error_code.is_ok() {
            return Ok(());
        }
        let id = answer.topic_id;
        let count = answer.partitions.len();
        let mut leaders = vec![None; count];
        for partition in &answer.partitions {
            let index = usize::try_from(partition.partition_index).ok();
            let Some(slot) = index.and_then(|index| leaders.get_mut(index)) else {
                let index = partition.partition_index;
                let what = format!("topic {name} has partition {index} of {count}");
                return Err(Error::corruption(what));
            };
            // With an error beside it the leader is still the one to ask.
            *slot = (partition.leader_id >= 0).then_some(Leader {
                node: partition.leader_id,
                epoch: partition.leader_epoch,
                topic_id: id,
            });
        }
        if let Some(known) = self.topics.get(name).filter(|known| known.topic.id == id) {
            // A broker that is behind must not bring back a former leader.
            for (slot, former) in leaders.iter_mut().zip(&known.leaders) {
                let epoch = |leader: &Option<Leader>| leader.map_or(-1, |leader| leader.epoch);
                if slot.is_some() && epoch(slot) < epoch(former) {
                    *slot = *former;
                }
            }
        }
        let partitions = u32::try_from(count).unwrap_or(u32::MAX);
        let known = Known {
            topic: Topic { id, partitions },
            leaders,
            asked,
            is_doubtful: false,
        };
        self.topics.insert(name.to_owned(), known);
        Ok(())
    }

    /// What the view has of a partition's leader; older than `oldest` it is doubtful.
    pub(super) fn leader(&self, partition: &Partition, oldest: Duration) -> Lead {
        let Some(known) = self.topics.get(&partition.topic) else {
            return Lead::NoTopic;
        };
        let is_doubtful = known.is_doubtful || known.asked < oldest;
        let leader = usize::try_from(partition.partition)
            .ok()
            .and_then(|index| known.leaders.get(index));
        match leader {
            Some(Some(leader)) if !is_doubtful => Lead::Known(*leader),
            Some(leader) => Lead::Doubtful(*leader),
            None if is_doubtful => Lead::Doubtful(None),
            None => Lead::NoPartition,
        }
    }

    /// When the brokers were last asked for a topic that they know.
    pub(super) fn asked(&self, topic: &str) -> Option<Duration> {
        self.topics.get(topic).map(|known| known.asked)
    }

    /// Marks the topic of a leader that failed, if the view still has that one.
    pub(super) fn doubt(&mut self, partition: &Partition, leader: Leader) {
        let Some(known) = self.topics.get_mut(&partition.topic) else {
            return;
        };
        let index = usize::try_from(partition.partition).unwrap_or(usize::MAX);
        if known.leaders.get(index) == Some(&Some(leader)) {
            known.is_doubtful = true;
        }
    }

    /// Marks all topics that a broker leads, which could not be reached.
    pub(super) fn doubt_node(&mut self, node: i32) {
        for known in self.topics.values_mut() {
            let mut leaders = known.leaders.iter().flatten();
            known.is_doubtful |= leaders.any(|leader| leader.node == node);
        }
    }

    /// `topic` and all that are in doubt, to be asked for in one request.
    pub(super) fn to_ask<'v>(&'v self, topic: Option<&'v str>) -> BTreeSet<&'v str> {
        let doubtful = self.topics.iter().filter(|(_, known)| known.is_doubtful);
        let names = doubtful.map(|(name, _)| name.as_str());
        names.chain(topic).collect()
    }
}

/// What `answer` says of `topic`.
///
/// # Errors
///
/// `Changelog` if this user may not know it, `InvalidArgument` for a name that no topic has.
pub(super) fn answer_for(answer: &MetadataResponse<'_>, topic: &str) -> Result<Answer> {
    let found = answer.topics.iter().find(|found| found.name == Some(topic));
    let Some(found) = found else {
        let what = format!("the answer has nothing on topic {topic}");
        return Err(Error::corruption(what));
    };
    let code = found.error_code;
    let error = |kind| Error::new(kind, format!("topic {topic}: {code}"));
    Ok(match code {
        ErrorCode::NONE => Answer::Is(Topic {
            id: found.topic_id,
            partitions: u32::try_from(found.partitions.len()).unwrap_or(u32::MAX),
        }),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => Answer::Missing,
        ErrorCode::INVALID_TOPIC_EXCEPTION => return Err(error(ErrorKind::InvalidArgument)),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            return Err(error(ErrorKind::Changelog));
        }
        _ => Answer::Undecided(error(ErrorKind::Changelog)),
    })
}
