//! Whole stores: one that was damaged, and one that is worked with, crashed and reopened beside a
//! model.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;

use crate::batch::WriteBatch;
use crate::db::{Db, Entry, Keyspace, Snapshot};
use crate::env::Env;
use crate::env::sim::{CrashPolicy, SimEnv, SimImage};
use crate::error::{Error, Result};
use crate::options::{Durability, IfMissing, Wal};
use crate::runtime::Runtime;
use crate::sync::Arc;

use super::input::{Damage, Input};
use super::setup::Setup;

const DIR: &str = "/data/store";
const NAMES: [&str; 2] = ["first", "second"];

/// What both keyspaces hold.
type Map = BTreeMap<Vec<u8>, Vec<u8>>;
type State = [Map; NAMES.len()];

/// An open store and what it runs on. Without threads: the same bytes make the same run.
struct Open {
    env: SimEnv,
    runtime: Runtime,
    db: Db,
    keyspaces: Vec<Keyspace>,
}

impl Open {
    fn new(env: &SimEnv, setup: Setup, if_missing: IfMissing) -> Result<Self> {
        let shared: Arc<dyn Env> = Arc::new(env.clone());
        let runtime = Runtime::new(setup.runtime().env(Arc::clone(&shared)))?;
        let options = setup.db().env(shared).if_missing(if_missing);
        let db = Db::open_with(DIR, options, &runtime)?;
        let options = setup.keyspace();
        let opened: Result<_> = NAMES
            .iter()
            .map(|name| db.keyspace(name, options.clone()))
            .collect();
        Ok(Self {
            env: env.clone(),
            runtime,
            keyspaces: opened?,
            db,
        })
    }

    fn scan(&self) -> Result<State> {
        let mut state = State::default();
        for (map, keyspace) in state.iter_mut().zip(&self.keyspaces) {
            *map = collect(keyspace.entries()?)?;
            let mut backward: Vec<_> = keyspace.entries()?.rev().collect::<Result<_>>()?;
            backward.reverse();
            assert!(backward.iter().map(pair).eq(map.clone()), "the ways differ");
        }
        Ok(state)
    }
}

fn pair(entry: &Entry) -> (Vec<u8>, Vec<u8>) {
    (entry.key.to_vec(), entry.value.to_vec())
}

fn collect(range: impl Iterator<Item = Result<Entry>>) -> Result<Map> {
    range.map(|entry| entry.map(|entry| pair(&entry))).collect()
}

/// Checks the options that the environment names, by opening a store with them.
///
/// # Panics
///
/// If there are no such options, or no store can have them; with a text that tells which.
pub fn check_options() {
    let setup = Setup::draw(&mut Input::new(&[]));
    if let Err(error) = Open::new(&SimEnv::new(1), setup, IfMissing::Create) {
        panic!("no store opens with {setup:?}: {error}");
    }
}

/// A store that one thing was done to: a bit flipped, a file cut, gone, or another's. It does not
/// open, or answers as before, or answers with an error; never anything else.
pub fn damaged_store(data: &[u8]) {
    let mut input = Input::new(data);
    let mut setup = Setup::draw(&mut input);
    setup.wal = Wal::On;
    let is_closed = input.u8().is_multiple_of(2);
    let (image, states) = make_store(setup, is_closed).expect("nothing fails");
    let env = image.crash(CrashPolicy::Kill, 1);
    damage(&env, &mut input).expect("nothing fails");
    // A store that was not closed may have lost the end of its log: damage there is a torn tail.
    let allowed = if is_closed {
        &states[states.len() - 1..]
    } else {
        &states[..]
    };
    let Some(first) = read_damaged(&env, setup, allowed) else {
        return;
    };
    let second = read_damaged(&env, setup, allowed);
    assert_eq!(second, Some(first), "two opens in a row differ");
}

