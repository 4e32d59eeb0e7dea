//! The store against a `BTreeMap`: the same operations give the same answers, whatever the options,
//! the environment and the threads; and nothing breaks while several threads use it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says how much it did"
)]

mod budget;
mod concurrent;
mod operations;
mod run;
#[path = "../watchdog/mod.rs"]
mod watchdog;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use operations::Op;
use run::{Place, Setup, run};

/// The same list in several stores, each with options of its own. Set `PROPTEST_RNG_SEED` to
/// repeat a run, and `MODEL_CASES_FACTOR` for a longer one.
fn same_answers(cases: u32, place: Place) {
    let config = ProptestConfig {
        cases: cases * cases_factor(),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    };
    let lists = prop::collection::vec(operations::any_op(), 1..160);
    let setups = prop::collection::vec(run::any_setup(), 3);
    let test = |(ops, setups): (Vec<Op>, Vec<Setup>)| {
        for setup in &setups {
            run(&ops, setup, place);
        }
        Ok(())
    };
    let result = TestRunner::new(config).run(&(lists, setups), test);
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn cases_factor() -> u32 {
    let factor = std::env::var("MODEL_CASES_FACTOR");
    factor.map_or(1, |factor| factor.parse().unwrap())
}

#[test]
fn agrees_with_a_map_in_memory() {
    let seconds = u64::from(120 * cases_factor());
    watchdog::within(seconds, || same_answers(200, Place::Memory));
}

#[test]
fn agrees_with_a_map_on_the_file_system_with_threads() {
    let seconds = u64::from(120 * cases_factor());
    watchdog::within(seconds, || same_answers(40, Place::FileSystem));
}

/// Operations of a metamorphic run, and the option sets that it has.
const METAMORPHIC_OPS: usize = 2000;
const METAMORPHIC_SETUPS: usize = 4;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Long lists, each under four option sets. `SILTSTONE_METAMORPHIC_RUNS` is the number of lists of
/// both places together, `SILTSTONE_SEED` the seed of a run that is to be repeated.
fn long_lists(place: Place, seed: u64) {
    let cases = variable("SILTSTONE_METAMORPHIC_RUNS")
        .unwrap_or(4)
        .div_ceil(2);
    let seed = variable("SILTSTONE_SEED").unwrap_or(seed);
    println!("{place:?}: SILTSTONE_SEED={seed}");
    let config = ProptestConfig {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 500,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    let lists = prop::collection::vec(operations::any_op(), METAMORPHIC_OPS);
    let setups = prop::collection::vec(run::any_setup(), METAMORPHIC_SETUPS);
    let result = TestRunner::new(config).run(&(lists, setups), |(ops, setups)| {
        for setup in &setups {
            run(&ops, setup, place);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("SILTSTONE_SEED={seed}: {error}");
    }
    println!("metamorphic runs: {cases}");
}

#[test]
fn metamorphic_lists_agree_in_memory() {
    watchdog::within(1800, || long_lists(Place::Memory, 1));
}

#[test]
fn metamorphic_lists_agree_on_the_file_system_with_threads() {
    watchdog::within(1800, || long_lists(Place::FileSystem, 2));
}
