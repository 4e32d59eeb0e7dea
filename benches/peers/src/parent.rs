//! Starts the children, engine after engine for each workload, round after round, so that what
//! else happens on the machine meets all engines alike.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::engine::Name;
use crate::workload::{Base, Workload};
use crate::{Compare, Result, processes};

/// One number that a child has found out.
#[derive(Debug)]
struct Run {
    engine: Name,
    workload: Workload,
    round: u64,
    name: String,
    value: f64,
}

#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) engines: Vec<Name>,
    runs: Vec<Run>,
    failures: usize,
}

impl Results {
    pub(crate) fn failures(&self) -> usize {
        self.failures
    }

    /// The median over the rounds, or `None` if no round came to its end.
    pub(crate) fn median(&self, engine: Name, workload: Workload, name: &str) -> Option<f64> {
        let is_asked =
            |run: &&Run| run.engine == engine && run.workload == workload && run.name == name;
        let mut values: Vec<f64> = self
            .runs
            .iter()
            .filter(is_asked)
            .map(|run| run.value)
            .collect();
        values.sort_by(f64::total_cmp);
        let upper = values.get(values.len() / 2)?;
        let lower = values.get((values.len() - 1) / 2)?;
        Some(f64::midpoint(*lower, *upper))
    }

    /// Every number of every child.
    fn write_runs(&self, path: &Path) -> Result<()> {
        let mut out = String::from("engine,workload,round,name,value\n");
        for run in &self.runs {
            let (engine, workload) = (run.engine.text(), run.workload.text());
            let Run {
                round, name, value, ..
            } = run;
            out += &format!("{engine},{workload},{round},{name},{value}\n");
        }
        Ok(fs::write(path, out)?)
    }
}

pub(crate) fn run(compare: &Compare) -> Result<Results> {
    fs::create_dir_all(&compare.dir)?;
    let stores = compare.dir.join("stores");
    processes::remove(&stores)?;
    let mut results = Results {
        engines: compare.engines.clone(),
        runs: Vec::new(),
        failures: 0,
    };
    let begin = Instant::now();
    for round in 0..compare.rounds {
        for workload in &compare.workloads {
            // No engine is always the one that runs after a certain other one.
            let mut engines = compare.engines.clone();
            let shift = usize::try_from(round)? % engines.len();
            engines.rotate_left(shift);
            for engine in engines {
                if !workload.runs_on(engine) {
                    continue;
                }
                let step = Step {
                    compare,
                    engine,
                    workload: *workload,
                    round,
                };
                eprint!(
                    "{:>6.0} s  round {round}  {:<22}{:<10}",
                    begin.elapsed().as_secs_f64(),
                    workload.text(),
                    engine.text()
                );
                match step.run(&stores) {
                    Ok(found) => {
                        results.add(&step, found);
                        // A run that is broken off leaves what it has found.
                        results.write_runs(&compare.dir.join("runs.csv"))?;
                    }
                    Err(error) => {
                        eprintln!("FAILED: {error}");
                        results.failures += 1;
                    }
                }
            }
        }
    }
    processes::remove(&stores)?;
    Ok(results)
}

impl Results {
    fn add(&mut self, step: &Step, found: Vec<(String, f64)>) {
        let shown = found.first().map_or(0.0, |(_, value)| *value);
        eprintln!("{shown:>14.2}");
        let runs = found.into_iter().map(|(name, value)| Run {
            engine: step.engine,
            workload: step.workload,
            round: step.round,
            name,
            value,
        });
        self.runs.extend(runs);
    }
}

/// One child's work.
struct Step<'a> {
    compare: &'a Compare,
    engine: Name,
    workload: Workload,
    round: u64,
}

impl Step<'_> {
    fn run(&self, stores: &Path) -> Result<Vec<(String, f64)>> {
        let shared = stores.join(format!("shared-{}", self.engine.text()));
        let base = self.workload.base();
        if base != Base::Empty && !shared.join("prepared").exists() {
            processes::remove(&shared)?;
            self.start(Workload::Prepare, &shared)?;
            fs::write(shared.join("prepared"), "")?;
        }
        if base == Base::Shared {
            return self.start(self.workload, &shared);
        }
        let own = stores.join(format!("own-{}", self.engine.text()));
        processes::remove(&own)?;
        if base == Base::Own {
            copy(&shared.join("store"), &own.join("store"))?;
        }
        if self.workload == Workload::Recovery {
            self.fill_and_kill(&own)?;
        }
        let found = self.start(self.workload, &own)?;
        processes::remove(&own)?;
        Ok(found)
    }

    fn command(&self, workload: Workload, dir: &Path) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("child")
            .args(["--engine", self.engine.text()])
            .args(["--workload", &workload.text()])
            .args(["--records", &self.compare.records.to_string()])
            .args(["--seed", &(self.round + 1).to_string()])
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(command)
    }

    fn start(&self, workload: Workload, dir: &Path) -> Result<Vec<(String, f64)>> {
        let child = self
            .command(workload, dir)?
            .stderr(Stdio::piped())
            .spawn()?;
        let output = processes::wait(child, Duration::from_secs(self.compare.limit_seconds))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", output.status, told.trim()).into());
        }
        let mut found = Vec::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let (name, value) = line.split_once(' ').ok_or("not a name and a number")?;
            found.push((name.to_owned(), value.parse()?));
        }
        Ok(found)
    }

    /// Leaves what a kill leaves of a store whose newest writes are in memory and in its log.
    fn fill_and_kill(&self, dir: &Path) -> Result<()> {
        let mut child = self.command(self.workload, dir)?.arg("--fill").spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        child.kill()?;
        child.wait()?;
        if line.trim() != "ready" {
            return Err(format!("the filling child said {line:?}").into());
        }
        Ok(())
    }
}

/// Copies a directory, and waits for the disk: nobody is to pay for that later.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            fs::File::options().append(true).open(&target)?.sync_all()?;
        }
    }
    Ok(())
}