/// Opens and reads all there is. `None` if anything is found to be damaged.
fn read_damaged(env: &SimEnv, setup: Setup, allowed: &[State]) -> Option<State> {
    let open = Open::new(env, setup, IfMissing::Fail).ok()?;
    for (number, keyspace) in open.keyspaces.iter().enumerate() {
        for key in allowed.iter().flat_map(|state| state[number].keys()) {
            if let Ok(found) = keyspace.get(key) {
                let found = found.map(|value| value.to_vec());
                let is_known = |state: &State| state[number].get(key) == found.as_ref();
                assert!(
                    allowed.iter().any(is_known),
                    "{} was never so",
                    key.escape_ascii()
                );
            }
        }
    }
    let _ = open.db.verify();
    let state = open.scan().ok()?;
    assert!(allowed.contains(&state), "a state that never was");
    Some(state)
}

/// A store with tables, a log and old versions; and the states that it went through.
fn make_store(setup: Setup, is_closed: bool) -> Result<(SimImage, Vec<State>)> {
    let env = SimEnv::new(1);
    let open = Open::new(&env, setup, IfMissing::Create)?;
    let mut states = vec![State::default()];
    for round in 0..6_u8 {
        for number in 0..8_u8 {
            let mut state = states[states.len() - 1].clone();
            let key = vec![b'a' + number * (1 + round % 2), b'k'];
            let mut batch = WriteBatch::new();
            if (number + round) % 5 == 4 {
                batch.delete(&open.keyspaces[0], &key)?;
                state[0].remove(&key);
            } else {
                let value = vec![b'0' + round; 40];
                batch.put(&open.keyspaces[0], &key, &value)?;
                batch.put(&open.keyspaces[1], [round], [number])?;
                state[0].insert(key, value);
                state[1].insert(vec![round], vec![number]);
            }
            open.db.write(batch, Durability::Synced)?;
            states.push(state);
        }
        if round % 2 == 1 && round < 5 {
            open.db.flush()?;
            while open.runtime.run_pending() {}
        }
    }
    if is_closed {
        open.db.close()?;
    }
    Ok((env.capture(), states))
}

fn damage(env: &SimEnv, input: &mut Input<'_>) -> Result<()> {
    let files: Vec<PathBuf> = env
        .files()
        .into_iter()
        .filter(|file| file.starts_with(DIR))
        .collect();
    let path = &files[input.index(files.len())];
    let mut bytes = env.file_bytes(path).unwrap_or_default();
    match input.u8() % 8 {
        0 => return env.remove_file(path),
        1 => {
            bytes = env
                .file_bytes(&files[input.index(files.len())])
                .unwrap_or_default();
        }
        _ => Damage::draw(input, bytes.len()).apply(&mut bytes),
    }
    env.set_file_bytes(path, bytes);
    Ok(())
}

pub(super) fn damage_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for is_closed in [0, 1] {
        for file in 0..6 {
            let flip = [3, 1, file * 31, 5];
            let setup = [0, file % 2, 1, 0, is_closed];
            seeds.push([&setup[..], &[file], &flip].concat());
            seeds.push([&setup[..], &[file, file % 2, 2]].concat());
        }
    }
    seeds
}

/// Longest run of operations.
const OPERATIONS_MAX: usize = 300;

/// Operations on a store and on a model of it. Reads agree; after a crash the store is what a
/// prefix of the writes makes, and no durable one is missing.
pub fn operations(data: &[u8]) {
    let mut input = Input::new(data);
    let setup = Setup::draw(&mut input);
    let mut run = Run::new(setup).expect("nothing fails");
    for step in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        if let Err(error) = run.step(&mut input) {
            panic!(
                "step {step} of {setup:?} failed: {error:?}\n{}",
                run.told.join("\n")
            );
        }
    }
    let end = run.open.scan().expect("nothing fails");
    assert_eq!(&end, run.newest());
}

/// A store and its model.
struct Run {
    setup: Setup,
    open: Open,
    /// The state after each write since the last crash or reopen.
    states: Vec<State>,
    /// States before this one can not come back.
    durable: usize,
    snapshots: Vec<(Snapshot, State)>,
    /// What was done, for whoever reads a failure.
    told: Vec<String>,
}

impl Run {
    fn new(setup: Setup) -> Result<Self> {
        let open = Open::new(&SimEnv::new(1), setup, IfMissing::Create)?;
        let states = vec![State::default()];
        Ok(Self {
            setup,
            open,
            states,
            durable: 0,
            snapshots: Vec::new(),
            told: Vec::new(),
        })
    }

