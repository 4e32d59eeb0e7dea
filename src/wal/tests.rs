use super::stage::STAGE_KIND;
use super::*;
use crate::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};

const DIR: &str = "db";

/// Segments this short roll after a few records.
const SEGMENT_BYTES_MAX: u64 = 200;

/// How long the files of a log are.
#[derive(Debug, Clone, Copy)]
struct Shape {
    segment_bytes_max: u64,
    stage_bytes: u64,
    ahead_bytes: u64,
}

/// Every record is written by itself.
const UNSTAGED: Shape = Shape {
    segment_bytes_max: SEGMENT_BYTES_MAX,
    stage_bytes: 0,
    ahead_bytes: 0,
};
/// Two or three records are staged, and longer ones never.
const STAGED: Shape = Shape {
    segment_bytes_max: 2 * SEGMENT_BYTES_MAX,
    stage_bytes: 250,
    ahead_bytes: 0,
};
/// The same, with zeros ahead of records up to the end of each segment, once syncs are many.
const AHEAD: Shape = Shape {
    segment_bytes_max: 3 * SEGMENT_BYTES_MAX,
    stage_bytes: 250,
    ahead_bytes: 2000,
};
const SHAPES: [Shape; 3] = [UNSTAGED, STAGED, AHEAD];

fn config_as(env: &SimEnv, shape: Shape) -> Config {
    Config {
        env: Arc::new(env.clone()),
        dir: PathBuf::from(DIR),
        journal_id: 7,
        segment_bytes_max: shape.segment_bytes_max,
        stage_bytes: shape.stage_bytes,
        ahead_bytes: shape.ahead_bytes,
    }
}

fn config(env: &SimEnv) -> Config {
    config_as(env, UNSTAGED)
}

fn new_env() -> SimEnv {
    let env = SimEnv::new(1);
    env.create_dir(Path::new(DIR)).unwrap();
    env.sync_dir(Path::new(".")).unwrap();
    env
}

/// The batch of number `n`: its keyspace is `n % 3`, its sequence number `n`.
fn batch(n: u32) -> Vec<u8> {
    let mut bytes = n.to_le_bytes().to_vec();
    bytes.resize(4 + (n as usize * 7) % 60, 0xee);
    bytes
}

fn put(wal: &Wal, n: u32) -> Result<Lsn> {
    let holders = [(n % 3, SeqNo(u64::from(n)))];
    wal.append(&[&batch(n)], &holders, Durability::Buffered)
}

fn put_all(wal: &Wal, numbers: impl IntoIterator<Item = u32>) -> Lsn {
    numbers
        .into_iter()
        .fold(Lsn::ZERO, |_, n| put(wal, n).unwrap())
}

fn open_at(env: &SimEnv, first_needed: u64, floor: Lsn) -> Result<(Wal, Vec<u32>)> {
    open_as(env, UNSTAGED, first_needed, floor)
}

fn open_as(env: &SimEnv, shape: Shape, first_needed: u64, floor: Lsn) -> Result<(Wal, Vec<u32>)> {
    let mut seen = Vec::new();
    let config = config_as(env, shape);
    let wal = Wal::open(config, first_needed, floor, &mut |bytes, holders| {
        let n = u32::from_le_bytes(*bytes.first_chunk().unwrap());
        assert_eq!(bytes, batch(n));
        holders.add(n % 3, SeqNo(u64::from(n)));
        seen.push(n);
        Ok(())
    })?;
    Ok((wal, seen))
}

fn open(env: &SimEnv) -> (Wal, Vec<u32>) {
    open_at(env, 0, Lsn::ZERO).unwrap()
}

fn wal_files(env: &SimEnv) -> Vec<u64> {
    let names = env.list_dir(Path::new(DIR)).unwrap();
    names
        .iter()
        .filter_map(|name| segment_number(name))
        .collect()
}

