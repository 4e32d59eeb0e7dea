//! From a changelog into tables: records are collected, sorted by key, and written as runs of
//! tables, the newest of each key only. They never pass through the write path.

use std::fmt;
use std::time::Duration;

use crate::cache::Account;
use crate::changelog::{Bounds, Offset, Partition, Position, RecordRef, Session};
use crate::db::{Db, Keyspace, RestoreEntry};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KEY_LEN_MAX, VALUE_LEN_MAX};
use crate::planted::{Bug, planted};
use crate::runtime::Runtime;
use crate::sync::Arc;

use super::decide::{RebuildReason, staleness};
use super::positions::{Covered, Positions};

/// How a store came to be up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// The local state was; nothing had to be read.
    UpToDate,
    /// What came after the local position was read.
    Tail,
    /// There was no local state: everything was read.
    Full,
    /// There was local state that could not be used: everything was read into a new generation,
    /// which took its place.
    Rebuilt(RebuildReason),
}

/// What the restore of one store did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoredStore {
    /// The store.
    pub name: String,
    /// What had to be done.
    pub how: How,
    /// Records read.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Where reading began.
    pub start: Offset,
    /// Where it ended: the next offset.
    pub end: Offset,
    /// How long it took.
    pub duration: Duration,
}

/// What [`Task::open`](super::Task::open) restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Restored {
    /// Each store, the one of the input positions last.
    pub stores: Vec<RestoredStore>,
    /// Stores that are kept here but were not configured. They stay as they are; one that is
    /// configured again goes on from where it was. See
    /// [`Task::drop_unused`](super::Task::drop_unused).
    pub unused: Vec<String>,
}

impl Restored {
    /// What was done for one store.
    pub fn store(&self, name: &str) -> Option<&RestoredStore> {
        self.stores.iter().find(|store| store.name == name)
    }

    /// Records read, of all stores.
    pub fn records(&self) -> u64 {
        self.stores.iter().map(|store| store.records).sum()
    }
}

/// How far the restore of one store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The store.
    pub store: &'a str,
    /// Records read so far.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// The next offset to read.
    pub position: Offset,
    /// About where it will end. Offsets have gaps, so this is no count of records.
    pub end: Offset,
}

/// Is told how far restores have come.
pub(super) type ProgressFn = dyn Fn(&Progress<'_>) + Send + Sync;

/// What all restores of one open share.
pub(super) struct Restorer<'a> {
    pub(super) db: &'a Db,
    pub(super) env: &'a dyn Env,
    pub(super) runtime: &'a Runtime,
    pub(super) session: &'a mut dyn Session,
    pub(super) positions: &'a mut Positions,
    pub(super) arena_bytes_max: usize,
    pub(super) progress: Option<&'a ProgressFn>,
}

/// One partition to read into one keyspace.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) store: &'a str,
    /// The partition, and its index in the session.
    pub(super) partition: &'a Partition,
    pub(super) index: usize,
    pub(super) keyspace: &'a Keyspace,
    /// True if the keyspace is the store, whose position then moves with every run; false for a
    /// new generation, which counts when it takes the store's place.
    pub(super) is_store: bool,
}

/// How the reading of one partition ended.
pub(super) enum Outcome {
    /// At the end; the positions have been advanced, but not yet published.
    Complete(Reading),
    /// What was read may lack something: begin again.
    Again(RebuildReason),
}

/// What was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) start: Offset,
    pub(super) end: Offset,
}

