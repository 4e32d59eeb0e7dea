//! The command-line tool, run as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use siltstone::changelog::{Changelog, File, FileOptions, Header, Partition, RecordRef};
use siltstone::{Db, KeyspaceOptions, Options, Wal};
use tempfile::TempDir;

fn siltstone(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_siltstone"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    siltstone(args).output().expect("the tool runs")
}

/// What a successful run prints.
#[track_caller]
fn ok(args: &[&str]) -> String {
    let output = run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}: {out}{err}");
    assert_eq!(err, "", "{args:?}");
    out
}

/// What a failed run prints to stderr: one line.
#[track_caller]
fn fails(code: i32, args: &[&str]) -> String {
    let output = run(args);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
    assert!(err.starts_with("siltstone: "), "{args:?}: {err}");
    err
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A directory and the path of a store in it, which is not there yet.
fn place() -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = dir.path().join("store").to_str().expect("UTF-8").to_owned();
    (dir, store)
}

/// A store with 300 numbered keys in tables and one in the log.
fn filled() -> (TempDir, String) {
    let (dir, store) = place();
    let db = Db::open(&store, Options::new()).unwrap();
    let keyspace = db.keyspace("numbers", KeyspaceOptions::new()).unwrap();
    for number in 0..300 {
        keyspace
            .put(format!("key-{number:03}"), format!("value {number}"))
            .unwrap();
    }
    keyspace.delete("key-007").unwrap();
    db.flush().unwrap();
    keyspace.put("last", "in the log").unwrap();
    db.close().unwrap();
    (dir, store)
}

fn files(dir: impl AsRef<Path>, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .collect();
    files.sort();
    files
}

/// A file of a store that has some bytes.
fn path_of(files: &[PathBuf]) -> &str {
    let longest = files
        .iter()
        .max_by_key(|path| path.metadata().unwrap().len());
    longest.expect("a file").to_str().unwrap()
}

