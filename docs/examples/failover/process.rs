//! A process that has tasks and standbys, and does what it is told, line by line.
//!
//! Orders, on standard input:
//!
//! - `own TASK`: open the task and count its input. `sent TASK COMMIT` tells of each commit that
//!   was sent and is not answered, `ended TASK COMMITS` of the end of the input.
//! - `hold TASK`: stay between sending a commit and waiting for its answer; `held TASK` tells that
//!   it does. `go TASK`: go on.
//! - `follow TASK`: keep a standby of it. `following TASK` tells that it has caught up once.
//! - `take TASK`: take it over from the standby and count on. `took TASK PROMOTED_US FIRST_US`
//!   tells when the standby was a task, and when the first record was processed;
//!   `committed TASK US` when its first commit counted; all from the order on.
//!
//! `fenced TASK` tells that somebody else has the task, `failed TASK ERROR` of anything else. The
//! end of standard input ends it.

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use siltstone::ErrorKind;
use siltstone::changelog::Changelog;
use siltstone::kafka::{Kafka, TopicOptions};
use siltstone::store::serde::U64;
use siltstone::store::{KeyValue, Standby, Task, TaskOptions};
use siltstone::{ChangelogUrl, Runtime, RuntimeOptions};

use crate::{Args, Error, Result, input};

/// The store of a task.
pub(crate) const STORE: &str = "counts";
/// How many tasks the job has.
pub(crate) const TASKS: u32 = 2;
/// How long a standby rests between two looks.
const REST: Duration = Duration::from_millis(2);

/// What is told to the thread of one task.
#[derive(Debug, Clone, Copy)]
enum Order {
    Hold,
    Go,
    Take(Instant),
}

/// The changelog that a URL names, with topics for all tasks of the job.
pub(crate) fn open(url: &ChangelogUrl) -> Result<Arc<dyn Changelog>> {
    if let Some(options) = url.kafka_options()? {
        let topics = TopicOptions::new().partitions(TASKS);
        return Ok(Arc::new(Kafka::open(options.topics(topics))?));
    }
    Ok(url.open()?)
}

/// How a task of the job is opened.
pub(crate) fn options(
    job: &str,
    task: u32,
    dir: PathBuf,
    changelog: &Arc<dyn Changelog>,
) -> TaskOptions {
    TaskOptions::new(job, task, dir, Arc::clone(changelog)).store(STORE)
}

/// What all threads of the process share.
struct Shared {
    dir: PathBuf,
    job: String,
    changelog: Arc<dyn Changelog>,
    runtime: Runtime,
    records: u64,
    commit_records: u64,
}

impl Shared {
    fn options(&self, task: u32) -> TaskOptions {
        let dir = self.dir.join(format!("task-{task}"));
        options(&self.job, task, dir, &self.changelog).runtime(&self.runtime)
    }
}

pub(crate) fn run(args: &Args, child: &[String]) -> Result<()> {
    let [dir, job] = child else {
        return Err("a child has a directory and a job".into());
    };
    std::fs::create_dir_all(dir)?;
    let url: ChangelogUrl = args.changelog.as_deref().unwrap_or_default().parse()?;
    let shared = Arc::new(Shared {
        dir: dir.into(),
        job: job.clone(),
        changelog: open(&url)?,
        runtime: Runtime::new(RuntimeOptions::new())?,
        records: args.records,
        commit_records: args.commit_records,
    });
    let mut threads: Vec<(u32, Sender<Order>, JoinHandle<()>)> = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        // As early as can be: what follows is part of what is measured.
        let now = Instant::now();
        let wrong = || Error::from(format!("no order: {line}"));
        let (what, task) = line.split_once(' ').ok_or_else(wrong)?;
        let task: u32 = task.parse().map_err(|_| wrong())?;
        let order = match what {
            "own" | "follow" => {
                let (orders, received) = channel();
                let shared = Arc::clone(&shared);
                let owns = what == "own";
                let thread = thread::spawn(move || work(&shared, task, owns, &received));
                threads.push((task, orders, thread));
                continue;
            }
            "hold" => Order::Hold,
            "go" => Order::Go,
            "take" => Order::Take(now),
            _ => return Err(wrong()),
        };
        let thread = threads.iter().find(|(number, ..)| *number == task);
        // A thread that has ended said why.
        thread.ok_or_else(wrong)?.1.send(order).ok();
    }
    for (_, orders, thread) in threads {
        drop(orders);
        thread.join().map_err(|_| "a thread has panicked")?;
    }
    Ok(())
}

