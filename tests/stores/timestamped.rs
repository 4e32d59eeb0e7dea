//! Timestamped stores: values and timestamps here, in the changelog, and through every undoing.

use std::sync::Arc;

use siltstone::changelog::{Changelog, Record, RecordRef};
use siltstone::store::serde::{U64, Utf8};
use siltstone::store::{How, RebuildReason, StoreOptions, Task, TaskOptions, Timestamped};
use siltstone::{ErrorKind, Result};

use crate::rig::{Rig, fails, options_on, partition_of};

type Seen = Timestamped<Utf8, U64>;
type Entry = (String, (u64, i64));

fn options(rig: &Rig, dir: &str) -> TaskOptions {
    options_on(&rig.env, &dir.into(), Arc::new(rig.changelog.clone()))
        .store(StoreOptions::timestamped("seen"))
}

fn open(rig: &Rig, dir: &str) -> (Task, Seen) {
    let task = Task::open(options(rig, dir)).unwrap();
    let seen = task.timestamped("seen", Utf8, U64).unwrap();
    (task, seen)
}

fn all(entries: impl Iterator<Item = Result<Entry>>) -> Vec<(String, u64, i64)> {
    let flat = |entry: Result<Entry>| {
        let (key, (value, time)) = entry.unwrap();
        (key, value, time)
    };
    entries.map(flat).collect()
}

fn of<const N: usize>(entries: [(&str, u64, i64); N]) -> Vec<(String, u64, i64)> {
    entries
        .map(|(key, value, time)| (key.to_owned(), value, time))
        .into()
}

fn records(rig: &Rig) -> Vec<Record> {
    let partition = partition_of("seen");
    let start = rig.log.bounds(&partition).unwrap().unwrap().start;
    let mut reader = rig.log.reader(&partition, start).unwrap();
    let mut records = Vec::new();
    let mut take = |_, record: RecordRef<'_>| {
        records.push(Record::from(record));
        Ok(())
    };
    while !reader.fetch(&mut take).unwrap().at_end {}
    records
}

#[test]
fn every_read_and_write_has_the_timestamp() {
    let rig = Rig::new();
    let (mut task, seen) = open(&rig, "/here");
    assert_eq!(seen.name(), "seen");
    seen.put(&mut task, "a", &1, 10).unwrap();
    task.commit().unwrap();
    seen.put(&mut task, "a", &2, 5).unwrap();
    assert_eq!(seen.get("a").unwrap(), Some((2, 5)));
    assert_eq!(seen.committed().unwrap().get("a").unwrap(), Some((1, 10)));
    let frozen = seen.snapshot().unwrap();
    assert_eq!(
        seen.put_if_absent(&mut task, "a", &3, 30).unwrap(),
        Some((2, 5))
    );
    assert_eq!(seen.put_if_absent(&mut task, "b", &3, 30).unwrap(), None);
    seen.put_all(&mut task, [("c", Some((&4, 40))), ("ca", Some((&5, 0)))])
        .unwrap();
    seen.put_all(&mut task, [("c", None)]).unwrap();
    assert_eq!(
        seen.get_all(&["a", "c", "ca"]).unwrap(),
        [Some((2, 5)), None, Some((5, 0))]
    );
    let expected = of([("a", 2, 5), ("b", 3, 30), ("ca", 5, 0)]);
    assert_eq!(all(seen.entries().unwrap()), expected);
    assert_eq!(all(seen.range("b".."c").unwrap()), of([("b", 3, 30)]));
    assert_eq!(all(seen.prefix("c").unwrap()), of([("ca", 5, 0)]));
    assert_eq!(seen.take(&mut task, "b").unwrap(), Some((3, 30)));
    seen.delete(&mut task, "ca").unwrap();
    assert_eq!(all(seen.entries().unwrap()), of([("a", 2, 5)]));
    assert_eq!(frozen.get("b").unwrap(), None);
    assert_eq!(seen.at(frozen.as_of()).get("a").unwrap(), Some((2, 5)));
    assert!(seen.approximate_len().unwrap() > 0);
    task.abort().unwrap();
    assert_eq!(all(seen.entries().unwrap()), of([("a", 1, 10)]));
}

