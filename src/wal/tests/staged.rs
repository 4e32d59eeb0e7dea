//! The stage: what it keeps, what it must not bring back, and what goes wrong around it.

use super::*;
use crate::checksum::crc32_at;
use crate::journal::{SEGMENT_HEADER_LEN, SegmentHeader};

/// A few records fill it.
const STAGE_BYTES: u64 = 400;

fn shape() -> Shape {
    Shape {
        segment_bytes_max: 2000,
        stage_bytes: STAGE_BYTES,
        ahead_bytes: 0,
    }
}

fn open(env: &SimEnv) -> (Wal, Vec<u32>) {
    open_as(env, shape(), 0, Lsn::ZERO).unwrap()
}

fn open_closed(env: &SimEnv, floor: Lsn) -> Result<Vec<u32>> {
    open_as(env, shape(), 1, floor).map(|(_, seen)| seen)
}

fn stage_path() -> PathBuf {
    Path::new(DIR).join(STAGE_NAME)
}

fn segment_len(env: &SimEnv, number: u64) -> usize {
    env.file_bytes(&wal_path(number)).unwrap().len()
}

fn after(env: &SimEnv, policy: CrashPolicy) -> Vec<u32> {
    open(&env.capture().crash(policy, 1)).1
}

fn put_synced(wal: &Wal, n: u32) -> Result<Lsn> {
    let holders = [(n % 3, SeqNo(u64::from(n)))];
    wal.append(&[&batch(n)], &holders, Durability::Synced)
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    range.collect()
}

/// A log whose stage holds the last of ten records, and which records its segment holds.
fn half_staged() -> (SimEnv, Wal, u32) {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..=10);
    let stage = env.file_bytes(&stage_path()).unwrap();
    env.remove_file(&stage_path()).unwrap();
    let in_segment = after(&env, CrashPolicy::Kill).len();
    env.set_file_bytes(&stage_path(), stage);
    assert!((2..9).contains(&in_segment), "{in_segment}");
    (env, wal, u32::try_from(in_segment).unwrap())
}

#[test]
fn what_is_staged_survives_a_kill_and_then_everything() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..=4);
    assert_eq!(
        segment_len(&env, 1),
        SEGMENT_HEADER_LEN,
        "nothing is written"
    );
    assert_eq!(after(&env, CrashPolicy::MaxLoss), []);
    let killed = env.capture().crash(CrashPolicy::Kill, 1);
    let (again, seen) = open(&killed);
    assert_eq!(seen, [1, 2, 3, 4]);
    assert!(
        killed.file_bytes(&stage_path()).is_none(),
        "it is of no use any more"
    );
    assert_eq!(again.end(), wal.end());
    assert_eq!(after(&killed, CrashPolicy::MaxLoss), [1, 2, 3, 4]);
    // The next records are staged for the new segment.
    put_all(&again, 5..=6);
    assert_eq!(after(&killed, CrashPolicy::Kill), numbers(1..=6));
}

#[test]
fn many_records_take_one_write() {
    let env = new_env();
    let (wal, _) = open(&env);
    put(&wal, 1).unwrap();
    let (mut lens, before) = (vec![segment_len(&env, 1)], env.io_count());
    for n in 2..=30 {
        put(&wal, n).unwrap();
        lens.push(segment_len(&env, 1));
    }
    let stores = 29;
    lens.dedup();
    let fillings = lens.len() as u64 - 1;
    assert!((3..7).contains(&fillings), "{lens:?}");
    // A filling is a write and a header.
    assert_eq!(env.io_count() - before, stores + 2 * fillings);
    // A sync writes what is left, once, and then the window is used on.
    let (before, end) = (env.io_count(), wal.end());
    wal.sync_to(end).unwrap();
    assert_eq!(env.io_count() - before, 2);
    assert_eq!(after(&env, CrashPolicy::MaxLoss), numbers(1..=30));
    wal.sync_to(end).unwrap();
    assert_eq!(env.io_count() - before, 2);
}

