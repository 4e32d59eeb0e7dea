//! Level 0: runs as flushes and restores leave them, which leave it the oldest first.

use super::{Busy, Input};
use crate::options::KeyspaceOptions;
use crate::planted::{Bug, planted};
use crate::sync::Arc;
use crate::version::{Level, Run, Table, TableMeta, Version};

/// Runs that one compaction takes at most.
const RUNS_MAX: usize = 64;
/// The same where there is nothing below level 0, as after a restore: all of it is merged at once,
/// so that no byte is written more than twice. Each run costs the memory of a read-ahead.
const RUNS_MAX_FIRST: usize = 256;
/// Share of the wanted table size below which a run is merged rather than moved, so that small
/// flushes do not end as small tables in the last level.
pub(super) const MOVE_SHARE_MIN: u64 = 4;

/// The oldest runs up to the first that is being compacted: none may be taken without all older
/// ones, or old data would end above newer.
pub(super) fn free_runs<'a>(version: &'a Version, busy: &Busy) -> &'a [Run] {
    let runs = &version.levels[0].runs;
    let is_free = |run: &&Run| !run.tables().iter().any(|table| busy.has(table));
    let is_first = version.levels[1..].iter().all(Level::is_empty);
    let runs_max = if is_first { RUNS_MAX_FIRST } else { RUNS_MAX };
    let free = runs.iter().rev().take_while(is_free).take(runs_max).count();
    if planted(Bug::OlderRunLeftBehind) && free > 1 {
        return &runs[runs.len() - free..runs.len() - 1];
    }
    &runs[runs.len() - free..]
}

pub(super) fn inputs_of(runs: &[Run]) -> Vec<Input> {
    let full = runs.iter().filter(|run| !run.is_empty());
    full.map(|run| Input {
        level: 0,
        tables: run.tables().to_vec(),
    })
    .collect()
}

/// The oldest of `runs` whose tables can stand in a level below as they are, each by what
/// `has_room` says, and that the others do not overlap: those would soon be merged with them
/// there.
pub(super) fn movable_runs<'a>(
    runs: &'a [Run],
    options: &KeyspaceOptions,
    has_room: impl Fn(&TableMeta) -> bool,
) -> &'a [Run] {
    let mut moved: Vec<&Arc<Table>> = Vec::new();
    let mut start = runs.len();
    for run in runs.iter().rev() {
        let tables = run.tables();
        let small_bytes = options.table_bytes / MOVE_SHARE_MIN * tables.len() as u64;
        let fits = |table: &Arc<Table>| {
            let (low, high) = (&table.meta.smallest, &table.meta.largest);
            has_room(&table.meta) && !moved.iter().any(|other| other.meta.overlaps(low, high))
        };
        if run.bytes() < small_bytes || !tables.iter().all(fits) {
            break;
        }
        moved.extend(tables);
        start -= 1;
    }
    let (staying, movable) = runs.split_at(start);
    let is_apart = |run: &&Run| {
        run.tables().iter().all(|table| {
            let (low, high) = (&table.meta.smallest, &table.meta.largest);
            staying
                .iter()
                .all(|other| other.overlapping(low, high).is_empty())
        })
    };
    let apart = movable.iter().rev().take_while(is_apart).count();
    &movable[movable.len() - apart..]
}
