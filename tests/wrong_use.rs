//! Mistakes of callers and surprises of the outside: each is told by its kind, names what is wrong,
//! and changes nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod watchdog;

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use siltstone::env::Env;
use siltstone::env::sim::SimEnv;
use siltstone::{
    Db, Durability, Error, ErrorKind, IfMissing, KEY_LEN_MAX, KeyspaceOptions, Options, Result,
    Runtime, RuntimeOptions, Strategy, VALUE_LEN_MAX, Wal, WriteBatch,
};

fn lazy(runs_max: usize, ratio: u32) -> Strategy {
    Strategy::LazyLeveled { runs_max, ratio }
}

fn options(env: &SimEnv) -> Options {
    Options::new().env(Arc::new(env.clone()))
}

fn runtime(env: &SimEnv) -> Runtime {
    let options = RuntimeOptions::new()
        .env(Arc::new(env.clone()))
        .threads(0)
        .memory_bytes_max(8 << 20)
        .cache_bytes(1 << 20);
    Runtime::new(options).unwrap()
}

fn open(env: &SimEnv) -> Result<Db> {
    Db::open_with("/db", options(env), &runtime(env))
}

/// A closed store with a table and a log.
fn stored() -> SimEnv {
    let env = SimEnv::new(1);
    let db = open(&env).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    keyspace.put("in a table", "1").unwrap();
    db.flush().unwrap();
    keyspace.put("in the log", "2").unwrap();
    db.close().unwrap();
    env
}

#[track_caller]
fn fails<T: Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}

#[track_caller]
fn fails_naming<T: Debug>(result: Result<T>, kind: ErrorKind, what: &str) {
    let error = fails(result, kind);
    assert!(error.to_string().contains(what), "{what}: {error}");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let env = SimEnv::new(1);
    env.set_file_bytes(Path::new("/db/notes.txt"), "mine");
    fails_naming(open(&env), ErrorKind::InvalidArgument, "notes.txt");
    assert_eq!(env.files(), [Path::new("/db/notes.txt")]);
}

#[test]
fn a_path_that_is_a_file_is_told() {
    let env = SimEnv::new(1);
    env.set_file_bytes(Path::new("/db"), "a file");
    fails_naming(open(&env), ErrorKind::InvalidArgument, "/db");
    let below = Db::open_with("/db/below", options(&env), &runtime(&env));
    assert!(below.unwrap_err().to_string().contains("/db"));
    assert_eq!(env.file_bytes(Path::new("/db")).unwrap(), b"a file");
}

#[test]
fn a_store_that_must_be_there_is_not_created() {
    let env = SimEnv::new(1);
    let must_exist = options(&env).if_missing(IfMissing::Fail);
    let result = Db::open_with("/db", must_exist.clone(), &runtime(&env));
    fails_naming(result, ErrorKind::NotFound, "/db");
    assert!(env.list_dir(Path::new("/")).unwrap().is_empty());
    let db = Db::open_with("/db", must_exist, &runtime(&stored()));
    fails(db, ErrorKind::NotFound);
}

#[test]
fn missing_files_of_a_store_are_no_reason_to_create_one() {
    for name in ["CURRENT", "MANIFEST-00000001"] {
        let env = stored();
        env.remove_file(&Path::new("/db").join(name)).unwrap();
        let before = env.content_hash();
        fails_naming(open(&env), ErrorKind::Corruption, name);
        assert_eq!(env.content_hash(), before, "{name}");
    }
}

#[test]
fn a_second_open_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::open(&path, Options::new()).unwrap();
    fails_naming(Db::open(&path, Options::new()), ErrorKind::Locked, "LOCK");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    fails(Db::open(&link, Options::new()), ErrorKind::Locked);
    // A handle that is left keeps the store open.
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    drop(db);
    fails(Db::open(&path, Options::new()), ErrorKind::Locked);
    drop(keyspace);
    let db = Db::open(&path, Options::new()).unwrap();
    db.close().unwrap();
    // Closed, though handles are left.
    Db::open(&path, Options::new()).unwrap().close().unwrap();
}

/// What a child process of the test below is to do.
const CHILD: &str = "SILTSTONE_TEST_CHILD_HOLDS";

#[test]
fn another_process_is_kept_out_until_this_one_ends() {
    const NAME: &str = "another_process_is_kept_out_until_this_one_ends";
    if let Ok(path) = std::env::var(CHILD) {
        hold(Path::new(&path));
    }
    watchdog::within(60, || {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Written by the child once it has the store.
        let ready = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .any(|line| line.unwrap().contains("ready"));
        let refused = Db::open(dir.path(), Options::new());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ready, "the child did not come so far");
        fails(refused, ErrorKind::Locked);
        // The lock has died with its holder, and what was written has not.
        let db = Db::open(dir.path(), Options::new()).unwrap();
        let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
        assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
        db.close().unwrap();
    });
}