#[test]
fn counts_know_what_is_staged() {
    let env = new_env();
    let (wal, _) = open(&env);
    let header = SEGMENT_HEADER_LEN as u64;
    assert_eq!(wal.bytes_written(), header);
    let end = put_all(&wal, 1..=4);
    assert_eq!((wal.end(), wal.bytes()), (end, header + end.0));
    assert_eq!(wal.bytes_written(), header + end.0 + STAGE_BYTES);
    wal.sync_to(end).unwrap();
    assert_eq!(wal.bytes_written(), header + end.0 + STAGE_BYTES);
    assert_eq!(segment_len(&env, 1) as u64, wal.bytes());
}

#[test]
fn long_records_and_synced_ones_are_written_behind_what_is_staged() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..=2);
    // Batch 17 is the longest: with its neighbour it is too long for the stage.
    let holders = [(2, SeqNo(17)), (0, SeqNo(18))];
    let payloads = [batch(17), batch(17), batch(17)];
    let payloads = payloads.each_ref().map(Vec::as_slice);
    wal.append(&payloads, &holders, Durability::Buffered)
        .unwrap();
    assert_eq!(segment_len(&env, 1) as u64, wal.bytes());
    put(&wal, 3).unwrap();
    assert!((segment_len(&env, 1) as u64) < wal.bytes());
    let synced = put_synced(&wal, 4).unwrap();
    assert_eq!(segment_len(&env, 1) as u64, wal.bytes());
    put(&wal, 5).unwrap();
    let expected = [1, 2, 17, 17, 17, 3, 4, 5];
    assert_eq!(after(&env, CrashPolicy::Kill), expected);
    wal.sync_to(synced).unwrap();
    assert_eq!(after(&env, CrashPolicy::MaxLoss), expected);
}

#[test]
fn a_failed_write_of_what_is_staged_loses_nothing_and_keeps_nothing_else() {
    for kind in FaultKind::ALL {
        let env = new_env();
        let (wal, _) = open(&env);
        let mut written = 0;
        // From the first write of staged records on, all writes fail.
        for n in 1.. {
            let before = segment_len(&env, 1);
            env.set_fault(FaultPlan::starting(env.io_count(), *kind));
            let result = if n == 1 {
                // The stage itself is made while all is well.
                env.clear_faults();
                put(&wal, n)
            } else {
                put(&wal, n)
            };
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Io, "{kind:?}");
                assert!(before == SEGMENT_HEADER_LEN);
                break;
            }
            written = n;
        }
        assert!(written > 4);
        for n in [50, 51, 59] {
            assert_eq!(kind_of(put(&wal, n)), ErrorKind::Io);
            assert_eq!(kind_of(put_synced(&wal, n)), ErrorKind::Io);
            assert_eq!(kind_of(wal.sync_to(wal.end())), ErrorKind::Io);
            assert_eq!(kind_of(wal.close(&|_| SeqNo::ZERO)), ErrorKind::Io);
            assert_eq!(
                after(&env, CrashPolicy::Kill),
                numbers(1..=written),
                "{kind:?}"
            );
        }
        env.clear_faults();
        // Nothing was poisoned, and nothing that was refused comes back.
        put_all(&wal, written + 1..=written + 3);
        let expected = numbers(1..=written + 3);
        assert_eq!(after(&env, CrashPolicy::Kill), expected, "{kind:?}");
        let end = wal.close(&|_| SeqNo::ZERO).unwrap();
        for policy in CrashPolicy::ALL {
            let crashed = env.capture().crash(*policy, 1);
            assert_eq!(open_closed(&crashed, end).unwrap(), expected, "{kind:?}");
        }
    }
}

