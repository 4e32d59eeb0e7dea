//! Turns a hang into a failure.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Runs `body` on a thread of its own and panics if it has not ended after so many seconds.
pub(crate) fn within(seconds: u64, body: impl FnOnce() + Send + 'static) {
    let (ended, wait) = channel::<()>();
    let thread = thread::spawn(move || {
        body();
        drop(ended);
    });
    match wait.recv_timeout(Duration::from_secs(seconds)) {
        Err(RecvTimeoutError::Timeout) => panic!("hung: not done after {seconds} s"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}
