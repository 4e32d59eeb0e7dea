//! From a changelog into tables: records are collected (`arena`), sorted by key, and written as
//! runs of tables, the newest of each key only. They never pass through the write path. The caller
//! and threads of the runtime do it together (`crew`).

mod arena;
mod crew;

use std::time::Duration;

use crate::changelog::{Bounds, Changelog, Offset, Owner, Partition, Position, Reader, Session};
use crate::db::Keyspace;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{HelpFn, Runtime};
use crate::sync::Arc;

use self::arena::Arena;
use self::crew::{Crew, End, Target};

pub(super) use self::crew::check_record;
use super::codec::Kind;
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
    /// Where reading began.
    pub start: Offset,
    /// The next offset to read.
    pub position: Offset,
    /// About where it will end. Offsets have gaps, so this is no count of records.
    pub end: Offset,
    /// How long it has taken so far.
    pub elapsed: Duration,
}

impl Progress<'_> {
    /// Records read a second so far; 0 before any time has passed.
    pub fn records_per_second(&self) -> u64 {
        per_second(self.records, self.elapsed)
    }

    /// Bytes of keys and values read a second so far; 0 before any time has passed.
    pub fn bytes_per_second(&self) -> u64 {
        per_second(self.bytes, self.elapsed)
    }

    /// About how long it will take from here, if what is left is like what was read; `None` while
    /// nothing was.
    pub fn time_left(&self) -> Option<Duration> {
        let done = self.position.0.saturating_sub(self.start.0);
        let left = self.end.0.saturating_sub(self.position.0);
        let us = (self.elapsed.as_micros() * u128::from(left)).checked_div(u128::from(done))?;
        Some(Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)))
    }
}

fn per_second(count: u64, elapsed: Duration) -> u64 {
    let rate = (u128::from(count) * 1_000_000).checked_div(elapsed.as_micros());
    rate.map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Is told how far restores have come.
pub(super) type ProgressFn = dyn Fn(&Progress<'_>) + Send + Sync;

/// What a restore reads: partitions by their index, as their owner or as anybody.
pub(super) trait Log {
    fn owner(&self) -> Owner;
    fn bounds(&mut self, index: usize) -> Result<Bounds>;
    fn reader(&mut self, index: usize, from: Offset) -> Result<Box<dyn Reader>>;
}

/// As the owner, up to its fence.
pub(super) struct Owned<'a>(pub(super) &'a mut dyn Session);

impl Log for Owned<'_> {
    fn owner(&self) -> Owner {
        self.0.owner()
    }

    fn bounds(&mut self, index: usize) -> Result<Bounds> {
        self.0.bounds(index)
    }

    fn reader(&mut self, index: usize, from: Offset) -> Result<Box<dyn Reader>> {
        self.0.reader(index, from)
    }
}

/// As somebody who follows, up to the end of the moment.
pub(super) struct Followed<'a> {
    pub(super) changelog: &'a dyn Changelog,
    pub(super) partitions: &'a [Partition],
}

impl Log for Followed<'_> {
    fn owner(&self) -> Owner {
        Owner::default()
    }

    fn bounds(&mut self, index: usize) -> Result<Bounds> {
        let partition = &self.partitions[index];
        self.changelog.bounds(partition)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("changelog partition {partition} does not exist"),
            )
        })
    }

    fn reader(&mut self, index: usize, from: Offset) -> Result<Box<dyn Reader>> {
        self.changelog.reader(&self.partitions[index], from)
    }
}

/// What all restores of one open share.
pub(super) struct Restorer<'a> {
    pub(super) env: &'a Arc<dyn Env>,
    pub(super) runtime: &'a Runtime,
    pub(super) log: &'a mut dyn Log,
    pub(super) positions: &'a mut Positions,
    pub(super) arena_bytes_max: usize,
    pub(super) progress: Option<&'a Arc<ProgressFn>>,
}

/// One partition to read into one keyspace.
pub(super) struct Job {
    pub(super) store: String,
    /// The partition, and its index in the log.
    pub(super) partition: Partition,
    pub(super) index: usize,
    pub(super) kind: Kind,
    pub(super) keyspace: Keyspace,
    /// True if the keyspace is the store, whose position then moves with every run; false for a
    /// new generation, which counts when it takes the store's place.
    pub(super) is_store: bool,
    /// From where to read on.
    ///
    /// The positions keep its time until the end was reached and it was found to be fresh still: a
    /// tombstone that was dropped meanwhile is missed by a slow reader.
    pub(super) begin: Covered,
}

/// How the reading of one partition ended.
pub(super) enum Outcome {
    /// At the end, with what is covered then, which is not yet among the positions.
    Complete(Reading, Covered),
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
    pub(super) duration: Duration,
}

