//! Commits and aborts, heartbeats, and the end of a task.

use crate::batch::WriteBatch;
use crate::changelog::{CommitId, Guarantee, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::planted::{Bug, planted};
use crate::store::serde::{Serde, U64};

use super::inputs::Inputs;
use super::local::publish;
use super::status::Undecided;
use super::{Task, Write};

/// What closing a task did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Writes that no commit covered; they were taken back.
    pub aborted_writes: u64,
}

/// How to ask for the outcome of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Poll,
    Wait,
}

impl Task {
    /// Makes everything that was written since the last commit count, and waits until it does:
    /// the changelog has it then, as durable as that is. Nothing is flushed locally for it.
    ///
    /// # Errors
    ///
    /// `Changelog`: nothing of it counts (with [`Guarantee::PerBatch`], some records may be
    /// visible); abort, then go on. `Fenced`, and others that are final: see
    /// [above](Self#when-something-fails). Where the outcome cannot be found out any more
    /// (`Poisoned`), the next open finds it.
    pub fn commit(&mut self) -> Result<()> {
        self.wait_commit()?;
        self.begin_commit()?;
        self.wait_commit()
    }

    /// Sends everything that was written since the last commit, without waiting for the outcome.
    /// Writes may go on; they belong to the next commit.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` while the commit before is not decided; `Changelog` asks for an abort;
    /// others as [`commit`](Self::commit).
    pub fn begin_commit(&mut self) -> Result<()> {
        self.status.check_write()?;
        self.status.check_decided()?;
        let inputs = std::mem::take(&mut self.inputs);
        if !planted(Bug::InputPositionInNextCommit) {
            self.write_inputs(&inputs)?;
        }
        // The two marks are taken together: nothing is written in between.
        let mark = self.db.mark().map_err(|error| self.status.fail(error))?;
        let id = self
            .session
            .prepare()
            .map_err(|error| self.status.fail(error))?;
        if planted(Bug::InputPositionInNextCommit) {
            self.write_inputs(&inputs)?;
        }
        if planted(Bug::ReleaseBeforeAnswer) {
            self.db.release(mark, self.positions.encode())?;
        }
        self.undo.sent();
        let inputs = match self.guarantee {
            Guarantee::Atomic => Inputs::default(),
            Guarantee::PerBatch => inputs,
        };
        self.status.undecided = Some(Undecided {
            mark,
            id,
            inputs,
            records: None,
        });
        Ok(())
    }

