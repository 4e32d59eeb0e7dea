//! Logins, and encrypted connections.

use std::time::Duration;

use siltstone::ErrorKind;
use siltstone::changelog::RecordRef;
use siltstone::kafka::{Kafka, KafkaOptions, SaslMechanism, TlsOptions};

use crate::peer::Peer;
use crate::rig::{Cluster, calm, commit, fails, follow, open, partition, unique};

const LOGINS: [(SaslMechanism, &str, &str); 3] = [
    (SaslMechanism::Plain, "alice", "alice-secret"),
    (SaslMechanism::ScramSha256, "bob", "bob-secret"),
    (SaslMechanism::ScramSha512, "bob", "bob-secret"),
];

/// The ports of all nodes for clients of one kind; see `tests/kafka/nodes/control`.
fn servers(cluster: &Cluster, index: u32) -> String {
    let nodes = 1..=cluster.nodes;
    let servers = nodes.map(|node| format!("127.0.0.1:{}", cluster.port(node, index)));
    servers.collect::<Vec<_>>().join(",")
}

/// Where clients log in, of all nodes.
fn options(cluster: &Cluster) -> KafkaOptions {
    KafkaOptions::new(servers(cluster, 2)).plain_without_tls(true)
}

/// Where they encrypt.
fn encrypted(cluster: &Cluster) -> KafkaOptions {
    let timeout = Duration::from_secs(5);
    KafkaOptions::new(servers(cluster, 5)).operation_timeout(timeout)
}

#[test]
fn every_way_to_log_in_works() {
    let _calm = calm();
    let cluster = Cluster::main();
    for (mechanism, user, password) in LOGINS {
        let log = open(options(&cluster).sasl(mechanism, user, password));
        let topic = unique("login");
        let mut session = log.claim(&unique("task"), &[partition(&topic)]).unwrap();
        session.append(0, RecordRef::new(b"a", Some(b"1"))).unwrap();
        commit(&mut *session).unwrap();
        assert_eq!(follow(&cluster, &*log, &topic).len(), 1);
        assert_eq!(Peer::new(&cluster.bootstrap).read(&topic).len(), 1);
    }
}

#[test]
fn a_wrong_password_is_refused_and_not_told() {
    let _calm = calm();
    let cluster = Cluster::main();
    for (mechanism, user, _) in LOGINS {
        let options = options(&cluster).sasl(mechanism, user, "not-the-secret");
        let claimed = Kafka::open(options).and_then(|log| log_claim(&log, &unique("refused")));
        let message = fails(claimed, ErrorKind::InvalidArgument);
        assert!(!message.contains("not-the-secret"), "{message}");
    }
}

#[test]
fn encrypted_connections_work_and_prove_who_the_broker_is() {
    let _calm = calm();
    let cluster = Cluster::main();
    let tls = TlsOptions::new(cluster.file("ca.pem"));
    let log = open(encrypted(&cluster).tls(tls.clone()));
    let topic = unique("tls");
    let mut session = log.claim(&unique("task"), &[partition(&topic)]).unwrap();
    let value = vec![7; 200_000];
    for key in [b"a", b"b"] {
        session
            .append(0, RecordRef::new(key, Some(&value)))
            .unwrap();
    }
    commit(&mut *session).unwrap();
    let found = follow(&cluster, &*log, &topic);
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|(_, found)| found.as_ref() == Some(&value))
    );
    assert_eq!(Peer::new(&cluster.bootstrap).read(&topic).len(), 2);
    let refused = |options: KafkaOptions| {
        Kafka::open(options).and_then(|log| log_claim(&log, &unique("refused")))
    };
    let other = refused(encrypted(&cluster).tls(tls.clone().server_name("broker.example")));
    let told = fails(other, ErrorKind::InvalidArgument);
    assert!(told.contains("one of another host"), "{told}");
    let plain = refused(encrypted(&cluster));
    let told = fails(plain, ErrorKind::Changelog);
    assert!(
        told.contains("want TLS?") || told.contains("given up"),
        "{told}"
    );
    let nothing_encrypted = KafkaOptions::new(&cluster.bootstrap)
        .operation_timeout(Duration::from_secs(2))
        .tls(tls);
    let told = fails(refused(nothing_encrypted), ErrorKind::Changelog);
    assert!(told.contains("does the server speak TLS there?"), "{told}");
}

fn log_claim(log: &Kafka, topic: &str) -> siltstone::Result<()> {
    use siltstone::changelog::Changelog as _;
    log.claim(&unique("task"), &[partition(topic)])?.close()
}
