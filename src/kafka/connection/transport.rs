//! The streams that connections run on.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::Arc;

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name or an IP address (of version 6 without brackets).
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Opens streams to brokers: TCP unless the user brings another one.
pub trait Connector: Send + Sync + fmt::Debug {
    /// Opens a stream within `timeout`.
    ///
    /// # Errors
    ///
    /// What the system answers; `TimedOut` if the time is over; `InvalidInput` where another
    /// attempt is of no use.
    fn connect(&self, address: &Address, timeout: Duration) -> io::Result<Arc<dyn Transport>>;
}

/// A stream of bytes to a broker and back.
///
/// One thread writes and another one reads at the same time, and a third one may shut it down.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// `TimedOut` if not all was taken within `timeout`; the stream is of no use then.
    fn write_all(&self, bytes: &[u8], timeout: Duration) -> io::Result<()>;

    /// Reads what is there, at least one byte; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// `TimedOut` if nothing came within `timeout`.
    fn read(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize>;

    /// Ends the stream and wakes those who are blocked in it. May be called more than once.
    fn shutdown(&self);

    /// True if nobody but the broker can read what is written: passwords may pass.
    fn is_encrypted(&self) -> bool;
}

impl Address {
    /// Reads `host:port`, with an IPv6 address in brackets.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is no server: expected host:port"));
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_name =
            !host.contains(['[', ']', '/', ' ']) && (bare.is_some() || !host.contains(':'));
        if host.is_empty() || !is_name {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            port: port.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in ["a.b:9092", "127.0.0.1:1", "[::1]:65535"] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            ":1",
            "a:",
            "a:70000",
            "::1:9",
            "[]:1",
            "http://a:1",
            "a b:1",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument, "{text}");
        }
    }
}
