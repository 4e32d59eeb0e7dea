//! Streams over TCP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::net::sockopt;

use super::settings::Deadline;
use super::transport::{Address, Connector, Transport};
use crate::env::Env;
use crate::sync::Arc;

/// How long a connection is silent before the system asks whether the peer is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How long it waits between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How many of them go unanswered before the connection is given up.
const KEEPALIVE_COUNT: u32 = 6;

/// Connects by TCP. A name is resolved at every connect, for brokers move.
#[derive(Debug)]
pub(super) struct TcpConnector {
    env: Arc<dyn Env>,
}

impl TcpConnector {
    pub(super) fn new(env: Arc<dyn Env>) -> Self {
        Self { env }
    }

    /// Tries the addresses in their order; each gets an equal part of what is left of the time.
    fn connect_first(&self, addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
        let deadline = Deadline::after(&*self.env, timeout);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (index, address) in addresses.iter().enumerate() {
            let rest = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let share = deadline.remaining(&*self.env) / rest;
            if share.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(address, share) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Connector for TcpConnector {
    fn connect(&self, address: &Address, timeout: Duration) -> io::Result<Arc<dyn Transport>> {
        let addresses: Vec<_> = (address.host.as_str(), address.port)
            .to_socket_addrs()?
            .collect();
        let stream = self.connect_first(&addresses, timeout)?;
        // Requests are written whole: waiting for more would only delay them.
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
        Ok(Arc::new(Tcp {
            env: Arc::clone(&self.env),
            stream,
        }))
    }
}

#[derive(Debug)]
struct Tcp {
    env: Arc<dyn Env>,
    stream: TcpStream,
}

impl Transport for Tcp {
    fn write_all(&self, mut bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let deadline = Deadline::after(&*self.env, timeout);
        while !bytes.is_empty() {
            let left = nonzero(deadline.remaining(&*self.env))?;
            self.stream.set_write_timeout(Some(left))?;
            match (&self.stream).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => bytes = &bytes[len..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let deadline = Deadline::after(&*self.env, timeout);
        loop {
            let left = nonzero(deadline.remaining(&*self.env))?;
            self.stream.set_read_timeout(Some(left))?;
            match (&self.stream).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(timed_out),
            }
        }
    }

    fn shutdown(&self) {
        // An error means that the stream is closed already.
        self.stream.shutdown(Shutdown::Both).ok();
    }

    fn is_encrypted(&self) -> bool {
        false
    }
}

/// The system takes a timeout of zero for none.
fn nonzero(left: Duration) -> io::Result<Duration> {
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left.max(Duration::from_millis(1)))
}

/// A timeout of a blocking socket is reported as if it did not block.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}
