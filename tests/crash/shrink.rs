//! Making a list that fails short.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::check::Failure;

const TIME_MAX: Duration = Duration::from_secs(90);

/// A list of operations that stays valid when some are left out.
pub(crate) trait Case: Clone {
    fn seed(&self) -> u64;

    fn setup(&self) -> String;

    /// The operations, for people.
    fn lines(&self) -> Vec<String>;

    fn remove(&mut self, operations: Range<usize>);

    /// How many parts of an operation could be left out alone.
    fn parts(&self, operation: usize) -> usize;

    fn remove_part(&mut self, operation: usize, part: usize);
}

/// Leaves out operations, and then parts of them, while the list still fails.
pub(crate) fn shrink<C: Case>(
    case: &C,
    failure: Failure,
    fails: impl Fn(&C) -> Option<Failure>,
) -> (C, Failure) {
    let start = Instant::now();
    let mut best = (case.clone(), failure);
    let mut len = case.lines().len();
    let mut size = len.div_ceil(2);
    loop {
        let mut index = 0;
        let mut has_shrunk = false;
        while index < len && start.elapsed() < TIME_MAX {
            let mut fewer = best.0.clone();
            let end = (index + size).min(len);
            fewer.remove(index..end);
            match fails(&fewer) {
                Some(failure) => {
                    best = (fewer, failure);
                    len -= end - index;
                    has_shrunk = true;
                }
                None => index += size,
            }
        }
        if start.elapsed() >= TIME_MAX || (size == 1 && !has_shrunk) {
            break;
        }
        size = (size / 2).max(1);
    }
    for index in 0..len {
        let mut part = 0;
        while part < best.0.parts(index) && start.elapsed() < 2 * TIME_MAX {
            let mut fewer = best.0.clone();
            fewer.remove_part(index, part);
            match fails(&fewer) {
                Some(failure) => best = (fewer, failure),
                None => part += 1,
            }
        }
    }
    best
}

/// Everything that is needed to see a failure again.
pub(crate) fn report<C: Case>(case: &C, shrunk: &C, failure: &Failure) -> String {
    let lines = shrunk.lines();
    format!(
        "SILTSTONE_SEED={} SILTSTONE_LISTS=1 repeats this\n{}\n{} of {} operations are \
         enough:\n    {}\n{}\n{}",
        case.seed(),
        case.setup(),
        lines.len(),
        case.lines().len(),
        lines.join("\n    "),
        failure.place,
        failure.message
    )
}
