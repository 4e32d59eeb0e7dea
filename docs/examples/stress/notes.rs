//! What a worker notes down beside the store: when each of its changes began, and when it was
//! acknowledged. Each note is one write to a file, so it survives the death of its process.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Result;

/// Orders the notes of all workers of a process.
#[derive(Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

const NOTE_LEN: usize = 8;

/// The notes of one worker. Changes have numbers from 0 on and are made one after the other, so
/// that the notes are times alone: begun, acknowledged, begun, and so on.
pub(crate) struct Notes<'a> {
    file: File,
    clock: &'a Clock,
}

/// What is known of one change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noted {
    pub(crate) begun: u64,
    pub(crate) acknowledged: Option<u64>,
}

fn path(dir: &Path, worker: u32) -> PathBuf {
    dir.join(format!("worker-{worker}"))
}

impl<'a> Notes<'a> {
    /// Begins anew.
    pub(crate) fn create(dir: &Path, worker: u32, clock: &'a Clock) -> Result<Self> {
        let path = path(dir, worker);
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        file.set_len(0)?;
        Ok(Self { file, clock })
    }

    /// To be called right before a change begins, and right after it was acknowledged.
    pub(crate) fn note(&mut self) -> Result<()> {
        let written = self.file.write(&self.clock.tick().to_le_bytes())?;
        if written != NOTE_LEN {
            return Err("a note was written in part".into());
        }
        Ok(())
    }
}

/// Removes the notes of all workers.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}

/// The changes that a worker began, in order. Only the last may lack its acknowledgement.
pub(crate) fn read(dir: &Path, worker: u32) -> Result<Vec<Noted>> {
    let path = path(dir, worker);
    // A worker that did not come to its start has none.
    let bytes = if path.exists() {
        fs::read(path)?
    } else {
        Vec::new()
    };
    let times: Vec<u64> = bytes
        .as_chunks::<NOTE_LEN>()
        .0
        .iter()
        .map(|note| u64::from_le_bytes(*note))
        .collect();
    let changes = times.chunks(2).map(|pair| Noted {
        begun: pair[0],
        acknowledged: pair.get(1).copied(),
    });
    Ok(changes.collect())
}
