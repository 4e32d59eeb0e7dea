use std::path::PathBuf;

use crate::env::Env;
use crate::error::Result;
use crate::journal::{self, Lsn, Recovered, SegmentFile, SegmentHeader, Writer};
use crate::planted::{Bug, planted};

use super::state::{Live, State};
use super::{Config, Holders, KIND, missing, segment_name, segment_number};

/// Takes a payload, in order, and notes the keyspaces that still need it.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &mut Holders) -> Result<()>;

/// What a replay found.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Segments before the first needed one, which a crash left behind.
    leftovers: Vec<SegmentFile>,
    segments: Vec<SegmentFile>,
    recovered: Recovered,
    /// For each segment.
    holders: Vec<Holders>,
    number_max: u64,
}

impl Replay {
    /// The position behind the last record that counts.
    pub(crate) fn end(&self) -> Lsn {
        self.recovered.end
    }
}

/// Replays the log and changes nothing on disk. See [`Wal::open`](super::Wal::open).
pub(crate) fn replay(
    config: &Config,
    first_needed: u64,
    floor: Lsn,
    visit: Visit<'_>,
) -> Result<Replay> {
    let all = list(config)?;
    let number_max = all.last().map_or(0, |file| file.number).max(first_needed);
    let (leftovers, segments): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|file| file.number < first_needed);
    let first = segments.first().map_or(0, |file| file.number);
    if first_needed > 0 && first != first_needed {
        return Err(missing(
            &config.dir,
            &format!("{} is missing", segment_name(first_needed)),
        ));
    }
    let mut holders = vec![Holders::default(); segments.len()];
    let recovered = journal::recover(
        &*config.env,
        KIND,
        config.journal_id,
        &segments,
        floor,
        &mut |index, _, payload| visit(payload, &mut holders[index]),
    )?;
    if first_needed > 0 && !matches!(recovered.spans.first(), Some(Some(_))) {
        return Err(missing(
            &config.dir,
            &format!("{} has a bad header", segment_name(first_needed)),
        ));
    }
    if first_needed == 0 && recovered.start > Lsn::ZERO {
        return Err(missing(
            &config.dir,
            &format!(
                "segments before number {first}, position {}, are missing",
                recovered.start
            ),
        ));
    }
    Ok(Replay {
        leftovers,
        segments,
        recovered,
        holders,
        number_max,
    })
}

/// The segment files in the directory, by number.
fn list(config: &Config) -> Result<Vec<SegmentFile>> {
    let names = config.env.list_dir(&config.dir)?;
    let numbers = names.iter().filter_map(|name| segment_number(name));
    let file = |number| SegmentFile {
        number,
        path: config.path(number),
    };
    let mut files: Vec<_> = numbers.map(file).collect();
    files.sort_by_key(|file| file.number);
    Ok(files)
}

pub(super) fn open(
    config: &Config,
    first_needed: u64,
    floor: Lsn,
    visit: Visit<'_>,
) -> Result<(State, Vec<PathBuf>)> {
    let mut replay = replay(config, first_needed, floor, visit)?;
    let env = &*config.env;
    let end = replay.end();
    journal::cut(env, &config.dir, &replay.segments, &replay.recovered)?;
    // A recovered segment is never appended to: its file may hold, beyond a cut that a power
    // loss undid, records with the positions of new ones.
    let number = replay.number_max + 1;
    let header = SegmentHeader {
        kind: KIND,
        journal_id: config.journal_id,
        segment: number,
        base: end,
        durable: end,
    };
    let writer = Writer::create(env, &config.path(number), header)?;
    writer.file().sync()?;
    if !planted(Bug::WalFirstNameSyncSkipped) {
        env.sync_dir(&config.dir)?;
    }
    let leftovers = std::mem::take(&mut replay.leftovers).into_iter();
    Ok((
        State::new(keep_needed(env, first_needed, replay), number, writer),
        leftovers.map(|file| file.path).collect(),
    ))
}

/// Turns the recovered segments into live ones and removes the files that hold nothing. Only
/// once the new segment is durable: its base does all that theirs did.
fn keep_needed(env: &dyn Env, first_needed: u64, replay: Replay) -> Vec<Live> {
    let mut live = Vec::new();
    let found = replay
        .segments
        .into_iter()
        .zip(replay.recovered.spans)
        .zip(replay.holders);
    for ((file, span), holders) in found {
        let span = span.filter(|span| span.base < span.end || file.number == first_needed);
        let Some(span) = span else {
            let _ = env.remove_file(&file.path);
            continue;
        };
        live.push(Live {
            number: file.number,
            path: file.path,
            base: span.base,
            end: span.end,
            holders,
            unsynced: None,
            header_durable: true,
            offered: false,
        });
    }
    live
}

/// True if there is any segment.
pub(crate) fn has_segments(config: &Config) -> Result<bool> {
    Ok(!list(config)?.is_empty())
}

/// Removes every segment of a log that the manifest no longer knows of, or does not know yet: to
/// be called before a log is begun where there was none, and after one was given up.
pub(crate) fn remove_all(config: &Config) -> Result<()> {
    for file in list(config)? {
        config.env.remove_file(&file.path)?;
    }
    config.env.sync_dir(&config.dir)
}