#[test]
fn a_roll_that_cannot_write_what_is_staged_fails_and_is_repeated() {
    let env = new_env();
    let (wal, _) = open(&env);
    let mut last = 0;
    for n in 1.. {
        let is_full = wal.bytes() >= 2000;
        if is_full {
            // Something is staged, and the segment may not take more.
            assert!((segment_len(&env, 1) as u64) < wal.bytes());
            fail_next(&env, 0, FaultKind::ShortWrite);
            assert_eq!(kind_of(put(&wal, n)), ErrorKind::Io);
            break;
        }
        put(&wal, n).unwrap();
        last = n;
    }
    assert_eq!(wal_files(&env), [1]);
    assert_eq!(after(&env, CrashPolicy::Kill), numbers(1..=last));
    put_all(&wal, last + 1..=last + 2);
    assert_eq!(wal_files(&env), [1, 2]);
    assert_eq!(after(&env, CrashPolicy::Kill), numbers(1..=last + 2));
}

#[test]
fn a_sync_needs_no_more_than_it_was_asked_for() {
    let env = new_env();
    let (wal, _) = open(&env);
    put(&wal, 1).unwrap();
    let synced = put_synced(&wal, 2).unwrap();
    let staged = put(&wal, 3).unwrap();
    env.set_capacity(Some(0));
    // The disk takes no more, but what this needs is in the segment.
    wal.sync_to(synced).unwrap();
    assert_eq!(wal.durable(), synced);
    assert_eq!(kind_of(wal.sync_to(staged)), ErrorKind::Io);
    assert_eq!(after(&env, CrashPolicy::MaxLoss), [1, 2]);
    env.set_capacity(None);
    wal.sync_to(staged).unwrap();
    assert_eq!(after(&env, CrashPolicy::MaxLoss), [1, 2, 3]);
}

#[test]
fn a_failed_append_behind_staged_records_is_void() {
    for kind in FaultKind::ALL {
        let env = new_env();
        let (wal, _) = open(&env);
        put_all(&wal, 1..=3);
        // The staged ones are written, then the write of this one fails, and the cut too.
        env.set_fault(FaultPlan::starting(env.io_count() + 1, *kind));
        assert_eq!(kind_of(put_synced(&wal, 50)), ErrorKind::Io);
        env.clear_faults();
        // Its position is that of another record now, in the next segment and its stage.
        put_all(&wal, 4..=6);
        assert_eq!(wal_files(&env), [1, 2]);
        assert_eq!(after(&env, CrashPolicy::Kill), numbers(1..=6), "{kind:?}");
        let end = wal.close(&|_| SeqNo::ZERO).unwrap();
        let crashed = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(open_closed(&crashed, end).unwrap(), numbers(1..=6));
    }
}

#[test]
fn a_failed_sync_stops_the_log_with_what_is_staged() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..=3);
    fail_next(&env, 1, FaultKind::Eio);
    assert_eq!(kind_of(wal.sync_to(wal.end())), ErrorKind::Poisoned);
    assert_eq!(kind_of(put(&wal, 4)), ErrorKind::Poisoned);
    drop(wal);
    assert_eq!(open(&env).1, [1, 2, 3]);
    assert_eq!(after(&env, CrashPolicy::MaxLoss), [1, 2, 3]);
}

#[test]
fn without_a_map_records_are_written_one_by_one() {
    let env = new_env();
    let (wal, _) = open(&env);
    // Mapping is the first thing that is read.
    env.set_read_fault(env.read_count());
    put(&wal, 1).unwrap();
    assert_eq!(env.fault_count(), 1);
    for n in 2..=20 {
        put(&wal, n).unwrap();
        assert_eq!(segment_len(&env, 1) as u64, wal.bytes());
    }
    assert!(
        env.file_bytes(&stage_path()).is_none(),
        "nothing is left of the attempt"
    );
    // The next segment tries again.
    let mut n = 20;
    while wal_files(&env).len() == 1 {
        n += 1;
        put(&wal, n).unwrap();
    }
    assert_eq!(segment_len(&env, 2), SEGMENT_HEADER_LEN);
    assert_eq!(after(&env, CrashPolicy::Kill), numbers(1..=n));
}