impl Restorer<'_> {
    /// What a restore from the start of a partition begins with.
    pub(super) fn nothing_covered(&self, partition: &Partition, bounds: &Bounds) -> Covered {
        Covered {
            position: Position {
                cluster: bounds.cluster.clone(),
                topic_id: bounds.topic_id,
                partition: partition.clone(),
                next: bounds.start,
                leader_epoch: bounds.leader_epoch,
                owner: self.session.owner(),
                time_ms: self.env.wall_clock_ms(),
            },
            dropped_below: bounds.tombstones_dropped_below,
        }
    }

    /// Reads a partition to its end, from where `begin` is.
    ///
    /// The positions keep the time of `begin` until the end was reached and `begin` was found to
    /// be fresh still: a tombstone that was dropped meanwhile is missed by a slow reader.
    pub(super) fn run(&mut self, job: Job<'_>, begin: &Covered) -> Result<Outcome> {
        self.db.begin_restore(job.keyspace)?;
        let start = begin.position.next;
        let mut reader = self.session.reader(job.index, start)?;
        let end = self.session.bounds(job.index)?.end;
        let mut arena = Arena::new(self.runtime, self.arena_bytes_max)?;
        let mut reading = Reading {
            records: 0,
            bytes: 0,
            start,
            end: start,
        };
        let fetched = loop {
            let result = reader.fetch(&mut |offset, record| {
                check_record(job.partition, offset, &record)?;
                if !arena.has_room(&record) {
                    self.write_run(job, &mut arena, begin, offset)?;
                }
                arena.push(&record);
                reading.records += 1;
                reading.bytes += (record.key.len() + record.value.map_or(0, <[u8]>::len)) as u64;
                Ok(())
            });
            let fetched = match result {
                Ok(fetched) => fetched,
                Err(error) if self.is_trimmed(job, reader.position(), &error) => {
                    return Ok(Outcome::Again(RebuildReason::Trimmed));
                }
                Err(error) => return Err(error.context(format_args!("restore of {}", job.store))),
            };
            reading.end = fetched.next;
            self.tell(job, &reading, end);
            if fetched.at_end {
                break fetched;
            }
        };
        self.write_run(job, &mut arena, begin, fetched.next)?;
        let bounds = self.session.bounds(job.index)?;
        if let Some(reason) = staleness(begin, &bounds, self.env.wall_clock_ms()) {
            return Ok(Outcome::Again(reason));
        }
        let mut position = self.at(begin, fetched.next);
        position.time_ms = fetched.time_ms;
        position.leader_epoch = bounds.leader_epoch;
        let dropped_below = bounds.tombstones_dropped_below;
        self.positions.set(
            job.store,
            Covered {
                position,
                dropped_below,
            },
        );
        self.db.end_restore(job.keyspace)?;
        Ok(Outcome::Complete(reading))
    }

    fn at(&self, begin: &Covered, next: Offset) -> Position {
        Position {
            next,
            owner: self.session.owner(),
            ..begin.position.clone()
        }
    }

    /// Writes what was collected, together with the position behind it.
    fn write_run(
        &mut self,
        job: Job<'_>,
        arena: &mut Arena,
        begin: &Covered,
        next: Offset,
    ) -> Result<()> {
        let entries = arena.sorted();
        if entries.is_empty() {
            return Ok(());
        }
        if job.is_store {
            let mut position = self.at(begin, next);
            if planted(Bug::RestorePositionAhead) {
                position.next = self.session.bounds(job.index)?.end;
            }
            let dropped_below = begin.dropped_below;
            self.positions.set(
                job.store,
                Covered {
                    position,
                    dropped_below,
                },
            );
        }
        self.db
            .add_restored_run(job.keyspace, &entries, self.positions.encode())?;
        drop(entries);
        arena.clear();
        Ok(())
    }

    /// True if the log was trimmed past the reader, which is then no failure of the log.
    fn is_trimmed(&mut self, job: Job<'_>, position: Offset, error: &Error) -> bool {
        error.kind() == ErrorKind::Changelog
            && self
                .session
                .bounds(job.index)
                .is_ok_and(|bounds| bounds.start > position)
    }

    fn tell(&self, job: Job<'_>, reading: &Reading, end: Offset) {
        if let Some(progress) = self.progress {
            progress(&Progress {
                store: job.store,
                records: reading.records,
                bytes: reading.bytes,
                position: reading.end,
                end: end.max(reading.end),
            });
        }
    }
}

/// A store takes what its engine can hold; another program may have written more.
fn check_record(partition: &Partition, offset: Offset, record: &RecordRef<'_>) -> Result<()> {
    let value_len = record.value.map_or(0, <[u8]>::len);
    if (1..=KEY_LEN_MAX).contains(&record.key.len()) && value_len <= VALUE_LEN_MAX {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "the record at offset {offset} of {partition} has a key of {} bytes and a value of \
         {value_len}; a store takes keys of 1 to {KEY_LEN_MAX} and values of up to \
         {VALUE_LEN_MAX}",
        record.key.len()
    )))
}

/// The least that an arena holds, whatever the budget has left.
const ARENA_BYTES_MIN: usize = 64 << 10;
/// The part of the budget that one arena may take, so that restores of several tasks fit.
const BUDGET_PART: usize = 4;

/// Records of one run, as they came. Its memory is taken from the budget, all of it at the start.
struct Arena {
    bytes: Vec<u8>,
    entries: Vec<ArenaEntry>,
    bytes_max: usize,
    /// Gives the memory back when it is dropped.
    _account: Arc<Account>,
}

#[derive(Clone, Copy)]
struct ArenaEntry {
    /// The first bytes of the key, as a number of the same order.
    head: u64,
    /// Rises with every record, so the newest of a key has the highest.
    start: usize,
    key_len: usize,
    value_len: Option<usize>,
}

