//! A Kafka broker in process, or several, behind a blocking face.

use std::net::SocketAddr;
use std::ops::Deref;

use krafka::testing::FakeBroker;
use tokio::runtime::{Builder, Runtime};

/// The brokers, on ports of this machine, until it is dropped. What it can be told is on
/// [`FakeBroker`], to which it dereferences.
#[derive(Debug)]
pub(crate) struct Broker {
    // Dropped before the runtime that it runs on.
    fake: FakeBroker,
    _runtime: Runtime,
}

impl Broker {
    /// Starts as many brokers, with the numbers from 0 on.
    pub(crate) fn start(count: usize) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads start");
        let fake = runtime
            .block_on(FakeBroker::start_cluster(count))
            .expect("ports are free");
        Self {
            fake,
            _runtime: runtime,
        }
    }

    /// Where a broker listens itself, whatever it advertises.
    pub(crate) fn address(&self, node: i32) -> SocketAddr {
        self.fake.broker_addr(node).expect("there is such a broker")
    }

    /// Has a broker tell clients another address: that of a proxy before it.
    pub(crate) fn advertise(&self, node: i32, address: SocketAddr) {
        self.fake.with_state(|state| {
            let broker = state
                .brokers
                .iter_mut()
                .find(|broker| broker.node_id == node)
                .expect("there is such a broker");
            broker.host = address.ip().to_string();
            broker.port = i32::from(address.port());
        });
    }
}

impl Deref for Broker {
    type Target = FakeBroker;

    fn deref(&self) -> &FakeBroker {
        &self.fake
    }
}
