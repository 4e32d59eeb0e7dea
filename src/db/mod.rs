//! The ordered maps of one directory: their files, their threads' work, and their health.
//!
//! In reading order: [`open`] brings a store up, [`write`] commits batches, [`seal`] decides when
//! memtables are sealed and what marks and aborts do, [`work`] flushes and compacts in the
//! background, [`install`] makes the results durable and visible, [`read`] reads single keys, and
//! [`walk`] many: under [`range`] and [`cursor`]. What they ask is counted by [`asked`].
//!
//! Locks, in the order in which they are taken: the queue of writers, the snapshots, the commit
//! lock, the manifest, the view. The locks of aborts, work and health are leaves: nothing is taken
//! under them. Nothing is synced under the commit lock, but where a task, the only writer, has its
//! position published.

mod asked;
mod bulk;
mod cursor;
mod flush_job;
mod health;
mod install;
mod keyspace;
#[cfg(test)]
#[cfg(shuttle)]
mod models;
mod open;
mod pace;
mod range;
mod read;
mod seal;
mod snapshot;
mod stats;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod view;
mod walk;
mod work;
mod write;

use std::path::{Path, PathBuf};

use crate::batch::WriteBatch;
use crate::cache::Account;
use crate::env::LockGuard;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Mark, SeqNo};
use crate::options::{Durability, KeyspaceOptions, Options};
use crate::runtime::Runtime;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering, Swap, Weak};
use crate::version::TableStore;
use crate::wal;

pub(crate) use bulk::{RestoreEntry, RestoredRun};
pub use cursor::Cursor;
pub use keyspace::Keyspace;
pub use range::{Entry, Range};
pub use snapshot::Snapshot;
pub use stats::{LevelStats, Stats};

use health::Health;
use install::Installed;
use seal::CommitState;
use snapshot::{Aborts, ReadPoint, Snapshots};
use stats::Counters;
use view::View;
use work::Work;
use write::CommitQueue;

/// A store: one directory with one write-ahead log and any number of [`Keyspace`]s.
///
/// Handles are cheap to clone and may be used from any thread. [`close`](Self::close) ends the
/// store in order and reports what went wrong; dropping the last handle loses nothing that was
/// acknowledged, but the next open has more to do.
///
/// ```
/// use siltstone::{Db, Durability, KeyspaceOptions, Options, WriteBatch};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let db = Db::open(dir.path().join("state"), Options::new())?;
/// let counts = db.keyspace("counts", KeyspaceOptions::new())?;
/// let totals = db.keyspace("totals", KeyspaceOptions::new())?;
///
/// let mut batch = WriteBatch::new();
/// batch.put(&counts, "stone", "2")?;
/// batch.put(&totals, "words", "2")?;
/// db.write(batch, Durability::Synced)?;
///
/// assert_eq!(counts.get("stone")?.unwrap(), b"2");
/// db.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Db {
    handle: Arc<Handle>,
}

/// Ends the store's work with the last handle.
struct Handle {
    inner: Arc<DbInner>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.stop_work();
        self.inner.health.close();
        // A job that has ended may hold the store for a moment longer; the next open must not
        // be told that it is locked.
        *self.inner.lock.lock() = None;
    }
}

/// The open store, shared by its handles and by jobs that run.
pub(crate) struct DbInner {
    /// For jobs, which must not keep the store alive.
    me: Weak<DbInner>,
    /// Which open store of this process; never 0.
    instance: u64,
    options: Options,
    /// Writes count when their mark is released, not at once.
    manual_release: bool,
    runtime: Runtime,
    account: Arc<Account>,
    tables: TableStore,
    /// Held until close; keeps other processes and handles out.
    lock: Mutex<Option<Box<dyn LockGuard>>>,
    /// What readers see. Swapped whole, under a lock that readers do not take.
    view: Swap<View>,
    /// Every write up to here may be read. Stored with Release after the memtables' inserts.
    visible: AtomicU64,
    queue: Mutex<CommitQueue>,
    /// The commit lock.
    commit: Mutex<CommitState>,
    installed: Mutex<Installed>,
    wal: Option<wal::Wal>,
    snapshots: Snapshots,
    aborts: Aborts,
    work: Work,
    health: Health,
    counters: Counters,
    /// Next number of a table or a run. Only its uniqueness counts.
    next_file: AtomicU64,
    /// Runs in level 0 above what compaction should allow; 0 when it keeps up.
    level0_excess: AtomicUsize,
    commit_requested: AtomicBool,
    /// Signalled when a compaction or flush ends, for writers that are held back.
    progress: Condvar,
}

