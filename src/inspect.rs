//! Looking into files of stores and changelogs, for tools and for people.

use std::io;
use std::path::Path;

use crate::batch;
use crate::changelog::file_inspect as changelog;
use crate::env::{Env, read_file};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{
    Kind, Lsn, Record, SEGMENT_HEADER_LEN, SEGMENT_MAGIC, Segment, SegmentFile, SegmentHeader,
    Stage, peek_header, read_segment, recover,
};
use crate::key::ValueKind;
use crate::listing::{Excerpt, Listing};
use crate::options::{Options, Wal};
use crate::sstable;
use crate::version::{
    CURRENT_MAGIC, Change, Current, LOCK_NAME, MANIFEST_KIND, Presence, VersionEdit, detect,
    manifest_name,
};
use crate::wal;

/// Bytes from a file's start by which it is recognised.
const START_LEN: usize = 8;
/// No file that is read as a whole, other than a journal's segment, is longer.
const SMALL_FILE_LEN_MAX: u64 = 64 << 20;

/// Tells whether the store in `dir` keeps a write-ahead log, so that it can be opened as it is:
/// an open with the other [`Wal`] would change it. Of `options`, only the environment counts.
///
/// # Errors
///
/// `NotFound` if there is no store; `Locked` if it is open; `Corruption`, `Unsupported`, `Io`.
pub fn wal_mode(dir: impl AsRef<Path>, options: &Options) -> Result<Wal> {
    let (dir, env) = (dir.as_ref(), &options.env);
    if detect(&**env, dir)? != Presence::Present {
        let detail = format!("there is no store in {}", dir.display());
        return Err(Error::new(ErrorKind::NotFound, detail));
    }
    // Whoever has the store open may be replacing the manifest.
    let _lock = env.lock(&dir.join(LOCK_NAME))?;
    let current = Current::read(&**env, dir)?;
    let path = dir.join(manifest_name(current.manifest));
    let segment = SegmentFile {
        number: current.manifest,
        path,
    };
    let mut mode = Wal::default();
    let (id, end) = (current.manifest_id, current.manifest_end);
    recover(
        &**env,
        MANIFEST_KIND,
        id,
        &[segment],
        None,
        end,
        &mut |_, _, payload| {
            for change in VersionEdit::decode(payload)?.changes {
                if let Change::WalMode(changed) = change {
                    mode = changed;
                }
            }
            Ok(())
        },
    )?;
    Ok(mode)
}

/// Prints what a file of a store or of a changelog holds, in lines for people: a table, a segment
/// of a write-ahead log or its stage, a manifest, CURRENT, a changelog's segment, INDEX or
/// CHANGELOG.
///
/// What the file is, its content tells. Journals (logs and manifests) are printed up to their last
/// valid record, with where that is, up to where the journal is known to have been durable, and
/// what is wrong with the bytes behind it. The lines are no stable format. Changes nothing and
/// takes no lock: a file that is being written may seem to end early.
///
/// ```
/// use siltstone::env::OsEnv;
/// use siltstone::{Db, Options, inspect};
///
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// Db::open(dir.path().join("store"), Options::new())?.close()?;
/// let mut text = Vec::new();
/// inspect::dump(&OsEnv::new(), dir.path().join("store/CURRENT"), &mut text)?;
/// assert!(text.starts_with(b"CURRENT of store "));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `Corruption` if the file is damaged, after everything that is sound before the damage was
/// printed; a torn tail that was never durable is no error. `InvalidArgument` if the file is none
/// of these; `Unsupported` if it is of a newer format; `NotFound`; `Io`, with the error of `out` as
/// its source if that is what failed.
pub fn dump(env: &dyn Env, path: impl AsRef<Path>, out: &mut dyn io::Write) -> Result<()> {
    let path = path.as_ref();
    if env.metadata(path)?.is_dir {
        let detail = format!("{} is a directory: name a file of it", path.display());
        return Err(Error::invalid(detail));
    }
    let mut out = Listing::new(out);
    let in_file = |error: Error| error.context(path.display());
    match recognise(env, path)? {
        Recognised::Segment => list_segment(env, path, &mut out),
        Recognised::Table => sstable::list(env, path, &mut out),
        Recognised::Current => {
            let bytes = read_file(env, path, SMALL_FILE_LEN_MAX)?;
            list_current(&Current::decode(&bytes).map_err(in_file)?, &mut out)
        }
        Recognised::Index => {
            let bytes = read_file(env, path, SMALL_FILE_LEN_MAX)?;
            changelog::list_index(&bytes, &mut out).map_err(in_file)
        }
        Recognised::Root => {
            let bytes = read_file(env, path, SMALL_FILE_LEN_MAX)?;
            changelog::list_root(&bytes, &mut out).map_err(in_file)
        }
        Recognised::Nothing(start) => Err(Error::invalid(format!(
            "{} is no file of a store or a changelog, or its ends are damaged: it begins with \
             \"{}\"",
            path.display(),
            start.escape_ascii()
        ))),
    }
}

