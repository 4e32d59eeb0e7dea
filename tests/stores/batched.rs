//! A task on a changelog whose records become visible one batch at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use siltstone::changelog::{
    Bounds, Changelog, CommitId, Guarantee, Memory, Offset, Owner, Partition, Position, Reader,
    RecordRef, Session,
};
use siltstone::env::sim::SimEnv;
use siltstone::store::serde::{U64, Utf8};
use siltstone::store::{StoreOptions, Task};
use siltstone::{Error, ErrorKind, Result};

use crate::rig::{contents, counts, fails, of, options_on, partition_of, records};

/// Wraps a changelog so that what was sent is visible before its commit is decided, and stays so
/// when that fails.
#[derive(Debug, Clone)]
struct Batched {
    inner: Memory,
    /// So many commits succeed; then, if armed, one fails.
    good: Arc<AtomicU32>,
    armed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct BatchedSession {
    inner: Box<dyn Session>,
    log: Batched,
    answer: Option<Result<Vec<Position>>>,
}

impl Changelog for Batched {
    fn guarantee(&self) -> Guarantee {
        Guarantee::PerBatch
    }

    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>> {
        self.inner.bounds(partition)
    }

    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
        let inner = self.inner.claim(task, partitions)?;
        Ok(Box::new(BatchedSession {
            inner,
            log: self.clone(),
            answer: None,
        }))
    }

    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>> {
        self.inner.reader(partition, from)
    }
}

impl Session for BatchedSession {
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
        self.inner.reserve(bytes)
    }

    fn append(&mut self, partition: usize, record: RecordRef<'_>) -> Result<()> {
        self.inner.append(partition, record)
    }

    fn prepare(&mut self) -> Result<CommitId> {
        let id = self.inner.prepare()?;
        let positions = self.inner.wait(id)?;
        let is_good = |good: u32| good.checked_sub(1);
        let spent = self
            .log
            .good
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_good);
        let fails = spent.is_err() && self.log.armed.swap(false, Ordering::Relaxed);
        self.answer = Some(if fails {
            Err(Error::new(ErrorKind::Changelog, "the answer was no"))
        } else {
            Ok(positions)
        });
        Ok(id)
    }

    fn poll(&mut self, _: CommitId) -> Result<Option<Vec<Position>>> {
        self.answer.clone().unwrap().map(Some)
    }

    fn wait(&mut self, _: CommitId) -> Result<Vec<Position>> {
        self.answer.clone().unwrap()
    }

    fn abort(&mut self) -> Result<()> {
        self.inner.abort()
    }

    fn commit_requested(&self) -> bool {
        self.inner.commit_requested()
    }

    fn idle_positions(&mut self) -> Result<Vec<Position>> {
        self.inner.idle_positions()
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.inner.close()
    }
}

struct Rig {
    env: SimEnv,
    log: Batched,
}

impl Rig {
    fn new() -> Self {
        let env = SimEnv::new(1);
        let inner = Memory::new(Arc::new(env.clone()));
        Self {
            env,
            log: Batched {
                inner,
                good: Arc::default(),
                armed: Arc::default(),
            },
        }
    }

    fn open(&self, dir: &str) -> Task {
        let log: Arc<dyn Changelog> = Arc::new(self.log.clone());
        Task::open(options_on(&self.env, &dir.into(), log).store("counts")).unwrap()
    }

    /// Fails one commit of the changelog, after `good` others.
    fn fail_after(&self, good: u32) {
        self.log.good.store(good, Ordering::Relaxed);
        self.log.armed.store(true, Ordering::Relaxed);
    }
}

fn count(task: &mut Task, key: &str, value: u64, input: u64) {
    counts(task).put(task, key, &value).unwrap();
    task.set_input_position("in", input).unwrap();
}

