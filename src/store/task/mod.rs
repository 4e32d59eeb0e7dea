//! [`Task`]: the stores of one partition of a job, written and committed together.
//!
//! In reading order: `options`; `local` (the stores and their restore); `status` (what may follow
//! what); `open`; this file
//! (writing); `undo` (what a changelog whose commits are not atomic needs); `commit`
//! (commits, aborts, heartbeats, the end).

mod commit;
mod inputs;
mod local;
mod open;
mod options;
mod status;
mod undo;

use std::collections::BTreeMap;
use std::fmt;

use crate::batch::WriteBatch;
use crate::changelog::{Guarantee, Session};
use crate::db::{Db, Keyspace, Snapshot, Stats};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, check_key, check_value};
use crate::options::Durability;
use crate::sync::Arc;

use self::inputs::{Inputs, room_of};
use self::local::find;
use self::status::Status;
use self::undo::Undo;
use super::codec::Kind;
use super::positions::Positions;
use super::restore::Restored;
use super::serde::{Serde, U64};

pub use commit::Closed;
pub(super) use local::{Local, Store};
pub use options::{StoreOptions, TaskOptions};

/// The stores of one task, the only one who writes them.
///
/// Writes are visible at once, to this task and to every reader, and count once
/// [`commit`](Self::commit) has returned: all of them, in all stores, together with the positions
/// of the input that they come from. What was not committed is gone after a crash, and after
/// [`abort`](Self::abort), and is then to be made again from the input:
///
/// ```
/// use std::sync::Arc;
/// use siltstone::changelog::Memory;
/// use siltstone::env::OsEnv;
/// use siltstone::store::serde::{U64, Utf8};
/// use siltstone::store::{Task, TaskOptions};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let clicks = ["/home", "/about", "/home"];
/// let changelog = Arc::new(Memory::new(Arc::new(OsEnv::new())));
/// let options = TaskOptions::new("counter", 0, dir.path().join("counter-0"), changelog);
/// let mut task = Task::open(options.store("counts"))?;
/// let counts = task.key_value("counts", Utf8, U64)?;
///
/// let start = task.input_position("clicks")?.unwrap_or(0);
/// for (offset, page) in (0_u64..).zip(clicks).skip(start as usize) {
///     let count = counts.get(page)?.unwrap_or(0);
///     counts.put(&mut task, page, &(count + 1))?;
///     task.set_input_position("clicks", offset + 1)?;
///     if task.commit_requested() {
///         task.commit()?;
///     }
/// }
/// task.commit()?;
/// assert_eq!(counts.get("/home")?, Some(2));
/// task.close()?;
/// # Ok(())
/// # }
/// ```
///
/// A task belongs to one thread at a time; handles to its stores
/// ([`key_value`](Self::key_value)) read from any. The local state stays open as long as one of
/// them is left.
///
/// # When something fails
///
/// A write that fails with `InvalidArgument` or `MemoryLimit` has changed nothing. After
/// `MemoryLimit`, commit and repeat it; half-way through an input record, abort instead, for a
/// commit would make that half count. After any other failed write or commit every call answers
/// that an [`abort`](Self::abort) is needed; then go on from
/// [`input_position`](Self::input_position). `Fenced` (another owner has the task), `Poisoned`,
/// `Diverged`, `Corruption` and `Closed` are final: drop the task, and where it was not fenced,
/// open it again.
///
/// # What a commit guarantees
///
/// With a changelog of [`Guarantee::Atomic`], each input record has its effect exactly once,
/// whatever crashes. With [`Guarantee::PerBatch`], a crash in the midst of a commit may leave
/// effects of records whose input position was not stored: at least once.
pub struct Task {
    name: String,
    db: Db,
    env: Arc<dyn Env>,
    session: Box<dyn Session>,
    guarantee: Guarantee,
    /// The store of the input positions is the last; a store's index is that of its partition.
    stores: Vec<Store>,
    positions: Positions,
    /// Input positions set since the last commit: written when that is sent, the last one only.
    inputs: Inputs,
    status: Status,
    undo: Undo,
    record_time_ms: Option<i64>,
    restored: Restored,
}

/// One write of bytes as the store keeps them; no value deletes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<&'a [u8]>,
}

/// Longest name of an input, in bytes.
const INPUT_LEN_MAX: usize = 1024;

