//! Spreading the parts of a test over the cores, with an eye on those that do not end.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A part that shows no sign of life for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(240);

/// What a worker is doing.
#[derive(Default)]
pub(crate) struct Beat {
    ticks: AtomicU64,
    doing: Mutex<String>,
}

impl Beat {
    pub(crate) fn tick(&self, doing: &dyn Fn() -> String) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing();
    }
}

/// Writes a line that the test harness does not hold back.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Does `work` for every number below `count` on all cores, and returns what came out.
///
/// # Panics
///
/// If a part fails, with its text.
pub(crate) fn for_each<T: Send>(
    count: usize,
    work: impl Fn(usize, &Beat) -> Result<T, String> + Sync,
) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let beats: Vec<Beat> = (0..threads.min(count)).map(|_| Beat::default()).collect();
    let next = AtomicUsize::new(0);
    let (sender, receiver) = channel();
    let mut done = Vec::new();
    let mut failed = None;
    std::thread::scope(|scope| {
        for beat in &beats {
            let (work, next, sender) = (&work, &next, sender.clone());
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count || sender.send(work(number, beat)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut watch = Watch::new(&beats);
        loop {
            match receiver.recv_timeout(Duration::from_secs(1)) {
                Ok(Ok(result)) => done.push(result),
                Ok(Err(error)) => {
                    next.store(count, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
                Err(RecvTimeoutError::Timeout) => watch.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    if let Some(error) = failed {
        panic!("{error}");
    }
    assert_eq!(done.len(), count, "a worker panicked");
    done
}

struct Watch<'a> {
    beats: &'a [Beat],
    last: Vec<(u64, Instant)>,
}

impl<'a> Watch<'a> {
    fn new(beats: &'a [Beat]) -> Self {
        Self {
            beats,
            last: vec![(0, Instant::now()); beats.len()],
        }
    }

    fn look(&mut self) {
        for (beat, (ticks, since)) in self.beats.iter().zip(&mut self.last) {
            let now = beat.ticks.load(Ordering::Relaxed);
            if now != *ticks {
                (*ticks, *since) = (now, Instant::now());
            } else if since.elapsed() > SILENCE_MAX {
                let doing = beat.doing.lock().unwrap_or_else(PoisonError::into_inner);
                say(&format!("hangs: {doing}"));
                // The thread cannot be ended, and a panic would wait for it.
                std::process::exit(101);
            }
        }
    }
}
