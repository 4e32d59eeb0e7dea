//! For how long brokers remember what fences are made of.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::kafka::cluster::Cluster;
use crate::kafka::connection::Deadline;
use crate::kafka::protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult, RESOURCE_BROKER,
};

/// What brokers do by default.
const PRODUCER_ID: Duration = Duration::from_secs(24 * 3600);
const TRANSACTIONAL_ID: Duration = Duration::from_secs(7 * 24 * 3600);

const PRODUCER_ID_NAME: &str = "producer.id.expiration.ms";
const TRANSACTIONAL_ID_NAME: &str = "transactional.id.expiration.ms";

/// How many brokers are asked: they are set up alike.
const BROKERS_MAX: usize = 16;

/// For how long brokers remember what a fence is made of; the shortest of what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FenceExpiration {
    /// A producer that does not write (`producer.id.expiration.ms`).
    pub producer_id: Duration,
    /// A task without transactions (`transactional.id.expiration.ms`).
    pub transactional_id: Duration,
    /// Why their defaults were taken for what a broker does not tell, if one does not.
    pub assumed: Option<String>,
}

impl fmt::Display for FenceExpiration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "brokers forget idle producers after {:?}, idle transactional ids after {:?}",
            self.producer_id, self.transactional_id
        )?;
        match &self.assumed {
            Some(why) => write!(f, " (by default, for it is not told: {why})"),
            None => Ok(()),
        }
    }
}

impl FenceExpiration {
    /// Takes in what one broker says: the shorter of each.
    fn merge(&mut self, told: Result<(Duration, Duration)>) {
        match told {
            Ok((producer_id, transactional_id)) => {
                self.producer_id = self.producer_id.min(producer_id);
                self.transactional_id = self.transactional_id.min(transactional_id);
            }
            Err(error) => {
                let (producer_id, transactional_id) = (PRODUCER_ID, TRANSACTIONAL_ID);
                self.producer_id = self.producer_id.min(producer_id);
                self.transactional_id = self.transactional_id.min(transactional_id);
                self.assumed.get_or_insert(error.to_string());
            }
        }
    }
}

/// Asks the brokers, each for as long as `patience`. What one of them does not tell is taken to be
/// the default.
///
/// # Errors
///
/// `Changelog` if the cluster cannot be reached in that time; `Closed` after a shutdown.
pub(crate) fn fence_expiration(cluster: &Cluster, patience: Duration) -> Result<FenceExpiration> {
    let mut found = FenceExpiration {
        producer_id: Duration::MAX,
        transactional_id: Duration::MAX,
        assumed: None,
    };
    let deadline = || cluster.settings().deadline(patience);
    for node in cluster.nodes(deadline())?.into_iter().take(BROKERS_MAX) {
        // One that does not answer leaves the others their time.
        match ask(cluster, node, deadline()) {
            Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
            told => found.merge(told),
        }
    }
    if found.producer_id == Duration::MAX {
        found.merge(Err(Error::new(
            ErrorKind::Changelog,
            "the cluster names no brokers",
        )));
    }
    Ok(found)
}

/// One attempt to learn what a broker, which has to be asked itself, is set to.
fn ask(cluster: &Cluster, node: i32, deadline: Deadline) -> Result<(Duration, Duration)> {
    let name = node.to_string();
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: RESOURCE_BROKER,
            resource_name: &name,
            configuration_keys: Some(vec![PRODUCER_ID_NAME, TRANSACTIONAL_ID_NAME]),
        }],
    };
    cluster.ask_broker(node, deadline, |connection| {
        let response = connection.call(&request)?;
        let result = response.results.first().ok_or_else(|| {
            Error::corruption(format!("the answer of broker {node} has nothing on itself"))
        })?;
        read(node, result)
    })
}

fn read(node: i32, result: &DescribeConfigsResult<'_>) -> Result<(Duration, Duration)> {
    if !result.error_code.is_ok() {
        let code = result.error_code;
        let what = format!("settings of broker {node}: {code}");
        return Err(Error::new(ErrorKind::Changelog, what));
    }
    let milliseconds = |name: &str| {
        let config = result.configs.iter().find(|config| config.name == name);
        let value = config.and_then(|config| config.value);
        let number = value.and_then(|value| value.trim().parse().ok());
        number
            .filter(|number| *number > 0)
            .map(Duration::from_millis)
    };
    let transactional_id = milliseconds(TRANSACTIONAL_ID_NAME);
    // Brokers before 3.4 have one setting for both.
    let producer_id = milliseconds(PRODUCER_ID_NAME).or(transactional_id);
    match (producer_id, transactional_id) {
        (Some(producer_id), Some(transactional_id)) => Ok((producer_id, transactional_id)),
        _ => Err(Error::new(
            ErrorKind::Changelog,
            format!("broker {node} does not tell {TRANSACTIONAL_ID_NAME}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::protocol::ErrorCode;
    use crate::kafka::protocol::messages::DescribedConfig;

    fn result<'a>(
        error_code: ErrorCode,
        configs: &[(&'a str, Option<&'a str>)],
    ) -> DescribeConfigsResult<'a> {
        let config = |(name, value): &(&'a str, Option<&'a str>)| DescribedConfig {
            name,
            value: *value,
            read_only: false,
            config_source: 5,
            is_sensitive: false,
        };
        DescribeConfigsResult {
            error_code,
            error_message: None,
            resource_type: RESOURCE_BROKER,
            resource_name: "1",
            configs: configs.iter().map(config).collect(),
        }
    }

    #[test]
    fn both_are_read_and_an_old_broker_has_one_for_both() {
        let ms = Duration::from_millis;
        let both = [
            (PRODUCER_ID_NAME, Some("4000")),
            (TRANSACTIONAL_ID_NAME, Some("9000")),
        ];
        let told = read(1, &result(ErrorCode::NONE, &both)).unwrap();
        assert_eq!(told, (ms(4000), ms(9000)));
        let told = read(1, &result(ErrorCode::NONE, &both[1..])).unwrap();
        assert_eq!(told, (ms(9000), ms(9000)));
        for value in [None, Some(""), Some("0"), Some("-1"), Some("a week")] {
            let configs = [(TRANSACTIONAL_ID_NAME, value)];
            let error = read(1, &result(ErrorCode::NONE, &configs)).unwrap_err();
            assert!(error.to_string().contains(TRANSACTIONAL_ID_NAME), "{error}");
        }
        let refused = result(ErrorCode::CLUSTER_AUTHORIZATION_FAILED, &both);
        assert!(
            read(1, &refused)
                .unwrap_err()
                .to_string()
                .contains("broker 1")
        );
    }

    #[test]
    fn the_shortest_counts_and_what_is_not_told_is_the_default() {
        let seconds = Duration::from_secs;
        let mut found = FenceExpiration {
            producer_id: Duration::MAX,
            transactional_id: Duration::MAX,
            assumed: None,
        };
        found.merge(Ok((seconds(900_000), seconds(60))));
        found.merge(Ok((seconds(800_000), seconds(70))));
        assert_eq!(found.producer_id, seconds(800_000));
        assert_eq!(found.transactional_id, seconds(60));
        assert_eq!(found.assumed, None);
        found.merge(Err(Error::unsupported("too old")));
        assert_eq!(found.producer_id, PRODUCER_ID);
        assert_eq!(found.transactional_id, seconds(60));
        assert!(found.to_string().contains("not told: too old"), "{found}");
    }
}
