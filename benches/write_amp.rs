//! Write amplification as criterion measures it: bytes written for each byte that the user wrote,
//! in all and by cause, through a measurement of its own. The counts are the store's, see
//! `siltstone::Stats`; each run compares them with the kernel's, and fails if they differ by more
//! than a tenth.
//!
//! `SILTSTONE_RATIO_MAX=1600` adds the case where the data is 1600 memtables large, which takes
//! long; `SILTSTONE_STATE_BYTES=2147483648` makes the commit loop as large as a real one (memtables
//! are a 32nd of it). `TMPDIR` chooses the disk.

#[path = "common/amplification.rs"]
mod amplification;
#[path = "common/commit_loop.rs"]
mod commit_loop;
#[path = "common/draw.rs"]
mod draw;
#[path = "common/records.rs"]
mod records;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use siltstone::{Db, Keyspace, KeyspaceOptions, Options, Runtime, RuntimeOptions, Stats};

use amplification::WriteAmplification;
use commit_loop::{Flush, Loop};
use draw::{Random, Zipfian};
use records::{KEY_LEN, VALUE_LEN, key, mixed, value};

/// 256 times less than by default, so that few bytes fill several levels.
const MEMTABLE_BYTES: u64 = 256 << 10;
const RECORD_BYTES: u64 = (KEY_LEN + VALUE_LEN) as u64;
/// Runs that differ; criterion's samples repeat them.
const SEEDS: u64 = 2;

