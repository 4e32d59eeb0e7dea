//! The owner's side of a task's log.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Lsn, SegmentHeader, Writer};
use crate::planted::{Bug, planted};
use crate::sync::Arc;

use super::super::pending::{self, Pending};
use super::super::{
    Bounds, CommitId, Offset, Owner, Partition, Position, Reader, RecordRef, Session, fenced,
};
use super::index::{self, Index};
use super::payload::{Group, encode_commit, encode_head};
use super::reader::FileReader;
use super::view::TAIL_KIND;
use super::{File, FileOptions, names};

/// The journal of a task, in the hands of its owner. Every method needs the task's lock.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) env: Arc<dyn Env>,
    pub(super) dir: PathBuf,
    pub(super) index: Index,
    /// The bytes of the index file as this owner last saw it.
    raw: Vec<u8>,
    /// The segment that is written to; none after it broke, until the next one is begun.
    writer: Option<Writer>,
    /// True if that segment has more than its head.
    has_commits: bool,
    /// The highest number that a segment was ever given.
    newest: u64,
    /// The end of the log, all of it durable.
    end: Lsn,
    /// The next offset of each slot.
    pub(super) next: Vec<u64>,
}

/// Why a commit is not in the log.
enum Failure {
    /// Nothing of it is or will be found there.
    Void(Error),
    /// It may be found by the next owner.
    Unknown(Error),
}

impl Log {
    pub(super) fn new(
        env: &Arc<dyn Env>,
        dir: &Path,
        index: Index,
        newest: u64,
        end: Lsn,
        next: Vec<u64>,
    ) -> Self {
        Self {
            env: Arc::clone(env),
            dir: dir.to_path_buf(),
            index,
            raw: Vec::new(),
            writer: None,
            has_commits: false,
            newest,
            end,
            next,
        }
    }

    /// Begins the next segment, durably. A number is spent even if that fails.
    pub(super) fn begin_segment(&mut self) -> Result<()> {
        self.writer = None;
        self.has_commits = false;
        self.newest += 1;
        let header = SegmentHeader {
            kind: TAIL_KIND,
            journal_id: self.index.journal_id,
            segment: self.newest,
            base: self.end,
            durable: self.end,
            has_stage: false,
        };
        let env = &*self.env;
        let path = names::tail_path(&self.dir, self.newest);
        let mut writer = Writer::create(env, &path, header)?;
        if self.end == Lsn::ZERO {
            // Nothing before it vouches for the first header of a journal, so that recovery asks
            // for it to be durable before there is a record.
            writer.file().sync()?;
        }
        let head = encode_head(&self.index.slots, &self.next);
        let begun = writer
            .append(&[&head], self.end)
            .and_then(|_| writer.file().sync())
            .and_then(|()| {
                if planted(Bug::ChangelogNameSyncSkipped) {
                    return Ok(());
                }
                env.sync_dir(&self.dir)
            });
        if let Err(error) = begun {
            // One that stays begins at the same position as the next one and ends there.
            let _ = env.remove_file(&path);
            return Err(error);
        }
        self.end = writer.end();
        self.writer = Some(writer);
        Ok(())
    }

    /// Writes the index with what is known now.
    pub(super) fn write_index(&mut self) -> Result<()> {
        self.index.floor = self.end;
        for (slot, next) in self.index.slots.iter_mut().zip(&self.next) {
            slot.next = *next;
        }
        self.raw = self.index.replace(&*self.env, &self.dir)?;
        Ok(())
    }

    /// Takes over the bytes of the index that were just written.
    pub(super) fn refresh(&mut self) -> Result<()> {
        self.raw = index::read_raw(&*self.env, &self.dir)?;
        Ok(())
    }

    /// Fails with `Fenced` if `owner` is not the newest one.
    fn check_owner(&mut self, owner: u32) -> Result<()> {
        let raw = index::read_raw(&*self.env, &self.dir)?;
        if raw == self.raw || planted(Bug::ChangelogOwnerIgnored) {
            return Ok(());
        }
        let (index, raw) = Index::read(&*self.env, &self.dir)?;
        if index.owner != owner {
            let id = index.journal_id;
            return Err(fenced(&index.task, Owner { id, epoch: owner }));
        }
        // The log was compacted by another hand.
        self.index = index;
        self.raw = raw;
        Ok(())
    }

