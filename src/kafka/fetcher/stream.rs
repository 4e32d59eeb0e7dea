//! The answers of one partition, one after the other.

use std::fmt;

use super::answers::{Next, next};
use super::filter::ReadCommitted;
use crate::changelog::{Offset, Partition, check_range};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::{Backoff, Deadline};
use crate::kafka::protocol::ErrorCode;
use crate::kafka::protocol::messages::FetchPartitionResponse;
use crate::kafka::protocol::records::Batches;

/// What a stream asks of the partition's leader, and time.
pub(crate) trait Source: Send + fmt::Debug {
    /// Asks for batches from `offset` on. Answers come in the order of the questions.
    fn ask(&mut self, offset: u64, bytes_max: usize, deadline: Deadline) -> Result<()>;

    /// Waits for the answer to the oldest question, which is put into `buffer`; with it, when the
    /// question was sent (milliseconds since 1970).
    fn answer<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<(FetchPartitionResponse<'b>, u64)>;

    /// Forgets questions without an answer, and the connection, after trouble with it.
    /// `leader_failed`: who the leader is has to be asked anew, too.
    fn renew(&mut self, leader_failed: bool);

    /// Where the partition starts and ends now, uncommitted records included.
    fn bounds(&mut self, deadline: Deadline) -> Result<(Offset, Offset)>;

    /// Waits between two attempts, not past `deadline`; `Closed` after a shutdown.
    fn pause(&mut self, backoff: &mut Backoff, deadline: Deadline) -> Result<()>;

    /// When a call that starts now gives up.
    fn deadline(&self) -> Deadline;

    fn is_over(&self, deadline: Deadline) -> bool;
}

/// An answer with whole batches, or with none because the end is reached.
#[derive(Debug, Default)]
pub(super) struct Answer {
    buffer: Vec<u8>,
    /// Where in the buffer the batches are that have not been used.
    from: usize,
    to: usize,
    pub(super) filter: ReadCommitted,
    /// The first offset of an open transaction, or the end: nothing from there on is readable.
    pub(super) last_stable_offset: u64,
    pub(super) high_watermark: u64,
    /// When it was asked for: milliseconds since 1970, and in which round.
    pub(super) sent_ms: u64,
    pub(super) round: u64,
}

impl Answer {
    /// The batches that have not been used.
    pub(super) fn records(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    /// The batches and the filter that they have to pass.
    pub(super) fn parts(&mut self) -> (&[u8], &mut ReadCommitted) {
        (&self.buffer[self.from..self.to], &mut self.filter)
    }

    /// `len` bytes of batches are used.
    pub(super) fn advance(&mut self, len: usize) {
        self.from += len;
        debug_assert!(self.from <= self.to);
    }
}

/// A question that is on its way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    offset: u64,
    round: u64,
}

/// Asks one partition's leader for batches, the next question always on its way while an answer
/// is used.
#[derive(Debug)]
pub(super) struct Stream<S> {
    pub(super) source: S,
    partition: Partition,
    asked: Option<Asked>,
    bytes_first: usize,
    bytes_max: usize,
    /// What the next question asks for at most.
    bytes: usize,
    /// A buffer to use again.
    spare: Vec<u8>,
}

impl<S: Source> Stream<S> {
    /// Asks for `bytes_first` at a time, and for up to `bytes_max` where one batch is longer.
    pub(super) fn new(
        source: S,
        partition: Partition,
        bytes_first: usize,
        bytes_max: usize,
    ) -> Self {
        Self {
            source,
            partition,
            asked: None,
            bytes_first,
            bytes_max: bytes_max.max(bytes_first),
            bytes: bytes_first,
            spare: Vec::new(),
        }
    }

    pub(super) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Takes back an answer, for its memory.
    pub(super) fn recycle(&mut self, answer: Answer) {
        self.spare = answer.buffer;
    }

    /// Questions that were asked so far are of no use.
    pub(super) fn restart(&mut self) {
        self.asked = None;
        self.source.renew(false);
    }

    /// The answer that has `position`: with at least one whole batch, or with none if there are
    /// none yet (`position` is at or behind its last stable offset). Behind an answer that leaves
    /// more to read, the next question goes out at once, in the same `round`.
    pub(super) fn next(&mut self, position: u64, round: u64) -> Result<Answer> {
        let deadline = self.source.deadline();
        let mut backoff = Backoff::requests();
        let mut is_repeated = false;
        loop {
            let error = match self.attempt(position, round, deadline) {
                Ok(Attempt::Answer(answer)) => return Ok(answer),
                // A longer answer was asked for; that is progress.
                Ok(Attempt::TooShort) => continue,
                Ok(Attempt::Damaged(error)) => {
                    self.restart();
                    if std::mem::replace(&mut is_repeated, true) {
                        return Err(error);
                    }
                    continue;
                }
                Ok(Attempt::Repeat(error)) => error,
                Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Corruption) => {
                    self.asked = None;
                    self.source.renew(true);
                    error
                }
                Err(error) => {
                    self.restart();
                    return Err(error);
                }
            };
            if self.source.is_over(deadline) {
                let what = format!("{} at offset {position}: no answer in time", self.partition);
                return Err(Error::new(ErrorKind::Changelog, what).with_source(error));
            }
            self.source.pause(&mut backoff, deadline)?;
        }
    }

