//! Keeping a keyspace's levels in shape.
//!
//! A picker ([`leveled`], [`lazy_leveled`]) looks at a version and returns a [`Plan`]; [`Busy`]
//! tells it what the running ones hold. [`run`] carries a plan out: it merges the inputs, lets a
//! [`stream`] decide what is kept, and writes tables that end where a cutter ([`cut`]) says.
//! Whoever installs the result makes one edit of it.

pub(crate) mod cut;
mod lazy_leveled;
mod level0;
pub(crate) mod leveled;
pub(crate) mod run;
#[cfg(test)]
mod simulation;
pub(crate) mod stream;

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::options::{KeyspaceOptions, Strategy};
use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;
use crate::version::{Table, Version};

use cut::Cut;

/// Scores are integers, so that equal versions give equal plans on every machine: this is 1.
const SCORE_DUE: u128 = 1000;

/// The most urgent compaction that can run beside those of `busy`, or `None` if there is nothing
/// to do or all of it must wait. Pure: equal arguments give equal plans.
///
/// `memtable_bytes` is the size of a full memtable. `runs_asked` is how many runs of level 0 beyond
/// one gets have asked since it was last merged: see [`level0_price`].
pub(crate) fn pick(
    version: &Version,
    busy: &Busy,
    options: &KeyspaceOptions,
    memtable_bytes: u64,
    runs_asked: u64,
) -> Option<Plan> {
    match options.compaction {
        Strategy::Leveled => leveled::pick(version, busy, options, memtable_bytes),
        Strategy::LazyLeveled { runs_max, ratio } => {
            let shape = lazy_leveled::Shape { runs_max, ratio };
            let level0_is_due =
                level0_price(version, options).is_some_and(|price| runs_asked >= price);
            lazy_leveled::pick(version, busy, options, shape, memtable_bytes, level0_is_due)
        }
    }
}

/// What a compaction costs beside its entries, in gets: it syncs a table and the manifest.
const COMPACTION_GETS: u64 = 50_000;

/// How many times gets must have asked one run of level 0 too many, until it is merged though its
/// runs are fewer than the options want. `None` where they gain nothing by it.
///
/// Lazy-leveled writes each byte into level 1 once, now or later. A merge of fewer runs makes
/// smaller runs there, so that more of them become one of level 2: about a quarter of a merge is
/// what it costs, 100 ns an entry, and a get spends as much on a run. So reads and merges never
/// cost twice what the better of the two would have cost alone. Leveled would write the whole of
/// level 1 again.
pub(crate) fn level0_price(version: &Version, options: &KeyspaceOptions) -> Option<u64> {
    let level = &version.levels[0];
    if level.runs.len() < 2 || options.compaction == Strategy::Leveled {
        return None;
    }
    let entries: u64 = level.tables().map(|table| table.meta.entries).sum();
    Some(entries.saturating_add(COMPACTION_GETS))
}

/// One source of a compaction: disjoint tables in key order that lie in one level.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) level: usize,
    pub(crate) tables: Vec<Arc<Table>>,
}

/// What a plan does with its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They are merged into new tables.
    Merge,
    /// Their tables are disjoint and move to the output level as they are: an edit, no I/O. They
    /// stay in use, so they must not be marked obsolete.
    TrivialMove,
}

/// A compaction to be done.
///
/// Its inputs hold, of the levels down to the output's, everything that is older than one of them
/// and overlaps it, but for tables of the output level that all inputs are newer than: the outputs
/// stand above those. So for every key newer data stays above older data.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// The sources, newest first.
    pub(crate) inputs: Vec<Input>,
    pub(crate) output_level: usize,
    /// Keys that outputs are cut at, ascending.
    pub(crate) borders: Vec<Slice>,
    pub(crate) cut: Cut,
    /// Bytes at which the next output begins, where it is not the options that say so.
    pub(crate) table_bytes: Option<u64>,
    /// The tables that overlap the inputs and stand below the outputs, a list a run: what decides
    /// whether a key has older data.
    pub(crate) older: Vec<Vec<Arc<Table>>>,
    /// First and last key of all inputs, both inclusive.
    pub(crate) smallest: Slice,
    pub(crate) largest: Slice,
}