#[test]
fn a_stage_that_cannot_be_made_is_no_error() {
    for kind in FaultKind::ALL {
        // The file, and what is written into it.
        for at in 0..2 {
            let env = new_env();
            let (wal, _) = open(&env);
            fail_next(&env, at, *kind);
            put_all(&wal, 1..=3);
            assert_eq!(env.fault_count(), 1);
            assert_eq!(segment_len(&env, 1) as u64, wal.bytes(), "{kind:?} {at}");
            assert!(env.file_bytes(&stage_path()).is_none());
            assert_eq!(after(&env, CrashPolicy::Kill), [1, 2, 3]);
        }
    }
}

#[test]
fn a_stage_of_another_time_tells_nothing_new() {
    let (env, wal, _) = half_staged();
    let stage = env.file_bytes(&stage_path()).unwrap();
    // The kill brings the log to segment 2, which goes on where 1 ends.
    let killed = env.capture().crash(CrashPolicy::Kill, 1);
    let (again, seen) = open(&killed);
    assert_eq!(seen, numbers(1..=10));
    put_all(&again, 11..=12);
    let end = again.close(&|_| SeqNo::ZERO).unwrap();
    killed.set_file_bytes(&stage_path(), &stage);
    assert_eq!(open_closed(&killed, end).unwrap(), numbers(1..=12));
    // The same, within one log.
    let mut n = 10;
    while wal_files(&env).len() == 1 {
        n += 1;
        put(&wal, n).unwrap();
    }
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    assert!(
        env.file_bytes(&stage_path()).is_none(),
        "a close leaves none"
    );
    env.set_file_bytes(&stage_path(), &stage);
    assert_eq!(open_closed(&env, end).unwrap(), numbers(1..=n));
    assert!(env.file_bytes(&stage_path()).is_none());
}

#[test]
fn the_number_of_a_segment_that_only_the_stage_tells_of_is_not_used_again() {
    let env = new_env();
    let (wal, _) = open(&env);
    let mut n = 0;
    while wal_files(&env).len() == 1 {
        n += 1;
        put(&wal, n).unwrap();
    }
    put(&wal, n + 1).unwrap();
    // Power loss: the name of segment 2 is gone, the stage is there.
    env.remove_file(&wal_path(2)).unwrap();
    let stage = env.file_bytes(&stage_path()).unwrap();
    let (again, seen) = open(&env);
    assert_eq!(seen, numbers(1..=n - 1));
    assert_eq!(wal_files(&env), [1, 3]);
    // Another record where the lost one was, and the removal of the stage is lost, too.
    let other = [&batch(n)[..4], &vec![1; batch(n).len() - 4]].concat();
    let holders = [(n % 3, SeqNo(u64::from(n)))];
    let end = again
        .append(&[&other], &holders, Durability::Synced)
        .unwrap();
    again.close(&|_| SeqNo::ZERO).unwrap();
    env.set_file_bytes(&stage_path(), &stage);
    let mut count = 0;
    let mut visit = |_: &[u8], _: &mut Holders| {
        count += 1;
        Ok(())
    };
    Wal::open(config_as(&env, shape()), 1, end, &mut visit).unwrap();
    assert_eq!(count, n, "the lost record came back");

    // No number above the highest.
    let header = SegmentHeader {
        kind: STAGE_KIND,
        journal_id: 7,
        segment: u64::MAX,
        base: Lsn::ZERO,
        durable: Lsn::ZERO,
        has_stage: false,
    };
    env.set_file_bytes(&stage_path(), header.encode());
    let mut visit = |_: &[u8], _: &mut Holders| Ok(());
    let result = Wal::open(config_as(&env, shape()), 1, end, &mut visit);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corruption);
}

