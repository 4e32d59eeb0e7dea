//! The child that works on a task with a changelog in files and no write-ahead log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use siltstone::changelog::File;
use siltstone::store::serde::Bytes;
use siltstone::store::{KeyValue, StoreOptions, Task, TaskOptions};

use crate::Result;
use crate::change::{MARKER, Maker, STORES};
use crate::notes::{Clock, Notes};
use crate::plan::SessionPlan;
use crate::random::Random;
use crate::state::{self, State, Write};

type Store = KeyValue<Bytes, Bytes>;

/// The input whose position is the count of commits.
pub(crate) const INPUT: &str = "input";
const JOB: &str = "stress";

/// The open task.
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) stores: Vec<Store>,
    changelog: File,
}

impl Job {
    pub(crate) fn open(dir: &Path, plan: &SessionPlan) -> Result<Self> {
        let changelog = File::open(dir.join("changelog"), plan.changelog())?;
        let shared = Arc::new(changelog.clone());
        let mut options = TaskOptions::new(JOB, 0, dir.join("task"), shared)
            .runtime(&plan.runtime()?)
            .db(plan.options());
        for store in STORES {
            options = options.store(StoreOptions::new(store).keyspace(plan.keyspace()));
        }
        let task = Task::open(options)?;
        let stores = STORES.map(|store| task.key_value(store, Bytes, Bytes));
        let stores = stores.into_iter().collect::<siltstone::Result<_>>()?;
        Ok(Self {
            task,
            stores,
            changelog,
        })
    }

    fn write(&mut self, writes: &[Write], seed: u64) -> Result<()> {
        for write in writes {
            let (store, key) = (&self.stores[write.keyspace], state::key(write.key));
            match write.stamp {
                Some(stamp) => store.put(&mut self.task, &key, &stamp.value(seed))?,
                None => store.delete(&mut self.task, &key)?,
            }
        }
        Ok(())
    }

    /// The first way in which the stores are not as they should be.
    pub(crate) fn difference(&self, seed: u64, expected: &State) -> Result<Option<String>> {
        let commits = self.task.input_position(INPUT)?.unwrap_or(0);
        if commits != expected.commits {
            let expected = expected.commits;
            return Ok(Some(format!("input position {commits}, not {expected}")));
        }
        for (store, entries) in self.stores.iter().zip(&expected.keyspaces) {
            let found = state::collect(store.entries()?, false)?;
            let difference = state::difference(seed, store.name(), entries, &found, |_| true);
            if let Some(difference) = difference {
                return Ok(Some(difference.to_string()));
            }
        }
        Ok(None)
    }
}

/// Works until it is killed.
pub(crate) fn work(seed: u64, round: u32, dir: &Path) -> Result<()> {
    let clock = Clock::default();
    let maker = Maker {
        seed,
        round,
        worker: 0,
    };
    let mut worker = Worker {
        maker,
        expected: State::load(&dir.join("expected"), STORES.len())?,
        notes: Notes::create(&dir.join("notes"), 0, &clock)?,
        next_change: 0,
        random: Random::of(&[seed, u64::from(round), 21]),
    };
    for session in 0.. {
        let plan = SessionPlan::new(seed, u64::from(round), session);
        let mut job = Job::open(dir, &plan)?;
        if let Some(difference) = job.difference(seed, &worker.expected)? {
            return Err(format!("after opening again: {difference}").into());
        }
        let stores = job.stores.clone();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&stores, &ended));
            let result = worker.run(&mut job, plan.actions / 10);
            ended.store(true, Ordering::Relaxed);
            result.and(reader.join().map_err(|_| "the reader panicked")?)
        })?;
        drop(stores);
        if plan.closes {
            job.stores.clear();
            job.task.close()?;
        }
    }
    Ok(())
}

/// Checks what is committed, from another thread: every commit is in all stores or in none.
fn read(stores: &[Store], ended: &AtomicBool) -> Result<()> {
    while !ended.load(Ordering::Relaxed) {
        let committed = stores[0].committed()?;
        let marker = committed.get(&state::key(MARKER))?;
        for store in &stores[1..] {
            if store.at(committed.as_of()).get(&state::key(MARKER))? != marker {
                return Err("a view of what is committed shows a commit in part".into());
            }
        }
        thread::yield_now();
    }
    Ok(())
}

/// The thread that owns the task.
struct Worker<'a> {
    maker: Maker,
    expected: State,
    notes: Notes<'a>,
    next_change: u32,
    /// For what needs no repetition.
    random: Random,
}

impl Worker<'_> {
    fn run(&mut self, job: &mut Job, commits: u32) -> Result<()> {
        let mut sent: Option<Vec<Write>> = None;
        for _ in 0..commits {
            // What is taken back may only be what follows a commit that is decided.
            let aborted = self.maker.aborted(self.next_change);
            if aborted.is_some() {
                self.decide(job, &mut sent)?;
            }
            if let Some(writes) = aborted {
                job.write(&writes, self.maker.seed)?;
                job.task.set_input_position(INPUT, u64::MAX)?;
                job.task.abort()?;
            }
            let writes = self.maker.commit(self.next_change);
            job.write(&writes, self.maker.seed)?;
            self.decide(job, &mut sent)?;
            job.task
                .set_input_position(INPUT, self.expected.commits + 1)?;
            self.notes.note()?;
            job.task.begin_commit()?;
            sent = Some(writes);
            self.next_change += 1;
            if self.random.one_in(2) {
                self.decide(job, &mut sent)?;
                self.maintain(job)?;
            }
        }
        self.decide(job, &mut sent)
    }

    /// Waits for the commit that was sent, if one was.
    fn decide(&mut self, job: &mut Job, sent: &mut Option<Vec<Write>>) -> Result<()> {
        let Some(writes) = sent.take() else {
            return Ok(());
        };
        job.task.wait_commit()?;
        self.notes.note()?;
        self.expected.apply(&writes);
        self.expected.commits += 1;
        Ok(())
    }

    /// Now and then what is not needed and must not harm, between commits.
    fn maintain(&mut self, job: &mut Job) -> Result<()> {
        match self.random.below(60) {
            0 => job.task.flush()?,
            1 => job.changelog.compact(job.task.name())?,
            2 => job.task.idle()?,
            3 => {
                if let Some(difference) = job.difference(self.maker.seed, &self.expected)? {
                    return Err(difference.into());
                }
            }
            _ => {}
        }
        Ok(())
    }
}
