//! Which topic holds the changes of which store.

use crate::changelog::Partition;

/// How changelog topics are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicNames {
    /// `<prefix>-<store>-changelog`, as Siltstone's tasks (where the prefix is the namespace) and
    /// Kafka Streams (where it is the `application.id`) name them.
    Prefixed(String),
    /// By store, as Samza's `stores.<store>.changelog` has them: pairs of store and topic. A
    /// topic may have its system in front, `<system>.<topic>`.
    Listed(Vec<(String, String)>),
}

impl TopicNames {
    /// Those of a Kafka Streams application.
    pub fn kafka_streams(application_id: impl Into<String>) -> Self {
        Self::Prefixed(application_id.into())
    }

    /// Those of a Samza job, from the lines `stores.<store>.changelog=<system>.<topic>` of its
    /// configuration; other lines are left out. The topic is what follows the first point.
    pub fn samza(configuration: &str) -> Self {
        let lines = configuration.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let store = key
                .trim()
                .strip_prefix("stores.")?
                .strip_suffix(".changelog")?;
            let value = value.trim();
            let topic = value.split_once('.').map_or(value, |(_, topic)| topic);
            Some((store.to_owned(), topic.to_owned()))
        });
        Self::Listed(lines.collect())
    }

    /// The partition that holds the changes of `store` in the task of number `task`; `None` for a
    /// store that is not listed.
    pub fn partition(&self, store: &str, task: u32) -> Option<Partition> {
        let topic = match self {
            Self::Prefixed(prefix) => format!("{prefix}-{store}-changelog"),
            Self::Listed(pairs) => {
                let (_, topic) = pairs.iter().find(|(listed, _)| listed == store)?;
                topic.clone()
            }
        };
        Some(Partition::new(topic, task))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_samza_topics_are_found() {
        let streams = TopicNames::kafka_streams("app");
        assert_eq!(
            streams.partition("counts", 3),
            Some(Partition::new("app-counts-changelog", 3))
        );
        let samza = TopicNames::samza(
            "job.name=x\nstores.counts.changelog = kafka.job-counts.v2\n\
             stores.bare.changelog=topic\nstores.counts.changelog.replication.factor=3\n",
        );
        let topic = |store| samza.partition(store, 0).map(|partition| partition.topic);
        assert_eq!(topic("counts").as_deref(), Some("job-counts.v2"));
        assert_eq!(topic("bare").as_deref(), Some("topic"));
        assert_eq!(topic("other"), None);
    }
}
