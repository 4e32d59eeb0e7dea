//! The stores of a case: keyspaces of one store, stores that share a runtime, or tasks.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use siltstone::changelog::{Changelog, Memory, Offset, Partition};
use siltstone::env::OsEnv;
use siltstone::store::serde::Bytes;
use siltstone::store::{KeyValue, StoreOptions, Task, TaskOptions};
use siltstone::{Db, ErrorKind, Keyspace, KeyspaceOptions, Options, Runtime, RuntimeOptions};

use crate::Result;
use crate::case::{CACHE_BYTES, Case, Kind, MEMORY_BYTES, MEMTABLE_BYTES};

/// What each store has of the budget for itself: so little that 500 of them fit.
const STORE_BYTES: usize = 64 << 10;
/// Writes of a task between two commits.
const COMMIT_WRITES: u64 = 1000;

pub(crate) struct Stores {
    runtime: Runtime,
    changelog: Memory,
    open: Open,
}

enum Open {
    Keyspaces(Db, Vec<Keyspace>),
    Dbs(Vec<(Db, Keyspace)>),
    Tasks(Vec<Mutex<OpenTask>>),
}

struct OpenTask {
    task: Task,
    store: KeyValue<Bytes, Bytes>,
    partition: Partition,
    uncommitted: u64,
    /// Where the changelog ended at the commit before.
    end_before: Offset,
}

impl Stores {
    pub(crate) fn open(case: &Case, dir: &Path) -> Result<Self> {
        let runtime = RuntimeOptions::new()
            .memory_bytes_max(MEMORY_BYTES)
            .cache_bytes(CACHE_BYTES);
        let changelog = Memory::new(Arc::new(OsEnv::new()));
        Self::open_on(case, dir, Runtime::new(runtime)?, changelog)
    }

    fn open_on(case: &Case, dir: &Path, runtime: Runtime, changelog: Memory) -> Result<Self> {
        let options = || {
            Options::new()
                .memtable_bytes_max(MEMTABLE_BYTES)
                .memory_bytes_min(STORE_BYTES)
                .record_writes_max(STORE_BYTES)
        };
        let name = |index: u64| format!("store-{index}");
        let open = match case.kind {
            Kind::Keyspaces => {
                let db = Db::open_with(dir.join("db"), options(), &runtime)?;
                let open = |index| db.keyspace(&name(index), KeyspaceOptions::new());
                let keyspaces = (0..case.stores).map(open).collect::<siltstone::Result<_>>();
                Open::Keyspaces(db.clone(), keyspaces?)
            }
            Kind::Dbs => {
                let open = |index| {
                    let db = Db::open_with(dir.join(name(index)), options(), &runtime)?;
                    let keyspace = db.keyspace("bench", KeyspaceOptions::new())?;
                    Ok((db, keyspace))
                };
                let dbs = (0..case.stores).map(open).collect::<siltstone::Result<_>>();
                Open::Dbs(dbs?)
            }
            Kind::Tasks => {
                let open = |index| {
                    let partition = Partition::new("changes", u32::try_from(index)?);
                    let store = StoreOptions::new("bench").partition(partition.clone());
                    let log: Arc<dyn Changelog> = Arc::new(changelog.clone());
                    let place = dir.join(name(index));
                    let task = TaskOptions::new("growth", u32::try_from(index)?, place, log)
                        .store(store)
                        .runtime(&runtime)
                        .db(options());
                    OpenTask::open(task, partition).map(Mutex::new)
                };
                Open::Tasks((0..case.stores).map(open).collect::<Result<_>>()?)
            }
        };
        Ok(Self {
            runtime,
            changelog,
            open,
        })
    }

    pub(crate) fn put(&self, store: usize, key: &[u8], value: &[u8]) -> Result<()> {
        match &self.open {
            Open::Keyspaces(_, keyspaces) => keyspaces[store].put(key, value)?,
            Open::Dbs(dbs) => dbs[store].1.put(key, value)?,
            Open::Tasks(tasks) => lock(&tasks[store]).put(&self.changelog, key, value)?,
        }
        Ok(())
    }

