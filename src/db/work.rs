//! What a store does in the background, and how callers wait for it: flushes of sealed memtables,
//! in-memory compactions, compactions of tables, chores of the write-ahead log.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::compaction::{self, Busy, Kind, Plan, leveled};
use crate::error::{Error, ErrorKind, Result};
use crate::key::SeqNo;
use crate::options::KeyspaceOptions;
use crate::runtime::{Job, Tenant};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering};
use crate::version::{Change, TableMeta};
use crate::wal::LEFT_PARTS_MAX;

use super::DbInner;
use super::pace::Pace;
use super::view::KeyspaceView;

/// How long a failed flush or compaction is left alone before it is tried again unasked.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What is queued and running.
#[derive(Default)]
pub(crate) struct Work {
    state: Mutex<WorkState>,
    /// Signalled whenever a job ends.
    ended: Condvar,
    /// Tables and ranges that running compactions hold, a keyspace each.
    busy: Mutex<BTreeMap<u32, Busy>>,
    /// How fast writers may go; taken alone.
    pace: Mutex<Pace>,
    /// Set when the store ends: compactions stop at the next entry.
    stopping: AtomicBool,
}

#[derive(Default)]
struct WorkState {
    flush_queued: bool,
    flush_running: bool,
    compactions_queued: usize,
    compactions_running: usize,
    /// The last failure, until a job of its kind succeeds.
    flush_error: Option<Error>,
    compaction_error: Option<Error>,
    /// When the flush failed, by the monotonic clock.
    flush_failed_at: Duration,
    compaction_failed_at: Duration,
}

impl Work {
    pub(crate) fn error(&self) -> Option<Error> {
        let state = self.state.lock();
        state
            .flush_error
            .clone()
            .or_else(|| state.compaction_error.clone())
    }

    pub(crate) fn stopping(&self) -> &AtomicBool {
        &self.stopping
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Counts a compaction that a caller runs, unless the store is ending: whoever waits for its
    /// end must not be told that nothing runs while another is about to begin.
    fn begin_compaction(&self) -> Result<RunningCompaction<'_>> {
        let mut state = self.state.lock();
        if self.is_stopping() {
            return Err(Error::new(ErrorKind::Closed, "the store was closed"));
        }
        state.compactions_running += 1;
        Ok(RunningCompaction(self))
    }
}

/// A compaction that is counted as running until this is dropped, by a panic too.
struct RunningCompaction<'a>(&'a Work);

impl Drop for RunningCompaction<'_> {
    fn drop(&mut self) {
        self.0.state.lock().compactions_running -= 1;
        self.0.ended.notify_all();
    }
}

/// A plan whose tables are marked busy until this is dropped, by a panic too: else whoever wants
/// them would wait for ever.
pub(super) struct Claimed<'a> {
    work: &'a Work,
    id: u32,
    plan: Plan,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.work.busy.lock().get_mut(&self.id) {
            busy.remove(&self.plan);
        }
    }
}

impl Tenant for DbInner {
    fn run(&self, job: Job) {
        match job {
            Job::Flush => self.run_flush_job(),
            Job::Compact => self.run_compaction_job(),
        }
    }

    fn poison(&self, job: Job, error: Error) {
        self.health.poison(error);
        if job == Job::Flush {
            // It will not say that it has ended.
            self.work.state.lock().flush_running = false;
        }
        self.work.ended.notify_all();
    }

    fn flushable_bytes(&self) -> usize {
        let state = self.work.state.lock();
        let waits = state.flush_error.is_some()
            && self.options.env.monotonic() < state.flush_failed_at + BACK_OFF;
        drop(state);
        if waits || self.health.check_write().is_err() {
            return 0;
        }
        let commit = self.commit.lock();
        let sealed: usize = commit
            .groups
            .iter()
            .take(commit.settled_groups())
            .flat_map(|group| &group.memtables)
            .map(|(_, memtable)| memtable.memory_bytes())
            .sum();
        if commit.last_seqno > commit.released {
            return sealed;
        }
        let view = self.view();
        let active = view
            .keyspaces
            .values()
            .map(|keyspace| keyspace.active.memory_bytes());
        sealed + active.sum::<usize>()
    }

