//! What a store may hold after its process was killed, and whether it does.

use std::path::Path;

use crate::Result;
use crate::change::{KEYSPACES, Maker, OWN_KEYSPACES, STORES};
use crate::map::{Map, pair};
use crate::notes::{self, Noted};
use crate::plan::{RoundPlan, SessionPlan};
use crate::random::Random;
use crate::state::{self, Found, Stamp, State, Write};
use crate::task::Job;

/// Counts of what was checked.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    /// Changes that had begun and were not acknowledged: found whole, or absent.
    pub(crate) kept: u64,
    pub(crate) lost: u64,
    /// Entries compared.
    pub(crate) entries: u64,
}

/// Checks the map and brings `state` up to what it holds.
pub(crate) fn check_map(
    seed: u64,
    round: u32,
    dir: &Path,
    state: &mut State,
    counts: &mut Counts,
) -> Result<()> {
    let plan = RoundPlan::new(seed, u64::from(round));
    let mut random = Random::of(&[seed, u64::from(round), 30]);
    let session = SessionPlan::new(seed, u64::from(round), u64::MAX);
    let map = Map::open(dir, &session)?;
    let found = read_map(&map, &mut random)?;
    counts.entries += found.iter().map(|found| found.len() as u64).sum::<u64>();

    let mut shared = Vec::new();
    for worker in 0..plan.workers {
        let maker = Maker {
            seed,
            round,
            worker,
        };
        let notes = notes::read(&dir.join("notes"), worker)?;
        let mut pending = Vec::new();
        for (change, noted) in (0_u32..).zip(notes) {
            let (writes, _) = maker.batch(change, &plan);
            counts.acknowledged += u64::from(noted.acknowledged.is_some());
            if writes[0].keyspace >= OWN_KEYSPACES {
                shared.push((writes, noted));
            } else if noted.acknowledged.is_some() {
                state.apply(&writes);
            } else {
                pending = writes;
            }
        }
        check_own(seed, &found, state, &pending, |key| {
            key % plan.workers == worker
        })
        .map_err(|error| format!("worker {worker}: {error}"))?
        .count(counts);
    }
    check_shared(seed, &found, state, &shared)?;
    map.db.verify()?;
    if random.one_in(2) {
        map.db.close()?;
    }
    Ok(())
}

/// Everything that the map holds, read in two ways.
fn read_map(map: &Map, random: &mut Random) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for keyspace in &map.keyspaces {
        let entries = keyspace.entries()?;
        let found = if random.one_in(2) {
            state::collect(entries.map(pair), false)?
        } else {
            state::collect(entries.rev().map(pair), true)?
        };
        for number in 0..found.last_key_value().map_or(0, |(key, _)| key + 2) {
            if keyspace.get(state::key(number))?.as_ref() != found.get(&number) {
                let name = keyspace.name();
                return Err(format!("{name}, key {number}: get and scan differ").into());
            }
        }
        all.push(found);
    }
    Ok(all)
}

/// What became of a change that was not acknowledged.
enum Fate {
    /// There was none, or it changes nothing.
    None,
    Kept,
    Lost,
}

impl Fate {
    fn count(&self, counts: &mut Counts) {
        match self {
            Self::None => {}
            Self::Kept => counts.kept += 1,
            Self::Lost => counts.lost += 1,
        }
    }
}

/// The keys of one worker hold what was acknowledged, with or without the whole of what was not.
fn check_own(
    seed: u64,
    found: &[Found],
    state: &mut State,
    pending: &[Write],
    is_own: impl Fn(u32) -> bool,
) -> Result<Fate> {
    let difference = |state: &State| {
        let keyspaces = found.iter().zip(&state.keyspaces).zip(KEYSPACES);
        keyspaces
            .take(OWN_KEYSPACES)
            .find_map(|((found, own), name)| state::difference(seed, name, own, found, &is_own))
    };
    let Some(without) = difference(state) else {
        return Ok(if pending.is_empty() {
            Fate::None
        } else {
            Fate::Lost
        });
    };
    if pending.is_empty() {
        return Err(without.to_string().into());
    }
    state.apply(pending);
    match difference(state) {
        None => Ok(Fate::Kept),
        Some(with) => Err(format!(
            "without the batch of {} writes that was not acknowledged: {without}; with it: {with}",
            pending.len()
        )
        .into()),
    }
}

