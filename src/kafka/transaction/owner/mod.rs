//! The owner of a task and its transactions.
//!
//! - `fence`: claiming the task, fencing its former owners, and finding out who owns it.

mod fence;

use std::time::Duration;

use super::answers::{Meaning, Next, is_transport, is_uncertain, meaning, next};
use super::{Coordinator, Decision, Identity, Outcome, Resumed};
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::{Backoff, Deadline};
use crate::kafka::protocol::ErrorCode;

/// How often a request is repeated after an answer that may be a broker's passing trouble as well
/// as a permanent one.
const FEW_MAX: u32 = 10;
/// The pauses while an earlier transaction is being completed, which takes milliseconds.
const SOON_FIRST: Duration = Duration::from_millis(2);
const SOON_LONGEST: Duration = Duration::from_millis(25);

/// What the coordinator has of this owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No transaction.
    Idle,
    /// A transaction with at least one partition, opened at that time of the monotonic clock.
    Open(Duration),
    /// Its end was asked for and not answered yet.
    Ending(Decision),
    /// A request was refused because of its epoch, and who owns the task is still being asked.
    Doubted,
    /// The coordinator ended the transaction by itself; the caller has yet to be told.
    Expired,
    /// Another owner has the task.
    Fenced,
}

/// The owner's side of the transactions of one task. One thread at a time calls it, and each call
/// blocks until it is answered or its deadline is over (`Changelog`; call it again).
#[derive(Debug)]
pub(crate) struct Transactions<C> {
    pub(super) coordinator: C,
    pub(super) identity: Identity,
    partitions: Vec<Partition>,
    /// Which partitions are part of the open transaction.
    added: Vec<bool>,
    /// For each partition, when the request was sent that put the newest marker into it.
    marked: Vec<Duration>,
    state: State,
    /// When the oldest transaction was begun, by the monotonic clock, that may be open at the
    /// coordinator, a fence's among them; until its end is known.
    begun: Option<Duration>,
    /// The answer to a request to end the newest transaction was lost at least once.
    answer_lost: bool,
    /// When the newest request was sent whose answer proved the ownership, by the wall clock.
    proved_ms: u64,
}

/// The end of asking something.
enum Asked<T> {
    Answered(ErrorCode, T),
    /// No answer that counts until the deadline; the newest reason.
    Unanswered(Error),
}

const CLAIM: &str = "claim the transactional id";
const ADD: &str = "add partitions to the transaction";
const END: &str = "end the transaction";

impl<C: Coordinator> Transactions<C> {
    /// Who this owner is now. It changes when an epoch ends, which any call may find out; a
    /// producer then starts its sequences again.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// True if an answer to a request that ended the newest transaction was lost. A copy of the
    /// request may still reach the coordinator, which would end whatever transaction of this epoch
    /// is open then: [`resume`](Self::resume) before the next one.
    pub(crate) fn is_end_uncertain(&self) -> bool {
        self.state == State::Idle && self.answer_lost
    }

    /// Whether no transaction has to be ended before a beat.
    pub(crate) fn is_idle(&self) -> bool {
        !matches!(
            self.state,
            State::Open(_) | State::Ending(_) | State::Expired
        )
    }

    /// Whether the coordinator has ended the transaction by itself: abort.
    pub(crate) fn is_expired(&self) -> bool {
        self.state == State::Expired
    }

    /// Since when (by the monotonic clock) a transaction is open, if one is.
    pub(crate) fn open_since(&self) -> Option<Duration> {
        match self.state {
            State::Open(since) => Some(since),
            _ => None,
        }
    }

    /// When the newest beat was sent: by then every partition had a marker of this owner. By the
    /// monotonic clock, for [`Heartbeat::due`](super::Heartbeat::due).
    pub(crate) fn beat_at(&self) -> Duration {
        self.marked.iter().min().copied().unwrap_or_default()
    }

    /// When the newest request was sent whose answer proved the ownership: milliseconds since
    /// 1970.
    pub(crate) fn proved_ms(&self) -> u64 {
        self.proved_ms
    }

    /// Makes partitions, named by their place in the claim, part of the open transaction, opening
    /// one if there is none; before the first record of it is sent to them.
    ///
    /// # Errors
    ///
    /// `Changelog`: abort, by [`end`](Self::end). `Fenced`, `Closed`.
    pub(crate) fn add(&mut self, partitions: &[usize], deadline: Deadline) -> Result<()> {
        self.check_owned()?;
        match self.state {
            State::Idle | State::Open(_) => {}
            State::Expired => return Err(self.expired()),
            _ => return Err(undecided()),
        }
        let new: Vec<usize> = partitions
            .iter()
            .copied()
            .filter(|&index| !self.added[index])
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        // Open from the first attempt on: its answer may be lost.
        if self.state == State::Idle {
            self.state = State::Open(self.begin());
        }
        let names: Vec<Partition> = new
            .iter()
            .map(|&index| self.partitions[index].clone())
            .collect();
        match self.ask_add(&names, deadline)? {
            Asked::Unanswered(error) => Err(error),
            Asked::Answered(code, proved_ms) => match meaning(code) {
                Meaning::Done => {
                    for index in new {
                        self.added[index] = true;
                    }
                    self.proved_ms = proved_ms;
                    Ok(())
                }
                Meaning::OldEpoch => {
                    self.doubt(code)?;
                    self.settle(deadline)?;
                    self.state = State::Expired;
                    Err(self.expired())
                }
                Meaning::OtherId => Err(self.fenced(code)),
                _ => Err(self.refused(ADD, code)),
            },
        }
    }

