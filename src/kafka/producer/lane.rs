//! The batches of one partition, in order, as a state machine without I/O.
//!
//! ```text
//!   delivered, waits for the head    sent        waiting          open
//!        |                            |             |              |
//!   [ head ][ 2nd ][ 3rd ] ... [ at most 5 unanswered ] [ ... ][ takes records ]
//! ```
//!
//! Order is kept by three rules. A batch is sent only when no batch behind it is under way. Until
//! a batch that was sent more than once is answered, no batch behind it is sent for the first
//! time: a broker that lost the earlier one would refuse it anyway. And acknowledgements count
//! from the head on: a batch that is delivered waits for those before it.
//!
//! The bytes of a batch, its sequence number among them, stay the same however often it is sent,
//! so that a broker recognises one whose answer was lost. Only [`Lane::renumber`] changes them,
//! once nothing is under way and the epoch is new.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::connection::Backoff;
use super::super::protocol::ErrorCode;
use super::action::{Action, action};
use super::batch::{Batch, Contents, Outgoing, State, sequence_after};
use crate::changelog::RecordRef;
use crate::error::{Error, ErrorKind};
use crate::options::Compression;
use crate::sync::Arc;

/// How many batches of one partition may be unanswered: brokers recognise as many.
const SENT_MAX: usize = 5;

/// The sizes and times of batches.
#[derive(Debug, Clone)]
pub(crate) struct BatchLimits {
    /// A batch of that many bytes is complete.
    pub(crate) batch_bytes: usize,
    /// How long a batch waits for more records.
    pub(crate) linger: Duration,
    pub(crate) compression: Compression,
    /// After which time without an acknowledgement a commit fails; `None`: never.
    pub(crate) delivery_timeout: Option<Duration>,
    /// For how long brokers may say that the topic is missing before it is believed.
    pub(crate) topic_missing_timeout: Duration,
    /// Pauses before a batch is sent again.
    pub(crate) backoff: Backoff,
}

/// What a broker answered to one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(super) code: ErrorCode,
    /// Of the batch's first record; negative if the broker does not know it any more.
    pub(super) base_offset: i64,
    /// What the broker says beside the code.
    pub(super) message: Option<&'a str>,
}

/// What an answer asks of those above the lane.
#[derive(Debug)]
pub(super) enum Verdict {
    Fine,
    /// The leader is another one.
    Reroute,
    /// The connection is of no use.
    Reconnect,
    /// All lanes need new sequence numbers under a new epoch.
    Renumber,
    /// The epoch is not the newest; the batch is gone from the lane.
    OldEpoch,
    /// The commit has failed; the batch is gone from the lane.
    Refused(Error),
}

/// A batch that was acknowledged and left its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) commit: u64,
    /// The offset behind its last record, if the broker told.
    pub(super) end: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Lane {
    limits: BatchLimits,
    /// The oldest is the head.
    batches: VecDeque<Batch>,
    /// What its records count against the buffer.
    size: u64,
    next_id: u64,
    next_sequence: i32,
    /// Nothing is sent before, after an answer that asked for a pause.
    not_before: Duration,
    backoff: Backoff,
    /// Since when brokers have been saying that the topic does not exist.
    missing_since: Option<Duration>,
}

