//! The simulated crash test: random operations on a store in memory, a crash before every I/O
//! under every policy, and a model that says which states may be found afterwards.
//!
//! `SILTSTONE_SEED` is the seed of the first list, `SILTSTONE_LISTS` the number of lists. A
//! failure is shrunk to few operations and printed with the seed that repeats it.

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

use siltstone::env::sim::SimEnv;

use check::{Checker, Counts, Failure, Seen, contents, guarded, inspect};
use operation::List;
use parallel::{for_each, say};
use random::mix;
use run::{Totals, run};
use shrink::{report, shrink};
use sweep::{Swept, sweep};
use task::{TaskList, TaskTotals};

/// Lists, unless the environment says otherwise.
const LISTS: usize = 80;
const LIST_LEN: usize = 100;
/// Lists whose every I/O is failed, and their length.
const SWEEP_LISTS: usize = 6;
const SWEEP_LIST_LEN: usize = 30;
/// Lists of a task, and their length.
const TASK_LISTS: usize = 40;
const TASK_LIST_LEN: usize = 120;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

/// The number of lists to try, and the seed of each.
fn lists(default: usize, salt: u64) -> (usize, impl Fn(usize) -> u64) {
    let count = variable("SILTSTONE_LISTS")
        .map_or(default, |it| usize::try_from(it).expect("a count of lists"));
    let seed = variable("SILTSTONE_SEED");
    (count, move |number| match (seed, number) {
        (Some(seed), 0) => seed,
        (seed, number) => mix(seed.unwrap_or(salt), number as u64),
    })
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
    let (count, seed) = lists(LISTS, 1);
    let results = for_each(count, |number, beat| {
        let list = List::random(seed(number), LIST_LEN);
        let tick = |io| beat.tick(&|| format!("seed {}, crash before I/O {io}", list.seed));
        check_list(&list, tick).map_err(|failure| {
            let fails = |fewer: &List| check_list(fewer, tick).err();
            let (shrunk, failure) = shrink(&list, failure, fails);
            report(&list, &shrunk, &failure)
        })
    });
    let mut counts = Counts::default();
    let mut totals = Totals::default();
    for (list_counts, list_totals) in &results {
        counts.add(*list_counts);
        totals.add(list_totals);
    }
    say(&format!("{totals:?}"));
    say(&format!(
        "crash images: {} ({} of them of crashed recoveries) of {} crashes in {count} lists",
        counts.images + counts.nested_images,
        counts.nested_images,
        counts.crashes
    ));
    if count >= LISTS {
        totals.assert_not_blind();
    }
}

#[test]
fn every_error_is_reported_and_loses_nothing() {
    let (count, seed) = lists(SWEEP_LISTS, 2);
    let results = for_each(count, |number, beat| {
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
    let mut all = Swept::default();
    for swept in &results {
        all.runs += swept.runs;
        all.counts.add(swept.counts);
        all.totals.add(&swept.totals);
    }
    say(&format!(
        "error sweep: {} runs of {count} lists, {} errors reported, {} crash images",
        all.runs,
        all.totals.errors,
        all.counts.images + all.counts.nested_images
    ));
    assert!(all.totals.errors > 0, "no fault was seen");
}

fn check_task_list(list: &TaskList, beat: impl Fn(u64)) -> Result<(Counts, TaskTotals), Failure> {
    let env = SimEnv::new(list.seed);
    env.record(true);
    let ran = guarded(|| task::run(list, &env)).map_err(|message| Failure {
        place: "during the run".to_owned(),
        message,
    })?;
    let (history, totals) = ran;
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
    let (count, seed) = lists(TASK_LISTS, 3);
    let results = for_each(count, |number, beat| {
        let list = TaskList::random(seed(number), TASK_LIST_LEN);
        let tick = |io| beat.tick(&|| format!("seed {}, crash before I/O {io}", list.seed));
        check_task_list(&list, tick).map_err(|failure| {
            let fails = |fewer: &TaskList| check_task_list(fewer, tick).err();
            let (shrunk, failure) = shrink(&list, failure, fails);
            report(&list, &shrunk, &failure)
        })
    });
    let mut counts = Counts::default();
    let mut totals = TaskTotals::default();
    for (list_counts, list_totals) in &results {
        counts.add(*list_counts);
        totals.add(list_totals);
    }
    say(&format!("{totals:?}"));
    say(&format!(
        "task crash images: {} ({} of them of crashed recoveries) of {} crashes in {count} lists",
        counts.images + counts.nested_images,
        counts.nested_images,
        counts.crashes
    ));
    if count >= TASK_LISTS {
        totals.assert_not_blind();
    }
}
