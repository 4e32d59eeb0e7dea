//! The child that works on a plain map with its write-ahead log, in several threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use siltstone::{Db, Durability, Keyspace, Snapshot, WriteBatch};

use crate::Result;
use crate::change::{KEYSPACES, Maker, OWN_KEYSPACES};
use crate::notes::{Clock, Notes};
use crate::plan::{Action, RoundPlan, SessionPlan};
use crate::random::Random;
use crate::state::{self, Entries, State, Write};

/// The open map.
pub(crate) struct Map {
    pub(crate) db: Db,
    pub(crate) keyspaces: Vec<Keyspace>,
}

impl Map {
    pub(crate) fn open(dir: &Path, plan: &SessionPlan) -> Result<Self> {
        let db = Db::open_with(dir.join("map"), plan.options(), &plan.runtime()?)?;
        let keyspaces = KEYSPACES.map(|name| db.keyspace(name, plan.keyspace()));
        let keyspaces = keyspaces.into_iter().collect::<siltstone::Result<_>>()?;
        Ok(Self { db, keyspaces })
    }

    fn write(&self, writes: &[Write], synced: bool, seed: u64) -> Result<()> {
        let mut batch = WriteBatch::new();
        for write in writes {
            let (keyspace, key) = (&self.keyspaces[write.keyspace], state::key(write.key));
            match write.stamp {
                Some(stamp) => batch.put(keyspace, key, stamp.value(seed))?,
                None => batch.delete(keyspace, key)?,
            }
        }
        let durability = if synced {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        Ok(self.db.write(batch, durability)?)
    }
}

/// Works until it is killed.
pub(crate) fn work(seed: u64, round: u32, dir: &Path) -> Result<()> {
    let plan = RoundPlan::new(seed, u64::from(round));
    let clock = Clock::default();
    let expected = State::load(&dir.join("expected"), KEYSPACES.len())?;
    let mut workers = Vec::new();
    for worker in 0..plan.workers {
        let mut own = expected.clone();
        for entries in &mut own.keyspaces {
            entries.retain(|key, _| key % plan.workers == worker);
        }
        workers.push(Worker {
            maker: Maker {
                seed,
                round,
                worker,
            },
            plan: &plan,
            own,
            notes: Notes::create(&dir.join("notes"), worker, &clock)?,
            next_change: 0,
            random: Random::of(&[seed, u64::from(round), 20, u64::from(worker)]),
        });
    }
    for session in 0.. {
        let session = SessionPlan::new(seed, u64::from(round), session);
        let map = Map::open(dir, &session)?;
        let failed = AtomicBool::new(false);
        thread::scope(|scope| {
            let run = |worker: &mut Worker<'_>| {
                let result = worker.run(&map, session.actions, &failed);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                result
            };
            let threads: Vec<_> = workers
                .iter_mut()
                .map(|worker| scope.spawn(move || run(worker)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a worker panicked")?)
        })?;
        if session.closes {
            map.db.close()?;
        }
    }
    Ok(())
}

/// One thread, and what it knows of the keys that only it writes.
struct Worker<'a> {
    maker: Maker,
    plan: &'a RoundPlan,
    own: State,
    notes: Notes<'a>,
    next_change: u32,
    /// For what needs no repetition.
    random: Random,
}

impl Worker<'_> {
    fn run(&mut self, map: &Map, actions: u32, failed: &AtomicBool) -> Result<()> {
        let mut frozen: Option<(Snapshot, Vec<Entries>)> = None;
        for keyspace in 0..OWN_KEYSPACES {
            self.scan(map, keyspace)?;
        }
        for _ in 0..actions {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            let keyspace = self.random.index(KEYSPACES.len());
            match self.plan.action(&mut self.random) {
                Action::Write => self.write(map)?,
                Action::Get => self.get(map)?,
                Action::Scan => self.scan(map, keyspace % OWN_KEYSPACES)?,
                Action::Sync => map.db.sync()?,
                Action::Flush => map.db.flush()?,
                Action::Compact => map.keyspaces[keyspace].compact()?,
                Action::Snapshot => {
                    if let Some((snapshot, own)) = frozen.take() {
                        self.check_snapshot(map, &snapshot, &own)?;
                    } else {
                        let own = self.own.keyspaces[..OWN_KEYSPACES].to_vec();
                        frozen = Some((map.db.snapshot()?, own));
                    }
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, map: &Map) -> Result<()> {
        let (writes, synced) = self.maker.batch(self.next_change, self.plan);
        self.notes.note()?;
        map.write(&writes, synced, self.maker.seed)?;
        self.notes.note()?;
        self.next_change += 1;
        if writes[0].keyspace < OWN_KEYSPACES {
            self.own.apply(&writes);
        }
        Ok(())
    }

    fn get(&mut self, map: &Map) -> Result<()> {
        let keyspace = self.random.index(OWN_KEYSPACES);
        let key = self.random.below(200) * self.plan.workers + self.maker.worker;
        let found = map.keyspaces[keyspace].get(state::key(key))?;
        let expected = self.own.keyspaces[keyspace].get(&key);
        let expected = expected.map(|stamp| stamp.value(self.maker.seed));
        if found.as_deref() != expected.as_deref() {
            return Err(format!("get of key {key} in keyspace {keyspace} is wrong").into());
        }
        Ok(())
    }

    fn scan(&mut self, map: &Map, keyspace: usize) -> Result<()> {
        let entries = map.keyspaces[keyspace].entries()?;
        let found = if self.random.one_in(2) {
            state::collect(entries.map(pair), false)?
        } else {
            state::collect(entries.rev().map(pair), true)?
        };
        self.compare(keyspace, &self.own.keyspaces[keyspace], &found)
    }

    fn compare(&self, keyspace: usize, own: &Entries, found: &state::Found) -> Result<()> {
        let (workers, worker) = (self.plan.workers, self.maker.worker);
        let is_own = |key| key % workers == worker;
        match state::difference(self.maker.seed, KEYSPACES[keyspace], own, found, is_own) {
            Some(difference) => Err(difference.to_string().into()),
            None => Ok(()),
        }
    }

    /// The own keys are as they were, and the shared keyspaces alike.
    fn check_snapshot(&mut self, map: &Map, snapshot: &Snapshot, own: &[Entries]) -> Result<()> {
        let scan = |keyspace: usize| {
            let entries = snapshot.range::<&[u8]>(&map.keyspaces[keyspace], ..)?;
            state::collect(entries.map(pair), false)
        };
        for (keyspace, own) in own.iter().enumerate() {
            self.compare(keyspace, own, &scan(keyspace)?)
                .map_err(|error| format!("in a snapshot: {error}"))?;
        }
        if scan(OWN_KEYSPACES)? != scan(OWN_KEYSPACES + 1)? {
            return Err("a snapshot shows a batch in part".into());
        }
        Ok(())
    }
}

/// An entry as a pair.
pub(crate) fn pair(
    entry: siltstone::Result<siltstone::Entry>,
) -> siltstone::Result<(siltstone::Slice, siltstone::Slice)> {
    entry.map(|entry| (entry.key, entry.value))
}
