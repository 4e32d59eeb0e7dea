//! Bringing a task up: what the local state is worth, claiming the changelog, restoring.

use crate::changelog::Session;
use crate::db::{Db, Keyspace};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RuntimeOptions;
use crate::runtime::Runtime;
use crate::store::decide::{Decision, Facts, RebuildReason, decide};
use crate::store::positions::Positions;
use crate::store::restore::{How, Job, Outcome, Restored, RestoredStore, Restorer};
use crate::sync::Arc;

use super::options::{REBUILD_SUFFIX, TaskOptions};
use super::{Store, Task};

/// How often the local state of a store is rebuilt in one open before it is given up.
const REBUILDS_MAX: usize = 2;

impl Task {
    /// Opens the task: takes it over from its former owner, wherever that is, and brings every
    /// store up to where the changelog ends. Blocks until then.
    ///
    /// Local state that cannot be resumed from, because the changelog was trimmed or tombstones
    /// may have been dropped from it, is rebuilt unasked, beside the old state, which it then
    /// replaces. An interrupted restore is resumed by the next open.
    ///
    /// # Errors
    ///
    /// `Diverged` if the local state does not belong to the changelog (another cluster or topic,
    /// no partition, one that ends too early): nothing was changed, and the changelog not
    /// claimed; see [`TaskOptions::rebuild`]. `Locked` if the directory is open already;
    /// `InvalidArgument` for bad options; `MemoryLimit` if the runtime has no room; `Changelog`
    /// if the changelog cannot be read, or goes on losing what is being read; `Corruption`,
    /// `Unsupported`, `Io`.
    pub fn open(options: TaskOptions) -> Result<Self> {
        let options = options.complete()?;
        let env = Arc::clone(&options.db.env);
        let runtime = match &options.runtime {
            Some(runtime) => runtime.clone(),
            None => Runtime::new(RuntimeOptions::new().env(Arc::clone(&env)))?,
        };
        let db = Db::open_for_task(&options.dir, options.db.clone(), &runtime)?;
        let positions = stored_positions(&db)?;
        let unused = unused_stores(&db, &options)?;
        check_before_claim(&db, &options, &positions)?;
        let mut opening = Opening {
            options: &options,
            runtime,
            db,
            env,
            positions,
        };
        opening.forget_what_is_gone()?;
        let mut stores = opening.keyspaces()?;
        let partitions = options.partitions();
        let mut session = options.changelog.claim(&options.task_name(), &partitions)?;
        let mut restored = Restored {
            unused,
            ..Restored::default()
        };
        for (index, store) in stores.iter_mut().enumerate() {
            restored
                .stores
                .push(opening.restore(&mut *session, index, store)?);
        }
        let Opening {
            db, env, positions, ..
        } = opening;
        db.publish_position(positions.encode())?;
        Ok(Self::new(
            &options, db, env, session, stores, positions, restored,
        ))
    }
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

/// Fails if local state does not belong to the changelog, before a claim creates there what is
/// missing.
fn check_before_claim(db: &Db, options: &TaskOptions, positions: &Positions) -> Result<()> {
    let names = db.keyspace_names()?;
    for store in options
        .stores
        .iter()
        .filter(|store| names.contains(&store.name))
    {
        let keyspace = db.keyspace(&store.name, store.keyspace.clone())?;
        let Some(partition) = &store.partition else {
            continue;
        };
        decide(&Facts {
            store: &store.name,
            partition,
            covered: positions.get(&store.name),
            has_entries: has_entries(&keyspace)?,
            bounds: options.changelog.bounds(partition)?.as_ref(),
            now_ms: options.db.env.wall_clock_ms(),
            rebuild: options.rebuild,
        })?;
    }
    Ok(())
}

fn has_entries(keyspace: &Keyspace) -> Result<bool> {
    keyspace
        .entries()?
        .next()
        .transpose()
        .map(|entry| entry.is_some())
}

/// What the steps of an open share.
struct Opening<'a> {
    options: &'a TaskOptions,
    runtime: Runtime,
    db: Db,
    env: Arc<dyn Env>,
    positions: Positions,
}

