//! The write-ahead log: one journal for all keyspaces of a store, in segment files.
//!
//! [`Wal::open`] replays what is there and begins a new segment, never appending to an old one.
//! [`Wal::append`] hands commits to the operating system, [`Wal::sync_to`] makes them durable.
//! Those that are not to be durable at once go through the stage, a small file that is mapped into
//! memory: storing into it is handing over, too, and many commits then take one write.
//! Where small records are synced, zeros are written ahead of them, so that most syncs change no
//! more than bytes of a file.
//! A segment goes once every keyspace with writes in it has flushed them: [`Wal::retirable`]
//! tells which segment is the first that is still needed, the caller records it in the manifest,
//! and [`Wal::remove_before`] removes the files. See `docs/format.md`, section "Write-ahead log".

mod ahead;
#[cfg(test)]
#[cfg(shuttle)]
mod models;
mod recovery;
mod stage;
mod state;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Kind, Lsn};
use crate::key::SeqNo;
use crate::options::Durability;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

use state::{Prepared, State};
use turns::Turns;

pub(crate) use recovery::{Visit, has_files, remove_all};
#[cfg(feature = "cli")]
pub(crate) use stage::STAGE_KIND;
pub(crate) use stage::STAGE_NAME;
pub(crate) use state::{HALF_PARTS, LEFT_PARTS_MAX};

pub(crate) const KIND: Kind = *b"WAL\0";
const SUFFIX: &str = ".wal";

/// The one place that names a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:08}{SUFFIX}")
}

/// The number in a segment's file name; `None` if `name` is not one.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Where a WAL lies and how it is laid out.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) dir: PathBuf,
    /// Random, kept in the manifest.
    pub(crate) journal_id: u64,
    /// A segment above this length is followed by the next.
    pub(crate) segment_bytes_max: u64,
    /// Length of the stage; 0 for none.
    pub(crate) stage_bytes: u64,
    /// So many zeros are written at once ahead of records that are synced often; 0 for none.
    pub(crate) ahead_bytes: u64,
}

impl Config {
    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(segment_name(number))
    }

    fn stage_path(&self) -> PathBuf {
        self.dir.join(STAGE_NAME)
    }
}

/// The keyspaces with writes in a segment, each with the newest of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holders(BTreeMap<u32, SeqNo>);

impl Holders {
    /// Notes that the segment holds writes of `keyspace` up to `newest`.
    pub(crate) fn add(&mut self, keyspace: u32, newest: SeqNo) {
        let held = self.0.entry(keyspace).or_insert(newest);
        *held = newest.max(*held);
    }

    fn keyspaces(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    /// A keyspace whose writes are flushed only to a point below those held.
    fn unflushed(&self, flushed: &BTreeMap<u32, SeqNo>) -> Option<u32> {
        let behind = |(keyspace, newest): &(&u32, &SeqNo)| {
            flushed.get(keyspace).is_none_or(|flushed| flushed < newest)
        };
        self.0.iter().find(behind).map(|(keyspace, _)| *keyspace)
    }
}

/// The open log. All calls may come from any thread.
#[derive(Debug)]
pub(crate) struct Wal {
    config: Config,
    /// Decides whose turn it is to sync, so that those who wait share one sync.
    turns: Turns,
    /// The segments and the writer. Held while a commit is written, never during a sync, and
    /// no other lock is taken under it.
    state: Mutex<State>,
    /// The position up to which the log is durable. Stored after the sync by the one whose turn
    /// it is, loaded anywhere: it only grows.
    durable: AtomicU64,
    /// Segments that nothing needs and the last open found. A leaf.
    leftovers: Mutex<Vec<PathBuf>>,
}

impl Wal {
    /// Replays the log in the directory of `config`, repairs a torn tail, and begins a new
    /// segment; all of it is durable on return. Nothing on disk is changed before everything
    /// was replayed.
    ///
    /// `first_needed` is the segment that the manifest names, which must be there, or 0 if the
    /// store never had one recorded. `floor` is a position known to have been durable. `visit`
    /// is called with each payload, in order, and notes the keyspaces that still need it.
    ///
    /// # Errors
    ///
    /// `Corruption` if a segment is missing or durable records are damaged; `Io`; the errors of
    /// `visit`.
    pub(crate) fn open(
        config: Config,
        first_needed: u64,
        floor: Lsn,
        visit: Visit<'_>,
    ) -> Result<Self> {
        let (state, leftovers) = recovery::open(&config, first_needed, floor, visit)?;
        let durable = AtomicU64::new(state.end().0);
        Ok(Self {
            config,
            turns: Turns::default(),
            state: Mutex::new(state),
            durable,
            leftovers: Mutex::new(leftovers),
        })
    }

