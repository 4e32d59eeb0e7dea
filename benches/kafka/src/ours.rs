//! Siltstone as a client.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use siltstone::changelog::{Changelog, Guarantee, Offset, Partition, RecordRef, Session};
use siltstone::kafka::{Kafka, KafkaOptions};
use siltstone::store::{Task, TaskOptions};
use siltstone::{Runtime, RuntimeOptions};

use crate::Outcome;
use crate::command::{Log, Restore};
use crate::measured::Stopwatch;

pub(crate) const KEY_LEN: usize = 16;
pub(crate) const VALUE_LEN: usize = 100;

fn open(log: &Log) -> siltstone::Result<Kafka> {
    let guarantee = match log.atomic {
        true => Guarantee::Atomic,
        false => Guarantee::PerBatch,
    };
    let options = KafkaOptions::new(&log.bootstrap)
        .batch_bytes(1_000_000)
        .linger(Duration::from_millis(5))
        .guarantee(guarantee);
    Kafka::open(options)
}

/// The next number, in the digits of the key.
pub(crate) fn count_up(key: &mut [u8; KEY_LEN]) {
    for digit in key.iter_mut().rev() {
        if *digit != b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

fn append(session: &mut dyn Session, key: &[u8], value: &[u8]) -> siltstone::Result<()> {
    let record = RecordRef::new(key, Some(value));
    session.reserve(record.size())?;
    session.append(0, record)
}

fn commit(session: &mut dyn Session) -> siltstone::Result<()> {
    let commit = session.prepare()?;
    session.wait(commit)?;
    Ok(())
}

/// Writes records. The first one waits for connections: it is not measured.
pub(crate) fn produce(log: &Log) -> Outcome<()> {
    let changelog = open(log)?;
    let mut session = changelog.claim(&log.topic, &[Partition::new(&log.topic, 0)])?;
    let (mut key, value) = ([b'0'; KEY_LEN], [b'v'; VALUE_LEN]);
    append(&mut *session, &key, &value)?;
    commit(&mut *session)?;
    let stopwatch = Stopwatch::start();
    for _ in 0..log.records {
        count_up(&mut key);
        append(&mut *session, &key, &value)?;
    }
    commit(&mut *session)?;
    stopwatch.report(log.records);
    session.close()?;
    Ok(())
}

/// Reads records, measured from the first one on.
pub(crate) fn fetch(log: &Log) -> Outcome<()> {
    let changelog = open(log)?;
    let mut reader = changelog.reader(&Partition::new(&log.topic, 0), Offset(0))?;
    let (mut records, mut bytes) = (0, 0);
    let mut stopwatch = None;
    while records < log.records {
        reader.fetch(&mut |_, record| {
            stopwatch.get_or_insert_with(Stopwatch::start);
            records += 1;
            bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
            Ok(())
        })?;
    }
    let stopwatch = stopwatch.ok_or("no record")?;
    stopwatch.report(records);
    if bytes as u64 != records * (KEY_LEN + VALUE_LEN) as u64 {
        return Err("wrong records".into());
    }
    Ok(())
}

/// The mixing step of `SplitMix64`: numbers in an order that looks random, each once.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Appends records whose keys are 16 hexadecimal digits, all different, and whose values are
/// letters at random.
pub(crate) fn fill(log: &Log) -> Outcome<()> {
    let changelog = open(log)?;
    let mut session = changelog.claim(&log.topic, &[Partition::new(&log.topic, 0)])?;
    let mut value = [0; VALUE_LEN];
    let stopwatch = Stopwatch::start();
    for number in 0..log.records {
        let key = format!("{:016x}", mixed(number));
        for (index, letters) in (0..).zip(value.chunks_mut(8)) {
            let random = mixed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) + index).to_le_bytes();
            for (letter, byte) in letters.iter_mut().zip(random) {
                *letter = b'0' + byte % 64;
            }
        }
        append(&mut *session, key.as_bytes(), &value)?;
    }
    commit(&mut *session)?;
    stopwatch.report(log.records);
    session.close()?;
    Ok(())
}

/// A line of numbers that the system keeps of this process.
fn system(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().find_map(|word| word.parse().ok()));
    number.unwrap_or_default()
}

/// Restores a store into an empty folder. Tells, beyond what all tell, bytes written for each byte
/// of records and seconds until all is merged, and the largest memory in MiB.
pub(crate) fn restore(restore: &Restore) -> Outcome<()> {
    let stopwatch = Stopwatch::start();
    let changelog = Kafka::open(KafkaOptions::new(&restore.bootstrap))?;
    let runtime = Runtime::new(RuntimeOptions::new())?;
    let folder = restore.folder.join("state");
    let options = TaskOptions::new(&restore.namespace, 0, folder, Arc::new(changelog))
        .runtime(&runtime)
        .store("store");
    let task = Task::open(options)?;
    let (wall, cpu) = stopwatch.elapsed();
    let records = task.restored().records();
    if records != restore.records {
        return Err(format!("{records} records instead of {}", restore.records).into());
    }
    while task.stats()?.levels[0].runs >= 4 {
        std::thread::yield_now();
    }
    let merged = stopwatch.elapsed().0;
    let stats = task.stats()?;
    let written = stats.restore_bytes + stats.compaction_written_bytes;
    let raw = records * (KEY_LEN + VALUE_LEN) as u64;
    println!(
        "{records} {} {} {} {} {}",
        wall.as_nanos(),
        cpu.as_nanos(),
        written as f64 / raw as f64,
        merged.as_secs_f64(),
        system("status", "VmHWM:") >> 10,
    );
    task.close()?;
    Ok(())
}

/// Decodes a segment as often as gives a good second of work.
pub(crate) fn decode(segment: &Path) -> Outcome<()> {
    const RECORDS: u64 = 40_000_000;
    let batches = std::fs::read(segment)?;
    let stopwatch = Stopwatch::start();
    let mut records = 0;
    while records < RECORDS {
        let (of_pass, bytes) = siltstone::fuzzing::kafka_decode(&batches);
        if of_pass == 0 || bytes != of_pass * (KEY_LEN + VALUE_LEN) as u64 {
            return Err("wrong records".into());
        }
        records += of_pass;
    }
    stopwatch.report(records);
    Ok(())
}
