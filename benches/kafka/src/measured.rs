//! What a client tells of what it did: numbers on one line.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Outcome;

/// Time since something began, of the clock and of this process on processors.
pub(crate) struct Stopwatch {
    began: Instant,
    began_cpu: Duration,
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            began: Instant::now(),
            began_cpu: cpu(),
        }
    }

    pub(crate) fn elapsed(&self) -> (Duration, Duration) {
        (self.began.elapsed(), cpu().saturating_sub(self.began_cpu))
    }

    /// Prints what all clients tell: records, nanoseconds, and nanoseconds of processors.
    pub(crate) fn report(&self, records: u64) {
        let (wall, cpu) = self.elapsed();
        println!("{records} {} {}", wall.as_nanos(), cpu.as_nanos());
    }
}

/// Records, and how long they took.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) records: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    /// What else was told.
    pub(crate) more: Vec<f64>,
}

impl Measured {
    /// Reads the last line that a client printed.
    pub(crate) fn parse(printed: &str) -> Outcome<Self> {
        let line = printed.trim_end().lines().last().unwrap_or_default();
        let numbers: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
        match numbers.map_err(|_| format!("no measurement: {line}"))?[..] {
            [records, nanoseconds, cpu_nanoseconds, ref more @ ..] => Ok(Self {
                records,
                seconds: nanoseconds / 1e9,
                cpu_seconds: cpu_nanoseconds / 1e9,
                more: more.to_vec(),
            }),
            _ => Err(format!("no measurement: {line}").into()),
        }
    }

    /// Millions of records a second.
    pub(crate) fn rate(&self) -> f64 {
        self.records / self.seconds / 1e6
    }

    /// Microseconds of processors for a record.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_seconds / self.records * 1e6
    }
}
