use std::path::{Path, PathBuf};

use crate::env::{Env, read_file};
use crate::error::{ErrorKind, Result};
use crate::planted::{Bug, planted};

use super::{
    Kind, Lsn, Place, RECORD_HEADER_LEN, RecordHeader, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX,
    SegmentHeader,
};

/// A segment file as it was read back.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    place: Place,
    header: Option<SegmentHeader>,
    bytes: Vec<u8>,
}

/// A record whose checksums are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// Position of its first byte.
    pub(crate) start: Lsn,
    /// Position behind its last byte.
    pub(crate) end: Lsn,
    /// Position up to which the journal was durable when it was written.
    pub(crate) durable: Lsn,
    pub(crate) payload: &'a [u8],
}

/// Reads the file at `path`, in which segment number `segment` of a journal belongs.
///
/// # Errors
///
/// `Corruption` if the file holds another segment or journal, or is too long for one;
/// `Unsupported` if it has another format version. A torn header is no error.
pub(crate) fn read_segment(
    env: &dyn Env,
    path: &Path,
    kind: Kind,
    journal_id: u64,
    segment: u64,
) -> Result<Segment> {
    let bytes = read_file(env, path, SEGMENT_LEN_MAX)?;
    let header = checked_header(&bytes, path, kind, journal_id, segment)?;
    let place = Place::new(kind, journal_id, segment);
    Ok(Segment {
        path: path.to_path_buf(),
        place,
        header,
        bytes,
    })
}

/// Reads only the header of a segment file; `None` if there is no whole one.
pub(crate) fn read_header(
    env: &dyn Env,
    path: &Path,
    kind: Kind,
    journal_id: u64,
    segment: u64,
) -> Result<Option<SegmentHeader>> {
    let header = peek_header(env, path)?;
    if let Some(header) = &header {
        header.check(kind, journal_id, segment, path)?;
    }
    Ok(header)
}

/// The header of a segment file of which nothing is known; `None` if there is no whole one.
pub(crate) fn peek_header(env: &dyn Env, path: &Path) -> Result<Option<SegmentHeader>> {
    let file = env.open(path)?;
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    if file.len()? < bytes.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(0, &mut bytes)?;
    SegmentHeader::decode(&bytes).map_err(|error| error.context(path.display()))
}

fn checked_header(
    bytes: &[u8],
    path: &Path,
    kind: Kind,
    journal_id: u64,
    segment: u64,
) -> Result<Option<SegmentHeader>> {
    let header = SegmentHeader::decode(bytes).map_err(|error| error.context(path.display()))?;
    if let Some(header) = &header {
        header.check(kind, journal_id, segment, path)?;
    }
    Ok(header)
}

/// What a journal keeps of its last segment in a file of its own, laid out as a segment is: a
/// window onto that segment, which its header names, from the header's base on.
///
/// What lies in it below the end of the segment's own records tells nothing new, and may be
/// anything.
#[derive(Debug)]
pub(crate) struct Stage {
    header: SegmentHeader,
    window: Segment,
}

impl Stage {
    /// Reads the stage at `path`, which has the kind `stage_kind`, of a journal of the kind `kind`.
    /// `None` if there is no such file, or its header is torn: then it holds nothing.
    ///
    /// # Errors
    ///
    /// `Corruption` if the file is of another journal or kind; `Unsupported` if it has another
    /// format version; `Io`.
    pub(crate) fn read(
        env: &dyn Env,
        path: &Path,
        stage_kind: Kind,
        kind: Kind,
        journal_id: u64,
    ) -> Result<Option<Self>> {
        let bytes = match read_file(env, path, SEGMENT_LEN_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let header =
            SegmentHeader::decode(&bytes).map_err(|error| error.context(path.display()))?;
        let Some(header) = header else {
            return Ok(None);
        };
        header.check(stage_kind, journal_id, header.segment, path)?;
        let window = Segment {
            path: path.to_path_buf(),
            // The records are the segment's.
            place: Place::new(kind, journal_id, header.segment),
            header: Some(header),
            bytes,
        };
        Ok(Some(Self { header, window }))
    }

    /// The segment that the stage goes on with.
    pub(crate) fn segment(&self) -> u64 {
        self.header.segment
    }

    /// The valid records from `at` on, where the segment has none, that end at or before `limit`.
    /// None if the window begins behind `at`.
    pub(crate) fn records(&self, at: Lsn, limit: Lsn) -> Records<'_> {
        let at = if planted(Bug::WalStageGapPassed) {
            at.max(self.header.base)
        } else {
            at
        };
        self.window.records_from(at, limit)
    }

    /// The position behind the last record of [`records`](Self::records).
    #[cfg(feature = "cli")]
    pub(crate) fn end(&self, at: Lsn, limit: Lsn) -> Lsn {
        let mut records = self.records(at, limit);
        records.by_ref().for_each(drop);
        records.at
    }

