use std::path::PathBuf;

use crate::env::Env;
use crate::error::Result;
use crate::journal::{self, Lsn, Recovered, SegmentFile, SegmentHeader, Stage, Writer};
use crate::planted::{Bug, planted};

use super::stage::STAGE_KIND;
use super::state::{Live, State};
use super::{Config, Holders, KIND, STAGE_NAME, missing, segment_name, segment_number};

/// Takes a payload, in order, and notes the keyspaces that still need it.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &mut Holders) -> Result<()>;

/// What a replay found.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Segments before the first needed one, which a crash left behind.
    leftovers: Vec<SegmentFile>,
    segments: Vec<SegmentFile>,
    has_stage: bool,
    /// What is in the stage; nothing where its header is torn.
    stage: Option<Stage>,
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
    let (all, has_stage) = list(config)?;
    let (env, id) = (&*config.env, config.journal_id);
    let stage = if has_stage && !planted(Bug::WalStageIgnored) {
        Stage::read(env, &config.stage_path(), STAGE_KIND, KIND, id)?
    } else {
        None
    };
    let mut number_max = all.last().map_or(0, |file| file.number).max(first_needed);
    if let Some(stage) = &stage
        && !planted(Bug::WalStageNumberReused)
    {
        // A power loss may have taken the name of its segment. Another one of that number could
        // take its records for its own, for the removal of the stage may be lost as well.
        number_max = number_max.max(stage.segment());
    }
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
        env,
        KIND,
        id,
        &segments,
        stage.as_ref(),
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
        has_stage,
        stage,
        recovered,
        holders,
        number_max,
    })
}

/// The segment files in the directory, by number, and whether the stage is there.
fn list(config: &Config) -> Result<(Vec<SegmentFile>, bool)> {
    let names = config.env.list_dir(&config.dir)?;
    let numbers = names.iter().filter_map(|name| segment_number(name));
    let file = |number| SegmentFile {
        number,
        path: config.path(number),
    };
    let mut files: Vec<_> = numbers.map(file).collect();
    files.sort_by_key(|file| file.number);
    Ok((files, names.iter().any(|name| name == STAGE_NAME)))
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
    let number = replay
        .number_max
        .checked_add(1)
        .ok_or_else(|| missing(&config.dir, "no number is left for a segment"))?;
    let stage = replay.stage.as_ref();
    journal::cut(env, &config.dir, &replay.segments, stage, &replay.recovered)?;
    // A recovered segment is never appended to: its file may hold, beyond a cut that a power
    // loss undid, records with the positions of new ones.
    let header = SegmentHeader {
        kind: KIND,
        journal_id: config.journal_id,
        segment: number,
        base: end,
        durable: end,
        has_stage: true,
    };
    let writer = Writer::create(env, &config.path(number), header)?;
    writer.file().sync()?;
    if !planted(Bug::WalFirstNameSyncSkipped) {
        env.sync_dir(&config.dir)?;
    }
    if replay.has_stage {
        // The segments have all that counts of it, and are durable. One that stays behind tells
        // nothing new.
        let _ = env.remove_file(&config.stage_path());
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

/// True if there is any segment, or the stage.
pub(crate) fn has_files(config: &Config) -> Result<bool> {
    let (segments, has_stage) = list(config)?;
    Ok(has_stage || !segments.is_empty())
}

/// Removes every file of a log that the manifest no longer knows of, or does not know yet: to
/// be called before a log is begun where there was none, and after one was given up.
pub(crate) fn remove_all(config: &Config) -> Result<()> {
    let (segments, has_stage) = list(config)?;
    if has_stage {
        config.env.remove_file(&config.stage_path())?;
    }
    for file in segments {
        config.env.remove_file(&file.path)?;
    }
    config.env.sync_dir(&config.dir)
}
