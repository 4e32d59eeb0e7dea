//! What a memtable costs by itself: a store without a log whose entries all stay in memory,
//! written in batches, so that little but inserts is measured; then gets and scans.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use siltstone::{
    Db, Durability, Keyspace, KeyspaceOptions, Options, Runtime, RuntimeOptions, Wal, WriteBatch,
};
use tempfile::TempDir;

const VALUE_LEN: usize = 100;
const BATCH_LEN: u64 = 1000;
const SCAN_LEN: usize = 1000;
const MEMORY_BYTES: usize = 8 << 30;
/// Entries: what a full memtable of 64 MiB holds, and ten times as many.
const SIZES: [u64; 2] = [500_000, 5_000_000];

#[derive(Clone, Copy)]
enum Keys {
    Random,
    Sequential,
}

impl Keys {
    fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sequential => "sequential",
        }
    }

    /// 16 bytes.
    fn key(self, number: u64) -> [u8; 16] {
        let number = match self {
            Self::Random => mixed(number),
            Self::Sequential => number,
        };
        let mut key = *b"bench key       ";
        key[8..].copy_from_slice(&number.to_be_bytes());
        key
    }
}

/// The mixing step of `SplitMix64`: numbers in an order that looks random, each once.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct Store {
    keyspace: Keyspace,
    db: Db,
    /// Removed last.
    _dir: TempDir,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = RuntimeOptions::new().memory_bytes_max(MEMORY_BYTES);
        let runtime = Runtime::new(options).expect("runtime");
        let options = Options::new()
            .wal(Wal::Off)
            .memtable_bytes_max(1 << 30)
            .replay_bytes_max(1 << 50);
        let db = Db::open_with(dir.path().join("store"), options, &runtime).expect("open");
        let keyspace = db
            .keyspace("bench", KeyspaceOptions::new())
            .expect("keyspace");
        Self {
            keyspace,
            db,
            _dir: dir,
        }
    }

    /// Writes `entries` and tells how long the writes took, without making the batches.
    fn fill(&self, keys: Keys, entries: u64) -> Duration {
        let mut took = Duration::ZERO;
        for first in (0..entries).step_by(usize::try_from(BATCH_LEN).expect("few")) {
            let mut batch = WriteBatch::new();
            for number in first..first + BATCH_LEN {
                batch
                    .put(&self.keyspace, keys.key(number), [7; VALUE_LEN])
                    .expect("put");
            }
            let start = Instant::now();
            self.db.write(batch, Durability::Buffered).expect("write");
            took += start.elapsed();
        }
        took
    }
}

fn memtable(criterion: &mut Criterion) {
    for entries in SIZES {
        let mut group = criterion.benchmark_group("memtable");
        group.sample_size(10).sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(entries));
        for keys in [Keys::Random, Keys::Sequential] {
            let name = format!("insert/{}", keys.name());
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                bencher.iter_custom(|rounds| {
                    (0..rounds).map(|_| Store::new().fill(keys, entries)).sum()
                });
            });
        }

        let store = Store::new();
        store.fill(Keys::Random, entries);
        let mut next = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("get/random", entries), |bencher| {
            bencher.iter(|| {
                next += 1;
                let key = Keys::Random.key(mixed(next) % entries);
                store.keyspace.get(key).expect("get").expect("is there")
            });
        });
        group.throughput(Throughput::Elements(SCAN_LEN as u64));
        group.bench_function(BenchmarkId::new("scan/1000", entries), |bencher| {
            bencher.iter(|| {
                next += 1;
                // Hardly ever so close to the end that the scan is shorter.
                let range = store.keyspace.range(Keys::Random.key(next)..);
                for entry in range.expect("range").take(SCAN_LEN) {
                    black_box(entry.expect("entry"));
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, memtable);
criterion_main!(benches);
