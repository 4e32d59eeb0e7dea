//! Stores and a changelog that were written when format 1 was new, opened by this version.
//!
//! They lie in `tests/golden/` and are never written again: what reads them today must always. When
//! a format changes, its version rises and a new folder is made beside the old one, with
//!
//! ```text
//! SILTSTONE_MAKE_GOLDEN=tests/golden/v2 cargo test --test golden -- --exact make_golden
//! ```
//!
//! A task's position has a version of its own. Version 2, of a task with a timestamped store, has a
//! folder beside the others, which `make_golden_position` makes. So has version 2 of the segments
//! of a write-ahead log, with records in its stage, which `make_golden_log` makes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use siltstone::changelog::{File, FileOptions};
use siltstone::store::serde::{U64, Utf8};
use siltstone::store::{How, KeyValue, StoreOptions, Task, TaskOptions, Timestamped};
use siltstone::{
    Compression, Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Options, ReadMode, Result,
    Runtime, RuntimeOptions, Strategy, WriteBatch,
};

/// Formats that there are maps of. There are tasks of the first.
const MAP_FORMATS: [&str; 2] = ["v1", LOG];
/// The write-ahead log has segments of version 2, and a stage.
const LOG: &str = "log-v2";
/// A version that no reader knows.
const NEWER: u32 = 7_007;

const KEYSPACES: [(&str, Compression); 2] = [("raw", Compression::None), ("lz4", Compression::Lz4)];
const STORES: [&str; 2] = ["counts", "totals"];

fn golden(format: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A copy of a golden folder, to open and to damage.
fn copy_of(format: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(format), dir.path());
    dir
}

// The map: what was written, in four steps that end up in different levels.

const KEYS: u32 = 320;
const STEPS: u32 = 4;

fn key(number: u32) -> String {
    format!("stone-{number:04}")
}

fn value(number: u32, step: u32) -> String {
    let letter = char::from(b'a' + u8::try_from(number % 26).unwrap());
    let len = if number % 100 == 99 {
        5000
    } else {
        number as usize % 40
    };
    format!("{step}-{number}-{}", letter.to_string().repeat(len))
}

enum Write {
    Put(String),
    Delete,
    Nothing,
}

/// What a step does to a key.
fn write(number: u32, step: u32) -> Write {
    let put = Write::Put(value(number, step));
    match step {
        0 => put,
        1 if number.is_multiple_of(7) => Write::Delete,
        1 if number.is_multiple_of(3) => put,
        2 if number % 40 < 3 => put,
        2 if number % 40 == 3 => Write::Delete,
        3 if number % 64 == 9 => put,
        3 if number % 64 == 10 => Write::Delete,
        _ => Write::Nothing,
    }
}

fn expected_map() -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for step in 0..STEPS {
        for number in 0..KEYS {
            match write(number, step) {
                Write::Put(value) => map.insert(key(number), value),
                Write::Delete => map.remove(&key(number)),
                Write::Nothing => None,
            };
        }
    }
    map
}

fn open_map(dir: &Path, read_mode: ReadMode) -> Result<(Db, Vec<Keyspace>)> {
    let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
    open_map_with(dir, read_mode, Strategy::Leveled, &runtime)
}

fn open_map_with(
    dir: &Path,
    read_mode: ReadMode,
    strategy: Strategy,
    runtime: &Runtime,
) -> Result<(Db, Vec<Keyspace>)> {
    let options = Options::new()
        .read_mode(read_mode)
        .if_missing(siltstone::IfMissing::Create);
    let db = Db::open_with(dir.join("map"), options, runtime)?;
    let keyspaces = KEYSPACES.map(|(name, compression)| {
        let options = KeyspaceOptions::new()
            .compression(compression)
            .block_bytes(512)
            .table_bytes(8 << 10)
            .compaction(strategy)
            .level_ratio(2)
            .level0_runs_max(3);
        db.keyspace(name, options)
    });
    let keyspaces: Result<_> = keyspaces.into_iter().collect();
    Ok((db, keyspaces?))
}

