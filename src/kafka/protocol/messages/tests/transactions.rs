//! Coordinators, producer ids and transactions.

use super::compare;
use crate::kafka::protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest,
};

mod find_coordinator {
    use kafka_protocol::messages::{self as theirs, BrokerId};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::FindCoordinatorRequest {
        theirs::FindCoordinatorRequest::default()
            .with_key(text(draw))
            .with_key_type(i8::from(draw.bool()))
    }

    pub(super) fn our_request(
        theirs: &theirs::FindCoordinatorRequest,
    ) -> ours::FindCoordinatorRequest<'_> {
        ours::FindCoordinatorRequest {
            key: &theirs.key,
            key_type: match theirs.key_type {
                0 => ours::CoordinatorType::Group,
                _ => ours::CoordinatorType::Transaction,
            },
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::FindCoordinatorResponse {
        theirs::FindCoordinatorResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_error_code(draw.i16())
            .with_error_message(draw.option(text))
            .with_node_id(BrokerId(draw.i32()))
            .with_host(text(draw))
            .with_port(draw.i32())
    }

    pub(super) fn our_response(
        theirs: &theirs::FindCoordinatorResponse,
    ) -> ours::FindCoordinatorResponse<'_> {
        ours::FindCoordinatorResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            error_code: ErrorCode(theirs.error_code),
            error_message: theirs.error_message.as_deref(),
            node_id: theirs.node_id.0,
            host: &theirs.host,
            port: theirs.port,
        }
    }
}

mod init_producer_id {
    use kafka_protocol::messages::{self as theirs, ProducerId, TransactionalId};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, version: i16) -> theirs::InitProducerIdRequest {
        let request = theirs::InitProducerIdRequest::default()
            .with_transactional_id(draw.option(text).map(TransactionalId))
            .with_transaction_timeout_ms(draw.i32());
        if version < 3 {
            return request;
        }
        request
            .with_producer_id(ProducerId(draw.i64()))
            .with_producer_epoch(draw.i16())
    }

    pub(super) fn our_request(
        theirs: &theirs::InitProducerIdRequest,
    ) -> ours::InitProducerIdRequest<'_> {
        ours::InitProducerIdRequest {
            transactional_id: theirs.transactional_id.as_ref().map(|id| id.as_str()),
            transaction_timeout_ms: theirs.transaction_timeout_ms,
            producer_id: theirs.producer_id.0,
            producer_epoch: theirs.producer_epoch,
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::InitProducerIdResponse {
        theirs::InitProducerIdResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_error_code(draw.i16())
            .with_producer_id(ProducerId(draw.i64()))
            .with_producer_epoch(draw.i16())
    }

    pub(super) fn our_response(
        theirs: &theirs::InitProducerIdResponse,
    ) -> ours::InitProducerIdResponse {
        ours::InitProducerIdResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            error_code: ErrorCode(theirs.error_code),
            producer_id: theirs.producer_id.0,
            producer_epoch: theirs.producer_epoch,
        }
    }
}

mod add_partitions_to_txn {
    use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
    use kafka_protocol::messages::add_partitions_to_txn_response as answer;
    use kafka_protocol::messages::{self as theirs, ProducerId, TopicName, TransactionalId};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::AddPartitionsToTxnRequest {
        theirs::AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(draw)))
            .with_v3_and_below_producer_id(ProducerId(draw.i64()))
            .with_v3_and_below_producer_epoch(draw.i16())
            .with_v3_and_below_topics(draw.list(|draw| {
                AddPartitionsToTxnTopic::default()
                    .with_name(TopicName(text(draw)))
                    .with_partitions(draw.list(Draw::i32))
            }))
    }

    pub(super) fn our_request(
        theirs: &theirs::AddPartitionsToTxnRequest,
    ) -> ours::AddPartitionsToTxnRequest<'_> {
        let topics = theirs.v3_and_below_topics.iter();
        ours::AddPartitionsToTxnRequest {
            transactional_id: theirs.v3_and_below_transactional_id.as_str(),
            producer_id: theirs.v3_and_below_producer_id.0,
            producer_epoch: theirs.v3_and_below_producer_epoch,
            topics: topics
                .map(|topic| ours::TopicPartitions {
                    name: topic.name.as_str(),
                    partitions: topic.partitions.clone(),
                })
                .collect(),
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::AddPartitionsToTxnResponse {
        theirs::AddPartitionsToTxnResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_results_by_topic_v3_and_below(draw.list(|draw| {
                answer::AddPartitionsToTxnTopicResult::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_name(TopicName(text(draw)))
                    .with_results_by_partition(draw.list(|draw| {
                        answer::AddPartitionsToTxnPartitionResult::default()
                            .with_unknown_tagged_fields(draw.tags())
                            .with_partition_index(draw.i32())
                            .with_partition_error_code(draw.i16())
                    }))
            }))
    }

    pub(super) fn our_response(
        theirs: &theirs::AddPartitionsToTxnResponse,
    ) -> ours::AddPartitionsToTxnResponse<'_> {
        let topics = theirs.results_by_topic_v3_and_below.iter();
        ours::AddPartitionsToTxnResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            results: topics
                .map(|topic| ours::TopicPartitions {
                    name: topic.name.as_str(),
                    partitions: (topic.results_by_partition.iter())
                        .map(|partition| ours::AddPartitionsToTxnResult {
                            partition_index: partition.partition_index,
                            error_code: ErrorCode(partition.partition_error_code),
                        })
                        .collect(),
                })
                .collect(),
        }
    }
}

mod end_txn {
    use kafka_protocol::messages::{self as theirs, ProducerId, TransactionalId};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::EndTxnRequest {
        theirs::EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(draw)))
            .with_producer_id(ProducerId(draw.i64()))
            .with_producer_epoch(draw.i16())
            .with_committed(draw.bool())
    }

    pub(super) fn our_request(theirs: &theirs::EndTxnRequest) -> ours::EndTxnRequest<'_> {
        ours::EndTxnRequest {
            transactional_id: theirs.transactional_id.as_str(),
            producer_id: theirs.producer_id.0,
            producer_epoch: theirs.producer_epoch,
            committed: theirs.committed,
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::EndTxnResponse {
        theirs::EndTxnResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_error_code(draw.i16())
    }

    pub(super) fn our_response(theirs: &theirs::EndTxnResponse) -> ours::EndTxnResponse {
        ours::EndTxnResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            error_code: ErrorCode(theirs.error_code),
        }
    }
}

compare!(find_coordinator, FindCoordinatorRequest<'_>);
compare!(init_producer_id, InitProducerIdRequest<'_>);
compare!(add_partitions_to_txn, AddPartitionsToTxnRequest<'_>);
compare!(end_txn, EndTxnRequest<'_>);
