//! The example `failover` over changelogs in files; over Kafka see `tests/kafka`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "kafka")]

mod example;

#[test]
fn a_task_whose_owner_is_killed_or_stopped_goes_on_elsewhere() {
    let size = ["--records", "100000", "--commit-records", "500"];
    let output = example::run(
        "failover",
        &[&["--rounds", "2", "--seed", "3"][..], &size].concat(),
    );
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
    let output = example::run("failover", &[&limit[..], &size].concat());
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("longer than --takeover-ms-max"), "{err}");
}
