//! Batches: round trips, the shapes that log compaction leaves, codecs, damage.

use super::*;
use crate::changelog::{Header, Record, RecordRef};
use crate::error::ErrorKind;
use crate::kafka::protocol::draw::{Draw, seed};
use crate::options::Compression;

const STAMP: ProducerStamp = ProducerStamp {
    id: 7,
    epoch: 3,
    base_sequence: 40,
    is_transactional: true,
};

/// Every shape of a record: tombstones, duplicate headers, null values, keys that are not UTF-8.
fn samples() -> Vec<Record> {
    let header = |key: &'static [u8], value| Header { key, value };
    let headers = [
        header(b"h", Some(&b"1"[..])),
        header(b"h", None),
        header(b"\xff\xfe", Some(b"")),
    ];
    let long = [5; 300];
    let refs = [
        RecordRef::new(b"a", Some(b"one")).at(1000),
        RecordRef::new(b"b", None).at(900),
        RecordRef::new(b"", Some(b"")).at(i64::MAX),
        RecordRef::new(&long, Some(&long)).at(i64::MIN),
        RecordRef::new(b"c", Some(b"x")).with_headers(&headers),
    ];
    refs.into_iter().map(Record::from).collect()
}

fn build(records: &[Record], compression: Compression, stamp: ProducerStamp) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        record.with_ref(|record| {
            let before = builder.len();
            builder.push(&record);
            assert!(builder.len() - before <= encoded_len_max(&record));
        });
    }
    assert_eq!(usize::try_from(builder.count()).unwrap(), records.len());
    builder.seal(stamp)
}

fn only(bytes: &[u8]) -> Batch<'_> {
    let mut batches = Batches::new(bytes);
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    assert!(batches.rest().is_empty());
    batch
}

fn read(batch: &Batch<'_>) -> crate::error::Result<Vec<(i64, Record)>> {
    let mut records = Vec::new();
    batch.for_each(&mut Scratch::default(), |offset, record| {
        records.push((offset, Record::from(record)));
        Ok(())
    })?;
    Ok(records)
}

/// Changes the header at `pos` and makes the checksum right again.
fn patch<const LEN: usize>(batch: &mut [u8], pos: usize, value: [u8; LEN]) {
    batch[pos..pos + LEN].copy_from_slice(&value);
    let crc = checksum(batch);
    batch[CRC_POS..CRC_POS + 4].copy_from_slice(&crc.to_be_bytes());
}

/// The records of `plain` compressed by `compress`, under codec number `codec`.
fn recode(plain: &[u8], codec: u8, compress: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut batch = plain[..HEADER_LEN].to_vec();
    batch.extend(compress(&plain[HEADER_LEN..]));
    let len = i32::try_from(batch.len() - LEADER_EPOCH_POS).unwrap();
    batch[LENGTH_POS..LENGTH_POS + 4].copy_from_slice(&len.to_be_bytes());
    let attributes = batch[ATTRIBUTES_POS + 1] | codec;
    patch(&mut batch, ATTRIBUTES_POS + 1, [attributes]);
    batch
}

fn gzip(records: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(records).unwrap();
    encoder.finish().unwrap()
}

fn snappy(records: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(records).unwrap()
}

fn java_snappy(records: &[u8]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for chunk in records.chunks(200) {
        let block = snappy(chunk);
        out.extend(u32::try_from(block.len()).unwrap().to_be_bytes());
        out.extend(block);
    }
    out
}

fn zstd(records: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(records, ruzstd::encoding::CompressionLevel::Fastest)
}

/// The same records under every codec.
fn every_codec() -> Vec<Vec<u8>> {
    let plain = build(&samples(), Compression::None, STAMP);
    vec![
        build(&samples(), Compression::Lz4, STAMP),
        recode(&plain, 1, gzip),
        recode(&plain, 2, snappy),
        recode(&plain, 2, java_snappy),
        recode(&plain, 4, zstd),
        plain,
    ]
}

#[test]
fn the_checksum_is_the_castagnoli_one() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn records_come_back_through_every_codec() {
    for (index, bytes) in every_codec().iter().enumerate() {
        let batch = only(bytes);
        batch.verify().unwrap();
        assert_eq!(batch.is_compressed(), index != 5);
        assert_eq!((batch.producer_id, batch.producer_epoch), (7, 3));
        assert_eq!((batch.base_sequence, batch.leader_epoch), (40, -1));
        assert!(batch.is_transactional() && !batch.is_control());
        assert_eq!((batch.next_offset(), batch.len()), (5, bytes.len()));
        let expected: Vec<_> = (0..).zip(samples()).collect();
        assert_eq!(read(&batch).unwrap(), expected, "codec {index}");
    }
}

