//! A file changelog on disks that lose power, fail, fill up and rot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::changelog::{Changelog, File, FileOptions, Offset, Partition, RecordRef, Session};
use siltstone::env::Env;
use siltstone::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};
use siltstone::{ErrorKind, Result};

const TASK: &str = "task";

/// Local state: what reading the partitions from the start makes of them.
type State = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

fn partitions() -> [Partition; 2] {
    [Partition::new("store", 0), Partition::new("input", 0)]
}

fn open(env: &SimEnv) -> Result<File> {
    let options = FileOptions::new()
        .env(Arc::new(env.clone()))
        .segment_bytes_max(600)
        .tombstone_retention_ms(0);
    File::open("log", options)
}

fn claim(env: &SimEnv) -> Result<Box<dyn Session>> {
    open(env)?.claim(TASK, &partitions())
}

fn restore(session: &mut dyn Session) -> Result<State> {
    let mut state = State::default();
    for (index, map) in state.iter_mut().enumerate() {
        let mut reader = session.reader(index, Offset(0))?;
        let mut apply = |_, record: RecordRef<'_>| {
            match record.value {
                Some(value) => map.insert(record.key.to_vec(), value.to_vec()),
                None => map.remove(record.key),
            };
            Ok(())
        };
        while !reader.fetch(&mut apply)?.at_end {}
    }
    Ok(state)
}

/// What commit number `n` writes: puts and deletes under few keys, and its number.
fn writes(n: u64) -> Vec<(usize, Vec<u8>, Option<Vec<u8>>)> {
    let key = |n: u64| format!("key {}", n % 7).into_bytes();
    let value = vec![u8::try_from(n % 251).unwrap(); usize::try_from(n % 5 * 20).unwrap()];
    let mut writes = vec![
        (0, key(n), Some(value)),
        (1, b"n".to_vec(), Some(n.to_le_bytes().into())),
    ];
    if n.is_multiple_of(3) {
        writes.push((0, key(n + 4), None));
    }
    writes
}

fn append(session: &mut dyn Session, n: u64) -> Result<()> {
    for (partition, key, value) in writes(n) {
        session.append(partition, RecordRef::new(&key, value.as_deref()))?;
    }
    Ok(())
}

fn commit(session: &mut dyn Session, n: u64) -> Result<()> {
    append(session, n)?;
    let id = session.prepare()?;
    session.wait(id).map(drop)
}

/// The states after each number of commits.
fn states(count: u64) -> Vec<State> {
    let mut states = vec![State::default()];
    for n in 0..count {
        let mut state = states.last().unwrap().clone();
        for (partition, key, value) in writes(n) {
            match value {
                Some(value) => state[partition].insert(key, value),
                None => state[partition].remove(&key),
            };
        }
        states.push(state);
    }
    states
}

/// How many commits a state has, by the number that each one writes.
fn count(state: &State) -> u64 {
    state[1]
        .get(&b"n"[..])
        .map_or(0, |n| u64::from_le_bytes(n[..].try_into().unwrap()) + 1)
}

const COMMITS: u64 = 40;

/// The I/O indices between which each commit was made.
struct History {
    began: Vec<u64>,
    acked: Vec<u64>,
}

/// Three owners, two of which close in good order.
fn write_history(env: &SimEnv) -> History {
    let mut history = History {
        began: Vec::new(),
        acked: Vec::new(),
    };
    for owner in 0..4 {
        let mut session = claim(env).unwrap();
        for n in owner * 10..(owner + 1) * 10 {
            history.began.push(env.io_count());
            commit(&mut *session, n).unwrap();
            history.acked.push(env.io_count());
        }
        if owner % 2 == 0 {
            session.close().unwrap();
        }
    }
    history
}

/// Opens what a crash left, checks it, and writes on.
fn check_survivor(env: &SimEnv, states: &[State], floor: u64, sent: u64, what: &str) {
    let mut session = claim(env).unwrap_or_else(|error| panic!("{what}: {error}"));
    let state = restore(&mut *session).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = count(&state);
    assert!(
        floor <= found && found <= sent,
        "{what}: {found} of {floor} to {sent}"
    );
    assert!(
        state == states[usize::try_from(found).unwrap()],
        "{what}: a hole in {found}"
    );
    commit(&mut *session, found).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut again = claim(env).unwrap();
    let state = restore(&mut *again).unwrap();
    assert!(
        state == states[usize::try_from(found + 1).unwrap()],
        "{what}: after the next"
    );
}

