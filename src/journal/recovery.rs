use std::path::{Path, PathBuf};

use crate::env::{Env, File};
use crate::error::{Error, Result};
use crate::planted::{Bug, planted};

use super::reader::{Record, Segment, Stage, read_header, read_segment};
use super::{Kind, Lsn, SEGMENT_HEADER_LEN, SegmentHeader};

const REWRITE_CHUNK_BYTES: usize = 256 << 10;

/// Takes the index of the segment, the position behind the record, and the payload.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(usize, Lsn, &[u8]) -> Result<()>;

/// Where a segment of a journal lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentFile {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
}

/// What counts of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Positions of the records that count: from here up to `end`.
    pub(crate) base: Lsn,
    pub(crate) end: Lsn,
    /// Length of the whole file, before a cut.
    pub(crate) file_len: u64,
}

impl Span {
    /// Length of the file up to the end of the last record that counts.
    fn valid_len(&self) -> u64 {
        self.len_up_to(self.end)
    }

    fn len_up_to(&self, position: Lsn) -> u64 {
        SEGMENT_HEADER_LEN as u64 + (position.0 - self.base.0)
    }
}

/// What of a journal's files does not count and has to go before anything is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// So many leading segments stay.
    pub(crate) keep: usize,
    /// Length to which the last one that stays is cut.
    pub(crate) file_len: u64,
}

/// Where a journal ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Position of the first record that is still there.
    pub(crate) start: Lsn,
    /// Position behind the last record that counts.
    pub(crate) end: Lsn,
    /// Position up to which the journal is known to have been durable; not above `end`.
    pub(crate) durable: Lsn,
    /// For each segment that stays, what counts of it; `None` if its header is torn.
    pub(crate) spans: Vec<Option<Span>>,
    /// What has to go; `None` if nothing has to.
    pub(crate) cut: Option<Cut>,
    /// Positions of the records that count but are in the stage alone: from, up to, in order.
    pub(crate) staged: Vec<(Lsn, Lsn)>,
}

/// Decides where the journal of `segments`, given by rising number, ends, and calls `visit` with
/// the index of the segment, the position behind the record and the payload, for each record that
/// counts, in order. Changes nothing on disk: see [`cut`].
///
/// Each file is read once, so what was visited is of no worth where an error is returned.
///
/// `stage` is what the journal keeps of a segment's last records in another file, if it does.
///
/// The journal is valid up to the first bad record. A segment counts up to the base of the next
/// one; if its valid records end before that, the journal ends there. A segment with a torn
/// header holds nothing; the first one may have such a header only if it is all that was ever
/// written, so a first segment's header must be durable before anything is appended to it.
///
/// `floor` is a position known from elsewhere to have been durable.
///
/// # Errors
///
/// `Corruption` if the journal ends below `floor`, or below what any of its records tells to have
/// been durable. Errors of `visit` are handed on.
pub(crate) fn recover(
    env: &dyn Env,
    kind: Kind,
    journal_id: u64,
    segments: &[SegmentFile],
    stage: Option<&Stage>,
    floor: Lsn,
    visit: Visit<'_>,
) -> Result<Recovered> {
    let journal = Journal {
        env,
        kind,
        id: journal_id,
        segments,
        stage,
    };
    let headers = journal.headers()?;
    journal.read_all(&headers, floor, visit)
}

/// The records that count of a segment and of the stage that goes on with it.
///
/// At each position it is the one that is in the file, else the one that is staged, for a power
/// loss may have taken any part of either. So all that counts stays the same while recovery adds
/// to the file what was staged alone, wherever a crash ends that.
struct Records<'a> {
    segment: &'a Segment,
    stage: Option<&'a Stage>,
    at: Lsn,
    limit: Lsn,
}

impl<'a> Iterator for Records<'a> {
    /// The record, and whether it is staged alone.
    type Item = (Record<'a>, bool);

    fn next(&mut self) -> Option<Self::Item> {
        let in_file = self.segment.records_from(self.at, self.limit).next();
        let found = in_file.map(|record| (record, false)).or_else(|| {
            let staged = self.stage?.records(self.at, self.limit).next();
            staged.map(|record| (record, true))
        })?;
        self.at = found.0.end;
        Some(found)
    }
}

struct Journal<'a> {
    env: &'a dyn Env,
    kind: Kind,
    id: u64,
    segments: &'a [SegmentFile],
    stage: Option<&'a Stage>,
}

