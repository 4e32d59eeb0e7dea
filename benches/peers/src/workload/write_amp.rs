//! Write amplification as the kernel counts it: bytes written for each byte of the user, when a
//! full map is overwritten at random and everything has settled.

use super::Job;
use super::writes::check_all;
use crate::Result;
use crate::engine::Engine;
use crate::meter::{Findings, Meter, disk_bytes, settle, written_bytes};
use crate::records::{RECORD_BYTES, Random, value};
use crate::settings::Settings;

/// How large the data is beside a memtable, and how much of it is overwritten.
#[derive(Debug)]
pub(super) struct Shape {
    /// Bytes of all records for a byte of memtable.
    ratio: u64,
    /// Puts for each record.
    overwrites: u64,
}

/// 10 million records beside 64 MiB: two levels.
pub(super) const SMALL: Shape = Shape {
    ratio: 17,
    overwrites: 1,
};
/// 5.5 million records beside 4 MiB: three levels. Tables and the first level of all engines are
/// scaled with the memtable, so that fewer records tell the same.
pub(super) const LARGE: Shape = Shape {
    ratio: 160,
    overwrites: 2,
};

#[expect(clippy::cast_precision_loss, reason = "ratios for people to read")]
pub(super) fn overwrite<E: Engine>(job: &Job, shape: &Shape, wal: bool) -> Result<Findings> {
    let memtable_bytes = usize::try_from(job.records * RECORD_BYTES / shape.ratio)?.max(64 << 10);
    let settings = Settings {
        memtable_bytes,
        // What is not cache is there for memtables: sealed ones must not pile up.
        cache_bytes: 4 * memtable_bytes,
        wal,
    };
    let engine: E = job.open(&settings)?;
    let keys = job.keys();
    for nth in 0..job.records {
        let number = keys.shuffled(nth);
        engine.put(&keys.key(number), &value(number, 0))?;
    }
    engine.flush()?;
    settle()?;
    let mut findings = Findings::default();
    let mut random = Random::new(job.seed);
    let puts = job.records * shape.overwrites;
    let written = written_bytes()?;
    let meter = Meter::start();
    for nth in 0..puts {
        let number = random.below(job.records);
        engine.put(&keys.key(number), &value(number, nth + 1))?;
    }
    meter.finish(puts, &mut findings);
    engine.flush()?;
    settle()?;
    let bytes = (written_bytes()? - written) as f64;
    findings.add("write_amp", bytes / (puts * RECORD_BYTES) as f64);
    let space = disk_bytes(&job.dir)? as f64;
    findings.add("space_amp", space / (job.records * RECORD_BYTES) as f64);
    check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}
