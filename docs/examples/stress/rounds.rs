//! The parent: starts children, kills them, and goes on with what they leave.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::change::{KEYSPACES, STORES};
use crate::check::{self, Counts};
use crate::plan::{RoundPlan, SessionPlan};
use crate::random::Random;
use crate::state::State;
use crate::{Child, Result, notes};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    /// By itself, successfully.
    Done,
}

pub(crate) fn run(seed: u64, kills: u32, dir: &Path, spoil: bool) -> Result<()> {
    if dir.exists() && fs::read_dir(dir)?.next().is_some() {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    let mut rounds = Rounds {
        seed,
        dir,
        spoil,
        map: State::new(KEYSPACES.len()),
        task: State::new(STORES.len()),
        has_older: false,
        counts: Counts::default(),
        kills: 0,
        began: Instant::now(),
        told: Instant::now(),
    };
    rounds.start_afresh()?;
    for round in 0.. {
        if rounds.kills >= kills {
            break;
        }
        rounds.round(round).map_err(|error| {
            let (map, session) = (
                RoundPlan::new(seed, u64::from(round)),
                SessionPlan::new(seed, u64::from(round), u64::MAX),
            );
            format!(
                "seed {seed}, round {round}, after {} kills: {error}\n{map:?}\nchecked with \
                 {session:?}\nleft in {}; before/ is what the kill left",
                rounds.kills,
                dir.display()
            )
        })?;
        rounds.tell(kills);
    }
    fs::remove_dir_all(dir)?;
    let _ = writeln!(io::stderr());
    writeln!(io::stdout(), "{}", rounds.line())?;
    writeln!(io::stdout(), "kills: {}", rounds.kills)?;
    Ok(())
}

struct Rounds<'a> {
    seed: u64,
    dir: &'a Path,
    spoil: bool,
    /// What the map holds.
    map: State,
    /// What the task holds.
    task: State,
    /// Whether there is a copy of the task's state that is older than its changelog.
    has_older: bool,
    counts: Counts,
    kills: u32,
    began: Instant,
    told: Instant,
}

impl Rounds<'_> {
    fn start_afresh(&mut self) -> Result<()> {
        notes::clear(self.dir)?;
        self.map = State::new(KEYSPACES.len());
        self.task = State::new(STORES.len());
        self.has_older = false;
        Ok(())
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let mut random = Random::of(&[self.seed, u64::from(round), 40]);
        if random.one_in(25) {
            self.start_afresh()?;
        }
        let (child, opener, state) = if random.below(5) < 3 {
            (Child::Map, Child::OpenMap, &self.map)
        } else {
            (Child::Task, Child::OpenTask, &self.task)
        };
        state.save(&self.dir.join("expected"))?;
        notes::clear(&self.dir.join("notes"))?;
        let ms = if random.one_in(2) { 300 } else { 100 };
        let after_ms = 2 + random.below(ms - 1);
        if self.start_and_kill(child, round, after_ms)? == End::Done {
            return Err("the child ended before it was killed".into());
        }
        // Recovery is killed as well.
        while random.one_in(4) {
            let after_ms = 1 + random.below(40);
            self.start_and_kill(opener, round, after_ms)?;
        }
        if child == Child::Map {
            if self.spoil {
                spoil(&self.dir.join("map"))?;
            }
            self.keep_copy("map")?;
            check::check_map(self.seed, round, self.dir, &mut self.map, &mut self.counts)
        } else {
            self.replace_task_state(&mut random)?;
            self.keep_copy("task")?;
            self.keep_copy("changelog")?;
            check::check_task(self.seed, round, self.dir, &mut self.task, &mut self.counts)
        }
    }

    /// Now and then takes the task's state away, or puts an older one in its place, or keeps it to
    /// do so later. The changelog has to make up for it.
    fn replace_task_state(&mut self, random: &mut Random) -> Result<()> {
        let (state, older) = (self.dir.join("task"), self.dir.join("task-older"));
        match random.below(20) {
            0..3 if state.exists() => fs::remove_dir_all(&state)?,
            3..6 if self.has_older => copy(&older, &state)?,
            6..8 if state.exists() => {
                copy(&state, &older)?;
                self.has_older = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Keeps what the kill left, for the case that it is wrong: opening it changes it.
    fn keep_copy(&self, name: &str) -> Result<()> {
        let from = self.dir.join(name);
        if from.exists() {
            copy(&from, &self.dir.join("before").join(name))?;
        }
        Ok(())
    }

    /// Starts a child, kills it after so many milliseconds, and waits for its end.
    fn start_and_kill(&mut self, child: Child, round: u32, after_ms: u32) -> Result<End> {
        let what = match child {
            Child::Map => "map",
            Child::Task => "task",
            Child::OpenMap => "open-map",
            Child::OpenTask => "open-task",
        };
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--child", what, "--dir"])
            .arg(self.dir)
            .args(["--seed", &self.seed.to_string()])
            .args(["--round", &round.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stderr = process.stderr.take().ok_or("the child has no stderr")?;
        let (ended, end) = mpsc::channel();
        // Its stderr ends with the child.
        let listener = thread::spawn(move || {
            let mut said = String::new();
            let read = stderr.read_to_string(&mut said);
            drop(ended);
            read.map(|_| said)
        });
        let waited = end.recv_timeout(Duration::from_millis(u64::from(after_ms)));
        if waited != Err::<(), _>(RecvTimeoutError::Disconnected) {
            process.kill()?;
        }
        let status = process.wait()?;
        let said = listener.join().map_err(|_| "the listener panicked")??;
        if status.success() {
            return Ok(End::Done);
        }
        if status.code().is_some() || !said.is_empty() {
            return Err(format!("the child ({what}) ended with {status}: {said}").into());
        }
        self.kills += 1;
        Ok(End::Killed)
    }

    fn line(&self) -> String {
        let counts = &self.counts;
        format!(
            "{} changes acknowledged; of those not acknowledged {} kept, {} absent; {} entries \
             compared; {:.1} s",
            counts.acknowledged,
            counts.kept,
            counts.lost,
            counts.entries,
            self.began.elapsed().as_secs_f64()
        )
    }

    /// Tells how far it has come: on a terminal in one line that changes.
    fn tell(&mut self, kills: u32) {
        let is_terminal = io::stderr().is_terminal();
        let interval = if is_terminal { 100 } else { 10_000 };
        if self.told.elapsed() < Duration::from_millis(interval) {
            return;
        }
        self.told = Instant::now();
        let line = format!("kills: {} of {kills}; {}", self.kills, self.line());
        let _ = if is_terminal {
            write!(io::stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }
}

/// Makes `to` a copy of the directory `from`.
fn copy(from: &Path, to: &Path) -> Result<()> {
    notes::clear(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Cuts some bytes off the newest segment of the write-ahead log that has any records.
fn spoil(dir: &Path) -> Result<()> {
    const HEADER_LEN: u64 = 48;
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == "wal");
        if is_segment && fs::metadata(&path)?.len() > HEADER_LEN {
            segments.push(path);
        }
    }
    if let Some(newest) = segments.iter().max() {
        let file = fs::OpenOptions::new().write(true).open(newest)?;
        let len = file.metadata()?.len();
        file.set_len(len.saturating_sub(64).max(HEADER_LEN))?;
    }
    Ok(())
}
