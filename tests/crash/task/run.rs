//! Carrying a list of operations of a task out, while the model follows.

use siltstone::env::sim::{SimEnv, SimImage};
use siltstone::{Error, ErrorKind, Stats};

use crate::model::{History, State};
use crate::operation::{key_bytes, value_bytes};

use super::list::{Operation, TaskList};
use super::{INPUTS, Opened, SOURCES, TASK, position_bytes};

/// What happened over all lists, to see that everything did.
#[derive(Debug, Default, Clone)]
pub(crate) struct TaskTotals {
    commits: u64,
    aborts: u64,
    flushes: u64,
    compactions: u64,
    memory_compactions: u64,
    restored_records: u64,
    pub(crate) errors: u64,
}

impl TaskTotals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.memory_compactions += other.memory_compactions;
        self.restored_records += other.restored_records;
        self.errors += other.errors;
    }

    fn add_stats(&mut self, stats: &Stats) {
        self.flushes += stats.flushes;
        self.compactions += stats.compactions;
        self.memory_compactions += stats.memory_compactions;
    }

    /// Fails if some kind of work never happened: the test would miss its crashes.
    pub(crate) fn assert_not_blind(&self) {
        for count in [
            self.commits,
            self.aborts,
            self.flushes,
            self.compactions,
            self.memory_compactions,
            self.restored_records,
        ] {
            assert!(count > 4, "{self:?}");
        }
    }
}

/// Why a step did not go as it should.
enum Trouble {
    /// The task said so, which is right if an I/O was made to fail.
    Told(Error),
    /// The task is wrong.
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Told(error)
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Wrong(text)
    }
}

type Outcome = Result<(), Trouble>;
type RunOutcome = Result<(), String>;

/// A run of a task that went as it should.
pub(crate) struct TaskRun {
    pub(crate) history: History,
    pub(crate) totals: TaskTotals,
    /// With faults: the disk after some of the errors that were told, by I/O index.
    pub(crate) images: Vec<(u64, SimImage)>,
}

/// Images taken of a run with faults.
const IMAGES_MAX: usize = 3;

/// Carries a list out in `env`, whose faults, if it has any, must show as errors and nothing else.
pub(crate) fn run(list: &TaskList, env: &SimEnv, is_faulty: bool) -> Result<TaskRun, String> {
    let mut history = History::new();
    // A task has all its stores from its first open on; before that, it has nothing in them.
    history.push_names([Some(0), Some(1), Some(INPUTS)], 0, Some(0));
    let mut runner = Runner {
        list,
        env,
        is_faulty,
        opened: None,
        history,
        committed: State::default(),
        acked: State::default(),
        state: State::default(),
        is_undecided: false,
        totals: TaskTotals::default(),
        images: Vec::new(),
    };
    runner.carry_out("at first", Runner::open)?;
    for (index, operation) in list.operations.iter().enumerate() {
        let place = format!("operation {index}, {operation:?}");
        runner.carry_out(&place, |runner| runner.step(operation))?;
    }
    runner.carry_out("at the end", Runner::finish)?;
    Ok(TaskRun {
        history: runner.history,
        totals: runner.totals,
        images: runner.images,
    })
}

struct Runner<'a> {
    list: &'a TaskList,
    env: &'a SimEnv,
    is_faulty: bool,
    opened: Option<Opened>,
    history: History,
    /// As of the last commit that was sent.
    committed: State,
    /// As of the last commit that was acknowledged.
    acked: State,
    /// What reads must see.
    state: State,
    is_undecided: bool,
    totals: TaskTotals,
    images: Vec<(u64, SimImage)>,
}

