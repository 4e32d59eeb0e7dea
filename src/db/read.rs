//! Reading: point gets through memtables and tables, and the sources that a range is merged from.

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Approach, Cursor, InternalKey, SeqNo, ValueKind};
use crate::memtable::MemtableCursor;
use crate::merge::Merge;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sstable::filter;
use crate::sync::{Arc, Loaded, Ordering};
use crate::version::RunCursor;

use super::DbInner;
use super::snapshot::ReadPoint;
use super::view::{KeyspaceView, View};

/// A sorted source of entries: concrete, so that the merge needs no virtual calls.
pub(crate) enum Source {
    Memtable(MemtableCursor),
    Run(Box<RunCursor>),
}

macro_rules! forward {
    ($self:ident, $cursor:ident => $call:expr) => {
        match $self {
            Source::Memtable($cursor) => $call,
            Source::Run($cursor) => $call,
        }
    };
}

impl Cursor for Source {
    fn is_valid(&self) -> bool {
        forward!(self, cursor => cursor.is_valid())
    }

    fn key(&self) -> InternalKey<'_> {
        forward!(self, cursor => cursor.key())
    }

    fn value(&self) -> &[u8] {
        forward!(self, cursor => cursor.value())
    }

    fn value_slice(&self) -> Slice {
        forward!(self, cursor => cursor.value_slice())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        forward!(self, cursor => cursor.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        forward!(self, cursor => cursor.seek_to_last())
    }

    fn approach(&mut self, target: InternalKey<'_>, step: Approach) -> Result<()> {
        forward!(self, cursor => cursor.approach(target, step))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        forward!(self, cursor => cursor.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        forward!(self, cursor => cursor.seek_for_prev(target))
    }

    fn next(&mut self) -> Result<()> {
        forward!(self, cursor => cursor.next())
    }

    fn prev(&mut self) -> Result<()> {
        forward!(self, cursor => cursor.prev())
    }
}

impl DbInner {
    /// The current view.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.load())
    }

    /// A view, and a point that all of its writes are visible at.
    pub(crate) fn read_point(&self) -> (Arc<View>, ReadPoint) {
        let (view, point) = self.load_read_point();
        (Arc::clone(&view), point)
    }

    /// A [`read_point`](Self::read_point) for short use, which costs no write to shared memory.
    ///
    /// The view is loaded again after the point: had it changed in between, a batch could have
    /// gone into memtables that only the newer view has, and half of it would be missing here.
    fn load_read_point(&self) -> (Loaded<View>, ReadPoint) {
        loop {
            let view = self.view.load();
            let aborts = view.aborts;
            let seqno = SeqNo(self.visible.load(Ordering::Acquire));
            if planted(Bug::ReadPointNotLookedAtAgain) || Arc::ptr_eq(&view, &self.view.load()) {
                return (view, ReadPoint { seqno, aborts });
            }
        }
    }

    /// The newest value of a key.
    pub(crate) fn get(&self, id: u32, key: &[u8]) -> Result<Option<Slice>> {
        self.health.check_read()?;
        let (view, point) = self.load_read_point();
        // The view is of the point, so nothing that was aborted later can be missing from it.
        self.get_in(&view, view_of(&view, id)?, key, point.seqno)
    }

    /// The value of a key at a read point.
    pub(crate) fn get_at(&self, id: u32, key: &[u8], point: ReadPoint) -> Result<Option<Slice>> {
        self.health.check_read()?;
        let view = self.view.load();
        let found = self.get_in(&view, view_of(&view, id)?, key, point.seqno);
        // Afterwards, for an abort could have come in between.
        self.aborts.check(point.seqno, point.aborts)?;
        found
    }

    fn get_in(
        &self,
        view: &View,
        keyspace: &KeyspaceView,
        key: &[u8],
        at: SeqNo,
    ) -> Result<Option<Slice>> {
        for memtable in keyspace.memtables() {
            if let Some((kind, value)) = memtable.get(key, at, view.dead()) {
                return Ok((kind == ValueKind::Put).then_some(value));
            }
        }
        self.get_in_tables(keyspace, key, at)
    }

    fn get_in_tables(
        &self,
        keyspace: &KeyspaceView,
        key: &[u8],
        at: SeqNo,
    ) -> Result<Option<Slice>> {
        let hash = filter::hash(key);
        let (mut asked, mut found) = (0, None);
        for run in keyspace.version.runs() {
            let Some(table) = run.table_for(key) else {
                continue;
            };
            asked += 1;
            found = table.reader()?.get(key, hash, at)?;
            if found.is_some() {
                break;
            }
        }
        self.count_get(keyspace, hash, asked);
        Ok(found
            .filter(|(trailer, _)| trailer.kind() == ValueKind::Put)
            .map(|(_, value)| value))
    }
}

/// The keyspace in a view.
pub(crate) fn view_of(view: &View, id: u32) -> Result<&Arc<KeyspaceView>> {
    view.keyspace(id).ok_or_else(|| {
        if view.closed {
            // Closed since the caller's check.
            Error::new(ErrorKind::Closed, "the store was closed")
        } else {
            Error::new(ErrorKind::NotFound, "the keyspace was dropped")
        }
    })
}

/// All sources of a keyspace, the newest first.
pub(crate) fn merge_of(keyspace: &KeyspaceView) -> Merge<Source> {
    let memtables = keyspace
        .memtables()
        .filter(|memtable| !memtable.is_empty())
        .map(|memtable| Source::Memtable(MemtableCursor::new(Arc::clone(memtable))));
    let runs = keyspace
        .version
        .runs()
        .filter(|run| !run.is_empty())
        .map(|run| Source::Run(Box::new(run.cursor())));
    Merge::new(memtables.chain(runs).collect())
}
