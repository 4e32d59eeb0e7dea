//! Brokers that soon forget who owned what.

use std::time::{Duration, Instant};

use siltstone::ErrorKind;
use siltstone::changelog::RecordRef;

use crate::rig::{Cluster, GUARANTEES, commit, fails, follow, open, partition, unique};
use crate::watchdog::within;

/// How soon they forget.
const EXPIRATION: Duration = Duration::from_secs(4);

#[test]
fn heartbeats_keep_a_fence_that_brokers_would_forget() {
    within(180, || {
        let expiration = EXPIRATION.as_millis();
        let cluster = Cluster::start(&[
            &format!("producer.id.expiration.ms={expiration}"),
            "producer.id.expiration.check.interval.ms=200",
            &format!("transactional.id.expiration.ms={expiration}"),
            "transaction.remove.expired.transaction.cleanup.interval.ms=200",
        ]);
        for guarantee in GUARANTEES {
            let log = open(cluster.options().guarantee(guarantee));
            let (task, topic) = (unique("task"), unique("expiry"));
            let mut old = log.claim(&task, &[partition(&topic)]).unwrap();
            old.append(0, RecordRef::new(b"a", Some(b"old"))).unwrap();
            commit(&mut *old).unwrap();
            let mut new = log.claim(&task, &[partition(&topic)]).unwrap();
            let began = Instant::now();
            let mut beats = 0;
            while began.elapsed() < EXPIRATION * 3 {
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
            let keys: Vec<_> = follow(&cluster, &*log, &topic)
                .into_iter()
                .map(|(key, _)| key)
                .collect();
            assert_eq!(keys, [b"a", b"b"]);
        }
        cluster.control(&["down"]);
    });
}
