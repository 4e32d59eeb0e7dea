//! The model checker's locks, under the names and with the calls of the real ones.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shuttle::sync as checked;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(checked::Mutex<T>);

pub(crate) struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// Empty only while a condition variable has let go of the lock.
    held: Option<checked::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checked::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        MutexGuard {
            mutex: self,
            held: Some(held),
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("the lock is held")
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("the lock is held")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(checked::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("the lock is held");
        let held = self.0.wait(held).unwrap_or_else(PoisonError::into_inner);
        guard.held = Some(held);
    }

    /// Lets others run and comes back: the model has no time, and a timeout may always come first.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> TimedOut {
        guard.held = None;
        shuttle::thread::yield_now();
        guard.held = guard.mutex.lock().held.take();
        TimedOut
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// What a wait with a time limit answers in a model.
pub(crate) struct TimedOut;

impl TimedOut {
    #[expect(clippy::unused_self, reason = "as the real answer is asked")]
    pub(crate) fn timed_out(&self) -> bool {
        true
    }
}

/// The pointer behind a lock, which the model can stop at.
pub(crate) struct Swap<T>(checked::RwLock<Arc<T>>);

impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checked::RwLock::new(Arc::new(value)))
    }

    pub(crate) fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn update(&self, change: impl FnOnce(&T) -> T) -> Arc<T> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::new(change(&current));
        std::mem::replace(&mut *current, new)
    }
}

/// Schedules a model is run through, unless the environment says otherwise.
#[cfg(test)]
const SCHEDULES: usize = 2000;

/// Runs a model through many schedules, random ones for breadth, and ones with few preemptions,
/// which finds deep orders sooner.
#[cfg(test)]
#[expect(
    clippy::print_stdout,
    reason = "a model says how many schedules it was run through"
)]
pub(crate) fn check(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("SILTSTONE_SCHEDULES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SCHEDULES);
    println!("schedules: {schedules}");
    let model = Arc::new(model);
    let random = Arc::clone(&model);
    shuttle::check_pct(move || model(), schedules / 2, 3);
    shuttle::check_random(move || random(), schedules - schedules / 2);
}
