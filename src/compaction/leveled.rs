//! Leveled compaction: one run a level below level 0, each level a ratio larger than the one above.
//!
//! Targets are counted from the largest level upwards, so that nine tenths of the data lie in the
//! last level whatever their amount ("dynamic level bytes" of `RocksDB`). The first level whose
//! target is about the size of a full level 0 is the *base level*: level 0 goes straight to it,
//! and the levels between are empty.
//!
//! A keyspace that another strategy kept has levels of several runs. They are put together first,
//! range by range, in the level above the last.

#[cfg(test)]
mod tests;

use super::level0::{free_runs, inputs_of, movable_runs};
use super::{
    Busy, Input, Kind, Plan, SCORE_DUE, are_apart, closed, hull, lazy_leveled, unless_busy, weight,
};
use crate::options::{KeyspaceOptions, LEVELS};
use crate::slice::Slice;
use crate::sync::Arc;
use crate::version::{Level, Run, Table, TableMeta, Version};

/// The deepest level, filled first.
const LEVEL_LAST: usize = LEVELS - 1;
/// Where the runs of another strategy are put together.
const LEVEL_SETTLING: usize = LEVEL_LAST - 1;
/// Tables below the output level that a moved table may overlap: a later compaction of it has to
/// read them all.
const MOVE_OVERLAPS_MAX: usize = 10;

/// The most urgent compaction that can run beside those of `busy`, or `None` if every level is
/// within its target or must wait.
///
/// `memtable_bytes` is the size of a full memtable; with `level0_runs_max` of them level 0 is due,
/// and as much is the most that the base level is meant to hold.
pub(crate) fn pick(
    version: &Version,
    busy: &Busy,
    options: &KeyspaceOptions,
    memtable_bytes: u64,
) -> Option<Plan> {
    if version.levels[1..].iter().any(|level| level.runs.len() > 1) {
        return pick_settling(version, busy, options);
    }
    let targets = Targets::of(version, options, memtable_bytes);
    let mut due = Vec::with_capacity(LEVELS);
    let runs = free_runs(version, busy).len();
    let score = runs as u128 * SCORE_DUE / options.level0_runs_max as u128;
    if score >= SCORE_DUE {
        due.push((score, 0));
    }
    for level in targets.base..LEVEL_LAST {
        let weight = level_weight(version, busy, level);
        let score = u128::from(weight) * SCORE_DUE / u128::from(targets.bytes[level].max(1));
        if score > SCORE_DUE {
            due.push((score, level));
        }
    }
    // The sort is stable: of equal scores the upper level is first.
    due.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let mut level0_waits = false;
    for (_, level) in due {
        let plan = match level {
            0 => pick_level0(version, busy, options, targets.base),
            // Another compaction out of the base level would keep level 0 waiting for ever.
            _ if level == targets.base && level0_waits => None,
            _ => pick_level(version, busy, &targets, level),
        };
        if plan.is_some() {
            return plan;
        }
        level0_waits |= level == 0;
    }
    None
}

/// Everything into the last level, in one merge. `None` if something runs, or if the last level
/// holds all data already and nothing in it could be dropped or simplified.
///
/// One call makes one plan: as long as a snapshot keeps old versions alive, the same plan would
/// come again after it was carried out.
pub(crate) fn pick_full(version: &Version, busy: &Busy) -> Option<Plan> {
    let is_last_only = version.last_level() == Some(LEVEL_LAST)
        && version.levels[..LEVEL_LAST].iter().all(Level::is_empty);
    let is_clean = |table: &Arc<Table>| table.meta.tombstones == 0 && table.meta.seqno_max.0 == 0;
    if !busy.is_empty() || is_last_only && version.tables().all(is_clean) {
        return None;
    }
    let mut inputs = Vec::new();
    for (level, content) in version.levels.iter().enumerate() {
        inputs.extend(
            content
                .runs
                .iter()
                .filter(|run| !run.is_empty())
                .map(|run| Input {
                    level,
                    tables: run.tables().to_vec(),
                }),
        );
    }
    if inputs.is_empty() {
        return None;
    }
    Some(Plan::new(version, Kind::Merge, inputs, LEVEL_LAST))
}

/// How many bytes each level is meant to hold.
#[derive(Debug, PartialEq, Eq)]
struct Targets {
    base: usize,
    /// By level; of meaning from the base level on. The last level has no limit.
    bytes: [u64; LEVELS],
}

