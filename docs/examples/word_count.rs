//! Counts the words of files, and goes on where it was after any crash.
//!
//! The counts are the state of a stream task, and so is the place in the input: both change in the
//! same commits, so no word is ever counted twice or not at all, whenever the program is killed.
//! The state can be deleted: the changelog has everything.
//!
//! ```sh
//! cargo run --release --example word_count -- --top 20 docs src
//! cargo run --release --example word_count -- --changelog kafka://localhost:9092/words docs src
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::{self, File};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use siltstone::store::serde::{Bytes, U64};
use siltstone::store::{How, KeyValue, RestoredStore, Task, TaskOptions};
use siltstone::{ChangelogUrl, KEY_LEN_MAX};

/// Counts the words of files, and goes on where it was after any crash.
///
/// A word is a maximal run of ASCII letters, in lower case; any other byte, and the end of a file,
/// ends a word. Only the first 65,535 letters of a word count.
#[derive(Debug, Parser)]
#[command(
    name = "word_count",
    after_help = "\
Examples:
  word_count --top 20 docs src
  word_count --dump docs > counts
  zcat big.gz | word_count --state ./state-of-big --changelog ./changelog-of-big
  word_count --changelog kafka://localhost:9092/words docs src
  word_count --changelog 'kafka://one:9093/words?ca=ca.pem&user=ann&password-file=secret' docs

Run it again with the same state: it goes on where the last commit was. What has been counted, by
the names of the files, is not counted again; files that are new or longer are. A file named twice
is counted once."
)]
struct Args {
    /// Files, and directories whose files are read in the order of their names; `-`, or none, for
    /// stdin. Links within directories are left out.
    paths: Vec<PathBuf>,
    /// Where the state is kept.
    #[arg(long, value_name = "DIR", default_value = "./word_count-state")]
    state: PathBuf,
    /// Where the changelog is kept, from which the state can be made again: a directory, or
    /// kafka://HOST:PORT[,HOST:PORT...]/PREFIX, whose topics are PREFIX-STORE-changelog.
    #[arg(long, value_name = "URL", default_value = "./word_count-changelog")]
    changelog: String,
    /// Print this many of the most frequent words.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Print all words instead, as COUNT<TAB>WORD in the order of the words.
    #[arg(long)]
    dump: bool,
    /// Commit each time so many bytes were read.
    #[arg(long, value_name = "N", default_value_t = 16 << 20)]
    commit_bytes: u64,
    /// Replace state that does not belong to the changelog by what the changelog has.
    #[arg(long)]
    rebuild: bool,
}

type Error = Box<dyn std::error::Error>;

const JOB: &str = "word-count";
const READ_BYTES: usize = 256 << 10;
/// Words and their counts that are held between commits, about.
const PENDING_BYTES_MAX: usize = 32 << 20;
/// Words that are written at once.
const WRITES_MAX: usize = 1024;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "word_count: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let sources = Source::list(&args.paths)?;
    let mut counter = Counter::open(args)?;
    counter.count(&sources, args.commit_bytes)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.dump {
        counter.dump(&mut out)?;
    } else {
        counter.print_top(args.top, &mut out)?;
    }
    out.flush()?;
    counter.task.close()?;
    Ok(())
}

/// The task, its one store, and what was counted since the last commit.
struct Counter {
    task: Task,
    counts: KeyValue<Bytes, U64>,
    pending: Pending,
    /// Where reading goes on in the files that were read since the last commit.
    positions: Vec<(String, u64)>,
}

impl Counter {
    fn open(args: &Args) -> Result<Self, Error> {
        let url: ChangelogUrl = args.changelog.parse()?;
        let job = url.prefix().unwrap_or(JOB);
        let options = TaskOptions::new(job, 0, &args.state, url.open()?).rebuild(args.rebuild);
        let task = Task::open(options.store("counts"))?;
        for store in &task.restored().stores {
            note(&describe(store));
        }
        let counts = task.key_value("counts", Bytes, U64)?;
        Ok(Self {
            task,
            counts,
            pending: Pending::default(),
            positions: Vec::new(),
        })
    }

