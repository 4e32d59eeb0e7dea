//! What the subcommands do.

use std::fmt;
use std::io::{self, Write};
use std::ops::Bound;
use std::path::Path;

use siltstone::env::OsEnv;
use siltstone::{
    Db, Durability, Entry, ErrorKind, IfMissing, Keyspace, KeyspaceOptions, Options, ReadMode,
    Runtime, RuntimeOptions, Wal, WriteBatch, inspect,
};

use super::args::{Args, Command, Scan, Target};
use super::{tasks, topics};

/// The keyspace of a store that `put --create` makes, unless another is named.
const KEYSPACE: &str = "default";

/// How a command ended that did not fail.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done,
    /// What was asked for is not there, or not what it should be.
    Absent(String),
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed cannot be meant.
    Usage(String),
    Store(siltstone::Error),
    Output(io::Error),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let kind = match self {
            Self::Output(error) => Some(error.kind()),
            Self::Store(error) => error.io_kind(),
            Self::Usage(_) => None,
        };
        kind == Some(io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) => f.write_str(message),
            Self::Store(error) => error.fmt(f),
            Self::Output(error) => write!(f, "write the output: {error}"),
        }
    }
}

impl From<siltstone::Error> for Failure {
    fn from(error: siltstone::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Does what the command line asks for.
pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<Outcome> {
    match &args.command {
        Command::Get { target, key } => return get(target, key, out),
        Command::Put {
            target,
            key,
            value,
            create,
        } => put(target, key, value, *create)?,
        Command::Delete { target, key } => delete(target, key)?,
        Command::Scan(scan) => print_range(scan, out)?,
        Command::Stats { store } => with_db(store, |db| Ok(write!(out, "{}", db.stats()?)?))?,
        Command::Verify { store } => verify(store, out)?,
        Command::Dump { file } => inspect::dump(&OsEnv::new(), file, out)?,
        Command::Restore {
            task,
            state,
            rebuild,
        } => tasks::restore(task, state, *rebuild, out)?,
        Command::Standby {
            task,
            state,
            rebuild,
            every_ms,
            polls,
        } => tasks::standby(task, state, *rebuild, (*every_ms, *polls), out)?,
        Command::Topic { command } => return topics::run(command, out),
        Command::Keyspaces { store } => with_db(store, |db| {
            for name in db.keyspace_names()? {
                writeln!(out, "{name}")?;
            }
            Ok(())
        })?,
    }
    Ok(Outcome::Done)
}

fn get(target: &Target, key: &str, out: &mut dyn Write) -> Result<Outcome> {
    let form = target.form();
    let bytes = form.parse(key, "key").map_err(Failure::Usage)?;
    with_db(&target.store, |db| {
        let keyspace = keyspace(db, target)?;
        let Some(value) = keyspace.get(&bytes)? else {
            let message = format!("no key {key} in keyspace {}", keyspace.name());
            return Ok(Outcome::Absent(message));
        };
        writeln!(out, "{}", form.print(&value))?;
        Ok(Outcome::Done)
    })
}

fn put(target: &Target, key: &str, value: &str, create: bool) -> Result<()> {
    let form = target.form();
    let key = form.parse(key, "key").map_err(Failure::Usage)?;
    let value = form.parse(value, "value").map_err(Failure::Usage)?;
    write(target, create, |keyspace, batch| {
        batch.put(keyspace, &key, &value)
    })
}

fn delete(target: &Target, key: &str) -> Result<()> {
    let key = target.form().parse(key, "key").map_err(Failure::Usage)?;
    write(target, false, |keyspace, batch| {
        batch.delete(keyspace, &key)
    })
}

/// Commits one batch, synced.
fn write(
    target: &Target,
    create: bool,
    fill: impl FnOnce(&Keyspace, &mut WriteBatch) -> siltstone::Result<()>,
) -> Result<()> {
    let wal = match inspect::wal_mode(&target.store, &Options::new()) {
        Err(error) if create && error.kind() == ErrorKind::NotFound => Wal::On,
        other => other?,
    };
    if wal == Wal::Off {
        return Err(Failure::Usage(format!(
            "{} keeps no write-ahead log: it is the state of a task, and a write from outside \
             would bypass the task's changelog and be lost",
            target.store.display()
        )));
    }
    let if_missing = if create {
        IfMissing::Create
    } else {
        IfMissing::Fail
    };
    with_db_as(&target.store, wal, if_missing, |db| {
        let keyspace = match (&target.keyspace, create) {
            (Some(name), true) => db.keyspace(name, KeyspaceOptions::new())?,
            (None, true) if db.keyspace_names()?.is_empty() => {
                db.keyspace(KEYSPACE, KeyspaceOptions::new())?
            }
            _ => keyspace(db, target)?,
        };
        let mut batch = WriteBatch::new();
        fill(&keyspace, &mut batch)?;
        Ok(db.write(batch, Durability::Synced)?)
    })
}

fn print_range(scan: &Scan, out: &mut dyn Write) -> Result<()> {
    let form = scan.target.form();
    let parse = |typed: &Option<String>, what| {
        let parsed = typed.as_deref().map(|typed| form.parse(typed, what));
        parsed.transpose().map_err(Failure::Usage)
    };
    let from = parse(&scan.from, "--from")?.map_or(Bound::Unbounded, Bound::Included);
    let to = parse(&scan.to, "--to")?.map_or(Bound::Unbounded, Bound::Excluded);
    let prefix = parse(&scan.prefix, "--prefix")?;
    with_db(&scan.target.store, |db| {
        let keyspace = keyspace(db, &scan.target)?;
        let range = match prefix {
            Some(prefix) => keyspace.prefix(prefix)?,
            None => keyspace.range::<Vec<u8>>((from, to))?,
        };
        let limit = scan.limit.unwrap_or(usize::MAX);
        let mut print = |entry: siltstone::Result<Entry>| -> Result<()> {
            let entry = entry?;
            write!(out, "{}", form.print(&entry.key))?;
            if !scan.keys_only {
                write!(out, "\t{}", form.print(&entry.value))?;
            }
            Ok(writeln!(out)?)
        };
        if scan.reverse {
            range.rev().take(limit).try_for_each(&mut print)
        } else {
            range.into_iter().take(limit).try_for_each(&mut print)
        }
    })
}

fn verify(store: &Path, out: &mut dyn Write) -> Result<()> {
    with_db(store, |db| {
        let entries = db.verify()?;
        let tables: usize = db.stats()?.levels.iter().map(|level| level.tables).sum();
        Ok(writeln!(
            out,
            "sound: {entries} entries in {tables} tables"
        )?)
    })
}

/// Runs `work` on the store in `path`, which must exist, opened as it is.
fn with_db<T>(path: &Path, work: impl FnOnce(&Db) -> Result<T>) -> Result<T> {
    let wal = inspect::wal_mode(path, &Options::new())?;
    with_db_as(path, wal, IfMissing::Fail, work)
}

fn with_db_as<T>(
    path: &Path,
    wal: Wal,
    if_missing: IfMissing,
    work: impl FnOnce(&Db) -> Result<T>,
) -> Result<T> {
    // Without threads nothing is compacted behind the back of somebody who only looks; and a
    // disk that fails is told as an error, not by the end of the process.
    let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
    let options = Options::new()
        .wal(wal)
        .if_missing(if_missing)
        .read_mode(ReadMode::Positional);
    let db = Db::open_with(path, options, &runtime)?;
    let result = work(&db);
    // What went wrong first counts; the store is closed either way.
    let closed = db.close();
    let value = result?;
    closed?;
    Ok(value)
}

/// The keyspace that was named, or the store's only one.
fn keyspace(db: &Db, target: &Target) -> Result<Keyspace> {
    let names = db.keyspace_names()?;
    let usage = |message: String| Failure::Usage(format!("{}: {message}", target.store.display()));
    let name = match (&target.keyspace, &names[..]) {
        (Some(name), _) if names.contains(name) => name,
        (None, [only]) => only,
        (_, []) => return Err(usage("the store has no keyspaces".to_owned())),
        (Some(name), _) => {
            let names = names.join(", ");
            return Err(usage(format!(
                "there is no keyspace {name}; there are {names}"
            )));
        }
        (None, _) => {
            let names = names.join(", ");
            return Err(usage(format!(
                "name one of the keyspaces with --keyspace: {names}"
            )));
        }
    };
    Ok(db.keyspace(name, KeyspaceOptions::new())?)
}
