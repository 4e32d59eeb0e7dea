//! Becoming the owner of a task.

use std::path::Path;

use crate::env::{Env, create_dir_all, read_file};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{self, Lsn, SEGMENT_LEN_MAX};

use super::super::{Partition, Session};
use super::index::{Compacted, Index, Slot};
use super::payload::Payload;
use super::session::{FileSession, Log};
use super::view::{TAIL_KIND, View, tail_files};
use super::{File, compaction, names};

const TOPIC_LEN_MAX: usize = 1024;

pub(super) fn claim(file: &File, task: &str, partitions: &[Partition]) -> Result<Box<dyn Session>> {
    let shared = &file.shared;
    let env = shared.env();
    let dir = shared.dir.join(names::task_dir(task)?);
    for partition in partitions {
        let len = partition.topic.len();
        if len == 0 || len > TOPIC_LEN_MAX {
            return Err(Error::invalid(format!(
                "topic of {len} bytes; it has to be 1 to {TOPIC_LEN_MAX}"
            )));
        }
    }
    // One at a time decides who has a new partition. Taken first wherever both are.
    let root_lock = names::lock(env, &shared.dir)?;
    for partition in partitions {
        if let Some(home) = file.home(partition)?.filter(|home| *home != dir) {
            let (index, _) = Index::read(env, &home)?;
            return Err(super::super::owned_by_another(partition, &index.task));
        }
    }
    create_dir_all(env, &dir)?;
    let lock = names::lock(env, &dir)?;
    let index = fence(env, &dir, task, partitions)?;
    drop(root_lock);
    let mut log = recover(file, &dir, index)?;
    let mut maintenance = None;
    if let Err(error) = log.compact_if_due(&shared.options) {
        maintenance = Some(error);
    }
    drop(lock);
    Ok(Box::new(FileSession::new(
        file,
        log,
        partitions,
        maintenance,
    )))
}

/// Makes a new owner number durable, together with the partitions that are new. From here on the
/// former owner cannot write.
fn fence(env: &dyn Env, dir: &Path, task: &str, partitions: &[Partition]) -> Result<Index> {
    let mut index = match Index::read(env, dir) {
        Ok((index, _)) => index,
        Err(error) if error.kind() == ErrorKind::NotFound => first_index(env, dir, task)?,
        Err(error) => return Err(error),
    };
    if index.task != task {
        return Err(Error::invalid(format!(
            "{} belongs to task {}, not to {task}",
            dir.display(),
            index.task
        )));
    }
    index.owner = index.owner.checked_add(1).ok_or_else(|| {
        Error::unsupported(format!("task {task} had four thousand million owners"))
    })?;
    for partition in partitions {
        if index.slot(partition).is_none() {
            let id = u128::from(env.random_u64()) << 64 | u128::from(env.random_u64());
            index.slots.push(Slot {
                partition: partition.clone(),
                topic_id: id.to_le_bytes(),
                next: 0,
                tombstones_dropped_below: 0,
            });
        }
    }
    index.replace(env, dir)?;
    Ok(index)
}

/// The index of a task that has none, unless there are files which show that it is lost.
fn first_index(env: &dyn Env, dir: &Path, task: &str) -> Result<Index> {
    let is_log = |name: &&String| {
        names::tail_number(name).is_some() || names::compacted_generation(name).is_some()
    };
    if let Some(name) = env.list_dir(dir)?.iter().find(is_log) {
        return Err(Error::corruption(format!(
            "{}: the index is missing, but {name} is there",
            dir.display()
        )));
    }
    // The directory may be there because an earlier attempt failed before its name was durable.
    env.sync_dir(super::parent(dir))?;
    Ok(Index {
        task: task.to_owned(),
        owner: 0,
        journal_id: env.random_u64(),
        tail_first: 1,
        tail_base: Lsn::ZERO,
        floor: Lsn::ZERO,
        compacted: Compacted::default(),
        slots: Vec::new(),
    })
}

/// Decides where the log ends, makes that its end on disk, and begins a segment behind it.
fn recover(file: &File, dir: &Path, index: Index) -> Result<Log> {
    let env = file.shared.env();
    compaction::remove_remains(env, dir, &index)?;
    let mut next: Vec<u64> = index.slots.iter().map(|slot| slot.next).collect();
    let segments = tail_files(env, dir, &index)?;
    let id = index.journal_id;
    let recovered = journal::recover(
        env,
        TAIL_KIND,
        id,
        &segments,
        None,
        index.floor,
        &mut |_, _, payload| {
            Payload::decode(payload, &index.slots)?.advance(&mut next);
            Ok(())
        },
    )
    .map_err(|error| error.context(format_args!("log of task {}", index.task)))?;
    if recovered.end > Lsn::ZERO {
        index.check_tail_base(recovered.start)?;
    }
    journal::cut(env, dir, &segments, None, &recovered)?;
    if recovered.end > index.floor
        && let Some(last) = segments[..recovered.spans.len()].last()
    {
        rewrite(env, &last.path)?;
    }
    let newest = segments
        .last()
        .map_or(index.tail_first - 1, |segment| segment.number);
    let mut log = Log::new(
        &file.shared.options.env,
        dir,
        index,
        newest,
        recovered.end,
        next,
    );
    log.begin_segment()?;
    // Had a floor below it, the segment could vanish without being missed.
    log.write_index()?;
    Ok(log)
}

/// Writes a segment's bytes again, over themselves, and syncs them.
///
/// A former owner may have met a failed sync: what it wrote can be read then, but the system takes
/// it for clean and no sync saves it. Only the newest segment can have such bytes, for none is
/// begun before all of the one before it is durable.
fn rewrite(env: &dyn Env, path: &Path) -> Result<()> {
    let bytes = read_file(env, path, SEGMENT_LEN_MAX)?;
    let file = env.open_write(path)?;
    file.write_all_at(0, &bytes)?;
    file.sync()
}

impl Log {
    /// Compacts if more was written since the last compaction than that left. Under the lock.
    pub(super) fn compact_if_due(&mut self, options: &super::FileOptions) -> Result<()> {
        let view = View::of(&*self.env, &self.dir, self.index.clone())?;
        if !compaction::is_due(options, &view)? {
            return Ok(());
        }
        self.index = compaction::run(options, &self.dir, view)?;
        self.refresh()
    }
}
