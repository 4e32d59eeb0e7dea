//! [`ChangelogUrl`]: a changelog and how to reach it, in one line of text.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::changelog::{Changelog, File, FileOptions};
use crate::error::{Error, Result};
use crate::sync::Arc;

/// Where a changelog is, as one types it.
///
/// - a directory, `./changelog` or `file:./changelog`: a [`File`];
/// - `kafka://host:port[,host:port...]/prefix[?option=value&...]`: one on Apache Kafka (feature
///   `kafka`). The prefix is the job's name: topics are `<prefix>-<store>-changelog`.
///
/// The options of a Kafka URL say how to log in. A password is named, never written:
///
/// - `ca=FILE`: encrypt, and trust the certificates in this PEM file (feature `kafka-tls`);
/// - `user=NAME`: log in, with the password from one of the next two;
/// - `password-file=FILE`: its first line is the password;
/// - `password-env=NAME`: this environment variable is the password;
/// - `mechanism=NAME`: `PLAIN`, `SCRAM-SHA-256` or, unless given, `SCRAM-SHA-512` (feature
///   `kafka-scram`);
/// - `plain-without-tls=true`: allow `PLAIN` to show the password to the network;
/// - `timeout-ms=N`: how long to wait for brokers that do not answer.
///
/// ```
/// use siltstone::ChangelogUrl;
///
/// let text = "kafka://one:9092,two:9092/word-count?user=ann&password-env=ANNS_PASSWORD";
/// let url: ChangelogUrl = text.parse()?;
/// assert_eq!(url.prefix(), Some("word-count"));
///
/// let dir = tempfile::tempdir().unwrap();
/// let url: ChangelogUrl = dir.path().to_str().unwrap().parse()?;
/// let changelog = url.open()?; // for `TaskOptions::new`
/// # drop(changelog);
/// # Ok::<(), siltstone::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangelogUrl(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Kafka(OnKafka),
}

/// The parts of a Kafka URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OnKafka {
    servers: String,
    prefix: String,
    ca: Option<PathBuf>,
    user: Option<String>,
    password: Option<Password>,
    mechanism: Mechanism,
    plain_without_tls: bool,
    timeout: Option<Duration>,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Password {
    File(PathBuf),
    Variable(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

const KAFKA: &str = "kafka://";
const FILE: &str = "file:";

impl ChangelogUrl {
    /// Opens the changelog, with defaults for all that the URL does not tell. Does not connect
    /// yet.
    ///
    /// # Errors
    ///
    /// As [`File::open`] or `Kafka::open`; `Unsupported`, naming the feature that is missing;
    /// `NotFound`, `Io` and `InvalidArgument` for the password's place.
    pub fn open(&self) -> Result<Arc<dyn Changelog>> {
        match &self.0 {
            Place::File(dir) => Ok(Arc::new(File::open(dir, FileOptions::new())?)),
            #[cfg(feature = "kafka")]
            Place::Kafka(place) => Ok(Arc::new(crate::kafka::Kafka::open(place.options()?)?)),
            #[cfg(not(feature = "kafka"))]
            Place::Kafka(_) => Err(Error::unsupported(
                "a changelog on Kafka needs the feature kafka",
            )),
        }
    }

    /// The prefix of a Kafka URL: the namespace of its job.
    pub fn prefix(&self) -> Option<&str> {
        match &self.0 {
            Place::File(_) => None,
            Place::Kafka(place) => Some(&place.prefix),
        }
    }

    /// How to open what a Kafka URL names, for those who want to set more; `None` for a
    /// directory.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Io` and `InvalidArgument` for the password's place.
    #[cfg(feature = "kafka")]
    pub fn kafka_options(&self) -> Result<Option<crate::kafka::KafkaOptions>> {
        match &self.0 {
            Place::File(_) => Ok(None),
            Place::Kafka(place) => place.options().map(Some),
        }
    }
}

impl FromStr for ChangelogUrl {
    type Err = Error;

    /// Reads a URL. The files and variables that it names are read when it is opened.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, naming the part that is wrong, and never what may be a secret.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix(KAFKA) {
            return OnKafka::parse(rest).map(|place| Self(Place::Kafka(place)));
        }
        let dir = text.strip_prefix(FILE).unwrap_or(text);
        if let Some((scheme, _)) = dir.split_once("://").filter(|(scheme, _)| is_word(scheme)) {
            return Err(Error::invalid(format!(
                "changelog URL: unknown scheme {scheme}://, expected a directory, file:DIRECTORY \
                 or kafka://HOST:PORT/PREFIX"
            )));
        }
        if dir.is_empty() {
            return Err(Error::invalid("changelog URL: the directory is missing"));
        }
        Ok(Self(Place::File(dir.into())))
    }
}

