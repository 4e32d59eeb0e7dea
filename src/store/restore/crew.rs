//! Who does a restore: the caller, helped by threads of the runtime.
//!
//! A job is one partition to read into one keyspace. It is done in steps of two kinds: *reading*
//! fills an arena with records, *writing* sorts a full one and makes a run of it. A partition is
//! read by one worker at a time, and its runs are installed in the order in which they were read;
//! beyond that any worker takes any step. So one partition is read while its last runs are written,
//! several partitions are restored at a time, and where there is only the caller, it does
//! everything, in an order that is always the same.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use crate::changelog::{Fetched, Offset, Owner, Partition, Position, Reader, RecordRef};
use crate::db::{Keyspace, RestoredRun};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{KEY_LEN_MAX, VALUE_LEN_MAX};
use crate::planted::{Bug, planted};
use crate::store::codec::Kind;
use crate::store::positions::{Covered, Positions};
use crate::sync::{Arc, Condvar, Mutex};

use super::arena::Arena;
use super::{Progress, ProgressFn, Reading};

/// What the steps of one job need to know.
pub(super) struct Target {
    pub(super) store: String,
    pub(super) partition: Partition,
    pub(super) kind: Kind,
    pub(super) keyspace: Keyspace,
    /// See [`Job::is_store`](super::Job::is_store).
    pub(super) is_store: bool,
    /// What is covered where the job begins.
    pub(super) begin: Covered,
    /// Who restores.
    pub(super) owner: Owner,
    /// About where it will end.
    pub(super) end: Offset,
    /// When it began, by the monotonic clock.
    pub(super) began: Duration,
}

/// How a job has ended.
pub(super) struct End {
    /// What ended the reading: the fetch that reached the end, or an error.
    pub(super) outcome: Result<Fetched>,
    pub(super) reading: Reading,
    /// Where the reader stood.
    pub(super) position: Offset,
}

/// What a job is read from.
struct Source {
    reader: Box<dyn Reader>,
    reading: Reading,
    /// What had been read when progress was told last.
    told_bytes: u64,
}

/// Bytes of records after which progress is told in the midst of a fetch, which ends where an arena
/// is full.
const TELL_BYTES: u64 = 1 << 20;

/// A job and where it stands.
struct Slot {
    target: Arc<Target>,
    /// Gone while a worker reads, and at the end.
    source: Option<Source>,
    /// Arenas to be written.
    filled: VecDeque<Filled>,
    /// How many were filled so far: each has its number.
    filled_count: u64,
    /// Runs that wait for those before them, by number.
    written: BTreeMap<u64, (RestoredRun, Offset)>,
    installed_count: u64,
    end: Option<End>,
}

/// An arena that was filled, and what becomes of it.
struct Filled {
    number: u64,
    arena: Arena,
    /// The offset behind its records.
    next: Offset,
    run: RestoredRun,
}

/// What one worker does next.
enum Step {
    Read(usize, Arc<Target>, Source, Arena),
    Write(usize, Arc<Target>, Filled),
}

struct State {
    slots: Vec<Slot>,
    arenas: Vec<Arena>,
    /// Steps under way.
    running: usize,
    /// Set by the first failure that no other job outlives.
    failure: Option<Error>,
}

/// The jobs of one restore and what they share.
pub(super) struct Crew {
    env: Arc<dyn Env>,
    progress: Option<Arc<ProgressFn>>,
    state: Mutex<State>,
    /// Signalled when a step ends.
    stepped: Condvar,
    /// What the manifest has, or had with the last run. Held from the change for a run until that
    /// is installed, so that no other run publishes it before.
    positions: Mutex<Positions>,
}

impl Crew {
    pub(super) fn new(
        env: Arc<dyn Env>,
        progress: Option<Arc<ProgressFn>>,
        arenas: Vec<Arena>,
        positions: Positions,
    ) -> Self {
        let state = State {
            slots: Vec::new(),
            arenas,
            running: 0,
            failure: None,
        };
        Self {
            env,
            progress,
            state: Mutex::new(state),
            stepped: Condvar::new(),
            positions: Mutex::new(positions),
        }
    }