/// Holds a store until the process is killed.
fn hold(path: &Path) -> ! {
    let db = Db::open(path, Options::new()).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    keyspace.put("k", "v").unwrap();
    eprintln!("ready");
    loop {
        std::thread::park();
    }
}

#[test]
fn keys_and_values_of_a_wrong_length_are_refused() {
    let env = SimEnv::new(1);
    let db = open(&env).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    let long = vec![b'k'; KEY_LEN_MAX + 1];
    let invalid = ErrorKind::InvalidArgument;
    fails_naming(keyspace.put("", "v"), invalid, "key");
    fails_naming(keyspace.put(&long, "v"), invalid, "65536");
    fails_naming(keyspace.delete(""), invalid, "key");
    fails_naming(keyspace.delete(&long), invalid, "key");
    let large = vec![0; VALUE_LEN_MAX + 1];
    fails_naming(keyspace.put("k", &large), invalid, "value");
    let mut batch = WriteBatch::new();
    batch.put(&keyspace, "good", "1").unwrap();
    fails(batch.put(&keyspace, "", "v"), invalid);
    fails(batch.put(&keyspace, "k", &large), invalid);
    fails(batch.delete(&keyspace, &long), invalid);
    assert_eq!(batch.len(), 1);
    db.write(batch, Durability::Synced).unwrap();
    // Such keys cannot exist, which is an answer.
    assert_eq!(keyspace.get("").unwrap(), None);
    assert_eq!(keyspace.get(&long).unwrap(), None);
    assert_eq!(keyspace.range(""..).unwrap().count(), 1);
    assert_eq!(keyspace.range(..&long[..]).unwrap().count(), 1);
    // The longest is allowed.
    keyspace.put(&long[1..], "v").unwrap();
    assert_eq!(keyspace.get(&long[1..]).unwrap().unwrap(), b"v");
    assert_eq!(keyspace.prefix(&long[1..]).unwrap().count(), 1);
    assert_eq!(keyspace.prefix(&long).unwrap().count(), 0);
}

#[test]
fn names_of_keyspaces_are_checked() {
    let db = open(&SimEnv::new(1)).unwrap();
    let create = |name: &str| db.keyspace(name, KeyspaceOptions::new());
    fails_naming(create(""), ErrorKind::InvalidArgument, "name");
    fails_naming(create(&"n".repeat(256)), ErrorKind::InvalidArgument, "256");
    let longest = "n".repeat(255);
    for name in [&longest, "../x", "a/b", "käse", "\u{0}", " "] {
        create(name).unwrap().put("k", name).unwrap();
    }
    assert_eq!(db.keyspace_names().unwrap().len(), 6);
    fails_naming(db.drop_keyspace("none"), ErrorKind::NotFound, "none");
}

#[test]
fn a_read_only_directory_is_told_and_left_alone() {
    let env = stored();
    env.set_read_only(true);
    let error = fails(open(&env), ErrorKind::Io);
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::PermissionDenied));
    env.set_read_only(false);
    let db = open(&env).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    env.set_read_only(true);
    let error = fails(keyspace.put("k", "v"), ErrorKind::Io);
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::PermissionDenied));
    assert_eq!(keyspace.get("k").unwrap(), None);
    assert_eq!(keyspace.get("in a table").unwrap().unwrap(), b"1");
    assert_eq!(keyspace.get("in the log").unwrap().unwrap(), b"2");
    assert_eq!(keyspace.entries().unwrap().count(), 2);
    env.set_read_only(false);
    keyspace.put("k", "v").unwrap();
    db.close().unwrap();
}

type Change<T> = fn(T) -> T;

