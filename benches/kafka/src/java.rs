//! Kafka's own clients, told what to do line by line; see `tests/kafka/java/src/Peer.java`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Outcome;

/// A process of its own; it ends when it is dropped.
pub(crate) struct Java {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Java {
    pub(crate) fn start(class_path: &str, bootstrap: &str, folder: &Path) -> Outcome<Self> {
        let mut child = Command::new("java")
            .args(["-Xmx1g", "-cp", class_path, "Peer", bootstrap])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    /// The last line that answers a command.
    pub(crate) fn ask(&mut self, command: &str) -> Outcome<String> {
        let input = self.input.as_mut().ok_or("no input")?;
        writeln!(input, "{command}")?;
        input.flush()?;
        let mut last = String::new();
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err(format!("{command}: the process has ended").into());
            }
            match line.trim_end() {
                "ok" => return Ok(last),
                answer if answer.starts_with("error ") => {
                    return Err(format!("{command}: {answer}").into());
                }
                answer => answer.clone_into(&mut last),
            }
        }
    }

    /// Bytes that the process has caused to be written, and its largest memory in MiB.
    pub(crate) fn system(&self) -> Outcome<(f64, f64)> {
        let read = |file: &str, name: &str| -> Outcome<f64> {
            let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            Ok(number.ok_or("no number")?)
        };
        Ok((
            read("io", "write_bytes:")?,
            read("status", "VmHWM:")? / 1024.0,
        ))
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        // It ends with its input.
        self.input = None;
        let _ = self.child.wait();
    }
}
