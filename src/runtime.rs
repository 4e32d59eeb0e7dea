//! What all stores of a process share: worker threads, block cache, memory budget.

mod turns;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::cache::{Account, BlockCache, MemoryBudget};
use crate::env::JoinHandle;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RuntimeOptions;
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, Ordering, Weak};

use turns::Turns;

pub(crate) use turns::{Flushing, Merging};

/// Work that a store asks its runtime to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Move sealed memtables out of memory. Goes before everything else.
    Flush,
    /// Compact one keyspace, and smaller chores.
    Compact,
}

/// A store, as its runtime sees it.
pub(crate) trait Tenant: Send + Sync {
    /// Does a job to its end. Errors are the tenant's to remember.
    fn run(&self, job: Job);

    /// A job panicked: the tenant must take no more writes.
    fn poison(&self, job: Job, error: Error);

    /// Bytes of memory that a flush would free if it were started now.
    fn flushable_bytes(&self) -> usize;

    /// True while a flush is queued or running whose end will be signalled.
    fn is_flushing(&self) -> bool;

    /// Seals what may be flushed and queues the flush.
    fn start_flush(&self);
}

/// Threads, block cache and memory budget, shared by any number of stores.
///
/// Cheap to clone. The threads end when the last clone and the last store that uses it are gone.
///
/// ```
/// use siltstone::{Db, Options, Runtime, RuntimeOptions};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let options = RuntimeOptions::new().memory_bytes_max(64 << 20).cache_bytes(16 << 20);
/// let runtime = Runtime::new(options)?;
/// let one = Db::open_with(dir.path().join("one"), Options::new(), &runtime)?;
/// let two = Db::open_with(dir.path().join("two"), Options::new(), &runtime)?;
/// # one.close()?;
/// # two.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Runtime {
    owner: Arc<Owner>,
}

/// Ends the threads with the last handle.
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<Box<dyn JoinHandle>>>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when a job is queued, or at the end.
    queued: Condvar,
    cache: Arc<BlockCache>,
    budget: Arc<MemoryBudget>,
    tenants: Mutex<Vec<Weak<dyn Tenant>>>,
    /// Background threads. Without any, callers have to do the work themselves.
    threads: usize,
    /// Held by the one in-memory compaction that may run at a time.
    arena_turn: Mutex<()>,
    turns: Turns,
    ending: AtomicBool,
}

#[derive(Default)]
struct Queue {
    flushes: VecDeque<Weak<dyn Tenant>>,
    others: VecDeque<Work>,
}

/// What a thread takes from the queue.
enum Work {
    Job(Job, Weak<dyn Tenant>),
    Help(Arc<HelpFn>),
}

/// One step of work that somebody else does too; false if there is none left.
pub(crate) type HelpFn = dyn Fn() -> bool + Send + Sync;

impl Queue {
    fn pop(&mut self, flushes_only: bool) -> Option<Work> {
        if let Some(tenant) = self.flushes.pop_front() {
            return Some(Work::Job(Job::Flush, tenant));
        }
        if flushes_only {
            return None;
        }
        self.others.pop_front()
    }
}

