//! What an operation costs as work grows: more records, longer values, more stores, more threads.
//!
//! Each case runs in a process of its own: it loads records in random order, waits until all is
//! settled, gets records, updates records (a get and a put), settles again, walks through
//! everything, closes and opens again. Every value is checked. A table for each series and phase
//! tells what an operation costs beside the first case, and what it may by the model of
//! `benches/growth/theory.rs`; what costs more is marked. The same goes into a csv.
//!
//! `cargo bench --bench growth -- --help` lists what may be set; `-- --test` runs tiny cases.

#[path = "growth/case.rs"]
mod case;
#[path = "growth/child.rs"]
mod child;
#[path = "growth/data.rs"]
mod data;
#[path = "growth/meter.rs"]
mod meter;
#[path = "growth/parent.rs"]
mod parent;
#[path = "common/processes.rs"]
mod processes;
#[path = "common/records.rs"]
#[expect(dead_code, reason = "values here have lengths and versions")]
mod records;
#[path = "common/shuffle.rs"]
mod shuffle;
#[path = "growth/stores.rs"]
mod stores;
#[path = "growth/table.rs"]
mod table;
#[path = "growth/theory.rs"]
mod theory;

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::Parser;

use case::{Case, Limits, Series};
use parent::{Line, Parent};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What an operation costs as work grows.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these series; all unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    series: Vec<Series>,
    #[command(flatten)]
    limits: Limits,
    /// Where stores are made and the csv is left; on a disk, so that bytes are counted.
    #[arg(long, default_value = "target/growth")]
    dir: PathBuf,
    /// No case begins after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// A case that takes longer is given up.
    #[arg(long, default_value_t = 3600)]
    case_seconds: u64,
    /// Tiny cases, to see that they run.
    #[arg(long)]
    test: bool,
    /// Cargo tells a benchmark so that it is one.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    child: bool,
    #[command(flatten)]
    case: Case,
}

impl Arguments {
    fn is_test(&self) -> bool {
        self.test || !self.bench
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.child {
        return child::run(&arguments.case, &arguments.dir);
    }
    let limits = if arguments.is_test() {
        Limits::TEST
    } else {
        arguments.limits
    };
    fs::create_dir_all(&arguments.dir)?;
    let series = match &arguments.series[..] {
        [] => Series::ALL,
        some => some,
    };
    let mut parent = Parent::new(&arguments);
    let mut csv = table::CSV_HEAD.to_owned();
    for series in series {
        let write = |lines: &[Line]| {
            let all = csv.clone() + &table::csv(*series, lines);
            Ok(fs::write(arguments.dir.join("growth.csv"), all)?)
        };
        let lines = parent.run(*series, &limits, write)?;
        write!(std::io::stdout(), "{}", table::text(*series, &lines))?;
        csv += &table::csv(*series, &lines);
    }
    if parent.failures > 0 {
        return Err(format!("{} cases failed", parent.failures).into());
    }
    Ok(())
}
