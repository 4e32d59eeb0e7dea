//! Snapshots: a point in the order of writes that stays readable, and the points that compaction
//! must respect.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::key::SeqNo;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

use super::cursor::Cursor;
use super::keyspace::Keyspace;
use super::range::{Bounds, Range};
use super::{Db, DbInner};

/// Numbers of live snapshots, with how many there are of each.
#[derive(Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<SeqNo, usize>>,
}

impl Snapshots {
    /// Registers a snapshot at what `current` answers, asked under the lock: a compaction that
    /// looks before sees a boundary at or below it, one that looks later sees the snapshot.
    fn register(&self, current: impl FnOnce() -> ReadPoint) -> ReadPoint {
        if planted(Bug::SnapshotRegistersLate) {
            let point = current();
            *self.live.lock().entry(point.seqno).or_default() += 1;
            return point;
        }
        let mut live = self.live.lock();
        let point = current();
        *live.entry(point.seqno).or_default() += 1;
        point
    }

    fn release(&self, seqno: SeqNo) {
        let mut live = self.live.lock();
        if let Some(count) = live.get_mut(&seqno) {
            *count -= 1;
            if *count == 0 {
                live.remove(&seqno);
            }
        }
    }

    /// The sequence numbers whose view of the data must be kept, ascending: every snapshot's, and
    /// what `current` answers.
    pub(crate) fn boundaries(&self, current: impl FnOnce() -> SeqNo) -> Vec<SeqNo> {
        let live = self.live.lock();
        let current = current();
        let mut boundaries: Vec<SeqNo> = live.keys().copied().collect();
        if let Err(index) = boundaries.binary_search(&current) {
            boundaries.insert(index, current);
        }
        boundaries
    }
}

/// Aborted ranges, for read points that may have seen what was aborted.
#[derive(Default)]
pub(crate) struct Aborts {
    /// Number of aborts so far; written after `ranges`.
    count: AtomicU64,
    ranges: Mutex<Vec<(SeqNo, SeqNo)>>,
}

/// Ranges that are remembered; an older read point is taken to be aborted.
const ABORTS_REMEMBERED_MAX: usize = 4096;

impl Aborts {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self, low: SeqNo, high: SeqNo) {
        let mut ranges = self.ranges.lock();
        ranges.push((low, high));
        if ranges.len() > ABORTS_REMEMBERED_MAX {
            ranges.remove(0);
        }
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Fails if a read point, taken when there had been `count` aborts, saw writes that have been
    /// aborted since.
    pub(crate) fn check(&self, seqno: SeqNo, count: u64) -> Result<()> {
        if self.count() == count {
            return Ok(());
        }
        let ranges = self.ranges.lock();
        let since = usize::try_from(self.count() - count).unwrap_or(usize::MAX);
        let known = &ranges[ranges.len().saturating_sub(since)..];
        let hit = known
            .iter()
            .any(|(low, high)| *low < seqno && seqno <= *high);
        if hit || since > ranges.len() {
            return Err(Error::new(
                ErrorKind::Aborted,
                format!("the read point {seqno} saw writes that were aborted"),
            ));
        }
        Ok(())
    }
}

/// A read point: what it saw, it goes on seeing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadPoint {
    pub(crate) seqno: SeqNo,
    /// Aborts that the view of that moment, or an earlier one, knew of.
    pub(crate) aborts: u64,
}

/// A frozen view of a whole store: every write that was committed before it was taken, and none
/// after. Owned, cheap to clone, valid for as long as anyone keeps it.
///
/// It keeps old versions from being dropped by compaction, so let go of it when done.
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<SnapshotInner>,
}

struct SnapshotInner {
    db: Db,
    point: ReadPoint,
}

impl Drop for SnapshotInner {
    fn drop(&mut self) {
        self.db.inner().snapshots.release(self.point.seqno);
    }
}

impl Snapshot {
    /// A snapshot at the point that `current` answers.
    pub(crate) fn new(db: Db, current: impl FnOnce(&DbInner) -> ReadPoint) -> Self {
        let inner = db.inner();
        let point = inner.snapshots.register(|| current(inner));
        Self {
            inner: Arc::new(SnapshotInner { db, point }),
        }
    }

    /// The newest write that the snapshot sees.
    pub fn seqno(&self) -> SeqNo {
        self.inner.point.seqno
    }

    /// The value of a key at the time of the snapshot.
    ///
    /// # Errors
    ///
    /// `Aborted` if the snapshot saw writes that have been aborted since, `Closed`, `Corruption`,
    /// `Io`, `InvalidArgument` if the keyspace is of another store.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let db = self.inner.db.inner();
        let id = keyspace.id_in(db)?;
        db.get_at(id, key.as_ref(), self.inner.point)
    }

    /// The entries of a range of keys at the time of the snapshot, in key order from either end.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); the iterator's items may fail in the same ways.
    pub fn range<K: AsRef<[u8]>>(
        &self,
        keyspace: &Keyspace,
        range: impl std::ops::RangeBounds<K>,
    ) -> Result<Range> {
        let db = self.inner.db.inner();
        let id = keyspace.id_in(db)?;
        Range::new(
            &self.inner.db,
            id,
            Bounds::from_range(&range),
            self.inner.point,
        )
    }

    /// A cursor over the entries at the time of the snapshot, on none of them yet.
    ///
    /// # Errors
    ///
    /// `Aborted`, `Closed`, `NotFound`, `InvalidArgument`, as [`get`](Self::get).
    pub fn cursor(&self, keyspace: &Keyspace) -> Result<Cursor> {
        let db = self.inner.db.inner();
        let id = keyspace.id_in(db)?;
        Cursor::new(&self.inner.db, id, self.inner.point)
    }

    /// The entries whose keys begin with `prefix`, at the time of the snapshot.
    ///
    /// # Errors
    ///
    /// As [`range`](Self::range).
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Result<Range> {
        let db = self.inner.db.inner();
        let id = keyspace.id_in(db)?;
        let bounds = Bounds::from_prefix(prefix.as_ref());
        Range::new(&self.inner.db, id, bounds, self.inner.point)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("seqno", &self.seqno())
            .finish_non_exhaustive()
    }
}