    fn is_flushing(&self) -> bool {
        let state = self.work.state.lock();
        state.flush_queued || state.flush_running
    }

    fn start_flush(&self) {
        self.seal_settled(&mut self.commit.lock());
        self.submit_flush();
    }
}

impl DbInner {
    fn weak(&self) -> crate::sync::Weak<dyn Tenant> {
        let me: crate::sync::Weak<Self> = self.me.clone();
        me
    }

    /// Queues a flush, unless one is queued already.
    pub(crate) fn submit_flush(&self) {
        let mut state = self.work.state.lock();
        if state.flush_queued || self.work.is_stopping() {
            return;
        }
        state.flush_queued = true;
        drop(state);
        self.runtime.submit(Job::Flush, self.weak());
    }

    /// Queues a compaction, unless one is queued already.
    pub(crate) fn submit_compaction(&self) {
        let mut state = self.work.state.lock();
        if state.compactions_queued > 0 || self.work.is_stopping() {
            return;
        }
        state.compactions_queued += 1;
        drop(state);
        self.runtime.submit(Job::Compact, self.weak());
    }

    /// Tries a flush that failed again, once it was left alone for a while.
    pub(crate) fn retry_flush_if_due(&self) {
        let state = self.work.state.lock();
        let due = state.flush_error.is_some()
            && self.options.env.monotonic() >= state.flush_failed_at + BACK_OFF;
        drop(state);
        if due {
            self.submit_flush();
        }
    }

    /// Seals and flushes everything that counts, and waits for it.
    pub(crate) fn flush(&self) -> Result<()> {
        self.health.check_write()?;
        let target = {
            let mut state = self.commit.lock();
            // Again, under the lock: behind a close the log belongs to somebody else.
            self.health.check_write()?;
            let target = self.seal_settled(&mut state);
            if let Some(wal) = &self.wal {
                wal.end_segment(LEFT_PARTS_MAX);
            }
            target
        };
        self.wait_flushed(target)
    }

    /// Waits until tables hold everything up to `target`.
    fn wait_flushed(&self, target: SeqNo) -> Result<()> {
        let mut tried = false;
        loop {
            self.health.check_write()?;
            let done = self
                .commit
                .lock()
                .groups
                .front()
                .is_none_or(|group| group.mark > target);
            if done {
                return Ok(());
            }
            let state = self.work.state.lock();
            if state.flush_queued || state.flush_running {
                if self.runtime.is_threadless() {
                    drop(state);
                    self.runtime.run_pending();
                } else {
                    let mut state = state;
                    self.work.ended.wait(&mut state);
                }
                continue;
            }
            if tried && let Some(error) = &state.flush_error {
                return Err(error.clone());
            }
            drop(state);
            tried = true;
            self.submit_flush();
        }
    }

    fn run_flush_job(&self) {
        {
            let mut state = self.work.state.lock();
            if state.flush_running {
                // The one that runs looks again before it ends.
                state.flush_queued = false;
                return;
            }
            state.flush_queued = false;
            state.flush_running = true;
        }
        let result = self.flush_all_settled();
        let mut state = self.work.state.lock();
        state.flush_running = false;
        if let Err(error) = &result {
            state.flush_failed_at = self.options.env.monotonic();
            self.health.observe(error);
        }
        state.flush_error = result.err();
        drop(state);
        self.work.ended.notify_all();
        self.progress.notify_all();
        self.submit_compaction();
    }

