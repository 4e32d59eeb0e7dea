//! Changelogs: replicated, ordered logs that every change of a task's stores is written to.
//!
//! A [`Changelog`] holds *partitions*, each an ordered list of records with rising offsets. A
//! *task* owns some of them. Its owner claims them ([`Changelog::claim`]), gets a [`Session`],
//! reads back what the log has ([`Session::reader`]), and then appends records and commits them.
//! Anybody may read without owning ([`Changelog::reader`]): a standby, a tool.
//!
//! Implementations: [`Memory`] for tests, [`File`] for one machine, and Kafka behind
//! the feature of that name. Anyone can write another one; this page is the contract that it has
//! to keep.
//!
//! # Order and offsets
//!
//! Records of one partition are read in the order of their appends, with rising offsets. There is
//! no order between partitions. Offsets have gaps: control records, aborted commits and log
//! compaction leave them. So a position is the *next* offset to read, never that of the last
//! record seen, and a reader is done when its position reaches its end ([`Fetched::at_end`]). One
//! offset names one record forever, within one topic id.
//!
//! # Commits
//!
//! [`Session::append`] buffers or sends; nothing counts before it is committed.
//! [`Session::prepare`] takes the mark: what was appended before it belongs to this commit, what
//! is appended after it to the next. At most one prepared commit is undecided at a time. Its
//! outcome comes later: [`Session::poll`] asks, [`Session::wait`] waits. It is one of
//!
//! - committed: all records are durable in the log, as durable as the log can make them, and
//!   readers see them; where the log is spread over machines, those who do not own the task see
//!   them a moment later. The answer is the position of every claimed partition.
//! - failed ([`ErrorKind::Changelog`]): under [`Guarantee::Atomic`] no reader will ever see a
//!   record of it. Only [`Session::abort`] is possible then; it also drops what was appended
//!   behind the failed mark.
//! - fenced ([`ErrorKind::Fenced`]): another owner has the task. It may or may not have found the
//!   commit in the log; what it found before its own fence stands. The session is of no use.
//! - not known: a connection broke with the question open. That is *not* an error; the session
//!   goes on asking, and `poll` answers `None` meanwhile. No abort is possible. Where the
//!   session can no longer find out by itself (a failed sync of a local file), it answers
//!   [`ErrorKind::Poisoned`]: drop the session and claim again; the log decides what the commit
//!   was, and the restore that follows a claim finds it.
//!
//! [`Guarantee::Atomic`]: readers see all records of a commit, in all partitions, or none.
//! [`Guarantee::PerBatch`]: records may be seen before their commit, and those of a failed commit
//! may stay; they keep their order within a partition. A caller who needs one record behind all
//! others (its input position) then gives it a commit of its own, after the others' answer, and
//! undoes an aborted write by appending what the keys held before.
//!
//! # Ownership
//!
//! `claim` fences: once it has returned, no commit of a former owner can become visible any more,
//! and every `prepare`, `wait`, `poll` and `idle_positions` of the former session that needs the
//! log fails with `Fenced`. The new owner's [`Session::reader`] ends at its fence and reads every
//! commit that the former owner was ever told of. A fence can wear off (a Kafka broker forgets
//! idle producers); [`Session::idle_positions`] renews it and is to be called when there was no
//! commit for a while.
//!
//! # Bounds, tombstones and time
//!
//! [`Bounds`] tell where a partition starts and ends and who it is. A failure to read them is an
//! error, never a bound of zero. A record without value is a tombstone. Log compaction keeps the
//! newest record of each key and drops a tombstone some time after its commit
//! ([`Bounds::tombstone_retention_ms`]). A position that was last known to be the end longer ago
//! than that may have missed one: a deleted key would come back. [`Position::time_ms`] is when the
//! request that proved it was *sent*. Where the log knows better it tells the highest offset that
//! matters, [`Bounds::tombstones_dropped_below`]. Both are asked again when a restore ends.
//!
//! Keys, values, timestamps and headers come back as they were appended, duplicates of headers
//! and their order included.
//!
//! # Room
//!
//! Sizes are counted by [`RecordRef::size`]. A record above [`Session::record_bytes_max`] is
//! `InvalidArgument`, a full buffer [`ErrorKind::MemoryLimit`]; both change nothing. Ask for room
//! with [`Session::reserve`] before either side of a write is touched.