/// What a file seems to be.
enum Recognised {
    Segment,
    Table,
    Current,
    Index,
    Root,
    /// None of these; how it begins.
    Nothing(Vec<u8>),
}

fn recognise(env: &dyn Env, path: &Path) -> Result<Recognised> {
    let file = env.open(path)?;
    let len = file.len()?;
    let start_len = usize::try_from(len).unwrap_or(usize::MAX).min(START_LEN);
    let mut start = vec![0; start_len];
    file.read_exact_at(0, &mut start)?;
    if start == CURRENT_MAGIC {
        return Ok(Recognised::Current);
    }
    if changelog::is_index(&start) {
        return Ok(Recognised::Index);
    }
    if changelog::is_root(&start) {
        return Ok(Recognised::Root);
    }
    // Only then by the end: a log's last record may hold anything.
    if peek_header(env, path)?.is_some() {
        return Ok(Recognised::Segment);
    }
    let mut end = [0; sstable::TABLE_END_LEN];
    if let Some(pos) = len.checked_sub(end.len() as u64) {
        file.read_exact_at(pos, &mut end)?;
        if sstable::is_table(&end) {
            return Ok(Recognised::Table);
        }
    }
    // One with a damaged header.
    if start.starts_with(&SEGMENT_MAGIC) {
        return Ok(Recognised::Segment);
    }
    Ok(Recognised::Nothing(start))
}

fn list_current(current: &Current, out: &mut Listing<'_>) -> Result<()> {
    out.line(format_args!("CURRENT of store {:016x}", current.db_id))?;
    out.line(format_args!(
        "manifest {}: journal {:016x}, durable up to {}",
        current.manifest, current.manifest_id, current.manifest_end
    ))?;
    out.line(format_args!(
        "write-ahead log: journal {:016x}, durable up to {}",
        current.wal_id, current.wal_end
    ))?;
    let closed = if current.clean {
        "closed in order"
    } else {
        "open, or not closed in order"
    };
    out.line(format_args!("{closed} when this was written"))
}

/// What other files tell of a segment.
struct Neighbours {
    /// Where the journal goes on in another segment: records at or behind it do not count.
    limit: Lsn,
    /// Up to where the journal was durable.
    durable: Lsn,
}

impl Neighbours {
    /// Reads what there is. What cannot be read tells nothing: the listing is of one file.
    fn look(env: &dyn Env, path: &Path, own: &SegmentHeader) -> Self {
        let mut neighbours = Self {
            limit: Lsn(u64::MAX),
            durable: Lsn::ZERO,
        };
        let Some(dir) = path.parent() else {
            return neighbours;
        };
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        let beside = if changelog::is_segment(own.kind) {
            changelog::durable_beside(env, dir, own.journal_id)
        } else {
            Current::read(env, dir)
                .ok()
                .and_then(|current| match own.kind {
                    MANIFEST_KIND if own.journal_id == current.manifest_id => {
                        Some(current.manifest_end)
                    }
                    wal::KIND if own.journal_id == current.wal_id => Some(current.wal_end),
                    _ => None,
                })
        };
        neighbours.durable = beside.unwrap_or_default();
        for name in env.list_dir(dir).unwrap_or_default() {
            let Ok(Some(header)) = peek_header(env, &dir.join(name)) else {
                continue;
            };
            let same = header.kind == own.kind && header.journal_id == own.journal_id;
            if same && header.segment > own.segment {
                neighbours.limit = neighbours.limit.min(header.base);
                neighbours.durable = neighbours.durable.max(header.durable);
            }
        }
        neighbours
    }
}

