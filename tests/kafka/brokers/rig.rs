//! The brokers, and the changelog on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use siltstone::changelog::{Changelog, Guarantee, Offset, Partition, Position, Session};
use siltstone::kafka::{Kafka, KafkaOptions};
use siltstone::store::serde::Bytes;
use siltstone::store::{KeyValue, Task, TaskOptions};
use siltstone::{ErrorKind, Result};

use crate::peer::Peer;

/// A setting that `tests/kafka/run` makes.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests are run by tests/kafka/run, which starts brokers")
    })
}

/// Nodes of Apache Kafka in a folder of their own.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) bootstrap: String,
    pub(crate) nodes: u32,
    folder: String,
}

impl Cluster {
    /// The one that all tests share.
    pub(crate) fn main() -> Self {
        Self {
            bootstrap: setting("SILTSTONE_KAFKA"),
            nodes: setting("SILTSTONE_KAFKA_NODES").parse().unwrap(),
            folder: format!("{}/main", setting("SILTSTONE_KAFKA_FOLDER")),
        }
    }

    /// So many nodes for one test, with settings of their own. They end with `Cluster::down`, or
    /// with `tests/kafka/run`.
    pub(crate) fn start(nodes: u32, settings: &[&str]) -> Self {
        let folder = format!("{}/{}", setting("SILTSTONE_KAFKA_FOLDER"), unique("own"));
        let mut cluster = Self {
            bootstrap: String::new(),
            nodes,
            folder,
        };
        let count = nodes.to_string();
        let up: Vec<&str> = ["up", &count]
            .into_iter()
            .chain(settings.iter().copied())
            .collect();
        cluster.bootstrap = cluster.control(&up);
        cluster
    }

    /// Does something to the nodes; see `tests/kafka/nodes/control`.
    #[track_caller]
    pub(crate) fn control(&self, words: &[&str]) -> String {
        let output = Command::new(setting("SILTSTONE_KAFKA_CONTROL"))
            .arg(&self.folder)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn node(&self, what: &str, node: u32) {
        self.control(&[what, &node.to_string()]);
    }

    /// The port of a node that is not for everybody; see `tests/kafka/nodes/control`.
    pub(crate) fn port(&self, node: u32, index: u32) -> u16 {
        let port = self.control(&["port", &node.to_string(), &index.to_string()]);
        port.parse().unwrap()
    }

    /// A file that its nodes' script has made.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }

    pub(crate) fn options(&self) -> KafkaOptions {
        KafkaOptions::new(&self.bootstrap)
    }

    pub(crate) fn changelog(&self) -> Arc<dyn Changelog> {
        open(self.options())
    }
}

pub(crate) fn open(options: KafkaOptions) -> Arc<dyn Changelog> {
    Arc::new(Kafka::open(options).unwrap())
}

/// Both promises that a commit can make.
pub(crate) const GUARANTEES: [Guarantee; 2] = [Guarantee::Atomic, Guarantee::PerBatch];

/// Tests that leave the brokers alone go side by side; one that kills them goes alone.
static BROKERS: RwLock<()> = RwLock::new(());

pub(crate) fn calm() -> RwLockReadGuard<'static, ()> {
    BROKERS.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    BROKERS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A name that no other test has.
pub(crate) fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{what}-{}-{number}", std::process::id())
}

/// Where `tests/kafka/run` puts examples, seen from the test.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name("examples").join(name)
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

pub(crate) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A task with a store of raw bytes, on a directory of its own.
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) store: KeyValue<Bytes, Bytes>,
}

/// The name of the store of a [`Job`].
pub(crate) const STORE: &str = "store";

/// The topic of that store.
pub(crate) fn topic_of(namespace: &str) -> String {
    format!("{namespace}-{STORE}-changelog")
}

impl Job {
    pub(crate) fn try_open(
        namespace: &str,
        dir: &Path,
        changelog: &Arc<dyn Changelog>,
    ) -> Result<Self> {
        let options = TaskOptions::new(namespace, 0, dir, Arc::clone(changelog)).store(STORE);
        let task = Task::open(options)?;
        let store = task.key_value(STORE, Bytes, Bytes)?;
        Ok(Self { task, store })
    }

    #[track_caller]
    pub(crate) fn open(namespace: &str, dir: &Path, changelog: &Arc<dyn Changelog>) -> Self {
        Self::try_open(namespace, dir, changelog).unwrap()
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) {
        self.store
            .put(&mut self.task, key.as_bytes(), value.as_bytes())
            .unwrap();
    }

    pub(crate) fn delete(&mut self, key: &str) {
        self.store.delete(&mut self.task, key.as_bytes()).unwrap();
    }

    pub(crate) fn contents(&self) -> Contents {
        self.store
            .entries()
            .unwrap()
            .collect::<Result<_>>()
            .unwrap()
    }

    pub(crate) fn close(self) {
        drop(self.store);
        self.task.close().unwrap();
    }
}

pub(crate) fn contents_of(pairs: &[(&str, &str)]) -> Contents {
    pairs
        .iter()
        .map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect()
}

/// What the records of a changelog come to.
pub(crate) fn materialised(records: Vec<(u64, siltstone::changelog::Record)>) -> Contents {
    let mut contents = Contents::new();
    for (_, record) in records {
        match record.value {
            Some(value) => contents.insert(record.key, value),
            None => contents.remove(&record.key),
        };
    }
    contents
}

pub(crate) fn partition(topic: &str) -> Partition {
    Partition::new(topic, 0)
}

pub(crate) fn commit(session: &mut dyn Session) -> Result<Vec<Position>> {
    let commit = session.prepare()?;
    session.wait(commit)
}

/// Key and value of all that a session restores.
pub(crate) fn restore(session: &mut dyn Session) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let start = session.bounds(0).unwrap().start;
    read(&mut *session.reader(0, start).unwrap())
}

/// Key and value of all that somebody reads who owns nothing, once the topic has settled.
pub(crate) fn follow(
    cluster: &Cluster,
    changelog: &dyn Changelog,
    topic: &str,
) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    Peer::new(&cluster.bootstrap).settle(topic);
    read(&mut *changelog.reader(&partition(topic), Offset(0)).unwrap())
}

fn read(reader: &mut dyn siltstone::changelog::Reader) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut records = Vec::new();
    loop {
        let fetched = reader.fetch(&mut |_, record| {
            records.push((record.key.to_vec(), record.value.map(<[u8]>::to_vec)));
            Ok(())
        });
        if fetched.unwrap().at_end {
            return records;
        }
    }
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}