    fn flush_all_settled(&self) -> Result<()> {
        while !self.work.is_stopping() && self.health.check_write().is_ok() {
            if !self.flush_once()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One compaction, and the chores. Asks for another if there was something to do.
    fn run_compaction_job(&self) {
        {
            let mut state = self.work.state.lock();
            state.compactions_queued -= 1;
            state.compactions_running += 1;
        }
        let running = RunningCompaction(&self.work);
        let result = self.do_chores().and_then(|()| self.compact_once());
        let mut state = self.work.state.lock();
        let again = matches!(result, Ok(true));
        if let Err(error) = &result {
            state.compaction_failed_at = self.options.env.monotonic();
            self.health.observe(error);
        }
        if !self.work.is_stopping() {
            state.compaction_error = result.err();
        }
        drop(state);
        drop(running);
        self.progress.notify_all();
        if again {
            self.submit_compaction();
        }
    }

    fn do_chores(&self) -> Result<()> {
        match &self.wal {
            Some(wal) if !self.work.is_stopping() && wal.wants_next() => wal.prepare_next(),
            _ => Ok(()),
        }
    }

    /// Runs the most urgent compaction, if there is one.
    fn compact_once(&self) -> Result<bool> {
        if self.work.is_stopping() || self.health.check_write().is_err() {
            return Ok(false);
        }
        // The view is let go at once: it holds the memtables of its time, which would take up
        // memory until the end of the merge.
        let picked = self.view().keyspaces.iter().find_map(|(id, keyspace)| {
            let claimed = self.claim(*id, |keyspace, busy| {
                if !keyspace.has_options || keyspace.restoring.load(Ordering::Acquire) {
                    return None;
                }
                let memtable_bytes = self.options.memtable_bytes_max as u64;
                let asked = keyspace.runs_asked.count();
                let (version, options) = (&keyspace.version, &keyspace.options);
                let plan = compaction::pick(version, busy, options, memtable_bytes, asked)?;
                if plan.takes_level0() {
                    keyspace.runs_asked.forget();
                }
                Some(plan)
            })?;
            Some((Arc::clone(&keyspace.options), claimed))
        });
        let Some((options, claimed)) = picked else {
            return Ok(false);
        };
        // Another thread may find more to do meanwhile.
        self.submit_compaction();
        self.carry_out(&options, &claimed)?;
        Ok(true)
    }

    /// Picks a plan against the newest version and marks its tables busy, in one step.
    pub(super) fn claim(
        &self,
        id: u32,
        pick: impl FnOnce(&KeyspaceView, &Busy) -> Option<Plan>,
    ) -> Option<Claimed<'_>> {
        let mut busy = self.work.busy.lock();
        let busy = busy.entry(id).or_default();
        let view = self.view();
        let plan = pick(view.keyspace(id)?, busy)?;
        busy.insert(&plan);
        let work = &self.work;
        Some(Claimed { work, id, plan })
    }

    pub(super) fn carry_out(&self, options: &KeyspaceOptions, claimed: &Claimed<'_>) -> Result<()> {
        match claimed.plan.kind {
            Kind::TrivialMove => self.move_tables(claimed.id, &claimed.plan),
            Kind::Merge => {
                let begun = self.options.env.monotonic();
                self.merge_tables(claimed.id, options, &claimed.plan)?;
                let drained = claimed.plan.raw_bytes_of(0);
                if drained > 0 {
                    let took = self.options.env.monotonic().saturating_sub(begun);
                    self.work.pace.lock().drained(drained, took);
                }
                Ok(())
            }
        }
    }

    fn move_tables(&self, id: u32, plan: &Plan) -> Result<()> {
        self.install_outputs(id, plan, plan.tables().map(|table| table.meta.clone()))
    }

    /// Installs what a plan has made in place of its inputs, unless the keyspace was dropped
    /// meanwhile.
    ///
    /// # Panics
    ///
    /// If newer data would end below older.
    pub(crate) fn install_outputs(
        &self,
        id: u32,
        plan: &Plan,
        outputs: impl Iterator<Item = TableMeta>,
    ) -> Result<()> {
        let level = u8::try_from(plan.output_level).expect("few levels");
        self.install(
            |state| {
                let Some(keyspace) = state.keyspaces.get(&id) else {
                    return Ok(Vec::new());
                };
                plan.assert_order(&keyspace.version);
                let remove = plan.tables().map(|table| Change::RemoveTable {
                    keyspace: id,
                    number: table.meta.number,
                });
                let add = outputs.map(|meta| Change::AddTable {
                    keyspace: id,
                    level,
                    run: plan.output_run(&keyspace.version, &meta.smallest, &meta.largest),
                    meta,
                });
                Ok(remove.chain(add).collect())
            },
            |_| {},
        )
    }

    /// Compacts everything of a keyspace into its last level, and waits for it.
    pub(crate) fn compact_keyspace(&self, id: u32) -> Result<()> {
        self.flush()?;
        self.compact_with(id, |keyspace, busy| {
            leveled::pick_full(&keyspace.version, busy)
        })
    }

    /// Runs plans of `pick` until it has none, waiting while other compactions hold tables.
    pub(crate) fn compact_with(
        &self,
        id: u32,
        mut pick: impl FnMut(&KeyspaceView, &Busy) -> Option<Plan>,
    ) -> Result<()> {
        loop {
            self.health.check_write()?;
            // As above, not the view.
            let options = Arc::clone(&super::read::view_of(&self.view(), id)?.options);
            if let Some(claimed) = self.claim(id, &mut pick) {
                let running = self.work.begin_compaction()?;
                let result = self.carry_out(&options, &claimed);
                let is_merge = claimed.plan.kind == Kind::Merge;
                // Files of replaced tables go with the last who holds them: before the work counts
                // as ended, for a close that waits for it lets the next owner in.
                drop(claimed);
                drop(running);
                result?;
                if is_merge {
                    return Ok(());
                }
                continue;
            }
            if self.work.busy.lock().get(&id).is_none_or(Busy::is_empty) {
                return Ok(());
            }
            let mut state = self.work.state.lock();
            if state.compactions_running > 0 {
                self.work.ended.wait(&mut state);
            }
        }
    }

    /// Holds a writer back while compaction has fallen behind, in proportion to how far.
    pub(crate) fn hold_back(&self, bytes: usize) {
        let excess = self.level0_excess.load(Ordering::Relaxed);
        if excess == 0 {
            return;
        }
        if self.runtime.is_threadless() {
            self.runtime.run_pending();
            return;
        }
        self.submit_compaction();
        let start = self.options.env.monotonic();
        let due = self.work.pace.lock().hold_back(start, bytes, excess);
        let Some(until) = due else {
            return;
        };
        let mut state = self.work.state.lock();
        let mut now = start;
        while now < until
            && state.compactions_running + state.compactions_queued > 0
            && self.level0_excess.load(Ordering::Relaxed) > 0
        {
            if self
                .progress
                .wait_for(&mut state, until.saturating_sub(now))
                .timed_out()
            {
                break;
            }
            now = self.options.env.monotonic();
        }
        drop(state);
        let waited = self.options.env.monotonic().saturating_sub(start);
        self.counters
            .add_stall(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
    }

    /// True if a merge must not step aside: writers wait for it, or whoever closes the store.
    pub(super) fn is_merge_urgent(&self) -> bool {
        // Relaxed: the flush that makes it grow wakes those who stepped aside when it ends.
        self.work.is_stopping() || self.level0_excess.load(Ordering::Relaxed) > 0
    }

    /// Lets no new job begin and waits for the running ones.
    pub(crate) fn stop_work(&self) {
        self.work.stopping.store(true, Ordering::Release);
        self.runtime.wake_merges();
        let mut state = self.work.state.lock();
        while state.flush_running || state.compactions_running > 0 {
            self.work.ended.wait(&mut state);
        }
    }
}