fn wal_path(number: u64) -> PathBuf {
    Path::new(DIR).join(segment_name(number))
}

fn fail_next(env: &SimEnv, skip: u64, kind: FaultKind) {
    env.set_fault(FaultPlan::once(env.io_count() + skip, kind));
}

fn kind_of<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn names_round_trip() {
    for number in [0, 1, 99_999_999, 100_000_000, u64::MAX] {
        assert_eq!(segment_number(&segment_name(number)), Some(number));
    }
    for name in [
        "1.wal",
        "+0000001.wal",
        "00000001.sst",
        "000000001.wal",
        "._00000001.wal",
    ] {
        assert_eq!(segment_number(name), None, "{name}");
    }
}

#[test]
fn what_was_written_is_replayed_over_segments_and_opens() {
    let env = new_env();
    let (wal, seen) = open(&env);
    assert!(seen.is_empty());
    let end = put_all(&wal, 1..30);
    assert!(wal_files(&env).len() > 5);
    assert_eq!((wal.end(), wal.durable()), (end, Lsn::ZERO));
    let on_disk: usize = wal_files(&env)
        .iter()
        .map(|number| env.file_bytes(&wal_path(*number)).unwrap().len())
        .sum();
    assert_eq!(
        (wal.bytes(), wal.bytes_written()),
        (on_disk as u64, on_disk as u64)
    );
    drop(wal);
    let (wal, seen) = open(&env);
    assert_eq!(seen, (1..30).collect::<Vec<_>>());
    assert_eq!((wal.end(), wal.durable()), (end, end));
    put_all(&wal, 30..40);
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    let (_, seen) = open_at(&env, wal.first_segment(), end).unwrap();
    assert_eq!(seen, (1..40).collect::<Vec<_>>());
}

#[test]
fn opening_again_and_again_leaves_no_empty_segments() {
    let env = new_env();
    put_all(&open(&env).0, 1..3);
    for _ in 0..5 {
        assert_eq!(open(&env).1, [1, 2]);
        assert_eq!(wal_files(&env).len(), 2);
    }
}

#[test]
fn a_sync_survives_power_loss_also_over_rolls() {
    let env = new_env();
    let (wal, _) = open(&env);
    for n in 1..20 {
        let lsn = put(&wal, n).unwrap();
        if n % 4 == 0 {
            wal.sync_to(lsn).unwrap();
            assert_eq!(wal.durable(), lsn);
        }
        let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(open(&lost).1, (1..=n / 4 * 4).collect::<Vec<_>>());
    }
}

#[test]
fn a_sync_of_what_is_durable_does_nothing() {
    let env = new_env();
    let (wal, _) = open(&env);
    let first = put(&wal, 1).unwrap();
    let second = put(&wal, 2).unwrap();
    wal.sync_to(first).unwrap();
    let count = env.io_count();
    wal.sync_to(second).unwrap();
    assert_eq!((env.io_count(), wal.durable()), (count, second));
}

