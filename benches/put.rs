//! What one put costs: the write-ahead log, the memtable, and the flushes beside it.

#[path = "common/records.rs"]
mod records;
#[path = "common/store.rs"]
mod store;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use records::{KEY_LEN, key, mixed, value};
use store::Store;

fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put");
    group.throughput(Throughput::Bytes((KEY_LEN + value(0).len()) as u64));
    let store = Store::new();
    let mut next = 0;
    group.bench_function("fillrandom", |bencher| {
        bencher.iter(|| {
            next += 1;
            let put = store.keyspace.put(key(mixed(next)), value(next));
            put.expect("put");
        });
    });
    group.bench_function("fillseq", |bencher| {
        bencher.iter(|| {
            next += 1;
            store.keyspace.put(key(next), value(next)).expect("put");
        });
    });
    group.bench_function("overwrite", |bencher| {
        bencher.iter(|| {
            next += 1;
            let put = store.keyspace.put(key(mixed(next) % 10_000), value(next));
            put.expect("put");
        });
    });
    group.finish();
    store.db.close().expect("close");
}

criterion_group!(benches, puts);
criterion_main!(benches);
