//! Workloads that read and write: the state-store loop, YCSB, reads beside a writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Job;
use super::reads::check;
use super::writes::check_all;
use crate::Result;
use crate::engine::{Direction, Engine};
use crate::meter::{Findings, Latencies, Meter, repeat};
use crate::records::{Keys, Random, Zipfian, number_of, value, version_of};
use crate::settings::Settings;

/// Gets a record at random and puts its next version: what a count or a join does all day.
pub(super) fn update<E: Engine>(job: &Job) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let keys = job.keys();
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let mut random = Random::new(job.seed);
    let meter = Meter::start();
    repeat(job.operations(), &mut latencies, |nth| {
        let number = random.below(job.records);
        raise(&engine, &keys, number, nth)
    })?;
    meter.finish(job.operations(), &mut findings);
    findings.add_latencies(&latencies);
    check_all(&engine, &keys)?;
    let mut versions = 0;
    engine.scan(None, Direction::Forward, u64::MAX, |_, value| {
        versions += version_of(value).unwrap_or(0);
    })?;
    if versions != job.operations() {
        return Err(format!("{versions} updates are left of {}", job.operations()).into());
    }
    engine.close()?;
    Ok(findings)
}

fn raise<E: Engine>(engine: &E, keys: &Keys, number: u64, nth: u64) -> Result<()> {
    let key = keys.key(number);
    let version = engine.get(&key, |found| {
        check(found, number, nth)?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(found.and_then(version_of))
    })??;
    engine.put(&key, &value(number, version.unwrap_or(0) + 1))
}

/// How records are chosen.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Zipfian,
    /// The newest likeliest.
    Latest,
}

/// What a mix is made of, in hundredths; the rest are gets.
#[derive(Debug)]
pub(super) struct Mix {
    puts: u64,
    inserts: u64,
    scans: u64,
    updates: u64,
    choice: Choice,
}

const GETS: Mix = Mix {
    puts: 0,
    inserts: 0,
    scans: 0,
    updates: 0,
    choice: Choice::Zipfian,
};
pub(super) const A: Mix = Mix { puts: 50, ..GETS };
pub(super) const B: Mix = Mix { puts: 5, ..GETS };
pub(super) const C: Mix = GETS;
pub(super) const D: Mix = Mix {
    inserts: 5,
    choice: Choice::Latest,
    ..GETS
};
pub(super) const E: Mix = Mix {
    inserts: 5,
    scans: 95,
    ..GETS
};
pub(super) const F: Mix = Mix {
    updates: 50,
    ..GETS
};

/// A scan visits 1 to so many records.
const SCAN_LEN_MAX: u64 = 100;

struct Mixer<'a, E> {
    engine: &'a E,
    keys: Keys,
    mix: &'a Mix,
    zipfian: Zipfian,
    random: Random,
    /// Records that there are by now.
    records: u64,
}

impl<E: Engine> Mixer<'_, E> {
    fn choose(&mut self) -> u64 {
        let rank = self.zipfian.draw(&mut self.random);
        match self.mix.choice {
            Choice::Zipfian => self.keys.shuffled(rank),
            Choice::Latest => self.records - 1 - rank,
        }
    }

    fn step(&mut self, nth: u64) -> Result<()> {
        let kind = self.random.below(100);
        let Mix {
            puts,
            inserts,
            scans,
            updates,
            ..
        } = *self.mix;
        if kind < inserts {
            let number = self.records;
            self.records += 1;
            return self.engine.put(&self.keys.key(number), &value(number, 0));
        }
        let number = self.choose();
        let key = self.keys.key(number);
        if kind < inserts + puts {
            self.engine.put(&key, &value(number, nth))
        } else if kind < inserts + puts + scans {
            let len = 1 + self.random.below(SCAN_LEN_MAX);
            let mut first = None;
            let visit = |_: &[u8], value: &[u8]| {
                first = first.or(number_of(value));
            };
            let visited = self
                .engine
                .scan(Some(&key), Direction::Forward, len, visit)?;
            if first != Some(number) || visited > len {
                return Err(format!("{visited} of {len} from {number}: {first:?}").into());
            }
            Ok(())
        } else if kind < inserts + puts + scans + updates {
            raise(self.engine, &self.keys, number, nth)
        } else {
            self.engine.get(&key, |found| check(found, number, nth))?
        }
    }
}

pub(super) fn ycsb<E: Engine>(job: &Job, mix: &Mix) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let mut mixer = Mixer {
        engine: &engine,
        keys: job.keys(),
        mix,
        zipfian: Zipfian::new(job.records),
        random: Random::new(job.seed),
        records: job.records,
    };
    let mut findings = Findings::default();
    // A tenth of the operations to warm up, as the records that are asked for are few.
    let operations = job.operations();
    (0..operations / 10).try_for_each(|nth| mixer.step(nth))?;
    let mut latencies = Latencies::new()?;
    let meter = Meter::start();
    repeat(operations, &mut latencies, |nth| mixer.step(nth))?;
    meter.finish(operations, &mut findings);
    findings.add_latencies(&latencies);
    let expected = mixer.records;
    let visited = engine.scan(None, Direction::Forward, u64::MAX, |_, _| {})?;
    if visited != expected {
        return Err(format!("{visited} records, {expected} were put").into());
    }
    engine.close()?;
    Ok(findings)
}

/// Puts a second of the writer beside the reads: the same for all engines, for a fast writer would
/// otherwise slow down its own engine's reads.
const WRITER_PUTS_PER_S: u64 = 50_000;
const WRITER_PERIOD_MS: u64 = 2;

pub(super) fn read_while_writing<E: Engine>(job: &Job) -> Result<Findings> {
    let engine: E = job.open(&Settings::default())?;
    let keys = job.keys();
    let mut findings = Findings::default();
    let mut latencies = Latencies::new()?;
    let mut random = Random::new(job.seed);
    let ends = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| write_steadily(&engine, &keys, job.seed, &ends));
        let meter = Meter::start();
        let outcome = repeat(job.operations(), &mut latencies, |nth| {
            let number = random.below(job.records);
            engine.get(&keys.key(number), |found| check(found, number, nth))?
        });
        meter.finish(job.operations(), &mut findings);
        ends.store(true, Ordering::Relaxed);
        let puts_per_s = writer.join().map_err(|_| "the writer panicked")??;
        findings.add("writer_puts_per_s", puts_per_s);
        outcome
    })?;
    findings.add_latencies(&latencies);
    check_all(&engine, &keys)?;
    engine.close()?;
    Ok(findings)
}

/// Returns the puts a second that it came to.
#[expect(clippy::cast_precision_loss, reason = "a count of puts")]
fn write_steadily<E: Engine>(engine: &E, keys: &Keys, seed: u64, ends: &AtomicBool) -> Result<f64> {
    let mut random = Random::new(seed + 1);
    let begin = Instant::now();
    let mut puts = 0;
    while !ends.load(Ordering::Relaxed) {
        let due = u64::try_from(begin.elapsed().as_millis())? * WRITER_PUTS_PER_S / 1000;
        while puts < due && !ends.load(Ordering::Relaxed) {
            let number = random.below(keys.records);
            engine.put(&keys.key(number), &value(number, puts))?;
            puts += 1;
        }
        thread::park_timeout(Duration::from_millis(WRITER_PERIOD_MS));
    }
    Ok(puts as f64 / begin.elapsed().as_secs_f64())
}
