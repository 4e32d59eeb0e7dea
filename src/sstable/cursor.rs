//! Walks a table.

use super::Access;
use super::file::ReadAhead;
use super::frame::Handle;
use super::reader::Reader;
use crate::block::{self, Block, Repeats};
use crate::error::Result;
use crate::key::{self, Approach, InternalKey, Trailer};
use crate::slice::Slice;
use crate::sync::Arc;

/// Neighbouring blocks in a row after which a walk is taken to go on.
const STREAK_OF_WALKS: u32 = 2;

/// A position in a table.
///
/// Versions of one user key may lie in several blocks, and those in several partitions, so every
/// search goes on where a block ends before its target.
pub(crate) struct Cursor {
    reader: Arc<Reader>,
    access: Access,
    read_ahead: ReadAhead,
    /// Neighbouring blocks that were loaded one after another.
    streak: u32,
    /// The index block of the partition that the cursor is in.
    index: Option<OpenIndex>,
    /// Number of the data block within the partition.
    block: usize,
    /// The data block `block`, once one was read.
    data: Option<block::Cursor>,
    /// False while `data` is not the block that the fields above name.
    is_loaded: bool,
    /// For the check of order from block to block.
    border: Vec<u8>,
    /// The key that was approached, and the partition and the block that a seek to it begins in.
    aim: Vec<u8>,
    aimed: Option<(usize, usize)>,
}

struct OpenIndex {
    /// Number of the partition.
    partition: usize,
    place: Handle,
    block: Block,
}

/// The way to the neighbouring block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

impl Cursor {
    pub(super) fn new(reader: Arc<Reader>, access: Access) -> Self {
        Self {
            reader,
            access,
            read_ahead: ReadAhead::default(),
            streak: 0,
            index: None,
            block: 0,
            data: None,
            is_loaded: false,
            border: Vec::new(),
            aim: Vec::new(),
            aimed: None,
        }
    }

    /// The data block's cursor, which the caller has loaded.
    #[inline]
    fn data(&self) -> &block::Cursor {
        self.data
            .as_ref()
            .expect("a cursor that is valid has a block")
    }

    #[inline]
    fn data_mut(&mut self) -> &mut block::Cursor {
        self.data
            .as_mut()
            .expect("a cursor that is valid has a block")
    }

