//! How the frames of a table's file are read and checked.

use std::path::{Path, PathBuf};

use super::footer::{FOOTER_LEN, Footer};
use super::frame::{self, Handle};
use super::index::{Partition, find};
use super::properties::Properties;
use crate::block::Block;
use crate::cache::{BlockCache, PREFETCHED_LEN_MAX, Pin, SharedBytes};
use crate::env::{Env, File};
use crate::error::{Error, Result};
use crate::key::Approach;
use crate::options::ReadMode;
use crate::planted::{Bug, planted};
use crate::prefetch::prefetch;
use crate::slice::Slice;
use crate::sync::{Arc, AtomicU64, Ordering};

/// Bytes that a reader in order asks for at once.
const READ_AHEAD_BYTES: u64 = 256 << 10;
/// Set in the position under which the cache keeps a partition: no file is so long, so that a data
/// block is never taken for one, whatever the handles of a damaged table say.
const OF_PARTITION: u64 = 1 << 63;

/// An open table file.
pub(super) struct TableFile {
    path: PathBuf,
    file: Arc<dyn File>,
    id: u64,
    len: u64,
    map: Option<TableMap>,
    cache: Arc<BlockCache>,
    /// The file's number in the cache.
    cache_file: u64,
}

impl TableFile {
    /// Opens the file, and maps it if it may be mapped. Its length must be `len`.
    pub(super) fn open(
        env: &dyn Env,
        path: &Path,
        id: u64,
        len: u64,
        cache: Arc<BlockCache>,
        mode: ReadMode,
    ) -> Result<Self> {
        let file = env.open(path)?;
        let cache_file = cache.new_file();
        let path = path.to_owned();
        let mut table = Self {
            path,
            file,
            id,
            len,
            map: None,
            cache,
            cache_file,
        };
        table.check_len()?;
        if mode == ReadMode::Mapped {
            // The length was checked first: a map beyond the end would kill the process.
            let is_whole = |map: &Slice| map.len() as u64 == len;
            table.map = table.file.map(len).filter(is_whole).map(TableMap::new);
        }
        Ok(table)
    }

    /// Fails unless the file is as long as it was written.
    pub(super) fn check_len(&self) -> Result<()> {
        let actual = self.file.len()?;
        if actual != self.len {
            return Err(Error::corruption(format!(
                "{}: {actual} bytes long, written with {}",
                self.path.display(),
                self.len
            )));
        }
        if self.len < FOOTER_LEN as u64 {
            return Err(Error::corruption(format!(
                "{}: {actual} bytes long, shorter than a footer",
                self.path.display()
            )));
        }
        Ok(())
    }

    /// Bytes of memory beside this value itself; the map is page cache.
    pub(super) fn memory_bytes(&self) -> usize {
        let checked = self.map.as_ref().map_or(0, |map| map.checked.len());
        checked * size_of::<AtomicU64>()
    }

    /// Where the frames end and the footer begins.
    pub(super) fn frames_len(&self) -> u64 {
        self.len - FOOTER_LEN as u64
    }

    /// Reads and checks what every use of a table begins with.
    pub(super) fn read_ends(&self) -> Result<Ends> {
        let pos = self.frames_len();
        let mut bytes = [0; FOOTER_LEN];
        self.file.read_exact_at(pos, &mut bytes)?;
        let footer = Footer::decode(&bytes, self.id, pos).map_err(|error| self.at(pos, &error))?;
        let top_index = self.decode_block(self.read(footer.top_index)?, footer.top_index)?;
        let properties = Properties::decode(&self.read(footer.properties)?)
            .map_err(|error| self.at(footer.properties.pos, &error))?;
        // Every search relies on finding a separator for the largest key.
        let last = top_index.entries() - 1;
        let reaches_end = find(&top_index, &properties.largest)
            .and_then(|index| Ok(index <= last && top_index.key_is(last, &properties.largest)?))
            .map_err(|error| self.at(footer.top_index.pos, &error))?;
        if !reaches_end {
            return Err(self.corruption(
                footer.top_index.pos,
                "the top index does not end with the largest key of the table",
            ));
        }
        Ok(Ends {
            footer,
            top_index,
            properties,
        })
    }

    /// A data block for a reader in no order: a slice of the map, where the file is mapped and the
    /// block not compressed, else from the cache. With `read_ahead` what is neither there is read
    /// together with its neighbours.
    pub(super) fn data(&self, handle: Handle, read_ahead: Option<&mut ReadAhead>) -> Result<Block> {
        if let Some(map) = self.map.as_ref().filter(|map| map.has_checked(handle)) {
            return self.reopen_block(map.payload(handle), handle);
        }
        if let Some(payload) = self.cache.get(self.cache_file(), handle.pos) {
            return self.reopen_block(Slice::from_shared(payload), handle);
        }
        let Some(map) = &self.map else {
            let payload = match read_ahead {
                Some(read_ahead) => read_ahead.read(self, handle)?,
                None => self.read(handle)?,
            };
            let payload = payload.to_shared();
            let block = self.decode_block(Slice::from_shared(Arc::clone(&payload)), handle)?;
            self.keep(handle.pos, payload);
            return Ok(block);
        };
        let frame = map.frame(handle);
        let block = self.decode_block(self.open_frame(handle, &frame)?, handle)?;
        if frame::is_raw(&frame) {
            map.set_checked(handle);
        } else {
            self.keep(handle.pos, block.bytes().to_shared());
        }
        Ok(block)
    }

