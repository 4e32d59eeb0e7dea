//! Creating, describing, deleting and trimming changelog topics.

use crate::changelog::{Offset, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::cluster::{Cluster, Topic};
use crate::kafka::connection::{Backoff, Connection, Deadline};
use crate::kafka::protocol::ErrorCode;
use crate::kafka::protocol::messages::{
    CreatableTopic, CreateTopicsRequest, DeleteRecordsPartition, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, DescribeConfigsResource, RESOURCE_TOPIC,
    TopicPartitions,
};

/// Longest name of a topic, in bytes.
const TOPIC_LEN_MAX: usize = 249;

/// How changelog topics are created, and what existing ones are compared with.
///
/// Unless set otherwise: as many partitions as the task that creates it needs, the brokers'
/// default replication, log compaction, the producer's compression and timestamps, no unclean
/// leader election, segments of 256 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    pub(crate) create: bool,
    pub(crate) partitions: Option<u32>,
    pub(crate) replication_factor: Option<u16>,
    pub(crate) configs: Vec<(String, String)>,
}

impl Default for TopicOptions {
    fn default() -> Self {
        let configs = [
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("message.timestamp.type", "CreateTime"),
            ("unclean.leader.election.enable", "false"),
            ("segment.bytes", "268435456"),
            ("min.cleanable.dirty.ratio", "0.3"),
        ];
        Self::with_configs(&configs)
    }
}

impl TopicOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// What Kafka Streams gives the changelog of a key-value store.
    pub fn kafka_streams() -> Self {
        Self::with_configs(&[
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "CreateTime"),
        ])
    }

    /// What Samza gives a changelog.
    pub fn samza() -> Self {
        let configs = [
            ("cleanup.policy", "compact"),
            ("segment.bytes", "536870912"),
            ("max.message.bytes", "1000012"),
            ("delete.retention.ms", "86400000"),
            ("min.compaction.lag.ms", "14400000"),
        ];
        Self::with_configs(&configs).replication_factor(2)
    }

    fn with_configs(configs: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            create: true,
            partitions: None,
            replication_factor: None,
            configs: configs.iter().map(owned).collect(),
        }
    }

    /// Whether a missing topic is created. It is unless set; else it is `NotFound`.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How many partitions a topic is created with: as many as the job has tasks, for they cannot
    /// be added later without moving keys. Unless set, as many as the creating task needs.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// How many brokers hold each partition; from 3 on, two of them must have each commit
    /// (`min.insync.replicas`). The brokers' default unless set.
    #[must_use]
    pub fn replication_factor(mut self, factor: u16) -> Self {
        self.replication_factor = Some(factor);
        if factor >= 3 {
            return self.config("min.insync.replicas", "2");
        }
        self
    }

    /// Sets one of the topic's configurations, by Kafka's name for it.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.configs.retain(|(known, _)| *known != name);
        self.configs.push((name, value.into()));
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let partitions = self.partitions.unwrap_or(1);
        if partitions == 0 || partitions > 100_000 {
            return Err(Error::invalid(format!(
                "topics of {partitions} partitions, allowed are 1 to 100000"
            )));
        }
        let factor = self.replication_factor.unwrap_or(1);
        if i16::try_from(factor).is_err() || factor == 0 {
            return Err(Error::invalid(format!(
                "a replication factor of {factor}, allowed are 1 to 32767"
            )));
        }
        let mut texts = self.configs.iter().flat_map(|(name, value)| [name, value]);
        if let Some(text) = texts.find(|text| text.len() > TOPIC_LEN_MAX) {
            return Err(Error::invalid(format!(
                "a topic's configuration of {} bytes, at most {TOPIC_LEN_MAX} are allowed",
                text.len()
            )));
        }
        Ok(())
    }
}

/// Where an existing topic is not what the options say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDifference {
    /// Kafka's name of the configuration, or `partitions` for how many there are.
    pub name: String,
    /// What the options say.
    pub wanted: String,
    /// What the topic has; `None` where the broker does not tell.
    pub found: Option<String>,
}

/// Looks after changelog topics. All calls block until `deadline`, with errors as the
/// [`Cluster`]'s.
#[derive(Debug)]
pub(crate) struct Topics<'c> {
    cluster: &'c Cluster,
}

impl<'c> Topics<'c> {
    pub(crate) fn new(cluster: &'c Cluster) -> Self {
        Self { cluster }
    }

    /// Whether the brokers know such a topic.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for what cannot be the name of one.
    pub(crate) fn exists(&self, topic: &str, deadline: Deadline) -> Result<bool> {
        check_topic(topic)?;
        Ok(self.cluster.topic(topic, deadline)?.is_some())
    }