    /// Adds a job, before any step is done.
    pub(super) fn add(&self, target: Target, reader: Box<dyn Reader>) {
        let start = target.begin.position.next;
        let reading = Reading {
            records: 0,
            bytes: 0,
            start,
            end: start,
            duration: Duration::ZERO,
        };
        let source = Source {
            reader,
            reading,
            told_bytes: 0,
        };
        self.state.lock().slots.push(Slot {
            target: Arc::new(target),
            source: Some(source),
            filled: VecDeque::new(),
            filled_count: 0,
            written: BTreeMap::new(),
            installed_count: 0,
            end: None,
        });
    }

    /// Does one step, waiting for one that can be done; false if there is none left.
    pub(super) fn step(&self) -> bool {
        let step = {
            let mut state = self.state.lock();
            loop {
                if let Some(step) = state.next_step() {
                    state.running += 1;
                    break step;
                }
                if state.running == 0 {
                    return false;
                }
                self.stepped.wait(&mut state);
            }
        };
        let ending = Ending(self);
        match step {
            Step::Read(index, target, source, arena) => self.read(index, &target, source, arena),
            Step::Write(index, target, filled) => self.write(index, &target, filled),
        }
        drop(ending);
        true
    }

    /// Ends all jobs that have not ended: not all could be added.
    pub(super) fn fail(&self, error: Error) {
        self.state.lock().failure.get_or_insert(error);
    }

    /// The ends of all jobs in the order in which they were added, and the positions of now, once
    /// there is no step left. A helper that comes late finds nothing.
    ///
    /// # Errors
    ///
    /// The first failure that ended more than its own job.
    pub(super) fn finish(&self) -> (Positions, Result<Vec<End>>) {
        let positions = std::mem::take(&mut *self.positions.lock());
        let mut state = self.state.lock();
        state.arenas.clear();
        let slots = std::mem::take(&mut state.slots);
        if let Some(error) = state.failure.take() {
            return (positions, Err(error));
        }
        let ended = |slot: Slot| slot.end.expect("every job has ended");
        (positions, Ok(slots.into_iter().map(ended).collect()))
    }

    /// Fills an arena.
    fn read(&self, index: usize, target: &Target, mut source: Source, mut arena: Arena) {
        let outcome = loop {
            match self.fetch(target, &mut source, &mut arena) {
                Ok(Some(fetched)) if !fetched.at_end => {}
                other => break other,
            }
            if self.state.lock().failure.is_some() {
                break Ok(None);
            }
        };
        let next = source.reader.position();
        // One worker reads at a time, so runs get their places in the order of their records.
        let db = target.keyspace.db();
        let run = (!arena.is_empty()).then(|| db.begin_restored_run(&target.keyspace));
        let run = run.transpose();
        let mut state = self.state.lock();
        let state = &mut *state;
        let slot = &mut state.slots[index];
        let outcome = match run {
            Err(error) => Err(error),
            Ok(None) => {
                state.arenas.push(arena);
                outcome
            }
            Ok(Some(run)) => {
                let number = slot.filled_count;
                slot.filled_count += 1;
                slot.filled.push_back(Filled {
                    number,
                    arena,
                    next,
                    run,
                });
                outcome
            }
        };
        let outcome = match outcome {
            Ok(None) => {
                slot.source = Some(source);
                return;
            }
            Ok(Some(fetched)) => Ok(fetched),
            Err(error) => Err(error.context(format_args!("restore of {}", target.store))),
        };
        if let Err(error) = &outcome
            && error.kind() != ErrorKind::Changelog
        {
            state.failure.get_or_insert_with(|| error.clone());
        }
        source.reading.duration = self.env.monotonic().saturating_sub(target.began);
        slot.end = Some(End {
            outcome,
            reading: source.reading,
            position: next,
        });
    }

    /// One fetch; `None` if the arena is full.
    fn fetch(
        &self,
        target: &Target,
        source: &mut Source,
        arena: &mut Arena,
    ) -> Result<Option<Fetched>> {
        let reading = &mut source.reading;
        let mut is_full = false;
        let result = source.reader.fetch(&mut |offset, record| {
            check_record(&target.partition, target.kind, offset, &record)?;
            if !arena.push(target.kind, &record) {
                is_full = true;
                // Ends the fetch in front of this record, which the next one delivers.
                return Err(Error::new(ErrorKind::MemoryLimit, "the arena is full"));
            }
            reading.records += 1;
            reading.bytes += (record.key.len() + record.value.map_or(0, <[u8]>::len)) as u64;
            Ok(())
        });
        let fetched = if is_full { None } else { Some(result?) };
        reading.end = source.reader.position();
        reading.duration = self.env.monotonic().saturating_sub(target.began);
        if !is_full || reading.bytes >= source.told_bytes + TELL_BYTES {
            source.told_bytes = reading.bytes;
            self.tell(target, reading);
        }
        Ok(fetched)
    }