    fn attempt(&mut self, position: u64, round: u64, deadline: Deadline) -> Result<Attempt> {
        let asked = self.ask_at(position, round, deadline)?;
        let mut buffer = std::mem::take(&mut self.spare);
        let (response, sent_ms) = self.source.answer(&mut buffer)?;
        let code = response.error_code;
        if let Some(attempt) = self.refused(code, position, deadline)? {
            return Ok(attempt);
        }
        let (last_stable_offset, high_watermark) = self.marks(&response)?;
        let filter = ReadCommitted::new(response.aborted_transactions);
        let walked = walk(response.records, position);
        let (address, len) = (response.records.as_ptr().addr(), response.records.len());
        let ends_at = match walked {
            Ok(ends_at) => ends_at,
            // Checksums are not compared yet: it may have been damaged on its way.
            Err(error) if error.kind() == ErrorKind::Corruption => {
                return Ok(Attempt::Damaged(self.locate(&error, position)));
            }
            Err(error) => return Err(self.locate(&error, position)),
        };
        let (has_batches, next_offset) = (ends_at.is_some(), ends_at.unwrap_or(position));
        let from = match len {
            0 => 0,
            // The records are a part of the buffer.
            _ => address - buffer.as_ptr().addr(),
        };
        let to = from + len;
        if !has_batches && from < to {
            return self.ask_longer(position, to - from);
        }
        if !has_batches && position < last_stable_offset {
            let what = format!("{} at offset {position}: an empty answer", self.partition);
            return Ok(Attempt::Repeat(Error::new(ErrorKind::Changelog, what)));
        }
        self.bytes = self.bytes_first;
        if has_batches && next_offset < last_stable_offset {
            // Its failure is found when the answer is waited for.
            if self.source.ask(next_offset, self.bytes, deadline).is_ok() {
                self.asked = Some(Asked {
                    offset: next_offset,
                    round,
                });
            } else {
                self.source.renew(true);
            }
        }
        Ok(Attempt::Answer(Answer {
            buffer,
            from,
            to,
            filter,
            last_stable_offset,
            high_watermark,
            sent_ms,
            round: asked.round,
        }))
    }

    /// The question from `position` on: the one that is on its way already, or a new one.
    fn ask_at(&mut self, position: u64, round: u64, deadline: Deadline) -> Result<Asked> {
        let other = match self.asked.take() {
            Some(asked) if asked.offset == position => return Ok(asked),
            other => other,
        };
        if other.is_some() {
            self.source.renew(false);
        }
        self.source.ask(position, self.bytes, deadline)?;
        Ok(Asked {
            offset: position,
            round,
        })
    }

    /// What an answer with an error leads to; none if it has no error.
    fn refused(
        &mut self,
        code: ErrorCode,
        position: u64,
        deadline: Deadline,
    ) -> Result<Option<Attempt>> {
        match next(code) {
            Next::Take => return Ok(None),
            Next::Refresh => {
                self.source.renew(true);
            }
            Next::Again => {}
            Next::Once => return Ok(Some(Attempt::Damaged(self.error(position, code)))),
            Next::Bounds => {
                let (start, end) = self.source.bounds(deadline)?;
                check_range(&self.partition, Offset(position), start, end)?;
                // The log has grown meanwhile, or this replica lags.
                self.source.renew(true);
            }
            Next::Refused => return Err(self.error(position, code)),
        }
        Ok(Some(Attempt::Repeat(self.error(position, code))))
    }

    /// The answer holds a part of one batch only.
    fn ask_longer(&mut self, position: u64, len: usize) -> Result<Attempt> {
        if self.bytes >= self.bytes_max {
            return Err(Error::new(
                ErrorKind::Changelog,
                format!(
                    "{} at offset {position}: {len} bytes are not a whole batch, and no more than \
                     {} are asked for",
                    self.partition, self.bytes_max
                ),
            ));
        }
        self.bytes = self.bytes.saturating_mul(2).min(self.bytes_max);
        Ok(Attempt::TooShort)
    }

    /// The last stable offset and the high watermark of an answer.
    fn marks(&self, response: &FetchPartitionResponse<'_>) -> Result<(u64, u64)> {
        let offset = |what: &str, value: i64| {
            u64::try_from(value).map_err(|_| {
                Error::corruption(format!("{}: the {what} is {value}", self.partition))
            })
        };
        let high_watermark = offset("high watermark", response.high_watermark)?;
        let last_stable = offset("last stable offset", response.last_stable_offset)?;
        Ok((last_stable, high_watermark))
    }

    fn error(&self, position: u64, code: ErrorCode) -> Error {
        let what = format!("{} at offset {position}: {code}", self.partition);
        Error::new(ErrorKind::Changelog, what)
    }

    fn locate(&self, error: &Error, position: u64) -> Error {
        error.context(format_args!("{} at offset {position}", self.partition))
    }
}

/// What became of one question.
enum Attempt {
    Answer(Answer),
    /// Nothing is known but this; ask again after a pause.
    Repeat(Error),
    /// Ask for the same once more.
    Damaged(Error),
    /// Not even one batch fits what was asked for.
    TooShort,
}

/// Where the whole batches end, by their headers, which is behind `position`; `None` without a
/// whole batch.
fn walk(records: &[u8], position: u64) -> Result<Option<u64>> {
    let mut end = None;
    let mut last = 0;
    for batch in Batches::new(records) {
        let batch = batch?;
        // Headers refuse negative offsets.
        if batch.base_offset < last {
            return Err(Error::corruption(format!(
                "the batch at offset {} overlaps the one before it",
                batch.base_offset
            )));
        }
        last = batch.next_offset();
        end = Some(last.cast_unsigned());
    }
    match end {
        Some(end) if end <= position => Err(Error::corruption(format!(
            "an answer whose batches end at offset {end}"
        ))),
        end => Ok(end),
    }
}