    /// The topic of that name; creates it, with at least `partitions_min` partitions, if it is
    /// missing and the options allow that. Waits until the brokers know it.
    ///
    /// # Errors
    ///
    /// `NotFound` if it may not be created; `InvalidArgument` for a name or a configuration that
    /// brokers refuse, and for a topic that has fewer partitions.
    pub(crate) fn ensure(
        &self,
        topic: &str,
        partitions_min: u32,
        deadline: Deadline,
    ) -> Result<Topic> {
        check_topic(topic)?;
        let settings = self.cluster.settings();
        let mut backoff = Backoff::requests();
        loop {
            if let Some(found) = self.cluster.topic(topic, deadline)? {
                if found.partitions < partitions_min {
                    return Err(Error::invalid(format!(
                        "topic {topic} has {} partitions, {partitions_min} are needed",
                        found.partitions
                    )));
                }
                return Ok(found);
            }
            if !settings.options().topics.create {
                let what = format!("topic {topic} does not exist and may not be created");
                return Err(Error::new(ErrorKind::NotFound, what));
            }
            if deadline.is_over(settings.env()) {
                let what = format!("topic {topic} was created but the brokers do not show it");
                return Err(Error::new(ErrorKind::Changelog, what));
            }
            self.create(topic, partitions_min, deadline)?;
            settings.pause(backoff.next(settings.env().random_u64()), deadline)?;
        }
    }

    /// Creates a topic; one that is there already is fine.
    fn create(&self, topic: &str, partitions_min: u32, deadline: Deadline) -> Result<()> {
        let options = &self.cluster.settings().options().topics;
        let partitions = options.partitions.unwrap_or(0).max(partitions_min).max(1);
        let factor = options.replication_factor.map(i16::try_from);
        let configs = options.configs.iter();
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic,
                num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
                replication_factor: factor.and_then(Result::ok).unwrap_or(-1),
                configs: configs
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect(),
            }],
            timeout_ms: self.timeout_ms(),
            validate_only: false,
        };
        self.at_controller("create", topic, deadline, |connection| {
            let response = connection.call(&request)?;
            let found = response.topics.iter().find(|found| found.name == topic);
            let found = found.ok_or_else(|| missing_answer(topic))?;
            let message = found.error_message.unwrap_or_default().to_owned();
            Ok((found.error_code, message))
        })
    }

    /// Compares a topic with the options. Empty: nothing differs. What was not set in the options
    /// is not looked at.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; `Unsupported` if the brokers do not describe; `Changelog`.
    pub(crate) fn differences(
        &self,
        topic: &str,
        deadline: Deadline,
    ) -> Result<Vec<TopicDifference>> {
        let options = &self.cluster.settings().options().topics;
        let names: Vec<&str> = options.configs.iter().map(|(name, _)| &**name).collect();
        let found = self.configs(topic, &names, deadline)?;
        let wanted = options.configs.iter().zip(found);
        let different = wanted.filter(|((_, wanted), found)| found.as_ref() != Some(wanted));
        let different = different.map(|((name, wanted), found)| TopicDifference {
            name: name.clone(),
            wanted: wanted.clone(),
            found,
        });
        let mut differences: Vec<_> = different.collect();
        let partitions = self.cluster.topic(topic, deadline)?;
        let found = partitions.map(|topic| topic.partitions);
        if let Some(wanted) = options.partitions.filter(|wanted| Some(*wanted) != found) {
            differences.push(TopicDifference {
                name: "partitions".to_owned(),
                wanted: wanted.to_string(),
                found: found.map(|found| found.to_string()),
            });
        }
        Ok(differences)
    }

    /// The values of a topic's configurations, in the order of `names`; `None` where the broker
    /// does not tell.
    ///
    /// # Errors
    ///
    /// As [`differences`](Self::differences).
    fn configs(
        &self,
        topic: &str,
        names: &[&str],
        deadline: Deadline,
    ) -> Result<Vec<Option<String>>> {
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: RESOURCE_TOPIC,
                resource_name: topic,
                // As other clients ask; not everybody who answers that understands names.
                configuration_keys: None,
            }],
        };
        let mut values = Vec::new();
        self.at_controller("describe", topic, deadline, |connection| {
            let response = connection.call(&request)?;
            let result = response.results.first();
            let result = result.ok_or_else(|| missing_answer(topic))?;
            let value = |name: &&str| {
                let config = result.configs.iter().find(|config| config.name == *name);
                config.and_then(|config| config.value.map(str::to_owned))
            };
            values = names.iter().map(value).collect();
            let message = result.error_message.unwrap_or_default().to_owned();
            Ok((result.error_code, message))
        })?;
        Ok(values)
    }

    /// Deletes a topic with all that is in it. For tools.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none.
    pub(crate) fn delete(&self, topic: &str, deadline: Deadline) -> Result<()> {
        let request = DeleteTopicsRequest {
            topic_names: vec![topic],
            timeout_ms: self.timeout_ms(),
        };
        self.at_controller("delete", topic, deadline, |connection| {
            let response = connection.call(&request)?;
            let found = response.responses.iter().find(|found| found.name == topic);
            let found = found.ok_or_else(|| missing_answer(topic))?;
            Ok((found.error_code, String::new()))
        })
    }

    /// Deletes the records below `before`, which brokers allow for topics whose cleanup policy
    /// has `delete`. Returns where the partition starts now. For tools.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the topic's policy forbids it or the offset is beyond the end.
    pub(crate) fn trim(
        &self,
        partition: &Partition,
        before: Offset,
        deadline: Deadline,
    ) -> Result<Offset> {
        let index = i32::try_from(partition.partition).unwrap_or(i32::MAX);
        let request = DeleteRecordsRequest {
            topics: vec![TopicPartitions {
                name: &partition.topic,
                partitions: vec![DeleteRecordsPartition {
                    partition_index: index,
                    offset: i64::try_from(before.0).unwrap_or(i64::MAX),
                }],
            }],
            timeout_ms: self.timeout_ms(),
        };
        let mut start = Offset(0);
        let settings = self.cluster.settings();
        let mut backoff = Backoff::requests();
        loop {
            let leader = self.cluster.leader(partition, deadline)?;
            let asked = self
                .cluster
                .connect(leader.node, deadline)
                .and_then(|mut connection| {
                    connection.set_limit(deadline);
                    let response = connection.call(&request)?;
                    let found = response.topics.first();
                    let found = found.and_then(|topic| topic.partitions.first());
                    let found = found.ok_or_else(|| missing_answer(&partition.topic))?;
                    start = Offset(u64::try_from(found.low_watermark).unwrap_or(0));
                    outcome("trim", &partition.topic, found.error_code, "")
                });
            match asked {
                Ok(()) => return Ok(start),
                Err(error) if !may_pass(&error) || deadline.is_over(settings.env()) => {
                    return Err(error);
                }
                Err(_) => self.cluster.leader_failed(partition, leader),
            }
            settings.pause(backoff.next(settings.env().random_u64()), deadline)?;
        }
    }

    /// Runs `ask` on a connection to the controller until its answer is final.
    fn at_controller(
        &self,
        what: &str,
        topic: &str,
        deadline: Deadline,
        mut ask: impl FnMut(&mut Connection) -> Result<(ErrorCode, String)>,
    ) -> Result<()> {
        let settings = self.cluster.settings();
        let mut backoff = Backoff::requests();
        loop {
            let mut connection = self.cluster.connect_controller(deadline)?;
            connection.set_limit(deadline);
            let done = ask(&mut connection)
                .and_then(|(code, message)| outcome(what, topic, code, &message));
            match done {
                Err(error) if may_pass(&error) && !deadline.is_over(settings.env()) => {}
                other => return other,
            }
            settings.pause(backoff.next(settings.env().random_u64()), deadline)?;
        }
    }

    fn timeout_ms(&self) -> i32 {
        let timeout = self.cluster.settings().options().request_timeout;
        i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
    }
}

