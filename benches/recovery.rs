//! What opening costs: after a good close, with everything in tables or not, and after a kill.

#[path = "common/records.rs"]
mod records;

use std::path::{Path, PathBuf};
use std::{fs, io};

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use siltstone::{Db, KeyspaceOptions, Options};
use tempfile::TempDir;

use records::{key, mixed, value};

const ENTRIES: u64 = 100_000;

/// Copies a store as a kill would leave it: with all that was handed to the system.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn open(path: &Path) -> Db {
    let db = Db::open(path, Options::new()).expect("open");
    let keyspace = db.keyspace("bench", KeyspaceOptions::new());
    let found = keyspace.expect("keyspace").get(key(mixed(0)));
    assert!(found.expect("get").is_some());
    db
}

/// A new store whose entries are all in its log, and in a memtable.
fn fill(path: &Path) -> Db {
    let db = Db::open(path, Options::new()).expect("open");
    let keyspace = db.keyspace("bench", KeyspaceOptions::new());
    let keyspace = keyspace.expect("keyspace");
    for number in 0..ENTRIES {
        let put = keyspace.put(key(mixed(number)), value(number));
        put.expect("put");
    }
    db
}

fn opens(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name| dir.path().join(name);
    let (flushed, closed, killed) = (path("flushed"), path("closed"), path("killed"));
    let db = fill(&flushed);
    db.flush().expect("flush");
    db.close().expect("close");
    let db = fill(&closed);
    copy(&closed, &killed).expect("copy");
    db.close().expect("close");

    let mut group = criterion.benchmark_group("recovery");
    group.sampling_mode(SamplingMode::Flat);
    group.sample_size(10);
    group.throughput(Throughput::Elements(ENTRIES));
    for (name, source) in [
        ("flushed", &flushed),
        ("closed", &closed),
        ("killed", &killed),
    ] {
        let fresh = || -> (TempDir, PathBuf) {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let path = dir.path().join("store");
            copy(source, &path).expect("copy");
            (dir, path)
        };
        group.bench_function(name, |bencher| {
            let open = |(dir, path): (TempDir, PathBuf)| (open(&path), dir);
            bencher.iter_batched(fresh, open, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, opens);
criterion_main!(benches);
