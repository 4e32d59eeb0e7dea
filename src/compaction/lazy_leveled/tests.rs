use super::super::cut::Cut;
use super::super::simulation::{draw, holding, measure, meta, parse};
use super::*;
use crate::options::Strategy;

/// Picks with memtables and tables of 100 bytes, four runs in level 0, three of a class.
fn plan_of(text: &str, held: &str) -> Option<Plan> {
    plan_where(text, held, false)
}

/// The same, with level 0 due whatever it holds, or not.
fn plan_where(text: &str, held: &str, level0_is_due: bool) -> Option<Plan> {
    let version = parse(text);
    let options = KeyspaceOptions {
        table_bytes: 100,
        ..KeyspaceOptions::new()
    };
    let shape = Shape {
        runs_max: 3,
        ratio: 10,
    };
    let busy = holding(&version, held);
    pick(&version, &busy, &options, shape, 100, level0_is_due)
}

fn picked(text: &str, held: &str) -> String {
    let plan = plan_of(text, held);
    plan.as_ref().map_or("nothing".to_owned(), draw)
}

const LAST: &str = "L6: a-f*2000 g-m*2000 n-z*2000";

#[test]
fn an_empty_or_quiet_version_needs_nothing() {
    assert_eq!(picked("", ""), "nothing");
    let text = format!("L0: a-c / b-d / a-z\n{LAST}");
    assert_eq!(picked(&text, ""), "nothing");
    let text = format!("L1: a-z\nL2: a-f / b-c\n{LAST}");
    assert_eq!(picked(&text, ""), "nothing");
}

#[test]
fn level0_becomes_a_run_that_is_cut_at_partitions() {
    let text = format!("L0: a-z / a-z / a-z / a-z\nL1: a-z\n{LAST}");
    let plan = plan_of(&text, "").unwrap();
    assert_eq!(draw(&plan), "merge L0: a-z / a-z / a-z / a-z -> L1");
    assert_eq!(plan.cut, Cut::At);
    assert_eq!(plan.borders, [b"g", b"n"]);
    assert_eq!(plan.output_run(&parse(&text), b"a", b"f"), 1);
}

#[test]
fn level0_is_merged_early_where_reads_have_paid_for_it() {
    let paid = |text: &str, held: &str| {
        let plan = plan_where(text, held, true);
        plan.as_ref().map_or("nothing".to_owned(), draw)
    };
    let text = format!("L0: a-c / b-d\n{LAST}");
    assert_eq!(picked(&text, ""), "nothing");
    assert_eq!(paid(&text, ""), "merge L0: a-c / b-d -> L1");
    assert_eq!(paid(&text, "b-d"), "nothing");
    assert_eq!(paid(&text, "a-c"), "nothing", "one run gains nothing");
    let text = format!("L0: a-c\n{LAST}");
    assert_eq!(paid(&text, ""), "nothing");
    let text = format!("L0: a-c / b-d\nL2: g-m / g-m / g-m\n{LAST}");
    assert_eq!(
        paid(&text, ""),
        "merge L0: a-c / b-d -> L1",
        "before classes"
    );
}

#[test]
fn level0_costs_its_entries_and_a_sync() {
    let options = KeyspaceOptions::new();
    let price = |text: &str| super::super::level0_price(&parse(text), &options);
    assert_eq!(price("L0: a-c"), None);
    assert_eq!(price("L0: a-c / b-d"), Some(50_200));
    let leveled = KeyspaceOptions::new().compaction(Strategy::Leveled);
    let version = parse("L0: a-c / b-d");
    assert_eq!(super::super::level0_price(&version, &leveled), None);
}

#[test]
fn first_data_goes_straight_to_the_last_level() {
    let text = "L0: a-z / a-z / a-z / a-z";
    assert_eq!(picked(text, ""), "merge L0: a-z / a-z / a-z / a-z -> L6");
    let text = "L0: a-k / a-k / a-k / a-k\nL6: b-c*200 x-z*200";
    assert_eq!(
        picked(text, ""),
        "merge L0: a-k / a-k / a-k / a-k + L6: b-c -> L6"
    );
    let text = "L0: v-w / t-u / r-s / p-q\nL6: a-f*2000";
    assert_eq!(picked(text, ""), "move L0: v-w / t-u / r-s / p-q -> L6");
}

#[test]
fn full_classes_become_one_run_of_the_next() {
    let text = format!("L2: a-f g-m / g-m / g-m\n{LAST}");
    assert_eq!(picked(&text, ""), "merge L2: g-m / g-m / g-m -> L3");
    let text = format!("L2: a-f g-m / a-f g-m / a-f g-m\n{LAST}");
    assert_eq!(
        picked(&text, ""),
        "merge L2: a-f g-m / a-f g-m / a-f g-m -> L3",
        "neighbours together"
    );
    assert_eq!(picked(&text, "a-f"), "merge L2: g-m / g-m / g-m -> L3");
    assert_eq!(picked(&text, "a-f g-m"), "nothing");
    // Below the last class there is only the last level.
    let text = format!("L5: g-m / g-m / g-m\n{LAST}");
    assert_eq!(
        picked(&text, ""),
        "merge L5: g-m / g-m / g-m + L6: g-m -> L6"
    );
}

