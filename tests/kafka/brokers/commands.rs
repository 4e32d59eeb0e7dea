//! The example `word_count` and the tool on brokers.

use std::process::{Command, Stdio};

use crate::peer::Peer;
use crate::rig::{Cluster, calm, example, unique};
use crate::watchdog::within;

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text += &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

fn siltstone(args: &[&str]) -> (Option<i32>, String) {
    run(Command::new(env!("CARGO_BIN_EXE_siltstone")).args(args))
}

#[test]
fn words_are_counted_restored_and_followed() {
    let _calm = calm();
    within(120, || {
        let cluster = Cluster::main();
        let url = format!("kafka://{}/{}", cluster.bootstrap, unique("words"));
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("input");
        std::fs::write(&input, "to be or not to be").unwrap();
        let mut count = Command::new(example("word_count"));
        count.arg("--state").arg(dir.path().join("state"));
        count.args(["--changelog", &url, "--dump"]).arg(&input);
        let (code, out) = run(&mut count);
        assert_eq!(code, Some(0), "{out}");
        assert!(out.starts_with("2\tbe\n1\tnot\n1\tor\n2\tto\n"), "{out}");
        let copy = dir.path().join("copy");
        let copy = copy.to_str().unwrap();
        let (code, out) = siltstone(&["restore", &url, copy, "--store", "counts"]);
        assert_eq!(code, Some(0), "{out}");
        assert!(out.contains("restored from the start; 4 records"), "{out}");
        std::fs::write(&input, "to be or not to be, or").unwrap();
        assert_eq!(run(&mut count).0, Some(0));
        let standby = ["standby", &url, copy, "--store", "counts", "--polls", "3"];
        let (code, out) = siltstone(&standby);
        assert_eq!(code, Some(0), "{out}");
        let (_, out) = siltstone(&["get", copy, "6f72", "-k", "counts", "--hex"]);
        assert_eq!(out, "0000000000000002\n");
    });
}

#[test]
fn topics_are_created_compared_and_never_altered() {
    let _calm = calm();
    within(120, || {
        let cluster = Cluster::main();
        let job = unique("topics");
        let url = format!("kafka://{}/{job}", cluster.bootstrap);
        let topic = |more: &[&str]| {
            let (what, rest) = more.split_first().unwrap();
            siltstone(&[&["topic", what, &url, "--store", "counts"], rest].concat())
        };
        let (code, out) = topic(&["create", "--partitions", "2"]);
        assert_eq!(code, Some(0), "{out}");
        assert!(
            out.contains(&format!("{job}-counts-changelog: created")),
            "{out}"
        );
        let (code, out) = topic(&["create", "--partitions", "2"]);
        assert_eq!(code, Some(0), "{out}");
        assert!(out.contains("is there already"), "{out}");
        let (code, out) = topic(&["describe", "--partitions", "2"]);
        assert_eq!(code, Some(0), "{out}");
        assert!(out.contains("-counts-changelog/1: offsets 0 to 0"), "{out}");
        // What the brokers are set to; see tests/kafka/brokers/expiry.rs for other values.
        assert!(out.contains("idle producers after 86400s"), "{out}");
        // Another way of configuring topics, and another count: told, and left alone.
        for what in ["create", "describe"] {
            let other = ["--partitions", "3", "--config", "segment.bytes=1048576"];
            let (code, out) = topic(&[&[what], &other[..]].concat());
            assert_eq!(code, Some(1), "{out}");
            let told = "segment.bytes is 268435456, should be 1048576";
            assert!(out.contains(told), "{out}");
            assert!(out.contains("partitions is 2, should be 3"), "{out}");
            assert!(out.contains("2 of 2 topics"), "{out}");
        }
        let (code, _) = topic(&["describe", "--partitions", "2"]);
        assert_eq!(code, Some(0));
        let mut peer = Peer::new(&cluster.bootstrap);
        let foreign = format!("{job}-foreign");
        peer.create(&foreign, "cleanup.policy=delete");
        let store = format!("foreign={foreign}");
        let (code, out) = topic(&["describe", "--store", &store]);
        assert_eq!(code, Some(1), "{out}");
        assert!(
            out.contains("cleanup.policy is delete, should be compact"),
            "{out}"
        );
        let (code, out) = topic(&["create", "--store", "bad", "--config", "segment.bytes=-5"]);
        assert_eq!(code, Some(2), "{out}");
        assert!(out.contains("INVALID_CONFIG"), "{out}");
    });
}
