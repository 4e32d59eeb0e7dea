//! A walk over a memtable, in either direction, while it is written.

use crate::error::Result;
use crate::key::{Cursor, InternalKey, Trailer};
use crate::sync::Arc;

use super::Memtable;
use super::index::Index;
use super::place::Place;
use super::record::Record;

/// A cursor that keeps its memtable alive.
pub(crate) struct MemtableCursor {
    /// Borrows from `memtable`; declared first, so dropped first.
    at: Option<(Place<'static>, Record<'static>)>,
    memtable: Arc<Memtable>,
}

impl MemtableCursor {
    pub(crate) fn new(memtable: Arc<Memtable>) -> Self {
        Self { at: None, memtable }
    }

    fn index(&self) -> &'static Index {
        let index = std::ptr::from_ref(&self.memtable.index);
        // SAFETY: the index is in `self.memtable`, which the `Arc` keeps in place for longer than
        // `self.at` lives, the only place where the borrow goes.
        unsafe { &*index }
    }

    fn place(&mut self, place: Option<Place<'static>>) {
        self.at = place.map(|place| (place, place.record()));
    }

    fn record(&self) -> Record<'_> {
        self.at.as_ref().expect("the cursor is valid").1
    }

    fn step(&mut self, step: impl FnOnce(&mut Place<'static>, &'static Index) -> bool) {
        let index = self.index();
        let (place, record) = self.at.as_mut().expect("the cursor is valid");
        if step(place, index) {
            *record = place.record();
        } else {
            self.at = None;
        }
    }
}

impl Cursor for MemtableCursor {
    fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    fn key(&self) -> InternalKey<'_> {
        self.record().key()
    }

    fn value(&self) -> &[u8] {
        self.record().value()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        let before_all = InternalKey {
            user: &[],
            trailer: Trailer(u64::MAX),
        };
        self.seek(before_all)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(self.index().last());
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(self.index().first_at(target));
        Ok(())
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(self.index().last_at(target));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.step(Place::advance);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.step(Place::retreat);
        Ok(())
    }
}
