//! Record batches, format 2: what Produce carries to a partition and Fetch brings back.
//!
//! A batch is a header of [`HEADER_LEN`] bytes and records, which may be compressed as a whole.
//! Integers of the header are big-endian, those of records zigzag varints. Log compaction takes
//! records out of a batch, even all of them, and leaves its range of offsets as it was: only
//! [`Batch::next_offset`] says where to read on.
//!
//! - `builder`: [`BatchBuilder`] makes batches, [`restamp`] renumbers sealed ones.
//! - `batch`: [`Batches`] walks through what was fetched, a [`Batch`] lends its records.
//! - `record`: one record.
//! - `compression`: the codecs.

mod batch;
mod builder;
mod compression;
mod record;

#[cfg(test)]
mod comparison;
#[cfg(test)]
mod tests;

pub(crate) use batch::{Batch, Batches, ControlType, Scratch};
pub(crate) use builder::{BatchBuilder, ProducerStamp, restamp};
pub(crate) use compression::DECOMPRESSED_LEN_MAX;
pub(crate) use record::encoded_len_max;

const BASE_OFFSET_POS: usize = 0;
const LENGTH_POS: usize = 8;
/// What the length counts begins here.
const LEADER_EPOCH_POS: usize = 12;
const MAGIC_POS: usize = 16;
const CRC_POS: usize = 17;
/// What the checksum covers begins here.
const ATTRIBUTES_POS: usize = 21;
const LAST_OFFSET_DELTA_POS: usize = 23;
const BASE_TIMESTAMP_POS: usize = 27;
const MAX_TIMESTAMP_POS: usize = 35;
const PRODUCER_ID_POS: usize = 43;
const PRODUCER_EPOCH_POS: usize = 51;
const BASE_SEQUENCE_POS: usize = 53;
const COUNT_POS: usize = 57;
/// Length of a batch's header: its records begin here.
pub(crate) const HEADER_LEN: usize = 61;

const MAGIC: u8 = 2;
const ATTRIBUTE_CODEC_MASK: u16 = 7;
const ATTRIBUTE_LOG_APPEND_TIME: u16 = 1 << 3;
const ATTRIBUTE_TRANSACTIONAL: u16 = 1 << 4;
const ATTRIBUTE_CONTROL: u16 = 1 << 5;

/// CRC-32C of what the checksum of `batch` covers.
fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[ATTRIBUTES_POS..])
}
