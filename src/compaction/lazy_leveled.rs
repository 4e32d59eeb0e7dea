//! Lazy-leveled compaction: several runs in the upper levels, and one in the last.
//!
//! The keys of the last level are divided into *partitions*, whose borders are first keys of its
//! tables. Level 1 holds what level 0 was merged into, each level below runs that were merged from
//! `runs_max` of the level above: so each level is a size class, and a byte is written once a
//! level. When the upper levels together hold more than a `ratio`th of the last one, the partition
//! with the largest share of them is merged into it, from all levels at once. Tables of the upper
//! levels are cut at every border, so that a partition can be merged without its neighbours.

#[cfg(test)]
mod tests;

use super::level0::{MOVE_SHARE_MIN, free_runs, inputs_of, movable_runs};
use super::{
    Busy, Input, Kind, Plan, SCORE_DUE, are_apart, closed, first_keys, hull, unless_busy, weight,
};
use crate::options::{KeyspaceOptions, LEVELS};
use crate::slice::Slice;
use crate::sstable::filter;
use crate::sync::Arc;
use crate::version::{Level, Run, Table, TableMeta, Version};

const LEVEL_LAST: usize = LEVELS - 1;
/// The levels between level 0 and the last, a size class each.
const CLASSES: u32 = 5;
const LEVEL_CLASS_LAST: usize = LEVEL_LAST - 1;
const _: () = assert!(CLASSES as usize == LEVEL_CLASS_LAST);
/// Partitions of the last level, about. More of them would make small tables of the newest runs,
/// fewer make single merges into the last level large.
const PARTITIONS_MAX: usize = 128;
/// Wanted tables of a merge within the upper levels, about, for a range of several partitions.
const MERGE_TABLES_MAX: u64 = 16;

/// So many runs of a class that a class more would not be missed by any store: their number to the
/// power of the classes is more than there are bytes.
const RUNS_ENOUGH: usize = 1 << 13;

/// What [`Strategy::LazyLeveled`](crate::Strategy::LazyLeveled) says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) runs_max: usize,
    pub(super) ratio: u32,
}

/// See [`super::pick`]. `level0_is_due` says that level 0 is to be merged as soon as it has two
/// runs.
pub(super) fn pick(
    version: &Version,
    busy: &Busy,
    options: &KeyspaceOptions,
    shape: Shape,
    memtable_bytes: u64,
    level0_is_due: bool,
) -> Option<Plan> {
    let picker = Picker {
        version,
        busy,
        options,
        partitions: Partitions::of(version),
    };
    picker.pick(shape, memtable_bytes, level0_is_due)
}

/// Level 0 into a run of level 1, or further down where nothing is in the way.
pub(super) fn pick_level0(
    version: &Version,
    busy: &Busy,
    options: &KeyspaceOptions,
) -> Option<Plan> {
    let picker = Picker {
        version,
        busy,
        options,
        partitions: Partitions::of(version),
    };
    picker.level0()
}

/// The keys of the last level in parts that are merged into it apart.
#[derive(Debug, PartialEq, Eq)]
struct Partitions {
    /// The first key of each partition but the first, ascending.
    borders: Vec<Slice>,
}

impl Partitions {
    /// Each table of the last level may begin a partition. Where there are too many of them, it is
    /// a hash of its first key that decides, so that a partition stays one as long as its first
    /// table begins where it does, whatever happens elsewhere.
    fn of(version: &Version) -> Self {
        let last = version.levels[LEVEL_LAST].runs.first();
        let tables = last.map_or(&[][..], Run::tables);
        let mut zeros = 0;
        while tables.len() >> zeros > PARTITIONS_MAX {
            zeros += 1;
        }
        let begins = |key: &Slice| zeros == 0 || filter::hash(key).trailing_zeros() >= zeros;
        let mut borders = first_keys(tables.get(1..).unwrap_or_default());
        borders.retain(begins);
        Self { borders }
    }

    fn count(&self) -> usize {
        self.borders.len() + 1
    }

