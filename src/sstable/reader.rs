//! Finds single keys in a table, and opens cursors over it.

use std::ops::Deref;
use std::path::Path;

use super::file::{Ends, PartitionBlocks, TableFile};
use super::frame::Handle;
use super::index::{Partition, decode_data_handle, find};
use super::properties::Properties;
use super::{Access, Cursor, filter};
use crate::block::Block;
use crate::cache::{BlockCache, Pin};
use crate::env::Env;
use crate::error::Result;
use crate::key::{InternalKey, SeqNo, Trailer};
use crate::options::ReadMode;
use crate::slice::Slice;
use crate::sync::{Arc, OnceLock};

/// An open table. Its top index and properties stay in memory; all else comes when it is needed.
///
/// Every byte that an answer rests on has passed its checksum. Errors name the file and the
/// position.
pub(crate) struct Reader {
    pub(super) file: TableFile,
    top_index: Block,
    top_index_pos: u64,
    properties: Properties,
    /// Of each partition, its blocks once they were needed and the cache had room for them to be
    /// held.
    held: Box<[OnceLock<Box<Held>>]>,
}

/// Blocks of a partition that stay as long as the table is open.
struct Held {
    blocks: PartitionBlocks,
    _room: Pin,
}

/// Blocks of a partition, held or found in the cache.
pub(super) enum Blocks<'a> {
    Held(&'a PartitionBlocks),
    Cached(PartitionBlocks),
}

impl Deref for Blocks<'_> {
    type Target = PartitionBlocks;

    fn deref(&self) -> &PartitionBlocks {
        match self {
            Self::Held(blocks) => blocks,
            Self::Cached(blocks) => blocks,
        }
    }
}

/// Where a search within one partition or block ended.
enum Found {
    Version(Trailer, Slice),
    Absent,
    /// Not so far, but further versions of the key may follow.
    GoOn,
}

impl Reader {
    /// Opens the table at `path`, of which the manifest says that it is `id` and `len` bytes long.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Io` from the environment; `Corruption` if the file is not that table or its
    /// ends are damaged; `Unsupported` if it is of a newer format.
    pub(crate) fn open(
        env: &dyn Env,
        path: &Path,
        id: u64,
        len: u64,
        cache: Arc<BlockCache>,
        mode: ReadMode,
    ) -> Result<Self> {
        let file = TableFile::open(env, path, id, len, cache, mode)?;
        let Ends {
            footer,
            top_index,
            properties,
        } = file.read_ends()?;
        let held = std::iter::repeat_with(OnceLock::new);
        Ok(Self {
            file,
            held: held.take(top_index.entries()).collect(),
            top_index,
            top_index_pos: footer.top_index.pos,
            properties,
        })
    }

