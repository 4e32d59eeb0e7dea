//! Making, describing, trimming and deleting topics.

use super::compare;
use crate::kafka::protocol::messages::{
    CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
};

mod create_topics {
    use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
    use kafka_protocol::messages::create_topics_response as answer;
    use kafka_protocol::messages::{self as theirs, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::CreateTopicsRequest {
        theirs::CreateTopicsRequest::default()
            .with_timeout_ms(draw.i32())
            .with_validate_only(draw.bool())
            .with_topics(draw.list(|draw| {
                CreatableTopic::default()
                    .with_name(TopicName(text(draw)))
                    .with_num_partitions(draw.i32())
                    .with_replication_factor(draw.i16())
                    .with_configs(draw.list(|draw| {
                        CreatableTopicConfig::default()
                            .with_name(text(draw))
                            .with_value(Some(text(draw)))
                    }))
            }))
    }

    pub(super) fn our_request(
        theirs: &theirs::CreateTopicsRequest,
    ) -> ours::CreateTopicsRequest<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::CreatableTopic {
            name: topic.name.as_str(),
            num_partitions: topic.num_partitions,
            replication_factor: topic.replication_factor,
            configs: (topic.configs.iter())
                .map(|config| (&*config.name, config.value.as_deref().unwrap()))
                .collect(),
        });
        ours::CreateTopicsRequest {
            topics: topics.collect(),
            timeout_ms: theirs.timeout_ms,
            validate_only: theirs.validate_only,
        }
    }

    pub(super) fn response(draw: &mut Draw, version: i16) -> theirs::CreateTopicsResponse {
        theirs::CreateTopicsResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_topics(draw.list(|draw| topic(draw, version)))
    }

    fn topic(draw: &mut Draw, version: i16) -> answer::CreatableTopicResult {
        let mut topic = answer::CreatableTopicResult::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_name(TopicName(text(draw)))
            .with_error_code(draw.i16())
            .with_error_message(draw.option(text));
        if version >= 5 {
            topic.topic_config_error_code = draw.i16();
            topic.num_partitions = draw.i32();
            topic.replication_factor = draw.i16();
            topic.configs = draw.option(|draw| {
                draw.list(|draw| {
                    answer::CreatableTopicConfigs::default()
                        .with_unknown_tagged_fields(draw.tags())
                        .with_name(text(draw))
                        .with_value(draw.option(text))
                        .with_read_only(draw.bool())
                        .with_config_source(draw.i8())
                        .with_is_sensitive(draw.bool())
                })
            });
        }
        topic
    }

    pub(super) fn our_response(
        theirs: &theirs::CreateTopicsResponse,
    ) -> ours::CreateTopicsResponse<'_> {
        let topics = theirs
            .topics
            .iter()
            .map(|topic| ours::CreatableTopicResult {
                name: topic.name.as_str(),
                error_code: ErrorCode(topic.error_code),
                error_message: topic.error_message.as_deref(),
            });
        ours::CreateTopicsResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            topics: topics.collect(),
        }
    }
}

mod describe_configs {
    use kafka_protocol::messages as theirs;
    use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
    use kafka_protocol::messages::describe_configs_response as answer;

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::DescribeConfigsRequest {
        theirs::DescribeConfigsRequest::default().with_resources(draw.list(|draw| {
            DescribeConfigsResource::default()
                .with_resource_type(draw.i8())
                .with_resource_name(text(draw))
                .with_configuration_keys(draw.option(|draw| draw.list(text)))
        }))
    }

    pub(super) fn our_request(
        theirs: &theirs::DescribeConfigsRequest,
    ) -> ours::DescribeConfigsRequest<'_> {
        let resources = theirs.resources.iter();
        ours::DescribeConfigsRequest {
            resources: resources
                .map(|resource| ours::DescribeConfigsResource {
                    resource_type: resource.resource_type,
                    resource_name: &resource.resource_name,
                    configuration_keys: (resource.configuration_keys.as_ref()).map(|keys| {
                        keys.iter()
                            .map(kafka_protocol::protocol::StrBytes::as_str)
                            .collect()
                    }),
                })
                .collect(),
        }
    }

    pub(super) fn response(draw: &mut Draw, version: i16) -> theirs::DescribeConfigsResponse {
        theirs::DescribeConfigsResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_results(draw.list(|draw| {
                answer::DescribeConfigsResult::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_error_code(draw.i16())
                    .with_error_message(draw.option(text))
                    .with_resource_type(draw.i8())
                    .with_resource_name(text(draw))
                    .with_configs(draw.list(|draw| config(draw, version)))
            }))
    }

    fn config(draw: &mut Draw, version: i16) -> answer::DescribeConfigsResourceResult {
        let config = answer::DescribeConfigsResourceResult::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_name(text(draw))
            .with_value(draw.option(text))
            .with_read_only(draw.bool())
            .with_config_source(draw.i8())
            .with_is_sensitive(draw.bool())
            .with_synonyms(draw.list(|draw| {
                answer::DescribeConfigsSynonym::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_name(text(draw))
                    .with_value(draw.option(text))
                    .with_source(draw.i8())
            }));
        if version < 3 {
            return config;
        }
        config
            .with_config_type(draw.i8())
            .with_documentation(draw.option(text))
    }

    pub(super) fn our_response(
        theirs: &theirs::DescribeConfigsResponse,
    ) -> ours::DescribeConfigsResponse<'_> {
        let results = theirs
            .results
            .iter()
            .map(|result| ours::DescribeConfigsResult {
                error_code: ErrorCode(result.error_code),
                error_message: result.error_message.as_deref(),
                resource_type: result.resource_type,
                resource_name: &result.resource_name,
                configs: (result.configs.iter())
                    .map(|config| ours::DescribedConfig {
                        name: &config.name,
                        value: config.value.as_deref(),
                        read_only: config.read_only,
                        config_source: config.config_source,
                        is_sensitive: config.is_sensitive,
                    })
                    .collect(),
            });
        ours::DescribeConfigsResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            results: results.collect(),
        }
    }
}