fn list_segment(env: &dyn Env, path: &Path, out: &mut Listing<'_>) -> Result<()> {
    let Some(header) = peek_header(env, path)? else {
        return Err(Error::corruption(format!(
            "{}: the segment header (the first {SEGMENT_HEADER_LEN} bytes) is damaged or cut off",
            path.display()
        )));
    };
    if header.kind == wal::STAGE_KIND {
        return list_stage(env, path, &header, out);
    }
    out.line(format_args!(
        "{}, journal {:016x}, segment {}: begins at position {}, was durable up to {} then",
        kind_name(header.kind),
        header.journal_id,
        header.segment,
        header.base,
        header.durable
    ))?;
    let segment = read_segment(env, path, header.kind, header.journal_id, header.segment)?;
    let neighbours = Neighbours::look(env, path, &header);
    let mut lister = PayloadLister::new(header.kind);
    for record in segment.records(neighbours.limit) {
        list_record(path, &header, &record, &mut lister, out)?;
    }
    let end = segment.end(neighbours.limit);
    if let Some(stage) = stage_beside(env, path, &header) {
        let staged = stage.end(end, neighbours.limit);
        if staged > end {
            let name = wal::STAGE_NAME;
            out.line(format_args!("goes on in {name}, up to position {staged}"))?;
        }
    }
    list_end(&segment, &header, &neighbours, out)
}

fn list_record(
    path: &Path,
    header: &SegmentHeader,
    record: &Record<'_>,
    lister: &mut PayloadLister,
    out: &mut Listing<'_>,
) -> Result<()> {
    let (byte, start, end) = (byte_of(header, record.start), record.start, record.end);
    out.line(format_args!(
        "record at byte {byte}: positions {start} to {end}, durable up to {} then, payload of {} \
         bytes",
        record.durable,
        record.payload.len()
    ))?;
    lister
        .list(record.payload, out)
        .map_err(|error| error.context(format_args!("{} at {byte}", path.display())))
}

/// The stage of the log that a segment is of, if it is there, good, and goes on with this one.
fn stage_beside(env: &dyn Env, path: &Path, own: &SegmentHeader) -> Option<Stage> {
    if own.kind != wal::KIND {
        return None;
    }
    let path = path.with_file_name(wal::STAGE_NAME);
    let read = Stage::read(env, &path, wal::STAGE_KIND, wal::KIND, own.journal_id);
    let stage = read.ok().flatten()?;
    (stage.segment() == own.segment).then_some(stage)
}

/// Prints what the stage of a write-ahead log has beyond the segment that it goes on with.
fn list_stage(
    env: &dyn Env,
    path: &Path,
    header: &SegmentHeader,
    out: &mut Listing<'_>,
) -> Result<()> {
    out.line(format_args!(
        "stage of a write-ahead log, journal {:016x}, segment {}: a window that begins at position \
         {}, the log was durable up to {} then",
        header.journal_id, header.segment, header.base, header.durable
    ))?;
    let Some(stage) = Stage::read(env, path, wal::STAGE_KIND, wal::KIND, header.journal_id)? else {
        return Ok(());
    };
    let name = wal::segment_name(header.segment);
    let beside = path.with_file_name(&name);
    let (kind, id) = (wal::KIND, header.journal_id);
    let (from, limit) = match read_segment(env, &beside, kind, id, header.segment) {
        Ok(segment) => {
            let limit = segment.header().map_or(Lsn(u64::MAX), |own| {
                Neighbours::look(env, &beside, own).limit
            });
            let end = segment.end(limit);
            out.line(format_args!("{name} has the records up to position {end}"))?;
            (end, limit)
        }
        Err(error) => {
            let from = header.base;
            out.line(format_args!("cannot tell where its records end: {error}"))?;
            (from, Lsn(u64::MAX))
        }
    };
    let mut lister = PayloadLister::new(wal::KIND);
    for record in stage.records(from, limit) {
        list_record(path, header, &record, &mut lister, out)?;
    }
    let end = stage.end(from, limit);
    out.line(format_args!("valid end: position {end}"))
}

