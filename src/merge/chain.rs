//! Sources that follow one another, as one.

use crate::error::Result;
use crate::key::{Approach, Cursor, InternalKey};
use crate::slice::Slice;

/// Sorted, disjoint sources in key order that are opened when they are reached: the tables of a
/// run.
pub(crate) trait Links {
    type Cursor: Cursor;

    fn len(&self) -> usize;

    /// The last user key of source `index`, inclusive.
    fn largest(&self, index: usize) -> &[u8];

    /// The first user key of source `index`, inclusive.
    fn smallest(&self, index: usize) -> &[u8];

    fn open(&self, index: usize) -> Result<Self::Cursor>;
}

/// The sources of some [`Links`] behind each other, one open at a time.
pub(crate) struct Chain<L: Links> {
    links: L,
    /// The open source and its index.
    open: Option<(usize, L::Cursor)>,
}

impl<L: Links> Chain<L> {
    pub(crate) fn new(links: L) -> Self {
        Self { links, open: None }
    }

    /// The cursor of source `index`, opened if it is not.
    fn at(&mut self, index: usize) -> Result<&mut L::Cursor> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            self.open = None;
            self.open = Some((index, self.links.open(index)?));
        }
        Ok(self.current_mut())
    }

    fn current(&self) -> &L::Cursor {
        let (_, cursor) = self
            .open
            .as_ref()
            .expect("a chain was read without being placed");
        cursor
    }

    fn current_mut(&mut self) -> &mut L::Cursor {
        let (_, cursor) = self
            .open
            .as_mut()
            .expect("a chain moved without being placed");
        cursor
    }

    /// Goes on to the next sources where the open one has ended.
    fn skip_ended_forward(&mut self) -> Result<()> {
        while let Some((index, cursor)) = &self.open
            && !cursor.is_valid()
        {
            let next = index + 1;
            if next == self.links.len() {
                self.open = None;
                return Ok(());
            }
            self.at(next)?.seek_to_first()?;
        }
        Ok(())
    }

    fn skip_ended_backward(&mut self) -> Result<()> {
        while let Some((index, cursor)) = &self.open
            && !cursor.is_valid()
        {
            let Some(prev) = index.checked_sub(1) else {
                self.open = None;
                return Ok(());
            };
            self.at(prev)?.seek_to_last()?;
        }
        Ok(())
    }

    /// Makes the chain invalid where a source failed, so that nothing reads on behind the gap.
    fn close_on_error(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.open = None;
        }
        result
    }

    /// The source that a seek to `user` begins in.
    fn find(&self, user: &[u8]) -> Option<usize> {
        let len = self.links.len();
        let index = partition_point(len, |index| self.links.largest(index) < user);
        (index < len).then_some(index)
    }

    fn try_approach(&mut self, target: InternalKey<'_>, step: Approach) -> Result<()> {
        match self.find(target.user) {
            Some(index) => self.at(index)?.approach(target, step),
            None => Ok(()),
        }
    }

    fn try_seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let Some(index) = self.find(target.user) else {
            self.open = None;
            return Ok(());
        };
        self.at(index)?.seek(target)?;
        self.skip_ended_forward()
    }

    fn try_seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let behind = partition_point(self.links.len(), |i| self.links.smallest(i) <= target.user);
        let Some(index) = behind.checked_sub(1) else {
            self.open = None;
            return Ok(());
        };
        self.at(index)?.seek_for_prev(target)?;
        self.skip_ended_backward()
    }

    fn try_first(&mut self) -> Result<()> {
        if self.links.len() == 0 {
            return Ok(());
        }
        self.at(0)?.seek_to_first()?;
        self.skip_ended_forward()
    }

    fn try_last(&mut self) -> Result<()> {
        let Some(last) = self.links.len().checked_sub(1) else {
            return Ok(());
        };
        self.at(last)?.seek_to_last()?;
        self.skip_ended_backward()
    }

    fn try_next(&mut self) -> Result<()> {
        self.current_mut().next()?;
        self.skip_ended_forward()
    }

    fn try_prev(&mut self) -> Result<()> {
        self.current_mut().prev()?;
        self.skip_ended_backward()
    }
}

/// The first index in `0..len` for which `is_before` is false; it must be true up to there.
fn partition_point(len: usize, is_before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = usize::midpoint(low, high);
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl<L: Links> Cursor for Chain<L> {
    fn is_valid(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|(_, cursor)| cursor.is_valid())
    }

    fn key(&self) -> InternalKey<'_> {
        self.current().key()
    }

    fn value(&self) -> &[u8] {
        self.current().value()
    }

    fn value_slice(&self) -> Slice {
        self.current().value_slice()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        let result = self.try_first();
        self.close_on_error(result)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let result = self.try_last();
        self.close_on_error(result)
    }

    fn approach(&mut self, target: InternalKey<'_>, step: Approach) -> Result<()> {
        let result = self.try_approach(target, step);
        self.close_on_error(result)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let result = self.try_seek(target);
        self.close_on_error(result)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        let result = self.try_seek_for_prev(target);
        self.close_on_error(result)
    }

    fn next(&mut self) -> Result<()> {
        let result = self.try_next();
        self.close_on_error(result)
    }

    fn prev(&mut self) -> Result<()> {
        let result = self.try_prev();
        self.close_on_error(result)
    }
}
