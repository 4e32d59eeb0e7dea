//! Record batches against an independent codec, in both directions.

use std::io::{Read, Write};

use kafka_protocol::messages::SaslAuthenticateRequest;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{self as theirs, RecordBatchDecoder, RecordBatchEncoder};

use super::*;
use crate::changelog::{Header, Record, RecordRef};
use crate::kafka::protocol::draw::{Draw, seed};
use crate::options::Compression;

const ROUNDS: u64 = 200;

fn stamp(draw: &mut Draw) -> ProducerStamp {
    ProducerStamp {
        id: draw.i64(),
        epoch: draw.i16(),
        base_sequence: draw.i32() >> 1,
        is_transactional: draw.bool(),
    }
}

/// Records with what both codecs can hold: keys of headers are texts, each there once.
fn records(draw: &mut Draw) -> Vec<Record> {
    let record = |draw: &mut Draw| {
        let (key, value) = (draw.bytes(), draw.option(Draw::bytes));
        let names = ["h", "", "\u{e9}t\u{e9}"];
        let texts = names.map(|name| (name, draw.option(Draw::bytes), draw.bool()));
        let headers: Vec<_> = texts
            .iter()
            .filter(|(_, _, is_there)| *is_there)
            .map(|(name, value, _)| Header {
                key: name.as_bytes(),
                value: value.as_deref(),
            })
            .collect();
        let lent = RecordRef::new(&key, value.as_deref()).with_headers(&headers);
        Record::from(lent.at(1_700_000_000_000 + (draw.i64() >> 30)))
    };
    let mut records = vec![record(draw)];
    for _ in 0..draw.len() % 300 {
        records.push(record(draw));
    }
    records
}

fn unframe(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut decoder = lz4_flex::frame::FrameDecoder::new(bytes);
    decoder.read_to_end(&mut out).unwrap();
    out
}

