//! Spreading the parts of a test over the cores, with an eye on those that do not end.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
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
    is_done: AtomicBool,
}

impl Beat {
    pub(crate) fn tick(&self, doing: &dyn Fn() -> String) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = doing();
    }

    fn doing(&self) -> String {
        let doing = self.doing.lock();
        doing.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes a line that the test harness does not hold back.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How much is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    Parts(usize),
    /// Until the parts that are done have so many images together.
    Images(u64),
    /// Whatever is begun within this time.
    Time(Duration),
}

/// How often such a run tells what there is so far.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Does `work` for every number from 0 on, to this extent, on all cores, and returns what came
/// out. A run to another extent than a number tells how far it is: `weigh` says how many images a
/// part had.
///
/// # Panics
///
/// If a part fails, with its text.
pub(crate) fn for_each<T: Send>(
    extent: Extent,
    weigh: impl Fn(&T) -> u64 + Sync,
    work: impl Fn(usize, &Beat) -> Result<T, String> + Sync,
) -> Vec<T> {
    let start = Instant::now();
    let images = AtomicU64::new(0);
    let is_beyond = |number| match extent {
        Extent::Parts(count) => number >= count,
        Extent::Images(goal) => images.load(Ordering::Relaxed) >= goal,
        Extent::Time(time) => start.elapsed() >= time,
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let beats: Vec<Beat> = (0..threads).map(|_| Beat::default()).collect();
    let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = channel();
    let mut done = Vec::new();
    let mut failed = None;
    std::thread::scope(|scope| {
        for beat in &beats {
            let (work, weigh, next, sender) = (&work, &weigh, &next, sender.clone());
            let images = &images;
            let (is_beyond, has_failed) = (&is_beyond, &has_failed);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_over = is_beyond(number) || has_failed.load(Ordering::Relaxed);
                    if is_over {
                        beat.is_done.store(true, Ordering::Relaxed);
                        return;
                    }
                    let result = work(number, beat);
                    images.fetch_add(result.as_ref().map_or(0, weigh), Ordering::Relaxed);
                    if sender.send(result).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut watch = Watch::new(&beats);
        let mut told = start;
        loop {
            match receiver.recv_timeout(Duration::from_secs(1)) {
                Ok(Ok(result)) => {
                    done.push(result);
                }
                Ok(Err(error)) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
                Err(RecvTimeoutError::Timeout) => watch.look(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if !matches!(extent, Extent::Parts(_)) && told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let rate = images.load(Ordering::Relaxed) / start.elapsed().as_secs().max(1);
                tell(&beats, images.load(Ordering::Relaxed), done.len(), rate);
            }
        }
    });
    if let Some(error) = failed {
        panic!("{error}");
    }
    if let Extent::Parts(count) = extent {
        assert_eq!(done.len(), count, "a worker panicked");
    }
    done
}

fn tell(beats: &[Beat], images: u64, lists: usize, rate: u64) {
    let doing: Vec<String> = beats.iter().map(Beat::doing).collect();
    let doing = doing.join("; ");
    say(&format!(
        "{images} images, {lists} lists, {rate} images/s; {doing}"
    ));
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
            if now != *ticks || beat.is_done.load(Ordering::Relaxed) {
                (*ticks, *since) = (now, Instant::now());
            } else if since.elapsed() > SILENCE_MAX {
                say(&format!("hangs: {}", beat.doing()));
                // The thread cannot be ended, and a panic would wait for it.
                std::process::exit(101);
            }
        }
    }
}
