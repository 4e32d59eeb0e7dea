//! Immutable bytes that keep their source alive.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};

use crate::sync::Arc;

/// Memory that a [`Slice`] can point into: a cached block, a mapped file.
pub(crate) trait Backing: Send + Sync {
    /// The whole memory; the same bytes at the same place for as long as the value lives.
    fn bytes(&self) -> &[u8];
}

impl Backing for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Immutable bytes, cheap to clone: what reads return.
///
/// A `Slice` may point into a cached block or a mapped file and keeps it alive; copy the bytes
/// ([`to_vec`](slice::to_vec)) to hold a small value for long.
#[derive(Clone)]
pub struct Slice(Repr);

/// Bytes up to this length are held in the slice itself.
const INLINE_LEN_MAX: usize = 22;

#[derive(Clone)]
enum Repr {
    Inline {
        len: u8,
        bytes: [u8; INLINE_LEN_MAX],
    },
    /// A part of memory that begins at its own count of holders: no hop further than the count.
    Shared {
        bytes: Arc<[u8]>,
        start: usize,
        end: usize,
    },
    Part {
        backing: Arc<dyn Backing>,
        start: usize,
        end: usize,
    },
}

impl Slice {
    /// Copies `bytes`.
    pub fn copy_from(bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= INLINE_LEN_MAX => {
                let mut inline = [0; INLINE_LEN_MAX];
                inline[..bytes.len()].copy_from_slice(bytes);
                Self(Repr::Inline { len, bytes: inline })
            }
            _ => Self::from_shared(Arc::from(bytes)),
        }
    }

    /// All of `bytes`, without copying.
    pub(crate) fn from_shared(bytes: Arc<[u8]>) -> Self {
        let end = bytes.len();
        Self(Repr::Shared {
            bytes,
            start: 0,
            end,
        })
    }

    /// The slice's bytes as memory of their own: shared where that is what the slice is, else
    /// copied.
    pub(crate) fn to_shared(&self) -> Arc<[u8]> {
        match &self.0 {
            Repr::Shared { bytes, start, end } if *start == 0 && *end == bytes.len() => {
                Arc::clone(bytes)
            }
            _ => Arc::from(&self[..]),
        }
    }

    /// Points at `range` of `backing` without copying.
    ///
    /// # Panics
    ///
    /// If `range` lies outside of `backing`.
    pub(crate) fn part_of(backing: Arc<dyn Backing>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= backing.bytes().len());
        Self(Repr::Part {
            backing,
            start: range.start,
            end: range.end,
        })
    }

    /// A part of this slice, which is given up for it: the count of holders stays as it is.
    ///
    /// # Panics
    ///
    /// If `range` lies outside of the slice.
    #[inline]
    #[must_use]
    pub(crate) fn into_sub(mut self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        match &mut self.0 {
            Repr::Shared { start, end, .. } | Repr::Part { start, end, .. } => {
                *end = *start + range.end;
                *start += range.start;
                self
            }
            Repr::Inline { .. } => Self::copy_from(&self[range]),
        }
    }

    /// A part of this slice that shares its memory.
    ///
    /// # Panics
    ///
    /// If `range` lies outside of the slice.
    #[inline]
    #[must_use]
    pub(crate) fn sub(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        match &self.0 {
            Repr::Shared { bytes, start, .. } => Self(Repr::Shared {
                bytes: Arc::clone(bytes),
                start: start + range.start,
                end: start + range.end,
            }),
            Repr::Part { backing, start, .. } => Self(Repr::Part {
                backing: Arc::clone(backing),
                start: start + range.start,
                end: start + range.end,
            }),
            Repr::Inline { .. } => Self::copy_from(&self[range]),
        }
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared { bytes, start, end } => &bytes[*start..*end],
            Repr::Part {
                backing,
                start,
                end,
            } => &backing.bytes()[*start..*end],
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::copy_from(&[])
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from(bytes)
    }
}

impl From<Vec<u8>> for Slice {
    /// Takes the vector over without copying it, unless it is small.
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_LEN_MAX {
            return Self::copy_from(&bytes);
        }
        let end = bytes.len();
        Self(Repr::Part {
            backing: Arc::new(bytes),
            start: 0,
            end,
        })
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Slice {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_holds_the_same_bytes() {
        for len in [0, 1, INLINE_LEN_MAX, INLINE_LEN_MAX + 1, 5000] {
            let bytes: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let copied = Slice::copy_from(&bytes);
            let owned = Slice::from(bytes.clone());
            assert_eq!(copied, bytes);
            assert_eq!(owned, copied);
            let part = &bytes[len / 3..len / 2];
            for slice in [&owned, &copied, &owned.sub(0..len)] {
                assert_eq!(slice.sub(len / 3..len / 2), part);
                assert_eq!(slice.clone().into_sub(len / 3..len / 2), part);
            }
        }
    }

    #[test]
    fn shared_bytes_are_not_copied() {
        let bytes: Arc<[u8]> = Arc::from(vec![7; 100]);
        let whole = Slice::from_shared(Arc::clone(&bytes));
        assert!(Arc::ptr_eq(&whole.to_shared(), &bytes));
        let part = whole.sub(10..60).sub(5..10);
        assert_eq!(Arc::strong_count(&bytes), 3);
        assert_eq!(part, [7; 5]);
        assert!(!Arc::ptr_eq(&part.to_shared(), &bytes));
        assert_eq!(part.to_shared()[..], [7; 5]);
    }

    #[test]
    fn a_part_keeps_its_backing_alive() {
        let backing: Arc<dyn Backing> = Arc::new(vec![7; 100]);
        let part = Slice::part_of(Arc::clone(&backing), 10..60).sub(5..10);
        assert_eq!(Arc::strong_count(&backing), 2);
        drop(backing);
        assert_eq!(part, [7; 5]);
    }
}
