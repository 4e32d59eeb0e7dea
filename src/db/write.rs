//! Group commit: one writer at a time leads, the others' batches ride along.
//!
//! A leader takes every waiting batch, appends all of them to the write-ahead log with one write,
//! inserts them into the memtables and publishes `visible`. Syncs happen after that, outside of
//! the commit lock, and one sync serves everybody who waits for it.

use crate::batch::WriteBatch;
use crate::error::{Error, Result};
use crate::key::{InternalKey, SeqNo};
use crate::memtable::entry_bytes;
use crate::options::Durability;
use crate::planted::{Bug, planted};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, Ordering};

use super::DbInner;
use super::read::view_of;
use super::seal::CommitState;
use super::view::View;

/// Bytes of batches that one leader commits together; its own batch may be larger.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Batches that wait for a leader.
#[derive(Default)]
pub(crate) struct CommitQueue {
    waiting: Vec<Arc<Request>>,
    has_leader: bool,
}

/// A batch on its way through a commit.
struct Request {
    state: Mutex<RequestState>,
    changed: Condvar,
}

enum RequestState {
    Waiting(Pending),
    /// The batch is with the leader.
    Taken,
    /// The thread that waits here leads the next group.
    Leads(Pending),
    Done(Result<Committed>),
}

/// A batch with the memory that was taken for it.
struct Pending {
    batch: WriteBatch,
    /// Bytes taken from the budget, to be adopted by memtables or given back.
    bytes: usize,
    durability: Durability,
}

/// What a commit tells its writer.
#[derive(Debug, Clone, Copy)]
struct Committed {
    /// End of the group in the write-ahead log.
    wal_end: crate::journal::Lsn,
}

