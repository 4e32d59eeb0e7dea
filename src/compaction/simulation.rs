//! What pickers are tested with: levels drawn as text, and plans carried out on metadata.

use std::collections::{BTreeMap, HashMap};

use super::cut::Cutter;
use super::{Busy, Kind, Older, Plan, pick};
use crate::key::SeqNo;
use crate::options::{KeyspaceOptions, LEVELS};
use crate::slice::Slice;
use crate::sync::Arc;
use crate::version::{Level, Run, Table, TableMeta, Version};

/// Reads levels drawn as text: `L0: a-c e-g / b-d` are two runs, the newest first. A table may be
/// followed by its bytes (`a-c*50`, 100 unless given) and its share of tombstones in percent
/// (`a-c!80`).
pub(super) fn parse(text: &str) -> Version {
    let mut version = Version::default();
    let mut number = 0;
    for line in text.lines() {
        let (level, runs) = line.trim().split_once(": ").unwrap();
        let level: usize = level.strip_prefix('L').unwrap().parse().unwrap();
        let runs: Vec<&str> = runs.split(" / ").collect();
        for (place, run) in runs.iter().enumerate() {
            let tables = run.split_whitespace().map(|table| {
                number += 1;
                parse_table(table, number)
            });
            let above = runs.len() - 1 - place;
            let run = Run::numbered(above as u64, tables.collect());
            version.levels[level].runs.push(run);
        }
    }
    version
}

fn parse_table(text: &str, number: u64) -> Arc<Table> {
    let (text, tombstones) = text.split_once('!').unwrap_or((text, "0"));
    let (text, len) = text.split_once('*').unwrap_or((text, "100"));
    let (smallest, largest) = text.split_once('-').unwrap();
    let key = |text: &str| Slice::copy_from(text.as_bytes());
    let mut meta = meta(
        number,
        key(smallest),
        key(largest),
        100,
        len.parse().unwrap(),
    );
    meta.tombstones = tombstones.parse().unwrap();
    Arc::new(Table::fake(meta))
}

pub(super) fn meta(
    number: u64,
    smallest: Slice,
    largest: Slice,
    entries: u64,
    len: u64,
) -> TableMeta {
    TableMeta {
        number,
        id: number,
        len,
        entries,
        tombstones: 0,
        raw_bytes: len,
        smallest,
        largest,
        seqno_min: SeqNo(1),
        seqno_max: SeqNo(number),
    }
}

fn name(table: &Table) -> String {
    format!(
        "{}-{}",
        table.meta.smallest.escape_ascii(),
        table.meta.largest.escape_ascii()
    )
}

/// A plan as text: `merge L0: a-c / b-d + L1: a-b -> L1`.
pub(super) fn draw(plan: &Plan) -> String {
    let mut text = String::from(match plan.kind {
        Kind::Merge => "merge",
        Kind::TrivialMove => "move",
    });
    let mut level = None;
    for input in &plan.inputs {
        if level == Some(input.level) {
            text += " /";
        } else {
            text += if level.is_some() { " + " } else { " " };
            text.push('L');
            text += &input.level.to_string();
            text.push(':');
        }
        level = Some(input.level);
        for table in &input.tables {
            text += " ";
            text += &name(table);
        }
    }
    text + &format!(" -> L{}", plan.output_level)
}

/// What holds the named tables.
pub(super) fn holding(version: &Version, names: &str) -> Busy {
    let is_named = |table: &&Arc<Table>| names.split_whitespace().any(|one| one == name(table));
    let tables = version
        .tables()
        .filter(is_named)
        .map(|table| table.meta.number)
        .collect();
    Busy {
        tables,
        outputs: Vec::new(),
    }
}

/// An entry of a fake table: key, sequence number, whether it is a tombstone.
type Entry = (u32, u64, bool);

/// Carries plans out on metadata and, beside it, the entries that the tables would hold.
pub(super) struct Simulation {
    pub(super) version: Version,
    pub(super) busy: Busy,
    pub(super) options: KeyspaceOptions,
    memtable_bytes: u64,
    /// What reads have paid.
    runs_asked: u64,
    /// By table number.
    entries: HashMap<u64, Vec<Entry>>,
    next_number: u64,
    pub(super) next_seqno: u64,
    flushed: u64,
    written: u64,
}

