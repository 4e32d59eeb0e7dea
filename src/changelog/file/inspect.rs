//! Prints the files of a changelog, for people.

use std::path::Path;

use crate::coding::Decoder;
use crate::env::Env;
use crate::error::Result;
use crate::journal::{Kind, Lsn};
use crate::listing::{Excerpt, Listing};

use super::super::{Partition, RecordRef};
use super::index::{Index, MAGIC, Slot};
use super::payload::{Commit, HEAD_TAG, Payload, Records};
use super::view::{COMPACTED_KIND, TAIL_KIND};
use super::{ROOT_MAGIC, decode_root};

/// True if the file of which `start` is the start is an index.
pub(crate) fn is_index(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// True if the file of which `start` is the start makes its directory a changelog.
pub(crate) fn is_root(start: &[u8]) -> bool {
    start.starts_with(&ROOT_MAGIC)
}

/// True for the kinds of journals that hold a changelog's records.
pub(crate) fn is_segment(kind: Kind) -> bool {
    [TAIL_KIND, COMPACTED_KIND].contains(&kind)
}

/// Prints the file CHANGELOG.
pub(crate) fn list_root(bytes: &[u8], out: &mut Listing<'_>) -> Result<()> {
    let cluster = decode_root(bytes)?;
    out.line(format_args!("changelog {cluster}"))
}

/// Prints the file INDEX of a task.
pub(crate) fn list_index(bytes: &[u8], out: &mut Listing<'_>) -> Result<()> {
    let index = Index::decode(bytes)?;
    out.line(format_args!(
        "index of task {}, owner number {}",
        index.task, index.owner
    ))?;
    out.line(format_args!(
        "tail: journal {:016x} from segment {} at {}, durable up to {}",
        index.journal_id, index.tail_first, index.tail_base, index.floor
    ))?;
    let compacted = &index.compacted;
    out.line(format_args!(
        "compacted: generation {}, journal {:016x}, {} segments{}",
        compacted.generation,
        compacted.journal_id,
        compacted.ends.len(),
        compacted
            .ends
            .last()
            .map_or(String::new(), |end| format!(" up to {end}"))
    ))?;
    for (number, slot) in index.slots.iter().enumerate() {
        out.line(format_args!(
            "slot {number}: partition {}, topic id {:032x}, next offset {} when this was written, \
             tombstones dropped below {}",
            slot.partition,
            u128::from_le_bytes(slot.topic_id),
            slot.next,
            slot.tombstones_dropped_below
        ))?;
    }
    Ok(())
}

/// Up to where the index in `dir` says that the journal is durable, if there is
/// an index and it speaks of that journal.
pub(crate) fn durable_beside(env: &dyn Env, dir: &Path, journal_id: u64) -> Option<Lsn> {
    let (index, _) = Index::read(env, dir).ok()?;
    if journal_id == index.compacted.journal_id {
        return index.compacted.ends.last().copied();
    }
    (journal_id == index.journal_id).then_some(index.floor)
}

/// Prints payloads of one segment.
#[derive(Default)]
pub(crate) struct PayloadLister {
    /// As the segment's head names them.
    slots: Vec<Slot>,
}

impl PayloadLister {
    pub(crate) fn list(&mut self, payload: &[u8], out: &mut Listing<'_>) -> Result<()> {
        if payload.first() == Some(&HEAD_TAG) {
            self.slots = slots_of_head(payload)?;
        }
        match Payload::decode(payload, &self.slots)? {
            Payload::Head(_) => {
                for (number, slot) in self.slots.iter().enumerate() {
                    let (partition, next) = (&slot.partition, slot.next);
                    out.line(format_args!(
                        "  slot {number}: {partition}, next offset {next}"
                    ))?;
                }
                Ok(())
            }
            Payload::Commit(commit) => self.list_commit(&commit, out),
        }
    }

    fn list_commit(&self, commit: &Commit<'_>, out: &mut Listing<'_>) -> Result<()> {
        out.line(format_args!(
            "  commit of owner {} at {} ms",
            commit.owner, commit.time_ms
        ))?;
        for group in &commit.groups {
            let partition = &self.slots[group.slot].partition;
            let (base, end) = (group.base, group.end);
            out.line(format_args!("  {partition}: offsets {base} to {end}"))?;
            let mut records = Records::new(group.records, 0, base, end);
            while let Some((offset, record)) = records.next()? {
                list_record(offset, &record, out)?;
            }
        }
        Ok(())
    }
}

fn list_record(offset: u64, record: &RecordRef<'_>, out: &mut Listing<'_>) -> Result<()> {
    let key = Excerpt(record.key);
    match record.value {
        Some(value) => out.line(format_args!("    {offset} put {key} {}", Excerpt(value)))?,
        None => out.line(format_args!("    {offset} delete {key}"))?,
    }
    if record.timestamp_ms != 0 {
        out.line(format_args!("      timestamp {} ms", record.timestamp_ms))?;
    }
    for header in record.headers {
        let value = header
            .value
            .map_or(String::new(), |value| Excerpt(value).to_string());
        out.line(format_args!("      header {} {value}", Excerpt(header.key)))?;
    }
    Ok(())
}

/// The partitions that a head names, so that a segment can be read without its index.
fn slots_of_head(payload: &[u8]) -> Result<Vec<Slot>> {
    let mut decoder = Decoder::new(payload);
    decoder.u8("payload tag")?;
    let mut slots = Vec::new();
    for _ in 0..decoder.varint("count of partitions")? {
        slots.push(Slot {
            partition: Partition {
                topic: decoder.str("topic")?.to_owned(),
                partition: decoder.varint_u32("partition number")?,
            },
            topic_id: decoder.array("topic id")?,
            next: decoder.varint("next offset")?,
            tombstones_dropped_below: 0,
        });
    }
    Ok(slots)
}
