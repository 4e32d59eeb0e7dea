//! What many entries at once cost, and what it costs to have them synced.

#[path = "common/records.rs"]
mod records;
#[path = "common/store.rs"]
mod store;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use siltstone::{Durability, WriteBatch};

use records::{KEY_LEN, key, mixed, value};
use store::Store;

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    let store = Store::new();
    let mut next = 0;
    let record_bytes = (KEY_LEN + value(0).len()) as u64;
    for (name, len, durability) in [
        ("fillbatch/10", 10, Durability::Buffered),
        ("fillbatch/100", 100, Durability::Buffered),
        ("fillbatch/1000", 1000, Durability::Buffered),
        ("fillsync/1", 1, Durability::Synced),
        ("fillsync/100", 100, Durability::Synced),
    ] {
        group.throughput(Throughput::Bytes(len * record_bytes));
        let mut fill = || {
            let mut batch = WriteBatch::new();
            for _ in 0..len {
                next += 1;
                let put = batch.put(&store.keyspace, key(mixed(next)), value(next));
                put.expect("put");
            }
            batch
        };
        group.bench_function(name, |bencher| {
            let write = |batch| store.db.write(batch, durability).expect("write");
            bencher.iter_batched(&mut fill, write, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
