//! The state of a task, followed from outside: `restore` and `standby`.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use siltstone::ChangelogUrl;
use siltstone::changelog::Partition;
use siltstone::store::{How, Lag, Polled, Progress, Standby, StoreOptions, TaskOptions};

use super::args::Stores;
use super::commands::{Failure, Result};

/// The store of the input positions, which every task has, in what a standby tells.
const INPUT_STORE: &str = "input-position";

/// One of the stores that the command line names.
pub(crate) struct Named {
    name: String,
    topic: Option<String>,
    is_timestamped: bool,
}

/// What [`Stores`] come to.
pub(crate) struct Place {
    pub(crate) url: ChangelogUrl,
    pub(crate) job: String,
    stores: Vec<Named>,
}

impl Place {
    pub(crate) fn of(stores: &Stores) -> Result<Self> {
        let url: ChangelogUrl = stores.changelog.parse()?;
        let job = stores.job.as_deref().or(url.prefix());
        let Some(job) = job.map(str::to_owned) else {
            return Err(Failure::Usage(format!(
                "{url}: a directory does not tell the name of the job, give it with --job"
            )));
        };
        let named = |text: &String, is_timestamped| {
            let (name, topic) = match text.split_once('=') {
                Some((name, topic)) => (name, Some(topic.to_owned())),
                None => (text.as_str(), None),
            };
            Named {
                name: name.to_owned(),
                topic,
                is_timestamped,
            }
        };
        let plain = stores.store.iter().map(|text| named(text, false));
        let timestamped = stores.timestamped.iter().map(|text| named(text, true));
        Ok(Self {
            url,
            job,
            stores: plain.chain(timestamped).collect(),
        })
    }

    /// The topics of the stores, and the one of the input positions.
    pub(crate) fn topics(&self) -> Vec<String> {
        let default = |name: &str| format!("{}-{name}-changelog", self.job);
        let own = |store: &Named| store.topic.clone().unwrap_or_else(|| default(&store.name));
        let own = self.stores.iter().map(own);
        own.chain([default(INPUT_STORE)]).collect()
    }

    fn open(&self, stores: &Stores, state: &Path, rebuild: bool) -> Result<Standby> {
        let changelog = self.url.open()?;
        let mut options =
            TaskOptions::new(&self.job, stores.partition, state, changelog).rebuild(rebuild);
        for store in &self.stores {
            let mut named = if store.is_timestamped {
                StoreOptions::timestamped(&store.name)
            } else {
                StoreOptions::new(&store.name)
            };
            if let Some(topic) = &store.topic {
                named = named.partition(Partition::new(topic, stores.partition));
            }
            options = options.store(named);
        }
        if io::stderr().is_terminal() {
            options = options.on_progress(tell);
        }
        Ok(Standby::open(options)?)
    }
}

pub(crate) fn restore(
    stores: &Stores,
    state: &Path,
    rebuild: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let mut standby = Place::of(stores)?.open(stores, state, rebuild)?;
    let polled = standby.poll()?;
    print(&polled, &standby.lag()?, out)?;
    Ok(standby.close()?)
}

/// Looks again and again; `pace` is how long it rests in between, and how often it looks if not for
/// ever.
pub(crate) fn standby(
    stores: &Stores,
    state: &Path,
    rebuild: bool,
    pace: (u64, Option<u64>),
    out: &mut dyn Write,
) -> Result<()> {
    let (every_ms, polls) = pace;
    let mut standby = Place::of(stores)?.open(stores, state, rebuild)?;
    let mut count = 0;
    loop {
        let polled = standby.poll()?;
        if polled.records > 0 || count == 0 {
            print(&polled, &standby.lag()?, out)?;
            out.flush()?;
        }
        count += 1;
        if polls.is_some_and(|polls| count >= polls) {
            return Ok(standby.close()?);
        }
        thread::park_timeout(Duration::from_millis(every_ms));
    }
}

fn print(polled: &Polled, lag: &[Lag], out: &mut dyn Write) -> Result<()> {
    for store in &polled.restored {
        let how = match store.how {
            How::Rebuilt(reason) => format!("rebuilt ({reason:?})"),
            How::Full => "restored from the start".to_owned(),
            _ => "restored from its position".to_owned(),
        };
        let (records, bytes) = (store.records, store.bytes);
        let seconds = store.duration.as_secs_f64();
        writeln!(
            out,
            "{}: {how}; {records} records, {bytes} bytes in {seconds:.2} s",
            store.name
        )?;
    }
    for lag in lag {
        match (lag.position, lag.end) {
            (Some(position), Some(end)) => {
                writeln!(out, "{}: at offset {position} of {end}", lag.store)?;
            }
            (_, Some(end)) => writeln!(out, "{}: nothing of {end} offsets", lag.store)?,
            (_, None) => writeln!(out, "{}: there is no such partition", lag.store)?,
        }
    }
    Ok(())
}

/// A line that changes, on a terminal.
fn tell(progress: &Progress<'_>) {
    let left = progress.time_left().unwrap_or_default().as_secs();
    // Nobody may be there to read it.
    let _ = write!(
        io::stderr(),
        "\r{}: {} records, {} a second, {left} s left\x1b[K\r",
        progress.store,
        progress.records,
        progress.records_per_second(),
    );
}