/// Reads all there is, in every way.
fn read_map(dir: &Path, read_mode: ReadMode) -> Result<()> {
    let (db, keyspaces) = open_map(dir, read_mode)?;
    let expected = expected_map();
    for keyspace in &keyspaces {
        for number in 0..KEYS {
            let value = keyspace.get(key(number))?;
            let expected = expected.get(&key(number));
            assert_eq!(value.as_deref(), expected.map(String::as_bytes));
        }
        let mut entries = Vec::new();
        for entry in keyspace.entries()? {
            let entry = entry?;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            entries.push((text(&entry.key), text(&entry.value)));
        }
        assert!(entries.into_iter().eq(expected.clone()));
    }
    let names: Vec<&str> = keyspaces.iter().map(Keyspace::name).collect();
    assert_eq!(names, KEYSPACES.map(|(name, _)| name));
    assert!(db.verify()? > 0);
    db.close()
}

// The task: commit `n` puts, deletes, and sets the input position to `n`.

const COMMITS: u64 = 60;
const COMMITS_IN_TABLES: u64 = 40;

fn expected_task() -> [BTreeMap<String, u64>; 2] {
    let mut stores = [BTreeMap::new(), BTreeMap::new()];
    for commit in 1..=COMMITS {
        for (store, entries) in stores.iter_mut().enumerate() {
            for (key, value) in task_writes(commit, store as u64) {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
        }
    }
    stores
}

fn task_writes(commit: u64, store: u64) -> Vec<(String, Option<u64>)> {
    let word = |number: u64| format!("word-{:03}", number % 97);
    let puts = (0..6).map(|number| (word(commit * 5 + number), Some(commit * 10 + store)));
    let delete = (word(commit * 11 + store), None);
    puts.chain([delete]).collect()
}

fn changelog(dir: &Path, tombstone_retention_ms: u64) -> Result<File> {
    let options = FileOptions::new()
        .segment_bytes_max(2 << 10)
        .tombstone_retention_ms(tombstone_retention_ms);
    File::open(dir.join("changelog"), options)
}

fn open_task(dir: &Path, read_mode: ReadMode) -> Result<(Task, Vec<KeyValue<Utf8, U64>>)> {
    // Tombstones that the local state has not seen must not be dropped, however old it is.
    let shared = Arc::new(changelog(dir, u64::MAX)?);
    let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
    let mut options = TaskOptions::new("golden", 0, dir.join("task"), shared)
        .runtime(&runtime)
        .db(Options::new().read_mode(read_mode));
    for store in STORES {
        options = options.store(store);
    }
    let task = Task::open(options)?;
    let stores = STORES.map(|store| task.key_value(store, Utf8, U64));
    let stores: Result<_> = stores.into_iter().collect();
    Ok((task, stores?))
}

fn read_task(dir: &Path, read_mode: ReadMode, how: How) -> Result<()> {
    let (task, stores) = open_task(dir, read_mode)?;
    assert_eq!(task.restored().stores[0].how, how);
    assert_eq!(task.input_position("words")?, Some(COMMITS));
    for (store, expected) in stores.iter().zip(expected_task()) {
        let entries: Result<BTreeMap<_, _>> = store.entries()?.collect();
        assert_eq!(entries?, expected);
    }
    task.close().map(drop)
}

#[test]
fn golden_maps_hold_what_was_written() {
    for format in MAP_FORMATS {
        for read_mode in [ReadMode::Mapped, ReadMode::Positional] {
            let dir = copy_of(format);
            read_map(dir.path(), read_mode).unwrap();
            // Once more, after what the first opening wrote.
            read_map(dir.path(), read_mode).unwrap();
        }
    }
}

#[test]
fn golden_maps_take_writes() {
    for format in MAP_FORMATS {
        let dir = copy_of(format);
        let (db, keyspaces) = open_map(dir.path(), ReadMode::Mapped).unwrap();
        for keyspace in &keyspaces {
            keyspace.put(key(KEYS), "new").unwrap();
            keyspace.compact().unwrap();
            assert_eq!(keyspace.get(key(KEYS)).unwrap().unwrap(), b"new");
            keyspace.delete(key(KEYS)).unwrap();
        }
        db.close().unwrap();
        read_map(dir.path(), ReadMode::Positional).unwrap();
    }
}

#[test]
fn golden_maps_change_their_strategy_and_back() {
    let lazy = Strategy::LazyLeveled {
        runs_max: 3,
        ratio: 2,
    };
    for format in MAP_FORMATS {
        let dir = copy_of(format);
        for strategy in [lazy, Strategy::Leveled, lazy] {
            let runtime = Runtime::new(RuntimeOptions::new().threads(0)).unwrap();
            let mode = ReadMode::Mapped;
            let (db, keyspaces) = open_map_with(dir.path(), mode, strategy, &runtime).unwrap();
            let mut runs_most = 0;
            for keyspace in &keyspaces {
                // Runs in plenty, with what is there already and something that goes again.
                for round in 0..12 {
                    for number in (round..KEYS).step_by(40) {
                        if let Some(value) = keyspace.get(key(number)).unwrap() {
                            keyspace.put(key(number), value).unwrap();
                        }
                    }
                    keyspace.put(key(KEYS), "new").unwrap();
                    keyspace.delete(key(KEYS)).unwrap();
                    db.flush().unwrap();
                    while runtime.run_pending() {}
                    let levels = db.stats().unwrap().levels;
                    let runs = levels[1..].iter().map(|level| level.runs).max();
                    runs_most = runs_most.max(runs.unwrap_or(0));
                }
            }
            let has_runs = runs_most > KEYSPACES.len();
            assert_eq!(has_runs, strategy == lazy, "{runs_most} runs of a level");
            db.close().unwrap();
            read_map(dir.path(), ReadMode::Positional).unwrap();
        }
    }
}

#[test]
fn golden_tasks_hold_what_was_committed() {
    for read_mode in [ReadMode::Mapped, ReadMode::Positional] {
        let dir = copy_of("v1");
        read_task(dir.path(), read_mode, How::Tail).unwrap();
        read_task(dir.path(), read_mode, How::UpToDate).unwrap();
        fs::remove_dir_all(dir.path().join("task")).unwrap();
        read_task(dir.path(), read_mode, How::Full).unwrap();
    }
}

/// A task with a timestamped store.
const POSITION: &str = "position-v2";
const VISITS: u64 = 50;
const VISITS_IN_TABLES: u64 = 30;

/// Key, value and time of a visit; every ninth is forgotten.
fn visit(number: u64) -> (String, Option<(u64, i64)>) {
    let key = format!("visitor-{:02}", number * 7 % 23);
    let time_ms = 1_700_000_000_000 + i64::try_from(number).unwrap() * 1000;
    let value = (number % 9 != 8).then_some((number, time_ms));
    (key, value)
}

type Visits = (Task, Timestamped<Utf8, U64>, KeyValue<Utf8, U64>);

fn open_visits(dir: &Path) -> Result<Visits> {
    let shared = Arc::new(changelog(dir, u64::MAX)?);
    let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
    let options = TaskOptions::new("golden", 0, dir.join("task"), shared).runtime(&runtime);
    let options = options.store(StoreOptions::timestamped("visits"));
    let task = Task::open(options.store("last"))?;
    let visits = task.timestamped("visits", Utf8, U64)?;
    let last = task.key_value("last", Utf8, U64)?;
    Ok((task, visits, last))
}

fn read_visits(dir: &Path, how: How) -> Result<()> {
    let (task, visits, last) = open_visits(dir)?;
    assert_eq!(task.restored().stores[0].how, how);
    assert_eq!(task.input_position("door")?, Some(VISITS));
    let mut expected = BTreeMap::new();
    for number in 0..VISITS {
        match visit(number) {
            (key, Some(value)) => expected.insert(key, value),
            (key, None) => expected.remove(&key),
        };
    }
    for number in 0..23 {
        let key = format!("visitor-{number:02}");
        assert_eq!(visits.get(&key)?, expected.get(&key).copied(), "{key}");
    }
    assert_eq!(last.get("number")?, Some(VISITS - 1));
    task.close().map(drop)
}

#[test]
fn a_golden_position_of_version_2_is_gone_on_from() {
    let dir = copy_of(POSITION);
    read_visits(dir.path(), How::Tail).unwrap();
    read_visits(dir.path(), How::UpToDate).unwrap();
    fs::remove_dir_all(dir.path().join("task")).unwrap();
    read_visits(dir.path(), How::Full).unwrap();
    // It tells of what kind its stores are.
    let dir = copy_of(POSITION);
    let shared = Arc::new(changelog(dir.path(), u64::MAX).unwrap());
    let options = TaskOptions::new("golden", 0, dir.path().join("task"), shared);
    let error = Task::open(options.store("visits").store("last")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Diverged, "{error}");
    assert!(
        error.to_string().contains("kept as a timestamped"),
        "{error}"
    );
}

// Newer versions.

/// CRC-32 as `docs/format.md` has it, bound to an id and a position.
fn checksum(id: u64, position: u64, bytes: &[u8]) -> u32 {
    let place = [id.to_le_bytes(), position.to_le_bytes()].concat();
    let mut crc = !0_u32;
    for byte in place.iter().chain(bytes) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let mask = (crc & 1).wrapping_neg();
            crc = (crc >> 1) ^ (0xedb8_8320 & mask);
        }
    }
    !crc
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Sets the version at `at` and makes the checksum behind `checked` right again.
fn set_version(bytes: &mut [u8], at: usize, checked: std::ops::Range<usize>, id: u64, pos: u64) {
    let (end, now) = (checked.end, |bytes: &[u8]| {
        checksum(id, pos, &bytes[checked.clone()]).to_le_bytes()
    });
    assert!(matches!(bytes[at..at + 4], [1 | 2, 0, 0, 0]));
    assert_eq!(bytes[end..end + 4], now(bytes), "the checksum of today");
    bytes[at..at + 4].copy_from_slice(&NEWER.to_le_bytes());
    let now = now(bytes);
    bytes[end..end + 4].copy_from_slice(&now);
}

