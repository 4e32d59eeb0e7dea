//! The thread that does what the producer's state asks of the coordinator.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::LOOK_AGAIN;
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::admin;
use crate::kafka::cluster::{Cluster, Expirations};
use crate::kafka::connection::Deadline;
use crate::kafka::fetcher;
use crate::kafka::producer::{Brokers, Core, Producer, Step, Writer};
use crate::kafka::transaction::{
    BrokerCoordinator, Decision, Due, Heartbeat, Outcome, Transactions,
};
use crate::sync::Arc;

/// A pause after trouble that may pass.
const PAUSE: Duration = Duration::from_millis(100);
/// How long each broker may take to tell what it is set to.
const LEARN_MAX: Duration = Duration::from_secs(1);
const TOO_OLD: &str = "the transaction was open for so long, or this process stood still, that \
                       the fence has to be renewed first: abort";

pub(super) struct Conductor {
    pub(super) cluster: Cluster,
    pub(super) partitions: Vec<Partition>,
    pub(super) producer: Arc<Producer<Brokers>>,
    pub(super) transactions: Transactions<BrokerCoordinator>,
    pub(super) is_transactional: bool,
    pub(super) heartbeat: Heartbeat,
    /// From when on brokers are asked again that did not tell for how long they remember the
    /// fence, by the monotonic clock.
    pub(super) learn_from: Duration,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Now {
    Do(Step),
    /// Nothing, unless something happens, for that long.
    Wait(Duration),
    /// What was changed is for everybody to see first.
    Changed,
}

/// Gives an open transaction up whose fence is too old: nothing more is sent under it, and it is
/// renewed between transactions only. False if that was done already, or is of no use.
fn give_up(core: &mut Core) -> bool {
    if core.check_healthy().is_ok() {
        core.fail(Error::new(ErrorKind::Changelog, TOO_OLD));
        return true;
    }
    // What was sent and not answered cannot be repeated: its sequence numbers are given up.
    let is_stuck = core.check_alive().is_ok() && core.is_aborting() && !core.is_renumbering();
    if is_stuck {
        core.want_renumbering();
    }
    is_stuck
}

impl Conductor {
    /// Ends when the producer stops.
    pub(super) fn run(mut self) {
        self.learn();
        self.publish();
        while let Some(step) = self.next() {
            let result = self.carry_out(step);
            self.took(result);
        }
    }

    /// Asks for how long brokers remember the fence, unless somebody has lately. What is not told
    /// is taken to be as it was, and asked for again soon.
    fn learn(&mut self) {
        let known = self.cluster.expirations().or_else(|| {
            let found = admin::fence_expiration(&self.cluster, LEARN_MAX).ok()?;
            Some(self.cluster.set_expirations(Expirations {
                producer_id: found.producer_id,
                transactional_id: found.transactional_id,
                is_assumed: found.assumed.is_some(),
            }))
        });
        if let Some(known) = known {
            self.heartbeat = Heartbeat::new(known.producer_id, known.transactional_id);
        }
        let now = self.cluster.settings().env().monotonic();
        self.learn_from = match known {
            Some(known) if !known.is_assumed => Duration::MAX,
            _ => now.saturating_add(LOOK_AGAIN),
        };
        let options = self.cluster.settings().options();
        if let Some(expiry_max) = options.fence_expiration_max {
            self.heartbeat = self.heartbeat.at_most(expiry_max);
        }
    }

    /// Waits for something to do; `None` when the producer stops.
    fn next(&mut self) -> Option<Step> {
        let producer = Arc::clone(&self.producer);
        let mut board = producer.board();
        loop {
            if board.is_stopping() {
                return None;
            }
            match self.look(&mut board.core) {
                Now::Do(step) => return Some(step),
                Now::Changed => producer.changed(),
                Now::Wait(timeout) => producer.wait(&mut board, timeout),
            }
        }
    }

    /// What there is to do, at this time and in this state.
    fn look(&self, core: &mut Core) -> Now {
        let now = self.cluster.settings().env().monotonic();
        let due = match self.partitions.len() {
            // Nothing to fence.
            0 => Due::In(LOOK_AGAIN),
            _ => self.heartbeat.due(self.transactions.beat_at(), now),
        };
        // One whose first partition was not answered is open to the coordinator alone.
        let is_open = core.is_in_transaction() || !self.transactions.is_idle();
        let is_due = !matches!(due, Due::In(_)) && !is_open;
        match core.step() {
            Step::Wait if is_due && core.check_alive().is_ok() => Now::Do(Step::Prove),
            Step::Wait if now >= self.learn_from && core.check_alive().is_ok() => {
                Now::Do(Step::Wait)
            }
            Step::Wait if due == Due::BeforeAppend && is_open && give_up(core) => Now::Changed,
            Step::Wait => Now::Wait(match due {
                Due::In(left) => left.min(LOOK_AGAIN),
                _ => LOOK_AGAIN,
            }),
            // What waits for a fence that is too old goes behind its renewal.
            Step::Enlist(_) if is_due => Now::Do(Step::Prove),
            step => Now::Do(step),
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
            // Nothing for the coordinator, and so the time to ask the brokers.
            Step::Wait => {
                self.learn();
                Ok(())
            }
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
        self.learn();
        let mut proved = self.transactions.prove(self.deadline());
        if proved
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Changelog)
        {
            // A refusal for the epoch is looked into when the question is asked again.
            proved = self.transactions.prove(self.deadline());
        }
        let answer = proved.as_ref().map(|_| ()).map_err(Clone::clone);
        let mut board = self.producer.board();
        board.core.prove(answer);
        if let (true, Err(error)) = (self.transactions.is_expired(), &proved) {
            board.core.fail(error.clone());
        }
        drop(board);
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
        let transactions = &self.transactions;
        let beat_at = transactions.beat_at();
        let timeout = self.cluster.settings().options().transaction_timeout;
        // Before the coordinator ends it, and before nothing can be sent any more.
        let commit_wanted_from = transactions.open_since().map(|since| {
            let due_from = self.heartbeat.due_from(beat_at);
            since.saturating_add(timeout / 2).min(due_from)
        });
        let mut board = self.producer.board();
        let core: &mut Core = &mut board.core;
        core.owned(
            transactions.proved_ms(),
            self.heartbeat.overdue_from(beat_at),
            commit_wanted_from,
        );
    }

    /// Takes the result of a step, and lets everybody look.
    fn took(&mut self, result: Result<()>) {
        self.publish();
        let writer = self.writer();
        let mut board = self.producer.board();
        let is_end_uncertain = self.is_transactional && self.transactions.is_end_uncertain();
        if board.core.writer() != writer || is_end_uncertain {
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
