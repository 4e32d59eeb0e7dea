//! The simulated crash test: random operations on a store in memory, a crash before every I/O
//! under every policy, and a model that says which states may be found afterwards.
//!
//! `SILTSTONE_SEED` is the seed of the first list, `SILTSTONE_LISTS` the number of lists; in place
//! of that number, `SILTSTONE_IMAGES` is how many images the lists have to have together, and
//! `SILTSTONE_SOAK_SECONDS` for how long lists are begun. A failure is shrunk to few operations and
//! printed with the seed that repeats it.

mod check;
mod model;
mod operation;
mod parallel;
mod random;
mod run;
mod shrink;
mod store;
mod sweep;
mod task;

use std::time::Duration;

use siltstone::env::sim::SimEnv;

use check::{Checker, Counts, Failure, Seen, contents, guarded, inspect};
use operation::List;
use parallel::{Extent, for_each, say};
use random::mix;
use run::{Totals, run};
use shrink::{report, shrink};
use sweep::{Swept, sweep, sweep_task};
use task::{TaskList, TaskRun, TaskTotals};

/// Lists, unless the environment says otherwise.
const LISTS: usize = 20;
const LIST_LEN: usize = 100;
/// Lists whose every I/O is failed, and their length.
const SWEEP_LISTS: usize = 3;
const TASK_SWEEP_LISTS: usize = 1;
const SWEEP_LIST_LEN: usize = 30;
/// Lists of a task, and their length.
const TASK_LISTS: usize = 10;
const TASK_LIST_LEN: usize = 120;
/// In so many lists, everything that can happen must have.
const COMPLETE_LISTS: usize = 60;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// How many lists to try, and the seed of each.
fn lists(default: usize, salt: u64) -> (Extent, impl Fn(usize) -> u64) {
    let count = variable("SILTSTONE_LISTS").map(|it| usize::try_from(it).expect("a count"));
    let images = variable("SILTSTONE_IMAGES");
    let extent = match (variable("SILTSTONE_SOAK_SECONDS"), images) {
        (Some(seconds), _) => Extent::Time(Duration::from_secs(seconds)),
        (None, Some(images)) => Extent::Images(images),
        (None, None) => Extent::Parts(count.unwrap_or(default)),
    };
    let seed = variable("SILTSTONE_SEED");
    let seed = move |number| match (seed, number) {
        (Some(seed), 0) => seed,
        (seed, number) => mix(seed.unwrap_or(salt), number as u64),
    };
    (extent, seed)
}

/// Adds up what lists came to, and prints it.
fn tell_counts(prefix: &str, all: impl Iterator<Item = Counts>, lists: usize) {
    let mut counts = Counts::default();
    all.for_each(|it| counts.add(it));
    say(&format!(
        "{prefix}crash images: {} ({} of them of crashed recoveries, {} of recoveries of those) \
         of {} crashes in {lists} lists; {} recoveries crashed in every way",
        counts.all(),
        counts.nested_images,
        counts.deep_images,
        counts.crashes,
        counts.exhausted
    ));
    if lists >= COMPLETE_LISTS {
        assert!(
            counts.exhausted >= 20 && counts.deep_images >= 100,
            "{counts:?}"
        );
    }
}

fn check_list(list: &List, beat: impl Fn(u64)) -> Result<(Counts, Totals), Failure> {
    let env = SimEnv::new(list.seed);
    env.record(true);
    let ran = guarded(|| run(list, &env, false)).map_err(|message| Failure {
        place: "during the run".to_owned(),
        message,
    })?;
    let mut images = env.take_recorded();
    images.push((env.io_count(), env.capture()));
    let mut checker = Checker {
        inspect: &|env, salt| inspect(env, &list.setup, salt),
        contents: &|env| contents(env, &list.setup),
        history: &ran.history,
        is_faulty: false,
        nested_every: 40,
        seen: Seen::new(),
        counts: Counts::default(),
    };
    for (io, image) in &images {
        beat(*io);
        checker.check_all(*io, image)?;
    }
    Ok((checker.counts, ran.totals))
}

#[test]
fn every_crash_leaves_a_prefix_of_the_commits() {
    let (extent, seed) = lists(LISTS, 1);
    let weigh = |(counts, _): &(Counts, Totals)| counts.all();
    let results = for_each(extent, weigh, |number, beat| {
        let list = List::random(seed(number), LIST_LEN);
        let tick = |io| beat.tick(&|| format!("seed {}, crash before I/O {io}", list.seed));
        check_list(&list, tick).map_err(|failure| {
            let fails = |fewer: &List| check_list(fewer, tick).err();
            let (shrunk, failure) = shrink(&list, failure, fails);
            report(&list, &shrunk, &failure)
        })
    });
    let mut totals = Totals::default();
    for (_, it) in &results {
        totals.add(it);
    }
    say(&format!("{totals:?}"));
    tell_counts("", results.iter().map(|(counts, _)| *counts), results.len());
    if results.len() >= COMPLETE_LISTS {
        totals.assert_not_blind();
    }
}