impl Db {
    /// Opens the store in the directory `path`, with a runtime of its own.
    ///
    /// # Errors
    ///
    /// `Locked` if it is open already; `NotFound` if there is none and it may not be created;
    /// `Corruption` if something is damaged, naming the file and the position; `Unsupported` if it
    /// is of a newer format; `InvalidArgument` for bad options or a path that is no directory of a
    /// store; `Io`.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let runtime = open::own_runtime(&options)?;
        Self::open_with(path, options, &runtime)
    }

    /// Opens the store in the directory `path`, with threads, cache and memory that it shares
    /// with the other stores of `runtime`.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); `MemoryLimit` if the runtime's budget has no room for the store's
    /// minimum.
    pub fn open_with(path: impl AsRef<Path>, options: Options, runtime: &Runtime) -> Result<Self> {
        Self::open_as(path.as_ref(), options, runtime, false)
    }

    /// Opens a store whose writes count when their mark is released.
    pub(crate) fn open_for_task(path: &Path, options: Options, runtime: &Runtime) -> Result<Self> {
        Self::open_as(path, options, runtime, true)
    }

    fn open_as(
        path: &Path,
        options: Options,
        runtime: &Runtime,
        manual_release: bool,
    ) -> Result<Self> {
        let inner = DbInner::open(path, options, runtime, manual_release)?;
        Ok(Self {
            handle: Arc::new(Handle { inner }),
        })
    }

    pub(crate) fn inner(&self) -> &Arc<DbInner> {
        &self.handle.inner
    }

    /// The keyspace of that name, created if there is none. A creation is durable on return.
    ///
    /// The options apply from now on; tables that were written with others stay readable.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a name that is empty or longer than 255 bytes, or options out of
    /// their bounds; `Closed`, `Poisoned`, `Io`.
    pub fn keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let (id, name) = self.inner().keyspace(name, options)?;
        Ok(Keyspace::new(self.clone(), id, name))
    }

    /// The names of all keyspaces, sorted.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn keyspace_names(&self) -> Result<Vec<String>> {
        self.inner().health.check_read()?;
        let view = self.inner().view();
        let mut names: Vec<String> = view
            .keyspaces
            .values()
            .map(|keyspace| keyspace.name.to_string())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Drops a keyspace with all its entries. Durable on return; readers that are under way keep
    /// what they see.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none of that name, `Closed`, `Poisoned`, `Io`.
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.inner().drop_keyspace(name)
    }

    /// Commits a batch: visible as a whole on return, in the order of commits, and durable as
    /// asked.
    ///
    /// Waits for other writers, for a flush that frees memory, and a little while compaction has
    /// fallen behind.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if the batch is of another store, or if it should be synced and there is
    /// no write-ahead log; `NotFound` if a keyspace was dropped; `MemoryLimit` if the budget is
    /// spent and nothing can free any; `Io` if the log could not be written (a full disk, say):
    /// nothing of the batch is visible, and later writes may succeed; `Poisoned` if a sync failed,
    /// now or before: the batch may or may not be there after a reopen; `Closed`.
    pub fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.inner().write(batch, durability)
    }

    /// Makes everything that was committed before this call durable against power loss.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` without a write-ahead log; `Io` if the log could not be written (a full
    /// disk, say): all of it is as safe as before, and a later call may succeed; `Poisoned`,
    /// `Closed`.
    pub fn sync(&self) -> Result<()> {
        self.inner().sync()
    }

    /// Moves everything that was committed before this call into tables, durable on return.
    ///
    /// # Errors
    ///
    /// `Io`, `Poisoned`, `Closed`.
    pub fn flush(&self) -> Result<()> {
        self.inner().flush()
    }

    /// A frozen view of all keyspaces as of now.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.inner().health.check_read()?;
        Ok(Snapshot::new(self.clone(), |inner| {
            // The view first: an abort that comes in between is told, never missed.
            let aborts = inner.view().aborts;
            let seqno = SeqNo(inner.visible.load(Ordering::Acquire));
            ReadPoint { seqno, aborts }
        }))
    }

    /// A frozen view of what has been released: under a task, what the changelog has.
    pub(crate) fn released_snapshot(&self) -> Result<Snapshot> {
        self.inner().health.check_read()?;
        // Looked up under the snapshots' lock: else a compaction that begins in between would
        // drop what the snapshot is to see.
        Ok(Snapshot::new(self.clone(), |inner| {
            // Both under the commit lock: no abort may come in between, for what it takes back
            // was never in this view.
            let state = inner.commit.lock();
            let aborts = inner.view().aborts;
            ReadPoint {
                seqno: state.released,
                aborts,
            }
        }))
    }

    /// What the store holds and what it has written, by cause.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn stats(&self) -> Result<Stats> {
        self.inner().stats()
    }

    /// Reads every block of every table by position and checks it. Returns the number of entries.
    ///
    /// # Errors
    ///
    /// `Corruption` naming the first damaged place, `Io`, `Closed`.
    pub fn verify(&self) -> Result<u64> {
        self.inner().health.check_read()?;
        // Not the view: it would hold the memtables of now for as long as this takes.
        let versions: Vec<_> = {
            let view = self.inner().view();
            view.keyspaces
                .values()
                .map(|it| Arc::clone(&it.version))
                .collect()
        };
        let mut entries = 0;
        for version in versions {
            for table in version.tables() {
                entries += table.reader()?.verify()?;
            }
        }
        Ok(entries)
    }

    /// Ends the store: waits for running work, syncs the write-ahead log, records where both
    /// journals end, and lets go of the lock. All other handles answer `Closed` from then on.
    ///
    /// # Errors
    ///
    /// `Io` or `Poisoned` if something could not be made durable; the store is closed all the
    /// same. `Closed` if it was before.
    pub fn close(&self) -> Result<()> {
        self.inner().close()
    }

    pub(crate) fn mark(&self) -> Result<Mark> {
        self.inner().mark()
    }

    pub(crate) fn release(&self, mark: Mark, position: Vec<u8>) -> Result<()> {
        self.inner().release(mark, position)
    }

    pub(crate) fn abort(&self) -> Result<u64> {
        self.inner().abort()
    }

    /// Commits a small batch above the budget if it must be; see [`write`](Self::write).
    pub(crate) fn write_anyway(&self, batch: WriteBatch) -> Result<()> {
        self.inner().write_anyway(batch)
    }

    /// True while there are writes that no released mark covers.
    pub(crate) fn has_unreleased(&self) -> bool {
        let state = self.inner().commit.lock();
        state.last_seqno != state.released
    }

    /// True once the budget or a full memtable asks for a commit.
    pub(crate) fn commit_requested(&self) -> bool {
        // Relaxed: a hint.
        self.inner().commit_requested.load(Ordering::Relaxed)
    }

    /// The position that the tables cover, as the manifest has it.
    pub(crate) fn position(&self) -> Option<Vec<u8>> {
        self.inner().installed.lock().state().position.clone()
    }

    /// Writes a newer position into the manifest, if no memtable holds anything.
    pub(crate) fn publish_position(&self, position: Vec<u8>) -> Result<bool> {
        self.inner().publish_position(position)
    }
}

