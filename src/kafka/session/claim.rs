//! Becoming the owner of a task.

use std::time::Duration;

use super::super::admin::Topics;
use super::super::cluster::Cluster;
use super::super::connection::Backoff;
use super::super::fetcher;
use super::super::producer::{BatchLimits, Brokers, Core, Producer, ProducerOptions, Writer};
use super::super::transaction::{BrokerCoordinator, Heartbeat, Transactions};
use super::conductor::Conductor;
use super::{Claimed, KafkaSession};
use crate::changelog::{CommitId, Guarantee, Partition};
use crate::error::Result;
use crate::kafka::options::{BatchCompression, KafkaOptions};
use crate::options::Compression;
use crate::sync::Arc;

/// For how long a fence holds for sure, whatever brokers are set to.
const UNKNOWN_MAX: Duration = Duration::from_secs(10);

/// Claims `partitions` for `task`: makes sure that the topics are there, fences the former owner,
/// and finds its own fence in each partition.
pub(in crate::kafka) fn claim(
    cluster: &Cluster,
    task: &str,
    partitions: &[Partition],
) -> Result<KafkaSession> {
    crate::changelog::check_distinct(partitions)?;
    let deadline = cluster.settings().operation_deadline();
    let options = cluster.settings().options();
    let mut topics = Vec::new();
    for partition in partitions {
        let same = partitions
            .iter()
            .filter(|other| other.topic == partition.topic);
        let count = same.map(|other| other.partition.saturating_add(1)).max();
        let count = count.expect("a partition is one of itself");
        topics.push(Topics::new(cluster).ensure(&partition.topic, count, deadline)?);
    }
    let transactional_id = format!("{}{task}", options.transactional_id_prefix);
    let own = cluster.scoped();
    // What lies below these ends was there before the fence.
    let ends = fetcher::end_offsets(cluster, partitions, deadline)?;
    let coordinator = BrokerCoordinator::new(
        own.clone(),
        transactional_id.clone(),
        options.transaction_timeout,
    );
    let transactions = Transactions::claim(coordinator, partitions.to_vec(), deadline)?;
    let identity = transactions.identity();
    let mut claimed = Vec::new();
    for ((partition, topic), end) in partitions.iter().zip(&topics).zip(ends) {
        let fence = fetcher::find_fence(cluster, partition, end, identity, deadline)?;
        claimed.push(Claimed {
            partition: partition.clone(),
            topic_id: topic.id,
            fence,
        });
    }
    let cluster_id = cluster.id(deadline)?;
    start(
        cluster,
        own,
        cluster_id,
        transactions,
        claimed,
        transactional_id,
    )
}

/// Starts the threads of a claimed task.
fn start(
    cluster: &Cluster,
    own: Cluster,
    cluster_id: String,
    transactions: Transactions<BrokerCoordinator>,
    claimed: Vec<Claimed>,
    transactional_id: String,
) -> Result<KafkaSession> {
    let options = cluster.settings().options();
    let identity = transactions.identity();
    let is_transactional = options.guarantee == Guarantee::Atomic;
    let writer = Writer {
        id: identity.id,
        epoch: identity.epoch,
        is_transactional,
    };
    let producer_options = producer_options(options, &claimed);
    let fences: Vec<u64> = claimed.iter().map(|claimed| claimed.fence.0).collect();
    let mut core = Core::new(
        &producer_options.limits,
        producer_options.buffer_bytes,
        writer,
        &fences,
    );
    let fenced_ms = transactions.proved_ms();
    // Until the conductor knows for how long brokers remember the fence.
    let known_max = options.fence_expiration_max.unwrap_or(UNKNOWN_MAX);
    let held_from = transactions.beat_at() + known_max.min(UNKNOWN_MAX) / 2;
    core.owned(fenced_ms, held_from, None);
    let partitions: Vec<Partition> = claimed
        .iter()
        .map(|claimed| claimed.partition.clone())
        .collect();
    let id = is_transactional.then_some(transactional_id);
    let brokers = Brokers::new(own.clone(), &partitions, id);
    let env = Arc::clone(&options.env);
    let producer = Producer::start(brokers, &env, core, producer_options)?;
    let producer = Arc::new(producer);
    let conductor = Conductor {
        cluster: own,
        partitions,
        producer: Arc::clone(&producer),
        transactions,
        is_transactional,
        heartbeat: Heartbeat::default(),
        learn_from: Duration::ZERO,
    };
    let conductor = env.spawn("kafka-conductor", Box::new(move || conductor.run()))?;
    let record_bytes_max = options.record_bytes_max.min(options.buffer_bytes) as u64;
    Ok(KafkaSession {
        cluster: cluster.clone(),
        cluster_id,
        guarantee: options.guarantee,
        owner: identity.owner(),
        claimed,
        fenced_ms,
        producer,
        conductor: Some(conductor),
        record_bytes_max,
        newest: CommitId(0),
        answer: None,
    })
}

fn producer_options(options: &KafkaOptions, claimed: &[Claimed]) -> ProducerOptions {
    let limits = BatchLimits {
        batch_bytes: options.batch_bytes,
        linger: options.linger,
        compression: match options.compression {
            BatchCompression::None => Compression::None,
            BatchCompression::Lz4 => Compression::Lz4,
        },
        delivery_timeout: options.delivery_timeout,
        topic_missing_timeout: options.operation_timeout,
        backoff: Backoff::requests(),
    };
    ProducerOptions {
        limits,
        buffer_bytes: options.buffer_bytes as u64,
        request_bytes_max: options.request_bytes_max,
        block_timeout: options.block_timeout,
        topic_ids: claimed.iter().map(|claimed| claimed.topic_id).collect(),
    }
}
