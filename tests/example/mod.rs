//! Running an example as a program of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

/// Where cargo puts examples, seen from the test.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let target = test.ancestors().nth(2).expect("target/debug");
    let binary = target.join("examples").join(file);
    assert!(
        binary.exists(),
        "{} is missing: run all tests, or `cargo build --example {name}` first",
        binary.display()
    );
    binary
}

/// Runs it to its end with a directory that vanishes afterwards as its `--dir`.
pub(crate) fn run(name: &str, args: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary(name));
    command.args(args).arg("--dir").arg(dir.path());
    command.output().unwrap()
}
