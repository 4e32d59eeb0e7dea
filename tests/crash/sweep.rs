//! Failing every I/O of a list in every way.

use siltstone::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv, SimImage};

use crate::check::{Checker, Counts, Failure, Seen, contents, guarded, inspect};
use crate::operation::List;
use crate::random::mix;
use crate::run::run;
use crate::task::{self, TaskList};

/// What the disk after a fault is crashed with.
const POLICIES: [CrashPolicy; 4] = [
    CrashPolicy::Kill,
    CrashPolicy::MaxLoss,
    CrashPolicy::PrefixTorn,
    CrashPolicy::Subset(50),
];
/// One of so many reads is failed.
const READS_EVERY: usize = 5;
/// From one of so many I/Os on, all fail until the store is opened again.
const LASTING_EVERY: u64 = 4;

/// What the runs of a sweep came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Swept {
    pub(crate) runs: u64,
    pub(crate) errors: u64,
    pub(crate) counts: Counts,
}

impl Swept {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.errors += other.errors;
        self.counts.add(other.counts);
    }
}

/// One run with whatever fault its disk has, or with none.
type OneRun<'a> = &'a dyn Fn(&SimEnv, bool) -> Result<Swept, Failure>;

/// Runs the list once for each I/O and kind of fault.
pub(crate) fn sweep(list: &List, beat: impl FnMut(&dyn Fn() -> String)) -> Result<Swept, Failure> {
    let one_run = |env: &SimEnv, is_faulty| {
        let ran = guarded(|| run(list, env, is_faulty)).map_err(during_the_run)?;
        let checker = Checker {
            inspect: &|env, salt| inspect(env, &list.setup, salt),
            contents: &|env| contents(env, &list.setup),
            history: &ran.history,
            is_faulty: true,
            nested_every: 40,
            seen: Seen::new(),
            counts: Counts::default(),
        };
        check_images(list.seed, checker, &ran.images, ran.totals.errors)
    };
    sweep_all(list.seed, &one_run, beat)
}

/// The same for a task.
pub(crate) fn sweep_task(
    list: &TaskList,
    beat: impl FnMut(&dyn Fn() -> String),
) -> Result<Swept, Failure> {
    let one_run = |env: &SimEnv, is_faulty| {
        let ran = guarded(|| task::run(list, env, is_faulty)).map_err(during_the_run)?;
        let checker = Checker {
            inspect: &|env, salt| task::inspect(env, list, salt),
            contents: &|env| task::contents(env, list),
            history: &ran.history,
            is_faulty: true,
            nested_every: 200,
            seen: Seen::new(),
            counts: Counts::default(),
        };
        check_images(list.seed, checker, &ran.images, ran.totals.errors)
    };
    sweep_all(list.seed, &one_run, beat)
}

fn during_the_run(message: String) -> Failure {
    Failure {
        place: "during the run".to_owned(),
        message,
    }
}

fn sweep_all(
    seed: u64,
    one_run: OneRun<'_>,
    mut beat: impl FnMut(&dyn Fn() -> String),
) -> Result<Swept, Failure> {
    let env = SimEnv::new(seed);
    one_run(&env, false)?;
    let mut swept = Swept::default();
    for io in 0..env.io_count() {
        for &kind in FaultKind::ALL {
            let mut plans = vec![FaultPlan::once(io, kind)];
            if io % LASTING_EVERY == 0 {
                plans.push(FaultPlan::starting(io, kind));
            }
            for plan in plans {
                beat(&|| format!("{plan:?}"));
                let env = SimEnv::new(seed);
                env.set_fault(plan);
                swept.add(one_run(&env, true).map_err(|it| at(&it, &format!("{plan:?}")))?);
            }
        }
    }
    for read in (0..env.read_count()).step_by(READS_EVERY) {
        beat(&|| format!("read {read}"));
        let env = SimEnv::new(seed);
        env.set_read_fault(read);
        swept.add(one_run(&env, true).map_err(|it| at(&it, &format!("read {read}")))?);
    }
    Ok(swept)
}

fn at(failure: &Failure, fault: &str) -> Failure {
    Failure {
        place: format!("fault {fault}, {}", failure.place),
        message: failure.message.clone(),
    }
}

fn check_images(
    seed: u64,
    mut checker: Checker<'_>,
    images: &[(u64, SimImage)],
    errors: u64,
) -> Result<Swept, Failure> {
    for (io, image) in images {
        for policy in POLICIES {
            checker.check(*io, image, policy, mix(seed, *io))?;
        }
    }
    Ok(Swept {
        runs: 1,
        errors,
        counts: checker.counts,
    })
}
