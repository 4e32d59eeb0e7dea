//! Producer ids and transactions.

use super::{TopicPartitions, read_topics, write_topics};
use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// What a coordinator coordinates. The numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum CoordinatorType {
    /// A consumer group.
    Group = 0,
    /// The transactions of a transactional id.
    Transaction = 1,
}

/// Asks who coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FindCoordinatorRequest<'r> {
    pub(crate) key: &'r str,
    pub(crate) key_type: CoordinatorType,
}

/// Answers [`FindCoordinatorRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FindCoordinatorResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: ErrorCode,
    pub(crate) error_message: Option<&'a str>,
    pub(crate) node_id: i32,
    pub(crate) host: &'a str,
    pub(crate) port: i32,
}

impl Request for FindCoordinatorRequest<'_> {
    const API_KEY: i16 = 10;
    const NAME: &'static str = "FindCoordinator";
    const VERSIONS: &'static [i16] = &[2, 3];
    const FLEXIBLE_FROM: i16 = 3;
    type Response<'a> = FindCoordinatorResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.string(self.key);
        writer.i8(self.key_type as i8);
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(FindCoordinatorResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error_code: ErrorCode(reader.i16("error code")?),
            error_message: reader.nullable_str("error message")?,
            node_id: reader.i32("node id")?,
            host: reader.str("host")?,
            port: reader.i32("port")?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

/// Asks for a producer id, or for its next epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitProducerIdRequest<'r> {
    pub(crate) transactional_id: Option<&'r str>,
    pub(crate) transaction_timeout_ms: i32,
    /// The id to go on with, or -1; since version 3.
    pub(crate) producer_id: i64,
    /// The epoch to go on with, or -1; since version 3.
    pub(crate) producer_epoch: i16,
}

/// Answers [`InitProducerIdRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InitProducerIdResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: ErrorCode,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
}

impl Request for InitProducerIdRequest<'_> {
    const API_KEY: i16 = 22;
    const NAME: &'static str = "InitProducerId";
    const VERSIONS: &'static [i16] = &[1, 4];
    const FLEXIBLE_FROM: i16 = 2;
    type Response<'a> = InitProducerIdResponse;

    fn write(&self, version: i16, writer: &mut Writer<'_>) {
        writer.nullable_string(self.transactional_id);
        writer.i32(self.transaction_timeout_ms);
        if version >= 3 {
            writer.i64(self.producer_id);
            writer.i16(self.producer_epoch);
        }
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(InitProducerIdResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error_code: ErrorCode(reader.i16("error code")?),
            producer_id: reader.i64("producer id")?,
            producer_epoch: reader.i16("producer epoch")?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

/// Adds partitions to the open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddPartitionsToTxnRequest<'r> {
    pub(crate) transactional_id: &'r str,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) topics: Vec<TopicPartitions<'r, i32>>,
}

/// Answers [`AddPartitionsToTxnRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddPartitionsToTxnResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) results: Vec<TopicPartitions<'a, AddPartitionsToTxnResult>>,
}

/// Whether one partition was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AddPartitionsToTxnResult {
    pub(crate) partition_index: i32,
    pub(crate) error_code: ErrorCode,
}

impl Request for AddPartitionsToTxnRequest<'_> {
    const API_KEY: i16 = 24;
    const NAME: &'static str = "AddPartitionsToTxn";
    const VERSIONS: &'static [i16] = &[0, 1, 3];
    const FLEXIBLE_FROM: i16 = 3;
    type Response<'a> = AddPartitionsToTxnResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.string(self.transactional_id);
        writer.i64(self.producer_id);
        writer.i16(self.producer_epoch);
        write_topics(writer, &self.topics, |writer, partition| {
            writer.i32(*partition);
        });
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(AddPartitionsToTxnResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            results: read_topics(reader, |reader| {
                let result = AddPartitionsToTxnResult {
                    partition_index: reader.i32("partition")?,
                    error_code: ErrorCode(reader.i16("error code")?),
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

/// Commits or aborts the open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndTxnRequest<'r> {
    pub(crate) transactional_id: &'r str,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    /// True to commit, false to abort.
    pub(crate) committed: bool,
}

/// Answers [`EndTxnRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndTxnResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: ErrorCode,
}

impl Request for EndTxnRequest<'_> {
    const API_KEY: i16 = 26;
    const NAME: &'static str = "EndTxn";
    const VERSIONS: &'static [i16] = &[1, 3, 4];
    const FLEXIBLE_FROM: i16 = 3;
    type Response<'a> = EndTxnResponse;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.string(self.transactional_id);
        writer.i64(self.producer_id);
        writer.i16(self.producer_epoch);
        writer.bool(self.committed);
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(EndTxnResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error_code: ErrorCode(reader.i16("error code")?),
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}