    /// Appends a commit and makes it durable. Returns true if a segment was begun for it.
    fn commit(&mut self, payload: &[u8], segment_bytes_max: u64) -> Result<bool, Failure> {
        let len = payload.len() as u64;
        // A large commit has a segment of its own, whatever the limit.
        let fits = |writer: &Writer| !self.has_commits || writer.len() + len <= segment_bytes_max;
        let usable = self.writer.as_ref().is_some_and(fits);
        if !usable {
            self.begin_segment().map_err(Failure::Void)?;
        }
        let writer = self.writer.as_mut().expect("a segment was begun");
        match writer.append(&[payload], self.end) {
            Ok(end) => {
                if !planted(Bug::ChangelogSyncSkipped) {
                    writer.file().sync().map_err(Failure::Unknown)?;
                }
                self.end = end;
                self.has_commits = true;
                Ok(!usable)
            }
            Err(error) => Err(self.void_failed_append(error)),
        }
    }

    /// Sees to it that no later owner takes an append that failed for one that was made.
    fn void_failed_append(&mut self, error: Error) -> Failure {
        let Some(writer) = self.writer.take() else {
            return Failure::Void(error);
        };
        if planted(Bug::ChangelogFailedAppendKept) {
            self.writer = Some(writer);
            return Failure::Void(error);
        }
        // A cut works on a full disk. Where it does not, the next segment's base says the same.
        let cut = writer.file().set_len(writer.len());
        let voided = match cut {
            Ok(()) => writer.file().sync(),
            Err(_) => self.begin_segment(),
        };
        match voided {
            Ok(()) => Failure::Void(error),
            Err(voiding) => Failure::Unknown(error.context(voiding)),
        }
    }
}

#[derive(Debug)]
pub(super) struct FileSession {
    file: File,
    log: Log,
    owner: Owner,
    /// The slots that the session claimed.
    slots: Vec<usize>,
    /// Where each of them ended when it was claimed.
    fences: Vec<u64>,
    pending: Pending,
    /// The last failure of a compaction. It did no harm; `close` tells it.
    maintenance: Option<Error>,
}

impl FileSession {
    /// The session of a log that was just claimed; its end is the fence.
    pub(super) fn new(
        file: &File,
        log: Log,
        partitions: &[Partition],
        maintenance: Option<Error>,
    ) -> Self {
        let slot = |partition| log.index.slot(partition).expect("the claim made its slot");
        let slots: Vec<usize> = partitions.iter().map(slot).collect();
        let below = u64::from(planted(Bug::ChangelogFenceTooLow));
        let fences = slots
            .iter()
            .map(|slot| log.next[*slot].saturating_sub(below))
            .collect();
        let owner = Owner {
            id: log.index.journal_id,
            epoch: log.index.owner,
        };
        let pending = Pending::new(slots.len(), file.shared.limits());
        Self {
            file: file.clone(),
            log,
            owner,
            slots,
            fences,
            pending,
            maintenance,
        }
    }

    fn options(&self) -> &FileOptions {
        &self.file.shared.options
    }

    fn positions(&self, time_ms: u64) -> Vec<Position> {
        let position = |slot: &usize| Position {
            cluster: self.file.shared.cluster.clone(),
            topic_id: self.log.index.slots[*slot].topic_id,
            partition: self.log.index.slots[*slot].partition.clone(),
            next: Offset(self.log.next[*slot]),
            leader_epoch: 0,
            owner: self.owner,
            time_ms,
        };
        self.slots.iter().map(position).collect()
    }

