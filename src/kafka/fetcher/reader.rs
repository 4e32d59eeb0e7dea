//! Delivering the committed records of one partition.

use super::filter::Verdict;
use super::source::BrokerSource;
use super::stream::{Answer, Source, Stream};
use crate::changelog::{FETCH_BYTES, Fetched, Offset, Partition, Reader, Sink};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::cluster::Cluster;
use crate::kafka::connection::{Backoff, Deadline};
use crate::kafka::protocol::records::{Batch, Batches, Scratch};
use crate::kafka::transaction::Identity;

/// Where an owner's reader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Behind the marker of the owner's fence.
    pub(crate) offset: Offset,
    /// When the request was sent that fenced: milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// Reads the committed records of one partition, up to an [`End`] or for ever.
#[derive(Debug)]
pub(crate) struct FetchReader<S = BrokerSource> {
    stream: Stream<S>,
    position: u64,
    end: Option<End>,
    /// The answer whose batches are being delivered.
    ready: Option<Answer>,
    /// Counts the calls: an end that was found for an earlier one is not the end of now.
    round: u64,
    /// The damaged batch that was asked for once more.
    damaged: Option<i64>,
    scratch: Scratch,
}

impl FetchReader<BrokerSource> {
    /// Reads `partition` from `from` on, over a connection of its own.
    ///
    /// # Errors
    ///
    /// `NotFound` if the partition does not exist; `Changelog`, `Closed`.
    pub(crate) fn new(
        cluster: Cluster,
        partition: Partition,
        from: Offset,
        end: Option<End>,
    ) -> Result<Self> {
        let options = cluster.settings().options();
        let bytes = (options.fetch_partition_bytes, options.fetch_bytes);
        let source = BrokerSource::new(cluster, partition.clone())?;
        let stream = Stream::new(source, partition, bytes.0, bytes.1);
        Ok(Self::over(stream, from, end))
    }
}

impl<S: Source> FetchReader<S> {
    pub(super) fn over(stream: Stream<S>, from: Offset, end: Option<End>) -> Self {
        Self {
            stream,
            position: from.0,
            end,
            ready: None,
            round: 0,
            damaged: None,
            scratch: Scratch::default(),
        }
    }

    fn fetched(&self, at_end: bool, time_ms: u64) -> Fetched {
        Fetched {
            next: Offset(self.position),
            at_end,
            time_ms,
        }
    }

    /// The next answer that has something, or an empty one at the end of now.
    fn take_answer(&mut self) -> Result<Answer> {
        let deadline = self.stream.source.deadline();
        let mut backoff = Backoff::requests();
        loop {
            let answer = self.stream.next(self.position, self.round)?;
            if !answer.records().is_empty() {
                return Ok(answer);
            }
            if self.end.is_none() {
                if answer.round == self.round {
                    return Ok(answer);
                }
                self.stream.recycle(answer);
                continue;
            }
            // Whoever knows of an end has seen it readable.
            let error = hanging(self.stream.partition(), self.position, &answer);
            self.stream.recycle(answer);
            if self.stream.source.is_over(deadline) {
                return Err(error);
            }
            self.stream.source.pause(&mut backoff, deadline)?;
        }
    }

    /// Delivers batches of `answer` until enough bytes are delivered or none is left.
    fn deliver(&mut self, answer: &mut Answer, sink: &mut Sink<'_>) -> Result<()> {
        let end = self.end.map_or(u64::MAX, |end| end.offset.0);
        let mut delivered = 0;
        while delivered < FETCH_BYTES && self.position < end {
            let (records, filter) = answer.parts();
            let Some(batch) = Batches::new(records).next() else {
                break;
            };
            let batch = batch?;
            batch.verify()?;
            let verdict = filter.judge(&batch, &mut self.scratch)?;
            if verdict == Verdict::Deliver {
                let position = &mut self.position;
                batch.for_each(&mut self.scratch, |offset, record| {
                    let offset = offset.cast_unsigned();
                    if offset < *position || offset >= end {
                        return Ok(());
                    }
                    sink(Offset(offset), record)?;
                    delivered += record.key.len() + record.value.map_or(0, <[u8]>::len);
                    *position = offset + 1;
                    Ok(())
                })?;
            }
            self.position = self.position.max(batch.next_offset().cast_unsigned());
            let len = batch.len();
            answer.advance(len);
        }
        Ok(())
    }
}

