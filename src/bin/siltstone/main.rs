//! `siltstone`: looks into stores and changelogs, restores them, and changes single keys, from a
//! shell.
//!
//! Exit codes: 0 for success, 1 for a key or topic that is not there or a topic that differs, 2 for
//! an error.

mod args;
mod commands;
mod tasks;
mod text;
mod topics;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::Args;
use commands::{Failure, Outcome};

const ABSENT: u8 = 1;
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = commands::run(&args, &mut out)
        .and_then(|outcome| out.flush().map(|()| outcome).map_err(Failure::Output));
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Absent(message)) => fail(ABSENT, &message),
        // Whoever read the output wants no more of it (`siltstone scan ... | head`).
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => fail(FAILED, &failure.to_string()),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    // There is nowhere left to report that stderr is gone.
    let _ = writeln!(io::stderr(), "siltstone: {message}");
    ExitCode::from(code)
}
