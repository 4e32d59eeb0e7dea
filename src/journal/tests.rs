use std::path::{Path, PathBuf};

use super::recovery::Cut;
use super::*;
use crate::ErrorKind;
use crate::env::Env;
use crate::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};

const KIND: Kind = *b"TEST";
const ID: u64 = 0x5eed;

fn path(number: u64) -> PathBuf {
    PathBuf::from(format!("{number}.seg"))
}

fn files(env: &SimEnv) -> Vec<SegmentFile> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse().ok();
    let mut files: Vec<_> = env
        .files()
        .iter()
        .filter_map(number)
        .map(|number| SegmentFile {
            number,
            path: path(number),
        })
        .collect();
    files.sort_by_key(|file| file.number);
    files
}

fn writer(env: &SimEnv, segment: u64, base: Lsn, durable: Lsn) -> Writer {
    let header = SegmentHeader {
        kind: KIND,
        journal_id: ID,
        segment,
        base,
        durable,
        has_stage: false,
    };
    Writer::create(env, &path(segment), header).unwrap()
}

/// A payload that its number and length follow from.
fn payload(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) % 50 + 1]
}

fn append(writer: &mut Writer, number: u8, durable: Lsn) -> Lsn {
    writer.append(&[&payload(number)], durable).unwrap()
}

fn recover_from(env: &SimEnv, floor: Lsn) -> Result<(Vec<u8>, Recovered)> {
    let mut numbers = Vec::new();
    let recovered = recover(
        env,
        KIND,
        ID,
        &files(env),
        None,
        floor,
        &mut |_, _, bytes| {
            assert_eq!(bytes, payload(bytes[0]));
            numbers.push(bytes[0]);
            Ok(())
        },
    )?;
    Ok((numbers, recovered))
}

fn edit(env: &SimEnv, segment: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = env.file_bytes(&path(segment)).unwrap();
    change(&mut bytes);
    env.set_file_bytes(&path(segment), bytes);
}

fn kind_of<T: fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Two segments of three records each, nothing told to be durable.
fn two_segments() -> (SimEnv, Vec<Lsn>) {
    let env = SimEnv::new(1);
    let mut ends = Vec::new();
    let mut first = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    ends.extend((1..=3).map(|number| append(&mut first, number, Lsn::ZERO)));
    let mut second = writer(&env, 2, first.end(), Lsn::ZERO);
    ends.extend((4..=6).map(|number| append(&mut second, number, Lsn::ZERO)));
    (env, ends)
}

#[test]
fn records_come_back_in_order_over_segments() {
    let (env, ends) = two_segments();
    let mut visited = Vec::new();
    let recovered = recover(
        &env,
        KIND,
        ID,
        &files(&env),
        None,
        ends[5],
        &mut |index, end, bytes| {
            visited.push((index, end, bytes[0]));
            Ok(())
        },
    )
    .unwrap();
    let expected: Vec<_> = (0..6)
        .map(|i| (i / 3, ends[i], u8::try_from(i).unwrap() + 1))
        .collect();
    assert_eq!(visited, expected);
    assert_eq!(
        (recovered.start, recovered.end, recovered.cut),
        (Lsn::ZERO, ends[5], None)
    );
}

#[test]
fn one_append_of_many_records_is_one_write() {
    let env = SimEnv::new(1);
    let mut writer = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    let before = env.io_count();
    let payloads: Vec<_> = (1..100).map(payload).collect();
    let parts: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let end = writer.append(&parts, Lsn::ZERO).unwrap();
    assert_eq!(env.io_count() - before, 1);
    assert_eq!(end.0, records_len(&parts));
    assert_eq!(
        recover_from(&env, end).unwrap().0,
        (1..100).collect::<Vec<_>>()
    );
}

#[test]
fn no_segments_are_an_empty_journal_unless_more_was_promised() {
    let env = SimEnv::new(1);
    let (numbers, recovered) = recover_from(&env, Lsn::ZERO).unwrap();
    assert!(numbers.is_empty() && recovered.end == Lsn::ZERO && recovered.cut.is_none());
    assert_eq!(kind_of(recover_from(&env, Lsn(1))), ErrorKind::Corruption);
}

