//! Claiming a task, fencing its former owners, and finding out who owns it.

use std::time::Duration;

use super::super::answers::{Meaning, meaning};
use super::super::{Coordinator, Decision, Identity};
use super::{ADD, Asked, CLAIM, END, State, Transactions, undecided};
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::Deadline;
use crate::kafka::protocol::ErrorCode;

/// The last epoch that an owner is given; the next one gets another producer id.
const EPOCH_MAX: i16 = i16::MAX - 1;

impl<C: Coordinator> Transactions<C> {
    /// Becomes the owner of the task and fences every former one in all `partitions`.
    ///
    /// When it returns, no transaction of a former owner can be committed any more. The marker
    /// of the fence appears in the partitions a moment later; what a former owner wrote without
    /// transactions may lie before it, never behind it.
    ///
    /// # Errors
    ///
    /// `Fenced` if somebody else claimed the task meanwhile; `InvalidArgument` for a transaction
    /// timeout that the broker does not allow; `Changelog`, `Unsupported`, `Closed`.
    pub(crate) fn claim(
        coordinator: C,
        partitions: Vec<Partition>,
        deadline: Deadline,
    ) -> Result<Self> {
        let (_, proved_ms) = coordinator.now();
        let mut transactions = Self {
            added: vec![false; partitions.len()],
            marked: vec![Duration::ZERO; partitions.len()],
            coordinator,
            identity: Identity { id: -1, epoch: -1 },
            partitions,
            state: State::Idle,
            begun: None,
            answer_lost: false,
            proved_ms,
        };
        transactions.identity = transactions.init(None, deadline)?;
        loop {
            match transactions.fence(deadline) {
                // See `is_end_uncertain`.
                Ok(()) if transactions.answer_lost => {
                    if transactions.coordinator.is_over(deadline) {
                        return Err(transactions.unanswered(CLAIM));
                    }
                    // A claim of nobody in particular would fence whoever came meanwhile.
                    let own = transactions.identity;
                    let resume = transactions.can_resume(deadline)?.then_some(own);
                    transactions.identity = transactions.init(resume, deadline)?;
                }
                Ok(()) => return Ok(transactions),
                // A moment after its claim an owner has nothing that could have been timed out.
                Err(_) if transactions.state == State::Doubted => {
                    return Err(transactions.fenced(ErrorCode::PRODUCER_FENCED));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Renews the fence by an empty transaction, and proves the ownership. Answers when the
    /// request was sent that proved it: milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` while a transaction is open or undecided; `Fenced`; `Changelog`: nothing
    /// is proved, call it again; `Closed`.
    pub(crate) fn beat(&mut self, deadline: Deadline) -> Result<u64> {
        self.check_owned()?;
        match self.state {
            State::Idle => {}
            State::Doubted => {
                self.settle(deadline)?;
                self.state = State::Idle;
            }
            _ => return Err(undecided()),
        }
        self.fence(deadline)?;
        Ok(self.proved_ms)
    }

    /// Proves the ownership: within a transaction by adding a partition of it once more, else by a
    /// beat.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add) and [`beat`](Self::beat); `Changelog` while a transaction has to be
    /// ended first.
    pub(crate) fn prove(&mut self, deadline: Deadline) -> Result<u64> {
        let added = self.added.iter().position(|added| *added);
        match (self.state, added) {
            (State::Open(_), Some(index)) => {
                self.added[index] = false;
                let added = self.add(&[index], deadline);
                // It is part of the transaction whatever became of the question.
                self.added[index] = matches!(self.state, State::Open(_));
                added.map(|()| self.proved_ms)
            }
            (State::Expired, _) => Err(self.expired()),
            _ if !self.is_idle() => Err(undecided().into_kind(ErrorKind::Changelog)),
            _ => self.beat(deadline),
        }
    }

    /// The epoch is old: there is another owner, or the coordinator has ended a transaction that
    /// was open for too long. It is asked only where it can be the latter, for the question itself
    /// aborts whatever transaction a new owner has open.
    pub(super) fn doubt(&mut self, code: ErrorCode) -> Result<()> {
        let now = self.coordinator.now().0;
        let age = self
            .begun
            .map_or(Duration::ZERO, |begun| now.saturating_sub(begun));
        if age < self.coordinator.transaction_timeout() {
            return Err(self.fenced(code));
        }
        self.state = State::Doubted;
        Ok(())
    }

    /// Asks who owns the task by claiming the epoch after one's own, which only its newest owner
    /// is given.
    pub(super) fn settle(&mut self, deadline: Deadline) -> Result<()> {
        if !self.can_resume(deadline)? {
            if self.state == State::Doubted {
                return Err(self.fenced(ErrorCode::PRODUCER_FENCED));
            }
            return Err(Error::unsupported(format!(
                "the brokers are too old to let {} continue under a new epoch: claim it again",
                self.coordinator.transactional_id()
            )));
        }
        let before = self.identity;
        self.identity = self.init(Some(before), deadline)?;
        // What is late now is of an old epoch, and what was open is not any more.
        self.answer_lost = false;
        self.begun = None;
        self.added.fill(false);
        if self.identity.id == before.id {
            return Ok(());
        }
        // Another id with epochs left means that the coordinator had forgotten this owner, and
        // maybe another one since.
        if before.epoch < EPOCH_MAX {
            return Err(self.fenced(ErrorCode::INVALID_PRODUCER_ID_MAPPING));
        }
        self.fence(deadline)
    }

    fn can_resume(&mut self, deadline: Deadline) -> Result<bool> {
        let asked = self.ask(CLAIM, deadline, |coordinator| {
            Ok((ErrorCode::NONE, coordinator.can_resume(deadline)?))
        })?;
        match asked {
            Asked::Unanswered(error) => Err(error),
            Asked::Answered(_, can_resume) => Ok(can_resume),
        }
    }

    fn init(&mut self, resume: Option<Identity>, deadline: Deadline) -> Result<Identity> {
        let asked = self.ask(CLAIM, deadline, |coordinator| {
            coordinator.init_producer_id(resume, deadline)
        })?;
        match asked {
            Asked::Unanswered(error) => Err(error),
            Asked::Answered(code, identity) => match meaning(code) {
                Meaning::Done if identity.id >= 0 && identity.epoch >= 0 => Ok(identity),
                Meaning::Done => Err(Error::corruption(format!(
                    "the coordinator answered producer id {} with epoch {}",
                    identity.id, identity.epoch
                ))),
                Meaning::OldEpoch | Meaning::OtherId => Err(self.fenced(code)),
                _ if code == ErrorCode::INVALID_TRANSACTION_TIMEOUT => Err(Error::invalid(
                    "the transaction timeout is above transaction.max.timeout.ms of the brokers",
                )),
                _ => Err(self.refused(CLAIM, code)),
            },
        }
    }

    /// An empty transaction over all partitions.
    fn fence(&mut self, deadline: Deadline) -> Result<()> {
        if self.partitions.is_empty() {
            // Nothing was opened that a late request could end.
            self.answer_lost = false;
            return Ok(());
        }
        let all = self.partitions.clone();
        self.begin();
        let proved_ms = match self.ask_add(&all, deadline)? {
            Asked::Unanswered(error) => return Err(error),
            Asked::Answered(code, proved_ms) => {
                self.check_fence(ADD, code)?;
                proved_ms
            }
        };
        self.answer_lost = false;
        let sent = self.coordinator.now();
        match self.ask_end(Decision::Abort, deadline)? {
            Asked::Unanswered(error) => return Err(error),
            Asked::Answered(code, ()) => {
                if meaning(code) == Meaning::NoTransaction {
                    self.begun = None;
                }
                self.check_fence(END, code)?;
            }
        }
        self.begun = None;
        self.marked.fill(sent.0);
        self.proved_ms = proved_ms;
        Ok(())
    }

    fn check_fence(&mut self, what: &str, code: ErrorCode) -> Result<()> {
        match meaning(code) {
            Meaning::Done => Ok(()),
            Meaning::OtherId => Err(self.fenced(code)),
            // A stall between the two requests looks the same as another owner.
            Meaning::OldEpoch => {
                self.doubt(code)?;
                Err(self.refused(what, code))
            }
            _ => Err(self.refused(what, code)),
        }
    }
}
