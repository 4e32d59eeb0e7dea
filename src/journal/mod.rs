//! A journal: checksummed records, appended to segment files. The WAL, the manifest and the file
//! changelog are journals.
//!
//! [`Writer`] appends to one segment, [`Segment`] reads one back, and [`recover`] decides where a
//! journal of several segments ends after a crash, and [`cut`] makes that its end on disk. The
//! layout is told in `docs/format.md`, section "Journal".
//!
//! The last records of a journal may be in a [`Stage`] before they are in their segment: a window
//! onto it, whose records are those of the segment to the byte.
//!
//! A position in a journal is an [`Lsn`]. Each record tells the position up to which the journal
//! was durable when the record was written. So damage to bytes that were durable is told from
//! the torn tail that a power loss leaves: the one is an error, the other is cut.

mod reader;
mod recovery;
mod writer;

use std::fmt;
use std::path::Path;

use crate::checksum::crc32_at;
use crate::coding::Decoder;
use crate::error::{Error, Result};

#[cfg(feature = "cli")]
pub(crate) use reader::Record;
pub(crate) use reader::{Segment, Stage, peek_header, read_header, read_segment};
pub(crate) use recovery::{Recovered, SegmentFile, cut, recover};
pub(crate) use writer::Writer;

/// Longest payload of a record; the shortest has one byte.
pub(crate) const PAYLOAD_LEN_MAX: usize = 1 << 30;
/// Longest segment file.
pub(crate) const SEGMENT_LEN_MAX: u64 = 2 << 30;

const MAGIC: [u8; 4] = *b"SILT";
/// What a segment file begins with.
#[cfg(feature = "cli")]
pub(crate) const SEGMENT_MAGIC: [u8; 4] = MAGIC;
const FORMAT_VERSION: u32 = 1;
/// The same, of a segment whose last records may be in a stage.
const FORMAT_VERSION_WITH_STAGE: u32 = 2;

const SEGMENT_CRC_POS: usize = 4 + 4 + 4 + 8 + 8 + 8 + 8;
/// Length of the header at the front of each segment file.
pub(crate) const SEGMENT_HEADER_LEN: usize = SEGMENT_CRC_POS + 4;

const RECORD_CRC_POS: usize = 4 + 8 + 4;
/// Length of the header in front of each payload.
pub(crate) const RECORD_HEADER_LEN: usize = RECORD_CRC_POS + 4;

/// Bytes that records with these payloads take.
pub(crate) fn records_len(payloads: &[&[u8]]) -> u64 {
    let len = |payload: &&[u8]| RECORD_HEADER_LEN.saturating_add(payload.len()) as u64;
    payloads.iter().map(len).fold(0, u64::saturating_add)
}

/// What a journal is for, so that a WAL is never taken for a manifest.
pub(crate) type Kind = [u8; 4];

/// A position in a journal: bytes of records since its birth, running on over its segments.
///
/// Headers of segments do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Lsn(pub(crate) u64);

