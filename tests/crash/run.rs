//! Carrying a list of operations out, while the model follows.

use std::collections::VecDeque;

use siltstone::env::sim::{SimEnv, SimImage};
use siltstone::{Durability, Error, ErrorKind, Snapshot, WriteBatch};

use crate::model::{History, Incarnation, Names, State, Tree, describe_trees};
use crate::operation::{Change, List, NAMES, Operation, SLOTS, key_bytes};
use crate::store::{Files, Store, collect, snapshot_tree};

/// What happened over one or many runs, to see that everything did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    pub(crate) commits: u64,
    pub(crate) flushes: u64,
    pub(crate) compactions: u64,
    pub(crate) deep_compactions: u64,
    pub(crate) memory_compactions: u64,
    pub(crate) log_rolls: u64,
    pub(crate) log_retirements: u64,
    pub(crate) manifest_rolls: u64,
    pub(crate) log_switches: u64,
    pub(crate) snapshot_reads: u64,
    pub(crate) errors: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.deep_compactions += other.deep_compactions;
        self.memory_compactions += other.memory_compactions;
        self.log_rolls += other.log_rolls;
        self.log_retirements += other.log_retirements;
        self.manifest_rolls += other.manifest_rolls;
        self.log_switches += other.log_switches;
        self.snapshot_reads += other.snapshot_reads;
        self.errors += other.errors;
    }

    /// Fails if some kind of work never happened: the test would miss its crashes.
    pub(crate) fn assert_not_blind(&self) {
        for (what, count) in [
            ("commits", self.commits),
            ("flushes", self.flushes),
            ("compactions", self.compactions),
            ("compactions below level 1", self.deep_compactions),
            ("in-memory compactions", self.memory_compactions),
            ("rolls of the log", self.log_rolls),
            ("retirements of log segments", self.log_retirements),
            ("rolls of the manifest", self.manifest_rolls),
            ("switches of the log", self.log_switches),
            ("reads of snapshots", self.snapshot_reads),
        ] {
            assert!(count > 10, "only {count} {what} in all lists: {self:?}");
        }
    }
}

/// A run that went as it should.
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) totals: Totals,
    /// With faults: the disk after the first of them and after each open since, by I/O index.
    pub(crate) images: Vec<(u64, SimImage)>,
}

/// Runs a list in `env`, whose faults, if it has any, must show as errors and nothing else.
pub(crate) fn run(list: &List, env: &SimEnv, is_faulty: bool) -> Result<Run, String> {
    let mut runner = Runner::new(list, env, is_faulty);
    runner.open()?;
    for (index, operation) in list.operations.iter().enumerate() {
        runner
            .step(operation)
            .map_err(|error| format!("operation {index}, {operation:?}: {error}"))?;
        runner.look_at_files();
    }
    runner
        .finish()
        .map_err(|error| format!("at the end: {error}"))?;
    Ok(Run {
        history: runner.history,
        totals: runner.totals,
        images: runner.images,
    })
}

/// Images taken of a run with faults.
const IMAGES_MAX: usize = 4;
/// Snapshots held at a time.
const SNAPSHOTS_MAX: usize = 3;

struct Runner<'a> {
    list: &'a List,
    env: &'a SimEnv,
    is_faulty: bool,
    has_log: bool,
    store: Option<Store>,
    history: History,
    /// What reads must see.
    state: State,
    names: Names,
    created: Incarnation,
    snapshots: VecDeque<(Snapshot, State, Names)>,
    is_poisoned: bool,
    totals: Totals,
    images: Vec<(u64, SimImage)>,
    logs: Vec<String>,
    manifest: String,
}

type Outcome = Result<(), String>;

