//! Rewrites a task's log so that it has one record a key.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::Result;
use crate::journal::{Lsn, SegmentHeader, Writer};

use super::FileOptions;
use super::index::{Compacted, Index};
use super::names::{compacted_generation, compacted_path, tail_number};
use super::payload::{Commit, Group, Payload, Records, encode_commit, encode_head};
use super::remove_if_there;
use super::view::{COMPACTED_KIND, Part, View};
use crate::coding::put_varint;
use crate::planted::{Bug, planted};

/// So many segments are compacted even if they are small, as those of a task that is opened often.
const SEGMENTS_MAX: usize = 64;

/// The newest offset of each key, by slot.
type Newest = Vec<HashMap<Vec<u8>, u64>>;

/// True if more was written since the last compaction than that left.
pub(super) fn is_due(options: &FileOptions, view: &View) -> Result<bool> {
    let (clean, dirty) = inputs(view).split_at(view.index.compacted.ends.len());
    let mut bytes = [0, 0];
    for (parts, bytes) in [clean, dirty].iter().zip(&mut bytes) {
        for part in *parts {
            *bytes += options.env.metadata(&part.path)?.len;
        }
    }
    let [clean, dirty_bytes] = bytes;
    let heavy = dirty_bytes >= clean.max(options.segment_bytes_max);
    Ok(heavy || dirty.len() >= SEGMENTS_MAX)
}

/// The closed parts: the last one belongs to the owner.
fn inputs(view: &View) -> &[Part] {
    match view.parts.split_last() {
        Some((last, closed)) if !last.is_closed() => closed,
        _ => &view.parts,
    }
}

/// Compacts all closed parts of `view` and returns the index that is in force then. Under the
/// task's lock.
///
/// The index is what makes the new files count and the old ones remains; both sides of its
/// replacement are durable before the next step.
pub(super) fn run(options: &FileOptions, dir: &Path, view: View) -> Result<Index> {
    let env = &*options.env;
    let Some(active) = view.parts.last().filter(|part| !part.is_closed()) else {
        return Ok(view.index);
    };
    if inputs(&view).is_empty() {
        return Ok(view.index);
    }
    remove_remains(env, dir, &view.index)?;
    let mut index = view.index.clone();
    index.compacted = Compacted {
        generation: index.compacted.generation + 1,
        journal_id: env.random_u64(),
        ends: Vec::new(),
    };
    index.tail_first = active.number();
    index.tail_base = active.base();
    index.floor = index.floor.max(active.base());
    let mut output = Output::new(options, dir, index);
    if let Err(error) = output.write(&view) {
        output.discard();
        return Err(error);
    }
    if planted(Bug::ChangelogRemovesInputsFirst) {
        remove_remains(env, dir, &output.index)?;
    }
    let index = output.finish()?;
    // They are remains now, and the next compaction or claim removes what this one cannot.
    let _ = remove_remains(env, dir, &index);
    Ok(index)
}

/// Removes the files of former and of unfinished compactions.
pub(super) fn remove_remains(env: &dyn Env, dir: &Path, index: &Index) -> Result<()> {
    // Only a durable index says what is a remain: one that was replaced without that may be
    // undone by a crash.
    env.sync_dir(dir)?;
    for name in env.list_dir(dir)? {
        let old_tail = tail_number(&name).is_some_and(|number| number < index.tail_first);
        let old = compacted_generation(&name)
            .is_some_and(|generation| generation != index.compacted.generation);
        if old_tail || old {
            remove_if_there(env, &dir.join(&name))?;
        }
    }
    Ok(())
}

/// The segments that a compaction writes.
struct Output<'a> {
    options: &'a FileOptions,
    dir: &'a Path,
    index: Index,
    writer: Option<Writer>,
    paths: Vec<PathBuf>,
    end: Lsn,
    /// The next offset of each slot behind what was written or dropped.
    next: Vec<u64>,
    now_ms: u64,
}

impl<'a> Output<'a> {
    fn new(options: &'a FileOptions, dir: &'a Path, index: Index) -> Self {
        let next = vec![0; index.slots.len()];
        let now_ms = options.env.wall_clock_ms();
        Self {
            options,
            dir,
            index,
            writer: None,
            paths: Vec::new(),
            end: Lsn::ZERO,
            next,
            now_ms,
        }
    }

