//! Names of a changelog's files and directories, and waiting for its locks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::env::{Env, LockGuard};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Condvar, Mutex};

const HEX: &[u8; 16] = b"0123456789abcdef";
const TASK_PREFIX: &str = "task-";
/// What file systems take as the longest name.
const NAME_LEN_MAX: usize = 255;
const TAIL_SUFFIX: &str = ".log";
const COMPACTED_SUFFIX: &str = ".base";

pub(super) const LOCK_NAME: &str = "LOCK";
/// Together about a second: no commit holds a lock for so long, a long compaction may.
const LOCK_TRIES_MAX: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// The name of a task's directory: letters, digits, `-`, `_` and `.` stand for themselves, every
/// other byte is `%` and two hexadecimal digits.
pub(super) fn task_dir(task: &str) -> Result<String> {
    let mut name = TASK_PREFIX.to_owned();
    for byte in task.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            _ => {
                let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
                name.extend(['%', char::from(high), char::from(low)]);
            }
        }
    }
    if task.is_empty() || name.len() > NAME_LEN_MAX {
        return Err(Error::invalid(format!(
            "task name {task:?}: its directory's name has to be at most {NAME_LEN_MAX} bytes long, \
             and it must not be empty"
        )));
    }
    Ok(name)
}

pub(super) fn is_task_dir(name: &str) -> bool {
    name.starts_with(TASK_PREFIX)
}

pub(super) fn tail_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{TAIL_SUFFIX}"))
}

pub(super) fn compacted_path(dir: &Path, generation: u64, number: u64) -> PathBuf {
    dir.join(format!("{generation:020}-{number:06}{COMPACTED_SUFFIX}"))
}

/// The number of a tail segment's file, if `name` is one.
pub(super) fn tail_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(TAIL_SUFFIX)?.parse().ok()?;
    (name == format!("{number:020}{TAIL_SUFFIX}")).then_some(number)
}

/// The generation of a compacted segment's file, if `name` is one.
pub(super) fn compacted_generation(name: &str) -> Option<u64> {
    let (generation, number) = name.strip_suffix(COMPACTED_SUFFIX)?.split_once('-')?;
    let (generation, number): (u64, u64) = (generation.parse().ok()?, number.parse().ok()?);
    (name == format!("{generation:020}-{number:06}{COMPACTED_SUFFIX}")).then_some(generation)
}

/// Takes the lock in `dir`, waiting about a second for another holder.
pub(super) fn lock(env: &dyn Env, dir: &Path) -> Result<Box<dyn LockGuard>> {
    let path = dir.join(LOCK_NAME);
    // Nobody signals it: the holder may be another process.
    let (mutex, never) = (Mutex::new(()), Condvar::new());
    for _ in 1..LOCK_TRIES_MAX {
        match env.lock(&path) {
            Err(error) if error.kind() == ErrorKind::Locked => {}
            other => return other,
        }
        never.wait_for(&mut mutex.lock(), LOCK_WAIT);
    }
    env.lock(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_without_loss() {
        assert_eq!(task_dir("a-B_c.9").unwrap(), "task-a-B_c.9");
        assert_eq!(task_dir("../%é").unwrap(), "task-..%2f%25%c3%a9");
        assert!(task_dir("").is_err());
        assert!(task_dir(&"x".repeat(251)).is_err());
        assert!(task_dir(&"x".repeat(250)).is_ok());
    }

    #[test]
    fn only_own_file_names_are_taken() {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(tail_number(&name(tail_path(Path::new("d"), 12))), Some(12));
        assert_eq!(tail_number("12.log"), None);
        assert_eq!(tail_number("+0000000000000000012.log"), None);
        let compacted = name(compacted_path(Path::new("d"), 3, 4));
        assert_eq!(compacted_generation(&compacted), Some(3));
        assert_eq!(compacted_generation("3-4.base"), None);
    }
}
