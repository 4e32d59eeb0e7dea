//! A machine and a changelog to run a task on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use siltstone::changelog::faulty::Faulty;
use siltstone::changelog::{Changelog, Memory, Offset, Partition};
use siltstone::env::sim::SimEnv;
use siltstone::store::serde::{Bytes, U64, Utf8};
use siltstone::store::{KeyValue, Task, TaskOptions};
use siltstone::{ErrorKind, KeyspaceOptions, Options, Result, Runtime, RuntimeOptions};

pub(crate) const NAMESPACE: &str = "job";

/// A disk in memory, a changelog in memory that fails on demand, and a clock for both.
pub(crate) struct Rig {
    pub(crate) env: SimEnv,
    pub(crate) log: Memory,
    pub(crate) changelog: Faulty<Memory>,
    pub(crate) dir: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_log(|log| log)
    }

    pub(crate) fn with_log(change: impl FnOnce(Memory) -> Memory) -> Self {
        let env = SimEnv::new(1);
        let log = change(Memory::new(Arc::new(env.clone())));
        Self {
            env,
            changelog: Faulty::new(log.clone()),
            log,
            dir: PathBuf::from("/here"),
        }
    }

    /// The options of the task with its store `counts`, on a runtime without threads.
    pub(crate) fn options(&self) -> TaskOptions {
        options_on(&self.env, &self.dir, Arc::new(self.changelog.clone())).store("counts")
    }

    pub(crate) fn open(&self) -> Task {
        Task::open(self.options()).unwrap()
    }

    /// What another machine would open, whose disk is empty.
    pub(crate) fn options_elsewhere(&self) -> TaskOptions {
        let env = SimEnv::new(2);
        options_on(&env, &self.dir, Arc::new(self.changelog.clone())).store("counts")
    }

    pub(crate) fn end(&self) -> Offset {
        self.log
            .bounds(&partition_of("counts"))
            .unwrap()
            .unwrap()
            .end
    }
}

pub(crate) fn partition_of(store: &str) -> Partition {
    Partition::new(format!("{NAMESPACE}-{store}-changelog"), 0)
}

pub(crate) fn options_on(
    env: &SimEnv,
    dir: &PathBuf,
    changelog: Arc<dyn Changelog>,
) -> TaskOptions {
    TaskOptions::new(NAMESPACE, 0, dir, changelog)
        .runtime(&runtime(env, 16 << 20))
        .db(db_options(env))
}

pub(crate) fn db_options(env: &SimEnv) -> Options {
    Options::new()
        .env(Arc::new(env.clone()))
        .memtable_bytes_max(8 << 10)
}

pub(crate) fn runtime(env: &SimEnv, bytes: usize) -> Runtime {
    let options = RuntimeOptions::new()
        .env(Arc::new(env.clone()))
        .threads(0)
        .memory_bytes_max(bytes)
        .cache_bytes(bytes / 4);
    Runtime::new(options).unwrap()
}

pub(crate) fn small() -> KeyspaceOptions {
    KeyspaceOptions::new().block_bytes(256).table_bytes(2 << 10)
}

pub(crate) type Counts = KeyValue<Utf8, U64>;

pub(crate) fn counts(task: &Task) -> Counts {
    task.key_value("counts", Utf8, U64).unwrap()
}

pub(crate) fn raw(task: &Task, store: &str) -> KeyValue<Bytes, Bytes> {
    task.key_value(store, Bytes, Bytes).unwrap()
}

pub(crate) fn contents(store: &Counts) -> BTreeMap<String, u64> {
    store.entries().unwrap().collect::<Result<_>>().unwrap()
}

pub(crate) fn of<const N: usize>(entries: [(&str, u64); N]) -> BTreeMap<String, u64> {
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}

/// The records of a partition as somebody else reads them.
pub(crate) fn records(
    log: &dyn Changelog,
    partition: &Partition,
) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let start = log.bounds(partition).unwrap().unwrap().start;
    let mut reader = log.reader(partition, start).unwrap();
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

/// Numbers that follow from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64, by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