impl fmt::Display for ChangelogUrl {
    /// Where it is, without how to log in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(dir) => dir.display().fmt(f),
            Place::Kafka(place) => write!(f, "{KAFKA}{}/{}", place.servers, place.prefix),
        }
    }
}

impl OnKafka {
    /// Reads what follows the scheme.
    fn parse(rest: &str) -> Result<Self> {
        let wrong = |what: String| Error::invalid(format!("changelog URL: {what}"));
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (servers, prefix) = place.split_once('/').unwrap_or((place, ""));
        if has_login_in_front(rest) {
            return Err(wrong(
                "user and password do not belong in front of the servers; say \
                 ?user=NAME&password-file=FILE or &password-env=NAME"
                    .to_owned(),
            ));
        }
        for server in servers.split(',') {
            check_server(server).map_err(wrong)?;
        }
        if prefix.is_empty() {
            return Err(wrong(format!(
                "the prefix is missing: kafka://{servers}/PREFIX names the job, whose topics are \
                 PREFIX-STORE-changelog"
            )));
        }
        let is_legal = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        if !prefix.chars().all(is_legal) {
            return Err(wrong(format!(
                "prefix {prefix:?}: topics are named by letters, digits, '.', '_' and '-'"
            )));
        }
        let mut url = Self {
            servers: servers.to_owned(),
            prefix: prefix.to_owned(),
            ca: None,
            user: None,
            password: None,
            mechanism: Mechanism::ScramSha512,
            plain_without_tls: false,
            timeout: None,
        };
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            url.set(name, value).map_err(wrong)?;
        }
        if url.user.is_some() != url.password.is_some() {
            return Err(wrong(
                "a login takes user=NAME and one of password-file=FILE and password-env=NAME"
                    .to_owned(),
            ));
        }
        Ok(url)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if value.is_empty() {
            return Err(format!("option {name} needs a value: {name}=..."));
        }
        match name {
            "ca" => self.ca = Some(value.into()),
            "user" => self.user = Some(value.to_owned()),
            "password-file" => self.password = Some(Password::File(value.into())),
            "password-env" => self.password = Some(Password::Variable(value.to_owned())),
            "mechanism" => {
                self.mechanism = match value {
                    "PLAIN" => Mechanism::Plain,
                    "SCRAM-SHA-256" => Mechanism::ScramSha256,
                    "SCRAM-SHA-512" => Mechanism::ScramSha512,
                    _ => {
                        return Err(format!(
                            "mechanism {value:?}: there are PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512"
                        ));
                    }
                }
            }
            "plain-without-tls" => match value {
                "true" => self.plain_without_tls = true,
                "false" => self.plain_without_tls = false,
                _ => return Err("plain-without-tls is true or false".to_owned()),
            },
            "timeout-ms" => match value.parse() {
                Ok(ms) => self.timeout = Some(Duration::from_millis(ms)),
                Err(_) => return Err("timeout-ms is a number of milliseconds".to_owned()),
            },
            "password" => {
                return Err(
                    "a password does not belong into a URL, which others can see; say \
                            password-file=FILE or password-env=NAME"
                        .to_owned(),
                );
            }
            _ => {
                return Err(format!(
                    "unknown option {name}: there are ca, user, password-file, password-env, \
                     mechanism, timeout-ms and plain-without-tls"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(feature = "kafka")]
impl OnKafka {
    fn options(&self) -> Result<crate::kafka::KafkaOptions> {
        use crate::kafka::{KafkaOptions, SaslMechanism, TlsOptions};

        let mut options =
            KafkaOptions::new(&self.servers).plain_without_tls(self.plain_without_tls);
        if let Some(timeout) = self.timeout {
            options = options.operation_timeout(timeout);
        }
        if let Some(ca) = &self.ca {
            options = options.tls(TlsOptions::new(ca));
        }
        if let (Some(user), Some(password)) = (&self.user, &self.password) {
            let mechanism = match self.mechanism {
                Mechanism::Plain => SaslMechanism::Plain,
                Mechanism::ScramSha256 => SaslMechanism::ScramSha256,
                Mechanism::ScramSha512 => SaslMechanism::ScramSha512,
            };
            options = options.sasl(mechanism, user, password.read()?);
        }
        Ok(options)
    }
}

#[cfg(feature = "kafka")]
impl Password {
    fn read(&self) -> Result<crate::kafka::Secret> {
        /// No password is longer.
        const LEN_MAX: u64 = 64 << 10;

        let text = match self {
            Self::File(path) => {
                let env = crate::env::OsEnv::new();
                let bytes = crate::env::read_file(&env, path, LEN_MAX)
                    .map_err(|error| error.context("the password's file"))?;
                let text = String::from_utf8(bytes).map_err(|_| {
                    // The error would show the bytes.
                    Error::invalid(format!("the password in {} is not UTF-8", path.display()))
                })?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            Self::Variable(name) => std::env::var(name).map_err(|_| {
                Error::invalid(format!(
                    "the environment has no variable {name} with a password in UTF-8"
                ))
            })?,
        };
        if text.is_empty() {
            let place = match self {
                Self::File(path) => format!("the first line of {}", path.display()),
                Self::Variable(name) => format!("the environment variable {name}"),
            };
            return Err(Error::invalid(format!("{place} is empty, and no password")));
        }
        Ok(crate::kafka::Secret::new(text))
    }
}

/// Whether a user and a password may be in front of the servers: no message shows any of it then.
/// A password may have a `/`, `?` or `&`, and so its end in the prefix or among the options. Only a
/// value of an option behind servers and a prefix may have an `@`.
fn has_login_in_front(rest: &str) -> bool {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let (servers, prefix) = place.split_once('/').unwrap_or((place, ""));
    let are_servers = servers
        .split(',')
        .all(|server| check_server(server).is_ok());
    let is_in_name = |option: &str| {
        let (name, _) = option.split_once('=').unwrap_or((option, ""));
        name.contains('@')
    };
    place.contains('@')
        || options.split('&').any(is_in_name)
        || (rest.contains('@') && (!are_servers || prefix.is_empty()))
}

/// A server as the connections read it, checked here so that it is told before one is opened.
fn check_server(server: &str) -> Result<(), String> {
    let (host, port) = server.rsplit_once(':').unwrap_or((server, ""));
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(format!("{server:?} is no server: expected HOST:PORT"));
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|char| char.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "kafka")]
    use crate::env::{Env as _, OsEnv};
    use crate::error::ErrorKind;

    fn refused(text: &str) -> String {
        let error = text.parse::<ChangelogUrl>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        error.to_string()
    }

    #[test]
    fn a_directory_is_a_file_changelog() {
        for (text, dir) in [
            ("./log", "./log"),
            ("file:./log", "./log"),
            ("file:/a/b c", "/a/b c"),
            ("a:b", "a:b"),
        ] {
            let url: ChangelogUrl = text.parse().unwrap();
            assert_eq!(url.0, Place::File(dir.into()));
            assert_eq!(url.to_string(), dir);
            assert_eq!(url.prefix(), None);
        }
    }

    #[test]
    fn a_kafka_url_has_servers_and_a_prefix() {
        let url: ChangelogUrl = "kafka://a:1,[::1]:2/job.x".parse().unwrap();
        assert_eq!(url.prefix(), Some("job.x"));
        assert_eq!(url.to_string(), "kafka://a:1,[::1]:2/job.x");
        let login = "kafka://a:1/job?user=ann&password-file=/p&mechanism=PLAIN&ca=/c.pem\
                     &plain-without-tls=true&timeout-ms=1500";
        let url: ChangelogUrl = login.parse().unwrap();
        assert_eq!(url.to_string(), "kafka://a:1/job");
        let Place::Kafka(place) = url.0 else {
            panic!("a Kafka URL");
        };
        assert_eq!(place.user.as_deref(), Some("ann"));
        assert_eq!(place.password, Some(Password::File("/p".into())));
        assert_eq!(place.ca, Some("/c.pem".into()));
        assert_eq!(place.mechanism, Mechanism::Plain);
        assert!(place.plain_without_tls);
        assert_eq!(place.timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "directory is missing"),
            ("file:", "directory is missing"),
            ("http://a:1/x", "unknown scheme http://"),
            ("kafka://", "is no server"),
            ("kafka://a/job", "\"a\" is no server"),
            ("kafka://a:1,/job", "\"\" is no server"),
            ("kafka://a:70000/job", "\"a:70000\" is no server"),
            ("kafka://a:1", "the prefix is missing"),
            ("kafka://a:1/", "the prefix is missing"),
            ("kafka://a:1/job/more", "prefix \"job/more\""),
            ("kafka://a:1/job?user=x", "a login takes"),
            ("kafka://a:1/job?password-env=X", "a login takes"),
            ("kafka://a:1/job?user", "option user needs a value"),
            ("kafka://a:1/job?mechanism=GSSAPI", "mechanism \"GSSAPI\""),
            ("kafka://a:1/job?plain-without-tls=1", "true or false"),
            ("kafka://a:1/job?timeout-ms=1s", "timeout-ms is a number"),
            ("kafka://a:1/job?tls=1", "unknown option tls"),
        ] {
            let told = refused(text);
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_told() {
        for text in [
            "kafka://ann:hunter2@a:1/job",
            "kafka://ann:hunter2?ss@host:9092/words",
            "kafka://ann:hunter2?s=s@host:9092/words",
            "kafka://ann:1/hunter2?s@host:9092/words",
            "kafka://ann:1?hunter2=@host:9092/words",
            "kafka://ann:hunter2/s@host:9092/words",
            "kafka://a:1/job?password=hunter2",
            "kafka://a:1/job?user=ann&password=hunter2",
        ] {
            let told = refused(text);
            assert!(!told.contains("hunter2"), "{told}");
            assert!(told.contains("password-file"), "{told}");
        }
        let login = "kafka://a:1/job?user=ann@corp&password-env=X";
        assert!(login.parse::<ChangelogUrl>().is_ok());
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn passwords_are_read_where_the_url_says() {
        let dir = tempfile::tempdir().unwrap();
        let url = |option: &str| -> ChangelogUrl {
            let text = format!("kafka://a:1/job?user=ann&{option}");
            text.parse().unwrap()
        };
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            if !bytes.is_empty() {
                let file = OsEnv::new().create_new(&path).unwrap();
                file.write_all_at(0, bytes).unwrap();
            }
            let url = url(&format!("password-file={}", path.display()));
            url.kafka_options()
        };
        let missing = file("missing", b"").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
        let sasl = file("good", b"hunter2\nignored\n").unwrap().unwrap().sasl;
        assert_eq!(sasl.unwrap().password.reveal(), "hunter2");
        for (name, bytes, told) in [
            ("empty", &b"\n"[..], "is empty"),
            ("binary", b"hunter2\xff", "not UTF-8"),
        ] {
            let error = file(name, bytes).unwrap_err().to_string();
            let is_safe = !error.contains("hunter2");
            assert!(error.contains(told) && is_safe, "{error}");
        }
        let error = url("password-env=SILTSTONE_NO_SUCH_VARIABLE").open();
        let error = error.unwrap_err().to_string();
        assert!(error.contains("SILTSTONE_NO_SUCH_VARIABLE"), "{error}");
        // Any variable that is there.
        let set = url("password-env=PATH").kafka_options().unwrap();
        let sasl = set.unwrap().sasl.unwrap();
        assert_eq!(sasl.password.reveal(), std::env::var("PATH").unwrap());
        let plain: ChangelogUrl = "./log".parse().unwrap();
        assert!(plain.kafka_options().unwrap().is_none());
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_missing_feature_is_named() {
        let url: ChangelogUrl = "kafka://a:1/job".parse().unwrap();
        let error = url.open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
