//! How the Kafka changelog is set up: plain data with checked bounds.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::admin::TopicOptions;
use super::connection::{Address, Connector};
use crate::changelog::Guarantee;
use crate::env::{Env, OsEnv};
use crate::error::{Error, Result};
use crate::sync::Arc;

/// How long one attempt to connect may take, login included, unless set otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a broker may take to answer, unless set otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a call waits for a topic, a leader or a coordinator, unless set otherwise.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an append waits for room, unless set otherwise.
pub const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a transaction may stay open before the broker aborts it, unless set otherwise.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a batch waits for more records, unless set otherwise.
pub const LINGER: Duration = Duration::from_millis(5);
/// How old metadata may become before they are asked for again, unless set otherwise.
pub const METADATA_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Bytes of records that wait for their acks, unless set otherwise.
pub const BUFFER_BYTES: usize = 32 << 20;
/// Bytes at which a batch is sent, unless set otherwise.
pub const BATCH_BYTES: usize = 256 << 10;
/// Bytes of one request to write, unless set otherwise: what brokers take by default.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of the largest record, unless set otherwise: fits what brokers take by default.
pub const RECORD_BYTES_MAX: usize = 1_000_000;
/// Bytes that one answer to a fetch may have of one partition, unless set otherwise.
pub const FETCH_PARTITION_BYTES: usize = 8 << 20;
/// Bytes that one answer to a fetch may have in all, unless set otherwise.
pub const FETCH_BYTES: usize = 64 << 20;
/// Bytes of the longest answer that is taken from a broker, unless set otherwise.
pub const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// Longest name that goes into requests, in bytes.
const NAME_LEN_MAX: usize = 249;

/// A secret, kept out of messages and debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps the secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl From<&str> for Secret {
    fn from(secret: &str) -> Self {
        Self::new(secret)
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

/// How to log in to brokers by SASL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SaslMechanism {
    /// The password goes to the broker as it is; see
    /// [`plain_without_tls`](KafkaOptions::plain_without_tls).
    Plain,
    /// The password stays here and the broker proves that it knows it (feature `kafka-scram`).
    ScramSha256,
    /// As [`ScramSha256`](Self::ScramSha256), with the longer hash.
    ScramSha512,
}

impl SaslMechanism {
    /// The name by which brokers know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SaslOptions {
    pub(crate) mechanism: SaslMechanism,
    pub(crate) user: String,
    pub(crate) password: Secret,
}

/// How connections are encrypted (feature `kafka-tls`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    pub(crate) roots: PathBuf,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
}

impl TlsOptions {
    /// Trusts brokers whose certificate is signed by one of those in the PEM file `roots`.
    pub fn new(roots: impl Into<PathBuf>) -> Self {
        Self {
            roots: roots.into(),
            identity: None,
            server_name: None,
        }
    }

    /// The certificate chain and the private key, both PEM files, that prove to brokers who this
    /// client is. None unless set.
    #[must_use]
    pub fn identity(mut self, certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((certificates.into(), key.into()));
        self
    }

    /// The name that brokers' certificates must carry. The host that was connected to unless set.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// What batches are compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BatchCompression {
    /// Nothing.
    #[default]
    None,
    /// LZ4.
    Lz4,
}

/// How the Kafka changelog is set up.
#[derive(Clone)]
pub struct KafkaOptions {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) connector: Option<Arc<dyn Connector>>,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) sasl: Option<SaslOptions>,
    pub(crate) plain_without_tls: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) metadata_age_max: Duration,
    pub(crate) response_bytes_max: usize,
    pub(crate) guarantee: Guarantee,
    pub(crate) transactional_id_prefix: String,
    pub(crate) transaction_timeout: Duration,
    pub(crate) fence_expiration_max: Option<Duration>,
    pub(crate) buffer_bytes: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) request_bytes_max: usize,
    pub(crate) record_bytes_max: usize,
    pub(crate) linger: Duration,
    pub(crate) block_timeout: Duration,
    pub(crate) delivery_timeout: Option<Duration>,
    pub(crate) compression: BatchCompression,
    pub(crate) fetch_partition_bytes: usize,
    pub(crate) fetch_bytes: usize,
    pub(crate) topics: TopicOptions,
}