fn newer_current(bytes: &mut [u8]) {
    for start in [0, 512] {
        set_version(bytes, start + 8, start..start + 508, 0, start as u64);
    }
}

fn newer_journal(bytes: &mut [u8]) {
    let (id, segment) = (u64_at(bytes, 12), u64_at(bytes, 20));
    set_version(bytes, 8, 0..44, id, segment);
}

fn newer_table(bytes: &mut [u8]) {
    let footer = bytes.len() - 48;
    let id = u64_at(bytes, footer);
    let checked = footer..footer + 44;
    set_version(bytes, footer + 32, checked, id, footer as u64);
}

fn newer_sealed(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    set_version(bytes, 4, 0..end, 0, end as u64);
}

/// The files below `dir` whose names begin and end so.
fn files(dir: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files(&path, start, end));
        } else if name.starts_with(start) && name.ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn a_newer_version_is_refused_by_name() {
    type Change = fn(&mut [u8]);
    let kinds: [(&str, &str, &str, &str, Change); 11] = [
        ("v1", "map", "CURRENT", "", newer_current),
        ("v1", "map", "MANIFEST-", "", newer_journal),
        ("v1", "map", "", ".wal", newer_journal),
        (LOG, "map", "", ".wal", newer_journal),
        (LOG, "map", "WAL-STAGE", "", newer_journal),
        ("v1", "map", "", ".sst", newer_table),
        ("v1", "task", "", ".sst", newer_table),
        ("v1", "changelog", "CHANGELOG", "", newer_sealed),
        ("v1", "changelog", "INDEX", "", newer_sealed),
        ("v1", "changelog", "", ".log", newer_journal),
        ("v1", "changelog", "", ".base", newer_journal),
    ];
    for (format, folder, start, end, change) in kinds {
        let count = files(&golden(format).join(folder), start, end).len();
        assert!(count > 0, "{folder} has no {start}*{end}");
        // The first and the last of the kind.
        for index in [0, count - 1] {
            let dir = copy_of(format);
            let file = &files(&dir.path().join(folder), start, end)[index];
            let mut bytes = fs::read(file).unwrap();
            change(&mut bytes);
            fs::write(file, bytes).unwrap();
            if folder == "changelog" {
                fs::remove_dir_all(dir.path().join("task")).unwrap();
            }
            let result = match folder {
                "map" => read_map(dir.path(), ReadMode::Mapped),
                _ => read_task(dir.path(), ReadMode::Mapped, How::Tail),
            };
            let error = result.expect_err("a newer version was read");
            let told = format!("{}: {error}", file.display());
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{told}");
            let names_it = error.to_string().contains(&NEWER.to_string());
            assert!(names_it, "{told} does not name the version");
        }
    }
}

