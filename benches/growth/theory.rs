//! What growing work may cost, by a model of the parts of an operation. Only how it grows along a
//! series counts, not what it is.

use crate::case::{CACHE_BYTES, Case, Kind, MEMORY_BYTES, MEMTABLE_BYTES};

/// A put into a memtable and its log, what it costs for each byte of the record, and what it waits
/// for memory where the memtables in use do not fit into the processor's cache.
const PUT_NS: f64 = 800.0;
const PUT_NS_A_BYTE: f64 = 0.8;
const PUT_NS_UNCACHED: f64 = 1000.0;
const PROCESSOR_CACHE_BYTES: f64 = 32.0 * 1024.0 * 1024.0;
/// A get from the block cache, for each byte of the value, for a block that is not in the cache,
/// and for each run whose filter is asked.
const GET_NS: f64 = 750.0;
const GET_NS_A_BYTE: f64 = 0.05;
const MISS_NS: f64 = 4000.0;
const RUN_NS: f64 = 150.0;
/// An entry of a walk through everything.
const SCAN_NS: f64 = 100.0;
const SCAN_NS_A_BYTE: f64 = 0.5;
/// Merging an entry into another level.
const MERGE_NS: f64 = 100.0;
const MERGE_NS_A_BYTE: f64 = 1.0;
/// What the log has beside each record.
const LOG_BYTES: f64 = 36.0;
/// What a memtable counts beside each record.
const MEMTABLE_OVERHEAD_BYTES: f64 = 80.0;
/// What LZ4 leaves of the records of these benchmarks.
const COMPRESSED: f64 = 0.65;

/// Memtables in the data, bytes that the default picker writes for each byte flushed, and runs that
/// a key may be in, for uniform overwrites: `docs/architecture.md`, "Measured".
const LAZY_LEVELED: &[(f64, f64, f64)] = &[
    (1.0, 1.0, 1.0),
    (16.0, 3.5, 3.3),
    (160.0, 5.0, 6.2),
    (1600.0, 5.7, 6.1),
];

/// What a phase may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Processor time of an operation.
    pub(crate) ns: f64,
    /// Bytes written for each byte of the user; none where it is not settled.
    pub(crate) written: Option<f64>,
}

/// What an operation of the phase may cost, but for a factor that all cases of a series share.
pub(crate) fn expected(case: &Case, phase: &str) -> Expected {
    let model = Model::of(case);
    let get = model.get_ns();
    let put = model.put_ns();
    let settled = |before: f64| Expected {
        ns: before + model.rewrites * (MERGE_NS + MERGE_NS_A_BYTE * model.record),
        written: Some(model.written(case)),
    };
    let quick = |ns| Expected { ns, written: None };
    match phase {
        "load" => quick(put),
        "load-settled" => settled(put),
        "get" => quick(get),
        "update" => quick(get + put),
        "update-settled" => settled(get + put),
        "scan" => quick(SCAN_NS + SCAN_NS_A_BYTE * model.record),
        // A store costs the same, however many there are.
        _ => quick(1.0),
    }
}

struct Model {
    record: f64,
    /// How often a byte is written to tables, and in how many runs a key may be.
    rewrites: f64,
    runs: f64,
    /// The part of the blocks that the cache does not hold, and the part of the memtables that
    /// the processor's cache does not.
    uncached: f64,
    memtables_uncached: f64,
}

impl Model {
    #[expect(clippy::cast_precision_loss, reason = "a model is rough")]
    fn of(case: &Case) -> Self {
        let record = case.record_bytes() as f64;
        let data = record * case.records as f64;
        let in_memtables = (record + MEMTABLE_OVERHEAD_BYTES) * case.records as f64;
        // One store seals its memtable when it is full; many grow until the budget is spent.
        let memtables_max =
            (MEMTABLE_BYTES as f64 * case.stores as f64).min((MEMORY_BYTES - CACHE_BYTES) as f64);
        let memtables = memtables_max.min(in_memtables);
        let (rewrites, runs) = lazy_leveled(in_memtables / memtables_max);
        Self {
            record,
            rewrites,
            runs,
            uncached: (1.0 - CACHE_BYTES as f64 / data).max(0.0),
            memtables_uncached: 1.0 - (PROCESSOR_CACHE_BYTES / memtables).min(1.0),
        }
    }

    fn put_ns(&self) -> f64 {
        PUT_NS + PUT_NS_A_BYTE * self.record + PUT_NS_UNCACHED * self.memtables_uncached
    }

    fn get_ns(&self) -> f64 {
        let found = GET_NS + GET_NS_A_BYTE * self.record + RUN_NS * self.runs;
        found + MISS_NS * self.uncached
    }

    fn written(&self, case: &Case) -> f64 {
        let log = match case.kind {
            Kind::Tasks => 0.0,
            Kind::Keyspaces | Kind::Dbs => 1.0 + LOG_BYTES / self.record,
        };
        log + COMPRESSED * self.rewrites
    }
}

/// Between the points that were simulated: in a straight line over the logarithm of the size.
fn lazy_leveled(memtables: f64) -> (f64, f64) {
    let at = memtables.max(1.0);
    let last = LAZY_LEVELED.len() - 1;
    let upper = LAZY_LEVELED.iter().position(|(size, _, _)| at <= *size);
    let upper = upper.unwrap_or(last).max(1);
    let (low, high) = (LAZY_LEVELED[upper - 1], LAZY_LEVELED[upper]);
    let part = (at / low.0).ln() / (high.0 / low.0).ln();
    let between = |low: f64, high: f64| low + part * (high - low);
    (between(low.1, high.1), between(low.2, high.2))
}
