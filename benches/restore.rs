//! A restore of a whole store: records a second until it serves, and bytes written for each byte
//! of records until everything is merged.
//!
//! `SILTSTONE_RECORDS` sets the number of records (5 million), `SILTSTONE_SOURCE=file` reads them
//! from a changelog in files instead of one in memory, `SILTSTONE_STORES` splits them over so many
//! stores. `TMPDIR` chooses the disk.

#[path = "common/records.rs"]
mod records;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use siltstone::changelog::{Changelog, File, FileOptions, Memory, Partition, RecordRef};
use siltstone::env::OsEnv;
use siltstone::store::{Task, TaskOptions};
use siltstone::{Runtime, RuntimeOptions};

use records::{KEY_LEN, VALUE_LEN, key, mixed, value};

/// Records of one commit of the changelog.
const COMMIT_LEN: u64 = 50_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Hundredths of a second that this process has used of processors: what a restore costs on a
/// machine that has other work too. 0 where the system does not tell.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15; the second one, a name, may hold anything but ends with a parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn store_name(index: u64) -> String {
    format!("store-{index}")
}

/// Fills the partitions of all stores with records whose keys are all different.
fn fill(changelog: &dyn Changelog, records: u64, stores: u64) {
    let partitions: Vec<Partition> = (0..stores)
        .map(|index| Partition::new(format!("bench-{}-changelog", store_name(index)), 0))
        .collect();
    let mut session = changelog.claim("bench-0", &partitions).expect("claim");
    for number in 0..records {
        let (key, value) = (key(mixed(number)), value(number));
        let record = RecordRef::new(&key, Some(&value));
        let store = usize::try_from(number % stores).expect("few stores");
        session.append(store, record).expect("append");
        if number % COMMIT_LEN == COMMIT_LEN - 1 {
            let commit = session.prepare().expect("prepare");
            session.wait(commit).expect("commit");
        }
    }
    let commit = session.prepare().expect("prepare");
    session.wait(commit).expect("commit");
    session.close().expect("close");
}

/// Restores into an empty directory, and tells how long it took.
fn restore(changelog: &Arc<dyn Changelog>, dir: &Path, records: u64, stores: u64) -> Duration {
    let runtime = Runtime::new(RuntimeOptions::new()).expect("runtime");
    let mut options =
        TaskOptions::new("bench", 0, dir.join("state"), Arc::clone(changelog)).runtime(&runtime);
    for index in 0..stores {
        options = options.store(store_name(index).as_str());
    }
    let (start, ticks) = (Instant::now(), processor_ticks());
    let task = Task::open(options).expect("open");
    let took = start.elapsed();
    let ticks = processor_ticks() - ticks;
    assert_eq!(task.restored().records(), records);
    let raw_bytes = records * (KEY_LEN + VALUE_LEN) as u64;
    // The merge goes on behind.
    let merging = Instant::now();
    while task.stats().expect("stats").levels[0].runs >= 4 {
        std::thread::yield_now();
    }
    let merged = task.stats().expect("stats");
    let merge_bytes = merged.compaction_written_bytes;
    let records_per_ms = u128::from(records) / took.as_millis().max(1);
    let per_mille = |bytes: u64| bytes * 1000 / raw_bytes;
    eprintln!(
        "{records_per_ms} K records/s, {} ms of processors; {} bytes written for 1000 of records, \
         {} of them by the merge in {} ms",
        ticks * 10,
        per_mille(merged.restore_bytes + merge_bytes),
        per_mille(merge_bytes),
        merging.elapsed().as_millis(),
    );
    black_box(task).close().expect("close");
    took
}

fn restores(criterion: &mut Criterion) {
    let records = variable("SILTSTONE_RECORDS").unwrap_or(5_000_000);
    let stores = variable("SILTSTONE_STORES").unwrap_or(1);
    let from_file = std::env::var("SILTSTONE_SOURCE").is_ok_and(|source| source == "file");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let changelog: Arc<dyn Changelog> = if from_file {
        let path = dir.path().join("changelog");
        Arc::new(File::open(path, FileOptions::new()).expect("changelog"))
    } else {
        Arc::new(Memory::new(Arc::new(OsEnv::new())))
    };
    fill(&*changelog, records, stores);
    let mut group = criterion.benchmark_group("restore");
    group.sampling_mode(SamplingMode::Flat);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(1));
    group.throughput(Throughput::Elements(records));
    let source = if from_file { "file" } else { "memory" };
    group.bench_function(format!("{source}/{stores}"), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                let target = tempfile::tempdir().expect("a temporary directory");
                took += restore(&changelog, target.path(), records, stores);
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, restores);
criterion_main!(benches);
