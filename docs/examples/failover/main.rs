//! Takes tasks over from a process that was killed, or stopped, in the midst of a commit.
//!
//! Two processes have a task each, and each keeps a standby of the other's. They count numbered
//! records, as fast as they can. Then one of them is killed (or stopped) between sending a commit
//! and its answer, and the other is ordered to take its task over. Measured is the time from the
//! order to the first record processed. A process that was stopped goes on afterwards: it finds
//! that it was replaced, and can write nothing. In the end every record has to be counted exactly
//! once: by the survivor's state, and by one that is restored from the changelog alone.
//!
//! ```text
//! cargo run --release --example failover
//! cargo run --release --example failover -- --changelog kafka://localhost:9092/failover
//! ```
//!
//! In reading order: `input` (the numbered records), `process` (the child), `child` (the parent's
//! end of it), `round` (the parent).

mod child;
mod input;
mod process;
mod round;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Takes tasks over from a process that was killed, or stopped, in the midst of a commit.
#[derive(Debug, Clone, Parser)]
#[command(name = "failover")]
pub(crate) struct Args {
    /// A directory, or kafka://HOST:PORT[,HOST:PORT...]/PREFIX. Each round has changelogs of its
    /// own, in a folder or under a prefix that begins so. A temporary directory unless given.
    #[arg(long, value_name = "URL")]
    changelog: Option<String>,
    /// Where local states go, in folders that are not there yet. A temporary one unless given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What happens to the first process.
    #[arg(long, value_enum, default_values_t = [How::Kill, How::Stop])]
    how: Vec<How>,
    /// How often, each.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// What the moment follows from, as far as it can.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records of each task.
    #[arg(long, default_value_t = 400_000)]
    records: u64,
    /// Records of one commit.
    #[arg(long, default_value_t = 1000)]
    commit_records: u64,
    /// Fails if a task is not taken over within so many milliseconds.
    #[arg(long, value_name = "MS")]
    takeover_ms_max: Option<f64>,
    /// For the children that this starts: their directory, and the job's name.
    #[arg(long, hide = true, num_args = 2)]
    child: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT once its task was taken over.
    Stop,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.child {
        Some(child) => process::run(&args, child),
        None => round::run_all(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "failover: {error}");
            ExitCode::from(2)
        }
    }
}
