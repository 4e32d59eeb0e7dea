//! Sequence numbers, kinds of entries, internal keys and their order, and the cursor over them.

use std::cmp::Ordering;
use std::fmt;

use crate::error::{Error, Result};
use crate::slice::Slice;

/// Longest key, in bytes; the shortest has one.
pub const KEY_LEN_MAX: usize = 65_535;
/// Longest value, in bytes.
pub const VALUE_LEN_MAX: usize = 256 << 20;

/// A sequence number: the place of a write in the order of all writes of one `Db`.
///
/// The first write has 1. 56 bits: a number is never used twice, not even after an abort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeqNo(pub(crate) u64);

impl SeqNo {
    pub(crate) const ZERO: Self = Self(0);
    pub(crate) const MAX: Self = Self((1 << 56) - 1);

    /// The number as an integer.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A boundary in the order of writes: everything up to it counts once it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub(crate) SeqNo);

impl Mark {
    /// The newest write that the mark covers.
    pub fn seqno(self) -> SeqNo {
        self.0
    }
}

/// Names a keyspace of one open store, for a [`WriteBatch`](crate::WriteBatch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyspaceId {
    /// Which open store of this process, never 0.
    pub(crate) db: u64,
    /// Which keyspace of it, never used again after a drop.
    pub(crate) id: u32,
}

/// What an entry does to its key. The numbers are stored; see `docs/format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum ValueKind {
    /// A tombstone: the key has no value from here on.
    Delete = 0,
    Put = 1,
    // Reserved by format 1: 2 merge operand, 3 range tombstone, 4 put with expiry, 5 value handle.
}

impl ValueKind {
    pub(crate) fn from_u8(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Delete),
            1 => Ok(Self::Put),
            2..=5 => Err(Error::unsupported(format!(
                "entry kind {byte} is reserved for a later version of the engine"
            ))),
            _ => Err(Error::corruption(format!(
                "entry kind {byte} does not exist"
            ))),
        }
    }
}

/// Sequence number and kind in one integer, as stored behind a key: `seqno << 8 | kind`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Trailer(pub(crate) u64);

impl Trailer {
    pub(crate) fn new(seqno: SeqNo, kind: ValueKind) -> Self {
        debug_assert!(seqno <= SeqNo::MAX);
        Self(seqno.0 << 8 | u64::from(kind as u8))
    }

    /// Checks a trailer from a file.
    pub(crate) fn decode(raw: u64) -> Result<Self> {
        ValueKind::from_u8((raw & 0xff) as u8)?;
        Ok(Self(raw))
    }

    pub(crate) fn seqno(self) -> SeqNo {
        SeqNo(self.0 >> 8)
    }

    /// The kind.
    ///
    /// # Panics
    ///
    /// If the trailer was made neither by `new` nor by `decode`.
    pub(crate) fn kind(self) -> ValueKind {
        match self.0 & 0xff {
            0 => ValueKind::Delete,
            1 => ValueKind::Put,
            kind => unreachable!("trailer of kind {kind} was never checked"),
        }
    }
}

impl fmt::Debug for Trailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:?}", self.seqno(), self.0 & 0xff)
    }
}

/// A user key with its trailer. Ordered by user key, the newest version of a key first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct InternalKey<'a> {
    pub(crate) user: &'a [u8],
    pub(crate) trailer: Trailer,
}

impl<'a> InternalKey<'a> {
    pub(crate) fn new(user: &'a [u8], seqno: SeqNo, kind: ValueKind) -> Self {
        Self {
            user,
            trailer: Trailer::new(seqno, kind),
        }
    }

    /// The place just before every version of `user` that a reader at `seqno` may see.
    pub(crate) fn seek_to(user: &'a [u8], seqno: SeqNo) -> Self {
        Self {
            user,
            trailer: Trailer(seqno.0 << 8 | 0xff),
        }
    }

    /// The place just behind every version of `user`.
    pub(crate) fn behind(user: &'a [u8]) -> Self {
        Self {
            user,
            trailer: Trailer(0),
        }
    }

