//! What a task may do next: the rules of who may follow whom, apart from what the calls do.

use super::inputs::Inputs;
use crate::changelog::{CommitId, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Mark;

/// A commit that was sent and whose outcome is not known yet.
#[derive(Debug)]
pub(super) struct Undecided {
    /// What it covers of the local state.
    pub(super) mark: Mark,
    /// Which commit of the session is waited for.
    pub(super) id: CommitId,
    /// Input positions that follow in a commit of their own, where a commit is not atomic.
    pub(super) inputs: Inputs,
    /// The positions of the records, once those are committed and the input positions are not.
    pub(super) records: Option<Vec<Position>>,
}

/// Where a task stands. A task that is `dead` stays so; one that has `failed` needs an abort;
/// `undecided` is apart from both, as writes go on behind a commit that was sent.
#[derive(Debug, Default)]
pub(super) struct Status {
    dead: Option<Error>,
    failed: Option<Error>,
    pub(super) undecided: Option<Undecided>,
}

impl Status {
    /// Whether anything can go on at all.
    pub(super) fn check_alive(&self) -> Result<()> {
        match &self.dead {
            Some(error) => Err(error.context("the task has ended and must be opened anew")),
            None => Ok(()),
        }
    }

    /// Whether the task takes writes and commits.
    pub(super) fn check_write(&self) -> Result<()> {
        self.check_alive()?;
        match &self.failed {
            Some(error) => Err(error
                .into_kind(ErrorKind::Changelog)
                .context("the task must abort, for a write or a commit has failed")),
            None => Ok(()),
        }
    }

    /// Whether no commit is on its way.
    pub(super) fn check_decided(&self) -> Result<()> {
        if self.undecided.is_some() {
            return Err(Error::invalid(
                "a commit was sent and its outcome is not known: poll it or wait for it first",
            ));
        }
        Ok(())
    }

    pub(super) fn is_alive(&self) -> bool {
        self.dead.is_none()
    }

    /// Notes an error of a call that may leave the two sides apart; only an abort helps then, or
    /// nothing at all.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        if is_final(error.kind()) {
            return self.die(error);
        }
        self.failed.get_or_insert_with(|| error.clone());
        error
    }

    /// Notes an error of a call that has changed nothing where it says so.
    pub(super) fn note(&mut self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::MemoryLimit | ErrorKind::InvalidArgument => error,
            _ => self.fail(error),
        }
    }

    /// Notes an error of a call after which everything is as before, unless the error is final.
    pub(super) fn note_final(&mut self, error: Error) -> Error {
        if is_final(error.kind()) {
            self.die(error)
        } else {
            error
        }
    }

    /// Ends the task for good.
    pub(super) fn die(&mut self, error: Error) -> Error {
        self.undecided = None;
        self.dead.get_or_insert_with(|| error.clone());
        error
    }

    /// An abort has brought both sides together.
    pub(super) fn aborted(&mut self) {
        self.failed = None;
    }
}

/// True where this owner can never write again.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Fenced
            | ErrorKind::Poisoned
            | ErrorKind::Diverged
            | ErrorKind::Closed
            | ErrorKind::Corruption
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "x")
    }

    #[test]
    fn a_failure_asks_for_an_abort_and_a_final_one_for_more() {
        let mut status = Status::default();
        status.note(error(ErrorKind::MemoryLimit));
        status.check_write().unwrap();
        status.note(error(ErrorKind::Io));
        let told = status.check_write().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Changelog);
        assert!(told.to_string().contains("must abort"), "{told}");
        status.check_alive().unwrap();
        status.aborted();
        status.check_write().unwrap();
        status.note(error(ErrorKind::Fenced));
        status.note(error(ErrorKind::Poisoned));
        assert_eq!(status.check_alive().unwrap_err().kind(), ErrorKind::Fenced);
        status.aborted();
        assert_eq!(status.check_write().unwrap_err().kind(), ErrorKind::Fenced);
    }

    #[test]
    fn a_call_without_effect_leaves_the_task_as_it_was() {
        let mut status = Status::default();
        status.note_final(error(ErrorKind::Changelog));
        status.check_write().unwrap();
        status.note_final(error(ErrorKind::Fenced));
        assert!(!status.is_alive());
    }
}