#[test]
fn threads_that_sync_share_syncs() {
    let env = new_env();
    let (wal, _) = open(&env);
    std::thread::scope(|scope| {
        for part in 0..4 {
            let wal = &wal;
            scope.spawn(move || {
                for n in 0..50 {
                    let lsn = put(wal, part * 50 + n).unwrap();
                    wal.sync_to(lsn).unwrap();
                    assert!(wal.durable() >= lsn);
                }
            });
        }
    });
    let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
    let (_, mut seen) = open(&lost);
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_failed_append_is_void_and_the_next_goes_on_in_a_new_segment() {
    for kind in FaultKind::ALL {
        // With and without a record before the failed one.
        for before in [0, 1, 2] {
            let env = new_env();
            let (wal, _) = open(&env);
            let mut expected: Vec<u32> = (1..=before).collect();
            put_all(&wal, 1..=before);
            // The cut of the failed append fails too.
            let fault = FaultPlan::starting(env.io_count(), *kind);
            env.set_fault(fault);
            assert_eq!(kind_of(put(&wal, 50)), ErrorKind::Io);
            assert_eq!(kind_of(put(&wal, 51)), ErrorKind::Io);
            env.clear_faults();
            put_all(&wal, 3..6);
            expected.extend(3..6);
            assert_eq!(open(&env.capture().crash(CrashPolicy::Kill, 1)).1, expected);
            let end = wal.close(&|_| SeqNo::ZERO).unwrap();
            for policy in CrashPolicy::ALL {
                let crashed = env.capture().crash(*policy, 1);
                assert_eq!(
                    open_at(&crashed, wal.first_segment(), end).unwrap().1,
                    expected
                );
            }
            assert!(
                wal_files(&env).len() <= 3,
                "{kind:?} {before} {:?}",
                wal_files(&env)
            );
        }
    }
}

#[test]
fn a_full_disk_fails_appends_until_there_is_room() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..5);
    env.set_capacity(Some(wal.bytes() + 20));
    for _ in 0..200 {
        assert_eq!(kind_of(put(&wal, 50)), ErrorKind::Io);
    }
    env.set_capacity(None);
    put_all(&wal, 5..8);
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    assert!(wal_files(&env).len() < 6, "{:?}", wal_files(&env));
    assert_eq!(open_at(&env, 1, end).unwrap().1, (1..8).collect::<Vec<_>>());
}