impl Runtime {
    /// Starts the threads and sets up the cache and the budget.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if an option is out of its bounds, `Io` if a thread cannot be started.
    pub fn new(options: RuntimeOptions) -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_processors(options, processors)
    }

    /// As [`new`](Self::new), on a machine that is taken to have so many processors.
    pub(crate) fn with_processors(options: RuntimeOptions, processors: usize) -> Result<Self> {
        options.validate()?;
        let RuntimeOptions {
            env,
            threads,
            memory_bytes_max,
            cache_bytes,
        } = options;
        let pool_bytes = memory_bytes_max - cache_bytes;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::default()),
            queued: Condvar::new(),
            cache: Arc::new(BlockCache::new(cache_bytes as u64)),
            budget: Arc::new(MemoryBudget::new(pool_bytes)),
            tenants: Mutex::new(Vec::new()),
            threads,
            arena_turn: Mutex::new(()),
            turns: Turns::new(processors),
            ending: AtomicBool::new(false),
        });
        let owner = Owner {
            shared,
            threads: Mutex::new(Vec::new()),
        };
        for index in 0..threads {
            let shared = Arc::clone(&owner.shared);
            // With more than one thread the first keeps to flushes: no compaction delays them.
            let flushes_only = index == 0 && threads > 1;
            let body = Box::new(move || shared.work(flushes_only));
            owner.threads.lock().push(env.spawn("worker", body)?);
        }
        Ok(Self {
            owner: Arc::new(owner),
        })
    }

    /// Runs one queued job on this thread; false if there was none. How work gets done in a
    /// runtime without threads.
    pub fn run_pending(&self) -> bool {
        self.shared().run_one(false)
    }

    /// Bytes of memory in use out of the budget, the block cache included.
    pub fn memory_bytes(&self) -> u64 {
        self.budget().used_bytes() as u64 + self.cache().bytes()
    }

    /// The most bytes that memtables and restores ever held at once, and their limit: the budget
    /// without the block cache.
    pub fn memtable_bytes_most_and_max(&self) -> (usize, usize) {
        (self.budget().used_bytes_most(), self.budget().bytes_max())
    }

    /// Lookups of the block cache that found their block, and those that did not.
    pub fn cache_hits_and_misses(&self) -> (u64, u64) {
        self.cache().hits_and_misses()
    }

    fn shared(&self) -> &Shared {
        &self.owner.shared
    }

    pub(crate) fn cache(&self) -> &Arc<BlockCache> {
        &self.shared().cache
    }

    pub(crate) fn budget(&self) -> &Arc<MemoryBudget> {
        &self.shared().budget
    }

    pub(crate) fn is_threadless(&self) -> bool {
        self.shared().threads == 0
    }

    /// Waits for the turn to hold the one extra arena of an in-memory compaction.
    pub(crate) fn arena_turn(&self) -> crate::sync::MutexGuard<'_, ()> {
        self.shared().arena_turn.lock()
    }

    /// Tells that a flush writes tables, for which merges may have to step aside.
    pub(crate) fn begin_flush(&self) -> Flushing<'_> {
        self.shared().turns.begin_flush()
    }

    /// Tells that a merge runs, which is to [step aside](Merging::step_aside) now and then.
    pub(crate) fn begin_merge(&self) -> Merging<'_> {
        self.shared().turns.begin_merge()
    }

    /// Has merges that stepped aside ask again whether they are urgent.
    pub(crate) fn wake_merges(&self) {
        self.shared().turns.wake();
    }

    /// Merges that have stepped aside.
    #[cfg(test)]
    pub(crate) fn merges_waiting(&self) -> usize {
        self.shared().turns.waiting()
    }

    /// Makes a store's memory count when the budget looks for a memtable to flush.
    pub(crate) fn register(&self, tenant: Weak<dyn Tenant>) {
        let mut tenants = self.shared().tenants.lock();
        tenants.retain(|tenant| tenant.strong_count() > 0);
        tenants.push(tenant);
    }

    /// Queues a job. The tenant keeps itself from queueing the same job many times over.
    pub(crate) fn submit(&self, job: Job, tenant: Weak<dyn Tenant>) {
        let mut queue = self.shared().queue.lock();
        match job {
            Job::Flush => queue.flushes.push_back(tenant),
            Job::Compact => queue.others.push_back(Work::Job(job, tenant)),
        }
        drop(queue);
        // All of them: the first one woken may be the one that only takes flushes.
        self.shared().queued.notify_all();
    }

    /// How many threads may help a caller with what it does: those that are not kept for flushes,
    /// and no more than there are processors beside the caller's.
    pub(crate) fn helpers_max(&self) -> usize {
        let processors = self.shared().turns.processors();
        self.shared().threads.saturating_sub(1).min(processors - 1)
    }

    /// Has up to `helpers` threads call `step` until it returns false, each when it has nothing
    /// more urgent to do. Returns at once; whether any of them comes is not certain.
    pub(crate) fn help(&self, helpers: usize, step: &Arc<HelpFn>) {
        let mut queue = self.shared().queue.lock();
        for _ in 0..helpers.min(self.helpers_max()) {
            queue.others.push_back(Work::Help(Arc::clone(step)));
        }
        drop(queue);
        self.shared().queued.notify_all();
    }

    /// Takes `bytes` for a write of the account's store, waiting for room only while a running
    /// flush can make some, and from the store's reserve if none can. `urgent` is called before
    /// the reserve is drawn on: the store should commit soon.
    ///
    /// # Errors
    ///
    /// `MemoryLimit` if the reserve is spent too.
    pub(crate) fn take_memory(
        &self,
        account: &Account,
        bytes: usize,
        urgent: &dyn Fn(),
    ) -> Result<()> {
        // Nearly always.
        if account.try_take(bytes) {
            return Ok(());
        }
        loop {
            let generation = self.budget().generation();
            if account.try_take(bytes) {
                return Ok(());
            }
            if self.relieve() {
                if self.is_threadless() {
                    self.shared().run_one(true);
                } else {
                    self.budget().wait_for_progress(generation);
                }
                continue;
            }
            // What was freed since the first look must not be missed.
            if self.budget().generation() != generation {
                continue;
            }
            urgent();
            if account.try_take_reserve(bytes) {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::MemoryLimit,
                format!(
                    "{bytes} bytes for a write: the budget of {} bytes is spent, no flush can \
                     free any before the next commit, and the store's reserve is used up",
                    self.budget().bytes_max()
                ),
            ));
        }
    }

    /// Starts a flush of the largest memtables that may be flushed. True while any flush runs.
    fn relieve(&self) -> bool {
        let tenants: Vec<Arc<dyn Tenant>> = self
            .shared()
            .tenants
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        if tenants.iter().any(|tenant| tenant.is_flushing()) {
            return true;
        }
        let largest = tenants.iter().max_by_key(|tenant| tenant.flushable_bytes());
        match largest {
            Some(tenant) if tenant.flushable_bytes() > 0 => {
                tenant.start_flush();
                tenant.is_flushing()
            }
            _ => false,
        }
    }
}

