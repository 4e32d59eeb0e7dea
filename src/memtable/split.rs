//! What becomes of a node that is full: two fresh ones, in their final state before anybody can
//! reach them.

use super::descent::Descent;
use super::index::{Branch, Writer};
use super::inner::{Child, Inner, Step};
use super::leaf::{Leaf, Snapshot};
use super::node::{SLOTS, shared_len};
use super::record::Record;

/// Two nodes in the place of one.
pub(super) struct Halves<'a, C> {
    pub(super) left: *mut C,
    pub(super) right: Child<'a, C>,
}

impl Writer {
    /// Makes two leaves of a full one and a record that belongs at `rank` of it.
    ///
    /// Where keys come in ascending order, the full leaf stays as the left half, and in descending
    /// order as the right one.
    pub(super) fn split_leaf<'a>(
        &mut self,
        descent: &Descent<'a>,
        full: Snapshot<'a>,
        rank: usize,
        record: Record<'a>,
    ) -> Halves<'a, Leaf> {
        let (low, high) = (descent.low(), descent.high());
        if rank == SLOTS && full.order().is_ascending() {
            let prefix_len = shared_prefix(Some(record), high);
            let right = self.leaf([record], prefix_len, high);
            let left = self.with_better_heads(full, low, Some(record));
            return halves(left, record, right);
        }
        if rank == 0 && full.order().is_descending_at(0) {
            let first = full.record(0);
            let prefix_len = shared_prefix(low, Some(first));
            let left = self.leaf([record], prefix_len, Some(first));
            let right = self.with_better_heads(full, Some(first), high);
            return halves(left, first, right);
        }
        let all: [Record<'a>; SLOTS + 1] = std::array::from_fn(|index| {
            if index == rank {
                record
            } else {
                full.record(index - usize::from(index > rank))
            }
        });
        let (lower, upper) = all.split_at(all.len() / 2);
        let middle = upper[0];
        let prefix_len = shared_prefix(low, Some(middle));
        let left = self.leaf(lower.iter().copied(), prefix_len, Some(middle));
        let prefix_len = shared_prefix(Some(middle), high);
        let right = self.leaf(upper.iter().copied(), prefix_len, high);
        halves(left, middle, right)
    }

    fn leaf<'a>(
        &mut self,
        records: impl IntoIterator<Item = Record<'a>>,
        prefix_len: usize,
        high: Option<Record<'a>>,
    ) -> *mut Leaf {
        let leaf = Leaf::new(records, prefix_len, high);
        self.leaves.push(leaf).as_ptr()
    }

    /// The leaf itself, or a copy whose heads tell its records apart. A leaf at the edge of all
    /// has no prefix while it is filled, since nobody knows what will come.
    fn with_better_heads<'a>(
        &mut self,
        full: Snapshot<'a>,
        low: Option<Record<'a>>,
        high: Option<Record<'a>>,
    ) -> *mut Leaf {
        let prefix_len = shared_prefix(low, high);
        let same = std::ptr::from_ref(full.leaf()).cast_mut();
        if prefix_len <= full.leaf().prefix_len() || !full.has_equal_heads() {
            return same;
        }
        let better = Leaf::new(full.records(), prefix_len, high);
        let (first, last) = (full.record(0), full.record(full.len() - 1));
        if better.head_of(first.user()) == better.head_of(last.user()) {
            return same;
        }
        self.leaves.push(better).as_ptr()
    }

    /// Puts the halves of a leaf into its parents. Returns the halves of the branch if it was full
    /// as well.
    pub(super) fn hand_up<'a>(
        &mut self,
        descent: &Descent<'a>,
        halves: &Halves<'a, Leaf>,
    ) -> Option<Halves<'a, Branch>> {
        let (twig, branch) = (descent.twig, descent.branch);
        if !twig.order().is_full() {
            twig.add(halves.left, halves.right);
            return None;
        }
        let (low, high) = (descent.twig_low(), descent.twig_high());
        let halves = split_inner(twig, halves, low, high, |node| {
            self.twigs.push(node).as_ptr()
        });
        if !branch.order().is_full() {
            branch.add(halves.left, halves.right);
            return None;
        }
        let (low, high) = (descent.branch_low(), descent.branch_high());
        Some(split_inner(branch, &halves, low, high, |node| {
            self.branches.push(node).as_ptr()
        }))
    }
}

/// Makes two nodes of a full one and the halves of its chosen child.
fn split_inner<'a, C>(
    full: Step<'a, C>,
    child: &Halves<'a, C>,
    low: Option<Record<'a>>,
    high: Option<Record<'a>>,
    mut keep: impl FnMut(Inner<C>) -> *mut Inner<C>,
) -> Halves<'a, Inner<C>> {
    let all = full.split_into(child.left, child.right);
    let middle = if full.rank() == SLOTS - 1 && full.order().is_ascending() {
        SLOTS
    } else if full.rank() == 0 && full.order().is_descending_at(1) {
        1
    } else {
        all.len() / 2
    };
    let (lower, upper) = all.split_at(middle);
    let begin = upper[0].low.expect("only the first child has no beginning");
    let left = Inner::new(lower.iter().copied(), shared_prefix(low, Some(begin)));
    let left = keep(left);
    let right = Inner::new(upper.iter().copied(), shared_prefix(Some(begin), high));
    halves(left, begin, keep(right))
}

fn halves<C>(left: *mut C, low: Record<'_>, right: *mut C) -> Halves<'_, C> {
    let right = Child {
        low: Some(low),
        node: right,
    };
    Halves { left, right }
}

/// How many bytes all keys between two records begin with alike.
fn shared_prefix(low: Option<Record<'_>>, high: Option<Record<'_>>) -> usize {
    match (low, high) {
        (Some(low), Some(high)) => shared_len(low.user(), high.user()),
        _ => 0,
    }
}
