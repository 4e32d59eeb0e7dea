//! Whether a store takes reads and writes, and if not, why.

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// The state of an open store: healthy, poisoned (reads go on, writes fail), or closed.
#[derive(Default)]
pub(crate) struct Health {
    closed: AtomicBool,
    poisoned: AtomicBool,
    /// Why; written before `poisoned` is set.
    cause: Mutex<Option<Error>>,
}

impl Health {
    pub(crate) fn check_read(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the store was closed"));
        }
        Ok(())
    }

    pub(crate) fn check_write(&self) -> Result<()> {
        self.check_read()?;
        if self.poisoned.load(Ordering::Acquire) {
            return Err(self.poison_error());
        }
        Ok(())
    }

    /// Stops all writes for good. The first cause is kept.
    pub(crate) fn poison(&self, cause: Error) {
        self.cause.lock().get_or_insert(cause);
        self.poisoned.store(true, Ordering::Release);
    }

    /// Poisons the store if the error says that it must be.
    pub(crate) fn observe(&self, error: &Error) {
        if error.kind() == ErrorKind::Poisoned {
            self.poison(error.clone());
        }
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// True for the first caller.
    pub(crate) fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    fn poison_error(&self) -> Error {
        match &*self.cause.lock() {
            Some(cause) => cause
                .into_kind(ErrorKind::Poisoned)
                .context("the store takes no writes until it is reopened"),
            None => Error::new(ErrorKind::Poisoned, "the store takes no writes"),
        }
    }
}
