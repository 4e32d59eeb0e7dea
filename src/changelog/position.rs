//! Where a partition is, where a task stands in it, and who wrote it.

use std::fmt;

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};

/// The place of a record in its partition. Rising, with gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a changelog partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic; by custom one for each store.
    pub topic: String,
    /// The number of the partition within its topic; by custom one for each task.
    pub partition: u32,
}

impl Partition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<String>, partition: u32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One owner among all that a task ever had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Owner {
    /// A number that stays with the task (on Kafka the producer id).
    pub id: u64,
    /// Rises with every claim of the task.
    pub epoch: u32,
}

/// How far a task has come in one changelog partition, and by which facts one can tell later
/// whether the partition is still the one that it was.
///
/// Local state keeps it as the opaque bytes of [`encode`](Self::encode).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The cluster (or directory) that the log lives in.
    pub cluster: String,
    /// Identity of the topic, new whenever it is created.
    pub topic_id: [u8; 16],
    /// The partition.
    pub partition: Partition,
    /// The next offset to read: everything below it is covered.
    pub next: Offset,
    /// The leader epoch of the newest record covered; of meaning to the log only.
    pub leader_epoch: i32,
    /// Who wrote the position.
    pub owner: Owner,
    /// When the request was sent that proved `next` to be the end for its owner: milliseconds
    /// since 1970.
    pub time_ms: u64,
}

/// The version of the encoded form.
const POSITION_VERSION: u8 = 1;

impl Position {
    /// The position as bytes, for [`decode`](Self::decode).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![POSITION_VERSION];
        put_bytes(&mut out, self.cluster.as_bytes());
        out.extend_from_slice(&self.topic_id);
        put_bytes(&mut out, self.partition.topic.as_bytes());
        put_varint(&mut out, u64::from(self.partition.partition));
        put_varint(&mut out, self.next.0);
        put_varint(&mut out, u64::from(self.leader_epoch.cast_unsigned()));
        put_varint(&mut out, self.owner.id);
        put_varint(&mut out, u64::from(self.owner.epoch));
        put_varint(&mut out, self.time_ms);
        out
    }

    /// Reads back an encoded position.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a newer version, `Corruption` for anything that `encode` did not make.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8("position version")?;
        if version != POSITION_VERSION {
            return Err(Error::unsupported(format!(
                "changelog position of version {version}; this build reads {POSITION_VERSION}"
            )));
        }
        let position = Self {
            cluster: decoder.str("position cluster")?.to_owned(),
            topic_id: decoder.array("position topic id")?,
            partition: Partition {
                topic: decoder.str("position topic")?.to_owned(),
                partition: decoder.varint_u32("position partition")?,
            },
            next: Offset(decoder.varint("position next offset")?),
            leader_epoch: decoder.varint_u32("position leader epoch")?.cast_signed(),
            owner: Owner {
                id: decoder.varint("position owner id")?,
                epoch: decoder.varint_u32("position owner epoch")?,
            },
            time_ms: decoder.varint("position time")?,
        };
        decoder.finish("position")?;
        Ok(position)
    }
}

/// Where a partition starts and ends, and who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// See [`Position::cluster`].
    pub cluster: String,
    /// See [`Position::topic_id`].
    pub topic_id: [u8; 16],
    /// The first offset that can be read; what was below is trimmed.
    pub start: Offset,
    /// The offset behind the newest committed record.
    pub end: Offset,
    /// The leader epoch of now.
    pub leader_epoch: i32,
    /// How long a tombstone is kept after its commit, in milliseconds; `None`: for ever, or
    /// [`tombstones_dropped_below`](Self::tombstones_dropped_below) tells all there is to know.
    pub tombstone_retention_ms: Option<u64>,
    /// Tombstones below this offset may be gone: a position below it is stale. Zero where the log
    /// cannot tell; then the retention decides.
    pub tombstones_dropped_below: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn positions_round_trip_and_refuse_what_they_are_not() {
        let position = Position {
            cluster: "c".into(),
            topic_id: [9; 16],
            partition: Partition::new("a-topic", 7),
            next: Offset(u64::MAX),
            leader_epoch: -1,
            owner: Owner {
                id: 1 << 60,
                epoch: u32::MAX,
            },
            time_ms: 1_700_000_000_000,
        };
        let bytes = position.encode();
        assert_eq!(Position::decode(&bytes).unwrap(), position);
        for len in 0..bytes.len() {
            let error = Position::decode(&bytes[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
        }
        let mut newer = bytes.clone();
        newer[0] = 2;
        assert_eq!(
            Position::decode(&newer).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(
            Position::decode(&longer).unwrap_err().kind(),
            ErrorKind::Corruption
        );
    }
}
