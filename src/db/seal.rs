//! When memtables are sealed, and what a commit of the layer above means for them: marks,
//! releases, aborts.
//!
//! A store is written in one of two ways. In a plain store every write counts at once. Under a
//! task, writes count once a mark above them is released: until then no table may hold them, and
//! an abort can take them back. Memtables of all keyspaces are sealed together at a mark, and
//! flushed together, with the position that belongs to the mark, in one manifest edit.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Mark, SeqNo};
use crate::memtable::Memtable;
use crate::options::Wal;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Ordering};
use crate::wal::HALF_PARTS;

use super::DbInner;
use super::view::View;

/// What the commit lock guards: the order of writes and what is sealed.
pub(crate) struct CommitState {
    /// The newest sequence number ever given.
    pub(crate) last_seqno: SeqNo,
    /// Every write up to here counts or is dead: tables may hold it.
    pub(crate) released: SeqNo,
    /// The position that belongs to `released`, as the layer above gave it.
    pub(crate) position: Option<Vec<u8>>,
    /// Marks that were taken and not yet released, ascending.
    marks: Vec<SeqNo>,
    /// Sealed memtables, the oldest first.
    pub(crate) groups: VecDeque<Group>,
    /// User bytes written since the store was opened, and as of the position in the manifest.
    pub(crate) bytes_written: u64,
    pub(crate) bytes_at_position: u64,
    /// Of the group that is being committed: the newest write of each keyspace, and the memory
    /// that its memtable adopts. Their room is used again by the next.
    pub(crate) holders: Vec<(u32, SeqNo)>,
    pub(crate) touched: Vec<(u32, usize)>,
}

/// Memtables that were sealed together and are flushed together.
pub(crate) struct Group {
    /// Nothing in the memtables is newer.
    pub(crate) mark: SeqNo,
    /// The position that belongs to `mark`, once it is released.
    pub(crate) position: Option<Vec<u8>>,
    pub(crate) memtables: Vec<(u32, Arc<Memtable>)>,
    /// Must become tables; a memtable that was merely full may be compacted in memory instead.
    pub(crate) forced: bool,
    /// The outcome of an in-memory compaction, which waits for company.
    pub(crate) compacted: bool,
    /// User bytes that had been written when it was sealed.
    pub(crate) bytes_written: u64,
}

impl Group {
    fn holds(&self, id: u32) -> bool {
        self.memtables.iter().any(|(holder, _)| *holder == id)
    }
}

/// Why memtables are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A memtable is full.
    Full,
    /// Somebody wants tables: a flush, the age or the volume of what a restart would replay.
    Forced,
}