impl Runner<'_> {
    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().expect("open between operations")
    }

    /// Does one thing, and after an error that was provoked brings the task back.
    fn carry_out(&mut self, place: &str, act: impl FnOnce(&mut Self) -> Outcome) -> RunOutcome {
        let at = |text: &str| format!("{place}: {text}");
        let mut trouble = act(self).err();
        let mut count = 0;
        while let Some(found) = trouble {
            let error = match found {
                Trouble::Told(error) => error,
                Trouble::Wrong(text) => return Err(at(&text)),
            };
            self.surfaced(&error).map_err(|text| at(&text))?;
            count += 1;
            if count == 3 {
                self.env.clear_faults();
            }
            if count > 4 {
                return Err(at(&format!("fails without faults too: {error:?}")));
            }
            trouble = self.bring_back(&error).err();
        }
        Ok(())
    }

    /// Accepts an error if it was provoked.
    fn surfaced(&mut self, error: &Error) -> RunOutcome {
        let is_known = matches!(
            error.kind(),
            ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::Changelog
        );
        if !self.is_faulty || !is_known || self.env.fault_count() == 0 {
            return Err(format!("failed with {error:?}"));
        }
        self.totals.errors += 1;
        if self.images.len() < IMAGES_MAX {
            self.images.push((self.env.io_count(), self.env.capture()));
        }
        Ok(())
    }

    /// Aborts where that helps, and opens the task anew where it does not.
    fn bring_back(&mut self, error: &Error) -> Outcome {
        let was_undecided = self.is_undecided;
        if let Some(opened) = &mut self.opened {
            let is_poisoned = error.kind() == ErrorKind::Poisoned;
            if is_poisoned && opened.task.commit().is_ok() {
                return Err("a commit was acknowledged after a failed sync"
                    .to_owned()
                    .into());
            }
            if !is_poisoned && opened.task.abort().is_ok() {
                // What failed may have come after the commit's end had been seen, as in `idle`.
                if was_undecided && self.shows_committed()? {
                    self.acked = self.committed.clone();
                }
                self.is_undecided = false;
                self.committed = self.acked.clone();
                self.state = self.acked.clone();
                if was_undecided {
                    let sent = self.env.io_count();
                    self.history.push(self.acked.clone(), sent);
                }
                return self.check();
            }
        }
        self.open()
    }

    /// With faults: whatever failed, the task works again.
    fn finish(&mut self) -> Outcome {
        if self.is_faulty {
            self.env.clear_faults();
            self.reopen(false)?;
            self.write(0, 1, Some((9999, 20)))?;
            self.step(&Operation::Commit)?;
            self.opened().task.flush()?;
            self.reopen(true)?;
        }
        self.check()?;
        self.count()
    }

    fn step(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Write { store, key, value } => self.write(*store, *key, *value)?,
            Operation::SetInput { source, position } => {
                let (source, position) = (SOURCES[*source], *position as u64);
                let opened = self.opened();
                opened.task.set_input_position(source, position)?;
                let inputs = self.state.tree_mut(INPUTS);
                inputs.set(source.as_bytes().to_vec(), Some(position_bytes(position)));
            }
            Operation::Commit => {
                // Waits for the one before, if there is one.
                self.wait()?;
                self.begin()?;
                self.wait()?;
                self.totals.commits += 1;
            }
            Operation::BeginCommit => {
                self.wait()?;
                self.begin()?;
            }
            Operation::WaitCommit => self.wait()?,
            Operation::Abort => {
                self.wait()?;
                self.opened().task.abort()?;
                self.committed = self.acked.clone();
                self.state = self.acked.clone();
                self.totals.aborts += 1;
                self.check()?;
            }
            Operation::Idle => self.opened().task.idle()?,
            Operation::Flush => self.opened().task.flush()?,
            Operation::Work(steps) => {
                for _ in 0..*steps {
                    self.opened().runtime.run_pending();
                }
            }
            Operation::Compact => self.opened().log.compact(TASK)?,
            Operation::Reopen => self.reopen(true)?,
            Operation::Abandon => self.reopen(false)?,
        }
        Ok(())
    }

    fn write(&mut self, store: usize, key: usize, value: Option<(usize, usize)>) -> Outcome {
        let key = key_bytes(key);
        let value = value.map(|(tag, len)| value_bytes(tag, len));
        let Opened { task, stores, .. } = self.opened();
        match &value {
            Some(value) => stores[store].put(task, &key, value),
            None => stores[store].delete(task, &key),
        }?;
        let found = stores[store].get(&key)?;
        if found != value {
            return Err(format!("reads {found:?} after the write").into());
        }
        self.state.tree_mut(store).set(key, value);
        Ok(())
    }

    fn begin(&mut self) -> Outcome {
        let sent = self.env.io_count();
        if let Err(error) = self.opened().task.begin_commit() {
            let (state, before) = (self.state.clone(), self.acked.clone());
            self.history.push_failed(state, before, sent);
            return Err(error.into());
        }
        self.committed = self.state.clone();
        self.history.push(self.committed.clone(), sent);
        self.is_undecided = true;
        Ok(())
    }

    fn wait(&mut self) -> Outcome {
        self.opened().task.wait_commit()?;
        if std::mem::take(&mut self.is_undecided) {
            self.history.ack(self.env.io_count(), true);
            self.acked = self.committed.clone();
        }
        Ok(())
    }

    fn reopen(&mut self, close: bool) -> Outcome {
        self.check()?;
        self.count()?;
        let opened = self.opened.take().expect("open between operations");
        let Opened { task, stores, .. } = opened;
        drop(stores);
        if close {
            task.close()?;
            self.history.ack(self.env.io_count(), true);
        } else {
            drop(task);
        }
        self.open()
    }

    /// Opens the task and takes over what it shows, which must be possible after a kill.
    fn open(&mut self) -> Outcome {
        let sent = self.env.io_count();
        self.opened = None;
        let opened = Opened::open(self.env, self.list)?;
        let window = self.history.window(self.env.io_count(), true);
        let records = opened.task.restored().records();
        let found = opened.hashes()?;
        let description = opened.describe()?;
        self.opened = Some(opened);
        self.is_undecided = false;
        let Some((state, _)) = self.history.find(&found, window) else {
            let expected = self.history.describe(window);
            return Err(format!("{expected}found:\n{description}").into());
        };
        self.totals.restored_records += records;
        self.committed = state.clone();
        self.acked = state.clone();
        self.state = state;
        self.history.push(self.state.clone(), sent);
        self.history.ack(self.env.io_count(), true);
        Ok(())
    }

    fn shows_committed(&mut self) -> Result<bool, Trouble> {
        let expected = [0, 1, INPUTS].map(|slot| Some(self.committed.hash(slot)));
        Ok(self.opened().hashes()? == expected)
    }

    fn check(&mut self) -> Outcome {
        let expected = [0, 1, INPUTS].map(|slot| Some(self.state.hash(slot)));
        let opened = self.opened();
        if opened.hashes()? == expected {
            return Ok(());
        }
        Err(format!("reads see\n{}", opened.describe()?).into())
    }

    fn count(&mut self) -> Outcome {
        let stats = self.opened().task.stats()?;
        self.totals.add_stats(&stats);
        match stats.background_error {
            Some(error) if !self.is_faulty => Err(format!("background error: {error}").into()),
            _ => Ok(()),
        }
    }
}