#[test]
fn a_segment_that_lost_bytes_is_completed_by_the_stage_but_not_over_a_gap() {
    let (env, _wal, in_segment) = half_staged();
    let header = env.file_bytes(&stage_path()).unwrap();
    let base = u64::from_le_bytes(*header[28..].first_chunk().unwrap());
    let bytes = env.file_bytes(&wal_path(1)).unwrap();
    let at_base = SEGMENT_HEADER_LEN + usize::try_from(base).unwrap();
    assert_eq!(
        bytes.len(),
        at_base,
        "the window begins where the segment ends"
    );
    // A part of the next record does not matter, nor does garbage.
    for garbage in [&b""[..], &[1; 30], &[0; 500]] {
        let env = env.capture().crash(CrashPolicy::Kill, 1);
        env.set_file_bytes(&wal_path(1), [&bytes, garbage].concat());
        assert_eq!(open(&env).1, numbers(1..=10));
        assert_eq!(after(&env, CrashPolicy::MaxLoss), numbers(1..=10));
    }
    // A record is missing before the window.
    for len in SEGMENT_HEADER_LEN..at_base {
        let env = env.capture().crash(CrashPolicy::Kill, 1);
        env.set_file_bytes(&wal_path(1), &bytes[..len]);
        let (_, seen) = open(&env);
        let count = u32::try_from(seen.len()).unwrap();
        assert!(count < in_segment, "{len}: {seen:?}");
        assert_eq!(seen, numbers(1..=count));
    }
}

#[test]
fn a_segment_with_a_hole_that_the_stage_fills_goes_on_behind_it() {
    let (env, wal, in_segment) = half_staged();
    let stage = env.file_bytes(&stage_path()).unwrap();
    wal.sync_to(wal.end()).unwrap();
    let whole = env.file_bytes(&wal_path(1)).unwrap();
    let base = u64::from_le_bytes(*stage[28..].first_chunk().unwrap());
    let at_base = SEGMENT_HEADER_LEN + usize::try_from(base).unwrap();
    let first_len = 20 + batch(in_segment + 1).len();
    // Power loss: the file lost the first record of the window, the stage all but that.
    let mut torn = whole.clone();
    torn[at_base..at_base + first_len].fill(0);
    let mut first_only = stage;
    first_only[SEGMENT_HEADER_LEN + first_len..].fill(0);
    env.set_file_bytes(&wal_path(1), torn);
    env.set_file_bytes(&stage_path(), first_only);
    env.record(true);
    assert_eq!(open(&env).1, numbers(1..=10));
    env.record(false);
    assert_eq!(env.file_bytes(&wal_path(1)).unwrap(), whole);
    for (at, image) in env.take_recorded() {
        for policy in CrashPolicy::ALL {
            let again = image.crash(*policy, at);
            assert_eq!(open(&again).1, numbers(1..=10), "I/O {at}, {policy:?}");
        }
    }
}

#[test]
fn the_stage_tells_of_durable_records() {
    let env = new_env();
    let (wal, _) = open(&env);
    let end = put_all(&wal, 1..=3);
    wal.sync_to(end).unwrap();
    put(&wal, 4).unwrap();
    assert_eq!(after(&env, CrashPolicy::Kill), [1, 2, 3, 4]);
    // Nothing but the record in the stage was written since the sync.
    let bytes = env.file_bytes(&wal_path(1)).unwrap();
    for at in SEGMENT_HEADER_LEN..bytes.len() {
        let env = env.capture().crash(CrashPolicy::Kill, 1);
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        env.set_file_bytes(&wal_path(1), flipped);
        // The window begins at the first record, so that the stage may even heal it.
        match open_as(&env, shape(), 1, Lsn::ZERO) {
            Ok((_, seen)) => assert_eq!(seen, [1, 2, 3, 4], "{at}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{at}"),
        }
    }
    // Without the window's first record it heals from where the segment ends, or not at all.
    let mut stage = env.file_bytes(&stage_path()).unwrap();
    stage[SEGMENT_HEADER_LEN] ^= 1;
    let open_with = |segment: &[u8]| {
        let env = env.capture().crash(CrashPolicy::Kill, 1);
        env.set_file_bytes(&stage_path(), &stage);
        env.set_file_bytes(&wal_path(1), segment);
        open_as(&env, shape(), 1, Lsn::ZERO)
    };
    assert_eq!(
        open_with(&bytes[..bytes.len() - 1]).unwrap().1,
        [1, 2, 3, 4]
    );
    assert_eq!(
        kind_of(open_with(&bytes[..SEGMENT_HEADER_LEN])),
        ErrorKind::Corruption
    );
}

