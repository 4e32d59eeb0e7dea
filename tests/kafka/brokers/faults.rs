//! Random runs: writers are killed, stopped and replaced, nodes killed and stopped, wires cut;
//! then somebody else reads what is left.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use siltstone::kafka::KafkaOptions;
use siltstone::{ErrorKind, Result};

use crate::history::{End, History, write};
use crate::peer::Peer;
use crate::proxy::Proxy;
use crate::rig::{Cluster, alone, commit, now_ms, open, partition, restore, setting, unique};
use crate::watchdog::within;

/// How many numbers each writer has for itself.
const NUMBERS: u64 = 1_000_000;

/// Longest wait for a writer that makes no progress, seconds: a broker gives a dead one up sooner.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn nothing_is_lost_brought_back_or_reordered() {
    let _alone = alone();
    let number = |name| setting(name).parse::<u32>().unwrap();
    let (first, runs) = (number("SILTSTONE_FIRST"), number("SILTSTONE_RUNS"));
    let lanes = number("SILTSTONE_LANES");
    let plan = Plan {
        seed: number("SILTSTONE_SEED").into(),
        next: AtomicU32::new(first),
        end: first + runs,
        totals: Mutex::default(),
    };
    within(60 + 120 * u64::from(runs), move || {
        thread::scope(|scope| {
            for lane in 0..lanes {
                let plan = &plan;
                scope.spawn(move || plan.run_lane(lane));
            }
        });
        let (done, commits, records) = *plan.totals.lock().unwrap();
        println!("{commits} commits acknowledged, {records} records found");
        println!("fault runs: {done}");
        assert_eq!(done, runs);
    });
}

/// The runs that are to be done, on several clusters side by side: most of a run is waiting.
struct Plan {
    seed: u64,
    /// The number of the next run.
    next: AtomicU32,
    end: u32,
    /// Counts of runs, commits and records.
    totals: Mutex<(u32, usize, usize)>,
}

impl Plan {
    /// Does runs on a cluster of its own until none is left.
    fn run_lane(&self, lane: u32) {
        let cluster = match lane {
            0 => Cluster::main(),
            _ => Cluster::start(Cluster::main().nodes, &[]),
        };
        let proxy = Proxy::start(&cluster);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.end {
                return;
            }
            println!("run {index}: seed {}", self.seed);
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                let mut run = Run::new(&cluster, &proxy, self.seed, index);
                run.play();
                run.check()
            }));
            let (commits, records) = ended.unwrap_or_else(|why| {
                println!("run {index} of seed {} has failed", self.seed);
                // Nobody begins another one.
                self.next.store(self.end, Ordering::Relaxed);
                panic::resume_unwind(why)
            });
            let mut totals = self.totals.lock().unwrap();
            *totals = (totals.0 + 1, totals.1 + commits, totals.2 + records);
        }
    }
}

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64, by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What a writer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// It owns the task and has restored so many records.
    Restored(u64),
    /// It begins a commit: number of its first record, and their count.
    Begun(u64, u64),
    /// How that commit ended.
    Ended(u64, End),
    /// Somebody else owns the task now.
    Fenced,
}

/// A process that commits until it is stopped or fenced.
struct Writer {
    base: u64,
    process: Child,
    said: Receiver<Said>,
}

struct Run<'a> {
    index: u32,
    cluster: &'a Cluster,
    proxy: &'a Proxy,
    random: Random,
    task: String,
    topic: String,
    history: History,
    /// A node has restarted.
    has_node_failed: bool,
    /// What each writer found when it took over, by its first number.
    restored: BTreeMap<u64, u64>,
    writer: Writer,
    writers: u64,
}

impl<'a> Run<'a> {
    fn new(cluster: &'a Cluster, proxy: &'a Proxy, seed: u64, index: u32) -> Self {
        let (task, topic) = (unique("fault-task"), unique("faults"));
        let writer = Writer::start(&proxy.bootstrap, &task, &topic, 0);
        Self {
            index,
            cluster,
            proxy,
            random: Random(seed.wrapping_mul(1 << 20).wrapping_add(u64::from(index))),
            task,
            topic,
            history: History::default(),
            has_node_failed: false,
            restored: BTreeMap::new(),
            writer,
            writers: 1,
        }
    }

    fn play(&mut self) {
        self.progress(3);
        for _ in 0..3 + self.random.below(3) {
            self.fault();
            let commits = self.random.below(6);
            self.progress(commits);
        }
        self.progress(3);
        let _ = self.writer.process.kill();
        let _ = self.writer.process.wait();
        self.drain();
    }

