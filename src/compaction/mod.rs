//! Keeping a keyspace's levels in shape.
//!
//! A picker ([`leveled`]) looks at a version and returns a [`Plan`]; [`Busy`] tells it what the
//! running ones hold. [`run`] carries a plan out: it merges the inputs, lets a [`stream`] decide
//! what is kept, and writes tables that end where a cutter ([`cut`]) says. Whoever installs the
//! result makes one edit of it.

pub(crate) mod cut;
pub(crate) mod leveled;
pub(crate) mod run;
pub(crate) mod stream;

use std::collections::HashSet;

use crate::planted::{Bug, planted};
use crate::slice::Slice;
use crate::sync::Arc;
use crate::version::{Table, Version};

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
/// Its inputs hold everything of their key range within the input levels that is older than their
/// newest part, and all of the output level's tables in the range: so for every key newer data
/// stays above older data.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    /// The sources, newest first.
    pub(crate) inputs: Vec<Input>,
    pub(crate) output_level: usize,
    /// First keys of the tables below the output level, where outputs are best cut; ascending.
    pub(crate) borders: Vec<Slice>,
    /// The tables below the output level that overlap the inputs, a list a level: what decides
    /// whether a key has older data.
    pub(crate) older: Vec<Vec<Arc<Table>>>,
    /// First and last key of all inputs, both inclusive.
    pub(crate) smallest: Slice,
    pub(crate) largest: Slice,
}

impl Plan {
    /// A plan for `inputs`, with what follows from them and from the levels below the output.
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
        let mut older = Vec::new();
        let overlooked = usize::from(planted(Bug::OlderLevelOverlooked));
        for level in version.levels.iter().skip(output_level + 1 + overlooked) {
            for run in &level.runs {
                let tables = run.overlapping(&smallest, &largest);
                if !tables.is_empty() {
                    older.push(tables.to_vec());
                }
            }
        }
        let first_keys = |tables: &Vec<Arc<Table>>| {
            tables
                .iter()
                .map(|table| table.meta.smallest.clone())
                .collect()
        };
        let borders = older.first().map(first_keys).unwrap_or_default();
        Self {
            kind,
            inputs,
            output_level,
            borders,
            older,
            smallest,
            largest,
        }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.inputs.iter().flat_map(|input| &input.tables)
    }
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

/// Tells for ascending keys whether tables below may hold older data of them.
#[derive(Debug)]
pub(crate) struct Older<'a> {
    /// The tables of each level that no key has passed yet.
    levels: Vec<&'a [Arc<Table>]>,
}

impl<'a> Older<'a> {
    pub(crate) fn new(plan: &'a Plan) -> Self {
        Self {
            levels: plan.older.iter().map(Vec::as_slice).collect(),
        }
    }

    /// True if no table may hold `user`, which is not before the key of the last call.
    pub(crate) fn lacks(&mut self, user: &[u8]) -> bool {
        self.levels.iter_mut().all(|tables| {
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

/// The key range that a running compaction writes to a level, both ends inclusive.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    level: usize,
    smallest: Slice,
    largest: Slice,
}

impl Claim {
    fn of(plan: &Plan) -> Self {
        Self {
            level: plan.output_level,
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
            !self.claims(plan.output_level, &plan.smallest, &plan.largest),
            "two compactions write one range of level {}",
            plan.output_level
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

    /// True if a running compaction writes keys within `smallest..=largest` to `level`.
    fn claims(&self, level: usize, smallest: &[u8], largest: &[u8]) -> bool {
        self.outputs.iter().any(|claim| {
            claim.level == level && *claim.smallest <= *largest && *claim.largest >= *smallest
        })
    }
}

#[cfg(test)]
mod tests {
    use super::leveled::tests::{draw, parse};
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

    #[test]
    fn what_a_plan_claims_it_gives_back() {
        let version = parse("L1: a-c e-g\nL2: b-d");
        let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
        assert_eq!(draw(&plan), "merge L1: a-c e-g + L2: b-d -> L6");
        let mut busy = Busy::default();
        busy.insert(&plan);
        assert!(plan.tables().all(|table| busy.has(table)));
        assert!(busy.claims(6, b"g", b"z") && !busy.claims(6, b"h", b"z"));
        assert!(!busy.claims(5, b"g", b"z"));
        busy.remove(&plan);
        assert!(busy.is_empty() && plan.tables().all(|table| !busy.has(table)));
    }
}
