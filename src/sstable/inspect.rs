//! Prints a table, for people.

use std::path::Path;

use super::Reader;
use super::footer::{FOOTER_LEN, MAGIC, MAGIC_POS};
use super::frame::Handle;
use crate::block;
use crate::cache::BlockCache;
use crate::coding::Decoder;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::key::{Cursor, ValueKind};
use crate::listing::{Excerpt, Listing};
use crate::options::ReadMode;
use crate::sync::Arc;

/// Length of a table's end by which it is recognised.
pub(crate) const TABLE_END_LEN: usize = FOOTER_LEN;

/// True if `end` is how a table ends, as far as can be told before its checksum was looked at.
pub(crate) fn is_table(end: &[u8; TABLE_END_LEN]) -> bool {
    end[MAGIC_POS..].starts_with(&MAGIC)
}

/// Prints the table at `path`, whatever table it is: what it tells of itself, then each block with
/// its entries.
///
/// # Errors
///
/// `Corruption` for the first thing that is damaged, after everything before it; those of `out`.
pub(crate) fn list(env: &dyn Env, path: &Path, out: &mut Listing<'_>) -> Result<()> {
    let file = env.open(path)?;
    let len = file.len()?;
    let mut end = [0; TABLE_END_LEN];
    let footer_pos = len.checked_sub(end.len() as u64).ok_or_else(|| {
        Error::corruption(format!("{}: {len} bytes are no table", path.display()))
    })?;
    file.read_exact_at(footer_pos, &mut end)?;
    let id = Decoder::new(&end).u64("table id")?;
    // Nobody else shares this cache, and nothing is read twice.
    let cache = Arc::new(BlockCache::new(0));
    let reader = Reader::open(env, path, id, len, cache, ReadMode::Positional)?;
    let properties = reader.properties();
    out.line(format_args!(
        "table {id:016x}, {len} bytes, footer at byte {footer_pos}"
    ))?;
    out.line(format_args!(
        "{} entries ({} tombstones) in {} data blocks, {} bytes of keys and values",
        properties.entries, properties.tombstones, properties.data_blocks, properties.raw_bytes
    ))?;
    out.line(format_args!(
        "sequence numbers {} to {}",
        properties.seqno_min, properties.seqno_max
    ))?;
    out.line(format_args!(
        "keys {:?} to {:?}",
        properties.smallest, properties.largest
    ))?;
    for number in 0..reader.partitions() {
        partition(&reader, number, out)?;
    }
    reader.verify()?;
    out.line(format_args!(
        "whole: every checksum, order and count is right"
    ))
}

fn partition(reader: &Reader, number: usize, out: &mut Listing<'_>) -> Result<()> {
    let partition = reader.partition(number)?;
    let place = partition.index;
    match partition.filter {
        Some(filter) => out.line(format_args!(
            "partition {number}: index at {}, filter at {} ({} bytes)",
            place.pos, filter.pos, filter.len
        ))?,
        None => out.line(format_args!(
            "partition {number}: index at {}, no filter",
            place.pos
        ))?,
    }
    let index = reader.file.decode_block(reader.file.read(place)?, place)?;
    for number in 0..index.entries() {
        data_block(reader, reader.data_handle(&index, place, number)?, out)?;
    }
    Ok(())
}

fn data_block(reader: &Reader, handle: Handle, out: &mut Listing<'_>) -> Result<()> {
    let payload = reader.file.read(handle)?;
    let (stored, raw) = (handle.len, payload.len());
    let block = reader.file.decode_block(payload, handle)?;
    out.line(format_args!(
        "  block at {}: {stored} bytes stored, {raw} in memory, {} entries",
        handle.pos,
        block.entries()
    ))?;
    let mut cursor = block::Cursor::new(block);
    let at_block = |error: Error| reader.file.at(handle.pos, &error);
    cursor.seek_to_first().map_err(at_block)?;
    while cursor.is_valid() {
        let key = cursor.key();
        let (seqno, user) = (key.seqno(), key.user.escape_ascii());
        match key.kind() {
            ValueKind::Put => out.line(format_args!(
                "    {seqno} put \"{user}\" {}",
                Excerpt(cursor.value())
            ))?,
            ValueKind::Delete => out.line(format_args!("    {seqno} delete \"{user}\""))?,
        }
        cursor.next().map_err(at_block)?;
    }
    Ok(())
}
