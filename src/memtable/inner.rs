//! Inner nodes: which child holds which keys.

use std::ptr::NonNull;

use crate::key::InternalKey;
use crate::planted::{Bug, planted};
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

use super::descent::Seek;
use super::node::{Head, Order, SLOTS, Slot, count_below, prefetch};
use super::record::{Record, RecordPtr};

/// Children of one kind, each with the record from which on it holds everything.
#[repr(C, align(64))]
pub(super) struct Inner<C> {
    /// Published last (Release): a child can be reached once the order names its slot.
    order: AtomicU64,
    /// How many bytes all separators begin with alike.
    prefix_len: usize,
    heads: [Slot<Head>; SLOTS],
    /// The record from which on a child holds everything; `None` before all records.
    lows: [Slot<Option<RecordPtr>>; SLOTS],
    /// Stored with Release: a child is filled before it can be reached. The child of a slot is
    /// replaced when it is split.
    children: [AtomicPtr<C>; SLOTS],
}

/// An entry of an inner node.
pub(super) struct Child<'a, C> {
    pub(super) low: Option<Record<'a>>,
    pub(super) node: *mut C,
}

impl<C> Child<'_, C> {
    /// The child that holds everything, until it is split.
    pub(super) fn first(node: NonNull<C>) -> Self {
        Self {
            low: None,
            node: node.as_ptr(),
        }
    }
}

impl<C> Clone for Child<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Child<'_, C> {}

impl<C> Inner<C> {
    /// A node of `children`, ascending, whose separators share their first `prefix_len` bytes
    /// with every key that is looked for here.
    pub(super) fn new<'a>(
        children: impl IntoIterator<Item = Child<'a, C>>,
        prefix_len: usize,
    ) -> Self
    where
        C: 'a,
    {
        let mut inner = Self {
            order: AtomicU64::new(0),
            prefix_len,
            heads: std::array::from_fn(|_| Slot::new(Head::ZERO)),
            lows: std::array::from_fn(|_| Slot::new(None)),
            children: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
        };
        let mut len = 0;
        for child in children {
            if let Some(low) = child.low {
                inner.heads[len] = Slot::new(Head::new(low.user(), prefix_len));
                inner.lows[len] = Slot::new(Some(low.ptr()));
            }
            inner.children[len] = AtomicPtr::new(child.node);
            len += 1;
        }
        *inner.order.get_mut() = Order::of_filled(len).0;
        inner
    }

    /// The child to go on with, and the node as it was seen.
    #[inline(always)]
    pub(super) fn step(&self, target: InternalKey<'_>, seek: Seek) -> (Step<'_, C>, &C) {
        let mut order = Order(self.order.load(Ordering::Acquire));
        loop {
            let rank = self.rank_of(order, target, seek);
            let step = Step {
                node: self,
                order,
                rank,
            };
            let child = self.child(order.slot(rank));
            prefetch(child, size_of::<C>());
            // Had the child been split in between, this may be its left half already, and what
            // is looked for in the right one.
            let again = Order(self.order.load(Ordering::Acquire));
            if again == order || planted(Bug::MemtableLooksOnce) {
                return (step, child);
            }
            order = again;
        }
    }

    /// The rank of the last child that begins at or before `target` (with `Seek::Before`: before
    /// it). The first child always does.
    #[inline(always)]
    fn rank_of(&self, order: Order, target: InternalKey<'_>, seek: Seek) -> usize {
        let len = order.len();
        if seek == Seek::End {
            return len - 1;
        }
        let head = Head::new(target.user, self.prefix_len);
        // SAFETY: the order names the slots.
        let head_at = |rank: usize| unsafe { self.heads[order.slot(rank)].get() };
        let begins_before = |rank: usize| {
            let low = self.low(order.slot(rank)).map(Record::key);
            if seek == Seek::Before {
                low < Some(target)
            } else {
                low <= Some(target)
            }
        };
        let mut low = count_below(&self.heads, order, head).max(1);
        if low < len
            && head_at(low) == head
            // The newest version of a key comes before all that are here.
            && !(seek == Seek::Newest && head.is_whole())
            && begins_before(low)
        {
            low += 1;
            let mut high = low;
            while high < len && head_at(high) == head {
                high += 1;
            }
            while low < high {
                let middle = usize::midpoint(low, high);
                if begins_before(middle) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
        }
        low - 1
    }

    fn low(&self, slot: usize) -> Option<Record<'_>> {
        // SAFETY: only called for slots that an order names.
        let low = unsafe { self.lows[slot].get() };
        // SAFETY: the record is in the arenas of the index that the node is in.
        low.map(|low| unsafe { low.get() })
    }

    fn child(&self, slot: usize) -> &C {
        let child = self.children[slot].load(Ordering::Acquire);
        // SAFETY: the order names the slot, so it has a child, in the arenas of the same index.
        unsafe { &*child }
    }
}

