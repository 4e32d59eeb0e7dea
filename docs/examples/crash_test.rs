//! Crash-tests a small stream task: what to copy to test one's own.
//!
//! The task counts visits and sums their milliseconds, a page each, in two stores on a file
//! changelog; the place in the input is part of its state. All of it lies on a simulated disk that
//! keeps an image from before every I/O. Of each image every kind of crash is tried, and the task
//! is opened on what is left, with its local state and without. Its stores must hold exactly what
//! the input up to its position gives, no commit that was acknowledged may be missing, and it must
//! be able to go on to the end.
//!
//! ```sh
//! cargo run --release --example crash_test -- --seed 1 --runs 10
//! ```
//!
//! To test another task, replace `Visit`, `Job::open` and `Job::process`, and `expected`.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use siltstone::changelog::{File, FileOptions};
use siltstone::env::Env as _;
use siltstone::env::sim::{CrashPolicy, SimEnv};
use siltstone::store::serde::{U64, Utf8};
use siltstone::store::{KeyValue, Task, TaskOptions};
use siltstone::{Options, Runtime, RuntimeOptions};

/// Crash-tests a stream task on a simulated disk.
#[derive(Debug, Parser)]
#[command(name = "crash_test")]
struct Args {
    /// The seed of the first run; each further run has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many inputs to try.
    #[arg(long, default_value_t = 2)]
    runs: u64,
}

type Error = Box<dyn std::error::Error>;
type Totals = BTreeMap<String, u64>;

const STATE: &str = "/state/visits-0";
const INPUT: &str = "visits";
const VISITS: u64 = 60;

/// A record of the input.
struct Visit {
    page: String,
    ms: u64,
}

