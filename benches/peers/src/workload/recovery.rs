//! Opening after a kill: all that is in memory has to come back from the log.

use std::io::Write;

use super::Job;
use crate::Result;
use crate::engine::Engine;
use crate::meter::{Findings, Meter};
use crate::records::{Keys, check_value, value};
use crate::settings::Settings;

/// Records that fill most of a memtable of the default size in all engines, and no more.
const RECORDS_MAX: u64 = 350_000;

fn keys(job: &Job) -> Keys {
    Keys::new(job.records.min(RECORDS_MAX))
}

/// Fills the log, says so, and waits for the end. The parent kills it.
pub(crate) fn fill<E: Engine>(job: &Job) -> Result<()> {
    let engine: E = job.open(&Settings::default())?;
    let keys = keys(job);
    for nth in 0..keys.records {
        let number = keys.shuffled(nth);
        engine.put(&keys.key(number), &value(number, 0))?;
    }
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// Opens what the kill has left, up to the first answer.
pub(super) fn run<E: Engine>(job: &Job) -> Result<Findings> {
    let keys = keys(job);
    let mut findings = Findings::default();
    let meter = Meter::start();
    let engine: E = job.open(&Settings::default())?;
    engine.get(&keys.key(0), |found| check_value(found, 0))??;
    findings.add("open_s", meter.seconds());
    meter.finish(keys.records, &mut findings);
    super::writes::check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}
