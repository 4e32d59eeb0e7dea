//! How the frames of a table's file are read and checked.

use std::path::{Path, PathBuf};

use super::footer::{FOOTER_LEN, Footer};
use super::frame::{self, Handle};
use super::index::find;
use super::properties::Properties;
use crate::block::Block;
use crate::cache::BlockCache;
use crate::env::{Env, File};
use crate::error::{Error, Result};
use crate::options::ReadMode;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;

/// Bytes that a reader in order asks for at once.
const READ_AHEAD_BYTES: u64 = 256 << 10;

/// An open table file.
pub(super) struct TableFile {
    path: PathBuf,
    file: Arc<dyn File>,
    id: u64,
    len: u64,
    map: Option<Slice>,
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
            table.map = table.file.map(len).filter(is_whole);
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

    /// The payload of a data block for a reader in no order: a slice of the map, where the file is
    /// mapped and the block not compressed, else from the cache.
    pub(super) fn data(&self, handle: Handle) -> Result<Slice> {
        let Some(frame) = self.mapped(handle) else {
            return self.cached(handle, || self.read(handle));
        };
        if frame::is_raw(&frame) {
            return self.open_frame(handle, &frame);
        }
        self.cached(handle, || self.open_frame(handle, &frame))
    }

    /// The payload of a filter or an index block for a reader in no order. They live in the cache
    /// whether the file is mapped or not: every get needs them, and finds them checked there.
    pub(super) fn partition_part(&self, handle: Handle) -> Result<Slice> {
        self.cached(handle, || self.read(handle))
    }

    fn cached(&self, handle: Handle, read: impl FnOnce() -> Result<Slice>) -> Result<Slice> {
        let cache_file = if planted(Bug::CacheKeyWithoutFile) {
            0
        } else {
            self.cache_file
        };
        if let Some(payload) = self.cache.get(cache_file, handle.pos) {
            return Ok(payload);
        }
        let payload = read()?;
        self.cache.insert(cache_file, handle.pos, payload.clone());
        Ok(payload)
    }

    /// A payload read by position, past map and cache.
    pub(super) fn read(&self, handle: Handle) -> Result<Slice> {
        let frame = self.read_bytes(handle.pos, u64::from(handle.len))?;
        self.open_frame(handle, &frame)
    }

    pub(super) fn decode_block(&self, payload: Slice, handle: Handle) -> Result<Block> {
        Block::decode(payload).map_err(|error| self.at(handle.pos, &error))
    }

    /// `error` with the place in front at which it happened.
    pub(super) fn at(&self, pos: u64, error: &Error) -> Error {
        error.context(format_args!("{} at {pos}", self.path.display()))
    }

    pub(super) fn corruption(&self, pos: u64, detail: &'static str) -> Error {
        self.at(pos, &Error::corruption(detail))
    }

    fn mapped(&self, handle: Handle) -> Option<Slice> {
        let map = self.map.as_ref()?;
        let start = usize::try_from(handle.pos).ok()?;
        let end = usize::try_from(handle.end()).ok()?;
        (end <= map.len()).then(|| map.sub(start..end))
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