fn flip(path: &str, at: impl FnOnce(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x40;
    fs::write(path, bytes).unwrap();
}

#[test]
fn keys_are_put_read_and_deleted() {
    let (_dir, store) = place();
    for args in [
        &["put", &store, "a", "1"][..],
        &["get", &store, "a"],
        &["delete", &store, "a"],
        &["scan", &store],
        &["stats", &store],
        &["verify", &store],
        &["keyspaces", &store],
    ] {
        let error = fails(2, args);
        assert!(error.contains("no store in"), "{args:?}: {error}");
        assert!(!Path::new(&store).exists(), "{args:?} made the directory");
    }
    assert_eq!(ok(&["put", &store, "a", "1", "--create"]), "");
    assert_eq!(ok(&["put", &store, "b", "2"]), "");
    assert_eq!(ok(&["keyspaces", &store]), "default\n");
    assert_eq!(ok(&["get", &store, "a"]), "1\n");
    assert!(fails(1, &["get", &store, "c"]).contains("no key c in keyspace default"));
    ok(&["delete", &store, "a"]);
    ok(&["delete", &store, "a"]);
    fails(1, &["get", &store, "a"]);
    assert_eq!(ok(&["scan", &store]), "b\t2\n");
    assert!(fails(2, &["put", &store, "", "1"]).contains("at least one byte"));
}

#[test]
fn a_keyspace_may_be_left_out_where_there_is_one() {
    let (_dir, store) = place();
    ok(&["put", &store, "a", "1", "--create", "--keyspace", "one"]);
    assert_eq!(ok(&["get", &store, "a"]), "1\n");
    let missing = fails(2, &["put", &store, "a", "2", "-k", "two"]);
    assert!(
        missing.contains("no keyspace two; there are one"),
        "{missing}"
    );
    ok(&["put", &store, "a", "2", "-k", "two", "--create"]);
    assert!(fails(2, &["get", &store, "a"]).contains("--keyspace: one, two"));
    assert_eq!(ok(&["get", &store, "a", "-k", "two"]), "2\n");
    assert_eq!(ok(&["keyspaces", &store]), "one\ntwo\n");
}

#[test]
fn every_byte_can_be_typed_and_printed() {
    let (_dir, store) = place();
    ok(&["put", &store, "é\\x00\\\\", "\\xff\\t-\\n", "--create"]);
    assert_eq!(ok(&["scan", &store]), "é\\x00\\\\\t\\xff\\t-\\n\n");
    assert_eq!(ok(&["get", &store, "\\xc3\\xa9\\0\\\\"]), "\\xff\\t-\\n\n");
    assert_eq!(ok(&["get", &store, "c3a9005C", "--hex"]), "ff092d0a\n");
    assert_eq!(
        ok(&["scan", &store, "--hex", "--from", "c3"]),
        "c3a9005c\tff092d0a\n"
    );
    ok(&["put", &store, "-k", "default", "--", "-key", "-1"]);
    assert_eq!(ok(&["get", &store, "-key"]), "-1\n");
    assert!(fails(2, &["get", &store, "a\\"]).contains("a backslash begins"));
    assert!(fails(2, &["get", &store, "abc", "--hex"]).contains("two hexadecimal digits"));
    assert!(fails(2, &["put", &store, "61", "6", "--hex"]).contains("value \"6\""));
    assert!(fails(2, &["scan", &store, "--to", "\\x"]).contains("--to"));
}

#[test]
fn a_scan_takes_bounds_from_either_end() {
    let (_dir, store) = filled();
    let all = ok(&["scan", &store]);
    assert_eq!(all.lines().count(), 300);
    assert!(!all.contains("key-007") && all.ends_with("last\tin the log\n"));
    let scan = |args: &[&str]| ok(&[&["scan", &store], args].concat());
    assert_eq!(
        scan(&["--from", "key-006", "--to", "key-009"]),
        "key-006\tvalue 6\nkey-008\tvalue 8\n"
    );
    assert_eq!(
        scan(&["--prefix", "key-01", "--keys-only"]).lines().count(),
        10
    );
    assert_eq!(
        scan(&["--prefix", "key-", "--reverse", "--limit", "1"]),
        "key-299\tvalue 299\n"
    );
    assert_eq!(scan(&["--to", "key-001", "--keys-only"]), "key-000\n");
    assert_eq!(scan(&["--from", "z"]), "");
    assert_eq!(scan(&["--from", "z", "--to", "a"]), "");
    assert_eq!(scan(&["--limit", "0"]), "");
    let both = run(&["scan", &store, "--prefix", "a", "--from", "b"]);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (_dir, store) = filled();
    for args in [
        &["scan", &store][..],
        &["dump", path_of(&files(&store, ".sst"))],
    ] {
        let mut child = siltstone(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn an_open_store_is_locked_and_its_files_can_be_dumped() {
    let (_dir, store) = filled();
    let db = Db::open(&store, Options::new()).unwrap();
    for command in ["scan", "stats", "verify", "keyspaces"] {
        assert!(fails(2, &[command, &store]).contains("locked"), "{command}");
    }
    assert!(fails(2, &["put", &store, "a", "b"]).contains("locked"));
    ok(&["dump", path_of(&files(&store, "CURRENT"))]);
    db.close().unwrap();
    ok(&["verify", &store]);
}

#[test]
fn a_store_without_a_log_is_read_as_it_is_and_not_written() {
    let (_dir, store) = place();
    let db = Db::open(&store, Options::new().wal(Wal::Off)).unwrap();
    db.keyspace("state", KeyspaceOptions::new())
        .unwrap()
        .put("a", "1")
        .unwrap();
    db.flush().unwrap();
    db.close().unwrap();
    assert_eq!(ok(&["get", &store, "a"]), "1\n");
    assert_eq!(ok(&["scan", &store]), "a\t1\n");
    assert!(ok(&["stats", &store]).contains("write amplification"));
    assert_eq!(ok(&["verify", &store]), "sound: 1 entries in 1 tables\n");
    for args in [
        &["put", &store, "a", "2", "--create"][..],
        &["delete", &store, "a"],
    ] {
        let error = fails(2, args);
        assert!(error.contains("bypass the task's changelog"), "{error}");
    }
    assert!(files(&store, ".wal").is_empty(), "it was given a log");
    assert_eq!(ok(&["get", &store, "a"]), "1\n");
}

#[test]
fn damage_is_found_and_named() {
    let (_dir, store) = filled();
    assert_eq!(ok(&["verify", &store]), "sound: 300 entries in 1 tables\n");
    let tables = files(&store, ".sst");
    let table = path_of(&tables);
    flip(table, |_| 100);
    for args in [&["verify", &store][..], &["dump", table]] {
        let error = fails(2, args);
        assert!(
            error.contains(table) && error.contains("checksum"),
            "{error}"
        );
    }
    flip(table, |_| 100);
    ok(&["verify", &store]);
    fs::write(table, b"short").unwrap();
    assert!(fails(2, &["verify", &store]).contains(table));
    fs::remove_file(table).unwrap();
    assert!(fails(2, &["get", &store, "a"]).contains(table));
    flip(path_of(&files(&store, "CURRENT")), |_| 20);
    // One of its two copies is whole still.
    ok(&["dump", path_of(&files(&store, "CURRENT"))]);
}

#[test]
fn every_file_of_a_store_can_be_dumped() {
    let (_dir, store) = filled();
    let table = ok(&["dump", path_of(&files(&store, ".sst"))]);
    assert!(table.contains("300 entries (1 tombstones) in"), "{table}");
    assert!(table.contains("put \"key-299\" \"value 299\""), "{table}");
    assert!(table.contains("delete \"key-007\""), "{table}");
    assert!(
        table.ends_with("whole: every checksum, order and count is right\n"),
        "{table}"
    );
    let current = ok(&["dump", path_of(&files(&store, "CURRENT"))]);
    assert!(current.contains("closed in order"), "{current}");
    let manifests: Vec<_> = fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("MANIFEST"))
        .collect();
    let manifest = ok(&["dump", path_of(&manifests)]);
    assert!(manifest.contains("name: \"numbers\""), "{manifest}");
    assert!(manifest.contains("AddTable"), "{manifest}");
    let wals = files(&store, ".wal");
    let wal = ok(&["dump", path_of(&wals)]);
    assert!(wal.contains("put \"last\" \"in the log\""), "{wal}");
}

#[test]
fn a_torn_tail_is_told_from_damage() {
    let (_dir, store) = filled();
    let wals = files(&store, ".wal");
    let wal = path_of(&wals);
    let len = fs::metadata(wal).unwrap().len();
    let mut longer = fs::read(wal).unwrap();
    longer.extend_from_slice(&[7; 30]);
    fs::write(wal, &longer).unwrap();
    let torn = ok(&["dump", wal]);
    assert!(
        torn.contains(&format!("valid end: byte {len} of {}", len + 30)),
        "{torn}"
    );
    assert!(
        torn.contains(&format!("durable end: byte {len} ")),
        "{torn}"
    );
    assert!(
        torn.contains("30 bytes behind the valid end do not count"),
        "{torn}"
    );
    // A clean close has told that all of the log was durable.
    fs::write(wal, &longer[..usize::try_from(len).unwrap() - 1]).unwrap();
    let output = run(&["dump", wal]);
    assert_eq!(output.status.code(), Some(2));
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("cut off after"), "{out}");
    assert!(
        err.contains("damaged at byte") && err.contains("was durable up to"),
        "{err}"
    );
    flip(wal, |_| 20);
    assert!(fails(2, &["dump", wal]).contains("the segment header"));
}

#[test]
fn every_file_of_a_changelog_can_be_dumped() {
    let dir = tempfile::tempdir().unwrap();
    let log: Arc<dyn Changelog> = Arc::new(File::open(dir.path(), FileOptions::new()).unwrap());
    let mut session = log.claim("job-0", &[Partition::new("words", 0)]).unwrap();
    let headers = [Header {
        key: b"from",
        value: Some(b"here"),
    }];
    let record = RecordRef::new(b"stone", Some(b"2"))
        .at(77)
        .with_headers(&headers);
    session.append(0, record).unwrap();
    session.append(0, RecordRef::new(b"sand", None)).unwrap();
    let commit = session.prepare().unwrap();
    session.wait(commit).unwrap();
    session.close().unwrap();
    let root = ok(&["dump", path_of(&files(dir.path(), "CHANGELOG"))]);
    assert!(root.starts_with("changelog file-"), "{root}");
    let task = dir.path().join("task-job-0");
    let index = ok(&["dump", path_of(&files(&task, "INDEX"))]);
    assert!(
        index.contains("index of task job-0, owner number 1"),
        "{index}"
    );
    assert!(index.contains("partition words"), "{index}");
    let segments = files(&task, ".log");
    let path = path_of(&segments);
    let segment = ok(&["dump", path]);
    assert!(segment.contains("put \"stone\" \"2\""), "{segment}");
    assert!(segment.contains("timestamp 77 ms"), "{segment}");
    assert!(segment.contains("header \"from\" \"here\""), "{segment}");
    assert!(segment.contains("delete \"sand\""), "{segment}");
    assert!(segment.contains("\ndurable end: byte "), "{segment}");
    // A segment tells its partitions itself.
    let alone = dir.path().join("copy");
    fs::copy(path, &alone).unwrap();
    assert!(ok(&["dump", alone.to_str().unwrap()]).contains("put \"stone\" \"2\""));
    flip(path_of(&files(&task, "INDEX")), |len| len - 6);
    assert!(fails(2, &["dump", path_of(&files(&task, "INDEX"))]).contains("checksum"));
}

#[test]
fn what_is_no_file_of_ours_is_refused() {
    let (dir, store) = filled();
    assert!(fails(2, &["dump", &store]).contains("is a directory"));
    let other = dir.path().join("other");
    let other_path = other.to_str().unwrap();
    assert!(fails(2, &["dump", other_path]).contains(other_path));
    for content in [&b""[..], b"x", b"SILT", &[0; 5000]] {
        fs::write(&other, content).unwrap();
        let error = fails(2, &["dump", other_path]);
        assert!(error.contains(other_path), "{error}");
    }
    assert!(fails(2, &["scan", other_path]).contains("is no directory"));
    let foreign = dir.path().to_str().unwrap();
    assert!(fails(2, &["put", foreign, "a", "b", "--create"]).contains("not empty"));
}

/// A changelog in files with two records of the store `words` of task 0 of `job`.
fn changelog(dir: &Path) -> (String, Box<dyn siltstone::changelog::Session>) {
    let path = dir.join("changelog");
    let log: Arc<dyn Changelog> = Arc::new(File::open(&path, FileOptions::new()).unwrap());
    let partitions = [
        Partition::new("job-words-changelog", 0),
        Partition::new("job-input-position-changelog", 0),
    ];
    let mut session = log.claim("job-0", &partitions).unwrap();
    for key in [b"sand", b"silt"] {
        session.append(0, RecordRef::new(key, Some(b"1"))).unwrap();
    }
    let commit = session.prepare().unwrap();
    session.wait(commit).unwrap();
    (path.to_str().unwrap().to_owned(), session)
}

#[test]
fn a_changelog_is_restored_while_its_owner_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut session) = changelog(dir.path());
    let copy = dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let restore = ["restore", &log, copy, "--job", "job", "--store", "words"];
    let out = ok(&restore);
    assert!(
        out.starts_with("words: restored from the start; 2 records, 10 bytes in "),
        "{out}"
    );
    assert!(
        out.ends_with("words: at offset 2 of 2\ninput-position: at offset 0 of 0\n"),
        "{out}"
    );
    assert_eq!(ok(&["scan", copy, "-k", "words"]), "sand\t1\nsilt\t1\n");
    session.append(0, RecordRef::new(b"sand", None)).unwrap();
    let commit = session.prepare().unwrap();
    session.wait(commit).unwrap();
    let standby = ["standby", "--every-ms", "0", "--polls", "3"];
    let url = format!("file:{log}");
    let out = ok(&[
        &standby[..],
        &[&url, copy, "--job", "job", "--store", "words"],
    ]
    .concat());
    assert_eq!(
        out,
        "words: at offset 3 of 3\ninput-position: at offset 0 of 0\n"
    );
    assert_eq!(ok(&["scan", copy, "-k", "words"]), "silt\t1\n");
    // A copy of another changelog is left alone until the caller says otherwise.
    fs::remove_dir_all(&log).unwrap();
    let (_, _session) = changelog(dir.path());
    assert!(fails(2, &restore).contains("ask for a rebuild"));
    let out = ok(&[&restore[..], &["--rebuild"]].concat());
    assert!(
        out.starts_with("words: rebuilt (Asked); 2 records"),
        "{out}"
    );
}