#[test]
fn a_restamped_batch_has_new_numbers_and_the_same_records() {
    let mut bytes = build(&samples(), Compression::Lz4, STAMP);
    restamp(&mut bytes, ProducerStamp::NONE);
    let batch = only(&bytes);
    batch.verify().unwrap();
    assert_eq!((batch.producer_id, batch.base_sequence), (-1, -1));
    assert!(!batch.is_transactional());
    assert_eq!(read(&batch).unwrap().len(), 5);
}

#[test]
fn what_compaction_leaves_keeps_its_range_of_offsets() {
    let mut empty = build(&samples()[..1], Compression::None, STAMP);
    empty.truncate(HEADER_LEN);
    patch(&mut empty, LENGTH_POS, 49_i32.to_be_bytes());
    patch(&mut empty, BASE_OFFSET_POS, 100_i64.to_be_bytes());
    patch(&mut empty, LAST_OFFSET_DELTA_POS, 9_i32.to_be_bytes());
    patch(&mut empty, COUNT_POS, 0_i32.to_be_bytes());
    let mut emptied_lz4 = empty.clone();
    patch(&mut emptied_lz4, ATTRIBUTES_POS + 1, [3]);
    for bytes in [empty, emptied_lz4] {
        let batch = only(&bytes);
        batch.verify().unwrap();
        assert_eq!((batch.count, batch.next_offset()), (0, 110));
        assert_eq!(read(&batch).unwrap(), []);
    }
    let mut tail = build(&samples()[..2], Compression::None, STAMP);
    patch(&mut tail, BASE_OFFSET_POS, 100_i64.to_be_bytes());
    patch(&mut tail, LAST_OFFSET_DELTA_POS, 9_i32.to_be_bytes());
    let batch = only(&tail);
    assert_eq!((batch.last_offset(), batch.next_offset()), (109, 110));
    let offsets: Vec<_> = read(&batch).unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(offsets, [100, 101]);
}

#[test]
fn the_brokers_clock_stamps_all_records_alike() {
    let mut bytes = build(&samples(), Compression::None, STAMP);
    patch(&mut bytes, MAX_TIMESTAMP_POS, 77_i64.to_be_bytes());
    patch(&mut bytes, ATTRIBUTES_POS + 1, [8]);
    let batch = only(&bytes);
    assert!(batch.is_log_append_time());
    let records = read(&batch).unwrap();
    assert!(records.iter().all(|(_, record)| record.timestamp_ms == 77));
}

#[test]
fn control_batches_tell_what_they_mark() {
    let marker = |key: &[u8]| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(&RecordRef::new(key, Some(&[0; 6])));
        let mut bytes = builder.seal(STAMP);
        patch(&mut bytes, ATTRIBUTES_POS + 1, [0x30]);
        only(&bytes).control_type(&mut Scratch::default())
    };
    assert_eq!(marker(&[0, 0, 0, 0]).unwrap(), Some(ControlType::Abort));
    assert_eq!(marker(&[0, 0, 0, 1]).unwrap(), Some(ControlType::Commit));
    assert_eq!(
        marker(&[0, 1, 0, 5, 9]).unwrap(),
        Some(ControlType::Other(5))
    );
    assert_eq!(
        marker(&[0, 0, 0]).unwrap_err().kind(),
        ErrorKind::Corruption
    );
    let plain = build(&samples(), Compression::None, STAMP);
    let none = only(&plain).control_type(&mut Scratch::default());
    assert_eq!(none.unwrap(), None);
}

#[test]
fn a_batch_that_is_cut_off_ends_the_walk_quietly() {
    let whole = build(&samples(), Compression::None, STAMP);
    for len in 0..whole.len() {
        let both = [&whole[..], &whole[..len]].concat();
        let mut batches = Batches::new(&both);
        assert!(batches.next().unwrap().is_ok());
        assert!(batches.next().is_none(), "{len}");
        assert_eq!(batches.rest(), &whole[..len]);
    }
}