    /// Asks whether the commit that was sent is decided: true once it counts, and also if there
    /// is none.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn poll_commit(&mut self) -> Result<bool> {
        self.ask(Patience::Poll)
    }

    /// Waits until the commit that was sent counts; returns at once if there is none.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn wait_commit(&mut self) -> Result<()> {
        let decided = self.ask(Patience::Wait)?;
        debug_assert!(decided, "a wait ends with an outcome");
        Ok(())
    }

    /// Takes back everything since the last commit: the stores, and the input positions, are as
    /// that left them. Returns how many writes that were.
    ///
    /// Snapshots and iterators that saw them answer `Aborted`. With [`Guarantee::PerBatch`] this
    /// waits for the changelog, where what was sent already is overwritten.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` while the outcome of a commit is not known: nothing changed;
    /// `Changelog`: call it again; final ones.
    pub fn abort(&mut self) -> Result<u64> {
        self.status.check_alive()?;
        self.status.check_decided()?;
        self.session
            .abort()
            .map_err(|error| self.status.fail(error))?;
        let writes = self.db.abort().map_err(|error| self.status.fail(error))?;
        if !planted(Bug::AbortKeepsInputs) {
            self.inputs = Inputs::default();
        }
        if self.guarantee == Guarantee::PerBatch {
            self.undo_sent().map_err(|error| self.status.fail(error))?;
        }
        self.status.aborted();
        Ok(writes)
    }

    /// Keeps a quiet task alive: proves to the changelog that this owner is still there, and
    /// brings the time of the local positions up to date, so that a later open need not rebuild.
    /// To be called when there was no commit for a while: every minute, say.
    ///
    /// # Errors
    ///
    /// `Fenced`, and others that are final; `Changelog`, `Locked`, `Io`: nothing is proved, call
    /// it again; what an abort is needed for.
    pub fn idle(&mut self) -> Result<()> {
        if !self.poll_commit()? {
            return Ok(());
        }
        self.status.check_write()?;
        let positions = self.session.idle_positions();
        let positions = positions.map_err(|error| self.status.note_final(error))?;
        if self.db.has_unreleased() {
            return Ok(());
        }
        self.advance(positions);
        publish(&self.db, &self.positions).map_err(|error| self.status.note_final(error))
    }

    /// Moves everything that was committed into tables, durable on return. Never needed: it
    /// shortens the next open.
    ///
    /// # Errors
    ///
    /// `Io`, `Poisoned`, `Closed`.
    pub fn flush(&mut self) -> Result<()> {
        self.db.flush()
    }

    /// Ends the task in good order: waits for a commit that was sent, takes back what no commit
    /// covers, moves the rest into tables and stores how far they reach. Handles of its stores
    /// answer `Closed` from then on.
    ///
    /// # Errors
    ///
    /// The first thing that could not be done; the task is closed all the same, and nothing that
    /// was committed is lost.
    pub fn close(mut self) -> Result<Closed> {
        let mut result = self.settle();
        let mut also = |other: Result<()>| {
            if let (Ok(_), Err(error)) = (&result, other) {
                result = Err(error);
            }
        };
        also(self.db.flush());
        if self.status.is_alive() {
            let positions = self.session.idle_positions();
            also(positions.and_then(|positions| {
                self.advance(positions);
                publish(&self.db, &self.positions)
            }));
        }
        let Self { session, db, .. } = self;
        also(session.close());
        also(db.close());
        result.map(|aborted_writes| Closed { aborted_writes })
    }

    /// Leaves nothing that does not count. A task that has ended cannot ask the changelog for
    /// anything any more; its local side can still be brought to its last commit.
    fn settle(&mut self) -> Result<u64> {
        let waited = self.wait_commit();
        if !self.status.is_alive() {
            let writes = self.db.abort();
            return self.status.check_alive().and(writes);
        }
        let writes = self.abort()?;
        waited.map(|()| writes)
    }

    fn ask(&mut self, patience: Patience) -> Result<bool> {
        self.status.check_alive()?;
        while let Some(undecided) = &self.status.undecided {
            let outcome = match patience {
                Patience::Poll => self.session.poll(undecided.id),
                Patience::Wait => self.session.wait(undecided.id).map(Some),
            };
            match outcome {
                Ok(None) => return Ok(false),
                Ok(Some(positions)) => self.proceed(positions)?,
                Err(error) => return Err(self.refused(error)),
            }
        }
        Ok(true)
    }

    /// The commit of the session that was waited for has succeeded.
    fn proceed(&mut self, mut positions: Vec<Position>) -> Result<()> {
        let mut undecided = self
            .status
            .undecided
            .take()
            .expect("a commit was waited for");
        if let Some(records) = undecided.records.take() {
            // Records of the next commit may have gone out with the input positions, and are not
            // below the mark: the others' positions are those of the first answer.
            let inputs = positions.swap_remove(self.inputs_index());
            positions = records;
            positions[self.stores.len() - 1] = inputs;
        } else if !undecided.inputs.is_empty() {
            // All that they cover is acknowledged; now they may follow.
            undecided.id = self.send_inputs(&undecided.inputs)?;
            undecided.records = Some(positions);
            self.status.undecided = Some(undecided);
            return Ok(());
        }
        self.advance(positions);
        self.undo.committed();
        let released = self.db.release(undecided.mark, self.positions.encode());
        // The changelog has the commit, so only what is final can go wrong here; a task that is
        // opened anew reads it from there.
        released.map_err(|error| self.status.die(error))
    }

    /// The commit of the session that was waited for has failed, or its fate is unknown for good.
    fn refused(&mut self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Changelog => {
                self.status.undecided = None;
                self.status.fail(error)
            }
            _ => self.status.die(error),
        }
    }

    /// Writes the last input positions to the local side, and, where a commit is atomic, to the
    /// changelog.
    fn write_inputs(&mut self, inputs: &Inputs) -> Result<()> {
        if inputs.is_empty() {
            return Ok(());
        }
        let index = self.inputs_index();
        let mut batch = WriteBatch::new();
        for (source, position) in inputs.iter() {
            batch.put(&self.stores[index].keyspace, source, position.to_be_bytes())?;
        }
        // A commit is what frees memory, so it must not fail for want of some.
        self.db
            .write_anyway(batch)
            .map_err(|error| self.status.fail(error))?;
        if self.guarantee == Guarantee::Atomic {
            return self.append_inputs(inputs);
        }
        for (source, _) in inputs.iter() {
            self.undo.note(index, source.as_bytes());
        }
        Ok(())
    }

    fn append_inputs(&mut self, inputs: &Inputs) -> Result<()> {
        let index = self.inputs_index();
        for (source, position) in inputs.iter() {
            let mut value = Vec::new();
            U64.encode(&position, &mut value)?;
            let write = Write {
                key: source.as_bytes(),
                value: Some(&value),
            };
            self.append(index, &[write])?;
        }
        Ok(())
    }

    /// Sends input positions in a commit of their own.
    fn send_inputs(&mut self, inputs: &Inputs) -> Result<CommitId> {
        self.append_inputs(inputs)?;
        self.session
            .prepare()
            .map_err(|error| self.status.fail(error))
    }

    /// Overwrites what an aborted commit may have left in the changelog with what the keys hold
    /// now, the input positions first: while they tell of what is being undone, a restore would
    /// take it for done.
    fn undo_sent(&mut self) -> Result<()> {
        let (inputs, others): (Vec<_>, Vec<_>) = self
            .undo
            .keys()
            .into_iter()
            .partition(|(index, _)| *index == self.inputs_index());
        for keys in [inputs, others] {
            for (index, key) in &keys {
                let store = &self.stores[*index];
                let value = store.keyspace.get(key)?;
                let record = store.kind.record(key, value.as_deref(), self.now_ms())?;
                match self.session.reserve(record.size()) {
                    Err(error) if error.kind() == ErrorKind::MemoryLimit => self.commit_undo()?,
                    reserved => reserved?,
                }
                self.session.append(*index, record)?;
            }
            if !keys.is_empty() {
                self.commit_undo()?;
            }
        }
        self.undo.clear();
        Ok(())
    }

    fn commit_undo(&mut self) -> Result<()> {
        let id = self.session.prepare()?;
        let positions = self.session.wait(id)?;
        self.advance(positions);
        Ok(())
    }

    fn advance(&mut self, positions: Vec<Position>) {
        assert_eq!(
            positions.len(),
            self.stores.len(),
            "a session tells all its positions"
        );
        for (store, position) in self.stores.iter().zip(positions) {
            self.positions.advance(&store.name, position);
        }
    }
}
