//! The write-ahead log of a store that was not closed: damage below what is known to be durable is
//! an error, damage above it ends the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::env::Env as _;
use siltstone::env::sim::{CrashPolicy, SimEnv, SimImage};
use siltstone::{Db, Durability, ErrorKind, KeyspaceOptions, Options, Runtime, WriteBatch};

use super::forge::{SEGMENT_HEADER_LEN, Segment};
use super::store;
use super::watchdog::within;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const STAGE: &str = "/db/WAL-STAGE";
const SYNCED: usize = 12;
const BUFFERED: usize = 9;

/// A store that was killed, with synced records in its log and buffered ones behind them: in the
/// segment, or in the stage.
struct Killed {
    image: SimImage,
    wal: PathBuf,
    /// After so many batches.
    states: Vec<Map>,
}

fn open(env: &SimEnv, runtime: &Runtime) -> siltstone::Result<Db> {
    Db::open_with("/db", Options::new().env(Arc::new(env.clone())), runtime)
}

impl Killed {
    fn build() -> Self {
        let staged = Self::staged();
        let env = staged.image.crash(CrashPolicy::Kill, 1);
        // The stage has the bytes that the segment gets.
        let (segment, stage) = (staged.bytes(), env.file_bytes(Path::new(STAGE)).unwrap());
        let len = staged.staged_len();
        let behind = &stage[SEGMENT_HEADER_LEN..][..len];
        env.set_file_bytes(&staged.wal, [&segment, behind].concat());
        env.remove_file(Path::new(STAGE)).unwrap();
        Self {
            image: env.capture(),
            ..staged
        }
    }

    /// Length of the buffered records, each of which has the length of the last synced one.
    fn staged_len(&self) -> usize {
        let records = Segment::parse(&self.bytes()).records;
        let (start, end) = records[SYNCED - 1];
        BUFFERED * (end - start)
    }

    fn staged() -> Self {
        let env = SimEnv::new(1);
        let runtime = store::runtime();
        let db = open(&env, &runtime).unwrap();
        let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
        let mut map = Map::new();
        let mut states = vec![map.clone()];
        for number in 0..SYNCED + BUFFERED {
            let mut batch = WriteBatch::new();
            for part in 0..2 {
                let key = format!("{:02}", (number * 5 + part * 7) % 23).into_bytes();
                let value = format!("value {number}").into_bytes();
                batch.put(&keyspace, &key, &value).unwrap();
                map.insert(key, value);
            }
            let durability = if number < SYNCED {
                Durability::Synced
            } else {
                Durability::Buffered
            };
            db.write(batch, durability).unwrap();
            states.push(map.clone());
        }
        let is_log = |path: &PathBuf| path.extension().is_some_and(|it| it == "wal");
        let wal = env.files().into_iter().find(is_log).unwrap();
        // Without the zeros that synced records have ahead of them.
        let mut bytes = env.file_bytes(&wal).unwrap();
        bytes.truncate(Segment::parse(&bytes).records[SYNCED - 1].1);
        env.set_file_bytes(&wal, bytes);
        Self {
            image: env.capture(),
            wal,
            states,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.image.file_bytes(&self.wal).unwrap()
    }

    /// What is found with another log: how many batches count.
    fn found(&self, bytes: Vec<u8>, runtime: &Runtime, what: &str) -> Result<usize, ErrorKind> {
        let env = self.image.crash(CrashPolicy::Kill, 1);
        env.set_file_bytes(&self.wal, bytes);
        let db = open(&env, runtime).map_err(|error| {
            let name = self.wal.file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(name), "{what}: {error}");
            error.kind()
        })?;
        let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
        let entries = keyspace.entries().unwrap().map(Result::unwrap);
        let map: Map = entries
            .map(|entry| (entry.key.to_vec(), entry.value.to_vec()))
            .collect();
        let count = self.states.iter().rposition(|state| *state == map);
        let count = count.unwrap_or_else(|| panic!("{what}: half of a batch, or a hole"));
        // What was cut stays away, and writing goes on.
        keyspace.put("more", "1").unwrap();
        drop((keyspace, db));
        let db = open(&env, runtime).unwrap();
        let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
        assert_eq!(keyspace.entries().unwrap().count(), map.len() + 1, "{what}");
        Ok(count)
    }
}

#[test]
fn the_log_has_what_it_should() {
    let killed = Killed::build();
    let records = Segment::parse(&killed.bytes()).records;
    assert_eq!(records.len(), SYNCED + BUFFERED);
    assert_eq!(records.last().unwrap().1, killed.bytes().len());
    let found = killed.found(killed.bytes(), &store::runtime(), "intact");
    assert_eq!(found, Ok(SYNCED + BUFFERED));
}

