//! Random lives of a task against a plain map: after any end, the state is that of the last
//! commit; and what a restore makes of a changelog is what the local state holds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use siltstone::changelog::Memory;
use siltstone::changelog::faulty::{CommitPlan, Faulty};
use siltstone::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};
use siltstone::store::serde::Bytes;
use siltstone::store::{KeyValue, StoreOptions, Task, TaskOptions};
use siltstone::{ErrorKind, Strategy};

use crate::rig::{Random, options_on, raw, small};

/// How a task ends: in good order; by loss of power; on a machine that is never seen again; and, by
/// all higher numbers, by a kill.
const CLOSE: u64 = 0;
const POWER_LOSS: u64 = 1;
const NEW_MACHINE: u64 = 2;
const KILL: u64 = 3;

const STORES: [&str; 2] = ["first", "second"];

/// What all stores and the input position hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    entries: BTreeMap<(usize, Vec<u8>), Vec<u8>>,
    input: u64,
}

const LAZY: Strategy = Strategy::LazyLeveled {
    runs_max: 2,
    ratio: 2,
};

struct Life {
    random: Random,
    env: SimEnv,
    changelog: Faulty<Memory>,
    task: Option<Task>,
    now: State,
    /// As of the commit that was sent, if its outcome is not known.
    sent: Option<State>,
    committed: State,
    what: String,
}

fn options(env: &SimEnv, changelog: &Faulty<Memory>) -> TaskOptions {
    let dir = PathBuf::from("/state");
    let mut options =
        options_on(env, &dir, Arc::new(changelog.clone())).restore_bytes_max(64 << 10);
    // A store of each strategy.
    for (name, strategy) in STORES.iter().zip([LAZY, Strategy::Leveled].iter().cycle()) {
        let keyspace = small().compaction(*strategy);
        options = options.store(StoreOptions::new(*name).keyspace(keyspace));
    }
    options
}

fn read(task: &Task) -> State {
    let mut state = State {
        input: task.input_position("in").unwrap().unwrap_or(0),
        ..State::default()
    };
    for (index, name) in STORES.iter().enumerate() {
        for entry in raw(task, name).entries().unwrap() {
            let (key, value) = entry.unwrap();
            state.entries.insert((index, key), value);
        }
    }
    state
}

impl Life {
    fn new(seed: u64) -> Self {
        let env = SimEnv::new(seed);
        let changelog = Faulty::new(Memory::new(Arc::new(env.clone())));
        let task = Task::open(options(&env, &changelog)).unwrap();
        Self {
            random: Random(seed),
            env,
            changelog,
            task: Some(task),
            now: State::default(),
            sent: None,
            committed: State::default(),
            what: format!("SEED={seed}"),
        }
    }

    fn store(&self, index: usize) -> KeyValue<Bytes, Bytes> {
        raw(self.task.as_ref().unwrap(), STORES[index])
    }

    fn write(&mut self) {
        let index = usize::try_from(self.random.below(2)).unwrap();
        let key = format!("{:03}", self.random.below(60)).into_bytes();
        let store = self.store(index);
        let task = self.task.as_mut().unwrap();
        let result = if self.random.below(4) == 0 {
            self.now.entries.remove(&(index, key.clone()));
            store.delete(task, &key)
        } else {
            let len = usize::try_from(self.random.below(200)).unwrap();
            let value = vec![u8::try_from(self.random.below(256)).unwrap(); len];
            self.now.entries.insert((index, key.clone()), value.clone());
            store.put(task, &key, &value)
        };
        match result {
            Ok(()) => {
                self.now.input += 1;
                task.set_input_position("in", self.now.input).unwrap();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Changelog, "{}", self.what);
                self.abort();
            }
        }
    }

    fn begin(&mut self) {
        self.settle();
        match self.task.as_mut().unwrap().begin_commit() {
            Ok(()) => self.sent = Some(self.now.clone()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Changelog, "{}", self.what);
                self.abort();
            }
        }
    }

    fn poll(&mut self) {
        match self.task.as_mut().unwrap().poll_commit() {
            Ok(false) => {}
            Ok(true) => self.committed = self.sent.take().unwrap_or(self.committed.clone()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Changelog, "{}", self.what);
                self.sent = None;
                self.abort();
            }
        }
    }

    /// Waits for the outcome of a commit that was sent.
    fn settle(&mut self) {
        while self.sent.is_some() {
            self.poll();
        }
    }

    fn abort(&mut self) {
        // A failed write leaves a commit that was sent before it to its fate.
        while self.sent.is_some() {
            match self.task.as_mut().unwrap().wait_commit() {
                Ok(()) => self.committed = self.sent.take().unwrap(),
                Err(_) => self.sent = None,
            }
        }
        self.task.as_mut().unwrap().abort().unwrap();
        self.now = self.committed.clone();
        assert_eq!(read(self.task.as_ref().unwrap()), self.now, "{}", self.what);
    }

    /// The task ends in some way and is opened again, here or elsewhere.
    fn end(&mut self) {
        let way = self.random.below(5);
        self.end_by(way);
    }

    fn end_by(&mut self, way: u64) {
        if way == CLOSE {
            self.settle();
            self.task.take().unwrap().close().unwrap();
        }
        if way == POWER_LOSS {
            let policies = CrashPolicy::ALL;
            let policy =
                policies[usize::try_from(self.random.below(policies.len() as u64)).unwrap()];
            self.env = self.env.capture().crash(policy, self.random.below(1000));
        }
        if way == NEW_MACHINE {
            self.env = SimEnv::new(self.random.below(1000));
        }
        drop(self.task.take());
        let task = Task::open(options(&self.env, &self.changelog)).unwrap();
        let found = read(&task);
        // A commit whose outcome was not known is there or not, but whole.
        let sent = self.sent.take();
        if sent.as_ref() != Some(&found) {
            assert_eq!(found, self.committed, "{} way={way}", self.what);
        }
        self.task = Some(task);
        self.committed = found.clone();
        self.now = found;
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..70 => self.write(),
            70..78 => self.begin(),
            78..88 => self.poll(),
            88..91 => self.abort(),
            91..93 => {
                if self.sent.is_none() {
                    self.task.as_mut().unwrap().idle().unwrap();
                }
            }
            93..95 => self.task.as_mut().unwrap().flush().unwrap(),
            95..97 => {
                let plan = CommitPlan {
                    polls_before: u32::try_from(self.random.below(3)).unwrap(),
                    polls_after: u32::try_from(self.random.below(3)).unwrap(),
                    fails: self.random.below(3) == 0,
                };
                self.changelog.plan_commit(plan);
            }
            97 => self.changelog.fail_appends(1),
            98 => self.changelog.fail_prepares(1),
            _ => self.end(),
        }
    }

    /// What a machine with an empty disk restores, which fences the task.
    fn restored_elsewhere(&self) -> State {
        let env = SimEnv::new(9);
        read(&Task::open(options(&env, &self.changelog)).unwrap())
    }
}

