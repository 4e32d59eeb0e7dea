//! Where partitions start and end, and the facts by which they are recognised.

use super::answers::{Next, next};
use crate::changelog::{Bounds, Offset, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::cluster::{Cluster, Leader};
use crate::kafka::connection::{Backoff, Connection, Deadline};
use crate::kafka::protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, EARLIEST_TIMESTAMP, IsolationLevel,
    LATEST_TIMESTAMP, ListOffsetsPartition, ListOffsetsRequest, OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition, RESOURCE_TOPIC, TopicPartitions,
};
use crate::kafka::protocol::{ErrorCode, Request};

/// How long a tombstone is kept where nobody tells: what brokers do by default.
const TOMBSTONE_RETENTION_MS: u64 = 24 * 60 * 60 * 1000;
const RETENTION: &str = "delete.retention.ms";
const POLICY: &str = "cleanup.policy";

/// Where `partition` starts and ends and who it is; `None` if it does not exist. The end is that
/// of committed records.
pub(crate) fn bounds(
    cluster: &Cluster,
    partition: &Partition,
    deadline: Deadline,
) -> Result<Option<Bounds>> {
    let topic = cluster.topic(&partition.topic, deadline)?;
    let Some(topic) = topic.filter(|topic| partition.partition < topic.partitions) else {
        return Ok(None);
    };
    let read_committed = IsolationLevel::ReadCommitted;
    let start = list_offset(
        cluster,
        partition,
        EARLIEST_TIMESTAMP,
        read_committed,
        deadline,
    )?;
    let end = list_offset(
        cluster,
        partition,
        LATEST_TIMESTAMP,
        read_committed,
        deadline,
    )?;
    let tombstone_retention_ms = tombstone_retention_ms(cluster, &partition.topic, deadline)?;
    let leader = cluster.leader(partition, deadline)?;
    if leader.topic_id != topic.id {
        return Err(Error::new(
            ErrorKind::Changelog,
            format!(
                "topic {} was created anew while it was looked at",
                partition.topic
            ),
        ));
    }
    Ok(Some(Bounds {
        cluster: cluster.id(deadline)?,
        topic_id: topic.id,
        start,
        // Both are asked one after the other: a trim may come between.
        end: end.max(start),
        leader_epoch: leader.epoch,
        tombstone_retention_ms,
        tombstones_dropped_below: Offset(0),
    }))
}

/// Where each partition ends now, uncommitted records included.
pub(crate) fn end_offsets(
    cluster: &Cluster,
    partitions: &[Partition],
    deadline: Deadline,
) -> Result<Vec<Offset>> {
    let all = IsolationLevel::ReadUncommitted;
    partitions
        .iter()
        .map(|partition| list_offset(cluster, partition, LATEST_TIMESTAMP, all, deadline))
        .collect()
}

/// Where the partition starts and ends now, uncommitted records included.
pub(super) fn log_bounds(
    cluster: &Cluster,
    partition: &Partition,
    deadline: Deadline,
) -> Result<(Offset, Offset)> {
    let all = IsolationLevel::ReadUncommitted;
    Ok((
        list_offset(cluster, partition, EARLIEST_TIMESTAMP, all, deadline)?,
        list_offset(cluster, partition, LATEST_TIMESTAMP, all, deadline)?,
    ))
}

/// Where the records end that leaders up to `epoch` took; a position of that epoch above it is of
/// records that the log has lost. `None` where the brokers cannot tell.
pub(crate) fn end_of_epoch(
    cluster: &Cluster,
    partition: &Partition,
    epoch: i32,
    deadline: Deadline,
) -> Result<Option<Offset>> {
    let ask = |connection: &mut Connection, leader: Leader| {
        let response = connection.call(&OffsetForLeaderEpochRequest {
            topics: one(
                partition,
                OffsetForLeaderPartition {
                    partition: partition.partition.cast_signed(),
                    current_leader_epoch: leader.epoch,
                    leader_epoch: epoch,
                },
            ),
        })?;
        let answers = response.topics.iter().flat_map(|topic| &topic.partitions);
        let answer = only(OffsetForLeaderEpochRequest::NAME, partition, answers)?;
        Ok((answer.error_code, answer.end_offset))
    };
    match ask_leader(cluster, partition, deadline, ask) {
        // The leader knows no epoch so old.
        Ok(-1) => Ok(None),
        Ok(end) => offset(partition, end).map(Some),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(error) => Err(error),
    }
}