/// What an entry costs beside its bytes: its place in the arena, in the sorted list, and in the
/// scratch space of sorting.
const ENTRY_OVERHEAD: usize = 3 * size_of::<ArenaEntry>();

impl Arena {
    fn new(runtime: &Runtime, bytes_max: usize) -> Result<Self> {
        let budget = runtime.budget();
        let account = budget.open_account(0, 0)?;
        let mut bytes_max = bytes_max.min(budget.bytes_max() / BUDGET_PART);
        while bytes_max > ARENA_BYTES_MIN && !account.try_take(bytes_max) {
            bytes_max /= 2;
        }
        if bytes_max <= ARENA_BYTES_MIN {
            // A restore must be able to go on, or nobody's memory would ever be flushed.
            account.take_anyway(bytes_max);
        }
        Ok(Self {
            bytes: Vec::new(),
            entries: Vec::new(),
            bytes_max,
            _account: account,
        })
    }

    /// True if the record fits. One that is larger than the whole arena fits into an empty one.
    fn has_room(&self, record: &RecordRef<'_>) -> bool {
        let len = record.key.len() + record.value.map_or(0, <[u8]>::len);
        let used = self.bytes.len() + (self.entries.len() + 1) * ENTRY_OVERHEAD;
        self.entries.is_empty() || used + len <= self.bytes_max
    }

    fn push(&mut self, record: &RecordRef<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record.key);
        self.bytes
            .extend_from_slice(record.value.unwrap_or_default());
        self.entries.push(ArenaEntry {
            head: head(record.key),
            start,
            key_len: record.key.len(),
            value_len: record.value.map(<[u8]>::len),
        });
    }

    /// The newest record of every key, in the order of keys.
    fn sorted(&mut self) -> Vec<RestoreEntry<'_>> {
        let bytes = &self.bytes;
        let key = |entry: &ArenaEntry| &bytes[entry.start..entry.start + entry.key_len];
        self.entries.sort_unstable_by(|a, b| {
            let order = a.head.cmp(&b.head).then_with(|| key(a).cmp(key(b)));
            order.then_with(|| a.start.cmp(&b.start))
        });
        let mut sorted: Vec<RestoreEntry<'_>> = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let key = key(entry);
            let value_start = entry.start + entry.key_len;
            let value = entry
                .value_len
                .map(|len| &bytes[value_start..value_start + len]);
            match sorted.last_mut() {
                Some(last) if last.key == key && planted(Bug::RestoreKeepsOldest) => {}
                Some(last) if last.key == key => last.value = value,
                _ => sorted.push(RestoreEntry { key, value }),
            }
        }
        sorted
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RuntimeOptions;

    #[test]
    fn an_arena_sorts_and_keeps_the_newest() {
        let runtime = Runtime::new(RuntimeOptions::new().threads(0)).unwrap();
        let mut arena = Arena::new(&runtime, 1 << 20).unwrap();
        let records: [(&[u8], Option<&[u8]>); 7] = [
            (b"longer-than-eight-b", Some(b"1")),
            (b"a", Some(b"old")),
            (b"longer-than-eight-a", Some(b"2")),
            (b"a\0", Some(b"")),
            (b"a", None),
            (b"b", None),
            (b"b", Some(b"new")),
        ];
        for (key, value) in records {
            arena.push(&RecordRef::new(key, value));
        }
        let sorted: Vec<_> = arena
            .sorted()
            .iter()
            .map(|entry| (entry.key, entry.value))
            .collect();
        let expected: [(&[u8], Option<&[u8]>); 5] = [
            (b"a", None),
            (b"a\0", Some(b"")),
            (b"b", Some(b"new")),
            (b"longer-than-eight-a", Some(b"2")),
            (b"longer-than-eight-b", Some(b"1")),
        ];
        assert_eq!(sorted, expected);
    }

    #[test]
    fn an_arena_takes_what_the_budget_has() {
        let options = RuntimeOptions::new()
            .threads(0)
            .memory_bytes_max(1 << 20)
            .cache_bytes(0);
        let runtime = Runtime::new(options).unwrap();
        let large = Arena::new(&runtime, 64 << 20).unwrap();
        assert_eq!(large.bytes_max, 256 << 10);
        let others: Vec<_> = (0..8)
            .map(|_| Arena::new(&runtime, 64 << 20).unwrap())
            .collect();
        assert_eq!(others.last().unwrap().bytes_max, ARENA_BYTES_MIN);
        assert!(large.has_room(&RecordRef::new(&[1; 1000], Some(&vec![0; 1 << 20]))));
        drop((large, others));
        assert_eq!(runtime.budget().used_bytes(), 0);
    }
}