/// The input of a run follows from its seed, so that a failure can be repeated.
fn input(seed: u64) -> Vec<Visit> {
    let numbers =
        (0..VISITS).map(|n| (seed * VISITS + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40);
    let visit = |number| Visit {
        page: format!("/page-{}", number % 7),
        ms: number % 100,
    };
    numbers.map(visit).collect()
}

/// The task that is tested.
struct Job {
    task: Task,
    visits: KeyValue<Utf8, U64>,
    millis: KeyValue<Utf8, U64>,
    runtime: Runtime,
}

impl Job {
    /// Small limits, so that a short input reaches flushes, compactions and several segments; and
    /// no threads, so that the same seed does the same I/O.
    fn open(env: &SimEnv) -> siltstone::Result<Self> {
        let env = Arc::new(env.clone());
        let runtime = RuntimeOptions::new()
            .env(env.clone())
            .threads(0)
            .memory_bytes_max(4 << 20)
            .cache_bytes(64 << 10);
        let runtime = Runtime::new(runtime)?;
        let log = FileOptions::new().env(env.clone()).segment_bytes_max(1000);
        let log = File::open("/changelog", log)?;
        let db = Options::new()
            .env(env)
            .memtable_bytes_max(1 << 10)
            .record_writes_max(64 << 10);
        let options = TaskOptions::new("visits", 0, STATE, Arc::new(log))
            .runtime(&runtime)
            .db(db)
            .store("visits")
            .store("millis");
        let task = Task::open(options)?;
        Ok(Self {
            visits: task.key_value("visits", Utf8, U64)?,
            millis: task.key_value("millis", Utf8, U64)?,
            task,
            runtime,
        })
    }

    fn position(&self) -> siltstone::Result<u64> {
        Ok(self.task.input_position(INPUT)?.unwrap_or(0))
    }

    /// Goes on to the end of the input, and tells of each commit.
    fn process(&mut self, input: &[Visit], committed: &mut dyn FnMut(u64)) -> Result<(), Error> {
        let start = self.position()?;
        for (position, visit) in (0..).zip(input).skip(usize::try_from(start)?) {
            let (page, task) = (visit.page.as_str(), &mut self.task);
            let visits = self.visits.get(page)?.unwrap_or(0);
            self.visits.put(task, page, &(visits + 1))?;
            let millis = self.millis.get(page)?.unwrap_or(0);
            self.millis.put(task, page, &(millis + visit.ms))?;
            task.set_input_position(INPUT, position + 1)?;
            if position % 5 == 4 {
                task.commit()?;
                committed(position + 1);
            }
            if position % 20 == 19 {
                task.flush()?;
                while self.runtime.run_pending() {}
            }
        }
        self.task.commit()?;
        Ok(())
    }

    /// Compares the stores with what the input up to the position gives; answers the position.
    fn check(&self, input: &[Visit]) -> Result<u64, Error> {
        let position = self.position()?;
        let wanted = expected(&input[..usize::try_from(position)?]);
        let found = (totals(&self.visits)?, totals(&self.millis)?);
        if found != wanted {
            return Err(format!("at {position} it holds {found:?}, not {wanted:?}").into());
        }
        Ok(position)
    }
}

fn totals(store: &KeyValue<Utf8, U64>) -> siltstone::Result<Totals> {
    store.entries()?.collect()
}

/// The oracle: the same sums, in memory.
fn expected(input: &[Visit]) -> (Totals, Totals) {
    let (mut visits, mut millis) = (Totals::new(), Totals::new());
    for visit in input {
        *visits.entry(visit.page.clone()).or_default() += 1;
        *millis.entry(visit.page.clone()).or_default() += visit.ms;
    }
    (visits, millis)
}

/// Runs the task once, and opens what each crash leaves. Answers how many images that were.
fn run(seed: u64) -> Result<u64, Error> {
    let input = input(seed);
    let env = SimEnv::new(seed);
    env.record(true);
    // From which I/O on which position must not be lost.
    let mut acknowledged = Vec::new();
    let mut job = Job::open(&env)?;
    job.process(&input, &mut |position| {
        acknowledged.push((env.io_count(), position));
    })?;
    job.task.close()?;
    let mut images = env.take_recorded();
    images.push((env.io_count(), env.capture()));

    let mut count = 0;
    for (io, image) in images {
        let known = acknowledged.iter().rev().find(|(since, _)| *since <= io);
        let floor = known.map_or(0, |(_, position)| *position);
        let mut checked = HashSet::new();
        for policy in CrashPolicy::ALL {
            let left = image.crash(*policy, seed ^ io);
            // Most crashes at one I/O leave the same.
            if !checked.insert(left.content_hash()) {
                continue;
            }
            for keeps_state in [true, false] {
                let after = left.capture().crash(CrashPolicy::Kill, io);
                reopen(&after, &input, floor, keeps_state).map_err(|error| {
                    format!(
                        "--seed {seed} --runs 1: crash before I/O {io}, {policy:?}, local state \
                         kept: {keeps_state}: {error}"
                    )
                })?;
                count += 1;
            }
        }
    }
    Ok(count)
}

fn reopen(env: &SimEnv, input: &[Visit], floor: u64, keeps_state: bool) -> Result<(), Error> {
    if !keeps_state {
        let files = env.files().into_iter();
        for path in files.filter(|path| path.starts_with(Path::new(STATE))) {
            env.remove_file(&path)?;
        }
    }
    let mut job = Job::open(env)?;
    let position = job.check(input)?;
    if position < floor {
        return Err(format!("it is at {position}, and {floor} was acknowledged").into());
    }
    job.process(input, &mut |_| {})?;
    if job.check(input)? != VISITS {
        return Err("it did not reach the end of the input".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut images = 0;
    for seed in (args.seed..).take(usize::try_from(args.runs).unwrap_or(usize::MAX)) {
        match run(seed) {
            Ok(count) => images += count,
            Err(error) => {
                let _ = writeln!(io::stderr(), "crash_test: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let _ = writeln!(
        io::stdout(),
        "{images} images opened in {} runs from seed {}: nothing lost, nothing doubled",
        args.runs,
        args.seed
    );
    ExitCode::SUCCESS
}
