//! Appends, commits, aborts, restores and fences; the log shortened or replaced from outside.

use siltstone::changelog::{Guarantee, Header, RecordRef};
use siltstone::store::How;
use siltstone::{ErrorKind, Result};

use crate::history::{End, History, write};
use crate::peer::Peer;
use crate::rig::{
    Cluster, GUARANTEES, Job, calm, commit, contents_of, fails, follow, materialised, now_ms, open,
    partition, restore, topic_of, unique,
};
use crate::watchdog::within;

#[test]
fn records_arrive_whole() {
    let _calm = calm();
    let cluster = Cluster::main();
    for guarantee in GUARANTEES {
        let log = open(cluster.options().guarantee(guarantee));
        assert_eq!(log.guarantee(), guarantee);
        let topic = unique("whole");
        let mut session = log.claim(&unique("task"), &[partition(&topic)]).unwrap();
        let header = |key, value| Header { key, value };
        let headers = [
            header(&b"trace"[..], Some(&b"1"[..])),
            header(b"trace", None),
            header(b"", Some(b"")),
        ];
        let time = now_ms();
        let large = vec![7; 100_000];
        let records = [
            RecordRef::new(b"a", Some(b"1"))
                .at(time)
                .with_headers(&headers),
            RecordRef::new(b"", Some(b"")).at(time + 1),
            RecordRef::new(b"\0\xff", Some(&large)).at(time - 1),
            RecordRef::new(b"a", None).at(time),
        ];
        for record in records {
            session.append(0, record).unwrap();
        }
        commit(&mut *session).unwrap();
        let found: Vec<_> = Peer::new(&cluster.bootstrap).read(&topic);
        assert_eq!(found.len(), records.len());
        for ((_, found), record) in found.iter().zip(records) {
            found.with_ref(|found| assert_eq!(found, record));
        }
        session.close().unwrap();
    }
}

#[test]
fn an_aborted_commit_is_never_seen() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let topic = unique("aborted");
    let mut session = log.claim(&unique("task"), &[partition(&topic)]).unwrap();
    let mut history = History::default();
    for round in 0..6 {
        let first = history.next();
        if round % 2 == 0 {
            history.commit(&mut *session, 100).unwrap();
        } else {
            write(&mut *session, first, 100).unwrap();
            session.abort().unwrap();
            history.add(first, 100, End::Aborted);
        }
    }
    history.check(&Peer::new(&cluster.bootstrap).read(&topic));
    assert_eq!(follow(&cluster, &*log, &topic).len(), 300);
    assert_eq!(history.committed(), 3);
}

#[test]
fn a_new_owner_fences_the_old_one_and_restores_all_of_its_commits() {
    let _calm = calm();
    let cluster = Cluster::main();
    for guarantee in GUARANTEES {
        let log = open(cluster.options().guarantee(guarantee));
        let (task, topic) = (unique("task"), unique("fenced"));
        let mut old = log.claim(&task, &[partition(&topic)]).unwrap();
        let mut history = History::default();
        for _ in 0..5 {
            history.commit(&mut *old, 200).unwrap();
        }
        // In the midst of a commit.
        write(&mut *old, history.next(), 10).unwrap();
        let mut new = log.claim(&task, &[partition(&topic)]).unwrap();
        let restored = restore(&mut *new);
        if guarantee == Guarantee::Atomic {
            assert_eq!(restored.len(), 1000);
        }
        assert!(restored.len() >= 1000);
        let late = write(&mut *old, history.next() + 10, 1).and_then(|()| commit(&mut *old));
        fails(late, ErrorKind::Fenced);
        fails(old.idle_positions(), ErrorKind::Fenced);
        // The fence held: what was read is all there is.
        assert_eq!(follow(&cluster, &*log, &topic), restored);
        new.append(0, RecordRef::new(b"new", Some(b"owner")))
            .unwrap();
        commit(&mut *new).unwrap();
        assert_eq!(follow(&cluster, &*log, &topic).len(), restored.len() + 1);
        assert!(new.owner() != old.owner());
    }
}

#[test]
fn a_large_log_is_restored_whole() {
    let _calm = calm();
    let cluster = Cluster::main();
    for guarantee in GUARANTEES {
        let log = open(cluster.options().guarantee(guarantee));
        let (task, topic) = (unique("task"), unique("large"));
        let mut session = log.claim(&task, &[partition(&topic)]).unwrap();
        let mut history = History::default();
        for _ in 0..20 {
            history.commit(&mut *session, 5000).unwrap();
        }
        let positions = session.idle_positions().unwrap();
        session.close().unwrap();
        let mut session = log.claim(&task, &[partition(&topic)]).unwrap();
        let restored = restore(&mut *session);
        let numbers = restored.iter().map(|(_, value)| value.clone().unwrap());
        let expected = (0..100_000).map(|number: u32| number.to_string().into_bytes());
        assert!(numbers.eq(expected), "{} records", restored.len());
        let bounds = session.bounds(0).unwrap();
        assert!(bounds.end >= positions[0].next);
        history.check(&Peer::new(&cluster.bootstrap).read(&topic));
    }
}

