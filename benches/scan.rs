//! What a range costs: from one end to the other, and short ones behind a seek.

#[path = "common/filled.rs"]
mod filled;
#[path = "common/records.rs"]
mod records;
#[path = "common/store.rs"]
mod store;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use filled::{ENTRIES, filled};
use records::{key, mixed};

fn scans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    let store = filled();
    let mut next = 0;
    for len in [10, 100] {
        group.throughput(Throughput::Elements(len));
        group.bench_function(format!("seekrandom/{len}"), |bencher| {
            bencher.iter(|| {
                next += 1;
                let first = key(mixed(next) % (ENTRIES - len));
                let range = store.keyspace.range(first..).expect("range");
                let mut visited = 0;
                for entry in range.take(usize::try_from(len).expect("short")) {
                    black_box(entry.expect("entry"));
                    visited += 1;
                }
                assert_eq!(visited, len);
            });
        });
    }
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("readseq", |bencher| {
        bencher.iter(|| {
            let entries = store.keyspace.entries().expect("entries");
            let visited = entries.inspect(|entry| assert!(entry.is_ok())).count();
            assert_eq!(visited as u64, ENTRIES);
        });
    });
    group.bench_function("readreverse", |bencher| {
        bencher.iter(|| {
            let entries = store.keyspace.entries().expect("entries").rev();
            let visited = entries.inspect(|entry| assert!(entry.is_ok())).count();
            assert_eq!(visited as u64, ENTRIES);
        });
    });
    group.finish();
}

criterion_group!(benches, scans);
criterion_main!(benches);
