//! What a crash leaves of a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::content::{Content, spans};
use super::disk::{DirNode, Disk, FileNode, FileOp, Key, NameOp, Node, NodeId, View};
use super::random::Random;
use crate::sync::Arc;

/// Disks write sectors of this length whole or not at all.
const SECTOR_LEN: usize = 512;

/// What a crash leaves of the changes that were not synced. Synced ones always stay.
///
/// Under every policy a rename happens wholly or not at all, and the changes of one name survive
/// in their order, without gaps. A file that no surviving name leads to is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CrashPolicy {
    /// Only the process dies: everything that it handed to the system stays.
    Kill,
    /// Nothing that was not synced stays.
    MaxLoss,
    /// Names stay, bytes do not: a new file is there and empty.
    NamesOnly,
    /// Bytes stay, names do not: a file stays if its name was synced.
    DataOnly,
    /// Names and lengths stay; what was written past the synced end of a file reads as zeros, and
    /// what was written before that end is lost.
    ZeroTail,
    /// As [`ZeroTail`](Self::ZeroTail), with random bytes in place of what was written.
    GarbageTail,
    /// Each file keeps a random number of its oldest writes, and of the next one the part up to a
    /// random sector border. Of the changes of names a random number of the oldest stays.
    PrefixTorn,
    /// Each sector of 512 bytes keeps all its writes in so many of a hundred cases; in half of the
    /// others it keeps the oldest few. Changes of lengths and of names stay as often, each by
    /// itself.
    Subset(u8),
}

impl CrashPolicy {
    /// All policies, for a loop over them.
    pub const ALL: &'static [Self] = &[
        Self::Kill,
        Self::MaxLoss,
        Self::NamesOnly,
        Self::DataOnly,
        Self::ZeroTail,
        Self::GarbageTail,
        Self::PrefixTorn,
        Self::Subset(15),
        Self::Subset(50),
        Self::Subset(85),
    ];
}

/// The disk that a machine finds after the crash; all of it is durable.
///
/// The one exception are bytes that a failed sync gave up: when only the process dies, they can
/// still be read, and the next crash takes them.
pub(super) fn survivor(disk: &Disk, policy: CrashPolicy, seed: u64) -> Disk {
    let mut disk = disk.clone();
    for op in surviving_names(&disk.pending_names.clone(), policy, seed) {
        disk.apply_names(&op, View::Durable);
    }
    disk.pending_names = Arc::default();
    let live: BTreeSet<NodeId> = disk
        .tree(View::Durable)
        .into_iter()
        .map(|(_, id)| id)
        .collect();
    disk.nodes.retain(|id, _| live.contains(id));
    for (id, node) in &mut disk.nodes {
        match node {
            Node::Dir(dir) => {
                let names = dir.durable.clone();
                *dir = Arc::new(DirNode {
                    visible: names.clone(),
                    durable: names,
                });
            }
            Node::File(file) => {
                // A stream of its own, so that one file's fate does not hang on another's.
                let mut random = Random::part(seed, *id);
                *file = Arc::new(surviving_file(file, policy, &mut random));
            }
        }
    }
    disk
}

fn surviving_names(pending: &[NameOp], policy: CrashPolicy, seed: u64) -> Vec<NameOp> {
    let mut random = Random::new(seed);
    match policy {
        CrashPolicy::Kill
        | CrashPolicy::NamesOnly
        | CrashPolicy::ZeroTail
        | CrashPolicy::GarbageTail => pending.to_vec(),
        CrashPolicy::MaxLoss | CrashPolicy::DataOnly => Vec::new(),
        CrashPolicy::PrefixTorn => pending[..random.index(0..pending.len() + 1)].to_vec(),
        CrashPolicy::Subset(percent) => {
            let mut lost: BTreeSet<&Key> = BTreeSet::new();
            let mut kept = Vec::new();
            for op in pending {
                // After the first change of a name that is lost, so are all later ones of it.
                if random.chance(percent) && !op.keys().any(|key| lost.contains(key)) {
                    kept.push(op.clone());
                } else {
                    lost.extend(op.keys());
                }
            }
            kept
        }
    }
}