    /// Makes a run of a full arena, together with the position behind it.
    fn write(&self, index: usize, target: &Target, filled: Filled) {
        let Filled {
            number,
            mut arena,
            next,
            mut run,
        } = filled;
        arena.sort();
        let db = target.keyspace.db();
        let mut result = db.write_restored_run(&mut run, arena.newest());
        arena.clear();
        let mut state = self.state.lock();
        state.arenas.push(arena);
        if result.is_ok() {
            state.slots[index].written.insert(number, (run, next));
            drop(state);
            result = self.install(index, target);
            state = self.state.lock();
        }
        let slot = &mut state.slots[index];
        let duration = self.env.monotonic().saturating_sub(slot.target.began);
        if let Some(end) = &mut slot.end {
            end.reading.duration = duration;
        }
        if let Err(error) = result {
            state.failure.get_or_insert(error);
        }
    }

    /// Installs what was written and does not wait for a run before it.
    fn install(&self, index: usize, target: &Target) -> Result<()> {
        let mut positions = self.positions.lock();
        loop {
            let mut state = self.state.lock();
            let slot = &mut state.slots[index];
            let Some((run, next)) = slot.written.remove(&slot.installed_count) else {
                return Ok(());
            };
            slot.installed_count += 1;
            drop(state);
            install_run(target, run, next, &mut positions)?;
        }
    }

    fn tell(&self, target: &Target, reading: &Reading) {
        if let Some(progress) = &self.progress {
            progress(&Progress {
                store: &target.store,
                records: reading.records,
                bytes: reading.bytes,
                start: reading.start,
                position: reading.end,
                end: target.end.max(reading.end),
                elapsed: reading.duration,
            });
        }
    }
}

impl State {
    /// Writing goes first, for it frees an arena.
    fn next_step(&mut self) -> Option<Step> {
        if self.failure.is_some() {
            return None;
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if let Some(filled) = slot.filled.pop_front() {
                return Some(Step::Write(index, Arc::clone(&slot.target), filled));
            }
        }
        let index = self.slots.iter().position(|slot| slot.source.is_some())?;
        let arena = self.arenas.pop()?;
        let slot = &mut self.slots[index];
        let source = slot.source.take().expect("looked for one that has it");
        Some(Step::Read(index, Arc::clone(&slot.target), source, arena))
    }
}

/// Ends a step, by a panic too: nobody must wait for it for ever.
struct Ending<'a>(&'a Crew);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.running -= 1;
        if std::thread::panicking() {
            let error = Error::new(ErrorKind::Poisoned, "a step of a restore panicked");
            state.failure.get_or_insert(error);
        }
        drop(state);
        self.0.stepped.notify_all();
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").finish_non_exhaustive()
    }
}

/// Installs a run together with the position behind it.
fn install_run(
    target: &Target,
    run: RestoredRun,
    next: Offset,
    positions: &mut Positions,
) -> Result<()> {
    let mut changed = positions.clone();
    if target.is_store {
        let next = if planted(Bug::RestorePositionAhead) {
            target.end
        } else {
            next
        };
        let position = Position {
            next,
            owner: target.owner,
            ..target.begin.position.clone()
        };
        let covered = Covered {
            position,
            ..target.begin.clone()
        };
        changed.set(&target.store, covered);
    }
    let db = target.keyspace.db();
    db.install_restored_run(run, changed.encode())?;
    *positions = changed;
    Ok(())
}

/// A store takes what its engine can hold; another program may have written more.
pub(in crate::store) fn check_record(
    partition: &Partition,
    kind: Kind,
    offset: Offset,
    record: &RecordRef<'_>,
) -> Result<()> {
    let value_len = kind.stored_len(record).unwrap_or(0);
    if (1..=KEY_LEN_MAX).contains(&record.key.len()) && value_len <= VALUE_LEN_MAX {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "the record at offset {offset} of {partition} has a key of {} bytes and a value of \
         {value_len} as it is stored; a store takes keys of 1 to {KEY_LEN_MAX} and values of up \
         to {VALUE_LEN_MAX}",
        record.key.len()
    )))
}