    /// Counts what has not been counted of all sources.
    fn count(&mut self, sources: &[Source], commit_bytes: u64) -> Result<(), Error> {
        let counted = self.task.input_positions()?;
        let start = |source: &Source| counted.get(&source.name()).copied().unwrap_or(0);
        let mut progress = Progress::new(sources, start);
        let mut buffer = vec![0; READ_BYTES];
        let mut uncommitted = 0;
        for source in sources {
            let mut position = start(source);
            if source.len() == Some(position) {
                continue;
            }
            let mut reader = source.open(position)?;
            let mut words = Words::default();
            loop {
                let read = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(format!("{}: {error}", source.name()).into()),
                };
                words.feed(&buffer[..read], |word| self.pending.add(word));
                position += read as u64;
                uncommitted += read as u64;
                progress.advance(read as u64);
                let is_full = self.pending.bytes >= PENDING_BYTES_MAX;
                if uncommitted >= commit_bytes || is_full || self.task.commit_requested() {
                    // A word that has begun is left to the next commit, with its bytes.
                    self.positions
                        .push((source.name(), position - words.begun_len));
                    self.commit()?;
                    uncommitted = 0;
                }
            }
            words.end(|word| self.pending.add(word));
            self.positions.push((source.name(), position));
        }
        progress.end();
        self.commit()
    }

    /// Makes everything that was counted count, together with where it came from.
    fn commit(&mut self) -> Result<(), Error> {
        let mut words: Vec<_> = self.pending.take().into_iter().collect();
        words.sort_unstable();
        for chunk in words.chunks_mut(WRITES_MAX) {
            for (word, count) in chunk.iter_mut() {
                *count += self.counts.get(word)?.unwrap_or(0);
            }
            let writes = chunk.iter().map(|(word, count)| (&**word, Some(count)));
            self.counts.put_all(&mut self.task, writes)?;
        }
        for (source, position) in self.positions.drain(..) {
            self.task.set_input_position(&source, position)?;
        }
        self.task.commit()?;
        Ok(())
    }

    fn dump(&self, out: &mut dyn Write) -> Result<(), Error> {
        for entry in self.counts.entries()? {
            let (word, count) = entry?;
            print(&word, count, out)?;
        }
        Ok(())
    }

    fn print_top(&self, top: usize, out: &mut dyn Write) -> Result<(), Error> {
        // The least of the most frequent on top, to make room for a better one.
        let mut best = BinaryHeap::new();
        for entry in self.counts.entries()? {
            let (word, count) = entry?;
            best.push((Reverse(count), word));
            if best.len() > top {
                best.pop();
            }
        }
        for (Reverse(count), word) in best.into_sorted_vec() {
            print(&word, count, out)?;
        }
        Ok(())
    }
}

fn print(word: &[u8], count: u64, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{count}\t")?;
    out.write_all(word)?;
    out.write_all(b"\n")
}

/// What restoring a store took.
fn describe(store: &RestoredStore) -> String {
    let how = match store.how {
        How::UpToDate => "nothing".to_owned(),
        How::Tail => "tail".to_owned(),
        How::Full => "full".to_owned(),
        How::Rebuilt(reason) => format!("rebuilt, {reason:?}"),
        other => format!("{other:?}"),
    };
    let seconds = store.duration.as_secs_f64();
    let (records, megabytes) = (store.records, millions(store.bytes));
    let rate = millions(records) / seconds.max(1e-6);
    format!(
        "restored {}: {how}; {records} records, {megabytes:.1} MB in {seconds:.2} s ({rate:.2} M \
         records/s)",
        store.name
    )
}

#[expect(clippy::cast_precision_loss, reason = "a number for people to read")]
fn millions(count: u64) -> f64 {
    count as f64 / 1e6
}

/// Tells the user something; that nobody reads it is no reason to stop.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// One file, or stdin.
#[derive(Debug)]
enum Source {
    Stdin,
    File(PathBuf),
}

impl Source {
    /// The sources that the command line names, in the order in which they are read.
    fn list(paths: &[PathBuf]) -> Result<Vec<Self>, Error> {
        if paths.is_empty() {
            return Ok(vec![Self::Stdin]);
        }
        let mut sources = Vec::new();
        for path in paths {
            if path == Path::new("-") {
                sources.push(Self::Stdin);
                continue;
            }
            let metadata = fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
            if metadata.is_dir() {
                Self::list_dir(path, &mut sources)?;
            } else {
                sources.push(Self::File(path.clone()));
            }
        }
        let mut names = HashSet::new();
        sources.retain(|source| names.insert(source.name()));
        Ok(sources)
    }

