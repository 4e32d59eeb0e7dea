//! What a table tells of itself.
//!
//! Layout: `docs/format.md`, section "Table", of which this is "properties".

use super::footer::FORMAT;
use crate::coding::{Decoder, put_bytes};
use crate::error::{Error, Result};
use crate::key::{InternalKey, KEY_LEN_MAX, SeqNo, ValueKind};
use crate::slice::Slice;

/// Counts and extents of a table's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    pub(crate) data_blocks: u64,
    /// Bytes of all user keys and values.
    pub(crate) raw_bytes: u64,
    pub(crate) seqno_min: SeqNo,
    pub(crate) seqno_max: SeqNo,
    /// First and last user key, both inclusive.
    pub(crate) smallest: Slice,
    pub(crate) largest: Slice,
}

impl Properties {
    /// Those of a table without entries, to be counted up.
    pub(super) fn empty() -> Self {
        Self {
            entries: 0,
            tombstones: 0,
            data_blocks: 0,
            raw_bytes: 0,
            seqno_min: SeqNo::MAX,
            seqno_max: SeqNo::ZERO,
            smallest: Slice::default(),
            largest: Slice::default(),
        }
    }

    /// Counts an entry in. Only `largest` is left to the caller, who sets it once at the end.
    pub(super) fn count(&mut self, key: InternalKey<'_>, value: &[u8]) {
        if self.entries == 0 {
            self.smallest = Slice::copy_from(key.user);
        }
        self.entries += 1;
        self.tombstones += u64::from(key.kind() == ValueKind::Delete);
        self.raw_bytes += (key.user.len() + value.len()) as u64;
        self.seqno_min = self.seqno_min.min(key.seqno());
        self.seqno_max = self.seqno_max.max(key.seqno());
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&FORMAT.to_le_bytes());
        let numbers = [
            self.entries,
            self.tombstones,
            self.data_blocks,
            self.raw_bytes,
            self.seqno_min.get(),
            self.seqno_max.get(),
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        // The timestamp range is reserved: empty, for no entry has a timestamp.
        out.extend_from_slice(&i64::MAX.to_le_bytes());
        out.extend_from_slice(&i64::MIN.to_le_bytes());
        put_bytes(out, &self.smallest);
        put_bytes(out, &self.largest);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let format = decoder.u32("format")?;
        let entries = decoder.u64("entries")?;
        let tombstones = decoder.u64("tombstones")?;
        let data_blocks = decoder.u64("data blocks")?;
        let raw_bytes = decoder.u64("raw bytes")?;
        let seqno_min = SeqNo(decoder.u64("smallest sequence number")?);
        let seqno_max = SeqNo(decoder.u64("largest sequence number")?);
        decoder.u64("smallest timestamp")?;
        decoder.u64("largest timestamp")?;
        let smallest = decoder.bytes("smallest key")?;
        let largest = decoder.bytes("largest key")?;
        decoder.finish("properties")?;
        let is_key = |key: &[u8]| !key.is_empty() && key.len() <= KEY_LEN_MAX;
        let is_sound = format == FORMAT
            && tombstones <= entries
            && (1..=entries).contains(&data_blocks)
            && seqno_min <= seqno_max
            && seqno_max <= SeqNo::MAX
            && is_key(smallest)
            && is_key(largest)
            && smallest <= largest;
        if !is_sound {
            return Err(Error::corruption("properties that contradict themselves"));
        }
        Ok(Self {
            entries,
            tombstones,
            data_blocks,
            raw_bytes,
            seqno_min,
            seqno_max,
            smallest: Slice::copy_from(smallest),
            largest: Slice::copy_from(largest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_soundness() {
        let mut properties = Properties::empty();
        properties.count(InternalKey::new(b"a", SeqNo(9), ValueKind::Delete), b"");
        properties.count(InternalKey::new(b"b", SeqNo(3), ValueKind::Put), b"value");
        properties.largest = Slice::copy_from(b"b");
        properties.data_blocks = 1;
        let mut bytes = Vec::new();
        properties.put(&mut bytes);
        assert_eq!(Properties::decode(&bytes).unwrap(), properties);
        assert_eq!((properties.tombstones, properties.raw_bytes), (1, 7));
        for len in 0..bytes.len() {
            assert!(Properties::decode(&bytes[..len]).is_err());
        }
        bytes[4] = 0;
        assert!(
            Properties::decode(&bytes).is_err(),
            "fewer entries than tombstones"
        );
    }
}
