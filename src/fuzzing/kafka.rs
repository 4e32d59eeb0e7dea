//! What a broker sends: responses and record batches.

use crate::changelog::{Header, Partition, Record, RecordRef};
use crate::error::{ErrorKind, Result};
use crate::kafka::KafkaOptions;
use crate::kafka::protocol::messages as m;
use crate::kafka::protocol::records::{BatchBuilder, Batches, ControlType, ProducerStamp, Scratch};
use crate::kafka::protocol::{Request, decode_frame};
use crate::options::Compression;

use super::input::{Damage, Input};

/// What decompression may make of an input.
const DECOMPRESSED_LEN_MAX: usize = 1 << 20;

/// A decoder of one API's responses; tells whether there was one.
type Decode = fn(&mut Input<'_>) -> bool;

const APIS: &[Decode] = &[
    response::<m::ApiVersionsRequest<'_>>,
    response::<m::MetadataRequest<'_>>,
    response::<m::ProduceRequest<'_>>,
    response::<m::FetchRequest<'_>>,
    response::<m::ListOffsetsRequest<'_>>,
    response::<m::OffsetForLeaderEpochRequest<'_>>,
    response::<m::FindCoordinatorRequest<'_>>,
    response::<m::InitProducerIdRequest<'_>>,
    response::<m::AddPartitionsToTxnRequest<'_>>,
    response::<m::EndTxnRequest<'_>>,
    response::<m::CreateTopicsRequest<'_>>,
    response::<m::DescribeConfigsRequest<'_>>,
    response::<m::DeleteTopicsRequest<'_>>,
    response::<m::DeleteRecordsRequest<'_>>,
    response::<m::SaslHandshakeRequest<'_>>,
    response::<m::SaslAuthenticateRequest<'_>>,
];
const API_VERSIONS: u8 = 0;
const METADATA: u8 = 1;
const PRODUCE: u8 = 2;
const FETCH: u8 = 3;
const END_TXN: u8 = 9;

/// Takes whole batches apart as a reader of a partition does, checksums compared: counts of their
/// records, and of the bytes of keys and values. No target, but what a comparison measures.
///
/// # Panics
///
/// If the bytes are no batches.
pub fn kafka_decode(batches: &[u8]) -> (u64, u64) {
    let mut scratch = Scratch::default();
    let (mut records, mut bytes) = (0, 0);
    for batch in Batches::new(batches) {
        let batch = batch.expect("a batch");
        batch.verify().expect("its checksum");
        let visited = batch.for_each(&mut scratch, |_, record| {
            records += 1;
            bytes += record.key.len() + record.value.map_or(0, <[u8]>::len);
            Ok(())
        });
        visited.expect("its records");
    }
    (records, bytes as u64)
}

/// Writes records to a partition that nobody owns, so many at a time, and answers the offset
/// behind the last one. No target, but for brokers that know no fences.
///
/// # Errors
///
/// Those of a session; `NotFound` without the topic.
pub fn kafka_produce(
    options: KafkaOptions,
    partition: &Partition,
    records: &[RecordRef<'_>],
    commit_records: usize,
) -> Result<u64> {
    crate::kafka::unowned::produce(options, partition, records, commit_records)
}

/// A response of an API and version that the first two bytes choose: an error or a value, and
/// never a value with a byte too many.
pub fn kafka_frame(data: &[u8]) {
    is_response(data);
}

fn is_response(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    APIS[input.index(APIS.len())](&mut input)
}

fn response<R: Request>(input: &mut Input<'_>) -> bool {
    let version = R::VERSIONS[input.index(R::VERSIONS.len())];
    let frame = input.rest();
    if let Err(error) = decode_frame::<R>(version, frame) {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        return false;
    }
    // One answer has no end that could be told: that the version is not spoken.
    if R::API_KEY != <m::ApiVersionsRequest<'_> as Request>::API_KEY {
        let longer = [frame, &[0]].concat();
        assert!(decode_frame::<R>(version, &longer).is_err());
    }
    true
}

/// The choice of an API and a version, and a frame with correlation id 1.
fn frame(api: u8, version: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[api, version, 0, 0, 0, 1], &*parts.concat()].concat()
}

const ZERO: &[u8] = &[0; 4];
const ZERO_I64: &[u8] = &[0; 8];
const ONE: &[u8] = &[0, 0, 0, 1];

pub(super) fn frame_seeds() -> Vec<Vec<u8>> {
    let versions: [&[u8]; 3] = [&[0, 0], ONE, &[0, 18, 0, 0, 0, 3]];
    let tagged_versions: [&[u8]; 3] = [&[0, 0, 2, 0, 18, 0, 0, 0, 3, 0], ZERO, &[0]];
    // One broker and one topic without partitions, in an encoding with tagged fields.
    let brokers = [
        0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 2, b'h', 0, 0, 0x23, 0x84, 0, 0,
    ];
    let topics = [2, 0, 0, 2, b't', 0, 1, 0, 0, 0, 0, 0];
    let metadata: [&[u8]; 6] = [&brokers, &[2, b'c'], ONE, &topics, ZERO, &[0]];
    // Tagged fields in the header and in the body.
    let end: [&[u8]; 3] = [&[1, 9, 1, 7], ZERO, &[0, 0, 1, 5, 2, 1, 2]];
    let seeds = vec![
        frame(API_VERSIONS, 0, &versions),
        frame(API_VERSIONS, 1, &tagged_versions),
        frame(METADATA, 1, &metadata),
        frame(PRODUCE, 0, &[ONE, &partition(&[ZERO_I64; 3]), ZERO]),
        fetch_seed(),
        frame(END_TXN, 0, &[ZERO, &[0, 0]]),
        frame(END_TXN, 1, &end),
    ];
    for seed in &seeds {
        assert!(is_response(seed), "a seed reaches far: {seed:?}");
    }
    seeds
}