    fn list_dir(dir: &Path, sources: &mut Vec<Self>) -> Result<(), Error> {
        let in_dir = |error: io::Error| format!("{}: {error}", dir.display());
        let mut entries: Vec<_> = fs::read_dir(dir)
            .map_err(in_dir)?
            .collect::<io::Result<_>>()
            .map_err(in_dir)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type().map_err(in_dir)?;
            if kind.is_dir() {
                Self::list_dir(&entry.path(), sources)?;
            } else if kind.is_file() {
                sources.push(Self::File(entry.path()));
            }
        }
        Ok(())
    }

    /// The name by which the task knows its position in it.
    fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::File(path) => match path.to_str() {
                Some(name) => name.to_owned(),
                None => path
                    .as_os_str()
                    .as_encoded_bytes()
                    .escape_ascii()
                    .to_string(),
            },
        }
    }

    /// Length in bytes, where it is known before it was read.
    fn len(&self) -> Option<u64> {
        match self {
            Self::Stdin => None,
            Self::File(path) => fs::metadata(path).ok().map(|metadata| metadata.len()),
        }
    }

    /// A reader from `offset` on.
    fn open(&self, offset: u64) -> Result<Box<dyn Read>, Error> {
        let at = |error: io::Error| format!("{}: {error}", self.name());
        match self {
            Self::Stdin => {
                let mut stdin = io::stdin().lock();
                let skipped = io::copy(&mut (&mut stdin).take(offset), &mut io::sink());
                if skipped.map_err(at)? < offset {
                    return Err(format!("stdin ends before byte {offset}, counted before").into());
                }
                Ok(Box::new(stdin))
            }
            Self::File(path) => {
                let mut file = File::open(path).map_err(at)?;
                if file.metadata().map_err(at)?.len() < offset {
                    let name = path.display();
                    return Err(format!("{name} ends before byte {offset}, counted before").into());
                }
                file.seek(SeekFrom::Start(offset)).map_err(at)?;
                Ok(Box::new(file))
            }
        }
    }
}

/// Cuts bytes into words, whatever pieces the bytes come in.
#[derive(Default)]
struct Words {
    /// The start of a word whose end has not been seen, in lower case and at most as long as a key.
    begun: Vec<u8>,
    /// How many letters of it there were.
    begun_len: u64,
}

impl Words {
    fn feed(&mut self, bytes: &[u8], mut add: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let letters = rest
                .iter()
                .take_while(|byte| byte.is_ascii_alphabetic())
                .count();
            self.begin(&rest[..letters]);
            if letters == rest.len() {
                return;
            }
            self.end(&mut add);
            let others = rest[letters..]
                .iter()
                .take_while(|byte| !byte.is_ascii_alphabetic());
            rest = &rest[letters + others.count()..];
        }
    }

    fn begin(&mut self, letters: &[u8]) {
        self.begun_len += letters.len() as u64;
        let taken = letters.len().min(KEY_LEN_MAX - self.begun.len());
        self.begun
            .extend(letters[..taken].iter().map(u8::to_ascii_lowercase));
    }

    /// Ends the word that has begun, if one has.
    fn end(&mut self, mut add: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            add(&self.begun);
            self.begun.clear();
            self.begun_len = 0;
        }
    }
}

type Counts = HashMap<Box<[u8]>, u64, BuildHasherDefault<Fnv>>;

/// Counts since the last commit, in memory: each word is written to the store once a commit.
#[derive(Default)]
struct Pending {
    counts: Counts,
    /// What they take in memory, about.
    bytes: usize,
}

impl Pending {
    fn take(&mut self) -> Counts {
        self.bytes = 0;
        std::mem::take(&mut self.counts)
    }

    fn add(&mut self, word: &[u8]) {
        if let Some(count) = self.counts.get_mut(word) {
            *count += 1;
        } else {
            self.counts.insert(Box::from(word), 1);
            self.bytes += word.len() + 64;
        }
    }
}

/// The hash of Fowler, Noll and Vo (FNV-1a): for short words that nobody chooses to collide.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length of the word: its letters tell enough.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Tells how far counting has come: on a terminal in one line that changes, else in a line from
/// time to time.
struct Progress {
    done: u64,
    /// Bytes of all sources, where that is known.
    total: Option<u64>,
    /// Bytes of them that were counted before the start.
    before: u64,
    began: Instant,
    told: Instant,
    is_terminal: bool,
}

impl Progress {
    fn new(sources: &[Source], start: impl Fn(&Source) -> u64) -> Self {
        let before = sources.iter().map(start).sum();
        let now = Instant::now();
        Self {
            done: before,
            total: sources.iter().map(Source::len).sum(),
            before,
            began: now,
            told: now,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let interval = if self.is_terminal { 100 } else { 3000 };
        if self.told.elapsed() >= Duration::from_millis(interval) {
            self.told = Instant::now();
            let line = self.line();
            if self.is_terminal {
                // Back to the line's start, and over what was there.
                let _ = write!(io::stderr(), "\r{line}\x1b[K");
            } else {
                note(&line);
            }
        }
    }

    fn end(&self) {
        let line = self.line();
        note(&if self.is_terminal {
            format!("\r{line}\x1b[K")
        } else {
            line
        });
    }

    fn line(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64();
        let done = millions(self.done);
        let rate = millions(self.done - self.before) / seconds.max(1e-6);
        match self.total {
            Some(total) => {
                let total = millions(total);
                let part = if total > 0.0 {
                    100.0 * done / total
                } else {
                    100.0
                };
                format!("counted {done:.1} of {total:.1} MB ({part:.0} %), {rate:.1} MB/s")
            }
            None => format!("counted {done:.1} MB, {rate:.1} MB/s"),
        }
    }
}
