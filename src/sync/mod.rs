//! Locks, atomics and threads: the only place that names where they come from.
//!
//! Everything above uses these names. Under `cfg(shuttle)` a model checker's versions stand in for
//! them (`model`), so that it runs the production code through interleavings of its choosing.

#[cfg(shuttle)]
mod model;

pub(crate) use std::sync::atomic::Ordering;

#[cfg(any(planted, not(any(target_os = "linux", target_os = "android"))))]
pub(crate) use std::sync::OnceLock;

use std::sync::atomic::AtomicU64 as RealAtomicU64;

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Arc, Weak};
#[cfg(not(shuttle))]
pub(crate) use std::thread;

#[cfg(all(shuttle, test))]
pub(crate) use model::check as check_model;
#[cfg(shuttle)]
pub(crate) use model::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
#[cfg(shuttle)]
pub(crate) use shuttle::thread;
#[cfg(shuttle)]
pub(crate) use std::sync::{Arc, Weak};

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