#[test]
fn a_crash_at_any_io_keeps_a_prefix_with_all_that_was_acked() {
    let states = states(COMMITS + 1);
    let env = SimEnv::new(11);
    env.record(true);
    let history = write_history(&env);
    let mut images = env.take_recorded();
    images.push((env.io_count(), env.capture()));
    let mut checked = 0;
    for (index, image) in &images {
        let floor = history.acked.iter().filter(|acked| *acked <= index).count() as u64;
        let sent = history.began.iter().filter(|began| *began < index).count() as u64;
        for policy in CrashPolicy::ALL {
            let what = format!("SEED=11 CRASH_AT={index} POLICY={policy:?}");
            let crashed = image.crash(*policy, *index);
            check_survivor(&crashed, &states, floor, sent.max(floor), &what);
            checked += 1;
        }
    }
    println!("{checked} images checked");
    assert!(checked > 1000, "{checked}");
}

#[test]
fn a_crash_during_recovery_changes_nothing() {
    let states = states(COMMITS + 1);
    let env = SimEnv::new(12);
    env.record(true);
    let history = write_history(&env);
    for (index, image) in env.take_recorded().into_iter().step_by(11) {
        let floor = history
            .acked
            .iter()
            .filter(|acked| **acked <= index)
            .count() as u64;
        let sent = history.began.iter().filter(|began| **began < index).count() as u64;
        for policy in CrashPolicy::ALL.iter().step_by(3) {
            let crashed = image.crash(*policy, index);
            crashed.record(true);
            drop(claim(&crashed).unwrap());
            for (second, image) in crashed.take_recorded() {
                for policy_again in CrashPolicy::ALL.iter().step_by(2) {
                    let what = format!(
                        "SEED=12 CRASH_AT={index},{second} POLICY={policy:?},{policy_again:?}"
                    );
                    let crashed = image.crash(*policy_again, second);
                    check_survivor(&crashed, &states, floor, sent.max(floor), &what);
                }
            }
        }
    }
}

#[test]
fn every_truncation_leaves_a_prefix_or_is_told() {
    let states = states(COMMITS + 1);
    let env = SimEnv::new(13);
    let mut session = claim(&env).unwrap();
    for n in 0..4 {
        commit(&mut *session, n).unwrap();
    }
    session.close().unwrap();
    let mut session = claim(&env).unwrap();
    for n in 4..7 {
        commit(&mut *session, n).unwrap();
    }
    drop(session);
    let last = env
        .files()
        .into_iter()
        .rfind(|path| is(path, ".log"))
        .unwrap();
    let bytes = env.file_bytes(&last).unwrap();
    let mut found = [0; 8];
    for len in 0..bytes.len() {
        let cut = env.capture().crash(CrashPolicy::Kill, 0);
        cut.set_file_bytes(&last, &bytes[..len]);
        match claim(&cut) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{len}: {error}");
                found[0] += 1;
            }
            Ok(mut session) => {
                let state = restore(&mut *session).unwrap();
                let count = usize::try_from(count(&state)).unwrap();
                assert!(count >= 4 && state == states[count], "{len}: {count}");
                found[count] += 1;
            }
        }
    }
    // The claim had made its segment durable, so that nothing short of it passes.
    assert!(
        found[0] > 0 && found[4] > 0 && found[5] > 0 && found[6] > 0,
        "{found:?}"
    );
    assert_eq!(found[7], 0, "{found:?}");
}

fn is(path: &Path, suffix: &str) -> bool {
    path.to_str().unwrap().ends_with(suffix)
}

/// A log with compacted and other segments, closed in good order.
fn closed_log() -> (SimEnv, u64) {
    let env = SimEnv::new(14);
    let mut n = 0;
    for commits in [15, 6] {
        let mut session = claim(&env).unwrap();
        for _ in 0..commits {
            commit(&mut *session, n).unwrap();
            n += 1;
        }
        session.close().unwrap();
    }
    let files = env.files();
    assert!(files.iter().any(|path| is(path, ".base")), "{files:?}");
    assert!(
        files.iter().filter(|path| is(path, ".log")).count() > 1,
        "{files:?}"
    );
    (env, n)
}

/// The kinds that damage may be told by: `Unsupported` is a version that was flipped.
fn assert_told(error: &siltstone::Error, what: &str) {
    let kinds = [ErrorKind::Corruption, ErrorKind::Unsupported];
    assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
}