/// Topic `t`, its partition 0, no error, and `rest`.
fn partition(rest: &[&[u8]]) -> Vec<u8> {
    let parts: [&[u8]; 5] = [b"\0\x01t", ONE, ZERO, &[0, 0], &rest.concat()];
    parts.concat()
}

fn fetch_seed() -> Vec<u8> {
    let batch = built(&[RecordRef::new(b"k", Some(b"v"))], Compression::None);
    let len = u32::try_from(batch.len()).expect("small").to_be_bytes();
    let offsets = [ZERO_I64; 3].concat();
    let aborted = [ONE, ZERO_I64, ZERO_I64].concat();
    let rest: [&[u8]; 5] = [&offsets, &aborted, ZERO, &len, &batch];
    frame(FETCH, 0, &[ZERO, &[0, 0], ZERO, ONE, &partition(&rest)])
}

/// Record batches, from raw bytes or from our builder and then damaged: offsets go up within what
/// the header promises, and what passes the checksum is what was written.
pub fn kafka_batch(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8().is_multiple_of(2) {
        walk(input.rest());
        return;
    }
    let is_compressed = input.u8().is_multiple_of(2);
    let mut written = Vec::new();
    while written.len() < 100 && (written.is_empty() || !input.u8().is_multiple_of(8)) {
        let headers = [Header {
            key: input.bytes(),
            value: Some(input.bytes()),
        }];
        let headers = &headers[..usize::from(input.u8() & 1)];
        let value = input.bytes();
        let record = RecordRef::new(input.bytes(), (!value.is_empty()).then_some(value));
        let record = record.with_headers(headers).at(i64::from(input.u16()));
        written.push(Record::from(record));
    }
    let mut builder = BatchBuilder::new(if is_compressed {
        Compression::Lz4
    } else {
        Compression::None
    });
    for record in &written {
        record.with_ref(|record| builder.push(&record));
    }
    let mut bytes = builder.seal(ProducerStamp::NONE);
    let damage = Damage::draw(&mut input, bytes.len());
    damage.apply(&mut bytes);
    let found = walk(&bytes);
    if matches!(damage, Damage::None) {
        assert_eq!(found.as_deref(), Some(&*written));
    } else if let Some(found) = found {
        assert_eq!(found, written, "{damage:?} made records");
    }
}

/// Reads every batch, and returns the records of the first one if its checksum is right.
fn walk(bytes: &[u8]) -> Option<Vec<Record>> {
    let mut scratch = Scratch::new(DECOMPRESSED_LEN_MAX);
    let mut batches = Batches::new(bytes);
    let mut first = None;
    let mut pos = 0;
    while let Some(batch) = batches.next() {
        let Ok(batch) = batch else {
            break;
        };
        let mut records = Vec::new();
        let mut lowest = batch.base_offset;
        let read = batch.for_each(&mut scratch, |offset, record| {
            assert!(offset >= lowest && offset < batch.next_offset());
            lowest = offset + 1;
            records.push(Record::from(record));
            Ok(())
        });
        let marks = batch.control_type(&mut scratch);
        if let Ok(Some(ControlType::Abort | ControlType::Commit)) = marks {
            assert!(batch.is_control());
        }
        if pos == 0 && batch.verify().is_ok() && read.is_ok() {
            first = Some(records);
        }
        pos += batch.len();
        assert_eq!(batches.rest(), &bytes[pos..]);
    }
    first
}

fn built(records: &[RecordRef<'_>], compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        builder.push(record);
    }
    builder.seal(ProducerStamp::NONE)
}

pub(super) fn batch_seeds() -> Vec<Vec<u8>> {
    let header = [Header {
        key: b"h",
        value: None,
    }];
    let value = [b'v'; 200];
    let records = [
        RecordRef::new(b"key", Some(&value)).at(1000),
        RecordRef::new(b"gone", None).at(900),
        RecordRef::new(b"", Some(&value)).with_headers(&header),
    ];
    let raw = |batches: &[Vec<u8>]| [&[0], &*batches.concat()].concat();
    let plain = built(&records, Compression::None);
    let lz4 = built(&records, Compression::Lz4);
    vec![
        raw(std::slice::from_ref(&plain)),
        raw(std::slice::from_ref(&lz4)),
        raw(&[plain.clone(), lz4, plain[..30].to_vec()]),
        vec![
            1, 0, 3, 1, 2, 3, 2, 8, 9, 1, 4, 1, 2, 3, 4, 1, 7, 5, 5, 8, 0,
        ],
        vec![1, 1, 0, 0, 0, 2, 7, 7, 1, 9, 0, 0, 8, 1, 60, 4],
    ]
}
