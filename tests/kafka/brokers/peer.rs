//! Kafka's own clients in a process of their own, told what to do line by line; see
//! `tests/kafka/java/src/Peer.java`.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use siltstone::changelog::{OwnedHeader, Record};

use crate::rig::setting;

/// A peer that its user has for himself and that somebody else may have afterwards.
pub(crate) struct Peer {
    process: Option<Process>,
}

struct Process {
    bootstrap: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Peers that nobody uses just now: starting one takes a second.
static IDLE: Mutex<Vec<Process>> = Mutex::new(Vec::new());

impl Peer {
    pub(crate) fn new(bootstrap: &str) -> Self {
        let mut idle = IDLE.lock().unwrap();
        let found = idle
            .iter()
            .position(|process| process.bootstrap == bootstrap);
        let process = match found {
            Some(index) => idle.swap_remove(index),
            None => Process::start(bootstrap),
        };
        Self {
            process: Some(process),
        }
    }

    /// The lines that answer a command, or the error.
    pub(crate) fn try_ask(&mut self, command: &str) -> Result<Vec<String>, String> {
        let process = self.process.as_mut().unwrap();
        writeln!(process.input, "{command}").unwrap();
        process.input.flush().unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let len = process.output.read_line(&mut line).unwrap();
            assert!(len > 0, "the peer has ended");
            let line = line.trim_end();
            if line == "ok" {
                return Ok(lines);
            }
            if let Some(error) = line.strip_prefix("error ") {
                return Err(error.to_owned());
            }
            lines.push(line.to_owned());
        }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Vec<String> {
        let what = command.split(' ').next().unwrap_or_default();
        match self.try_ask(command) {
            Ok(lines) => lines,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    pub(crate) fn create(&mut self, topic: &str, configs: &str) {
        self.ask(format!("create {topic} 1 {configs}").trim_end());
    }

    /// Waits until no transaction is open: what a commit wrote shows a little after its answer.
    pub(crate) fn settle(&mut self, topic: &str) {
        self.ask(&format!("settle {topic} 0"));
    }

    /// The records of partition 0 that are committed, with their offsets, once it has settled.
    pub(crate) fn read(&mut self, topic: &str) -> Vec<(u64, Record)> {
        self.settle(topic);
        let lines = self.ask(&format!("read {topic} 0 committed"));
        lines.iter().map(|line| parse(line)).collect()
    }

    /// The first offset and the end of what is decided.
    pub(crate) fn bounds(&mut self, topic: &str) -> (u64, u64) {
        let lines = self.ask(&format!("bounds {topic} 0"));
        let mut numbers = lines[0].split(' ').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // A peer that may be in the midst of an answer is of no use.
        if !std::thread::panicking() {
            IDLE.lock().unwrap().extend(self.process.take());
        }
    }
}

impl Process {
    fn start(bootstrap: &str) -> Self {
        let mut child = Command::new("java")
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-cp", &setting("SILTSTONE_KAFKA_PEER"), "Peer", bootstrap])
            .arg(format!("{}/state", setting("SILTSTONE_KAFKA_FOLDER")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            bootstrap: bootstrap.to_owned(),
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn parse(line: &str) -> (u64, Record) {
    let mut words = line.split(' ');
    let offset = words.next().unwrap().parse().unwrap();
    let timestamp_ms = words.next().unwrap().parse().unwrap();
    let key = bytes(words.next().unwrap()).expect("a key");
    let value = bytes(words.next().unwrap());
    let mut headers = Vec::new();
    while let Some(key) = words.next() {
        headers.push(OwnedHeader {
            key: bytes(key).expect("a name of a header"),
            value: bytes(words.next().unwrap()),
        });
    }
    let record = Record {
        key,
        value,
        timestamp_ms,
        headers,
    };
    (offset, record)
}

/// What a word of the peer stands for.
pub(crate) fn bytes(word: &str) -> Option<Vec<u8>> {
    let digits = word.strip_prefix('=')?;
    let pairs = digits.as_bytes().chunks(2);
    Some(
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect(),
    )
}

/// Bytes as a word of the peer.
pub(crate) fn word(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    let mut word = "=".to_owned();
    for byte in bytes {
        write!(word, "{byte:02x}").unwrap();
    }
    word
}

/// Key, value and timestamp of a record to write.
pub(crate) type Change<'a> = (&'a [u8], Option<&'a [u8]>, i64);

/// Records as the words of a command.
pub(crate) fn words(records: &[Change<'_>]) -> String {
    let words = records
        .iter()
        .map(|(key, value, time)| format!("{} {} {time}", word(Some(key)), word(*value)));
    words.collect::<Vec<_>>().join(" ")
}
