//! All partitions of one task with what they share, as a state machine without I/O: the room, the
//! epoch, what a commit covers, and what has to be done next by those who do I/O.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::cluster::Leader;
use super::batch::{Outgoing, Writer};
use super::lane::{Answer, BatchLimits, Lane, Verdict};
use super::step::Step;
use crate::changelog::RecordRef;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// A partition with its way to the log.
#[derive(Debug)]
struct Way {
    lane: Lane,
    /// The broker to send to; none while it has to be found out.
    leader: Option<Leader>,
    /// The one that was given up, for those who look for another.
    former: Option<Leader>,
    /// It is part of the open transaction.
    is_enlisted: bool,
    /// By commit, oldest first: the offset behind its newest record that was acknowledged.
    ends: VecDeque<(u64, u64)>,
    /// The offset behind the newest record of the newest commit that was decided.
    committed: u64,
    /// When the newest request was sent whose answer acknowledged a batch, by the wall clock.
    acked_ms: u64,
    /// The offset behind the newest record that was acknowledged, and the epoch of the leader that
    /// took it: what a log must still have.
    acked: Option<(u64, i32)>,
}

/// Whether somebody waits for a proof of the ownership.
#[derive(Debug, Clone)]
enum Proof {
    None,
    Asked,
    Answered(Result<()>),
}

/// See the [module's page](self).
#[derive(Debug)]
pub(crate) struct Core {
    ways: Vec<Way>,
    writer: Writer,
    buffer_bytes: u64,
    delivery_timeout: Option<Duration>,
    next_connection: u64,
    /// The commit that new records belong to.
    open: u64,
    /// The newest commit whose records may be sent. With transactions it is the one that is open
    /// at the coordinator: what was appended behind its mark waits for its end.
    sent_max: u64,
    /// The commit that waits for its decision.
    prepared: Option<u64>,
    /// What became of the newest prepared commit.
    outcome: Option<Result<()>>,
    /// A new epoch is due.
    is_renumbering: bool,
    is_doubted: bool,
    is_aborting: bool,
    /// Why the records since the last commit cannot be committed; until the abort.
    failed: Option<Error>,
    /// Why nothing is possible any more.
    dead: Option<Error>,
    proof: Proof,
    /// When the newest request was sent whose answer proved the ownership, by the wall clock.
    proved_ms: u64,
    /// From then on nothing is sent before the fence was renewed, by the monotonic clock.
    held_from: Duration,
    /// From when on the open transaction should be committed, by the monotonic clock.
    commit_wanted_from: Option<Duration>,
}

impl Core {
    /// For partitions whose committed records end at `committed`.
    pub(crate) fn new(
        limits: &BatchLimits,
        buffer_bytes: u64,
        writer: Writer,
        committed: &[u64],
    ) -> Self {
        let way = |committed: &u64| Way {
            lane: Lane::new(limits.clone()),
            leader: None,
            former: None,
            is_enlisted: false,
            ends: VecDeque::new(),
            committed: *committed,
            acked_ms: 0,
            acked: None,
        };
        Self {
            ways: committed.iter().map(way).collect(),
            writer,
            buffer_bytes,
            delivery_timeout: limits.delivery_timeout,
            next_connection: 0,
            open: 1,
            sent_max: if writer.is_transactional { 1 } else { u64::MAX },
            prepared: None,
            outcome: None,
            is_renumbering: false,
            is_doubted: false,
            is_aborting: false,
            failed: None,
            dead: None,
            proof: Proof::None,
            proved_ms: 0,
            held_from: Duration::MAX,
            commit_wanted_from: None,
        }
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer
    }

    // The caller's side: room, records, marks.

    /// # Errors
    ///
    /// Why the session is of no use.
    pub(crate) fn check_alive(&self) -> Result<()> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    /// # Errors
    ///
    /// Why no record can be added.
    pub(crate) fn check_healthy(&self) -> Result<()> {
        self.check_alive()?;
        match &self.failed {
            Some(error) => Err(error.context("the session waits for an abort")),
            None => Ok(()),
        }
    }

    /// Bytes of records that are not acknowledged.
    pub(crate) fn used(&self) -> u64 {
        self.ways.iter().map(|way| way.lane.size()).sum()
    }

