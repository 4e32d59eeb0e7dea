//! Who syncs, and who waits for that.

use crate::sync::{Condvar, Mutex};

/// One thread at a time has its turn. Those who want one meanwhile wait, and go without where
/// the turns of others have done what they came for.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// True while a thread has its turn.
    taken: Mutex<bool>,
    /// Signalled at the end of each turn.
    ended: Condvar,
}

/// The turn of a thread, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits for a turn; `None` once `is_done` says that there is no need for one.
    pub(super) fn take(&self, is_done: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut taken = self.taken.lock();
        loop {
            if is_done() {
                return None;
            }
            if !*taken {
                *taken = true;
                return Some(Turn(self));
            }
            self.ended.wait(&mut taken);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock() = false;
        self.0.ended.notify_all();
    }
}
