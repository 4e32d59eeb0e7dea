//! The example `stress`, for a short while: see `docs/examples/stress/main.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod example;

#[test]
fn what_was_acknowledged_survives_kills() {
    let output = example::run("stress", &["--kills", "10", "--seed", "7"]);
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
    let output = example::run("stress", &["--kills", "60", "--seed", "7", "--spoil"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("seed 7, round "), "{err}");
}