    pub(crate) fn seqno(&self) -> SeqNo {
        self.trailer.seqno()
    }

    pub(crate) fn kind(&self) -> ValueKind {
        self.trailer.kind()
    }
}

impl PartialOrd for InternalKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InternalKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.user
            .cmp(other.user)
            .then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:?}", self.user.escape_ascii(), self.trailer)
    }
}

/// A position in a sorted source of entries.
///
/// A cursor begins invalid. Running off either end makes it invalid; an error does too, and the
/// cursor answers the next move as if it had never been placed: it must be placed anew.
pub(crate) trait Cursor {
    fn is_valid(&self) -> bool;

    /// The entry's key. The cursor must be valid.
    fn key(&self) -> InternalKey<'_>;

    /// The entry's value (empty for a tombstone), borrowed until the cursor moves.
    fn value(&self) -> &[u8];

    /// The entry's value, kept alive beyond the cursor.
    fn value_slice(&self) -> Slice {
        Slice::copy_from(self.value())
    }

    fn seek_to_first(&mut self) -> Result<()>;

    fn seek_to_last(&mut self) -> Result<()>;

    /// Has what a [`seek`](Self::seek) to `target` will wait for brought nearer, without waiting:
    /// of many cursors at once, so that it arrives side by side. Each is brought to the next of
    /// [`Approach`] in turn.
    ///
    /// The cursor may be invalid behind it. The seek may be left out, or go elsewhere.
    fn approach(&mut self, _target: InternalKey<'_>, _step: Approach) -> Result<()> {
        Ok(())
    }

    /// Moves to the first entry at or behind `target`.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<()>;

    /// Moves to the last entry at or before `target`.
    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()>;

    /// Moves on by one. The cursor must be valid.
    fn next(&mut self) -> Result<()>;

    /// Moves back by one. The cursor must be valid.
    fn prev(&mut self) -> Result<()>;
}

/// Steps that bring a cursor near to where it will seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Approach {
    /// To where it is kept which memory holds the entry.
    Place,
    /// To that memory.
    Memory,
}

/// The first key behind all keys with `prefix`, if there is one (none for a run of 0xff).
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Checks the length of a key that a caller wants to write.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid("a key must have at least one byte"));
    }
    if key.len() > KEY_LEN_MAX {
        return Err(Error::invalid(format!(
            "key of {} bytes; the longest allowed is {KEY_LEN_MAX}",
            key.len()
        )));
    }
    Ok(())
}

/// Checks the length of a value that a caller wants to write.
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > VALUE_LEN_MAX {
        return Err(Error::invalid(format!(
            "value of {} bytes; the longest allowed is {VALUE_LEN_MAX}",
            value.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_come_first() {
        let old = InternalKey::new(b"a", SeqNo(1), ValueKind::Put);
        let new = InternalKey::new(b"a", SeqNo(2), ValueKind::Delete);
        let other = InternalKey::new(b"aa", SeqNo(9), ValueKind::Put);
        assert!(new < old && old < other);
        assert!(InternalKey::seek_to(b"a", SeqNo(2)) < new);
        assert!(InternalKey::seek_to(b"a", SeqNo(1)) > new);
        assert!(InternalKey::behind(b"a") > old && InternalKey::behind(b"a") < other);
    }

    #[test]
    fn prefix_ends() {
        assert_eq!(prefix_end(b"ab").unwrap(), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff").unwrap(), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn kinds_are_checked_before_use() {
        let trailer = Trailer::new(SeqNo::MAX, ValueKind::Put);
        assert_eq!(Trailer::decode(trailer.0).unwrap().seqno(), SeqNo::MAX);
        assert_eq!(
            Trailer::decode(3).unwrap_err().kind(),
            crate::ErrorKind::Unsupported
        );
        assert_eq!(
            Trailer::decode(9).unwrap_err().kind(),
            crate::ErrorKind::Corruption
        );
    }
}