impl Task {
    /// Of a local state that is up to date with what `session` has claimed.
    pub(in crate::store) fn new(
        local: Local,
        session: Box<dyn Session>,
        restored: Restored,
    ) -> Self {
        let Local {
            options,
            db,
            env,
            stores,
            positions,
            ..
        } = local;
        Self {
            name: options.task_name(),
            db,
            env,
            session,
            guarantee: options.changelog.guarantee(),
            stores,
            positions,
            inputs: Inputs::default(),
            status: Status::default(),
            undo: Undo::default(),
            record_time_ms: None,
            restored,
        }
    }

    /// The name by which the changelog knows the task.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What opening the task restored.
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    /// What a commit guarantees.
    pub fn guarantee(&self) -> Guarantee {
        self.guarantee
    }

    /// The timestamp of the changelog records of the writes that follow, in milliseconds since
    /// 1970; `None`, as in the beginning, for the time of each write.
    pub fn set_record_time(&mut self, ms: Option<i64>) {
        self.record_time_ms = ms;
    }

    /// Where to go on reading the input `source`: what was set last, or `None`.
    ///
    /// The one place to ask after opening or aborting a task; a position kept elsewhere may not
    /// belong to the state.
    ///
    /// # Errors
    ///
    /// `Closed`, `Corruption`, `Io`.
    pub fn input_position(&self, source: &str) -> Result<Option<u64>> {
        if let Some(position) = self.inputs.get(source) {
            return Ok(Some(position));
        }
        if let Some(undecided) = &self.status.undecided
            && let Some(position) = undecided.inputs.get(source)
        {
            return Ok(Some(position));
        }
        self.stored_input(source.as_bytes())
    }

    /// All inputs that have a position, with it.
    ///
    /// # Errors
    ///
    /// As [`input_position`](Self::input_position).
    pub fn input_positions(&self) -> Result<BTreeMap<String, u64>> {
        let mut positions = BTreeMap::new();
        for entry in self.inputs_store().keyspace.entries()? {
            let entry = entry?;
            let source = String::from_utf8(entry.key.to_vec())
                .map_err(|error| Error::corruption("name of an input").with_source(error))?;
            positions.insert(source, U64.decode(&entry.value)?);
        }
        if let Some(undecided) = &self.status.undecided {
            positions.extend(
                undecided
                    .inputs
                    .iter()
                    .map(|(source, at)| (source.clone(), at)),
            );
        }
        positions.extend(self.inputs.iter().map(|(source, at)| (source.clone(), at)));
        Ok(positions)
    }

    /// Sets where to go on reading the input `source` once everything written so far counts. Part
    /// of the next commit.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a name that is empty or longer than 1024 bytes; `MemoryLimit` if the
    /// changelog session has no room before the next commit; nothing has changed then. Others: see
    /// [above](Self#when-something-fails).
    pub fn set_input_position(&mut self, source: &str, position: u64) -> Result<()> {
        self.status.check_write()?;
        if source.is_empty() || source.len() > INPUT_LEN_MAX {
            return Err(Error::invalid(format!(
                "name of an input of {} bytes, allowed are 1 to {INPUT_LEN_MAX}",
                source.len()
            )));
        }
        if self.inputs.get(source).is_none() {
            self.reserve(room_of(source))?;
        }
        self.inputs.set(source, position);
        Ok(())
    }

    /// True when the task should commit soon: its memory, or the room of the changelog, fills.
    /// To be asked between input records.
    pub fn commit_requested(&self) -> bool {
        self.db.commit_requested() || self.session.commit_requested() || self.undo.wants_commit()
    }