impl Simulation {
    /// A simulation whose entries have one byte each; tables are as large as a memtable.
    pub(super) fn new(memtable_entries: u64) -> Self {
        Self {
            version: Version::default(),
            busy: Busy::default(),
            options: KeyspaceOptions {
                table_bytes: memtable_entries,
                ..KeyspaceOptions::new()
            },
            memtable_bytes: memtable_entries,
            runs_asked: 0,
            entries: HashMap::new(),
            next_number: 1,
            next_seqno: 1,
            flushed: 0,
            written: 0,
        }
    }

    fn table(&mut self, entries: Vec<Entry>) -> Arc<Table> {
        let key = |entry: &Entry| Slice::copy_from(&entry.0.to_be_bytes());
        let (first, last) = (entries.first().unwrap(), entries.last().unwrap());
        let len = entries.len() as u64;
        let mut meta = meta(self.next_number, key(first), key(last), len, len);
        meta.tombstones = entries.iter().filter(|entry| entry.2).count() as u64;
        self.next_number += 1;
        self.entries.insert(meta.number, entries);
        self.written += len;
        Arc::new(Table::fake(meta))
    }

    pub(super) fn flush(&mut self, writes: BTreeMap<u32, bool>) {
        self.flushed += writes.len() as u64;
        let entries = writes.into_iter().map(|(key, is_delete)| {
            self.next_seqno += 1;
            (key, self.next_seqno, is_delete)
        });
        let entries = entries.collect();
        let table = self.table(entries);
        let number = table.meta.number;
        self.put(0, number, table);
    }

    pub(super) fn pick(&self) -> Option<Plan> {
        pick(
            &self.version,
            &self.busy,
            &self.options,
            self.memtable_bytes,
            self.runs_asked,
        )
    }

    pub(super) fn carry_out(&mut self, plan: &Plan) {
        let outputs = match plan.kind {
            Kind::TrivialMove => plan.tables().cloned().collect::<Vec<_>>(),
            Kind::Merge => self.merge(plan),
        };
        plan.assert_order(&self.version);
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|table: Arc<Table>| {
                let (low, high) = (&table.meta.smallest, &table.meta.largest);
                (plan.output_run(&self.version, low, high), table)
            })
            .collect();
        for level in &mut self.version.levels {
            for run in &mut level.runs {
                let near = run.overlapping(&plan.smallest, &plan.largest);
                if near.iter().any(|table| plan.takes(table)) {
                    let rest = run.tables().iter().filter(|table| !plan.takes(table));
                    *run = Run::numbered(run.number(), rest.cloned().collect());
                }
            }
            level.runs.retain(|run| !run.is_empty());
        }
        for (number, table) in outputs {
            self.put(plan.output_level, number, table);
        }
        assert!(self.version.levels[LEVELS - 1].runs.len() <= 1);
    }

    fn put(&mut self, level: usize, number: u64, table: Arc<Table>) {
        let runs = &mut self.version.levels[level].runs;
        let at = runs.partition_point(|run| run.number() > number);
        if runs.get(at).is_none_or(|run| run.number() != number) {
            runs.insert(at, Run::numbered(number, Vec::new()));
        }
        let mut tables = runs[at].tables().to_vec();
        let place = tables.partition_point(|other| other.meta.smallest < table.meta.smallest);
        tables.insert(place, table);
        // A run asserts that its tables are disjoint.
        runs[at] = Run::numbered(number, tables);
    }

    fn merge(&mut self, plan: &Plan) -> Vec<Arc<Table>> {
        let mut all: Vec<Entry> = Vec::new();
        if plan.kind == Kind::Merge {
            for table in plan.tables() {
                all.extend(self.entries.remove(&table.meta.number).unwrap());
            }
        }
        all.sort_by_key(|(key, seqno, _)| (*key, u64::MAX - seqno));
        all.dedup_by_key(|entry| entry.0);
        let mut older = Older::new(plan);
        all.retain(|entry| !(entry.2 && older.lacks(&entry.0.to_be_bytes())));
        let table_bytes = plan.table_bytes.unwrap_or(self.options.table_bytes);
        let mut cutter = Cutter::new(table_bytes, plan.cut, &plan.borders);
        let mut tables = Vec::new();
        let mut open: Vec<Entry> = Vec::new();
        for entry in all {
            if cutter.cuts_before(&entry.0.to_be_bytes(), open.len() as u64) {
                tables.push(self.table(std::mem::take(&mut open)));
            }
            open.push(entry);
        }
        if !open.is_empty() {
            tables.push(self.table(open));
        }
        tables
    }

    /// What a reader finds: the first version of each key from the newest run down.
    pub(super) fn visible(&self) -> BTreeMap<u32, u64> {
        let mut found: BTreeMap<u32, (u64, bool)> = BTreeMap::new();
        for run in self.version.runs() {
            for table in run.tables() {
                for (key, seqno, is_delete) in &self.entries[&table.meta.number] {
                    found.entry(*key).or_insert((*seqno, *is_delete));
                }
            }
        }
        found.retain(|_, (_, is_delete)| !*is_delete);
        found
            .into_iter()
            .map(|(key, (seqno, _))| (key, seqno))
            .collect()
    }
}

