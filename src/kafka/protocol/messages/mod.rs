//! The messages of each API: requests as they are sent, responses as they are read. Fields are
//! named as in Kafka's own message definitions.

mod api_versions;
mod fetch;
mod metadata;
mod offsets;
mod produce;
mod sasl;
mod topics;
mod transaction;

#[cfg(test)]
mod tests;

pub(crate) use api_versions::*;
pub(crate) use fetch::*;
pub(crate) use metadata::*;
pub(crate) use offsets::*;
pub(crate) use produce::*;
pub(crate) use sasl::*;
pub(crate) use topics::*;
pub(crate) use transaction::*;

use super::{Reader, Writer};
use crate::error::Result;

/// Some of one topic's partitions, each with what a request tells or a response says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicPartitions<'a, P> {
    pub(crate) name: &'a str,
    pub(crate) partitions: Vec<P>,
}

impl<P> TopicPartitions<'_, P> {
    fn write(&self, writer: &mut Writer<'_>, write: impl FnMut(&mut Writer<'_>, &P)) {
        writer.string(self.name);
        writer.array(&self.partitions, write);
        writer.no_tags();
    }
}

/// Appends what a request tells of partitions, by topic.
fn write_topics<P>(
    writer: &mut Writer<'_>,
    topics: &[TopicPartitions<'_, P>],
    mut write: impl FnMut(&mut Writer<'_>, &P),
) {
    writer.array(topics, |writer, topic| topic.write(writer, &mut write));
}

/// Takes what a response says of partitions, by topic.
fn read_topics<'a, P>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Result<P>,
) -> Result<Vec<TopicPartitions<'a, P>>> {
    reader.array("topics", |reader| {
        let topic = TopicPartitions {
            name: reader.str("topic name")?,
            partitions: reader.array("partitions", &mut read)?,
        };
        reader.skip_tags()?;
        Ok(topic)
    })
}
