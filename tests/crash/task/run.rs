//! Carrying a list of operations of a task out, while the model follows.

use siltstone::Stats;
use siltstone::env::sim::SimEnv;

use crate::model::{History, State};
use crate::operation::{key_bytes, value_bytes};

use super::list::{Operation, TaskList};
use super::{INPUTS, Opened, Outcome, SOURCES, TASK, position_bytes, text};

/// What happened over all lists, to see that everything did.
#[derive(Debug, Default, Clone)]
pub(crate) struct TaskTotals {
    commits: u64,
    aborts: u64,
    flushes: u64,
    compactions: u64,
    memory_compactions: u64,
    restored_records: u64,
}

impl TaskTotals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.aborts += other.aborts;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.memory_compactions += other.memory_compactions;
        self.restored_records += other.restored_records;
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

/// Carries a list out in `env`.
pub(crate) fn run(list: &TaskList, env: &SimEnv) -> Result<(History, TaskTotals), String> {
    let mut history = History::new();
    // A task has all its stores from its first open on; before that, it has nothing in them.
    history.push_names([Some(0), Some(1), Some(INPUTS)], 0, Some(0));
    let mut runner = Runner {
        list,
        env,
        opened: None,
        history,
        committed: State::default(),
        state: State::default(),
        is_undecided: false,
        totals: TaskTotals::default(),
    };
    runner.open()?;
    for (index, operation) in list.operations.iter().enumerate() {
        runner
            .step(operation)
            .map_err(|error| format!("operation {index}, {operation:?}: {error}"))?;
    }
    runner.check()?;
    runner.count()?;
    Ok((runner.history, runner.totals))
}

struct Runner<'a> {
    list: &'a TaskList,
    env: &'a SimEnv,
    opened: Option<Opened>,
    history: History,
    /// As of the last commit that was sent.
    committed: State,
    /// What reads must see.
    state: State,
    is_undecided: bool,
    totals: TaskTotals,
}

impl Runner<'_> {
    fn opened(&mut self) -> &mut Opened {
        self.opened.as_mut().expect("open between operations")
    }

    fn step(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Write { store, key, value } => self.write(*store, *key, *value)?,
            Operation::SetInput { source, position } => {
                let (source, position) = (SOURCES[*source], *position as u64);
                let opened = self.opened();
                opened
                    .task
                    .set_input_position(source, position)
                    .map_err(text)?;
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
                self.opened().task.abort().map_err(text)?;
                self.state = self.committed.clone();
                self.totals.aborts += 1;
                self.check()?;
            }
            Operation::Idle => self.opened().task.idle().map_err(text)?,
            Operation::Flush => self.opened().task.flush().map_err(text)?,
            Operation::Work(steps) => {
                for _ in 0..*steps {
                    self.opened().runtime.run_pending();
                }
            }
            Operation::Compact => self.opened().log.compact(TASK).map_err(text)?,
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
        }
        .map_err(text)?;
        let found = stores[store].get(&key).map_err(text)?;
        if found != value {
            return Err(format!("reads {found:?} after the write"));
        }
        self.state.tree_mut(store).set(key, value);
        Ok(())
    }

    fn begin(&mut self) -> Outcome {
        let sent = self.env.io_count();
        self.opened().task.begin_commit().map_err(text)?;
        self.committed = self.state.clone();
        self.history.push(self.committed.clone(), sent);
        self.is_undecided = true;
        Ok(())
    }

    fn wait(&mut self) -> Outcome {
        self.opened().task.wait_commit().map_err(text)?;
        if std::mem::take(&mut self.is_undecided) {
            self.history.ack(self.env.io_count(), true);
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
            task.close().map_err(text)?;
            self.history.ack(self.env.io_count(), true);
        } else {
            drop(task);
        }
        self.open()
    }

    /// Opens the task and takes over what it shows, which must be possible after a kill.
    fn open(&mut self) -> Outcome {
        let sent = self.env.io_count();
        self.opened = Some(Opened::open(self.env, self.list).map_err(text)?);
        self.is_undecided = false;
        let window = self.history.window(self.env.io_count(), true);
        let opened = self.opened();
        let records = opened.task.restored().records();
        let found = opened.hashes().map_err(text)?;
        let description = opened.describe().map_err(text)?;
        let Some((state, _)) = self.history.find(&found, window) else {
            let expected = self.history.describe(window);
            return Err(format!("{expected}found:\n{description}"));
        };
        self.totals.restored_records += records;
        self.committed = state.clone();
        self.state = state;
        self.history.push(self.state.clone(), sent);
        self.history.ack(self.env.io_count(), true);
        Ok(())
    }

    fn check(&mut self) -> Outcome {
        let expected = [0, 1, INPUTS].map(|slot| Some(self.state.hash(slot)));
        let opened = self.opened();
        if opened.hashes().map_err(text)? == expected {
            return Ok(());
        }
        Err(format!("reads see\n{}", opened.describe().map_err(text)?))
    }

    fn count(&mut self) -> Outcome {
        let stats = self.opened().task.stats().map_err(text)?;
        self.totals.add_stats(&stats);
        match stats.background_error {
            Some(error) => Err(format!("background error: {error}")),
            None => Ok(()),
        }
    }
}
