//! What a changelog costs a task: writes through it, and commits.

#[path = "common/records.rs"]
mod records;

use std::sync::Arc;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use siltstone::changelog::{Changelog, File, FileOptions, Memory};
use siltstone::env::OsEnv;
use siltstone::store::serde::Bytes;
use siltstone::store::{KeyValue, Task, TaskOptions};

use records::{KEY_LEN, VALUE_LEN, key, mixed, value};

const KEYS: u64 = 10_000;

/// Puts so many records and commits them.
fn commit(task: &mut Task, store: &KeyValue<Bytes, Bytes>, next: &mut u64, records: u64) {
    for _ in 0..records {
        *next += 1;
        let put = store.put(task, &key(mixed(*next) % KEYS), &value(*next));
        put.expect("put");
    }
    task.commit().expect("commit");
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("changelog");
    group.sampling_mode(SamplingMode::Flat);
    group.sample_size(20);
    for kind in ["memory", "file"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let changelog: Arc<dyn Changelog> = if kind == "file" {
            let path = dir.path().join("changelog");
            Arc::new(File::open(path, FileOptions::new()).expect("changelog"))
        } else {
            Arc::new(Memory::new(Arc::new(OsEnv::new())))
        };
        let options = TaskOptions::new("bench", 0, dir.path().join("state"), changelog);
        let mut task = Task::open(options.store("store")).expect("task");
        let store = task.key_value("store", Bytes, Bytes).expect("store");
        let mut next = 0;
        for records in [1, 100, 10_000] {
            group.throughput(Throughput::Bytes(records * (KEY_LEN + VALUE_LEN) as u64));
            group.bench_function(format!("{kind}/{records}"), |bencher| {
                bencher.iter(|| commit(&mut task, &store, &mut next, records));
            });
        }
        task.close().expect("close");
    }
    group.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);