#[test]
fn the_changelog_has_plain_values_with_the_timestamp_beside_them() {
    let rig = Rig::new();
    let (mut task, seen) = open(&rig, "/here");
    task.set_record_time(Some(77));
    seen.put(&mut task, "a", &1, 10).unwrap();
    seen.put(&mut task, "b", &2, 20).unwrap();
    seen.delete(&mut task, "a").unwrap();
    task.commit().unwrap();
    let told: Vec<_> = records(&rig)
        .into_iter()
        .map(|record| (record.key, record.value, record.timestamp_ms))
        .collect();
    let value = |value: u64| Some(value.to_be_bytes().to_vec());
    let expected = [
        (b"a".to_vec(), value(1), 10),
        (b"b".to_vec(), value(2), 20),
        (b"a".to_vec(), None, 77),
    ];
    assert_eq!(told, expected);
    drop((task, seen));
    let (task, seen) = open(&rig, "/elsewhere");
    assert_eq!(task.restored().store("seen").unwrap().how, How::Full);
    assert_eq!(all(seen.entries().unwrap()), of([("b", 2, 20)]));
    task.close().unwrap();
    let (task, seen) = open(&rig, "/elsewhere");
    assert_eq!(task.restored().store("seen").unwrap().how, How::UpToDate);
    assert_eq!(seen.get("b").unwrap(), Some((2, 20)));
}

#[test]
fn what_others_wrote_is_restored_with_its_timestamps() {
    let rig = Rig::new();
    let topics = [partition_of("seen"), partition_of("input-position")];
    let mut session = rig.log.claim("job-0", &topics).unwrap();
    for (key, value, time) in [("a", 1_u64, -1), ("b", 2, 1_700_000_000_000)] {
        let value = value.to_be_bytes();
        let record = RecordRef::new(key.as_bytes(), Some(&value)).at(time);
        session.append(0, record).unwrap();
    }
    let commit = session.prepare().unwrap();
    session.wait(commit).unwrap();
    let (_task, seen) = open(&rig, "/here");
    let expected = of([("a", 1, -1), ("b", 2, 1_700_000_000_000)]);
    assert_eq!(all(seen.entries().unwrap()), expected);
}

#[test]
fn a_negative_timestamp_is_refused_and_changes_nothing() {
    let rig = Rig::new();
    let (mut task, seen) = open(&rig, "/here");
    let both = [("a", Some((&1, 1))), ("b", Some((&2, -1)))];
    let told = fails(seen.put_all(&mut task, both), ErrorKind::InvalidArgument);
    assert!(told.contains("timestamp -1"), "{told}");
    assert_eq!(all(seen.entries().unwrap()), of([]));
    task.commit().unwrap();
}

#[test]
fn a_store_stays_of_its_kind_unless_it_is_rebuilt() {
    let rig = Rig::new();
    let (mut task, seen) = open(&rig, "/here");
    let refused = task.key_value("seen", Utf8, U64);
    let told = fails(refused.map(drop), ErrorKind::InvalidArgument);
    assert!(told.contains("timestamped"), "{told}");
    seen.put(&mut task, "a", &1, 10).unwrap();
    task.commit().unwrap();
    drop(seen);
    task.close().unwrap();

    let plain = || {
        let log: Arc<dyn Changelog> = Arc::new(rig.changelog.clone());
        options_on(&rig.env, &"/here".into(), log).store("seen")
    };
    let told = fails(Task::open(plain()).map(drop), ErrorKind::Diverged);
    assert!(told.contains("kept as a timestamped store"), "{told}");
    assert_eq!(all(open(&rig, "/here").1.entries().unwrap()).len(), 1);

    let task = Task::open(plain().rebuild(true)).unwrap();
    let how = task.restored().store("seen").unwrap().how;
    assert_eq!(how, How::Rebuilt(RebuildReason::Asked));
    fails(
        task.timestamped("seen", Utf8, U64).map(drop),
        ErrorKind::InvalidArgument,
    );
    let seen = task.key_value("seen", Utf8, U64).unwrap();
    assert_eq!(seen.get("a").unwrap(), Some(1));
    task.close().unwrap();
    fails(
        Task::open(options(&rig, "/here")).map(drop),
        ErrorKind::Diverged,
    );
}
