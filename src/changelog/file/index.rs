//! The index of a task's log: who owns it, and which of its files count.

use std::path::Path;

use crate::checksum::crc32_at;
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::env::{Env, read_file};
use crate::error::{Error, Result};
use crate::journal::Lsn;
use crate::planted::{Bug, planted};

use super::super::Partition;

pub(super) const MAGIC: [u8; 4] = *b"SLIX";
const FORMAT_VERSION: u32 = 1;
const CRC_LEN: usize = 4;
/// Room for a hundred thousand partitions.
const INDEX_LEN_MAX: u64 = 64 << 20;

pub(super) const INDEX_NAME: &str = "INDEX";
const INDEX_TEMPORARY_NAME: &str = "INDEX.new";

/// A partition of the task. Its place in the index, its slot, never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) partition: Partition,
    pub(super) topic_id: [u8; 16],
    /// The next offset when the index was written; the tail's records come on top.
    pub(super) next: u64,
    pub(super) tombstones_dropped_below: u64,
}

/// What compaction has written, in place of the segments below the tail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Compacted {
    /// Rises with each compaction; names the files.
    pub(super) generation: u64,
    pub(super) journal_id: u64,
    /// Where each of its segments ends.
    pub(super) ends: Vec<Lsn>,
}

/// The one mutable file of a task, replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) task: String,
    /// The number of the newest owner.
    pub(super) owner: u32,
    pub(super) journal_id: u64,
    /// The first segment of the tail; lower ones are remains of before a compaction.
    pub(super) tail_first: u64,
    /// Where the tail begins.
    pub(super) tail_base: Lsn,
    /// Where the tail was durable at least.
    pub(super) floor: Lsn,
    pub(super) compacted: Compacted,
    pub(super) slots: Vec<Slot>,
}

impl Index {
    pub(super) fn slot(&self, partition: &Partition) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.partition == *partition)
    }

    /// Fails if the tail does not begin where it should: its first file is missing.
    pub(super) fn check_tail_base(&self, base: Lsn) -> Result<()> {
        if base == self.tail_base {
            return Ok(());
        }
        Err(Error::corruption(format!(
            "the log of task {} begins at {base}, {} expected: a file is missing",
            self.task, self.tail_base
        )))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        put_bytes(&mut out, self.task.as_bytes());
        put_varint(&mut out, u64::from(self.owner));
        out.extend_from_slice(&self.journal_id.to_le_bytes());
        put_varint(&mut out, self.tail_first);
        put_varint(&mut out, self.tail_base.0);
        put_varint(&mut out, self.floor.0);
        put_varint(&mut out, self.compacted.generation);
        out.extend_from_slice(&self.compacted.journal_id.to_le_bytes());
        put_varint(&mut out, self.compacted.ends.len() as u64);
        for end in &self.compacted.ends {
            put_varint(&mut out, end.0);
        }
        put_varint(&mut out, self.slots.len() as u64);
        for slot in &self.slots {
            put_bytes(&mut out, slot.partition.topic.as_bytes());
            put_varint(&mut out, u64::from(slot.partition.partition));
            out.extend_from_slice(&slot.topic_id);
            put_varint(&mut out, slot.next);
            put_varint(&mut out, slot.tombstones_dropped_below);
        }
        seal(&mut out);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = unseal(bytes, MAGIC, FORMAT_VERSION, "changelog index")?;
        let task = decoder.str("task name")?.to_owned();
        let owner = decoder.varint_u32("owner number")?;
        let journal_id = decoder.u64("journal id")?;
        let tail_first = decoder.varint("first segment of the tail")?;
        let tail_base = Lsn(decoder.varint("base of the tail")?);
        let floor = Lsn(decoder.varint("durable end")?);
        let mut compacted = Compacted {
            generation: decoder.varint("compaction generation")?,
            journal_id: decoder.u64("compacted journal id")?,
            ends: Vec::new(),
        };
        for _ in 0..decoder.varint("count of compacted segments")? {
            compacted
                .ends
                .push(Lsn(decoder.varint("end of a compacted segment")?));
        }
        let mut slots = Vec::new();
        for _ in 0..decoder.varint("count of partitions")? {
            slots.push(Slot {
                partition: Partition {
                    topic: decoder.str("topic")?.to_owned(),
                    partition: decoder.varint_u32("partition number")?,
                },
                topic_id: decoder.array("topic id")?,
                next: decoder.varint("next offset")?,
                tombstones_dropped_below: decoder.varint("dropped tombstones")?,
            });
        }
        decoder.finish("changelog index")?;
        Ok(Self {
            task,
            owner,
            journal_id,
            tail_first,
            tail_base,
            floor,
            compacted,
            slots,
        })
    }

    /// Reads the index in `dir`, and its bytes, by which a change is noticed.
    pub(super) fn read(env: &dyn Env, dir: &Path) -> Result<(Self, Vec<u8>)> {
        let path = dir.join(INDEX_NAME);
        let bytes = read_file(env, &path, INDEX_LEN_MAX)?;
        let index = Self::decode(&bytes).map_err(|error| error.context(path.display()))?;
        Ok((index, bytes))
    }

    /// Replaces the index in `dir`, durably, and returns its bytes. After an error the old one or
    /// the new one is in force.
    pub(super) fn replace(&self, env: &dyn Env, dir: &Path) -> Result<Vec<u8>> {
        let bytes = self.encode();
        replace_file(env, dir, INDEX_TEMPORARY_NAME, INDEX_NAME, &bytes)?;
        Ok(bytes)
    }
}

