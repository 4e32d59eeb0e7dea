//! Blocks and tables: each as raw bytes, and as built from drawn entries and then damaged.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use crate::block::{self as blocks, Block, Repeats};
use crate::cache::BlockCache;
use crate::env::Env;
use crate::env::sim::SimEnv;
use crate::error::Result;
use crate::key::{Cursor, InternalKey, SeqNo, Trailer, ValueKind};
use crate::options::{Compression, ReadMode};
use crate::slice::Slice;
use crate::sstable::{Access, Builder, BuilderOptions, Reader, filter};
use crate::sync::Arc;

use super::input::{Damage, Input};

const TABLE_ID: u64 = 0x5eed;
const CACHE_BYTES: u64 = 1 << 20;
/// What a walk may take at most: more entries than that fit into no input.
const STEPS_MAX: usize = 1 << 20;

/// Sorted as tables are: by key, the newest version first.
type Entries = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

/// A key, its trailer, and its value.
type Row = (Vec<u8>, Trailer, Vec<u8>);

fn draw_entries(input: &mut Input<'_>, count_max: usize) -> Entries {
    let mut entries = Entries::new();
    let mut key = input.key();
    for _ in 0..=input.index(count_max) {
        let choice = input.u8();
        match choice % 4 {
            0 => key = input.key(),
            1 => key.push(choice),
            2 => {
                let last = key.len() - 1;
                key[last] = key[last].wrapping_add(1);
            }
            _ => {}
        }
        key.truncate(300);
        let seqno = if choice & 16 == 0 {
            0
        } else {
            u64::from(input.u16())
        };
        let value = match choice >> 5 {
            0 => None,
            7 => Some(vec![choice; usize::from(input.u16())]),
            _ => Some(input.bytes().to_vec()),
        };
        // Without a sequence number an entry can only be a put.
        let value = if seqno == 0 {
            Some(value.unwrap_or_default())
        } else {
            value
        };
        entries.insert((key.clone(), Reverse(seqno)), value);
    }
    entries
}

fn rows(entries: &Entries) -> Vec<Row> {
    let mut rows = Vec::with_capacity(entries.len());
    for ((key, seqno), value) in entries {
        let kind = if value.is_some() {
            ValueKind::Put
        } else {
            ValueKind::Delete
        };
        let trailer = Trailer::new(SeqNo(seqno.0), kind);
        rows.push((key.clone(), trailer, value.clone().unwrap_or_default()));
    }
    rows
}

fn row_of(cursor: &impl Cursor) -> Row {
    let key = cursor.key();
    (key.user.to_vec(), key.trailer, cursor.value().to_vec())
}

/// All entries, found from the front.
fn walk(cursor: &mut impl Cursor) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    cursor.seek_to_first()?;
    while cursor.is_valid() {
        found.push(row_of(cursor));
        assert!(found.len() <= STEPS_MAX, "a walk without an end");
        cursor.next()?;
    }
    Ok(found)
}

/// All entries, found from the back and returned in order.
fn walk_back(cursor: &mut impl Cursor) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    cursor.seek_to_last()?;
    while cursor.is_valid() {
        found.push(row_of(cursor));
        assert!(found.len() <= STEPS_MAX, "a walk without an end");
        cursor.prev()?;
    }
    found.reverse();
    Ok(found)
}

/// Searches for each entry and for what lies around it.
fn seek_all(cursor: &mut impl Cursor, rows: &[Row]) -> Result<()> {
    for (index, (key, trailer, _)) in rows.iter().enumerate() {
        let target = InternalKey {
            user: key,
            trailer: *trailer,
        };
        cursor.seek(target)?;
        assert!(cursor.is_valid() && row_of(cursor) == rows[index]);
        cursor.seek_for_prev(target)?;
        assert!(cursor.is_valid() && row_of(cursor) == rows[index]);
        cursor.seek(InternalKey::behind(key))?;
        let next = rows[index..].iter().find(|row| row.0 > *key);
        let found = cursor.is_valid().then(|| row_of(cursor));
        assert_eq!(found.as_ref(), next.or(exact_behind(rows, key)));
    }
    Ok(())
}

/// The entry that is stored exactly where [`InternalKey::behind`] points, a tombstone of number 0.
fn exact_behind<'a>(rows: &'a [Row], key: &[u8]) -> Option<&'a Row> {
    rows.iter().find(|row| row.0 == key && row.1 == Trailer(0))
}

/// A block: from raw bytes nothing but errors; from entries what was put in, in every way.
pub fn block(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8().is_multiple_of(2) {
        raw_block(input.rest());
        return;
    }
    let rows = rows(&draw_entries(&mut input, 200));
    let mut builder = blocks::Builder::new(64);
    for (key, trailer, value) in &rows {
        builder.add(
            InternalKey {
                user: key,
                trailer: *trailer,
            },
            value,
        );
    }
    let mut bytes = Vec::new();
    builder.finish(&mut bytes);
    let block = Block::decode(Slice::from(bytes)).expect("just built");
    block.check(Repeats::Forbidden).expect("just built");
    let mut cursor = blocks::Cursor::new(block);
    assert_eq!(walk(&mut cursor).expect("just built"), rows);
    assert_eq!(walk_back(&mut cursor).expect("just built"), rows);
    seek_all(&mut cursor, &rows).expect("just built");
}

