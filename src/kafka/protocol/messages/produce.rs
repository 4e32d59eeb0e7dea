//! Appending record batches.

use super::{TopicPartitions, read_topics, write_topics};
use crate::error::Result;
use crate::kafka::protocol::{ErrorCode, Reader, Request, Writer};

/// Appends one record batch to each of some partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProduceRequest<'r> {
    pub(crate) transactional_id: Option<&'r str>,
    /// -1: all replicas in sync.
    pub(crate) acks: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) topic_data: Vec<TopicPartitions<'r, ProducePartition<'r>>>,
}

/// What is appended to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducePartition<'r> {
    pub(crate) index: i32,
    /// A sealed batch.
    pub(crate) records: &'r [u8],
}

/// Answers [`ProduceRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProduceResponse<'a> {
    pub(crate) responses: Vec<TopicPartitions<'a, ProducePartitionResponse<'a>>>,
    pub(crate) throttle_time_ms: i32,
}

/// What became of the batch for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProducePartitionResponse<'a> {
    pub(crate) index: i32,
    pub(crate) error_code: ErrorCode,
    /// Offset of the batch's first record; -1 where it is not known.
    pub(crate) base_offset: i64,
    /// -1 unless the broker's clock stamps the topic's records.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start_offset: i64,
    /// The records that made the broker refuse the batch; since version 9.
    pub(crate) record_errors: Vec<BatchIndexAndErrorMessage<'a>>,
    /// Since version 9.
    pub(crate) error_message: Option<&'a str>,
    /// The leader, where the broker no longer is; since version 10.
    pub(crate) current_leader: Option<LeaderIdAndEpoch>,
}

/// A record that made the broker refuse its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchIndexAndErrorMessage<'a> {
    pub(crate) batch_index: i32,
    pub(crate) batch_index_error_message: Option<&'a str>,
}

/// A partition's leader as a broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaderIdAndEpoch {
    pub(crate) leader_id: i32,
    pub(crate) leader_epoch: i32,
}

impl LeaderIdAndEpoch {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let leader = Self {
            leader_id: reader.i32("leader id")?,
            leader_epoch: reader.i32("leader epoch")?,
        };
        reader.skip_tags()?;
        Ok(leader)
    }
}

impl Request for ProduceRequest<'_> {
    const API_KEY: i16 = 0;
    const NAME: &'static str = "Produce";
    const VERSIONS: &'static [i16] = &[7, 9, 10, 11];
    const FLEXIBLE_FROM: i16 = 9;
    type Response<'a> = ProduceResponse<'a>;

    fn write(&self, _version: i16, writer: &mut Writer<'_>) {
        writer.nullable_string(self.transactional_id);
        writer.i16(self.acks);
        writer.i32(self.timeout_ms);
        write_topics(writer, &self.topic_data, |writer, partition| {
            writer.i32(partition.index);
            writer.bytes(partition.records);
            writer.no_tags();
        });
    }

    fn read<'a>(version: i16, reader: &mut Reader<'a>) -> Result<Self::Response<'a>> {
        Ok(ProduceResponse {
            responses: read_topics(reader, |reader| {
                ProducePartitionResponse::read(version, reader)
            })?,
            throttle_time_ms: reader.i32("throttle time")?,
        })
    }

    fn throttle_time_ms(response: &Self::Response<'_>) -> i32 {
        response.throttle_time_ms
    }
}

impl<'a> ProducePartitionResponse<'a> {
    fn read(version: i16, reader: &mut Reader<'a>) -> Result<Self> {
        let mut partition = Self {
            index: reader.i32("partition")?,
            error_code: ErrorCode(reader.i16("error code")?),
            base_offset: reader.i64("base offset")?,
            log_append_time_ms: reader.i64("log append time")?,
            log_start_offset: reader.i64("log start offset")?,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        };
        if version >= 8 {
            partition.record_errors = reader.array("record errors", |reader| {
                let record = BatchIndexAndErrorMessage {
                    batch_index: reader.i32("index of a record")?,
                    batch_index_error_message: reader.nullable_str("error message of a record")?,
                };
                reader.skip_tags()?;
                Ok(record)
            })?;
            partition.error_message = reader.nullable_str("error message")?;
        }
        reader.tags(|tag, reader| {
            if tag == 0 {
                partition.current_leader = Some(LeaderIdAndEpoch::read(reader)?);
            }
            Ok(())
        })?;
        Ok(partition)
    }
}