    /// Has a data block's memory brought nearer that [`data`](Self::data) is about to be asked for.
    pub(super) fn approach(&self, handle: Handle, step: Approach) {
        if let Some(map) = self.map.as_ref().filter(|map| map.has_checked(handle)) {
            if step == Approach::Memory {
                map.prefetch(handle);
            }
            return;
        }
        self.cache.approach(self.cache_file(), handle.pos, step);
    }

    /// The blocks of a partition for a reader in no order: from the cache, as one, whether the file
    /// is mapped or not, for every get needs them.
    pub(super) fn partition(&self, partition: Partition) -> Result<PartitionBlocks> {
        let place = partition.index;
        if let Some(bytes) = self.cache.get(self.cache_file(), place.pos | OF_PARTITION) {
            return self.split(place, &Slice::from_shared(bytes));
        }
        // Decoded once, so that every later reader may reopen it.
        let index = self.decode_block(self.read(place)?, place)?;
        let filter = match partition.filter {
            Some(handle) => self.read(handle)?,
            None => Slice::default(),
        };
        let bytes = PartitionBlocks::join(index.bytes(), &filter);
        self.split(place, &Slice::from_shared(bytes))
    }

    fn split(&self, place: Handle, bytes: &Slice) -> Result<PartitionBlocks> {
        PartitionBlocks::split(place, bytes).map_err(|error| self.at(place.pos, &error))
    }

    /// Leaves the blocks of a partition to the cache.
    pub(super) fn keep_partition(&self, blocks: &PartitionBlocks) {
        self.keep(blocks.place.pos | OF_PARTITION, blocks.joined.to_shared());
    }

    /// Takes room for the blocks of a partition from the cache, so that they may be held as long as
    /// the file is open.
    pub(super) fn pin_partition(&self, blocks: &PartitionBlocks) -> Option<Pin> {
        let pos = blocks.place.pos | OF_PARTITION;
        self.cache.pin(self.cache_file(), pos, blocks.joined.len())
    }

    fn keep(&self, pos: u64, payload: SharedBytes) {
        self.cache.insert(self.cache_file(), pos, payload);
    }

    fn cache_file(&self) -> u64 {
        if planted(Bug::CacheKeyWithoutFile) {
            return 0;
        }
        self.cache_file
    }

    /// A payload read by position, past map and cache.
    pub(super) fn read(&self, handle: Handle) -> Result<Slice> {
        let frame = self.read_bytes(handle.pos, u64::from(handle.len))?;
        self.open_frame(handle, &frame)
    }

    pub(super) fn decode_block(&self, payload: Slice, handle: Handle) -> Result<Block> {
        Block::decode(payload).map_err(|error| self.at(handle.pos, &error))
    }

    /// A block that was decoded before.
    pub(super) fn reopen_block(&self, payload: Slice, handle: Handle) -> Result<Block> {
        Block::reopen(payload).map_err(|error| self.at(handle.pos, &error))
    }

    /// `error` with the place in front at which it happened.
    pub(super) fn at(&self, pos: u64, error: &Error) -> Error {
        error.context(format_args!("{} at {pos}", self.path.display()))
    }

    pub(super) fn corruption(&self, pos: u64, detail: &'static str) -> Error {
        self.at(pos, &Error::corruption(detail))
    }

    fn open_frame(&self, handle: Handle, frame: &Slice) -> Result<Slice> {
        frame::open(self.id, handle.pos, frame).map_err(|error| self.at(handle.pos, &error))
    }

    /// The caller has checked that the file has these bytes.
    fn read_bytes(&self, pos: u64, len: u64) -> Result<Slice> {
        assert!(pos + len <= self.len);
        let len = usize::try_from(len).map_err(|_| {
            self.at(
                pos,
                &Error::unsupported("a block too long for this machine's memory"),
            )
        })?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(pos, &mut bytes)?;
        Ok(Slice::from(bytes))
    }
}

/// Bytes of a table for which [`TableMap`] keeps one bit.
const CHECKED_GRANULE_LEN: u64 = 512;

/// A mapped table, and which of its uncompressed data blocks have passed their checksum.
///
/// A block is checked when it is first read after the table was opened, and not again: that would
/// cost a get more than all the rest of it.
struct TableMap {
    bytes: Slice,
    /// A bit for every granule: set where a checked block begins. Blocks shorter than a granule,
    /// of which two could begin in one, are checked at every read; that costs next to nothing.
    checked: Box<[AtomicU64]>,
}

