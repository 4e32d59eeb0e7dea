//! The crash test of a task: local state without a log, and a file changelog, on one disk.
//!
//! In reading order: `list` (what is done), this file (an open task), `run`, `check`, `prefix`.

mod check;
mod list;
mod prefix;
mod run;

use std::sync::Arc;

use siltstone::changelog::{File, FileOptions};
use siltstone::env::sim::SimEnv;
use siltstone::store::serde::Bytes;
use siltstone::store::{KeyValue, StoreOptions, Task, TaskOptions};
use siltstone::{Options, Result, Runtime, RuntimeOptions};

use crate::model::{Hashes, Tree, describe_trees, entry_hash};
use crate::operation::NAMES;

pub(crate) use check::{contents, inspect};
pub(crate) use list::TaskList;
pub(crate) use run::{TaskRun, TaskTotals, run};

const STATE_DIR: &str = "/state/counter-0";
const LOG_DIR: &str = "/log";
const NAMESPACE: &str = "counter";
const TASK: &str = "counter-0";
/// The store that a task keeps the positions of its inputs in.
const INPUT_STORE: &str = "input-position";
/// The stores; what is left of the model's slots are the positions of the inputs.
const STORES: usize = 2;
const INPUTS: usize = 2;
const SOURCES: [&str; 2] = ["clicks", "views"];

pub(super) type Outcome = std::result::Result<(), String>;

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn text(error: siltstone::Error) -> String {
    format!("{error:?}")
}

/// An open task.
pub(super) struct Opened {
    pub(super) task: Task,
    pub(super) runtime: Runtime,
    pub(super) log: File,
    pub(super) stores: Vec<KeyValue<Bytes, Bytes>>,
}

impl Opened {
    pub(super) fn open(env: &SimEnv, list: &TaskList) -> Result<Self> {
        let shared = Arc::new(env.clone());
        let runtime = Runtime::new(
            RuntimeOptions::new()
                .env(shared.clone())
                .threads(0)
                .memory_bytes_max(4 << 20)
                .cache_bytes(64 << 10),
        )?;
        let log = File::open(
            LOG_DIR,
            FileOptions::new()
                .env(shared.clone())
                .segment_bytes_max(list.segment_bytes)
                .commit_bytes_max(256 << 10)
                .record_bytes_max(16 << 10),
        )?;
        let options = Options::new()
            .env(shared)
            .read_mode(list.setup.read_mode)
            .memtable_bytes_max(list.setup.memtable_bytes)
            .replay_bytes_max(list.replay_bytes)
            .record_writes_max(64 << 10);
        let mut options = TaskOptions::new(NAMESPACE, 0, STATE_DIR, Arc::new(log.clone()))
            .runtime(&runtime)
            .db(options)
            .restore_bytes_max(list.restore_bytes);
        for name in &NAMES[..STORES] {
            let keyspace = list.setup.keyspaces.clone();
            options = options.store(StoreOptions::new(*name).keyspace(keyspace));
        }
        let task = Task::open(options)?;
        let stores = NAMES[..STORES].iter();
        let stores = stores.map(|name| task.key_value(name, Bytes, Bytes));
        let stores = stores.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            task,
            runtime,
            log,
            stores,
        })
    }

    pub(super) fn hashes(&self) -> Result<Hashes> {
        let mut hashes = [Some(0_u64); 3];
        let mut add = |slot: usize, key: &[u8], value: &[u8]| {
            let sum = hashes[slot].get_or_insert(0);
            *sum = sum.wrapping_add(entry_hash(key, value));
        };
        for (slot, store) in self.stores.iter().enumerate() {
            for entry in store.entries()? {
                let (key, value) = entry?;
                add(slot, &key, &value);
            }
        }
        for (source, position) in self.task.input_positions()? {
            add(INPUTS, source.as_bytes(), &position_bytes(position));
        }
        Ok(hashes)
    }

    pub(super) fn describe(&self) -> Result<String> {
        let mut trees = [(); 3].map(|()| Tree::default());
        for (tree, store) in trees.iter_mut().zip(&self.stores) {
            for entry in store.entries()? {
                let (key, value) = entry?;
                tree.set(key, Some(value));
            }
        }
        for (source, position) in self.task.input_positions()? {
            trees[INPUTS].set(source.into_bytes(), Some(position_bytes(position)));
        }
        let mut text = String::new();
        describe_trees(&mut text, trees.each_ref().map(Some));
        Ok(text)
    }
}

pub(super) fn position_bytes(position: u64) -> Vec<u8> {
    format!("{position}:").into_bytes()
}
