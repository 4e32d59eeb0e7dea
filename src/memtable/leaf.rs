//! Leaves: the nodes that hold the records.

use crate::key::InternalKey;
use crate::planted::{Bug, planted};
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

use super::descent::Seek;
use super::node::{Head, Order, SLOTS, Slot, count_below};
use super::record::{Record, RecordPtr};

/// Records that follow one another. They only become more, until the leaf is replaced.
#[repr(C, align(64))]
pub(super) struct Leaf {
    /// Published last (Release): a record is in the leaf once the order names its slot.
    order: AtomicU64,
    /// How many bytes all keys that may come here begin with alike.
    prefix_len: usize,
    heads: [Slot<Head>; SLOTS],
    records: [Slot<Option<RecordPtr>>; SLOTS],
    /// The record where the contents end, exclusively; null in the last leaf. What the parent
    /// tells is not the same: see the module.
    high: AtomicPtr<u8>,
}

#[cfg(all(not(shuttle), target_pointer_width = "64"))]
const _: () = assert!(size_of::<Leaf>() == 256);

impl Leaf {
    /// A leaf of `records`, ascending, whose keys share their first `prefix_len` bytes with every
    /// key up to `high`.
    pub(super) fn new<'a>(
        records: impl IntoIterator<Item = Record<'a>>,
        prefix_len: usize,
        high: Option<Record<'a>>,
    ) -> Self {
        let mut leaf = Self {
            order: AtomicU64::new(0),
            prefix_len,
            heads: std::array::from_fn(|_| Slot::new(Head::ZERO)),
            records: std::array::from_fn(|_| Slot::new(None)),
            high: AtomicPtr::new(raw(high)),
        };
        let mut len = 0;
        for record in records {
            leaf.heads[len] = Slot::new(Head::new(record.user(), prefix_len));
            leaf.records[len] = Slot::new(Some(record.ptr()));
            len += 1;
        }
        *leaf.order.get_mut() = Order::of_filled(len).0;
        leaf
    }

    pub(super) fn prefix_len(&self) -> usize {
        self.prefix_len
    }

    /// The head that a key has here.
    pub(super) fn head_of(&self, user: &[u8]) -> Head {
        Head::new(user, self.prefix_len)
    }

    /// What the leaf holds now.
    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            leaf: self,
            order: Order(self.order.load(Ordering::Acquire)),
        }
    }

    /// The record where the contents end, exclusively.
    pub(super) fn high(&self) -> Option<Record<'_>> {
        let high = RecordPtr::from_raw(self.high.load(Ordering::Acquire));
        // SAFETY: the record is in the arenas of the index that the leaf is in.
        high.map(|high| unsafe { high.get() })
    }

    /// Ends the contents earlier: only by the writer, once the leaf that begins at `high` can be
    /// reached, and before its first record is visible.
    pub(super) fn end_at(&self, high: Record<'_>) {
        self.high.store(raw(Some(high)), Ordering::Release);
    }

    /// Adds a record at a rank of what the leaf holds now, which is not full. Only by the writer.
    pub(super) fn add(&self, snapshot: Snapshot<'_>, rank: usize, record: Record<'_>) {
        let (order, slot) = (snapshot.order.with_next_at(rank), snapshot.order.len());
        if planted(Bug::MemtableSlotPublishedEarly) {
            self.order.store(order.0, Ordering::Relaxed);
            // A model checker switches threads at atomics: let it do so here.
            self.order.load(Ordering::Relaxed);
        }
        let head = Head::new(record.user(), self.prefix_len);
        // SAFETY: the slot is free: no order that was published names it.
        unsafe { self.heads[slot].set(head) };
        // SAFETY: as above.
        unsafe { self.records[slot].set(Some(record.ptr())) };
        self.order.store(order.0, Ordering::Release);
    }
}

fn raw(record: Option<Record<'_>>) -> *mut u8 {
    record.map_or(std::ptr::null_mut(), |record| record.ptr().as_raw())
}

/// The records that a leaf held at one moment.
#[derive(Clone, Copy)]
pub(super) struct Snapshot<'a> {
    leaf: &'a Leaf,
    order: Order,
}

impl<'a> Snapshot<'a> {
    pub(super) fn leaf(self) -> &'a Leaf {
        self.leaf
    }

    pub(super) fn order(self) -> Order {
        self.order
    }

    pub(super) fn len(self) -> usize {
        self.order.len()
    }

    /// The record of a rank below `len`.
    pub(super) fn record(self, rank: usize) -> Record<'a> {
        // SAFETY: the order names the slot.
        let record = unsafe { self.leaf.records[self.order.slot(rank)].get() };
        let record = record.expect("the order names filled slots");
        // SAFETY: the record is in the arenas of the index that the leaf is in.
        unsafe { record.get() }
    }

    pub(super) fn head(self, rank: usize) -> Head {
        // SAFETY: the order names the slot.
        unsafe { self.leaf.heads[self.order.slot(rank)].get() }
    }

    /// All records in order.
    pub(super) fn records(self) -> impl Iterator<Item = Record<'a>> {
        (0..self.len()).map(move |rank| self.record(rank))
    }

    /// The rank of the first record at or behind `target`; `len` if there is none.
    #[inline(always)]
    pub(super) fn rank_of(self, target: InternalKey<'_>, seek: Seek) -> usize {
        let head = Head::new(target.user, self.leaf.prefix_len);
        let rank = count_below(&self.leaf.heads, self.order, head);
        if rank == self.len() || self.head(rank) != head {
            return rank;
        }
        // Of one key, the newest version comes first: mostly the first one decides.
        if seek == Seek::Newest && head.is_whole() || self.record(rank).key() >= target {
            return rank;
        }
        let mut low = rank + 1;
        let mut high = low;
        while high < self.len() && self.head(high) == head {
            high += 1;
        }
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.record(middle).key() < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// True if some heads are equal.
    pub(super) fn has_equal_heads(self) -> bool {
        (1..self.len()).any(|rank| self.head(rank) == self.head(rank - 1))
    }
}
