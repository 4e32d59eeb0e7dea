//! One batch of records on its way from the first record to the acknowledgement.

use std::time::Duration;

use super::super::protocol::records::{BatchBuilder, Batches, ProducerStamp, Scratch, restamp};
use crate::changelog::RecordRef;
use crate::error::{Error, Result};
use crate::options::Compression;
use crate::sync::Arc;

/// The producer id and epoch that batches are written under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// Whether batches belong to transactions.
    pub(crate) is_transactional: bool,
}

/// The sequence number `count` records after `sequence`; they begin again at zero.
pub(super) fn sequence_after(sequence: i32, count: u32) -> i32 {
    let sum = sequence.cast_unsigned().wrapping_add(count);
    (sum & i32::MAX.cast_unsigned()).cast_signed()
}

/// What a batch is made of.
#[derive(Debug)]
pub(super) enum Contents {
    /// Takes records.
    Open(BatchBuilder),
    /// A thread is making bytes of it.
    Packing,
    /// Complete bytes, which stay as they are for as long as the batch has its sequence number.
    Packed(Arc<Vec<u8>>),
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be sent, for the first time or again.
    Waiting,
    /// Sent over the connection of that number, not answered.
    Sent(u64),
    /// In the log, up to that offset if the broker told; waits for those before it.
    Delivered(Option<u64>),
}

#[derive(Debug)]
pub(super) struct Batch {
    /// Names the batch in answers.
    pub(super) id: u64,
    /// The commit that its records belong to.
    pub(super) commit: u64,
    pub(super) count: u32,
    /// What its records count against the buffer.
    pub(super) size: u64,
    /// When its first record came.
    pub(super) since: Duration,
    /// Takes no more records, though it may not be packed yet.
    pub(super) is_closed: bool,
    pub(super) contents: Contents,
    /// Of its first record, from when it is sent for the first time.
    pub(super) sequence: Option<i32>,
    pub(super) state: State,
    /// How often it was sent under its sequence number.
    pub(super) sends: u32,
    /// How often in a row it got an answer that may come only so often.
    pub(super) refusals: u32,
}

impl Batch {
    pub(super) fn new(id: u64, commit: u64, compression: Compression, now: Duration) -> Self {
        Self {
            id,
            commit,
            count: 0,
            size: 0,
            since: now,
            is_closed: false,
            contents: Contents::Open(BatchBuilder::new(compression)),
            sequence: None,
            state: State::Waiting,
            sends: 0,
            refusals: 0,
        }
    }

    /// Bytes of its records before compression, or of the whole once it is packed.
    pub(super) fn len(&self) -> usize {
        match &self.contents {
            Contents::Open(builder) => builder.len(),
            Contents::Packing => usize::try_from(self.size).unwrap_or(usize::MAX),
            Contents::Packed(bytes) => bytes.len(),
        }
    }

    pub(super) fn push(&mut self, record: &RecordRef<'_>) {
        assert!(!self.is_closed, "a closed batch takes no records");
        let Contents::Open(builder) = &mut self.contents else {
            unreachable!("a batch is packed only once it is closed");
        };
        builder.push(record);
        self.count += 1;
        self.size += record.size();
    }

    /// Divides a packed batch that its broker refused for its size. The halves take up the same
    /// sequence numbers as the whole, so that batches behind them stay as they are.
    pub(super) fn split(&mut self, id: u64, compression: Compression) -> Result<Batch> {
        let Contents::Packed(bytes) = &self.contents else {
            unreachable!("only a batch that was sent can be refused");
        };
        let mut halves = [
            BatchBuilder::new(compression),
            BatchBuilder::new(compression),
        ];
        let mut sizes = [0, 0];
        let left = self.count / 2;
        let mut pushed = 0;
        let mut scratch = Scratch::default();
        for batch in Batches::new(bytes) {
            batch?.for_each(&mut scratch, |_, record| {
                let half = usize::from(pushed >= left);
                halves[half].push(&record);
                sizes[half] += record.size();
                pushed += 1;
                Ok(())
            })?;
        }
        if pushed != self.count {
            return Err(Error::corruption(format!(
                "a batch to be split has {pushed} of its {} records",
                self.count
            )));
        }
        let [first, second] = halves;
        let half = Batch {
            id,
            count: self.count - left,
            size: sizes[1],
            contents: Contents::Open(second),
            is_closed: true,
            sequence: self.sequence.map(|sequence| sequence_after(sequence, left)),
            ..Batch::new(id, self.commit, compression, self.since)
        };
        self.count = left;
        self.size = sizes[0];
        self.contents = Contents::Open(first);
        self.state = State::Waiting;
        self.sends = 0;
        Ok(half)
    }
}

/// A batch taken off its lane to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The lane's number.
    pub(super) lane: usize,
    /// See [`Batch::id`].
    pub(super) id: u64,
    pub(super) contents: Contents,
    pub(super) sequence: i32,
    /// Whether the bytes carry the sequence number already.
    pub(super) is_stamped: bool,
}

impl Outgoing {
    /// Makes the bytes to send: compresses, stamps, computes the checksum.
    pub(super) fn pack(self, writer: Writer) -> Arc<Vec<u8>> {
        let stamp = ProducerStamp {
            id: writer.id,
            epoch: writer.epoch,
            base_sequence: self.sequence,
            is_transactional: writer.is_transactional,
        };
        match self.contents {
            Contents::Open(builder) => Arc::new(builder.seal(stamp)),
            Contents::Packed(bytes) if self.is_stamped => bytes,
            Contents::Packed(mut bytes) => {
                restamp(Arc::<Vec<u8>>::make_mut(&mut bytes), stamp);
                bytes
            }
            Contents::Packing => unreachable!("one thread packs a batch"),
        }
    }
}
