//! What is known of the cluster: brokers, topics, leaders, coordinators; and connections to them.
//!
//! - `view`: what is known, and how an answer changes it.

#[cfg(test)]
pub(super) mod fixture;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::time::Duration;

use super::connection::{Address, Backoff, Connection, Deadline, Settings};
use super::protocol::ErrorCode;
use super::protocol::messages::{
    CoordinatorType, FindCoordinatorRequest, MetadataRequest, MetadataResponse,
};
use crate::changelog::Partition;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};

use view::{Answer, Lead, View};

/// For how long a connection may be at rest: brokers close those that are silent for minutes.
const REST_MAX: Duration = Duration::from_secs(60);
/// How many connections may be at rest.
const RESTING_MAX: usize = 16;

/// The view of one cluster, shared by all who talk to it. Cheap to clone; its clones share what is
/// known and the shutdown.
///
/// All calls block until they have an answer or `deadline` is over; then they fail with the last
/// error (`Changelog`). Errors that waiting does not mend come at once: `InvalidArgument` (no
/// broker takes the login or proves who it is, and none ever did), `Unsupported`, `Diverged`
/// (brokers of two clusters). `Closed` after a shutdown.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    view: Arc<Mutex<View>>,
    scope: Arc<Scope>,
}

/// What those share who are shut down together. `asking` is taken before the view, never after.
#[derive(Debug)]
struct Scope {
    settings: Settings,
    /// The connection for questions to any broker, held by who asks.
    asking: Mutex<Option<Connection>>,
    /// Connections to brokers that are at rest, with their number and since when.
    resting: Mutex<Vec<(i32, Duration, Connection)>>,
}

/// A topic as the metadata have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Identity of the topic, new whenever it is created; zero where brokers are too old to tell.
    pub(crate) id: [u8; 16],
    /// How many partitions it has.
    pub(crate) partitions: u32,
}

/// The leader of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The broker's number.
    pub(crate) node: i32,
    /// The epoch of its leadership, for requests to fence stale views; -1 if unknown.
    pub(crate) epoch: i32,
    /// See [`Topic::id`].
    pub(crate) topic_id: [u8; 16],
}

/// For how long brokers remember what fences are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expirations {
    /// Idle producers.
    pub(crate) producer_id: Duration,
    /// Idle transactional ids.
    pub(crate) transactional_id: Duration,
    /// Some of it is not told but taken to be the default.
    pub(crate) is_assumed: bool,
}

