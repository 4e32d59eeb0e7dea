//! Failing every I/O of a list in every way.

use siltstone::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};

use crate::check::{Checker, Counts, Failure, Seen, contents, guarded, inspect};
use crate::operation::List;
use crate::random::mix;
use crate::run::{Run, Totals, run};

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

#[derive(Debug, Default, Clone)]
pub(crate) struct Swept {
    pub(crate) runs: u64,
    pub(crate) counts: Counts,
    pub(crate) totals: Totals,
}

/// Runs the list once for each I/O and kind of fault.
pub(crate) fn sweep(
    list: &List,
    mut beat: impl FnMut(&dyn Fn() -> String),
) -> Result<Swept, Failure> {
    let env = SimEnv::new(list.seed);
    guarded(|| run(list, &env, false)).map_err(|message| Failure {
        place: "without faults".to_owned(),
        message,
    })?;
    let mut swept = Swept::default();
    for io in 0..env.io_count() {
        for &kind in FaultKind::ALL {
            let mut plans = vec![FaultPlan::once(io, kind)];
            if io % LASTING_EVERY == 0 {
                plans.push(FaultPlan::starting(io, kind));
            }
            for plan in plans {
                beat(&|| format!("{plan:?}"));
                let env = SimEnv::new(list.seed);
                env.set_fault(plan);
                one_run(list, &env, &mut swept)
                    .map_err(|error| at(&error, &format!("{plan:?}")))?;
            }
        }
    }
    for read in (0..env.read_count()).step_by(READS_EVERY) {
        beat(&|| format!("read {read}"));
        let env = SimEnv::new(list.seed);
        env.set_read_fault(read);
        one_run(list, &env, &mut swept).map_err(|error| at(&error, &format!("read {read}")))?;
    }
    Ok(swept)
}

fn at(failure: &Failure, fault: &str) -> Failure {
    Failure {
        place: format!("fault {fault}, {}", failure.place),
        message: failure.message.clone(),
    }
}

fn one_run(list: &List, env: &SimEnv, swept: &mut Swept) -> Result<(), Failure> {
    swept.runs += 1;
    let Run {
        history,
        totals,
        images,
    } = guarded(|| run(list, env, true)).map_err(|message| Failure {
        place: "during the run".to_owned(),
        message,
    })?;
    swept.totals.add(&totals);
    let mut checker = Checker {
        inspect: &|env, salt| inspect(env, &list.setup, salt),
        contents: &|env| contents(env, &list.setup),
        history: &history,
        is_faulty: true,
        nested_every: 40,
        seen: Seen::new(),
        counts: Counts::default(),
    };
    for (io, image) in &images {
        for policy in POLICIES {
            checker.check(*io, image, policy, mix(list.seed, *io))?;
        }
    }
    swept.counts.add(checker.counts);
    Ok(())
}