#[test]
fn every_flipped_byte_of_a_closed_log_is_told_or_does_no_harm() {
    let (env, commits) = closed_log();
    let states = states(commits);
    let mut followed = 0;
    for path in env.files() {
        let bytes = env.file_bytes(&path).unwrap();
        for pos in 0..bytes.len() {
            let what = format!("{} byte {pos}", path.display());
            let mut flipped = bytes.clone();
            flipped[pos] ^= 1 << (pos % 8);
            let damaged = env.capture().crash(CrashPolicy::Kill, 0);
            damaged.set_file_bytes(&path, &flipped);
            match follow(&damaged) {
                Ok(state) => {
                    assert!(state == states.last().unwrap()[1], "{what}: follower");
                    followed += 1;
                }
                Err(error) => assert_told(&error, &what),
            }
            match claim(&damaged).and_then(|mut session| restore(&mut *session)) {
                Ok(state) => assert!(&state == states.last().unwrap(), "{what}"),
                Err(error) => assert_told(&error, &what),
            }
        }
    }
    println!("{followed} flips did a follower no harm");
}

/// The second partition by a reader that owns nothing.
fn follow(env: &SimEnv) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let log = open(env)?;
    let mut map = BTreeMap::new();
    let mut reader = log.reader(&partitions()[1], Offset(0))?;
    let mut apply = |_, record: RecordRef<'_>| {
        map.insert(
            record.key.to_vec(),
            record.value.unwrap_or_default().to_vec(),
        );
        Ok(())
    };
    while !reader.fetch(&mut apply)?.at_end {}
    Ok(map)
}

#[test]
fn every_missing_file_is_told() {
    let (env, _) = closed_log();
    for path in env.files().iter().filter(|path| !is(path, "LOCK")) {
        let damaged = env.capture().crash(CrashPolicy::Kill, 0);
        damaged.remove_file(path).unwrap();
        let result = claim(&damaged).and_then(|mut session| restore(&mut *session));
        let error = result.expect_err(&path.display().to_string());
        let kinds = [
            ErrorKind::Corruption,
            ErrorKind::InvalidArgument,
            ErrorKind::NotFound,
        ];
        assert!(
            kinds.contains(&error.kind()),
            "{}: {error:?}",
            path.display()
        );
    }
}

/// A commit that is told to have failed is never found, one that was acked always.
#[test]
fn a_fault_at_any_io_loses_nothing_and_lies_about_nothing() {
    let clean = SimEnv::new(15);
    for n in 0..2 {
        fault_round(&clean, n, &mut Outcomes::default());
    }
    let ios = clean.io_count();
    assert!(ios > 60, "{ios}");
    for at in 0..ios {
        for kind in FaultKind::ALL {
            let what = format!("SEED=15 FAULT_AT={at} KIND={kind:?}");
            let env = SimEnv::new(15);
            env.set_fault(FaultPlan::once(at, *kind));
            let mut outcomes = Outcomes::default();
            for n in 0..2 {
                fault_round(&env, n, &mut outcomes);
            }
            outcomes.check(&env, &what);
            let crashed = env.capture().crash(CrashPolicy::MaxLoss, at);
            outcomes.check(&crashed, &what);
        }
    }
}

#[derive(Debug, Default)]
struct Outcomes {
    acked: Vec<Vec<u8>>,
    failed: Vec<Vec<u8>>,
    unknown: Vec<Vec<u8>>,
}

impl Outcomes {
    fn check(&self, env: &SimEnv, what: &str) {
        env.clear_faults();
        let mut session = claim(env).unwrap_or_else(|error| panic!("{what}: {error}"));
        let [one, other] = restore(&mut *session).unwrap();
        assert!(one.keys().eq(other.keys()), "{what}: half a commit");
        for key in &self.acked {
            assert!(one.contains_key(key), "{what}: lost {}", key.escape_ascii());
        }
        for key in &self.failed {
            assert!(
                !one.contains_key(key),
                "{what}: {} had failed",
                key.escape_ascii()
            );
        }
        assert!(one.len() <= self.acked.len() + self.unknown.len(), "{what}");
    }
}

