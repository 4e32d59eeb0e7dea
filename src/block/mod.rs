//! Sorted entries in one run of bytes, searched where they lie.
//!
//! [`Builder`] writes a block, [`Block`] searches one that nobody vouches for, [`Cursor`] walks it.
//! The layout is told in `docs/format.md`, section "Block".

mod builder;
mod cursor;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::key::{InternalKey, KEY_LEN_MAX, SeqNo, Trailer, VALUE_LEN_MAX, ValueKind};
use crate::slice::Slice;

pub(crate) use builder::{Builder, shared_len};
pub(crate) use cursor::Cursor;

const HEADER_LEN: usize = 12;
const HEAD_LEN: usize = 4;
const TRAILER_LEN: usize = 8;

/// Heads up to this many are counted, more are searched by halves.
const HEADS_COUNTED_MAX: usize = 64;

const FLAG_TRAILERS: u8 = 1 << 0;
const FLAG_WIDE: u8 = 1 << 1;
/// Reserved for a hash index; no builder sets it yet.
const FLAG_HASH_INDEX: u8 = 1 << 2;

/// The trailer of every entry of a block that stores none.
fn implied_trailer() -> Trailer {
    Trailer::new(SeqNo::ZERO, ValueKind::Put)
}

/// The first four bytes of a key suffix as an integer that orders as they do.
#[inline]
fn head_of(suffix: &[u8]) -> u32 {
    let mut head = [0; HEAD_LEN];
    let len = suffix.len().min(HEAD_LEN);
    head[..len].copy_from_slice(&suffix[..len]);
    u32::from_be_bytes(head)
}

/// A block whose fixed parts are known to lie within its bytes.
///
/// The variable parts of an entry are checked when it is touched, so that opening a block costs
/// the same whatever it holds. Errors tell what is wrong with the block; the caller puts in front
/// where the block is.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    bytes: Slice,
    entries: usize,
    wide: bool,
    /// Where the parts begin; each ends where the next begins, the values at the block's end.
    key_ends: usize,
    value_ends: usize,
    trailers: usize,
    prefix: usize,
    suffixes: usize,
    values: usize,
}

/// What a block's header tells, every part of it shown to lie within the block's bytes.
struct Header {
    entries: u64,
    wide: bool,
    key_ends: u64,
    value_ends: u64,
    trailers: u64,
    prefix: u64,
    suffixes: u64,
    values: u64,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8]) -> Result<Self> {
        let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Error::corruption(format!(
                "block of {} bytes, shorter than its header",
                bytes.len()
            )));
        };
        let [e0, e1, e2, e3, p0, p1, flags, zero, s0, s1, s2, s3] = *header;
        let entries = u32::from_le_bytes([e0, e1, e2, e3]);
        let prefix_len = u16::from_le_bytes([p0, p1]);
        let suffixes_len = u32::from_le_bytes([s0, s1, s2, s3]);
        if flags & !(FLAG_TRAILERS | FLAG_WIDE) != 0 || zero != 0 {
            let detail = format!("block with flags {flags:#04x} and {zero:#04x}");
            return Err(if flags & FLAG_HASH_INDEX != 0 {
                Error::unsupported(format!("{detail}: a hash index is of a newer format"))
            } else {
                Error::corruption(detail)
            });
        }
        if entries == 0 {
            return Err(Error::corruption("block without entries"));
        }
        let end_len = if flags & FLAG_WIDE != 0 { 4_u64 } else { 2 };
        let trailer_len = if flags & FLAG_TRAILERS != 0 {
            TRAILER_LEN as u64
        } else {
            0
        };
        // At most 2^32 entries of 20 bytes: nothing here comes near the end of a u64.
        let count = u64::from(entries);
        let key_ends = HEADER_LEN as u64 + count * HEAD_LEN as u64;
        let value_ends = key_ends + count * end_len;
        let trailers = value_ends + count * end_len;
        let prefix = trailers + count * trailer_len;
        let suffixes = prefix + u64::from(prefix_len);
        let values = suffixes + u64::from(suffixes_len);
        if values > bytes.len() as u64 {
            return Err(Error::corruption(format!(
                "block of {} bytes with {entries} entries needs {values} before its values",
                bytes.len()
            )));
        }
        Ok(Self {
            entries: count,
            wide: flags & FLAG_WIDE != 0,
            key_ends,
            value_ends,
            trailers,
            prefix,
            suffixes,
            values,
        })
    }
}

