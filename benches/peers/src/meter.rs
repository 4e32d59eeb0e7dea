//! Time, latencies, processor time, and what the kernel counted for this process.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;

/// Latencies of single operations in nanoseconds, to three digits.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 600_000_000_000, 3)?))
    }

    pub(crate) fn add(&mut self, took: Duration) {
        self.0
            .saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        Ok(self.0.add(&other.0)?)
    }
}

/// Runs an operation so many times, and notes how long each took.
pub(crate) fn repeat(
    times: u64,
    latencies: &mut Latencies,
    mut operation: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    // The end of one operation is the beginning of the next: one look at the clock for each.
    let mut last = Instant::now();
    for number in 0..times {
        operation(number)?;
        let now = Instant::now();
        latencies.add(now - last);
        last = now;
    }
    Ok(())
}

/// What one child has found out, by name.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(String, f64)>);

impl Findings {
    pub(crate) fn add(&mut self, name: &str, value: f64) {
        self.0.push((name.to_owned(), value));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (&name[..], *value))
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds fit")]
    pub(crate) fn add_latencies(&mut self, latencies: &Latencies) {
        let us = |ns: u64| ns as f64 / 1000.0;
        for (name, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            self.add(name, us(latencies.0.value_at_quantile(quantile)));
        }
        self.add("max_us", us(latencies.0.max()));
    }
}

/// Measures from its making on.
pub(crate) struct Meter {
    begin: Instant,
    caller_ns: u64,
    all_ticks: u64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self {
            caller_ns: caller_ns(),
            all_ticks: processor_ticks(),
            begin: Instant::now(),
        }
    }

    /// Adds operations a second, and what one costs of processors: of the calling thread's in
    /// nanoseconds and of all threads' in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds fit")]
    pub(crate) fn finish(&self, operations: u64, findings: &mut Findings) {
        let operations = operations as f64;
        let took = self.begin.elapsed().as_secs_f64();
        findings.add("ops_per_s", operations / took);
        let caller = caller_ns() - self.caller_ns;
        findings.add("caller_ns", caller as f64 / operations);
        let all = (processor_ticks() - self.all_ticks) as f64 * TICK_US;
        findings.add("all_us", all / operations);
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}

/// The kernel counts processor time of processes in hundredths of a second.
const TICK_US: f64 = 10_000.0;

/// Processor time of the calling thread in nanoseconds; 0 where the kernel does not tell.
fn caller_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Processor time of all threads of this process.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15; the second one, a name, may hold anything but ends with a parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The number behind `name` in a file of the kernel.
fn kernel_count(file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let count = line.and_then(|rest| rest.split_whitespace().next());
    let count = count.ok_or_else(|| format!("{file} has no {name}"))?;
    Ok(count.parse()?)
}

/// Bytes that this process has made the kernel write to disks, counted by page.
pub(crate) fn written_bytes() -> Result<u64> {
    kernel_count("/proc/self/io", "write_bytes:")
}

/// The most memory that this process has had, pages of mapped files included.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
pub(crate) fn peak_mib() -> Result<f64> {
    Ok(kernel_count("/proc/self/status", "VmHWM:")? as f64 / 1024.0)
}

const LOOK_MS: u64 = 200;
/// Looks in a row that have to find the process idle.
const IDLE_LOOKS: u32 = 5;

/// Waits until the background work is done: until the process has neither used a processor nor
/// written anything for a second. One rule for all engines, whatever they tell of themselves.
/// Returns when it fell idle.
pub(crate) fn settle() -> Result<Instant> {
    let mut idle_since = Instant::now();
    let mut looks = 0;
    let mut last = (processor_ticks(), written_bytes()?);
    while looks < IDLE_LOOKS {
        std::thread::park_timeout(Duration::from_millis(LOOK_MS));
        let now = (processor_ticks(), written_bytes()?);
        // A tick may be what the looking itself has used.
        if now.0 - last.0 <= 1 && now.1 == last.1 {
            looks += 1;
        } else {
            looks = 0;
            idle_since = Instant::now();
        }
        last = now;
    }
    Ok(idle_since)
}

/// Bytes of all files below a directory.
pub(crate) fn disk_bytes(dir: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            allocated_bytes(&metadata)
        };
    }
    Ok(bytes)
}

/// What a file really takes: engines make files longer than what is in them.
fn allocated_bytes(metadata: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks() * 512
}