#[test]
fn a_changelog_that_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let with = |args: &[&str]| fails(2, &[&["restore"], args].concat());
    assert!(with(&["./log", copy, "--store", "a"]).contains("give it with --job"));
    assert!(with(&["s3://x", copy, "--store", "a", "--job", "j"]).contains("unknown scheme s3://"));
    assert!(with(&["", copy, "--store", "a", "--job", "j"]).contains("directory is missing"));
    let log = dir.path().join("log");
    let log = log.to_str().unwrap();
    let args = [log, copy, "--store", "a", "--store", "a", "--job", "j"];
    assert!(with(&args).contains("store a is named twice"));
    assert_eq!(run(&["restore", log, copy]).status.code(), Some(2));
    let file = dir.path().join("file");
    fs::write(&file, "a file").unwrap();
    let log = file.to_str().unwrap();
    assert!(with(&[log, copy, "--store", "a", "--job", "j"]).contains(log));
}

#[test]
fn a_changelog_in_files_has_partitions_and_no_topics() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _session) = changelog(dir.path());
    let stores = [&log, "--job", "job", "--store", "words"];
    let describe = |more: &[&'static str]| [&["topic", "describe"], &stores[..], more].concat();
    assert_eq!(
        ok(&describe(&[])),
        "job-words-changelog/0: offsets 0 to 2\njob-input-position-changelog/0: offsets 0 to 0\n"
    );
    let told = fails(1, &describe(&["--store", "other"]));
    assert!(told.contains("1 of 3 topics"), "{told}");
    assert!(fails(2, &describe(&["--partitions", "2"])).contains("needs no topics"));
    let create = [&["topic", "create"], &stores[..]].concat();
    assert!(fails(2, &create).contains("needs no topics"));
}

