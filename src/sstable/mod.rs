//! Tables: immutable files of sorted entries.
//!
//! [`Builder`] writes a table from entries in their order. [`Reader`] finds single keys in it,
//! [`Cursor`] walks it, and `Reader::verify` checks all of it. Below them: `index` says how blocks
//! are found, `filter` which need not be read, `frame` how a block is sealed against damage, `file`
//! how its bytes are come by, `properties` and `footer` what a table tells of itself.
//!
//! The layout is told in `docs/format.md`, sections "Table" and "Filter".

mod builder;
mod cursor;
mod file;
pub(crate) mod filter;
mod footer;
mod frame;
mod index;
#[cfg(feature = "cli")]
mod inspect;
mod properties;
mod reader;
#[cfg(test)]
mod tests;
mod verify;

use crate::key::SeqNo;
use crate::options::Compression;
use crate::slice::Slice;

#[cfg(test)]
use properties::Properties;

pub(crate) use builder::Builder;
pub(crate) use cursor::Cursor;
#[cfg(feature = "cli")]
pub(crate) use inspect::{TABLE_END_LEN, is_table, list};
pub(crate) use reader::Reader;

/// How a table is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuilderOptions {
    /// Bytes of a data block before compression.
    pub(crate) block_bytes: usize,
    pub(crate) compression: Compression,
    /// Filter bits a key; 0 for no filter.
    pub(crate) filter_bits: u32,
}

/// What a builder tells of the table that it has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Length of the file in bytes.
    pub(crate) len: u64,
    pub(crate) entries: u64,
    pub(crate) tombstones: u64,
    /// Bytes of all user keys and values.
    pub(crate) raw_bytes: u64,
    /// First and last user key, both inclusive.
    pub(crate) smallest: Slice,
    pub(crate) largest: Slice,
    pub(crate) seqno_min: SeqNo,
    pub(crate) seqno_max: SeqNo,
}

/// How a cursor comes by a table's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Through the map, if there is one, and the block cache: for reads of callers.
    Cached,
    /// By position, many blocks at once, past map and cache, and with the order of all entries
    /// checked: for compaction and verification, which would crowd out what readers need.
    Positional,
}