impl Journal<'_> {
    /// The stage, if it goes on with the segment of that index.
    fn stage_of(&self, index: usize) -> Option<&Stage> {
        self.stage
            .filter(|stage| stage.segment() == self.segments[index].number)
    }

    fn records<'b>(&'b self, index: usize, segment: &'b Segment, limit: Lsn) -> Records<'b> {
        Records {
            segment,
            stage: self.stage_of(index),
            at: segment.header().map_or(Lsn::ZERO, |header| header.base),
            limit,
        }
    }

    fn headers(&self) -> Result<Vec<Option<SegmentHeader>>> {
        let mut headers: Vec<Option<SegmentHeader>> = Vec::with_capacity(self.segments.len());
        let mut base = Lsn::ZERO;
        for (index, file) in self.segments.iter().enumerate() {
            assert!(
                index == 0 || self.segments[index - 1].number < file.number,
                "segments out of order"
            );
            let header = read_header(self.env, &file.path, self.kind, self.id, file.number)?;
            if let Some(header) = &header {
                if header.base < base {
                    return Err(Error::corruption(format!(
                        "{}: begins at {}, an earlier segment at {base}",
                        file.path.display(),
                        header.base
                    )));
                }
                base = header.base;
            }
            headers.push(header);
        }
        Ok(headers)
    }

    /// The position at which the segment behind `index` takes over.
    fn limit(headers: &[Option<SegmentHeader>], index: usize) -> Lsn {
        headers[index + 1..]
            .iter()
            .flatten()
            .next()
            .map_or(Lsn(u64::MAX), |next| next.base)
    }

    fn read(&self, index: usize) -> Result<Segment> {
        let file = &self.segments[index];
        read_segment(self.env, &file.path, self.kind, self.id, file.number)
    }

    fn told_by_stage(&self) -> Lsn {
        let stage = self.stage.filter(|_| !planted(Bug::WalStageTellsNothing));
        stage.map_or(Lsn::ZERO, Stage::told_durable)
    }

    /// Reads every segment, also those behind the end, for what they tell of the durable end.
    fn read_all(
        &self,
        headers: &[Option<SegmentHeader>],
        floor: Lsn,
        visit: Visit<'_>,
    ) -> Result<Recovered> {
        let first = headers.iter().flatten().next();
        let start = first.map_or(Lsn::ZERO, |header| header.base);
        let mut end = start;
        let mut told = floor.max(self.told_by_stage());
        let mut open = true;
        let mut keep = 0;
        let mut spans = Vec::new();
        let mut staged = Vec::new();
        let mut file_len = 0;
        for index in 0..self.segments.len() {
            let segment = self.read(index)?;
            if index == 0 {
                check_first(&segment, start)?;
            }
            let Some(header) = segment.header() else {
                told = told.max(segment.told_durable(end));
                spans.push(None);
                continue;
            };
            open = open && header.base == end;
            // Every header in the file tells, and those of the records are looked at but once.
            let mut untold = header.base;
            if open {
                let limit = Self::limit(headers, index);
                let records = self.records(index, &segment, limit);
                let behind = visit_all(records, &mut staged, &mut |record| {
                    told = told.max(record.durable);
                    visit(index, record.end, record.payload)
                })?;
                end = behind.unwrap_or(end);
                if self.stage_of(index).is_none() {
                    untold = end;
                }
                let span = Span {
                    base: header.base,
                    end,
                    file_len: segment.len(),
                };
                spans.push(Some(span));
                keep = index + 1;
                file_len = span.valid_len();
            }
            told = told.max(segment.told_durable(untold));
        }
        spans.truncate(keep);
        if end < told && !planted(Bug::DurableDamageCut) {
            return Err(self.damaged(headers, &spans, end, told));
        }
        let whole = keep == self.segments.len()
            && spans
                .last()
                .is_none_or(|last| last.is_none_or(|span| span.file_len <= file_len));
        let cut = (!whole).then_some(Cut { keep, file_len });
        Ok(Recovered {
            start,
            end,
            durable: told,
            spans,
            cut,
            staged,
        })
    }

    /// The journal ends too early. Names the file at fault: the one that the records end in, or,
    /// where that is good to its last byte, the one behind it.
    fn damaged(
        &self,
        headers: &[Option<SegmentHeader>],
        spans: &[Option<Span>],
        end: Lsn,
        told: Lsn,
    ) -> Error {
        let path = |index: usize| self.segments[index].path.display();
        let last = spans.last().copied().flatten();
        let next = headers.get(spans.len());
        let place = match (last, next) {
            (Some(span), _) if span.valid_len() < span.file_len => {
                format!("{}: byte {}", path(spans.len() - 1), span.valid_len())
            }
            (_, Some(None)) => format!("{}: bad header", path(spans.len())),
            (Some(_), Some(Some(header))) => format!(
                "records are missing between {} and {}, which begins at {}",
                path(spans.len() - 1),
                path(spans.len()),
                header.base
            ),
            (Some(_), None) => {
                format!("{}: missing records behind its end", path(spans.len() - 1))
            }
            (None, _) => "no segment is there".to_string(),
        };
        Error::corruption(format!(
            "{place}: the journal's valid records end at {end}, it was durable up to {told}"
        ))
    }
}