    /// The bytes of the records between two positions in the window.
    pub(crate) fn bytes(&self, from: Lsn, to: Lsn) -> &[u8] {
        let rest = self.window.bytes_from(from);
        let len = usize::try_from(to.0 - from.0).unwrap_or(usize::MAX);
        &rest[..len.min(rest.len())]
    }

    /// The highest durable position that the header or any record of the window tells of.
    pub(crate) fn told_durable(&self) -> Lsn {
        self.window.told_durable(self.header.base)
    }
}

impl Segment {
    /// The segment's header, or `None` if it is torn.
    pub(crate) fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The valid records in sequence from the base on that end at or before `limit`. None if the
    /// header is torn.
    pub(crate) fn records(&self, limit: Lsn) -> Records<'_> {
        let at = self.header.map_or(Lsn::ZERO, |header| header.base);
        self.records_from(at, limit)
    }

    /// The same from the position `at` on.
    pub(super) fn records_from(&self, at: Lsn, limit: Lsn) -> Records<'_> {
        Records {
            place: self.place,
            at,
            limit,
            rest: self.bytes_from(at),
        }
    }

    /// The bytes from the position `at` on; none where the file has no such position.
    fn bytes_from(&self, at: Lsn) -> &[u8] {
        let Some(header) = &self.header else {
            return &[];
        };
        let pos = at.0.checked_sub(header.base.0);
        let pos = pos.and_then(|pos| usize::try_from(pos).ok()?.checked_add(SEGMENT_HEADER_LEN));
        pos.and_then(|pos| self.bytes.get(pos..)).unwrap_or(&[])
    }

    /// The position behind the last record of [`records`](Self::records).
    #[cfg(feature = "cli")]
    pub(crate) fn end(&self, limit: Lsn) -> Lsn {
        let mut records = self.records(limit);
        records.by_ref().for_each(drop);
        records.at
    }

    /// Why the bytes behind the last valid record are none; `None` if there are no bytes.
    #[cfg(feature = "cli")]
    pub(crate) fn ending(&self) -> Option<String> {
        let mut records = self.records(Lsn(u64::MAX));
        records.by_ref().for_each(drop);
        let (at, rest) = (records.at, records.rest);
        if rest.is_empty() {
            return None;
        }
        Some(if rest.len() < RECORD_HEADER_LEN {
            format!("{} bytes are too few for a record's header", rest.len())
        } else if rest.iter().all(|byte| *byte == 0) {
            "they are zeros".to_owned()
        } else {
            match RecordHeader::decode(self.place, at, rest) {
                None => "no header of a record that belongs here".to_owned(),
                Some(header) if header.record_len() > rest.len() => format!(
                    "a record of {} bytes, cut off after {}",
                    header.record_len(),
                    rest.len()
                ),
                Some(_) => "a record whose payload has another checksum".to_owned(),
            }
        })
    }

    /// The highest durable position that the header tells of, or any record from the position
    /// `from` on, also one beyond bad ones, whose payload may be gone. A segment without a header
    /// is looked through as if `from` were its base.
    pub(crate) fn told_durable(&self, from: Lsn) -> Lsn {
        let (bytes, mut told) = if let Some(header) = &self.header {
            (self.bytes_from(from), header.durable)
        } else {
            let bytes = self.bytes.get(SEGMENT_HEADER_LEN..);
            (bytes.unwrap_or_default(), Lsn::ZERO)
        };
        let mut pos = 0;
        while let Some(rest) = bytes
            .get(pos..)
            .filter(|rest| rest.len() >= RECORD_HEADER_LEN)
        {
            let header = from
                .0
                .checked_add(pos as u64)
                .and_then(|at| RecordHeader::decode(self.place, Lsn(at), rest));
            // The next header is behind the record that this one heads, whatever became of its
            // payload. Where there is none, it may be anywhere.
            pos = pos.saturating_add(match header {
                Some(header) => {
                    told = told.max(header.durable);
                    header.record_len()
                }
                None => 1,
            });
        }
        told
    }
}

/// Iterates over the valid records of a segment, in sequence.
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    place: Place,
    at: Lsn,
    limit: Lsn,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let start = self.at;
        let header = RecordHeader::decode(self.place, start, self.rest)?;
        let len = header.record_len();
        let payload = self.rest.get(RECORD_HEADER_LEN..len)?;
        let end = Lsn(start.0.checked_add(len as u64)?);
        let mut matches = header.matches(self.place, start, payload);
        if planted(Bug::JournalChecksumIgnored) {
            matches = true;
        }
        if planted(Bug::JournalBadRecordPassed) && !matches {
            self.at = end;
            self.rest = &self.rest[len..];
            return self.next();
        }
        if end > self.limit || !matches {
            return None;
        }
        self.at = end;
        self.rest = &self.rest[len..];
        Some(Record {
            start,
            end,
            durable: header.durable,
            payload,
        })
    }
}
