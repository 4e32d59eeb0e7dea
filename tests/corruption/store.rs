//! The store that is damaged, and the look at what is left of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::env::sim::{CrashPolicy, SimEnv, SimImage};
use siltstone::{
    Db, Durability, Error, ErrorKind, Keyspace, KeyspaceOptions, Options, ReadMode, Result,
    Runtime, RuntimeOptions, Stats, Strategy, WriteBatch,
};

use super::memory;

pub(crate) const DIR: &str = "/db";
/// The most that may be allocated at once. Files are far smaller; what is larger has another use.
const ALLOCATION_BYTES_MAX: usize = 600 << 10;

pub(crate) type Contents = BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A store that was closed in order.
pub(crate) struct Store {
    image: SimImage,
    /// From before each of the I/Os that made it.
    pub(crate) earlier: Vec<SimImage>,
    pub(crate) contents: Contents,
    pub(crate) stats: Stats,
}

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Shared by many opens, one after the other: nothing runs unless asked.
pub(crate) fn runtime() -> Runtime {
    let options = RuntimeOptions::new()
        .env(Arc::new(SimEnv::new(1)))
        .threads(0)
        .memory_bytes_max(8 << 20)
        .cache_bytes(64 << 10);
    Runtime::new(options).unwrap()
}

pub(crate) fn open(env: &SimEnv, runtime: &Runtime) -> Result<Db> {
    let options = Options::new()
        .env(Arc::new(env.clone()))
        .read_mode(ReadMode::Positional)
        .memtable_bytes_max(1 << 10)
        .wal_bytes_max(4 << 10);
    Db::open_with(DIR, options, runtime)
}

fn keyspace_options() -> KeyspaceOptions {
    KeyspaceOptions::new()
        .block_bytes(256)
        .table_bytes(1 << 10)
        .compaction(Strategy::Leveled)
        .level_ratio(2)
        .level0_runs_max(1)
        .uncompressed_levels(1)
        .filter_bits(10, 0)
}

fn keyspaces(db: &Db) -> Result<Vec<Keyspace>> {
    ["first", "second"]
        .into_iter()
        .map(|name| db.keyspace(name, keyspace_options()))
        .collect()
}

/// Writes and remembers.
struct Author<'a> {
    db: &'a Db,
    keyspaces: &'a [Keyspace],
    contents: Contents,
}

impl Author<'_> {
    /// One batch over both keyspaces.
    fn write(&mut self, round: usize) {
        let mut batch = WriteBatch::new();
        for (keyspace, map) in self.keyspaces.iter().zip(self.contents.values_mut()) {
            for number in 0..6 {
                let key = format!("key {:03}", (round * 17 + number * 5) % 60).into_bytes();
                if (round + number).is_multiple_of(5) {
                    batch.delete(keyspace, &key).unwrap();
                    map.remove(&key);
                } else {
                    let value = format!("{round} {}", "value".repeat(number + round % 3));
                    batch.put(keyspace, &key, &value).unwrap();
                    map.insert(key, value.into_bytes());
                }
            }
        }
        self.db.write(batch, Durability::Buffered).unwrap();
    }
}

impl Store {
    pub(crate) fn build(seed: u64) -> Self {
        let env = SimEnv::new(seed);
        env.record(true);
        let runtime = runtime();
        let db = open(&env, &runtime).unwrap();
        let keyspaces = keyspaces(&db).unwrap();
        let mut author = Author {
            db: &db,
            keyspaces: &keyspaces,
            contents: [("first", BTreeMap::new()), ("second", BTreeMap::new())].into(),
        };
        let levels_below = |stats: &Stats| {
            let below = stats.levels[1..].iter();
            below.filter(|level| level.tables > 0).count()
        };
        let mut round = 0;
        while levels_below(&db.stats().unwrap()) < 2 {
            assert!(round < 200, "{}", db.stats().unwrap());
            author.write(round);
            db.flush().unwrap();
            while runtime.run_pending() {}
            round += 1;
        }
        author.write(round);
        db.flush().unwrap();
        for _ in 0..5 {
            round += 1;
            author.write(round);
        }
        let contents = author.contents;
        let stats = db.stats().unwrap();
        db.close().unwrap();
        let earlier = env.take_recorded().into_iter().map(|(_, image)| image);
        Self {
            image: env.capture(),
            earlier: earlier.collect(),
            contents,
            stats,
        }
    }