/// Visits the records, adds to `staged` what is staged alone of them, and returns the position
/// behind the last, if there is any.
fn visit_all(
    records: Records<'_>,
    staged: &mut Vec<(Lsn, Lsn)>,
    visit: &mut dyn FnMut(&Record<'_>) -> Result<()>,
) -> Result<Option<Lsn>> {
    let mut end = None;
    for (record, is_staged) in records {
        visit(&record)?;
        end = Some(record.end);
        match staged.last_mut() {
            _ if !is_staged => {}
            Some((_, to)) if *to == record.start => *to = record.end,
            _ => staged.push((record.start, record.end)),
        }
    }
    Ok(end)
}

/// Nothing vouches for the base of a first segment but its own header.
fn check_first(segment: &Segment, start: Lsn) -> Result<()> {
    let torn_at_birth = start == Lsn::ZERO && segment.len() <= SEGMENT_HEADER_LEN as u64;
    if segment.header().is_some() || torn_at_birth {
        return Ok(());
    }
    Err(Error::corruption(format!(
        "{}: bad header of the journal's first segment",
        segment.path().display()
    )))
}

/// Makes what [`recover`] decided the state on disk: removes the segments that do not count,
/// newest first, cuts the last that does, writes the records of the stage into their segment, and
/// makes the accepted records and names durable, for a kill may have left them unsynced. May be
/// repeated after a crash at any point: the stage itself stays as it is.
pub(crate) fn cut(
    env: &dyn Env,
    dir: &Path,
    segments: &[SegmentFile],
    stage: Option<&Stage>,
    recovered: &Recovered,
) -> Result<()> {
    let keep = recovered.spans.len();
    for file in segments[keep..].iter().rev() {
        env.remove_file(&file.path)?;
    }
    // Before the cut: what is removed must not come back behind other records than before.
    env.sync_dir(dir)?;
    for (index, (file, span)) in segments.iter().zip(&recovered.spans).enumerate() {
        let handle = env.open_write(&file.path)?;
        if let Some(cut) = recovered.cut.filter(|cut| cut.keep == index + 1) {
            handle.set_len(cut.file_len)?;
        }
        if let Some(span) = span {
            if let Some(stage) = stage.filter(|stage| stage.segment() == file.number)
                && !planted(Bug::WalStageNotMovedByRecovery)
            {
                for (from, to) in &recovered.staged {
                    handle.write_all_at(span.len_up_to(*from), stage.bytes(*from, *to))?;
                }
            }
            if !planted(Bug::UnsyncedTailNotRewritten) {
                rewrite_unsynced(&*handle, *span, recovered.durable)?;
            }
        }
        if !planted(Bug::WalCutSyncSkipped) {
            handle.sync()?;
        }
    }
    Ok(())
}

/// Writes the bytes of a segment that are not known to be durable once more, as they are.
///
/// After a failed sync the system may show bytes that it has given up: it takes them for written,
/// and the next sync would succeed without them.
fn rewrite_unsynced(file: &dyn File, span: Span, durable: Lsn) -> Result<()> {
    let header_len = SEGMENT_HEADER_LEN as u64;
    let end = span.valid_len();
    let mut pos = match durable.0.checked_sub(span.base.0) {
        // A durable record tells of a durable header.
        Some(len @ 1..) => header_len + len,
        _ => 0,
    };
    let mut chunk = Vec::new();
    while pos < end {
        let left = usize::try_from(end - pos).unwrap_or(usize::MAX);
        chunk.resize(left.min(REWRITE_CHUNK_BYTES), 0);
        file.read_exact_at(pos, &mut chunk)?;
        file.write_all_at(pos, &chunk)?;
        pos += chunk.len() as u64;
    }
    Ok(())
}
