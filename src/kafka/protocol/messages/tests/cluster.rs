//! Versions, metadata, logging in.

use super::compare;
use crate::kafka::protocol::messages::{
    ApiVersionsRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};

mod api_versions {
    use kafka_protocol::messages as theirs;
    use kafka_protocol::messages::api_versions_response as answer;

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, version: i16) -> theirs::ApiVersionsRequest {
        let request = theirs::ApiVersionsRequest::default();
        if version < 3 {
            return request;
        }
        request
            .with_client_software_name(text(draw))
            .with_client_software_version(text(draw))
    }

    pub(super) fn our_request(theirs: &theirs::ApiVersionsRequest) -> ours::ApiVersionsRequest<'_> {
        ours::ApiVersionsRequest {
            client_software_name: &theirs.client_software_name,
            client_software_version: &theirs.client_software_version,
        }
    }

    pub(super) fn response(draw: &mut Draw, version: i16) -> theirs::ApiVersionsResponse {
        // The one that is not followed by the rest has a test of its own.
        let error_code = Some(draw.i16()).filter(|code| *code != 35);
        let mut response = theirs::ApiVersionsResponse::default()
            .with_error_code(error_code.unwrap_or_default())
            .with_api_keys(draw.list(|draw| {
                answer::ApiVersion::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_api_key(draw.i16())
                    .with_min_version(draw.i16())
                    .with_max_version(draw.i16())
            }));
        if version >= 3 {
            response.unknown_tagged_fields = draw.tags();
            response.throttle_time_ms = draw.i32();
            response.zk_migration_ready = draw.bool();
            response.finalized_features_epoch = draw.i64();
            response.supported_features =
                draw.list(|draw| answer::SupportedFeatureKey::default().with_name(text(draw)));
            response.finalized_features =
                draw.list(|draw| answer::FinalizedFeatureKey::default().with_name(text(draw)));
        }
        response
    }

    pub(super) fn our_response(theirs: &theirs::ApiVersionsResponse) -> ours::ApiVersionsResponse {
        let apis = theirs.api_keys.iter().map(|api| ours::ApiVersion {
            api_key: api.api_key,
            min_version: api.min_version,
            max_version: api.max_version,
        });
        ours::ApiVersionsResponse {
            error_code: ErrorCode(theirs.error_code),
            api_keys: apis.collect(),
            throttle_time_ms: theirs.throttle_time_ms,
        }
    }
}

mod metadata {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::metadata_response as answer;
    use kafka_protocol::messages::{self as theirs, BrokerId, TopicName};

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::MetadataRequest {
        theirs::MetadataRequest::default()
            .with_allow_auto_topic_creation(false)
            .with_topics(draw.option(|draw| {
                draw.list(|draw| {
                    MetadataRequestTopic::default().with_name(Some(TopicName(text(draw))))
                })
            }))
    }

    pub(super) fn names(theirs: &theirs::MetadataRequest) -> Option<Vec<&str>> {
        theirs.topics.as_ref().map(|topics| {
            let names = topics.iter().map(|topic| topic.name.as_ref().unwrap());
            names.map(|name| name.as_str()).collect()
        })
    }

    pub(super) fn response(draw: &mut Draw, version: i16) -> theirs::MetadataResponse {
        let response = theirs::MetadataResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_throttle_time_ms(draw.i32())
            .with_brokers(draw.list(|draw| {
                answer::MetadataResponseBroker::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_node_id(BrokerId(draw.i32()))
                    .with_host(text(draw))
                    .with_port(draw.i32())
                    .with_rack(draw.option(text))
            }))
            .with_cluster_id(draw.option(text))
            .with_controller_id(BrokerId(draw.i32()))
            .with_topics(draw.list(|draw| topic(draw, version)));
        if (8..=10).contains(&version) {
            return response.with_cluster_authorized_operations(draw.i32());
        }
        response
    }

    fn topic(draw: &mut Draw, version: i16) -> answer::MetadataResponseTopic {
        let has_name = version < 12 || draw.bool();
        let mut topic = answer::MetadataResponseTopic::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_error_code(draw.i16())
            .with_name(has_name.then(|| TopicName(text(draw))))
            .with_is_internal(draw.bool())
            .with_partitions(draw.list(|draw| {
                let nodes = |draw: &mut Draw| draw.list(|draw| BrokerId(draw.i32()));
                answer::MetadataResponsePartition::default()
                    .with_unknown_tagged_fields(draw.tags())
                    .with_error_code(draw.i16())
                    .with_partition_index(draw.i32())
                    .with_leader_id(BrokerId(draw.i32()))
                    .with_leader_epoch(draw.i32())
                    .with_replica_nodes(nodes(draw))
                    .with_isr_nodes(nodes(draw))
                    .with_offline_replicas(nodes(draw))
            }));
        if version >= 8 {
            topic.topic_authorized_operations = draw.i32();
        }
        if version >= 10 {
            let id = format!("{:016x}{:016x}", draw.next(), draw.next());
            topic.topic_id = id.parse().unwrap();
        }
        topic
    }

