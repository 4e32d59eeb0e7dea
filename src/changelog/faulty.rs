//! A changelog that answers late and fails on demand, around another one; for tests.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};

use super::{
    Bounds, Changelog, CommitId, Guarantee, Offset, Owner, Partition, Position, Reader, RecordRef,
    Session,
};

/// What becomes of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CommitPlan {
    /// So many polls answer "not yet" before the commit takes effect.
    pub polls_before: u32,
    /// So many polls more answer "not yet" after it took effect. A session that is dropped
    /// meanwhile leaves a commit in the log whose owner was never told.
    pub polls_after: u32,
    /// The commit never takes effect; after `polls_before` it has failed.
    pub fails: bool,
}

#[derive(Debug, Default)]
struct Faults {
    appends: u32,
    prepares: u32,
    /// For the next commits, one each.
    commits: VecDeque<CommitPlan>,
    /// For all further ones.
    always: CommitPlan,
}

/// Wraps a changelog; clones share their plans.
#[derive(Debug, Clone)]
pub struct Faulty<C> {
    inner: C,
    faults: Arc<Mutex<Faults>>,
}

impl<C> Faulty<C> {
    /// A wrapper that does nothing until it is told to.
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            faults: Arc::default(),
        }
    }

    /// Fails the next `count` appends with [`ErrorKind::Changelog`].
    pub fn fail_appends(&self, count: u32) {
        self.faults.lock().appends = count;
    }

    /// Fails the next `count` prepares with [`ErrorKind::Changelog`].
    pub fn fail_prepares(&self, count: u32) {
        self.faults.lock().prepares = count;
    }

    /// Adds a plan for one more of the next commits.
    pub fn plan_commit(&self, plan: CommitPlan) {
        self.faults.lock().commits.push_back(plan);
    }

    /// Sets what becomes of commits that have no plan of their own.
    pub fn plan_commits(&self, plan: CommitPlan) {
        self.faults.lock().always = plan;
    }
}

impl<C: Changelog> Changelog for Faulty<C> {
    fn guarantee(&self) -> Guarantee {
        self.inner.guarantee()
    }

    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>> {
        self.inner.bounds(partition)
    }

    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
        Ok(Box::new(FaultySession {
            inner: self.inner.claim(task, partitions)?,
            faults: Arc::clone(&self.faults),
            newest: CommitId(0),
            state: State::Open,
        }))
    }

    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>> {
        self.inner.reader(partition, from)
    }
}

#[derive(Debug)]
enum State {
    /// No commit is undecided. The positions are those of the newest one.
    Open,
    Committed(Vec<Position>),
    /// `inner` is the wrapped session's commit; a commit that is to fail has none.
    Underway {
        plan: CommitPlan,
        inner: Option<CommitId>,
        done: Option<Vec<Position>>,
    },
    Failed(Error),
}

#[derive(Debug)]
struct FaultySession {
    inner: Box<dyn Session>,
    faults: Arc<Mutex<Faults>>,
    newest: CommitId,
    state: State,
}

impl FaultySession {
    fn check_open(&self) -> Result<()> {
        match &self.state {
            State::Failed(error) => Err(error.context("the session waits for an abort")),
            _ => Ok(()),
        }
    }

    fn check_decided(&self) -> Result<()> {
        match self.state {
            State::Underway { .. } => Err(Error::invalid(format!(
                "commit {} is not decided yet",
                self.newest.0
            ))),
            _ => Ok(()),
        }
    }

    fn fail(&mut self, what: &'static str) -> Error {
        let error = Error::new(ErrorKind::Changelog, what);
        self.state = State::Failed(error.clone());
        error
    }

    /// Moves the commit that is under way on by one poll.
    fn step(&mut self) -> Result<Option<Vec<Position>>> {
        let State::Underway { plan, inner, done } = &mut self.state else {
            unreachable!("a commit is under way");
        };
        if plan.polls_before > 0 {
            plan.polls_before -= 1;
            return Ok(None);
        }
        let Some(inner) = *inner else {
            return Err(self.fail("the commit was made to fail"));
        };
        if done.is_none() {
            match self.inner.poll(inner) {
                Ok(None) => return Ok(None),
                Ok(positions) => *done = positions,
                Err(error) => {
                    self.state = State::Failed(error.clone());
                    return Err(error);
                }
            }
        }
        if plan.polls_after > 0 {
            plan.polls_after -= 1;
            return Ok(None);
        }
        let positions = done.take().expect("the commit took effect");
        self.state = State::Committed(positions.clone());
        Ok(Some(positions))
    }
}

impl Session for FaultySession {
    fn owner(&self) -> Owner {
        self.inner.owner()
    }

    fn bounds(&mut self, partition: usize) -> Result<Bounds> {
        self.inner.bounds(partition)
    }

    fn reader(&mut self, partition: usize, from: Offset) -> Result<Box<dyn Reader>> {
        self.inner.reader(partition, from)
    }

    fn record_bytes_max(&self) -> u64 {
        self.inner.record_bytes_max()
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.check_open()?;
        self.inner.reserve(bytes)
    }

    fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()> {
        self.check_open()?;
        let mut faults = self.faults.lock();
        if faults.appends > 0 {
            faults.appends -= 1;
            drop(faults);
            // While a commit is under way its outcome comes first, whatever happens behind it.
            if self.check_decided().is_err() {
                return Err(Error::new(
                    ErrorKind::Changelog,
                    "the append was made to fail",
                ));
            }
            return Err(self.fail("the append was made to fail"));
        }
        drop(faults);
        self.inner.append(partition, record)
    }

    fn prepare(&mut self) -> Result<CommitId> {
        self.check_decided()?;
        self.check_open()?;
        let mut faults = self.faults.lock();
        if faults.prepares > 0 {
            faults.prepares -= 1;
            drop(faults);
            return Err(self.fail("the prepare was made to fail"));
        }
        let plan = faults.commits.pop_front().unwrap_or(faults.always);
        drop(faults);
        let inner = if plan.fails {
            None
        } else {
            Some(self.inner.prepare()?)
        };
        self.newest.0 += 1;
        self.state = State::Underway {
            plan,
            inner,
            done: None,
        };
        Ok(self.newest)
    }

    fn poll(&mut self, commit: CommitId) -> Result<Option<Vec<Position>>> {
        if commit != self.newest {
            return Err(Error::invalid(format!(
                "commit {} is not the newest one",
                commit.0
            )));
        }
        match &self.state {
            State::Underway { .. } => self.step(),
            State::Committed(positions) => Ok(Some(positions.clone())),
            State::Failed(error) => Err(error.clone()),
            State::Open => Err(Error::invalid("no commit was prepared, or it was aborted")),
        }
    }

    fn wait(&mut self, commit: CommitId) -> Result<Vec<Position>> {
        loop {
            if let Some(positions) = self.poll(commit)? {
                return Ok(positions);
            }
        }
    }

    fn abort(&mut self) -> Result<()> {
        self.check_decided()?;
        self.inner.abort()?;
        if matches!(self.state, State::Failed(_)) {
            self.state = State::Open;
        }
        Ok(())
    }

    fn commit_requested(&self) -> bool {
        self.inner.commit_requested()
    }

    fn idle_positions(&mut self) -> Result<Vec<Position>> {
        self.check_decided()?;
        self.inner.idle_positions()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.inner.close()
    }
}
