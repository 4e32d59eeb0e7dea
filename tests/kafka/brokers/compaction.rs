//! Logs that brokers really compact.

use std::collections::BTreeMap;

use siltstone::changelog::RecordRef;

use crate::peer::Peer;
use crate::rig::{
    Cluster, Contents, GUARANTEES, Job, calm, commit, contents_of, materialised, open, partition,
    restore, topic_of, unique,
};
use crate::watchdog::within;

/// Segments that end after half a second, and no patience with tombstones.
const QUICK: &str = "cleanup.policy=compact min.cleanable.dirty.ratio=0.01 segment.ms=500 \
                     delete.retention.ms=1000 min.compaction.lag.ms=0";

/// The records of each key, tombstones as none.
fn by_key(peer: &mut Peer, topic: &str) -> BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>> {
    let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (_, record) in peer.read(topic) {
        keys.entry(record.key).or_default().push(record.value);
    }
    keys
}

#[test]
fn a_compacted_log_restores_to_the_same_state() {
    let _calm = calm();
    within(240, || {
        let cluster = Cluster::main();
        for guarantee in GUARANTEES {
            let log = open(cluster.options().guarantee(guarantee));
            let mut peer = Peer::new(&cluster.bootstrap);
            let namespace = unique("compacted");
            let topic = topic_of(&namespace);
            peer.create(&topic, QUICK);
            let dir = tempfile::tempdir().unwrap();
            let mut job = Job::open(&namespace, dir.path(), &log);
            for round in 0..20 {
                for key in 0..10 {
                    job.put(&format!("key {key}"), &round.to_string());
                }
                job.task.commit().unwrap();
            }
            for key in 0..5 {
                job.delete(&format!("key {key}"));
            }
            job.task.commit().unwrap();
            // The segment that is written to is never compacted: each write may begin another.
            let mut rounds = 0;
            loop {
                job.put("nudge", &rounds.to_string());
                job.task.commit().unwrap();
                rounds += 1;
                let keys = by_key(&mut peer, &topic);
                let deleted = (0..5).all(|key| !keys.contains_key(format!("key {key}").as_bytes()));
                let kept = (5..10).all(|key| keys[format!("key {key}").as_bytes()].len() == 1);
                if deleted && kept {
                    break;
                }
            }
            let expected = job.contents();
            assert_eq!(expected.len(), 6);
            assert_eq!(materialised(peer.read(&topic)), expected);
            job.close();
            println!("compacted after {rounds} nudges");
            let elsewhere = tempfile::tempdir().unwrap();
            let job = Job::open(&namespace, elsewhere.path(), &log);
            assert_eq!(job.contents(), expected);
            job.close();
        }
    });
}

/// Compaction keeps the last batch of each producer even if no record of it is left, and such a
/// batch may be all that a restore finds.
#[test]
fn emptied_batches_are_stepped_over() {
    let _calm = calm();
    within(240, || {
        let cluster = Cluster::main();
        let log = cluster.changelog();
        let mut peer = Peer::new(&cluster.bootstrap);
        let (task, topic) = (unique("task"), unique("emptied"));
        peer.create(&topic, QUICK);
        let expected: Contents = contents_of(&[("a", "last"), ("b", "last")]);
        let mut rounds = 0;
        loop {
            // Each owner overwrites all that the one before it wrote.
            let mut session = log.claim(&task, &[partition(&topic)]).unwrap();
            for key in ["a", "b"] {
                session
                    .append(0, RecordRef::new(key.as_bytes(), Some(b"last")))
                    .unwrap();
            }
            commit(&mut *session).unwrap();
            session.close().unwrap();
            rounds += 1;
            let found = peer.read(&topic);
            // More owners wrote than records are left, and those at the start are gone.
            if rounds > 3 && found.len() < rounds && found[0].0 > 2 {
                break;
            }
        }
        let mut session = log.claim(&task, &[partition(&topic)]).unwrap();
        let mut contents = Contents::new();
        for (key, value) in restore(&mut *session) {
            contents.insert(key, value.unwrap());
        }
        assert_eq!(contents, expected);
        session.append(0, RecordRef::new(b"c", Some(b"1"))).unwrap();
        commit(&mut *session).unwrap();
        assert_eq!(materialised(peer.read(&topic)).len(), 3);
    });
}