impl Lsn {
    pub(crate) const ZERO: Self = Self(0);
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a segment file says of itself in front of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) kind: Kind,
    /// Random, the same in all segments of one journal.
    pub(crate) journal_id: u64,
    /// Number of the segment, never used twice in one journal.
    pub(crate) segment: u64,
    /// Position of its first record. Everything before it is in the segments before; what they
    /// hold at or behind it is the rest of an append that failed.
    pub(crate) base: Lsn,
    /// Position up to which the journal was durable when the segment was begun.
    pub(crate) durable: Lsn,
    /// True if its last records may be in a stage, so that who knows of none must not read it.
    pub(crate) has_stage: bool,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let version = if self.has_stage {
            FORMAT_VERSION_WITH_STAGE
        } else {
            FORMAT_VERSION
        };
        let mut out = Vec::with_capacity(SEGMENT_HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.kind);
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&self.journal_id.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.base.0.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        let crc = crc32_at(self.journal_id, self.segment, &[&out]);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut header = [0; SEGMENT_HEADER_LEN];
        header.copy_from_slice(&out);
        header
    }

    /// The header in front of `bytes`, or `None` where there is no whole one.
    ///
    /// # Errors
    ///
    /// `Unsupported` if it is whole and of another format version.
    fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_LEN) else {
            return Ok(None);
        };
        let mut decoder = Decoder::new(bytes);
        let magic: [u8; 4] = decoder.array("segment magic")?;
        let kind = decoder.array("segment kind")?;
        let version = decoder.u32("format version")?;
        let journal_id = decoder.u64("journal id")?;
        let segment = decoder.u64("segment number")?;
        let base = Lsn(decoder.u64("base position")?);
        let durable = Lsn(decoder.u64("durable position")?);
        let crc = decoder.u32("segment header checksum")?;
        let whole = magic == MAGIC
            && crc == crc32_at(journal_id, segment, &[&bytes[..SEGMENT_CRC_POS]])
            && durable <= base;
        if !whole {
            return Ok(None);
        }
        if !matches!(version, FORMAT_VERSION | FORMAT_VERSION_WITH_STAGE) {
            return Err(Error::unsupported(format!(
                "journal format {version}, this build reads {FORMAT_VERSION} and \
                 {FORMAT_VERSION_WITH_STAGE}"
            )));
        }
        Ok(Some(Self {
            kind,
            journal_id,
            segment,
            base,
            durable,
            has_stage: version == FORMAT_VERSION_WITH_STAGE,
        }))
    }

    /// Fails if a whole header is not the one that belongs into the file at `path`.
    fn check(&self, kind: Kind, journal_id: u64, segment: u64, path: &Path) -> Result<()> {
        let wrong = if self.kind != kind {
            format!("kind {:?}, expected {kind:?}", self.kind)
        } else if self.journal_id != journal_id {
            format!(
                "journal {:016x}, expected {journal_id:016x}",
                self.journal_id
            )
        } else if self.segment != segment {
            format!("segment {}, expected {segment}", self.segment)
        } else {
            return Ok(());
        };
        Err(Error::corruption(format!(
            "{}: belongs to another journal: {wrong}",
            path.display()
        )))
    }
}

/// What the checksums of a segment's records are bound to, beside their position.
#[derive(Debug, Clone, Copy)]
struct Place(u64);

impl Place {
    fn new(kind: Kind, journal_id: u64, segment: u64) -> Self {
        Self(journal_id ^ segment ^ (u64::from(u32::from_le_bytes(kind)) << 32))
    }
}

/// The fixed part in front of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RecordHeader {
    payload_len: u32,
    durable: Lsn,
    payload_crc: u32,
}

impl RecordHeader {
    fn new(place: Place, at: Lsn, payload_len: u32, payload: &[u8], durable: Lsn) -> Self {
        Self {
            payload_len,
            durable,
            payload_crc: crc32_at(place.0, at.0, &[payload]),
        }
    }

    fn encode_into(self, place: Place, at: Lsn, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.durable.0.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32_at(place.0, at.0, &[&out[start..]]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// The header in front of `bytes` if it was written for position `at` of this segment.
    fn decode(place: Place, at: Lsn, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER_LEN] = bytes.first_chunk()?;
        let (payload_len, rest) = bytes.split_first_chunk()?;
        let (durable, rest) = rest.split_first_chunk()?;
        let (payload_crc, rest) = rest.split_first_chunk()?;
        let crc = rest.first_chunk()?;
        let header = Self {
            payload_len: u32::from_le_bytes(*payload_len),
            durable: Lsn(u64::from_le_bytes(*durable)),
            payload_crc: u32::from_le_bytes(*payload_crc),
        };
        let payload_len = usize::try_from(header.payload_len).ok()?;
        // The cheap checks come first: the search for headers in a torn tail tries every byte.
        // They also matter for it: four bytes of checksum alone would too often be met by chance.
        let sound = (1..=PAYLOAD_LEN_MAX).contains(&payload_len)
            && header.durable <= at
            && u32::from_le_bytes(*crc) == crc32_at(place.0, at.0, &[&bytes[..RECORD_CRC_POS]]);
        sound.then_some(header)
    }

    /// Length of the record with its header.
    fn record_len(self) -> usize {
        // `decode` has checked it against the longest, which is far below `usize::MAX`.
        RECORD_HEADER_LEN + self.payload_len as usize
    }

    fn matches(self, place: Place, at: Lsn, payload: &[u8]) -> bool {
        self.payload_crc == crc32_at(place.0, at.0, &[payload])
    }
}

#[cfg(test)]
mod tests;
