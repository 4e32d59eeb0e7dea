//! The example `word_count` and the tool, as a user runs them, on a broker in process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::broker::Broker;

/// Where cargo puts examples, seen from the test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let target = test.ancestors().nth(2).expect("target/debug");
    let binary = target.join("examples").join(name);
    assert!(
        binary.exists(),
        "{} is missing: run all tests, or build all examples first",
        binary.display()
    );
    binary
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn word_count(dir: &Path, changelog: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(example("word_count"));
    command.arg("--state").arg(dir.join("state"));
    command.args(["--changelog", changelog, "--dump"]);
    run(command.arg(dir.join("input")))
}

fn siltstone(args: &[&str]) -> (Option<i32>, String, String) {
    run(Command::new(env!("CARGO_BIN_EXE_siltstone")).args(args))
}

/// A run of the tool that ends with this code.
#[track_caller]
fn ends(code: i32, args: &[&str]) -> (String, String) {
    let (status, out, err) = siltstone(args);
    assert_eq!(status, Some(code), "{args:?}: {out}{err}");
    (out, err)
}

/// A broker, and a URL of a changelog on it.
fn kafka() -> (Broker, String) {
    let broker = Broker::start(1);
    let url = format!("kafka://{}/words", broker.bootstrap_servers());
    (broker, url)
}

#[test]
fn words_are_counted_with_a_changelog_on_kafka() {
    let (_broker, url) = kafka();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input"), "to be or not to be").unwrap();
    let expected = "2\tbe\n1\tnot\n1\tor\n2\tto\n";
    let (code, out, err) = word_count(dir.path(), &url);
    assert_eq!((code, &*out), (Some(0), expected), "{err}");
    // Nothing is counted twice, and nothing is lost with the machine.
    fs::remove_dir_all(dir.path().join("state")).unwrap();
    fs::write(dir.path().join("input"), "to be or not to be, be").unwrap();
    let (code, out, err) = word_count(dir.path(), &url);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("restored counts: full; 4 records"), "{err}");
    assert_eq!(out, "3\tbe\n1\tnot\n1\tor\n2\tto\n");
}

#[test]
fn a_changelog_that_cannot_be_is_told_and_its_secrets_are_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input"), "word").unwrap();
    for (url, told) in [
        ("http://a:1/x", "unknown scheme http://"),
        ("kafka://a/x", "\"a\" is no server"),
        ("kafka://a:1", "the prefix is missing"),
        (
            "kafka://ann:hunter2@a:1/x",
            "do not belong in front of the servers",
        ),
        (
            "kafka://a:1/x?password=hunter2",
            "does not belong into a URL",
        ),
        (
            "kafka://a:1/x?user=ann&password-env=NOT_SET_AT_ALL",
            "no variable NOT_SET_AT_ALL",
        ),
        ("kafka://a:1/x?ca=/no/such/file", "/no/such/file"),
        (
            "kafka://127.0.0.1:1/x?timeout-ms=200",
            "127.0.0.1:1: connect",
        ),
    ] {
        let (code, out, err) = word_count(dir.path(), url);
        assert_eq!((code, &*out), (Some(2), ""), "{err}");
        assert!(err.contains(told) && !err.contains("hunter2"), "{err}");
        let state = dir.path().join("copy");
        let args = ["restore", url, state.to_str().unwrap(), "--store", "counts"];
        let (out, err) = ends(2, &args);
        assert_eq!(out, "");
        assert!(
            err.starts_with("siltstone: ") && err.contains(told),
            "{err}"
        );
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn the_tool_restores_and_follows_from_kafka() {
    let (_broker, url) = kafka();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input"), "to be or not to be").unwrap();
    let copy = dir.path().join("copy");
    let copy = copy.to_str().unwrap();
    let restore = ["restore", &url, copy, "--store", "counts"];
    let (out, _) = ends(0, &restore);
    assert!(out.contains("counts: there is no such partition"), "{out}");
    let (code, _, err) = word_count(dir.path(), &url);
    assert_eq!(code, Some(0), "{err}");
    let (out, _) = ends(0, &restore);
    assert!(
        out.contains("counts: restored from the start; 4 records"),
        "{out}"
    );
    assert!(out.contains("\ncounts: at offset "), "{out}");
    let (out, _) = ends(0, &["scan", copy, "--keyspace", "counts", "--keys-only"]);
    assert_eq!(out, "be\nnot\nor\nto\n");
    fs::write(dir.path().join("input"), "to be or not to be, or").unwrap();
    let (code, _, err) = word_count(dir.path(), &url);
    assert_eq!(code, Some(0), "{err}");
    let standby = ["standby", &url, copy, "--store", "counts"];
    let paced = ["--polls", "2", "--every-ms", "1"];
    let (out, _) = ends(0, &[&standby[..], &paced].concat());
    assert!(out.contains("counts: at offset "), "{out}");
    let (out, _) = ends(0, &["get", copy, "6f72", "--keyspace", "counts", "--hex"]);
    assert_eq!(out, "0000000000000002\n", "{out}");
    let (_, err) = ends(2, &["restore", &url, copy, "--timestamped", "counts"]);
    assert!(err.contains("opened as a timestamped one"), "{err}");
}

#[test]
fn the_tool_creates_and_describes_topics() {
    let (_broker, url) = kafka();
    let describe = ["topic", "describe", &url, "--store", "counts"];
    let (out, err) = ends(1, &describe);
    assert!(
        out.contains("words-counts-changelog: there is no such topic"),
        "{out}"
    );
    assert!(
        out.contains("words-input-position-changelog: there"),
        "{out}"
    );
    // The broker in process does not tell what it is set to.
    assert!(out.contains("by default, for it is not told"), "{out}");
    assert!(err.contains("2 of 2 topics are missing"), "{err}");
    let create = [
        "topic",
        "create",
        &url,
        "--store",
        "counts=other",
        "--partitions",
        "3",
    ];
    let (out, _) = ends(0, &create);
    assert_eq!(
        out,
        "other: created\nwords-input-position-changelog: created\n"
    );
    // It does not tell how they are configured either; a real one does, see the broker tests.
    let (out, err) = ends(2, &create);
    assert_eq!(out, "other: is there already\n");
    assert!(err.contains("DescribeConfigs"), "{err}");
    let other = ["topic", "describe", &url, "--store", "counts=other"];
    let (out, _) = ends(2, &other);
    assert!(out.contains("other/2: offsets 0 to 0"), "{out}");
    for (more, told) in [
        (
            &["--config", "nothing"][..],
            "--config nothing: expected NAME=VALUE",
        ),
        (&["--partitions", "0"], "topics of 0 partitions"),
        (&["--replication", "0"], "a replication factor of 0"),
        (&["--store", "a b"], "topic \"words-a b-changelog\""),
    ] {
        let mut args = vec!["topic", "create", &url, "--store", "fresh"];
        args.extend(more);
        let (_, err) = ends(2, &args);
        assert!(err.contains(told), "{err}");
    }
}

#[test]
fn a_task_is_taken_over_on_kafka() {
    let (_broker, url) = kafka();
    let mut command = Command::new(example("failover"));
    command.args(["--changelog", &url, "--how", "kill", "--rounds", "1"]);
    let (code, out, err) = run(command.args(["--records", "60000", "--commit-records", "300"]));
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("every record counted once"), "{out}");
}
