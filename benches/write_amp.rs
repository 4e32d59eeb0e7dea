//! Write amplification as criterion measures it: bytes written for each byte that the user wrote,
//! through a measurement of its own. The counts are the store's: see `siltstone::Stats`.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use siltstone::{Db, KeyspaceOptions, Options, Runtime, RuntimeOptions, Stats, Wal};

const VALUE_LEN: usize = 112;
/// Entries that one run writes: 64 MiB, in an order that looks random.
const WRITES: u64 = 560_000;

/// Counts what is written for each byte of the user.
struct WriteAmplification;

impl Measurement for WriteAmplification {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) -> Self::Intermediate {}

    fn end(&self, (): Self::Intermediate) -> Self::Value {
        // Only runs that return their own value are measured.
        0.0
    }

    fn add(&self, first: &Self::Value, second: &Self::Value) -> Self::Value {
        first + second
    }

    fn zero(&self) -> Self::Value {
        0.0
    }

    fn to_f64(&self, value: &Self::Value) -> f64 {
        // Criterion takes a value of zero for a broken clock.
        value.max(f64::MIN_POSITIVE)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &Ratio
    }
}

struct Ratio;

impl ValueFormatter for Ratio {
    fn scale_values(&self, _typical: f64, _values: &mut [f64]) -> &'static str {
        "B/B"
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        _throughput: &Throughput,
        _values: &mut [f64],
    ) -> &'static str {
        "B/B"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "B/B"
    }
}

fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Overwrites `keys` keys uniformly.
fn overwrite(keys: u64, seed: u64) -> siltstone::Result<Stats> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // 64 times less of everything than by default, so that few bytes fill several levels.
    // No write-ahead log, as in a store behind a changelog: it adds its own 1.3.
    let options = Options::new().memtable_bytes_max(1 << 20).wal(Wal::Off);
    // Without threads the work is done here and at once, however fast the writes are: flushes
    // of whole backlogs would write less than a busy store does in the long run.
    let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
    let db = Db::open_with(dir.path().join("store"), options, &runtime)?;
    let keyspace = db.keyspace("bench", KeyspaceOptions::new().table_bytes(256 << 10))?;
    for number in 0..WRITES {
        let key = (mixed(number + seed) % keys).to_be_bytes();
        let mut value = [0; VALUE_LEN];
        for (index, chunk) in value.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&mixed(number ^ (index as u64) << 40).to_le_bytes());
        }
        keyspace.put(key, value)?;
        if number % 1000 == 0 {
            while runtime.run_pending() {}
        }
    }
    db.flush()?;
    while runtime.run_pending() {}
    let stats = db.stats()?;
    db.close()?;
    Ok(stats)
}

fn uniform_overwrite(criterion: &mut Criterion<WriteAmplification>) {
    let mut group = criterion.benchmark_group("write_amplification");
    // One run a sample, not a rising number of them.
    group.sampling_mode(SamplingMode::Flat);
    for (name, keys) in [("4 MiB", 35_000), ("16 MiB", 140_000)] {
        group.bench_function(BenchmarkId::new("uniform_overwrite", name), |bencher| {
            bencher.iter_custom(|iterations| {
                let run = |seed| overwrite(keys, seed).expect("a run").write_amplification();
                (0..iterations).map(|number| run(number << 32)).sum()
            });
        });
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
        .without_plots()
}

criterion_group!(name = benches; config = configured(); targets = uniform_overwrite);
criterion_main!(benches);
