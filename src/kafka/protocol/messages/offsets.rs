//! Where partitions and leader epochs begin and end.

use super::{IsolationLevel, TopicPartitions, read_topics, write_topics};
use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// The timestamp that asks for the end of a partition.
pub(crate) const LATEST_TIMESTAMP: i64 = -1;
/// The timestamp that asks for the start of a partition.
pub(crate) const EARLIEST_TIMESTAMP: i64 = -2;

/// Asks for offsets by timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListOffsetsRequest<'r> {
    pub(crate) isolation_level: IsolationLevel,
    pub(crate) topics: Vec<TopicPartitions<'r, ListOffsetsPartition>>,
}

/// What is asked of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListOffsetsPartition {
    pub(crate) partition_index: i32,
    pub(crate) current_leader_epoch: i32,
    /// [`EARLIEST_TIMESTAMP`], [`LATEST_TIMESTAMP`], or milliseconds since 1970.
    pub(crate) timestamp: i64,
}

/// Answers [`ListOffsetsRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListOffsetsResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) topics: Vec<TopicPartitions<'a, ListOffsetsPartitionResponse>>,
}

/// The offset in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListOffsetsPartitionResponse {
    pub(crate) partition_index: i32,
    pub(crate) error_code: ErrorCode,
    /// -1 for the start and the end.
    pub(crate) timestamp: i64,
    /// -1 where no record is as new as the timestamp, and after an error.
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
}

impl Request for ListOffsetsRequest<'_> {
    const API_KEY: i16 = 2;
    const NAME: &'static str = "ListOffsets";
    const VERSIONS: &'static [i16] = &[4, 6];
    const FLEXIBLE_FROM: i16 = 6;
    type Response<'a> = ListOffsetsResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        // A client's replica id.
        writer.i32(-1);
        writer.i8(self.isolation_level as i8);
        write_topics(writer, &self.topics, |writer, partition| {
            writer.i32(partition.partition_index);
            writer.i32(partition.current_leader_epoch);
            writer.i64(partition.timestamp);
            writer.no_tags();
        });
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(ListOffsetsResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            topics: read_topics(reader, |reader| {
                let partition = ListOffsetsPartitionResponse {
                    partition_index: reader.i32("partition")?,
                    error_code: ErrorCode(reader.i16("error code")?),
                    timestamp: reader.i64("timestamp")?,
                    offset: reader.i64("offset")?,
                    leader_epoch: reader.i32("leader epoch")?,
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

/// Asks where leader epochs end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetForLeaderEpochRequest<'r> {
    pub(crate) topics: Vec<TopicPartitions<'r, OffsetForLeaderPartition>>,
}

/// The epoch that is asked for in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetForLeaderPartition {
    pub(crate) partition: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) leader_epoch: i32,
}

/// Answers [`OffsetForLeaderEpochRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetForLeaderEpochResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) topics: Vec<TopicPartitions<'a, EpochEndOffset>>,
}

/// Where the epoch ends in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochEndOffset {
    pub(crate) error_code: ErrorCode,
    pub(crate) partition: i32,
    /// The largest epoch that is not above the one asked for, or -1.
    pub(crate) leader_epoch: i32,
    /// The offset behind the last record of that epoch, or -1.
    pub(crate) end_offset: i64,
}

impl Request for OffsetForLeaderEpochRequest<'_> {
    const API_KEY: i16 = 23;
    const NAME: &'static str = "OffsetForLeaderEpoch";
    const VERSIONS: &'static [i16] = &[3, 4];
    const FLEXIBLE_FROM: i16 = 4;
    type Response<'a> = OffsetForLeaderEpochResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        // A client's replica id.
        writer.i32(-1);
        write_topics(writer, &self.topics, |writer, partition| {
            writer.i32(partition.partition);
            writer.i32(partition.current_leader_epoch);
            writer.i32(partition.leader_epoch);
            writer.no_tags();
        });
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(OffsetForLeaderEpochResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            topics: read_topics(reader, |reader| {
                let partition = EpochEndOffset {
                    error_code: ErrorCode(reader.i16("error code")?),
                    partition: reader.i32("partition")?,
                    leader_epoch: reader.i32("leader epoch")?,
                    end_offset: reader.i64("end offset")?,
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