/// What a restore from the start of a partition begins with.
pub(super) fn nothing_covered(
    partition: &Partition,
    bounds: &Bounds,
    kind: Kind,
    owner: Owner,
    now_ms: u64,
) -> Covered {
    Covered {
        position: Position {
            cluster: bounds.cluster.clone(),
            topic_id: bounds.topic_id,
            partition: partition.clone(),
            next: bounds.start,
            leader_epoch: bounds.leader_epoch,
            owner,
            time_ms: now_ms,
        },
        dropped_below: bounds.tombstones_dropped_below,
        since: bounds.start,
        kind,
    }
}

impl Restorer<'_> {
    /// Reads partitions to their ends, several at a time. The outcomes are in the order of the
    /// jobs.
    pub(super) fn run(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>> {
        let helpers = self.runtime.helpers_max().min(2 * jobs.len());
        // One for each worker, and one that waits for its turn.
        let arenas = if helpers == 0 { 1 } else { helpers + 2 };
        let arenas: Result<_> = (0..arenas)
            .map(|_| Arena::new(self.runtime, self.arena_bytes_max, arenas))
            .collect();
        let positions = std::mem::take(self.positions);
        let progress = self.progress.cloned();
        let crew = Arc::new(Crew::new(
            Arc::clone(self.env),
            progress,
            arenas?,
            positions,
        ));
        if let Err(error) = jobs.iter().try_for_each(|job| self.add(&crew, job)) {
            crew.fail(error);
        } else {
            let helper = Arc::clone(&crew);
            let step: Arc<HelpFn> = Arc::new(move || helper.step());
            self.runtime.help(helpers, &step);
            while crew.step() {}
        }
        let (positions, ends) = crew.finish();
        *self.positions = positions;
        let mut outcomes = Vec::new();
        for (job, end) in jobs.iter().zip(ends?) {
            outcomes.push(self.complete(job, end)?);
        }
        Ok(outcomes)
    }

    fn add(&mut self, crew: &Crew, job: &Job) -> Result<()> {
        job.keyspace.db().begin_restore(&job.keyspace)?;
        let reader = self.log.reader(job.index, job.begin.position.next)?;
        let target = Target {
            store: job.store.clone(),
            partition: job.partition.clone(),
            kind: job.kind,
            keyspace: job.keyspace.clone(),
            is_store: job.is_store,
            begin: job.begin.clone(),
            owner: self.log.owner(),
            end: self.log.bounds(job.index)?.end,
            began: self.env.monotonic(),
        };
        crew.add(target, reader);
        Ok(())
    }

    /// What the end of a job means.
    fn complete(&mut self, job: &Job, end: End) -> Result<Outcome> {
        let fetched = match end.outcome {
            Ok(fetched) => fetched,
            Err(error) if self.is_trimmed(job, end.position, &error) => {
                return Ok(Outcome::Again(RebuildReason::Trimmed));
            }
            Err(error) => return Err(error),
        };
        let bounds = self.log.bounds(job.index)?;
        if let Some(reason) = staleness(&job.begin, &bounds, self.env.wall_clock_ms()) {
            return Ok(Outcome::Again(reason));
        }
        let position = Position {
            next: fetched.next,
            leader_epoch: bounds.leader_epoch,
            owner: self.log.owner(),
            time_ms: fetched.time_ms,
            ..job.begin.position.clone()
        };
        let covered = Covered {
            position,
            dropped_below: bounds.tombstones_dropped_below,
            since: fetched.next,
            kind: job.kind,
        };
        job.keyspace.db().end_restore(&job.keyspace)?;
        Ok(Outcome::Complete(end.reading, covered))
    }

    /// True if the log was trimmed past the reader, which is then no failure of the log.
    fn is_trimmed(&mut self, job: &Job, position: Offset, error: &Error) -> bool {
        error.kind() == ErrorKind::Changelog
            && self
                .log
                .bounds(job.index)
                .is_ok_and(|bounds| bounds.start > position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(start: u64, position: u64, end: u64, seconds: u64) -> Progress<'static> {
        Progress {
            store: "s",
            records: position - start,
            bytes: 10 * (position - start),
            start: Offset(start),
            position: Offset(position),
            end: Offset(end),
            elapsed: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn progress_tells_rate_and_time_left() {
        let half = progress(100, 600, 1100, 5);
        assert_eq!(half.records_per_second(), 100);
        assert_eq!(half.bytes_per_second(), 1000);
        assert_eq!(half.time_left(), Some(Duration::from_secs(5)));
        assert_eq!(progress(0, 0, 10, 5).time_left(), None);
        assert_eq!(progress(0, 9, 9, 5).time_left(), Some(Duration::ZERO));
        assert_eq!(progress(0, 5, 9, 0).records_per_second(), 0);
        // The end was told lower than it is.
        assert_eq!(progress(0, 9, 5, 5).time_left(), Some(Duration::ZERO));
    }
}