fn lz4_frame(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What the other codec finds in a batch.
fn their_records(batch: Vec<u8>) -> theirs::RecordSet {
    // The other crate's own type of shared bytes, which cannot be named here.
    let shared = |bytes: Vec<u8>| {
        let message = SaslAuthenticateRequest::default();
        message.with_auth_bytes(bytes.into()).auth_bytes
    };
    let mut buffer = shared(batch);
    let set = RecordBatchDecoder::decode_with_custom_compression(
        &mut buffer,
        Some(|bytes: &mut _, codec| {
            let bytes: Vec<u8> = AsRef::<[u8]>::as_ref(bytes).to_vec();
            Ok(shared(match codec {
                theirs::Compression::Lz4 => unframe(&bytes),
                _ => bytes,
            }))
        }),
    );
    assert!(buffer.is_empty());
    set.unwrap()
}

#[test]
fn the_other_codec_reads_our_batches() {
    let seed = seed();
    let mut compressed = 0;
    for round in 0..ROUNDS {
        let mut draw = Draw::new(seed.wrapping_mul(1 << 32).wrapping_add(round));
        let (stamp, records) = (stamp(&mut draw), records(&mut draw));
        let codec = draw.pick(&[Compression::None, Compression::Lz4]);
        let mut builder = BatchBuilder::new(codec);
        for record in &records {
            record.with_ref(|record| builder.push(&record));
        }
        let found = their_records(builder.seal(stamp));
        compressed += u32::from(found.compression == theirs::Compression::Lz4);
        assert_eq!(found.records.len(), records.len(), "round {round}");
        for (index, (theirs, ours)) in found.records.iter().zip(&records).enumerate() {
            let index = i32::try_from(index).unwrap();
            assert_eq!(theirs.offset, i64::from(index));
            assert_eq!(theirs.sequence, stamp.base_sequence.wrapping_add(index));
            assert_eq!(
                (theirs.producer_id, theirs.producer_epoch),
                (stamp.id, stamp.epoch)
            );
            assert_eq!(theirs.transactional, stamp.is_transactional);
            assert!(!theirs.control);
            ours.with_ref(|ours| {
                assert_eq!(theirs.timestamp, ours.timestamp_ms);
                assert_eq!(theirs.key.as_deref(), Some(ours.key));
                assert_eq!(theirs.value.as_deref(), ours.value);
                let found: Vec<_> = theirs.headers.iter().collect();
                assert_eq!(found.len(), ours.headers.len());
                for ((key, value), header) in found.into_iter().zip(ours.headers) {
                    assert_eq!(
                        (key.as_bytes(), value.as_deref()),
                        (header.key, header.value)
                    );
                }
            });
        }
    }
    assert!(compressed > 0, "some batches shrink");
}

/// The records as the other codec holds them, from `base_offset` on.
fn made_by_them(records: &[Record], stamp: ProducerStamp, base_offset: i64) -> Vec<theirs::Record> {
    let made = records.iter().zip(0_i32..).map(|(record, index)| {
        record.with_ref(|record| theirs::Record {
            transactional: stamp.is_transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 9,
            producer_id: stamp.id,
            producer_epoch: stamp.epoch,
            timestamp_type: theirs::TimestampType::Creation,
            offset: base_offset + i64::from(index),
            sequence: stamp.base_sequence.wrapping_add(index),
            timestamp: record.timestamp_ms,
            key: Some(record.key.to_vec().into()),
            value: record.value.map(|value| value.to_vec().into()),
            headers: (record.headers.iter())
                .map(|header| {
                    let key = String::from_utf8(header.key.to_vec()).unwrap();
                    let value = header.value.map(|value| value.to_vec().into());
                    (StrBytes::from_string(key), value)
                })
                .collect(),
        })
    });
    made.collect()
}

fn encoded_by_them(records: &[theirs::Record], compression: theirs::Compression) -> Vec<u8> {
    let mut out = Vec::new();
    let options = theirs::RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode_with_custom_compression(
        &mut out,
        records,
        &options,
        Some(|from: &mut _, to: &mut Vec<u8>, codec| {
            let from = AsRef::<[u8]>::as_ref(from);
            match codec {
                theirs::Compression::Lz4 => to.extend(lz4_frame(from)),
                _ => to.extend(from),
            }
            Ok(())
        }),
    )
    .unwrap();
    out
}

#[test]
fn we_read_the_other_codecs_batches() {
    let seed = seed();
    for round in 0..ROUNDS {
        let mut draw = Draw::new(seed.wrapping_mul(1 << 32).wrapping_add(round));
        let (stamp, records) = (stamp(&mut draw), records(&mut draw));
        let base_offset = draw.i64() >> 1 & (i64::MAX >> 1);
        let codec = draw.pick(&[theirs::Compression::None, theirs::Compression::Lz4]);
        let made = made_by_them(&records, stamp, base_offset);
        let bytes = encoded_by_them(&made, codec);
        let mut batches = Batches::new(&bytes);
        let batch = batches.next().unwrap().unwrap();
        assert!(batches.next().is_none() && batches.rest().is_empty());
        batch.verify().unwrap();
        assert_eq!(batch.is_compressed(), codec == theirs::Compression::Lz4);
        assert_eq!(
            (batch.producer_id, batch.producer_epoch),
            (stamp.id, stamp.epoch)
        );
        assert_eq!(
            (batch.base_sequence, batch.leader_epoch),
            (stamp.base_sequence, 9)
        );
        assert_eq!(batch.is_transactional(), stamp.is_transactional);
        assert!(!batch.is_control() && !batch.is_log_append_time());
        assert_eq!(
            batch.next_offset(),
            base_offset + i64::try_from(records.len()).unwrap()
        );
        let mut expected = (base_offset..).zip(&records);
        let visited = batch.for_each(&mut Scratch::default(), |offset, record| {
            let (expected_offset, expected) = expected.next().unwrap();
            assert_eq!((offset, &Record::from(record)), (expected_offset, expected));
            Ok(())
        });
        visited.unwrap();
        assert!(expected.next().is_none(), "round {round}");
    }
}

#[test]
fn we_know_the_other_codecs_markers() {
    let record = Record::from(RecordRef::new(&[0, 0, 0, 1], Some(&[0; 6])).at(5));
    let mut made = made_by_them(&[record], ProducerStamp::NONE, 70);
    made[0].control = true;
    made[0].transactional = true;
    let bytes = encoded_by_them(&made, theirs::Compression::None);
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    batch.verify().unwrap();
    assert!(batch.is_control() && batch.is_transactional());
    let marks = batch.control_type(&mut Scratch::default()).unwrap();
    assert_eq!(marks, Some(ControlType::Commit));
}