impl TableMap {
    fn new(bytes: Slice) -> Self {
        let granules = (bytes.len() as u64).div_ceil(CHECKED_GRANULE_LEN);
        Self {
            bytes,
            checked: (0..granules.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }

    /// The word and the bit of a block that is long enough to have its own.
    fn checked_bit(&self, handle: Handle) -> Option<(&AtomicU64, u64)> {
        if u64::from(handle.len) < CHECKED_GRANULE_LEN {
            return None;
        }
        let granule = handle.pos / CHECKED_GRANULE_LEN;
        let word = self.checked.get(usize::try_from(granule / 64).ok()?)?;
        Some((word, 1 << (granule % 64)))
    }

    fn has_checked(&self, handle: Handle) -> bool {
        // Relaxed, here and below: the bit tells of a file that never changes.
        self.checked_bit(handle)
            .is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    fn set_checked(&self, handle: Handle) {
        if let Some((word, bit)) = self.checked_bit(handle) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn frame(&self, handle: Handle) -> Slice {
        self.part(handle.pos, handle.end())
    }

    fn prefetch(&self, handle: Handle) {
        let place = |pos| usize::try_from(pos).expect("within the map");
        let bytes = &self.bytes[place(handle.pos)..place(handle.end())];
        prefetch(&bytes[..bytes.len().min(PREFETCHED_LEN_MAX)]);
    }

    /// The payload of a frame that was checked before, and so is known to be uncompressed.
    fn payload(&self, handle: Handle) -> Slice {
        self.part(handle.pos, frame::raw_payload_end(handle))
    }

    /// Handles are taken only if they lie within the file.
    fn part(&self, start: u64, end: u64) -> Slice {
        let place = |pos| usize::try_from(pos).expect("within the map");
        self.bytes.sub(place(start)..place(end))
    }
}

/// The blocks of a partition that lead to its data.
pub(super) struct PartitionBlocks {
    /// Where the index block is.
    pub(super) place: Handle,
    pub(super) index: Block,
    /// Empty, and so excluding nothing, where there is none.
    pub(super) filter: Slice,
    /// As they lie in the cache: index block, filter, and the length of the index block.
    joined: Slice,
}

impl PartitionBlocks {
    const LEN_LEN: usize = 4;

    fn join(index: &[u8], filter: &[u8]) -> SharedBytes {
        let index_len = u32::try_from(index.len()).expect("a block is shorter than 4 GiB");
        Arc::from([index, filter, &index_len.to_le_bytes()].concat())
    }

    /// Takes apart what was joined.
    fn split(place: Handle, joined: &Slice) -> Result<Self> {
        let (rest, index_len) = joined
            .split_last_chunk::<{ Self::LEN_LEN }>()
            .expect("joined with its length");
        let index_len = usize::try_from(u32::from_le_bytes(*index_len)).expect("within memory");
        Ok(Self {
            place,
            index: Block::reopen(joined.sub(0..index_len))?,
            filter: joined.sub(index_len..rest.len()),
            joined: joined.clone(),
        })
    }
}

/// What a table's footer leads to.
pub(super) struct Ends {
    pub(super) footer: Footer,
    pub(super) top_index: Block,
    pub(super) properties: Properties,
}

/// Reads neighbouring frames many at a time, in either direction.
#[derive(Default)]
pub(super) struct ReadAhead {
    /// Where `chunk` begins in the file.
    pos: u64,
    chunk: Slice,
}

impl ReadAhead {
    /// The payload at `handle`; it shares the chunk's memory if it is not compressed.
    pub(super) fn read(&mut self, file: &TableFile, handle: Handle) -> Result<Slice> {
        if handle.pos < self.pos || handle.end() > self.end() {
            self.fill(file, handle)?;
        }
        let start = usize::try_from(handle.pos - self.pos).expect("within the chunk");
        let end = usize::try_from(handle.end() - self.pos).expect("within the chunk");
        file.open_frame(handle, &self.chunk.sub(start..end))
    }

    fn end(&self) -> u64 {
        self.pos + self.chunk.len() as u64
    }

    fn fill(&mut self, file: &TableFile, handle: Handle) -> Result<()> {
        // Just in front of the chunk: the reader goes backwards.
        let is_backwards = handle.pos < self.pos && self.pos - handle.pos <= READ_AHEAD_BYTES;
        let (pos, end) = if is_backwards {
            (
                handle
                    .pos
                    .min(handle.end().saturating_sub(READ_AHEAD_BYTES)),
                handle.end(),
            )
        } else {
            (
                handle.pos,
                handle
                    .end()
                    .max(handle.pos + READ_AHEAD_BYTES)
                    .min(file.len),
            )
        };
        self.chunk = Slice::default();
        self.pos = pos;
        self.chunk = file.read_bytes(pos, end - pos)?;
        Ok(())
    }
}