#[test]
fn every_flip_cut_and_loss_of_the_stage_leaves_a_prefix() {
    let (env, _wal, in_segment) = half_staged();
    let bytes = env.file_bytes(&stage_path()).unwrap();
    let look = |damaged: Option<Vec<u8>>, what: &str| {
        let env = env.capture().crash(CrashPolicy::Kill, 1);
        match damaged {
            Some(damaged) => env.set_file_bytes(&stage_path(), damaged),
            None => env.remove_file(&stage_path()).unwrap(),
        }
        match open_as(&env, shape(), 1, Lsn::ZERO) {
            Ok((_, seen)) => {
                let last = *seen.last().unwrap();
                assert!((in_segment..=10).contains(&last), "{what}: {seen:?}");
                assert_eq!(seen, numbers(1..=last), "{what}");
                last
            }
            Err(error) => panic!("{what}: {error}"),
        }
    };
    assert_eq!(look(None, "missing"), in_segment);
    assert_eq!(look(Some(Vec::new()), "empty"), in_segment);
    assert_eq!(look(Some(bytes.clone()), "whole"), 10);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        look(Some(flipped), &format!("flip at {at}"));
        look(Some(bytes[..at].to_vec()), &format!("cut at {at}"));
    }
}

#[test]
fn a_stage_of_another_journal_or_version_is_told() {
    let (env, _wal, _) = half_staged();
    let header = |kind, journal_id, segment| SegmentHeader {
        kind,
        journal_id,
        segment,
        base: Lsn::ZERO,
        durable: Lsn::ZERO,
        has_stage: false,
    };
    let others = [header(STAGE_KIND, 8, 1), header(KIND, 7, 1)];
    for other in others {
        env.set_file_bytes(&stage_path(), other.encode());
        let hash = env.content_hash();
        let error = open_as(&env, shape(), 0, Lsn::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.to_string().contains(STAGE_NAME), "{error}");
        assert_eq!(env.content_hash(), hash);
    }
    let mut newer = header(STAGE_KIND, 7, 1).encode();
    newer[8] = 3;
    let crc = crc32_at(7, 1, &[&newer[..SEGMENT_HEADER_LEN - 4]]);
    newer[SEGMENT_HEADER_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
    env.set_file_bytes(&stage_path(), newer);
    assert_eq!(
        kind_of(open_as(&env, shape(), 0, Lsn::ZERO)),
        ErrorKind::Unsupported
    );
    // One of a segment that is not there holds nothing.
    env.set_file_bytes(&stage_path(), header(STAGE_KIND, 7, 9).encode());
    open(&env);
}

#[test]
fn an_unreadable_stage_is_an_error_that_changes_nothing() {
    let (env, _wal, _) = half_staged();
    let hash = env.content_hash();
    // Every read of the open.
    let killed = || env.capture().crash(CrashPolicy::Kill, 1);
    let whole = killed();
    open(&whole);
    let mut errors = 0;
    for at in 0..whole.read_count() {
        let killed = killed();
        killed.set_read_fault(at);
        match open_as(&killed, shape(), 0, Lsn::ZERO) {
            Ok((_, seen)) => assert_eq!(seen, numbers(1..=10)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Io, "{at}");
                errors += 1;
                killed.clear_faults();
                assert_eq!(open(&killed).1, numbers(1..=10));
            }
        }
    }
    assert!(errors > 5, "{errors}");
    assert_eq!(env.content_hash(), hash);
}

#[test]
fn nothing_of_a_stage_is_left_by_the_removal_of_a_log() {
    let (env, _wal, _) = half_staged();
    for number in wal_files(&env) {
        env.remove_file(&wal_path(number)).unwrap();
    }
    let config = config_as(&env, shape());
    assert!(has_files(&config).unwrap());
    remove_all(&config).unwrap();
    assert!(!has_files(&config).unwrap());
    let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
    assert_eq!(lost.list_dir(Path::new(DIR)).unwrap(), [] as [&str; 0]);
}
