//! The example `stress`, for a short while: see `docs/examples/stress/main.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// Where cargo puts examples, seen from the test.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("stress{}", std::env::consts::EXE_SUFFIX);
    let target = test.ancestors().nth(2).expect("target/debug");
    let binary = target.join("examples").join(name);
    assert!(
        binary.exists(),
        "{} is missing: run all tests, or `cargo build --example stress` first",
        binary.display()
    );
    binary
}

fn run(args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(args).arg("--dir").arg(dir.path());
    command.output().unwrap()
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let output = run(&["--kills", "10", "--seed", "7"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    let out = String::from_utf8_lossy(&output.stdout);
    let last = out.lines().last().unwrap();
    let kills: u32 = last.strip_prefix("kills: ").unwrap().parse().unwrap();
    assert!(kills >= 10, "{out}");
}

/// The check of the check: a log that lost its end is found out.
#[test]
fn a_lost_write_is_found_out() {
    let output = run(&["--kills", "60", "--seed", "7", "--spoil"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("seed 7, round "), "{err}");
}
