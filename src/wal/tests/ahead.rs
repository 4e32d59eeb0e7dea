//! Zeros ahead of records: when they are written, that they count, and that none is a record.

use super::*;
use crate::journal::SEGMENT_HEADER_LEN;

const SEGMENT_LEN: u64 = 8000;
const AHEAD_LEN: u64 = 1600;
/// Above this, on average, records need no zeros.
const SMALL: u64 = AHEAD_LEN / 16;

fn shape() -> Shape {
    Shape {
        segment_bytes_max: SEGMENT_LEN,
        stage_bytes: 0,
        ahead_bytes: AHEAD_LEN,
    }
}

fn open(env: &SimEnv) -> (Wal, Vec<u32>) {
    open_as(env, shape(), 0, Lsn::ZERO).unwrap()
}

fn put_and_sync(wal: &Wal, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        let end = put(wal, n).unwrap();
        wal.sync_to(end).unwrap();
        assert_eq!(wal.durable(), end);
    }
}

fn file_len(env: &SimEnv, number: u64) -> u64 {
    env.file_bytes(&wal_path(number)).unwrap().len() as u64
}

/// Length of the first segment without zeros.
fn records_len(wal: &Wal) -> u64 {
    SEGMENT_HEADER_LEN as u64 + wal.end().0
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn the_fourth_sync_of_small_records_writes_zeros_and_those_after_it_do_not() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_and_sync(&wal, 1..=3);
    assert_eq!(file_len(&env, 1), records_len(&wal));
    put_and_sync(&wal, 4..=4);
    let len = records_len(&wal) + AHEAD_LEN;
    assert_eq!(file_len(&env, 1), len);
    let before = env.io_count();
    put_and_sync(&wal, 5..=14);
    assert_eq!(env.io_count() - before, 20, "a write and a sync each");
    assert_eq!(file_len(&env, 1), len);
    assert_eq!(wal.bytes(), len);
    assert_eq!(wal.bytes_written(), records_len(&wal) + AHEAD_LEN);
    // They are used up, and the next ones follow behind the records.
    put_and_sync(&wal, 15..=55);
    assert!(records_len(&wal) > len);
    assert!(file_len(&env, 1) > len + AHEAD_LEN / 2);
    assert_eq!(wal.bytes_written(), records_len(&wal) + 2 * AHEAD_LEN);
    for policy in CrashPolicy::ALL {
        let crashed = env.capture().crash(*policy, 1);
        assert_eq!(open(&crashed).1, numbers(1..=55));
        assert_eq!(file_len(&crashed, 1), records_len(&wal), "cut by recovery");
    }
}

#[test]
fn no_zeros_are_written_without_syncs_nor_for_large_ones() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..=12);
    assert_eq!(wal.bytes_written(), records_len(&wal));
    for n in 13..=30 {
        let from = wal.end();
        while wal.end().0 - from.0 <= SMALL {
            put(&wal, n).unwrap();
        }
        wal.sync_to(wal.end()).unwrap();
    }
    assert_eq!(wal.bytes_written(), records_len(&wal));
    // What came before does not hide that records are small now.
    put_and_sync(&wal, 31..=38);
    assert_eq!(wal.bytes_written(), records_len(&wal) + AHEAD_LEN);
}

#[test]
fn zeros_end_with_their_segment() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_and_sync(&wal, 1..=200);
    assert!(wal_files(&env).len() > 1);
    let first = file_len(&env, 1);
    assert!((SEGMENT_LEN..SEGMENT_LEN + 100).contains(&first), "{first}");
    assert_eq!(
        open(&env.capture().crash(CrashPolicy::MaxLoss, 1)).1,
        numbers(1..=200)
    );
}

#[test]
fn a_close_takes_the_zeros_away() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_and_sync(&wal, 1..=10);
    assert!(file_len(&env, 1) > records_len(&wal));
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    assert_eq!(file_len(&env, 1), records_len(&wal));
    assert_eq!(wal.bytes(), records_len(&wal));
    let (_, seen) = open_as(&env, shape(), 0, end).unwrap();
    assert_eq!(seen, numbers(1..=10));
}

#[test]
fn a_lost_record_in_front_of_zeros_is_damage_where_it_was_durable() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_and_sync(&wal, 1..=10);
    let mut bytes = env.file_bytes(&wal_path(1)).unwrap();
    // The last record, of which nothing but a close tells that it was durable, becomes zeros.
    let from = usize::try_from(records_len(&wal)).unwrap() - batch(10).len() - 20;
    bytes[from..].fill(0);
    env.set_file_bytes(&wal_path(1), bytes);
    let image = env.capture();
    let (_, seen) = open(&image.crash(CrashPolicy::Kill, 1));
    assert_eq!(seen, numbers(1..=9));
    let told = open_as(
        &image.crash(CrashPolicy::Kill, 1),
        shape(),
        0,
        wal.durable(),
    );
    assert_eq!(kind_of(told), ErrorKind::Corruption);
}

#[test]
fn a_disk_without_room_for_zeros_keeps_what_it_has_room_for() {
    for kind in FaultKind::ALL {
        let env = new_env();
        let (wal, _) = open(&env);
        put_and_sync(&wal, 1..=3);
        let end = put(&wal, 4).unwrap();
        fail_next(&env, 0, *kind);
        wal.sync_to(end).unwrap();
        env.clear_faults();
        assert_eq!(wal.durable(), end, "{kind:?}");
        assert_eq!(file_len(&env, 1), records_len(&wal), "{kind:?}");
        assert_eq!(wal.bytes(), records_len(&wal));
        put_and_sync(&wal, 5..=8);
        assert_eq!(file_len(&env, 1), records_len(&wal) + AHEAD_LEN);
        let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(open(&lost).1, numbers(1..=8));
    }
}

#[test]
fn a_failed_append_over_zeros_is_void() {
    for kind in FaultKind::ALL {
        let env = new_env();
        let (wal, _) = open(&env);
        put_and_sync(&wal, 1..=10);
        let len = records_len(&wal);
        fail_next(&env, 0, *kind);
        assert_eq!(kind_of(put(&wal, 11)), ErrorKind::Io);
        env.clear_faults();
        assert_eq!((file_len(&env, 1), wal.bytes()), (len, len), "{kind:?}");
        put_and_sync(&wal, [12]);
        let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(open(&lost).1, [numbers(1..=10), vec![12]].concat());
    }
}
