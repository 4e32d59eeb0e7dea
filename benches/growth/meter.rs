//! What a phase took: time, processor time, bytes written, memory.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// Processor time of this thread.
pub(crate) fn thread_time() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// Processor time of all threads of this process.
fn process_time() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

fn clock(id: ClockId) -> Duration {
    Duration::try_from(clock_gettime(id)).unwrap_or_default()
}

/// The number behind `name` in a file of the kernel; 0 where there is none.
fn kernel_count(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let count = line.and_then(|rest| rest.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Bytes that this process has made the kernel write to disks, counted by page.
fn written_bytes() -> u64 {
    kernel_count("/proc/self/io", "write_bytes:")
}

/// What one phase of a case has found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finding {
    pub(crate) phase: String,
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    /// Processor time of the threads that call, and of all; nanoseconds an operation.
    pub(crate) caller_ns: f64,
    pub(crate) all_ns: f64,
    /// Bytes that went to the disk for each byte of the user.
    pub(crate) written: f64,
    /// The most memory of the phase, mapped files included, and what of it at the end is no file.
    pub(crate) peak_mib: f64,
    pub(crate) anonymous_mib: f64,
}

impl Finding {
    /// Operations a second.
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub(crate) fn speed(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// How a child tells its parent.
    pub(crate) fn to_line(&self) -> String {
        format!(
            "{} {} {} {} {} {} {} {}",
            self.phase,
            self.operations,
            self.seconds,
            self.caller_ns,
            self.all_ns,
            self.written,
            self.peak_mib,
            self.anonymous_mib
        )
    }

    pub(crate) fn from_line(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [phase, operations, numbers @ ..] = &fields[..] else {
            return Err(format!("not a finding: {line}").into());
        };
        let numbers: Vec<f64> = numbers
            .iter()
            .map(|number| number.parse())
            .collect::<std::result::Result<_, _>>()?;
        let [seconds, caller_ns, all_ns, written, peak_mib, anonymous_mib] = numbers[..] else {
            return Err(format!("not a finding: {line}").into());
        };
        Ok(Self {
            phase: (*phase).to_owned(),
            operations: operations.parse()?,
            seconds,
            caller_ns,
            all_ns,
            written,
            peak_mib,
            anonymous_mib,
        })
    }
}

/// Measures from its making on.
pub(crate) struct Meter {
    begin: Instant,
    all: Duration,
    written: u64,
}

impl Meter {
    pub(crate) fn start() -> Self {
        // The peak of memory begins again here, where the kernel lets it.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self {
            begin: Instant::now(),
            all: process_time(),
            written: written_bytes(),
        }
    }

    /// What it took until now, or until `end` if the process has been idle since.
    #[expect(clippy::cast_precision_loss, reason = "for people to read")]
    pub(crate) fn finish(
        &self,
        phase: &str,
        operations: u64,
        user_bytes: u64,
        caller: Duration,
        end: Instant,
    ) -> Finding {
        let each = |time: Duration| time.as_secs_f64() * 1e9 / operations as f64;
        let status = |name| kernel_count("/proc/self/status", name) as f64 / 1024.0;
        Finding {
            phase: phase.to_owned(),
            operations,
            seconds: (end - self.begin).as_secs_f64(),
            caller_ns: each(caller),
            all_ns: each(process_time().saturating_sub(self.all)),
            written: (written_bytes() - self.written) as f64 / user_bytes.max(1) as f64,
            peak_mib: status("VmHWM:"),
            anonymous_mib: status("RssAnon:"),
        }
    }
}

/// Looks in a row that have to find the process idle.
const IDLE_LOOKS: u32 = 5;
/// More processor time than this between two looks is work, not the looking itself.
const LOOK_COST: Duration = Duration::from_millis(1);

/// Waits until background work is done: until the process has neither used a processor nor
/// written anything for five looks. Returns when it fell idle.
pub(crate) fn settle(look: Duration) -> Instant {
    let mut idle_since = Instant::now();
    let mut looks = 0;
    let mut last = (process_time(), written_bytes());
    while looks < IDLE_LOOKS {
        std::thread::park_timeout(look);
        let now = (process_time(), written_bytes());
        if now.0.saturating_sub(last.0) <= LOOK_COST && now.1 == last.1 {
            looks += 1;
        } else {
            looks = 0;
            idle_since = Instant::now();
        }
        last = now;
    }
    idle_since
}
