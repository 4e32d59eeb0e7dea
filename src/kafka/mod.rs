//! The changelog on Apache Kafka: its protocol, its producer and its restorer, on blocking threads.
//!
//! - [`Kafka`]: the changelog.
//! - [`KafkaOptions`]: where the brokers are and how to talk to them.
//! - `protocol`: requests, responses and record batches as bytes; no I/O.
//! - `connection`: streams to brokers, the handshake, requests with their answers.
//! - `cluster`: who leads which partition, who coordinates, back-off and reconnects.
//! - `producer`: batches, their order, what is done about errors, the threads that send.
//! - `transaction`: who owns a task, its fence, its commits.
//! - `fetcher`: committed records in order; where partitions start and end.
//! - `session`: an owner's hold on a task, over all of these.
//! - `admin`: changelog topics, created and compared.
//! - `unowned`: records without an owner, for tests.

mod admin;
mod cluster;
mod connection;
mod fetcher;
mod options;
mod producer;
pub(crate) mod protocol;
mod session;
mod transaction;
#[cfg(feature = "fuzzing")]
pub(crate) mod unowned;

use std::fmt;

use self::cluster::Cluster;
use self::connection::Settings;
use self::fetcher::FetchReader;
use crate::changelog::{
    Bounds, Changelog, Guarantee, Offset, Partition, Reader, Session, check_range,
};
use crate::error::{Error, ErrorKind, Result};

pub use admin::{FenceExpiration, TopicDifference, TopicNames, TopicOptions};
pub use connection::{Address, Connector, Transport};
pub use options::{
    BATCH_BYTES, BLOCK_TIMEOUT, BUFFER_BYTES, CONNECT_TIMEOUT, FETCH_BYTES, FETCH_PARTITION_BYTES,
    LINGER, METADATA_AGE_MAX, OPERATION_TIMEOUT, RECORD_BYTES_MAX, REQUEST_BYTES_MAX,
    REQUEST_TIMEOUT, RESPONSE_BYTES_MAX, TRANSACTION_TIMEOUT,
};
pub use options::{BatchCompression, KafkaOptions, SaslMechanism, Secret, TlsOptions};

/// A changelog on Apache Kafka; see [`crate::changelog`] for what it promises.
///
/// Each partition is one of a topic, with raw keys and values, so that other programs can read and
/// write it too. A task is a *transactional id*. With [`Guarantee::Atomic`], the default, a commit
/// is a transaction; with [`Guarantee::PerBatch`] batches count one by one. The coordinator answers
/// a commit before it has written the transaction's markers: it stands then, and the next owner
/// finds it, but a [`reader`](Changelog::reader) without ownership may lag for some milliseconds.
///
/// Topics that are missing are created when a task is claimed. To which task a partition belongs
/// is not written down: two tasks that claim the same partition are not told.
///
/// What was appended is sent in the background, so that room comes back while a commit is still
/// open, and a prepared commit is decided without its caller.
#[derive(Clone)]
pub struct Kafka {
    cluster: Cluster,
}

impl Kafka {
    /// Checks the options; connects when it is first asked for something.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, naming the option; `Unsupported`, naming the feature that it needs.
    pub fn open(options: KafkaOptions) -> Result<Self> {
        let cluster = Cluster::new(Settings::new(options)?);
        Ok(Self { cluster })
    }
}

/// What tools want of topics. A topic is never altered by anything else here.
impl Kafka {
    /// Creates a topic as [`KafkaOptions::topics`] says, and waits until the brokers know it. False
    /// if there is one of that name already, which is left as it is: see
    /// [`topic_differences`](Self::topic_differences).
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for a name or a configuration that brokers refuse; `NotFound` if the
    /// options do not allow it; `Changelog`.
    pub fn create_topic(&self, topic: &str) -> Result<bool> {
        let deadline = self.cluster.settings().operation_deadline();
        let topics = admin::Topics::new(&self.cluster);
        if topics.exists(topic, deadline)? {
            return Ok(false);
        }
        topics.ensure(topic, 1, deadline).map(|_| true)
    }

    /// For how long brokers remember what fences are made of. Owners ask by themselves, and renew
    /// their fence as often as that takes.
    ///
    /// # Errors
    ///
    /// `Changelog` if the cluster cannot be reached.
    pub fn fence_expiration(&self) -> Result<FenceExpiration> {
        let patience = self.cluster.settings().options().operation_timeout;
        admin::fence_expiration(&self.cluster, patience)
    }

    /// Compares a topic with what [`KafkaOptions::topics`] would have created. Empty: nothing
    /// differs. What the options do not set is not looked at.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Unsupported` if the brokers do not describe topics; `Changelog`.
    pub fn topic_differences(&self, topic: &str) -> Result<Vec<TopicDifference>> {
        let deadline = self.cluster.settings().operation_deadline();
        admin::Topics::new(&self.cluster).differences(topic, deadline)
    }

    /// Deletes a topic with all that is in it.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; `Changelog`.
    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let deadline = self.cluster.settings().operation_deadline();
        admin::Topics::new(&self.cluster).delete(topic, deadline)
    }

    /// Deletes what a partition has below `before`, and answers where it starts then.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such partition; `InvalidArgument` where the topic's policy does
    /// not allow it (it takes `compact,delete`); `Changelog`.
    pub fn trim(&self, partition: &Partition, before: Offset) -> Result<Offset> {
        let deadline = self.cluster.settings().operation_deadline();
        admin::Topics::new(&self.cluster).trim(partition, before, deadline)
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("options", self.cluster.settings().options())
            .finish_non_exhaustive()
    }
}

impl Changelog for Kafka {
    fn guarantee(&self) -> Guarantee {
        self.cluster.settings().options().guarantee
    }

    fn bounds(&self, partition: &Partition) -> Result<Option<Bounds>> {
        let deadline = self.cluster.settings().operation_deadline();
        fetcher::bounds(&self.cluster, partition, deadline)
    }

    fn claim(&self, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
        Ok(Box::new(session::claim(&self.cluster, task, partitions)?))
    }

    fn reader(&self, partition: &Partition, from: Offset) -> Result<Box<dyn Reader>> {
        let Some(bounds) = self.bounds(partition)? else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("changelog partition {partition} does not exist"),
            ));
        };
        check_range(partition, from, bounds.start, bounds.end)?;
        let reader = FetchReader::new(self.cluster.clone(), partition.clone(), from, None)?;
        Ok(Box::new(reader))
    }
}