    fn write(&mut self, view: &View) -> Result<()> {
        let env = &*self.options.env;
        let newest = newest(env, view)?;
        for part in inputs(view) {
            part.read(env, &mut |payload| {
                let payload = Payload::decode(payload, &view.index.slots)?;
                if let Payload::Commit(commit) = &payload {
                    self.commit(commit, &newest)?;
                }
                payload.advance(&mut self.next);
                Ok(())
            })?;
        }
        self.end_segment()?;
        for (slot, next) in self.index.slots.iter_mut().zip(&self.next) {
            slot.next = slot.next.max(*next);
        }
        env.sync_dir(self.dir)
    }

    /// Writes what is left of a commit.
    fn commit(&mut self, commit: &Commit<'_>, newest: &Newest) -> Result<()> {
        let expired = commit
            .time_ms
            .saturating_add(self.options.tombstone_retention_ms)
            <= self.now_ms
            || planted(Bug::ChangelogTombstoneDroppedEarly);
        let mut kept = Vec::new();
        for group in &commit.groups {
            let (records, dropped_below) = filter(group, &newest[group.slot], expired)?;
            let slot = &mut self.index.slots[group.slot];
            slot.tombstones_dropped_below = slot.tombstones_dropped_below.max(dropped_below);
            if !records.is_empty() {
                kept.push((*group, records));
            }
        }
        if kept.is_empty() {
            return Ok(());
        }
        let groups: Vec<Group<'_>> = kept
            .iter()
            .map(|(group, records)| Group { records, ..*group })
            .collect();
        self.append(&encode_commit(commit.owner, commit.time_ms, &groups))
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        let full =
            |writer: &Writer| writer.len() + payload.len() as u64 > self.options.segment_bytes_max;
        if self.writer.as_ref().is_some_and(full) {
            self.end_segment()?;
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin_segment()?,
        };
        self.end = writer.append(&[payload], writer.base())?;
        self.writer = Some(writer);
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<Writer> {
        let Compacted {
            generation,
            journal_id,
            ends,
        } = &self.index.compacted;
        let number = ends.len() as u64 + 1;
        let path = compacted_path(self.dir, *generation, number);
        let header = SegmentHeader {
            kind: COMPACTED_KIND,
            journal_id: *journal_id,
            segment: number,
            base: self.end,
            durable: self.end,
            has_stage: false,
        };
        self.paths.push(path.clone());
        let mut writer = Writer::create(&*self.options.env, &path, header)?;
        writer.append(&[&encode_head(&self.index.slots, &self.next)], self.end)?;
        Ok(writer)
    }

    fn end_segment(&mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        if !planted(Bug::CompactedSegmentSyncSkipped) {
            writer.file().sync()?;
        }
        self.index.compacted.ends.push(writer.end());
        Ok(())
    }

    fn finish(self) -> Result<Index> {
        self.index.replace(&*self.options.env, self.dir)?;
        Ok(self.index)
    }

    /// Gives the room back. What cannot be removed is a remain.
    fn discard(self) {
        for path in &self.paths {
            let _ = remove_if_there(&*self.options.env, path);
        }
    }
}

/// Where each key's newest record is.
fn newest(env: &dyn Env, view: &View) -> Result<Newest> {
    let mut newest: Newest = vec![HashMap::new(); view.index.slots.len()];
    for part in inputs(view) {
        part.read(env, &mut |payload| {
            let Payload::Commit(commit) = Payload::decode(payload, &view.index.slots)? else {
                return Ok(());
            };
            for group in &commit.groups {
                let keys = &mut newest[group.slot];
                let mut records = Records::new(group.records, 0, group.base, group.end);
                while let Some((offset, record)) = records.next()? {
                    match keys.get_mut(record.key) {
                        Some(_) if planted(Bug::ChangelogOlderRecordKept) => {}
                        Some(newest) => *newest = offset,
                        None => drop(keys.insert(record.key.to_vec(), offset)),
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(newest)
}

/// The records of a group that are their key's newest, and the offset below which tombstones
/// were dropped.
fn filter(
    group: &Group<'_>,
    newest: &HashMap<Vec<u8>, u64>,
    expired: bool,
) -> Result<(Vec<u8>, u64)> {
    let mut kept = Vec::new();
    let mut dropped_below = 0;
    let mut next = group.base;
    let mut records = Records::new(group.records, 0, group.base, group.end);
    while let Some((offset, record)) = records.next()? {
        if newest.get(record.key) != Some(&offset) {
            continue;
        }
        if record.value.is_none() && expired {
            if !planted(Bug::ChangelogTombstoneDropNotTold) {
                dropped_below = offset + 1;
            }
            continue;
        }
        put_varint(&mut kept, offset - next);
        record.encode(&mut kept);
        next = offset + 1;
    }
    Ok((kept, dropped_below))
}
