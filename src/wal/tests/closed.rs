//! A close of a log of which nothing is needed: the next open has nothing to look through.

use super::*;

/// A segment is long from the first record on.
const LONG: Shape = Shape {
    segment_bytes_max: 4000,
    stage_bytes: 0,
    ahead_bytes: 0,
};

fn all_flushed(_: u32) -> SeqNo {
    SeqNo::MAX
}

fn log_of_twelve() -> (SimEnv, Wal, Lsn) {
    let env = new_env();
    let (wal, _) = open_as(&env, LONG, 0, Lsn::ZERO).unwrap();
    let end = put_all(&wal, 1..=12);
    (env, wal, end)
}

#[test]
fn nothing_is_looked_through_after_a_close_with_everything_flushed() {
    let (env, wal, end) = log_of_twelve();
    assert_eq!(wal.close(&all_flushed).unwrap(), end);
    assert_eq!(wal_files(&env), [1, 2]);
    let first = wal.retirable(&all_flushed).unwrap();
    assert_eq!(first, 2);
    let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
    for first_needed in [1, first] {
        let env = lost.capture().crash(CrashPolicy::Kill, 1);
        let (wal, seen) = open_as(&env, LONG, first_needed, end).unwrap();
        assert_eq!(seen.is_empty(), first_needed == first);
        assert_eq!(wal.end(), end);
    }
    wal.remove_before(first).unwrap();
    assert_eq!(wal_files(&env), [2]);
    let (wal, seen) = open_as(&env, LONG, first, end).unwrap();
    assert!(seen.is_empty());
    put(&wal, 13).unwrap();
    assert_eq!(open_as(&env, LONG, first, end).unwrap().1, [13]);
}

#[test]
fn what_one_keyspace_needs_and_what_is_short_stays() {
    // The newest write of keyspace 2 is number 11.
    for (needed, is_left) in [(10, false), (11, true)] {
        let (env, wal, end) = log_of_twelve();
        let flushed = |id: u32| if id == 2 { SeqNo(needed) } else { SeqNo::MAX };
        assert_eq!(wal.close(&flushed).unwrap(), end);
        let files: &[u64] = if is_left { &[1, 2] } else { &[1] };
        assert_eq!(wal_files(&env), files);
        assert_eq!(wal.retirable(&flushed), is_left.then_some(2));
    }
    let shape = Shape {
        segment_bytes_max: 1 << 20,
        ..LONG
    };
    let env = new_env();
    for count in [0, 12] {
        let (wal, _) = open_as(&env, shape, 0, Lsn::ZERO).unwrap();
        put_all(&wal, 1..=count);
        let files = wal_files(&env);
        wal.close(&all_flushed).unwrap();
        assert_eq!(wal_files(&env), files);
    }
}

#[test]
fn a_close_that_cannot_begin_a_segment_leaves_the_log_as_it_is() {
    for kind in FaultKind::ALL {
        // The first is the sync of what is there; then a file is created and its header written.
        for at in 1..3 {
            let (env, wal, end) = log_of_twelve();
            wal.sync_to(end).unwrap();
            fail_next(&env, at, *kind);
            assert_eq!(wal.close(&all_flushed).unwrap(), end, "{kind:?} at {at}");
            env.clear_faults();
            assert_eq!(wal.retirable(&all_flushed), None);
            let (_, seen) = open_as(&env, LONG, 1, end).unwrap();
            assert_eq!(seen, (1..=12).collect::<Vec<_>>(), "{kind:?} at {at}");
        }
    }
}

#[test]
fn a_close_whose_sync_fails_says_so_and_loses_nothing() {
    for kind in FaultKind::ALL {
        // The sync of what is there, and those of the new file and of the directory.
        for at in [0, 3, 4] {
            let (env, wal, end) = log_of_twelve();
            wal.sync_to(end).unwrap();
            fail_next(&env, at, *kind);
            let result = wal.close(&all_flushed);
            env.clear_faults();
            assert_eq!(kind_of(result), ErrorKind::Poisoned, "{kind:?} at {at}");
            let (_, seen) = open_as(&env, LONG, 1, end).unwrap();
            assert_eq!(seen, (1..=12).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_crash_anywhere_in_a_close_loses_nothing() {
    let (env, wal, end) = log_of_twelve();
    wal.sync_to(end).unwrap();
    env.record(true);
    wal.close(&all_flushed).unwrap();
    env.record(false);
    let images = env.take_recorded();
    assert!(images.len() > 3);
    for (at, image) in images {
        for policy in CrashPolicy::ALL {
            let (_, seen) = open_as(&image.crash(*policy, at), LONG, 1, end).unwrap();
            assert_eq!(seen, (1..=12).collect::<Vec<_>>(), "I/O {at}, {policy:?}");
        }
    }
}
