//! The hot paths of a store in a temporary directory: put, batch, cached get, scan.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use siltstone::{Db, Durability, Keyspace, KeyspaceOptions, Options, WriteBatch};
use tempfile::TempDir;

const VALUE_LEN: usize = 100;
const BATCH_LEN: usize = 100;
/// Entries of the store that is read.
const ENTRIES: u64 = 50_000;
const SCAN_LEN: usize = 1000;

struct Store {
    db: Db,
    keyspace: Keyspace,
    /// Removed last.
    _dir: TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(dir.path().join("store"), Options::new()).expect("open");
        let keyspace = db
            .keyspace("bench", KeyspaceOptions::new())
            .expect("keyspace");
        Self {
            db,
            keyspace,
            _dir: dir,
        }
    }

    /// A store whose entries are all in tables of the last level.
    fn filled() -> Self {
        let store = Self::new();
        for number in 0..ENTRIES {
            store.keyspace.put(key(number), value(number)).expect("put");
        }
        store.db.flush().expect("flush");
        store.keyspace.compact().expect("compact");
        store
    }
}

/// The mixing step of `SplitMix64`: numbers in an order that looks random, each once.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// 16 bytes, in the order of the numbers.
fn key(number: u64) -> [u8; 16] {
    let mut key = *b"bench key       ";
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
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

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    let mut next = 0;

    let store = Store::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function("put/random", |bencher| {
        bencher.iter(|| {
            next += 1;
            store
                .keyspace
                .put(key(mixed(next)), value(next))
                .expect("put");
        });
    });
    group.bench_function("put/sequential", |bencher| {
        bencher.iter(|| {
            next += 1;
            store.keyspace.put(key(next), value(next)).expect("put");
        });
    });

    group.throughput(Throughput::Elements(BATCH_LEN as u64));
    group.bench_function("batch/random", |bencher| {
        let fill = || {
            let mut batch = WriteBatch::new();
            for _ in 0..BATCH_LEN {
                next += 1;
                batch
                    .put(&store.keyspace, key(mixed(next)), value(next))
                    .expect("put");
            }
            batch
        };
        let write = |batch| store.db.write(batch, Durability::Buffered).expect("write");
        bencher.iter_batched(fill, write, BatchSize::SmallInput);
    });
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let store = Store::filled();
    let mut next = 0;

    group.throughput(Throughput::Elements(1));
    group.bench_function("get/cached", |bencher| {
        // Few keys: their blocks stay in the cache.
        bencher.iter(|| {
            next = (next + 1) % 1000;
            store
                .keyspace
                .get(key(next))
                .expect("get")
                .expect("is there")
        });
    });
    group.bench_function("get/random", |bencher| {
        bencher.iter(|| {
            next += 1;
            store
                .keyspace
                .get(key(mixed(next) % ENTRIES))
                .expect("get")
                .expect("is there")
        });
    });
    group.bench_function("get/absent", |bencher| {
        bencher.iter(|| {
            next += 1;
            store.keyspace.get(key(ENTRIES + mixed(next))).expect("get")
        });
    });

    group.throughput(Throughput::Elements(SCAN_LEN as u64));
    group.bench_function("scan/1000", |bencher| {
        bencher.iter(|| {
            next += 1;
            let first = key(mixed(next) % (ENTRIES - SCAN_LEN as u64));
            let range = store.keyspace.range(first..).expect("range");
            for entry in range.take(SCAN_LEN) {
                black_box(entry.expect("entry"));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, writes, reads);
criterion_main!(benches);