/// Tells the parent; if that is gone, nobody has to know.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn work(shared: &Shared, task: u32, owns: bool, orders: &Receiver<Order>) {
    let done = if owns {
        Task::open(shared.options(task))
            .map_err(Error::from)
            .and_then(|owned| count(shared, owned, task, orders, None))
    } else {
        follow(shared, task, orders)
    };
    if let Err(error) = done {
        let kind = error.downcast_ref::<siltstone::Error>();
        if kind.is_some_and(|error| error.kind() == ErrorKind::Fenced) {
            tell(&format!("fenced {task}"));
        } else {
            tell(&format!("failed {task} {error}"));
        }
    }
}

fn follow(shared: &Shared, number: u32, orders: &Receiver<Order>) -> Result<()> {
    let mut standby = Standby::open(shared.options(number))?;
    let mut has_caught_up = false;
    loop {
        standby.poll()?;
        if !has_caught_up && standby.lag()?.iter().all(|lag| lag.position.is_some()) {
            has_caught_up = true;
            tell(&format!("following {number}"));
        }
        match orders.recv_timeout(REST) {
            Ok(Order::Take(ordered)) => {
                let task = standby.promote()?;
                return count(shared, task, number, orders, Some(ordered));
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(standby.close()?),
        }
    }
}

/// Counts the input from where the task is to its end. `ordered` is when it was to be taken over.
fn count(
    shared: &Shared,
    task: Task,
    number: u32,
    orders: &Receiver<Order>,
    ordered: Option<Instant>,
) -> Result<()> {
    let mut counter = Counter {
        promoted: ordered.map(|ordered| ordered.elapsed()),
        ordered,
        number,
        counts: task.key_value(STORE, U64, U64)?,
        position: task.input_position(input::NAME)?.unwrap_or(0),
        task,
        commits: 0,
    };
    while counter.position < shared.records {
        match counter.batch(shared, orders) {
            Ok(()) => {}
            // Nothing of it counts: once more from where the last commit was.
            Err(error) if error.kind() == ErrorKind::Changelog => {
                counter.task.abort()?;
                let position = counter.task.input_position(input::NAME)?;
                counter.position = position.unwrap_or(0);
            }
            Err(error) => return Err(error.into()),
        }
    }
    counter.task.close()?;
    tell(&format!("ended {number} {}", counter.commits));
    Ok(())
}

/// A task with its place in the input.
struct Counter {
    task: Task,
    number: u32,
    counts: KeyValue<U64, U64>,
    position: u64,
    commits: u64,
    /// When it was to be taken over, until the first record was processed, and how long it took to
    /// become a task.
    ordered: Option<Instant>,
    promoted: Option<Duration>,
}

impl Counter {
    /// Counts the records of one commit, and commits them.
    fn batch(&mut self, shared: &Shared, orders: &Receiver<Order>) -> siltstone::Result<()> {
        let number = self.number;
        loop {
            let key = input::key(number, self.position);
            let count = self.counts.get(&key)?.unwrap_or(0);
            self.counts.put(&mut self.task, &key, &(count + 1))?;
            self.position += 1;
            if let (Some(ordered), Some(promoted)) = (self.ordered, self.promoted.take()) {
                let (promoted, first) = (promoted.as_micros(), ordered.elapsed().as_micros());
                tell(&format!("took {number} {promoted} {first}"));
            }
            let is_due = self.position.is_multiple_of(shared.commit_records);
            let is_last = self.position == shared.records;
            if is_due || is_last || self.task.commit_requested() {
                break;
            }
        }
        self.task.set_input_position(input::NAME, self.position)?;
        self.task.begin_commit()?;
        self.commits += 1;
        tell(&format!("sent {number} {}", self.commits));
        hold_if_told(number, orders);
        self.task.wait_commit()?;
        if let Some(ordered) = self.ordered.take() {
            let committed = ordered.elapsed().as_micros();
            tell(&format!("committed {number} {committed}"));
        }
        Ok(())
    }
}

fn hold_if_told(number: u32, orders: &Receiver<Order>) {
    if !matches!(orders.try_recv(), Ok(Order::Hold)) {
        return;
    }
    tell(&format!("held {number}"));
    // Until it is told to go, or everything ends.
    while !matches!(orders.recv(), Ok(Order::Go) | Err(_)) {}
}