#[test]
fn each_command_explains_itself() {
    let commands = [
        "get",
        "put",
        "delete",
        "scan",
        "stats",
        "verify",
        "dump",
        "restore",
        "standby",
        "keyspaces",
    ];
    let all = ok(&["--help"]);
    for command in commands {
        assert!(all.contains(&format!("  {command} ")), "{all}");
        let help = ok(&[command, "--help"]);
        assert!(help.contains("Examples:\n  siltstone "), "{help}");
    }
    for command in ["create", "describe"] {
        let help = ok(&["topic", command, "--help"]);
        assert!(help.contains("Examples:\n  siltstone topic "), "{help}");
    }
    assert!(ok(&["--version"]).starts_with("siltstone "));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["frobnicate"]).status.code(), Some(2));
}

#[test]
fn a_stage_is_dumped_by_itself_and_with_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/log-v2/map");
    for path in files(golden, "") {
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let stage = dir.path().join("WAL-STAGE");
    let stage = stage.to_str().unwrap();
    let segments = files(dir.path(), ".wal");
    let segment = segments.last().unwrap();
    let name = segment.file_name().unwrap().to_str().unwrap();

    let of_segment = ok(&["dump", segment.to_str().unwrap()]);
    let end = |text: &str, before: &str| {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{text}"));
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap().parse::<u64>().unwrap()
    };
    let staged = end(&of_segment, "goes on in WAL-STAGE, up to position ");
    let written = end(&of_segment, "(position ");
    assert!(written < staged, "{of_segment}");

    let of_stage = ok(&["dump", stage]);
    assert!(
        of_stage.starts_with("stage of a write-ahead log"),
        "{of_stage}"
    );
    let has = format!("{name} has the records up to position ");
    assert_eq!(end(&of_stage, &has), written, "{of_stage}");
    assert_eq!(end(&of_stage, "valid end: position "), staged, "{of_stage}");
    assert!(of_stage.contains("record at byte "), "{of_stage}");
    assert!(of_stage.contains("stone-0"), "{of_stage}");

    fs::remove_file(segment).unwrap();
    let alone = ok(&["dump", stage]);
    assert!(
        alone.contains("cannot tell where its records end"),
        "{alone}"
    );
    // One that is damaged, or of a log that ended before, has nothing.
    fs::copy(dir.path().join("CURRENT"), segment).unwrap();
    let beside = ok(&["dump", stage]);
    assert!(
        beside.contains("has the records up to position 0"),
        "{beside}"
    );
}