#[test]
fn a_failed_sync_stops_the_log() {
    for skip in [0, 1] {
        let env = new_env();
        let (wal, _) = open(&env);
        // A roll, so that the directory is synced too.
        let end = put_all(&wal, 1..6);
        fail_next(&env, skip, FaultKind::Eio);
        assert_eq!(kind_of(wal.sync_to(end)), ErrorKind::Poisoned);
        env.clear_faults();
        assert_eq!(kind_of(wal.sync_to(end)), ErrorKind::Poisoned);
        assert_eq!(kind_of(put(&wal, 6)), ErrorKind::Poisoned);
        assert_eq!(kind_of(wal.prepare_next()), ErrorKind::Poisoned);
        assert_eq!(kind_of(wal.close(&|_| SeqNo::ZERO)), ErrorKind::Poisoned);
        assert_eq!(wal.durable(), Lsn::ZERO);
        // What the system still shows is made durable by the next open.
        drop(wal);
        let (wal, seen) = open(&env);
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        let end = put(&wal, 6).unwrap();
        wal.sync_to(end).unwrap();
        let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
        assert_eq!(open(&lost).1, [1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn a_prepared_segment_is_used_by_the_next_roll() {
    let env = new_env();
    let (wal, _) = open(&env);
    assert!(!wal.wants_next());
    put_all(&wal, 1..4);
    assert!(wal.wants_next());
    wal.prepare_next().unwrap();
    wal.prepare_next().unwrap();
    assert!(!wal.wants_next());
    assert_eq!(wal_files(&env), [1, 2]);
    // Empty, it is no part of the log.
    assert_eq!(
        open(&env.capture().crash(CrashPolicy::Kill, 1)).1,
        [1, 2, 3]
    );
    let end = put_all(&wal, 4..8);
    wal.sync_to(end).unwrap();
    assert!(!env.file_bytes(&wal_path(2)).unwrap().is_empty());
    let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
    assert_eq!(open(&lost).1, (1..8).collect::<Vec<_>>());
    wal.prepare_next().unwrap();
    put_all(&wal, 8..20);
    assert_eq!(open(&env).1, (1..20).collect::<Vec<_>>());
}

#[test]
fn segments_go_once_all_their_holders_are_flushed() {
    let env = new_env();
    let (wal, _) = open(&env);
    let end = put_all(&wal, 1..30);
    let all = wal_files(&env);
    let (nothing, everything) = (|_| SeqNo::ZERO, |_| SeqNo::MAX);
    assert_eq!(wal.retirable(&nothing), None);
    // Nothing durable could be named yet, but the first segment.
    assert_eq!(wal.retirable(&everything), None);
    wal.sync_to(end).unwrap();
    // Keyspace 1 is idle since its first write.
    let idle = |keyspace| {
        if keyspace == 1 {
            SeqNo::ZERO
        } else {
            SeqNo::MAX
        }
    };
    assert_eq!(wal.retirable(&idle), None);
    assert_eq!(wal.oldest_holder(&idle), Some(1));
    let flushed = |_| SeqNo(15);
    let first = wal.retirable(&flushed).unwrap();
    assert!(all[0] < first && first < all[all.len() - 1]);
    wal.remove_before(first).unwrap();
    assert_eq!(wal_files(&env)[0], first);
    assert_eq!(wal.first_segment(), first);
    assert_eq!(wal.retirable(&flushed), None);
    let (again, seen) = open_at(&env.capture().crash(CrashPolicy::Kill, 1), first, end).unwrap();
    assert!(seen[0] <= 16 && seen.ends_with(&[28, 29]));
    // Replay noted the holders, so they retire as before.
    assert_eq!(again.retirable(&flushed), None);
    assert!(again.oldest_holder(&flushed).is_some());
    assert_eq!(
        again.retirable(&everything),
        seen_files(&again).last().copied()
    );
    let last = wal.retirable(&everything).unwrap();
    wal.remove_before(last).unwrap();
    assert_eq!(wal_files(&env), [last]);
    assert_eq!(wal.oldest_holder(&everything), None);
    put_all(&wal, 30..33);
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    let (_, seen) = open_at(&env, last, end).unwrap();
    assert!(seen.ends_with(&[30, 31, 32]));
}

fn seen_files(wal: &Wal) -> Vec<u64> {
    let names = wal.config.env.list_dir(Path::new(DIR)).unwrap();
    names
        .iter()
        .filter_map(|name| segment_number(name))
        .collect()
}

#[test]
fn leftovers_before_the_first_needed_segment_are_ignored_and_removed() {
    let env = new_env();
    let (wal, _) = open(&env);
    let end = put_all(&wal, 1..30);
    wal.sync_to(end).unwrap();
    let first = wal.retirable(&|_| SeqNo(15)).unwrap();
    env.set_file_bytes(&wal_path(1), b"damaged");
    let (wal, seen) = open_at(&env, first, end).unwrap();
    assert!(seen[0] > 1);
    assert_eq!(wal_files(&env)[0], 1, "the manifest may not be durable yet");
    wal.remove_leftovers();
    assert_eq!(wal_files(&env)[0], first);
}

#[test]
fn missing_segments_are_corruption() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..30);
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    for number in wal_files(&env) {
        let image = env.capture().crash(CrashPolicy::Kill, 1);
        image.remove_file(&wal_path(number)).unwrap();
        assert_eq!(
            kind_of(open_at(&image, 1, end)),
            ErrorKind::Corruption,
            "{number}"
        );
        assert_eq!(
            kind_of(open_at(&image, 0, end)),
            ErrorKind::Corruption,
            "{number}"
        );
        let hash = image.content_hash();
        if number == 1 {
            assert_eq!(
                kind_of(open_at(&image, 1, Lsn::ZERO)),
                ErrorKind::Corruption
            );
            assert_eq!(
                kind_of(open_at(&image, 0, Lsn::ZERO)),
                ErrorKind::Corruption
            );
        }
        assert_eq!(image.content_hash(), hash);
    }
    let empty = new_env();
    assert_eq!(kind_of(open_at(&empty, 0, end)), ErrorKind::Corruption);
    assert_eq!(
        kind_of(open_at(&empty, 1, Lsn::ZERO)),
        ErrorKind::Corruption
    );
}

#[test]
fn an_error_of_the_visitor_changes_nothing() {
    let env = new_env();
    put_all(&open(&env).0, 1..10);
    let hash = env.content_hash();
    let error = || Error::invalid("no");
    let result = Wal::open(config(&env), 0, Lsn::ZERO, &mut |_, _| Err(error()));
    assert_eq!(kind_of(result), ErrorKind::InvalidArgument);
    assert_eq!(env.content_hash(), hash);
}

#[test]
fn every_flip_and_truncation_of_a_closed_log_is_told() {
    let env = new_env();
    let (wal, _) = open(&env);
    put_all(&wal, 1..12);
    let end = wal.close(&|_| SeqNo::ZERO).unwrap();
    let image = env.capture();
    for number in wal_files(&env) {
        let bytes = env.file_bytes(&wal_path(number)).unwrap();
        for at in 0..bytes.len() {
            let flipped = [
                &bytes[..at],
                &[bytes[at] ^ (1 << (at % 8))],
                &bytes[at + 1..],
            ]
            .concat();
            for damaged in [flipped, bytes[..at].to_vec()] {
                let env = image.crash(CrashPolicy::Kill, 1);
                env.set_file_bytes(&wal_path(number), damaged);
                match open_at(&env, 1, end) {
                    Ok((_, seen)) => assert_eq!(seen, (1..12).collect::<Vec<_>>()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption),
                }
            }
        }
    }
}

/// What a caller was told by the time of an I/O.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    io: u64,
    written: u32,
    durable: u32,
    first_needed: u64,
}

/// Writes, syncs, prepares and retires; what it promised is noted after each step.
fn work(env: &SimEnv, wal: &Wal, shape: Shape, from: u32) -> Vec<Told> {
    let mut told = Told {
        first_needed: wal.first_segment(),
        ..Told::default()
    };
    let mut all = Vec::new();
    let sync_every = if shape.ahead_bytes > 0 { 2 } else { 5 };
    for n in from..from + 24 {
        let lsn = put(wal, n).unwrap();
        told.written = n;
        all.push(Told {
            io: env.io_count(),
            ..told
        });
        if wal.wants_next() && n % 2 == 0 {
            wal.prepare_next().unwrap();
        }
        if n % sync_every == 0 {
            wal.sync_to(lsn).unwrap();
            told.durable = n;
            all.push(Told {
                io: env.io_count(),
                ..told
            });
        }
        if n % 11 == 0
            && let Some(first) = wal.retirable(&|_| SeqNo(u64::from(n - 8)))
        {
            told.first_needed = first;
            all.push(Told {
                io: env.io_count(),
                ..told
            });
            wal.remove_before(first).unwrap();
        }
    }
    all
}

/// The batches seen are consecutive, begin no later than the flushed ones end, and reach from
/// what was durable, or where only the process died from all that was written, to what was about
/// to be written.
fn check(seen: &[u32], told: &Told, policy: CrashPolicy, what: &str) {
    for pair in seen.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "{what}: {seen:?}");
    }
    let last = seen.last().copied().unwrap_or(0);
    let kept = if policy == CrashPolicy::Kill {
        told.written
    } else {
        told.durable
    };
    assert!(
        (kept..=told.written + 1).contains(&last),
        "{what}: {last} {told:?}"
    );
    if told.first_needed <= 1 && last > 0 {
        assert_eq!(seen[0], 1, "{what}");
    }
}