    fn tell(&self, what: &str) {
        println!("run {}: {what}", self.index);
        writeln!(notes(&self.topic), "{} {what}", now_ms()).unwrap();
    }

    fn fault(&mut self) {
        let node = 1 + u32::try_from(self.random.below(u64::from(self.cluster.nodes))).unwrap();
        match self.random.below(12) {
            0..3 => {
                self.tell("the writer is killed");
                let _ = self.writer.process.kill();
                let _ = self.writer.process.wait();
                self.drain();
                self.replace_writer();
            }
            3..5 => self.stop_the_writer(),
            // The only node is neither killed nor ended: until it leads its partitions again
            // they have no leader, and Apache Kafka 4.3 takes such partitions for deleted. It
            // completes transactions in them without a marker, and loses what it acknowledged.
            5 if self.cluster.nodes > 1 => {
                self.tell(&format!("node {node} is killed"));
                self.cluster.node("kill", node);
                self.cluster.node("start", node);
                self.has_node_failed = true;
            }
            6 if self.cluster.nodes > 1 => {
                self.tell(&format!("node {node} ends and comes back"));
                self.cluster.node("stop", node);
                self.cluster.node("start", node);
                self.has_node_failed = true;
            }
            5..8 => {
                self.tell(&format!("node {node} hangs"));
                self.cluster.node("pause", node);
                let ms = self.random.below(1500);
                // Or shorter, if the writer gets on without it.
                self.hear(Duration::from_millis(ms));
                self.cluster.node("resume", node);
            }
            8 => {
                self.tell("all wires are cut");
                self.proxy.cut();
            }
            _ => {
                let bytes = usize::try_from(self.random.below(20_000)).unwrap();
                self.tell(&format!("a wire is cut after {bytes} bytes"));
                self.proxy.cut_after(bytes);
            }
        }
    }

    /// A writer that hangs is replaced, and comes back when it is too late.
    fn stop_the_writer(&mut self) {
        self.tell("the writer hangs and is replaced");
        signal(&self.writer.process, "STOP");
        let old = self.replace_writer();
        let commits = self.random.below(4);
        self.progress(commits);
        signal(&old.process, "CONT");
        self.end(old);
    }

    /// Reads what a former owner has to say, until it ends by itself.
    fn end(&mut self, mut old: Writer) {
        let mut fenced = false;
        while let Ok(said) = old.said.recv_timeout(PATIENCE) {
            fenced |= said == Said::Fenced;
            self.note(old.base, said);
        }
        let status = old.process.wait().unwrap();
        assert!(fenced && status.success(), "ended with {status}, unfenced");
    }

    fn replace_writer(&mut self) -> Writer {
        let base = self.writers * NUMBERS;
        self.writers += 1;
        let new = Writer::start(&self.proxy.bootstrap, &self.task, &self.topic, base);
        let old = std::mem::replace(&mut self.writer, new);
        while !self.restored.contains_key(&base) {
            self.hear(PATIENCE).expect("the new writer takes over");
        }
        old
    }

    /// Waits for so many acknowledged commits of the writer.
    fn progress(&mut self, commits: u64) {
        let mut left = commits;
        while left > 0 {
            match self.hear(PATIENCE) {
                Some(Said::Ended(_, End::Committed)) => left -= 1,
                // A coordinator that restarts forgets to whom it has just given an epoch: asked
                // once more for it, it cannot tell that owner from an older one.
                Some(Said::Fenced) if self.has_node_failed => {
                    self.tell("the writer is fenced by nobody and replaced");
                    self.replace_writer();
                }
                Some(Said::Fenced) => panic!("the writer is fenced by nobody"),
                None => panic!("the writer does not get on"),
                Some(_) => {}
            }
        }
    }

    fn drain(&mut self) {
        while self.hear(PATIENCE).is_some() {}
    }

    fn hear(&mut self, time: Duration) -> Option<Said> {
        let said = self.writer.said.recv_timeout(time).ok()?;
        self.note(self.writer.base, said);
        Some(said)
    }

    fn note(&mut self, writer: u64, said: Said) {
        match said {
            Said::Restored(count) => {
                self.restored.insert(writer, count);
            }
            Said::Begun(first, count) => self.history.add(first, count, End::Unknown),
            Said::Ended(first, end) => self.history.end(first, end),
            Said::Fenced => {}
        }
    }

