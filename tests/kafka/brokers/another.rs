//! Other implementations of brokers: Tansu, and the mock that librdkafka has. Both accept the
//! transaction of a fence and write no marker for it, so that nothing can be claimed there; what
//! is left is everything up to that, and records written and read without an owner.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use siltstone::changelog::{Changelog, Header, Offset, OwnedHeader, Record, RecordRef};
use siltstone::fuzzing::kafka_produce;
use siltstone::kafka::{Kafka, KafkaOptions};
use siltstone::{ErrorKind, Result};

use crate::peer::parse;
use crate::rig::{fails, partition, setting};
use crate::watchdog::within;

const TOPIC: &str = "numbers";
const CODECS: [&str; 5] = ["none", "lz4", "gzip", "snappy", "zstd"];

/// librdkafka in a process of its own; see `tests/kafka/python/librdkafka.py`.
struct Librdkafka {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Librdkafka {
    fn start() -> Self {
        let mut child = Command::new(setting("SILTSTONE_PYTHON"))
            .arg(setting("SILTSTONE_LIBRDKAFKA"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> Vec<String> {
        writeln!(self.input, "{command}").unwrap();
        self.input.flush().unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{command}");
            match line.trim_end() {
                "ok" => return lines,
                line if line.starts_with("error ") => panic!("{command}: {line}"),
                line => lines.push(line.to_owned()),
            }
        }
    }

    fn write(&mut self, servers: &str, codec: &str, first: usize, count: usize) {
        self.ask(&format!("write {servers} {TOPIC} {codec} {first} {count}"));
    }

    fn read(&mut self, servers: &str, count: usize) -> Vec<(u64, Record)> {
        let lines = self.ask(&format!("read {servers} {TOPIC} {count}"));
        lines.iter().map(|line| parse(line)).collect()
    }
}

impl Drop for Librdkafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A record by its number, as `librdkafka.py` makes them.
fn record(number: usize) -> Record {
    let digits = number.to_string();
    let header = |value: Option<&str>| OwnedHeader {
        key: b"a".to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    };
    Record {
        key: format!("key {}", number % 50).into_bytes(),
        value: (number % 10 != 9).then(|| digits.repeat(20).into_bytes()),
        timestamp_ms: 1_700_000_000_000 + i64::try_from(number).unwrap(),
        headers: vec![header(Some(&digits)), header(None)],
    }
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<(u64, Record)> {
    numbers
        .map(|number| (number as u64, record(number)))
        .collect()
}

/// All that a reader finds from there on.
fn read(log: &dyn Changelog, from: u64) -> Vec<(u64, Record)> {
    let mut reader = log.reader(&partition(TOPIC), Offset(from)).unwrap();
    let mut found = Vec::new();
    while !reader
        .fetch(&mut |offset, record| {
            found.push((offset.0, Record::from(record)));
            Ok(())
        })
        .unwrap()
        .at_end
    {}
    found
}

/// Writes records by the producer of this crate, some at a time.
fn produce(servers: &str, numbers: std::ops::Range<usize>) -> Result<u64> {
    let records: Vec<Record> = numbers.map(record).collect();
    let headers: Vec<Vec<Header<'_>>> = records.iter().map(headers).collect();
    let records: Vec<RecordRef<'_>> = records
        .iter()
        .zip(&headers)
        .map(|(record, headers)| {
            RecordRef::new(&record.key, record.value.as_deref())
                .at(record.timestamp_ms)
                .with_headers(headers)
        })
        .collect();
    kafka_produce(options(servers), &partition(TOPIC), &records, 100)
}

fn headers(record: &Record) -> Vec<Header<'_>> {
    let headers = record.headers.iter();
    let headers = headers.map(|header| Header {
        key: &header.key,
        value: header.value.as_deref(),
    });
    headers.collect()
}

/// Either side reads what the other wrote, in each codec, from wherever it begins.
fn write_and_read(librdkafka: &mut Librdkafka, log: &Kafka, servers: &str) {
    let mut end = 0;
    for codec in CODECS {
        librdkafka.write(servers, codec, end, 200);
        end += 200;
    }
    assert_eq!(read(log, 0), expected(0..end));
    assert_eq!(read(log, 333), expected(333..end));
    assert_eq!(produce(servers, end..end + 1000).unwrap(), 2000);
    assert_eq!(read(log, 0), expected(0..2000));
    assert_eq!(librdkafka.read(servers, 2000), expected(0..2000));
}

/// The fence's transaction is taken, and leaves no marker in the partition.
fn cannot_be_claimed(log: &Kafka) {
    let claimed = log.claim("task", &[partition(TOPIC)]);
    let error = claimed.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog, "{error}");
    assert!(error.to_string().ends_with("the log ends there"), "{error}");
}

fn options(servers: &str) -> KafkaOptions {
    KafkaOptions::new(servers).operation_timeout(Duration::from_secs(5))
}

#[test]
fn tansu_takes_and_gives_records() {
    within(120, || {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = port.local_addr().unwrap().to_string();
        drop(port);
        let url = format!("tcp://{servers}");
        let tansu = Command::new(setting("SILTSTONE_TANSU"))
            .args(["broker", "--storage-engine", "memory://numbers/"])
            .args(["--listener-url", &url, "--advertised-listener-url", &url])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let _tansu = Killed(tansu);
        let log = Kafka::open(options(&servers)).unwrap();
        assert!(log.create_topic(TOPIC).unwrap());
        assert!(!log.create_topic(TOPIC).unwrap());
        assert_eq!(log.topic_differences(TOPIC).unwrap(), []);
        // It hangs up when it is asked for settings by their names.
        assert!(log.fence_expiration().unwrap().assumed.is_some());
        let mut librdkafka = Librdkafka::start();
        write_and_read(&mut librdkafka, &log, &servers);
        // Asked where a partition ends, it tells of the first record of the newest batch.
        let bounds = log.bounds(&partition(TOPIC)).unwrap().unwrap();
        assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(1901)));
        cannot_be_claimed(&log);
        log.delete_topic(TOPIC).unwrap();
        assert!(log.bounds(&partition(TOPIC)).unwrap().is_none());
        fails(log.delete_topic(TOPIC), ErrorKind::NotFound);
    });
}

#[test]
fn the_mock_of_librdkafka_takes_and_gives_records() {
    within(120, || {
        let mut librdkafka = Librdkafka::start();
        let servers = librdkafka.ask("mock 3").pop().unwrap();
        librdkafka.ask(&format!("topic {TOPIC}"));
        // Its newer answers for metadata have a byte too many, and are refused.
        librdkafka.ask("speak 3 7");
        let log = Kafka::open(options(&servers)).unwrap();
        // It names a controller that is not there.
        fails(log.create_topic("other"), ErrorKind::Changelog);
        write_and_read(&mut librdkafka, &log, &servers);
        let bounds = log.bounds(&partition(TOPIC)).unwrap().unwrap();
        assert_eq!((bounds.start, bounds.end), (Offset(0), Offset(2000)));
        for (leader, end) in [(2, 2100), (3, 2200), (1, 2300)] {
            librdkafka.ask(&format!("leader {TOPIC} {leader}"));
            assert_eq!(produce(&servers, end - 100..end).unwrap(), end as u64);
            assert_eq!(read(&log, 0), expected(0..end));
        }
        cannot_be_claimed(&log);
    });
}

/// A process that ends with its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