/// Reads the bytes of the index in `dir`.
pub(super) fn read_raw(env: &dyn Env, dir: &Path) -> Result<Vec<u8>> {
    read_file(env, &dir.join(INDEX_NAME), INDEX_LEN_MAX)
}

/// Appends the checksum.
pub(super) fn seal(out: &mut Vec<u8>) {
    let crc = crc32_at(0, out.len() as u64, &[out]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Checks magic, version and checksum, and returns a decoder of what is between.
pub(super) fn unseal<'a>(
    bytes: &'a [u8],
    magic: [u8; 4],
    version: u32,
    what: &str,
) -> Result<Decoder<'a>> {
    let Some((body, stored)) = bytes.split_last_chunk::<CRC_LEN>() else {
        return Err(Error::corruption(format!(
            "{what}: {} bytes long",
            bytes.len()
        )));
    };
    let stored = u32::from_le_bytes(*stored);
    let computed = crc32_at(0, body.len() as u64, &[body]);
    if stored != computed {
        return Err(Error::corruption(format!(
            "{what}: checksum: stored {stored:08x}, computed {computed:08x}"
        )));
    }
    let mut decoder = Decoder::new(body);
    let found: [u8; 4] = decoder.array("magic")?;
    if found != magic {
        return Err(Error::corruption(format!(
            "{what}: magic {found:02x?}, not {magic:02x?}"
        )));
    }
    let found = decoder.u32("format version")?;
    if found != version {
        return Err(Error::unsupported(format!(
            "{what}: format {found}, this build reads {version}"
        )));
    }
    Ok(decoder)
}

/// Puts `bytes` into the file `name`, whole or not at all, durably.
pub(super) fn replace_file(
    env: &dyn Env,
    dir: &Path,
    temporary: &str,
    name: &str,
    bytes: &[u8],
) -> Result<()> {
    let temporary = dir.join(temporary);
    super::remove_if_there(env, &temporary)?;
    let file = env.create_new(&temporary)?;
    let written = file.write_all_at(0, bytes).and_then(|()| {
        if planted(Bug::ChangelogIndexSyncSkipped) {
            return Ok(());
        }
        file.sync()
    });
    if let Err(error) = written {
        // Gives room back on a full disk; the next attempt removes it otherwise.
        let _ = env.remove_file(&temporary);
        return Err(error);
    }
    env.rename(&temporary, &dir.join(name))?;
    env.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn index() -> Index {
        Index {
            task: "a task".into(),
            owner: 7,
            journal_id: u64::MAX,
            tail_first: 3,
            tail_base: Lsn(77),
            floor: Lsn(1 << 40),
            compacted: Compacted {
                generation: 2,
                journal_id: 5,
                ends: vec![Lsn(1), Lsn(9)],
            },
            slots: vec![Slot {
                partition: Partition::new("t", 4),
                topic_id: [3; 16],
                next: 12,
                tombstones_dropped_below: 6,
            }],
        }
    }

    #[test]
    fn an_index_round_trips_and_every_flip_is_found() {
        let bytes = index().encode();
        assert_eq!(Index::decode(&bytes).unwrap(), index());
        for pos in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[pos] ^= 0x10;
            assert_eq!(
                Index::decode(&flipped).unwrap_err().kind(),
                ErrorKind::Corruption
            );
            assert!(Index::decode(&bytes[..pos]).is_err());
        }
    }

    #[test]
    fn a_newer_index_is_unsupported() {
        let mut bytes = index().encode();
        bytes.truncate(bytes.len() - CRC_LEN);
        bytes[4] = 2;
        seal(&mut bytes);
        assert_eq!(
            Index::decode(&bytes).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}