#[test]
fn every_bad_option_is_named() {
    let env = SimEnv::new(1);
    let invalid = ErrorKind::InvalidArgument;
    let stores: [(&str, Change<Options>); 8] = [
        ("memtable_bytes_max", |it| it.memtable_bytes_max(1023)),
        ("memtable_bytes_max", |it| {
            it.memtable_bytes_max((1 << 30) + 1)
        }),
        ("wal_bytes_max", |it| it.wal_bytes_max(100)),
        ("wal_bytes_max", |it| it.wal_bytes_max(u64::MAX)),
        ("replay_bytes_max", |it| it.replay_bytes_max(0)),
        ("replay_bytes_max", |it| it.replay_bytes_max(u64::MAX)),
        ("memory_bytes_min", |it| it.memory_bytes_min(usize::MAX)),
        ("record_writes_max", |it| it.record_writes_max(usize::MAX)),
    ];
    for (name, change) in stores {
        let result = Db::open_with("/db", change(options(&env)), &runtime(&env));
        fails_naming(result, invalid, name);
    }
    assert!(env.list_dir(Path::new("/")).unwrap().is_empty());
    let keyspaces: [(&str, Change<KeyspaceOptions>); 15] = [
        ("block_bytes", |it| it.block_bytes(63)),
        ("block_bytes", |it| it.block_bytes((64 << 10) + 1)),
        ("table_bytes", |it| it.table_bytes(0)),
        ("table_bytes", |it| it.table_bytes(u64::MAX)),
        ("runs_max", |it| it.compaction(lazy(1, 10))),
        ("ratio", |it| it.compaction(lazy(4, 101))),
        ("level_ratio", |it| it.level_ratio(1)),
        ("level_ratio", |it| it.level_ratio(101)),
        ("level0_runs_max", |it| it.level0_runs_max(0)),
        ("level0_runs_max", |it| it.level0_runs_max(65)),
        ("uncompressed_levels", |it| it.uncompressed_levels(8)),
        ("filter_bits", |it| it.filter_bits(65, 0)),
        ("upper", |it| it.filter_bits(65, 0)),
        ("filter_bits", |it| it.filter_bits(0, 65)),
        ("last", |it| it.filter_bits(0, u32::MAX)),
    ];
    let db = open(&env).unwrap();
    for (name, change) in keyspaces {
        fails_naming(
            db.keyspace("a", change(KeyspaceOptions::new())),
            invalid,
            name,
        );
    }
    assert!(db.keyspace_names().unwrap().is_empty());
    let runtimes: [(&str, Change<RuntimeOptions>); 4] = [
        ("threads", |it| it.threads(257)),
        ("memory_bytes_max", |it| it.memory_bytes_max(0)),
        ("memory_bytes_max", |it| it.memory_bytes_max(usize::MAX)),
        ("cache_bytes", |it| it.cache_bytes(usize::MAX)),
    ];
    for (name, change) in runtimes {
        fails_naming(Runtime::new(change(RuntimeOptions::new())), invalid, name);
    }
}

#[test]
fn what_belongs_to_another_store_is_refused() {
    let env = SimEnv::new(1);
    let runtime = runtime(&env);
    let one = Db::open_with("/one", options(&env), &runtime).unwrap();
    let two = Db::open_with("/two", options(&env), &runtime).unwrap();
    let of_one = one.keyspace("a", KeyspaceOptions::new()).unwrap();
    let of_two = two.keyspace("a", KeyspaceOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&of_one, "k", "v").unwrap();
    let invalid = ErrorKind::InvalidArgument;
    fails_naming(batch.put(&of_two, "k", "v"), invalid, "store");
    fails_naming(
        two.write(batch.clone(), Durability::Buffered),
        invalid,
        "store",
    );
    assert_eq!(of_two.get("k").unwrap(), None);
    let snapshot = two.snapshot().unwrap();
    fails(snapshot.get(&of_one, "k"), invalid);
    fails(snapshot.range::<&str>(&of_one, ..), invalid);
    fails(snapshot.prefix(&of_one, "k"), invalid);
    // Opened again it is another one.
    one.close().unwrap();
    let one = Db::open_with("/one", options(&env), &runtime).unwrap();
    fails(one.write(batch.clone(), Durability::Buffered), invalid);
    batch.clear();
    batch.put(&of_two, "k", "v").unwrap();
    two.write(batch, Durability::Buffered).unwrap();
}