    pub(super) fn our_response(theirs: &theirs::MetadataResponse) -> ours::MetadataResponse<'_> {
        let brokers = theirs.brokers.iter().map(|broker| ours::MetadataBroker {
            node_id: broker.node_id.0,
            host: &broker.host,
            port: broker.port,
            rack: broker.rack.as_deref(),
        });
        ours::MetadataResponse {
            throttle_time_ms: theirs.throttle_time_ms,
            brokers: brokers.collect(),
            cluster_id: theirs.cluster_id.as_deref(),
            controller_id: theirs.controller_id.0,
            topics: theirs.topics.iter().map(our_topic).collect(),
        }
    }

    fn our_topic(theirs: &answer::MetadataResponseTopic) -> ours::MetadataTopic<'_> {
        let nodes = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect();
        ours::MetadataTopic {
            error_code: ErrorCode(theirs.error_code),
            name: theirs.name.as_ref().map(|name| name.as_str()),
            topic_id: *theirs.topic_id.as_bytes(),
            is_internal: theirs.is_internal,
            partitions: (theirs.partitions.iter())
                .map(|partition| ours::MetadataPartition {
                    error_code: ErrorCode(partition.error_code),
                    partition_index: partition.partition_index,
                    leader_id: partition.leader_id.0,
                    leader_epoch: partition.leader_epoch,
                    replica_nodes: nodes(&partition.replica_nodes),
                    isr_nodes: nodes(&partition.isr_nodes),
                    offline_replicas: nodes(&partition.offline_replicas),
                })
                .collect(),
        }
    }
}

mod sasl_handshake {
    use kafka_protocol::messages as theirs;

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::SaslHandshakeRequest {
        theirs::SaslHandshakeRequest::default().with_mechanism(text(draw))
    }

    pub(super) fn our_request(
        theirs: &theirs::SaslHandshakeRequest,
    ) -> ours::SaslHandshakeRequest<'_> {
        ours::SaslHandshakeRequest {
            mechanism: &theirs.mechanism,
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::SaslHandshakeResponse {
        theirs::SaslHandshakeResponse::default()
            .with_error_code(draw.i16())
            .with_mechanisms(draw.list(text))
    }

    pub(super) fn our_response(
        theirs: &theirs::SaslHandshakeResponse,
    ) -> ours::SaslHandshakeResponse<'_> {
        ours::SaslHandshakeResponse {
            error_code: ErrorCode(theirs.error_code),
            mechanisms: theirs
                .mechanisms
                .iter()
                .map(kafka_protocol::protocol::StrBytes::as_str)
                .collect(),
        }
    }
}

mod sasl_authenticate {
    use kafka_protocol::messages as theirs;

    use super::super::{Draw, ErrorCode, text};
    use crate::kafka::protocol::messages as ours;

    pub(super) fn request(draw: &mut Draw, _version: i16) -> theirs::SaslAuthenticateRequest {
        theirs::SaslAuthenticateRequest::default().with_auth_bytes(draw.bytes().into())
    }

    pub(super) fn our_request(
        theirs: &theirs::SaslAuthenticateRequest,
    ) -> ours::SaslAuthenticateRequest<'_> {
        ours::SaslAuthenticateRequest {
            auth_bytes: &theirs.auth_bytes,
        }
    }

    pub(super) fn response(draw: &mut Draw, _version: i16) -> theirs::SaslAuthenticateResponse {
        theirs::SaslAuthenticateResponse::default()
            .with_unknown_tagged_fields(draw.tags())
            .with_error_code(draw.i16())
            .with_error_message(draw.option(text))
            .with_auth_bytes(draw.bytes().into())
            .with_session_lifetime_ms(draw.i64())
    }

    pub(super) fn our_response(
        theirs: &theirs::SaslAuthenticateResponse,
    ) -> ours::SaslAuthenticateResponse<'_> {
        ours::SaslAuthenticateResponse {
            error_code: ErrorCode(theirs.error_code),
            error_message: theirs.error_message.as_deref(),
            auth_bytes: &theirs.auth_bytes,
            session_lifetime_ms: theirs.session_lifetime_ms,
        }
    }
}

compare!(api_versions, ApiVersionsRequest<'_>);
compare!(sasl_handshake, SaslHandshakeRequest<'_>);
compare!(sasl_authenticate, SaslAuthenticateRequest<'_>);

/// Like what `compare` makes, but for the names that a request of metadata borrows.
#[test]
fn metadata() {
    use super::{compare_request, damage, decode_frame, every_version, frame};
    use crate::kafka::protocol::messages::MetadataRequest;
    every_version::<MetadataRequest<'_>>(|version, draw| {
        let theirs = metadata::request(draw, version);
        let names = metadata::names(&theirs);
        let topics = names.as_deref();
        compare_request(&MetadataRequest { topics }, &theirs, version, draw);

        let theirs = metadata::response(draw, version);
        let id = draw.i32();
        let frame = frame(&theirs, version, id, draw);
        let (found_id, found) = decode_frame::<MetadataRequest<'_>>(version, &frame).unwrap();
        let expected = metadata::our_response(&theirs);
        assert_eq!((found_id, &found), (id, &expected), "version {version}");
        damage::<MetadataRequest<'_>>(version, &frame, draw);
    });
}