    /// The tables of a run, each with the first and the last partition that it reaches into.
    fn walk<'a>(&self, run: &'a Run) -> impl Iterator<Item = (usize, usize, &'a Arc<Table>)> {
        let mut at = 0;
        run.tables().iter().map(move |table| {
            // From the place of the one before: a search for each would cost more.
            let passed = |at: usize, key: &Slice| {
                let rest = self.borders[at..].iter();
                at + rest.take_while(|border| *border <= key).count()
            };
            let first = passed(at, &table.meta.smallest);
            at = passed(first, &table.meta.largest);
            (first, at, table)
        })
    }
}

/// A kind of compaction that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Level0,
    /// A partition into the last level.
    Last,
    /// Runs of a level into one of the next.
    Class(usize),
}

/// The tables of one level that reach into a partition.
#[derive(Debug, Clone, Default)]
struct Column<'a> {
    /// Runs that they belong to.
    height: usize,
    /// Bytes of those that begin there.
    bytes: u64,
    /// Whether one of them is being compacted.
    is_held: bool,
    /// First and last key.
    hull: Option<(&'a Slice, &'a Slice)>,
}

impl<'a> Column<'a> {
    fn take(&mut self, meta: &'a TableMeta) {
        let (low, high) = (&meta.smallest, &meta.largest);
        self.hull = Some(match self.hull {
            None => (low, high),
            Some((first, last)) => (first.min(low), last.max(high)),
        });
    }

    fn is_full(&self, runs_max: usize) -> bool {
        self.height >= runs_max && !self.is_held
    }
}

struct Picker<'a> {
    version: &'a Version,
    busy: &'a Busy,
    options: &'a KeyspaceOptions,
    partitions: Partitions,
}