impl Plan {
    /// A plan for `inputs`, with what follows from them and from what is below the outputs, which
    /// are best cut near the borders of the tables there.
    ///
    /// # Panics
    ///
    /// If there is no input table.
    pub(crate) fn new(
        version: &Version,
        kind: Kind,
        inputs: Vec<Input>,
        output_level: usize,
    ) -> Self {
        let (smallest, largest) = hull(inputs.iter().flat_map(|input| &input.tables))
            .expect("a compaction without a table");
        let overlooked = usize::from(planted(Bug::OlderLevelOverlooked));
        let below: Vec<Vec<Arc<Table>>> = version
            .levels
            .iter()
            .skip(output_level + 1 + overlooked)
            .flat_map(|level| &level.runs)
            .map(|run| run.overlapping(&smallest, &largest).to_vec())
            .filter(|tables| !tables.is_empty())
            .collect();
        let borders = below.first().map(|tables| first_keys(tables));
        let mut plan = Self {
            kind,
            inputs,
            output_level,
            borders: borders.unwrap_or_default(),
            cut: Cut::Near,
            table_bytes: None,
            older: Vec::new(),
            smallest,
            largest,
        };
        plan.older = plan.older_in_level(version);
        plan.older.extend(below);
        plan
    }

    /// What overlaps the inputs in the output level and is none of them.
    fn older_in_level(&self, version: &Version) -> Vec<Vec<Arc<Table>>> {
        let runs = &version.levels[self.output_level].runs;
        let others = runs.iter().map(|run| {
            let tables = run.overlapping(&self.smallest, &self.largest);
            let others = tables.iter().filter(|table| !self.takes(table));
            others.cloned().collect::<Vec<_>>()
        });
        others.filter(|tables| !tables.is_empty()).collect()
    }

    /// The same, with its outputs cut at each of `borders`, which ascend.
    fn cut_at(mut self, borders: &[Slice]) -> Self {
        let start = borders.partition_point(|border| *border <= self.smallest);
        let end = borders.partition_point(|border| *border <= self.largest);
        self.borders = borders[start..end.max(start)].to_vec();
        self.cut = Cut::At;
        self
    }

    /// Bytes of the keys and values that it takes out of a level.
    pub(crate) fn raw_bytes_of(&self, level: usize) -> u64 {
        let inputs = self.inputs.iter().filter(|input| input.level == level);
        inputs
            .flat_map(|input| &input.tables)
            .map(|table| table.meta.raw_bytes)
            .sum()
    }

    /// True if it takes tables out of level 0.
    pub(crate) fn takes_level0(&self) -> bool {
        self.inputs.iter().any(|input| input.level == 0)
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.inputs.iter().flat_map(|input| &input.tables)
    }

    /// True if the table is one of the inputs.
    pub(crate) fn takes(&self, table: &Arc<Table>) -> bool {
        let first = &table.meta.smallest;
        if *first < self.smallest || table.meta.largest > self.largest {
            return false;
        }
        self.inputs.iter().any(|input| {
            let index = input
                .tables
                .partition_point(|other| other.meta.smallest < *first);
            let found = input.tables.get(index);
            found.is_some_and(|other| other.meta.number == table.meta.number)
        })
    }

    /// The levels that data come into or pass on their way from the uppermost input.
    fn passed(&self) -> RangeInclusive<usize> {
        let uppermost = self.inputs.iter().map(|input| input.level).min();
        let below = uppermost.map_or(self.output_level, |level| level + 1);
        below.min(self.output_level)..=self.output_level
    }

    /// The run of the output level that a table of the outputs goes to.
    pub(crate) fn output_run(&self, version: &Version, low: &[u8], high: &[u8]) -> u64 {
        version.levels[self.output_level].run_above(low, high, |table| self.takes(table))
    }

