//! Kafka over a broker in process.

use std::sync::Arc;

use siltstone::Result;
use siltstone::changelog::{Bounds, Changelog, Guarantee, Offset, Partition, Reader, Session};
use siltstone::kafka::{Kafka, KafkaOptions, TopicOptions};

use crate::broker::Broker;
use crate::rigs::{COMMIT_BYTES_MAX, RECORD_BYTES_MAX, Rig};

/// Three brokers.
pub(crate) struct OnKafka {
    brokers: Arc<Broker>,
}

impl OnKafka {
    pub(crate) fn new() -> Self {
        Self {
            brokers: Arc::new(Broker::start(3)),
        }
    }
}

impl Rig for OnKafka {
    fn open(&self) -> Box<dyn Changelog> {
        let bytes = |bytes| usize::try_from(bytes).unwrap();
        let options = KafkaOptions::new(self.brokers.bootstrap_servers())
            .record_bytes_max(bytes(RECORD_BYTES_MAX))
            .buffer_bytes(bytes(COMMIT_BYTES_MAX))
            .batch_bytes(16 << 10)
            .topics(TopicOptions::new().partitions(4));
        Box::new(Corrected {
            log: Kafka::open(options).unwrap(),
            brokers: Arc::clone(&self.brokers),
        })
    }

    fn compact(&self, _task: &str, partition: &Partition, _later_ms: u64) {
        panic!("{partition} is compacted by its broker alone");
    }

    fn is_local(&self) -> bool {
        false
    }
}

/// The log, with one rule of Kafka's coordinator that the broker in process does not have: after a
/// claim, the epoch of the owner before it is no longer taken for a question asked twice.
#[derive(Debug)]
struct Corrected {
    log: Kafka,
    brokers: Arc<Broker>,
}

impl Changelog for Corrected {
    fn guarantee(&self) -> Guarantee {
        self.log.guarantee()
    }

    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>> {
        self.log.bounds(partition)
    }

    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
        let session = self.log.claim(task, partitions)?;
        self.brokers.with_state(|state| {
            for transaction in state.transactions.values_mut() {
                transaction.last_producer_epoch = -1;
            }
        });
        Ok(session)
    }

    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>> {
        self.log.reader(partition, from)
    }
}