#[test]
fn a_flip_below_the_durable_end_is_an_error_and_above_it_ends_the_log() {
    within(120, || {
        let (killed, runtime) = (Killed::build(), store::runtime());
        let bytes = killed.bytes();
        let records = Segment::parse(&bytes).records;
        for pos in 0..bytes.len() {
            for mask in [0xff_u8, 1 << (pos % 8)] {
                let mut damaged = bytes.clone();
                damaged[pos] ^= mask;
                let what = format!("byte {pos} xor {mask:02x}");
                let found = killed.found(damaged, &runtime, &what);
                let record = records
                    .iter()
                    .position(|(start, end)| (*start..*end).contains(&pos));
                match record {
                    Some(record) if record >= SYNCED => assert_eq!(found, Ok(record), "{what}"),
                    _ => assert_eq!(found, Err(ErrorKind::Corruption), "{what}"),
                }
            }
        }
    });
}

#[test]
fn a_log_that_is_cut_ends_there_unless_records_tell_of_more() {
    within(120, || {
        let (killed, runtime) = (Killed::build(), store::runtime());
        let bytes = killed.bytes();
        let records = Segment::parse(&bytes).records;
        for len in 0..bytes.len() {
            let what = format!("cut to {len}");
            let whole = records.iter().filter(|(_, end)| *end <= len).count();
            let found = killed.found(bytes[..len].to_vec(), &runtime, &what);
            // The last record that is left vouches for all before it, none for itself; CURRENT
            // was written before the first.
            if len <= SEGMENT_HEADER_LEN {
                assert!(
                    found == Ok(0) || found == Err(ErrorKind::Corruption),
                    "{what}: {found:?}"
                );
            } else {
                assert_eq!(found, Ok(whole), "{what}");
            }
        }
    });
}

#[test]
fn the_stage_vouches_for_the_records_before_it() {
    within(120, || {
        let (killed, runtime) = (Killed::staged(), store::runtime());
        let bytes = killed.bytes();
        assert_eq!(Segment::parse(&bytes).records.len(), SYNCED);
        let found = |bytes: &[u8], what: &str| killed.found(bytes.to_vec(), &runtime, what);
        assert_eq!(found(&bytes, "intact"), Ok(SYNCED + BUFFERED));
        let torn = [&bytes[..], &[0; 700]].concat();
        assert_eq!(found(&torn, "zeros behind"), Ok(SYNCED + BUFFERED));
        for pos in SEGMENT_HEADER_LEN..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[pos] ^= 1 << (pos % 8);
            let what = format!("byte {pos} flipped");
            assert_eq!(found(&damaged, &what), Err(ErrorKind::Corruption), "{what}");
            let what = format!("cut to {pos}");
            let cut = found(&bytes[..pos], &what);
            assert_eq!(cut, Err(ErrorKind::Corruption), "{what}");
        }
    });
}

#[test]
fn without_the_stage_a_killed_store_ends_where_the_segment_does() {
    let (killed, runtime) = (Killed::staged(), store::runtime());
    let env = killed.image.crash(CrashPolicy::Kill, 1);
    env.remove_file(Path::new(STAGE)).unwrap();
    let without = Killed {
        image: env.capture(),
        ..killed
    };
    let found = without.found(without.bytes(), &runtime, "no stage");
    assert_eq!(found, Ok(SYNCED));
}

#[test]
fn zeros_and_garbage_behind_the_end_are_a_torn_tail() {
    let (killed, runtime) = (Killed::build(), store::runtime());
    for (byte, more) in [
        (0, 1),
        (0, 512),
        (0, 5000),
        (0xff, 3),
        (0xff, 700),
        (0x5a, 4096),
    ] {
        let mut longer = killed.bytes();
        longer.resize(longer.len() + more, byte);
        let what = format!("{more} bytes {byte:02x} behind the end");
        assert_eq!(
            killed.found(longer, &runtime, &what),
            Ok(SYNCED + BUFFERED),
            "{what}"
        );
    }
}

#[test]
fn a_record_of_another_place_does_not_count() {
    let (killed, runtime) = (Killed::build(), store::runtime());
    let bytes = killed.bytes();
    let records = Segment::parse(&bytes).records;
    let (start, end) = records[SYNCED + 2];
    // An older record is as long, and would pass any checksum that knew no position.
    let (old_start, old_end) = records[SYNCED + 1];
    assert_eq!(old_end - old_start, end - start);
    let mut damaged = bytes.clone();
    damaged.copy_within(old_start..old_end, start);
    assert_eq!(
        killed.found(damaged, &runtime, "a stale record"),
        Ok(SYNCED + 2)
    );
}