fn missing_answer(topic: &str) -> Error {
    Error::corruption(format!("the answer has nothing on topic {topic}"))
}

/// `Io` is what may pass, as a broken connection may.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Corruption)
}

fn outcome(what: &str, topic: &str, code: ErrorCode, message: &str) -> Result<()> {
    let kind = match code {
        ErrorCode::NONE | ErrorCode::TOPIC_ALREADY_EXISTS => return Ok(()),
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => ErrorKind::NotFound,
        ErrorCode::REQUEST_TIMED_OUT
        | ErrorCode::NOT_CONTROLLER
        | ErrorCode::NOT_LEADER_OR_FOLLOWER
        | ErrorCode::LEADER_NOT_AVAILABLE
        | ErrorCode::THROTTLING_QUOTA_EXCEEDED
        | ErrorCode::COORDINATOR_NOT_AVAILABLE => ErrorKind::Io,
        ErrorCode::INVALID_TOPIC_EXCEPTION
        | ErrorCode::INVALID_PARTITIONS
        | ErrorCode::INVALID_REPLICATION_FACTOR
        | ErrorCode::INVALID_CONFIG
        | ErrorCode::INVALID_REQUEST
        | ErrorCode::OFFSET_OUT_OF_RANGE
        | ErrorCode::POLICY_VIOLATION => ErrorKind::InvalidArgument,
        _ => ErrorKind::Changelog,
    };
    let colon = if message.is_empty() { "" } else { ": " };
    Err(Error::new(
        kind,
        format!("{what} topic {topic}: {code}{colon}{message}"),
    ))
}

/// What brokers take for the name of a topic.
fn check_topic(topic: &str) -> Result<()> {
    let is_legal = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
    if topic.is_empty()
        || topic.len() > TOPIC_LEN_MAX
        || matches!(topic, "." | "..")
        || !topic.chars().all(is_legal)
    {
        return Err(Error::invalid(format!(
            "topic {topic:?}: allowed are 1 to {TOPIC_LEN_MAX} letters, digits, '.', '_' and '-'"
        )));
    }
    Ok(())
}