#[test]
fn headers_that_cannot_be_are_corruption() {
    let change = |pos: usize, value: &[u8]| {
        let mut bytes = build(&samples(), Compression::None, STAMP);
        bytes[pos..pos + value.len()].copy_from_slice(value);
        let mut batches = Batches::new(&bytes);
        let error = batches.next().unwrap().unwrap_err();
        assert!(batches.next().is_none(), "an error ends the walk");
        error.kind()
    };
    let minus = (-1_i32).to_be_bytes();
    assert_eq!(change(LENGTH_POS, &minus), ErrorKind::Corruption);
    let short = 48_i32.to_be_bytes();
    assert_eq!(change(LENGTH_POS, &short), ErrorKind::Corruption);
    assert_eq!(change(LAST_OFFSET_DELTA_POS, &minus), ErrorKind::Corruption);
    assert_eq!(change(COUNT_POS, &minus), ErrorKind::Corruption);
    let many = 6_i32.to_be_bytes();
    assert_eq!(change(COUNT_POS, &many), ErrorKind::Corruption);
    let last = i64::MAX.to_be_bytes();
    assert_eq!(change(BASE_OFFSET_POS, &last), ErrorKind::Corruption);
    let below = (-1_i64).to_be_bytes();
    assert_eq!(change(BASE_OFFSET_POS, &below), ErrorKind::Corruption);
    assert_eq!(change(MAGIC_POS, &[1]), ErrorKind::Unsupported);
}

#[test]
fn records_that_do_not_fit_their_header_are_corruption() {
    let refused = |pos: usize, value: &[u8]| {
        let mut bytes = build(&samples(), Compression::None, STAMP);
        bytes[pos..pos + value.len()].copy_from_slice(value);
        read(&only(&bytes)).unwrap_err().to_string()
    };
    let fewer = refused(COUNT_POS, &4_i32.to_be_bytes());
    assert!(fewer.contains("left over"), "{fewer}");
    let fewer = refused(HEADER_LEN, &[0x7f]);
    assert!(fewer.contains("record"), "{fewer}");
}

#[test]
fn a_record_out_of_order_is_corruption() {
    for delta in [1, 20] {
        let mut bytes = build(&samples(), Compression::None, STAMP);
        // The first record's difference in offset stands behind its length, attributes, timestamp.
        bytes[HEADER_LEN + 3] = delta;
        let error = read(&only(&bytes)).unwrap_err();
        assert!(error.to_string().contains("order"), "{error}");
    }
}

#[test]
fn a_flipped_bit_fails_the_checksum() {
    let whole = build(&samples(), Compression::Lz4, STAMP);
    for pos in CRC_POS..whole.len() {
        let mut bytes = whole.clone();
        bytes[pos] ^= 1;
        if let Some(Ok(batch)) = Batches::new(&bytes).next() {
            let error = batch.verify().unwrap_err();
            assert!(error.to_string().contains("stored"), "{error}");
        }
    }
}

#[test]
fn an_unknown_codec_is_unsupported() {
    let mut bytes = build(&samples(), Compression::None, STAMP);
    patch(&mut bytes, ATTRIBUTES_POS + 1, [6]);
    let error = read(&only(&bytes)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("codec 6"), "{error}");
}

#[test]
fn what_becomes_too_long_is_refused() {
    for (index, bytes) in every_codec()[..5].iter().enumerate() {
        let mut scratch = Scratch::new(100);
        let error = only(bytes)
            .for_each(&mut scratch, |_, _| Ok(()))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "codec {index}");
        assert!(scratch.decompressed.capacity() < 1 << 20);
    }
    // A few bytes that claim 1 GiB.
    let plain = build(&samples(), Compression::None, STAMP);
    let wild = recode(&plain, 2, |_| vec![0x80, 0x80, 0x80, 0x80, 4, 0, 0]);
    let error = read(&only(&wild)).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_visitor_that_fails_stops_the_walk() {
    let bytes = build(&samples(), Compression::None, STAMP);
    let mut visited = 0;
    let error = only(&bytes).for_each(&mut Scratch::default(), |_, _| {
        visited += 1;
        Err(crate::error::Error::invalid("enough"))
    });
    assert_eq!(error.unwrap_err().to_string(), "enough");
    assert_eq!(visited, 1);
}

#[test]
fn damaged_batches_give_errors_or_values() {
    let mut random = Draw::new(seed());
    let mut scratch = Scratch::new(1 << 20);
    let mut read = 0;
    for whole in every_codec() {
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..=random.below(3) {
                let pos = random.below(bytes.len());
                bytes[pos] = random.byte();
            }
            for batch in Batches::new(&bytes).flatten() {
                let visited = batch.for_each(&mut scratch, |_, record| {
                    assert!(record.key.len() <= 1 << 20);
                    Ok(())
                });
                read += u32::from(visited.is_ok());
                assert!(batch.next_offset() > batch.base_offset);
                let _ = batch.control_type(&mut scratch);
            }
            assert!(scratch.decompressed.capacity() <= 4 << 20);
        }
    }
    assert!(read > 0, "some changes hit what a record may hold");
}