impl Shared {
    fn work(&self, flushes_only: bool) {
        loop {
            let work = {
                let mut queue = self.queue.lock();
                loop {
                    if self.ending.load(Ordering::Acquire) {
                        return;
                    }
                    match queue.pop(flushes_only) {
                        Some(next) => break next,
                        None => self.queued.wait(&mut queue),
                    }
                }
            };
            self.run(work);
        }
    }

    fn run_one(&self, flushes_only: bool) -> bool {
        let next = self.queue.lock().pop(flushes_only);
        match next {
            Some(work) => {
                self.run(work);
                true
            }
            None => false,
        }
    }

    fn run(&self, work: Work) {
        match work {
            Work::Job(job, tenant) => self.run_job(job, &tenant),
            Work::Help(step) => {
                // One step at a time, so that jobs of others get their turn. A panic is the
                // step's to tell to those who wait for it.
                let goes_on = catch_unwind(AssertUnwindSafe(|| step()));
                if matches!(goes_on, Ok(true)) {
                    self.queue.lock().others.push_back(Work::Help(step));
                }
            }
        }
    }

    fn run_job(&self, job: Job, tenant: &Weak<dyn Tenant>) {
        let Some(tenant) = tenant.upgrade() else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| tenant.run(job))).is_err() {
            tenant.poison(
                job,
                Error::new(
                    ErrorKind::Poisoned,
                    format!("a background {job:?} panicked; reopen the store"),
                ),
            );
        }
        if job == Job::Flush {
            self.budget.signal_progress();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        {
            let _queue = self.shared.queue.lock();
            self.shared.ending.store(true, Ordering::Release);
        }
        self.shared.queued.notify_all();
        for thread in self.threads.get_mut().drain(..) {
            thread.join();
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("threadless", &self.is_threadless())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}