    /// Checks against the version that the outputs are about to go into that no input passes
    /// older data on its way down, and none in the output level ends above newer.
    ///
    /// # Panics
    ///
    /// If one does: the picker, or what keeps compactions apart, is wrong.
    pub(crate) fn assert_order(&self, version: &Version) {
        let levels = version.levels.iter().enumerate();
        let mut newer: Vec<&Arc<Table>> = Vec::new();
        let mut stay: Vec<&Arc<Table>> = Vec::new();
        for (number, level) in levels.take(self.output_level + 1) {
            for run in &level.runs {
                let tables = run.overlapping(&self.smallest, &self.largest);
                let (taken, left): (Vec<_>, Vec<_>) =
                    tables.iter().partition(|table| self.takes(table));
                if number < self.output_level {
                    assert_apart(&newer, &left, "is older than an input and stays above it");
                } else {
                    assert_apart(&stay, &taken, "is older than what the outputs go above");
                    stay.extend(left);
                }
                newer.extend(taken);
            }
        }
        assert_eq!(newer.len(), self.tables().count(), "an input is gone");
    }
}

/// # Panics
///
/// If one of `older` overlaps one of `newer`.
fn assert_apart(newer: &[&Arc<Table>], older: &[&Arc<Table>], wrong: &str) {
    for table in older {
        let (low, high) = (&table.meta.smallest, &table.meta.largest);
        let over = newer.iter().find(|other| other.meta.overlaps(low, high));
        assert!(over.is_none(), "{table:?} {wrong}: {over:?}");
    }
}

fn first_keys(tables: &[Arc<Table>]) -> Vec<Slice> {
    let keys = tables.iter().map(|table| table.meta.smallest.clone());
    keys.collect()
}

/// Every table of `levels` that overlaps `low..=high`, or another of these tables: as inputs, the
/// newest first. What is left in these levels neither reaches into them nor lies between them.
fn closed(
    version: &Version,
    levels: RangeInclusive<usize>,
    low: &Slice,
    high: &Slice,
) -> Vec<Input> {
    let (mut low, mut high) = (low.clone(), high.clone());
    loop {
        let mut inputs = Vec::new();
        for level in levels.clone() {
            for run in &version.levels[level].runs {
                let tables = run.overlapping(&low, &high).to_vec();
                if !tables.is_empty() {
                    inputs.push(Input { level, tables });
                }
            }
        }
        let Some((first, last)) = hull(inputs.iter().flat_map(|input| &input.tables)) else {
            return inputs;
        };
        if first >= low && last <= high {
            return inputs;
        }
        low = low.min(first);
        high = high.max(last);
    }
}

/// True if no table of the inputs overlaps another.
fn are_apart(inputs: &[Input]) -> bool {
    let mut tables: Vec<&Arc<Table>> = inputs.iter().flat_map(|input| &input.tables).collect();
    tables.sort_by(|one, other| one.meta.smallest.cmp(&other.meta.smallest));
    let mut pairs = tables.windows(2);
    pairs.all(|pair| pair[0].meta.largest < pair[1].meta.smallest)
}

/// The plan, if neither an input nor the outputs' range is held by a running one.
fn unless_busy(plan: Plan, busy: &Busy) -> Option<Plan> {
    let is_held = plan.tables().any(|table| busy.has(table))
        || busy.claims(plan.passed(), &plan.smallest, &plan.largest);
    (!is_held).then_some(plan)
}

/// Bytes of a table as they count for urgency: one that holds more tombstones than values counts
/// up to double, since merging it frees space below.
fn weight(table: &Table) -> u64 {
    let meta = &table.meta;
    let surplus = meta
        .tombstones
        .saturating_mul(2)
        .saturating_sub(meta.entries);
    let extra = u128::from(meta.len) * u128::from(surplus) / u128::from(meta.entries.max(1));
    meta.len
        .saturating_add(u64::try_from(extra).unwrap_or(u64::MAX))
}

