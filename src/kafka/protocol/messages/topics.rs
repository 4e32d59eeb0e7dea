//! Making, describing, trimming and deleting topics.

use super::{TopicPartitions, read_topics, write_topics};
use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// Creates topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateTopicsRequest<'r> {
    pub(crate) topics: Vec<CreatableTopic<'r>>,
    pub(crate) timeout_ms: i32,
    /// True only to learn whether the topics could be created.
    pub(crate) validate_only: bool,
}

/// A topic to create; the brokers assign its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreatableTopic<'r> {
    pub(crate) name: &'r str,
    /// -1 for the broker's default.
    pub(crate) num_partitions: i32,
    /// -1 for the broker's default.
    pub(crate) replication_factor: i16,
    /// Names and values of settings.
    pub(crate) configs: Vec<(&'r str, &'r str)>,
}

/// Answers [`CreateTopicsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateTopicsResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) topics: Vec<CreatableTopicResult<'a>>,
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreatableTopicResult<'a> {
    pub(crate) name: &'a str,
    pub(crate) error_code: ErrorCode,
    pub(crate) error_message: Option<&'a str>,
}

impl Request for CreateTopicsRequest<'_> {
    const API_KEY: i16 = 19;
    const NAME: &'static str = "CreateTopics";
    const VERSIONS: &'static [i16] = &[4, 5];
    const FLEXIBLE_FROM: i16 = 5;
    type Response<'a> = CreateTopicsResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.array(&self.topics, |writer, topic| {
            writer.string(topic.name);
            writer.i32(topic.num_partitions);
            writer.i16(topic.replication_factor);
            // No assignment of replicas.
            writer.array(&[], |_, (): &()| {});
            writer.array(&topic.configs, |writer, (name, value)| {
                writer.string(name);
                writer.nullable_string(Some(value));
                writer.no_tags();
            });
            writer.no_tags();
        });
        writer.i32(self.timeout_ms);
        writer.bool(self.validate_only);
    }

    fn read<'a>(version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(CreateTopicsResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            topics: reader.array("topics", |reader| {
                CreatableTopicResult::read(version, reader)
            })?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

impl<'a> CreatableTopicResult<'a> {
    fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self> {
        let topic = Self {
            name: reader.str("topic name")?,
            error_code: ErrorCode(reader.i16("error code")?),
            error_message: reader.nullable_str("error message")?,
        };
        if version >= 5 {
            reader.i32("count of partitions")?;
            reader.i16("replication factor")?;
            // DescribeConfigs tells the settings in every version.
            reader.nullable_array("settings", |reader| {
                reader.str("name of a setting")?;
                reader.nullable_str("value of a setting")?;
                reader.bool("whether a setting is read-only")?;
                reader.i8("source of a setting")?;
                reader.bool("whether a setting is sensitive")?;
                reader.skip_tags()
            })?;
        }
        reader.skip_tags()?;
        Ok(topic)
    }
}

/// The resource type of a topic.
pub(crate) const RESOURCE_TOPIC: i8 = 2;
/// The resource type of a broker.
pub(crate) const RESOURCE_BROKER: i8 = 4;

/// Asks for settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribeConfigsRequest<'r> {
    pub(crate) resources: Vec<DescribeConfigsResource<'r>>,
}

/// A resource whose settings are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribeConfigsResource<'r> {
    /// [`RESOURCE_TOPIC`] or [`RESOURCE_BROKER`].
    pub(crate) resource_type: i8,
    pub(crate) resource_name: &'r str,
    /// None for all.
    pub(crate) configuration_keys: Option<Vec<&'r str>>,
}

/// Answers [`DescribeConfigsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribeConfigsResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) results: Vec<DescribeConfigsResult<'a>>,
}

/// The settings of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribeConfigsResult<'a> {
    pub(crate) error_code: ErrorCode,
    pub(crate) error_message: Option<&'a str>,
    pub(crate) resource_type: i8,
    pub(crate) resource_name: &'a str,
    pub(crate) configs: Vec<DescribedConfig<'a>>,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedConfig<'a> {
    pub(crate) name: &'a str,
    /// Null where it is sensitive.
    pub(crate) value: Option<&'a str>,
    pub(crate) read_only: bool,
    /// 1 where the topic itself has it set, 5 for the default.
    pub(crate) config_source: i8,
    pub(crate) is_sensitive: bool,
}

