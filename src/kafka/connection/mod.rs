//! Connections to brokers: a stream, frames on it, the handshake, and requests with their answers.
//!
//! - `settings`: what every connection of one owner shares, and how its waits are ended.
//! - `transport`: the stream that a user may bring; `tcp` and `tls` are ours.
//! - `inbound`: frames out of the stream.
//! - `versions`: what both sides speak.
//! - `login`: SASL; `scram` is its mechanism that keeps the password here.

mod inbound;
mod login;
#[cfg(test)]
pub(crate) mod peer;
#[cfg(feature = "kafka-scram")]
mod scram;
mod settings;
mod tcp;
#[cfg(test)]
mod tests;
#[cfg(feature = "kafka-tls")]
mod tls;
mod transport;
mod versions;

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use super::protocol::messages::ApiVersionsRequest;
use super::protocol::{ErrorCode, Request, decode_frame, encode_frame};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Condvar, Mutex};

use inbound::Inbound;
use versions::Versions;

pub(crate) use settings::{Backoff, Deadline, Interrupt, Settings};
pub use transport::{Address, Connector, Transport};

/// No broker is obeyed that wants silence for longer.
const THROTTLE_MAX: Duration = Duration::from_secs(60);
/// The buffers of a connection that is at rest are no longer.
const REST_BYTES: usize = 4 << 20;

/// A connection to one broker: connected, encrypted if asked for, versions negotiated, logged in.
///
/// Requests are answered in the order in which they were sent. After any error of kind `Io` or
/// `Corruption` the connection is of no use; open another one. It honours the broker's throttling
/// by sending later, and logs in anew before the broker ends its session.
///
/// Dropping it closes it. The shutdown of its [`Settings`] wakes whoever is blocked in it, with
/// `Closed`.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    receiver: Receiver,
}

/// The half of a connection that sends, for one thread.
#[derive(Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    out: Vec<u8>,
    next_id: i32,
    /// When its caller gives up, whatever the request timeout.
    limit: Deadline,
    /// When the broker's session needs a new login, if it ends.
    login_due: Option<Deadline>,
}

/// The half of a connection that receives, for one thread.
#[derive(Debug)]
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

/// A request that was sent: what its answer needs to be read.
#[derive(Debug)]
pub(crate) struct Sent<R> {
    /// The version it was encoded in.
    pub(crate) version: i16,
    /// The number that its answer carries.
    pub(crate) correlation_id: i32,
    /// When to give up waiting for the answer.
    pub(crate) deadline: Deadline,
    /// When it was sent, by the wall clock: milliseconds since 1970.
    pub(crate) wall_ms: u64,
    /// Takes requests rather than giving them: one that borrowed less is as good.
    request: PhantomData<fn(R)>,
}

/// What both halves use. `flow` may be taken by who holds `inbound`, never the other way round.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    address: Address,
    transport: Arc<dyn Transport>,
    /// Held by whoever reads: the receiver, and the sender for the answers to its logins.
    inbound: Mutex<Inbound>,
    flow: Mutex<Flow>,
    /// Told when `flow` changes for the worse, so that a throttled sender learns it.
    changed: Condvar,
}

#[derive(Debug)]
struct Flow {
    /// Empty until they are negotiated.
    versions: Versions,
    /// Until when the broker wants no more requests.
    muted_until: Option<Deadline>,
    /// The first error, after which the connection is of no use.
    failure: Option<Error>,
}

impl Interrupt for Shared {
    fn interrupt(&self) {
        // The lock is taken so that nobody is between looking and waiting.
        drop(self.flow.lock());
        self.transport.shutdown();
        self.changed.notify_all();
    }
}

