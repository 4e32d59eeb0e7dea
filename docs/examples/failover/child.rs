//! The parent's end of a child.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Args, Result};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process of this program, see `process`. It is killed when it is dropped.
pub(crate) struct Child {
    name: &'static str,
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<(Instant, String)>,
    /// What it has told so far, and when that came in.
    told: Vec<(Instant, String)>,
}

impl Child {
    /// Starts one. `changelog` is that of the round.
    pub(crate) fn start(
        name: &'static str,
        args: &Args,
        changelog: &str,
        dir: &Path,
        job: &str,
    ) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--changelog", changelog])
            .args(["--records", &args.records.to_string()])
            .args(["--commit-records", &args.commit_records.to_string()])
            .arg("--child")
            .args([&dir.join(name), Path::new(job)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let output = output.ok_or("a child has an output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            name,
            process,
            input,
            lines,
            told: Vec::new(),
        })
    }

    /// Tells it something; answers when that was.
    pub(crate) fn order(&mut self, line: &str) -> Result<Instant> {
        let input = self.input.as_mut().ok_or("its input was closed")?;
        let now = Instant::now();
        writeln!(input, "{line}")?;
        Ok(now)
    }

    /// Waits until it has told a line that begins so: when that came in, and its numbers behind
    /// the beginning.
    pub(crate) fn wait(&mut self, beginning: &str) -> Result<(Instant, Vec<u64>)> {
        let mut from = 0;
        loop {
            for (at, line) in &self.told[from..] {
                let rest = line.strip_prefix(beginning);
                if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with(' ')) {
                    let numbers: Result<Vec<u64>, _> =
                        rest.split_whitespace().map(str::parse).collect();
                    return Ok((*at, numbers?));
                }
            }
            from = self.told.len();
            self.hear(beginning)?;
        }
    }

    /// Waits for the next commit of a task that it has sent, from now on, and then some more.
    pub(crate) fn wait_for_commit(&mut self, task: u32, more: u64) -> Result<()> {
        let beginning = format!("sent {task} ");
        self.told.extend(self.lines.try_iter());
        let mut left = more;
        loop {
            let line = self.hear(&beginning)?;
            if line.starts_with(&beginning) {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
            } else if line.starts_with(&format!("ended {task} ")) {
                return Err("the task has ended before anything happened: more --records".into());
            }
        }
    }

    fn hear(&mut self, awaited: &str) -> Result<String> {
        let name = self.name;
        let Ok((at, line)) = self.lines.recv_timeout(PATIENCE) else {
            return Err(format!("process {name} does not say {awaited:?}").into());
        };
        self.told.push((at, line.clone()));
        if line.starts_with("failed")
            || (line.starts_with("fenced") && !awaited.starts_with("fenced"))
        {
            return Err(format!("process {name}: {line}").into());
        }
        Ok(line)
    }

    /// Sends it a signal by its name.
    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("kill -s {signal} {id}: {status}").into())
        }
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Lets it end in good order.
    pub(crate) fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.process.wait()?;
        self.told.extend(self.lines.iter());
        let failed = self
            .told
            .iter()
            .find(|(_, line)| line.starts_with("failed"));
        match failed {
            Some((_, line)) => Err(format!("process {}: {line}", self.name).into()),
            None if status.success() => Ok(()),
            None => Err(format!("process {}: {status}", self.name).into()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
