//! A walk over a memtable, in either direction, while it is written.

use std::ops::Bound;

use crossbeam_skiplist::map::Entry;

use crate::arena::ArenaSlice;
use crate::error::Result;
use crate::key::{Cursor, InternalKey};
use crate::sync::Arc;

use super::{MapKey, Memtable};

type MapEntry = Entry<'static, MapKey, ArenaSlice>;

/// A cursor that keeps its memtable alive.
pub(crate) struct MemtableCursor {
    /// Borrows from `memtable`; declared first, so dropped first.
    entry: Option<MapEntry>,
    memtable: Arc<Memtable>,
}

impl MemtableCursor {
    pub(crate) fn new(memtable: Arc<Memtable>) -> Self {
        Self {
            entry: None,
            memtable,
        }
    }

    fn place(&mut self, bound: Bound<&MapKey>, forward: bool) {
        let entry = if forward {
            self.memtable.map.lower_bound(bound)
        } else {
            self.memtable.map.upper_bound(bound)
        };
        // SAFETY: the entry borrows from the map in `self.memtable`, which the `Arc` keeps in
        // place for longer than `self.entry` lives; only the lifetime in the type changes.
        self.entry = unsafe {
            std::mem::transmute::<Option<Entry<'_, MapKey, ArenaSlice>>, Option<MapEntry>>(entry)
        };
    }

    fn entry(&self) -> &MapEntry {
        self.entry.as_ref().expect("the cursor is valid")
    }
}

impl Cursor for MemtableCursor {
    fn is_valid(&self) -> bool {
        self.entry.is_some()
    }

    fn key(&self) -> InternalKey<'_> {
        let key = self.entry().key();
        InternalKey {
            user: key.user(),
            trailer: key.trailer,
        }
    }

    fn value(&self) -> &[u8] {
        // SAFETY: the arena lives as long as `self.memtable`, so longer than the borrow of `self`.
        unsafe { self.entry().value().get() }
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place(Bound::Unbounded, true);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(Bound::Unbounded, false);
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(Bound::Included(&MapKey::borrow(target)), true);
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(Bound::Included(&MapKey::borrow(target)), false);
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.entry = self.entry().next();
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.entry = self.entry().prev();
        Ok(())
    }
}