impl Connection {
    /// Connects to the broker at `address` within the connect timeout, and before `limit`.
    ///
    /// The name is resolved each time; that and the connect itself are not ended by a shutdown.
    ///
    /// # Errors
    ///
    /// `Io` where the broker cannot be reached or breaks off, `Corruption` for answers that are
    /// none; both may be tried again. `InvalidArgument` where it refuses the login or does not
    /// prove who it is, `Unsupported` where there is no common version or a feature is missing,
    /// `Closed` after a shutdown.
    pub(crate) fn open(settings: &Settings, address: &Address, limit: Deadline) -> Result<Self> {
        settings.shutdown().check()?;
        let deadline = settings.deadline(settings.options().connect_timeout);
        let deadline = deadline.min(limit);
        let timeout = deadline.remaining(settings.env());
        let transport = settings
            .connector()
            .connect(address, timeout)
            .map_err(|error| broken(address, "connect", error))?;
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            address: address.clone(),
            transport,
            inbound: Mutex::new(Inbound::default()),
            flow: Mutex::new(Flow {
                versions: Versions::default(),
                muted_until: None,
                failure: None,
            }),
            changed: Condvar::new(),
        });
        let watched: Arc<dyn Interrupt> = Arc::clone(&shared) as _;
        settings.shutdown().watch(&watched);
        let mut connection = Self {
            sender: Sender {
                shared: Arc::clone(&shared),
                out: Vec::new(),
                next_id: 0,
                limit: Deadline::NEVER,
                login_due: None,
            },
            receiver: Receiver {
                shared,
                buffer: Vec::new(),
            },
        };
        connection.sender.negotiate(deadline)?;
        connection.sender.log_in(deadline)?;
        Ok(connection)
    }

    /// The newest version of the request that both sides speak.
    ///
    /// # Errors
    ///
    /// `Unsupported`, naming the request and both sides' versions, if there is none.
    pub(crate) fn version<R: Request>(&self) -> Result<i16> {
        self.sender.version::<R>()
    }

    /// Requests from here on give up at `limit` if that comes before the request timeout.
    pub(crate) fn set_limit(&mut self, limit: Deadline) {
        self.sender.limit = limit;
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// `Io` (also for an answer that does not come within the request timeout), `Corruption`,
    /// `Unsupported`, `Closed`. Error codes in the answer are the caller's to look at.
    pub(crate) fn call<R: Request>(&mut self, request: &R) -> Result<R::Response<'_>> {
        let sent = self.sender.send(request)?;
        self.receiver.receive(&sent)
    }

    /// Sends a request; its answer is to be received after those of earlier ones.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub(crate) fn send<R: Request>(&mut self, request: &R) -> Result<Sent<R>> {
        self.sender.send(request)
    }

    /// Waits for the answer to the oldest request that has none. It lies in a buffer of the
    /// caller's, which may go to another thread; one that is used again saves its allocation.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    ///
    /// # Panics
    ///
    /// If `sent` is not the oldest request without an answer.
    pub(crate) fn receive_into<'a, R: Request>(
        &mut self,
        sent: &Sent<R>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<R::Response<'a>> {
        self.receiver.receive_into(sent, buffer)
    }

    /// The two halves, for two threads. The connection closes when either is dropped.
    pub(crate) fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

impl Sender {
    /// See [`Connection::version`].
    pub(crate) fn version<R: Request>(&self) -> Result<i16> {
        let picked = self.shared.flow.lock().versions.pick::<R>();
        picked.map_err(|error| error.context(format_args!("broker {}", self.shared.address)))
    }

    /// See [`Connection::send`]. Waits while the broker throttles this connection, and logs in
    /// anew when that is due: an answer of that login is waited for behind those of requests that
    /// were sent before, which are kept for their receiver.
    pub(crate) fn send<R: Request>(&mut self, request: &R) -> Result<Sent<R>> {
        let version = self.version::<R>()?;
        self.shared.await_turn(self.limit)?;
        let settings = &self.shared.settings;
        let timeout = settings.options().request_timeout;
        if self
            .login_due
            .is_some_and(|due| due.is_over(settings.env()))
        {
            let deadline = settings.deadline(timeout).min(self.limit);
            self.log_in(deadline)?;
        }
        let deadline = self.shared.settings.deadline(timeout).min(self.limit);
        self.transmit(request, version, deadline)
    }

    /// Learns what the broker speaks. One that does not know version 3 of the question says so, in
    /// a body that need not be readable, and is asked in version 0.
    fn negotiate(&mut self, deadline: Deadline) -> Result<()> {
        let request = ApiVersionsRequest {
            client_software_name: "siltstone",
            client_software_version: env!("CARGO_PKG_VERSION"),
        };
        let shared = Arc::clone(&self.shared);
        let mut inbound = shared.inbound.lock();
        let mut buffer = Vec::new();
        for version in [3, 0] {
            let sent = self.transmit(&request, version, deadline)?;
            let response = shared.answer(&mut inbound, &sent, &mut buffer)?;
            if response.error_code.is_ok() {
                shared.flow.lock().versions = Versions::new(&response.api_keys);
                return Ok(());
            }
            if response.error_code != ErrorCode::UNSUPPORTED_VERSION {
                let what = format!("ApiVersions: {}", response.error_code);
                return Err(shared.fail(shared.named(&Error::new(ErrorKind::Io, what))));
            }
        }
        let what = "speaks neither version 3 nor 0 of ApiVersions";
        Err(shared.named(&Error::unsupported(what)))
    }

