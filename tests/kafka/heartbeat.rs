//! Fences that are renewed in time: before anything is sent when they are old, and without anybody
//! asking for it.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use siltstone::changelog::{Changelog, Guarantee, Partition, RecordRef, Session};
use siltstone::env::{Env, File, JoinHandle, LockGuard, Metadata, OsEnv};
use siltstone::kafka::{Kafka, KafkaOptions};
use siltstone::{ErrorKind, Result};

use crate::broker::Broker;
use crate::proxy::{Fault, Proxy};

const PRODUCE: i16 = 0;
const ADD_PARTITIONS: i16 = 24;
const END: i16 = 26;

/// The system, with a clock that can be put forward, as after a sleep of the whole machine.
#[derive(Debug, Default)]
struct Sleepy {
    system: OsEnv,
    slept_ms: AtomicU64,
}

impl Sleepy {
    fn sleep(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.slept_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Env for Sleepy {
    fn create_new(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.system.create_new(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.system.open(path)
    }

    fn open_write(&self, path: &Path) -> Result<Arc<dyn File>> {
        self.system.open_write(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.system.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.system.rename(from, to)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> Result<()> {
        self.system.hard_link(existing, new)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.system.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.system.remove_dir(path)
    }

    fn list_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.system.list_dir(path)
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        self.system.metadata(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.system.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.system.lock(path)
    }

    fn wall_clock_ms(&self) -> u64 {
        self.system.wall_clock_ms()
    }

    fn monotonic(&self) -> Duration {
        let slept = Duration::from_millis(self.slept_ms.load(Ordering::SeqCst));
        self.system.monotonic() + slept
    }

    fn random_u64(&self) -> u64 {
        self.system.random_u64()
    }

    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> Result<Box<dyn JoinHandle>> {
        self.system.spawn(name, body)
    }
}

/// What passed by, of the requests that fences and records are made of.
#[derive(Debug, Default)]
struct Passed {
    keys: Mutex<Vec<i16>>,
    changed: Condvar,
}

impl Passed {
    /// Forgets what passed so far.
    fn clear(&self) {
        self.keys.lock().unwrap().clear();
    }

    fn all(&self) -> Vec<i16> {
        self.keys.lock().unwrap().clone()
    }

    /// Waits until so many requests of that key have passed.
    fn wait(&self, key: i16, count: usize) {
        let has = |keys: &mut Vec<i16>| keys.iter().filter(|seen| **seen == key).count() < count;
        let keys = self.keys.lock().unwrap();
        let patience = Duration::from_secs(60);
        let (_keys, waited) = self
            .changed
            .wait_timeout_while(keys, patience, has)
            .unwrap();
        assert!(!waited.timed_out(), "no {count} requests of {key}");
    }
}

struct Rig {
    env: Arc<Sleepy>,
    passed: Arc<Passed>,
    log: Kafka,
    _proxy: Proxy,
    _broker: Broker,
}

impl Rig {
    fn new(guarantee: Guarantee, expiration: Duration) -> Self {
        let broker = Broker::start(1);
        let proxy = Proxy::start(broker.address(0));
        broker.advertise(0, proxy.address());
        let passed = Arc::new(Passed::default());
        let noted = Arc::clone(&passed);
        proxy.set_policy(move |seen| {
            if [PRODUCE, ADD_PARTITIONS, END].contains(&seen.api_key) {
                noted.keys.lock().unwrap().push(seen.api_key);
                noted.changed.notify_all();
            }
            Fault::Pass
        });
        let env = Arc::new(Sleepy::default());
        let options = KafkaOptions::new(proxy.address().to_string())
            .env(env.clone())
            .guarantee(guarantee)
            .linger(Duration::ZERO)
            .fence_expiration_max(expiration);
        Self {
            env,
            passed,
            log: Kafka::open(options).unwrap(),
            _proxy: proxy,
            _broker: broker,
        }
    }

    fn claim(&self) -> Box<dyn Session> {
        let session = self.log.claim("task", &[Partition::new("topic", 0)]);
        session.unwrap()
    }
}

fn append(session: &mut dyn Session, key: &[u8]) -> Result<()> {
    session.append(0, RecordRef::new(key, Some(b"value")))
}

fn commit(session: &mut dyn Session) -> Result<()> {
    let commit = session.prepare()?;
    session.wait(commit).map(drop)
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_fence_is_renewed_by_itself() {
    for guarantee in [Guarantee::Atomic, Guarantee::PerBatch] {
        let rig = Rig::new(guarantee, Duration::from_millis(200));
        let session = rig.claim();
        rig.passed.clear();
        rig.passed.wait(END, 5);
        let passed = rig.passed.all();
        assert_eq!(passed[..4], [ADD_PARTITIONS, END, ADD_PARTITIONS, END]);
        session.close().unwrap();
    }
}

#[test]
fn after_a_long_sleep_nothing_is_sent_before_the_fence_was_renewed() {
    for guarantee in [Guarantee::Atomic, Guarantee::PerBatch] {
        let rig = Rig::new(guarantee, HOUR);
        let mut session = rig.claim();
        append(&mut *session, b"a").unwrap();
        commit(&mut *session).unwrap();
        rig.passed.clear();
        rig.env.sleep(HOUR);
        append(&mut *session, b"b").unwrap();
        commit(&mut *session).unwrap();
        let passed = rig.passed.all();
        assert_eq!(
            passed[..2],
            [ADD_PARTITIONS, END],
            "{guarantee:?}: {passed:?}"
        );
        assert!(passed[2..].contains(&PRODUCE), "{guarantee:?}: {passed:?}");
        session.close().unwrap();
    }
}

#[test]
fn a_transaction_that_slept_for_too_long_is_given_up_and_the_next_goes_on() {
    let rig = Rig::new(Guarantee::Atomic, HOUR);
    let mut session = rig.claim();
    append(&mut *session, b"a").unwrap();
    rig.passed.wait(PRODUCE, 1);
    assert!(!session.commit_requested());
    rig.env.sleep(HOUR / 4);
    assert!(session.commit_requested(), "before it is too late");
    rig.env.sleep(HOUR / 4);
    rig.passed.clear();
    let refused = append(&mut *session, b"b").and_then(|()| commit(&mut *session));
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Changelog, "{refused}");
    assert!(
        refused.to_string().contains("has to be renewed"),
        "{refused}"
    );
    assert!(
        !rig.passed.all().contains(&PRODUCE),
        "{:?}",
        rig.passed.all()
    );
    session.abort().unwrap();
    append(&mut *session, b"c").unwrap();
    commit(&mut *session).unwrap();
    let start = session.bounds(0).unwrap().start;
    let mut keys = Vec::new();
    let mut reader = rig.log.reader(&Partition::new("topic", 0), start).unwrap();
    while !reader
        .fetch(&mut |_, record| {
            keys.push(record.key.to_vec());
            Ok(())
        })
        .unwrap()
        .at_end
    {}
    assert_eq!(keys, [b"c"]);
    session.close().unwrap();
}

#[test]
fn what_brokers_do_not_tell_is_the_default_and_noted() {
    let rig = Rig::new(Guarantee::Atomic, HOUR);
    let found = rig.log.fence_expiration().unwrap();
    assert_eq!(found.producer_id, HOUR * 24);
    assert_eq!(found.transactional_id, HOUR * 24 * 7);
    let why = found.assumed.expect("the broker in process does not tell");
    assert!(why.contains("DescribeConfigs"), "{why}");
}