    fn newest(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    fn set_durable(&mut self) {
        self.durable = self.states.len() - 1;
    }

    fn step(&mut self, input: &mut Input<'_>) -> Result<()> {
        let choice = input.u8() % 16;
        self.told.push(format!("step {choice}"));
        match choice {
            0..=5 => return self.write(input),
            6 => self.open.keyspaces[input.index(NAMES.len())].compact()?,
            7 => {
                self.open.db.flush()?;
                self.set_durable();
            }
            8 if self.setup.wal == Wal::On => {
                self.open.db.sync()?;
                self.set_durable();
            }
            8 | 9 => {
                self.open.runtime.run_pending();
            }
            10 => return self.check_get(input),
            11 | 12 => return self.check_range(input),
            13 => return self.check_snapshot(input),
            14 => return self.reopen(),
            _ => return self.crash(input),
        }
        Ok(())
    }

    /// One to eight writes that count together.
    fn write(&mut self, input: &mut Input<'_>) -> Result<()> {
        let mut state = self.newest().clone();
        let mut batch = WriteBatch::new();
        for _ in 0..=input.index(8) {
            let choice = input.u8();
            let number = usize::from(choice & 1);
            let (keyspace, map) = (&self.open.keyspaces[number], &mut state[number]);
            let key = draw_key(input);
            if choice & 6 == 6 {
                self.told
                    .push(format!("delete {number} {}", key.escape_ascii()));
                batch.delete(keyspace, &key)?;
                map.remove(&key);
            } else {
                let value = vec![choice; usize::from(input.u8()) << (choice >> 5)];
                let (name, len) = (key.escape_ascii(), value.len());
                self.told
                    .push(format!("put {number} {name}, {len} times {choice}"));
                batch.put(keyspace, &key, &value)?;
                map.insert(key, value);
            }
        }
        let is_synced = self.setup.wal == Wal::On && input.index(4) == 3;
        let durability = if is_synced {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        self.told
            .push(format!("write {} {durability:?}", self.states.len()));
        self.open.db.write(batch, durability)?;
        self.states.push(state);
        if is_synced {
            self.set_durable();
        }
        Ok(())
    }

    fn check_get(&self, input: &mut Input<'_>) -> Result<()> {
        let number = input.index(NAMES.len());
        let key = draw_key(input);
        let found = self.open.keyspaces[number]
            .get(&key)?
            .map(|value| value.to_vec());
        assert_eq!(found.as_ref(), self.newest()[number].get(&key));
        Ok(())
    }

    /// A range, walked from both ends in a drawn order.
    fn check_range(&self, input: &mut Input<'_>) -> Result<()> {
        let number = input.index(NAMES.len());
        let bounds = (draw_bound(input), draw_bound(input));
        let mut range = self.open.keyspaces[number].range::<Vec<u8>>(bounds.clone())?;
        let within = |key: &Vec<u8>| std::ops::RangeBounds::contains(&bounds, key);
        let map = &self.newest()[number];
        let mut expected = map.iter().filter(|(key, _)| within(key));
        let turns = input.u8();
        for turn in 0.. {
            let is_front = turns >> (turn % 8) & 1 == 0;
            let (found, wanted) = if is_front {
                (range.next(), expected.next())
            } else {
                (range.next_back(), expected.next_back())
            };
            let found = found.transpose()?.map(|entry| pair(&entry));
            assert_eq!(
                found,
                wanted.map(|(key, value)| (key.clone(), value.clone()))
            );
            if found.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Compares an old snapshot, or takes a new one.
    fn check_snapshot(&mut self, input: &mut Input<'_>) -> Result<()> {
        if self.snapshots.len() < 3 && input.index(2) == 0 {
            self.snapshots
                .push((self.open.db.snapshot()?, self.newest().clone()));
            return Ok(());
        }
        let Some((snapshot, state)) = self.snapshots.pop() else {
            return Ok(());
        };
        for (map, keyspace) in state.iter().zip(&self.open.keyspaces) {
            assert_eq!(&collect(snapshot.range::<Vec<u8>>(keyspace, ..)?)?, map);
        }
        Ok(())
    }

    fn reopen(&mut self) -> Result<()> {
        self.snapshots.clear();
        self.open.db.close()?;
        // Without a log, what was not flushed is gone, whole writes at a time.
        let durable = if self.setup.wal == Wal::On {
            self.states.len() - 1
        } else {
            self.durable
        };
        self.enter(&self.open.env.clone(), durable)
    }

    fn crash(&mut self, input: &mut Input<'_>) -> Result<()> {
        let policy = CrashPolicy::ALL[input.index(CrashPolicy::ALL.len())];
        self.told.push(format!("crash {policy:?}"));
        let image = self.open.env.capture();
        self.snapshots.clear();
        let keeps_log = policy == CrashPolicy::Kill && self.setup.wal == Wal::On;
        let durable = if keeps_log {
            self.states.len() - 1
        } else {
            self.durable
        };
        self.enter(&image.crash(policy, u64::from(input.u8())), durable)
    }

    /// Goes on with what another open finds, which must be a state from `durable` on.
    fn enter(&mut self, env: &SimEnv, durable: usize) -> Result<()> {
        self.open = Open::new(env, self.setup, IfMissing::Create)?;
        let found = self.open.scan()?;
        if !self.states[durable..].contains(&found) {
            let place = self.states.iter().position(|state| *state == found);
            let newest = self.newest();
            return Err(Error::corruption(format!(
                "found write {place:?}, durable is {durable} of {}; found {}, not {}",
                self.states.len() - 1,
                shown(&found),
                shown(newest),
            )));
        }
        self.states = vec![found];
        self.durable = 0;
        Ok(())
    }
}

/// A state in few words: values are many times one byte.
fn shown(state: &State) -> String {
    let mut out = String::new();
    for (number, map) in state.iter().enumerate() {
        for (key, value) in map {
            let (name, len, byte) = (key.escape_ascii(), value.len(), value.first());
            let entry = format_args!("{number} {name}, {len} times {byte:?}; ").to_string();
            out += &entry;
        }
    }
    out
}

/// Few keys, of which many share a prefix, so that writes meet.
fn draw_key(input: &mut Input<'_>) -> Vec<u8> {
    let choice = input.u8();
    let mut key = vec![b'a' + choice % 4];
    if choice & 4 != 0 {
        key.extend_from_slice(b"-a-long-shared-part-");
    }
    key.push(b'0' + (choice >> 3));
    key
}

fn draw_bound(input: &mut Input<'_>) -> Bound<Vec<u8>> {
    match input.u8() % 3 {
        0 => Bound::Unbounded,
        1 => Bound::Included(draw_key(input)),
        _ => Bound::Excluded(draw_key(input)),
    }
}

pub(super) fn operation_seeds() -> Vec<Vec<u8>> {
    let drawn = |factor: u16, len: u16| -> Vec<u8> {
        (0..len)
            .map(|n| (n.wrapping_mul(factor) >> 5).to_le_bytes()[0])
            .collect()
    };
    let mut seeds: Vec<_> = [1031, 2609, 4099, 7919]
        .map(|factor| drawn(factor, 600))
        .into();
    // Writes, a flush, and each way to crash.
    for policy in 0..10 {
        let mut seed = vec![0, 0, 2, 0];
        for round in 0..12_u8 {
            seed.extend([
                round % 6,
                2,
                64,
                round * 8,
                90,
                33,
                round * 9,
                60,
                6,
                round,
                round % 4,
            ]);
            seed.extend_from_slice(if round % 4 == 3 { &[7, 9, 9] } else { &[13, 0] });
        }
        seed.extend([15, policy, 3, 13, 1, 11, 0, 0, 0, 5]);
        seeds.push(seed);
    }
    seeds
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_damaged_store_has_tables_and_a_log() {
        let setup = Setup::draw(&mut Input::new(&[]));
        let (image, states) = make_store(setup, true).unwrap();
        let names: Vec<_> = image.files();
        let count = |end: &str| {
            names
                .iter()
                .filter(|name| name.extension().is_some_and(|it| it == end))
                .count()
        };
        assert!(count("sst") > 1 && count("wal") > 0, "{names:?}");
        assert!(states.len() > 40);
        assert!(image.file_bytes(&Path::new(DIR).join("CURRENT")).is_some());
    }
}