impl Targets {
    fn of(version: &Version, options: &KeyspaceOptions, memtable_bytes: u64) -> Self {
        let ratio = u64::from(options.level_ratio);
        let base_bytes_max = memtable_bytes
            .saturating_mul(options.level0_runs_max as u64)
            .max(1);
        let mut bytes = [u64::MAX; LEVELS];
        let first = (1..LEVELS).find(|level| !version.levels[*level].is_empty());
        let Some(first) = first else {
            return Self {
                base: LEVEL_LAST,
                bytes,
            };
        };
        let largest = (1..LEVELS)
            .map(|level| version.levels[level].bytes())
            .max()
            .unwrap_or(0);
        let mut base = first;
        let mut target = (first..LEVEL_LAST).fold(largest, |target, _| target / ratio);
        if target <= base_bytes_max / ratio {
            target = base_bytes_max / ratio + 1;
        } else {
            while base > 1 && target > base_bytes_max {
                base -= 1;
                target /= ratio;
            }
            target = target.min(base_bytes_max);
        }
        for level_bytes in &mut bytes[base..LEVEL_LAST] {
            *level_bytes = target;
            target = target.saturating_mul(ratio);
        }
        Self { base, bytes }
    }
}

/// What a level holds beside the tables that are being compacted.
fn level_weight(version: &Version, busy: &Busy, level: usize) -> u64 {
    let free = version.levels[level]
        .tables()
        .filter(|table| !busy.has(table));
    free.map(|table| weight(table)).sum()
}

/// The tables of a level below 0.
fn tables_of(version: &Version, level: usize) -> &[Arc<Table>] {
    let runs = &version.levels[level].runs;
    assert!(
        level > 0 && runs.len() <= 1,
        "level {level} has {} runs",
        runs.len()
    );
    runs.first().map_or(&[], Run::tables)
}

fn overlapping<'a>(
    version: &'a Version,
    level: usize,
    low: &[u8],
    high: &[u8],
) -> &'a [Arc<Table>] {
    version.levels[level]
        .runs
        .first()
        .map_or(&[], |run| run.overlapping(low, high))
}

/// A step towards one run a level: of some range, everything between level 0 and the last level
/// goes into the level above the last. Level 0, where it is due, goes on top of it all meanwhile.
fn pick_settling(version: &Version, busy: &Busy, options: &KeyspaceOptions) -> Option<Plan> {
    if free_runs(version, busy).len() >= options.level0_runs_max
        && let Some(plan) = lazy_leveled::pick_level0(version, busy, options)
    {
        return Some(plan);
    }
    let is_settled = |inputs: &Vec<Input>| {
        are_apart(inputs) && inputs.iter().all(|input| input.level == LEVEL_SETTLING)
    };
    let (settled, mut due): (Vec<_>, Vec<_>) = ranges(version).into_iter().partition(is_settled);
    // Where most lies upon each other first: else writes could unsettle the first ranges again
    // and again before the others are ever reached.
    due.sort_by_key(|inputs| std::cmp::Reverse(inputs.len()));
    for inputs in due {
        let kind = if are_apart(&inputs) {
            Kind::TrivialMove
        } else {
            Kind::Merge
        };
        let plan = Plan::new(version, kind, inputs, LEVEL_SETTLING);
        if let Some(plan) = unless_busy(plan, busy) {
            return Some(plan);
        }
    }
    // What is apart from everything else needs no run of its own.
    let is_in_first = |table: &Arc<Table>| {
        let first = version.levels[LEVEL_SETTLING].runs.last();
        first.is_some_and(|run| run.number() == 0 && run.table_for(&table.meta.smallest).is_some())
    };
    let settled = settled.into_iter().flatten();
    let mut tables: Vec<_> = settled.flat_map(|input| input.tables).collect();
    tables.retain(|table| !busy.has(table) && !is_in_first(table));
    if tables.is_empty() {
        return None;
    }
    let inputs = vec![Input {
        level: LEVEL_SETTLING,
        tables,
    }];
    let plan = Plan::new(version, Kind::TrivialMove, inputs, LEVEL_SETTLING);
    unless_busy(plan, busy)
}

/// The tables between level 0 and the last level, those that overlap together, as inputs; by
/// their keys.
fn ranges(version: &Version) -> Vec<Vec<Input>> {
    let upper = &version.levels[1..=LEVEL_SETTLING];
    let mut tables: Vec<&Arc<Table>> = upper.iter().flat_map(Level::tables).collect();
    tables.sort_by(|one, other| one.meta.smallest.cmp(&other.meta.smallest));
    let mut ranges: Vec<(&Slice, &Slice)> = Vec::new();
    for table in tables {
        let (low, high) = (&table.meta.smallest, &table.meta.largest);
        match ranges.last_mut() {
            Some((_, end)) if low <= *end => *end = high.max(end),
            _ => ranges.push((low, high)),
        }
    }
    let closed = ranges
        .into_iter()
        .map(|(low, high)| closed(version, 1..=LEVEL_SETTLING, low, high));
    closed.collect()
}

fn pick_level0(
    version: &Version,
    busy: &Busy,
    options: &KeyspaceOptions,
    base: usize,
) -> Option<Plan> {
    let runs = free_runs(version, busy);
    let has_room = |meta: &TableMeta| {
        let (low, high) = (&meta.smallest, &meta.largest);
        overlapping(version, base, low, high).is_empty()
            && overlaps_little(version, base, low, high)
    };
    let movable = movable_runs(runs, options, has_room);
    if !movable.is_empty() {
        let plan = Plan::new(version, Kind::TrivialMove, inputs_of(movable), base);
        return unless_busy(plan, busy);
    }
    let mut inputs = inputs_of(runs);
    let (smallest, largest) = hull(inputs.iter().flat_map(|input| &input.tables))?;
    let tables = overlapping(version, base, &smallest, &largest);
    if !tables.is_empty() {
        inputs.push(Input {
            level: base,
            tables: tables.to_vec(),
        });
    }
    unless_busy(Plan::new(version, Kind::Merge, inputs, base), busy)
}

