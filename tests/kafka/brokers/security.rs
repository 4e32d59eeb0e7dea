//! Logins.

use siltstone::ErrorKind;
use siltstone::changelog::RecordRef;
use siltstone::kafka::{Kafka, KafkaOptions, SaslMechanism};

use crate::peer::Peer;
use crate::rig::{Cluster, calm, commit, fails, follow, open, partition, unique};

const LOGINS: [(SaslMechanism, &str, &str); 3] = [
    (SaslMechanism::Plain, "alice", "alice-secret"),
    (SaslMechanism::ScramSha256, "bob", "bob-secret"),
    (SaslMechanism::ScramSha512, "bob", "bob-secret"),
];

/// Where clients log in, of all nodes.
fn options(cluster: &Cluster) -> KafkaOptions {
    let servers = (1..=cluster.nodes).map(|node| format!("127.0.0.1:{}", cluster.port(node, 2)));
    KafkaOptions::new(servers.collect::<Vec<_>>().join(",")).plain_without_tls(true)
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

fn log_claim(log: &Kafka, topic: &str) -> siltstone::Result<()> {
    use siltstone::changelog::Changelog as _;
    log.claim(&unique("task"), &[partition(topic)])?.close()
}
