//! The example `failover` on brokers: two processes, of which one is killed, or stopped and
//! continued, in the midst of a commit. How long takeovers took is printed, not judged: machines
//! differ.

use std::process::Command;

use crate::rig::{Cluster, calm, example, unique};
use crate::watchdog::within;

#[test]
fn tasks_are_taken_over_and_every_record_counts_once() {
    let _calm = calm();
    within(300, || {
        let cluster = Cluster::main();
        let url = format!("kafka://{}/{}", cluster.bootstrap, unique("failover"));
        let output = Command::new(example("failover"))
            .args(["--changelog", &url, "--rounds", "5"])
            .args(["--records", "200000", "--commit-records", "1000"])
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        println!("{out}");
        assert!(output.status.success(), "{out}{err}");
        assert_eq!(
            out.matches("every record counted once").count(),
            10,
            "{out}"
        );
    });
}
