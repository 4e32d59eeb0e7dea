//! A record's place in the index, from which to go on in either direction.

use crossbeam_epoch as epoch;

use crate::key::{InternalKey, Trailer};
use crate::planted::{Bug, planted};

use super::descent::{Descent, Seek};
use super::index::Index;
use super::leaf::{Leaf, Snapshot};
use super::record::Record;

/// Where a record is: a snapshot of its leaf, a rank in it, and the way there.
///
/// What was not in the index when the place was looked for may be missing around it, even if it
/// is in by now; what was is there.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    descent: Descent<'a>,
    snapshot: Snapshot<'a>,
    rank: usize,
}

impl Index {
    /// The first record at or behind `target`.
    pub(super) fn first_at(&self, target: InternalKey<'_>) -> Option<Place<'_>> {
        let mut from = target;
        loop {
            let guard = &epoch::pin();
            let (descent, leaf, _) = self.descend(from, Seek::Exact, guard)?;
            let snapshot = leaf.snapshot();
            let rank = snapshot.rank_of(from, Seek::Exact);
            if rank < snapshot.len() {
                return Some(Place {
                    descent,
                    snapshot,
                    rank,
                });
            }
            // It comes next, unless the leaf has just been cut short, before `target`: then the
            // leaf behind it can be found by now.
            from = leaf.high()?.key().max(target);
        }
    }

    /// The last record at or before `target`.
    pub(super) fn last_at(&self, target: InternalKey<'_>) -> Option<Place<'_>> {
        let guard = &epoch::pin();
        let (descent, leaf, _) = self.descend(target, Seek::Exact, guard)?;
        let snapshot = leaf.snapshot();
        let mut place = Place {
            descent,
            snapshot,
            rank: snapshot.rank_of(target, Seek::Exact),
        };
        let is_there = place.rank < snapshot.len() && place.record().key() == target;
        (is_there || place.retreat(self)).then_some(place)
    }

    /// The last record.
    pub(super) fn last(&self) -> Option<Place<'_>> {
        let any = InternalKey {
            user: &[],
            trailer: Trailer(0),
        };
        let guard = &epoch::pin();
        let (descent, leaf, _) = self.descend(any, Seek::End, guard)?;
        let snapshot = leaf.snapshot();
        Some(Place {
            descent,
            snapshot,
            rank: snapshot.len() - 1,
        })
    }
}

impl<'a> Place<'a> {
    pub(super) fn record(&self) -> Record<'a> {
        self.snapshot.record(self.rank)
    }

    /// Goes on to the next record; false if there is none.
    pub(super) fn advance(&mut self, index: &'a Index) -> bool {
        if self.rank + 1 < self.snapshot.len() {
            self.rank += 1;
            return true;
        }
        let leaf = self.snapshot.leaf();
        // The leaf's own end, never what its parent says: between the two steps of a split the
        // parent has the right half already, while the leaf that was found still holds both.
        let high = if planted(Bug::MemtableParentsFence) {
            self.descent.high()
        } else {
            leaf.high()
        };
        let Some(high) = high else {
            return false;
        };
        if let Some(low) = self.descent.twig.high()
            && low.ptr() == high.ptr()
            && let Some((twig, leaf)) = self.descent.twig.next()
        {
            self.descent.twig = twig;
            self.enter(leaf);
            self.rank = 0;
            return true;
        }
        let Some(place) = index.first_at(high.key()) else {
            return false;
        };
        *self = place;
        true
    }

    /// Goes back to the record before; false if there is none.
    pub(super) fn retreat(&mut self, index: &'a Index) -> bool {
        while self.rank == 0 {
            // Contents begin where the parents say: splits take away from the end alone.
            let Some(low) = self.descent.low() else {
                return false;
            };
            if let Some((twig, leaf)) = self.descent.twig.prev()
                && (planted(Bug::MemtableParentsFence)
                    || leaf.high().is_some_and(|high| high.ptr() == low.ptr()))
            {
                self.descent.twig = twig;
                self.enter(leaf);
                self.rank = self.snapshot.len();
                continue;
            }
            let guard = &epoch::pin();
            let Some((descent, leaf, _)) = index.descend(low.key(), Seek::Before, guard) else {
                return false;
            };
            let snapshot = leaf.snapshot();
            *self = Self {
                descent,
                snapshot,
                rank: snapshot.rank_of(low.key(), Seek::Exact),
            };
        }
        self.rank -= 1;
        true
    }

    fn enter(&mut self, leaf: &'a Leaf) {
        self.snapshot = leaf.snapshot();
        for record in self.snapshot.records() {
            record.prefetch();
        }
    }
}