impl Lane {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self {
            backoff: limits.backoff.clone(),
            limits,
            batches: VecDeque::new(),
            size: 0,
            next_id: 0,
            next_sequence: 0,
            not_before: Duration::ZERO,
            missing_since: None,
        }
    }

    /// Adds a record of `commit`. True if a batch was begun or completed by it, so that the sender
    /// has to look.
    pub(super) fn push(
        &mut self,
        record: &RecordRef<'_>,
        commit: u64,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        let batch_bytes = self.limits.batch_bytes;
        let len = usize::try_from(record.size()).unwrap_or(usize::MAX);
        let is_fit = |batch: &Batch| {
            !batch.is_closed
                && batch.commit == commit
                && batch.len().saturating_add(len) <= batch_bytes
        };
        let mut is_news = false;
        if !self.batches.back().is_some_and(is_fit) {
            self.close();
            let batch = Batch::new(self.next_id, commit, self.limits.compression, now());
            self.batches.push_back(batch);
            self.next_id += 1;
            is_news = true;
        }
        let batch = self.batches.back_mut().expect("a batch was added");
        batch.push(record);
        self.size += record.size();
        if batch.len() >= batch_bytes {
            batch.is_closed = true;
            is_news = true;
        }
        is_news
    }

    /// Ends the open batch, so that it is sent without waiting for more records.
    pub(super) fn close(&mut self) {
        if let Some(batch) = self.batches.back_mut() {
            batch.is_closed = true;
        }
    }

    /// Takes the next batch to send over `connection`, of a commit up to `commit_max`. Without
    /// `is_new_allowed` only such as were sent before.
    pub(super) fn take(
        &mut self,
        lane: usize,
        connection: u64,
        commit_max: u64,
        is_new_allowed: bool,
        now: Duration,
    ) -> Option<Outgoing> {
        let (index, due) = self.next(Some(connection), commit_max, is_new_allowed)?;
        if due > now {
            return None;
        }
        let batch = &mut self.batches[index];
        batch.is_closed = true;
        let is_stamped = batch.sequence.is_some();
        let sequence = batch.sequence.unwrap_or(self.next_sequence);
        if !is_stamped {
            batch.sequence = Some(sequence);
            self.next_sequence = sequence_after(sequence, batch.count);
        }
        batch.state = State::Sent(connection);
        batch.sends += 1;
        let contents = std::mem::replace(&mut batch.contents, Contents::Packing);
        // A thread that packs keeps the bytes alive elsewhere: these need no packing.
        if is_stamped && let Contents::Packed(bytes) = &contents {
            batch.contents = Contents::Packed(Arc::clone(bytes));
        }
        Some(Outgoing {
            lane,
            id: batch.id,
            contents,
            sequence,
            is_stamped,
        })
    }

    /// The next batch to send and when, by the rules of the [module's page](self).
    fn next(
        &self,
        connection: Option<u64>,
        commit_max: u64,
        is_new_allowed: bool,
    ) -> Option<(usize, Duration)> {
        let mut sent = 0;
        let mut is_repeated = false;
        for (index, batch) in self.batches.iter().enumerate() {
            match batch.state {
                State::Delivered(_) => {}
                State::Sent(over) => {
                    if connection.is_some_and(|connection| connection != over) {
                        return None;
                    }
                    sent += 1;
                    is_repeated |= batch.sends > 1;
                }
                State::Waiting => {
                    let is_new = batch.sequence.is_none();
                    let is_sent = |batch: &Batch| matches!(batch.state, State::Sent(_));
                    let is_held = sent == SENT_MAX
                        || batch.commit > commit_max
                        || (is_new && (is_repeated || !is_new_allowed))
                        || matches!(batch.contents, Contents::Packing)
                        || self.batches.range(index + 1..).any(is_sent);
                    if is_held {
                        return None;
                    }
                    let ripe = if batch.is_closed {
                        Duration::ZERO
                    } else {
                        batch.since.saturating_add(self.limits.linger)
                    };
                    return Some((index, ripe.max(self.not_before)));
                }
            }
        }
        None
    }

    /// How long the next batch is, about.
    pub(super) fn next_len(&self, connection: u64, commit_max: u64, is_new_allowed: bool) -> usize {
        self.next(Some(connection), commit_max, is_new_allowed)
            .map_or(0, |(index, _)| self.batches[index].len())
    }

    /// When [`take`](Self::take) will have something, if nothing else happens.
    pub(super) fn due(&self, commit_max: u64, is_new_allowed: bool) -> Option<Duration> {
        self.next(None, commit_max, is_new_allowed)
            .map(|(_, due)| due)
    }

    /// Gives a batch that was taken its bytes, for when it has to be sent again.
    pub(super) fn packed(&mut self, id: u64, bytes: Arc<Vec<u8>>) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.id == id) {
            batch.contents = Contents::Packed(bytes);
        }
    }

    /// Takes the answer to a batch. One that came over a connection which was given up counts
    /// nothing.
    pub(super) fn answered(
        &mut self,
        connection: u64,
        id: u64,
        answer: Answer<'_>,
        now: Duration,
        random: u64,
    ) -> Verdict {
        let is_asked = |batch: &Batch| batch.id == id && batch.state == State::Sent(connection);
        let Some(index) = self.batches.iter().position(is_asked) else {
            return Verdict::Fine;
        };
        let code = answer.code;
        if code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            self.missing_since = None;
        }
        let batch = &mut self.batches[index];
        batch.state = State::Waiting;
        match action(code) {
            Action::Delivered => {
                let base = u64::try_from(answer.base_offset)
                    .ok()
                    .filter(|_| code.is_ok());
                batch.state = State::Delivered(base.map(|base| base + u64::from(batch.count)));
                self.backoff.reset();
                self.not_before = Duration::ZERO;
                Verdict::Fine
            }
            Action::Reroute => self.rerouted(index, answer, now, random),
            Action::Again => {
                self.pause(now, random);
                Verdict::Fine
            }
            Action::Few(max) => {
                batch.refusals += 1;
                if batch.refusals > max {
                    return self.refused(index, answer);
                }
                self.pause(now, random);
                Verdict::Fine
            }
            Action::Reconnect => {
                batch.refusals += 1;
                if batch.refusals > 1 {
                    return self.refused(index, answer);
                }
                Verdict::Reconnect
            }
            Action::Split if batch.count > 1 => self.split(index),
            // One that follows a batch which was not taken is out of order with reason.
            Action::Renumber if index > 0 => Verdict::Fine,
            Action::Renumber => Verdict::Renumber,
            Action::OldEpoch => {
                self.remove(index);
                Verdict::OldEpoch
            }
            Action::Split | Action::Refused => self.refused(index, answer),
        }
    }

    fn rerouted(
        &mut self,
        index: usize,
        answer: Answer<'_>,
        now: Duration,
        random: u64,
    ) -> Verdict {
        if answer.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
            let since = *self.missing_since.get_or_insert(now);
            if now.saturating_sub(since) > self.limits.topic_missing_timeout {
                return self.refused(index, answer);
            }
        }
        self.pause(now, random);
        Verdict::Reroute
    }

    fn pause(&mut self, now: Duration, random: u64) {
        self.not_before = now + self.backoff.next(random);
    }

    fn refused(&mut self, index: usize, answer: Answer<'_>) -> Verdict {
        let batch = self.remove(index);
        let message = answer.message.unwrap_or("no more is told");
        Verdict::Refused(Error::new(
            ErrorKind::Changelog,
            format!(
                "a batch of {} records and {} bytes was refused: {}: {message}",
                batch.count,
                batch.len(),
                answer.code
            ),
        ))
    }

    fn remove(&mut self, index: usize) -> Batch {
        let batch = self.batches.remove(index).expect("the batch was found");
        self.size -= batch.size;
        batch
    }

    fn split(&mut self, index: usize) -> Verdict {
        let id = self.next_id;
        self.next_id += 1;
        match self.batches[index].split(id, self.limits.compression) {
            Ok(half) => {
                self.batches.insert(index + 1, half);
                Verdict::Fine
            }
            Err(error) => {
                self.remove(index);
                Verdict::Refused(error.into_kind(ErrorKind::Changelog))
            }
        }
    }

    /// The connection is gone: whether the batches sent over it arrived is unknown.
    pub(super) fn lost(&mut self, connection: u64) {
        for batch in &mut self.batches {
            if batch.state == State::Sent(connection) {
                batch.state = State::Waiting;
            }
        }
    }

    /// Takes the head off if it is acknowledged.
    pub(super) fn pop_acked(&mut self) -> Option<Acked> {
        let head = self.batches.front()?;
        let State::Delivered(end) = head.state else {
            return None;
        };
        let commit = head.commit;
        self.remove(0);
        Some(Acked { commit, end })
    }

    /// True while a batch is under way.
    pub(super) fn is_sending(&self) -> bool {
        let is_busy = |batch: &Batch| {
            matches!(batch.state, State::Sent(_)) || matches!(batch.contents, Contents::Packing)
        };
        self.batches.iter().any(is_busy)
    }

    /// Begins new sequence numbers, for a new epoch: everything that is not acknowledged up to the
    /// head goes out again, in order. What was delivered behind an undelivered batch too, or the
    /// older would come to stand behind the newer.
    pub(super) fn renumber(&mut self) {
        assert!(!self.is_sending(), "sequence numbers change between sends");
        self.next_sequence = 0;
        for batch in &mut self.batches {
            batch.sequence = None;
            batch.state = State::Waiting;
            batch.sends = 0;
        }
    }

    /// Drops what was never sent.
    pub(super) fn drop_unsent(&mut self) {
        self.batches.retain(|batch| batch.sequence.is_some());
        self.size = self.batches.iter().map(|batch| batch.size).sum();
    }

    /// Drops everything. New sequence numbers are due then.
    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.size = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// What its records count against the buffer.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether a batch of a commit up to `commit_max` is left.
    pub(super) fn has_up_to(&self, commit_max: u64) -> bool {
        self.batches
            .front()
            .is_some_and(|head| head.commit <= commit_max)
    }

    /// Since when the oldest record has been waiting.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.batches.front().map(|head| head.since)
    }
}
