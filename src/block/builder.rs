//! Gathers sorted entries into a block.

use super::{
    FLAG_TRAILERS, FLAG_WIDE, HEAD_LEN, HEADER_LEN, TRAILER_LEN, head_of, implied_trailer,
};
use crate::key::{InternalKey, KEY_LEN_MAX, VALUE_LEN_MAX};

/// Bytes of buffers that a builder keeps for the next block, as a multiple of a usual block.
const KEPT_BLOCKS_MAX: usize = 16;

/// Builds one block after another from entries in their order.
///
/// The same entries give the same bytes. Layout: `docs/format.md`, section "Block".
pub(crate) struct Builder {
    block_bytes: usize,
    /// All keys whole, for the prefix that they share is known only at the end.
    keys: Vec<u8>,
    key_ends: Vec<u32>,
    values: Vec<u8>,
    value_ends: Vec<u32>,
    trailers: Vec<u64>,
    /// What the first and the last key have in common, and so all of them.
    prefix_len: usize,
    has_trailers: bool,
}

impl Builder {
    /// A builder of blocks of about `block_bytes`.
    pub(crate) fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes,
            keys: Vec::new(),
            key_ends: Vec::new(),
            values: Vec::new(),
            value_ends: Vec::new(),
            trailers: Vec::new(),
            prefix_len: 0,
            has_trailers: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.trailers.is_empty()
    }

    /// True if the block is empty, or stays within its size with one more such entry.
    pub(crate) fn has_room_for(&self, key: &[u8], value: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let count = self.trailers.len() + 1;
        // A key unlike the others makes all of them longer, for they lose their prefix.
        let prefix_len = self.prefix_len_with(key);
        let suffixes_len = self.keys.len() + key.len() - prefix_len * count;
        let values_len = self.values.len() + value.len();
        let fixed_len = HEAD_LEN + 2 * end_len(suffixes_len, values_len) + TRAILER_LEN;
        HEADER_LEN + count * fixed_len + prefix_len + suffixes_len + values_len <= self.block_bytes
    }

    /// Adds an entry at the end.
    ///
    /// # Panics
    ///
    /// If the entry lies before the last one, is longer than an entry may be, or would make the
    /// block longer than 4 GiB.
    pub(crate) fn add(&mut self, key: InternalKey<'_>, value: &[u8]) {
        assert!(!key.user.is_empty() && key.user.len() <= KEY_LEN_MAX);
        assert!(value.len() <= VALUE_LEN_MAX);
        if self.is_empty() {
            self.prefix_len = key.user.len();
        } else {
            let (last, trailer) = (self.last_key(), self.trailers[self.trailers.len() - 1]);
            let in_order = last < key.user || last == key.user && key.trailer.0 <= trailer;
            assert!(in_order, "{key:?} added behind {}", last.escape_ascii());
            self.prefix_len = self.prefix_len_with(key.user);
        }
        self.keys.extend_from_slice(key.user);
        self.values.extend_from_slice(value);
        self.key_ends.push(end_of(&self.keys));
        self.value_ends.push(end_of(&self.values));
        self.trailers.push(key.trailer.0);
        self.has_trailers |= key.trailer != implied_trailer();
    }

    /// User key of the last entry added. There must be one.
    pub(crate) fn last_key(&self) -> &[u8] {
        let count = self.key_ends.len();
        let start = if count < 2 {
            0
        } else {
            offset(self.key_ends[count - 2])
        };
        &self.keys[start..]
    }

    /// Length of the block if it were finished now; 0 if it is empty.
    pub(crate) fn estimated_len(&self) -> usize {
        let count = self.trailers.len();
        if count == 0 {
            return 0;
        }
        let trailer_len = if self.has_trailers { TRAILER_LEN } else { 0 };
        let fixed_len = HEAD_LEN + 2 * self.end_len() + trailer_len;
        let suffixes_len = self.suffixes_len();
        HEADER_LEN + count * fixed_len + self.prefix_len + suffixes_len + self.values.len()
    }

    /// Appends the block to `out`, and is empty again.
    ///
    /// # Panics
    ///
    /// If no entry was added.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        assert!(!self.is_empty(), "a block without entries");
        let block_len = self.estimated_len();
        let start = out.len();
        out.reserve(block_len);
        self.put_header(out);
        for suffix in self.suffixes() {
            out.extend_from_slice(&head_of(suffix).to_be_bytes());
        }
        let mut suffix_end = 0;
        let wide = self.end_len() == 4;
        for suffix in self.suffixes() {
            suffix_end += suffix.len();
            put_end(out, suffix_end, wide);
        }
        for end in &self.value_ends {
            put_end(out, offset(*end), wide);
        }
        if self.has_trailers {
            for trailer in &self.trailers {
                out.extend_from_slice(&trailer.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.keys[..self.prefix_len]);
        for suffix in self.suffixes() {
            out.extend_from_slice(suffix);
        }
        out.extend_from_slice(&self.values);
        assert_eq!(out.len() - start, block_len);
        self.clear();
    }

    fn put_header(&self, out: &mut Vec<u8>) {
        let mut flags = 0;
        if self.has_trailers {
            flags |= FLAG_TRAILERS;
        }
        if self.end_len() == 4 {
            flags |= FLAG_WIDE;
        }
        let entries = u32::try_from(self.trailers.len()).expect("fewer entries than key bytes");
        let prefix_len = u16::try_from(self.prefix_len).expect("a prefix is no longer than a key");
        let suffixes_len = u32::try_from(self.suffixes_len()).expect("no more than key bytes");
        out.extend_from_slice(&entries.to_le_bytes());
        out.extend_from_slice(&prefix_len.to_le_bytes());
        out.extend_from_slice(&[flags, 0]);
        out.extend_from_slice(&suffixes_len.to_le_bytes());
    }

    fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.key_ends.iter().copied());
        starts
            .zip(&self.key_ends)
            .map(|(start, end)| &self.keys[offset(start) + self.prefix_len..offset(*end)])
    }

    fn suffixes_len(&self) -> usize {
        self.keys.len() - self.prefix_len * self.trailers.len()
    }

    /// The prefix would be this long with `key` as one more. There must be a key.
    fn prefix_len_with(&self, key: &[u8]) -> usize {
        // The first key begins with the prefix.
        shared_len(&self.keys[..self.prefix_len], key)
    }

    fn end_len(&self) -> usize {
        end_len(self.suffixes_len(), self.values.len())
    }

    fn clear(&mut self) {
        // One huge value must not keep its memory for the rest of the table.
        let kept_max = self.block_bytes.saturating_mul(KEPT_BLOCKS_MAX);
        self.keys.clear();
        self.keys.shrink_to(kept_max);
        self.values.clear();
        self.values.shrink_to(kept_max);
        self.key_ends.clear();
        self.value_ends.clear();
        self.trailers.clear();
        self.prefix_len = 0;
        self.has_trailers = false;
    }
}

/// Length of what `a` and `b` begin with alike.
pub(crate) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Bytes that an end needs in a block of these lengths.
fn end_len(suffixes_len: usize, values_len: usize) -> usize {
    if suffixes_len.max(values_len) > usize::from(u16::MAX) {
        4
    } else {
        2
    }
}

fn end_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the keys and the values of a block are below 4 GiB each")
}

fn offset(end: u32) -> usize {
    usize::try_from(end).expect("an end lies within memory")
}

fn put_end(out: &mut Vec<u8>, end: usize, wide: bool) {
    if wide {
        let end = u32::try_from(end).expect("the ends were counted as 32 bits");
        out.extend_from_slice(&end.to_le_bytes());
    } else {
        let end = u16::try_from(end).expect("the ends were found to be within 16 bits");
        out.extend_from_slice(&end.to_le_bytes());
    }
}
