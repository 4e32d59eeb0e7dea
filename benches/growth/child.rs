//! One case from an empty directory to closed stores, in a process of its own.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::case::Case;
use crate::data::Data;
use crate::meter::{Finding, Meter, settle, thread_time};
use crate::records::mixed;
use crate::shuffle::Shuffle;
use crate::stores::Stores;

/// Runs the phases, and prints a line for each.
pub(crate) fn run(case: &Case, dir: &Path) -> Result<()> {
    let opening = Opening::begin();
    let mut run = Run {
        case,
        data: Data::new(case.records, case.stores, case.value_len),
        stores: Stores::open(case, dir)?,
    };
    opening.end("open", case)?;
    let load = Meter::start();
    let caller = run.load()?;
    run.tell("load", case.records, &load, caller)?;
    run.settle("load-settled", case.records, &load)?;
    // Caches fill.
    run.get(1)?;
    let get = Meter::start();
    let caller = run.get(2)?;
    run.tell("get", case.reads(), &get, caller)?;
    let update = Meter::start();
    let (caller, updates) = run.update()?;
    run.tell("update", updates, &update, caller)?;
    run.settle("update-settled", updates, &update)?;
    let scan = Meter::start();
    let caller = run.scan(updates)?;
    run.tell("scan", case.records, &scan, caller)?;

    let opening = Opening::begin();
    let closed = run.stores.close()?;
    opening.end("close", case)?;
    let opening = Opening::begin();
    run.stores = closed.reopen(case, dir)?;
    opening.end("reopen", case)?;
    run.look()?;
    run.stores.close()?;
    Ok(())
}

/// A phase whose operations are stores.
struct Opening {
    meter: Meter,
    caller: Duration,
}

impl Opening {
    fn begin() -> Self {
        Self {
            meter: Meter::start(),
            caller: thread_time(),
        }
    }

    fn end(&self, phase: &str, case: &Case) -> Result<()> {
        let caller = thread_time().saturating_sub(self.caller);
        // No bytes of the user: what it wrote is told as if each store had a record.
        let bytes = case.stores * case.record_bytes();
        let now = Instant::now();
        print(&self.meter.finish(phase, case.stores, bytes, caller, now))
    }
}

fn print(finding: &Finding) -> Result<()> {
    writeln!(std::io::stdout(), "{}", finding.to_line())?;
    Ok(())
}

struct Run<'a> {
    case: &'a Case,
    data: Data,
    stores: Stores,
}

impl Run<'_> {
    fn tell(&self, phase: &str, operations: u64, meter: &Meter, caller: Duration) -> Result<()> {
        let bytes = operations * self.case.record_bytes();
        print(&meter.finish(phase, operations, bytes, caller, Instant::now()))
    }

    fn settle(&self, phase: &str, operations: u64, meter: &Meter) -> Result<()> {
        self.stores.flush()?;
        let end = settle(self.case.look());
        let bytes = operations * self.case.record_bytes();
        print(&meter.finish(phase, operations, bytes, Duration::ZERO, end))
    }

    /// Has every thread do its part, and adds up the processor time that it took them.
    fn by_threads(&self, of_thread: impl Fn(u64) -> Result<()> + Sync) -> Result<Duration> {
        let work = |thread| {
            let begin = thread_time();
            // Errors of this kind cannot go to another thread, their words can.
            of_thread(thread).map_err(|error| error.to_string())?;
            Ok(thread_time().saturating_sub(begin))
        };
        let work = &work;
        let times: Vec<std::result::Result<Duration, String>> = thread::scope(|scope| {
            let spawn = |thread| scope.spawn(move || work(thread));
            let threads: Vec<_> = (0..self.case.threads).map(spawn).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                let ended = thread.join();
                ended.unwrap_or_else(|_| Err("a thread panicked".to_owned()))
            };
            threads.into_iter().map(join).collect()
        });
        let mut sum = Duration::ZERO;
        for time in times {
            sum += time?;
        }
        Ok(sum)
    }

    /// Every record once, in random order.
    fn load(&self) -> Result<Duration> {
        let Case {
            records, threads, ..
        } = *self.case;
        let order = Shuffle::new(records);
        self.by_threads(|thread| {
            let mut value = Vec::new();
            for nth in (thread..records).step_by(usize::try_from(threads)?) {
                let number = order.of(nth);
                self.data.fill(&mut value, number, 0);
                let place = self.data.place(number);
                self.stores.put(place.store, &place.key, &value)?;
            }
            Ok(())
        })
    }

    fn get(&self, seed: u64) -> Result<Duration> {
        let reads = self.case.reads();
        self.by_threads(|thread| {
            for nth in (thread..reads).step_by(usize::try_from(self.case.threads)?) {
                let number = mixed(mixed(seed) + nth) % self.case.records;
                self.version(number)?;
            }
            Ok(())
        })
    }

    fn version(&self, number: u64) -> Result<u32> {
        let place = self.data.place(number);
        self.stores.get(place.store, &place.key, |found| {
            self.data.check(found, number)
        })?
    }

    /// Gets values and puts their next versions; each thread has records of its own. Returns how
    /// many updates were made, too.
    fn update(&self) -> Result<(Duration, u64)> {
        let threads = self.case.threads;
        let share = self.case.records / threads;
        let updates = self.case.updates() / threads;
        let caller = self.by_threads(|thread| {
            let mut value = Vec::new();
            for nth in 0..updates {
                let drawn = mixed(mixed(thread + 3) + nth) % share;
                let number = drawn * threads + thread;
                let version = self.version(number)? + 1;
                self.data.fill(&mut value, number, version);
                let place = self.data.place(number);
                self.stores.put(place.store, &place.key, &value)?;
            }
            Ok(())
        })?;
        Ok((caller, updates * threads))
    }

    /// Everything, by one thread: all records are there, and their versions add up to the updates.
    fn scan(&self, updates: u64) -> Result<Duration> {
        let begin = thread_time();
        let (mut records, mut versions) = (0, 0);
        for store in 0..self.case.stores {
            let mut number = store;
            self.stores.scan(usize::try_from(store)?, |key, value| {
                let place = self.data.place(number);
                if key != place.key {
                    return Err(format!("the key {key:02x?} is not that of {number}").into());
                }
                versions += u64::from(self.data.check(Some(value), number)?);
                records += 1;
                number += self.case.stores;
                Ok(())
            })?;
        }
        if records != self.case.records || versions != updates {
            return Err(format!("{records} records with {versions} updates of {updates}").into());
        }
        Ok(thread_time().saturating_sub(begin))
    }

    /// Some records of every store, once it was opened again: what they held is still there.
    fn look(&self) -> Result<()> {
        for number in 0..self.case.records.min(10 * self.case.stores) {
            self.version(number)?;
        }
        Ok(())
    }
}
