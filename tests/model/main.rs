//! The store against a `BTreeMap`: the same operations give the same answers, whatever the options,
//! the environment and the threads; and nothing breaks while several threads use it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod budget;
mod concurrent;
mod operations;
mod run;
#[path = "../watchdog/mod.rs"]
mod watchdog;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

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
