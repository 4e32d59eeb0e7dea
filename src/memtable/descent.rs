//! The way from the fences down to a leaf.

use std::cmp::Ordering as Order;
use std::ops::Bound;
use std::ptr::NonNull;

use crossbeam_epoch::Guard;

use crate::key::{InternalKey, Trailer};
use crate::planted::{Bug, planted};
use crate::sync::{AtomicPtr, Ordering};

use super::index::{Branch, Index, Twig};
use super::inner::Step;
use super::leaf::Leaf;
use super::node::prefetch;
use super::record::{Record, RecordPtr};

/// What is looked for, beside a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seek {
    /// The leaf that the key belongs to.
    Exact,
    /// The same, for a key that is newer than all that are there.
    Newest,
    /// The leaf of what is just before the key.
    Before,
    /// The last leaf, whatever the key.
    End,
}

/// A key of the topmost list: the record from which on a branch holds everything.
pub(super) struct Fence {
    /// The first 16 bytes, big-endian, padded with zeros: settles most comparisons.
    head: u128,
    user: NonNull<[u8]>,
    trailer: Trailer,
    /// None in the fence before all records, and in one that is only looked for.
    record: Option<RecordPtr>,
}

// SAFETY: the bytes behind `user` are never written again, so any thread may read them.
unsafe impl Send for Fence {}
// SAFETY: as above.
unsafe impl Sync for Fence {}

impl Fence {
    /// The fence before all records.
    pub(super) fn first() -> Self {
        Self::borrow(InternalKey {
            user: &[],
            trailer: Trailer(u64::MAX),
        })
    }

    /// The fence at a record.
    pub(super) fn at(record: Record<'_>) -> Self {
        Self {
            record: Some(record.ptr()),
            ..Self::borrow(record.key())
        }
    }

    /// A fence for a lookup that ends before `key` does.
    fn borrow(key: InternalKey<'_>) -> Self {
        let head = key.user.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0; 16];
            padded[..key.user.len()].copy_from_slice(key.user);
            padded
        });
        Self {
            head: u128::from_be_bytes(head),
            user: NonNull::from(key.user),
            trailer: key.trailer,
            record: None,
        }
    }

    fn user(&self) -> &[u8] {
        // SAFETY: fences are in the list of an index, which owns the arena of the record, or were
        // made by `borrow` for a lookup that is still running.
        unsafe { self.user.as_ref() }
    }
}

impl Ord for Fence {
    fn cmp(&self, other: &Self) -> Order {
        self.head
            .cmp(&other.head)
            .then_with(|| self.user().cmp(other.user()))
            .then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for Fence {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Fence {}

/// The nodes that were passed on the way to a leaf, as they were seen.
#[derive(Clone, Copy)]
pub(super) struct Descent<'a> {
    /// Where the branch begins and ends.
    low: Option<Record<'a>>,
    high: Option<Record<'a>>,
    pub(super) branch: Step<'a, Twig>,
    pub(super) twig: Step<'a, Leaf>,
}

impl<'a> Descent<'a> {
    /// Where the leaf begins.
    pub(super) fn low(&self) -> Option<Record<'a>> {
        self.twig.low().or_else(|| self.twig_low())
    }

    /// Where the leaf ends as its parents have it.
    pub(super) fn high(&self) -> Option<Record<'a>> {
        self.twig.high().or_else(|| self.twig_high())
    }

    /// Where the twig begins and ends.
    pub(super) fn twig_low(&self) -> Option<Record<'a>> {
        self.branch.low().or(self.low)
    }

    pub(super) fn twig_high(&self) -> Option<Record<'a>> {
        self.branch.high().or(self.high)
    }

    /// Where the branch begins and ends.
    pub(super) fn branch_low(&self) -> Option<Record<'a>> {
        self.low
    }

    pub(super) fn branch_high(&self) -> Option<Record<'a>> {
        self.high
    }
}

impl Index {
    /// Goes down to a leaf; `None` in an empty index. Also answers the place in the list that the
    /// branch was found at, for the writer to replace it.
    #[inline(always)]
    pub(super) fn descend<'a: 'g, 'g>(
        &'a self,
        target: InternalKey<'_>,
        seek: Seek,
        guard: &'g Guard,
    ) -> Option<(Descent<'a>, &'a Leaf, &'g AtomicPtr<Branch>)> {
        let target_fence = Fence::borrow(target);
        loop {
            let entry = match seek {
                Seek::Exact | Seek::Newest => self
                    .fences
                    .upper_bound(Bound::Included(&target_fence), guard),
                Seek::Before => self
                    .fences
                    .upper_bound(Bound::Excluded(&target_fence), guard),
                Seek::End => self.fences.back(guard),
            }?;
            let place = entry.value();
            let branch = place.load(Ordering::Acquire);
            // SAFETY: branches in the list are in the arenas of the index, for as long as it.
            let branch: &'a Branch = unsafe { &*branch };
            prefetch(branch, size_of::<Branch>());
            let next = entry.next();
            // Had the branch been split in between, this may be its left half already, and what is
            // looked for in the right one.
            let is_overtaken = next.as_ref().is_some_and(|next| match seek {
                Seek::Exact | Seek::Newest => *next.key() <= target_fence,
                Seek::Before => *next.key() < target_fence,
                Seek::End => true,
            });
            if is_overtaken && !planted(Bug::MemtableLooksOnce) {
                continue;
            }
            // SAFETY: records of fences are in the arenas of the index, for as long as it.
            let record = |ptr: RecordPtr| unsafe { ptr.get() };
            let low = entry.key().record.map(record);
            let high = next.and_then(|next| next.key().record.map(record));
            let (branch, twig) = branch.step(target, seek);
            let (twig, leaf) = twig.step(target, seek);
            let descent = Descent {
                low,
                high,
                branch,
                twig,
            };
            return Some((descent, leaf, place));
        }
    }
}