#[test]
fn the_partition_with_the_largest_share_goes_down() {
    let last = "L6: a-f*1000 g-m*1000 n-z*1000";
    let text = format!("L1: a-f*200 g-m*200\nL3: a-f*200 g-m*300\n{last}");
    assert_eq!(picked(&text, ""), "merge L1: g-m + L3: g-m + L6: g-m -> L6");
    assert_eq!(
        picked(&text, "g-m"),
        "merge L1: a-f + L3: a-f + L6: a-f -> L6"
    );
    // What reaches over a border takes both partitions along.
    let text = format!("L1: a-h*400\nL2: g-m*100\n{last}");
    assert_eq!(
        picked(&text, ""),
        "merge L1: a-h + L2: g-m + L6: a-f g-m -> L6"
    );
    // Tombstones count double.
    let text = format!("L1: a-f*200!100 g-m*300\n{last}");
    assert_eq!(picked(&text, ""), "merge L1: a-f + L6: a-f -> L6");
}

#[test]
fn tables_above_a_gap_are_moved() {
    let text = "L1: p-q*400\nL6: a-f*1000";
    assert_eq!(picked(text, ""), "move L1: p-q -> L6");
    let text = "L1: p-q*10 r-s*390\nL6: a-f*1000";
    assert_eq!(picked(text, ""), "merge L1: p-q r-s -> L6", "one is small");
}

#[test]
fn a_small_partition_takes_a_neighbour_along() {
    let text = "L1: g-h*20 n-z*100\nL6: a-f*500 g-h*10 n-z*600";
    assert_eq!(picked(text, ""), "merge L1: g-h + L6: a-f g-h -> L6");
}

#[test]
fn outputs_of_the_last_level_are_even() {
    assert_eq!(even_bytes(140, 100), 148);
    assert_eq!(even_bytes(160, 100), 85);
    assert_eq!(even_bytes(10, 100), 11);
}

#[test]
fn a_store_that_outgrows_its_levels_merges_more_runs() {
    let version = Version::default();
    let picker = Picker {
        version: &version,
        busy: &Busy::default(),
        options: &KeyspaceOptions::new(),
        partitions: Partitions::of(&version),
    };
    // Four memtables times the runs to the power of five: twice what is meant to be there.
    assert_eq!(picker.runs_max(2, 64 * 100, 100), 2);
    assert_eq!(picker.runs_max(2, 64 * 100 + 1, 100), 3);
    assert_eq!(picker.runs_max(4, 0, 100), 4);
}

/// Of a last level of tables with these first keys.
fn partitions_of(keys: std::ops::Range<u32>) -> Partitions {
    let tables = keys.map(|key| {
        let key = Slice::copy_from(&key.to_be_bytes());
        Arc::new(Table::fake(meta(1, key.clone(), key, 1, 1)))
    });
    let mut version = Version::default();
    let runs = &mut version.levels[LEVEL_LAST].runs;
    runs.push(Run::new(tables.collect()));
    Partitions::of(&version)
}

#[test]
fn partitions_are_few_and_keep_their_borders() {
    assert_eq!(partitions_of(0..0).count(), 1);
    assert_eq!(partitions_of(0..1).count(), 1);
    assert_eq!(partitions_of(0..100).count(), 100);
    let few = partitions_of(0..10_000);
    let count = few.count();
    assert!((40..=160).contains(&count), "{count} partitions");
    // With twice the tables about half of the borders stay, and none is new among the old keys.
    let end = 10_000_u32.to_be_bytes();
    let mut fewer = partitions_of(0..20_000).borders;
    fewer.retain(|key| **key < end[..]);
    assert!(fewer.len() > 10, "{} stay", fewer.len());
    assert!(fewer.iter().all(|key| few.borders.contains(key)));
}

/// As in the leveled tests.
const SIMULATED: [(u32, u32, u32, u64); 3] = [
    (16, 1024, 30, 410),
    (160, 1024, 2, 720),
    (1600, 256, 2, 940),
];

#[test]
fn writes_as_little_as_the_simulated_policy() {
    for (ratio, entries, overwrites, simulated) in SIMULATED {
        let options = KeyspaceOptions::new()
            .table_bytes(u64::from(entries))
            .compaction(Strategy::LazyLeveled {
                runs_max: 4,
                ratio: 10,
            });
        let measured = measure(options, entries, ratio, overwrites);
        eprintln!("{ratio} memtables: {measured:?}, simulated {simulated}%");
        let (low, high) = (simulated * 9 / 10, simulated * 11 / 10);
        let percent = measured.write_percent;
        assert!(
            (low..=high).contains(&percent),
            "{percent}% against {simulated}%"
        );
    }
}
