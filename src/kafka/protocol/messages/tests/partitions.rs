//! What is asked of and told about partitions: appends, reads, offsets.

use super::compare;
use crate::kafka::protocol::messages::{
    FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest,
};

mod produce {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::produce_response as answer;
    use kafka_protocol::messages::{self as theirs, BrokerId, TopicName, TransactionalId};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::ProduceRequest {
        theirs::ProduceRequest::default()
            .with_transactional_id(draw.option(text).map(TransactionalId))
            .with_acks(draw.i16())
            .with_timeout_ms(draw.i32())
            .with_topic_data(draw.list(|draw| {
                TopicProduceData::default()
                    .with_name(TopicName(text(draw)))
                    .with_partition_data(draw.list(|draw| {
                        PartitionProduceData::default()
                            .with_index(draw.i32())
                            .with_records(Some(draw.bytes().into()))
                    }))
            }))
    }

    pub(super) fn our_request(theirs: &theirs::ProduceRequest) -> ours::ProduceRequest<'_> {
        let topics = theirs.topic_data.iter().map(|topic| ours::TopicPartitions {
            name: topic.name.as_str(),
            partitions: (topic.partition_data.iter())
                .map(|partition| ours::ProducePartition {
                    index: partition.index,
                    records: partition.records.as_ref().unwrap(),
                })
                .collect(),
        });
        ours::ProduceRequest {
            transactional_id: theirs.transactional_id.as_ref().map(|id| id.as_str()),
            acks: theirs.acks,
            timeout_ms: theirs.timeout_ms,
            topic_data: topics.collect(),
        }
    }

    pub(super) fn response(draw: &mut Draw, version: i16) -> theirs::ProduceResponse {
        theirs::ProduceResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_responses(draw.list(|draw| {
                answer::TopicProduceResponse::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_name(TopicName(text(draw)))
                    .with_partition_responses(draw.list(|draw| partition(draw, version)))
            }))
            .with_node_endpoints(if version >= 10 {
                draw.list(|draw| {
                    answer::NodeEndpoint::default()
                        .with_host(text(draw))
                        .with_rack(draw.option(text))
                })
            } else {
                Vec::new()
            })
    }

    fn partition(draw: &mut Draw, version: i16) -> answer::PartitionProduceResponse {
        let mut partition = answer::PartitionProduceResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_index(draw.i32())
            .with_error_code(draw.i16())
            .with_base_offset(draw.i64())
            .with_log_append_time_ms(draw.i64())
            .with_log_start_offset(draw.i64());
        if version >= 8 {
            partition.record_errors = draw.list(|draw| {
                answer::BatchIndexAndErrorMessage::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_batch_index(draw.i32())
                    .with_batch_index_error_message(draw.option(text))
            });
            partition.error_message = draw.option(text);
        }
        if version >= 10 && draw.bool() {
            partition.current_leader = answer::LeaderIdAndEpoch::default()
                .with_unknown_tagged_fields(draw.tags())
                .with_leader_id(BrokerId(draw.i32()))
                .with_leader_epoch(draw.i32());
        }
        partition
    }

    pub(super) fn our_response(theirs: &theirs::ProduceResponse) -> ours::ProduceResponse<'_> {
        let topics = theirs.responses.iter().map(|topic| ours::TopicPartitions {
            name: topic.name.as_str(),
            partitions: topic
                .partition_responses
                .iter()
                .map(our_partition)
                .collect(),
        });
        ours::ProduceResponse {
            responses: topics.collect(),
            throttle_time_ms: theirs.throttle_time_ms,
        }
    }

    fn our_partition(
        theirs: &answer::PartitionProduceResponse,
    ) -> ours::ProducePartitionResponse<'_> {
        let leader = &theirs.current_leader;
        let has_leader = *leader != answer::LeaderIdAndEpoch::default();
        let errors = theirs.record_errors.iter();
        ours::ProducePartitionResponse {
            index: theirs.index,
            error_code: ErrorCode(theirs.error_code),
            base_offset: theirs.base_offset,
            log_append_time_ms: theirs.log_append_time_ms,
            log_start_offset: theirs.log_start_offset,
            record_errors: errors
                .map(|error| ours::BatchIndexAndErrorMessage {
                    batch_index: error.batch_index,
                    batch_index_error_message: error.batch_index_error_message.as_deref(),
                })
                .collect(),
            error_message: theirs.error_message.as_deref(),
            current_leader: has_leader.then_some(ours::LeaderIdAndEpoch {
                leader_id: leader.leader_id.0,
                leader_epoch: leader.leader_epoch,
            }),
        }
    }
}

