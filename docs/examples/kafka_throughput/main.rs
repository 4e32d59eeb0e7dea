//! How fast a task's records get to a Kafka cluster and back: appends, commits, reads again.
//!
//! ```sh
//! cargo run --release --example kafka_throughput -- --brokers 127.0.0.1:9092 --records 2000000
//! ```

#![expect(
    clippy::print_stdout,
    reason = "a program for people prints what it measured"
)]

use std::time::{Duration, Instant};

use clap::Parser;
use siltstone::changelog::{Changelog, Guarantee, Offset, Partition, RecordRef};
use siltstone::kafka::{BatchCompression, Kafka, KafkaOptions};

/// What to measure, and where.
#[derive(Debug, Parser)]
struct Arguments {
    /// The brokers to ask first.
    #[arg(long)]
    brokers: String,
    /// The topic; it is created if it is missing.
    #[arg(long, default_value = "siltstone-throughput")]
    topic: String,
    /// How many records of 16 + 100 bytes.
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Records of one commit; 0: one commit for all.
    #[arg(long, default_value_t = 0)]
    commit: u64,
    /// Bytes of a batch.
    #[arg(long, default_value_t = 1_000_000)]
    batch_bytes: usize,
    /// Without transactions.
    #[arg(long)]
    per_batch: bool,
    /// Compress with LZ4.
    #[arg(long)]
    lz4: bool,
}

fn main() -> siltstone::Result<()> {
    let arguments = Arguments::parse();
    let options = KafkaOptions::new(&arguments.brokers)
        .batch_bytes(arguments.batch_bytes)
        .linger(Duration::from_millis(5))
        .guarantee(if arguments.per_batch {
            Guarantee::PerBatch
        } else {
            Guarantee::Atomic
        })
        .compression(if arguments.lz4 {
            BatchCompression::Lz4
        } else {
            BatchCompression::None
        });
    let log = Kafka::open(options)?;
    let partition = Partition::new(&arguments.topic, 0);
    let claimed = Instant::now();
    let mut session = log.claim("throughput", std::slice::from_ref(&partition))?;
    println!("claimed in {:?}", claimed.elapsed());

    let start = Instant::now();
    let value = [b'v'; 100];
    for number in 0..arguments.records {
        let key = format!("{number:016x}");
        let record = RecordRef::new(key.as_bytes(), Some(&value));
        session.reserve(record.size())?;
        session.append(0, record)?;
        if arguments.commit > 0 && number % arguments.commit == arguments.commit - 1 {
            let commit = session.prepare()?;
            session.wait(commit)?;
        }
    }
    let commit = session.prepare()?;
    let positions = session.wait(commit)?;
    report("appended and committed", arguments.records, start);

    let from = positions[0].next.0.saturating_sub(arguments.records);
    let mut reader = log.reader(&partition, Offset(from))?;
    let start = Instant::now();
    let mut count = 0;
    while !reader
        .fetch(&mut |_, _| {
            count += 1;
            Ok(())
        })?
        .at_end
    {}
    report("read back", count, start);
    session.close()
}

fn report(what: &str, records: u64, start: Instant) {
    let elapsed = start.elapsed();
    let rate = u128::from(records) * 1000 / elapsed.as_micros().max(1);
    println!("{what}: {records} records in {elapsed:?}: {rate} thousand a second");
}