    /// Removes the segments before the first needed one, which a crash left behind. To be called
    /// once the manifest that says what is needed is durable.
    pub(crate) fn remove_leftovers(&self) {
        for path in std::mem::take(&mut *self.leftovers.lock()) {
            // One that stays behind is tried again by the next open.
            let _ = self.config.env.remove_file(&path);
        }
    }

    /// Appends one record a batch, all together, and returns the position behind the last.
    /// `holders` are the keyspaces that the batches write, each with its newest write.
    ///
    /// On return the records are with the operating system: they survive a kill of the process,
    /// but a power loss only after [`sync_to`](Self::sync_to). For that, they have to be in the
    /// segment, so that those which are to be `Synced` are written into it at once: a sync cannot
    /// fail then for lack of room.
    ///
    /// # Errors
    ///
    /// `Io` if a write failed, or the creation of the next segment: nothing was appended, and
    /// a later call may succeed. If the process dies before that, and not even the removal of
    /// the failed bytes worked, the next open may find the batches nevertheless. `Poisoned`
    /// after a failed sync. `InvalidArgument` if the batches are too long.
    pub(crate) fn append(
        &self,
        batches: &[&[u8]],
        holders: &[(u32, SeqNo)],
        durability: Durability,
    ) -> Result<Lsn> {
        let durable = self.durable();
        self.state
            .lock()
            .append(&self.config, batches, holders, durable, durability)
    }

    /// Makes the log durable at least up to `lsn`. Returns at once where it is already.
    ///
    /// # Errors
    ///
    /// `Poisoned` if the sync failed, or one before it: what was not yet durable may be lost.
    /// `Io` if records that were staged could not be written: they are as safe as before, and a
    /// later call may succeed. Not if those up to `lsn` were appended to be `Synced`.
    pub(crate) fn sync_to(&self, lsn: Lsn) -> Result<()> {
        if self.durable() >= lsn || planted(Bug::WriteAcknowledgedBeforeSync) {
            return Ok(());
        }
        let Some(_turn) = self.turns.take(|| self.durable() >= lsn) else {
            return Ok(());
        };
        let end = self.sync_all(lsn)?;
        assert!(lsn <= end, "sync to {lsn}, written up to {end}");
        Ok(())
    }

    /// Makes durable what must be before tables are written: they have all writes of a keyspace up
    /// to some, and a power loss that keeps them must not take what was written before these, or
    /// in the same batch.
    ///
    /// Everything, if more than one keyspace has writes that may not be durable. Else tables lack
    /// nothing, and only the header of the current segment is synced, so that the log can begin
    /// with it once they have what was written before.
    ///
    /// # Errors
    ///
    /// As [`sync_to`](Self::sync_to).
    pub(crate) fn sync_for_tables(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.unsynced_keyspaces().len() > 1 {
            let end = state.end();
            drop(state);
            return self.sync_to(end);
        }
        // Mostly it is durable: nobody's turn is waited for then.
        if state.header_job()?.is_none() {
            return Ok(());
        }
        drop(state);
        let _turn = self.turns.take(|| false);
        let Some(job) = self.state.lock().header_job()? else {
            return Ok(());
        };
        let result = job.run(&self.config);
        let mut state = self.state.lock();
        if let Err(error) = result {
            return Err(state.poison(&error));
        }
        state.headers_synced(&job);
        Ok(())
    }

    /// Begins a new segment if the current one has one of so many `parts` of a full one: memtables
    /// were sealed, and once they are in tables, all before the new segment may go.
    pub(crate) fn end_segment(&self, parts: u64) {
        let durable = self.durable();
        // Where it cannot be begun, the next append tries again.
        let _ = self.state.lock().end_segment(&self.config, durable, parts);
    }

    /// Syncs everything, removes what is no part of the log, and returns the end of the log, which
    /// the caller may record as a floor. Nothing may be appended afterwards.
    ///
    /// Where no write is needed any more by what `flushed` says, and to look through all of them
    /// would take the next open long, a new segment is begun: see [`retirable`](Self::retirable).
    ///
    /// # Errors
    ///
    /// As [`sync_to`](Self::sync_to).
    pub(crate) fn close(&self, flushed: &dyn Fn(u32) -> SeqNo) -> Result<Lsn> {
        let _turn = self.turns.take(|| false);
        let end = self.sync_all(self.end())?;
        let keyspaces = self.state.lock().all_keyspaces();
        let flushed = ask(flushed, keyspaces);
        let mut state = self.state.lock();
        state.end_files(&self.config);
        // Without a new one, the segment is looked through.
        let is_begun = state.leave_flushed(&self.config, &flushed).unwrap_or(false);
        drop(state);
        if is_begun {
            self.sync_all(end)?;
        }
        Ok(end)
    }