    /// A disk with the intact files.
    pub(crate) fn copy(&self) -> SimEnv {
        self.image.crash(CrashPolicy::Kill, 1)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.image.file_bytes(&path(name)).unwrap()
    }

    pub(crate) fn all_names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.image.files().iter().map(name).collect()
    }

    pub(crate) fn names(&self, part: &str) -> Vec<String> {
        let mut names = self.all_names();
        names.retain(|name| name.contains(part));
        names
    }
}

/// What a look at a damaged store gave.
#[derive(Default)]
pub(crate) struct Seen {
    /// It did not open.
    pub(crate) refused: bool,
    pub(crate) verify_failed: bool,
    pub(crate) errors: Vec<Error>,
    /// Entries of all tables, where they could be verified.
    pub(crate) entries: u64,
}

impl Seen {
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }
}

/// Opens the store, reads all of it in every way and compares it with `contents`.
pub(crate) fn look(env: &SimEnv, runtime: &Runtime, contents: &Contents, what: &str) -> Seen {
    memory::forget_largest();
    let seen = catch_unwind(AssertUnwindSafe(|| {
        let mut seen = Seen::default();
        let Some(db) = seen.note(open(env, runtime)) else {
            seen.refused = true;
            return seen;
        };
        compare(&db, contents, &mut seen);
        match seen.note(db.verify()) {
            Some(entries) => seen.entries = entries,
            None => seen.verify_failed = true,
        }
        seen
    }));
    let Ok(seen) = seen else {
        panic!("{what}: a panic, see above");
    };
    let largest = memory::largest();
    assert!(
        largest <= ALLOCATION_BYTES_MAX,
        "{what}: {largest} bytes were allocated at once"
    );
    seen
}

/// Reads everything; an error is noted, a wrong answer is a panic.
fn compare(db: &Db, contents: &Contents, seen: &mut Seen) {
    let Some(keyspaces) = seen.note(keyspaces(db)) else {
        return;
    };
    for (keyspace, map) in keyspaces.iter().zip(contents.values()) {
        for number in 0..62 {
            let key = format!("key {number:03}").into_bytes();
            if let Some(found) = seen.note(keyspace.get(&key)) {
                let found = found.map(|value| value.to_vec());
                assert_eq!(found.as_ref(), map.get(&key), "get {number}");
            }
        }
        let mut expected = map.iter();
        let range = seen.note(keyspace.entries());
        let is_whole = range.is_some_and(|range| agrees(range, expected.by_ref(), seen));
        assert!(
            !is_whole || expected.next().is_none(),
            "entries are missing"
        );
        let mut expected = map.iter().rev();
        let range = seen.note(keyspace.entries());
        let is_whole = range.is_some_and(|range| agrees(range.rev(), expected.by_ref(), seen));
        assert!(
            !is_whole || expected.next().is_none(),
            "entries are missing"
        );
    }
}

/// Compares entries up to the first error; false if there was one.
fn agrees<'a>(
    found: impl Iterator<Item = Result<siltstone::Entry>>,
    mut expected: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    seen: &mut Seen,
) -> bool {
    for entry in found {
        let Some(entry) = seen.note(entry) else {
            return false;
        };
        let pair = expected.next().map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(Some((&entry.key[..], &entry.value[..])), pair);
    }
    true
}

/// Every error is of a kind that says what to do, and names the file.
pub(crate) fn named(seen: &Seen, name: &str, what: &str) {
    for error in &seen.errors {
        let is_told = matches!(
            error.kind(),
            ErrorKind::Corruption | ErrorKind::Unsupported | ErrorKind::Io
        );
        assert!(is_told, "{what}: {error:?}");
        assert!(error.to_string().contains(name), "{what}: {error:?}");
    }
}
