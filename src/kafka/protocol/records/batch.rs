//! Reading record batches.

use super::compression::{Codec, DECOMPRESSED_LEN_MAX};
use super::record::RecordReader;
use super::{
    ATTRIBUTE_CODEC_MASK, ATTRIBUTE_CONTROL, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL,
    ATTRIBUTES_POS, BASE_OFFSET_POS, BASE_SEQUENCE_POS, BASE_TIMESTAMP_POS, COUNT_POS, CRC_POS,
    HEADER_LEN, LAST_OFFSET_DELTA_POS, LEADER_EPOCH_POS, LENGTH_POS, MAGIC, MAGIC_POS,
    MAX_TIMESTAMP_POS, PRODUCER_EPOCH_POS, PRODUCER_ID_POS, checksum,
};
use crate::changelog::RecordRef;
use crate::error::{Error, Result};

/// The batches of what was fetched, in order. Ends quietly where the last batch is cut off, which
/// brokers do to stay within a limit; ends after an error.
#[derive(Debug, Clone)]
pub(crate) struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    pub(crate) fn new(records: &'a [u8]) -> Self {
        Self { rest: records }
    }

    /// What has not been read: after the end, the batch that was cut off.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self) -> Result<Option<Batch<'a>>> {
        if self.rest.len() <= MAGIC_POS {
            return Ok(None);
        }
        let base_offset = i64::from_be_bytes(field(self.rest, BASE_OFFSET_POS));
        let magic = self.rest[MAGIC_POS];
        if magic != MAGIC {
            return Err(Error::unsupported(format!(
                "the batch at offset {base_offset} has format {magic}: only {MAGIC} is read"
            )));
        }
        let length = i32::from_be_bytes(field(self.rest, LENGTH_POS));
        let len = usize::try_from(length)
            .ok()
            .map(|length| length.saturating_add(LEADER_EPOCH_POS))
            .filter(|len| *len >= HEADER_LEN);
        let Some(len) = len else {
            return Err(Error::corruption(format!(
                "the batch at offset {base_offset} claims a length of {length}"
            )));
        };
        let Some((bytes, rest)) = self.rest.split_at_checked(len) else {
            return Ok(None);
        };
        let batch = Batch::new(bytes)?;
        self.rest = rest;
        Ok(Some(batch))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.take().transpose();
        if matches!(batch, Some(Err(_))) {
            self.rest = &[];
        }
        batch
    }
}

/// What a control batch marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlType {
    /// The producer's open transaction is aborted.
    Abort,
    /// The producer's open transaction is committed.
    Commit,
    /// Something that is no end of a transaction.
    Other(i16),
}

/// Memory that reading batches needs, and uses again for the next one.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) decompressed: Vec<u8>,
    decompressed_len_max: usize,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new(DECOMPRESSED_LEN_MAX)
    }
}

impl Scratch {
    /// For batches whose records are at most so long once they are decompressed.
    pub(crate) fn new(decompressed_len_max: usize) -> Self {
        Self {
            decompressed: Vec::new(),
            decompressed_len_max,
        }
    }
}

/// A whole batch; its header is plausible, its checksum not yet compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    bytes: &'a [u8],
    /// Offset of the first record that the batch had when it was written.
    pub(crate) base_offset: i64,
    /// From there to the last record that it had. Log compaction never changes it.
    pub(crate) last_offset_delta: i32,
    /// Of the leader that took the batch, or -1.
    pub(crate) leader_epoch: i32,
    /// -1 where the producer was not idempotent.
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    /// Records that are still in it.
    pub(crate) count: u32,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    attributes: u16,
}

fn field<const LEN: usize>(bytes: &[u8], pos: usize) -> [u8; LEN] {
    let mut value = [0; LEN];
    value.copy_from_slice(&bytes[pos..pos + LEN]);
    value
}