/// An inner node as it was seen, and the child that was chosen.
pub(super) struct Step<'a, C> {
    node: &'a Inner<C>,
    order: Order,
    rank: usize,
}

impl<C> Clone for Step<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Step<'_, C> {}

impl<'a, C> Step<'a, C> {
    pub(super) fn order(self) -> Order {
        self.order
    }

    pub(super) fn rank(self) -> usize {
        self.rank
    }

    /// Where the child begins, unless it is the first: then the parent knows.
    pub(super) fn low(self) -> Option<Record<'a>> {
        if self.rank == 0 {
            return None;
        }
        self.node.low(self.order.slot(self.rank))
    }

    /// Where the next child begins, unless this is the last: then the parent knows.
    pub(super) fn high(self) -> Option<Record<'a>> {
        if self.rank + 1 == self.order.len() {
            return None;
        }
        self.node.low(self.order.slot(self.rank + 1))
    }

    /// The next child, if it is of this node and nothing was added to the node since.
    pub(super) fn next(self) -> Option<(Self, &'a C)> {
        if self.rank + 1 == self.order.len() {
            return None;
        }
        self.sibling(self.rank + 1)
    }

    /// The child before, under the same conditions.
    pub(super) fn prev(self) -> Option<(Self, &'a C)> {
        self.sibling(self.rank.checked_sub(1)?)
    }

    fn sibling(self, rank: usize) -> Option<(Self, &'a C)> {
        let child = self.node.child(self.order.slot(rank));
        let again = Order(self.node.order.load(Ordering::Acquire));
        (again == self.order).then_some((Self { rank, ..self }, child))
    }

    /// All entries in order, with `left` for the chosen one and `right` behind it. Only by the
    /// writer.
    pub(super) fn split_into(self, left: *mut C, right: Child<'a, C>) -> [Child<'a, C>; SLOTS + 1] {
        debug_assert!(self.order.is_full());
        std::array::from_fn(|index| {
            if index == self.rank + 1 {
                return right;
            }
            let rank = index - usize::from(index > self.rank);
            let slot = self.order.slot(rank);
            Child {
                low: self.node.low(slot),
                node: if rank == self.rank {
                    left
                } else {
                    // Relaxed: the writer stored it itself.
                    self.node.children[slot].load(Ordering::Relaxed)
                },
            }
        })
    }

    /// Adds `right` behind the chosen child, in a node that is not full, and then replaces that
    /// one by `left`. Only by the writer.
    pub(super) fn add(self, left: *mut C, right: Child<'_, C>) {
        let (node, slot) = (self.node, self.order.len());
        let chosen = &node.children[self.order.slot(self.rank)];
        if planted(Bug::MemtableLeftBeforeRight) {
            chosen.store(left, Ordering::Release);
        }
        let low = right.low.expect("a right half begins at a record");
        let head = Head::new(low.user(), node.prefix_len);
        // SAFETY: the slot is free: no order that was published names it.
        unsafe { node.heads[slot].set(head) };
        // SAFETY: as above.
        unsafe { node.lows[slot].set(Some(low.ptr())) };
        // Relaxed: published by the order.
        node.children[slot].store(right.node, Ordering::Relaxed);
        let order = self.order.with_next_at(self.rank + 1);
        node.order.store(order.0, Ordering::Release);
        // Only now: a reader that finds the left half must be able to find the right one.
        chosen.store(left, Ordering::Release);
    }
}
