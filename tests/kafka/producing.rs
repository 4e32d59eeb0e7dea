//! What was committed is in the log once and in order, whatever happens on the way: cut
//! connections, lost questions and answers, leaders that move, producers that are forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use siltstone::ErrorKind;
use siltstone::changelog::{Changelog, Guarantee, Offset, Partition, RecordRef, Session};
use siltstone::kafka::{Kafka, KafkaOptions, TopicOptions};

use crate::broker::Broker;
use crate::proxy::{Fault, Proxy};

const NODES: usize = 3;
const ROUNDS: u64 = 25;
const TASK: &str = "history";

/// A generator of numbers that a seed names.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn partitions() -> [Partition; 2] {
    [Partition::new("first", 0), Partition::new("second", 1)]
}

/// Brokers, each behind a proxy that breaks connections while it is told to.
struct World {
    random: Random,
    brokers: Broker,
    proxies: Vec<Proxy>,
    has_faults: Arc<AtomicBool>,
    log: Kafka,
    guarantee: Guarantee,
    /// By partition: the records of commits that succeeded.
    committed: [Vec<u64>; 2],
    /// Of a commit whose outcome nobody was told.
    next: u64,
    failures: u64,
}

impl World {
    fn new(seed: u64, guarantee: Guarantee) -> Self {
        let brokers = Broker::start(NODES);
        let has_faults = Arc::new(AtomicBool::new(false));
        let mut proxies = Vec::new();
        for node in 0..NODES {
            let number = i32::try_from(node).unwrap();
            let proxy = Proxy::start(brokers.address(number));
            brokers.advertise(number, proxy.address());
            let mut random = Random(seed ^ (node as u64) << 32);
            let has_faults = Arc::clone(&has_faults);
            proxy.set_policy(move |_| {
                if !has_faults.load(Ordering::Relaxed) || random.below(12) > 0 {
                    return Fault::Pass;
                }
                match random.below(5) {
                    0 => Fault::LoseRequest,
                    1 => Fault::CutRequest,
                    2 => Fault::LoseAnswer,
                    3 => Fault::CutAnswer,
                    _ => Fault::Length(-1),
                }
            });
            proxies.push(proxy);
        }
        let options = KafkaOptions::new(proxies[0].address().to_string())
            .guarantee(guarantee)
            .batch_bytes(600)
            .linger(Duration::from_millis(1))
            .topics(TopicOptions::new().partitions(2));
        Self {
            random: Random(seed),
            brokers,
            proxies,
            has_faults,
            log: Kafka::open(options).unwrap(),
            guarantee,
            committed: [Vec::new(), Vec::new()],
            next: 0,
            failures: 0,
        }
    }

    fn claim(&self) -> Box<dyn Session> {
        self.has_faults.store(false, Ordering::Relaxed);
        let session = self.log.claim(TASK, &partitions()).unwrap();
        self.has_faults.store(true, Ordering::Relaxed);
        session
    }

    /// Something happens to the brokers.
    fn disturb(&mut self) {
        let partition = &partitions()[usize::try_from(self.random.below(2)).unwrap()];
        let number = i32::try_from(partition.partition).unwrap();
        match self.random.below(12) {
            0 | 1 => {
                let node = i32::try_from(self.random.below(NODES as u64)).unwrap();
                self.brokers.set_leader(&partition.topic, number, node);
            }
            2 => {
                let proxy = usize::try_from(self.random.below(NODES as u64)).unwrap();
                self.proxies[proxy].cut();
            }
            _ => {}
        }
    }

    /// A partition forgets who wrote to it, as it does when nobody wrote for long: never with a
    /// batch unanswered, which it could not know again when it is repeated.
    fn forget(&mut self) {
        let partition = &partitions()[usize::try_from(self.random.below(2)).unwrap()];
        let number = i32::try_from(partition.partition).unwrap();
        self.brokers.clear_producer_state(&partition.topic, number);
    }

    /// Appends some records and commits or aborts them.
    fn round(&mut self, session: &mut dyn Session) -> siltstone::Result<()> {
        let mut open = [Vec::new(), Vec::new()];
        for _ in 0..self.random.below(40) {
            let lane = usize::try_from(self.random.below(2)).unwrap();
            let key = self.next.to_be_bytes();
            let value = vec![1; usize::try_from(self.random.below(100)).unwrap()];
            let record = RecordRef::new(&key, Some(&value));
            session.reserve(record.size())?;
            session.append(lane, record)?;
            open[lane].push(self.next);
            self.next += 1;
            if self.random.below(10) == 0 {
                self.disturb();
            }
        }
        if self.random.below(6) == 0 {
            return session.abort();
        }
        let commit = session.prepare()?;
        session.wait(commit)?;
        for (committed, records) in self.committed.iter_mut().zip(open) {
            committed.extend(records);
        }
        Ok(())
    }

    fn run(&mut self) {
        let mut session = self.claim();
        for _ in 0..ROUNDS {
            if self.guarantee == Guarantee::Atomic && self.random.below(2) == 0 {
                self.forget();
            }
            let Err(error) = self.round(&mut *session) else {
                continue;
            };
            assert_eq!(error.kind(), ErrorKind::Changelog, "{error}");
            self.failures += 1;
            while let Err(error) = session.abort() {
                assert_eq!(error.kind(), ErrorKind::Changelog, "{error}");
            }
        }
        self.has_faults.store(false, Ordering::Relaxed);
        session.close().unwrap();
    }

    /// What another client reads.
    fn read(&self, partition: &Partition) -> Vec<u64> {
        let mut reader = self.log.reader(partition, Offset(0)).unwrap();
        let mut numbers = Vec::new();
        loop {
            let fetched = reader.fetch(&mut |_, record| {
                numbers.push(u64::from_be_bytes(record.key.try_into().unwrap()));
                Ok(())
            });
            if fetched.unwrap().at_end {
                return numbers;
            }
        }
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("SILTSTONE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=6).collect(),
    }
}

#[test]
fn transactions_are_in_the_log_once_and_in_order() {
    for seed in seeds() {
        println!("SILTSTONE_SEED={seed}");
        let mut world = World::new(seed, Guarantee::Atomic);
        world.run();
        for (partition, committed) in partitions().iter().zip(&world.committed) {
            assert_eq!(
                &world.read(partition),
                committed,
                "seed {seed}, {partition}"
            );
        }
        println!("{} records, {} failures", world.next, world.failures);
        assert!(world.committed.iter().any(|records| !records.is_empty()));
    }
}

#[test]
fn batches_are_in_the_log_once_and_in_order() {
    for seed in seeds() {
        println!("SILTSTONE_SEED={seed}");
        let mut world = World::new(seed, Guarantee::PerBatch);
        world.run();
        for (partition, committed) in partitions().iter().zip(&world.committed) {
            let log = world.read(partition);
            // Nothing twice, nothing out of order; what was aborted may be there.
            assert!(
                log.is_sorted_by(|one, two| one < two),
                "seed {seed}: {log:?}"
            );
            assert!(
                committed
                    .iter()
                    .all(|record| log.binary_search(record).is_ok())
            );
        }
        println!("{} records, {} failures", world.next, world.failures);
        assert!(world.committed.iter().any(|records| !records.is_empty()));
    }
}