/// First and last key of some tables.
fn hull<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> Option<(Slice, Slice)> {
    let mut hull: Option<(&Slice, &Slice)> = None;
    for table in tables {
        let (smallest, largest) = (&table.meta.smallest, &table.meta.largest);
        hull = Some(match hull {
            None => (smallest, largest),
            Some((low, high)) => (low.min(smallest), high.max(largest)),
        });
    }
    hull.map(|(low, high)| (low.clone(), high.clone()))
}

/// Tells for ascending keys whether tables below the outputs may hold older data of them.
#[derive(Debug)]
pub(crate) struct Older<'a> {
    /// The tables of each run that no key has passed yet.
    runs: Vec<&'a [Arc<Table>]>,
}

impl<'a> Older<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            runs: plan.older.iter().map(Vec::as_slice).collect(),
        }
    }

    /// True if no table may hold `user`, which is not before the key of the last call.
    pub(crate) fn lacks(&mut self, user: &[u8]) -> bool {
        self.runs.iter_mut().all(|tables| {
            while let [first, rest @ ..] = tables
                && *first.meta.largest < *user
            {
                *tables = rest;
            }
            tables
                .first()
                .is_none_or(|first| *first.meta.smallest > *user)
        })
    }
}

/// What running compactions hold, so that no two of them share an input or write overlapping
/// tables into one level.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Numbers of the tables that are inputs.
    tables: HashSet<u64>,
    outputs: Vec<Claim>,
}

/// The key range that a running compaction carries through some levels, both ends inclusive. An
/// output may span a range of keys that none of its inputs has: another that passes there would
/// find newer data below it.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    levels: RangeInclusive<usize>,
    smallest: Slice,
    largest: Slice,
}

impl Claim {
    fn of(plan: &Plan) -> Self {
        Self {
            levels: plan.passed(),
            smallest: plan.smallest.clone(),
            largest: plan.largest.clone(),
        }
    }
}

impl Busy {
    /// Claims what `plan` needs, until [`remove`](Self::remove).
    ///
    /// # Panics
    ///
    /// If the plan was not picked with this as it is.
    pub(crate) fn insert(&mut self, plan: &Plan) {
        assert!(
            !self.claims(plan.passed(), &plan.smallest, &plan.largest),
            "two compactions carry one range through levels {:?}",
            plan.passed()
        );
        for table in plan.tables() {
            assert!(
                self.tables.insert(table.meta.number),
                "{table:?} is compacted twice"
            );
        }
        self.outputs.push(Claim::of(plan));
    }

    /// Gives back what `plan` claimed, whether it came to its end or failed.
    ///
    /// # Panics
    ///
    /// If it claimed nothing.
    pub(crate) fn remove(&mut self, plan: &Plan) {
        for table in plan.tables() {
            assert!(
                self.tables.remove(&table.meta.number),
                "{table:?} was never claimed"
            );
        }
        let claim = Claim::of(plan);
        let index = self.outputs.iter().position(|output| *output == claim);
        self.outputs
            .swap_remove(index.expect("the output was never claimed"));
    }

    /// True if nothing runs.
    pub(crate) fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    fn has(&self, table: &Table) -> bool {
        self.tables.contains(&table.meta.number)
    }

    /// True if a running compaction carries keys within `smallest..=largest` through one of
    /// `levels`.
    fn claims(&self, levels: RangeInclusive<usize>, smallest: &[u8], largest: &[u8]) -> bool {
        self.outputs.iter().any(|claim| {
            claim.levels.start() <= levels.end()
                && claim.levels.end() >= levels.start()
                && *claim.smallest <= *largest
                && *claim.largest >= *smallest
        })
    }
}

#[cfg(test)]
mod tests {
    use super::simulation::{draw, parse};
    use super::*;

