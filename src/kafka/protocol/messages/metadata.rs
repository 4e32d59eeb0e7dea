//! Brokers, topics, and who leads each partition.

use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Uuid, Writer};

/// Asks for the brokers and for topics by name. Never creates a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetadataRequest<'r> {
    /// None asks for all topics, an empty list for the brokers alone.
    pub(crate) topics: Option<&'r [&'r str]>,
}

/// Answers [`MetadataRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) brokers: Vec<MetadataBroker<'a>>,
    pub(crate) cluster_id: Option<&'a str>,
    pub(crate) controller_id: i32,
    pub(crate) topics: Vec<MetadataTopic<'a>>,
}

/// A broker and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataBroker<'a> {
    pub(crate) node_id: i32,
    pub(crate) host: &'a str,
    pub(crate) port: i32,
    pub(crate) rack: Option<&'a str>,
}

/// A topic's partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataTopic<'a> {
    pub(crate) error_code: ErrorCode,
    /// Null in version 12 for a topic that was asked for by an unknown id.
    pub(crate) name: Option<&'a str>,
    /// Since version 10; zeros before.
    pub(crate) topic_id: Uuid,
    pub(crate) is_internal: bool,
    pub(crate) partitions: Vec<MetadataPartition>,
}

/// A partition's leader and replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataPartition {
    pub(crate) error_code: ErrorCode,
    pub(crate) partition_index: i32,
    /// -1 where there is none.
    pub(crate) leader_id: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) replica_nodes: Vec<i32>,
    pub(crate) isr_nodes: Vec<i32>,
    pub(crate) offline_replicas: Vec<i32>,
}

impl Request for MetadataRequest<'_> {
    const API_KEY: i16 = 3;
    const NAME: &'static str = "Metadata";
    const VERSIONS: &'static [i16] = &[7, 9, 12];
    const FLEXIBLE_FROM: i16 = 9;
    type Response<'a> = MetadataResponse<'a>;

    fn write(&self, version: i16, writer: &mut Writer<'_>) {
        writer.nullable_array(self.topics, |writer, name| {
            if version >= 10 {
                writer.uuid(&[0; 16]);
            }
            writer.string(name);
            writer.no_tags();
        });
        // No automatic creation, no operations that a client may do.
        writer.bool(false);
        if (8..=10).contains(&version) {
            writer.bool(false);
        }
        if version >= 8 {
            writer.bool(false);
        }
    }

    fn read<'a>(version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        let response = MetadataResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            brokers: reader.array("brokers", MetadataBroker::read)?,
            cluster_id: reader.nullable_str("cluster id")?,
            controller_id: reader.i32("controller id")?,
            topics: reader.array("topics", |reader| MetadataTopic::read(version, reader))?,
        };
        if (8..=10).contains(&version) {
            reader.i32("operations on the cluster")?;
        }
        Ok(response)
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

impl<'a> MetadataBroker<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let broker = Self {
            node_id: reader.i32("node id")?,
            host: reader.str("host")?,
            port: reader.i32("port")?,
            rack: reader.nullable_str("rack")?,
        };
        reader.skip_tags()?;
        Ok(broker)
    }
}

impl<'a> MetadataTopic<'a> {
    fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self> {
        let topic = Self {
            error_code: ErrorCode(reader.i16("error code of a topic")?),
            name: if version >= 12 {
                reader.nullable_str("topic name")?
            } else {
                Some(reader.str("topic name")?)
            },
            topic_id: if version >= 10 {
                reader.uuid("topic id")?
            } else {
                Uuid::default()
            },
            is_internal: reader.bool("whether a topic is internal")?,
            partitions: reader.array("partitions", MetadataPartition::read)?,
        };
        if version >= 8 {
            reader.i32("operations on a topic")?;
        }
        reader.skip_tags()?;
        Ok(topic)
    }
}

impl MetadataPartition {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let partition = Self {
            error_code: ErrorCode(reader.i16("error code of a partition")?),
            partition_index: reader.i32("partition")?,
            leader_id: reader.i32("leader id")?,
            leader_epoch: reader.i32("leader epoch")?,
            replica_nodes: reader.i32_array("replicas")?,
            isr_nodes: reader.i32_array("replicas in sync")?,
            offline_replicas: reader.i32_array("offline replicas")?,
        };
        reader.skip_tags()?;
        Ok(partition)
    }
}
