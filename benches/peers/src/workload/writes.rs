//! Workloads that only write.

use std::thread;

use super::Job;
use crate::Result;
use crate::engine::{Direction, Engine};
use crate::meter::{Findings, Latencies, Meter, peak_mib, repeat, settle, written_bytes};
use crate::records::{Keys, RECORD_BYTES, Random, check_value, number_of, value};
use crate::settings::Settings;

const BATCH_LEN: u64 = 100;
/// Synced puts of all threads together.
const SYNCED_PUTS: u64 = 8000;
/// Records that are looked at again after a run.
const SAMPLES: u64 = 1000;

#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Random,
    Sequential,
}

/// Every record is there once, with its own value, and a sample is right to the last byte.
pub(super) fn check_all<E: Engine>(engine: &E, keys: &Keys) -> Result<()> {
    let (mut next, mut wrong) = (0, 0);
    engine.scan(None, Direction::Forward, u64::MAX, |key, value| {
        wrong += u64::from(number_of(value) != Some(next) || key != keys.key(next));
        next += 1;
    })?;
    if wrong > 0 || next != keys.records {
        return Err(format!("{next} entries of {}, {wrong} wrong", keys.records).into());
    }
    let mut random = Random::new(0);
    for _ in 0..SAMPLES {
        let number = random.below(keys.records);
        engine.get(&keys.key(number), |found| check_value(found, number))??;
    }
    Ok(())
}

/// Operations a second up to the moment when all background work is done, and bytes written by
/// then: what puts cost that others have to pay later.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
pub(super) fn finish_settled<E: Engine>(
    engine: &E,
    meter: &Meter,
    (operations, written): (u64, u64),
    findings: &mut Findings,
) -> Result<()> {
    engine.flush()?;
    let behind = settle()?.elapsed().as_secs_f64();
    let took = meter.seconds() - behind;
    findings.add("settled_ops_per_s", operations as f64 / took);
    let bytes = (written_bytes()? - written) as f64;
    findings.add("write_amp", bytes / (operations * RECORD_BYTES) as f64);
    Ok(())
}

/// Puts every record once. To prepare for other workloads, in batches and nothing measured.
pub(super) fn fill<E: Engine>(job: &Job, order: Order, prepares: bool) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let keys = job.keys();
    let mut findings = Findings::default();
    if prepares {
        put_batches(&engine, &keys, None)?;
        engine.flush()?;
        settle()?;
        check_all(&engine, &keys)?;
        engine.close()?;
        return Ok(findings);
    }
    let mut latencies = Latencies::new()?;
    let (meter, written) = (Meter::start(), written_bytes()?);
    repeat(job.records, &mut latencies, |nth| {
        let number = match order {
            Order::Random => keys.shuffled(nth),
            Order::Sequential => nth,
        };
        engine.put(&keys.key(number), &value(number, 0))
    })?;
    meter.finish(job.records, &mut findings);
    findings.add_latencies(&latencies);
    finish_settled(&engine, &meter, (job.records, written), &mut findings)?;
    findings.add("peak_mib", peak_mib()?);
    check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}

fn put_batches<E: Engine>(
    engine: &E,
    keys: &Keys,
    latencies: Option<&mut Latencies>,
) -> Result<()> {
    let mut entries = Vec::new();
    let mut put = |nth: u64| {
        entries.clear();
        for nth in nth * BATCH_LEN..((nth + 1) * BATCH_LEN).min(keys.records) {
            let number = keys.shuffled(nth);
            entries.push((keys.key(number), value(number, 0)));
        }
        engine.put_batch(&entries)
    };
    let batches = keys.records.div_ceil(BATCH_LEN);
    match latencies {
        Some(latencies) => repeat(batches, latencies, put),
        None => (0..batches).try_for_each(&mut put),
    }
}

/// As `fill` in random order, a hundred records at once. The latencies are those of batches.
pub(super) fn fill_batches<E: Engine>(job: &Job) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let keys = job.keys();
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let meter = Meter::start();
    put_batches(&engine, &keys, Some(&mut latencies))?;
    meter.finish(job.records, &mut findings);
    findings.add_latencies(&latencies);
    check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}

/// As many puts as there are records, each to one of them at random.
pub(super) fn overwrite<E: Engine>(job: &Job) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let keys = job.keys();
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let mut random = Random::new(job.seed);
    let (meter, written) = (Meter::start(), written_bytes()?);
    repeat(job.records, &mut latencies, |nth| {
        let number = random.below(job.records);
        engine.put(&keys.key(number), &value(number, nth + 1))
    })?;
    meter.finish(job.records, &mut findings);
    findings.add_latencies(&latencies);
    finish_settled(&engine, &meter, (job.records, written), &mut findings)?;
    check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}

/// Puts that survive power loss, by so many threads at once.
pub(super) fn fill_synced<E: Engine>(job: &Job, threads: u64) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let puts = SYNCED_PUTS.min(job.records / threads * threads);
    let keys = Keys::new(puts);
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let each = puts / threads;
    let meter = Meter::start();
    thread::scope(|scope| -> Result<()> {
        let run = |thread: u64| {
            let (engine, keys) = (&engine, &keys);
            move || -> Result<Latencies> {
                let mut latencies = Latencies::new()?;
                repeat(each, &mut latencies, |nth| {
                    let number = keys.shuffled(thread * each + nth);
                    engine.put_synced(&keys.key(number), &value(number, 0))
                })?;
                Ok(latencies)
            }
        };
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(run(thread)))
            .collect();
        for thread in running {
            let own = thread.join().map_err(|_| "a writer panicked")??;
            latencies.merge(&own)?;
        }
        Ok(())
    })?;
    meter.finish(puts, &mut findings);
    findings.add_latencies(&latencies);
    check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}