fn list_offset(
    cluster: &Cluster,
    partition: &Partition,
    timestamp: i64,
    isolation_level: IsolationLevel,
    deadline: Deadline,
) -> Result<Offset> {
    let answer = ask_leader(cluster, partition, deadline, |connection, leader| {
        let response = connection.call(&ListOffsetsRequest {
            isolation_level,
            topics: one(
                partition,
                ListOffsetsPartition {
                    partition_index: partition.partition.cast_signed(),
                    current_leader_epoch: leader.epoch,
                    timestamp,
                },
            ),
        })?;
        let answers = response.topics.iter().flat_map(|topic| &topic.partitions);
        let answer = only(ListOffsetsRequest::NAME, partition, answers)?;
        Ok((answer.error_code, answer.offset))
    })?;
    offset(partition, answer)
}

fn offset(partition: &Partition, offset: i64) -> Result<Offset> {
    u64::try_from(offset)
        .map(Offset)
        .map_err(|_| Error::corruption(format!("{partition}: the leader tells of offset {offset}")))
}

fn one<P>(partition: &Partition, asked: P) -> Vec<TopicPartitions<'_, P>> {
    vec![TopicPartitions {
        name: &partition.topic,
        partitions: vec![asked],
    }]
}

/// The answer about the one partition that was asked about.
fn only<'r, P>(
    api: &str,
    partition: &Partition,
    mut answers: impl Iterator<Item = &'r P>,
) -> Result<&'r P> {
    match (answers.next(), answers.next()) {
        (Some(answer), None) => Ok(answer),
        _ => Err(Error::corruption(format!(
            "{api} response: not one answer about {partition}"
        ))),
    }
}

/// Asks the leader until it answers.
fn ask_leader<T>(
    cluster: &Cluster,
    partition: &Partition,
    deadline: Deadline,
    ask: impl Fn(&mut Connection, Leader) -> Result<(ErrorCode, T)>,
) -> Result<T> {
    let settings = cluster.settings();
    let mut backoff = Backoff::requests();
    loop {
        let leader = cluster.leader(partition, deadline)?;
        let asked = cluster.ask_broker(leader.node, deadline, |connection| ask(connection, leader));
        let error = match asked {
            Ok((code, answer)) => match next(code) {
                Next::Take => return Ok(answer),
                Next::Refused => return Err(refused(partition, code)),
                Next::Refresh | Next::Again | Next::Once | Next::Bounds => refused(partition, code),
            },
            Err(error) if is_passing(&error) => error,
            Err(error) => return Err(error),
        };
        cluster.leader_failed(partition, leader);
        if deadline.is_over(settings.env()) {
            let what = format!("{partition}: no answer in time");
            return Err(Error::new(ErrorKind::Changelog, what).with_source(error));
        }
        settings.pause(backoff.next(settings.env().random_u64()), deadline)?;
    }
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Corruption)
}

fn refused(partition: &Partition, code: ErrorCode) -> Error {
    Error::new(ErrorKind::Changelog, format!("{partition}: {code}"))
}

/// How long the topic keeps tombstones; `None`: for ever.
fn tombstone_retention_ms(
    cluster: &Cluster,
    topic: &str,
    deadline: Deadline,
) -> Result<Option<u64>> {
    let settings = cluster.settings();
    let mut backoff = Backoff::requests();
    loop {
        let asked = cluster.ask_any(deadline, |connection| describe(connection, topic));
        let error = match asked {
            Ok(Ok(retention_ms)) => return Ok(retention_ms),
            // Brokers that do not tell (or not us) are taken at their word or at their default.
            Ok(Err(
                ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
            )) => return assumed_retention_ms(cluster),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return assumed_retention_ms(cluster);
            }
            Ok(Err(code)) => match next(code) {
                Next::Refresh | Next::Again => topic_error(topic, code),
                _ => return Err(topic_error(topic, code)),
            },
            Err(error) if is_passing(&error) => error,
            Err(error) => return Err(error),
        };
        if deadline.is_over(settings.env()) {
            let what = format!("settings of topic {topic}: no answer in time");
            return Err(Error::new(ErrorKind::Changelog, what).with_source(error));
        }
        settings.pause(backoff.next(settings.env().random_u64()), deadline)?;
    }
}

fn topic_error(topic: &str, code: ErrorCode) -> Error {
    Error::new(
        ErrorKind::Changelog,
        format!("settings of topic {topic}: {code}"),
    )
}

fn describe(connection: &mut Connection, topic: &str) -> Result<Result<Option<u64>, ErrorCode>> {
    let response = connection.call(&DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: topic,
            // As other clients ask; not everybody who answers that understands names.
            configuration_keys: None,
        }],
    })?;
    let Some(result) = response.results.first() else {
        return Err(Error::corruption("DescribeConfigs response: no result"));
    };
    if !result.error_code.is_ok() {
        return Ok(Err(result.error_code));
    }
    let value = |name| {
        let config = result.configs.iter().find(|config| config.name == name);
        // Some tell only what differs from their defaults.
        config.and_then(|config| config.value).ok_or_else(|| {
            Error::unsupported(format!(
                "DescribeConfigs response: topic {topic} has no {name}"
            ))
        })
    };
    retention_ms(value(POLICY)?, value(RETENTION)?).map(Ok)
}

