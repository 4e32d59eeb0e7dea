//! What a session of a local log has not committed yet, and the state of its newest commit.

use crate::error::{Error, ErrorKind, Result};

use super::{CommitId, Position, RecordRef};

/// How much a session takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) record_bytes_max: u64,
    pub(crate) commit_bytes_max: u64,
}

/// The records of one commit, encoded, by partition.
#[derive(Debug, Default)]
pub(crate) struct Commit {
    pub(crate) partitions: Vec<Encoded>,
    size: u64,
}

/// Records of one partition: a varint of skipped offsets (none, here) and the record, each.
#[derive(Debug, Default, Clone)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u64,
}

impl Commit {
    fn new(partitions: usize) -> Self {
        Self {
            partitions: vec![Encoded::default(); partitions],
            size: 0,
        }
    }

    fn clear(&mut self) {
        self.size = 0;
        for encoded in &mut self.partitions {
            encoded.bytes.clear();
            encoded.count = 0;
        }
    }
}

/// Keeps the rules of [`Session`](super::Session) that need no log: limits, the mark, one
/// undecided commit at a time, what may follow a failure.
#[derive(Debug)]
pub(crate) struct Pending {
    limits: Limits,
    open: Commit,
    prepared: Option<Commit>,
    /// A cleared commit, kept for its memory.
    spare: Option<Commit>,
    newest: CommitId,
    /// The outcome of `newest` once it is decided.
    outcome: Option<Vec<Position>>,
    /// Set by a failed commit until the abort.
    failed: Option<Error>,
    /// Set for good when the session was fenced or lost track of its log.
    dead: Option<Error>,
}

impl Pending {
    pub(crate) fn new(partitions: usize, limits: Limits) -> Self {
        Self {
            limits,
            open: Commit::new(partitions),
            prepared: None,
            spare: None,
            newest: CommitId(0),
            outcome: None,
            failed: None,
            dead: None,
        }
    }

    pub(crate) fn record_bytes_max(&self) -> u64 {
        self.limits
            .record_bytes_max
            .min(self.limits.commit_bytes_max)
    }

    pub(crate) fn check_partition(&self, partition: usize) -> Result<()> {
        let count = self.open.partitions.len();
        if partition < count {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "partition index {partition}; the session claimed {count}"
        )))
    }

    fn size(&self) -> u64 {
        self.open.size + self.prepared.as_ref().map_or(0, |commit| commit.size)
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    fn check_healthy(&self) -> Result<()> {
        self.check_alive()?;
        match &self.failed {
            Some(error) => Err(error.context("the session waits for an abort")),
            None => Ok(()),
        }
    }

    /// Only this session draws on the room, so that room which is there stays.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        self.check_healthy()?;
        let max = self.limits.commit_bytes_max;
        if self.size().saturating_add(bytes) > max {
            return Err(Error::new(
                ErrorKind::MemoryLimit,
                format!(
                    "the changelog session holds {} bytes of at most {max} (commit_bytes_max), \
                     {bytes} more were asked for",
                    self.size()
                ),
            ));
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()> {
        self.check_partition(partition)?;
        let size = record.size();
        let max = self.record_bytes_max();
        if size > max {
            return Err(Error::invalid(format!(
                "changelog record of {size} bytes, at most {max} (record_bytes_max)"
            )));
        }
        self.reserve(size)?;
        let encoded = &mut self.open.partitions[partition];
        encoded.bytes.push(0);
        record.encode(&mut encoded.bytes);
        encoded.count += 1;
        self.open.size += size;
        Ok(())
    }

    pub(crate) fn commit_requested(&self) -> bool {
        self.size() >= self.limits.commit_bytes_max / 2
    }

    pub(crate) fn prepare(&mut self) -> Result<CommitId> {
        self.check_decided()?;
        self.check_healthy()?;
        let empty = self
            .spare
            .take()
            .unwrap_or_else(|| Commit::new(self.open.partitions.len()));
        self.prepared = Some(std::mem::replace(&mut self.open, empty));
        self.newest.0 += 1;
        self.outcome = None;
        Ok(self.newest)
    }

    pub(crate) fn check_decided(&self) -> Result<()> {
        self.check_alive()?;
        if self.prepared.is_some() {
            return Err(Error::invalid(format!(
                "commit {} is not decided yet: wait for it first",
                self.newest.0
            )));
        }
        Ok(())
    }

    /// The outcome of `commit` if it is decided.
    pub(crate) fn outcome(&self, commit: CommitId) -> Result<Option<Vec<Position>>> {
        self.check_alive()?;
        if commit != self.newest || commit == CommitId(0) {
            return Err(Error::invalid(format!(
                "commit {} is not the newest one, {}",
                commit.0, self.newest.0
            )));
        }
        if self.prepared.is_some() || self.outcome.is_some() {
            return Ok(self.outcome.clone());
        }
        let unknown = || Error::new(ErrorKind::Changelog, "the commit failed and was aborted");
        Err(self.failed.clone().unwrap_or_else(unknown))
    }

    /// The commit that waits for its decision.
    pub(crate) fn prepared(&self) -> Option<&Commit> {
        self.prepared.as_ref()
    }

    /// Takes the outcome of the prepared commit. An error that is neither a failure nor final
    /// leaves it undecided.
    pub(crate) fn decide(
        &mut self,
        outcome: Result<Vec<Position>>,
    ) -> Result<Option<Vec<Position>>> {
        match outcome {
            Ok(positions) => {
                self.outcome = Some(positions.clone());
                self.recycle();
                Ok(Some(positions))
            }
            Err(error) => match error.kind() {
                ErrorKind::Locked => Ok(None),
                ErrorKind::Changelog => {
                    self.failed = Some(error.clone());
                    self.recycle();
                    Err(error)
                }
                _ => Err(self.die(error)),
            },
        }
    }

    fn recycle(&mut self) {
        if let Some(mut commit) = self.prepared.take() {
            commit.clear();
            self.spare = Some(commit);
        }
    }

    /// Ends the session: every later call gets `error`.
    pub(crate) fn die(&mut self, error: Error) -> Error {
        self.dead.get_or_insert(error).clone()
    }

    pub(crate) fn abort(&mut self) -> Result<()> {
        self.check_decided()?;
        self.open.clear();
        self.failed = None;
        Ok(())
    }
}