    /// A frozen view of all stores as of now, writes included that do not count yet. It answers
    /// `Aborted` once they are taken back.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.db.snapshot()
    }

    /// A frozen view of all stores as of the last commit.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn committed(&self) -> Result<Snapshot> {
        self.db.released_snapshot()
    }

    /// What the local state holds and has written.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn stats(&self) -> Result<Stats> {
        self.db.stats()
    }

    /// Drops a store that is kept here though it was not configured
    /// ([`Restored::unused`]). Its changelog partition stays as it is.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such store; `InvalidArgument` if it is in use, or if there are
    /// writes that are not committed; `Poisoned`, `Io`.
    pub fn drop_unused(&mut self, store: &str) -> Result<()> {
        self.status.check_write()?;
        if self.index_of(store).is_some() {
            return Err(Error::invalid(format!("store {store} is in use")));
        }
        // Without its position first: a store that is created later must not find an old one.
        let mut positions = self.positions.clone();
        if positions.remove(store) {
            self.db.flush()?;
            if !self.db.publish_position(positions.encode())? {
                return Err(Error::invalid("there are writes that are not committed"));
            }
            self.positions = positions;
        }
        self.db.drop_keyspace(store)?;
        self.restored.unused.retain(|name| name != store);
        Ok(())
    }

    /// The store of that name and kind, by index.
    pub(super) fn store(&self, name: &str, kind: Kind) -> Result<(usize, &Keyspace)> {
        find(&self.stores, &self.name, name, kind)
    }

    /// Writes to one store: all of it, or nothing, or an error that asks for an abort.
    ///
    /// Room is reserved on both sides before either is touched.
    pub(super) fn write(
        &mut self,
        index: usize,
        keyspace: &Keyspace,
        writes: &[Write<'_>],
    ) -> Result<()> {
        self.status.check_write()?;
        let own = self
            .stores
            .get(index)
            .map(|store| KeyspaceId::from(&store.keyspace));
        if own != Some(KeyspaceId::from(keyspace)) {
            return Err(Error::invalid(format!(
                "the handle of store {} is of another task, or of an earlier opening of this one",
                keyspace.name()
            )));
        }
        let room = self.check_sizes(index, writes)?;
        let mut batch = WriteBatch::new();
        for write in writes {
            match write.value {
                Some(value) => batch.put(keyspace, write.key, value)?,
                None => batch.delete(keyspace, write.key)?,
            }
        }
        self.reserve(room)?;
        // The local side takes all of the batch or nothing, and with room set aside the changelog
        // does not refuse either.
        let local = self.db.write(batch, Durability::Buffered);
        local.map_err(|error| self.status.note(error))?;
        self.append(index, writes)
    }

    /// Checks that both sides can hold the writes. Returns the room they need in the changelog.
    fn check_sizes(&self, index: usize, writes: &[Write<'_>]) -> Result<u64> {
        let record_max = self.session.record_bytes_max();
        let mut room = 0_u64;
        let mut key_bytes = 0;
        for write in writes {
            check_key(write.key)?;
            check_value(write.value.unwrap_or_default())?;
            let record = self.stores[index].kind.record(write.key, write.value, 0)?;
            let size = record.size();
            if size > record_max {
                return Err(Error::invalid(format!(
                    "key and value make a changelog record of {size} bytes, at most {record_max} \
                     are allowed"
                )));
            }
            room = room.saturating_add(size);
            key_bytes += write.key.len();
        }
        if self.guarantee == Guarantee::PerBatch {
            self.undo.check_room(writes.len(), key_bytes)?;
        }
        Ok(room)
    }

    /// Sets room aside in the changelog session, for the input positions too that a commit writes.
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        let sent = self.status.undecided.as_ref();
        let inputs = self.inputs.room() + sent.map_or(0, |undecided| undecided.inputs.room());
        let reserved = self.session.reserve(bytes.saturating_add(inputs));
        reserved.map_err(|error| self.status.note(error))
    }

    /// Appends what the local side has taken to the changelog.
    fn append(&mut self, index: usize, writes: &[Write<'_>]) -> Result<()> {
        let timestamp_ms = self.record_time_ms.unwrap_or_else(|| self.now_ms());
        for write in writes {
            if self.guarantee == Guarantee::PerBatch {
                self.undo.note(index, write.key);
            }
            let kind = self.stores[index].kind;
            let record = kind.record(write.key, write.value, timestamp_ms)?;
            let appended = self.session.append(index, record);
            appended.map_err(|error| self.status.fail(error))?;
        }
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.env.wall_clock_ms()).unwrap_or(i64::MAX)
    }

    fn inputs_index(&self) -> usize {
        self.stores.len() - 1
    }

    fn inputs_store(&self) -> &Store {
        &self.stores[self.inputs_index()]
    }

    fn stored_input(&self, source: &[u8]) -> Result<Option<u64>> {
        let value = self.inputs_store().keyspace.get(source)?;
        value.map(|value| U64.decode(&value)).transpose()
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.stores.iter().position(|store| store.name == name)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stores: Vec<&str> = self.stores.iter().map(|store| &*store.name).collect();
        f.debug_struct("Task")
            .field("name", &self.name)
            .field("stores", &stores)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