impl<'a> Runner<'a> {
    fn new(list: &'a List, env: &'a SimEnv, is_faulty: bool) -> Self {
        Self {
            list,
            env,
            is_faulty,
            has_log: list.setup.has_log,
            store: None,
            history: History::new(),
            state: State::default(),
            names: [None; SLOTS],
            created: 0,
            snapshots: VecDeque::new(),
            is_poisoned: false,
            totals: Totals::default(),
            images: Vec::new(),
            logs: Vec::new(),
            manifest: String::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between operations")
    }

    fn step(&mut self, operation: &Operation) -> Outcome {
        let faults = self.env.fault_count();
        match operation {
            Operation::Write { changes, synced } => self.write(changes, *synced)?,
            Operation::Sync if self.has_log => {
                let result = self.store().db.sync();
                self.settle(result, true)?;
            }
            Operation::Sync => {}
            Operation::Flush => {
                let result = self.store().db.flush();
                self.settle(result, true)?;
            }
            Operation::Compact(slot) => {
                if let Some(keyspace) = &self.store().keyspaces[*slot] {
                    let result = keyspace.compact();
                    self.settle(result, true)?;
                }
            }
            Operation::Work(steps) => {
                for _ in 0..*steps {
                    self.store().runtime.run_pending();
                }
            }
            Operation::Reopen => self.reopen(true)?,
            Operation::Abandon => self.reopen(false)?,
            Operation::SwitchLog => {
                self.has_log = !self.has_log;
                self.totals.log_switches += 1;
                self.reopen(true)?;
            }
            Operation::Create(slot) => self.create(*slot)?,
            Operation::Remove(slot) => self.remove(*slot)?,
            Operation::TakeSnapshot => self.take_snapshot()?,
            Operation::ReadSnapshot => self.read_snapshots()?,
            Operation::ReleaseSnapshot => drop(self.snapshots.pop_front()),
            Operation::Read { slot, key } => self.read(*slot, *key)?,
        }
        if self.env.fault_count() > faults {
            self.take_image();
        }
        Ok(())
    }

    fn take_image(&mut self) {
        if self.images.len() < IMAGES_MAX {
            self.images.push((self.env.io_count(), self.env.capture()));
        }
    }

    /// Accepts an error if it was provoked and tells the truth about it.
    fn surfaced(&mut self, error: &Error) -> Outcome {
        let is_known = matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned);
        if !self.is_faulty || !is_known || self.env.fault_count() == 0 {
            return Err(format!("failed with {error:?}"));
        }
        self.totals.errors += 1;
        self.is_poisoned |= error.kind() == ErrorKind::Poisoned;
        Ok(())
    }

    /// Notes what a call that makes things durable came to.
    fn settle(&mut self, result: Result<(), Error>, durable: bool) -> Outcome {
        match result {
            Ok(()) if self.is_poisoned => Err("succeeded in a poisoned store".to_owned()),
            Ok(()) => {
                self.history.ack(self.env.io_count(), durable);
                Ok(())
            }
            Err(error) => self.surfaced(&error),
        }
    }

