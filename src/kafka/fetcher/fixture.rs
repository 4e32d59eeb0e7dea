//! A partition's leader made of a list of batches, with faults, for tests.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::reader::{End, FetchReader};
use super::stream::{Source, Stream};
use crate::changelog::{Offset, Partition};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::connection::{Backoff, Deadline};
use crate::kafka::protocol::ErrorCode;
use crate::kafka::protocol::messages::{AbortedTransaction, FetchPartitionResponse};

pub(super) const LOG_APPEND_TIME: u16 = 1 << 3;
const TRANSACTIONAL: u16 = 1 << 4;
const CONTROL: u16 = 1 << 5;

/// A batch as a broker stores it, after compaction too.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    base: u64,
    last_delta: u32,
    producer: (i64, i16),
    pub(super) attributes: u16,
    pub(super) records: Vec<(u32, Vec<u8>)>,
    max_timestamp: i64,
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, i64::try_from(bytes.len()).unwrap());
    out.extend_from_slice(bytes);
}

impl Stored {
    pub(super) fn data(base: u64, producer: (i64, i16), keys: &[&str]) -> Self {
        let deltas = 0..u32::try_from(keys.len()).unwrap();
        Self {
            base,
            last_delta: deltas.end - 1,
            producer,
            attributes: TRANSACTIONAL,
            records: deltas
                .zip(keys.iter().map(|key| key.as_bytes().to_vec()))
                .collect(),
            max_timestamp: 77,
        }
    }

    pub(super) fn plain(base: u64, keys: &[&str]) -> Self {
        Self {
            attributes: 0,
            ..Self::data(base, (-1, -1), keys)
        }
    }

    pub(super) fn marker(base: u64, producer: (i64, i16), is_commit: bool) -> Self {
        Self {
            base,
            last_delta: 0,
            producer,
            attributes: TRANSACTIONAL | CONTROL,
            records: vec![(0, vec![0, 0, 0, u8::from(is_commit)])],
            max_timestamp: 0,
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.base + u64::from(self.last_delta) + 1
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (delta, key) in &self.records {
            let mut record = vec![0];
            varint(&mut record, 0);
            varint(&mut record, i64::from(*delta));
            put(&mut record, key);
            put(&mut record, b"value");
            varint(&mut record, 0);
            put(&mut records, &record);
        }
        let mut checked = Vec::new();
        checked.extend(self.attributes.to_be_bytes());
        checked.extend(self.last_delta.to_be_bytes());
        checked.extend(5_i64.to_be_bytes());
        checked.extend(self.max_timestamp.to_be_bytes());
        checked.extend(self.producer.0.to_be_bytes());
        checked.extend(self.producer.1.to_be_bytes());
        checked.extend((-1_i32).to_be_bytes());
        checked.extend(u32::try_from(self.records.len()).unwrap().to_be_bytes());
        checked.extend(records);
        let mut bytes = Vec::new();
        bytes.extend(self.base.to_be_bytes());
        bytes.extend(i32::try_from(checked.len() + 9).unwrap().to_be_bytes());
        bytes.extend(3_i32.to_be_bytes());
        bytes.push(2);
        bytes.extend(crc32c::crc32c(&checked).to_be_bytes());
        bytes.extend(checked);
        bytes
    }
}

/// What the leader does instead of what it should.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    Code(i16),
    /// The connection breaks before the answer.
    Break,
    /// A byte of the answer's batches is not what was stored.
    Damage(usize),
    /// An answer without a byte.
    Empty,
}

/// What others do while the reader pauses.
#[derive(Debug)]
pub(super) enum Meanwhile {
    Append(Stored),
    Close,
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) batches: Vec<Stored>,
    pub(super) start: u64,
    /// Where an open transaction begins, if one is open.
    pub(super) open_from: Option<u64>,
    /// With the offset of the marker that ended it.
    aborted: Vec<(u64, AbortedTransaction)>,
    pub(super) faults: VecDeque<Fault>,
    asked: VecDeque<(u64, usize)>,
    pub(super) meanwhile: VecDeque<Meanwhile>,
    pub(super) questions: Vec<(u64, usize)>,
    pub(super) renewals: Vec<bool>,
    /// The deadline is over when they are spent.
    pub(super) pauses_left: u32,
    sent_ms: u64,
}

impl Log {
    pub(super) fn of(batches: Vec<Stored>) -> Self {
        Self {
            aborted: aborted_transactions(&batches),
            start: batches.first().map_or(0, |batch| batch.base),
            batches,
            open_from: None,
            faults: VecDeque::new(),
            asked: VecDeque::new(),
            meanwhile: VecDeque::new(),
            questions: Vec::new(),
            renewals: Vec::new(),
            pauses_left: 3,
            sent_ms: 1000,
        }
    }