    #[test]
    fn older_data_is_found_by_range() {
        let version = parse("L1: a-z\nL2: b-d f-g\nL3: c-c k-m");
        let tables = version.levels[1].tables().cloned().collect();
        let plan = Plan::new(&version, Kind::Merge, vec![Input { level: 1, tables }], 1);
        let mut older = Older::new(&plan);
        let lacking: Vec<&str> = ["a", "b", "c", "d", "e", "f", "h", "k", "l", "n"]
            .into_iter()
            .filter(|key| older.lacks(key.as_bytes()))
            .collect();
        assert_eq!(lacking, ["a", "e", "h", "n"]);
        assert_eq!(plan.borders, [b"b", b"f"]);
    }

    /// A plan that takes the named tables of a level, of the run at an index.
    fn taking(version: &Version, level: usize, run: usize, output_level: usize) -> Plan {
        let tables = version.levels[level].runs[run].tables().to_vec();
        let inputs = vec![Input { level, tables }];
        Plan::new(version, Kind::Merge, inputs, output_level)
    }

    #[test]
    fn outputs_go_above_what_stays_in_their_level() {
        let version = parse("L1: a-b x-y\nL2: d-f / a-c\nL3: b-b");
        let plan = taking(&version, 1, 0, 2);
        assert_eq!(plan.output_run(&version, b"a", b"b"), 1);
        assert_eq!(plan.output_run(&version, b"c", b"e"), 2);
        assert_eq!(plan.output_run(&version, b"x", b"y"), 0);
        assert_eq!(plan.older.len(), 3);
        let mut older = Older::new(&plan);
        let lacking = ["a", "c", "d", "g", "x"].map(|key| older.lacks(key.as_bytes()));
        assert_eq!(lacking, [false, false, false, true, true]);
        plan.assert_order(&version);
    }

    #[test]
    #[should_panic(expected = "is older than an input and stays above it")]
    fn no_input_passes_older_data() {
        let version = parse("L1: a-c\nL2: b-d\nL3: e-f");
        taking(&version, 1, 0, 3).assert_order(&version);
    }

    #[test]
    #[should_panic(expected = "is older than an input and stays above it")]
    fn no_run_leaves_before_an_older_one() {
        let version = parse("L0: a-c / b-d");
        taking(&version, 0, 0, 3).assert_order(&version);
    }

    #[test]
    #[should_panic(expected = "is older than what the outputs go above")]
    fn no_older_run_ends_above_a_newer() {
        let version = parse("L2: a-c / b-d");
        taking(&version, 2, 1, 2).assert_order(&version);
    }

    #[test]
    fn nothing_passes_a_level_where_an_output_may_span_its_range() {
        let version = parse("L0: r-u\nL1: m-n x-y / m-n x-y\nL6: a-b");
        let input = |level: usize, run: usize| Input {
            level,
            tables: version.levels[level].runs[run].tables().to_vec(),
        };
        let inputs = vec![input(1, 0), input(1, 1)];
        let merge = Plan::new(&version, Kind::Merge, inputs, 2);
        let passing = || Plan::new(&version, Kind::TrivialMove, vec![input(0, 0)], 6);
        let arriving = || Plan::new(&version, Kind::TrivialMove, vec![input(0, 0)], 1);
        let mut busy = Busy::default();
        busy.insert(&merge);
        assert!(unless_busy(passing(), &busy).is_none());
        assert!(unless_busy(arriving(), &busy).is_some());
        busy.remove(&merge);
        busy.insert(&passing());
        assert!(unless_busy(merge, &busy).is_none());
    }

    #[test]
    fn what_a_plan_claims_it_gives_back() {
        let version = parse("L1: a-c e-g\nL2: b-d");
        let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
        assert_eq!(draw(&plan), "merge L1: a-c e-g + L2: b-d -> L6");
        let mut busy = Busy::default();
        busy.insert(&plan);
        assert!(plan.tables().all(|table| busy.has(table)));
        assert!(busy.claims(6..=6, b"g", b"z") && !busy.claims(6..=6, b"h", b"z"));
        assert!(busy.claims(1..=2, b"g", b"z") && !busy.claims(0..=1, b"g", b"z"));
        busy.remove(&plan);
        assert!(busy.is_empty() && plan.tables().all(|table| !busy.has(table)));
    }
}