impl KafkaOptions {
    /// The defaults, with the brokers to ask first: `host:port` each, several separated by commas
    /// or given one by one.
    pub fn new(bootstrap: impl AsRef<str>) -> Self {
        Self {
            env: Arc::new(OsEnv::new()),
            bootstrap: bootstrap
                .as_ref()
                .split(',')
                .map(|server| server.trim().to_owned())
                .collect(),
            client_id: "siltstone".to_owned(),
            connector: None,
            tls: None,
            sasl: None,
            plain_without_tls: false,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            operation_timeout: OPERATION_TIMEOUT,
            metadata_age_max: METADATA_AGE_MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
            guarantee: Guarantee::Atomic,
            transactional_id_prefix: String::new(),
            transaction_timeout: TRANSACTION_TIMEOUT,
            fence_expiration_max: None,
            buffer_bytes: BUFFER_BYTES,
            batch_bytes: BATCH_BYTES,
            request_bytes_max: REQUEST_BYTES_MAX,
            record_bytes_max: RECORD_BYTES_MAX,
            linger: LINGER,
            block_timeout: BLOCK_TIMEOUT,
            delivery_timeout: None,
            compression: BatchCompression::None,
            fetch_partition_bytes: FETCH_PARTITION_BYTES,
            fetch_bytes: FETCH_BYTES,
            topics: TopicOptions::default(),
        }
    }