/// The shared keyspaces are alike, and each key holds a write that no later one has replaced.
fn check_shared(
    seed: u64,
    found: &[Found],
    state: &mut State,
    changes: &[(Vec<Write>, Noted)],
) -> Result<()> {
    let (left, right) = (OWN_KEYSPACES, OWN_KEYSPACES + 1);
    if found[left] != found[right] {
        return Err("left and right differ: a batch counts in part".into());
    }
    let mut keys: Vec<u32> = changes.iter().map(|(writes, _)| writes[0].key).collect();
    keys.extend(state.keyspaces[left].keys());
    keys.extend(found[left].keys());
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let before = Noted {
            begun: 0,
            acknowledged: Some(0),
        };
        let mut candidates = vec![(state.keyspaces[left].get(&key).copied(), before)];
        let of_key = changes.iter().filter(|(writes, _)| writes[0].key == key);
        candidates.extend(of_key.map(|(writes, noted)| (writes[0].stamp, *noted)));
        let newest = newest_begun(&candidates);
        let is_replaced = |noted: &Noted| noted.acknowledged.is_some_and(|end| end < newest);
        let value = found[left].get(&key);
        let matches = |stamp: &Option<Stamp>| match (stamp, value) {
            (Some(stamp), Some(value)) => *value == stamp.value(seed),
            (None, None) => true,
            _ => false,
        };
        let mut possible = candidates.iter().filter(|(_, noted)| !is_replaced(noted));
        let Some((stamp, _)) = possible.find(|(stamp, _)| matches(stamp)) else {
            let stamp = value.map(|value| Stamp::decode(value));
            return Err(format!("left, key {key}: {stamp:?} was replaced, or never was").into());
        };
        for keyspace in [left, right] {
            state.apply(&[Write {
                keyspace,
                key,
                stamp: *stamp,
            }]);
        }
    }
    Ok(())
}

/// When the last of all acknowledged writes of a key began: whatever ended before is replaced.
fn newest_begun(candidates: &[(Option<Stamp>, Noted)]) -> u64 {
    let acknowledged = candidates
        .iter()
        .filter(|(_, noted)| noted.acknowledged.is_some());
    let begun = acknowledged.map(|(_, noted)| noted.begun);
    begun.max().unwrap_or(0)
}

/// Checks the task and brings `state` up to what it holds: the state of a commit that is not older
/// than the last acknowledged one.
pub(crate) fn check_task(
    seed: u64,
    round: u32,
    dir: &Path,
    state: &mut State,
    counts: &mut Counts,
) -> Result<()> {
    let maker = Maker {
        seed,
        round,
        worker: 0,
    };
    let mut random = Random::of(&[seed, u64::from(round), 31]);
    let session = SessionPlan::new(seed, u64::from(round), u64::MAX);
    let job = Job::open(dir, &session)?;
    let mut fate = Fate::None;
    for (change, noted) in (0_u32..).zip(notes::read(&dir.join("notes"), 0)?) {
        if noted.acknowledged.is_none() {
            if job.difference(seed, state)?.is_none() {
                fate = Fate::Lost;
                break;
            }
            fate = Fate::Kept;
        }
        counts.acknowledged += u64::from(noted.acknowledged.is_some());
        state.apply(&maker.commit(change));
        state.commits += 1;
    }
    if let Some(difference) = job.difference(seed, state)? {
        let how = &job.task.restored();
        return Err(format!("{difference}; {how:?}").into());
    }
    fate.count(counts);
    let entries = state.keyspaces.iter().map(|entries| entries.len() as u64);
    counts.entries += entries.sum::<u64>();
    debug_assert_eq!(state.keyspaces.len(), STORES.len());
    if random.one_in(2) {
        job.task.close()?;
    }
    Ok(())
}
