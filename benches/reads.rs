//! Reads of a store: gets with a cache that holds all or part, gets of absent keys, walks in both
//! directions, short ranges, and the loop of a state store.
//!
//! `SILTSTONE_BENCH_RECORDS` says how many records of 16 + 100 bytes there are, a million unless
//! set. Values compress to about half. "settled" is a store whose records are all in one run.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use siltstone::{Db, Keyspace, KeyspaceOptions, Options, ReadMode, Runtime, RuntimeOptions};
use tempfile::TempDir;

const VALUE_LEN: usize = 100;
const RECORDS_USUAL: u64 = 1_000_000;
/// Bytes of cache a record: for all blocks, and for a quarter of them.
const CACHE_WHOLE: u64 = 256;
const CACHE_PART: u64 = 32;

struct Store {
    db: Db,
    keyspace: Keyspace,
    records: u64,
    /// Removed last.
    _dir: TempDir,
}

impl Store {
    fn filled(mode: ReadMode, cache_bytes_per_record: u64) -> Self {
        let records = std::env::var("SILTSTONE_BENCH_RECORDS").map_or(RECORDS_USUAL, |text| {
            text.parse().expect("a number of records")
        });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache_bytes = usize::try_from(records * cache_bytes_per_record).expect("fits");
        let runtime = RuntimeOptions::new()
            .cache_bytes(cache_bytes)
            .memory_bytes_max(2 * cache_bytes + (256 << 20));
        let runtime = Runtime::new(runtime).expect("a runtime");
        let options = Options::new().read_mode(mode);
        let db = Db::open_with(dir.path().join("store"), options, &runtime).expect("open");
        let keyspace = db
            .keyspace("bench", KeyspaceOptions::new())
            .expect("keyspace");
        for number in 0..records {
            let number = scattered(number, records);
            keyspace.put(key(number), value(number)).expect("put");
        }
        db.flush().expect("flush");
        keyspace.compact().expect("compact");
        Self {
            db,
            keyspace,
            records,
            _dir: dir,
        }
    }
}

/// The mixing step of `SplitMix64`.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Every number below `count` once, in an order far from theirs, for `count` without large primes.
fn scattered(number: u64, count: u64) -> u64 {
    number.wrapping_mul(2_654_435_761) % count
}

/// 16 digits: only even numbers are there.
fn key(number: u64) -> Vec<u8> {
    format!("{:016}", number * 2).into_bytes()
}

fn absent_key(number: u64) -> Vec<u8> {
    format!("{:016}", number * 2 + 1).into_bytes()
}

/// Half of it compresses well.
fn value(number: u64) -> [u8; VALUE_LEN] {
    let mut value = [0; VALUE_LEN];
    for (index, chunk) in value[..VALUE_LEN / 2].chunks_mut(8).enumerate() {
        let bytes = mixed(number + index as u64).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
    value
}

fn gets(criterion: &mut Criterion, name: &str, store: &Store) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    let mut next = 0;
    let mut random = || {
        next += 1;
        mixed(next) % store.records
    };
    group.bench_function("get/random", |bencher| {
        bencher.iter(|| {
            let found = store.keyspace.get(key(random())).expect("get");
            found.expect("is there")[0]
        });
    });
    group.bench_function("get/absent", |bencher| {
        bencher.iter(|| store.keyspace.get(absent_key(random())).expect("get"));
    });
    for len in [10, 100] {
        group.bench_with_input(BenchmarkId::new("seek", len), &len, |bencher, len| {
            let mut cursor = store.keyspace.cursor().expect("cursor");
            bencher.iter(|| {
                cursor.seek(key(random())).expect("seek");
                for _ in 0..*len {
                    let Some(entry) = black_box(cursor.entry()) else {
                        break;
                    };
                    black_box(entry.1[0]);
                    cursor.next().expect("next");
                }
            });
        });
    }
    group.finish();
}

fn walks(criterion: &mut Criterion, name: &str, store: &Store) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(store.records));
    group.sample_size(10);
    group.bench_function("walk/forward", |bencher| {
        bencher.iter(|| {
            let mut cursor = store.keyspace.cursor().expect("cursor");
            cursor.seek_to_first().expect("seek");
            while let Some(entry) = cursor.entry() {
                black_box(entry);
                cursor.next().expect("next");
            }
        });
    });
    group.bench_function("walk/backward", |bencher| {
        bencher.iter(|| {
            let mut cursor = store.keyspace.cursor().expect("cursor");
            cursor.seek_to_last().expect("seek");
            while let Some(entry) = cursor.entry() {
                black_box(entry);
                cursor.prev().expect("prev");
            }
        });
    });
    group.bench_function("entries", |bencher| {
        bencher.iter(|| {
            for entry in store.keyspace.entries().expect("entries") {
                black_box(entry.expect("entry"));
            }
        });
    });
    group.finish();
}

fn updates(criterion: &mut Criterion, name: &str, store: &Store) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    let mut next = 0;
    group.bench_function("get and put", |bencher| {
        bencher.iter(|| {
            next += 1;
            let number = mixed(next) % store.records;
            let old = store.keyspace.get(key(number)).expect("get");
            let mut new = value(number);
            new[0] = old.expect("is there")[0].wrapping_add(1);
            store.keyspace.put(key(number), new).expect("put");
        });
    });
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    for (name, mode, cache) in [
        ("settled, cache holds all", ReadMode::Mapped, CACHE_WHOLE),
        ("settled, cache holds part", ReadMode::Mapped, CACHE_PART),
        (
            "settled, part, by position",
            ReadMode::Positional,
            CACHE_PART,
        ),
    ] {
        let store = Store::filled(mode, cache);
        gets(criterion, name, &store);
        walks(criterion, name, &store);
        if cache == CACHE_WHOLE {
            updates(criterion, name, &store);
            gets(criterion, "unsettled, cache holds all", &store);
        }
        store.db.close().expect("close");
    }
}

criterion_group!(benches, reads);
criterion_main!(benches);