fn surviving_file(file: &FileNode, policy: CrashPolicy, random: &mut Random) -> FileNode {
    let content = match policy {
        CrashPolicy::Kill => {
            return FileNode {
                visible: file.visible.clone(),
                durable: file.with_pending(),
                pending: Arc::default(),
            };
        }
        CrashPolicy::MaxLoss | CrashPolicy::NamesOnly => file.durable.clone(),
        CrashPolicy::DataOnly => file.with_pending(),
        CrashPolicy::ZeroTail => with_tail(file, |bytes| bytes.fill(0)),
        CrashPolicy::GarbageTail => with_tail(file, |bytes| random.fill(bytes)),
        CrashPolicy::PrefixTorn => torn_prefix(file, random),
        CrashPolicy::Subset(percent) => sector_subset(file, percent, random),
    };
    FileNode::durable(content)
}

/// The final length, with what `overwrite` makes of the bytes written past the durable end.
fn with_tail(file: &FileNode, mut overwrite: impl FnMut(&mut [u8])) -> Content {
    let mut content = file.durable.clone();
    let mut durable_end = content.len();
    for op in file.pending.iter() {
        match op {
            FileOp::SetLen(len) => {
                durable_end = durable_end.min(*len);
                content.set_len(*len);
            }
            FileOp::Write { pos, bytes } => {
                let kept = durable_end.saturating_sub(*pos);
                let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(bytes.len());
                let mut filled = vec![0; bytes.len() - kept];
                overwrite(&mut filled);
                content.write(pos + kept as u64, &filled);
            }
        }
    }
    content
}

fn torn_prefix(file: &FileNode, random: &mut Random) -> Content {
    let mut content = file.durable.clone();
    let count = random.index(0..file.pending.len() + 1);
    for op in &file.pending[..count] {
        op.apply(&mut content);
    }
    if let Some(FileOp::Write { pos, bytes }) = file.pending.get(count) {
        let borders: Vec<usize> = spans(*pos, bytes.len(), SECTOR_LEN)
            .map(|(_, part)| part.start)
            .collect();
        content.write(*pos, &bytes[..borders[random.index(0..borders.len())]]);
    }
    content
}

/// Each sector with the writes that it happened to be saved with.
fn sector_subset(file: &FileNode, percent: u8, random: &mut Random) -> Content {
    let mut writes_by_sector: BTreeMap<u64, usize> = BTreeMap::new();
    for (sector, _, _) in file.pending.iter().flat_map(sectors) {
        *writes_by_sector.entry(sector).or_default() += 1;
    }
    // From here on: how many of its oldest writes a sector still takes.
    for count in writes_by_sector.values_mut() {
        if !random.chance(percent) {
            *count = if random.chance(50) {
                0
            } else {
                random.index(0..*count)
            };
        }
    }
    let mut content = file.durable.clone();
    for op in file.pending.iter() {
        match op {
            FileOp::SetLen(len) => {
                if random.chance(percent) {
                    content.set_len(*len);
                }
            }
            FileOp::Write { bytes, .. } => {
                for (sector, at, part) in sectors(op) {
                    if let Some(left @ 1..) = writes_by_sector.get_mut(&sector) {
                        *left -= 1;
                        content.write(at, &bytes[part]);
                    }
                }
            }
        }
    }
    content
}

/// The sectors that a write touches: number, position and range of the write's bytes.
fn sectors(op: &FileOp) -> impl Iterator<Item = (u64, u64, Range<usize>)> {
    let (pos, len) = match op {
        FileOp::Write { pos, bytes } => (*pos, bytes.len()),
        FileOp::SetLen(_) => (0, 0),
    };
    spans(pos, len, SECTOR_LEN).map(|(at, part)| (at / SECTOR_LEN as u64, at, part))
}