    fn transmit<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        deadline: Deadline,
    ) -> Result<Sent<R>> {
        let shared = &*self.shared;
        let env = shared.settings.env();
        let correlation_id = self.next_id;
        self.next_id = inbound::id_after(correlation_id);
        self.out.clear();
        self.out.shrink_to(REST_BYTES);
        let client_id = &shared.settings.options().client_id;
        encode_frame(request, version, correlation_id, client_id, &mut self.out);
        let wall_ms = env.wall_clock_ms();
        shared
            .transport
            .write_all(&self.out, deadline.remaining(env))
            .map_err(|error| shared.fail(broken(&shared.address, R::NAME, error)))?;
        Ok(Sent {
            version,
            correlation_id,
            deadline,
            wall_ms,
            request: PhantomData,
        })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.transport.shutdown();
    }
}

impl Receiver {
    /// See [`Connection::receive_into`]; in the buffer of the connection.
    pub(crate) fn receive<R: Request>(&mut self, sent: &Sent<R>) -> Result<R::Response<'_>> {
        if self.buffer.capacity() > REST_BYTES {
            self.buffer = Vec::new();
        }
        let inbound = &mut self.shared.inbound.lock();
        self.shared.answer(inbound, sent, &mut self.buffer)
    }

    /// See [`Connection::receive_into`].
    pub(crate) fn receive_into<'a, R: Request>(
        &mut self,
        sent: &Sent<R>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<R::Response<'a>> {
        let inbound = &mut self.shared.inbound.lock();
        self.shared.answer(inbound, sent, buffer)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.transport.shutdown();
    }
}

impl Shared {
    /// Waits until the broker wants requests.
    fn await_turn(&self, limit: Deadline) -> Result<()> {
        let env = self.settings.env();
        let mut flow = self.flow.lock();
        loop {
            self.settings.shutdown().check()?;
            if let Some(failure) = &flow.failure {
                return Err(failure.clone());
            }
            match flow.muted_until {
                Some(until) if !until.is_over(env) => {
                    if limit.is_over(env) {
                        let error = io::ErrorKind::TimedOut.into();
                        return Err(broken(&self.address, "throttled", error));
                    }
                    let left = until.min(limit).remaining(env);
                    self.changed.wait_for(&mut flow, left);
                }
                _ => {
                    flow.muted_until = None;
                    return Ok(());
                }
            }
        }
    }

    /// Reads the answer to `sent`.
    fn answer<'a, R: Request>(
        &self,
        inbound: &mut Inbound,
        sent: &Sent<R>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<R::Response<'a>> {
        let failure = self.flow.lock().failure.clone();
        if let Some(failure) = failure {
            return Err(failure);
        }
        let source = inbound::Source {
            transport: &*self.transport,
            env: self.settings.env(),
            deadline: sent.deadline,
            bytes_max: self.settings.options().response_bytes_max,
        };
        let wrong = |error: Error| self.fail(self.named(&error.context(R::NAME)));
        inbound
            .take(sent.correlation_id, source, buffer)
            .map_err(wrong)?;
        let (_, response) = decode_frame::<R>(sent.version, buffer).map_err(wrong)?;
        let throttle_ms = u64::try_from(R::throttle_time_ms(&response)).unwrap_or(0);
        if throttle_ms > 0 {
            let pause = Duration::from_millis(throttle_ms).min(THROTTLE_MAX);
            let until = self.settings.deadline(pause);
            let mut flow = self.flow.lock();
            flow.muted_until = Some(flow.muted_until.map_or(until, |other| other.max(until)));
        }
        Ok(response)
    }

    /// Ends the connection. Returns the first error it had: later ones follow from that.
    fn fail(&self, error: Error) -> Error {
        let error = self.settings.shutdown().check().err().unwrap_or(error);
        let mut flow = self.flow.lock();
        let first = flow.failure.get_or_insert(error).clone();
        drop(flow);
        self.transport.shutdown();
        self.changed.notify_all();
        first
    }

    fn named(&self, error: &Error) -> Error {
        error.context(format_args!("broker {}", self.address))
    }
}

fn broken(address: &Address, what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::InvalidInput => ErrorKind::InvalidArgument,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("broker {address}: {what}")).with_source(error)
}
