//! Which background work waits where there are fewer processors than threads that would use them.
//!
//! The longer a flush takes, the more is written meanwhile, while the memory that it will free is
//! still held: how fast it is decides how much memory a store needs. So merges leave their
//! processors to flushes, and one to a writer; the work that they put off is done between flushes.

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering};

/// The flushes and merges that run, of all stores.
pub(super) struct Turns {
    processors: usize,
    running: Mutex<Running>,
    /// The flushes of `running`, stored under its lock: nearly always all that a merge looks at.
    flushes: AtomicUsize,
    /// Signalled when a flush ends, and when a merge may have become urgent.
    changed: Condvar,
}

#[derive(Default)]
struct Running {
    flushes: usize,
    /// Merges that do not wait for their turn.
    merges: usize,
    waiting: usize,
}

impl Turns {
    pub(super) fn new(processors: usize) -> Self {
        Self {
            processors,
            running: Mutex::default(),
            flushes: AtomicUsize::new(0),
            changed: Condvar::new(),
        }
    }

    pub(super) fn processors(&self) -> usize {
        self.processors
    }

    /// Counts a flush until what is returned is dropped, by a panic too.
    pub(super) fn begin_flush(&self) -> Flushing<'_> {
        let mut running = self.running.lock();
        running.flushes += 1;
        self.flushes.store(running.flushes, Ordering::Relaxed);
        Flushing(self)
    }

    /// Counts a merge until what is returned is dropped, by a panic too.
    pub(super) fn begin_merge(&self) -> Merging<'_> {
        self.running.lock().merges += 1;
        Merging(self)
    }

    /// Merges that have stepped aside.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.running.lock().waiting
    }

    /// Has merges that wait look again.
    pub(super) fn wake(&self) {
        // Under the lock, so that nobody is between the look and the wait.
        drop(self.running.lock());
        self.changed.notify_all();
    }
}

/// A flush that is counted.
pub(crate) struct Flushing<'a>(&'a Turns);

impl Drop for Flushing<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock();
        running.flushes -= 1;
        self.0.flushes.store(running.flushes, Ordering::Relaxed);
        drop(running);
        self.0.changed.notify_all();
    }
}

/// A merge that is counted.
pub(crate) struct Merging<'a>(&'a Turns);

impl Merging<'_> {
    /// Waits while flushes run, if there are not enough processors for all that runs and a writer
    /// beside it. Returns at once where `is_urgent`, which is asked again after a
    /// [wake](Turns::wake) and whenever a flush has ended.
    ///
    /// No lock may be held that a flush takes.
    #[inline]
    pub(crate) fn step_aside(&self, is_urgent: &dyn Fn() -> bool) {
        // Relaxed: a merge that sees it late steps aside a little later.
        if self.0.flushes.load(Ordering::Relaxed) > 0 {
            self.wait(is_urgent);
        }
    }

    fn wait(&self, is_urgent: &dyn Fn() -> bool) {
        let turns = self.0;
        let mut running = turns.running.lock();
        while running.flushes > 0
            && 1 + running.flushes + running.merges > turns.processors
            && !is_urgent()
        {
            running.merges -= 1;
            running.waiting += 1;
            turns.changed.wait(&mut running);
            running.waiting -= 1;
            running.merges += 1;
        }
    }
}

impl Drop for Merging<'_> {
    fn drop(&mut self) {
        let mut running = self.0.running.lock();
        running.merges -= 1;
        let waits = running.waiting > 0;
        drop(running);
        if waits {
            // There may be a processor for another merge now.
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
#[cfg(shuttle)]
mod models {
    use super::*;
    use crate::sync::{Arc, AtomicBool, check_model as check, thread};

    /// Merges that step aside while a flush comes and goes, and while one becomes urgent, all come
    /// to their ends.
    #[test]
    fn no_merge_waits_for_ever() {
        check(|| {
            let turns = Arc::new(Turns::new(1));
            let urgent = Arc::new(AtomicBool::new(false));
            let flush = {
                let turns = Arc::clone(&turns);
                thread::spawn(move || {
                    for _ in 0..2 {
                        drop(turns.begin_flush());
                    }
                })
            };
            let merges: Vec<_> = (0..2)
                .map(|_| {
                    let (turns, urgent) = (Arc::clone(&turns), Arc::clone(&urgent));
                    thread::spawn(move || {
                        let merging = turns.begin_merge();
                        for _ in 0..2 {
                            merging.step_aside(&|| urgent.load(Ordering::Acquire));
                        }
                    })
                })
                .collect();
            // One that outlasts them: only the wake ends their waits.
            let flushing = turns.begin_flush();
            urgent.store(true, Ordering::Release);
            turns.wake();
            for merge in merges {
                merge.join().unwrap();
            }
            drop(flushing);
            flush.join().unwrap();
            let running = turns.running.lock();
            assert_eq!(
                (running.flushes, running.merges, running.waiting),
                (0, 0, 0)
            );
        });
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use super::*;
    use crate::sync::{Arc, AtomicBool, thread};

    const NEVER: &dyn Fn() -> bool = &|| false;

    /// A merge in a thread of its own that steps aside once.
    fn merge(turns: &Arc<Turns>, urgent: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
        let (turns, urgent) = (Arc::clone(turns), Arc::clone(urgent));
        thread::spawn(move || {
            let merging = turns.begin_merge();
            merging.step_aside(&|| urgent.load(Ordering::Acquire));
        })
    }

    fn wait_until(turns: &Turns, count: usize) {
        while turns.waiting() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_merge_with_a_processor_of_its_own_goes_on() {
        let turns = Turns::new(3);
        let flushing = turns.begin_flush();
        let merging = turns.begin_merge();
        merging.step_aside(NEVER);
        drop(flushing);
        merging.step_aside(NEVER);
        assert_eq!(turns.running.lock().merges, 1);
    }

    #[test]
    fn an_urgent_merge_goes_on() {
        let turns = Turns::new(1);
        let _flushing = turns.begin_flush();
        turns.begin_merge().step_aside(&|| true);
        assert_eq!(turns.waiting(), 0);
    }

    #[test]
    fn only_as_many_merges_wait_as_there_are_too_many() {
        let turns = Arc::new(Turns::new(3));
        let urgent = Arc::new(AtomicBool::new(false));
        let flushing = turns.begin_flush();
        let own = turns.begin_merge();
        let other = merge(&turns, &urgent);
        wait_until(&turns, 1);
        own.step_aside(NEVER);
        // What leaves gives its processor away.
        drop(own);
        other.join().unwrap();
        drop(flushing);
        assert_eq!(turns.running.lock().merges, 0);
    }

    #[test]
    fn merges_wait_for_the_last_flush() {
        let turns = Arc::new(Turns::new(2));
        let urgent = Arc::new(AtomicBool::new(false));
        let flushes = [turns.begin_flush(), turns.begin_flush()];
        let merges = [merge(&turns, &urgent), merge(&turns, &urgent)];
        wait_until(&turns, 2);
        let [one, other] = flushes;
        drop(one);
        turns.wake();
        wait_until(&turns, 2);
        drop(other);
        for merge in merges {
            merge.join().unwrap();
        }
        assert_eq!(turns.flushes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_merge_that_becomes_urgent_goes_on() {
        let turns = Arc::new(Turns::new(1));
        let urgent = Arc::new(AtomicBool::new(false));
        let _flushing = turns.begin_flush();
        let merge = merge(&turns, &urgent);
        wait_until(&turns, 1);
        urgent.store(true, Ordering::Release);
        turns.wake();
        merge.join().unwrap();
    }
}