    pub(super) fn failing(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    fn end(&self) -> u64 {
        self.batches.last().map_or(self.start, Stored::next)
    }

    pub(super) fn stable(&self) -> u64 {
        self.open_from.unwrap_or(self.end())
    }

    pub(super) fn reader(self, from: u64, end: Option<u64>) -> FetchReader<Self> {
        let end = end.map(|offset| End {
            offset: Offset(offset),
            time_ms: 17,
        });
        FetchReader::over(self.stream(1 << 20, 1 << 20), Offset(from), end)
    }

    pub(super) fn stream(self, first: usize, max: usize) -> Stream<Self> {
        Stream::new(self, Partition::new("t", 0), first, max)
    }
}

/// The aborted transactions of a log, as its leader lists them, in the order of their ends.
fn aborted_transactions(batches: &[Stored]) -> Vec<(u64, AbortedTransaction)> {
    let mut open: HashMap<i64, u64> = HashMap::new();
    let mut aborted = Vec::new();
    for batch in batches {
        let producer_id = batch.producer.0;
        if batch.attributes & CONTROL != 0 {
            let is_abort = batch.records.first().is_some_and(|record| record.1[3] == 0);
            if let Some(first) = open.remove(&producer_id).filter(|_| is_abort) {
                let first_offset = first.cast_signed();
                let transaction = AbortedTransaction {
                    producer_id,
                    first_offset,
                };
                aborted.push((batch.base, transaction));
            }
        } else if batch.attributes & TRANSACTIONAL != 0 {
            open.entry(producer_id).or_insert(batch.base);
        }
    }
    aborted
}

impl Source for Log {
    fn ask(&mut self, offset: u64, bytes_max: usize, _: Deadline) -> Result<()> {
        self.questions.push((offset, bytes_max));
        self.asked.push_back((offset, bytes_max));
        Ok(())
    }

    fn answer<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<(FetchPartitionResponse<'b>, u64)> {
        let (offset, bytes_max) = self.asked.pop_front().expect("a question");
        self.sent_ms += 1;
        let (mut code, mut damaged, mut is_empty) = (0, None, false);
        match self.faults.pop_front() {
            None => {}
            Some(Fault::Code(other)) => code = other,
            Some(Fault::Break) => return Err(Error::new(ErrorKind::Io, "broken")),
            Some(Fault::Damage(at)) => damaged = Some(at),
            Some(Fault::Empty) => is_empty = true,
        }
        if code == 0 && (offset < self.start || offset > self.end()) {
            code = 1;
        }
        // What stands before an answer's records must not matter.
        buffer.clear();
        buffer.extend([9; 11]);
        let stable = self.stable();
        for batch in &self.batches {
            if batch.next() > offset && batch.next() <= stable && code == 0 && !is_empty {
                buffer.extend(batch.bytes());
            }
        }
        buffer.truncate(11 + bytes_max);
        if let Some(at) = damaged {
            buffer[11 + at] ^= 1;
        }
        let reaching = self.aborted.iter().filter(|(last, _)| *last >= offset);
        let reaching = reaching.map(|(_, transaction)| *transaction);
        let reaching = reaching.collect();
        let response = FetchPartitionResponse {
            partition_index: 0,
            error_code: ErrorCode(code),
            high_watermark: self.end().cast_signed(),
            last_stable_offset: stable.cast_signed(),
            log_start_offset: self.start.cast_signed(),
            current_leader: None,
            // Those that ended before what was asked for are none of its business.
            aborted_transactions: reaching,
            preferred_read_replica: -1,
            records: &buffer[11..],
        };
        Ok((response, self.sent_ms))
    }

    fn renew(&mut self, leader_failed: bool) {
        self.asked.clear();
        self.renewals.push(leader_failed);
    }

    fn bounds(&mut self, _: Deadline) -> Result<(Offset, Offset)> {
        Ok((Offset(self.start), Offset(self.end())))
    }

    fn pause(&mut self, backoff: &mut Backoff, _: Deadline) -> Result<()> {
        assert!(backoff.next(0) > Duration::ZERO);
        self.pauses_left -= 1;
        match self.meanwhile.pop_front() {
            None => {}
            Some(Meanwhile::Append(batch)) => self.batches.push(batch),
            Some(Meanwhile::Close) => return Err(Error::new(ErrorKind::Closed, "closed")),
        }
        Ok(())
    }

    fn deadline(&self) -> Deadline {
        Deadline::NEVER
    }

    fn is_over(&self, _: Deadline) -> bool {
        self.pauses_left == 0
    }
}
