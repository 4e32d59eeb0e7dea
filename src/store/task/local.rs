//! The local side of a task: its stores, and how they are brought up to what a changelog holds.

use crate::changelog::{Bounds, Session};
use crate::db::{Db, Keyspace};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RuntimeOptions;
use crate::runtime::Runtime;
use crate::store::codec::Kind;
use crate::store::decide::{Decision, Facts, RebuildReason, decide};
use crate::store::positions::Positions;
use crate::store::restore::{
    How, Job, Log, Outcome, Reading, RestoredStore, Restorer, nothing_covered,
};
use crate::sync::Arc;

use super::options::{REBUILD_SUFFIX, TaskOptions};

/// How often the local state of a store is rebuilt in one restore before it is given up.
const REBUILDS_MAX: usize = 2;

/// A store of a task.
pub(in crate::store) struct Store {
    pub(in crate::store) name: String,
    pub(in crate::store) keyspace: Keyspace,
    pub(in crate::store) kind: Kind,
}

/// What a task has on its own machine.
pub(in crate::store) struct Local {
    /// Completed ones.
    pub(in crate::store) options: TaskOptions,
    pub(in crate::store) runtime: Runtime,
    pub(in crate::store) db: Db,
    pub(in crate::store) env: Arc<dyn Env>,
    /// The store of the input positions is the last; a store's index is that of its partition.
    pub(in crate::store) stores: Vec<Store>,
    pub(in crate::store) positions: Positions,
    /// Stores that are kept here but were not configured.
    pub(in crate::store) unused: Vec<String>,
}

impl Local {
    /// Opens what there is, after a look at whether it belongs to the changelog: a claim would
    /// create there what is missing.
    ///
    /// # Errors
    ///
    /// `Diverged` if local state does not belong to the changelog: nothing was changed.
    pub(in crate::store) fn open(options: TaskOptions) -> Result<Self> {
        let options = options.complete()?;
        let env = Arc::clone(&options.db.env);
        let runtime = match &options.runtime {
            Some(runtime) => runtime.clone(),
            None => Runtime::new(RuntimeOptions::new().env(Arc::clone(&env)))?,
        };
        let db = Db::open_for_task(&options.dir, options.db.clone(), &runtime)?;
        let mut local = Self {
            positions: stored_positions(&db)?,
            unused: unused_stores(&db, &options)?,
            options,
            runtime,
            db,
            env,
            stores: Vec::new(),
        };
        local.check_stored()?;
        local.forget_what_is_gone()?;
        for index in 0..local.options.stores.len() {
            let store = local.store(index)?;
            local.stores.push(store);
        }
        Ok(local)
    }

    /// Claims the partitions of all stores, which fences the former owner.
    pub(in crate::store) fn claim(&self) -> Result<Box<dyn Session>> {
        let partitions = self.options.partitions();
        let name = self.options.task_name();
        self.options.changelog.claim(&name, &partitions)
    }

    fn store(&self, index: usize) -> Result<Store> {
        let options = &self.options.stores[index];
        let keyspace = self.db.keyspace(&options.name, options.keyspace.clone())?;
        Ok(Store {
            name: options.name.clone(),
            keyspace,
            kind: options.kind,
        })
    }

    /// Fails if a store that is kept here does not belong to the changelog.
    pub(in crate::store) fn check_stored(&self) -> Result<()> {
        let names = self.db.keyspace_names()?;
        for index in 0..self.options.stores.len() {
            if !names.contains(&self.options.stores[index].name) {
                continue;
            }
            let partition = self.options.partition_of(index);
            let bounds = self.options.changelog.bounds(partition)?;
            self.decide_on(&self.store(index)?, index, bounds.as_ref())?;
        }
        Ok(())
    }