/// True if what lies between the keys in the level below the output does not make a later
/// compaction of it a large one.
fn overlaps_little(version: &Version, output_level: usize, low: &Slice, high: &Slice) -> bool {
    let below = (output_level + 1..LEVELS).find(|level| !version.levels[*level].is_empty());
    below.is_none_or(|level| overlapping(version, level, low, high).len() <= MOVE_OVERLAPS_MAX)
}

/// The cheapest step that makes `level` smaller: the table whose bytes carry the least of the next
/// level along.
fn pick_level(version: &Version, busy: &Busy, targets: &Targets, level: usize) -> Option<Plan> {
    let tables = tables_of(version, level);
    let output_level = level + 1;
    let mut best: Option<(u64, u64, usize)> = None;
    for (index, table) in tables.iter().enumerate() {
        let (low, high) = (&table.meta.smallest, &table.meta.largest);
        let below = overlapping(version, output_level, low, high);
        let bytes: u64 = below.iter().map(|table| table.meta.len).sum();
        let weight = weight(table);
        let is_better = best.is_none_or(|(best_bytes, best_weight, _)| {
            u128::from(bytes) * u128::from(best_weight)
                < u128::from(best_bytes) * u128::from(weight)
        });
        if is_better && is_free(busy, table, below, output_level) {
            best = Some((bytes, weight, index));
        }
    }
    let (_, _, index) = best?;
    let table = &tables[index];
    let (low, high) = (&table.meta.smallest, &table.meta.largest);
    let below = overlapping(version, output_level, low, high);
    if below.is_empty() && overlaps_little(version, output_level, low, high) {
        let excess = level_weight(version, busy, level).saturating_sub(targets.bytes[level]);
        let moved = with_moved_neighbours(version, busy, level, index, excess);
        let inputs = vec![Input {
            level,
            tables: moved.to_vec(),
        }];
        let plan = Plan::new(version, Kind::TrivialMove, inputs, output_level);
        return unless_busy(plan, busy);
    }
    let mut inputs = vec![Input {
        level,
        tables: with_free_neighbours(busy, tables, index, below),
    }];
    if !below.is_empty() {
        inputs.push(Input {
            level: output_level,
            tables: below.to_vec(),
        });
    }
    unless_busy(Plan::new(version, Kind::Merge, inputs, output_level), busy)
}

/// True if no running compaction holds what merging `table` with `below` needs.
fn is_free(busy: &Busy, table: &Arc<Table>, below: &[Arc<Table>], output_level: usize) -> bool {
    if busy.has(table) || below.iter().any(|table| busy.has(table)) {
        return false;
    }
    hull(below.iter().chain([table]))
        .is_some_and(|(low, high)| !busy.claims(output_level..=output_level, &low, &high))
}

/// The table at `index` with those beside it that lie within the range of `below`: they add no
/// table of the next level.
fn with_free_neighbours(
    busy: &Busy,
    tables: &[Arc<Table>],
    index: usize,
    below: &[Arc<Table>],
) -> Vec<Arc<Table>> {
    let (mut start, mut end) = (index, index + 1);
    if let (Some(first), Some(last)) = (below.first(), below.last()) {
        let fits = |table: &Table| {
            let meta = &table.meta;
            meta.smallest >= first.meta.smallest
                && meta.largest <= last.meta.largest
                && !busy.has(table)
        };
        while start > 0 && fits(&tables[start - 1]) {
            start -= 1;
        }
        while end < tables.len() && fits(&tables[end]) {
            end += 1;
        }
    }
    tables[start..end].to_vec()
}

/// The table at `index` with those behind it that can move with it, up to about `excess` bytes:
/// one edit instead of one a table.
fn with_moved_neighbours<'a>(
    version: &'a Version,
    busy: &Busy,
    level: usize,
    index: usize,
    excess: u64,
) -> &'a [Arc<Table>] {
    let tables = tables_of(version, level);
    let first = &tables[index].meta.smallest;
    let mut bytes = tables[index].meta.len;
    let mut end = index + 1;
    while end < tables.len() && bytes < excess {
        let table = &tables[end];
        let (low, high) = (&table.meta.smallest, &table.meta.largest);
        let can_move = !busy.has(table)
            && overlapping(version, level + 1, first, high).is_empty()
            && !busy.claims(level + 1..=level + 1, first, high)
            && overlaps_little(version, level + 1, low, high);
        if !can_move {
            break;
        }
        bytes += table.meta.len;
        end += 1;
    }
    &tables[index..end]
}
