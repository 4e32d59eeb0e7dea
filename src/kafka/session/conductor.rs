//! The thread that does what the producer's state asks of the coordinator.

use std::time::Duration;

use super::super::cluster::Cluster;
use super::super::connection::Deadline;
use super::super::fetcher;
use super::super::producer::{Brokers, Core, Producer, Step, Writer};
use super::super::transaction::{
    BrokerCoordinator, Decision, Due, Heartbeat, Outcome, Transactions,
};
use super::LOOK_AGAIN;
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// For how long brokers remember a producer that does not write, unless they are told otherwise
/// (`producer.id.expiration.ms`).
const PRODUCER_ID_EXPIRATION: Duration = Duration::from_secs(24 * 3600);
/// The same of a task without transactions (`transactional.id.expiration.ms`).
const TRANSACTIONAL_ID_EXPIRATION: Duration = Duration::from_secs(7 * 24 * 3600);
/// A pause after trouble that may pass.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Conductor {
    pub(super) cluster: Cluster,
    pub(super) partitions: Vec<Partition>,
    pub(super) producer: Arc<Producer<Brokers>>,
    pub(super) transactions: Transactions<BrokerCoordinator>,
    pub(super) is_transactional: bool,
}

/// The policy for brokers with the default expirations.
pub(super) fn heartbeat() -> Heartbeat {
    Heartbeat::new(PRODUCER_ID_EXPIRATION, TRANSACTIONAL_ID_EXPIRATION)
}

impl Conductor {
    /// Ends when the producer stops.
    pub(super) fn run(mut self) {
        while let Some(step) = self.next() {
            let result = self.carry_out(step);
            self.took(result);
        }
    }

    /// Waits for something to do.
    fn next(&mut self) -> Option<Step> {
        let producer = Arc::clone(&self.producer);
        let mut board = producer.board();
        loop {
            if board.is_stopping() {
                return None;
            }
            let now = self.cluster.settings().env().monotonic();
            let due = heartbeat().due(self.transactions.beat_at(), now);
            let is_due = !matches!(due, Due::In(_)) && !board.core.is_in_transaction();
            let step = board.core.step();
            match step {
                Step::Wait if is_due && board.core.check_alive().is_ok() => {
                    return Some(Step::Prove);
                }
                Step::Wait => producer.wait(&mut board, LOOK_AGAIN),
                // What waits for a fence that is too old goes behind its renewal.
                Step::Enlist(_) if is_due => return Some(Step::Prove),
                step => return Some(step),
            }
        }
    }

    fn deadline(&self) -> Deadline {
        let settings = self.cluster.settings();
        settings.deadline(settings.options().request_timeout)
    }

    fn writer(&self) -> Writer {
        let identity = self.transactions.identity();
        Writer {
            id: identity.id,
            epoch: identity.epoch,
            is_transactional: self.is_transactional,
        }
    }