    /// A transaction begins; one that may be open already is the same to the coordinator.
    fn begin(&mut self) -> Duration {
        let now = self.coordinator.now().0;
        *self.begun.get_or_insert(now)
    }

    /// Ends the open transaction; a commit without one is answered as aborted. `None`: the answer
    /// is still missing; call it again with the same decision, and nothing else before that. All
    /// records of the transaction must have been acknowledged before a commit.
    ///
    /// # Errors
    ///
    /// `Fenced`: another owner has the task, and a commit may or may not have happened.
    /// `Changelog`: refused, the transaction is still open; abort. `InvalidArgument` for an abort
    /// while a commit is undecided. `Closed`.
    pub(crate) fn end(
        &mut self,
        decision: Decision,
        deadline: Deadline,
    ) -> Result<Option<Outcome>> {
        self.check_owned()?;
        let asked = match (self.state, decision) {
            // Of a commit the caller expects records that were sent: they are in none.
            (State::Idle, _) => {
                return Ok(Some(Outcome::Aborted("no transaction was open".into())));
            }
            (State::Expired, _) => {
                let error = self.expired();
                return Ok(Some(self.ended(Outcome::Aborted(error.to_string()))));
            }
            (State::Doubted, _) => return self.settle_end(deadline),
            (State::Ending(Decision::Commit), Decision::Abort) => return Err(undecided()),
            // Whoever asks for an abort, or is told to abort, has no commit any more.
            (State::Ending(begun), _) => begun,
            (State::Open(_), _) => {
                self.answer_lost = false;
                decision
            }
            (State::Fenced, _) => unreachable!("checked above"),
        };
        self.state = State::Ending(asked);
        let sent = self.coordinator.now();
        match self.ask_end(asked, deadline)? {
            Asked::Unanswered(_) => Ok(None),
            Asked::Answered(code, ()) => self.take_end(asked, code, sent, deadline),
        }
    }

    /// What the answer to the end of a transaction means.
    fn take_end(
        &mut self,
        asked: Decision,
        code: ErrorCode,
        sent: (Duration, u64),
        deadline: Deadline,
    ) -> Result<Option<Outcome>> {
        match (meaning(code), asked) {
            (Meaning::Done, Decision::Commit) => {
                self.mark(sent);
                Ok(Some(self.ended(Outcome::Committed)))
            }
            (Meaning::Done, Decision::Abort) => {
                self.mark(sent);
                Ok(Some(self.ended(Outcome::Aborted("as asked for".into()))))
            }
            // A commit that had happened would be answered as done again.
            (Meaning::NoTransaction, _) => {
                let reason = format!("the coordinator has no open transaction: {code}");
                Ok(Some(self.ended(Outcome::Aborted(reason))))
            }
            (Meaning::OldEpoch, _) => {
                self.doubt(code)?;
                self.settle_end(deadline)
            }
            (Meaning::OtherId, _) => Err(self.fenced(code)),
            (Meaning::Abortable, Decision::Commit) => {
                self.state = State::Ending(Decision::Abort);
                self.end(Decision::Abort, deadline)
            }
            // Broker's trouble that did not pass: it may have been carried out.
            _ if self.answer_lost && is_uncertain(code) => Ok(None),
            _ => {
                self.state = State::Open(self.begun.unwrap_or(sent.0));
                Err(self.refused(END, code))
            }
        }
    }