// How they are made.

fn make_map(dir: &Path) {
    let (db, keyspaces) = open_map(dir, ReadMode::Mapped).unwrap();
    for step in 0..STEPS {
        for number in 0..KEYS {
            let mut batch = WriteBatch::new();
            for keyspace in &keyspaces {
                match write(number, step) {
                    Write::Put(value) => batch.put(keyspace, key(number), value).unwrap(),
                    Write::Delete => batch.delete(keyspace, key(number)).unwrap(),
                    Write::Nothing => {}
                }
            }
            db.write(batch, Durability::Buffered).unwrap();
            if step == STEPS - 1 && number == KEYS / 2 {
                db.sync().unwrap();
            }
        }
        match step {
            0 => {
                for keyspace in &keyspaces {
                    keyspace.compact().unwrap();
                }
            }
            1 | 2 => db.flush().unwrap(),
            // The last step stays in the write-ahead log, the end of it in the stage: the store is
            // not closed.
            _ => {}
        }
    }
    let stats = db.stats().unwrap();
    let levels = stats.levels.iter().filter(|level| level.tables > 0);
    assert!(levels.count() >= 2, "tables of two levels");
    assert!(stats.levels.iter().any(|level| level.tombstones > 0));
}

fn make_task(dir: &Path) {
    let (mut task, stores) = open_task(dir, ReadMode::Mapped).unwrap();
    for commit in 1..=COMMITS {
        for (index, store) in stores.iter().enumerate() {
            for (word, value) in task_writes(commit, index as u64) {
                match value {
                    Some(value) => store.put(&mut task, &word, &value).unwrap(),
                    None => store.delete(&mut task, &word).unwrap(),
                }
            }
        }
        task.set_input_position("words", commit).unwrap();
        task.commit().unwrap();
        if commit == COMMITS_IN_TABLES {
            task.flush().unwrap();
            // What the tables cover needs no tombstone.
            changelog(dir, 0).unwrap().compact(task.name()).unwrap();
        }
    }
    // Not closed: the state stays behind the changelog.
}

