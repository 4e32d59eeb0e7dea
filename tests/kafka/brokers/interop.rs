//! Kafka Streams and Samza restore what this store wrote, and the other way round.

use std::sync::Arc;

use siltstone::changelog::Changelog;

use crate::peer::{Peer, bytes, words};
use crate::rig::{
    Cluster, Contents, Job, calm, contents_of, follow, materialised, now_ms, topic_of, unique,
};

/// Puts, updates and deletes that come to `{a: 2, c: 1, e: ""}`.
const CHANGES: [(&str, Option<&str>); 7] = [
    ("a", Some("1")),
    ("b", Some("1")),
    ("a", Some("2")),
    ("c", Some("1")),
    ("b", None),
    ("d", None),
    ("e", Some("")),
];

fn expected() -> Contents {
    contents_of(&[("a", "2"), ("c", "1"), ("e", "")])
}

/// The changes as words of a command, a second apart.
fn changes(time: i64) -> String {
    let records: Vec<_> = (0_i64..)
        .zip(CHANGES)
        .map(|(index, (key, value))| {
            let value = value.map(str::as_bytes);
            (key.as_bytes(), value, time + index * 1000)
        })
        .collect();
    words(&records)
}

/// A time in the past, so that no change is in the future.
fn some_time() -> i64 {
    now_ms() - 60_000
}

#[test]
fn a_task_restores_what_kafka_streams_wrote() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let mut peer = Peer::new(&cluster.bootstrap);
    for kind in ["plain", "timestamped"] {
        let application = unique(kind);
        peer.ask(&format!(
            "streams-write {application} {kind} {}",
            changes(some_time())
        ));
        let dir = tempfile::tempdir().unwrap();
        let mut job = Job::open(&application, dir.path(), &log);
        assert_eq!(job.contents(), expected(), "{kind}");
        // And goes on from there.
        job.delete("c");
        job.put("f", "1");
        job.task.commit().unwrap();
        let lines = peer.ask(&format!("streams-restore {application} {kind}"));
        assert_eq!(entries(&lines), job.contents(), "{kind}");
        job.close();
    }
}

#[test]
fn kafka_streams_restores_what_a_task_wrote() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let mut peer = Peer::new(&cluster.bootstrap);
    for kind in ["plain", "timestamped"] {
        let namespace = unique(kind);
        let time = some_time();
        write_changes(&namespace, &log, time);
        let lines = peer.ask(&format!("streams-restore {namespace} {kind}"));
        assert_eq!(entries(&lines), expected(), "{kind}");
        if kind == "timestamped" {
            let times: Vec<i64> = lines.iter().map(|line| time_of(line)).collect();
            assert_eq!(times, [time + 2000, time + 3000, time + 6000]);
        }
    }
}

#[test]
fn samza_and_a_task_restore_what_the_other_wrote() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let mut peer = Peer::new(&cluster.bootstrap);
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let namespace = unique(compression);
        let topic = topic_of(&namespace);
        peer.create(&topic, "cleanup.policy=compact");
        let records = changes(some_time());
        peer.ask(&format!("send {topic} 0 {compression} {records}"));
        let dir = tempfile::tempdir().unwrap();
        let mut job = Job::open(&namespace, dir.path(), &log);
        assert_eq!(job.contents(), expected(), "{compression}");
        job.put("f", "1");
        job.task.commit().unwrap();
        assert_eq!(
            materialised(peer.read(&topic)),
            job.contents(),
            "{compression}"
        );
        job.close();
    }
    let namespace = unique("samza");
    write_changes(&namespace, &log, some_time());
    let found = peer.read(&topic_of(&namespace));
    let found: Vec<_> = found
        .iter()
        .map(|(_, record)| (&record.key[..], record.value.as_deref()))
        .collect();
    let wrote = CHANGES.map(|(key, value)| (key.as_bytes(), value.map(str::as_bytes)));
    assert_eq!(found, wrote);
}

#[test]
fn transactions_of_others_are_taken_or_left_whole() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let mut peer = Peer::new(&cluster.bootstrap);
    let topic = unique("transactions");
    peer.create(&topic, "cleanup.policy=compact");
    let mut expected = Vec::new();
    for round in 0_i64..6 {
        let key = [b'a' + u8::try_from(round).unwrap()];
        let records = words(&[(&key[..], Some(&b"1"[..]), now_ms())]);
        let end = if round % 3 == 1 { "abort" } else { "commit" };
        peer.ask(&format!("transaction {topic} 0 {end} {records}"));
        if end == "commit" {
            expected.push((key.to_vec(), Some(b"1".to_vec())));
        }
    }
    assert_eq!(follow(&cluster, &*log, &topic), expected);
}

fn write_changes(namespace: &str, log: &Arc<dyn Changelog>, time: i64) {
    let dir = tempfile::tempdir().unwrap();
    let mut job = Job::open(namespace, dir.path(), log);
    for (index, (key, value)) in (0_i64..).zip(CHANGES) {
        job.task.set_record_time(Some(time + index * 1000));
        match value {
            Some(value) => job.put(key, value),
            None => job.delete(key),
        }
        if index % 3 == 2 {
            job.task.commit().unwrap();
        }
    }
    job.task.commit().unwrap();
    assert_eq!(job.contents(), expected());
    job.close();
}

/// Lines of timestamp, key and value.
fn entries(lines: &[String]) -> Contents {
    let entry = |line: &String| {
        let mut words = line.split(' ').skip(1);
        let key = bytes(words.next().unwrap()).unwrap();
        (key, bytes(words.next().unwrap()).unwrap())
    };
    lines.iter().map(entry).collect()
}

fn time_of(line: &str) -> i64 {
    line.split(' ').next().unwrap().parse().unwrap()
}