    fn settle_end(&mut self, deadline: Deadline) -> Result<Option<Outcome>> {
        match self.settle(deadline) {
            Ok(()) => {
                let error = self.expired();
                Ok(Some(self.ended(Outcome::Aborted(error.to_string()))))
            }
            Err(error) if error.kind() == ErrorKind::Changelog => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Continues under a new epoch (or a new id, when the epochs are used up), aborting an open
    /// transaction first. Sequences start again.
    ///
    /// # Errors
    ///
    /// `Fenced` if another owner has the task; `InvalidArgument` while a commit is undecided;
    /// `Unsupported` where the brokers cannot tell the two apart; `Changelog`, `Closed`.
    pub(crate) fn resume(&mut self, deadline: Deadline) -> Result<Resumed> {
        self.check_owned()?;
        let id = self.identity.id;
        match self.state {
            State::Expired | State::Doubted => self.settle(deadline)?,
            State::Idle if self.begun.is_none() => self.settle(deadline)?,
            State::Ending(Decision::Commit) => return Err(undecided()),
            State::Idle | State::Open(_) | State::Ending(Decision::Abort) => {
                // A fence whose end is not known may be open as well.
                if let (State::Idle, Some(begun)) = (self.state, self.begun) {
                    self.state = State::Open(begun);
                }
                // The claim of a next epoch while a transaction is open would count as an
                // attack by oneself. An abort that finds an old epoch has settled it already.
                let before = self.identity;
                if self.end(Decision::Abort, deadline)?.is_none() {
                    return Err(self.unanswered(END));
                }
                if self.identity == before {
                    self.settle(deadline)?;
                }
            }
            State::Fenced => unreachable!("checked above"),
        }
        self.state = State::Idle;
        self.added.fill(false);
        Ok(Resumed {
            identity: self.identity,
            has_new_id: self.identity.id != id,
        })
    }

    fn ask_add(&mut self, partitions: &[Partition], deadline: Deadline) -> Result<Asked<u64>> {
        let identity = self.identity;
        self.ask(ADD, deadline, |coordinator| {
            let (_, sent_ms) = coordinator.now();
            let code = coordinator.add_partitions(identity, partitions, deadline)?;
            Ok((code, sent_ms))
        })
    }

    fn ask_end(&mut self, decision: Decision, deadline: Deadline) -> Result<Asked<()>> {
        let identity = self.identity;
        self.ask(END, deadline, |coordinator| {
            let code = coordinator.end_transaction(identity, decision, deadline)?;
            Ok((code, ()))
        })
    }

    /// Asks until there is an answer that counts, at least once.
    fn ask<T>(
        &mut self,
        what: &'static str,
        deadline: Deadline,
        mut call: impl FnMut(&mut C) -> Result<(ErrorCode, T)>,
    ) -> Result<Asked<T>> {
        let mut backoff = Backoff::requests();
        let mut soon = Backoff::new(SOON_FIRST, SOON_LONGEST);
        let mut few = 0;
        loop {
            let mut is_soon = false;
            let reason = match call(&mut self.coordinator) {
                Ok((code, answer)) => {
                    self.answer_lost |= is_uncertain(code);
                    match next(code) {
                        Next::Take => return Ok(Asked::Answered(code, answer)),
                        Next::Few if few == FEW_MAX => return Ok(Asked::Answered(code, answer)),
                        Next::Few => few += 1,
                        Next::Again => {}
                        Next::AgainSoon => is_soon = true,
                        Next::Find => self.coordinator.find_anew(),
                    }
                    Error::new(ErrorKind::Changelog, code.to_string())
                }
                Err(error) if is_transport(&error) => {
                    self.answer_lost = true;
                    self.coordinator.find_anew();
                    error
                }
                Err(error) => return Err(error),
            };
            if self.coordinator.is_over(deadline) {
                let unanswered = self.unanswered(what).with_source(reason);
                return Ok(Asked::Unanswered(unanswered));
            }
            let pause = if is_soon { &mut soon } else { &mut backoff };
            self.coordinator.pause(pause, deadline)?;
        }
    }

    /// Every partition of the transaction has a marker that was asked for at `sent`.
    fn mark(&mut self, sent: (Duration, u64)) {
        for (marked, added) in self.marked.iter_mut().zip(&self.added) {
            if *added {
                *marked = sent.0;
            }
        }
        self.proved_ms = self.proved_ms.max(sent.1);
    }

    /// Nothing is open any more.
    fn ended(&mut self, outcome: Outcome) -> Outcome {
        self.state = State::Idle;
        self.added.fill(false);
        self.begun = None;
        outcome
    }

    fn check_owned(&self) -> Result<()> {
        match self.state {
            State::Fenced => Err(Error::new(
                ErrorKind::Fenced,
                format!("{} has a newer owner", self.coordinator.transactional_id()),
            )),
            _ => Ok(()),
        }
    }

    fn fenced(&mut self, code: ErrorCode) -> Error {
        self.state = State::Fenced;
        Error::new(
            ErrorKind::Fenced,
            format!(
                "{} has a newer owner than producer id {} with epoch {}: {code}",
                self.coordinator.transactional_id(),
                self.identity.id,
                self.identity.epoch
            ),
        )
    }

    fn expired(&self) -> Error {
        Error::new(
            ErrorKind::Changelog,
            format!(
                "the coordinator aborted the transaction of {}, which was open for too long",
                self.coordinator.transactional_id()
            ),
        )
    }

    fn refused(&self, what: &str, code: ErrorCode) -> Error {
        let id = self.coordinator.transactional_id();
        Error::new(ErrorKind::Changelog, format!("{what} {id}: {code}"))
    }

    fn unanswered(&self, what: &str) -> Error {
        let id = self.coordinator.transactional_id();
        Error::new(
            ErrorKind::Changelog,
            format!("{what} {id}: no answer in time"),
        )
    }
}

fn undecided() -> Error {
    Error::invalid("the end of a transaction is not decided yet")
}