    /// Drops what a rebuild has left behind that was interrupted, and the positions of stores
    /// that are not there: were such a store created now, an old position would not be its own.
    fn forget_what_is_gone(&mut self) -> Result<()> {
        let names = self.db.keyspace_names()?;
        for name in names.iter().filter(|name| name.ends_with(REBUILD_SUFFIX)) {
            self.db.drop_keyspace(name)?;
        }
        let stored: Vec<String> = self.positions.names().map(str::to_owned).collect();
        let gone = stored.iter().filter(|name| !names.contains(name));
        let mut changed = false;
        for name in gone {
            changed |= self.positions.remove(name);
        }
        if changed {
            self.db.publish_position(self.positions.encode())?;
        }
        Ok(())
    }

    /// The store of that name and kind, by index.
    pub(in crate::store) fn find(&self, name: &str, kind: Kind) -> Result<(usize, &Keyspace)> {
        find(&self.stores, &self.options.task_name(), name, kind)
    }

    /// Hands the newest positions to the local side, to be stored with the next flush (which is
    /// begun here if it is due), or at once if there is nothing to flush. Only while everything
    /// that was written counts.
    pub(in crate::store) fn publish(&self) -> Result<()> {
        publish(&self.db, &self.positions)
    }

    /// What to do to have a store up to date with a partition of these bounds.
    ///
    /// # Errors
    ///
    /// `Diverged` if the two do not belong together.
    pub(in crate::store) fn decide(
        &self,
        index: usize,
        bounds: Option<&Bounds>,
    ) -> Result<Decision> {
        self.decide_on(&self.stores[index], index, bounds)
    }

    fn decide_on(&self, store: &Store, index: usize, bounds: Option<&Bounds>) -> Result<Decision> {
        let covered = self.positions.get(&store.name);
        decide(&Facts {
            store: &store.name,
            kind: store.kind,
            partition: self.options.partition_of(index),
            covered,
            has_entries: has_entries(&store.keyspace)?,
            bounds,
            now_ms: self.env.wall_clock_ms(),
            rebuild: self.options.rebuild,
        })
    }

    /// Brings the stores of these indexes up to the ends of their partitions, several at a time.
    /// Nothing may be in memory only.
    pub(in crate::store) fn restore(
        &mut self,
        log: &mut dyn Log,
        indexes: &[usize],
    ) -> Result<Vec<RestoredStore>> {
        let mut open = Vec::new();
        for &index in indexes {
            // Again behind a claim: what was read before it may have changed.
            let decision = self.decide(index, Some(&log.bounds(index)?))?;
            open.push((index, decision));
        }
        let mut restored = Vec::new();
        for round in 0.. {
            let jobs: Result<Vec<Job>> = open
                .iter()
                .map(|(index, decision)| self.job(log, *index, *decision))
                .collect();
            let jobs = jobs?;
            let outcomes = self.run(log, &jobs)?;
            let mut again = Vec::new();
            for ((index, decision), outcome) in open.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Complete(reading, covered) => {
                        let name = self.stores[index].name.clone();
                        self.positions.set(&name, covered);
                        if let Decision::Rebuild(_) = decision {
                            self.swap(index)?;
                        }
                        restored.push((index, restored_store(name, decision, &reading)));
                    }
                    Outcome::Again(reason) if round == REBUILDS_MAX => {
                        return Err(given_up(&self.stores[index].name, reason));
                    }
                    Outcome::Again(reason) => again.push((index, Decision::Rebuild(reason))),
                }
            }
            open = again;
            if open.is_empty() {
                break;
            }
        }
        restored.sort_by_key(|(index, _)| *index);
        Ok(restored.into_iter().map(|(_, store)| store).collect())
    }

    fn run(&mut self, log: &mut dyn Log, jobs: &[Job]) -> Result<Vec<Outcome>> {
        let mut restorer = Restorer {
            env: &self.env,
            runtime: &self.runtime,
            log,
            positions: &mut self.positions,
            arena_bytes_max: self.options.restore_bytes_max,
            progress: self.options.progress.as_ref(),
        };
        restorer.run(jobs)
    }

    /// What is to be read for a store: into itself, from the start or from its position, or, to
    /// rebuild it, everything into a new generation.
    fn job(&self, log: &mut dyn Log, index: usize, decision: Decision) -> Result<Job> {
        let store = &self.stores[index];
        let partition = self.options.partition_of(index);
        let covered = self.positions.get(&store.name);
        let begin = if let (Decision::Tail(_), Some(covered)) = (decision, covered) {
            covered.clone()
        } else {
            let now_ms = self.env.wall_clock_ms();
            let owner = log.owner();
            nothing_covered(partition, &log.bounds(index)?, store.kind, owner, now_ms)
        };
        let is_store = !matches!(decision, Decision::Rebuild(_));
        let keyspace = if is_store {
            store.keyspace.clone()
        } else {
            let name = generation_of(&store.name);
            if self.db.keyspace_names()?.contains(&name) {
                self.db.drop_keyspace(&name)?;
            }
            let options = self.options.stores[index].keyspace.clone();
            self.db.keyspace(&name, options)?
        };
        Ok(Job {
            store: store.name.clone(),
            partition: partition.clone(),
            index,
            kind: store.kind,
            keyspace,
            is_store,
            begin,
        })
    }

    /// Puts the new generation of a store in its place together with its position, in one edit.
    fn swap(&mut self, index: usize) -> Result<()> {
        let name = &self.stores[index].name;
        let replacement = (generation_of(name), name.clone());
        self.db
            .replace_keyspaces(&[replacement], self.positions.encode())?;
        self.stores[index] = self.store(index)?;
        Ok(())
    }
}