/// Makes a new folder, if the environment names one; existing ones are left alone.
#[test]
fn make_golden() {
    if let Some(dir) = new_golden() {
        make_map(&dir);
        make_task(&dir);
    }
}

/// The folder to make, which is not there yet, if the environment names one.
fn new_golden() -> Option<PathBuf> {
    let dir = std::env::var_os("SILTSTONE_MAKE_GOLDEN")?;
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    assert!(!dir.exists(), "{} is there already", dir.display());
    Some(dir)
}

/// The same for a log of version 2.
#[test]
fn make_golden_log() {
    if let Some(dir) = new_golden() {
        make_map(&dir);
    }
}

#[test]
fn the_golden_log_has_records_that_are_in_its_stage_alone() {
    let dir = copy_of(LOG);
    fs::remove_file(dir.path().join("map/WAL-STAGE")).unwrap();
    let (db, keyspaces) = open_map(dir.path(), ReadMode::Mapped).unwrap();
    for keyspace in &keyspaces {
        assert_ne!(keyspace.entries().unwrap().count(), expected_map().len());
    }
    db.close().unwrap();
}

/// The same for a position of version 2.
#[test]
fn make_golden_position() {
    let Some(dir) = new_golden() else { return };
    let (mut task, visits, last) = open_visits(&dir).unwrap();
    for number in 0..VISITS {
        match visit(number) {
            (key, Some((value, time_ms))) => visits.put(&mut task, &key, &value, time_ms).unwrap(),
            (key, None) => visits.delete(&mut task, &key).unwrap(),
        }
        last.put(&mut task, "number", &number).unwrap();
        task.set_input_position("door", number + 1).unwrap();
        task.commit().unwrap();
        if number == VISITS_IN_TABLES {
            task.flush().unwrap();
        }
    }
    // Not closed: the state stays behind the changelog.
}
