//! The segments of a task's log as they lie on disk at one moment.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::journal::{Kind, Lsn, Segment, SegmentFile, read_header, read_segment};

use super::index::{Index, Slot};
use super::names::{compacted_path, tail_number, tail_path};
use super::payload::Payload;

pub(super) const TAIL_KIND: Kind = *b"CLOG";
pub(super) const COMPACTED_KIND: Kind = *b"CLGC";

/// One segment that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    kind: Kind,
    journal_id: u64,
    number: u64,
    base: Lsn,
    /// Where it ends; `None` for the last one, which may be written to.
    limit: Option<Lsn>,
}

impl Part {
    /// True if both are the same segment, of which one may have been read before it ended.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.journal_id == other.journal_id
            && self.number == other.number
    }

    pub(super) fn is_closed(&self) -> bool {
        self.limit.is_some()
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn base(&self) -> Lsn {
        self.base
    }

    /// The next offset of each slot where the part begins; `None` if it has no records.
    pub(super) fn head(&self, env: &dyn Env, slots: &[Slot]) -> Result<Option<Vec<u64>>> {
        let mut head = None;
        self.read(env, &mut |payload| {
            if head.is_none() {
                let mut next = vec![0; slots.len()];
                Payload::decode(payload, slots)?.advance(&mut next);
                head = Some(next);
            }
            Ok(())
        })?;
        Ok(head)
    }

    /// Calls `visit` with each payload, and returns where the records end.
    pub(super) fn read(
        &self,
        env: &dyn Env,
        visit: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Lsn> {
        let segment = read_segment(env, &self.path, self.kind, self.journal_id, self.number)?;
        let found = segment.header().map(|header| header.base);
        if found != Some(self.base) {
            return Err(self.damaged(&format!("begins at {found:?}, {} expected", self.base)));
        }
        let mut end = self.base;
        for record in segment.records(self.limit.unwrap_or(Lsn(u64::MAX))) {
            visit(record.payload).map_err(|error| error.context(self.path.display()))?;
            end = record.end;
        }
        match self.limit {
            Some(limit) if limit != end => {
                Err(self.damaged(&format!("valid records end at {end}, {limit} expected")))
            }
            Some(_) => Ok(end),
            None => {
                check_told(&segment, end)?;
                Ok(end)
            }
        }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::corruption(format!("{}: {what}", self.path.display()))
    }
}

/// Fails if `segment` tells that the journal was durable beyond its `end`.
fn check_told(segment: &Segment, end: Lsn) -> Result<()> {
    let told = segment.told_durable(segment.header().map_or(end, |header| header.base));
    if told <= end {
        return Ok(());
    }
    Err(Error::corruption(format!(
        "{}: the log's valid records end at {end}, it was durable up to {told}",
        segment.path().display()
    )))
}

/// The tail's segment files that are there, by number.
pub(super) fn tail_files(env: &dyn Env, dir: &Path, index: &Index) -> Result<Vec<SegmentFile>> {
    let mut numbers: Vec<u64> = env
        .list_dir(dir)?
        .iter()
        .filter_map(|name| tail_number(name))
        .collect();
    numbers.retain(|number| *number >= index.tail_first);
    numbers.sort_unstable();
    let file = |number| SegmentFile {
        number,
        path: tail_path(dir, number),
    };
    Ok(numbers.into_iter().map(file).collect())
}

/// Everything that counts of a task's log. Made under the task's lock.
#[derive(Debug)]
pub(super) struct View {
    pub(super) index: Index,
    /// In order; the last one is the only one that is not closed.
    pub(super) parts: Vec<Part>,
    /// Files of the tail behind the last part, whose headers are torn.
    torn: Vec<SegmentFile>,
}

impl View {
    pub(super) fn read(env: &dyn Env, dir: &Path) -> Result<Self> {
        let (index, _) = Index::read(env, dir)?;
        Self::of(env, dir, index)
    }

    pub(super) fn of(env: &dyn Env, dir: &Path, index: Index) -> Result<Self> {
        let mut parts = Vec::new();
        let mut base = Lsn::ZERO;
        for (number, end) in (1..).zip(&index.compacted.ends) {
            parts.push(Part {
                path: compacted_path(dir, index.compacted.generation, number),
                kind: COMPACTED_KIND,
                journal_id: index.compacted.journal_id,
                number,
                base,
                limit: Some(*end),
            });
            base = *end;
        }
        let compacted = parts.len();
        let mut torn = Vec::new();
        for file in tail_files(env, dir, &index)? {
            let header = read_header(env, &file.path, TAIL_KIND, index.journal_id, file.number)?;
            let Some(header) = header else {
                torn.push(file);
                continue;
            };
            if parts.len() > compacted {
                parts.last_mut().expect("a part before").limit = Some(header.base);
            } else {
                index.check_tail_base(header.base)?;
            }
            torn.clear();
            parts.push(Part {
                path: file.path,
                kind: TAIL_KIND,
                journal_id: index.journal_id,
                number: file.number,
                base: header.base,
                limit: None,
            });
        }
        Ok(Self { index, parts, torn })
    }

    /// The next offset of each slot, from the newest segment.
    ///
    /// # Errors
    ///
    /// `Corruption` if the log ends below what is known to have been durable.
    pub(super) fn ends(&self, env: &dyn Env) -> Result<Vec<u64>> {
        let mut next: Vec<u64> = self.index.slots.iter().map(|slot| slot.next).collect();
        let mut end = Lsn::ZERO;
        let slots = &self.index.slots;
        for (back, part) in self.parts.iter().rev().enumerate() {
            let mut found = false;
            let part_end = part.read(env, &mut |payload| {
                found = true;
                Payload::decode(payload, slots)?.advance(&mut next);
                Ok(())
            })?;
            if back == 0 && !part.is_closed() {
                end = part_end;
            }
            // The head that each segment begins with covers all before; one that broke at its
            // birth has none.
            if found {
                break;
            }
        }
        if end < self.index.floor {
            return Err(Error::corruption(format!(
                "the log of task {} ends at {end}, it was durable up to {}",
                self.index.task, self.index.floor
            )));
        }
        self.check_torn(env, end)?;
        Ok(next)
    }

    fn check_torn(&self, env: &dyn Env, end: Lsn) -> Result<()> {
        let id = self.index.journal_id;
        for file in &self.torn {
            let segment = read_segment(env, &file.path, TAIL_KIND, id, file.number)?;
            check_told(&segment, end)?;
        }
        Ok(())
    }
}
