//! What a point read costs: in the cache, spread over all blocks, of keys that are not there, and
//! in the memtable.

#[path = "common/filled.rs"]
mod filled;
#[path = "common/records.rs"]
mod records;
#[path = "common/store.rs"]
mod store;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use filled::{ENTRIES, filled};
use records::{key, mixed, value};
use store::Store;

fn gets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let store = filled();
    let mut next = 0;
    group.bench_function("cached", |bencher| {
        // Few keys: their blocks stay in the processor's cache.
        bencher.iter(|| {
            next = (next + 1) % 1000;
            let found = store.keyspace.get(key(next)).expect("get");
            found.expect("is there")
        });
    });
    group.bench_function("readrandom", |bencher| {
        bencher.iter(|| {
            next += 1;
            let found = store.keyspace.get(key(mixed(next) % ENTRIES));
            found.expect("get").expect("is there")
        });
    });
    group.bench_function("readmissing", |bencher| {
        bencher.iter(|| {
            next += 1;
            let found = store.keyspace.get(key(ENTRIES + mixed(next) / 2));
            assert!(found.expect("get").is_none());
        });
    });
    let fresh = Store::new();
    for number in 0..ENTRIES {
        fresh.keyspace.put(key(number), value(number)).expect("put");
    }
    group.bench_function("memtable", |bencher| {
        bencher.iter(|| {
            next += 1;
            let found = fresh.keyspace.get(key(mixed(next) % ENTRIES));
            found.expect("get").expect("is there")
        });
    });
    group.finish();
}

criterion_group!(benches, gets);
criterion_main!(benches);
