//! [`Standby`]: the stores of a task that somebody else owns, kept close to their changelog.

use std::fmt;
use std::time::Duration;

use crate::batch::WriteBatch;
use crate::changelog::{
    Bounds, Fetched, Offset, Owner, Partition, Position, Reader, RecordRef, Session,
};
use crate::db::{Db, Keyspace, Snapshot, Stats};
use crate::error::{Error, ErrorKind, Result};
use crate::options::Durability;

use super::codec::Kind;
use super::decide::{Decision, staleness};
use super::key_value::KeyValue;
use super::positions::Covered;
use super::restore::{Followed, How, Owned, Restored, RestoredStore, check_record};
use super::serde::Serde;
use super::task::{Local, Task, TaskOptions};
use super::timestamped::Timestamped;

/// Bytes of records that are written at a time.
const BATCH_BYTES: usize = 256 << 10;
/// Offsets behind the end from which on the rest is read into tables, past the memtables.
const LAG_MAX: u64 = 1 << 20;
/// How often the time of the positions of quiet stores is stored.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(60);
/// How often one poll begins with a store again that was trimmed under it.
const ROUNDS_MAX: usize = 3;

/// The stores of a task that somebody else owns, ready to take over.
///
/// Each [`poll`](Self::poll) brings them up to where the changelog ends at that moment; what is
/// far behind is restored into tables as by [`Task::open`]. The stores can be read all the time,
/// by handles of any thread, but not written. They follow one by one: one store may show what a
/// commit did while another does not yet. [`promote`](Self::promote) makes a [`Task`] of it, in
/// place.
///
/// ```
/// use std::sync::Arc;
/// use siltstone::changelog::Memory;
/// use siltstone::env::OsEnv;
/// use siltstone::store::serde::{U64, Utf8};
/// use siltstone::store::{Standby, Task, TaskOptions};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let changelog = Arc::new(Memory::new(Arc::new(OsEnv::new())));
/// let options = |machine: &str| {
///     TaskOptions::new("job", 0, dir.path().join(machine), changelog.clone()).store("visits")
/// };
/// let mut task = Task::open(options("here"))?;
/// let visits = task.key_value("visits", Utf8, U64)?;
/// visits.put(&mut task, "ann", &3)?;
/// task.commit()?;
///
/// let mut standby = Standby::open(options("there"))?;
/// standby.poll()?;
/// let copy = standby.key_value("visits", Utf8, U64)?;
/// assert_eq!(copy.get("ann")?, Some(3));
///
/// let mut successor = standby.promote()?;
/// copy.put(&mut successor, "ann", &4)?;
/// successor.commit()?;
/// assert_eq!(task.commit().unwrap_err().kind(), siltstone::ErrorKind::Fenced);
/// # Ok(())
/// # }
/// ```
///
/// A standby that stops goes on from its stored positions when it is opened again, and so does a
/// [`Task`] that is opened on its directory. After an error a poll may be repeated, unless it is
/// `Poisoned`, `Corruption` or `Closed`.
pub struct Standby {
    local: Local,
    /// By store: what is read on with, unless it has to be opened anew.
    readers: Vec<Option<Box<dyn Reader>>>,
    /// When positions were last stored for the sake of their time, by the monotonic clock.
    published: Duration,
}

/// What one [`Standby::poll`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Polled {
    /// Records read, of all stores.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Stores that were far behind or had to be rebuilt, and were restored into tables. Handles of
    /// a store that was [rebuilt](super::How::Rebuilt) answer `NotFound` from then on: take new
    /// ones.
    pub restored: Vec<RestoredStore>,
}

/// How far one store of a [`Standby`] is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// The store; the one of the input positions is the last.
    pub store: String,
    /// The next offset to read; `None` before the first poll that found the partition.
    pub position: Option<Offset>,
    /// Where the partition ends; `None` if it does not exist yet.
    pub end: Option<Offset>,
}

impl Lag {
    /// Offsets between the position and the end. They have gaps: so many records at most.
    pub fn offsets(&self) -> u64 {
        let end = self.end.unwrap_or_default();
        end.0.saturating_sub(self.position.unwrap_or_default().0)
    }
}

/// How following one store has ended.
enum Tail {
    /// At the end of the moment.
    AtEnd,
    /// The log was trimmed, or dropped a tombstone, under the reader.
    Lost,
}

impl Standby {
    /// Opens the local state. Nothing is read of the changelog yet but its bounds, and nothing
    /// claimed: partitions that do not exist are waited for.
    ///
    /// # Errors
    ///
    /// As [`Task::open`], but for those of claiming and reading the changelog.
    pub fn open(options: TaskOptions) -> Result<Self> {
        let local = Local::open(options)?;
        Ok(Self {
            readers: local.stores.iter().map(|_| None).collect(),
            published: local.env.monotonic(),
            local,
        })
    }

