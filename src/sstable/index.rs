//! How the blocks of a table are found: separators, and the entries of the two levels of index.
//!
//! Layout: `docs/format.md`, section "Table", of which this is "index block" and "top index".

use super::frame::Handle;
use crate::block;
use crate::error::{Error, Result};
use crate::key::{InternalKey, SeqNo, ValueKind};
use crate::planted::{Bug, planted};

/// Length of an index block that ends its partition.
pub(super) const PARTITION_BYTES: usize = 4096;

/// Where the two blocks of a partition are that lead to its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) index: Handle,
    pub(super) filter: Option<Handle>,
}

impl Partition {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * Handle::LEN);
        self.index.put(&mut out);
        match self.filter {
            Some(filter) => filter.put(&mut out),
            None => out.extend_from_slice(&[0; Handle::LEN]),
        }
        out
    }

    /// Checks that both blocks lie within the first `len` bytes of the file.
    pub(super) fn decode(value: &[u8], len: u64) -> Result<Self> {
        let parts = value.split_first_chunk::<{ Handle::LEN }>();
        let parts = parts.and_then(|(index, filter)| Some((index, filter.try_into().ok()?)));
        let Some((index, filter)) = parts else {
            return Err(Error::corruption(format!(
                "entry of the top index of {} bytes",
                value.len()
            )));
        };
        let index = Handle::of(index).check(len, "handle of an index block")?;
        let filter = if filter == &[0; Handle::LEN] {
            None
        } else {
            Some(Handle::of(filter).check(len, "handle of a filter")?)
        };
        Ok(Self { index, filter })
    }
}

/// The handle of a data block, checked to lie within the first `len` bytes of the file.
pub(super) fn decode_data_handle(value: &[u8], len: u64) -> Result<Handle> {
    let Ok(bytes) = value.try_into() else {
        return Err(Error::corruption(format!(
            "entry of an index block of {} bytes",
            value.len()
        )));
    };
    Handle::of(bytes).check(len, "handle of a data block")
}

/// The key under which an index block keeps a separator: the least that a block stores.
pub(super) fn separator_key(separator: &[u8]) -> InternalKey<'_> {
    InternalKey::new(separator, SeqNo::ZERO, ValueKind::Put)
}

/// Number of the first separator that is not below `user_key`.
pub(super) fn find(index: &block::Block, user_key: &[u8]) -> Result<usize> {
    index.lower_bound(InternalKey::seek_to(user_key, SeqNo::MAX))
}

/// Puts a short key into `out` that is at least `last` and at most `next`, and `next` itself only
/// if the two are equal.
pub(super) fn separate(last: &[u8], next: &[u8], out: &mut Vec<u8>) {
    debug_assert!(last <= next);
    out.clear();
    let shared = block::shared_len(last, next);
    let separator = if shared + 1 < next.len().min(last.len()) {
        // One byte longer than what both share, so above `last`; a true prefix, so below `next`.
        let len = shared + usize::from(shared == 0 || !planted(Bug::IndexSeparatorTooShort));
        &next[..len]
    } else {
        last
    };
    out.extend_from_slice(separator);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_short_and_between() {
        let cases: [(&str, &str, &str); 7] = [
            ("apple", "banana", "b"),
            ("apple", "applf", "apple"),
            ("apple", "apple pie", "apple"),
            ("apple", "apple", "apple"),
            ("user:0001:x", "user:0002:a", "user:0002"),
            ("ab", "b", "ab"),
            ("a", "bcd", "a"),
        ];
        for (last, next, expected) in cases {
            let mut separator = Vec::new();
            separate(last.as_bytes(), next.as_bytes(), &mut separator);
            assert_eq!(separator, expected.as_bytes());
            assert!(last.as_bytes() <= &separator[..] && &separator[..] <= next.as_bytes());
        }
    }

    #[test]
    fn partitions_round_trip_and_stay_within_the_file() {
        let index = Handle { pos: 100, len: 20 };
        for filter in [None, Some(Handle { pos: 30, len: 70 })] {
            let partition = Partition { index, filter };
            let bytes = partition.encode();
            assert_eq!(Partition::decode(&bytes, 120).unwrap(), partition);
            assert!(Partition::decode(&bytes, 119).is_err());
            assert!(Partition::decode(&bytes[1..], 120).is_err());
        }
        let overflowing = Partition {
            index: Handle {
                pos: u64::MAX,
                len: 20,
            },
            filter: None,
        };
        assert!(Partition::decode(&overflowing.encode(), u64::MAX).is_err());
    }
}