impl CommitState {
    pub(crate) fn new(last_seqno: SeqNo, position: Option<Vec<u8>>) -> Self {
        Self {
            last_seqno,
            released: last_seqno,
            position,
            marks: Vec::new(),
            groups: VecDeque::new(),
            bytes_written: 0,
            bytes_at_position: 0,
            holders: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// How many groups, from the oldest on, may be flushed now.
    pub(crate) fn settled_groups(&self) -> usize {
        self.groups
            .iter()
            .take_while(|group| group.mark <= self.released)
            .count()
    }

    /// True if a flush of the settled groups has something to do.
    pub(crate) fn wants_flush(&self) -> bool {
        let settled = self.groups.iter().take(self.settled_groups());
        settled
            .clone()
            .any(|group| group.forced || !group.compacted)
    }
}

impl DbInner {
    /// Seals and releases what a plain store has just written. Under the commit lock, with the
    /// view that was written to.
    pub(crate) fn after_commit(&self, state: &mut CommitState, view: &View) {
        if self.manual_release {
            if Self::active_bytes(view) >= self.options.memtable_bytes_max {
                self.request_commit();
            }
            return;
        }
        state.released = state.last_seqno;
        let Some(wal) = &self.wal else {
            // No log makes a batch whole again of which a crash keeps one keyspace's tables:
            // what is flushed must be all keyspaces up to one write.
            if let Some(reason) = self.seal_due(state) {
                self.seal_all(state, reason);
            }
            return;
        };
        let full = |memtable: &Memtable| memtable.entry_bytes() >= self.options.memtable_bytes_max;
        // Nothing else has grown: a write costs the same beside one keyspace and beside hundreds.
        let touched = state.touched.iter().map(|(id, _)| *id);
        let ids: Vec<u32> = touched
            .filter(|id| view.keyspace(*id).is_some_and(|it| full(&it.active)))
            .collect();
        if !ids.is_empty() {
            self.seal(state, &ids, Reason::Full);
            wal.end_segment(HALF_PARTS);
        }
        self.seal_for_log_size(state);
    }

    /// Flushes the keyspace that holds the oldest log segment if the log has grown too large.
    fn seal_for_log_size(&self, state: &mut CommitState) {
        let Some(wal) = &self.wal else { return };
        if wal.bytes() <= self.options.wal_bytes_max {
            return;
        }
        let view = self.view();
        let Some(id) = wal.oldest_holder(&|id| view.flushed(id)) else {
            return;
        };
        let mut queued = false;
        for group in &mut state.groups {
            if group.holds(id) {
                queued |= !group.forced;
                group.forced = true;
            }
        }
        let waiting = state.groups.iter().any(|group| group.holds(id));
        if !waiting
            && view
                .keyspace(id)
                .is_some_and(|keyspace| !keyspace.active.is_empty())
        {
            self.seal(state, &[id], Reason::Forced);
        } else if queued {
            self.submit_flush();
        }
    }

    /// Takes a boundary in the order of writes: what was written up to now counts once the mark
    /// is released.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` in a plain store, where every write counts at once.
    pub(crate) fn mark(&self) -> Result<Mark> {
        self.health.check_write()?;
        self.check_manual()?;
        let mut state = self.commit.lock();
        let mark = state.last_seqno;
        if state.marks.last() != Some(&mark) && mark > state.released {
            state.marks.push(mark);
        }
        if let Some(reason) = self.seal_due(&state) {
            self.seal_all(&mut state, reason);
        }
        // Relaxed: a hint to the caller, who is committing right now.
        self.commit_requested.store(false, Ordering::Relaxed);
        Ok(Mark(mark))
    }

    /// Lets everything up to `mark` count: the changelog has it. `position` is what a restart
    /// replays from once tables hold everything up to the mark.
    ///
    /// # Errors
    ///
    /// `Aborted` if the mark was voided by an abort, `InvalidArgument` if it was never taken or
    /// if memtables were sealed at an earlier mark that was not released.
    pub(crate) fn release(&self, mark: Mark, position: Vec<u8>) -> Result<()> {
        self.health.check_write()?;
        self.check_manual()?;
        let mut state = self.commit.lock();
        let seqno = mark.seqno();
        if seqno != state.released {
            let Some(index) = state.marks.iter().position(|taken| *taken == seqno) else {
                return Err(if seqno <= state.released {
                    Error::new(
                        ErrorKind::Aborted,
                        format!("mark {seqno} is not pending any more"),
                    )
                } else {
                    Error::invalid(format!("mark {seqno} was never taken"))
                });
            };
            let passed = |group: &Group| group.mark > state.released && group.mark < seqno;
            if state.groups.iter().any(passed) {
                return Err(Error::invalid(format!(
                    "mark {seqno} released before an earlier one, at which memtables were sealed"
                )));
            }
            state.marks.drain(..=index);
        }
        state.released = seqno;
        if planted(Bug::ReleaseOfAllWrites) {
            state.released = state.last_seqno;
        }
        for group in &mut state.groups {
            if group.mark == seqno {
                group.position = Some(position.clone());
            }
        }
        state.position = Some(position);
        if state.last_seqno == seqno
            && let Some(reason) = self.seal_due(&state)
        {
            self.seal_all(&mut state, reason);
        }
        if state.wants_flush() {
            self.submit_flush();
        }
        Ok(())
    }

    /// Takes back everything above the newest released mark. Returns how many writes that were.
    ///
    /// Their numbers are not used again; reads, flushes and compactions pass them over, and
    /// snapshots and cursors that saw them answer `Aborted`.
    pub(crate) fn abort(&self) -> Result<u64> {
        self.health.check_read()?;
        self.check_manual()?;
        let mut state = self.commit.lock();
        let (low, high) = (state.released, state.last_seqno);
        state.marks.clear();
        if low == high {
            return Ok(0);
        }
        let position = state.position.clone();
        for group in &mut state.groups {
            if group.mark > low && !planted(Bug::AbortForgetsPosition) {
                group.position.clone_from(&position);
            }
        }
        state.released = high;
        self.note_abort(low, high);
        self.update_view(|view| {
            view.dead.push((low, high));
            view.aborts += 1;
        });
        if state.wants_flush() {
            self.submit_flush();
        }
        Ok(high.0 - low.0)
    }

    /// Seals everything that may be flushed now, as somebody wants it in tables. Returns the mark
    /// up to which tables will hold everything.
    pub(crate) fn seal_settled(&self, state: &mut CommitState) -> SeqNo {
        if state.last_seqno == state.released {
            self.seal_all(state, Reason::Forced);
        }
        let settled = state.settled_groups();
        for group in state.groups.iter_mut().take(settled) {
            group.forced = true;
        }
        state
            .groups
            .iter()
            .take(settled)
            .next_back()
            .map_or(state.released, |group| group.mark)
    }

    fn check_manual(&self) -> Result<()> {
        if self.manual_release {
            return Ok(());
        }
        Err(Error::invalid(
            "every write of a plain store counts at once: there are no marks",
        ))
    }

    /// Asks the task to commit soon.
    pub(crate) fn request_commit(&self) {
        // Relaxed: a hint.
        self.commit_requested.store(true, Ordering::Relaxed);
    }

    fn active_bytes(view: &View) -> usize {
        view.keyspaces
            .values()
            .map(|keyspace| keyspace.active.entry_bytes())
            .sum()
    }

    /// Whether memtables should be sealed at a mark that is taken now, and why.
    fn seal_due(&self, state: &CommitState) -> Option<Reason> {
        let view = self.view();
        let memtables = || view.memtables().filter(|memtable| !memtable.is_empty());
        let now_ms = self.options.env.wall_clock_ms();
        let oldest_ms = memtables()
            .map(|memtable| memtable.first_write_ms())
            .min()?;
        // A clock that went back makes writes look older than they are, at worst.
        let age_ms = now_ms.abs_diff(oldest_ms);
        if age_ms > self.options.flush_age_max_ms
            || state.bytes_written - state.bytes_at_position > self.options.replay_bytes_max
        {
            return Some(Reason::Forced);
        }
        let full = Self::active_bytes(&view) >= self.options.memtable_bytes_max;
        full.then_some(Reason::Full)
    }

    fn seal_all(&self, state: &mut CommitState, reason: Reason) {
        let ids: Vec<u32> = self.view().keyspaces.keys().copied().collect();
        self.seal(state, &ids, reason);
        if reason == Reason::Forced {
            for group in &mut state.groups {
                group.forced = true;
            }
        }
    }

    /// Gives the keyspaces fresh memtables and queues the old ones for a flush.
    fn seal(&self, state: &mut CommitState, ids: &[u32], reason: Reason) {
        let mut memtables = Vec::new();
        self.update_view(|view| {
            for id in ids {
                let Some(keyspace) = view.keyspace_mut(*id) else {
                    continue;
                };
                if keyspace.active.is_empty() {
                    continue;
                }
                let fresh = Arc::new(Memtable::new(self.account.charge()));
                let sealed = std::mem::replace(&mut keyspace.active, fresh);
                keyspace.sealed.insert(0, Arc::clone(&sealed));
                memtables.push((*id, sealed));
            }
        });
        if memtables.is_empty() {
            return;
        }
        let mark = state.last_seqno;
        let position = if mark == state.released {
            state.position.clone()
        } else {
            None
        };
        state.groups.push_back(Group {
            mark,
            position,
            memtables,
            forced: reason == Reason::Forced,
            compacted: false,
            bytes_written: state.bytes_written,
        });
        debug_assert!(self.options.wal == Wal::Off || !self.manual_release);
        if state.wants_flush() {
            self.submit_flush();
        }
    }
}
