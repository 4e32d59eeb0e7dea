use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::footer::FOOTER_LEN;
use super::frame::{Handle, Sealer};
use super::*;
use crate::block;
use crate::cache::BlockCache;
use crate::env::{Env, File, JoinHandle, LockGuard, Metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Approach, Cursor as _, InternalKey, Trailer, ValueKind};
use crate::options::ReadMode;
use crate::sync::{Arc, Mutex};

const ID: u64 = 0x1234_5678_9abc_def0;

/// One file in memory, and an environment that can do nothing but open it.
#[derive(Debug, Clone, Default)]
struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    writes: Arc<Mutex<usize>>,
    reads: Arc<Mutex<usize>>,
}

impl MemoryFile {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(bytes.to_vec())),
            ..Self::default()
        }
    }
}

impl File for MemoryFile {
    fn read_exact_at(&self, pos: u64, buf: &mut [u8]) -> Result<()> {
        *self.reads.lock() += 1;
        let bytes = self.bytes.lock();
        let start = usize::try_from(pos).unwrap();
        let Some(part) = bytes.get(start..start + buf.len()) else {
            return Err(Error::new(ErrorKind::Io, "end of file"));
        };
        buf.copy_from_slice(part);
        Ok(())
    }

    fn write_all_at(&self, pos: u64, new: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.lock();
        assert_eq!(
            pos,
            bytes.len() as u64,
            "tables are written from front to end"
        );
        bytes.extend_from_slice(new);
        *self.writes.lock() += 1;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> Result<()> {
        unreachable!("tables are never cut")
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().len() as u64)
    }

    fn map(&self, len: u64) -> Option<Slice> {
        let bytes = self.bytes.lock();
        Some(Slice::from(bytes[..usize::try_from(len).ok()?].to_vec()))
    }
}

impl Env for MemoryFile {
    fn create_new(&self, _: &Path) -> Result<Arc<dyn File>> {
        unreachable!()
    }

    fn open(&self, _: &Path) -> Result<Arc<dyn File>> {
        Ok(Arc::new(self.clone()))
    }

    fn open_write(&self, _: &Path) -> Result<Arc<dyn File>> {
        unreachable!()
    }

    fn create_dir(&self, _: &Path) -> Result<()> {
        unreachable!()
    }

    fn rename(&self, _: &Path, _: &Path) -> Result<()> {
        unreachable!()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> Result<()> {
        unreachable!()
    }

    fn remove_file(&self, _: &Path) -> Result<()> {
        unreachable!()
    }

    fn remove_dir(&self, _: &Path) -> Result<()> {
        unreachable!()
    }

    fn list_dir(&self, _: &Path) -> Result<Vec<String>> {
        unreachable!()
    }

    fn metadata(&self, _: &Path) -> Result<Metadata> {
        unreachable!()
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        unreachable!()
    }

    fn lock(&self, _: &Path) -> Result<Box<dyn LockGuard>> {
        unreachable!()
    }

    fn wall_clock_ms(&self) -> u64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn random_u64(&self) -> u64 {
        0
    }

    fn spawn(&self, _: &str, _: Box<dyn FnOnce() + Send>) -> Result<Box<dyn JoinHandle>> {
        unreachable!()
    }
}

type Entry = (Vec<u8>, Trailer, Vec<u8>);

fn key_of(entry: &Entry) -> InternalKey<'_> {
    InternalKey {
        user: &entry.0,
        trailer: entry.1,
    }
}

fn write(entries: &[Entry], options: BuilderOptions) -> (MemoryFile, Summary) {
    let file = MemoryFile::default();
    let mut builder = Builder::new(Arc::new(file.clone()), ID, options);
    for entry in entries {
        builder.add(key_of(entry), &entry.2).unwrap();
    }
    let estimate = builder.file_len_estimate();
    let summary = builder.finish().unwrap();
    assert_eq!(summary.len, file.bytes.lock().len() as u64);
    assert!(
        summary.len < estimate + estimate / 4 + 1000,
        "{} for {estimate}",
        summary.len
    );
    (file, summary)
}