    /// The newest version of `user_key` that a reader at `seqno` may see, a tombstone included.
    /// `hash` is the key's [`filter::hash`].
    pub(crate) fn get(
        &self,
        user_key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Option<(Trailer, Slice)>> {
        for number in self.find_partition(user_key)?..self.partitions() {
            match self.get_in_partition(number, user_key, hash, seqno)? {
                Found::Version(trailer, value) => return Ok(Some((trailer, value))),
                Found::Absent => return Ok(None),
                Found::GoOn => {}
            }
        }
        Ok(None)
    }

    fn get_in_partition(
        &self,
        number: usize,
        user_key: &[u8],
        hash: u64,
        seqno: SeqNo,
    ) -> Result<Found> {
        let blocks = self.blocks(number)?;
        if filter::may_contain(&blocks.filter, hash) {
            let (index, place) = (&blocks.index, blocks.place);
            for block_number in self.find_block(index, place, user_key)?..index.entries() {
                let handle = self.data_handle(index, place, block_number)?;
                match self.get_in_block(handle, user_key, seqno)? {
                    Found::GoOn => {}
                    found => return Ok(found),
                }
                let goes_on = index.key_is(block_number, user_key);
                if !goes_on.map_err(|error| self.file.at(place.pos, &error))? {
                    return Ok(Found::Absent);
                }
            }
        }
        // Only a separator equal to the key lets versions of it follow.
        let goes_on = self
            .top_index
            .key_is(number, user_key)
            .map_err(|e| self.at_top(&e))?;
        Ok(if goes_on { Found::GoOn } else { Found::Absent })
    }

    fn get_in_block(&self, handle: Handle, user_key: &[u8], seqno: SeqNo) -> Result<Found> {
        let block = self.file.data(handle, None)?;
        let at_block = |error: crate::Error| self.file.at(handle.pos, &error);
        let target = InternalKey::seek_to(user_key, seqno);
        let index = block.lower_bound(target).map_err(at_block)?;
        if index == block.entries() {
            return Ok(Found::GoOn);
        }
        Ok(match block.version_at(index, user_key).map_err(at_block)? {
            Some((trailer, value)) => Found::Version(trailer, block.into_part(value)),
            None => Found::Absent,
        })
    }

    /// A cursor over all entries; invalid until it is placed.
    pub(crate) fn cursor(self: &Arc<Self>, access: Access) -> Cursor {
        Cursor::new(Arc::clone(self), access)
    }

    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Bytes that stay in memory as long as the table is open.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.file.memory_bytes()
            + size_of_val(&*self.held)
            + self.top_index.bytes().len()
            + self.properties.smallest.len()
            + self.properties.largest.len()
    }

    pub(super) fn partitions(&self) -> usize {
        self.top_index.entries()
    }

    /// Number of the first partition that may hold `user_key`.
    pub(super) fn find_partition(&self, user_key: &[u8]) -> Result<usize> {
        find(&self.top_index, user_key).map_err(|error| self.at_top(&error))
    }

    pub(super) fn partition(&self, number: usize) -> Result<Partition> {
        let range = self
            .top_index
            .value_range(number)
            .map_err(|error| self.at_top(&error))?;
        Partition::decode(&self.top_index.bytes()[range], self.file.frames_len())
            .map_err(|error| self.at_top(&error))
    }

    /// The blocks of a partition, for a reader in no order.
    pub(super) fn blocks(&self, number: usize) -> Result<Blocks<'_>> {
        let held = &self.held[number];
        if let Some(held) = held.get() {
            return Ok(Blocks::Held(&held.blocks));
        }
        let blocks = self.file.partition(self.partition(number)?)?;
        let Some(room) = self.file.pin_partition(&blocks) else {
            self.file.keep_partition(&blocks);
            return Ok(Blocks::Cached(blocks));
        };
        // Of two that come at once, one is held and the other's room is given back.
        let held = held.get_or_init(|| {
            Box::new(Held {
                blocks,
                _room: room,
            })
        });
        Ok(Blocks::Held(&held.blocks))
    }

    /// Number of the first data block that may hold `user_key`, in the index block at `place` that
    /// the top index has named for it.
    pub(super) fn find_block(
        &self,
        index: &Block,
        place: Handle,
        user_key: &[u8],
    ) -> Result<usize> {
        let number = find(index, user_key).map_err(|error| self.file.at(place.pos, &error))?;
        if number == index.entries() {
            return Err(self.file.corruption(
                place.pos,
                "the index block ends before the separator that the top index gives it",
            ));
        }
        Ok(number)
    }

    /// The handle of a data block in the index block at `place`.
    pub(super) fn data_handle(
        &self,
        index: &Block,
        place: Handle,
        number: usize,
    ) -> Result<Handle> {
        index
            .value_range(number)
            .and_then(|range| decode_data_handle(&index.bytes()[range], self.file.frames_len()))
            .map_err(|error| self.file.at(place.pos, &error))
    }

    fn at_top(&self, error: &crate::Error) -> crate::Error {
        self.file
            .at(self.top_index_pos, &error.context("top index"))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.properties.fmt(f)
    }
}