    /// Syncs what is there, at least up to `lsn`, and publishes the end. Only in one's turn.
    fn sync_all(&self, lsn: Lsn) -> Result<Lsn> {
        let job = self.state.lock().sync_job(&self.config, lsn)?;
        let mut result = job.run(&self.config);
        if planted(Bug::FailedSyncRetried) && result.is_err() {
            result = job.run(&self.config);
        }
        let mut state = self.state.lock();
        if let Err(error) = result {
            return Err(state.poison(&error));
        }
        let empty = state.synced(&job);
        drop(state);
        self.durable.store(job.end().0, Ordering::Release);
        for path in empty {
            // One that stays behind is removed by the next open.
            let _ = self.config.env.remove_file(&path);
        }
        Ok(job.end())
    }

    /// True if a call of [`prepare_next`](Self::prepare_next) would spare a commit the wait.
    pub(crate) fn wants_next(&self) -> bool {
        self.state.lock().wants_next(&self.config)
    }

    /// Creates the next segment's file ahead of time, its name durable. For a background thread.
    ///
    /// # Errors
    ///
    /// `Io` if the file cannot be created, `Poisoned` if the directory cannot be synced.
    pub(crate) fn prepare_next(&self) -> Result<()> {
        let Some(number) = self.state.lock().begin_prepare()? else {
            return Ok(());
        };
        let path = self.config.path(number);
        let created = self.config.env.create_new(&path);
        let synced = created
            .as_ref()
            .ok()
            .filter(|_| !planted(Bug::WalPreparedNameSyncSkipped))
            .map(|_| self.config.env.sync_dir(&self.config.dir));
        let mut state = self.state.lock();
        state.end_prepare();
        let file = created?;
        if let Some(Err(error)) = synced {
            // A later sync of the directory may not tell of the names that this one lost.
            return Err(state.poison(&error));
        }
        let unused = state.prepared(Prepared { number, path, file });
        drop(state);
        match unused {
            Some(unused) => self.config.env.remove_file(&unused.path),
            None => Ok(()),
        }
    }

    /// The first segment that is still needed, if it is another than before: every write in the
    /// segments before it is at or below what `flushed` says of its keyspace. Record it durably,
    /// then call [`remove_before`](Self::remove_before). A keyspace that was dropped has flushed
    /// everything: `SeqNo::MAX`.
    pub(crate) fn retirable(&self, flushed: &dyn Fn(u32) -> SeqNo) -> Option<u64> {
        let flushed = self.flushed(flushed);
        self.state.lock().retirable(&flushed)
    }

    /// Removes the segments before `first_needed`, which [`retirable`](Self::retirable) returned
    /// and the manifest now names.
    ///
    /// # Errors
    ///
    /// `Io`. The files that stay behind are not used again and removed by the next open.
    pub(crate) fn remove_before(&self, first_needed: u64) -> Result<()> {
        let paths = self.state.lock().remove_before(first_needed);
        let mut result = Ok(());
        for path in paths {
            result = result.and(self.config.env.remove_file(&path));
        }
        result
    }

    /// A keyspace whose flush is needed before the oldest segment can go; `None` if only the
    /// current segment is left, or nothing keeps the oldest.
    pub(crate) fn oldest_holder(&self, flushed: &dyn Fn(u32) -> SeqNo) -> Option<u32> {
        let flushed = self.flushed(flushed);
        self.state.lock().oldest_holder(&flushed)
    }

    /// Asks `flushed` for every keyspace in question, outside of the lock: it may take others.
    /// What it says can only be too low by the time it is used.
    fn flushed(&self, flushed: &dyn Fn(u32) -> SeqNo) -> BTreeMap<u32, SeqNo> {
        let keyspaces = self.state.lock().closed_keyspaces();
        ask(flushed, keyspaces)
    }

    /// The oldest segment. Once the manifest names it, its loss is noticed by the next open.
    pub(crate) fn first_segment(&self) -> u64 {
        self.state.lock().first_segment()
    }

    /// The position up to which the log is durable.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// The position behind the last record.
    pub(crate) fn end(&self) -> Lsn {
        self.state.lock().end()
    }

    /// Length of all segment files that are still needed, with what is staged of them and the zeros
    /// ahead of them.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes()
    }

    /// Bytes written since the log was opened, each record once, however it came into its segment,
    /// the stage once, and the zeros ahead of records.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.state.lock().bytes_written()
    }
}

fn ask(flushed: &dyn Fn(u32) -> SeqNo, keyspaces: BTreeSet<u32>) -> BTreeMap<u32, SeqNo> {
    let with_flushed = |keyspace| (keyspace, flushed(keyspace));
    keyspaces.into_iter().map(with_flushed).collect()
}

fn poisoned(error: &Error) -> Error {
    error
        .into_kind(ErrorKind::Poisoned)
        .context("the write-ahead log could not be synced")
}

fn missing(dir: &Path, what: &str) -> Error {
    Error::corruption(format!("write-ahead log in {}: {what}", dir.display()))
}

#[cfg(test)]
mod tests;