    /// Whether there is room for `bytes` more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.buffer_bytes
    }

    /// Sends what waits for more records, because somebody waits for its room.
    pub(crate) fn close_batches(&mut self) {
        for way in &mut self.ways {
            way.lane.close();
        }
    }

    /// Adds a record for which there is room. True if a thread has to look.
    pub(crate) fn append(
        &mut self,
        lane: usize,
        record: &RecordRef<'_>,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        let open = self.open;
        self.ways[lane].lane.push(record, open, now)
    }

    /// Whether a prepared commit waits for its decision.
    pub(crate) fn prepared(&self) -> Option<u64> {
        self.prepared
    }

    /// Takes the mark: what was appended belongs to the commit of the number returned.
    pub(crate) fn prepare(&mut self) -> u64 {
        assert!(self.prepared.is_none(), "one commit at a time");
        self.close_batches();
        let commit = self.open;
        self.open += 1;
        self.prepared = Some(commit);
        self.outcome = None;
        commit
    }

    /// What became of the newest prepared commit, if it is decided.
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        self.outcome.clone()
    }

    /// The offset behind the newest committed record, and when the newest request was sent whose
    /// answer acknowledged one.
    pub(crate) fn committed(&self, lane: usize) -> (u64, u64) {
        (self.ways[lane].committed, self.ways[lane].acked_ms)
    }

    // The senders' side: what goes where, and what came back.

    /// A number for a new connection.
    pub(crate) fn new_connection(&mut self) -> u64 {
        self.next_connection += 1;
        self.next_connection
    }

    /// Takes what can be sent to `node` over `connection` now: at most one batch a partition, and
    /// `bytes_max` bytes in all, but always one.
    pub(super) fn take(
        &mut self,
        node: i32,
        connection: u64,
        bytes_max: usize,
        now: Duration,
    ) -> Vec<Outgoing> {
        // After a sleep of the whole machine this may be the first thing that happens.
        if now >= self.held_from {
            return Vec::new();
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        for index in self.led_by(node) {
            let is_new_allowed = self.is_new_allowed(index);
            let commit_max = self.sent_max;
            let lane = &mut self.ways[index].lane;
            let len = lane.next_len(connection, commit_max, is_new_allowed);
            if !taken.is_empty() && bytes + len > bytes_max {
                continue;
            }
            if let Some(outgoing) = lane.take(index, connection, commit_max, is_new_allowed, now) {
                bytes += len;
                taken.push(outgoing);
            }
        }
        taken
    }

    /// When there will be something to send to `node`, if nothing else happens.
    pub(super) fn due(&self, node: i32) -> Option<Duration> {
        let due = |index: usize| {
            let lane = &self.ways[index].lane;
            lane.due(self.sent_max, self.is_new_allowed(index))
        };
        self.led_by(node).into_iter().filter_map(due).min()
    }

    fn led_by(&self, node: i32) -> Vec<usize> {
        if self.is_renumbering || self.dead.is_some() {
            return Vec::new();
        }
        let is_there = |index: &usize| {
            self.ways[*index]
                .leader
                .is_some_and(|leader| leader.node == node)
        };
        (0..self.ways.len()).filter(is_there).collect()
    }

    fn is_new_allowed(&self, lane: usize) -> bool {
        let is_enlisted = !self.writer.is_transactional || self.ways[lane].is_enlisted;
        self.failed.is_none() && !self.is_aborting && is_enlisted
    }

    /// See [`Lane::packed`].
    pub(super) fn packed(&mut self, lane: usize, id: u64, bytes: Arc<Vec<u8>>) {
        self.ways[lane].lane.packed(id, bytes);
    }

    /// Takes the answer to a batch that was sent at `sent_ms`. False if the connection is of no
    /// use any more.
    pub(super) fn answered(
        &mut self,
        connection: u64,
        (lane, id): (usize, u64),
        answer: Answer<'_>,
        sent_ms: u64,
        (now, random): (Duration, u64),
    ) -> bool {
        let way = &mut self.ways[lane];
        let verdict = way.lane.answered(connection, id, answer, now, random);
        while let Some(acked) = way.lane.pop_acked() {
            way.acked_ms = way.acked_ms.max(sent_ms);
            let Some(end) = acked.end else { continue };
            let epoch = way.leader.or(way.former).map_or(-1, |leader| leader.epoch);
            way.acked = Some((end, epoch));
            match way.ends.back_mut() {
                Some((commit, newest)) if *commit == acked.commit => *newest = end,
                _ => way.ends.push_back((acked.commit, end)),
            }
        }
        match verdict {
            Verdict::Fine => {}
            Verdict::Reroute => self.lose_leader(lane),
            Verdict::Reconnect => return false,
            // Within a transaction nothing may be sent twice under two epochs.
            Verdict::Renumber if self.writer.is_transactional => {
                self.is_renumbering = true;
                self.fail(refused(lane, &answer));
            }
            Verdict::Renumber => self.is_renumbering = true,
            Verdict::OldEpoch => {
                self.is_renumbering = true;
                self.is_doubted = true;
                self.failed.get_or_insert_with(|| refused(lane, &answer));
            }
            Verdict::Refused(error) => {
                self.is_renumbering = true;
                self.fail(error);
            }
        }
        true
    }

    /// A connection is gone, with what was under way on it.
    pub(super) fn lost(&mut self, connection: u64) {
        for way in &mut self.ways {
            way.lane.lost(connection);
        }
    }

    // The router's side: who leads what.

    fn lose_leader(&mut self, lane: usize) {
        let way = &mut self.ways[lane];
        way.former = way.leader.take().or(way.former);
    }

    /// The broker `node` cannot be reached.
    pub(super) fn lose_node(&mut self, node: i32) {
        for lane in 0..self.ways.len() {
            if self.ways[lane]
                .leader
                .is_some_and(|leader| leader.node == node)
            {
                self.lose_leader(lane);
            }
        }
    }

    /// Partitions whose leader has to be found out, with the one that they had.
    pub(super) fn unrouted(&self) -> Vec<(usize, Option<Leader>)> {
        let ways = self.ways.iter().enumerate();
        let unrouted = ways.filter(|(_, way)| way.leader.is_none());
        unrouted.map(|(lane, way)| (lane, way.former)).collect()
    }

    pub(super) fn route(&mut self, lane: usize, leader: Leader) {
        self.ways[lane].leader = Some(leader);
    }

    /// The leader epoch that positions of this partition carry.
    pub(crate) fn leader_epoch(&self, lane: usize) -> i32 {
        let way = &self.ways[lane];
        way.leader.or(way.former).map_or(-1, |leader| leader.epoch)
    }

    // The conductor's side: commits, aborts, epochs.

    /// What is to be done next.
    pub(crate) fn step(&self) -> Step {
        if self.dead.is_some() {
            return Step::Wait;
        }
        let is_sending = self.ways.iter().any(|way| way.lane.is_sending());
        if self.is_doubted {
            return if is_sending { Step::Wait } else { Step::Doubt };
        }
        if matches!(self.proof, Proof::Asked) {
            return Step::Prove;
        }
        if self.is_aborting {
            let is_empty = self.ways.iter().all(|way| way.lane.is_empty());
            let is_settled = !is_sending && (is_empty || self.is_renumbering);
            return if is_settled { Step::Abort } else { Step::Wait };
        }
        if self.failed.is_some() {
            return Step::Wait;
        }
        if self.is_renumbering {
            return if is_sending { Step::Wait } else { Step::Resume };
        }
        let unlisted = self.unlisted();
        if !unlisted.is_empty() {
            return Step::Enlist(unlisted);
        }
        match self.prepared {
            Some(commit) if !self.ways.iter().any(|way| way.lane.has_up_to(commit)) => {
                Step::Commit(commit)
            }
            _ => Step::Wait,
        }
    }

    fn unlisted(&self) -> Vec<usize> {
        let waits = |lane: &usize| {
            let way = &self.ways[*lane];
            !way.is_enlisted && way.lane.has_up_to(self.sent_max)
        };
        if self.writer.is_transactional {
            (0..self.ways.len()).filter(waits).collect()
        } else {
            Vec::new()
        }
    }

    /// Whether the open transaction has partitions.
    pub(crate) fn is_in_transaction(&self) -> bool {
        self.ways.iter().any(|way| way.is_enlisted)
    }

    /// Asks for a proof of the ownership.
    pub(crate) fn ask_proof(&mut self) {
        self.proof = Proof::Asked;
    }

    /// What came of it, once; `None` while it is under way.
    pub(crate) fn take_proof(&mut self) -> Option<Result<()>> {
        let Proof::Answered(answer) = &self.proof else {
            return None;
        };
        let answer = answer.clone();
        self.proof = Proof::None;
        Some(answer)
    }

    /// Answers whoever asked for a proof.
    pub(crate) fn prove(&mut self, answer: Result<()>) {
        self.proof = Proof::Answered(answer);
    }

    /// Takes what the coordinator's answers prove: when the newest one was sent, from when on the
    /// fence is too old to send anything, and from when on an open transaction should be committed.
    pub(crate) fn owned(
        &mut self,
        proved_ms: u64,
        held_from: Duration,
        commit_wanted_from: Option<Duration>,
    ) {
        self.proved_ms = proved_ms;
        self.held_from = held_from;
        self.commit_wanted_from = commit_wanted_from;
    }

    /// When the newest request was sent whose answer proved the ownership, by the wall clock.
    pub(crate) fn proved_ms(&self) -> u64 {
        self.proved_ms
    }

    /// From when on the open transaction should be committed, by the monotonic clock.
    pub(crate) fn commit_wanted_from(&self) -> Option<Duration> {
        self.commit_wanted_from
    }

    /// The offset behind the newest acknowledged record, and its leader's epoch.
    pub(crate) fn acked(&self, lane: usize) -> Option<(u64, i32)> {
        self.ways[lane].acked
    }

    /// An epoch has ended behind the producer's back: new sequence numbers are due.
    pub(crate) fn want_renumbering(&mut self) {
        self.is_renumbering = true;
    }

    /// These partitions are part of the transaction now.
    pub(crate) fn enlisted(&mut self, lanes: &[usize]) {
        for lane in lanes {
            self.ways[*lane].is_enlisted = true;
        }
    }

    /// The prepared commit counts.
    pub(crate) fn committed_now(&mut self) {
        let commit = self.prepared.take().expect("a prepared commit is decided");
        for way in &mut self.ways {
            while way.ends.front().is_some_and(|(of, _)| *of <= commit) {
                let (_, end) = way.ends.pop_front().expect("there is a front");
                way.committed = way.committed.max(end);
            }
            way.is_enlisted = false;
        }
        if self.writer.is_transactional {
            self.sent_max = self.open;
        }
        self.outcome = Some(Ok(()));
    }

    /// The records since the last commit cannot be committed any more.
    pub(crate) fn fail(&mut self, error: Error) {
        let error = self.failed.get_or_insert(error).clone();
        if !self.is_doubted && self.prepared.take().is_some() {
            self.outcome = Some(Err(error));
        }
    }

    /// Another owner has the task, or nothing works any more.
    pub(crate) fn die(&mut self, error: Error) {
        self.prepared = None;
        self.dead.get_or_insert(error);
    }

    /// Fails the commit if its oldest record has been waiting for too long.
    pub(super) fn check_timeout(&mut self, now: Duration) {
        let Some(timeout) = self.delivery_timeout else {
            return;
        };
        let oldest = self.ways.iter().filter_map(|way| way.lane.oldest()).min();
        let is_late = oldest.is_some_and(|oldest| now.saturating_sub(oldest) >= timeout);
        if is_late && self.failed.is_none() {
            self.fail(Error::new(
                ErrorKind::Changelog,
                format!("records were not acknowledged within {timeout:?} (delivery_timeout)"),
            ));
        }
    }

    /// Begins to drop everything since the last commit. What was sent goes on until it is
    /// answered, so that nothing of it can arrive later.
    pub(crate) fn begin_abort(&mut self) {
        assert!(self.prepared.is_none(), "no abort of what may be committed");
        self.is_aborting = true;
        for way in &mut self.ways {
            way.lane.drop_unsent();
        }
    }

    pub(crate) fn is_aborting(&self) -> bool {
        self.is_aborting
    }

    /// Whether it is being asked if the task has another owner.
    pub(crate) fn is_doubted(&self) -> bool {
        self.is_doubted && self.dead.is_none()
    }

    /// Whether an abort has to begin a new epoch.
    pub(crate) fn is_renumbering(&self) -> bool {
        self.is_renumbering
    }

    /// The transaction is aborted. Under a `writer` of a new epoch sequence numbers begin anew.
    pub(crate) fn aborted(&mut self, writer: Option<Writer>) {
        for way in &mut self.ways {
            way.lane.clear();
            way.is_enlisted = false;
            way.ends.clear();
        }
        assert!(
            writer.is_some() || !self.is_renumbering,
            "a gap in the sequence numbers needs a new epoch"
        );
        self.is_aborting = false;
        self.failed = None;
        self.open += 1;
        if self.writer.is_transactional {
            self.sent_max = self.open;
        }
        if let Some(writer) = writer {
            self.renumber(writer);
        }
    }

    /// The doubt is resolved: the task is still this owner's, under `writer`.
    pub(crate) fn undoubted(&mut self, writer: Writer) {
        self.is_doubted = false;
        for way in &mut self.ways {
            way.lane.clear();
            way.is_enlisted = false;
        }
        self.renumber(writer);
        let error = self.failed.clone();
        self.fail(error.expect("a doubt comes with its reason"));
    }

    /// Goes on under a new epoch: everything unacknowledged goes out again, in order.
    pub(crate) fn renumber(&mut self, writer: Writer) {
        self.writer = writer;
        self.is_renumbering = false;
        for way in &mut self.ways {
            way.lane.renumber();
        }
    }
}

fn refused(lane: usize, answer: &Answer<'_>) -> Error {
    let message = answer.message.unwrap_or("no more is told");
    Error::new(
        ErrorKind::Changelog,
        format!(
            "partition {lane} refused a batch: {}: {message}",
            answer.code
        ),
    )
}