/// Prints where the segment ends, and fails if it was durable beyond that.
fn list_end(
    segment: &Segment,
    header: &SegmentHeader,
    neighbours: &Neighbours,
    out: &mut Listing<'_>,
) -> Result<()> {
    let end = segment.end(neighbours.limit);
    let told = segment
        .told_durable(header.base)
        .max(neighbours.durable)
        .min(neighbours.limit);
    let end_byte = byte_of(header, end);
    out.line(format_args!(
        "valid end: byte {end_byte} of {} (position {end})",
        segment.len()
    ))?;
    // Where the base was not durable, no record is known to be.
    let durable_byte = byte_of(header, told.max(header.base));
    out.line(format_args!(
        "durable end: byte {durable_byte} (position {told})"
    ))?;
    let why = if end == neighbours.limit {
        (segment.len() > end_byte).then(|| "the next segment takes over here".to_owned())
    } else {
        segment.ending()
    };
    if let Some(why) = &why {
        let len = segment.len() - end_byte;
        out.line(format_args!(
            "{len} bytes behind the valid end do not count: {why}"
        ))?;
    }
    if told <= end {
        return Ok(());
    }
    Err(Error::corruption(format!(
        "{}: damaged at byte {end_byte}: the valid records end at position {end}, but the journal \
         was durable up to {told}: {}",
        segment.path().display(),
        why.as_deref().unwrap_or("the file was cut there")
    )))
}

fn byte_of(header: &SegmentHeader, position: Lsn) -> u64 {
    SEGMENT_HEADER_LEN as u64 + (position.0 - header.base.0)
}

fn kind_name(kind: Kind) -> String {
    match kind {
        MANIFEST_KIND => "manifest".to_owned(),
        wal::KIND => "write-ahead log".to_owned(),
        kind if changelog::is_segment(kind) => {
            format!("changelog ({})", kind.escape_ascii())
        }
        kind => format!("journal of the unknown kind \"{}\"", kind.escape_ascii()),
    }
}

/// Prints the payloads of a journal.
enum PayloadLister {
    Edits,
    Batches,
    Changelog(changelog::PayloadLister),
    Unknown,
}

impl PayloadLister {
    fn new(kind: Kind) -> Self {
        match kind {
            MANIFEST_KIND => Self::Edits,
            wal::KIND => Self::Batches,
            kind if changelog::is_segment(kind) => {
                Self::Changelog(changelog::PayloadLister::default())
            }
            _ => Self::Unknown,
        }
    }

    fn list(&mut self, payload: &[u8], out: &mut Listing<'_>) -> Result<()> {
        match self {
            Self::Edits => {
                let edit = VersionEdit::decode(payload)?;
                edit.changes
                    .iter()
                    .try_for_each(|change| out.line(format_args!("  {change:?}")))
            }
            Self::Batches => list_batch(payload, out),
            Self::Changelog(lister) => lister.list(payload, out),
            Self::Unknown => out.line(format_args!("  {}", Excerpt(payload))),
        }
    }
}

fn list_batch(payload: &[u8], out: &mut Listing<'_>) -> Result<()> {
    let (first, operations) = batch::decode(payload)?;
    for (seqno, operation) in (first.get()..).zip(operations) {
        let operation = operation?;
        let (keyspace, key) = (operation.keyspace, Excerpt(operation.key));
        match operation.kind {
            ValueKind::Put => out.line(format_args!(
                "  {seqno} keyspace {keyspace} put {key} {}",
                Excerpt(operation.value)
            ))?,
            ValueKind::Delete => {
                out.line(format_args!("  {seqno} keyspace {keyspace} delete {key}"))?;
            }
        }
    }
    Ok(())
}