impl<S: Source> Reader for FetchReader<S> {
    fn position(&self) -> Offset {
        Offset(self.position)
    }

    fn fetch(&mut self, sink: &mut Sink<'_>) -> Result<Fetched> {
        self.round += 1;
        loop {
            if let Some(end) = self.end.filter(|end| self.position >= end.offset.0) {
                return Ok(self.fetched(true, end.time_ms));
            }
            let mut answer = match self.ready.take() {
                Some(answer) => answer,
                None => self.take_answer()?,
            };
            let before = self.position;
            if let Err(error) = self.deliver(&mut answer, sink) {
                self.stream.restart();
                let damaged = first_damaged(&answer);
                if damaged.is_some() && damaged != self.damaged {
                    self.damaged = damaged;
                    continue;
                }
                return Err(error.context(self.stream.partition()));
            }
            self.damaged = None;
            let sent_ms = answer.sent_ms;
            let is_used =
                answer.records().is_empty() || Batches::new(answer.records()).next().is_none();
            let at_log_end =
                is_used && answer.round == self.round && self.position >= answer.last_stable_offset;
            if is_used {
                self.stream.recycle(answer);
            } else {
                self.ready = Some(answer);
            }
            match self.end {
                Some(end) if self.position >= end.offset.0 => {}
                Some(_) if self.position == before => {}
                Some(_) => return Ok(self.fetched(false, sent_ms)),
                None => return Ok(self.fetched(at_log_end, sent_ms)),
            }
        }
    }
}

/// The batch at which delivery stopped, if its bytes are not what was written.
fn first_damaged(answer: &Answer) -> Option<i64> {
    let batch = Batches::new(answer.records()).next()?.ok()?;
    batch.verify().is_err().then_some(batch.base_offset)
}

/// What keeps a position from getting further.
fn hanging(partition: &Partition, position: u64, answer: &Answer) -> Error {
    let (stable, end) = (answer.last_stable_offset, answer.high_watermark);
    let reason = if stable < end {
        format!("a transaction that began at offset {stable} hangs: neither committed nor aborted")
    } else {
        "the log ends there".to_owned()
    };
    Error::new(
        ErrorKind::Changelog,
        format!(
            "{partition} cannot be read beyond offset {position}, its end being {end}: {reason}"
        ),
    )
}

/// Where the marker of the fence of `identity` ends, looked for from `from` on, which was the end
/// of the partition before the fence.
///
/// # Errors
///
/// `Changelog` if it does not appear until the deadline, naming a hanging transaction that is in
/// its way; else as [`Reader::fetch`].
pub(crate) fn find_fence(
    cluster: &Cluster,
    partition: &Partition,
    from: Offset,
    identity: Identity,
    deadline: Deadline,
) -> Result<Offset> {
    let options = cluster.settings().options();
    let bytes = (options.fetch_partition_bytes, options.fetch_bytes);
    let source = BrokerSource::new(cluster.clone(), partition.clone())?;
    let stream = Stream::new(source, partition.clone(), bytes.0, bytes.1);
    find_marker(stream, from, identity, deadline)
}

pub(super) fn find_marker<S: Source>(
    mut stream: Stream<S>,
    from: Offset,
    identity: Identity,
    deadline: Deadline,
) -> Result<Offset> {
    let mut position = from.0;
    // Markers are written within milliseconds.
    let mut backoff = Backoff::new(MARKER_FIRST, MARKER_LONGEST);
    loop {
        let answer = stream.next(position, 0)?;
        for batch in Batches::new(answer.records()) {
            let batch = batch?;
            if is_marker_of(&batch, identity) {
                batch.verify()?;
                return Ok(Offset(batch.next_offset().cast_unsigned()));
            }
            position = position.max(batch.next_offset().cast_unsigned());
        }
        if stream.source.is_over(deadline) {
            return Err(hanging(stream.partition(), position, &answer));
        }
        let is_empty = answer.records().is_empty();
        stream.recycle(answer);
        if is_empty {
            stream.source.pause(&mut backoff, deadline)?;
        }
    }
}

const MARKER_FIRST: std::time::Duration = std::time::Duration::from_millis(2);
const MARKER_LONGEST: std::time::Duration = std::time::Duration::from_millis(10);

/// Written for this owner; a higher epoch of the same id can only have come after it.
fn is_marker_of(batch: &Batch<'_>, identity: Identity) -> bool {
    batch.is_control() && batch.producer_id == identity.id && batch.producer_epoch >= identity.epoch
}
