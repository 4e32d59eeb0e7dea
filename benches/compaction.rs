//! What merging costs: runs of level 0 that overlap, merged into the last level.

#[path = "common/records.rs"]
mod records;
#[path = "common/store.rs"]
mod store;

use criterion::{BatchSize, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

use records::{KEY_LEN, VALUE_LEN, key, mixed, value};
use store::Store;

/// Fewer runs than the ones that make the store compact by itself.
const RUNS: u64 = 3;
const RUN_LEN: u64 = 20_000;

/// A store with that many runs over the same keys.
fn runs() -> Store {
    let store = Store::new();
    for run in 0..RUNS {
        for number in 0..RUN_LEN {
            let number = run * RUN_LEN + number;
            let key = key(mixed(number) % (2 * RUN_LEN));
            store.keyspace.put(key, value(number)).expect("put");
        }
        store.db.flush().expect("flush");
    }
    store
}

fn merges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compaction");
    group.sampling_mode(SamplingMode::Flat);
    group.sample_size(10);
    group.throughput(Throughput::Bytes(
        RUNS * RUN_LEN * (KEY_LEN + VALUE_LEN) as u64,
    ));
    group.bench_function("overlapping_runs", |bencher| {
        let merge = |store: Store| {
            store.keyspace.compact().expect("compact");
            store
        };
        bencher.iter_batched(runs, merge, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, merges);
criterion_main!(benches);
