//! krafka as a client.

use std::time::Duration;

use bytes::Bytes;
use krafka::consumer::{AutoOffsetReset, IsolationLevel};
use krafka::producer::Acks;
use krafka::{Kafka, Record};
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::command::Log;
use crate::measured::Stopwatch;
use crate::ours::{KEY_LEN, VALUE_LEN, count_up};

const PATIENCE: Duration = Duration::from_secs(30);
/// Handles that are kept before the oldest ones are waited for.
const UNDER_WAY_MAX: usize = 100_000;

/// Writes records. The first one waits for connections: it is not measured.
pub(crate) fn produce(log: &Log) -> Outcome<()> {
    Runtime::new()?.block_on(async {
        let kafka = Kafka::builder(&*log.bootstrap).connect().await?;
        let producer = kafka
            .producer()
            .acks(Acks::All)
            .idempotent(true)
            .batch_size(1_000_000)
            .linger(Duration::from_millis(5))
            .buffer_memory(64 << 20)
            .build()
            .await?;
        let (mut key, value) = ([b'0'; KEY_LEN], Bytes::from(vec![b'v'; VALUE_LEN]));
        let record = |key: &[u8]| {
            Record::new(&*log.topic, value.clone())
                .partition(0)
                .key(Bytes::copy_from_slice(key))
        };
        let _ = producer.send(record(&key)).await?;
        let stopwatch = Stopwatch::start();
        let mut under_way = Vec::with_capacity(UNDER_WAY_MAX);
        for _ in 0..log.records {
            count_up(&mut key);
            under_way.push(producer.enqueue(record(&key)).await?);
            if under_way.len() == UNDER_WAY_MAX {
                for handle in under_way.drain(..UNDER_WAY_MAX / 2) {
                    let _ = handle.await?;
                }
            }
        }
        producer.flush().await?;
        for handle in under_way {
            let _ = handle.await?;
        }
        stopwatch.report(log.records);
        producer.close().await?;
        Ok(())
    })
}

/// Reads records, measured from the first one on.
pub(crate) fn fetch(log: &Log) -> Outcome<()> {
    Runtime::new()?.block_on(async {
        let kafka = Kafka::builder(&*log.bootstrap).connect().await?;
        let consumer = kafka
            .consumer_without_group()
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .isolation_level(IsolationLevel::ReadCommitted)
            .max_partition_fetch_bytes(8 << 20)
            .max_poll_records(10_000)
            .max_buffered_records(1_000_000)
            .build()
            .await?;
        consumer.assign(&log.topic, vec![0]).await?;
        let (mut records, mut bytes) = (0, 0);
        let mut stopwatch = None;
        while records < log.records {
            let polled = consumer.poll(PATIENCE).await?;
            if polled.is_empty() {
                return Err("records are missing".into());
            }
            stopwatch.get_or_insert_with(Stopwatch::start);
            for record in &polled {
                bytes += record.key.as_ref().map_or(0, Bytes::len);
                bytes += record.value.as_ref().map_or(0, Bytes::len);
            }
            records += polled.len() as u64;
        }
        stopwatch.ok_or("no record")?.report(records);
        if bytes as u64 != records * (KEY_LEN + VALUE_LEN) as u64 {
            return Err("wrong records".into());
        }
        consumer.close().await?;
        Ok(())
    })
}