    /// Time, threads and randomness to use instead of the operating system's.
    #[must_use]
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = env;
        self
    }

    /// The name that brokers show in their logs and count quotas by. `siltstone` unless set.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = id.into();
        self
    }

    /// Streams of the user's own instead of TCP. TLS, where it is asked for, runs over them.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Encrypts connections (feature `kafka-tls`). They are not unless set.
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Logs in to brokers by SASL. No login unless set.
    #[must_use]
    pub fn sasl(
        mut self,
        mechanism: SaslMechanism,
        user: impl Into<String>,
        password: impl Into<Secret>,
    ) -> Self {
        self.sasl = Some(SaslOptions {
            mechanism,
            user: user.into(),
            password: password.into(),
        });
        self
    }

    /// Whether [`SaslMechanism::Plain`] may show the password to everybody on the network, where
    /// connections are not encrypted. Not unless set.
    #[must_use]
    pub fn plain_without_tls(mut self, allowed: bool) -> Self {
        self.plain_without_tls = allowed;
        self
    }

    /// How long one attempt to connect may take, login included. [`CONNECT_TIMEOUT`] unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a broker may take to answer before its connection is given up.
    /// [`REQUEST_TIMEOUT`] unless set.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a call waits for a topic, a leader or a coordinator. [`OPERATION_TIMEOUT`] unless
    /// set.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How old metadata may become before they are asked for again. [`METADATA_AGE_MAX`] unless
    /// set.
    #[must_use]
    pub fn metadata_age_max(mut self, age: Duration) -> Self {
        self.metadata_age_max = age;
        self
    }

    /// Bytes of the longest answer that is taken from a broker; at least 1 MiB and more than
    /// [`fetch_bytes`](Self::fetch_bytes), which a broker may exceed by a batch.
    /// [`RESPONSE_BYTES_MAX`] unless set.
    #[must_use]
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.response_bytes_max = bytes;
        self
    }

    /// What a commit promises: [`Guarantee::Atomic`] by transactions, unless set, or
    /// [`Guarantee::PerBatch`], which is cheaper.
    #[must_use]
    pub fn guarantee(mut self, guarantee: Guarantee) -> Self {
        self.guarantee = guarantee;
        self
    }

    /// What is put in front of a task's name to make its transactional id. Empty unless set.
    #[must_use]
    pub fn transactional_id_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.transactional_id_prefix = prefix.into();
        self
    }

    /// How long a transaction may stay open before the broker aborts it; brokers allow 15 minutes
    /// at most by default. [`TRANSACTION_TIMEOUT`] unless set.
    #[must_use]
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.transaction_timeout = timeout;
        self
    }

    /// After how long without a renewal a fence is taken to be forgotten by the brokers, at the
    /// latest. It is renewed every quarter of that, and nothing is sent under one that is older
    /// than half. Unless set, what the brokers tell of themselves counts
    /// ([`fence_expiration`](super::Kafka::fence_expiration)): set it for those that do not tell,
    /// and forget sooner than a day.
    #[must_use]
    pub fn fence_expiration_max(mut self, age: Duration) -> Self {
        self.fence_expiration_max = Some(age);
        self
    }

    /// Bytes of records that may wait for their acks. [`BUFFER_BYTES`] unless set.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Bytes at which a batch is sent. [`BATCH_BYTES`] unless set.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// Bytes of one request to write; not above what the brokers take (`message.max.bytes`).
    /// [`REQUEST_BYTES_MAX`] unless set.
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.request_bytes_max = bytes;
        self
    }

    /// Bytes of the largest record. [`RECORD_BYTES_MAX`] unless set.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// How long a batch waits for more records before it is sent; zero sends it at once.
    /// [`LINGER`] unless set.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How long an append waits for room. [`BLOCK_TIMEOUT`] unless set.
    #[must_use]
    pub fn block_timeout(mut self, timeout: Duration) -> Self {
        self.block_timeout = timeout;
        self
    }

    /// How long a batch is sent again before its commit fails. For ever unless set: giving up
    /// loses what the changelog is for.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = Some(timeout);
        self
    }

    /// What batches are compressed with. Nothing unless set.
    #[must_use]
    pub fn compression(mut self, compression: BatchCompression) -> Self {
        self.compression = compression;
        self
    }

    /// Bytes that one answer to a fetch may have of one partition. [`FETCH_PARTITION_BYTES`]
    /// unless set.
    #[must_use]
    pub fn fetch_partition_bytes(mut self, bytes: usize) -> Self {
        self.fetch_partition_bytes = bytes;
        self
    }

    /// Bytes that one answer to a fetch may have in all. [`FETCH_BYTES`] unless set.
    #[must_use]
    pub fn fetch_bytes(mut self, bytes: usize) -> Self {
        self.fetch_bytes = bytes;
        self
    }

    /// How changelog topics are created, and what existing ones are compared with.
    #[must_use]
    pub fn topics(mut self, topics: TopicOptions) -> Self {
        self.topics = topics;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for server in &self.bootstrap {
            Address::parse(server)?;
        }
        check_name("client_id", &self.client_id)?;
        check_name("transactional_id_prefix", &self.transactional_id_prefix)?;
        let second = Duration::from_secs(1);
        let (moment, day) = (Duration::from_millis(1), 86_400 * second);
        check("connect_timeout", self.connect_timeout, moment, day)?;
        check("request_timeout", self.request_timeout, moment, day)?;
        check("operation_timeout", self.operation_timeout, moment, day)?;
        check("metadata_age_max", self.metadata_age_max, moment, day)?;
        check("transaction_timeout", self.transaction_timeout, moment, day)?;
        let fence_expiration_max = self.fence_expiration_max.unwrap_or(day);
        check(
            "fence_expiration_max",
            fence_expiration_max,
            moment,
            365 * day,
        )?;
        check("linger", self.linger, Duration::ZERO, 60 * second)?;
        check("block_timeout", self.block_timeout, Duration::ZERO, day)?;
        let delivery_timeout = self.delivery_timeout.unwrap_or(day);
        check("delivery_timeout", delivery_timeout, moment, 365 * day)?;
        check("buffer_bytes", self.buffer_bytes, 64 << 10, 1 << 40)?;
        check("batch_bytes", self.batch_bytes, 1, 1 << 30)?;
        check(
            "request_bytes_max",
            self.request_bytes_max,
            1 << 10,
            1 << 30,
        )?;
        let request_bytes_max = self.request_bytes_max;
        check(
            "record_bytes_max",
            self.record_bytes_max,
            1,
            request_bytes_max,
        )?;
        check("fetch_bytes", self.fetch_bytes, 1 << 10, 1 << 30)?;
        let fetch_bytes = self.fetch_bytes;
        check(
            "fetch_partition_bytes",
            self.fetch_partition_bytes,
            1 << 10,
            fetch_bytes,
        )?;
        let answer_min = fetch_bytes.max(1 << 20);
        check(
            "response_bytes_max",
            self.response_bytes_max,
            answer_min,
            i32::MAX as usize,
        )?;
        self.validate_security()?;
        self.topics.validate()
    }

    fn validate_security(&self) -> Result<()> {
        if let Some(sasl) = &self.sasl {
            let has_zero = sasl.user.contains('\0') || sasl.password.reveal().contains('\0');
            if sasl.user.is_empty() || has_zero {
                return Err(Error::invalid(
                    "a login needs a user, and neither it nor the password a zero character",
                ));
            }
            if sasl.mechanism != SaslMechanism::Plain && cfg!(not(feature = "kafka-scram")) {
                let what = format!("{} needs the feature kafka-scram", sasl.mechanism.name());
                return Err(Error::unsupported(what));
            }
        }
        if self.tls.is_some() && cfg!(not(feature = "kafka-tls")) {
            return Err(Error::unsupported("TLS needs the feature kafka-tls"));
        }
        Ok(())
    }
}