impl Picker<'_> {
    fn pick(&self, shape: Shape, memtable_bytes: u64, level0_is_due: bool) -> Option<Plan> {
        let last_bytes = self.version.levels[LEVEL_LAST].bytes();
        let upper_bytes_max = (last_bytes / u64::from(shape.ratio)).max(memtable_bytes);
        let runs_max = self.runs_max(shape.runs_max, upper_bytes_max, memtable_bytes);
        let mut due = Vec::with_capacity(LEVELS);
        let runs = free_runs(self.version, self.busy).len();
        let mut score = runs as u128 * SCORE_DUE / self.options.level0_runs_max as u128;
        if level0_is_due && runs > 1 {
            score = score.max(SCORE_DUE);
        }
        due.push((score, Step::Level0));
        let upper = self.upper_levels().flat_map(Level::tables);
        let free = upper.filter(|table| !self.busy.has(table));
        let bytes = free.map(|table| u128::from(weight(table))).sum::<u128>();
        if bytes > u128::from(upper_bytes_max) {
            let score = bytes * SCORE_DUE / u128::from(upper_bytes_max);
            due.push((score, Step::Last));
        }
        for level in 1..=LEVEL_CLASS_LAST {
            let columns = self.columns(level);
            let free = columns.iter().filter(|column| !column.is_held);
            let highest = free.map(|column| column.height).max().unwrap_or(0);
            let score = highest as u128 * SCORE_DUE / runs_max as u128;
            due.push((score, Step::Class(level)));
        }
        due.retain(|(score, _)| *score >= SCORE_DUE);
        // The sort is stable: of equal scores the upper level is first.
        due.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        due.into_iter().find_map(|(_, step)| match step {
            Step::Level0 => self.level0(),
            Step::Last => self.merge_partition(&self.shares()),
            Step::Class(LEVEL_CLASS_LAST) => {
                let columns = self.columns(LEVEL_CLASS_LAST);
                let full = (0..columns.len()).filter(|at| columns[*at].is_full(runs_max));
                self.merge_partition(&full.collect::<Vec<_>>())
            }
            Step::Class(level) => self.merge_class(level, runs_max),
        })
    }

    /// Runs that are merged into one: as many as the options say, or so many that the upper levels
    /// have room for what they are meant to hold. Shares of partitions range up to about twice
    /// their mean.
    fn runs_max(&self, runs_max: usize, upper_bytes_max: u64, memtable_bytes: u64) -> usize {
        let unit = u128::from(memtable_bytes.max(1)) * self.options.level0_runs_max as u128;
        let holds = |runs: usize| {
            let units = (runs as u128).pow(CLASSES);
            unit.saturating_mul(units) >= 2 * u128::from(upper_bytes_max)
        };
        let mut enough = runs_max..=RUNS_ENOUGH;
        enough.find(|runs| holds(*runs)).unwrap_or(runs_max)
    }

    fn upper_levels(&self) -> impl Iterator<Item = &Level> {
        self.version.levels[1..=LEVEL_CLASS_LAST].iter()
    }

    /// What each partition has in `level`.
    fn columns(&self, level: usize) -> Vec<Column<'_>> {
        let mut columns = vec![Column::default(); self.partitions.count()];
        for run in &self.version.levels[level].runs {
            let mut counted = 0;
            for (first, last, table) in self.partitions.walk(run) {
                for column in &mut columns[first.max(counted)..=last] {
                    column.height += 1;
                }
                counted = last + 1;
                let is_held = self.busy.has(table);
                for column in &mut columns[first..=last] {
                    column.is_held |= is_held;
                    column.take(&table.meta);
                }
                columns[first].bytes += table.meta.len;
            }
        }
        columns
    }

    fn level0(&self) -> Option<Plan> {
        let runs = free_runs(self.version, self.busy);
        let has_room = |meta: &TableMeta| {
            let levels = &self.version.levels[1..];
            let mut runs = levels.iter().flat_map(|level| &level.runs);
            runs.all(|run| run.overlapping(&meta.smallest, &meta.largest).is_empty())
        };
        let movable = movable_runs(runs, self.options, has_room);
        if !movable.is_empty() {
            let inputs = inputs_of(movable);
            let plan = Plan::new(self.version, Kind::TrivialMove, inputs, LEVEL_LAST);
            return unless_busy(plan, self.busy);
        }
        let inputs = inputs_of(runs);
        let bytes: u64 = runs.iter().map(Run::bytes).sum();
        let is_first = self.upper_levels().all(Level::is_empty);
        if is_first && self.version.levels[LEVEL_LAST].bytes() <= bytes {
            return self.merge_into_last(inputs);
        }
        if inputs.is_empty() {
            return None;
        }
        let plan = Plan::new(self.version, Kind::Merge, inputs, 1);
        unless_busy(plan.cut_at(&self.partitions.borders), self.busy)
    }

    /// The partitions that have something in the upper levels, the one with the largest share
    /// there first.
    fn shares(&self) -> Vec<usize> {
        let mut upper = vec![0_u64; self.partitions.count()];
        let mut last = upper.clone();
        for level in 1..=LEVEL_LAST {
            let is_last = level == LEVEL_LAST;
            let sums = if is_last { &mut last } else { &mut upper };
            for run in &self.version.levels[level].runs {
                for (first, _, table) in self.partitions.walk(run) {
                    sums[first] = sums[first].saturating_add(weight(table));
                }
            }
        }
        let mut order: Vec<usize> = (0..upper.len()).filter(|at| upper[*at] > 0).collect();
        // Descending by upper / last, without division.
        let product = |one: usize, other: usize| u128::from(upper[one]) * u128::from(last[other]);
        order.sort_by(|one, other| product(*other, *one).cmp(&product(*one, *other)));
        order
    }

    /// The first of `partitions` that nobody holds, merged from all levels into the last.
    fn merge_partition(&self, partitions: &[usize]) -> Option<Plan> {
        partitions.iter().find_map(|partition| {
            let (low, high) = self.hull_of(*partition)?;
            let inputs = closed(self.version, 1..=LEVEL_LAST, &low, &high);
            self.merge_into_last(self.with_small_neighbour(inputs))
        })
    }

    /// First and last key of the tables above the last level that begin in a partition.
    fn hull_of(&self, partition: usize) -> Option<(Slice, Slice)> {
        let runs = self.upper_levels().flat_map(|level| &level.runs);
        let tables = runs.flat_map(|run| self.partitions.walk(run));
        let in_it = tables.filter(|(first, ..)| *first == partition);
        hull(in_it.map(|(.., table)| table))
    }

    /// Puts tables into the last level, with what they overlap there.
    fn merge_into_last(&self, mut inputs: Vec<Input>) -> Option<Plan> {
        let (low, high) = hull(inputs.iter().flat_map(|input| &input.tables))?;
        if inputs.iter().all(|input| input.level != LEVEL_LAST) {
            inputs.extend(closed(self.version, LEVEL_LAST..=LEVEL_LAST, &low, &high));
        }
        let upper = inputs.iter().filter(|input| input.level != LEVEL_LAST);
        let small_bytes = self.options.table_bytes / MOVE_SHARE_MIN;
        let are_large = upper
            .clone()
            .flat_map(|input| &input.tables)
            .all(|table| table.meta.len >= small_bytes);
        if are_large && are_apart(&inputs) {
            let moved = upper.cloned().collect();
            let plan = Plan::new(self.version, Kind::TrivialMove, moved, LEVEL_LAST);
            return unless_busy(plan, self.busy);
        }
        let mut plan = Plan::new(self.version, Kind::Merge, inputs, LEVEL_LAST);
        let bytes: u64 = plan.tables().map(|table| table.meta.len).sum();
        plan.table_bytes = Some(even_bytes(bytes, self.options.table_bytes));
        unless_busy(plan, self.busy)
    }

    /// With a table beside them in the last level, if they are less than half a table together:
    /// small ones would become ever more.
    fn with_small_neighbour(&self, inputs: Vec<Input>) -> Vec<Input> {
        let Some(run) = self.version.levels[LEVEL_LAST].runs.first() else {
            return inputs;
        };
        let Some((low, high)) = hull(inputs.iter().flat_map(|input| &input.tables)) else {
            return inputs;
        };
        let tables = inputs.iter().flat_map(|input| &input.tables);
        let bytes: u64 = tables.map(|table| table.meta.len).sum();
        if bytes >= self.options.table_bytes / 2 {
            return inputs;
        }
        let before = run.tables().partition_point(|it| it.meta.largest < low);
        let behind = run.tables().partition_point(|it| it.meta.smallest <= high);
        let before = before.checked_sub(1).map(|at| &run.tables()[at]);
        let neighbours = before.into_iter().chain(run.tables().get(behind));
        match neighbours.min_by_key(|table| table.meta.len) {
            Some(table) => {
                let low = low.min(table.meta.smallest.clone());
                let high = high.max(table.meta.largest.clone());
                closed(self.version, 1..=LEVEL_LAST, &low, &high)
            }
            None => inputs,
        }
    }

    /// Runs of `level` into one of the next, in the first range of full partitions that nobody
    /// holds.
    fn merge_class(&self, level: usize, runs_max: usize) -> Option<Plan> {
        let columns = self.columns(level);
        let bytes_max = self.options.table_bytes.saturating_mul(MERGE_TABLES_MAX);
        let mut rest = &columns[..];
        while let Some(start) = rest.iter().position(|column| column.is_full(runs_max)) {
            rest = &rest[start..];
            let mut bytes = 0;
            let fits = |column: &&Column<'_>| {
                let fits = column.is_full(runs_max) && bytes < bytes_max;
                bytes += column.bytes;
                fits
            };
            let range = rest.iter().take_while(fits).count();
            let (range, behind) = rest.split_at(range);
            rest = behind;
            let mut hulls = range.iter().filter_map(|column| column.hull);
            let Some((low, _)) = hulls.next() else {
                continue;
            };
            let high = range.iter().filter_map(|column| column.hull).next_back();
            let high = high.map_or(low, |(_, high)| high);
            let inputs = closed(self.version, level..=level, low, high);
            let plan = Plan::new(self.version, Kind::Merge, inputs, level + 1);
            let plan = unless_busy(plan.cut_at(&self.partitions.borders), self.busy);
            if plan.is_some() {
                return plan;
            }
        }
        None
    }
}

/// The size of tables that divide `bytes` evenly, near to the wanted one. A little more than the
/// quotient, so that nothing is left over for a last, small table.
fn even_bytes(bytes: u64, table_bytes: u64) -> u64 {
    let tables = ((bytes + table_bytes / 2) / table_bytes).max(1);
    (bytes / tables).saturating_mul(21) / 20 + 1
}