/// Where an entry's parts are within the block's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    suffix: Range<usize>,
    value: Range<usize>,
    trailer: Trailer,
}

impl Block {
    /// Checks the header and the extent of every part.
    pub(crate) fn decode(bytes: Slice) -> Result<Self> {
        let block = Self::reopen(bytes)?;
        block.check_totals()?;
        Ok(block)
    }

    /// Opens a block whose bytes were decoded before: looks at the header alone, which is enough
    /// for no later read to reach beyond the bytes.
    #[inline]
    pub(crate) fn reopen(bytes: Slice) -> Result<Self> {
        let header = Header::read(&bytes)?;
        // None can be cut: all are at most the block's length.
        let place = |pos: u64| usize::try_from(pos).unwrap_or(usize::MAX);
        Ok(Self {
            entries: place(header.entries),
            wide: header.wide,
            key_ends: place(header.key_ends),
            value_ends: place(header.value_ends),
            trailers: place(header.trailers),
            prefix: place(header.prefix),
            suffixes: place(header.suffixes),
            values: place(header.values),
            bytes,
        })
    }

    /// The last ends must use the suffixes and the values up.
    fn check_totals(&self) -> Result<()> {
        let bytes: &[u8] = &self.bytes;
        let last = self.entries - 1;
        let suffixes_len = self.end(bytes, self.key_ends, last);
        let values_len = self.end(bytes, self.value_ends, last);
        if suffixes_len != self.values - self.suffixes {
            return Err(Error::corruption(format!(
                "block whose last key ends at {suffixes_len} of {} bytes",
                self.values - self.suffixes
            )));
        }
        if values_len != bytes.len() - self.values {
            return Err(Error::corruption(format!(
                "block whose last value ends at {values_len} of {} bytes",
                bytes.len() - self.values
            )));
        }
        Ok(())
    }

    /// Entries in the block; never zero.
    #[inline]
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// A part of the block's bytes, for which the block is given up.
    #[inline]
    pub(crate) fn into_part(self, range: Range<usize>) -> Slice {
        self.bytes.into_sub(range)
    }

    /// The block's bytes, which the ranges that it hands out point into.
    pub(crate) fn bytes(&self) -> &Slice {
        &self.bytes
    }

    /// The entry at `index` if it is a version of `user_key`: its trailer, and where its value is
    /// in [`bytes`](Self::bytes).
    #[inline]
    pub(crate) fn version_at(
        &self,
        index: usize,
        user_key: &[u8],
    ) -> Result<Option<(Trailer, Range<usize>)>> {
        let bytes: &[u8] = &self.bytes;
        let entry = self.entry_in(bytes, index)?;
        let prefix = &bytes[self.prefix..self.suffixes];
        let matches = user_key.strip_prefix(prefix) == Some(&bytes[entry.suffix]);
        Ok(matches.then_some((entry.trailer, entry.value)))
    }