    /// Runs a move of the cursor; an error leaves it invalid and without anything loaded.
    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let moved = step(self);
        if moved.is_err() {
            self.is_loaded = false;
            self.index = None;
        }
        moved
    }

    /// Puts the place in front of an error of the block that is loaded.
    fn in_block(&mut self, step: impl FnOnce(&mut block::Cursor) -> Result<()>) -> Result<()> {
        step(self.data_mut()).map_err(|error| match self.handle() {
            Ok(handle) => self.reader.file.at(handle.pos, &error),
            Err(_) => error,
        })
    }

    fn open_index(&self) -> &OpenIndex {
        self.index
            .as_ref()
            .expect("a block is loaded behind its index")
    }

    /// Where the data block is that the cursor is in.
    fn handle(&self) -> Result<Handle> {
        let index = self.open_index();
        self.reader
            .data_handle(&index.block, index.place, self.block)
    }

    fn load_partition(&mut self, number: usize) -> Result<()> {
        if self
            .index
            .as_ref()
            .is_some_and(|index| index.partition == number)
        {
            return Ok(());
        }
        self.is_loaded = false;
        self.index = None;
        let file = &self.reader.file;
        // Index blocks lie behind their data: read on their own, they leave the read-ahead alone.
        let (place, block) = if self.access == Access::Positional {
            let place = self.reader.partition(number)?.index;
            (place, file.decode_block(file.read(place)?, place)?)
        } else {
            let blocks = self.reader.blocks(number)?;
            (blocks.place, blocks.index.clone())
        };
        self.index = Some(OpenIndex {
            partition: number,
            place,
            block,
        });
        Ok(())
    }

    /// Loads a data block of the partition that is loaded.
    fn load_block(&mut self, number: usize) -> Result<()> {
        if self.is_loaded && self.block == number {
            return Ok(());
        }
        self.is_loaded = false;
        self.streak = match self.block.abs_diff(number) {
            1 => self.streak.saturating_add(1),
            _ => 0,
        };
        let left = std::mem::replace(&mut self.block, number);
        let handle = self.handle()?;
        let file = &self.reader.file;
        let block = match self.access {
            Access::Positional => {
                let payload = self.read_ahead.read(file, handle)?;
                let block = file.decode_block(payload, handle)?;
                block
                    .check(Repeats::Forbidden)
                    .map_err(|error| file.at(handle.pos, &error))?;
                block
            }
            Access::Cached if self.streak >= STREAK_OF_WALKS => {
                file.data(handle, Some(&mut self.read_ahead))?
            }
            Access::Cached => file.data(handle, None)?,
        };
        match &mut self.data {
            Some(data) => data.reset(block),
            None => self.data = Some(block::Cursor::new(block)),
        }
        self.is_loaded = true;
        if self.access == Access::Cached && self.streak >= STREAK_OF_WALKS {
            self.approach_behind(left)?;
        }
        Ok(())
    }

    /// Has the next two blocks of a walk brought nearer that came from the block `left`.
    fn approach_behind(&self, left: usize) -> Result<()> {
        let index = self.open_index();
        for (distance, step) in [(1, Approach::Memory), (2, Approach::Place)] {
            let number = if self.block < left {
                self.block.checked_sub(distance)
            } else {
                Some(self.block + distance)
            };
            if let Some(number) = number.filter(|number| *number < index.block.entries()) {
                let handle = self.reader.data_handle(&index.block, index.place, number)?;
                self.reader.file.approach(handle, step);
            }
        }
        Ok(())
    }

    /// Goes to the neighbouring block without placing the cursor in it; false, and invalid, where
    /// there is none.
    fn step_block(&mut self, direction: Direction) -> Result<bool> {
        let index = self.open_index();
        let (partition, blocks) = (index.partition, index.block.entries());
        let border = self.take_border(direction)?;
        match direction {
            Direction::Forward if self.block + 1 < blocks => self.load_block(self.block + 1)?,
            Direction::Forward if partition + 1 < self.reader.partitions() => {
                self.load_partition(partition + 1)?;
                self.load_block(0)?;
            }
            Direction::Backward if self.block > 0 => self.load_block(self.block - 1)?,
            Direction::Backward if partition > 0 => {
                self.load_partition(partition - 1)?;
                let blocks = self.open_index().block.entries();
                self.load_block(blocks - 1)?;
            }
            _ => {
                self.is_loaded = false;
                return Ok(false);
            }
        }
        if let Some(trailer) = border {
            self.check_border(direction, trailer)?;
        }
        Ok(true)
    }

    /// For positional access: keeps the key at the end of the block that is left, and returns its
    /// trailer.
    fn take_border(&mut self, direction: Direction) -> Result<Option<Trailer>> {
        if self.access == Access::Cached {
            return Ok(None);
        }
        self.in_block(|data| match direction {
            Direction::Forward => key::Cursor::seek_to_last(data),
            Direction::Backward => key::Cursor::seek_to_first(data),
        })?;
        let mut border = std::mem::take(&mut self.border);
        let last = key::Cursor::key(self.data());
        border.clear();
        border.extend_from_slice(last.user);
        let trailer = last.trailer;
        self.border = border;
        Ok(Some(trailer))
    }

    /// Checks the order of the key kept and the first one of the block that was entered.
    fn check_border(&mut self, direction: Direction, trailer: Trailer) -> Result<()> {
        self.in_block(|data| match direction {
            Direction::Forward => key::Cursor::seek_to_first(data),
            Direction::Backward => key::Cursor::seek_to_last(data),
        })?;
        let left = InternalKey {
            user: &self.border,
            trailer,
        };
        let entered = key::Cursor::key(self.data());
        let in_order = match direction {
            Direction::Forward => left < entered,
            Direction::Backward => entered < left,
        };
        if in_order {
            return Ok(());
        }
        let handle = self.handle()?;
        Err(self
            .reader
            .file
            .corruption(handle.pos, "the block is out of order with its neighbour"))
    }

    /// Loads the partition that a seek to `user` begins in, and finds the block there; `None`
    /// behind the last key.
    fn find(&mut self, user: &[u8]) -> Result<Option<usize>> {
        if let Some((partition, block)) = self.aimed
            && self.aim == user
        {
            self.load_partition(partition)?;
            return Ok(Some(block));
        }
        let partition = self.reader.find_partition(user)?;
        if partition == self.reader.partitions() {
            return Ok(None);
        }
        self.load_partition(partition)?;
        let index = self.open_index();
        let block = self.reader.find_block(&index.block, index.place, user)?;
        Ok(Some(block))
    }

    fn approach_in_cache(&mut self, user: &[u8], step: Approach) -> Result<()> {
        let Some(block) = self.find(user)? else {
            return Ok(());
        };
        if step == Approach::Place {
            self.aim.clear();
            self.aim.extend_from_slice(user);
            self.aimed = Some((self.open_index().partition, block));
        }
        if self.is_loaded && self.block == block {
            return Ok(());
        }
        let index = self.open_index();
        let handle = self.reader.data_handle(&index.block, index.place, block)?;
        self.reader.file.approach(handle, step);
        Ok(())
    }

    fn seek_forward(&mut self, target: InternalKey<'_>) -> Result<()> {
        let Some(block) = self.find(target.user)? else {
            self.is_loaded = false;
            return Ok(());
        };
        self.load_block(block)?;
        self.in_block(|data| key::Cursor::seek(data, target))?;
        while !key::Cursor::is_valid(self.data()) && self.step_block(Direction::Forward)? {
            self.in_block(|data| key::Cursor::seek(data, target))?;
        }
        Ok(())
    }
}

