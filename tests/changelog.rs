//! The contract of changelogs, held against every implementation: files, memory, and Kafka over a
//! broker in process.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

#[cfg(feature = "kafka")]
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "kafka/broker.rs"]
mod broker;
#[path = "changelog/contract/mod.rs"]
mod contract;
#[path = "changelog/file_faults.rs"]
mod file_faults;
#[cfg(feature = "kafka")]
#[path = "changelog/kafka_rig.rs"]
mod kafka_rig;
#[path = "changelog/rigs.rs"]
mod rigs;

use siltstone::changelog::faulty::CommitPlan;

use rigs::{FileOnDisk, FileOnSim, InMemory, Wrapped};

/// Answers that come later, before and after the commit takes effect.
const LATE: CommitPlan = CommitPlan {
    polls_before: 2,
    polls_after: 2,
    fails: false,
};

#[test]
fn memory_keeps_the_contract() {
    contract::run(&InMemory::new);
}

#[test]
fn a_file_keeps_the_contract() {
    contract::run(&FileOnDisk::new);
}

#[test]
fn a_file_on_a_simulated_disk_keeps_the_contract() {
    contract::run(&FileOnSim::new);
}

#[test]
fn late_answers_keep_the_contract_in_memory() {
    contract::run(&|| Wrapped::new(InMemory::new(), LATE));
    contract::run_faults(&|| Wrapped::new(InMemory::new(), LATE));
}

#[test]
fn late_answers_keep_the_contract_in_a_file() {
    contract::run(&|| Wrapped::new(FileOnSim::new(), LATE));
    contract::run_faults(&|| Wrapped::new(FileOnSim::new(), LATE));
}

#[cfg(feature = "kafka")]
#[test]
fn kafka_keeps_the_contract() {
    contract::run(&kafka_rig::OnKafka::new);
}