    fn write(&mut self, changes: &[Change], synced: bool) -> Outcome {
        let mut batch = WriteBatch::new();
        let mut after = self.state.clone();
        for change in changes {
            let (Some(keyspace), Some(name)) = (
                &self.store().keyspaces[change.slot],
                self.names[change.slot],
            ) else {
                continue;
            };
            let (key, value) = (change.key_bytes(), change.value_bytes());
            match &value {
                Some(value) => batch.put(keyspace, &key, value),
                None => batch.delete(keyspace, &key),
            }
            .map_err(|error| error.to_string())?;
            after.tree_mut(name).set(key, value);
        }
        let synced = synced && self.has_log;
        let durability = if synced {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        let is_empty = batch.is_empty();
        let sent = self.env.io_count();
        match self.store().db.write(batch, durability) {
            // Nothing was to be written: no more than a sync.
            Ok(()) if is_empty && synced => self.settle(Ok(()), true),
            Ok(()) if is_empty => Ok(()),
            Ok(()) => {
                self.totals.commits += 1;
                self.state = after.clone();
                self.history.push(after, sent);
                if self.has_log {
                    return self.settle(Ok(()), synced);
                }
                Ok(())
            }
            Err(error) => {
                self.surfaced(&error)?;
                let is_visible = self.is_poisoned && self.shows(&after)?;
                if is_visible {
                    self.state = after.clone();
                    self.history.push(after, sent);
                } else {
                    self.check_all()?;
                    self.history.push_failed(after, self.state.clone(), sent);
                }
                Ok(())
            }
        }
    }

    fn shows(&mut self, state: &State) -> Result<bool, String> {
        let expected = self.names.map(|name| name.map(|it| state.hash(it)));
        let found = self.retry(Store::hashes)?;
        Ok(found == expected)
    }

    fn check_all(&mut self) -> Outcome {
        if self.shows(&self.state.clone())? {
            return Ok(());
        }
        Err(format!("reads see\n{}", self.contents()))
    }

    fn contents(&self) -> String {
        let mut text = String::new();
        match self.store().trees() {
            Ok(trees) => describe_trees(&mut text, trees.each_ref().map(Option::as_ref)),
            Err(error) => text = error.to_string(),
        }
        text
    }

    /// Repeats a read that was made to fail.
    fn retry<T>(&mut self, read: impl Fn(&Store) -> Result<T, Error>) -> Result<T, String> {
        let result = read(self.store());
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let was_poisoned = self.is_poisoned;
                self.surfaced(&error)?;
                if self.is_poisoned && !was_poisoned {
                    return Err(format!("a read poisoned the store: {error:?}"));
                }
                read(self.store()).map_err(|error| format!("failed again: {error:?}"))
            }
        }
    }

    fn read(&mut self, slot: usize, key: usize) -> Outcome {
        let Some(name) = self.names[slot] else {
            return Ok(());
        };
        let expected = self.state.tree(name);
        for key in [key, key + 1] {
            let key = key_bytes(key);
            let found = self.retry(|store| match &store.keyspaces[slot] {
                Some(keyspace) => keyspace.get(&key),
                None => Ok(None),
            })?;
            if found.as_deref() != expected.entries.get(&key).map(Vec::as_slice) {
                return Err(format!("get {key:?}: {found:?}"));
            }
        }
        let start = key_bytes(key);
        let found: (Tree, Vec<_>) = self.retry(|store| {
            let Some(keyspace) = &store.keyspaces[slot] else {
                return Ok((Tree::default(), Vec::new()));
            };
            let forwards = collect(keyspace.range(start.as_slice()..)?)?;
            let back = keyspace.range(start.as_slice()..)?.rev();
            let keys = back.map(|entry| entry.map(|entry| entry.key.to_vec()));
            Ok((forwards, keys.collect::<Result<Vec<_>, _>>()?))
        })?;
        let expected = expected.entries.range(start.clone()..);
        if !found.0.entries.iter().eq(expected.clone())
            || !found.1.iter().eq(expected.rev().map(|(key, _)| key))
        {
            return Err(format!("range from {start:?}: {found:?}"));
        }
        Ok(())
    }

    fn take_snapshot(&mut self) -> Outcome {
        let snapshot = self
            .store()
            .db
            .snapshot()
            .map_err(|error| error.to_string())?;
        self.snapshots
            .push_back((snapshot, self.state.clone(), self.names));
        if self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.pop_front();
        }
        Ok(())
    }

    fn read_snapshots(&mut self) -> Outcome {
        for (snapshot, state, names) in &self.snapshots.clone() {
            for (slot, name) in names.iter().enumerate() {
                // What was created since is another keyspace.
                let Some(name) = name.filter(|name| self.names[slot] == Some(*name)) else {
                    continue;
                };
                let found = self.retry(|store| match &store.keyspaces[slot] {
                    Some(keyspace) => snapshot_tree(snapshot, keyspace),
                    None => Ok(Tree::default()),
                })?;
                if found != *state.tree(name) {
                    return Err(format!("the snapshot of {} shows {found:?}", NAMES[slot]));
                }
                self.totals.snapshot_reads += 1;
            }
        }
        Ok(())
    }

    fn create(&mut self, slot: usize) -> Outcome {
        if self.names[slot].is_some() {
            return Ok(());
        }
        let mut names = self.names;
        names[slot] = Some(self.created);
        self.created += 1;
        let sent = self.env.io_count();
        let options = self.list.setup.keyspaces.clone();
        let result = self.store().db.keyspace(NAMES[slot], options);
        let result = result.map(|keyspace| {
            let store = self.store.as_mut().expect("open between operations");
            store.keyspaces[slot] = Some(keyspace);
        });
        self.renamed(result, names, sent)
    }

    fn remove(&mut self, slot: usize) -> Outcome {
        if self.names[slot].is_none() {
            return Ok(());
        }
        let mut names = self.names;
        names[slot] = None;
        let sent = self.env.io_count();
        let result = self.store().db.drop_keyspace(NAMES[slot]).map(|()| {
            let store = self.store.as_mut().expect("open between operations");
            store.keyspaces[slot] = None;
        });
        self.renamed(result, names, sent)
    }

    fn renamed(&mut self, result: Result<(), Error>, names: Names, sent: u64) -> Outcome {
        match result {
            Ok(()) if self.is_poisoned => Err("succeeded in a poisoned store".to_owned()),
            Ok(()) => {
                self.names = names;
                let done = Some(self.env.io_count());
                self.history.push_names(names, sent, done);
                Ok(())
            }
            Err(error) => {
                self.surfaced(&error)?;
                self.history.push_names(names, sent, None);
                self.history.push_names(self.names, sent, None);
                self.check_all()
            }
        }
    }

    fn reopen(&mut self, close: bool) -> Outcome {
        self.collect_stats()?;
        if close {
            match self.store().db.close() {
                Ok(()) if self.is_poisoned => {
                    return Err("a poisoned store closed as if all were well".to_owned());
                }
                // Without a log, a close keeps what was flushed.
                Ok(()) if self.has_log_open() => self.settle(Ok(()), true)?,
                Ok(()) => {}
                Err(error) => self.surfaced(&error)?,
            }
        }
        self.snapshots.clear();
        self.store = None;
        self.is_poisoned = false;
        self.open()
    }

    /// Whether the store that is open now has a log: after a switch, the next one differs.
    fn has_log_open(&self) -> bool {
        !self.logs.is_empty()
    }

    /// Opens the store and takes over what it shows, which must be possible after a kill.
    fn open(&mut self) -> Outcome {
        let sent = self.env.io_count();
        let setup = &self.list.setup;
        let mut failed = 0;
        let store = loop {
            match Store::open(self.env, setup, self.has_log) {
                Ok(store) => break store,
                Err(error) => self.surfaced(&error)?,
            }
            failed += 1;
            if failed == 2 {
                self.env.clear_faults();
            }
            if failed > 3 {
                return Err("the store does not open without faults either".to_owned());
            }
        };
        self.is_poisoned = false;
        self.store = Some(store);
        let window = self.history.window(self.env.io_count(), true);
        let found = self.retry(Store::hashes)?;
        let Some((state, names)) = self.history.find(&found, window) else {
            let expected = self.history.describe(window);
            return Err(format!("{expected}found:\n{}", self.contents()));
        };
        self.state = state;
        self.names = names;
        self.history.push(self.state.clone(), sent);
        let now = self.env.io_count();
        self.history.ack(now, true);
        self.history.push_names(names, sent, Some(now));
        self.logs = Files::of(&self.env.files()).logs;
        if self.env.fault_count() > 0 {
            self.take_image();
        }
        Ok(())
    }

    fn finish(&mut self) -> Outcome {
        self.check_all()?;
        self.collect_stats()?;
        if !self.is_faulty {
            return Ok(());
        }
        self.env.clear_faults();
        self.images.truncate(IMAGES_MAX - 2);
        self.take_image();
        self.reopen(false)?;
        // Whatever failed, the store works again.
        let all = [0, 1, 2].map(|slot| Change {
            slot,
            key: 1,
            value: Some((9999, 20)),
        });
        self.write(&all, true)?;
        let result = self.store().db.flush();
        self.settle(result, true)?;
        self.check_all()
    }

    fn collect_stats(&mut self) -> Outcome {
        let stats = self.store().db.stats().map_err(|error| error.to_string())?;
        self.totals.flushes += stats.flushes;
        self.totals.compactions += stats.compactions;
        self.totals.memory_compactions += stats.memory_compactions;
        let deep = stats.levels.iter().skip(2);
        self.totals.deep_compactions +=
            u64::from(deep.map(|it| it.compaction_written_bytes).sum::<u64>() > 0);
        if let Some(error) = stats.background_error.filter(|_| !self.is_faulty) {
            return Err(format!("background error: {error}"));
        }
        Ok(())
    }

    /// Counts what only the names of files tell.
    fn look_at_files(&mut self) {
        if self.is_faulty {
            return;
        }
        let files = Files::of(&self.env.files());
        if files.logs.last() > self.logs.last() {
            self.totals.log_rolls += 1;
        }
        if files.logs.first() > self.logs.first() {
            self.totals.log_retirements += 1;
        }
        self.logs = files.logs;
        let manifest = files.manifests.last().cloned().unwrap_or_default();
        if manifest > self.manifest {
            self.totals.manifest_rolls += 1;
        }
        self.manifest = manifest;
    }
}