/// What the settings of a topic say about its tombstones.
fn retention_ms(policy: &str, retention: &str) -> Result<Option<u64>> {
    // Without compaction a tombstone goes when everything of its age goes.
    if !policy.split(',').any(|policy| policy.trim() == "compact") {
        return Ok(None);
    }
    retention.trim().parse().map(Some).map_err(|_| {
        Error::corruption(format!(
            "DescribeConfigs response: {RETENTION} is {retention:?}"
        ))
    })
}

/// The retention that topics are created with, or the brokers' default.
fn assumed_retention_ms(cluster: &Cluster) -> Result<Option<u64>> {
    let configs = &cluster.settings().options().topics.configs;
    let Some((_, value)) = configs.iter().find(|(name, _)| name == RETENTION) else {
        return Ok(Some(TOMBSTONE_RETENTION_MS));
    };
    let value = value.trim().parse();
    value
        .map(Some)
        .map_err(|_| Error::invalid(format!("the option {RETENTION} is no number")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::changelog::Reader as _;
    use crate::env::sim::SimEnv;
    use crate::kafka::cluster::fixture::{
        EPOCH_END, FETCH, Hosts, METADATA, epoch_end, fetched, metadata,
    };
    use crate::kafka::connection::Settings;
    use crate::kafka::fetcher::FetchReader;
    use crate::kafka::options::KafkaOptions;
    use crate::sync::Arc;

    #[test]
    fn only_compacted_topics_lose_tombstones_alone() {
        assert_eq!(
            retention_ms("compact", "86400000").unwrap(),
            Some(86_400_000)
        );
        assert_eq!(retention_ms("delete, compact", "0").unwrap(), Some(0));
        assert_eq!(retention_ms("delete", "5").unwrap(), None);
        for retention in ["", "-1", "a day"] {
            let error = retention_ms("compact", retention).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{retention}");
        }
    }

    #[test]
    fn a_missing_or_negative_answer_is_an_error_and_never_zero() {
        let partition = Partition::new("t", 1);
        assert_eq!(offset(&partition, 0).unwrap(), Offset(0));
        for wrong in [-1, i64::MIN] {
            let error = offset(&partition, wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
        }
        assert_eq!(*only("A", &partition, [7].iter()).unwrap(), 7);
        for answers in [&[][..], &[1, 2]] {
            let error = only("A", &partition, answers.iter()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
        }
    }

    /// Two brokers, of which the second has somebody else's certificate, and leads as long as
    /// `refused` questions for metadata. Each takes some seconds.
    fn led_by_one_that_refuses(refused: usize) -> Cluster {
        let env = Arc::new(SimEnv::new(1));
        let clock = Arc::clone(&env);
        let mut asked = 0;
        let hosts = Hosts::new(move |host, request| match (request.api_key, host) {
            (METADATA, _) => {
                clock.advance(Duration::from_secs(5));
                asked += 1;
                metadata(&["good", "bad"], if asked > refused { 1 } else { 2 })
            }
            (EPOCH_END, "good") => epoch_end(0, 17),
            (FETCH, "good") => fetched(17),
            other => panic!("{other:?}"),
        });
        let options = KafkaOptions::new("good:9092")
            .env(env)
            .connector(hosts)
            .operation_timeout(Duration::from_secs(20));
        Cluster::new(Settings::new(options).unwrap())
    }

    #[test]
    fn a_leader_that_does_not_prove_who_it_is_is_waited_for_and_named() {
        let partition = Partition::new("t", 0);
        let end = |cluster: &Cluster| {
            let deadline = cluster.settings().operation_deadline();
            end_of_epoch(cluster, &partition, 7, deadline)
        };
        let read = |cluster: Cluster| {
            let mut reader = FetchReader::new(cluster, partition.clone(), Offset(17), None)?;
            reader.fetch(&mut |_, _| Ok(()))
        };
        assert_eq!(end(&led_by_one_that_refuses(2)).unwrap(), Some(Offset(17)));
        assert!(read(led_by_one_that_refuses(3)).unwrap().at_end);
        for error in [
            end(&led_by_one_that_refuses(usize::MAX)).unwrap_err(),
            read(led_by_one_that_refuses(usize::MAX)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Changelog);
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("bad:9092"), "{error}: {cause}");
        }
    }
}
