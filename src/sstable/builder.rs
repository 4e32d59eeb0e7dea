//! Writes a table.

use super::filter;
use super::footer::{FOOTER_LEN, Footer};
use super::frame::{Handle, Sealer};
use super::index::{PARTITION_BYTES, Partition, separate, separator_key};
use super::properties::Properties;
use super::{BuilderOptions, Summary};
use crate::block;
use crate::env::File;
use crate::error::Result;
use crate::key::{InternalKey, Trailer, ValueKind};
use crate::options::Compression;
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;

/// Frames are gathered into writes of about this length.
const WRITE_BYTES: usize = 256 << 10;

/// Writes a table from entries in strictly increasing order.
///
/// After an error the file holds any part of the table: remove it, and drop the builder.
pub(crate) struct Builder {
    output: Output,
    options: BuilderOptions,
    block: block::Builder,
    index: block::Builder,
    top_index: block::Builder,
    filter: filter::Builder,
    properties: Properties,
    last_trailer: Trailer,
    separator: Vec<u8>,
}

impl Builder {
    /// Begins a table in `file`, which is empty. `id` is random, and the manifest must know it:
    /// all checksums are bound to it.
    pub(crate) fn new(file: Arc<dyn File>, id: u64, options: BuilderOptions) -> Self {
        Self {
            output: Output {
                file,
                id,
                written: 0,
                bytes: Vec::new(),
                sealer: Sealer::new(id),
            },
            options,
            block: block::Builder::new(options.block_bytes),
            index: block::Builder::new(PARTITION_BYTES),
            top_index: block::Builder::new(PARTITION_BYTES),
            filter: filter::Builder::default(),
            properties: Properties::empty(),
            last_trailer: Trailer(0),
            separator: Vec::new(),
        }
    }

    /// Adds an entry at the end.
    ///
    /// # Panics
    ///
    /// If the entry is not behind the last one, or longer than an entry may be, or a tombstone
    /// with a value.
    pub(crate) fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<()> {
        assert!(
            key.kind() != ValueKind::Delete || value.is_empty(),
            "a tombstone has no value"
        );
        let mut is_new_key = true;
        if !self.block.is_empty() {
            let last = InternalKey {
                user: self.block.last_key(),
                trailer: self.last_trailer,
            };
            assert!(last < key, "{key:?} added behind {last:?}");
            is_new_key = last.user != key.user;
            if !self.block.has_room_for(key.user, value) {
                self.cut_block(Some(key.user))?;
            }
        }
        // Each partition's filter holds all keys of the partition, also one that goes on from the
        // partition before.
        if self.options.filter_bits > 0 && (is_new_key || self.filter.is_empty()) {
            self.filter.add(filter::hash(key.user));
        }
        self.properties.count(key, value);
        self.block.add(key, value);
        self.last_trailer = key.trailer;
        Ok(())
    }

    /// About how long the file would be if it were finished now (before compression of the block
    /// that is being filled).
    pub(crate) fn file_len_estimate(&self) -> u64 {
        let pending = self.block.estimated_len()
            + self.index.estimated_len()
            + self.filter.estimated_len(self.options.filter_bits)
            + self.top_index.estimated_len()
            + FOOTER_LEN;
        self.output.pos() + pending as u64
    }

    /// Writes all that is missing and makes the file's bytes durable; its name is the caller's
    /// matter.
    ///
    /// # Panics
    ///
    /// If no entry was added.
    pub(crate) fn finish(mut self) -> Result<Summary> {
        assert!(self.properties.entries > 0, "a table without entries");
        self.properties.largest = Slice::copy_from(self.block.last_key());
        self.cut_block(None)?;
        if !self.index.is_empty() {
            self.cut_partition()?;
        }
        let top_index = self
            .output
            .put_block(&mut self.top_index, Compression::None)?;
        let properties = &self.properties;
        let properties_handle = self
            .output
            .put_frame(Compression::None, |out| properties.put(out))?;
        let footer = Footer {
            top_index,
            properties: properties_handle,
        };
        let len = self.output.finish(footer)?;
        let properties = self.properties;
        Ok(Summary {
            len,
            entries: properties.entries,
            tombstones: properties.tombstones,
            raw_bytes: properties.raw_bytes,
            smallest: properties.smallest,
            largest: properties.largest,
            seqno_min: properties.seqno_min,
            seqno_max: properties.seqno_max,
        })
    }

    /// Writes the data block out, ahead of the user key `next` if there is one.
    fn cut_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let last = self.block.last_key();
        separate(last, next.unwrap_or(last), &mut self.separator);
        let handle = self
            .output
            .put_block(&mut self.block, self.options.compression)?;
        self.properties.data_blocks += 1;
        let mut value = Vec::with_capacity(Handle::LEN);
        handle.put(&mut value);
        self.index.add(separator_key(&self.separator), &value);
        if self.index.estimated_len() >= PARTITION_BYTES {
            self.cut_partition()?;
        }
        Ok(())
    }

    /// Writes the filter and the index of the blocks since the last partition.
    fn cut_partition(&mut self) -> Result<()> {
        let filter = if self.options.filter_bits > 0 {
            let bytes = self.filter.finish(self.options.filter_bits);
            let put = |out: &mut Vec<u8>| out.extend_from_slice(&bytes);
            Some(self.output.put_frame(Compression::None, put)?)
        } else {
            None
        };
        let index = self.output.put_block(&mut self.index, Compression::None)?;
        let value = Partition { index, filter }.encode();
        // The separator of the partition's last block, which was cut just now.
        self.top_index.add(separator_key(&self.separator), &value);
        Ok(())
    }
}

/// The file's end: frames on their way out.
struct Output {
    file: Arc<dyn File>,
    id: u64,
    /// Bytes that are in the file; `bytes` follow them.
    written: u64,
    bytes: Vec<u8>,
    sealer: Sealer,
}

impl Output {
    fn pos(&self) -> u64 {
        self.written + self.bytes.len() as u64
    }

    fn put_block(
        &mut self,
        block: &mut block::Builder,
        compression: Compression,
    ) -> Result<Handle> {
        self.put_frame(compression, |out| block.finish(out))
    }

    fn put_frame(
        &mut self,
        compression: Compression,
        put_payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Handle> {
        let (start, pos) = (self.bytes.len(), self.pos());
        put_payload(&mut self.bytes);
        let handle = self.sealer.seal(&mut self.bytes, start, pos, compression);
        if self.bytes.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(handle)
    }

    fn write(&mut self) -> Result<()> {
        self.file.write_all_at(self.written, &self.bytes)?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        self.bytes.shrink_to(2 * WRITE_BYTES);
        Ok(())
    }

    /// Returns the file's length.
    fn finish(mut self, footer: Footer) -> Result<u64> {
        let pos = self.pos();
        footer.put(&mut self.bytes, self.id, pos);
        self.write()?;
        if !planted(Bug::TableSyncSkipped) {
            self.file.sync()?;
        }
        Ok(self.written)
    }
}
