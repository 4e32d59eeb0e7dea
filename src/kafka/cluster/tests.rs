use std::io;
use std::time::Duration;

use super::view::View;
use super::{Cluster, Expirations};
use crate::env::OsEnv;
use crate::error::ErrorKind;
use crate::kafka::connection::peer::{Peer, Reply, metadata, versions};
use crate::kafka::connection::{Address, Connector, Deadline, Settings, Transport};
use crate::kafka::options::KafkaOptions;
use crate::kafka::protocol::Writer;
use crate::sync::{Arc, AtomicBool, Ordering};

/// Brokers by the name of their host: `bad` has a certificate of another one, `down` is not there,
/// and all others are the peer.
#[derive(Debug)]
struct ByHost(Peer);

impl Connector for ByHost {
    fn connect(&self, address: &Address, timeout: Duration) -> io::Result<Arc<dyn Transport>> {
        match address.host.as_str() {
            "bad" => Err(io::ErrorKind::InvalidInput.into()),
            "down" => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => self.0.connect(address, timeout),
        }
    }
}

/// A cluster whose transactions are coordinated by `coordinator`.
fn cluster(bootstrap: &str, coordinator: &'static str) -> Cluster {
    let spoken = &[(3, 0, 7), (10, 0, 2)];
    let peer = Peer::raw(usize::MAX, false, move |asked| match asked.api_key {
        18 => Reply::Body(versions(asked.version, spoken)),
        10 => {
            let mut body = Vec::new();
            let mut writer = Writer::new(&mut body, false);
            writer.i32(0);
            writer.i16(0);
            writer.nullable_string(None);
            writer.i32(1);
            writer.string(coordinator);
            writer.i32(9092);
            Reply::Body(body)
        }
        _ => Reply::Body(metadata(0)),
    });
    let options = KafkaOptions::new(bootstrap)
        .env(Arc::new(OsEnv::new()))
        .connector(Arc::new(ByHost(peer)));
    Cluster::new(Settings::new(options).unwrap())
}

#[test]
fn a_broker_that_refuses_is_passed_over_and_told_where_none_works() {
    let kind = |bootstrap: &str, deadline| {
        let connected = cluster(bootstrap, "good").connect_any(deadline);
        connected.map(drop).map_err(|error| error.kind())
    };
    // Where it begins is chance.
    for _ in 0..16 {
        assert_eq!(kind("bad:1,bad:2,bad:3,good:4", Deadline::NEVER), Ok(()));
    }
    let refused = kind("bad:1,bad:2", Deadline::NEVER);
    assert_eq!(refused, Err(ErrorKind::InvalidArgument));
    // One that is down may come back.
    let soon = Deadline::after(&OsEnv::new(), Duration::from_millis(100));
    assert_eq!(kind("bad:1,down:2", soon), Err(ErrorKind::Changelog));
}

/// A broker that answers one question; then it has somebody else's certificate.
#[derive(Debug)]
struct Once(Peer, AtomicBool);

impl Connector for Once {
    fn connect(&self, address: &Address, timeout: Duration) -> io::Result<Arc<dyn Transport>> {
        if self.1.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.connect(address, timeout)
    }
}

#[test]
fn a_broker_that_answered_before_and_refuses_now_may_be_mended() {
    let mut questions = 0;
    let peer = Peer::new(move |_| {
        questions += 1;
        match questions {
            1 => Reply::Body(metadata(0)),
            _ => Reply::End(Vec::new()),
        }
    });
    let options = KafkaOptions::new("once:9092")
        .env(Arc::new(OsEnv::new()))
        .connector(Arc::new(Once(peer, AtomicBool::new(false))));
    let cluster = Cluster::new(Settings::new(options).unwrap());
    assert_eq!(cluster.id(Deadline::NEVER).unwrap(), "the-cluster");
    let soon = Deadline::after(&OsEnv::new(), Duration::from_millis(300));
    let error = cluster.nodes(soon).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changelog, "{error}");
}

#[test]
fn a_coordinator_that_refuses_is_waited_for_once_there_was_one() {
    let refused = |was, deadline| {
        let cluster = cluster("good:1", "bad");
        let connected = cluster.connect_coordinator("task", was, deadline);
        connected.map(drop).unwrap_err().kind()
    };
    assert_eq!(refused(false, Deadline::NEVER), ErrorKind::InvalidArgument);
    let soon = Deadline::after(&OsEnv::new(), Duration::from_millis(300));
    assert_eq!(refused(true, soon), ErrorKind::Changelog);
}

#[test]
fn an_assumption_lengthens_no_expiration_and_is_looked_into_soon() {
    let seconds = Duration::from_secs;
    let found = |producer_id, transactional_id, is_assumed| Expirations {
        producer_id: seconds(producer_id),
        transactional_id: seconds(transactional_id),
        is_assumed,
    };
    let mut view = View::default();
    assert_eq!(view.expirations(seconds(1), seconds(300)), None);
    let told = found(40, 20, false);
    assert_eq!(view.set_expirations(seconds(1), told), told);
    assert_eq!(view.expirations(seconds(200), seconds(300)), Some(told));
    assert_eq!(view.expirations(seconds(301), seconds(300)), None);

    let assumed = view.set_expirations(seconds(400), found(30, 9000, true));
    assert_eq!(assumed, found(30, 20, true));
    assert_eq!(view.expirations(seconds(404), seconds(300)), Some(assumed));
    assert_eq!(view.expirations(seconds(405), seconds(300)), None);
    // What is told counts.
    let told = found(50, 60, false);
    assert_eq!(view.set_expirations(seconds(410), told), told);
    assert_eq!(view.expirations(seconds(500), seconds(300)), Some(told));
}