/// How tables are merged, by name.
type Strategy = (&'static str, fn() -> KeyspaceOptions);

const STRATEGIES: &[Strategy] = &[
    ("lazy-leveled", layout),
    ("leveled", || {
        layout().compaction(siltstone::Strategy::Leveled)
    }),
];

/// The engine's default, with tables as large as memtables.
fn layout() -> KeyspaceOptions {
    KeyspaceOptions::new().table_bytes(MEMTABLE_BYTES)
}

/// Sizes of the data in memtables, and how often each record is overwritten on the average.
const RATIOS: &[(u64, u64)] = &[(10, 8), (160, 2), (1600, 1)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Workload {
    Uniform,
    Zipfian,
    /// A get, and a put of what follows from it.
    StateStore,
    /// A delete or a put.
    Deletes,
}

const WORKLOADS: &[(&str, Workload)] = &[
    ("uniform", Workload::Uniform),
    ("zipfian", Workload::Zipfian),
    ("state_store", Workload::StateStore),
    ("deletes", Workload::Deletes),
];

/// What bytes are written for, by name.
type Cause = (&'static str, fn(&Stats) -> u64);

const CAUSES: &[Cause] = &[
    ("total", written),
    ("wal", |stats| stats.wal_bytes),
    ("flush", |stats| stats.flush_bytes),
    ("compaction", |stats| stats.compaction_written_bytes),
    ("manifest", |stats| stats.manifest_bytes),
];

fn written(stats: &Stats) -> u64 {
    stats.wal_bytes
        + stats.manifest_bytes
        + stats.flush_bytes
        + stats.compaction_written_bytes
        + stats.restore_bytes
}

/// Bytes that this process has made the kernel write to disks, counted by page.
fn kernel_count() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[derive(Debug, Clone, Copy)]
struct Case {
    workload: Workload,
    layout: fn() -> KeyspaceOptions,
    ratio: u64,
    overwrites: u64,
}

#[expect(clippy::cast_precision_loss, reason = "ratios for people to read")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

impl Case {
    fn keys(&self) -> u64 {
        self.ratio * MEMTABLE_BYTES / RECORD_BYTES
    }

    /// Fills a store, settles it, changes it, settles it again. Returns what the changes have made
    /// it write, by cause.
    fn run(&self, seed: u64) -> siltstone::Result<Vec<f64>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Without threads the work is done here and at once, however fast the writes are: flushes
        // of whole backlogs would write less than a busy store does in the long run.
        let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
        let memtable_bytes = usize::try_from(MEMTABLE_BYTES).expect("a size");
        let options = Options::new().memtable_bytes_max(memtable_bytes);
        let db = Db::open_with(dir.path().join("store"), options, &runtime)?;
        let keyspace = db.keyspace("bench", (self.layout)())?;
        for number in 0..self.keys() {
            keyspace.put(key(number), value(number))?;
            work(&runtime, number);
        }
        settle(&db, &runtime)?;
        let (before, kernel_before) = (db.stats()?, kernel_count());
        self.change(&keyspace, &runtime, seed)?;
        settle(&db, &runtime)?;
        let (after, kernel_after) = (db.stats()?, kernel_count());
        db.close()?;
        compare(
            written(&after) - written(&before),
            kernel_after - kernel_before,
        );
        let user = after.user_bytes - before.user_bytes;
        let causes = CAUSES
            .iter()
            .map(|(_, bytes)| bytes(&after) - bytes(&before));
        Ok(causes.map(|bytes| ratio(bytes, user)).collect())
    }

    fn change(&self, keyspace: &Keyspace, runtime: &Runtime, seed: u64) -> siltstone::Result<()> {
        let keys = self.keys();
        let (mut random, zipfian) = (Random::new(seed), Zipfian::new(keys));
        for number in 0..keys * self.overwrites {
            let key = match self.workload {
                Workload::Zipfian => key(mixed(zipfian.draw(&mut random)) % keys),
                _ => key(random.below(keys)),
            };
            let deletes = self.workload == Workload::Deletes && random.below(2) == 0;
            if deletes {
                keyspace.delete(key)?;
            } else if self.workload == Workload::StateStore {
                let found = keyspace.get(key)?.map_or(0, |found| u64::from(found[0]));
                keyspace.put(key, value(number + found))?;
            } else {
                keyspace.put(key, value(number))?;
            }
            work(runtime, number);
        }
        Ok(())
    }
}

fn work(runtime: &Runtime, number: u64) {
    if number.is_multiple_of(100) {
        while runtime.run_pending() {}
    }
}

fn settle(db: &Db, runtime: &Runtime) -> siltstone::Result<()> {
    db.flush()?;
    while runtime.run_pending() {}
    Ok(())
}

/// The store's count against the kernel's, which knows nothing of file systems in memory.
fn compare(counted: u64, kernels: u64) {
    let difference = ratio(kernels, counted);
    if kernels == 0 {
        eprintln!("the kernel counts nothing here: is TMPDIR on a disk?");
        return;
    }
    assert!(
        (0.9..1.1).contains(&difference),
        "{counted} bytes by the store's count, {kernels} by the kernel's"
    );
}

fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Each cause is a benchmark; those of the same run share it.
fn stores(criterion: &mut Criterion<WriteAmplification>) {
    let ratio_max = if is_test() {
        10
    } else {
        variable("SILTSTONE_RATIO_MAX").unwrap_or(160)
    };
    let runs = RefCell::new(HashMap::new());
    for (cause, (cause_name, _)) in CAUSES.iter().enumerate() {
        let mut group = criterion.benchmark_group(format!("write_amplification_{cause_name}"));
        // One run a sample, not a rising number of them.
        group.sampling_mode(SamplingMode::Flat);
        for (strategy, layout) in STRATEGIES {
            for (name, workload) in WORKLOADS {
                for (ratio, overwrites) in RATIOS.iter().filter(|(ratio, _)| *ratio <= ratio_max) {
                    let case = Case {
                        workload: *workload,
                        layout: *layout,
                        ratio: *ratio,
                        overwrites: *overwrites,
                    };
                    let id = BenchmarkId::new(format!("{name}/{strategy}"), ratio);
                    let mut nth = 0;
                    group.bench_function(id, |bencher| {
                        let mut one = || {
                            nth += 1;
                            let seed = nth % SEEDS;
                            let found = (strategy, name, ratio, seed);
                            let run = || case.run(seed).expect("a run");
                            runs.borrow_mut().entry(found).or_insert_with(run)[cause]
                        };
                        bencher.iter_custom(|iterations| (0..iterations).map(|_| one()).sum());
                    });
                }
            }
        }
        group.finish();
    }
}

/// A task without a log of its own, whose memtables are written when they are full, against one
/// that writes them at each commit.
fn commit_loops(criterion: &mut Criterion<WriteAmplification>) {
    let state_bytes = variable("SILTSTONE_STATE_BYTES").unwrap_or(32 << 20);
    let state_bytes = if is_test() { 4 << 20 } else { state_bytes };
    let mut group = criterion.benchmark_group("write_amplification_of_commits");
    group.sampling_mode(SamplingMode::Flat);
    for (name, zipfian) in [("uniform", false), ("zipfian", true)] {
        for commits_per_memtable in [5, 50] {
            let case = Loop {
                zipfian,
                commits_per_memtable,
                state_bytes,
            };
            let ways = [
                ("when_full", Flush::WhenFull),
                ("each_commit", Flush::EachCommit),
            ];
            let mut found = Vec::new();
            for (way_name, way) in ways {
                let run = RefCell::new(None);
                let id = BenchmarkId::new(format!("{name}/{way_name}"), commits_per_memtable);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|iterations| {
                        let mut run = run.borrow_mut();
                        let one = *run.get_or_insert_with(|| case.run(way).expect("a run"));
                        (0..iterations).map(|_| one).sum()
                    });
                });
                found.extend(run.into_inner());
            }
            if let [full, each] = found[..] {
                eprintln!(
                    "{name}, {commits_per_memtable} commits a memtable: {full:.2} B/B flushed when \
                     full, {each:.2} at each commit: {:.1} times as much",
                    each / full
                );
            }
        }
    }
    group.finish();
}

/// Runs differ little, and each is long: the fewest samples that criterion takes.
fn configured() -> Criterion<WriteAmplification> {
    Criterion::default()
        .with_measurement(WriteAmplification)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(1))
}

criterion_group!(name = benches; config = configured(); targets = stores, commit_loops);
criterion_main!(benches);