/// Claims, commits ten times whatever happens, and closes.
fn fault_round(env: &SimEnv, round: u64, outcomes: &mut Outcomes) {
    let Ok(mut session) = claim(env) else { return };
    for n in 0..10 {
        let key = format!("{round}-{n}").into_bytes();
        let value = vec![9; 60];
        for partition in 0..2 {
            session
                .append(partition, RecordRef::new(&key, Some(&value)))
                .unwrap();
        }
        let id = session.prepare().unwrap();
        match session.wait(id) {
            Ok(_) => outcomes.acked.push(key),
            Err(error) if error.kind() == ErrorKind::Changelog => {
                outcomes.failed.push(key);
                session.abort().unwrap();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
                assert_eq!(
                    session
                        .append(0, RecordRef::new(b"x", None))
                        .unwrap_err()
                        .kind(),
                    ErrorKind::Poisoned
                );
                outcomes.unknown.push(key);
                match claim(env) {
                    Ok(next) => session = next,
                    Err(_) => return,
                }
            }
        }
    }
    // An error of the close concerns nothing that was acked.
    let _ = session.close();
}

#[test]
fn a_full_disk_fails_commits_until_there_is_room() {
    let env = SimEnv::new(16);
    let mut session = claim(&env).unwrap();
    commit(&mut *session, 0).unwrap();
    let used: usize = env
        .files()
        .iter()
        .map(|path| env.file_bytes(path).unwrap().len())
        .sum();
    let mut n = 1;
    for room in 0..200 {
        env.set_capacity(Some(used as u64 + room));
        loop {
            match commit(&mut *session, n) {
                Ok(()) => n += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Changelog, "{room}: {error}");
                    session.abort().unwrap();
                    break;
                }
            }
            assert!(n < 1000);
        }
    }
    env.set_capacity(None);
    commit(&mut *session, n).unwrap();
    let mut session = claim(&env).unwrap();
    let state = restore(&mut *session).unwrap();
    assert!(&state == states(n + 1).last().unwrap());
}

#[test]
fn a_failed_sync_leaves_the_decision_to_the_log() {
    for kind in [FaultKind::Eio, FaultKind::LateError] {
        let env = SimEnv::new(17);
        let mut session = claim(&env).unwrap();
        commit(&mut *session, 0).unwrap();
        append(&mut *session, 1).unwrap();
        let id = session.prepare().unwrap();
        env.set_fault(FaultPlan::once(env.io_count() + 1, kind));
        assert_eq!(session.wait(id).unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(session.poll(id).unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(session.abort().unwrap_err().kind(), ErrorKind::Poisoned);
        assert_eq!(
            session.idle_positions().unwrap_err().kind(),
            ErrorKind::Poisoned
        );
        let crashed = env.capture().crash(CrashPolicy::MaxLoss, 0);
        let mut session = claim(&crashed).unwrap();
        let count = count(&restore(&mut *session).unwrap());
        assert_eq!(count, if kind == FaultKind::Eio { 1 } else { 2 });
    }
}

#[test]
fn directories_that_are_no_changelog_are_left_alone() {
    let env = SimEnv::new(18);
    env.set_file_bytes(Path::new("log/notes.txt"), b"mine");
    let before = env.content_hash();
    let error = open(&env).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(env.content_hash(), before);

    // A foreign file within a changelog is not touched.
    let (env, commits) = closed_log();
    for name in [
        "log/notes.txt",
        "log/task-task/notes.log",
        "log/task-task/1.base",
    ] {
        env.set_file_bytes(Path::new(name), b"mine");
    }
    let mut session = claim(&env).unwrap();
    assert!(&restore(&mut *session).unwrap() == states(commits).last().unwrap());
    open(&env).unwrap().compact(TASK).unwrap();
    for name in [
        "log/notes.txt",
        "log/task-task/notes.log",
        "log/task-task/1.base",
    ] {
        assert_eq!(env.file_bytes(Path::new(name)).unwrap(), b"mine");
    }
    assert_eq!(
        open(&env).unwrap().compact("none").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// A day of work stays within the size of its live data.
#[test]
fn a_log_does_not_grow_without_end() {
    let env = SimEnv::new(19);
    let mut session = claim(&env).unwrap();
    let mut largest = 0;
    for n in 0..2000 {
        commit(&mut *session, n).unwrap();
        if n % 100 == 0 {
            session = claim(&env).unwrap();
        }
        let sizes = env
            .files()
            .into_iter()
            .map(|path: PathBuf| env.file_bytes(&path).unwrap().len());
        largest = largest.max(sizes.sum());
    }
    assert!(largest < 10_000, "{largest} bytes");
    let state = restore(&mut *claim(&env).unwrap()).unwrap();
    assert!(&state == states(2000).last().unwrap());
}