    /// Compares with what the log has, as Kafka's own consumer reads it. Tells the counts of
    /// commits and records.
    fn check(&mut self) -> (usize, usize) {
        // A last owner, so that everything is decided.
        let log = self.cluster.changelog();
        let mut session = log.claim(&self.task, &[partition(&self.topic)]).unwrap();
        let restored = restore(&mut *session).len();
        let found = Peer::new(&self.cluster.bootstrap).read(&self.topic);
        let mut notes = notes(&self.topic);
        for (offset, record) in &found {
            let key = String::from_utf8_lossy(&record.key);
            writeln!(notes, "found at {offset}: {key}").unwrap();
        }
        assert_eq!(restored, found.len());
        self.history.check(&found);
        // What a writer restored is what stood before its fence for ever.
        for (base, count) in &self.restored {
            let before = found.iter().take_while(|(_, record)| {
                let number = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap();
                number.parse::<u64>().unwrap() < *base
            });
            assert_eq!(before.count() as u64, *count, "restored by writer {base}");
        }
        (self.history.committed(), found.len())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let _ = self.writer.process.kill();
        let _ = self.writer.process.wait();
    }
}

impl Writer {
    /// What it says is kept in a file of the topic's name, for when something has gone wrong.
    fn start(bootstrap: &str, task: &str, topic: &str, base: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::a_writer_by_itself", "--nocapture"])
            .env(WRITER, format!("{bootstrap} {task} {topic} {base}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut notes = notes(topic);
        let (tell, said) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(std::result::Result::ok) {
                if let Some(said) = parse(&line) {
                    writeln!(notes, "{} from {base} on: {line}", now_ms()).unwrap();
                    if tell.send(said).is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            base,
            process,
            said,
        }
    }
}

/// The file about a run that goes on in `topic`; it stays if the run fails.
fn notes(topic: &str) -> File {
    let path = format!("{}/{topic}.notes", setting("SILTSTONE_KAFKA_FOLDER"));
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap()
}

fn signal(process: &Child, name: &str) {
    let pid = process.id().to_string();
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Tells a test process to be a writer: the bootstrap list, task, topic and first number.
const WRITER: &str = "SILTSTONE_WRITER";

/// What starts a line that is meant for the parent.
const SIGN: &str = "writer: ";

/// Not a test but the body of the processes that the runs start; without their setting it has
/// nothing to do.
#[test]
fn a_writer_by_itself() {
    let Ok(setting) = std::env::var(WRITER) else {
        return;
    };
    let words: Vec<&str> = setting.split(' ').collect();
    let [bootstrap, task, topic, base] = words[..] else {
        panic!("{setting}");
    };
    let outcome = work(bootstrap, task, topic, base.parse().unwrap());
    let error = outcome.unwrap_err();
    eprintln!("a writer of {task} from {base} on ends: {error}");
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    say("fenced");
}

fn work(bootstrap: &str, task: &str, topic: &str, base: u64) -> Result<()> {
    let log = open(KafkaOptions::new(bootstrap));
    let mut session = log.claim(task, &[partition(topic)])?;
    say(&format!("restored {}", restore(&mut *session).len()));
    let mut next = base;
    loop {
        let count = 1 + next % 37;
        say(&format!("begun {next} {count}"));
        let written = write(&mut *session, next, count).and_then(|()| commit(&mut *session));
        match written {
            Ok(positions) => say(&format!("committed {next} up to {}", positions[0].next)),
            Err(error) if error.kind() == ErrorKind::Changelog => {
                say(&format!("aborted {next}"));
                loop {
                    match session.abort() {
                        Err(error) if error.kind() == ErrorKind::Changelog => {}
                        outcome => break outcome?,
                    }
                }
            }
            Err(error) => return Err(error),
        }
        next += count;
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{SIGN}{what}").unwrap();
    out.flush().unwrap();
}

fn parse(line: &str) -> Option<Said> {
    // The test harness may have begun the line.
    let (_, words) = line.split_once(SIGN)?;
    let mut words = words.split(' ');
    let what = words.next()?;
    let mut number = || words.next().unwrap().parse().unwrap();
    Some(match what {
        "restored" => Said::Restored(number()),
        "begun" => Said::Begun(number(), number()),
        "committed" => Said::Ended(number(), End::Committed),
        "aborted" => Said::Ended(number(), End::Aborted),
        _ => Said::Fenced,
    })
}