    /// Brings every store up to where its partition ends now. Blocks until then; a store without
    /// local state, or far behind, takes as long as a restore.
    ///
    /// Local state that cannot be resumed from is rebuilt unasked, as by [`Task::open`]; it can be
    /// read until the new one takes its place.
    ///
    /// # Errors
    ///
    /// `Diverged` if local state and changelog do not belong together; `Changelog` if the
    /// changelog cannot be read, or goes on losing what is being read; `MemoryLimit`, `Io`,
    /// `Corruption`, `Unsupported`, `Poisoned`, `Closed`. What was read before the error stays.
    pub fn poll(&mut self) -> Result<Polled> {
        let mut polled = Polled::default();
        let mut open: Vec<usize> = (0..self.local.stores.len()).collect();
        for _ in 0..ROUNDS_MAX {
            open = self.pass(&open, &mut polled)?;
            if open.is_empty() {
                self.publish_if_due()?;
                return Ok(polled);
            }
        }
        let store = &self.local.stores[open[0]].name;
        Err(Error::new(
            ErrorKind::Changelog,
            format!("store {store}: the changelog drops records faster than they are read"),
        ))
    }

    /// How far each store is behind, by a look at where its partition ends now.
    ///
    /// # Errors
    ///
    /// `Changelog`, `Io`, `Corruption`, `Locked` if that cannot be found out.
    pub fn lag(&self) -> Result<Vec<Lag>> {
        let options = &self.local.options;
        let stores = self.local.stores.iter().enumerate();
        let lag = |(index, store): (usize, &super::task::Store)| {
            let bounds = options.changelog.bounds(options.partition_of(index))?;
            let covered = self.local.positions.get(&store.name);
            Ok(Lag {
                store: store.name.clone(),
                position: covered.map(|covered| covered.position.next),
                end: bounds.map(|bounds| bounds.end),
            })
        };
        stores.map(lag).collect()
    }

    /// The store of that name as a map. Its writes take a [`Task`], and work once this standby
    /// was promoted to one.
    ///
    /// # Errors
    ///
    /// As [`Task::key_value`].
    pub fn key_value<K: Serde, V: Serde>(
        &self,
        name: &str,
        keys: K,
        values: V,
    ) -> Result<KeyValue<K, V>> {
        let (index, keyspace) = self.local.find(name, Kind::KeyValue)?;
        Ok(KeyValue::new(index, keyspace, keys, values))
    }

    /// The timestamped store of that name; see [`key_value`](Self::key_value).
    ///
    /// # Errors
    ///
    /// As [`Task::timestamped`].
    pub fn timestamped<K: Serde, V: Serde>(
        &self,
        name: &str,
        keys: K,
        values: V,
    ) -> Result<Timestamped<K, V>> {
        let (index, keyspace) = self.local.find(name, Kind::Timestamped)?;
        Ok(Timestamped::new(index, keyspace, keys, values))
    }