impl Opening<'_> {
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

    fn keyspaces(&self) -> Result<Vec<Store>> {
        let store = |index: usize| -> Result<Store> {
            let options = &self.options.stores[index];
            let keyspace = self.db.keyspace(&options.name, options.keyspace.clone())?;
            Ok(Store {
                name: options.name.clone(),
                keyspace,
            })
        };
        (0..self.options.stores.len()).map(store).collect()
    }

    /// Brings one store up to the end of its partition.
    fn restore(
        &mut self,
        session: &mut dyn Session,
        index: usize,
        store: &mut Store,
    ) -> Result<RestoredStore> {
        let began = self.env.monotonic();
        let mut decision = self.decide(session, index, store)?;
        let mut rebuilds = 0;
        let (how, reading) = loop {
            let (how, outcome) = match decision {
                Decision::Rebuild(reason) if rebuilds == REBUILDS_MAX => {
                    return Err(given_up(&store.name, reason));
                }
                Decision::Rebuild(reason) => {
                    rebuilds += 1;
                    (How::Rebuilt(reason), self.rebuild(session, index, store)?)
                }
                Decision::Full => (How::Full, self.read(session, index, store, true)?),
                Decision::Tail(_) => (How::Tail, self.read(session, index, store, false)?),
            };
            match outcome {
                Outcome::Complete(reading) => break (how, reading),
                Outcome::Again(reason) => decision = Decision::Rebuild(reason),
            }
        };
        let how = if how == How::Tail && reading.records == 0 {
            How::UpToDate
        } else {
            how
        };
        Ok(RestoredStore {
            name: store.name.clone(),
            how,
            records: reading.records,
            bytes: reading.bytes,
            start: reading.start,
            end: reading.end,
            duration: self.env.monotonic().saturating_sub(began),
        })
    }

    /// Decides again behind the claim: what was read before may have changed.
    fn decide(&self, session: &mut dyn Session, index: usize, store: &Store) -> Result<Decision> {
        let options = &self.options.stores[index];
        let partition = options
            .partition
            .as_ref()
            .expect("completed options have partitions");
        let bounds = session.bounds(index)?;
        decide(&Facts {
            store: &store.name,
            partition,
            covered: self.positions.get(&store.name),
            has_entries: has_entries(&store.keyspace)?,
            bounds: Some(&bounds),
            now_ms: self.env.wall_clock_ms(),
            rebuild: self.options.rebuild,
        })
    }

    /// Reads into the store itself, from the start or from its position.
    fn read(
        &mut self,
        session: &mut dyn Session,
        index: usize,
        store: &Store,
        from_start: bool,
    ) -> Result<Outcome> {
        let bounds = session.bounds(index)?;
        let covered = self
            .positions
            .get(&store.name)
            .filter(|_| !from_start)
            .cloned();
        self.run(session, index, store, |restorer, job| {
            let begin = covered.unwrap_or_else(|| restorer.nothing_covered(job.partition, &bounds));
            restorer.run(
                Job {
                    is_store: true,
                    ..job
                },
                &begin,
            )
        })
    }

    /// Reads everything into a new generation, which then takes the store's place together with
    /// its position, in one edit.
    fn rebuild(
        &mut self,
        session: &mut dyn Session,
        index: usize,
        store: &mut Store,
    ) -> Result<Outcome> {
        let options = self.options.stores[index].keyspace.clone();
        let name = format!("{}{REBUILD_SUFFIX}", store.name);
        if self.db.keyspace_names()?.contains(&name) {
            self.db.drop_keyspace(&name)?;
        }
        let keyspace = self.db.keyspace(&name, options.clone())?;
        let generation = Store {
            name: store.name.clone(),
            keyspace,
        };
        let bounds = session.bounds(index)?;
        let outcome = self.run(session, index, &generation, |restorer, job| {
            let begin = restorer.nothing_covered(job.partition, &bounds);
            restorer.run(job, &begin)
        })?;
        if let Outcome::Complete(_) = outcome {
            let position = self.positions.encode();
            self.db
                .replace_keyspaces(&[(name, store.name.clone())], position)?;
            store.keyspace = self.db.keyspace(&store.name, options)?;
        }
        Ok(outcome)
    }

    /// Hands `act` what a restore of the store needs.
    fn run(
        &mut self,
        session: &mut dyn Session,
        index: usize,
        store: &Store,
        act: impl FnOnce(&mut Restorer<'_>, Job<'_>) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let partition = self.options.stores[index].partition.as_ref();
        let job = Job {
            store: &store.name,
            partition: partition.expect("completed options have partitions"),
            index,
            keyspace: &store.keyspace,
            is_store: false,
        };
        let mut restorer = Restorer {
            db: &self.db,
            env: &*self.env,
            runtime: &self.runtime,
            session,
            positions: &mut self.positions,
            arena_bytes_max: self.options.restore_bytes_max,
            progress: self.options.progress.as_deref(),
        };
        act(&mut restorer, job)
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