mod delete_topics {
    use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
    use kafka_protocol::messages::{self as theirs, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::DeleteTopicsRequest {
        theirs::DeleteTopicsRequest::default()
            .with_topic_names(draw.list(|draw| TopicName(text(draw))))
            .with_timeout_ms(draw.i32())
    }

    pub(super) fn our_request(
        theirs: &theirs::DeleteTopicsRequest,
    ) -> ours::DeleteTopicsRequest<'_> {
        ours::DeleteTopicsRequest {
            topic_names: theirs
                .topic_names
                .iter()
                .map(|name| name.as_str())
                .collect(),
            timeout_ms: theirs.timeout_ms,
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::DeleteTopicsResponse {
        theirs::DeleteTopicsResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_responses(draw.list(|draw| {
                DeletableTopicResult::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_name(Some(TopicName(text(draw))))
                    .with_error_code(draw.i16())
            }))
    }

    pub(super) fn our_response(
        theirs: &theirs::DeleteTopicsResponse,
    ) -> ours::DeleteTopicsResponse<'_> {
        let topics = theirs
            .responses
            .iter()
            .map(|topic| ours::DeletableTopicResult {
                name: topic.name.as_ref().unwrap().as_str(),
                error_code: ErrorCode(topic.error_code),
            });
        ours::DeleteTopicsResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            responses: topics.collect(),
        }
    }
}

mod delete_records {
    use kafka_protocol::messages::delete_records_request as question;
    use kafka_protocol::messages::delete_records_response as answer;
    use kafka_protocol::messages::{self as theirs, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::DeleteRecordsRequest {
        theirs::DeleteRecordsRequest::default()
            .with_timeout_ms(draw.i32())
            .with_topics(draw.list(|draw| {
                question::DeleteRecordsTopic::default()
                    .with_name(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        question::DeleteRecordsPartition::default()
                            .with_partition_index(draw.i32())
                            .with_offset(draw.i64())
                    }))
            }))
    }

    pub(super) fn our_request(
        theirs: &theirs::DeleteRecordsRequest,
    ) -> ours::DeleteRecordsRequest<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.name.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::DeleteRecordsPartition {
                    partition_index: partition.partition_index,
                    offset: partition.offset,
                })
                .collect(),
        });
        ours::DeleteRecordsRequest {
            topics: topics.collect(),
            timeout_ms: theirs.timeout_ms,
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::DeleteRecordsResponse {
        theirs::DeleteRecordsResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_topics(draw.list(|draw| {
                answer::DeleteRecordsTopicResult::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_name(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        answer::DeleteRecordsPartitionResult::default()
                            .with_unknown_tagged_fields(draw.tags())
                            .with_partition_index(draw.i32())
                            .with_low_watermark(draw.i64())
                            .with_error_code(draw.i16())
                    }))
            }))
    }

    pub(super) fn our_response(
        theirs: &theirs::DeleteRecordsResponse,
    ) -> ours::DeleteRecordsResponse<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.name.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::DeleteRecordsPartitionResult {
                    partition_index: partition.partition_index,
                    low_watermark: partition.low_watermark,
                    error_code: ErrorCode(partition.error_code),
                })
                .collect(),
        });
        ours::DeleteRecordsResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            topics: topics.collect(),
        }
    }
}

compare!(create_topics, CreateTopicsRequest<'_>);
compare!(describe_configs, DescribeConfigsRequest<'_>);
compare!(delete_topics, DeleteTopicsRequest<'_>);
compare!(delete_records, DeleteRecordsRequest<'_>);