impl Request for DescribeConfigsRequest<'_> {
    const API_KEY: i16 = 32;
    const NAME: &'static str = "DescribeConfigs";
    const VERSIONS: &'static [i16] = &[2, 4];
    const FLEXIBLE_FROM: i16 = 4;
    type Response<'a> = DescribeConfigsResponse<'a>;

    fn write(&self, version: i16, writer: &mut Writer<'_>) {
        writer.array(&self.resources, |writer, resource| {
            writer.i8(resource.resource_type);
            writer.string(resource.resource_name);
            writer.nullable_array(resource.configuration_keys.as_deref(), |writer, key| {
                writer.string(key);
            });
            writer.no_tags();
        });
        // Neither synonyms nor documentation.
        writer.bool(false);
        if version >= 3 {
            writer.bool(false);
        }
    }

    fn read<'a>(version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(DescribeConfigsResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            results: reader.array("results", |reader| {
                let result = DescribeConfigsResult {
                    error_code: ErrorCode(reader.i16("error code")?),
                    error_message: reader.nullable_str("error message")?,
                    resource_type: reader.i8("resource type")?,
                    resource_name: reader.str("resource name")?,
                    configs: reader
                        .array("settings", |reader| DescribedConfig::read(version, reader))?,
                };
                reader.skip_tags()?;
                Ok(result)
            })?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

impl<'a> DescribedConfig<'a> {
    fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self> {
        let config = Self {
            name: reader.str("name of a setting")?,
            value: reader.nullable_str("value of a setting")?,
            read_only: reader.bool("whether a setting is read-only")?,
            config_source: reader.i8("source of a setting")?,
            is_sensitive: reader.bool("whether a setting is sensitive")?,
        };
        reader.array("synonyms", |reader| {
            reader.str("name of a synonym")?;
            reader.nullable_str("value of a synonym")?;
            reader.i8("source of a synonym")?;
            reader.skip_tags()
        })?;
        if version >= 3 {
            reader.i8("type of a setting")?;
            reader.nullable_str("documentation of a setting")?;
        }
        reader.skip_tags()?;
        Ok(config)
    }
}

/// Deletes topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteTopicsRequest<'r> {
    pub(crate) topic_names: Vec<&'r str>,
    pub(crate) timeout_ms: i32,
}

/// Answers [`DeleteTopicsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteTopicsResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) responses: Vec<DeletableTopicResult<'a>>,
}

/// What became of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeletableTopicResult<'a> {
    pub(crate) name: &'a str,
    pub(crate) error_code: ErrorCode,
}

impl Request for DeleteTopicsRequest<'_> {
    const API_KEY: i16 = 20;
    const NAME: &'static str = "DeleteTopics";
    const VERSIONS: &'static [i16] = &[1, 4];
    const FLEXIBLE_FROM: i16 = 4;
    type Response<'a> = DeleteTopicsResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.array(&self.topic_names, |writer, name| writer.string(name));
        writer.i32(self.timeout_ms);
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(DeleteTopicsResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            responses: reader.array("topics", |reader| {
                let topic = DeletableTopicResult {
                    name: reader.str("topic name")?,
                    error_code: ErrorCode(reader.i16("error code")?),
                };
                reader.skip_tags()?;
                Ok(topic)
            })?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

/// Deletes the records below an offset in each of some partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteRecordsRequest<'r> {
    pub(crate) topics: Vec<TopicPartitions<'r, DeleteRecordsPartition>>,
    pub(crate) timeout_ms: i32,
}

/// Where one partition is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeleteRecordsPartition {
    pub(crate) partition_index: i32,
    /// -1 for the high watermark.
    pub(crate) offset: i64,
}

/// Answers [`DeleteRecordsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteRecordsResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) topics: Vec<TopicPartitions<'a, DeleteRecordsPartitionResult>>,
}

/// Where one partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeleteRecordsPartitionResult {
    pub(crate) partition_index: i32,
    pub(crate) low_watermark: i64,
    pub(crate) error_code: ErrorCode,
}

impl Request for DeleteRecordsRequest<'_> {
    const API_KEY: i16 = 21;
    const NAME: &'static str = "DeleteRecords";
    const VERSIONS: &'static [i16] = &[1, 2];
    const FLEXIBLE_FROM: i16 = 2;
    type Response<'a> = DeleteRecordsResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        write_topics(writer, &self.topics, |writer, partition| {
            writer.i32(partition.partition_index);
            writer.i64(partition.offset);
            writer.no_tags();
        });
        writer.i32(self.timeout_ms);
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(DeleteRecordsResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            topics: read_topics(reader, |reader| {
                let partition = DeleteRecordsPartitionResult {
                    partition_index: reader.i32("partition")?,
                    low_watermark: reader.i64("low watermark")?,
                    error_code: ErrorCode(reader.i16("error code")?),
                };
                reader.skip_tags()?;
                Ok(partition)
            })?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}
