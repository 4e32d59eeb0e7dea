//! What is synced before tables are written, and where segments end for them.

use super::*;
use crate::journal::SEGMENT_HEADER_LEN;

/// Writes of keyspace 0 alone.
fn of_one(numbers: std::ops::Range<u32>) -> impl Iterator<Item = u32> {
    numbers.map(|n| 3 * n)
}

fn all_flushed(_: u32) -> SeqNo {
    SeqNo::MAX
}

#[test]
fn of_one_keyspace_only_a_header_is_synced_and_the_log_can_begin_there() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, of_one(1..20));
    let last = *wal_files(&env).last().unwrap();
    assert!(last > 3);
    assert_eq!(wal.retirable(&all_flushed), None);
    wal.sync_for_tables().unwrap();
    assert_eq!(wal.durable(), Lsn::ZERO);
    let synced = env.io_count();
    wal.sync_for_tables().unwrap();
    assert_eq!(env.io_count(), synced, "once is enough");
    let image = env.capture().crash(CrashPolicy::MaxLoss, 1);
    // A prefix of the writes, if the tables did not come about.
    assert_eq!(open(&image).1, []);
    assert_eq!(wal.retirable(&all_flushed), Some(last));
    wal.remove_before(last).unwrap();
    let image = env.capture().crash(CrashPolicy::MaxLoss, 1);
    let (again, _) = open_at(&image, last, Lsn::ZERO).unwrap();
    assert_eq!(again.first_segment(), last);
    // A sync makes up for what was left out, and counts for everything.
    put_all(&wal, of_one(20..40));
    wal.sync_to(wal.end()).unwrap();
    assert_eq!(wal.durable(), wal.end());
    let image = env.capture().crash(CrashPolicy::MaxLoss, 1);
    let (_, seen) = open_at(&image, last, wal.durable()).unwrap();
    assert!(seen.ends_with(&of_one(20..40).collect::<Vec<_>>()));
}

#[test]
fn of_more_than_one_keyspace_everything_is_synced() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..3);
    wal.sync_for_tables().unwrap();
    assert_eq!(wal.durable(), wal.end());
    // What is durable is no reason for another sync, once its segment has ended.
    put_all(&wal, of_one(1..20));
    wal.sync_to(wal.end()).unwrap();
    let durable = wal.durable();
    put_all(&wal, of_one(20..40));
    wal.sync_for_tables().unwrap();
    assert_eq!(wal.durable(), durable);
    put_all(&wal, [100]);
    wal.sync_for_tables().unwrap();
    assert_eq!(wal.durable(), wal.end());
}

#[test]
fn a_header_that_cannot_be_synced_stops_the_log() {
    for kind in FaultKind::ALL {
        for at in 0.. {
            let env = new_env();
            let (wal, _) = open(&env);
            put_all(&wal, of_one(1..20));
            let before = env.io_count();
            fail_next(&env, at, *kind);
            let result = wal.sync_for_tables();
            env.clear_faults();
            if env.io_count() - before <= at {
                assert!(at > 1, "a file and a directory are synced");
                result.unwrap();
                break;
            }
            assert_eq!(kind_of(result), ErrorKind::Poisoned, "{kind:?} at {at}");
            assert_eq!(kind_of(put(&wal, 60)), ErrorKind::Poisoned);
            assert_eq!(wal.retirable(&all_flushed), None);
        }
    }
}

#[test]
fn staged_records_are_written_before_tables_are() {
    for kind in FaultKind::ALL {
        let env = new_env();
        let shape = Shape {
            stage_bytes: 400,
            ..UNSTAGED
        };
        let (wal, _) = open_as(&env, shape, 0, Lsn::ZERO).unwrap();
        put_all(&wal, of_one(1..3));
        let written = env.file_bytes(&wal_path(1)).unwrap().len();
        assert_eq!(written, SEGMENT_HEADER_LEN);
        fail_next(&env, 0, *kind);
        assert_eq!(kind_of(wal.sync_for_tables()), ErrorKind::Io, "{kind:?}");
        env.clear_faults();
        wal.sync_for_tables().unwrap();
        let len = env.file_bytes(&wal_path(1)).unwrap().len() as u64;
        assert_eq!(len, wal.bytes());
    }
}

#[test]
fn a_segment_ends_where_a_memtable_does_if_it_is_half_full() {
    let env = new_env();
    let (wal, _) = open(&env);
    wal.end_segment(HALF_PARTS);
    put_all(&wal, [3]);
    wal.end_segment(HALF_PARTS);
    assert_eq!(wal_files(&env), [1], "hardly begun");
    put_all(&wal, of_one(2..4));
    let before = wal_files(&env).len();
    wal.end_segment(HALF_PARTS);
    assert_eq!(wal_files(&env).len(), before + 1);
    put_all(&wal, [12]);
    wal.sync_for_tables().unwrap();
    let last = *wal_files(&env).last().unwrap();
    assert_eq!(wal.retirable(&all_flushed), Some(last));
    assert_eq!(open(&env).1, [3, 6, 9, 12]);
}

#[test]
fn where_the_next_segment_cannot_be_begun_an_append_tries_again() {
    for kind in FaultKind::ALL {
        for at in 0.. {
            let env = new_env();
            let (wal, _) = open(&env);
            put_all(&wal, of_one(1..4));
            let (first, before) = (wal.bytes(), env.io_count());
            fail_next(&env, at, *kind);
            wal.end_segment(HALF_PARTS);
            env.clear_faults();
            if env.io_count() - before <= at {
                assert!(at > 1, "a file is created and written");
                break;
            }
            put_all(&wal, [12]);
            let file = env.file_bytes(&wal_path(1)).unwrap();
            assert_eq!(file.len() as u64, first, "{kind:?} at {at}: nothing behind");
            wal.sync_to(wal.end()).unwrap();
            for policy in CrashPolicy::ALL {
                let image = env.capture().crash(*policy, 1);
                assert_eq!(open(&image).1, [3, 6, 9, 12], "{kind:?} at {at}");
            }
        }
    }
}