    fn carry_out(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Wait => Ok(()),
            Step::Prove => self.prove(),
            Step::Enlist(lanes) => {
                self.transactions.add(&lanes, self.deadline())?;
                self.producer.board().core.enlisted(&lanes);
                Ok(())
            }
            Step::Commit(_) => self.commit(),
            Step::Abort => self.abort(),
            Step::Resume => {
                self.check_acked()?;
                self.transactions.resume(self.deadline())?;
                let writer = self.writer();
                self.producer.board().core.renumber(writer);
                Ok(())
            }
            Step::Doubt => {
                self.transactions.resume(self.deadline())?;
                let writer = self.writer();
                self.producer.board().core.undoubted(writer);
                Ok(())
            }
        }
    }

    fn prove(&mut self) -> Result<()> {
        let mut proved = self.transactions.prove(self.deadline());
        if proved
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Changelog)
        {
            // A refusal for the epoch is looked into when the question is asked again.
            proved = self.transactions.prove(self.deadline());
        }
        let answer = proved.as_ref().map(|_| ()).map_err(Clone::clone);
        self.producer.board().core.prove(answer);
        match proved {
            // Whoever asked is told; it proves nothing against the session.
            Err(error) if error.kind() == ErrorKind::Changelog => {
                self.pause();
                Ok(())
            }
            proved => proved.map(|_| ()),
        }
    }

    fn commit(&mut self) -> Result<()> {
        if !self.is_transactional || !self.producer.board().core.is_in_transaction() {
            self.producer.board().core.committed_now();
            return Ok(());
        }
        match self.transactions.end(Decision::Commit, self.deadline())? {
            // The answer is missing: it is asked for again.
            None => Ok(()),
            Some(Outcome::Committed) => {
                self.publish();
                self.producer.board().core.committed_now();
                Ok(())
            }
            Some(Outcome::Aborted(reason)) => Err(Error::new(
                ErrorKind::Changelog,
                format!("the transaction was aborted: {reason}"),
            )),
        }
    }

    fn abort(&mut self) -> Result<()> {
        if self.is_transactional {
            let deadline = self.deadline();
            if self.transactions.end(Decision::Abort, deadline)?.is_none() {
                return Ok(());
            }
        }
        let before = self.producer.board().core.writer();
        if self.producer.board().core.is_renumbering() {
            self.transactions.resume(self.deadline())?;
        }
        let writer = self.writer();
        let writer = (writer != before).then_some(writer);
        self.producer.board().core.aborted(writer);
        Ok(())
    }

    /// Before acknowledged records are built upon: they must still be there, or a leader was
    /// elected that did not have them.
    fn check_acked(&self) -> Result<()> {
        let deadline = self.deadline();
        for (lane, partition) in self.partitions.iter().enumerate() {
            let acked = self.producer.board().core.acked(lane);
            let Some((end, epoch)) = acked.filter(|(_, epoch)| *epoch >= 0) else {
                continue;
            };
            let kept = fetcher::end_of_epoch(&self.cluster, partition, epoch, deadline)?;
            if let Some(kept) = kept.filter(|kept| kept.0 < end) {
                return Err(Error::new(
                    ErrorKind::Diverged,
                    format!(
                        "{partition} has lost acknowledged records: it ends at {kept}, {end} was \
                         acknowledged"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Tells the senders what the coordinator's answers have proved.
    fn publish(&self) {
        let now = self.cluster.settings().env().monotonic();
        let beat_at = self.transactions.beat_at();
        // The policy says from when on a beat has to come first.
        let expiry = PRODUCER_ID_EXPIRATION.min(TRANSACTIONAL_ID_EXPIRATION);
        let held_from = match heartbeat().due(beat_at, now) {
            Due::BeforeAppend => now,
            _ => beat_at.saturating_add(expiry / 2),
        };
        let transactions = &self.transactions;
        let mut board = self.producer.board();
        let core: &mut Core = &mut board.core;
        core.owned(
            transactions.proved_ms(),
            held_from,
            transactions.open_since(),
        );
    }

    /// Takes the result of a step, and lets everybody look.
    fn took(&mut self, result: Result<()>) {
        self.publish();
        let writer = self.writer();
        let mut board = self.producer.board();
        if board.core.writer() != writer {
            board.core.want_renumbering();
        }
        let mut is_trouble = false;
        match result {
            Ok(()) => {}
            Err(error) => match error.kind() {
                ErrorKind::Changelog | ErrorKind::Io | ErrorKind::Corruption => {
                    is_trouble = true;
                    board.core.fail(error.into_kind(ErrorKind::Changelog));
                }
                _ => board.core.die(error),
            },
        }
        drop(board);
        self.producer.changed();
        if is_trouble {
            self.pause();
        }
    }

    fn pause(&self) {
        let mut board = self.producer.board();
        if !board.is_stopping() {
            self.producer.wait(&mut board, PAUSE);
        }
    }
}