#[test]
fn a_dropped_keyspace_answers_so() {
    let env = SimEnv::new(1);
    let db = open(&env).unwrap();
    let old = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    for key in ["1", "2", "3"] {
        old.put(key, key).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    let mut under_way = old.entries().unwrap();
    assert_eq!(under_way.next().unwrap().unwrap().key, b"1");
    let mut batch = WriteBatch::new();
    batch.put(&old, "k", "v").unwrap();
    db.drop_keyspace("a").unwrap();
    let new = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    let gone = ErrorKind::NotFound;
    fails(old.get("1"), gone);
    fails(old.put("1", "1"), gone);
    fails(old.delete("1"), gone);
    fails(old.entries(), gone);
    fails(old.prefix("1"), gone);
    fails(old.compact(), gone);
    fails(db.write(batch, Durability::Synced), gone);
    fails(snapshot.get(&old, "1"), gone);
    fails(db.drop_keyspace("b"), gone);
    // What is under way keeps what it sees; the new one has nothing of the old.
    assert_eq!(under_way.count(), 2);
    assert_eq!(new.entries().unwrap().count(), 0);
    assert_eq!(snapshot.get(&new, "1").unwrap(), None);
    new.put("1", "new").unwrap();
    drop((old, new, snapshot, db));
    let db = open(&env).unwrap();
    let new = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    assert_eq!(new.entries().unwrap().count(), 1);
}

#[test]
fn a_closed_store_answers_so() {
    let env = stored();
    let db = open(&env).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    let snapshot = db.snapshot().unwrap();
    let mut range = keyspace.entries().unwrap();
    range.next().unwrap().unwrap();
    let kept = keyspace.get("in a table").unwrap().unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&keyspace, "k", "v").unwrap();
    db.close().unwrap();
    let closed = ErrorKind::Closed;
    fails(db.close(), closed);
    fails(db.clone().flush(), closed);
    fails(db.sync(), closed);
    fails(db.stats(), closed);
    fails(db.verify(), closed);
    fails(db.snapshot(), closed);
    fails(db.keyspace_names(), closed);
    fails(db.keyspace("a", KeyspaceOptions::new()), closed);
    fails(db.keyspace("b", KeyspaceOptions::new()), closed);
    fails(db.drop_keyspace("a"), closed);
    fails(db.write(batch, Durability::Buffered), closed);
    fails(db.write(WriteBatch::new(), Durability::Buffered), closed);
    fails(keyspace.get("in a table"), closed);
    fails(keyspace.put("k", "v"), closed);
    fails(keyspace.delete("k"), closed);
    fails(keyspace.entries(), closed);
    fails(keyspace.prefix("k"), closed);
    fails(keyspace.compact(), closed);
    fails(snapshot.get(&keyspace, "in a table"), closed);
    fails(snapshot.range::<&str>(&keyspace, ..), closed);
    fails(range.next().unwrap(), closed);
    assert!(range.next().is_none(), "an error ends a range");
    assert_eq!(kept, b"1", "bytes that were read stay");
    // Nothing of all that reached the files.
    let db = open(&env).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    assert_eq!(keyspace.entries().unwrap().count(), 2);
}

#[test]
fn a_budget_too_small_for_another_store_is_told() {
    let env = SimEnv::new(1);
    let options = |path: &str, min: usize| {
        let options = options(&env)
            .memory_bytes_min(min)
            .record_writes_max(1 << 20);
        Db::open_with(path, options, &runtime(&env)).map(|db| db.close())
    };
    fails(options("/db", 64 << 20), ErrorKind::MemoryLimit);
    assert!(env.list_dir(Path::new("/")).unwrap().is_empty());
    options("/db", 1 << 20).unwrap().unwrap();
    // Two share what one leaves.
    let runtime = runtime(&env);
    let with = |path: &str| {
        let options = Options::new()
            .env(Arc::new(env.clone()))
            .memory_bytes_min(4 << 20)
            .record_writes_max(0);
        Db::open_with(path, options, &runtime)
    };
    let one = with("/one").unwrap();
    fails_naming(with("/two"), ErrorKind::MemoryLimit, "budget");
    one.close().unwrap();
    drop(one);
    with("/two").unwrap().close().unwrap();
}

#[test]
fn a_write_that_no_budget_can_hold_is_refused() {
    let env = SimEnv::new(1);
    let db = open(&env).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    keyspace.put("before", "1").unwrap();
    let error = fails(keyspace.put("k", vec![0; 64 << 20]), ErrorKind::MemoryLimit);
    assert!(error.is_retriable());
    assert_eq!(keyspace.get("k").unwrap(), None);
    keyspace.put("after", "1").unwrap();
    assert_eq!(keyspace.entries().unwrap().count(), 2);
}

#[test]
fn a_store_without_a_log_cannot_sync() {
    let env = SimEnv::new(1);
    let options = options(&env).wal(Wal::Off);
    let db = Db::open_with("/db", options, &runtime(&env)).unwrap();
    let keyspace = db.keyspace("a", KeyspaceOptions::new()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&keyspace, "k", "v").unwrap();
    let invalid = ErrorKind::InvalidArgument;
    fails_naming(db.write(batch.clone(), Durability::Synced), invalid, "log");
    fails_naming(db.sync(), invalid, "log");
    assert_eq!(keyspace.get("k").unwrap(), None);
    db.write(batch, Durability::Buffered).unwrap();
    db.flush().unwrap();
    db.close().unwrap();
}