    /// Runs `act` under the task's lock if this is still its owner.
    fn owned<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.pending.check_alive()?;
        let _lock = names::lock(&*self.log.env, &self.log.dir)?;
        match self.log.check_owner(self.owner.epoch) {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(self.pending.die(error)),
            Err(error) => Err(error),
            Ok(()) => act(self),
        }
    }

    /// Decides the prepared commit. Every error but `Locked`, `Fenced` and `Poisoned` means that
    /// it is not in the log.
    fn commit(&mut self) -> Result<Vec<Position>> {
        let time_ms = self.log.env.wall_clock_ms();
        let committed = self.owned(|session| session.append_commit(time_ms));
        committed.map_err(|error| match error.kind() {
            ErrorKind::Locked | ErrorKind::Fenced | ErrorKind::Poisoned => error,
            _ => error.into_kind(ErrorKind::Changelog),
        })
    }

    fn append_commit(&mut self, time_ms: u64) -> Result<Vec<Position>> {
        let commit = self
            .pending
            .prepared()
            .expect("an undecided commit is prepared");
        let groups = groups(commit, &self.slots, &self.log.next);
        if groups.is_empty() {
            return Ok(self.positions(time_ms));
        }
        let payload = encode_commit(self.owner.epoch, time_ms, &groups);
        let ends: Vec<(usize, u64)> = groups.iter().map(|group| (group.slot, group.end)).collect();
        drop(groups);
        let begun = match self.log.commit(&payload, self.options().segment_bytes_max) {
            Ok(begun) => begun,
            Err(Failure::Void(error)) => return Err(error),
            Err(Failure::Unknown(error)) => {
                return Err(error
                    .context("the commit may be in the log or not; claim the task again")
                    .into_kind(ErrorKind::Poisoned));
            }
        };
        for (slot, end) in ends {
            self.log.next[slot] = end;
        }
        let options = self.options().clone();
        if begun && let Err(error) = self.log.compact_if_due(&options) {
            // The commit stands, and so does the log as it was; the next segment tries again.
            self.maintenance = Some(error);
        }
        Ok(self.positions(time_ms))
    }
}

/// The groups of a commit whose records come behind `next`.
fn groups<'a>(commit: &'a pending::Commit, slots: &[usize], next: &[u64]) -> Vec<Group<'a>> {
    let used = slots
        .iter()
        .zip(&commit.partitions)
        .filter(|(_, encoded)| encoded.count > 0);
    used.map(|(slot, encoded)| Group {
        slot: *slot,
        base: next[*slot],
        end: next[*slot] + encoded.count,
        records: &encoded.bytes,
    })
    .collect()
}

impl Session for FileSession {
    fn owner(&self) -> Owner {
        self.owner
    }

    fn bounds(&mut self, partition: usize) -> Result<Bounds> {
        self.pending.check_partition(partition)?;
        let slot = self.slots[partition];
        self.owned(|session| {
            let end = session.log.next[slot];
            Ok(session.file.shared.bounds(&session.log.index, slot, end))
        })
    }

    fn reader(&mut self, partition: usize, from: Offset) -> Result<Box<dyn Reader>> {
        let bounds = self.bounds(partition)?;
        let slot = &self.log.index.slots[self.slots[partition]];
        let fence = Offset(self.fences[partition]);
        super::super::check_range(&slot.partition, from, bounds.start, fence)?;
        Ok(Box::new(FileReader::new(
            &self.file.shared,
            self.log.dir.clone(),
            &slot.partition,
            slot.topic_id,
            from,
            Some(fence),
        )))
    }

    fn record_bytes_max(&self) -> u64 {
        self.pending.record_bytes_max()
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.pending.reserve(bytes)
    }

    fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()> {
        self.pending.append(partition, record)
    }

    fn prepare(&mut self) -> Result<CommitId> {
        self.pending.prepare()
    }

    fn poll(&mut self, commit: CommitId) -> Result<Option<Vec<Position>>> {
        if let Some(positions) = self.pending.outcome(commit)? {
            return Ok(Some(positions));
        }
        let outcome = self.commit();
        self.pending.decide(outcome)
    }

    fn wait(&mut self, commit: CommitId) -> Result<Vec<Position>> {
        loop {
            // Each round waits a while for the task's lock, the only thing that is not decided
            // here and now.
            if let Some(positions) = self.poll(commit)? {
                return Ok(positions);
            }
        }
    }

    fn abort(&mut self) -> Result<()> {
        self.pending.abort()
    }

    fn commit_requested(&self) -> bool {
        self.pending.commit_requested()
    }

    fn idle_positions(&mut self) -> Result<Vec<Position>> {
        self.pending.check_decided()?;
        let time_ms = self.log.env.wall_clock_ms();
        self.owned(|session| Ok(session.positions(time_ms)))
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.owned(|session| session.log.write_index())?;
        self.maintenance.take().map_or(Ok(()), Err)
    }
}
