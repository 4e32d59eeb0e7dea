//! Reading record batches.

use super::{LeaderIdAndEpoch, TopicPartitions, read_topics, write_topics};
use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// Which records a reader gets to see. The numbers are the protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum IsolationLevel {
    /// Everything.
    ReadUncommitted = 0,
    /// Nothing from the first open transaction on.
    ReadCommitted = 1,
}

/// Reads partitions without a fetch session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchRequest<'r> {
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) isolation_level: IsolationLevel,
    pub(crate) topics: Vec<TopicPartitions<'r, FetchPartition>>,
}

/// Where to read in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchPartition {
    pub(crate) partition: i32,
    /// The leader epoch that the reader knows of, or -1.
    pub(crate) current_leader_epoch: i32,
    pub(crate) fetch_offset: i64,
    pub(crate) partition_max_bytes: i32,
}

/// Answers [`FetchRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchResponse<'a> {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: ErrorCode,
    pub(crate) session_id: i32,
    pub(crate) responses: Vec<TopicPartitions<'a, FetchPartitionResponse<'a>>>,
}

/// What was read of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchPartitionResponse<'a> {
    pub(crate) partition_index: i32,
    pub(crate) error_code: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
    /// Since version 12.
    pub(crate) current_leader: Option<LeaderIdAndEpoch>,
    /// In the order that the broker sent.
    pub(crate) aborted_transactions: Vec<AbortedTransaction>,
    pub(crate) preferred_read_replica: i32,
    /// Record batches; the last one may be cut off.
    pub(crate) records: &'a [u8],
}

/// A transaction whose records are to be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
}

impl Request for FetchRequest<'_> {
    const API_KEY: i16 = 1;
    const NAME: &'static str = "Fetch";
    const VERSIONS: &'static [i16] = &[11, 12];
    const FLEXIBLE_FROM: i16 = 12;
    type Response<'a> = FetchResponse<'a>;

    fn write(&self, version: i16, writer: &mut Writer<'_>) {
        // A client's replica id.
        writer.i32(-1);
        writer.i32(self.max_wait_ms);
        writer.i32(self.min_bytes);
        writer.i32(self.max_bytes);
        writer.i8(self.isolation_level as i8);
        // Session id and epoch: none.
        writer.i32(0);
        writer.i32(-1);
        write_topics(writer, &self.topics, |writer, partition| {
            writer.i32(partition.partition);
            writer.i32(partition.current_leader_epoch);
            writer.i64(partition.fetch_offset);
            if version >= 12 {
                // Epoch of the last fetched record, which replicas tell.
                writer.i32(-1);
            }
            // Log start offset, which replicas tell.
            writer.i64(-1);
            writer.i32(partition.partition_max_bytes);
            writer.no_tags();
        });
        // Topics to forget, and the reader's rack.
        writer.array(&[], |_, (): &()| {});
        writer.string("");
    }

    fn read<'a>(_version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(FetchResponse {
            throttle_time_ms: reader.i32("throttle time")?,
            error_code: ErrorCode(reader.i16("error code")?),
            session_id: reader.i32("session id")?,
            responses: read_topics(reader, FetchPartitionResponse::read)?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

impl<'a> FetchPartitionResponse<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let mut partition = Self {
            partition_index: reader.i32("partition")?,
            error_code: ErrorCode(reader.i16("error code")?),
            high_watermark: reader.i64("high watermark")?,
            last_stable_offset: reader.i64("last stable offset")?,
            log_start_offset: reader.i64("log start offset")?,
            current_leader: None,
            aborted_transactions: reader
                .nullable_array("aborted transactions", AbortedTransaction::read)?
                .unwrap_or_default(),
            preferred_read_replica: reader.i32("preferred replica")?,
            records: reader.nullable_bytes("records")?.unwrap_or_default(),
        };
        reader.tags(|tag, reader| {
            if tag == 1 {
                partition.current_leader = Some(LeaderIdAndEpoch::read(reader)?);
            }
            Ok(())
        })?;
        Ok(partition)
    }
}

impl AbortedTransaction {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let transaction = Self {
            producer_id: reader.i64("producer id")?,
            first_offset: reader.i64("first offset")?,
        };
        reader.skip_tags()?;
        Ok(transaction)
    }
}