#[test]
fn a_failed_append_breaks_the_writer_and_leaves_nothing() {
    let env = SimEnv::new(1);
    for kind in FaultKind::ALL {
        let number = env.files().len() as u64 * 2 + 1;
        let base = recover_from(&env, Lsn::ZERO).unwrap().1.end;
        let mut old = writer(&env, number, base, base);
        let end = append(&mut old, 1, base);
        env.set_fault(FaultPlan::once(env.io_count(), *kind));
        assert_eq!(kind_of(old.append(&[&payload(2)], base)), ErrorKind::Io);
        env.clear_faults();
        assert_eq!(kind_of(old.append(&[&payload(3)], base)), ErrorKind::Io);
        assert!(old.is_broken() && old.end() == end);
        let mut next = writer(&env, number + 1, old.end(), base);
        append(&mut next, 4, base);
        let (numbers, recovered) = recover_from(&env, next.end()).unwrap();
        assert_eq!(numbers[numbers.len() - 2..], [1, 4]);
        assert_eq!(recovered.cut, None);
    }
}

#[test]
fn the_next_base_voids_records_of_a_failed_append() {
    let env = SimEnv::new(1);
    let mut old = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    let end = append(&mut old, 1, Lsn::ZERO);
    // These reached the disk although the write was reported as failed.
    append(&mut old, 2, Lsn::ZERO);
    append(&mut old, 3, Lsn::ZERO);
    let mut next = writer(&env, 2, end, Lsn::ZERO);
    let next_end = append(&mut next, 4, Lsn::ZERO);
    let (numbers, recovered) = recover_from(&env, next_end).unwrap();
    assert_eq!(
        (numbers, recovered.end, recovered.cut),
        (vec![1, 4], next_end, None)
    );

    // A base in the middle of a record: the records up to it do not reach it.
    let env = SimEnv::new(1);
    let mut old = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    let end = append(&mut old, 1, Lsn::ZERO);
    append(&mut old, 2, Lsn::ZERO);
    append(
        &mut writer(&env, 2, Lsn(end.0 + 5), Lsn::ZERO),
        3,
        Lsn::ZERO,
    );
    let (numbers, recovered) = recover_from(&env, Lsn::ZERO).unwrap();
    assert_eq!((numbers, recovered.end), (vec![1], end));
}

#[test]
fn a_hole_above_the_durable_position_cuts_and_below_it_is_corruption() {
    for (told, survives) in [(0, true), (2, true), (3, false)] {
        let env = SimEnv::new(1);
        let mut writer = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
        let mut ends = vec![Lsn::ZERO];
        for number in 1..=4 {
            ends.push(append(&mut writer, number, Lsn::ZERO));
        }
        append(&mut writer, 5, ends[told]);
        let hole = SEGMENT_HEADER_LEN + usize::try_from(ends[3].0).unwrap() - 1;
        edit(&env, 1, |bytes| bytes[hole] ^= 1);
        if survives {
            let (numbers, recovered) = recover_from(&env, ends[2]).unwrap();
            assert_eq!((numbers, recovered.end), (vec![1, 2], ends[2]));
            let file_len = SEGMENT_HEADER_LEN as u64 + ends[2].0;
            assert_eq!(recovered.cut, Some(Cut { keep: 1, file_len }));
        } else {
            let error = recover_from(&env, Lsn::ZERO).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.to_string().contains("1.seg: byte"), "{error}");
        }
        assert_eq!(kind_of(recover_from(&env, ends[3])), ErrorKind::Corruption);
    }
}

#[test]
fn a_header_beyond_a_hole_tells_even_if_its_payload_is_gone() {
    let env = SimEnv::new(1);
    let mut writer = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    let end = append(&mut writer, 1, Lsn::ZERO);
    append(&mut writer, 2, end);
    edit(&env, 1, |bytes| {
        bytes[SEGMENT_HEADER_LEN] ^= 1;
        bytes.pop();
    });
    assert_eq!(
        kind_of(recover_from(&env, Lsn::ZERO)),
        ErrorKind::Corruption
    );
}

#[test]
fn a_later_segment_behind_a_gap_is_dropped() {
    let (env, ends) = two_segments();
    edit(&env, 1, |bytes| bytes.truncate(bytes.len() - 1));
    let (numbers, recovered) = recover_from(&env, ends[1]).unwrap();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(recovered.cut.unwrap().keep, 1);
    cut(&env, Path::new("."), &files(&env), None, &recovered).unwrap();
    assert_eq!(env.file_bytes(&path(2)), None);
    let (numbers, again) = recover_from(&env, ends[1]).unwrap();
    assert_eq!((numbers, again.end, again.cut), (vec![1, 2], ends[1], None));
}