impl Cluster {
    /// A view that knows nothing yet; does no I/O.
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            view: Arc::default(),
            scope: Arc::new(Scope {
                settings,
                asking: Mutex::new(None),
                resting: Mutex::default(),
            }),
        }
    }

    /// The same view with a shutdown of its own.
    #[must_use]
    pub(crate) fn scoped(&self) -> Self {
        Self {
            view: Arc::clone(&self.view),
            scope: Arc::new(Scope {
                settings: self.scope.settings.scoped(),
                asking: Mutex::new(None),
                resting: Mutex::default(),
            }),
        }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.scope.settings
    }

    /// The cluster's id; empty where brokers are too old to have one.
    pub(crate) fn id(&self, deadline: Deadline) -> Result<String> {
        self.retry("ask for the cluster id", deadline, || {
            let known = self.view.lock().cluster_id.clone();
            if known.is_some() {
                return Ok(known);
            }
            self.ask(None, deadline, |_| Ok(()))?;
            Ok(self.view.lock().cluster_id.clone())
        })
    }

    /// The numbers of all brokers.
    pub(crate) fn nodes(&self, deadline: Deadline) -> Result<Vec<i32>> {
        self.retry("ask for the brokers", deadline, || {
            self.ask(None, deadline, |_| Ok(()))?;
            Ok(Some(self.view.lock().brokers.keys().copied().collect()))
        })
    }

    /// For how long brokers remember idle producers and transactional ids, if somebody has asked
    /// lately.
    pub(crate) fn expirations(&self) -> Option<Expirations> {
        let now = self.settings().env().monotonic();
        let age_max = self.settings().options().metadata_age_max;
        self.view.lock().expirations(now, age_max)
    }

    /// Keeps what was asked, for all who share the view; answers what is known now.
    pub(crate) fn set_expirations(&self, found: Expirations) -> Expirations {
        let now = self.settings().env().monotonic();
        self.view.lock().set_expirations(now, found)
    }

    /// Asks the brokers for a topic. `None`: they say that it does not exist (and a moment after
    /// its creation some still say so).
    pub(crate) fn topic(&self, topic: &str, deadline: Deadline) -> Result<Option<Topic>> {
        let what = format_args!("ask for topic {topic}").to_string();
        self.retry(&what, deadline, || {
            match self.ask(Some(topic), deadline, |answer| {
                view::answer_for(answer, topic)
            })? {
                Answer::Is(topic) => Ok(Some(Some(topic))),
                Answer::Missing => Ok(Some(None)),
                Answer::Undecided(error) => Err(error),
            }
        })
    }

    /// The leader of a partition, from what is known if nothing speaks against it; waits while
    /// there is none. `NotFound` when the topic or the partition is still missing at the deadline.
    pub(crate) fn leader(&self, partition: &Partition, deadline: Deadline) -> Result<Leader> {
        let what = format!("find the leader of {partition}");
        self.retry(&what, deadline, || {
            let env = self.settings().env();
            let age_max = self.settings().options().metadata_age_max;
            let oldest = env.monotonic().saturating_sub(age_max);
            let asked_before = {
                let view = self.view.lock();
                if let Lead::Known(leader) = view.leader(partition, oldest) {
                    return Ok(Some(leader));
                }
                view.asked(&partition.topic)
            };
            self.refresh(&partition.topic, asked_before, deadline)?;
            match self.view.lock().leader(partition, Duration::ZERO) {
                Lead::Known(leader) | Lead::Doubtful(Some(leader)) => Ok(Some(leader)),
                Lead::Doubtful(None) => Ok(None),
                Lead::NoPartition | Lead::NoTopic => Err(Error::new(
                    ErrorKind::NotFound,
                    format!("partition {partition} does not exist"),
                )),
            }
        })
    }

    /// Tells that `leader` answered that it leads no more, or cannot be reached: the next
    /// [`leader`](Self::leader) of this partition asks the brokers, unless somebody did meanwhile.
    /// It may answer the same leader again, so pause between attempts.
    pub(crate) fn leader_failed(&self, partition: &Partition, leader: Leader) {
        self.view.lock().doubt(partition, leader);
    }

    /// Opens a connection to a broker by its number; one attempt, after the reconnect back-off.
    /// A failure makes the next metadata question due. One that refuses is as one that cannot be
    /// reached (`Io`): others of the cluster have answered, and may lead in its place soon.
    pub(crate) fn connect(&self, node: i32, deadline: Deadline) -> Result<Connection> {
        let address = self.retry("find a broker", deadline, || {
            let known = self.address(node);
            if known.is_some() {
                return Ok(known);
            }
            self.ask(None, deadline, |_| Ok(()))?;
            self.address(node).map(Some).ok_or_else(|| {
                let what = format!("the cluster has no broker {node}");
                Error::new(ErrorKind::Changelog, what)
            })
        })?;
        let settings = self.settings();
        let retry_at = self.view.lock().unreachable.get(&node).map(|(_, at)| *at);
        if let Some(retry_at) = retry_at {
            settings.pause(retry_at.remaining(settings.env()), deadline)?;
        }
        let opened = Connection::open(settings, &address, deadline).map_err(as_outage);
        let mut view = self.view.lock();
        if opened.is_ok() {
            view.unreachable.remove(&node);
        } else {
            let fresh = (Backoff::reconnects(), Deadline::NEVER);
            let (backoff, retry_at) = view.unreachable.entry(node).or_insert(fresh);
            *retry_at = settings.deadline(backoff.next(settings.env().random_u64()));
            view.doubt_node(node);
        }
        opened
    }

    /// A connection to a broker that somebody has given back, or else a new one; see
    /// [`connect`](Self::connect).
    pub(crate) fn borrow(&self, node: i32, deadline: Deadline) -> Result<Connection> {
        match self.take_resting(node) {
            Some(connection) => Ok(connection),
            None => self.connect(node, deadline),
        }
    }

    fn take_resting(&self, node: i32) -> Option<Connection> {
        let now = self.settings().env().monotonic();
        let mut resting = self.scope.resting.lock();
        // Brokers close what is silent for long.
        resting.retain(|(_, since, _)| now.saturating_sub(*since) < REST_MAX);
        let index = resting.iter().rposition(|(to, ..)| *to == node)?;
        Some(resting.swap_remove(index).2)
    }

    /// Keeps a connection, on which every request was answered, for whoever borrows one next.
    pub(crate) fn give_back(&self, node: i32, mut connection: Connection) {
        connection.set_limit(Deadline::NEVER);
        let now = self.settings().env().monotonic();
        let mut resting = self.scope.resting.lock();
        if resting.len() < RESTING_MAX {
            resting.push((node, now, connection));
        }
    }

    /// Asks a broker something, over a connection that is at rest if there is one. One that turns
    /// out to be broken is replaced: `ask` may be called again.
    pub(crate) fn ask_broker<T>(
        &self,
        node: i32,
        deadline: Deadline,
        ask: impl Fn(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        if let Some(mut connection) = self.take_resting(node) {
            connection.set_limit(deadline);
            match ask(&mut connection) {
                Err(error) if error.kind() == ErrorKind::Io => {}
                answer => {
                    if answer.is_ok() {
                        self.give_back(node, connection);
                    }
                    return answer;
                }
            }
        }
        let mut connection = self.connect(node, deadline)?;
        connection.set_limit(deadline);
        let answer = ask(&mut connection)?;
        self.give_back(node, connection);
        Ok(answer)
    }

    /// Asks any broker something, over the connection for that.
    pub(crate) fn ask_any<T>(
        &self,
        deadline: Deadline,
        ask: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        self.with_any(deadline, ask)
    }

    /// Opens a connection to any broker, trying known ones and then the bootstrap servers, in an
    /// order of chance so that clients spread. A broker that refuses counts if none works, for good
    /// as long as none has ever answered.
    pub(crate) fn connect_any(&self, deadline: Deadline) -> Result<Connection> {
        let settings = self.settings();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        self.retry_after("connect", deadline, &mut backoff, || {
            let known: Vec<Address> = self.view.lock().brokers.values().cloned().collect();
            let (mut failure, mut refusal) = (None, None);
            for group in [known.as_slice(), settings.bootstrap()] {
                let first = settings.env().random_u64() % (group.len().max(1) as u64);
                let first = usize::try_from(first).unwrap_or(0);
                for address in group[first..].iter().chain(&group[..first]) {
                    // The first reason says more than that no time was left.
                    let is_tried = failure.is_some() || refusal.is_some();
                    if is_tried && deadline.is_over(settings.env()) {
                        break;
                    }
                    match Connection::open(settings, address, deadline) {
                        Err(error) if is_passing(&error) => failure = Some(error),
                        Err(error) if is_refusal(&error) => refusal = Some(error),
                        other => return other.map(Some),
                    }
                }
            }
            let has_answered = self.view.lock().cluster_id.is_some();
            match (refusal, failure) {
                (Some(refusal), None) if !has_answered => Err(refusal),
                // Another broker may come back, or this one be mended.
                (Some(refusal), _) => Err(refusal.into_kind(ErrorKind::Changelog)),
                (None, failure) => failure.map_or(Ok(None), Err),
            }
        })
    }

    /// Opens a connection to the transaction coordinator of `transactional_id`, asking anew who it
    /// is; retries while it is moving or loading, and once there `was` one, also while it refuses:
    /// another one may follow it.
    pub(crate) fn connect_coordinator(
        &self,
        transactional_id: &str,
        was: bool,
        deadline: Deadline,
    ) -> Result<Connection> {
        let what = format!("find the coordinator of {transactional_id}");
        self.retry(&what, deadline, || {
            let address = self.coordinator(transactional_id, deadline)?;
            match Connection::open(self.settings(), &address, deadline) {
                Err(error) if was && is_refusal(&error) => {
                    Err(error.into_kind(ErrorKind::Changelog))
                }
                opened => opened.map(Some),
            }
        })
    }

    fn coordinator(&self, transactional_id: &str, deadline: Deadline) -> Result<Address> {
        let request = FindCoordinatorRequest {
            key: transactional_id,
            key_type: CoordinatorType::Transaction,
        };
        self.with_any(deadline, |connection| {
            let response = connection.call(&request)?;
            let code = response.error_code;
            if code.is_ok() {
                let port = u16::try_from(response.port)
                    .map_err(|_| Error::corruption(format!("port {}", response.port)))?;
                let host = response.host.to_owned();
                return Ok(Ok(Address { host, port }));
            }
            let error = Error::new(ErrorKind::Changelog, format!("FindCoordinator: {code}"));
            Ok(Err(match code {
                ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                | ErrorCode::CLUSTER_AUTHORIZATION_FAILED
                | ErrorCode::INVALID_REQUEST => error.into_kind(ErrorKind::InvalidArgument),
                _ => error,
            }))
        })?
    }

    /// Opens a connection to the broker that creates topics.
    pub(crate) fn connect_controller(&self, deadline: Deadline) -> Result<Connection> {
        self.retry("connect to the controller", deadline, || {
            self.ask(None, deadline, |_| Ok(()))?;
            let controller = self.view.lock().controller;
            match controller {
                Some(node) => self.connect(node, deadline).map(Some),
                None => Err(Error::new(
                    ErrorKind::Changelog,
                    "the cluster has no controller",
                )),
            }
        })
    }

    /// The address of a broker.
    pub(crate) fn address(&self, node: i32) -> Option<Address> {
        self.view.lock().brokers.get(&node).cloned()
    }

    /// Asks for a topic unless somebody else did since `asked_before`.
    fn refresh(
        &self,
        topic: &str,
        asked_before: Option<Duration>,
        deadline: Deadline,
    ) -> Result<()> {
        let answer = self.ask_unless(
            |view| view.asked(topic) != asked_before,
            Some(topic),
            deadline,
            |answer| view::answer_for(answer, topic),
        )?;
        match answer {
            None | Some(Answer::Is(_) | Answer::Missing) => Ok(()),
            Some(Answer::Undecided(error)) => Err(error),
        }
    }

    /// Asks any broker for the brokers, for `topic` and for what is in doubt; takes the answer
    /// into the view and hands it to `read`.
    fn ask<T>(
        &self,
        topic: Option<&str>,
        deadline: Deadline,
        read: impl FnOnce(&MetadataResponse<'_>) -> Result<T>,
    ) -> Result<T> {
        let asked = self.ask_unless(|_| false, topic, deadline, read)?;
        asked.ok_or_else(|| Error::new(ErrorKind::Changelog, "nobody was asked"))
    }

    fn ask_unless<T>(
        &self,
        is_answered: impl FnOnce(&View) -> bool,
        topic: Option<&str>,
        deadline: Deadline,
        read: impl FnOnce(&MetadataResponse<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.with_any(deadline, |connection| {
            let names: Vec<String> = {
                let view = self.view.lock();
                if is_answered(&view) {
                    return Ok(Ok(None));
                }
                view.to_ask(topic).into_iter().map(str::to_owned).collect()
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let asked = self.settings().env().monotonic();
            let request = MetadataRequest {
                topics: Some(&names),
            };
            let response = connection.call(&request)?;
            self.view.lock().merge(asked, &response)?;
            Ok(read(&response).map(Some))
        })?
    }

    /// Runs `act` on the connection for questions. After an outer error it is not used again.
    fn with_any<T>(
        &self,
        deadline: Deadline,
        act: impl FnOnce(&mut Connection) -> Result<T>,
    ) -> Result<T> {
        let mut asking = self.scope.asking.lock();
        self.settings().shutdown().check()?;
        let mut connection = match asking.take() {
            Some(connection) => connection,
            None => self.connect_any(deadline)?,
        };
        connection.set_limit(deadline);
        let done = act(&mut connection)?;
        *asking = Some(connection);
        Ok(done)
    }

    fn retry<T>(
        &self,
        what: &str,
        deadline: Deadline,
        attempt: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        self.retry_after(what, deadline, &mut Backoff::requests(), attempt)
    }

    /// Repeats `attempt` while it has no answer or fails for a reason that may pass.
    fn retry_after<T>(
        &self,
        what: &str,
        deadline: Deadline,
        backoff: &mut Backoff,
        mut attempt: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let settings = self.settings();
        loop {
            let failure = match attempt() {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => Error::new(ErrorKind::Changelog, "no answer yet"),
                Err(error) if is_passing(&error) => error,
                Err(error) => return Err(error.context(what)),
            };
            if deadline.is_over(settings.env()) {
                return Err(given_up(what, &failure));
            }
            settings.pause(backoff.next(settings.env().random_u64()), deadline)?;
            // Another attempt would only say that no time was left.
            if deadline.is_over(settings.env()) {
                return Err(given_up(what, &failure));
            }
        }
    }
}

/// Whether the same attempt may succeed later.
fn is_passing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::Changelog | ErrorKind::Corruption | ErrorKind::NotFound
    )
}

/// Whether a broker will not have this client as it is.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidArgument | ErrorKind::Unsupported
    )
}

/// What is wrong with one broker among others.
fn as_outage(error: Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidArgument => error.into_kind(ErrorKind::Io),
        _ => error,
    }
}

fn given_up(what: impl fmt::Display, failure: &Error) -> Error {
    let failure = failure.context(format_args!("{what}, given up"));
    match failure.kind() {
        ErrorKind::NotFound => failure,
        _ => failure.into_kind(ErrorKind::Changelog),
    }
}
