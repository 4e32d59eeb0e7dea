//! Brokers that soon forget who owned what.

use std::thread;
use std::time::{Duration, Instant};

use siltstone::ErrorKind;
use siltstone::changelog::{Guarantee, RecordRef};
use siltstone::kafka::Kafka;

use crate::peer::Peer;
use crate::rig::{Cluster, GUARANTEES, commit, fails, follow, open, partition, unique};
use crate::watchdog::within;

/// How soon they forget.
const EXPIRATION: Duration = Duration::from_secs(4);

/// Brokers that forget after [`EXPIRATION`].
fn forgetful() -> Cluster {
    let expiration = EXPIRATION.as_millis();
    Cluster::start(
        1,
        &[
            &format!("producer.id.expiration.ms={expiration}"),
            "producer.id.expiration.check.interval.ms=200",
            &format!("transactional.id.expiration.ms={expiration}"),
            "transaction.remove.expired.transaction.cleanup.interval.ms=200",
        ],
    )
}

#[test]
fn fences_are_renewed_as_often_as_the_brokers_say_without_being_asked() {
    within(180, || {
        let cluster = forgetful();
        let log = Kafka::open(cluster.options()).unwrap();
        let found = log.fence_expiration().unwrap();
        assert_eq!(found.producer_id, EXPIRATION);
        assert_eq!(found.transactional_id, EXPIRATION);
        assert_eq!(found.assumed, None);
        for guarantee in GUARANTEES {
            let log = open(cluster.options().guarantee(guarantee));
            let (task, topic) = (unique("task"), unique("quiet"));
            let mut old = log.claim(&task, &[partition(&topic)]).unwrap();
            let mut new = log.claim(&task, &[partition(&topic)]).unwrap();
            // Markers of heartbeats, and nothing else, move the end.
            let end = |peer: &mut Peer| {
                peer.settle(&topic);
                peer.bounds(&topic).1
            };
            let mut peer = Peer::new(&cluster.bootstrap);
            let first = end(&mut peer);
            let began = Instant::now();
            while began.elapsed() < EXPIRATION * 3 {
                end(&mut peer);
            }
            let beats = end(&mut peer) - first;
            println!("{beats} heartbeats by itself, {guarantee:?}");
            assert!(beats >= 6, "{beats} in {:?}", EXPIRATION * 3);
            let late = old
                .append(0, RecordRef::new(b"a", Some(b"zombie")))
                .and_then(|()| commit(&mut *old).map(drop));
            fails(late, ErrorKind::Fenced);
            new.append(0, RecordRef::new(b"b", Some(b"new"))).unwrap();
            commit(&mut *new).unwrap();
            assert_eq!(peer.read(&topic).len(), 1);
        }
        cluster.control(&["down"]);
    });
}

#[test]
fn heartbeats_keep_a_fence_that_brokers_would_forget() {
    within(180, || {
        let cluster = forgetful();
        thread::scope(|scope| {
            for guarantee in GUARANTEES {
                let cluster = &cluster;
                scope.spawn(move || heartbeats_keep_a_fence(cluster, guarantee));
            }
        });
        cluster.control(&["down"]);
    });
}

fn heartbeats_keep_a_fence(cluster: &Cluster, guarantee: Guarantee) {
    let log = open(cluster.options().guarantee(guarantee));
    let (task, topic) = (unique("task"), unique("expiry"));
    let mut old = log.claim(&task, &[partition(&topic)]).unwrap();
    old.append(0, RecordRef::new(b"a", Some(b"old"))).unwrap();
    commit(&mut *old).unwrap();
    let mut new = log.claim(&task, &[partition(&topic)]).unwrap();
    let began = Instant::now();
    let mut beats = 0;
    while began.elapsed() < EXPIRATION * 2 {
        new.idle_positions().unwrap();
        beats += 1;
    }
    println!("{beats} heartbeats, {guarantee:?}");
    old.append(0, RecordRef::new(b"a", Some(b"zombie")))
        .and_then(|()| commit(&mut *old).map(drop))
        .map_err(|error| assert_eq!(error.kind(), ErrorKind::Fenced, "{error}"))
        .unwrap_err();
    fails(old.idle_positions(), ErrorKind::Fenced);
    // Appends go on where brokers forget the sequence of an idle producer.
    new.append(0, RecordRef::new(b"b", Some(b"new"))).unwrap();
    commit(&mut *new).unwrap();
    let keys: Vec<_> = follow(cluster, &*log, &topic)
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [b"a", b"b"]);
}