impl<'a> Batch<'a> {
    /// Reads the header of `bytes`, which are at least one long.
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let base_offset = i64::from_be_bytes(field(bytes, BASE_OFFSET_POS));
        let last_offset_delta = i32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA_POS));
        let count = i32::from_be_bytes(field(bytes, COUNT_POS));
        // The next offset has to be one, too.
        let next_offset = base_offset.checked_add(i64::from(last_offset_delta) + 1);
        if base_offset < 0 || last_offset_delta < 0 || next_offset.is_none() {
            return Err(Error::corruption(format!(
                "a batch claims to end {last_offset_delta} behind offset {base_offset}"
            )));
        }
        let count = u32::try_from(count)
            .ok()
            .filter(|count| *count <= last_offset_delta.cast_unsigned() + 1);
        let count = count.ok_or_else(|| {
            Error::corruption(format!(
                "the batch at offset {base_offset} claims a wrong count of records"
            ))
        })?;
        Ok(Self {
            bytes,
            base_offset,
            last_offset_delta,
            leader_epoch: i32::from_be_bytes(field(bytes, LEADER_EPOCH_POS)),
            producer_id: i64::from_be_bytes(field(bytes, PRODUCER_ID_POS)),
            producer_epoch: i16::from_be_bytes(field(bytes, PRODUCER_EPOCH_POS)),
            base_sequence: i32::from_be_bytes(field(bytes, BASE_SEQUENCE_POS)),
            count,
            base_timestamp_ms: i64::from_be_bytes(field(bytes, BASE_TIMESTAMP_POS)),
            max_timestamp_ms: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_POS)),
            attributes: u16::from_be_bytes(field(bytes, ATTRIBUTES_POS)),
        })
    }

    /// Where to read on behind the batch, whatever compaction has left of it.
    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Offset of the last record that the batch had when it was written.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Length of the batch in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Part of a transaction: its records count once that has been committed.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Holds markers of the brokers instead of records.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// The broker's clock has stamped the records, all alike.
    pub(crate) fn is_log_append_time(&self) -> bool {
        self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.attributes & ATTRIBUTE_CODEC_MASK != 0
    }

    /// Compares the checksum, which covers everything but offset, length and leader epoch.
    ///
    /// # Errors
    ///
    /// `Corruption` if it differs.
    pub(crate) fn verify(&self) -> Result<()> {
        let stored = u32::from_be_bytes(field(self.bytes, CRC_POS));
        let computed = checksum(self.bytes);
        if stored == computed {
            return Ok(());
        }
        let what = format!("checksum: stored {stored:08x}, computed {computed:08x}");
        Err(self.wrong(&what))
    }

    /// Lends the records with their offsets, in order, to `visit`, until it fails. A null key is
    /// lent as an empty one.
    ///
    /// # Errors
    ///
    /// `Corruption` if the bytes are no records, `Unsupported` for a codec that this build lacks;
    /// some records may have been lent by then. And what `visit` fails with.
    pub(crate) fn for_each(
        &self,
        scratch: &mut Scratch,
        mut visit: impl FnMut(i64, RecordRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let records = self.records(scratch)?;
        let mut reader = RecordReader::new(records);
        let mut headers = Vec::new();
        let log_append_time_ms = self.is_log_append_time().then_some(self.max_timestamp_ms);
        let mut lowest = 0;
        for _ in 0..self.count {
            let record = reader
                .next(&mut headers)
                .map_err(|error| self.locate(&error))?;
            if record.offset_delta < lowest || record.offset_delta > self.last_offset_delta {
                return Err(self.wrong("the offset of a record is out of its order"));
            }
            lowest = record.offset_delta.saturating_add(1);
            let offset = self.base_offset + i64::from(record.offset_delta);
            let lent = RecordRef {
                key: record.key.unwrap_or_default(),
                value: record.value,
                timestamp_ms: log_append_time_ms
                    .unwrap_or_else(|| self.base_timestamp_ms.wrapping_add(record.timestamp_delta)),
                headers: &headers,
            };
            visit(offset, lent)?;
        }
        if !reader.rest().is_empty() {
            return Err(self.wrong("bytes are left over behind the last record"));
        }
        Ok(())
    }

    /// What a control batch marks; none for a batch of records, and for an emptied one.
    ///
    /// # Errors
    ///
    /// `Corruption` if its record is no marker.
    pub(crate) fn control_type(&self, scratch: &mut Scratch) -> Result<Option<ControlType>> {
        if !self.is_control() || self.count == 0 {
            return Ok(None);
        }
        let mut reader = RecordReader::new(self.records(scratch)?);
        let record = reader
            .next(&mut Vec::new())
            .map_err(|error| self.locate(&error))?;
        // Two bytes of version, two of type; later versions may append.
        let Some([_, _, high, low, ..]) = record.key else {
            return Err(self.wrong("the key of a control record is too short"));
        };
        Ok(Some(match i16::from_be_bytes([*high, *low]) {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            other => ControlType::Other(other),
        }))
    }

    /// The records' bytes, decompressed into `scratch` where they are not plain.
    fn records<'s>(&self, scratch: &'s mut Scratch) -> Result<&'s [u8]>
    where
        'a: 's,
    {
        let records = &self.bytes[HEADER_LEN..];
        let codec = Codec::from_attributes(self.attributes & ATTRIBUTE_CODEC_MASK)
            .map_err(|error| self.locate(&error))?;
        // An emptied batch may keep its codec without a byte behind the header.
        let Some(codec) = codec.filter(|_| self.count > 0) else {
            return Ok(records);
        };
        codec
            .decompress(
                records,
                &mut scratch.decompressed,
                scratch.decompressed_len_max,
            )
            .map_err(|error| self.locate(&error))?;
        Ok(&scratch.decompressed)
    }

    #[cold]
    fn locate(&self, error: &Error) -> Error {
        error.context(format_args!("the batch at offset {}", self.base_offset))
    }

    #[cold]
    fn wrong(&self, what: &str) -> Error {
        self.locate(&Error::corruption(what.to_owned()))
    }
}