    /// Index of the first entry at or behind `target`; the number of entries if there is none.
    pub(crate) fn lower_bound(&self, target: InternalKey<'_>) -> Result<usize> {
        let bytes: &[u8] = &self.bytes;
        let prefix = &bytes[self.prefix..self.suffixes];
        let Some(suffix) = target.user.strip_prefix(prefix) else {
            // Without the prefix the target lies before or behind all entries alike.
            return Ok(if target.user < prefix {
                0
            } else {
                self.entries
            });
        };
        let heads = &bytes[HEADER_LEN..self.key_ends];
        let (mut low, mut high) = heads_equal(heads, head_of(suffix));
        while low < high {
            let middle = low.midpoint(high);
            let found = self.suffix_in(bytes, middle)?;
            let order = bytes[found].cmp(suffix);
            let order = match order {
                Ordering::Equal => target.trailer.cmp(&self.trailer_in(bytes, middle)?),
                order => order,
            };
            if order == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Puts the user key at `index` into `key`.
    pub(crate) fn copy_key(&self, index: usize, key: &mut Vec<u8>) -> Result<()> {
        let entry = self.entry(index)?;
        self.assemble_key(&entry, key);
        Ok(())
    }

    /// Where the value at `index` is in [`bytes`](Self::bytes).
    pub(crate) fn value_range(&self, index: usize) -> Result<Range<usize>> {
        self.value_in(&self.bytes, index)
    }

    /// True if the user key at `index` is `user_key`.
    #[inline]
    pub(crate) fn key_is(&self, index: usize, user_key: &[u8]) -> Result<bool> {
        let bytes: &[u8] = &self.bytes;
        // Mostly the heads differ already, and of the entry nothing else is looked at.
        let suffix = user_key.strip_prefix(&bytes[self.prefix..self.suffixes]);
        if suffix.is_none_or(|suffix| head_of(suffix) != self.head(bytes, index)) {
            return Ok(false);
        }
        Ok(self.version_at(index, user_key)?.is_some())
    }

    /// Checks every entry, that each lies behind the one before it, and that tombstones have no
    /// values.
    pub(crate) fn check(&self, repeats: Repeats) -> Result<()> {
        let bytes: &[u8] = &self.bytes;
        let mut previous: Option<Entry> = None;
        for index in 0..self.entries {
            let entry = self.entry_in(bytes, index)?;
            if entry.trailer.kind() == ValueKind::Delete && !entry.value.is_empty() {
                return Err(Error::corruption(format!(
                    "block entry {index} is a tombstone with a value of {} bytes",
                    entry.value.len()
                )));
            }
            if let Some(previous) = &previous {
                let order = bytes[previous.suffix.clone()]
                    .cmp(&bytes[entry.suffix.clone()])
                    .then_with(|| entry.trailer.cmp(&previous.trailer));
                let repeated = order == Ordering::Equal && repeats == Repeats::Allowed;
                if order != Ordering::Less && !repeated {
                    return Err(Error::corruption(format!(
                        "block entry {index} is not behind the one before it"
                    )));
                }
            }
            previous = Some(entry);
        }
        Ok(())
    }

    #[inline]
    fn assemble_key(&self, entry: &Entry, key: &mut Vec<u8>) {
        let bytes: &[u8] = &self.bytes;
        key.clear();
        key.extend_from_slice(&bytes[self.prefix..self.suffixes]);
        key.extend_from_slice(&bytes[entry.suffix.clone()]);
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<Entry> {
        self.entry_in(&self.bytes, index)
    }

    /// The entry at `index`, every part of it checked. `bytes` are the block's own: passed along,
    /// for finding them costs more than looking at them.
    #[inline]
    fn entry_in(&self, bytes: &[u8], index: usize) -> Result<Entry> {
        let suffix = self.suffix_in(bytes, index)?;
        let value = self.value_in(bytes, index)?;
        let key_len = self.suffixes - self.prefix + suffix.len();
        if key_len == 0 || key_len > KEY_LEN_MAX || value.len() > VALUE_LEN_MAX {
            return Err(Error::corruption(format!(
                "block entry {index} has a key of {key_len} and a value of {} bytes",
                value.len()
            )));
        }
        let head = head_of(&bytes[suffix.clone()]);
        if head != self.head(bytes, index) {
            return Err(Error::corruption(format!(
                "block entry {index} has head {:08x} and a key that begins with {head:08x}",
                self.head(bytes, index)
            )));
        }
        Ok(Entry {
            suffix,
            value,
            trailer: self.trailer_in(bytes, index)?,
        })
    }

    #[inline]
    fn suffix_in(&self, bytes: &[u8], index: usize) -> Result<Range<usize>> {
        let part = self.part(bytes, self.key_ends, index, self.values - self.suffixes);
        let part = part.ok_or_else(|| backwards(index))?;
        Ok(self.suffixes + part.start..self.suffixes + part.end)
    }

    #[inline]
    fn value_in(&self, bytes: &[u8], index: usize) -> Result<Range<usize>> {
        let part = self.part(bytes, self.value_ends, index, bytes.len() - self.values);
        let part = part.ok_or_else(|| backwards(index))?;
        Ok(self.values + part.start..self.values + part.end)
    }

    #[inline]
    fn trailer_in(&self, bytes: &[u8], index: usize) -> Result<Trailer> {
        if self.trailers == self.prefix {
            return Ok(implied_trailer());
        }
        let raw = fixed::<TRAILER_LEN>(bytes, self.trailers + index * TRAILER_LEN);
        Trailer::decode(u64::from_le_bytes(raw))
            .map_err(|error| error.context(format_args!("block entry {index}")))
    }

    /// From the end before `index` to the end at it, if that is a range within `len`.
    #[inline]
    fn part(&self, bytes: &[u8], ends: usize, index: usize, len: usize) -> Option<Range<usize>> {
        assert!(index < self.entries);
        let start = if index == 0 {
            0
        } else {
            self.end(bytes, ends, index - 1)
        };
        let end = self.end(bytes, ends, index);
        (start <= end && end <= len).then_some(start..end)
    }

    #[inline]
    fn end(&self, bytes: &[u8], ends: usize, index: usize) -> usize {
        if self.wide {
            let end = u32::from_le_bytes(fixed(bytes, ends + index * 4));
            usize::try_from(end).unwrap_or(usize::MAX)
        } else {
            usize::from(u16::from_le_bytes(fixed(bytes, ends + index * 2)))
        }
    }

    #[inline]
    fn head(&self, bytes: &[u8], index: usize) -> u32 {
        debug_assert!(index < self.entries);
        u32::from_be_bytes(fixed(bytes, HEADER_LEN + index * HEAD_LEN))
    }
}

/// The entries whose head is `head`; an empty range at their place if there are none.
///
/// Few heads are counted, all of them: without a branch that depends on a comparison, and without
/// a load that depends on another, so that the cache lines of a cold block arrive side by side.
#[inline]
fn heads_equal(heads: &[u8], head: u32) -> (usize, usize) {
    let (heads, _) = heads.as_chunks::<HEAD_LEN>();
    if heads.len() > HEADS_COUNTED_MAX {
        let low = heads.partition_point(|bytes| u32::from_be_bytes(*bytes) < head);
        let equal = heads[low..].partition_point(|bytes| u32::from_be_bytes(*bytes) <= head);
        return (low, low + equal);
    }
    let (mut below, mut up_to) = (0_u32, 0_u32);
    for bytes in heads {
        let found = u32::from_be_bytes(*bytes);
        below += u32::from(found < head);
        up_to += u32::from(found <= head);
    }
    // No more than a few: neither can be cut.
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    (count(below), count(up_to))
}

fn backwards(index: usize) -> Error {
    Error::corruption(format!("block entry {index} ends before it begins"))
}

/// Whether neighbours of one block may have the same key and trailer, as separators may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    Allowed,
    Forbidden,
}

/// `N` bytes at `pos`, which `Block::decode` has shown to be there.
#[inline]
fn fixed<const N: usize>(bytes: &[u8], pos: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[pos..pos + N]);
    out
}