    pub(crate) fn get<T>(
        &self,
        store: usize,
        key: &[u8],
        read: impl FnOnce(Option<&[u8]>) -> T,
    ) -> Result<T> {
        Ok(match &self.open {
            Open::Keyspaces(_, keyspaces) => read(keyspaces[store].get(key)?.as_deref()),
            Open::Dbs(dbs) => read(dbs[store].1.get(key)?.as_deref()),
            Open::Tasks(tasks) => read(lock(&tasks[store]).store.get(key)?.as_deref()),
        })
    }

    /// Shows every entry of a store, in the order of its keys.
    pub(crate) fn scan(
        &self,
        store: usize,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        let keyspace = match &self.open {
            Open::Keyspaces(_, keyspaces) => &keyspaces[store],
            Open::Dbs(dbs) => &dbs[store].1,
            Open::Tasks(tasks) => {
                for entry in lock(&tasks[store]).store.entries()? {
                    let (key, value) = entry?;
                    visit(&key, &value)?;
                }
                return Ok(());
            }
        };
        for entry in keyspace.entries()? {
            let entry = entry?;
            visit(&entry.key, &entry.value)?;
        }
        Ok(())
    }

    /// Moves everything into tables.
    pub(crate) fn flush(&self) -> Result<()> {
        match &self.open {
            Open::Keyspaces(db, _) => db.flush()?,
            Open::Dbs(dbs) => {
                for (db, _) in dbs {
                    db.flush()?;
                }
            }
            Open::Tasks(tasks) => {
                for task in tasks {
                    let mut task = lock(task);
                    task.commit(&self.changelog)?;
                    task.task.flush()?;
                }
            }
        }
        Ok(())
    }

    /// Ends all of them. What they shared is for those that are opened next.
    pub(crate) fn close(self) -> Result<Closed> {
        match self.open {
            Open::Keyspaces(db, _) => db.close()?,
            Open::Dbs(dbs) => {
                for (db, _) in &dbs {
                    db.close()?;
                }
            }
            Open::Tasks(tasks) => {
                for task in tasks {
                    let task = task.into_inner().unwrap_or_else(PoisonError::into_inner);
                    task.task.close()?;
                }
            }
        }
        Ok(Closed {
            runtime: self.runtime,
            changelog: self.changelog,
        })
    }
}

/// What is left when all stores are closed.
pub(crate) struct Closed {
    runtime: Runtime,
    changelog: Memory,
}

impl Closed {
    pub(crate) fn reopen(self, case: &Case, dir: &Path) -> Result<Stores> {
        Stores::open_on(case, dir, self.runtime, self.changelog)
    }
}

fn lock(task: &Mutex<OpenTask>) -> std::sync::MutexGuard<'_, OpenTask> {
    task.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenTask {
    fn open(options: TaskOptions, partition: Partition) -> Result<Self> {
        let task = Task::open(options)?;
        let store = task.key_value("bench", Bytes, Bytes)?;
        Ok(Self {
            task,
            store,
            partition,
            uncommitted: 0,
            end_before: Offset(0),
        })
    }

    fn put(&mut self, changelog: &Memory, key: &[u8], value: &[u8]) -> Result<()> {
        match self.store.put(&mut self.task, key, value) {
            // Nothing has changed: a commit makes room.
            Err(error) if error.kind() == ErrorKind::MemoryLimit => {
                self.commit(changelog)?;
                self.store.put(&mut self.task, key, value)?;
            }
            other => other?,
        }
        self.uncommitted += 1;
        if self.uncommitted >= COMMIT_WRITES || self.task.commit_requested() {
            self.commit(changelog)?;
        }
        Ok(())
    }

    fn commit(&mut self, changelog: &Memory) -> Result<()> {
        if self.uncommitted == 0 {
            return Ok(());
        }
        self.task.commit()?;
        self.uncommitted = 0;
        // Nobody restores from it: it need not be kept, but for the newest commit, which a task
        // that is opened again looks for.
        if let Some(bounds) = changelog.bounds(&self.partition)? {
            changelog.delete_records(&self.partition, self.end_before);
            self.end_before = bounds.end;
        }
        Ok(())
    }
}
