//! The Kafka changelog on Apache Kafka itself, with Kafka's own clients as the other side.
//!
//! `tests/kafka/run` starts the brokers and says where they are. In reading order: `rig` (the
//! brokers, the changelog on them), `peer` (Kafka's clients), `history` (records that tell when
//! one is lost, doubled or out of order), then what is tested.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

mod another;
mod commands;
mod commits;
mod compaction;
mod expiry;
mod failover;
mod faults;
mod history;
mod interop;
mod outages;
mod peer;
mod proxy;
mod rig;
mod security;

/// Turns a hang into a failure.
#[path = "../../watchdog/mod.rs"]
mod watchdog;
