//! Workloads that only read.

use super::Job;
use crate::Result;
use crate::engine::{Direction, Engine};
use crate::meter::{Findings, Latencies, Meter, peak_mib, repeat};
use crate::records::{Keys, RECORD_BYTES, Random, check_value, number_of};
use crate::settings::Settings;

#[derive(Debug, Clone, Copy)]
pub(super) enum Cached {
    /// The cache is larger than the data.
    All,
    /// The cache is half as large as the data that it is to hold, uncompressed.
    Part,
}

/// One answer in so many is compared to its last byte, the others by their record's number.
const WHOLE_CHECKS: u64 = 64;

/// A cache that holds everything, whatever the engine keeps beside the data itself.
fn cache_for_all(job: &Job) -> Result<Settings> {
    let mut settings = Settings::default();
    let raw = usize::try_from(job.records * RECORD_BYTES)?;
    settings.cache_bytes = settings.cache_bytes.max(2 * raw);
    Ok(settings)
}

fn cache_for_part(job: &Job) -> Result<Settings> {
    let mut settings = Settings::default();
    let raw = usize::try_from(job.records * RECORD_BYTES)?;
    settings.cache_bytes = settings.cache_bytes.min(raw / 2);
    Ok(settings)
}

/// Gets a record of every block, so that what the cache can hold is in it.
fn warm<E: Engine>(engine: &E, keys: &Keys) -> Result<()> {
    for number in (0..keys.records).step_by(8) {
        engine.get(&keys.key(number), |found| check_value(found, number))??;
    }
    Ok(())
}

/// The quick check of most answers, the whole one of some.
pub(super) fn check(found: Option<&[u8]>, number: u64, nth: u64) -> Result<()> {
    if nth.is_multiple_of(WHOLE_CHECKS) {
        return check_value(found, number);
    }
    if found.and_then(number_of) != Some(number) {
        return Err(format!("record {number} is {found:02x?}").into());
    }
    Ok(())
}

pub(super) fn random<E: Engine>(job: &Job, cached: Cached) -> Result<Findings> {
    let settings = match cached {
        Cached::All => cache_for_all(job)?,
        Cached::Part => cache_for_part(job)?,
    };
    let engine: E = job.open(&settings)?;
    let keys = job.keys();
    warm(&engine, &keys)?;
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let mut random = Random::new(job.seed);
    let meter = Meter::start();
    repeat(job.operations(), &mut latencies, |nth| {
        let number = random.below(job.records);
        engine.get(&keys.key(number), |found| check(found, number, nth))?
    })?;
    meter.finish(job.operations(), &mut findings);
    findings.add_latencies(&latencies);
    findings.add("peak_mib", peak_mib()?);
    engine.close()?;
    Ok(findings)
}

pub(super) fn missing<E: Engine>(job: &Job) -> Result<Findings> {
    let engine: E = job.open(&cache_for_all(job)?)?;
    let keys = job.keys();
    warm(&engine, &keys)?;
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let mut random = Random::new(job.seed);
    let mut found = 0;
    let meter = Meter::start();
    repeat(job.operations(), &mut latencies, |_| {
        let key = keys.absent(random.below(job.records));
        found += engine.get(&key, |value| u64::from(value.is_some()))?;
        Ok(())
    })?;
    meter.finish(job.operations(), &mut findings);
    findings.add_latencies(&latencies);
    if found > 0 {
        return Err(format!("{found} records that nobody has put").into());
    }
    engine.close()?;
    Ok(findings)
}

/// Visits everything from one end to the other, twice.
pub(super) fn all<E: Engine>(job: &Job, direction: Direction) -> Result<Findings> {
    const PASSES: u64 = 2;
    let engine: E = job.open(&cache_for_all(job)?)?;
    warm(&engine, &job.keys())?;
    let mut findings = Findings::default();
    let mut wrong = 0;
    let meter = Meter::start();
    for _ in 0..PASSES {
        let mut next = 0;
        let visited = engine.scan(None, direction, u64::MAX, |_, value| {
            let number = match direction {
                Direction::Forward => next,
                Direction::Reverse => job.records - 1 - next,
            };
            wrong += u64::from(number_of(value) != Some(number));
            next += 1;
        })?;
        if visited != job.records || wrong > 0 {
            return Err(format!("{visited} of {} records, {wrong} wrong", job.records).into());
        }
    }
    meter.finish(PASSES * job.records, &mut findings);
    engine.close()?;
    Ok(findings)
}

/// Seeks to a record at random and visits so many behind it.
pub(super) fn seeks<E: Engine>(job: &Job, visits: u64) -> Result<Findings> {
    let engine: E = job.open(&cache_for_all(job)?)?;
    let keys = job.keys();
    warm(&engine, &keys)?;
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let mut random = Random::new(job.seed);
    let seeks = job.operations() / 4;
    let meter = Meter::start();
    repeat(seeks, &mut latencies, |_| {
        let first = random.below(job.records);
        seek(&engine, &keys, first, visits)
    })?;
    meter.finish(seeks, &mut findings);
    findings.add_latencies(&latencies);
    engine.close()?;
    Ok(findings)
}

/// One seek whose answers are checked.
fn seek<E: Engine>(engine: &E, keys: &Keys, first: u64, visits: u64) -> Result<()> {
    let (mut next, mut wrong) = (first, 0);
    let from = keys.key(first);
    let visited = engine.scan(Some(&from), Direction::Forward, visits, |_, value| {
        wrong += u64::from(number_of(value) != Some(next));
        next += 1;
    })?;
    if wrong > 0 || visited != visits.min(keys.records - first) {
        return Err(format!("{visited} records behind {first}, {wrong} wrong").into());
    }
    Ok(())
}
