//! The transactions of one task: who owns it, its fence, its commits.
//!
//! Every task has one *transactional id*. Claiming it (`InitProducerId`) gives the claimant the
//! same producer id as its predecessor with a higher epoch; an empty transaction over all
//! partitions of the task then puts a marker with that epoch into each of them, and from there on
//! their leaders refuse lower epochs: the fence. Repeated now and then it keeps the brokers from
//! forgetting it ([`Heartbeat`]).
//!
//! - `answers`: what the coordinator's error codes mean.
//! - `coordinator`: the calls over the network.
//! - `heartbeat`: when the fence has to be renewed.
//! - `owner`: claiming, fencing, committing over those calls.

mod answers;
mod coordinator;
mod heartbeat;
mod owner;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::connection::{Backoff, Deadline};
use super::protocol::ErrorCode;
use crate::changelog::{Owner, Partition};
use crate::error::Result;

pub(crate) use coordinator::BrokerCoordinator;
pub(crate) use heartbeat::{Due, Heartbeat};
pub(crate) use owner::Transactions;

/// A producer id with its epoch: one owner of a task among all that it ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

impl Identity {
    /// The same as positions carry it.
    pub(crate) fn owner(self) -> Owner {
        Owner {
            id: self.id.cast_unsigned(),
            epoch: u32::from(self.epoch.cast_unsigned()),
        }
    }
}

/// How a transaction is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Commit,
    Abort,
}

/// How it did end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it counts.
    Committed,
    /// None of it counts, for certain; the text says why.
    Aborted(String),
}

/// What [`Transactions::resume`] came back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resumed {
    pub(crate) identity: Identity,
    /// The epochs of the producer id were used up, so it is another one now, and the partitions
    /// have been fenced again. Worth a report: leaders do not compare epochs of two ids.
    pub(crate) has_new_id: bool,
}

/// One attempt each at what can be asked of the coordinator, and time. Errors of kind `Io` and
/// `Corruption` mean that the answer is lost; the request may have been carried out.
pub(crate) trait Coordinator: Send {
    /// Claims the transactional id, or continues as `resume` if that is still the newest owner.
    fn init_producer_id(
        &mut self,
        resume: Option<Identity>,
        deadline: Deadline,
    ) -> Result<(ErrorCode, Identity)>;

    /// Whether the broker's `InitProducerId` can continue as a given owner.
    fn can_resume(&mut self, deadline: Deadline) -> Result<bool>;

    /// Makes partitions part of the open transaction, opening one if there is none. Answers the
    /// code that decides over all of them.
    fn add_partitions(
        &mut self,
        identity: Identity,
        partitions: &[Partition],
        deadline: Deadline,
    ) -> Result<ErrorCode>;

    /// Ends the open transaction.
    fn end_transaction(
        &mut self,
        identity: Identity,
        decision: Decision,
        deadline: Deadline,
    ) -> Result<ErrorCode>;

    /// Forgets who the coordinator is, so that the next call finds it anew.
    fn find_anew(&mut self);

    /// Waits between two attempts, not past `deadline`; `Closed` after a shutdown.
    fn pause(&mut self, backoff: &mut Backoff, deadline: Deadline) -> Result<()>;

    /// Whether `deadline` is over.
    fn is_over(&self, deadline: Deadline) -> bool;

    /// Time by the monotonic clock and by the wall clock (milliseconds since 1970).
    fn now(&self) -> (Duration, u64);

    /// How long a transaction may be open before the coordinator ends it.
    fn transaction_timeout(&self) -> Duration;

    /// The name of the task's owner in messages.
    fn transactional_id(&self) -> &str;
}