fn open_as(file: &MemoryFile, len: u64, mode: ReadMode) -> Result<Arc<Reader>> {
    let cache = Arc::new(BlockCache::new(1 << 20));
    Reader::open(file, Path::new("dir/7.sst"), ID, len, cache, mode).map(Arc::new)
}

fn open(file: &MemoryFile, mode: ReadMode) -> Result<Arc<Reader>> {
    let len = file.bytes.lock().len() as u64;
    open_as(file, len, mode)
}

fn get(reader: &Reader, user: &[u8], seqno: u64) -> Result<Option<(Trailer, Vec<u8>)>> {
    let found = reader.get(user, filter::hash(user), SeqNo(seqno))?;
    Ok(found.map(|(trailer, value)| (trailer, value.to_vec())))
}

fn expected(entries: &[Entry], user: &[u8], seqno: u64) -> Option<(Trailer, Vec<u8>)> {
    let target = InternalKey::seek_to(user, SeqNo(seqno));
    let place = entries.partition_point(|entry| key_of(entry) < target);
    let entry = entries.get(place).filter(|entry| entry.0 == user)?;
    Some((entry.1, entry.2.clone()))
}

fn at(cursor: &Cursor) -> Option<Entry> {
    cursor.is_valid().then(|| {
        assert_eq!(cursor.value_slice(), cursor.value());
        (
            cursor.key().user.to_vec(),
            cursor.key().trailer,
            cursor.value().to_vec(),
        )
    })
}

const MODES: [ReadMode; 2] = [ReadMode::Mapped, ReadMode::Positional];
const ACCESSES: [Access; 2] = [Access::Cached, Access::Positional];

fn options(block_bytes: usize, compression: Compression, filter_bits: u32) -> BuilderOptions {
    BuilderOptions {
        block_bytes,
        compression,
        filter_bits,
    }
}

/// Checks every way of reading a table against the entries that it was made of.
fn check_all(file: &MemoryFile, entries: &[Entry], seqno_max: u64) {
    for mode in MODES {
        let reader = open(file, mode).unwrap();
        assert_eq!(reader.verify().unwrap(), entries.len() as u64);
        for entry in entries {
            for seqno in [
                entry.1.seqno().get(),
                entry.1.seqno().get().saturating_sub(1),
                seqno_max,
            ] {
                let found = get(&reader, &entry.0, seqno).unwrap();
                assert_eq!(found, expected(entries, &entry.0, seqno));
            }
            let absent = [&entry.0[..], &[0]].concat();
            let found = get(&reader, &absent, seqno_max).unwrap();
            assert_eq!(found, expected(entries, &absent, seqno_max));
        }
        for access in ACCESSES {
            check_cursor(&mut reader.cursor(access), entries);
        }
    }
}

fn check_cursor(cursor: &mut Cursor, entries: &[Entry]) {
    assert!(!cursor.is_valid());
    cursor.seek_to_first().unwrap();
    for entry in entries {
        assert_eq!(at(cursor).as_ref(), Some(entry));
        cursor.next().unwrap();
    }
    assert!(!cursor.is_valid());
    cursor.seek_to_last().unwrap();
    for entry in entries.iter().rev() {
        assert_eq!(at(cursor).as_ref(), Some(entry));
        cursor.prev().unwrap();
    }
    assert!(!cursor.is_valid());
    // Few seeks of a large table: each costs a block.
    for entry in entries.iter().step_by(1 + entries.len() / 50) {
        let near = [
            entry.0.clone(),
            [&entry.0[..], &[0]].concat(),
            entry.0[1..].to_vec(),
        ];
        for user in &near {
            let exact = InternalKey {
                user,
                trailer: entry.1,
            };
            for target in [
                exact,
                InternalKey::behind(user),
                InternalKey::seek_to(user, SeqNo::MAX),
            ] {
                let place = entries.partition_point(|entry| key_of(entry) < target);
                // An approach of this key, of another one, or none.
                let approached = [Some(target), None, Some(key_of(entry))][place % 3];
                if let Some(approached) = approached {
                    cursor.approach(approached, Approach::Place).unwrap();
                    cursor.approach(approached, Approach::Memory).unwrap();
                }
                cursor.seek(target).unwrap();
                assert_eq!(at(cursor).as_ref(), entries.get(place));
                if cursor.is_valid() {
                    cursor.prev().unwrap();
                    assert_eq!(at(cursor), place.checked_sub(1).map(|i| entries[i].clone()));
                }
                let behind = entries.partition_point(|entry| key_of(entry) <= target);
                cursor.seek_for_prev(target).unwrap();
                assert_eq!(
                    at(cursor),
                    behind.checked_sub(1).map(|i| entries[i].clone())
                );
                if cursor.is_valid() {
                    cursor.next().unwrap();
                    assert_eq!(at(cursor).as_ref(), entries.get(behind));
                }
            }
        }
    }
}