fn raw_block(bytes: &[u8]) {
    let Ok(block) = Block::decode(Slice::copy_from(bytes)) else {
        return;
    };
    assert!(block.entries() <= bytes.len());
    let is_sound = block.check(Repeats::Forbidden).is_ok();
    let mut cursor = blocks::Cursor::new(block);
    let forward = walk(&mut cursor);
    let backward = walk_back(&mut cursor);
    if is_sound {
        let rows = forward.expect("checked");
        assert_eq!(backward.expect("checked"), rows);
        seek_all(&mut cursor, &rows).expect("checked");
    } else {
        let _ = cursor.seek(InternalKey::seek_to(b"key", SeqNo::MAX));
    }
}

pub(super) fn block_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (seqno, wide) in [(0, false), (9, false), (9, true)] {
        let mut builder = blocks::Builder::new(4096);
        let long = vec![b'v'; if wide { 25_000 } else { 3 }];
        for name in ["stone", "stones", "story"] {
            builder.add(
                InternalKey::new(name.as_bytes(), SeqNo(seqno), ValueKind::Put),
                &long,
            );
        }
        let mut bytes = vec![0];
        builder.finish(&mut bytes);
        seeds.push(bytes);
    }
    seeds.push(drawn(1, 40));
    seeds
}

/// An input that is drawn from: choices that differ, and end.
fn drawn(first: u8, len: u16) -> Vec<u8> {
    let choices = (0..len).map(|n| (n.wrapping_mul(37) % 251).to_le_bytes()[0]);
    [first].into_iter().chain(choices).collect()
}

/// A table: from raw bytes nothing but errors; from entries what was put in, in every way; and
/// after a damage the same or an error, and `verify` finds it.
pub fn table(data: &[u8]) {
    let mut input = Input::new(data);
    let env = SimEnv::new(1);
    let path = Path::new("/table");
    if input.u8().is_multiple_of(2) {
        env.set_file_bytes(path, input.rest());
        if let Ok(reader) = open(&env, input.rest().len() as u64, ReadMode::Positional) {
            let _ = reader.verify();
            let _ = walk(&mut reader.cursor(Access::Positional));
            let _ = walk_back(&mut reader.cursor(Access::Cached));
            let _ = reader.get(b"key", filter::hash(b"key"), SeqNo::MAX);
        }
        return;
    }
    let options = BuilderOptions {
        block_bytes: 64 << input.index(4),
        compression: [Compression::None, Compression::Lz4][input.index(2)],
        filter_bits: [0, 10][input.index(2)],
    };
    let rows = rows(&draw_entries(&mut input, 300));
    let len = build(&env, options, &rows).expect("nothing fails");
    let mut bytes = env.file_bytes(path).expect("just written");
    let whole = bytes.clone();
    Damage::draw(&mut input, bytes.len()).apply(&mut bytes);
    let is_whole = bytes == whole;
    env.set_file_bytes(path, bytes);
    for mode in [ReadMode::Positional, ReadMode::Mapped] {
        let result = read_all(&env, len, mode, &rows);
        assert!(result.is_ok() || !is_whole, "{result:?}");
    }
    let verified = open(&env, len, ReadMode::Positional).and_then(|reader| reader.verify());
    assert_eq!(
        verified.ok(),
        is_whole.then_some(rows.len() as u64),
        "of {len} bytes"
    );
}

fn build(env: &SimEnv, options: BuilderOptions, rows: &[Row]) -> Result<u64> {
    let mut builder = Builder::new(env.create_new(Path::new("/table"))?, TABLE_ID, options);
    for (key, trailer, value) in rows {
        builder.add(
            InternalKey {
                user: key,
                trailer: *trailer,
            },
            value,
        )?;
    }
    Ok(builder.finish()?.len)
}

fn open(env: &SimEnv, len: u64, mode: ReadMode) -> Result<Arc<Reader>> {
    let cache = Arc::new(BlockCache::new(CACHE_BYTES));
    Ok(Arc::new(Reader::open(
        env,
        Path::new("/table"),
        TABLE_ID,
        len,
        cache,
        mode,
    )?))
}

/// Reads everything in every way. What is found must be `rows`; an error ends it.
fn read_all(env: &SimEnv, len: u64, mode: ReadMode, rows: &[Row]) -> Result<()> {
    let reader = open(env, len, mode)?;
    let found = walk(&mut reader.cursor(Access::Positional));
    assert!(found.as_ref().is_ok_and(|found| found == rows) || found.is_err());
    let mut cursor = reader.cursor(Access::Cached);
    let back = walk_back(&mut cursor);
    assert!(back.as_ref().is_ok_and(|back| back == rows) || back.is_err());
    for (key, ..) in rows {
        let newest = rows.iter().find(|row| row.0 == *key);
        let (trailer, value) = match reader.get(key, filter::hash(key), SeqNo::MAX)? {
            Some((trailer, value)) => (Some(trailer), value.to_vec()),
            None => (None, Vec::new()),
        };
        assert_eq!(
            (trailer, Some(value)),
            (newest.map(|row| row.1), newest.map(|row| row.2.clone()))
        );
    }
    seek_all(&mut cursor, rows)?;
    found?;
    back.map(drop)
}

pub(super) fn table_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![drawn(1, 60), drawn(1, 600), drawn(3, 2000)];
    let env = SimEnv::new(1);
    let options = BuilderOptions {
        block_bytes: 256,
        compression: Compression::Lz4,
        filter_bits: 10,
    };
    let rows = rows(&draw_entries(&mut Input::new(&drawn(90, 900)), 200));
    if build(&env, options, &rows).is_ok() {
        let bytes = env.file_bytes(Path::new("/table")).unwrap_or_default();
        seeds.push([&[0], &bytes[..]].concat());
    }
    seeds
}