#[test]
fn a_crash_anywhere_keeps_a_prefix_with_everything_durable() {
    for shape in SHAPES {
        let env = new_env();
        env.record(true);
        let (wal, _) = open_as(&env, shape, 0, Lsn::ZERO).unwrap();
        let all = work(&env, &wal, shape, 1);
        env.record(false);
        let images = env.take_recorded();
        assert!(images.len() > 60);
        for (at, image) in images {
            let told = all
                .iter()
                .rfind(|told| told.io <= at)
                .copied()
                .unwrap_or_default();
            for policy in CrashPolicy::ALL {
                let what = format!("{shape:?}, I/O {at}, {policy:?}");
                let crashed = image.crash(*policy, at);
                // The manifest may or may not name the first segment from before.
                let (wal, seen) = open_as(&crashed, shape, told.first_needed, Lsn::ZERO)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                check(&seen, &told, *policy, &what);
                // Everything that was replayed is durable, and the log goes on.
                let next = seen.last().map_or(1, |last| last + 1);
                let end = put(&wal, next).unwrap();
                wal.sync_to(end).unwrap();
                let again = crashed.capture().crash(CrashPolicy::MaxLoss, 2);
                let (_, after) = open_as(&again, shape, told.first_needed, end).unwrap();
                assert_eq!(after, [seen, vec![next]].concat(), "{what}");
            }
        }
    }
}

