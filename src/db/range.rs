//! Ranges: the visible entries between two keys, from either end.

use std::ops::{Bound, RangeBounds};

use crate::error::Result;
use crate::key::{InternalKey, SeqNo, prefix_end};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;

use super::Db;
use super::read::view_of;
use super::snapshot::ReadPoint;
use super::view::View;
use super::walk::{Keeping, Walk};

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
    /// Each end walks on its own, and stops where it meets the entry that the other is on.
    front: Option<Walk>,
    back: Option<Walk>,
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

    fn walk(&self) -> Result<Walk> {
        let view = Arc::clone(&self.view);
        Walk::new(self.db.inner(), view, self.id, self.point, Keeping::Shared)
    }

    fn walk_at_low(&self) -> Result<Walk> {
        let mut walk = self.walk()?;
        match &self.bounds.low {
            Bound::Included(low) => walk.seek(InternalKey::seek_to(low, SeqNo::MAX))?,
            Bound::Excluded(low) => walk.seek(InternalKey::behind(low))?,
            Bound::Unbounded => walk.seek_to_first()?,
        }
        Ok(walk)
    }

    fn walk_at_high(&self) -> Result<Walk> {
        let mut walk = self.walk()?;
        match &self.bounds.high {
            Bound::Included(high) => walk.seek_for_prev(InternalKey::behind(high))?,
            Bound::Excluded(high) => walk.seek_for_prev(InternalKey::seek_to(high, SeqNo::MAX))?,
            Bound::Unbounded => walk.seek_to_last()?,
        }
        Ok(walk)
    }

    fn check(&self) -> Result<()> {
        let inner = self.db.inner();
        inner.health.check_read()?;
        inner.aborts.check(self.point.seqno, self.point.aborts)
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.check()?;
        match &mut self.front {
            Some(walk) => walk.next()?,
            None => self.front = Some(self.walk_at_low()?),
        }
        let walk = self.front.as_ref().filter(|walk| walk.is_valid());
        let is_within = |walk: &&Walk| {
            let key = walk.key();
            let meets = self.back.as_ref().is_some_and(|back| key >= back.key());
            !meets && self.bounds.is_below_high(key) && self.bounds.is_above_low(key)
        };
        Ok(walk.filter(is_within).map(entry_of))
    }

    fn prev_entry(&mut self) -> Result<Option<Entry>> {
        self.check()?;
        match &mut self.back {
            Some(walk) => walk.prev()?,
            None => self.back = Some(self.walk_at_high()?),
        }
        let walk = self.back.as_ref().filter(|walk| walk.is_valid());
        let is_within = |walk: &&Walk| {
            let key = walk.key();
            let meets = self.front.as_ref().is_some_and(|front| key <= front.key());
            !meets && self.bounds.is_below_high(key) && self.bounds.is_above_low(key)
        };
        Ok(walk.filter(is_within).map(entry_of))
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

fn entry_of(walk: &Walk) -> Entry {
    Entry {
        key: Slice::copy_from(walk.key()),
        value: walk.value_slice(),
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