#[test]
fn a_task_moves_between_machines() {
    let _calm = calm();
    let cluster = Cluster::main();
    for guarantee in GUARANTEES {
        let log = open(cluster.options().guarantee(guarantee));
        let namespace = unique("moves");
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut job = Job::open(&namespace, here.path(), &log);
        job.put("a", "1");
        job.put("b", "1");
        job.task.set_input_position("in", 2).unwrap();
        job.task.commit().unwrap();
        job.close();

        let mut job = Job::open(&namespace, there.path(), &log);
        assert_eq!(job.contents(), contents_of(&[("a", "1"), ("b", "1")]));
        assert_eq!(job.task.input_position("in").unwrap(), Some(2));
        job.delete("a");
        job.put("c", "1");
        job.task.set_input_position("in", 4).unwrap();
        job.task.commit().unwrap();

        // The first machine comes back with its old state; the second is still at work.
        let back = Job::open(&namespace, here.path(), &log);
        let restored = back.task.restored().store("store").unwrap();
        assert_eq!(restored.how, How::Tail);
        assert_eq!(back.contents(), contents_of(&[("b", "1"), ("c", "1")]));
        assert_eq!(back.task.input_position("in").unwrap(), Some(4));
        job.put("d", "1");
        fails(job.task.commit(), ErrorKind::Fenced);
        let found = Peer::new(&cluster.bootstrap).read(&topic_of(&namespace));
        assert_eq!(materialised(found), back.contents());
        back.close();
    }
}

#[test]
fn a_trimmed_log_means_a_rebuild() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let mut peer = Peer::new(&cluster.bootstrap);
    let namespace = unique("trimmed");
    let topic = topic_of(&namespace);
    // A topic that only compacts takes no orders to delete records.
    peer.create(&topic, "cleanup.policy=compact,delete retention.ms=-1");
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut job = Job::open(&namespace, here.path(), &log);
    job.put("old", "1");
    job.task.commit().unwrap();
    job.close();
    let mut job = Job::open(&namespace, there.path(), &log);
    job.delete("old");
    job.put("gone", "1");
    job.task.commit().unwrap();
    // A commit is answered before its marker is written.
    peer.settle(&topic);
    let trim = peer.bounds(&topic).1;
    job.put("kept", "1");
    job.task.commit().unwrap();
    job.close();
    peer.ask(&format!("trim {topic} 0 {trim}"));
    assert_eq!(peer.bounds(&topic).0, trim);
    let job = Job::open(&namespace, here.path(), &log);
    let restored = job.task.restored().store("store").unwrap();
    assert!(matches!(restored.how, How::Rebuilt(_)), "{restored:?}");
    // The state behind the trim and nothing else: the deleted key has not come back.
    assert_eq!(job.contents(), contents_of(&[("kept", "1")]));
    job.close();
}

#[test]
fn another_topic_of_the_same_name_is_not_taken_for_the_old_one() {
    let _calm = calm();
    let cluster = Cluster::main();
    let log = cluster.changelog();
    let mut peer = Peer::new(&cluster.bootstrap);
    let namespace = unique("recreated");
    let topic = topic_of(&namespace);
    let dir = tempfile::tempdir().unwrap();
    let mut job = Job::open(&namespace, dir.path(), &log);
    job.put("a", "1");
    job.task.commit().unwrap();
    job.close();
    peer.ask(&format!("delete {topic}"));
    let missing = Job::try_open(&namespace, dir.path(), &log).map(Job::close);
    fails(missing, ErrorKind::Diverged);
    peer.create(&topic, "cleanup.policy=compact");
    let replaced = Job::try_open(&namespace, dir.path(), &log).map(Job::close);
    fails(replaced, ErrorKind::Diverged);
    assert_eq!(peer.read(&topic), [], "nothing was changed");
}

#[test]
fn a_transaction_that_takes_too_long_is_not_committed() {
    let _calm = calm();
    within(120, || {
        let cluster = Cluster::main();
        let timeout = std::time::Duration::from_millis(1500);
        let log = open(cluster.options().transaction_timeout(timeout));
        let topic = unique("slow");
        let task = unique("task");
        let mut session = log.claim(&task, &[partition(&topic)]).unwrap();
        let mut history = History::default();
        history.commit(&mut *session, 10).unwrap();
        let first = history.next();
        write(&mut *session, first, 10).unwrap();
        // The broker's abort is seen from outside: what is decided moves past the open records.
        let mut peer = Peer::new(&cluster.bootstrap);
        let decided = |peer: &mut Peer| {
            let words = peer.ask(&format!("bounds {topic} 0"))[0].clone();
            let ends: Vec<u64> = words.split(' ').map(|word| word.parse().unwrap()).collect();
            ends[1] == ends[2] && ends[2] > 11 + 10
        };
        while !decided(&mut peer) {}
        history.add(first, 10, End::Aborted);
        let late: Result<_> = commit(&mut *session);
        let kind = late.unwrap_err().kind();
        assert!(
            kind == ErrorKind::Changelog || kind == ErrorKind::Fenced,
            "{kind:?}"
        );
        // Brokers before 4.0 do not tell a timeout from a new owner.
        if kind == ErrorKind::Fenced {
            session = log.claim(&task, &[partition(&topic)]).unwrap();
        } else {
            session.abort().unwrap();
        }
        history.commit(&mut *session, 10).unwrap();
        history.check(&peer.read(&topic));
    });
}