#[test]
fn a_crash_anywhere_in_the_recovery_of_a_crash_changes_nothing() {
    for shape in SHAPES {
        let env = new_env();
        let (wal, _) = open_as(&env, shape, 0, Lsn::ZERO).unwrap();
        let all = work(&env, &wal, shape, 1);
        let told = all[all.len() - 1];
        for policy in CrashPolicy::ALL {
            let crashed = env.capture().crash(*policy, 5);
            crashed.record(true);
            let (_, seen) = open_as(&crashed, shape, told.first_needed, Lsn::ZERO).unwrap();
            crashed.record(false);
            check(&seen, &told, *policy, "first");
            for (at, image) in crashed.take_recorded() {
                for second in CrashPolicy::ALL {
                    let what = format!("{shape:?}, {policy:?}, then I/O {at}, {second:?}");
                    let again = image.crash(*second, at);
                    let (_, seen_again) = open_as(&again, shape, told.first_needed, Lsn::ZERO)
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(seen_again, seen, "{what}");
                }
            }
        }
    }
}

#[test]
fn an_error_anywhere_in_open_leaves_a_log_that_opens() {
    for shape in SHAPES {
        let env = new_env();
        let (wal, _) = open_as(&env, shape, 0, Lsn::ZERO).unwrap();
        let all = work(&env, &wal, shape, 1);
        let first = all[all.len() - 1].first_needed;
        let image = env.capture();
        let expected = open_as(&image.crash(CrashPolicy::Kill, 1), shape, first, Lsn::ZERO)
            .unwrap()
            .1;
        assert_eq!(expected.last(), Some(&24));
        for kind in FaultKind::ALL {
            for at in 0..40 {
                let env = image.crash(CrashPolicy::Kill, 1);
                fail_next(&env, at, *kind);
                let result = open_as(&env, shape, first, Lsn::ZERO);
                env.clear_faults();
                if let Ok((wal, seen)) = result {
                    assert_eq!(seen, expected);
                    drop(wal);
                }
                let (wal, seen) = open_as(&env, shape, first, Lsn::ZERO).unwrap();
                assert_eq!(seen, expected, "{kind:?} at {at}");
                let end = put(&wal, 25).unwrap();
                wal.sync_to(end).unwrap();
                let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
                let (_, seen) = open_as(&lost, shape, first, end).unwrap();
                assert_eq!(seen, [&expected[..], &[25]].concat(), "{kind:?} at {at}");
            }
        }
    }
}

#[test]
fn all_segments_can_be_removed() {
    let env = new_env();
    put_all(&open(&env).0, 1..20);
    env.set_file_bytes(&Path::new(DIR).join("notes.txt"), b"kept");
    remove_all(&config(&env)).unwrap();
    let lost = env.capture().crash(CrashPolicy::MaxLoss, 1);
    assert_eq!(lost.list_dir(Path::new(DIR)).unwrap(), ["notes.txt"]);
    assert!(open(&lost).1.is_empty());
}

mod ahead;
mod closed;
mod staged;
mod tables;