#[test]
fn every_end_leaves_the_last_commit() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = seed.map_or(0..60, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let mut life = Life::new(seed);
        for step in 0..700 {
            life.what = format!("SEED={seed} step {step}");
            life.step();
            if step % 50 == 0 {
                assert_eq!(read(life.task.as_ref().unwrap()), life.now, "{}", life.what);
            }
        }
        life.settle();
        // Fences the task, which then can only be dropped.
        assert_eq!(life.restored_elsewhere(), life.committed, "{}", life.what);
        life.end_by(KILL);
    }
}

#[test]
fn a_restore_equals_the_local_state_at_every_commit() {
    let mut life = Life::new(77);
    for round in 0..40 {
        for _ in 0..life.random.below(60) {
            life.write();
        }
        life.begin();
        life.settle();
        let local = read(life.task.as_ref().unwrap());
        assert_eq!(life.restored_elsewhere(), local, "round {round}");
        // The other machine has fenced this one.
        let way = 1 + life.random.below(3);
        life.end_by(way);
    }
}

/// A short life with flushes, compactions, aborts and reopenings, the same every time. Errors end
/// it. Returns the states that a successor may find: of the last commit that was acknowledged, or
/// of one that was sent.
fn short_life(env: &SimEnv, changelog: &Faulty<Memory>) -> (State, State) {
    let mut committed = State::default();
    let mut sent = State::default();
    let _ = run_short_life(env, changelog, &mut committed, &mut sent);
    (committed, sent)
}

fn run_short_life(
    env: &SimEnv,
    changelog: &Faulty<Memory>,
    committed: &mut State,
    sent: &mut State,
) -> siltstone::Result<()> {
    let mut random = Random(3);
    for round in 0..3 {
        let mut task = Task::open(options(env, changelog))?;
        let stores = STORES.map(|name| raw(&task, name));
        for step in 0..240 {
            let index = usize::try_from(random.below(2)).unwrap();
            let key = format!("{:02}", random.below(40)).into_bytes();
            let value = vec![b'v'; usize::try_from(random.below(300)).unwrap()];
            if random.below(4) == 0 {
                stores[index].delete(&mut task, &key)?;
                sent.entries.remove(&(index, key));
            } else {
                stores[index].put(&mut task, &key, &value)?;
                sent.entries.insert((index, key), value);
            }
            sent.input += 1;
            task.set_input_position("in", sent.input)?;
            if step % 70 == 69 {
                task.abort()?;
                *sent = committed.clone();
            }
            if step % 20 == 19 {
                task.commit()?;
                *committed = sent.clone();
            }
            if step == 100 {
                task.flush()?;
            }
        }
        if round == 1 {
            drop((stores, task));
            *sent = committed.clone();
        } else {
            drop(stores);
            task.close()?;
            *sent = committed.clone();
        }
    }
    Ok(())
}

#[test]
fn whatever_a_crash_leaves_of_the_local_state_the_changelog_completes() {
    let env = SimEnv::new(4);
    let changelog = Faulty::new(Memory::new(Arc::new(env.clone())));
    env.record(true);
    let (committed, _) = short_life(&env, &changelog);
    let images = env.take_recorded();
    assert!(images.len() > 100, "{} images", images.len());
    let mut checked = 0;
    for (index, image) in &images {
        for policy in CrashPolicy::ALL {
            let env = image.crash(*policy, *index);
            let what = format!("CRASH_AT={index} POLICY={policy:?}");
            let task = Task::open(options(&env, &changelog));
            let task = task.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(read(&task), committed, "{what}");
            checked += 1;
        }
    }
    assert!(checked > 1000, "{checked} crashes");
}

#[test]
fn whatever_io_fails_nothing_that_was_committed_is_lost() {
    let env = SimEnv::new(4);
    let changelog = Faulty::new(Memory::new(Arc::new(env.clone())));
    short_life(&env, &changelog);
    let count = env.io_count();
    for &kind in FaultKind::ALL {
        for at in 0..count {
            let env = SimEnv::new(4);
            let changelog = Faulty::new(Memory::new(Arc::new(env.clone())));
            env.set_fault(FaultPlan::once(at, kind));
            let (committed, sent) = short_life(&env, &changelog);
            env.clear_faults();
            let what = format!("FAULT_AT={at} KIND={kind:?}");
            let task = Task::open(options(&env, &changelog));
            let task = task.unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = read(&task);
            assert!(found == committed || found == sent, "{what}");
        }
    }
}
