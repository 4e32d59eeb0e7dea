//! The file changelog: segments and indexes that were damaged.

use std::collections::BTreeMap;

use crate::changelog::{
    Bounds, Changelog, File, FileOptions, Header, Offset, Owner, Partition, Position, Reader,
    RecordRef,
};
use crate::env::Env;
use crate::env::sim::SimEnv;
use crate::error::Result;
use crate::sync::Arc;

use super::input::{Damage, Input};

const DIR: &str = "/log";
const TASK: &str = "task-0";
/// A log's reader moves or ends: more fetches than this are a walk without an end.
const FETCHES_MAX: usize = 10_000;

/// What the records of both partitions add up to.
type State = [BTreeMap<Vec<u8>, Vec<u8>>; 2];

fn partitions() -> [Partition; 2] {
    [Partition::new("words", 0), Partition::new("counts", 1)]
}

fn open(env: &SimEnv) -> Result<File> {
    let env: Arc<dyn Env> = Arc::new(env.clone());
    File::open(DIR, FileOptions::new().env(env).segment_bytes_max(300))
}

/// A position's bytes; and a log with drawn commits, of which one file is then replaced or
/// damaged: what is read adds up to the state after one of the commits, or fails.
pub fn changelog_segment(data: &[u8]) {
    if let Ok(position) = Position::decode(data) {
        assert_eq!(Position::decode(&position.encode()).ok(), Some(position));
    }
    let mut input = Input::new(data);
    let is_raw = input.u8().is_multiple_of(2);
    let env = SimEnv::new(1);
    let states = write_log(&env, &mut input).expect("nothing fails");
    let files = env.files();
    let path = &files[input.index(files.len())];
    let mut bytes = env.file_bytes(path).unwrap_or_default();
    let whole = bytes.clone();
    if is_raw {
        bytes = input.rest().to_vec();
    } else {
        Damage::draw(&mut input, bytes.len()).apply(&mut bytes);
    }
    let is_whole = bytes == whole;
    env.set_file_bytes(path, bytes);
    for read in [read_as_follower, read_as_owner] {
        match read(&env) {
            // Raw bytes may, by a fuzzer's luck, be a log of their own.
            Ok(state) => assert!(is_raw || states.contains(&state), "a state that never was"),
            Err(error) => assert!(!is_whole, "{error}"),
        }
    }
}

/// Writes some commits. Returns the state after each, and the one before the first.
fn write_log(env: &SimEnv, input: &mut Input<'_>) -> Result<Vec<State>> {
    let mut session = open(env)?.claim(TASK, &partitions())?;
    let mut states = vec![State::default()];
    for _ in 0..=input.index(12) {
        let mut state = states[states.len() - 1].clone();
        for _ in 0..input.index(6) {
            let choice = input.u8();
            let (number, key) = (usize::from(choice & 1), vec![b'a' + (choice >> 1 & 7)]);
            let bytes = input.bytes();
            let header = [Header {
                key: b"name",
                value: (choice & 32 == 0).then_some(bytes),
            }];
            let value = (choice & 16 == 0).then_some(bytes);
            let record = RecordRef::new(&key, value)
                .at(i64::from(choice))
                .with_headers(&header);
            session.append(number, record)?;
            match value {
                Some(value) => state[number].insert(key, value.to_vec()),
                None => state[number].remove(&key),
            };
        }
        let commit = session.prepare()?;
        session.wait(commit)?;
        states.push(state);
    }
    if input.index(2) == 0 {
        session.close()?;
    }
    Ok(states)
}

fn read_as_follower(env: &SimEnv) -> Result<State> {
    let log = open(env)?;
    let mut state = State::default();
    for (map, partition) in state.iter_mut().zip(partitions()) {
        let Some(Bounds { start, .. }) = log.bounds(&partition)? else {
            continue;
        };
        read_to_end(&mut *log.reader(&partition, start)?, map)?;
    }
    Ok(state)
}

/// As an owner that restores: what a claim recovers.
fn read_as_owner(env: &SimEnv) -> Result<State> {
    let mut session = open(env)?.claim(TASK, &partitions())?;
    let mut state = State::default();
    for (number, map) in state.iter_mut().enumerate() {
        let Bounds { start, .. } = session.bounds(number)?;
        read_to_end(&mut *session.reader(number, start)?, map)?;
    }
    session.close()?;
    Ok(state)
}

fn read_to_end(reader: &mut dyn Reader, map: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    for _ in 0..FETCHES_MAX {
        let mut last: Option<Offset> = None;
        let fetched = reader.fetch(&mut |offset, record| {
            assert!(last.is_none_or(|last| last < offset), "offsets rise");
            last = Some(offset);
            match record.value {
                Some(value) => map.insert(record.key.to_vec(), value.to_vec()),
                None => map.remove(record.key),
            };
            Ok(())
        })?;
        assert!(
            last.is_none_or(|last| last < fetched.next),
            "the next offset lies behind"
        );
        if fetched.at_end {
            return Ok(());
        }
    }
    panic!("a log without an end");
}

pub(super) fn changelog_seeds() -> Vec<Vec<u8>> {
    let drawn = |first: u8, len: u16| -> Vec<u8> {
        let choices = (0..len).map(|n| (n * 37 % 251).to_le_bytes()[0]);
        [first, 9].into_iter().chain(choices).collect()
    };
    let position = Position {
        cluster: "here".to_owned(),
        topic_id: [7; 16],
        partition: Partition::new("words", 3),
        next: Offset(1 << 40),
        leader_epoch: -1,
        owner: Owner::default(),
        time_ms: 1 << 41,
    };
    vec![
        drawn(0, 900),
        drawn(1, 300),
        drawn(1, 900),
        position.encode(),
    ]
}
