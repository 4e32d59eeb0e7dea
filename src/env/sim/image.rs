//! A disk at one moment.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::SimEnv;
use super::crash::{self, CrashPolicy};
use super::disk::{Disk, Node, View};
use super::state::State;

/// A copy of a [`SimEnv`]'s disk at one moment, with what of it was durable, and its clocks.
///
/// Copies share their bytes with the disk and with each other, so that keeping many is cheap.
#[derive(Clone)]
pub struct SimImage {
    disk: Disk,
    wall_ms: u64,
    monotonic: Duration,
}

impl SimImage {
    pub(super) fn new(disk: Disk, wall_ms: u64, monotonic: Duration) -> Self {
        Self {
            disk,
            wall_ms,
            monotonic,
        }
    }

    /// The environment after a crash at this moment: what `policy` leaves of the disk, all of it
    /// durable, with the same clocks, free locks, no faults and counters at zero. `seed` decides
    /// the random policies and is the seed of the new environment.
    ///
    /// Bytes that a failed sync gave up survive only [`CrashPolicy::Kill`]; even then they are not
    /// durable, and the next crash takes them.
    pub fn crash(&self, policy: CrashPolicy, seed: u64) -> SimEnv {
        let mut state = State::new(seed);
        state.disk = crash::survivor(&self.disk, policy, seed);
        state.wall_ms = self.wall_ms;
        state.monotonic = self.monotonic;
        SimEnv::from_state(seed, state)
    }

    /// The bytes of a file as a read would have seen them; `None` if there was no such file.
    pub fn file_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let id = self.disk.find_file(path).ok()?;
        Some(self.disk.file(id).visible.to_vec())
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let tree = self.disk.tree(View::Visible).into_iter();
        let mut paths: Vec<PathBuf> = tree
            .filter(|(_, id)| matches!(self.disk.nodes[id], Node::File(_)))
            .map(|(path, _)| path)
            .collect();
        paths.sort_unstable();
        paths
    }

    /// A hash of all names and of the bytes that reads would have seen, for telling disks apart.
    pub fn content_hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for (path, id) in self.disk.tree(View::Visible) {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
            match &self.disk.nodes[&id] {
                Node::Dir(_) => hasher.update(b"d"),
                Node::File(file) => {
                    hasher.update(b"f");
                    hasher.update(&file.visible.len().to_le_bytes());
                    file.visible.for_each_part(|part| hasher.update(part));
                }
            }
        }
        hasher.digest()
    }
}

impl fmt::Debug for SimImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.disk.nodes.len();
        f.debug_struct("SimImage")
            .field("nodes", &count)
            .finish_non_exhaustive()
    }
}