/// See [`Local::find`]. The store of the input positions is not to be found.
pub(super) fn find<'a>(
    stores: &'a [Store],
    task: &str,
    name: &str,
    kind: Kind,
) -> Result<(usize, &'a Keyspace)> {
    let (_, own) = stores.split_last().expect("every task has input positions");
    match own.iter().enumerate().find(|(_, store)| store.name == name) {
        Some((index, store)) if store.kind == kind => Ok((index, &store.keyspace)),
        Some((_, store)) => Err(Error::invalid(format!(
            "store {name} is a {} one, not a {} one",
            store.kind.name(),
            kind.name()
        ))),
        None => Err(Error::new(
            ErrorKind::NotFound,
            format!("task {task} was opened without a store named {name}"),
        )),
    }
}

/// See [`Local::publish`].
pub(super) fn publish(db: &Db, positions: &Positions) -> Result<()> {
    let mark = db.mark()?;
    db.release(mark, positions.encode())?;
    db.publish_position(positions.encode()).map(drop)
}

fn generation_of(store: &str) -> String {
    format!("{store}{REBUILD_SUFFIX}")
}

fn stored_positions(db: &Db) -> Result<Positions> {
    match db.position() {
        Some(bytes) if !bytes.is_empty() => {
            Positions::decode(&bytes).map_err(|error| error.context("stored positions"))
        }
        _ => Ok(Positions::default()),
    }
}

fn unused_stores(db: &Db, options: &TaskOptions) -> Result<Vec<String>> {
    let mut names = db.keyspace_names()?;
    names.retain(|name| {
        !name.ends_with(REBUILD_SUFFIX) && options.stores.iter().all(|store| store.name != *name)
    });
    Ok(names)
}

fn has_entries(keyspace: &Keyspace) -> Result<bool> {
    let first = keyspace.entries()?.next().transpose()?;
    Ok(first.is_some())
}

fn restored_store(name: String, decision: Decision, reading: &Reading) -> RestoredStore {
    let how = match decision {
        Decision::Full => How::Full,
        Decision::Tail(_) if reading.records == 0 => How::UpToDate,
        Decision::Tail(_) => How::Tail,
        Decision::Rebuild(reason) => How::Rebuilt(reason),
    };
    RestoredStore {
        name,
        how,
        records: reading.records,
        bytes: reading.bytes,
        start: reading.start,
        end: reading.end,
        duration: reading.duration,
    }
}

fn given_up(store: &str, reason: RebuildReason) -> Error {
    Error::new(
        ErrorKind::Changelog,
        format!(
            "store {store} was rebuilt {REBUILDS_MAX} times and is out of date again ({reason:?}): \
             the changelog drops records faster than they are read"
        ),
    )
}
