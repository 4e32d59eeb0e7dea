//! Ranges: the visible entries between two keys, from either end.

use std::ops::{Bound, RangeBounds};

use crate::error::Result;
use crate::key::{Cursor, InternalKey, SeqNo, ValueKind, prefix_end};
use crate::memtable::is_dead;
use crate::merge::Merge;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;

use super::Db;
use super::read::{Source, merge_of, view_of};
use super::snapshot::ReadPoint;
use super::view::View;

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Slice,
    /// The value.
    pub value: Slice,
}

/// Two ends of a range of keys.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) low: Bound<Vec<u8>>,
    pub(crate) high: Bound<Vec<u8>>,
}

impl Bounds {
    pub(crate) fn from_range<K: AsRef<[u8]>>(range: &impl RangeBounds<K>) -> Self {
        let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        Self {
            low: own(range.start_bound()),
            high: own(range.end_bound()),
        }
    }

    pub(crate) fn from_prefix(prefix: &[u8]) -> Self {
        Self {
            low: Bound::Included(prefix.to_vec()),
            high: prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded),
        }
    }

    fn is_above_low(&self, key: &[u8]) -> bool {
        match &self.low {
            Bound::Included(low) => key >= &low[..],
            Bound::Excluded(low) => key > &low[..],
            Bound::Unbounded => true,
        }
    }

    fn is_below_high(&self, key: &[u8]) -> bool {
        match &self.high {
            Bound::Included(high) => key <= &high[..],
            Bound::Excluded(high) if planted(Bug::RangeEndIncluded) => key <= &high[..],
            Bound::Excluded(high) => key < &high[..],
            Bound::Unbounded => true,
        }
    }
}

/// The visible entries of a range of keys, as a double-ended iterator.
///
/// The range sees the moment at which it was made, whatever is written meanwhile, and keeps what
/// it needs alive until it is dropped. After an error an end yields nothing more.
pub struct Range {
    db: Db,
    id: u32,
    view: Arc<View>,
    point: ReadPoint,
    bounds: Bounds,
    /// Each end walks on its own; both stop where they meet, which `bounds` tells.
    front: Option<Merge<Source>>,
    back: Option<Merge<Source>>,
    ended: bool,
}

impl Range {
    /// A range at a snapshot's point.
    pub(crate) fn new(db: &Db, id: u32, bounds: Bounds, point: ReadPoint) -> Result<Self> {
        let inner = db.inner();
        inner.health.check_read()?;
        let view = inner.view();
        inner.aborts.check(point.seqno, point.aborts)?;
        Self::in_view(db, id, bounds, point, view)
    }

    /// A range at the newest point.
    pub(crate) fn newest(db: &Db, id: u32, bounds: Bounds) -> Result<Self> {
        db.inner().health.check_read()?;
        let (view, point) = db.inner().read_point();
        Self::in_view(db, id, bounds, point, view)
    }

    fn in_view(
        db: &Db,
        id: u32,
        bounds: Bounds,
        point: ReadPoint,
        view: Arc<View>,
    ) -> Result<Self> {
        view_of(&view, id)?;
        Ok(Self {
            db: db.clone(),
            id,
            view,
            point,
            bounds,
            front: None,
            back: None,
            ended: false,
        })
    }

    fn merge_at_low(&self) -> Result<Merge<Source>> {
        let mut merge = merge_of(view_of(&self.view, self.id)?);
        match &self.bounds.low {
            Bound::Included(low) => merge.seek(InternalKey::seek_to(low, SeqNo::MAX))?,
            Bound::Excluded(low) => merge.seek(InternalKey::behind(low))?,
            Bound::Unbounded => merge.seek_to_first()?,
        }
        Ok(merge)
    }

    fn merge_at_high(&self) -> Result<Merge<Source>> {
        let mut merge = merge_of(view_of(&self.view, self.id)?);
        match &self.bounds.high {
            Bound::Included(high) => merge.seek_for_prev(InternalKey::behind(high))?,
            Bound::Excluded(high) => {
                merge.seek_for_prev(InternalKey::seek_to(high, SeqNo::MAX))?;
            }
            Bound::Unbounded => merge.seek_to_last()?,
        }
        Ok(merge)
    }

    fn is_visible(&self, seqno: SeqNo) -> bool {
        seqno <= self.point.seqno && !is_dead(self.view.dead(), seqno)
    }

    fn check(&self) -> Result<()> {
        let inner = self.db.inner();
        inner.health.check_read()?;
        inner.aborts.check(self.point.seqno, self.point.aborts)
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.check()?;
        let mut merge = match self.front.take() {
            Some(merge) => merge,
            None => self.merge_at_low()?,
        };
        while merge.is_valid() {
            let key = merge.key();
            if !self.bounds.is_below_high(key.user) {
                return Ok(None);
            }
            if !self.is_visible(key.seqno()) || !self.bounds.is_above_low(key.user) {
                merge.next()?;
                continue;
            }
            // The newest visible version: it decides, and the older ones are passed over.
            let (user, kind) = (key.user.to_vec(), key.kind());
            let value = (kind == ValueKind::Put).then(|| merge.value_slice());
            merge.next()?;
            while merge.is_valid() && merge.key().user == &user[..] {
                merge.next()?;
            }
            if let Some(value) = value {
                self.bounds.low = Bound::Excluded(user.clone());
                self.front = Some(merge);
                return Ok(Some(Entry {
                    key: Slice::from(user),
                    value,
                }));
            }
        }
        Ok(None)
    }

    fn prev_entry(&mut self) -> Result<Option<Entry>> {
        self.check()?;
        let mut merge = match self.back.take() {
            Some(merge) => merge,
            None => self.merge_at_high()?,
        };
        while merge.is_valid() {
            let user = merge.key().user.to_vec();
            if !self.bounds.is_above_low(&user) {
                return Ok(None);
            }
            let value = self.newest_going_back(&mut merge, &user)?;
            if !self.bounds.is_below_high(&user) {
                continue;
            }
            if let Some(value) = value {
                self.bounds.high = Bound::Excluded(user.clone());
                self.back = Some(merge);
                return Ok(Some(Entry {
                    key: Slice::from(user),
                    value,
                }));
            }
        }
        Ok(None)
    }

    /// Passes all versions of `user`, the oldest first, and answers what the newest visible says.
    fn newest_going_back(&self, merge: &mut Merge<Source>, user: &[u8]) -> Result<Option<Slice>> {
        let mut newest = None;
        while merge.is_valid() && merge.key().user == user {
            let key = merge.key();
            if self.is_visible(key.seqno()) {
                newest = (key.kind() == ValueKind::Put).then(|| merge.value_slice());
            }
            merge.prev()?;
        }
        Ok(newest)
    }

    fn yield_from(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Option<Entry>>,
    ) -> Option<Result<Entry>> {
        if self.ended {
            return None;
        }
        let result = step(self);
        self.ended = !matches!(result, Ok(Some(_)));
        result.transpose()
    }
}

impl Iterator for Range {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.yield_from(Self::next_entry)
    }
}

impl DoubleEndedIterator for Range {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.yield_from(Self::prev_entry)
    }
}

impl std::iter::FusedIterator for Range {}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range")
            .field("seqno", &self.point.seqno)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}
