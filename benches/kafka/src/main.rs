//! Clients of Apache Kafka side by side, on brokers that `benches/kafka/run` starts.
//!
//! `compare` goes through rounds, in each of which every client writes and reads the same records
//! in a process of its own, and prints medians beside their goals. The other commands are those
//! processes. In reading order: `command` (their arguments), `measured` (what they tell), `ours`
//! and `theirs` (the clients in Rust), `java` (Kafka's own), `rounds`, `table`.

mod command;
mod java;
mod measured;
mod ours;
mod rounds;
mod table;
mod theirs;

use clap::Parser as _;

use command::Command;

/// What the parts fail with: for people to read.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    match Command::parse() {
        Command::Compare(settings) => rounds::compare(&settings),
        Command::Produce(log) => ours::produce(&log),
        Command::Fetch(log) => ours::fetch(&log),
        Command::Fill(log) => ours::fill(&log),
        Command::Restore(restore) => ours::restore(&restore),
        Command::Decode { segment } => ours::decode(&segment),
        Command::KrafkaProduce(log) => theirs::produce(&log),
        Command::KrafkaFetch(log) => theirs::fetch(&log),
    }
}
