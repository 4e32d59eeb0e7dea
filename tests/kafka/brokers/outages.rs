//! Brokers that die, hang, come back and hand over while records are written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use siltstone::ErrorKind;
use siltstone::changelog::{Changelog, RecordRef, Session};

use crate::history::{End, History};
use crate::peer::Peer;
use crate::rig::{Cluster, GUARANTEES, alone, commit, follow, open, partition, restore, unique};
use crate::watchdog::within;

/// Writes to a partition until `outages` have all happened, then some more, and compares.
fn write_through(outages: impl FnOnce(&Cluster, &str) + Send + 'static) {
    within(300, || {
        let cluster = Cluster::main();
        let log: Arc<dyn Changelog> = cluster.changelog();
        let topic = unique("outages");
        let mut session = log.claim(&unique("task"), &[partition(&topic)]).unwrap();
        let mut history = History::default();
        history.commit(&mut *session, 100).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (cluster, topic, done) = (cluster.clone(), topic.clone(), Arc::clone(&done));
            move || {
                outages(&cluster, &topic);
                done.store(true, Ordering::Release);
            }
        });
        let mut more = 20;
        while more > 0 {
            history.commit(&mut *session, 100).unwrap();
            if done.load(Ordering::Acquire) || thread.is_finished() {
                more -= 1;
            }
        }
        thread.join().unwrap();
        let found = Peer::new(&cluster.bootstrap).read(&topic);
        history.check(&found);
        assert!(history.committed() > 20);
        println!("{} commits, {} records", history.committed(), found.len());
    });
}

/// The node that leads the topic's partition.
fn leader(cluster: &Cluster, topic: &str) -> u32 {
    let mut peer = Peer::new(&cluster.bootstrap);
    loop {
        let leader: i32 = peer.ask(&format!("leader {topic} 0"))[0].parse().unwrap();
        if let Ok(leader) = u32::try_from(leader) {
            return leader;
        }
    }
}

#[test]
fn the_leader_is_killed() {
    let _alone = alone();
    write_through(|cluster, topic| {
        for _ in 0..2 {
            let node = leader(cluster, topic);
            cluster.node("kill", node);
            cluster.node("start", node);
        }
    });
}

#[test]
fn leaders_hand_over() {
    let _alone = alone();
    write_through(|cluster, _| {
        for node in 1..=cluster.nodes {
            cluster.node("stop", node);
            cluster.node("start", node);
        }
    });
}

/// Writes as a former owner, until it is told that it is one. The coordinator may have trouble
/// first: after an outage it completes what was under way, which can take it half a minute.
fn is_fenced(session: &mut dyn Session) {
    loop {
        let late = session
            .append(0, RecordRef::new(b"zombie", Some(b"1")))
            .and_then(|()| commit(session).map(drop));
        let error = match late.unwrap_err() {
            error if error.kind() == ErrorKind::Changelog => match session.abort() {
                Ok(()) => continue,
                Err(error) => error,
            },
            error => error,
        };
        if error.kind() != ErrorKind::Changelog {
            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
            return;
        }
    }
}

#[test]
fn a_fence_outlives_restarts_of_the_brokers() {
    let _alone = alone();
    within(240, || {
        let cluster = Cluster::main();
        // Of several nodes the last ones could not hand over: there is nobody left.
        let hows: &[_] = if cluster.nodes == 1 {
            &["stop", "kill"]
        } else {
            &["kill"]
        };
        for guarantee in GUARANTEES {
            for how in hows {
                let log = open(cluster.options().guarantee(guarantee));
                let (task, topic) = (unique("task"), unique("fence"));
                let mut history = History::default();
                let mut old = log.claim(&task, &[partition(&topic)]).unwrap();
                history.commit(&mut *old, 10).unwrap();
                let mut new = log.claim(&task, &[partition(&topic)]).unwrap();
                for node in 1..=cluster.nodes {
                    cluster.node(how, node);
                }
                // Nodes wait for each other to come up.
                thread::scope(|scope| {
                    for node in 1..=cluster.nodes {
                        let cluster = &cluster;
                        scope.spawn(move || cluster.node("start", node));
                    }
                });
                is_fenced(&mut *old);
                assert_eq!(restore(&mut *new).len(), 10);
                history.commit(&mut *new, 10).unwrap();
                assert_eq!(follow(&cluster, &*log, &topic).len(), 20);
                history.add(history.next(), 1, End::Aborted);
                history.check(&Peer::new(&cluster.bootstrap).read(&topic));
            }
        }
    });
}
