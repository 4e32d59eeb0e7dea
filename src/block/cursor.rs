//! Walks the entries of a block.

use std::ops::Range;

use super::{Block, implied_trailer};
use crate::error::Result;
use crate::key::{self, InternalKey, Trailer};
use crate::slice::Slice;

/// A position in a block.
pub(crate) struct Cursor {
    block: Block,
    /// The entry's place; the number of entries while the cursor is invalid.
    index: usize,
    key: Vec<u8>,
    trailer: Trailer,
    value: Range<usize>,
}

impl Cursor {
    pub(crate) fn new(block: Block) -> Self {
        let index = block.entries();
        Self {
            block,
            index,
            key: Vec::new(),
            trailer: implied_trailer(),
            value: 0..0,
        }
    }

    /// True on the first entry.
    pub(crate) fn is_first(&self) -> bool {
        self.index == 0
    }

    /// Goes over to another block, and is invalid until placed there. Keeps its memory.
    pub(crate) fn reset(&mut self, block: Block) {
        self.index = block.entries();
        self.block = block;
    }

    /// Stands on the entry `index`, or is invalid if there is none.
    #[inline]
    fn place(&mut self, index: usize) -> Result<()> {
        self.index = self.block.entries();
        if index >= self.block.entries() {
            return Ok(());
        }
        let entry = self.block.entry(index)?;
        self.block.assemble_key(&entry, &mut self.key);
        self.trailer = entry.trailer;
        self.value = entry.value;
        self.index = index;
        Ok(())
    }

    fn invalidate(&mut self) {
        self.index = self.block.entries();
    }
}

impl key::Cursor for Cursor {
    #[inline]
    fn is_valid(&self) -> bool {
        self.index < self.block.entries()
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        assert!(self.is_valid());
        InternalKey {
            user: &self.key,
            trailer: self.trailer,
        }
    }

    #[inline]
    fn value(&self) -> &[u8] {
        assert!(self.is_valid());
        &self.block.bytes()[self.value.clone()]
    }

    fn value_slice(&self) -> Slice {
        assert!(self.is_valid());
        self.block.bytes().sub(self.value.clone())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(self.block.entries() - 1)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.invalidate();
        let index = self.block.lower_bound(target)?;
        self.place(index)
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.seek(target)?;
        if !self.is_valid() {
            return self.seek_to_last();
        }
        if self.key() == target {
            Ok(())
        } else {
            self.prev()
        }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        assert!(self.is_valid());
        self.place(self.index + 1)
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        assert!(self.is_valid());
        if let Some(index) = self.index.checked_sub(1) {
            return self.place(index);
        }
        self.invalidate();
        Ok(())
    }
}