#[cfg(any(test, feature = "sim"))]
pub mod faulty;
mod file;
mod memory;
mod pending;
mod position;
mod record;

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

#[cfg(feature = "cli")]
pub(crate) use file::inspect as file_inspect;
pub use file::{File, FileOptions};
pub use memory::Memory;
pub use position::{Bounds, Offset, Owner, Partition, Position};
pub use record::{Header, OwnedHeader, Record, RecordRef};

/// What a commit promises; see the [module's page](self#commits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guarantee {
    /// All partitions of a commit or none: exactly once.
    Atomic,
    /// Records become visible one batch at a time: at least once.
    PerBatch,
}

/// Names one prepared commit of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// An ordered, durable log of record partitions; see the [module's page](self) for the contract.
pub trait Changelog: Send + Sync + fmt::Debug {
    /// What a commit of this log promises.
    fn guarantee(&self) -> Guarantee;

    /// Where the partition starts and ends, or `None` if it does not exist yet.
    ///
    /// Ask before [`claim`](Self::claim) where local state exists: `claim` creates what is
    /// missing, and a log that has vanished under a local state must not be replaced by an empty
    /// one.
    ///
    /// # Errors
    ///
    /// `Io`, `Corruption`, `Changelog`, `Locked`. The caller must not take them for an empty log.
    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>>;

    /// Makes the caller the owner of `task` and of its partitions, creating those that are
    /// missing, and fences the former owner before it returns. Blocks.
    ///
    /// Sessions name a partition by its index in `partitions`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for names that the log cannot hold, for a partition named twice, and for
    /// one that belongs to another task; `Locked` where the former owner holds a lock for longer
    /// than a commit should take (try again); `Io`, `Corruption`, `Changelog`.
    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>>;

    /// Reads committed records from `from` on, without owning the partition.
    ///
    /// The reader follows: [`Fetched::at_end`] tells that a fetch reached the end of that moment,
    /// and later fetches return what was committed since.
    ///
    /// # Errors
    ///
    /// As [`Reader::fetch`]; `NotFound` if the partition does not exist.
    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>>;
}

/// The owner's hold on the partitions of one task.
///
/// A session that is dropped commits nothing that was not prepared; a prepared commit whose outcome
/// was not told may be in the log or not.
pub trait Session: Send + fmt::Debug {
    /// Who this session is, as its positions carry it.
    fn owner(&self) -> Owner;

    /// The bounds of a claimed partition.
    ///
    /// Their end is for showing progress; where a restore ends is told by
    /// [`reader`](Self::reader).
    ///
    /// # Errors
    ///
    /// As [`Changelog::bounds`]; `Fenced`, `Poisoned`; `InvalidArgument` for an index that was not
    /// claimed, here and wherever a partition is named.
    fn bounds(&mut self, partition: usize) -> Result<Bounds>;

    /// Reads a claimed partition from `from` up to this session's own fence.
    ///
    /// # Errors
    ///
    /// As [`Reader::fetch`].
    fn reader(&mut self, partition: usize, from: Offset) -> Result<Box<dyn Reader>>;

    /// The largest [`RecordRef::size`] that [`append`](Self::append) takes.
    fn record_bytes_max(&self) -> u64;

    /// Sets room aside for appends of `bytes` in all, counted by [`RecordRef::size`]; they will
    /// not fail with `MemoryLimit`. It holds until the next `reserve`, `prepare` or `abort`. May
    /// wait for acks that are on their way.
    ///
    /// # Errors
    ///
    /// `MemoryLimit`: there is no room and none will come before a commit. `Changelog` after a
    /// failed commit; `Fenced`, `Poisoned`.
    fn reserve(&mut self, bytes: u64) -> Result<()>;

    /// Adds a record to the commit that the next [`prepare`](Self::prepare) ends.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` (the record is too large; the message names the limit) and `MemoryLimit`
    /// change nothing. Any other error asks for an [`abort`](Self::abort), or is final
    /// (`Fenced`, `Poisoned`).
    fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()>;

    /// Takes the mark: records appended from here on belong to the next commit. Does not wait for
    /// the outcome. A commit without records is a commit too.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` while another prepared commit is undecided; `Changelog` asks for an
    /// abort; `Fenced`; `Poisoned`.
    fn prepare(&mut self) -> Result<CommitId>;