    /// A frozen view of all stores as of now.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.local.db.snapshot()
    }

    /// What the local state holds and has written.
    ///
    /// # Errors
    ///
    /// `Closed`.
    pub fn stats(&self) -> Result<Stats> {
        self.local.db.stats()
    }

    /// Takes the task over: fences its owner, whether that is alive or not, reads what is missing
    /// up to the fence, and goes on as a [`Task`]. The local state stays open, and so do handles
    /// and snapshots of it.
    ///
    /// # Errors
    ///
    /// As [`Task::open`]. The local state is closed then and can be opened again, as a standby or
    /// as a task.
    pub fn promote(mut self) -> Result<Task> {
        self.readers.clear();
        self.local.check_stored()?;
        let mut session = self.local.claim()?;
        let mut restored = Vec::new();
        let mut far_behind = Vec::new();
        for index in 0..self.local.stores.len() {
            match self.catch_up(index, &mut *session)? {
                Some(store) => restored.push((index, store)),
                None => far_behind.push(index),
            }
        }
        if !far_behind.is_empty() {
            self.local.db.flush()?;
            let mut log = Owned(&mut *session);
            let stores = self.local.restore(&mut log, &far_behind)?;
            self.local.publish()?;
            restored.extend(far_behind.into_iter().zip(stores));
        }
        restored.sort_by_key(|(index, _)| *index);
        let restored = Restored {
            stores: restored.into_iter().map(|(_, store)| store).collect(),
            unused: std::mem::take(&mut self.local.unused),
        };
        Ok(Task::new(self.local, session, restored))
    }

    /// Ends the standby in good order: moves everything into tables and stores how far they reach.
    ///
    /// # Errors
    ///
    /// The first thing that could not be done; the local state is closed all the same.
    pub fn close(self) -> Result<()> {
        let flushed = self.local.db.flush();
        let published = flushed.and_then(|()| self.local.publish());
        let closed = self.local.db.close();
        published.and(closed)
    }

    /// Reads what a store lacks up to the fence of a task that was claimed, into memtables. `None`
    /// for a store that is far behind, or lacks what cannot be read any more.
    fn catch_up(
        &mut self,
        index: usize,
        session: &mut dyn Session,
    ) -> Result<Option<RestoredStore>> {
        let since = self.local.env.monotonic();
        let bounds = session.bounds(index)?;
        let decision = self.local.decide(index, Some(&bounds))?;
        let Decision::Tail(start) = decision else {
            return Ok(None);
        };
        if bounds.end.0 - start.0 > LAG_MAX {
            return Ok(None);
        }
        let name = self.local.stores[index].name.clone();
        let begin = self.local.positions.get(&name);
        let begin = begin.expect("a tail begins somewhere").clone();
        let partition = self.local.options.partition_of(index).clone();
        let mut reader = session.reader(index, start)?;
        let mut polled = Polled::default();
        let fetched = loop {
            match self.fetch(index, &partition, &begin, &mut *reader, &mut polled) {
                Ok(fetched) if fetched.at_end => break fetched,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Changelog => {
                    let is_trimmed = session.bounds(index)?.start > reader.position();
                    return if is_trimmed { Ok(None) } else { Err(error) };
                }
                Err(error) => return Err(error),
            }
        };
        let bounds = session.bounds(index)?;
        if staleness(&begin, &bounds, self.local.env.wall_clock_ms()).is_some() {
            return Ok(None);
        }
        let owner = session.owner();
        self.at_end(
            &name,
            &begin,
            &bounds,
            (fetched.next, fetched.time_ms, owner),
        );
        Ok(Some(RestoredStore {
            name,
            how: match polled.records {
                0 => How::UpToDate,
                _ => How::Tail,
            },
            records: polled.records,
            bytes: polled.bytes,
            start,
            end: fetched.next,
            duration: self.local.env.monotonic().saturating_sub(since),
        }))
    }

    /// Looks at each of these stores once. Returns those to begin with again.
    fn pass(&mut self, indexes: &[usize], polled: &mut Polled) -> Result<Vec<usize>> {
        let mut again = Vec::new();
        let mut far_behind = Vec::new();
        for &index in indexes {
            let now_ms = self.local.env.wall_clock_ms();
            let partition = self.local.options.partition_of(index);
            let bounds = self.local.options.changelog.bounds(partition)?;
            let decision = self.local.decide(index, bounds.as_ref())?;
            match (decision, bounds) {
                // Nothing here and nothing there.
                (_, None) => {}
                (Decision::Tail(next), Some(bounds)) if bounds.end.0 - next.0 <= LAG_MAX => {
                    match self.follow(index, &bounds, now_ms, polled) {
                        Ok(Tail::AtEnd) => {}
                        Ok(Tail::Lost) => again.push(index),
                        Err(error) => {
                            // It may have gone further than what was written.
                            self.readers[index] = None;
                            let store = &self.local.stores[index].name;
                            return Err(error.context(format_args!("standby of {store}")));
                        }
                    }
                }
                _ => far_behind.push(index),
            }
        }
        if !far_behind.is_empty() {
            self.restore(&far_behind, polled)?;
        }
        Ok(again)
    }

    /// Reads into tables, past the memtables, which are emptied first.
    fn restore(&mut self, indexes: &[usize], polled: &mut Polled) -> Result<()> {
        for &index in indexes {
            self.readers[index] = None;
        }
        self.local.db.flush()?;
        let partitions = self.local.options.partitions();
        let changelog = crate::sync::Arc::clone(&self.local.options.changelog);
        let mut log = Followed {
            changelog: &*changelog,
            partitions: &partitions,
        };
        let restored = self.local.restore(&mut log, indexes)?;
        self.local.publish()?;
        polled.records += restored.iter().map(|store| store.records).sum::<u64>();
        polled.bytes += restored.iter().map(|store| store.bytes).sum::<u64>();
        polled.restored.extend(restored);
        Ok(())
    }

    /// Writes what came after the position of a store into memtables, from where it is flushed
    /// together with the position behind it.
    fn follow(
        &mut self,
        index: usize,
        bounds: &Bounds,
        now_ms: u64,
        polled: &mut Polled,
    ) -> Result<Tail> {
        let options = &self.local.options;
        let name = self.local.stores[index].name.clone();
        let begin = self.local.positions.get(&name);
        let begin = begin.expect("a tail begins somewhere").clone();
        if begin.position.next == bounds.end {
            let owner = begin.position.owner;
            self.at_end(&name, &begin, bounds, (bounds.end, now_ms, owner));
            return Ok(Tail::AtEnd);
        }
        let partition = options.partition_of(index).clone();
        let mut reader = match self.readers[index].take() {
            Some(reader) => reader,
            None => options.changelog.reader(&partition, begin.position.next)?,
        };
        let fetched = loop {
            match self.fetch(index, &partition, &begin, &mut *reader, polled) {
                Ok(fetched) if fetched.at_end => break fetched,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Changelog => {
                    let bounds = self.local.options.changelog.bounds(&partition)?;
                    let is_trimmed = bounds.is_some_and(|now| now.start > reader.position());
                    return if is_trimmed {
                        Ok(Tail::Lost)
                    } else {
                        Err(error)
                    };
                }
                Err(error) => return Err(error),
            }
        };
        let bounds = self.local.options.changelog.bounds(&partition)?;
        let Some(bounds) = bounds else {
            return Ok(Tail::Lost);
        };
        if staleness(&begin, &bounds, self.local.env.wall_clock_ms()).is_some() {
            return Ok(Tail::Lost);
        }
        let owner = begin.position.owner;
        self.at_end(
            &name,
            &begin,
            &bounds,
            (fetched.next, fetched.time_ms, owner),
        );
        self.readers[index] = Some(reader);
        Ok(Tail::AtEnd)
    }

    /// One fetch, of which everything is written.
    fn fetch(
        &mut self,
        index: usize,
        partition: &Partition,
        begin: &Covered,
        reader: &mut dyn Reader,
        polled: &mut Polled,
    ) -> Result<Fetched> {
        let store = &self.local.stores[index];
        let (keyspace, kind, name) = (&store.keyspace, store.kind, store.name.clone());
        let (db, positions) = (&self.local.db, &mut self.local.positions);
        let mut batch = Batch::default();
        let mut advance = |batch: &mut Batch, next: Offset| {
            let position = Position {
                next,
                ..begin.position.clone()
            };
            let covered = Covered {
                position,
                ..begin.clone()
            };
            batch.write(db)?;
            positions.set(&name, covered);
            let mark = db.mark()?;
            db.release(mark, positions.encode())
        };
        let fetched = reader.fetch(&mut |offset, record| {
            check_record(partition, kind, offset, &record)?;
            batch.add(keyspace, kind, &record)?;
            polled.records += 1;
            polled.bytes += (record.key.len() + record.value.map_or(0, <[u8]>::len)) as u64;
            if batch.bytes >= BATCH_BYTES {
                return advance(&mut batch, Offset(offset.0 + 1));
            }
            Ok(())
        })?;
        advance(&mut batch, fetched.next)?;
        Ok(fetched)
    }

    /// Notes that a store is up to date: where it ends, since when, and whose the log is.
    fn at_end(
        &mut self,
        name: &str,
        begin: &Covered,
        bounds: &Bounds,
        (next, time_ms, owner): (Offset, u64, Owner),
    ) {
        let position = Position {
            next,
            leader_epoch: bounds.leader_epoch,
            time_ms,
            owner,
            ..begin.position.clone()
        };
        let covered = Covered {
            position,
            dropped_below: bounds.tombstones_dropped_below,
            since: next,
            kind: begin.kind,
        };
        self.local.positions.set(name, covered);
    }

    fn publish_if_due(&mut self) -> Result<()> {
        let now = self.local.env.monotonic();
        if now.saturating_sub(self.published) >= PUBLISH_INTERVAL {
            self.local.publish()?;
            self.published = now;
        }
        Ok(())
    }
}

impl fmt::Debug for Standby {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standby")
            .field("task", &self.local.options.task_name())
            .finish_non_exhaustive()
    }
}

/// Records on their way into memtables.
#[derive(Default)]
struct Batch {
    writes: WriteBatch,
    bytes: usize,
    /// Scratch space.
    stored: Vec<u8>,
}

impl Batch {
    fn add(&mut self, keyspace: &Keyspace, kind: Kind, record: &RecordRef<'_>) -> Result<()> {
        self.stored.clear();
        kind.put_stored(record, &mut self.stored);
        match record.value {
            Some(_) => self.writes.put(keyspace, record.key, &self.stored)?,
            None => self.writes.delete(keyspace, record.key)?,
        }
        self.bytes += record.key.len() + self.stored.len();
        Ok(())
    }

    fn write(&mut self, db: &Db) -> Result<()> {
        if self.bytes > 0 {
            self.bytes = 0;
            db.write(std::mem::take(&mut self.writes), Durability::Buffered)?;
        }
        Ok(())
    }
}
