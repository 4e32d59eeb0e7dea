//! Starts a child for each case, and makes tables of what they find.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::case::{Case, Limits, Series};
use crate::meter::Finding;
use crate::{Arguments, Result, processes};

/// A case's line: what has grown, and what each phase has found.
pub(crate) struct Line {
    pub(crate) grown: u64,
    pub(crate) case: Case,
    pub(crate) findings: Vec<Finding>,
}

pub(crate) struct Parent<'a> {
    arguments: &'a Arguments,
    begin: Instant,
    /// Cases that did not come to their end.
    pub(crate) failures: usize,
}

impl<'a> Parent<'a> {
    pub(crate) fn new(arguments: &'a Arguments) -> Self {
        Self {
            arguments,
            begin: Instant::now(),
            failures: 0,
        }
    }

    /// Runs the cases of a series, as far as there is time. `found` is shown what there is after
    /// each of them, so that a run that is broken off leaves something.
    pub(crate) fn run(
        &mut self,
        series: Series,
        limits: &Limits,
        found: impl Fn(&[Line]) -> Result<()>,
    ) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (grown, case) in series.cases(limits) {
            let passed = self.begin.elapsed().as_secs();
            if self.arguments.seconds.is_some_and(|most| passed >= most) {
                eprintln!("{passed:>6} s  {series:?} {grown}: left out, the time is over");
                continue;
            }
            eprintln!("{passed:>6} s  {series:?} {grown}");
            match self.case(case) {
                Ok(findings) => {
                    lines.push(Line {
                        grown,
                        case,
                        findings,
                    });
                    found(&lines)?;
                }
                Err(error) => {
                    eprintln!("FAILED: {error}");
                    self.failures += 1;
                }
            }
        }
        Ok(lines)
    }

    fn case(&self, mut case: Case) -> Result<Vec<Finding>> {
        if self.arguments.is_test() {
            case.look_ms = 2;
        }
        let dir = self
            .arguments
            .dir
            .join(format!("case-{}", std::process::id()));
        processes::remove(&dir)?;
        fs::create_dir_all(&dir)?;
        let found = self.child(&case, &dir);
        processes::remove(&dir)?;
        found
    }

    fn child(&self, case: &Case, dir: &Path) -> Result<Vec<Finding>> {
        let child = Command::new(std::env::current_exe()?)
            .arg("--child")
            .args(case.arguments())
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = processes::wait(child, Duration::from_secs(self.arguments.case_seconds))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", output.status, told.trim()).into());
        }
        let told = String::from_utf8(output.stdout)?;
        told.lines().map(Finding::from_line).collect()
    }
}