    /// Asks without blocking for long whether `commit` is decided. `None`: not yet.
    ///
    /// The positions are those of all claimed partitions, in the order of the claim: each the
    /// next offset after the newest record that is committed.
    ///
    /// # Errors
    ///
    /// `Changelog`: not committed, for certain (under `Atomic`); abort. `Fenced`, `Poisoned`: see
    /// the [module's page](self#commits). `InvalidArgument` if `commit` is not the newest one.
    fn poll(&mut self, commit: CommitId) -> Result<Option<Vec<Position>>>;

    /// Blocks until `commit` is decided; else as [`poll`](Self::poll).
    ///
    /// It is decided for good then, but whoever follows without owning may see it a moment later:
    /// on Kafka a transaction is committed before its markers are written into the partitions.
    ///
    /// # Errors
    ///
    /// As [`poll`](Self::poll).
    fn wait(&mut self, commit: CommitId) -> Result<Vec<Position>>;

    /// Drops every record appended since the last commit that succeeded.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` while a prepared commit is undecided: nothing changed. `Fenced`,
    /// `Poisoned`; `Changelog` if the log failed: call it again.
    fn abort(&mut self) -> Result<()>;

    /// True when the session would like a commit soon: its buffer fills, or a transaction of the
    /// log has been open for long.
    fn commit_requested(&self) -> bool;

    /// Proves that this session still owns the task, renews its fence, and tells the positions of
    /// all claimed partitions with the time of that proof. They hold for a task that has restored
    /// up to its fence; uncommitted records are not covered.
    ///
    /// # Errors
    ///
    /// `Fenced` if it was replaced; `InvalidArgument` while a prepared commit is undecided;
    /// `Changelog`, `Locked`, `Io`: nothing is proved, ask again later; `Poisoned`.
    fn idle_positions(&mut self) -> Result<Vec<Position>>;

    /// Ends the session in good order, dropping what was not committed.
    ///
    /// # Errors
    ///
    /// Those of the last writes, which `Drop` would swallow.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What one [`Reader::fetch`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// The position behind everything this fetch delivered or skipped.
    pub next: Offset,
    /// True if `next` is the reader's end (a restore's) or the log's end of now (a follower's).
    pub at_end: bool,
    /// When the fetch was sent, in milliseconds since 1970. With `at_end`, it is the time of the
    /// position `next`.
    pub time_ms: u64,
}

/// Takes a record that was read. Its error ends the fetch and is returned from it.
pub type Sink<'a> = dyn FnMut(Offset, RecordRef<'_>) -> Result<()> + 'a;

/// Reads the committed records of one partition, in order.
pub trait Reader: Send + fmt::Debug {
    /// The next offset to read.
    fn position(&self) -> Offset;

    /// Delivers a bounded number of records (about a mebibyte) to `sink` and moves on past them
    /// and past gaps. It may deliver none and still move. Waits for the log's answer, but not for
    /// new records.
    ///
    /// # Errors
    ///
    /// `Changelog` if the position lies below the log's start (it was trimmed; the bounds tell),
    /// `Diverged` if it lies above the end; the position is never reset. `Corruption`, `Io`,
    /// `Changelog` if the log fails. After an error of `sink` the position is behind the last
    /// record that `sink` took.
    fn fetch(&mut self, sink: &mut Sink<'_>) -> Result<Fetched>;
}

/// What one fetch delivers, about, before it returns.
pub(crate) const FETCH_BYTES: usize = 1 << 20;

/// Refuses a claim that names a partition twice.
pub(crate) fn check_distinct(partitions: &[Partition]) -> Result<()> {
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid(format!(
            "partition {} is named twice",
            pair[0]
        ))),
        None => Ok(()),
    }
}

pub(crate) fn owned_by_another(partition: &Partition, task: &str) -> Error {
    Error::invalid(format!("partition {partition} belongs to task {task}"))
}

pub(crate) fn fenced(task: &str, owner: Owner) -> Error {
    Error::new(
        ErrorKind::Fenced,
        format!("task {task} has a newer owner than number {}", owner.epoch),
    )
}

/// Refuses a position outside of the log, naming the bounds.
pub(crate) fn check_range(
    partition: &Partition,
    next: Offset,
    start: Offset,
    end: Offset,
) -> Result<()> {
    let kind = if next < start {
        ErrorKind::Changelog
    } else if next > end {
        ErrorKind::Diverged
    } else {
        return Ok(());
    };
    Err(Error::new(
        kind,
        format!("offset {next} of {partition}, which has {start} up to {end}"),
    ))
}