#[test]
fn every_error_is_reported_and_loses_nothing() {
    let (extent, seed) = lists(SWEEP_LISTS, 2);
    let weigh = |swept: &Swept| swept.counts.all();
    let results = for_each(extent, weigh, |number, beat| {
        let list = List::random(seed(number), SWEEP_LIST_LEN);
        let tick = |fault: &dyn Fn() -> String| {
            beat.tick(&|| format!("seed {}, fault {}", list.seed, fault()));
        };
        sweep(&list, tick).map_err(|failure| {
            let fails = |fewer: &List| sweep(fewer, tick).err();
            let (shrunk, failure) = shrink(&list, failure, fails);
            report(&list, &shrunk, &failure)
        })
    });
    tell_sweep("", &results);
}

#[test]
fn every_error_under_a_task_is_reported_and_loses_nothing() {
    let (extent, seed) = lists(TASK_SWEEP_LISTS, 4);
    let weigh = |swept: &Swept| swept.counts.all();
    let results = for_each(extent, weigh, |number, beat| {
        let list = TaskList::random(seed(number), SWEEP_LIST_LEN);
        let tick = |fault: &dyn Fn() -> String| {
            beat.tick(&|| format!("seed {}, fault {}", list.seed, fault()));
        };
        sweep_task(&list, tick).map_err(|failure| {
            let fails = |fewer: &TaskList| sweep_task(fewer, tick).err();
            let (shrunk, failure) = shrink(&list, failure, fails);
            report(&list, &shrunk, &failure)
        })
    });
    tell_sweep("task ", &results);
}

/// Adds up what the sweeps of lists came to, and prints it.
fn tell_sweep(prefix: &str, results: &[Swept]) {
    let runs: u64 = results.iter().map(|it| it.runs).sum();
    let errors: u64 = results.iter().map(|it| it.errors).sum();
    let images: u64 = results.iter().map(|it| it.counts.all()).sum();
    say(&format!(
        "{prefix}error sweep: {runs} runs of {} lists, {errors} errors reported, {images} images \
         opened",
        results.len()
    ));
    assert!(errors > 0, "no fault was seen");
}

fn check_task_list(list: &TaskList, beat: impl Fn(u64)) -> Result<(Counts, TaskTotals), Failure> {
    let env = SimEnv::new(list.seed);
    env.record(true);
    let ran = guarded(|| task::run(list, &env, false)).map_err(|message| Failure {
        place: "during the run".to_owned(),
        message,
    })?;
    let TaskRun {
        history, totals, ..
    } = ran;
    let mut images = env.take_recorded();
    images.push((env.io_count(), env.capture()));
    let mut checker = Checker {
        inspect: &|env, salt| task::inspect(env, list, salt),
        contents: &|env| task::contents(env, list),
        history: &history,
        is_faulty: false,
        nested_every: 200,
        seen: Seen::new(),
        counts: Counts::default(),
    };
    for (io, image) in &images {
        beat(*io);
        checker.check_all(*io, image)?;
    }
    Ok((checker.counts, totals))
}

#[test]
fn every_crash_of_a_task_leaves_a_prefix_of_its_commits() {
    let (extent, seed) = lists(TASK_LISTS, 3);
    let weigh = |(counts, _): &(Counts, TaskTotals)| counts.all();
    let results = for_each(extent, weigh, |number, beat| {
        let list = TaskList::random(seed(number), TASK_LIST_LEN);
        let tick = |io| beat.tick(&|| format!("seed {}, crash before I/O {io}", list.seed));
        check_task_list(&list, tick).map_err(|failure| {
            let fails = |fewer: &TaskList| check_task_list(fewer, tick).err();
            let (shrunk, failure) = shrink(&list, failure, fails);
            report(&list, &shrunk, &failure)
        })
    });
    let mut totals = TaskTotals::default();
    for (_, it) in &results {
        totals.add(it);
    }
    say(&format!("{totals:?}"));
    tell_counts(
        "task ",
        results.iter().map(|(counts, _)| *counts),
        results.len(),
    );
    if results.len() >= COMPLETE_LISTS {
        totals.assert_not_blind();
    }
}
