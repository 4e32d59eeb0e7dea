//! Making record batches.

use std::io::Write;

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

use super::record::put_record;
use super::{
    ATTRIBUTE_TRANSACTIONAL, ATTRIBUTES_POS, BASE_SEQUENCE_POS, BASE_TIMESTAMP_POS, COUNT_POS,
    CRC_POS, HEADER_LEN, LAST_OFFSET_DELTA_POS, LEADER_EPOCH_POS, LENGTH_POS, MAGIC, MAGIC_POS,
    MAX_TIMESTAMP_POS, PRODUCER_EPOCH_POS, PRODUCER_ID_POS, checksum,
};
use crate::changelog::RecordRef;
use crate::kafka::protocol::records::compression::CODEC_LZ4;
use crate::options::Compression;

/// Who wrote a batch, and as which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    /// Sequence number of the batch's first record.
    pub(crate) base_sequence: i32,
    pub(crate) is_transactional: bool,
}

impl ProducerStamp {
    /// A batch outside transactions whose sender the broker does not know.
    pub(crate) const NONE: Self = Self {
        id: -1,
        epoch: -1,
        base_sequence: -1,
        is_transactional: false,
    };
}

/// A batch to which records are added, in the bytes that will be sent.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    compression: Compression,
    /// A gap for the header, and the records.
    bytes: Vec<u8>,
    count: i32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

impl BatchBuilder {
    pub(crate) fn new(compression: Compression) -> Self {
        Self::reusing(compression, Vec::new())
    }

    /// Builds in the memory of `buffer`, whose content is lost.
    pub(crate) fn reusing(compression: Compression, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.resize(HEADER_LEN, 0);
        Self {
            compression,
            bytes: buffer,
            count: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: i64::MIN,
        }
    }

    /// Adds a record.
    ///
    /// # Panics
    ///
    /// If the record or the batch would be larger than 2 GiB; see
    /// [`encoded_len_max`](super::encoded_len_max).
    pub(crate) fn push(&mut self, record: &RecordRef<'_>) {
        if self.count == 0 {
            self.base_timestamp_ms = record.timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
        // Differences may wrap, and readers wrap back.
        let timestamp_delta = record.timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        put_record(&mut self.bytes, timestamp_delta, self.count, record);
        self.count += 1;
    }

    /// Bytes so far, the header and all, before compression.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Records so far.
    pub(crate) fn count(&self) -> i32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Compresses the records, completes the header, and returns the whole batch.
    ///
    /// # Panics
    ///
    /// If there is no record: brokers take no empty batch.
    pub(crate) fn seal(mut self, stamp: ProducerStamp) -> Vec<u8> {
        assert!(self.count > 0, "a batch has records");
        let mut attributes = 0;
        if self.compression == Compression::Lz4 {
            let compressed = compress(&self.bytes);
            // What does not shrink is sent as it is.
            if compressed.len() < self.bytes.len() {
                self.bytes = compressed;
                attributes = CODEC_LZ4;
            }
        }
        let len = i32::try_from(self.bytes.len() - LEADER_EPOCH_POS);
        let len = len.expect("a batch is at most i32::MAX bytes long");
        let bytes = &mut self.bytes[..];
        put(bytes, LENGTH_POS, len.to_be_bytes());
        put(bytes, LEADER_EPOCH_POS, (-1_i32).to_be_bytes());
        put(bytes, MAGIC_POS, [MAGIC]);
        put(bytes, ATTRIBUTES_POS, attributes.to_be_bytes());
        put(bytes, LAST_OFFSET_DELTA_POS, (self.count - 1).to_be_bytes());
        put(
            bytes,
            BASE_TIMESTAMP_POS,
            self.base_timestamp_ms.to_be_bytes(),
        );
        put(
            bytes,
            MAX_TIMESTAMP_POS,
            self.max_timestamp_ms.to_be_bytes(),
        );
        put(bytes, COUNT_POS, self.count.to_be_bytes());
        restamp(bytes, stamp);
        self.bytes
    }
}

/// Gives a sealed batch another producer and sequence. Only for one that no broker has accepted:
/// to the broker it is another batch from then on.
///
/// # Panics
///
/// If `batch` is shorter than a header.
pub(crate) fn restamp(batch: &mut [u8], stamp: ProducerStamp) {
    let attributes = u16::from_be_bytes([batch[ATTRIBUTES_POS], batch[ATTRIBUTES_POS + 1]]);
    let attributes = if stamp.is_transactional {
        attributes | ATTRIBUTE_TRANSACTIONAL
    } else {
        attributes & !ATTRIBUTE_TRANSACTIONAL
    };
    put(batch, ATTRIBUTES_POS, attributes.to_be_bytes());
    put(batch, PRODUCER_ID_POS, stamp.id.to_be_bytes());
    put(batch, PRODUCER_EPOCH_POS, stamp.epoch.to_be_bytes());
    put(batch, BASE_SEQUENCE_POS, stamp.base_sequence.to_be_bytes());
    let checksum = checksum(batch);
    put(batch, CRC_POS, checksum.to_be_bytes());
}

fn put<const LEN: usize>(bytes: &mut [u8], pos: usize, value: [u8; LEN]) {
    bytes[pos..pos + LEN].copy_from_slice(&value);
}

/// The records behind the header of `batch` as an LZ4 frame, behind a gap for a header. Blocks
/// are independent and 64 KiB, for Java's reader takes no others.
fn compress(batch: &[u8]) -> Vec<u8> {
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut out = Vec::with_capacity(batch.len() / 2);
    out.resize(HEADER_LEN, 0);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    let written = encoder.write_all(&batch[HEADER_LEN..]);
    written.expect("memory takes every write");
    encoder.finish().expect("memory takes every write")
}