#[test]
fn a_segment_that_tells_of_durable_records_before_it_makes_their_loss_corruption() {
    let env = SimEnv::new(1);
    let end = append(&mut writer(&env, 1, Lsn::ZERO, Lsn::ZERO), 1, Lsn::ZERO);
    writer(&env, 2, end, end);
    assert!(recover_from(&env, Lsn::ZERO).is_ok());
    edit(&env, 1, |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(
        kind_of(recover_from(&env, Lsn::ZERO)),
        ErrorKind::Corruption
    );
}

#[test]
fn torn_headers_hold_nothing() {
    let (env, ends) = two_segments();
    // Created ahead, empty; and half a header.
    env.set_file_bytes(&path(3), b"");
    env.set_file_bytes(&path(4), [7; 30]);
    let (numbers, recovered) = recover_from(&env, ends[5]).unwrap();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert_eq!(recovered.cut.unwrap().keep, 2);
    // A segment behind them that goes on where the records end counts.
    append(&mut writer(&env, 5, ends[5], Lsn::ZERO), 7, Lsn::ZERO);
    let (numbers, recovered) = recover_from(&env, Lsn::ZERO).unwrap();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(
        (recovered.cut, recovered.spans[2..4].to_vec()),
        (None, vec![None, None])
    );
    // One that goes on behind records of a torn one does not.
    edit(&env, 2, |bytes| bytes[20] ^= 1);
    let (numbers, recovered) = recover_from(&env, Lsn::ZERO).unwrap();
    assert_eq!((numbers, recovered.cut.unwrap().keep), (vec![1, 2, 3], 1));
    assert_eq!(kind_of(recover_from(&env, ends[3])), ErrorKind::Corruption);
}

#[test]
fn a_torn_header_does_not_hide_what_its_records_tell() {
    let (env, ends) = two_segments();
    let mut third = writer(&env, 3, ends[5], Lsn::ZERO);
    let end = append(&mut third, 7, Lsn::ZERO);
    append(&mut third, 8, end);
    edit(&env, 3, |bytes| bytes[20] ^= 1);
    assert_eq!(
        kind_of(recover_from(&env, Lsn::ZERO)),
        ErrorKind::Corruption
    );
}

#[test]
fn only_a_first_segment_that_never_held_anything_may_have_a_torn_header() {
    let env = SimEnv::new(1);
    env.set_file_bytes(&path(1), [0; SEGMENT_HEADER_LEN]);
    let (_, recovered) = recover_from(&env, Lsn::ZERO).unwrap();
    assert_eq!(
        recovered.cut,
        Some(Cut {
            keep: 0,
            file_len: 0
        })
    );
    let (env, _) = two_segments();
    edit(&env, 1, |bytes| bytes[3] ^= 1);
    assert_eq!(
        kind_of(recover_from(&env, Lsn::ZERO)),
        ErrorKind::Corruption
    );
}

#[test]
fn files_of_other_journals_are_named() {
    for (kind, journal_id, segment) in [(*b"ELSE", ID, 2), (KIND, 7, 2), (KIND, ID, 3)] {
        let (env, ends) = two_segments();
        let header = SegmentHeader {
            kind,
            journal_id,
            segment,
            base: ends[2],
            durable: Lsn::ZERO,
            has_stage: false,
        };
        env.set_file_bytes(&path(2), header.encode());
        assert_eq!(
            kind_of(recover_from(&env, Lsn::ZERO)),
            ErrorKind::Corruption
        );
    }
    let (env, _) = two_segments();
    edit(&env, 2, |bytes| {
        bytes[8] = 3;
        let crc = crc32_at(ID, 2, &[&bytes[..SEGMENT_CRC_POS]]);
        bytes[SEGMENT_CRC_POS..SEGMENT_HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(
        kind_of(recover_from(&env, Lsn::ZERO)),
        ErrorKind::Unsupported
    );
}

#[test]
fn records_elsewhere_do_not_count() {
    // The same bytes one record further, as a stale block would be.
    let (env, ends) = two_segments();
    let len = usize::try_from(ends[0].0).unwrap();
    edit(&env, 1, |bytes| {
        let first = bytes[SEGMENT_HEADER_LEN..SEGMENT_HEADER_LEN + len].to_vec();
        bytes.truncate(SEGMENT_HEADER_LEN + len);
        bytes.extend(first);
    });
    assert_eq!(recover_from(&env, Lsn::ZERO).unwrap().0, [1]);
}

#[test]
fn a_length_beyond_the_file_ends_the_records() {
    let (env, ends) = two_segments();
    edit(&env, 2, |bytes| {
        let place = Place::new(KIND, ID, 2);
        let header = RecordHeader {
            payload_len: 1 << 30,
            durable: Lsn::ZERO,
            payload_crc: 0,
        };
        header.encode_into(place, ends[5], bytes);
        bytes.push(1);
    });
    assert_eq!(recover_from(&env, ends[5]).unwrap().1.end, ends[5]);
}

#[test]
fn too_long_payloads_break_nothing() {
    let env = SimEnv::new(1);
    let mut writer = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    let long = vec![0; PAYLOAD_LEN_MAX + 1];
    assert_eq!(
        kind_of(writer.append(&[&long], Lsn::ZERO)),
        ErrorKind::InvalidArgument
    );
    let most = &long[..PAYLOAD_LEN_MAX];
    assert_eq!(
        kind_of(writer.append(&[most, most], Lsn::ZERO)),
        ErrorKind::InvalidArgument
    );
    append(&mut writer, 1, Lsn::ZERO);
}

#[test]
fn every_flip_and_truncation_of_a_closed_journal_is_told() {
    let (env, ends) = two_segments();
    let all = recover_from(&env, ends[5]).unwrap().0;
    for segment in [1, 2] {
        let bytes = env.file_bytes(&path(segment)).unwrap();
        for at in 0..bytes.len() {
            for damaged in [
                [
                    &bytes[..at],
                    &[bytes[at] ^ (1 << (at % 8))],
                    &bytes[at + 1..],
                ]
                .concat(),
                bytes[..at].to_vec(),
            ] {
                env.set_file_bytes(&path(segment), damaged);
                match recover_from(&env, ends[5]) {
                    Ok((numbers, _)) => assert_eq!(numbers, all, "{segment}: {at}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption),
                }
            }
        }
        env.set_file_bytes(&path(segment), bytes);
    }
}

#[test]
fn a_crash_anywhere_in_the_cut_changes_nothing_that_counts() {
    let (env, ends) = two_segments();
    append(&mut writer(&env, 3, ends[5], Lsn::ZERO), 7, ends[3]);
    env.set_file_bytes(&path(4), b"");
    edit(&env, 2, |bytes| bytes.truncate(bytes.len() - 1));
    // Durable, so that the test can tell what counts after each crash.
    for segment in [1, 3] {
        edit(&env, segment, |_| ());
    }
    let (numbers, recovered) = recover_from(&env, Lsn::ZERO).unwrap();
    assert_eq!((numbers.len(), recovered.cut.unwrap().keep), (5, 2));
    env.record(true);
    cut(&env, Path::new("."), &files(&env), None, &recovered).unwrap();
    env.record(false);
    let mut images: Vec<_> = env
        .take_recorded()
        .into_iter()
        .map(|(_, image)| image)
        .collect();
    images.push(env.capture());
    for (at, image) in images.iter().enumerate() {
        for policy in CrashPolicy::ALL {
            let crashed = image.crash(*policy, 3);
            let (numbers, recovered) = recover_from(&crashed, Lsn::ZERO).unwrap();
            assert_eq!(numbers, [1, 2, 3, 4, 5], "I/O {at}, {policy:?}");
            cut(&crashed, Path::new("."), &files(&crashed), None, &recovered).unwrap();
            assert_eq!(recover_from(&crashed, Lsn::ZERO).unwrap().1.cut, None);
        }
    }
}

#[test]
fn bytes_that_a_failed_sync_gave_up_are_written_again() {
    let env = SimEnv::new(1);
    let mut writer = writer(&env, 1, Lsn::ZERO, Lsn::ZERO);
    env.sync_dir(Path::new(".")).unwrap();
    writer.file().sync().unwrap();
    let end = append(&mut writer, 1, Lsn::ZERO);
    env.set_fault(FaultPlan::once(env.io_count(), FaultKind::Eio));
    assert_eq!(kind_of(writer.file().sync()), ErrorKind::Io);
    let killed = env.capture().crash(CrashPolicy::Kill, 1);
    let (numbers, recovered) = recover_from(&killed, Lsn::ZERO).unwrap();
    assert_eq!(numbers, [1]);
    cut(&killed, Path::new("."), &files(&killed), None, &recovered).unwrap();
    let lost = killed.capture().crash(CrashPolicy::MaxLoss, 1);
    assert_eq!(recover_from(&lost, end).unwrap().0, [1]);
}
