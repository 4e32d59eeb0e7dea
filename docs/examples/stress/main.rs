//! Kills a process that works on stores, again and again, and checks what it left behind.
//!
//! The stores lie on the real file system. Rounds of a plain map, written by several threads with
//! its write-ahead log on, take turns with rounds of a task and its changelog. Each round has
//! options of its own. A child process works and notes down beside the stores what it began and
//! what was acknowledged; the parent kills it, opens the stores and compares. Everything but the
//! timing follows from the seed. At the first wrong answer it ends with a failure and keeps the
//! directory, with a copy of the stores as the kill left them.
//!
//! ```text
//! cargo run --release --example stress -- --kills 500 --seed 1
//! ```
//!
//! In reading order: `random`, `plan` (options and actions of a round), `state` (what a store
//! should hold), `change` (what workers write), `notes`, `map` and `task` (the children), `check`
//! (the oracle), `rounds` (the parent).

mod change;
mod check;
mod map;
mod notes;
mod plan;
mod random;
mod rounds;
mod state;
mod task;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Kills a process that works on stores, again and again, and checks what it left behind.
#[derive(Debug, Parser)]
#[command(name = "stress")]
struct Args {
    /// How many processes to kill.
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// What everything but the timing follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A directory that is missing or empty; removed again if all is well. A temporary one unless
    /// given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Cuts the newest file of the write-ahead log before each check, to prove that checks fail.
    #[arg(long)]
    spoil: bool,
    /// What the child works on; for the children that this starts.
    #[arg(long, hide = true)]
    child: Option<Child>,
    #[arg(long, hide = true, default_value_t = 0)]
    round: u32,
}

/// What a child does until it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Child {
    /// Works on the map.
    Map,
    /// Works on the task.
    Task,
    /// Opens the map, which recovers it, and ends.
    OpenMap,
    /// Opens the task, which restores it, and ends.
    OpenTask,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "stress: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let temporary = std::env::temp_dir().join(format!("stress-{}", std::process::id()));
    let dir = args.dir.as_ref().unwrap_or(&temporary);
    let Some(child) = args.child else {
        return rounds::run(args.seed, args.kills, dir, args.spoil);
    };
    let session = plan::SessionPlan::new(args.seed, u64::from(args.round), u64::MAX - 1);
    match child {
        Child::Map => map::work(args.seed, args.round, dir),
        Child::Task => task::work(args.seed, args.round, dir),
        Child::OpenMap => Ok(map::Map::open(dir, &session)?.db.close()?),
        Child::OpenTask => Ok(task::Job::open(dir, &session)?.task.close().map(drop)?),
    }
}
