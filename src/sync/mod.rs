//! Locks, atomics and threads: the only place that names where they come from.
//!
//! Everything above uses these names. Under `cfg(shuttle)` a model checker's versions stand in for
//! them (`model`), so that it runs the production code through interleavings of its choosing.

#[cfg(shuttle)]
mod model;

pub(crate) use std::sync::atomic::Ordering;

pub(crate) use std::sync::OnceLock;

use std::sync::atomic::AtomicU64 as RealAtomicU64;

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Weak};
#[cfg(not(shuttle))]
pub(crate) use std::thread;

#[cfg(all(shuttle, test))]
pub(crate) use model::check as check_model;
#[cfg(shuttle)]
pub(crate) use model::{Condvar, Mutex, MutexGuard, Swap};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
#[cfg(shuttle)]
pub(crate) use shuttle::thread;
#[cfg(shuttle)]
pub(crate) use std::sync::{Arc, Weak};

/// A pointer that is read much and replaced seldom.
///
/// A reader takes no lock and writes to no memory that other readers look at. A load sees every
/// replacement that happened before it.
#[cfg(not(shuttle))]
pub(crate) struct Swap<T> {
    current: arc_swap::ArcSwap<T>,
    /// Held by the one who replaces.
    turn: Mutex<()>,
}

/// What a [`Swap`] pointed at when it was loaded; for short use, for each thread has few of them
/// at no cost.
#[cfg(not(shuttle))]
pub(crate) type Loaded<T> = arc_swap::Guard<Arc<T>>;
#[cfg(shuttle)]
pub(crate) type Loaded<T> = Arc<T>;

#[cfg(not(shuttle))]
impl<T> Swap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            current: arc_swap::ArcSwap::from_pointee(value),
            turn: Mutex::new(()),
        }
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        self.current.load()
    }

    /// Replaces the value by what `change` makes of it, one after another, and returns the old one.
    pub(crate) fn update(&self, change: impl FnOnce(&T) -> T) -> Arc<T> {
        let _turn = self.turn.lock();
        let new = Arc::new(change(&self.current.load()));
        self.current.swap(new)
    }
}

/// Counts up over the whole process, whatever runs in it: for numbers of which only the
/// uniqueness matters, in statics.
pub(crate) struct ProcessCounter(RealAtomicU64);

impl ProcessCounter {
    pub(crate) const fn new() -> Self {
        Self(RealAtomicU64::new(1))
    }

    /// A number that was not given before; never 0.
    pub(crate) fn next(&self) -> u64 {
        // Relaxed: only the uniqueness counts.
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