impl DbInner {
    /// Commits a batch: when this returns, it is visible, whole, and as durable as asked.
    pub(crate) fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.health.check_write()?;
        if durability == Durability::Synced && self.wal.is_none() {
            return Err(Error::invalid(
                "a store without a write-ahead log cannot sync a write; flush instead",
            ));
        }
        if batch.is_empty() {
            return self.sync_if(durability, None);
        }
        let bytes = self.check_batch(&batch)?;
        self.hold_back(bytes);
        let urgent = || self.request_commit();
        self.runtime.take_memory(&self.account, bytes, &urgent)?;
        let committed = self.enter(Pending {
            batch,
            bytes,
            durability,
        })?;
        self.sync_if(durability, Some(committed))?;
        self.retry_flush_if_due();
        Ok(())
    }

    /// Commits a small batch without waiting for memory, above the budget if it must be: what a
    /// task writes to be able to commit, by which memory is freed.
    pub(crate) fn write_anyway(&self, batch: WriteBatch) -> Result<()> {
        self.health.check_write()?;
        if batch.is_empty() {
            return Ok(());
        }
        let bytes = self.check_batch(&batch)?;
        self.account.take_anyway(bytes);
        let durability = Durability::Buffered;
        self.enter(Pending {
            batch,
            bytes,
            durability,
        })
        .map(drop)
    }

    /// Makes every write that was committed before this call durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.health.check_write()?;
        if self.wal.is_none() {
            return Err(Error::invalid(
                "a store without a write-ahead log cannot sync; flush instead",
            ));
        }
        self.sync_if(Durability::Synced, None)
    }

    fn sync_if(&self, durability: Durability, committed: Option<Committed>) -> Result<()> {
        let (Durability::Synced, Some(wal)) = (durability, &self.wal) else {
            return Ok(());
        };
        let end = committed.map_or_else(|| wal.end(), |committed| committed.wal_end);
        wal.sync_to(end)
            .inspect_err(|error| self.health.observe(error))
    }

    /// Checks that the batch fits this store, and counts the memory that it will need.
    fn check_batch(&self, batch: &WriteBatch) -> Result<usize> {
        if batch.db() != self.instance {
            return Err(Error::invalid(
                "the batch was made for keyspaces of another store",
            ));
        }
        let view = self.view();
        let mut bytes = 0;
        for operation in batch.operations() {
            let operation = operation?;
            view_of(&view, operation.keyspace)?;
            bytes += entry_bytes(operation.key.len(), operation.value.len());
        }
        Ok(bytes)
    }

    /// Commits at once if nobody leads, else waits for a leader or to become one.
    fn enter(&self, pending: Pending) -> Result<Committed> {
        let mut queue = self.queue.lock();
        if !queue.has_leader {
            queue.has_leader = true;
            drop(queue);
            return self.lead(pending);
        }
        let request = Arc::new(Request {
            state: Mutex::new(RequestState::Waiting(pending)),
            changed: Condvar::new(),
        });
        queue.waiting.push(Arc::clone(&request));
        drop(queue);
        let mut state = request.state.lock();
        loop {
            match std::mem::replace(&mut *state, RequestState::Taken) {
                RequestState::Done(result) => return result,
                RequestState::Leads(pending) => {
                    drop(state);
                    return self.lead(pending);
                }
                other => *state = other,
            }
            request.changed.wait(&mut state);
        }
    }

    /// Commits `own` with what is waiting, then hands the lead on.
    fn lead(&self, mut own: Pending) -> Result<Committed> {
        let followers = self.take_followers(own.bytes);
        if followers.is_empty() {
            let result = self.commit_group(std::slice::from_mut(&mut own));
            self.hand_over();
            return result;
        }
        let mut group = vec![own];
        for follower in &followers {
            let mut state = follower.state.lock();
            match std::mem::replace(&mut *state, RequestState::Taken) {
                RequestState::Waiting(pending) => group.push(pending),
                _ => unreachable!("a waiting request is touched by leaders alone"),
            }
        }
        let result = self.commit_group(&mut group);
        for follower in followers {
            *follower.state.lock() = RequestState::Done(result.clone());
            follower.changed.notify_one();
        }
        self.hand_over();
        result
    }

    fn take_followers(&self, own_bytes: usize) -> Vec<Arc<Request>> {
        let mut queue = self.queue.lock();
        let mut bytes = own_bytes;
        let mut count = 0;
        for request in &queue.waiting {
            if let RequestState::Waiting(pending) = &*request.state.lock() {
                bytes += pending.bytes;
            }
            if bytes > GROUP_BYTES_MAX {
                break;
            }
            count += 1;
        }
        queue.waiting.drain(..count).collect()
    }

    fn hand_over(&self) {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.has_leader = false;
            return;
        }
        let next = queue.waiting.remove(0);
        drop(queue);
        let mut state = next.state.lock();
        *state = match std::mem::replace(&mut *state, RequestState::Taken) {
            RequestState::Waiting(pending) => RequestState::Leads(pending),
            _ => unreachable!("a waiting request is touched by leaders alone"),
        };
        next.changed.notify_one();
    }

    /// Log, memtables, `visible`, in this order.
    fn commit_group(&self, group: &mut [Pending]) -> Result<Committed> {
        let mut state = self.commit.lock();
        let result = self.log_group(&mut state, group);
        let wal_end = match result {
            Ok(end) => end,
            Err(error) => {
                if !self.manual_release {
                    // The numbers stay unused: nothing above the last commit waits for a release.
                    state.released = state.last_seqno;
                }
                drop(state);
                let bytes = group.iter().map(|pending| pending.bytes).sum();
                self.account.give_back(bytes);
                self.health.observe(&error);
                return Err(error);
            }
        };
        if planted(Bug::VisibleBeforeInsert) {
            self.visible.store(state.last_seqno.0, Ordering::Release);
        }
        // Which memtables are written changes under the commit lock alone.
        let view = self.view();
        self.insert_group(&mut state, group, &view);
        self.after_commit(&mut state, &view);
        Ok(Committed { wal_end })
    }

    /// Assigns sequence numbers and appends to the log. Numbers of a failed group stay unused.
    ///
    /// Writes to a keyspace that was dropped since its batch was checked are logged too: replay
    /// passes them over, and to refuse them here would fail the others' batches of the group.
    fn log_group(
        &self,
        state: &mut MutexGuard<'_, CommitState>,
        group: &mut [Pending],
    ) -> Result<crate::journal::Lsn> {
        self.health.check_write()?;
        let mut holders = std::mem::take(&mut state.holders);
        holders.clear();
        let mut durability = Durability::Buffered;
        for pending in group.iter_mut() {
            if pending.durability == Durability::Synced {
                durability = Durability::Synced;
            }
            let first = SeqNo(state.last_seqno.0 + 1);
            let last = SeqNo(state.last_seqno.0 + pending.batch.len() as u64);
            assert!(
                last <= SeqNo::MAX,
                "56 bits of sequence numbers last for ever"
            );
            if self.wal.is_some() {
                let mut seqno = state.last_seqno;
                for operation in pending.batch.operations() {
                    let keyspace = operation?.keyspace;
                    seqno.0 += 1;
                    // Its own newest write, not the batch's: no flush of it would ever cover that.
                    match holders.iter_mut().find(|(id, _)| *id == keyspace) {
                        Some((_, newest)) => *newest = seqno,
                        None => holders.push((keyspace, seqno)),
                    }
                }
            }
            state.last_seqno = last;
            pending.batch.seal(first);
        }
        let result = match (&self.wal, &*group) {
            (None, _) => Ok(crate::journal::Lsn(0)),
            (Some(wal), [only]) => wal.append(&[only.batch.payload()], &holders, durability),
            (Some(wal), group) => {
                let payloads: Vec<&[u8]> = group.iter().map(|it| it.batch.payload()).collect();
                wal.append(&payloads, &holders, durability)
            }
        };
        state.holders = holders;
        result
    }

    fn insert_group(&self, state: &mut CommitState, group: &[Pending], view: &View) {
        let count: usize = group.iter().map(|pending| pending.batch.len()).sum();
        let mut seqno = SeqNo(state.last_seqno.0 - count as u64);
        let mut touched = std::mem::take(&mut state.touched);
        touched.clear();
        let mut user_bytes = 0;
        for pending in group {
            for operation in pending.batch.operations() {
                let operation = operation.expect("a batch of this process is well formed");
                seqno.0 += 1;
                let bytes = entry_bytes(operation.key.len(), operation.value.len());
                user_bytes += (operation.key.len() + operation.value.len()) as u64;
                let Some(keyspace) = view.keyspace(operation.keyspace) else {
                    // Dropped since the batch was checked: its writes have no place any more.
                    self.account.give_back(bytes);
                    continue;
                };
                let key = InternalKey::new(operation.key, seqno, operation.kind);
                // Only the first write of a memtable leaves its time behind.
                let now_ms = if keyspace.active.is_empty() {
                    self.options.env.wall_clock_ms()
                } else {
                    0
                };
                keyspace.active.insert(key, operation.value, now_ms);
                match touched.iter_mut().find(|(id, _)| *id == operation.keyspace) {
                    Some((_, taken)) => *taken += bytes,
                    None => touched.push((operation.keyspace, bytes)),
                }
            }
        }
        for (id, bytes) in &touched {
            if let Some(keyspace) = view.keyspace(*id) {
                keyspace.active.settle_charge(*bytes);
            }
        }
        state.touched = touched;
        state.bytes_written += user_bytes;
        self.counters.add_user(user_bytes);
        // Published last, so that a batch shows whole or not at all.
        self.visible.store(state.last_seqno.0, Ordering::Release);
    }
}
