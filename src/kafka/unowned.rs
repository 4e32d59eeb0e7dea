//! Records without an owner, for tests of this crate against brokers that know no fences: what a
//! claimed session needs of them beyond this, they do not have.

use std::time::Duration;

use super::cluster::Cluster;
use super::connection::{Backoff, Settings};
use super::options::KafkaOptions;
use super::producer::{BatchLimits, Brokers, Core, Producer, ProducerOptions, Step, Writer};
use super::protocol::messages::InitProducerIdRequest;
use crate::changelog::{Partition, RecordRef};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Compression;
use crate::sync::Arc;

/// Appends records to a partition by an idempotent producer that fences nobody, `commit_records`
/// at a time. Answers the offset behind the last one.
pub(crate) fn produce(
    options: KafkaOptions,
    partition: &Partition,
    records: &[RecordRef<'_>],
    commit_records: usize,
) -> Result<u64> {
    let cluster = Cluster::new(Settings::new(options)?);
    let options = cluster.settings().options();
    let deadline = cluster.settings().operation_deadline();
    let topic = cluster.topic(&partition.topic, deadline)?;
    let topic =
        topic.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no topic of {partition}")))?;
    let (refused, id, epoch) = cluster.ask_any(deadline, |connection| {
        let given = connection.call(&InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: i32::MAX,
            producer_id: -1,
            producer_epoch: -1,
        })?;
        Ok((given.error_code, given.producer_id, given.producer_epoch))
    })?;
    if !refused.is_ok() {
        let what = format!("InitProducerId: {refused}");
        return Err(Error::new(ErrorKind::Changelog, what));
    }
    let limits = BatchLimits {
        batch_bytes: options.batch_bytes,
        linger: options.linger,
        compression: Compression::Lz4,
        delivery_timeout: Some(options.operation_timeout),
        topic_missing_timeout: options.operation_timeout,
        backoff: Backoff::requests(),
    };
    let writer = Writer {
        id,
        epoch,
        is_transactional: false,
    };
    let core = Core::new(&limits, options.buffer_bytes as u64, writer, &[0]);
    let producer_options = ProducerOptions {
        limits,
        buffer_bytes: options.buffer_bytes as u64,
        request_bytes_max: options.request_bytes_max,
        block_timeout: options.block_timeout,
        topic_ids: vec![topic.id],
    };
    let brokers = Brokers::new(cluster.scoped(), std::slice::from_ref(partition), None);
    let env = Arc::clone(&options.env);
    let producer = Producer::start(brokers, &env, core, producer_options)?;
    for records in records.chunks(commit_records) {
        for record in records {
            producer.reserve(record.size())?;
            producer.append(0, record)?;
        }
        commit(&producer)?;
    }
    let end = producer.board().core.committed(0).0;
    producer.stop();
    Ok(end)
}

/// Waits until all that was appended is acknowledged.
fn commit(producer: &Producer<Brokers>) -> Result<()> {
    /// Somebody else ends the wait.
    const LOOK_AGAIN: Duration = Duration::from_secs(1);
    let mut board = producer.board();
    board.core.prepare();
    drop(board);
    producer.changed();
    let mut board = producer.board();
    loop {
        board.core.check_healthy()?;
        match board.core.step() {
            Step::Commit(_) => {
                board.core.committed_now();
                return Ok(());
            }
            Step::Wait => producer.wait(&mut board, LOOK_AGAIN),
            step => {
                let what = format!("{step:?} is for an owner to do");
                return Err(Error::new(ErrorKind::Changelog, what));
            }
        }
    }
}
