//! What the parent does: one process is hurt, the other takes over, and the counts are compared.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use siltstone::ChangelogUrl;
use siltstone::store::serde::U64;
use siltstone::store::{How as RestoredHow, Task};

use crate::child::Child;
use crate::process::{STORE, TASKS, open, options};
use crate::{Args, How, Result, input};

/// The task whose owner is hurt.
const VICTIM: u32 = 0;

/// How long a takeover took, in milliseconds from the order on.
struct Times {
    /// Until the parent had heard of the first record.
    heard: f64,
    promoted: f64,
    first: f64,
    committed: f64,
}

pub(crate) fn run_all(args: &Args) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(dir)?;
    let changelog = match &args.changelog {
        Some(text) => text.clone(),
        None => text_of(&dir.join("changelog"))?,
    };
    let mut heard = Vec::new();
    let mut random = args.seed;
    for number in 0..args.rounds {
        for how in &args.how {
            let name = format!("{how:?}-{number}").to_lowercase();
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let times = run(
                args,
                &dir.join(&name),
                &changelog,
                &name,
                (*how, random >> 33),
            )?;
            heard.push(times.heard);
            writeln!(
                io::stdout(),
                "{name}: took over in {:.1} ms (a task after {:.1}, first record after {:.1}, \
                 first commit after {:.1}); every record counted once",
                times.heard,
                times.promoted,
                times.first,
                times.committed
            )?;
            if args.takeover_ms_max.is_some_and(|max| times.heard > max) {
                return Err(format!("{name}: it took longer than --takeover-ms-max").into());
            }
        }
    }
    heard.sort_by(f64::total_cmp);
    let (Some(median), Some(longest)) = (heard.get(heard.len() / 2), heard.last()) else {
        return Err("no rounds".into());
    };
    let count = heard.len();
    writeln!(
        io::stdout(),
        "takeovers: {count}, median {median:.1} ms, longest {longest:.1} ms"
    )?;
    Ok(())
}

fn run(
    args: &Args,
    dir: &Path,
    changelog: &str,
    name: &str,
    (how, random): (How, u64),
) -> Result<Times> {
    let url: ChangelogUrl = changelog.parse()?;
    let is_kafka = url.prefix().is_some();
    let (changelog, job) = if let Some(prefix) = url.prefix() {
        // Topics stay: nobody else may have had this one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        (changelog.to_owned(), format!("{prefix}-{now}-{name}"))
    } else {
        (format!("{changelog}-{name}"), "failover".to_owned())
    };
    let start = |name| Child::start(name, args, &changelog, dir, &job);
    let (mut victim, mut survivor) = (start("one")?, start("two")?);
    let (own, other) = (VICTIM, 1 - VICTIM);
    for (child, owned, followed) in [(&mut victim, own, other), (&mut survivor, other, own)] {
        child.order(&format!("own {owned}"))?;
        child.order(&format!("follow {followed}"))?;
    }
    survivor.wait(&format!("following {own}"))?;
    victim.wait(&format!("following {other}"))?;

    victim.wait_for_commit(own, random % 20)?;
    match how {
        How::Kill => victim.kill()?,
        How::Stop if is_kafka => victim.signal("STOP")?,
        // A commit to a file happens under a lock, which a process that was stopped just then would
        // keep: its task could not be taken over before it goes on.
        How::Stop => {
            victim.order(&format!("hold {own}"))?;
            victim.wait(&format!("held {own}"))?;
            victim.signal("STOP")?;
        }
    }
    let ordered = survivor.order(&format!("take {own}"))?;
    let (heard, took) = survivor.wait(&format!("took {own}"))?;
    let (_, committed) = survivor.wait(&format!("committed {own}"))?;
    if how == How::Stop {
        victim.signal("CONT")?;
        if !is_kafka {
            victim.order(&format!("go {own}"))?;
        }
        victim.wait(&format!("fenced {own}"))?;
        victim.end()?;
    }
    for task in [own, other] {
        survivor.wait(&format!("ended {task}"))?;
    }
    survivor.end()?;
    for task in 0..TASKS {
        let kept = dir.join("two").join(format!("task-{task}"));
        check(args, (&changelog, &job), task, &kept, RestoredHow::UpToDate)?;
        let fresh = dir.join("fresh").join(format!("task-{task}"));
        check(args, (&changelog, &job), task, &fresh, RestoredHow::Full)?;
    }
    let ms = |us: Option<&u64>| {
        let time = us.copied().map(Duration::from_micros).unwrap_or_default();
        time.as_secs_f64() * 1000.0
    };
    Ok(Times {
        heard: heard.duration_since(ordered).as_secs_f64() * 1000.0,
        promoted: ms(took.first()),
        first: ms(took.get(1)),
        committed: ms(committed.first()),
    })
}

/// Compares what a task's state has, here or made from the changelog, with an independent count.
fn check(
    args: &Args,
    (changelog, job): (&str, &str),
    number: u32,
    dir: &Path,
    how: RestoredHow,
) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let changelog = open(&changelog.parse()?)?;
    let task = Task::open(options(job, number, dir.to_path_buf(), &changelog))?;
    let restored = task.restored().store(STORE).map(|store| store.how);
    if restored != Some(how) {
        return Err(format!(
            "task {number} in {}: {restored:?}, not {how:?}",
            dir.display()
        )
        .into());
    }
    let position = task.input_position(input::NAME)?;
    if position != Some(args.records) {
        return Err(format!("task {number}: the input position is {position:?}").into());
    }
    let counts = task.key_value(STORE, U64, U64)?;
    let found: siltstone::Result<BTreeMap<u64, u64>> = counts.entries()?.collect();
    let (found, expected) = (found?, input::counts(number, args.records));
    let wrong = expected
        .iter()
        .find(|(key, count)| found.get(key) != Some(count));
    if let Some((key, count)) = wrong {
        let found = found.get(key);
        return Err(format!("task {number}: key {key} is {found:?}, not {count}").into());
    }
    if found.len() != expected.len() {
        return Err(format!("task {number}: keys that no record has").into());
    }
    task.close()?;
    Ok(())
}

fn text_of(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or("the directory's name is not UTF-8")?;
    Ok(text.to_owned())
}