impl DbInner {
    /// Swaps in a changed copy of the view.
    fn update_view(&self, change: impl FnOnce(&mut View)) {
        let old = self.view.update(|current| {
            let mut view = current.clone();
            change(&mut view);
            view.prune_dead();
            view
        });
        // Dropped outside of the lock: it may free memtables and remove files.
        drop(old);
    }

    fn note_abort(&self, low: SeqNo, high: SeqNo) {
        self.aborts.add(low, high);
    }

    fn close(&self) -> Result<()> {
        if !self.health.close() {
            return Err(Error::new(ErrorKind::Closed, "the store was closed before"));
        }
        self.stop_work();
        // Waits for a commit that was under way.
        drop(self.commit.lock());
        let result = self.finish_journals();
        self.update_view(|view| {
            *view = View {
                closed: true,
                ..View::default()
            };
        });
        self.commit.lock().groups.clear();
        *self.lock.lock() = None;
        result
    }

    fn finish_journals(&self) -> Result<()> {
        if self.health.is_poisoned() {
            return Err(Error::new(
                ErrorKind::Poisoned,
                "closed after a failed sync: the next open recovers",
            ));
        }
        let end = match &self.wal {
            Some(wal) => self.close_wal(wal)?,
            None => crate::journal::Lsn::ZERO,
        };
        self.installed.lock().close(end)
    }

    fn stats(&self) -> Result<Stats> {
        self.health.check_read()?;
        let view = self.view();
        let mut stats = Stats {
            levels: vec![LevelStats::default(); crate::options::LEVELS],
            ..Stats::default()
        };
        self.counters.fill(&mut stats);
        for keyspace in view.keyspaces.values() {
            for (row, level) in stats.levels.iter_mut().zip(&keyspace.version.levels) {
                row.runs += level.runs.len();
                for table in level.tables() {
                    row.tables += 1;
                    row.bytes += table.meta.len;
                    row.entries += table.meta.entries;
                    row.tombstones += table.meta.tombstones;
                }
            }
        }
        stats.memtable_bytes = view
            .memtables()
            .map(|memtable| memtable.memory_bytes() as u64)
            .sum();
        if let Some(wal) = &self.wal {
            stats.wal_bytes = wal.bytes_written();
            stats.wal_file_bytes = wal.bytes();
        }
        stats.manifest_bytes = self.installed.lock().bytes_written();
        stats.last_seqno = self.visible.load(Ordering::Acquire);
        stats.background_error = self.work.error().map(|error| error.to_string());
        Ok(stats)
    }

    fn dir(&self) -> &PathBuf {
        &self.tables.dir
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("dir", self.inner().dir())
            .finish_non_exhaustive()
    }
}
