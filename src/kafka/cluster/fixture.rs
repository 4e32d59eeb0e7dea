//! Clusters of scripted brokers, for tests: every connection is one of its own, and what a broker
//! answers is decided by its host and the request.

use std::io;
use std::time::Duration;

use crate::kafka::connection::peer::{Asked, Peer, Reply, versions};
use crate::kafka::connection::{Address, Connector, Transport};
use crate::kafka::protocol::Writer;
use crate::sync::{Arc, Mutex};

type Script = Box<dyn FnMut(&str, &Asked) -> Reply + Send>;

/// Connects to brokers that answer by one script, once versions are negotiated. Hosts whose name
/// begins with `bad` have a certificate of somebody else.
#[derive(Clone)]
pub(in crate::kafka) struct Hosts(Arc<Mutex<Script>>);

/// What they speak.
const SPOKEN: &[(i16, i16, i16)] = &[
    (PRODUCE, 0, 7),
    (FETCH, 0, 11),
    (METADATA, 0, 7),
    (FIND_COORDINATOR, 0, 2),
    (INIT_PRODUCER_ID, 0, 4),
    (EPOCH_END, 0, 3),
    (ADD_PARTITIONS, 0, 1),
    (END_TRANSACTION, 0, 1),
    (DESCRIBE_CONFIGS, 0, 2),
];

pub(in crate::kafka) const PRODUCE: i16 = 0;
pub(in crate::kafka) const FETCH: i16 = 1;
pub(in crate::kafka) const METADATA: i16 = 3;
pub(in crate::kafka) const FIND_COORDINATOR: i16 = 10;
pub(in crate::kafka) const INIT_PRODUCER_ID: i16 = 22;
pub(in crate::kafka) const EPOCH_END: i16 = 23;
pub(in crate::kafka) const ADD_PARTITIONS: i16 = 24;
pub(in crate::kafka) const END_TRANSACTION: i16 = 26;
pub(in crate::kafka) const DESCRIBE_CONFIGS: i16 = 32;

impl Hosts {
    pub(in crate::kafka) fn new(
        script: impl FnMut(&str, &Asked) -> Reply + Send + 'static,
    ) -> Arc<Self> {
        Arc::new(Self(Arc::new(Mutex::new(Box::new(script)))))
    }
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").finish_non_exhaustive()
    }
}

impl Connector for Hosts {
    fn connect(&self, address: &Address, timeout: Duration) -> io::Result<Arc<dyn Transport>> {
        if address.host.starts_with("bad") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (host, script) = (address.host.clone(), Arc::clone(&self.0));
        let peer = Peer::raw(usize::MAX, false, move |asked| match asked.api_key {
            18 => Reply::Body(versions(asked.version, SPOKEN)),
            _ => script.lock()(&host, asked),
        });
        peer.connect(address, timeout)
    }
}

fn body(write: impl FnOnce(&mut Writer<'_>)) -> Reply {
    let mut bytes = Vec::new();
    write(&mut Writer::new(&mut bytes, false));
    Reply::Body(bytes)
}

/// Brokers with the numbers from 1 on at these hosts; the one with the number `leader` leads the
/// only partition of the topic `t`.
pub(in crate::kafka) fn metadata(hosts: &[&str], leader: i32) -> Reply {
    let brokers: Vec<(i32, &str)> = (1..).zip(hosts.iter().copied()).collect();
    body(|writer| {
        writer.i32(0);
        writer.array(&brokers, |writer, (number, host)| {
            writer.i32(*number);
            writer.string(host);
            writer.i32(9092);
            writer.nullable_string(None);
        });
        writer.nullable_string(Some("the-cluster"));
        writer.i32(1);
        writer.array(&["t"], |writer, topic| {
            writer.i16(0);
            writer.string(topic);
            writer.bool(false);
            writer.array(&[0], |writer, partition| {
                writer.i16(0);
                writer.i32(*partition);
                writer.i32(leader);
                writer.i32(7);
                writer.i32_array(&[1, 2]);
                writer.i32_array(&[1, 2]);
                writer.i32_array(&[]);
            });
        });
    })
}

/// The coordinator is at that host.
pub(in crate::kafka) fn coordinator(host: &str) -> Reply {
    body(|writer| {
        writer.i32(0);
        writer.i16(0);
        writer.nullable_string(None);
        writer.i32(1);
        writer.string(host);
        writer.i32(9092);
    })
}

/// The answer to a claim: a producer id with its epoch.
pub(in crate::kafka) fn producer_id(code: i16, id: i64, epoch: i16) -> Reply {
    body(|writer| {
        // Without tagged fields in the header, and behind the fields.
        writer.i8(0);
        writer.i32(0);
        writer.i16(code);
        writer.i64(id);
        writer.i16(epoch);
        writer.i8(0);
    })
}

/// Whether the partition 0 of `t` is part of the transaction now.
pub(in crate::kafka) fn added(code: i16) -> Reply {
    body(|writer| {
        writer.i32(0);
        writer.array(&["t"], |writer, topic| {
            writer.string(topic);
            writer.array(&[0], |writer, partition| {
                writer.i32(*partition);
                writer.i16(code);
            });
        });
    })
}

/// Whether the transaction has ended.
pub(in crate::kafka) fn ended(code: i16) -> Reply {
    body(|writer| {
        writer.i32(0);
        writer.i16(code);
    })
}

/// Settings of a broker or a topic.
pub(in crate::kafka) fn described(settings: &[(&str, &str)]) -> Reply {
    body(|writer| {
        writer.i32(0);
        writer.array(&["1"], |writer, resource| {
            writer.i16(0);
            writer.nullable_string(None);
            writer.i8(4);
            writer.string(resource);
            writer.array(settings, |writer, (name, value)| {
                writer.string(name);
                writer.nullable_string(Some(value));
                writer.bool(false);
                writer.i8(5);
                writer.bool(false);
                writer.i32(0);
            });
        });
    })
}

/// Where an epoch ends in partition 0 of `t`.
pub(in crate::kafka) fn epoch_end(code: i16, offset: i64) -> Reply {
    body(|writer| {
        writer.i32(0);
        writer.array(&["t"], |writer, topic| {
            writer.string(topic);
            writer.array(&[offset], |writer, offset| {
                writer.i16(code);
                writer.i32(0);
                writer.i32(7);
                writer.i64(*offset);
            });
        });
    })
}

/// A batch for partition 0 of `t` is in the log, from that offset on.
pub(in crate::kafka) fn produced(base_offset: i64) -> Reply {
    body(|writer| {
        writer.array(&["t"], |writer, topic| {
            writer.string(topic);
            writer.array(&[base_offset], |writer, base_offset| {
                writer.i32(0);
                writer.i16(0);
                writer.i64(*base_offset);
                writer.i64(-1);
                writer.i64(0);
            });
        });
        writer.i32(0);
    })
}

/// Partition 0 of `t` ends at that offset, and nothing lies behind what was asked for.
pub(in crate::kafka) fn fetched(end: i64) -> Reply {
    body(|writer| {
        writer.i32(0);
        writer.i16(0);
        writer.i32(0);
        writer.array(&["t"], |writer, topic| {
            writer.string(topic);
            writer.array(&[end], |writer, end| {
                writer.i32(0);
                writer.i16(0);
                writer.i64(*end);
                writer.i64(*end);
                writer.i64(0);
                writer.i32(0);
                writer.i32(-1);
                writer.i32(0);
            });
        });
    })
}
