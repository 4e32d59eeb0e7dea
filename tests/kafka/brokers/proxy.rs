//! Wires to the brokers that can be cut.
//!
//! Each node tells clients that come through a proxy that it is at another port than it is; there
//! this listens and passes on what comes; see `tests/kafka/nodes/control`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::rig::Cluster;

/// Which ports of a node are behind the proxy, and the proxy's.
const BEHIND: u32 = 3;
const FRONT: u32 = 4;

/// A proxy of every node.
pub(crate) struct Proxy {
    pub(crate) bootstrap: String,
    wires: Arc<Wires>,
}

#[derive(Default)]
struct Wires {
    ends: Mutex<Vec<TcpStream>>,
    /// How many bytes the next wire that carries any still carries before it is cut.
    cut_after: Mutex<Option<usize>>,
}

impl Proxy {
    /// Listens as long as the process lives.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let wires = Arc::new(Wires::default());
        let mut servers = Vec::new();
        for node in 1..=cluster.nodes {
            let front = format!("127.0.0.1:{}", cluster.port(node, FRONT));
            let behind = format!("127.0.0.1:{}", cluster.port(node, BEHIND));
            let listener = TcpListener::bind(&front).unwrap();
            let wires = Arc::clone(&wires);
            thread::spawn(move || {
                for client in listener.incoming().map_while(Result::ok) {
                    // Without a broker the client sees its connection end.
                    if let Ok(broker) = TcpStream::connect(&behind) {
                        wires.join(&client, &broker);
                    }
                }
            });
            servers.push(front);
        }
        Self {
            bootstrap: servers.join(","),
            wires,
        }
    }

    /// Cuts every wire.
    pub(crate) fn cut(&self) {
        for end in self.wires.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    /// Cuts the next wire that carries anything once it has carried so many bytes, wherever in a
    /// request or an answer that is.
    pub(crate) fn cut_after(&self, bytes: usize) {
        *self.wires.cut_after.lock().unwrap() = Some(bytes);
    }
}

impl Wires {
    fn join(self: &Arc<Self>, client: &TcpStream, broker: &TcpStream) {
        let _ = client.set_nodelay(true);
        let _ = broker.set_nodelay(true);
        for (from, to) in [(client, broker), (broker, client)] {
            let ends = from
                .try_clone()
                .and_then(|from| Ok((from, to.try_clone()?)));
            let Ok((from, to)) = ends else {
                let _ = client.shutdown(Shutdown::Both);
                return;
            };
            if let Ok(end) = from.try_clone() {
                self.ends.lock().unwrap().push(end);
            }
            let wires = Arc::clone(self);
            thread::spawn(move || {
                wires.carry(&from, &to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }

    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let Ok(len @ 1..) = from.read(&mut buffer) else {
                return;
            };
            let left = self.left(len);
            if to.write_all(&buffer[..left.unwrap_or(len)]).is_err() || left.is_some() {
                return;
            }
        }
    }

    /// How many of `len` bytes are carried before this wire is cut, if it is.
    fn left(&self, len: usize) -> Option<usize> {
        let mut cut_after = self.cut_after.lock().unwrap();
        match *cut_after {
            Some(left) if left < len => {
                *cut_after = None;
                Some(left)
            }
            Some(left) => {
                *cut_after = Some(left - len);
                None
            }
            None => None,
        }
    }
}
