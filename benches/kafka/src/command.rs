//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser};

/// Compares clients of Apache Kafka.
#[derive(Debug, Parser)]
pub(crate) enum Command {
    /// Everything, in rounds.
    Compare(Settings),
    /// Siltstone appends records to a partition: every batch for itself, or one transaction.
    Produce(Log),
    /// Siltstone reads them.
    Fetch(Log),
    /// Siltstone appends records with scattered keys and values that hardly compress.
    Fill(Log),
    /// Siltstone restores a store from them.
    Restore(Restore),
    /// Siltstone decodes the batches of a segment of a broker's log, in memory.
    Decode {
        /// The segment.
        segment: PathBuf,
    },
    /// krafka writes records to a partition.
    KrafkaProduce(Log),
    /// krafka reads them.
    KrafkaFetch(Log),
}

/// Where to read or write, and how much.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The brokers to ask first.
    pub(crate) bootstrap: String,
    /// The topic, whose partition 0 is meant.
    pub(crate) topic: String,
    /// How many records of 16 + 100 bytes.
    pub(crate) records: u64,
    /// As one transaction.
    #[arg(long)]
    pub(crate) atomic: bool,
}

/// What to restore, and where.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The brokers to ask first.
    pub(crate) bootstrap: String,
    /// The task's namespace: its store's topic is NAMESPACE-store-changelog.
    pub(crate) namespace: String,
    /// How many records are there.
    pub(crate) records: u64,
    /// An empty folder for the state.
    pub(crate) folder: PathBuf,
}

/// What is compared.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The brokers to ask first.
    #[arg(long)]
    pub(crate) bootstrap: String,
    /// The program that is librdkafka's client.
    #[arg(long)]
    pub(crate) librdkafka: PathBuf,
    /// The class path of Kafka's own clients.
    #[arg(long)]
    pub(crate) java: String,
    /// The broker's folder of logs.
    #[arg(long)]
    pub(crate) logs: PathBuf,
    /// A folder for states.
    #[arg(long)]
    pub(crate) folder: PathBuf,
    /// Records that are written and read in a round.
    #[arg(long)]
    pub(crate) records: u64,
    /// Records that are restored.
    #[arg(long)]
    pub(crate) restored: u64,
    /// Rounds of writing and reading.
    #[arg(long)]
    pub(crate) rounds: u32,
    /// Rounds of restores.
    #[arg(long)]
    pub(crate) restores: u32,
}