mod fetch {
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
    use kafka_protocol::messages::fetch_response as answer;
    use kafka_protocol::messages::{self as theirs, BrokerId, ProducerId, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::FetchRequest {
        theirs::FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(draw.i32())
            .with_min_bytes(draw.i32())
            .with_max_bytes(draw.i32())
            .with_isolation_level(i8::from(draw.bool()))
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(draw.list(|draw| {
                FetchTopic::default()
                    .with_topic(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        FetchPartition::default()
                            .with_partition(draw.i32())
                            .with_current_leader_epoch(draw.i32())
                            .with_fetch_offset(draw.i64())
                            .with_last_fetched_epoch(-1)
                            .with_log_start_offset(-1)
                            .with_partition_max_bytes(draw.i32())
                    }))
            }))
    }

    pub(super) fn our_request(theirs: &theirs::FetchRequest) -> ours::FetchRequest<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.topic.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::FetchPartition {
                    partition: partition.partition,
                    current_leader_epoch: partition.current_leader_epoch,
                    fetch_offset: partition.fetch_offset,
                    partition_max_bytes: partition.partition_max_bytes,
                })
                .collect(),
        });
        ours::FetchRequest {
            max_wait_ms: theirs.max_wait_ms,
            min_bytes: theirs.min_bytes,
            max_bytes: theirs.max_bytes,
            isolation_level: match theirs.isolation_level {
                0 => ours::IsolationLevel::ReadUncommitted,
                _ => ours::IsolationLevel::ReadCommitted,
            },
            topics: topics.collect(),
        }
    }

    pub(super) fn response(draw: &mut Draw, version: i16) -> theirs::FetchResponse {
        theirs::FetchResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_error_code(draw.i16())
            .with_session_id(draw.i32())
            .with_responses(draw.list(|draw| {
                answer::FetchableTopicResponse::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_topic(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| partition(draw, version)))
            }))
    }

    fn partition(draw: &mut Draw, version: i16) -> answer::PartitionData {
        let mut partition = answer::PartitionData::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_partition_index(draw.i32())
            .with_error_code(draw.i16())
            .with_high_watermark(draw.i64())
            .with_last_stable_offset(draw.i64())
            .with_log_start_offset(draw.i64())
            .with_preferred_read_replica(BrokerId(draw.i32()))
            .with_records(draw.option(|draw| draw.bytes().into()))
            .with_aborted_transactions(draw.option(|draw| {
                draw.list(|draw| {
                    answer::AbortedTransaction::default()
                        .with_unknown_tagged_fields(draw.tags())
                        .with_producer_id(ProducerId(draw.i64()))
                        .with_first_offset(draw.i64())
                })
            }));
        if version >= 12 && draw.bool() {
            partition.current_leader = answer::LeaderIdAndEpoch::default()
                .with_unknown_tagged_fields(draw.tags())
                .with_leader_id(BrokerId(draw.i32()))
                .with_leader_epoch(draw.i32());
            partition.diverging_epoch = answer::EpochEndOffset::default().with_epoch(draw.i32());
            partition.snapshot_id = answer::SnapshotId::default().with_epoch(draw.i32());
        }
        partition
    }

    pub(super) fn our_response(theirs: &theirs::FetchResponse) -> ours::FetchResponse<'_> {
        let topics = theirs.responses.iter().map(|topic| ours::TopicPartitions {
            name: topic.topic.as_str(),
            partitions: topic.partitions.iter().map(our_partition).collect(),
        });
        ours::FetchResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            error_code: ErrorCode(theirs.error_code),
            session_id: theirs.session_id,
            responses: topics.collect(),
        }
    }

    fn our_partition(theirs: &answer::PartitionData) -> ours::FetchPartitionResponse<'_> {
        let leader = &theirs.current_leader;
        let has_leader = *leader != answer::LeaderIdAndEpoch::default();
        let aborted = theirs.aborted_transactions.iter().flatten();
        ours::FetchPartitionResponse {
            partition_index: theirs.partition_index,
            error_code: ErrorCode(theirs.error_code),
            high_watermark: theirs.high_watermark,
            last_stable_offset: theirs.last_stable_offset,
            log_start_offset: theirs.log_start_offset,
            current_leader: has_leader.then_some(ours::LeaderIdAndEpoch {
                leader_id: leader.leader_id.0,
                leader_epoch: leader.leader_epoch,
            }),
            aborted_transactions: aborted
                .map(|transaction| ours::AbortedTransaction {
                    producer_id: transaction.producer_id.0,
                    first_offset: transaction.first_offset,
                })
                .collect(),
            preferred_read_replica: theirs.preferred_read_replica.0,
            records: theirs.records.as_deref().unwrap_or_default(),
        }
    }
}

