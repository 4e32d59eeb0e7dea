//! The example `failover` over changelogs in files; over Kafka see `tests/kafka`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "kafka")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// Where cargo puts examples, seen from the test.
fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("failover{}", std::env::consts::EXE_SUFFIX);
    let target = test.ancestors().nth(2).expect("target/debug");
    let binary = target.join("examples").join(name);
    assert!(
        binary.exists(),
        "{} is missing: run all tests, or `cargo build --example failover` first",
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
fn a_task_whose_owner_is_killed_or_stopped_goes_on_elsewhere() {
    let size = ["--records", "100000", "--commit-records", "500"];
    let output = run(&[&["--rounds", "2", "--seed", "3"][..], &size].concat());
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}{err}");
    let rounds = out.matches("every record counted once").count();
    assert_eq!(rounds, 4, "{out}");
}

#[test]
fn a_takeover_that_takes_too_long_fails_on_demand() {
    let size = ["--records", "100000", "--commit-records", "500"];
    let limit = ["--rounds", "1", "--how", "kill", "--takeover-ms-max", "0"];
    let output = run(&[&limit[..], &size].concat());
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("longer than --takeover-ms-max"), "{err}");
}
