//! Siltstone beside RocksDB, fjall and redb: the same workloads on all of them in one interleaved
//! run, each engine and workload in a process of its own. Prints a table of ratios, and writes it
//! with all single results and a plot.

mod engine;
mod meter;
mod parent;
mod plot;
#[path = "../../common/processes.rs"]
mod processes;
mod records;
mod report;
mod settings;
#[path = "../../common/shuffle.rs"]
mod shuffle;
mod workload;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(feature = "rocksdb")]
use engine::Rocksdb;
use engine::{Engine, Fjall, Name, Redb, Siltstone};
use workload::{Job, Workload};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Parser)]
#[command(about = "Siltstone beside RocksDB, fjall and redb, in one interleaved run")]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    compare: Compare,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One workload on one engine in this process, as a run starts it: to profile it.
    Child(Child),
}

/// A whole run.
#[derive(Debug, Args)]
struct Compare {
    /// Records of the map, 16 + 100 bytes each.
    #[arg(long, default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(10_000..))]
    records: u64,
    /// How often everything is repeated; the table has the medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Name>,
    /// The longest that one workload on one engine may take; it is missing in the table then.
    #[arg(long, default_value_t = 900)]
    limit_seconds: u64,
    /// Where the stores and the results go: a directory on a disk.
    #[arg(long, default_value = "target/peers")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Child {
    #[arg(long)]
    engine: Name,
    #[arg(long)]
    workload: Workload,
    #[arg(long)]
    records: u64,
    #[arg(long)]
    seed: u64,
    /// The store is, or will be, in the folder `store` of it.
    #[arg(long)]
    dir: PathBuf,
    /// Fill what a recovery begins with, print `ready`, and wait to be killed.
    #[arg(long)]
    fill: bool,
}

impl Child {
    fn run(self) -> Result<()> {
        match self.engine {
            Name::Siltstone => self.run_on::<Siltstone>(),
            #[cfg(feature = "rocksdb")]
            Name::Rocksdb => self.run_on::<Rocksdb>(),
            #[cfg(not(feature = "rocksdb"))]
            Name::Rocksdb => Err("built without the feature `rocksdb`".into()),
            Name::Fjall => self.run_on::<Fjall>(),
            Name::Redb => self.run_on::<Redb>(),
        }
    }

    fn run_on<E: Engine>(self) -> Result<()> {
        let job = Job {
            dir: self.dir,
            records: self.records,
            seed: self.seed,
        };
        std::fs::create_dir_all(&job.dir)?;
        if self.fill {
            return workload::fill_for_recovery::<E>(&job);
        }
        for (name, value) in workload::run::<E>(self.workload, &job)?.iter() {
            println!("{name} {value}");
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Command::Child(child)) = cli.command {
        return child.run();
    }
    let mut compare = cli.compare;
    if compare.workloads.is_empty() {
        compare.workloads = Workload::value_variants().to_vec();
    }
    compare
        .workloads
        .retain(|workload| *workload != Workload::Prepare);
    if compare.engines.is_empty() {
        compare.engines = Name::ALL.to_vec();
        compare.engines.retain(|engine| engine.is_built());
    }
    let results = parent::run(&compare)?;
    report::print(&results);
    report::write_ratios(&results, &compare.dir.join("ratios.csv"))?;
    plot::draw(&results, &compare.dir.join("ratios.svg"))?;
    println!(
        "\nin {}: runs.csv, ratios.csv, ratios.svg",
        compare.dir.display()
    );
    if results.failures() > 0 {
        return Err(format!("{} children failed", results.failures()).into());
    }
    Ok(())
}