/// The generator of the simulator that the figures below come from.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let random = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        u32::try_from(random % u64::from(end)).unwrap()
    }
}

/// What a strategy wrote and held, by uniform overwrites.
#[derive(Debug)]
pub(super) struct Measured {
    /// Bytes flushed and compacted for a flushed byte, in percent.
    pub(super) write_percent: u64,
    /// Bytes held for a byte of live entries, in percent, on average.
    pub(super) space_percent: u64,
    /// Tables that a key may be in, at any time, in tenths: the mean.
    pub(super) runs_tenths: u64,
}

/// Writes as many keys as `ratio` memtables of `memtable_entries` hold in random order, then
/// overwrites them at random, each about `overwrites` times; all but the first half of an
/// overwrite counts.
pub(super) fn measure(
    options: KeyspaceOptions,
    memtable_entries: u32,
    ratio: u32,
    overwrites: u32,
) -> Measured {
    let keys = ratio * memtable_entries;
    let mut simulation = Simulation::new(u64::from(memtable_entries));
    simulation.options = options;
    let level0_runs_max = simulation.options.level0_runs_max;
    let mut random = Random(88_172_645_463_325_252);
    let mut order: Vec<u32> = (0..keys).collect();
    for index in (1..keys).rev() {
        order.swap(index as usize, random.below(index + 1) as usize);
    }
    let settle = |simulation: &mut Simulation| {
        if simulation.version.levels[0].runs.len() < level0_runs_max {
            return;
        }
        while let Some(plan) = simulation.pick() {
            simulation.carry_out(&plan);
        }
    };
    for chunk in order.chunks(memtable_entries as usize) {
        simulation.flush(chunk.iter().map(|key| (*key, false)).collect());
        settle(&mut simulation);
    }
    let mut before = (0, 0);
    let (mut space, mut runs, mut looks) = (0, 0, 0);
    for flush in 0..overwrites * ratio {
        if flush == ratio / 2 {
            before = (simulation.flushed, simulation.written);
        }
        let mut writes = BTreeMap::new();
        while writes.len() < memtable_entries as usize {
            writes.insert(random.below(keys), false);
        }
        simulation.flush(writes);
        settle(&mut simulation);
        if flush >= ratio / 2 && flush % (ratio / 16) == 0 {
            let bytes: u64 = simulation.version.levels.iter().map(Level::bytes).sum();
            space += bytes * 100 / u64::from(keys);
            for _ in 0..16 {
                let key = random.below(keys).to_be_bytes();
                let holds = |run: &&Run| run.table_for(&key).is_some();
                runs += simulation.version.runs().filter(holds).count() as u64;
            }
            looks += 1;
        }
    }
    Measured {
        write_percent: (simulation.written - before.1) * 100 / (simulation.flushed - before.0),
        space_percent: space / looks,
        runs_tenths: runs * 10 / (looks * 16),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::leveled::pick_full;
    use super::*;
    use crate::options::Strategy as Compaction;

    /// Memtables in the store, entries of one, memtables that a table is as large as, overwrites
    /// of each key: from 1 GiB to 10 TiB where a memtable has 64 MiB.
    const CURVE: [(u32, u32, u32, u32); 5] = [
        (16, 1024, 1, 30),
        (160, 512, 1, 4),
        (1600, 128, 1, 2),
        (16_000, 64, 2, 2),
        (160_000, 32, 16, 2),
    ];

    /// As far as `SILTSTONE_MEMTABLES_MAX` says: the last ones take minutes.
    #[test]
    fn what_each_strategy_costs_as_a_store_grows() {
        let shapes = [
            ("lazy-leveled", KeyspaceOptions::new()),
            (
                "leveled",
                KeyspaceOptions::new().compaction(Compaction::Leveled),
            ),
            ("for writes", KeyspaceOptions::for_writes()),
            ("for space", KeyspaceOptions::for_space()),
            ("for scans", KeyspaceOptions::for_scans()),
        ];
        let ratio_max = std::env::var("SILTSTONE_MEMTABLES_MAX").map_or(16, |text| {
            let number = text.parse();
            number.expect("SILTSTONE_MEMTABLES_MAX is a number")
        });
        let curve = CURVE.iter().filter(|(ratio, ..)| *ratio <= ratio_max);
        for (ratio, entries, tables, overwrites) in curve.copied() {
            for (name, options) in &shapes {
                let options = options.clone().table_bytes(u64::from(entries * tables));
                let measured = measure(options, entries, ratio, overwrites);
                eprintln!("{ratio} memtables, {name}: {measured:?}");
                assert!(measured.space_percent < 200, "{name}: {measured:?}");
                assert!(measured.runs_tenths < 300, "{name}: {measured:?}");
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Flush(BTreeMap<u32, bool>),
        Pick,
        PickFull,
        Finish(usize),
        Choose(Compaction),
        /// What reads have paid from here on.
        Paid(u64),
    }

    fn strategy() -> impl Strategy<Value = Compaction> {
        let lazy = (2_usize..4, 2_u32..6);
        prop_oneof![
            Just(Compaction::Leveled),
            lazy.prop_map(|(runs_max, ratio)| Compaction::LazyLeveled { runs_max, ratio }),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        let writes = prop::collection::btree_map(0_u32..120, prop::bool::weighted(0.4), 1..12);
        prop_oneof![
            18 => writes.prop_map(Step::Flush),
            24 => Just(Step::Pick),
            2 => Just(Step::PickFull),
            24 => (0_usize..8).prop_map(Step::Finish),
            1 => strategy().prop_map(Step::Choose),
            1 => prop_oneof![Just(0), Just(u64::MAX)].prop_map(Step::Paid),
        ]
    }

    proptest! {
        /// Plans that run beside each other and end in any order keep newer data above older,
        /// tables of a run disjoint, and deleted keys deleted, whatever strategy made what is
        /// there; and with nothing more to write, either strategy comes to an end.
        #[test]
        fn concurrent_plans_keep_what_readers_see(
            first in strategy(),
            steps in prop::collection::vec(step(), 1..200),
        ) {
            let mut simulation = Simulation::new(8);
            simulation.options.level_ratio = 3;
            simulation.options.level0_runs_max = 2;
            simulation.options.compaction = first;
            let mut running: Vec<Plan> = Vec::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                let picked = match step {
                    Step::Flush(writes) => {
                        let first = simulation.next_seqno;
                        for (index, (key, is_delete)) in writes.iter().enumerate() {
                            model.insert(*key, first + 1 + index as u64);
                            if *is_delete {
                                model.remove(key);
                            }
                        }
                        simulation.flush(writes);
                        None
                    }
                    Step::Pick => simulation.pick(),
                    Step::PickFull => pick_full(&simulation.version, &simulation.busy),
                    Step::Finish(index) => {
                        if !running.is_empty() {
                            let plan = running.swap_remove(index % running.len());
                            simulation.carry_out(&plan);
                            simulation.busy.remove(&plan);
                        }
                        None
                    }
                    Step::Choose(strategy) => {
                        simulation.options.compaction = strategy;
                        None
                    }
                    Step::Paid(runs_asked) => {
                        simulation.runs_asked = runs_asked;
                        None
                    }
                };
                if let Some(plan) = picked {
                    simulation.busy.insert(&plan);
                    running.push(plan);
                }
                prop_assert_eq!(&simulation.visible(), &model);
            }
            for plan in running {
                simulation.carry_out(&plan);
                simulation.busy.remove(&plan);
            }
            for strategy in [Compaction::lazy_leveled(), Compaction::Leveled] {
                simulation.options.compaction = strategy;
                let mut plans = 0;
                while let Some(plan) = simulation.pick() {
                    simulation.carry_out(&plan);
                    plans += 1;
                    prop_assert!(plans < 1000, "{strategy:?} never ends");
                }
                prop_assert_eq!(&simulation.visible(), &model);
            }
            let levels = &simulation.version.levels[1..];
            prop_assert!(levels.iter().all(|level| level.runs.len() <= 1));
        }
    }
}