impl key::Cursor for Cursor {
    #[inline]
    fn is_valid(&self) -> bool {
        self.is_loaded && self.data.as_ref().is_some_and(key::Cursor::is_valid)
    }

    #[inline]
    fn key(&self) -> InternalKey<'_> {
        assert!(self.is_valid());
        self.data().key()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        assert!(self.is_valid());
        self.data().value()
    }

    fn value_slice(&self) -> Slice {
        assert!(self.is_valid());
        self.data().value_slice()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.guarded(|cursor| {
            cursor.load_partition(0)?;
            cursor.load_block(0)?;
            cursor.in_block(key::Cursor::seek_to_first)
        })
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.guarded(|cursor| {
            cursor.load_partition(cursor.reader.partitions() - 1)?;
            let blocks = cursor.open_index().block.entries();
            cursor.load_block(blocks - 1)?;
            cursor.in_block(key::Cursor::seek_to_last)
        })
    }

    fn approach(&mut self, target: InternalKey<'_>, step: Approach) -> Result<()> {
        match self.access {
            Access::Cached => self.guarded(|cursor| cursor.approach_in_cache(target.user, step)),
            Access::Positional => Ok(()),
        }
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.guarded(|cursor| cursor.seek_forward(target))
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
        let moved = key::Cursor::next(self.data_mut());
        if moved.is_ok() && key::Cursor::is_valid(self.data()) {
            return Ok(());
        }
        self.guarded(|cursor| {
            cursor.in_block(|_| moved)?;
            if !key::Cursor::is_valid(cursor.data()) && cursor.step_block(Direction::Forward)? {
                cursor.in_block(key::Cursor::seek_to_first)?;
            }
            Ok(())
        })
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        assert!(self.is_valid());
        let moved = key::Cursor::prev(self.data_mut());
        if moved.is_ok() && key::Cursor::is_valid(self.data()) {
            return Ok(());
        }
        self.guarded(|cursor| {
            cursor.in_block(|_| moved)?;
            if !key::Cursor::is_valid(cursor.data()) && cursor.step_block(Direction::Backward)? {
                cursor.in_block(key::Cursor::seek_to_last)?;
            }
            Ok(())
        })
    }
}
