//! The contract of changelogs, held against every implementation that needs no server.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

#[path = "changelog/contract/mod.rs"]
mod contract;
#[path = "changelog/file_faults.rs"]
mod file_faults;
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