fn check<T: PartialOrd + fmt::Debug + Copy>(name: &str, value: T, low: T, high: T) -> Result<()> {
    if value < low || value > high {
        return Err(Error::invalid(format!(
            "{name} is {value:?}, allowed are {low:?} to {high:?}"
        )));
    }
    Ok(())
}

/// Names go into requests, where strings have a bound, and into brokers' logs.
fn check_name(option: &str, name: &str) -> Result<()> {
    if name.len() > NAME_LEN_MAX || name.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{option} {name:?}: allowed are {NAME_LEN_MAX} bytes without control characters"
        )));
    }
    Ok(())
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("tls", &self.tls)
            .field("sasl", &self.sasl)
            .field("guarantee", &self.guarantee)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn defaults_are_valid() {
        KafkaOptions::new("a:1, b:2").validate().unwrap();
    }

    #[test]
    fn a_bad_option_is_named() {
        let base = || KafkaOptions::new("a:1");
        let day = Duration::from_secs(86_400);
        let cases = [
            (KafkaOptions::new(""), "expected host:port"),
            (KafkaOptions::new("a:1,,b:2"), "expected host:port"),
            (base().client_id("a\nb"), "client_id"),
            (base().client_id("a".repeat(250)), "client_id"),
            (
                base().transactional_id_prefix("\0"),
                "transactional_id_prefix",
            ),
            (base().connect_timeout(Duration::ZERO), "connect_timeout"),
            (base().request_timeout(Duration::ZERO), "request_timeout"),
            (base().operation_timeout(2 * day), "operation_timeout"),
            (base().metadata_age_max(2 * day), "metadata_age_max"),
            (
                base().transaction_timeout(Duration::ZERO),
                "transaction_timeout",
            ),
            (
                base().fence_expiration_max(Duration::ZERO),
                "fence_expiration_max",
            ),
            (base().linger(day), "linger"),
            (base().block_timeout(2 * day), "block_timeout"),
            (base().delivery_timeout(Duration::ZERO), "delivery_timeout"),
            (base().buffer_bytes(1), "buffer_bytes"),
            (base().batch_bytes(0), "batch_bytes"),
            (base().request_bytes_max(1), "request_bytes_max"),
            (base().record_bytes_max(usize::MAX), "record_bytes_max"),
            (base().fetch_bytes(1), "fetch_bytes"),
            (
                base().fetch_partition_bytes(usize::MAX),
                "fetch_partition_bytes",
            ),
            (base().response_bytes_max(1), "response_bytes_max"),
            (base().sasl(SaslMechanism::Plain, "", "p"), "needs a user"),
            (
                base().sasl(SaslMechanism::Plain, "u", "p\0"),
                "zero character",
            ),
        ];
        for (options, name) in cases {
            let error = options.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(name), "{error} names {name}");
        }
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn a_missing_feature_is_named() {
        let error = KafkaOptions::new("a:1")
            .tls(TlsOptions::new("ca.pem"))
            .validate();
        assert_eq!(
            error.unwrap_err().to_string(),
            "TLS needs the feature kafka-tls"
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = KafkaOptions::new("a:1").sasl(SaslMechanism::ScramSha256, "user", "hunter2");
        let shown = format!("{options:?} {:#?}", options.sasl);
        assert!(
            shown.contains("user") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
