//! The loop of a stream task, for the bytes that it writes: state many times larger than a
//! memtable, updates, a commit after so many of them.

use std::sync::Arc;

use siltstone::changelog::{Memory, Offset, Partition};
use siltstone::env::OsEnv;
use siltstone::store::serde::Bytes;
use siltstone::store::{StoreOptions, Task, TaskOptions};
use siltstone::{KeyspaceOptions, Options, Runtime, RuntimeOptions, Stats};

use crate::draw::{Random, Zipfian};
use crate::records::{KEY_LEN, VALUE_LEN, key, mixed, value};

/// What happens to memtables at a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// They go on; a full one is written once the changelog has acknowledged what is in it.
    WhenFull,
    /// Each is written out at once, as stores do that keep their position in a file beside them.
    EachCommit,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Loop {
    pub(crate) zipfian: bool,
    pub(crate) commits_per_memtable: u64,
    pub(crate) state_bytes: u64,
}

/// The state is so many memtables large: 2 GiB beside 64 MiB.
const RATIO: u64 = 32;
const RECORD_BYTES: u64 = (KEY_LEN + VALUE_LEN) as u64;

impl Loop {
    /// Bytes of tables that are written for each byte of updates, once the state is full.
    pub(crate) fn run(&self, flush: Flush) -> siltstone::Result<f64> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let changelog = Memory::new(Arc::new(OsEnv::new()));
        let memtable_bytes = usize::try_from(self.state_bytes / RATIO).expect("a size");
        let runtime = RuntimeOptions::new()
            .threads(0)
            .memory_bytes_max((8 * memtable_bytes).max(8 << 20))
            .cache_bytes(memtable_bytes);
        let runtime = Runtime::new(runtime)?;
        let store = StoreOptions::new("store")
            .partition(Partition::new("log", 0))
            .keyspace(KeyspaceOptions::new().table_bytes(memtable_bytes as u64));
        let options = TaskOptions::new("bench", 0, dir.path(), Arc::new(changelog.clone()))
            .store(store)
            .runtime(&runtime)
            .db(Options::new().memtable_bytes_max(memtable_bytes));
        let task = Task::open(options)?;
        self.write(task, &changelog, &runtime, flush)
    }

    fn write(
        &self,
        mut task: Task,
        changelog: &Memory,
        runtime: &Runtime,
        flush: Flush,
    ) -> siltstone::Result<f64> {
        let store = task.key_value("store", Bytes, Bytes)?;
        let keys = self.state_bytes / RECORD_BYTES;
        let commit_len = (keys / RATIO / self.commits_per_memtable).max(1);
        let (mut random, zipfian) = (Random::new(1), Zipfian::new(keys));
        let mut before = None;
        for number in 0..2 * keys {
            // Each key once, then updates of as many keys as there are.
            let drawn = if number < keys {
                number
            } else if self.zipfian {
                mixed(zipfian.draw(&mut random)) % keys
            } else {
                random.below(keys)
            };
            if number == keys {
                settle(&mut task, runtime)?;
                before = Some(task.stats()?);
            }
            store.put(&mut task, &key(drawn), &value(number))?;
            if (number + 1).is_multiple_of(commit_len) {
                task.commit()?;
                // Nobody restores from it: it need not be kept.
                changelog.delete_records(&Partition::new("log", 0), Offset(number + 1));
                if flush == Flush::EachCommit && before.is_some() {
                    task.flush()?;
                }
                while runtime.run_pending() {}
            }
        }
        settle(&mut task, runtime)?;
        let after = task.stats()?;
        task.close()?;
        let before = before.unwrap_or_default();
        Ok(ratio(
            tables(&after) - tables(&before),
            after.user_bytes - before.user_bytes,
        ))
    }
}

fn settle(task: &mut Task, runtime: &Runtime) -> siltstone::Result<()> {
    task.commit()?;
    task.flush()?;
    while runtime.run_pending() {}
    Ok(())
}

fn tables(stats: &Stats) -> u64 {
    stats.flush_bytes + stats.compaction_written_bytes + stats.manifest_bytes
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}
