//! What the clones of an environment share: the disk, its faults, open files, locks and clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use super::disk::{Disk, NodeId};
use super::fault::{Faults, Verdict, eio};
use super::image::SimImage;
use super::random::Random;

/// The first moment of 2026 UTC.
const WALL_START_MS: u64 = 1_767_225_600_000;

/// What the monotonic clock advances by with every I/O.
const TICK: Duration = Duration::from_micros(1);

pub(super) struct State {
    pub(super) disk: Disk,
    pub(super) faults: Faults,
    /// Nodes that are locked; each is also in `open`.
    pub(super) locks: BTreeSet<NodeId>,
    pub(super) wall_ms: u64,
    pub(super) monotonic: Duration,
    pub(super) random: Random,
    pub(super) is_recording: bool,
    pub(super) recorded: Vec<(u64, SimImage)>,
    /// How many open files and locks hold a node, which keeps it when its last name is gone.
    open: BTreeMap<NodeId, usize>,
    seed: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            disk: Disk::new(),
            faults: Faults::default(),
            locks: BTreeSet::new(),
            wall_ms: WALL_START_MS,
            monotonic: Duration::ZERO,
            random: Random::new(seed),
            is_recording: false,
            recorded: Vec::new(),
            open: BTreeMap::new(),
            seed,
        }
    }

    pub(super) fn capture(&self) -> SimImage {
        SimImage::new(self.disk.clone(), self.wall_ms, self.monotonic)
    }

    pub(super) fn hold(&mut self, id: NodeId) {
        *self.open.entry(id).or_default() += 1;
    }

    pub(super) fn release(&mut self, id: NodeId) {
        match self.open.get_mut(&id) {
            Some(count @ 2..) => *count -= 1,
            _ => drop(self.open.remove(&id)),
        }
    }

    /// One look at the disk, which reads no bytes of files.
    pub(super) fn read(&mut self) -> io::Result<&Disk> {
        self.faults.read(self.seed)?;
        self.monotonic += TICK;
        Ok(&self.disk)
    }

    /// One read of a file's bytes; false if they reach beyond its end.
    pub(super) fn read_bytes(&mut self, id: NodeId, pos: u64, buf: &mut [u8]) -> io::Result<bool> {
        let flip = self.faults.read(self.seed)?;
        self.monotonic += TICK;
        let is_whole = self.disk.file(id).visible.read(pos, buf);
        if let Some(mut random) = flip
            && !buf.is_empty()
        {
            let bit = random.index(0..buf.len() * 8);
            buf[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(is_whole)
    }

    /// The start of one mutating I/O.
    fn begin(&mut self) -> io::Result<Verdict> {
        self.faults.check_running()?;
        self.note_change();
        Ok(self.faults.mutate(self.seed))
    }

    /// Records the disk from before a change, and lets the time pass that it takes.
    fn note_change(&mut self) {
        if self.is_recording {
            let image = self.capture();
            self.recorded.push((self.faults.io_count, image));
        }
        self.monotonic += TICK;
    }

    /// One mutating I/O that happens wholly or not at all.
    pub(super) fn change<T>(
        &mut self,
        act: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.begin()? {
            Verdict::Run => act(&mut self.disk),
            Verdict::Fail(error) => Err(error),
            Verdict::Short(_) => Err(eio()),
            Verdict::Late => act(&mut self.disk).and(Err(eio())),
        }
    }

    /// The same, where a full disk has no room for one more file or directory.
    pub(super) fn create<T>(
        &mut self,
        act: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        let is_full = self.room() == 0;
        self.change(|disk| {
            if is_full {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                act(disk)
            }
        })
    }

    pub(super) fn write(&mut self, id: NodeId, pos: u64, bytes: &[u8]) -> io::Result<()> {
        match self.begin()? {
            Verdict::Run => self.write_what_fits(id, pos, bytes),
            Verdict::Fail(error) => Err(error),
            Verdict::Late => self.write_what_fits(id, pos, bytes).and(Err(eio())),
            Verdict::Short(mut random) => {
                let len = random.index(0..bytes.len().max(1));
                self.write_what_fits(id, pos, &bytes[..len]).and(Err(eio()))
            }
        }
    }

    fn write_what_fits(&mut self, id: NodeId, pos: u64, bytes: &[u8]) -> io::Result<()> {
        let len_max = self.disk.file(id).visible.len().saturating_add(self.room());
        let fits = usize::try_from(len_max.saturating_sub(pos)).unwrap_or(usize::MAX);
        if bytes.len() <= fits {
            return self.disk.write(id, pos, bytes);
        }
        self.disk.write(id, pos, &bytes[..fits])?;
        Err(io::ErrorKind::StorageFull.into())
    }

    /// One store into a map: a mutating I/O that no fault reaches, and nothing once the machine
    /// has stopped.
    pub(super) fn store(&mut self, id: NodeId, pos: u64, bytes: &[u8]) {
        if self.faults.check_running().is_err() {
            return;
        }
        self.note_change();
        self.faults.io_count += 1;
        // Within the file, which nobody cuts: it has the room.
        let stored = self.disk.write(id, pos, bytes);
        stored.expect("a map is no longer than its file");
    }

    pub(super) fn set_len(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        let len_max = self.disk.file(id).visible.len().saturating_add(self.room());
        self.change(|disk| {
            if len > len_max {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.set_len(id, len)
        })
    }

    /// One sync of a file. After an error, what was not saved never will be.
    pub(super) fn sync(&mut self, id: NodeId) -> io::Result<()> {
        let verdict = self.begin()?;
        if self.faults.is_read_only && self.disk.file(id).pending.is_empty() {
            return Ok(());
        }
        let file = self.disk.file_mut(id);
        let count = file.pending.len();
        match verdict {
            Verdict::Run => {
                file.sync(count);
                Ok(())
            }
            Verdict::Fail(error) => {
                file.sync(0);
                Err(error)
            }
            Verdict::Late => {
                file.sync(count);
                Err(eio())
            }
            Verdict::Short(mut random) => {
                file.sync(random.index(0..count.max(1)));
                Err(eio())
            }
        }
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        self.change(|disk| disk.sync_dir(path))?;
        let open = &self.open;
        self.disk.sweep(|id| open.contains_key(&id));
        Ok(())
    }

    /// Bytes by which files may still grow.
    fn room(&self) -> u64 {
        match self.faults.capacity {
            None => u64::MAX,
            Some(bytes_max) => {
                let used = self.disk.used_bytes(|id| self.open.contains_key(&id));
                bytes_max.saturating_sub(used)
            }
        }
    }
}