mod list_offsets {
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use kafka_protocol::messages::list_offsets_response as answer;
    use kafka_protocol::messages::{self as theirs, BrokerId, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::ListOffsetsRequest {
        theirs::ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(i8::from(draw.bool()))
            .with_topics(draw.list(|draw| {
                ListOffsetsTopic::default()
                    .with_name(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        ListOffsetsPartition::default()
                            .with_partition_index(draw.i32())
                            .with_current_leader_epoch(draw.i32())
                            .with_timestamp(draw.i64())
                    }))
            }))
    }

    pub(super) fn our_request(theirs: &theirs::ListOffsetsRequest) -> ours::ListOffsetsRequest<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.name.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::ListOffsetsPartition {
                    partition_index: partition.partition_index,
                    current_leader_epoch: partition.current_leader_epoch,
                    timestamp: partition.timestamp,
                })
                .collect(),
        });
        ours::ListOffsetsRequest {
            isolation_level: match theirs.isolation_level {
                0 => ours::IsolationLevel::ReadUncommitted,
                _ => ours::IsolationLevel::ReadCommitted,
            },
            topics: topics.collect(),
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::ListOffsetsResponse {
        theirs::ListOffsetsResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_topics(draw.list(|draw| {
                answer::ListOffsetsTopicResponse::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_name(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        answer::ListOffsetsPartitionResponse::default()
                            .with_unknown_tagged_fields(draw.tags())
                            .with_partition_index(draw.i32())
                            .with_error_code(draw.i16())
                            .with_timestamp(draw.i64())
                            .with_offset(draw.i64())
                            .with_leader_epoch(draw.i32())
                    }))
            }))
    }

    pub(super) fn our_response(
        theirs: &theirs::ListOffsetsResponse,
    ) -> ours::ListOffsetsResponse<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.name.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    error_code: ErrorCode(partition.error_code),
                    timestamp: partition.timestamp,
                    offset: partition.offset,
                    leader_epoch: partition.leader_epoch,
                })
                .collect(),
        });
        ours::ListOffsetsResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            topics: topics.collect(),
        }
    }
}

mod offset_for_leader_epoch {
    use kafka_protocol::messages::offset_for_leader_epoch_request as question;
    use kafka_protocol::messages::offset_for_leader_epoch_response as answer;
    use kafka_protocol::messages::{self as theirs, BrokerId, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::OffsetForLeaderEpochRequest {
        theirs::OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(draw.list(|draw| {
                question::OffsetForLeaderTopic::default()
                    .with_topic(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        question::OffsetForLeaderPartition::default()
                            .with_partition(draw.i32())
                            .with_current_leader_epoch(draw.i32())
                            .with_leader_epoch(draw.i32())
                    }))
            }))
    }

    pub(super) fn our_request(
        theirs: &theirs::OffsetForLeaderEpochRequest,
    ) -> ours::OffsetForLeaderEpochRequest<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.topic.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::OffsetForLeaderPartition {
                    partition: partition.partition,
                    current_leader_epoch: partition.current_leader_epoch,
                    leader_epoch: partition.leader_epoch,
                })
                .collect(),
        });
        ours::OffsetForLeaderEpochRequest {
            topics: topics.collect(),
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::OffsetForLeaderEpochResponse {
        theirs::OffsetForLeaderEpochResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_topics(draw.list(|draw| {
                answer::OffsetForLeaderTopicResult::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_topic(TopicName(text(draw)))
                    .with_partitions(draw.list(|draw| {
                        answer::EpochEndOffset::default()
                            .with_unknown_tagged_fields(draw.tags())
                            .with_error_code(draw.i16())
                            .with_partition(draw.i32())
                            .with_leader_epoch(draw.i32())
                            .with_end_offset(draw.i64())
                    }))
            }))
    }

    pub(super) fn our_response(
        theirs: &theirs::OffsetForLeaderEpochResponse,
    ) -> ours::OffsetForLeaderEpochResponse<'_> {
        let topics = theirs.topics.iter().map(|topic| ours::TopicPartitions {
            name: topic.topic.as_str(),
            partitions: (topic.partitions.iter())
                .map(|partition| ours::EpochEndOffset {
                    error_code: ErrorCode(partition.error_code),
                    partition: partition.partition,
                    leader_epoch: partition.leader_epoch,
                    end_offset: partition.end_offset,
                })
                .collect(),
        });
        ours::OffsetForLeaderEpochResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            topics: topics.collect(),
        }
    }
}

compare!(produce, ProduceRequest<'_>);
compare!(fetch, FetchRequest<'_>);
compare!(list_offsets, ListOffsetsRequest<'_>);
compare!(offset_for_leader_epoch, OffsetForLeaderEpochRequest<'_>);