#[test]
fn the_input_position_goes_behind_everything_it_covers() {
    let rig = Rig::new();
    let mut task = rig.open("/a");
    count(&mut task, "a", 1, 1);
    task.begin_commit().unwrap();
    // All records are out, the position is not.
    assert_eq!(records(&rig.log, &partition_of("counts")).len(), 1);
    assert!(records(&rig.log, &partition_of("input-position")).is_empty());
    // These belong to the next commit, though they go out with the position of this one.
    count(&mut task, "b", 2, 2);
    assert_eq!(task.input_position("in").unwrap(), Some(2));
    assert!(task.poll_commit().unwrap());
    assert_eq!(records(&rig.log, &partition_of("input-position")).len(), 1);
    assert_eq!(counts(&task).committed().unwrap().get("b").unwrap(), None);
    task.flush().unwrap();
    drop(task);
    let task = rig.open("/a");
    assert_eq!(task.input_position("in").unwrap(), Some(1));
    // At least once: what went out early is there, and will be made again from the input.
    assert_eq!(contents(&counts(&task)), of([("a", 1), ("b", 2)]));
}

#[test]
fn an_abort_overwrites_what_was_sent() {
    for good in [0, 1] {
        let rig = Rig::new();
        let mut task = rig.open("/a");
        count(&mut task, "a", 1, 1);
        count(&mut task, "b", 1, 2);
        task.commit().unwrap();
        counts(&task).delete(&mut task, "b").unwrap();
        count(&mut task, "a", 100, 3);
        count(&mut task, "c", 100, 4);
        // First the records' commit fails, then that of the position behind them.
        rig.fail_after(good);
        fails(task.commit(), ErrorKind::Changelog);
        assert_eq!(contents(&counts(&task)), of([("a", 100), ("c", 100)]));
        task.abort().unwrap();
        let expected = of([("a", 1), ("b", 1)]);
        assert_eq!(contents(&counts(&task)), expected);
        assert_eq!(task.input_position("in").unwrap(), Some(2));
        let elsewhere = rig.open("/b");
        assert_eq!(contents(&counts(&elsewhere)), expected);
        assert_eq!(elsewhere.input_position("in").unwrap(), Some(2));
        drop(task);
        let task = rig.open("/a");
        assert_eq!(contents(&counts(&task)), expected);
    }
}

#[test]
fn an_abort_that_fails_is_repeated() {
    let rig = Rig::new();
    let mut task = rig.open("/a");
    count(&mut task, "a", 1, 1);
    task.commit().unwrap();
    count(&mut task, "a", 2, 2);
    rig.fail_after(1);
    fails(task.commit(), ErrorKind::Changelog);
    rig.fail_after(0);
    fails(task.abort(), ErrorKind::Changelog);
    // The position was taken back before anything that it covered: a successor that comes now
    // does too much, never too little.
    let newest = |store: &str| records(&rig.log, &partition_of(store)).pop().unwrap().1;
    assert_eq!(newest("input-position"), Some(vec![0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(newest("counts"), Some(vec![0, 0, 0, 0, 0, 0, 0, 2]));
    fails(counts(&task).put(&mut task, "a", &3), ErrorKind::Changelog);
    task.abort().unwrap();
    count(&mut task, "b", 2, 2);
    task.commit().unwrap();
    assert_eq!(task.close().unwrap().aborted_writes, 0);
    let elsewhere = rig.open("/b");
    assert_eq!(contents(&counts(&elsewhere)), of([("a", 1), ("b", 2)]));
    assert_eq!(elsewhere.input_position("in").unwrap(), Some(2));
}

#[test]
fn an_abort_overwrites_timestamped_values_with_their_timestamps() {
    let rig = Rig::new();
    let open = |dir: &str| {
        let seen = StoreOptions::timestamped("seen");
        let log = Arc::new(rig.log.clone());
        let task = Task::open(options_on(&rig.env, &dir.into(), log).store(seen)).unwrap();
        let seen = task.timestamped("seen", Utf8, U64).unwrap();
        (task, seen)
    };
    let (mut task, seen) = open("/a");
    seen.put(&mut task, "a", &1, 11).unwrap();
    task.commit().unwrap();
    seen.put(&mut task, "a", &2, 22).unwrap();
    seen.put(&mut task, "b", &2, 22).unwrap();
    rig.fail_after(0);
    fails(task.commit(), ErrorKind::Changelog);
    task.abort().unwrap();
    assert_eq!(seen.get("a").unwrap(), Some((1, 11)));
    let sent = records(&rig.log, &partition_of("seen"));
    assert_eq!(sent.last().unwrap(), &(b"b".to_vec(), None));
    let (_task, elsewhere) = open("/b");
    assert_eq!(elsewhere.get("a").unwrap(), Some((1, 11)));
    assert_eq!(elsewhere.get("b").unwrap(), None);
}
