//! The two payloads of a task's journal: the head of each segment, and commits.

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};

use super::super::{Header, RecordRef};
use super::index::Slot;

pub(super) const HEAD_TAG: u8 = 1;
const COMMIT_TAG: u8 = 2;

/// One payload of a journal record.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    /// The next offset of each slot where the segment begins.
    Head(Vec<u64>),
    Commit(Commit<'a>),
}

/// The records of one commit.
#[derive(Debug)]
pub(super) struct Commit<'a> {
    pub(super) owner: u32,
    pub(super) time_ms: u64,
    pub(super) groups: Vec<Group<'a>>,
}

/// The records of one slot in one commit: each a varint of skipped offsets and the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) slot: usize,
    /// The offset of the first record, if nothing is skipped before it.
    pub(super) base: u64,
    /// The offset behind the commit's last record, which compaction may have dropped.
    pub(super) end: u64,
    pub(super) records: &'a [u8],
}

/// The head of a segment that begins at `next`, which has an offset for each slot.
pub(super) fn encode_head(slots: &[Slot], next: &[u64]) -> Vec<u8> {
    assert_eq!(slots.len(), next.len());
    let mut out = vec![HEAD_TAG];
    put_varint(&mut out, slots.len() as u64);
    for (slot, next) in slots.iter().zip(next) {
        put_bytes(&mut out, slot.partition.topic.as_bytes());
        put_varint(&mut out, u64::from(slot.partition.partition));
        out.extend_from_slice(&slot.topic_id);
        put_varint(&mut out, *next);
    }
    out
}

pub(super) fn encode_commit(owner: u32, time_ms: u64, groups: &[Group<'_>]) -> Vec<u8> {
    let len: usize = groups.iter().map(|group| group.records.len() + 40).sum();
    let mut out = Vec::with_capacity(len + 24);
    out.push(COMMIT_TAG);
    put_varint(&mut out, u64::from(owner));
    put_varint(&mut out, time_ms);
    put_varint(&mut out, groups.len() as u64);
    for group in groups {
        put_varint(&mut out, group.slot as u64);
        put_varint(&mut out, group.base);
        put_varint(&mut out, group.end);
        put_bytes(&mut out, group.records);
    }
    out
}

impl<'a> Payload<'a> {
    /// Reads a payload of the log whose partitions are `slots`.
    pub(super) fn decode(bytes: &'a [u8], slots: &[Slot]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let payload = match decoder.u8("payload tag")? {
            HEAD_TAG => Self::Head(decode_head(&mut decoder, slots)?),
            COMMIT_TAG => Self::Commit(decode_commit(&mut decoder, slots.len())?),
            tag => {
                return Err(Error::corruption(format!(
                    "payload tag {tag} does not exist"
                )));
            }
        };
        decoder.finish("payload")?;
        Ok(payload)
    }

    /// Moves `next` past what the payload holds, by slot.
    pub(super) fn advance(&self, next: &mut [u64]) {
        match self {
            Self::Head(offsets) => {
                for (next, offset) in next.iter_mut().zip(offsets) {
                    *next = (*next).max(*offset);
                }
            }
            Self::Commit(commit) => {
                for group in &commit.groups {
                    let next = &mut next[group.slot];
                    *next = (*next).max(group.end);
                }
            }
        }
    }
}

fn decode_head(decoder: &mut Decoder<'_>, slots: &[Slot]) -> Result<Vec<u64>> {
    let count = decoder.varint("count of partitions")?;
    if count > slots.len() as u64 {
        return Err(Error::corruption(format!(
            "head of {count} partitions, the index has {}",
            slots.len()
        )));
    }
    let mut next = vec![0; slots.len()];
    for (next, slot) in next
        .iter_mut()
        .zip(slots)
        .take(usize::try_from(count).unwrap_or(0))
    {
        let topic = decoder.str("topic")?;
        let partition = decoder.varint_u32("partition number")?;
        let topic_id: [u8; 16] = decoder.array("topic id")?;
        let known = &slot.partition;
        if (topic, partition, topic_id) != (&*known.topic, known.partition, slot.topic_id) {
            return Err(Error::corruption(format!(
                "head of partition {topic}/{partition}, the index has {known} there"
            )));
        }
        *next = decoder.varint("next offset")?;
    }
    Ok(next)
}

fn decode_commit<'a>(decoder: &mut Decoder<'a>, slots: usize) -> Result<Commit<'a>> {
    let owner = decoder.varint_u32("owner number")?;
    let time_ms = decoder.varint("commit time")?;
    let mut groups = Vec::new();
    for _ in 0..decoder.varint("count of partitions")? {
        let slot = decoder.varint("slot")?;
        let slot = usize::try_from(slot)
            .ok()
            .filter(|slot| *slot < slots)
            .ok_or_else(|| {
                Error::corruption(format!("slot {slot}, the index has {slots} partitions"))
            })?;
        let base = decoder.varint("base offset")?;
        let end = decoder.varint("end offset")?;
        if end < base {
            return Err(Error::corruption(format!(
                "a commit from offset {base} to {end}"
            )));
        }
        groups.push(Group {
            slot,
            base,
            end,
            records: decoder.bytes("records")?,
        });
    }
    Ok(Commit {
        owner,
        time_ms,
        groups,
    })
}

/// Walks over the records of a group.
#[derive(Debug)]
pub(super) struct Records<'a> {
    decoder: Decoder<'a>,
    next: u64,
    end: u64,
    headers: Vec<Header<'a>>,
}

impl<'a> Records<'a> {
    /// Starts in front of the record at byte `pos`, where `next` is the next offset.
    pub(super) fn new(records: &'a [u8], pos: usize, next: u64, end: u64) -> Self {
        Self {
            decoder: Decoder::new(&records[pos..]),
            next,
            end,
            headers: Vec::new(),
        }
    }

    /// Bytes taken since the start.
    pub(super) fn pos(&self) -> usize {
        self.decoder.pos()
    }

    /// The next record and its offset.
    pub(super) fn next(&mut self) -> Result<Option<(u64, RecordRef<'_>)>> {
        if self.decoder.is_empty() {
            return Ok(None);
        }
        let gap = self.decoder.varint("skipped offsets")?;
        let offset = self
            .next
            .checked_add(gap)
            .filter(|offset| *offset < self.end);
        let offset = offset.ok_or_else(|| {
            Error::corruption(format!(
                "a record beyond its commit, which ends at {}",
                self.end
            ))
        })?;
        self.next = offset + 1;
        let record = RecordRef::decode(&mut self.decoder, &mut self.headers)?;
        Ok(Some((offset, record)))
    }
}
