//! What the connections of one owner share: options, deadlines, back-off and the shutdown.

use std::time::Duration;

use super::tcp::TcpConnector;
use super::transport::{Address, Connector};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::options::KafkaOptions;
use crate::sync::{Arc, Condvar, Mutex, Weak};

/// Checked options, and the shutdown of those who use them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    options: Arc<KafkaOptions>,
    connector: Arc<dyn Connector>,
    bootstrap: Arc<[Address]>,
    shutdown: Shutdown,
}

impl Settings {
    /// Checks the options and reads the certificates that they name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, naming the option; `Unsupported`, naming the feature that it needs;
    /// `NotFound` and `Io` for certificates.
    pub(crate) fn new(options: KafkaOptions) -> Result<Self> {
        options.validate()?;
        let bootstrap = options
            .bootstrap
            .iter()
            .map(|server| Address::parse(server));
        Ok(Self {
            bootstrap: bootstrap.collect::<Result<_>>()?,
            connector: connector(&options)?,
            options: Arc::new(options),
            shutdown: Shutdown::default(),
        })
    }

    /// The same options with a shutdown of their own, for an owner that may end before the others.
    #[must_use]
    pub(crate) fn scoped(&self) -> Self {
        Self {
            shutdown: Shutdown::default(),
            ..self.clone()
        }
    }

    pub(crate) fn options(&self) -> &KafkaOptions {
        &self.options
    }

    pub(crate) fn env(&self) -> &dyn Env {
        &*self.options.env
    }

    pub(super) fn connector(&self) -> &dyn Connector {
        &*self.connector
    }

    /// The brokers to ask before any is known.
    pub(crate) fn bootstrap(&self) -> &[Address] {
        &self.bootstrap
    }

    /// How the waits of these settings' connections are ended.
    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// The moment that comes after `duration`.
    pub(crate) fn deadline(&self, duration: Duration) -> Deadline {
        Deadline::after(self.env(), duration)
    }

    /// The moment at which a call of the user gives up.
    pub(crate) fn operation_deadline(&self) -> Deadline {
        self.deadline(self.options.operation_timeout)
    }

    /// Waits for `duration` but not past `deadline`.
    ///
    /// # Errors
    ///
    /// `Closed` after a shutdown, at once.
    pub(crate) fn pause(&self, duration: Duration, deadline: Deadline) -> Result<()> {
        let deadline = deadline.min(self.deadline(duration));
        let mut state = self.shutdown.0.state.lock();
        while !state.has_begun && !deadline.is_over(self.env()) {
            let left = deadline.remaining(self.env());
            // The wait's own clock counts too: a simulated one may stand still.
            if self.shutdown.0.begun.wait_for(&mut state, left).timed_out() {
                break;
            }
        }
        drop(state);
        self.shutdown.check()
    }
}

/// The streams that the options ask for.
#[cfg_attr(
    not(feature = "kafka-tls"),
    expect(clippy::unnecessary_wraps, reason = "with TLS it can fail")
)]
fn connector(options: &KafkaOptions) -> Result<Arc<dyn Connector>> {
    let inner = options
        .connector
        .clone()
        .unwrap_or_else(|| Arc::new(TcpConnector::new(Arc::clone(&options.env))));
    #[cfg(feature = "kafka-tls")]
    if let Some(tls) = &options.tls {
        let env = Arc::clone(&options.env);
        return Ok(Arc::new(super::tls::TlsConnector::new(env, inner, tls)?));
    }
    Ok(inner)
}

/// A moment of the monotonic clock after which a wait gives up, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Duration>);

impl Deadline {
    pub(crate) const NEVER: Self = Self(None);

    /// The moment that comes after `duration`.
    pub(crate) fn after(env: &dyn Env, duration: Duration) -> Self {
        Self(env.monotonic().checked_add(duration))
    }

    /// What is left, at most an hour at a time; zero when it is over.
    pub(crate) fn remaining(self, env: &dyn Env) -> Duration {
        const LONGEST: Duration = Duration::from_secs(3600);
        match self.0 {
            Some(at) => at.saturating_sub(env.monotonic()).min(LONGEST),
            None => LONGEST,
        }
    }

    pub(crate) fn is_over(self, env: &dyn Env) -> bool {
        self.0.is_some_and(|at| env.monotonic() >= at)
    }

    /// The later of both.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.max(two))),
            _ => Self::NEVER,
        }
    }

    /// The earlier of both.
    #[must_use]
    pub(crate) fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }
}

/// Ends the waits of everybody who holds it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown(Arc<ShutdownInner>);

#[derive(Debug, Default)]
struct ShutdownInner {
    state: Mutex<ShutdownState>,
    /// Told when the shutdown begins.
    begun: Condvar,
}

#[derive(Debug, Default)]
struct ShutdownState {
    has_begun: bool,
    waiters: Vec<Weak<dyn Interrupt>>,
}

/// Somebody whose waits a shutdown ends.
pub(crate) trait Interrupt: Send + Sync + std::fmt::Debug {
    /// Wakes those who wait in it; they find that the shutdown has begun. Called with no lock of
    /// the shutdown held, by whoever begins it.
    fn interrupt(&self);
}

impl Shutdown {
    /// Ends all waits, now and later, with `Closed`, and all connections.
    pub(crate) fn begin(&self) {
        let mut state = self.0.state.lock();
        state.has_begun = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        self.0.begun.notify_all();
        for waiter in waiters.iter().filter_map(Weak::upgrade) {
            waiter.interrupt();
        }
    }

    /// Has `waiter` woken when the shutdown begins; at once if it has begun. Holds it weakly.
    pub(crate) fn watch(&self, waiter: &Arc<dyn Interrupt>) {
        let mut state = self.0.state.lock();
        if state.has_begun {
            drop(state);
            waiter.interrupt();
            return;
        }
        state.waiters.retain(|waiter| waiter.strong_count() > 0);
        state.waiters.push(Arc::downgrade(waiter));
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.state.lock().has_begun
    }

    /// # Errors
    ///
    /// `Closed` once it has begun.
    pub(crate) fn check(&self) -> Result<()> {
        if self.has_begun() {
            return Err(Error::new(ErrorKind::Closed, "the changelog was closed"));
        }
        Ok(())
    }
}

/// Pauses between attempts: doubling from the first to the longest one, each moved at random by up
/// to a fifth, so that many clients do not come back at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// For requests: 100 ms to 1 s.
    pub(crate) fn requests() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// For connecting: 50 ms to 1 s.
    pub(crate) fn reconnects() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            first,
            longest,
        }
    }

    /// The next pause, moved by `random`.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        let percent = u32::try_from(80 + random % 41).unwrap_or(100);
        pause * percent / 100
    }

    /// Starts again from the first pause, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
