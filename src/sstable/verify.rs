//! Checks all of a table, by position, against everything that it tells of itself.

use super::file::{Ends, ReadAhead, TableFile};
use super::filter;
use super::frame::Handle;
use super::properties::Properties;
use super::reader::Reader;
use crate::block::{self, Block, Repeats};
use crate::error::{Error, Result};
use crate::key::{Cursor, InternalKey, Trailer};
use crate::slice::Slice;

impl Reader {
    /// Reads the whole file and checks that every byte has passed a checksum, that blocks follow
    /// each other without gaps, that entries are in order and are found by index and filter, and
    /// that their counts are those of the properties. Returns the number of entries.
    ///
    /// # Errors
    ///
    /// `Corruption` for the first thing that is wrong, with its place; `Io` if a read fails.
    pub(crate) fn verify(&self) -> Result<u64> {
        self.file.check_len()?;
        let ends = self.file.read_ends()?;
        if ends.properties != *self.properties() {
            let pos = ends.footer.properties.pos;
            return Err(self
                .file
                .corruption(pos, "the properties changed since the table's open"));
        }
        let mut check = Check {
            reader: self,
            read_ahead: ReadAhead::default(),
            pos: 0,
            found: Properties::empty(),
            key: Vec::new(),
            trailer: Trailer(0),
            separator: Vec::new(),
        };
        check.run(ends)
    }
}

struct Check<'a> {
    reader: &'a Reader,
    read_ahead: ReadAhead,
    /// Where the next frame must begin.
    pos: u64,
    found: Properties,
    /// The last entry's key.
    key: Vec<u8>,
    trailer: Trailer,
    /// The last data block's separator.
    separator: Vec<u8>,
}

impl Check<'_> {
    fn run(&mut self, ends: Ends) -> Result<u64> {
        let Ends {
            footer,
            top_index,
            properties,
        } = ends;
        let top_pos = footer.top_index.pos;
        top_index
            .check(Repeats::Allowed)
            .map_err(|error| self.file().at(top_pos, &error))?;
        for number in 0..top_index.entries() {
            self.check_partition(number)?;
            let ends_alike = top_index.key_is(number, &self.separator);
            if !ends_alike.map_err(|error| self.file().at(top_pos, &error))? {
                return Err(self
                    .file()
                    .corruption(top_pos, "a partition's separators differ"));
            }
        }
        self.expect_frame(footer.top_index)?;
        // The properties and the footer follow without a gap: the footer's decoding has seen to it.
        self.found.largest = Slice::copy_from(&self.key);
        if self.found != properties {
            return Err(self.file().at(
                footer.properties.pos,
                &Error::corruption(format!(
                    "properties tell of {properties:?}, the table has {:?}",
                    self.found
                )),
            ));
        }
        Ok(self.found.entries)
    }

    fn check_partition(&mut self, number: usize) -> Result<()> {
        let partition = self.reader.partition(number)?;
        let file = self.file();
        let index = file.decode_block(file.read(partition.index)?, partition.index)?;
        index
            .check(Repeats::Allowed)
            .map_err(|error| file.at(partition.index.pos, &error))?;
        let filter = match partition.filter {
            Some(handle) => Some(file.read(handle)?),
            None => None,
        };
        for block_number in 0..index.entries() {
            let handle = self
                .reader
                .data_handle(&index, partition.index, block_number)?;
            self.expect_frame(handle)?;
            let payload = self.read_ahead.read(&self.reader.file, handle)?;
            let block = self.file().decode_block(payload, handle)?;
            let low = std::mem::take(&mut self.separator);
            let mut high = Vec::new();
            index
                .copy_key(block_number, &mut high)
                .and_then(|()| self.check_block(block, &low, &high, filter.as_deref()))
                .map_err(|error| self.file().at(handle.pos, &error))?;
            self.separator = high;
        }
        if let Some(handle) = partition.filter {
            self.expect_frame(handle)?;
        }
        self.expect_frame(partition.index)
    }

    /// Checks a data block between the separators `low` and `high`.
    fn check_block(
        &mut self,
        block: Block,
        low: &[u8],
        high: &[u8],
        filter: Option<&[u8]>,
    ) -> Result<()> {
        self.found.data_blocks += 1;
        let mut cursor = block::Cursor::new(block);
        cursor.seek_to_first()?;
        while cursor.is_valid() {
            let key = cursor.key();
            let last = InternalKey {
                user: &self.key,
                trailer: self.trailer,
            };
            if self.found.entries > 0 && last >= key {
                return Err(Error::corruption(format!("{key:?} lies behind {last:?}")));
            }
            if key.user < low || key.user > high {
                return Err(Error::corruption(format!(
                    "{key:?} lies outside of its separators"
                )));
            }
            let is_new = last.user != key.user || cursor.is_first();
            if is_new
                && let Some(filter) = filter
                && !filter::may_contain(filter, filter::hash(key.user))
            {
                return Err(Error::corruption(format!(
                    "{key:?} is missing in its filter"
                )));
            }
            self.found.count(key, cursor.value());
            self.trailer = key.trailer;
            if is_new {
                self.key.clear();
                self.key.extend_from_slice(key.user);
            }
            cursor.next()?;
        }
        Ok(())
    }

    /// Checks that the frame is the next one in the file.
    fn expect_frame(&mut self, handle: Handle) -> Result<()> {
        if handle.pos != self.pos {
            return Err(self
                .file()
                .corruption(self.pos, "no block begins where the last one ends"));
        }
        self.pos = handle.end();
        Ok(())
    }

    fn file(&self) -> &TableFile {
        &self.reader.file
    }
}