fn put(user: &[u8], seqno: u64, value: &[u8]) -> Entry {
    (
        user.to_vec(),
        Trailer::new(SeqNo(seqno), ValueKind::Put),
        value.to_vec(),
    )
}

fn delete(user: &[u8], seqno: u64) -> Entry {
    (
        user.to_vec(),
        Trailer::new(SeqNo(seqno), ValueKind::Delete),
        Vec::new(),
    )
}

/// A small table of several blocks, with versions and tombstones.
fn small_entries(keys: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for number in 0..keys {
        let user = format!("key-{:04}", number * 2);
        entries.push(put(
            user.as_bytes(),
            number + 100,
            format!("new value {number}").as_bytes(),
        ));
        if number % 3 == 0 {
            entries.push(delete(user.as_bytes(), number + 50));
        }
        entries.push(put(user.as_bytes(), 1, &[b'v'; 30]));
    }
    entries
}

fn any_entries() -> impl Strategy<Value = Vec<Entry>> {
    let key = vec(
        prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xff)],
        1..6,
    );
    let value = prop_oneof![
        4 => vec(any::<u8>(), 0..30),
        1 => (any::<u8>(), 0..900_usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    let versions = btree_map(0..9_u64, (any::<bool>(), value), 1..6);
    btree_map(key, versions, 1..60).prop_map(|keys: BTreeMap<Vec<u8>, _>| {
        let mut entries = Vec::new();
        for (user, versions) in keys {
            for (seqno, (is_put, value)) in versions.into_iter().rev() {
                entries.push(if is_put {
                    put(&user, seqno, &value)
                } else {
                    delete(&user, seqno)
                });
            }
        }
        entries
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tables_hold_what_was_added(
        entries in any_entries(),
        block_bytes in prop_oneof![Just(64_usize), Just(500), Just(4096)],
        lz4 in any::<bool>(),
        filter_bits in prop_oneof![Just(0_u32), Just(10)],
    ) {
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let (file, summary) = write(&entries, options(block_bytes, compression, filter_bits));
        prop_assert_eq!(summary.entries, entries.len() as u64);
        prop_assert_eq!(&summary.smallest, &entries[0].0);
        prop_assert_eq!(&summary.largest, &entries[entries.len() - 1].0);
        let seqnos = entries.iter().map(|entry| entry.1.seqno());
        prop_assert_eq!(Some(summary.seqno_min), seqnos.clone().min());
        prop_assert_eq!(Some(summary.seqno_max), seqnos.max());
        check_all(&file, &entries, 10);
    }
}

#[test]
fn versions_of_one_key_span_blocks_and_partitions() {
    let mut entries = vec![put(b"a", 5, b"before")];
    entries.extend(
        (1..=600)
            .rev()
            .map(|seqno| put(b"middle-key", seqno, &seqno.to_le_bytes())),
    );
    entries.push(put(b"middle-kez", 7, b"behind"));
    entries.extend((1..=200).rev().map(|seqno| put(b"z", seqno, &[9; 50])));
    for filter_bits in [0, 10] {
        let (file, _) = write(&entries, options(64, Compression::None, filter_bits));
        let reader = open(&file, ReadMode::Mapped).unwrap();
        assert!(reader.partitions() > 4, "{}", reader.partitions());
        assert!(reader.properties().data_blocks > 400);
        check_all(&file, &entries, 1000);
        assert_eq!(get(&reader, b"middle-key", 0).unwrap(), None);
    }
}

#[test]
fn many_partitions_and_large_writes() {
    let entries: Vec<Entry> = (0..30_000_u32)
        .map(|number| put(&(number * 2).to_be_bytes(), u64::from(number % 2), &[7; 40]))
        .collect();
    let (file, summary) = write(&entries, options(512, Compression::None, 16));
    let writes = *file.writes.lock() as u64;
    assert!(
        writes <= summary.len / (256 << 10) + 1,
        "{writes} for {}",
        summary.len
    );
    let reader = open(&file, ReadMode::Positional).unwrap();
    assert!(reader.partitions() > 10);
    assert!(reader.memory_bytes() < 4096);
    assert_eq!(reader.verify().unwrap(), 30_000);
    for (number, entry) in entries.iter().enumerate().step_by(97) {
        assert_eq!(
            get(&reader, &entry.0, 1).unwrap(),
            Some((entry.1, entry.2.clone()))
        );
        let odd = (u32::try_from(number).unwrap() * 2 + 1).to_be_bytes();
        assert_eq!(get(&reader, &odd, 1).unwrap(), None);
    }
    for access in ACCESSES {
        let mut cursor = reader.cursor(access);
        cursor.seek_to_last().unwrap();
        for entry in entries.iter().rev() {
            assert_eq!(cursor.key(), key_of(entry));
            cursor.prev().unwrap();
        }
    }
}

#[test]
fn the_longest_keys_and_a_value_larger_than_many_blocks() {
    let long = |last: u8| [vec![b'k'; crate::KEY_LEN_MAX - 1], vec![last]].concat();
    let noise: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    let entries = vec![
        put(b"a", 3, &noise),
        put(&long(1), 1, b"one"),
        put(&long(2), 2, &[0; 3_000_000]),
        put(&long(3), 2, b""),
    ];
    for compression in [Compression::None, Compression::Lz4] {
        let (file, _) = write(&entries, options(4096, compression, 10));
        check_all(&file, &entries, 9);
    }
}

/// Everything that a reader can be asked of a damaged table is right or an error.
fn check_damaged(file: &MemoryFile, len: u64, mode: ReadMode, entries: &[Entry]) {
    let Ok(reader) = open_as(file, len, mode) else {
        return;
    };
    for entry in entries {
        if let Ok(found) = get(&reader, &entry.0, 1000) {
            assert_eq!(found, expected(entries, &entry.0, 1000));
        }
    }
    for access in ACCESSES {
        let mut cursor = reader.cursor(access);
        let mut moved = cursor.seek_to_first();
        for entry in entries {
            if moved.is_err() {
                assert!(!cursor.is_valid());
                break;
            }
            assert_eq!(at(&cursor).as_ref(), Some(entry));
            moved = cursor.next();
        }
        assert!(!cursor.is_valid());
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let entries = small_entries(24);
    for compression in [Compression::None, Compression::Lz4] {
        let (file, summary) = write(&entries, options(256, compression, 10));
        let bytes = file.bytes.lock().clone();
        let healthy = open(&file, ReadMode::Positional).unwrap();
        for (pos, byte) in bytes.iter().enumerate() {
            for mask in [0x01, 0x80, 0xff] {
                file.bytes.lock()[pos] = byte ^ mask;
                let error = healthy.verify().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corruption, "byte {pos}: {error}");
                assert!(error.to_string().starts_with("dir/7.sst at "), "{error}");
                for mode in MODES {
                    check_damaged(&file, summary.len, mode, &entries);
                }
                file.bytes.lock()[pos] = *byte;
            }
        }
        assert_eq!(healthy.verify().unwrap(), entries.len() as u64);
    }
}

#[test]
fn every_truncation_is_noticed() {
    let entries = small_entries(20);
    let (file, summary) = write(&entries, options(256, Compression::Lz4, 10));
    let bytes = file.bytes.lock().clone();
    for len in 0..bytes.len() {
        let cut = MemoryFile::of(&bytes[..len]);
        let error = open_as(&cut, summary.len, ReadMode::Mapped).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        let named = error.to_string();
        assert!(named.contains(&len.to_string()) && named.contains(&summary.len.to_string()));
        assert!(open(&cut, ReadMode::Mapped).is_err(), "{len}");
    }
    let longer = MemoryFile::of(&[&bytes[..], &[0]].concat());
    assert!(open_as(&longer, summary.len, ReadMode::Mapped).is_err());
}

#[test]
fn a_table_cut_under_an_open_reader_is_an_error() {
    let entries = small_entries(20);
    let (file, _) = write(&entries, options(256, Compression::None, 10));
    let reader = open(&file, ReadMode::Positional).unwrap();
    file.bytes.lock().truncate(100);
    assert!(get(&reader, &entries[0].0, 1000).is_err());
    assert_eq!(reader.verify().unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn another_table_is_not_mistaken_for_this_one() {
    let entries = small_entries(5);
    let (file, summary) = write(&entries, options(256, Compression::None, 10));
    let cache = Arc::new(BlockCache::new(1 << 20));
    let path = Path::new("dir/7.sst");
    let error =
        Reader::open(&file, path, ID + 1, summary.len, cache, ReadMode::Mapped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("another table"), "{error}");
}

/// A table of one partition put together by hand, with good checksums around whatever is in it.
struct Forgery {
    bytes: Vec<u8>,
    sealer: Sealer,
    handles: Vec<Handle>,
}

impl Forgery {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            sealer: Sealer::new(ID),
            handles: Vec::new(),
        }
    }

    fn frame(&mut self, payload: &[u8]) -> Handle {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        let handle = self
            .sealer
            .seal(&mut self.bytes, start, start as u64, Compression::None);
        self.handles.push(handle);
        handle
    }

    fn block(entries: &[(&[u8], u64, Vec<u8>)]) -> Vec<u8> {
        let mut builder = block::Builder::new(4096);
        for (user, seqno, value) in entries {
            builder.add(InternalKey::new(user, SeqNo(*seqno), ValueKind::Put), value);
        }
        let mut out = Vec::new();
        builder.finish(&mut out);
        out
    }

    /// Index, top index, properties and footer around data blocks with these separators.
    fn finish(mut self, separators: &[&[u8]], properties: &Properties) -> MemoryFile {
        let data: Vec<_> = separators
            .iter()
            .zip(&self.handles)
            .map(|(separator, handle)| {
                let mut value = Vec::new();
                handle.put(&mut value);
                (*separator, 0, value)
            })
            .collect();
        let index = self.frame(&Self::block(&data));
        let last = separators[separators.len() - 1];
        self.finish_with(&[(last, index)], properties)
    }

    /// Top index, properties and footer around partitions with these separators and index blocks.
    fn finish_with(
        mut self,
        partitions: &[(&[u8], Handle)],
        properties: &Properties,
    ) -> MemoryFile {
        let entries: Vec<_> = partitions
            .iter()
            .map(|(separator, index)| {
                let partition = index::Partition {
                    index: *index,
                    filter: None,
                };
                (*separator, 0, partition.encode())
            })
            .collect();
        let top_index = self.frame(&Self::block(&entries));
        let mut payload = Vec::new();
        properties.put(&mut payload);
        let properties = self.frame(&payload);
        let pos = self.bytes.len() as u64;
        footer::Footer {
            top_index,
            properties,
        }
        .put(&mut self.bytes, ID, pos);
        MemoryFile::of(&self.bytes)
    }
}

fn forged_properties(smallest: &[u8], largest: &[u8], entries: u64) -> Properties {
    Properties {
        entries,
        tombstones: 0,
        data_blocks: 2,
        raw_bytes: entries,
        seqno_min: SeqNo(1),
        seqno_max: SeqNo(1),
        smallest: Slice::copy_from(smallest),
        largest: Slice::copy_from(largest),
    }
}

/// Data blocks, their separators, and properties, which contradict each other.
type Forged<'a> = (&'a [Vec<u8>], &'a [&'a [u8]], &'a Properties);

#[test]
fn good_checksums_do_not_excuse_wrong_contents() {
    let one = |key: &'static [u8]| Forgery::block(&[(key, 1, Vec::new())]);
    let sound = forged_properties(b"a", b"c", 2);
    let table = |blocks: &[Vec<u8>], separators: &[&[u8]], properties: &Properties| {
        let mut forgery = Forgery::new();
        for block in blocks {
            forgery.frame(block);
        }
        let file = forgery.finish(separators, properties);
        open(&file, ReadMode::Mapped)
    };
    let healthy = table(&[one(b"a"), one(b"c")], &[b"b", b"c"], &sound).unwrap();
    assert_eq!(healthy.verify().unwrap(), 2);
    let miscounted = Properties {
        entries: 3,
        ..sound.clone()
    };
    let wrong: [Forged<'_>; 5] = [
        (&[one(b"c"), one(b"a")], &[b"c", b"c"], &sound),
        (&[one(b"a"), one(b"c")], &[b"a", b"b"], &sound),
        (&[one(b"b"), one(b"c")], &[b"a", b"c"], &sound),
        (&[one(b"a"), one(b"c")], &[b"b", b"c"], &miscounted),
        (&[one(b"a"), vec![1; 40]], &[b"b", b"c"], &sound),
    ];
    for (number, (blocks, separators, properties)) in wrong.into_iter().enumerate() {
        let verified = table(blocks, separators, properties).and_then(|reader| reader.verify());
        let error = verified.unwrap_err();
        assert!(
            error.to_string().starts_with("dir/7.sst at "),
            "{number}: {error}"
        );
    }
    // Compaction, which reads by position, is told of wrong order instead of passing it on.
    let reader = table(&[one(b"c"), one(b"a")], &[b"c", b"c"], &sound).unwrap();
    let mut cursor = reader.cursor(Access::Positional);
    cursor.seek_to_first().unwrap();
    assert_eq!(cursor.next().unwrap_err().kind(), ErrorKind::Corruption);
    assert!(!cursor.is_valid());
}

/// What the cache holds of a data block is not taken for a partition.
#[test]
fn a_data_block_in_the_place_of_an_index_block_is_found() {
    let mut forgery = Forgery::new();
    let data = forgery.frame(&Forgery::block(&[(b"a", 1, vec![0xff; 40])]));
    let mut value = Vec::new();
    data.put(&mut value);
    let index = forgery.frame(&Forgery::block(&[(b"b", 0, value)]));
    let properties = forged_properties(b"a", b"c", 2);
    let file = forgery.finish_with(&[(b"b", index), (b"c", data)], &properties);
    for mode in [ReadMode::Positional, ReadMode::Mapped] {
        let reader = open(&file, mode).unwrap();
        assert!(get(&reader, b"a", 1).unwrap().is_some());
        let error = get(&reader, b"c", 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    }
}

#[test]
fn a_gap_between_blocks_is_found() {
    let mut forgery = Forgery::new();
    forgery.frame(&Forgery::block(&[(b"a", 1, Vec::new())]));
    forgery.bytes.extend_from_slice(&[0; 10]);
    forgery.frame(&Forgery::block(&[(b"c", 1, Vec::new())]));
    let file = forgery.finish(&[b"b", b"c"], &forged_properties(b"a", b"c", 2));
    let reader = open(&file, ReadMode::Mapped).unwrap();
    assert_eq!(get(&reader, b"c", 1).unwrap().unwrap().1, b"");
    assert_eq!(reader.verify().unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn mapped_raw_data_blocks_are_not_cached() {
    let entries = small_entries(50);
    let (file, summary) = write(&entries, options(256, Compression::None, 10));
    let cache = Arc::new(BlockCache::new(1 << 20));
    let path = Path::new("7.sst");
    let open = |mode| Reader::open(&file, path, ID, summary.len, Arc::clone(&cache), mode).unwrap();
    let mapped = open(ReadMode::Mapped);
    get(&mapped, &entries[0].0, 1000).unwrap().unwrap();
    let bytes = cache.bytes();
    assert!(bytes > 0, "the filter and the index block");
    for entry in &entries {
        get(&mapped, &entry.0, 1000).unwrap().unwrap();
    }
    assert_eq!(cache.bytes(), bytes);
    let positional = open(ReadMode::Positional);
    get(&positional, &entries[0].0, 1000).unwrap().unwrap();
    assert!(cache.bytes() > bytes);
    let (hits, _) = cache.hits_and_misses();
    get(&positional, &entries[0].0, 1000).unwrap().unwrap();
    assert_eq!(cache.hits_and_misses().0, hits + 1, "the data block");
}

#[test]
fn leading_blocks_are_held_where_the_cache_has_room_and_looked_up_where_not() {
    let entries = small_entries(5000);
    let (file, summary) = write(&entries, options(1024, Compression::None, 10));
    for (cache_bytes, lookups) in [(1 << 20, 0), (8 << 10, 1)] {
        let cache = Arc::new(BlockCache::new(cache_bytes));
        let path = Path::new("7.sst");
        let mode = ReadMode::Mapped;
        let reader = Reader::open(&file, path, ID, summary.len, Arc::clone(&cache), mode).unwrap();
        get(&reader, &entries[0].0, 1000).unwrap().unwrap();
        let (hits, misses) = cache.hits_and_misses();
        get(&reader, &entries[0].0, 1000).unwrap().unwrap();
        assert_eq!(cache.hits_and_misses(), (hits + lookups, misses));
        assert!(cache.bytes() > 0 && cache.bytes() <= cache_bytes);
        drop(reader);
        let is_held = lookups == 0;
        assert_eq!(
            cache.bytes() == 0,
            is_held,
            "what is held goes with the reader"
        );
    }
}

#[test]
fn a_walk_by_position_reads_many_blocks_at_once() {
    for compression in [Compression::None, Compression::Lz4] {
        let entries = small_entries(2000);
        let (file, summary) = write(&entries, options(256, compression, 10));
        let cache = Arc::new(BlockCache::new(1 << 20));
        let path = Path::new("7.sst");
        let mode = ReadMode::Positional;
        let reader = Arc::new(Reader::open(&file, path, ID, summary.len, cache, mode).unwrap());
        let blocks = usize::try_from(reader.properties().data_blocks).unwrap();
        let before = *file.reads.lock();
        let mut cursor = reader.cursor(Access::Cached);
        for turn in 0..2 {
            let mut count = 0;
            cursor.seek_to_first().unwrap();
            while cursor.is_valid() {
                let entry = &entries[count];
                assert_eq!(
                    (cursor.key().user, cursor.value()),
                    (&entry.0[..], &entry.2[..])
                );
                cursor.next().unwrap();
                count += 1;
            }
            assert_eq!(count, entries.len());
            let reads = *file.reads.lock() - before;
            assert!(
                reads < blocks / 4,
                "turn {turn}: {reads} reads of {blocks} blocks"
            );
        }
    }
}

#[test]
fn the_same_entries_give_the_same_bytes_for_ever() {
    let (file, summary) = write(&small_entries(24), options(256, Compression::None, 10));
    let bytes = file.bytes.lock();
    assert_eq!(bytes.len() as u64, summary.len);
    assert!(bytes.len() > FOOTER_LEN);
    assert_eq!(
        (bytes.len(), crc32fast::hash(&bytes)),
        (2706, 2_359_831_213)
    );
}

#[test]
#[should_panic(expected = "added behind")]
fn entries_out_of_order_are_a_bug_of_the_caller() {
    write(
        &[put(b"a", 1, b""), put(b"a", 1, b"")],
        options(64, Compression::None, 0),
    );
}
