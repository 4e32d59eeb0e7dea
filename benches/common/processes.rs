//! Cases that run in processes of their own.

use std::path::Path;
use std::process::{Child, Output};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// Waits for a child that prints little, but no longer than the limit.
///
/// # Errors
///
/// `TimedOut` if the child had to be killed.
pub(crate) fn wait(mut child: Child, limit: Duration) -> io::Result<Output> {
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            let why = format!("it took more than {} s", limit.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        thread::park_timeout(Duration::from_millis(20));
    }
    child.wait_with_output()
}

/// Removes a directory with all that is in it, if it is there.
pub(crate) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
