use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{Busy, Input, leveled};
use super::*;
use crate::cache::{BlockCache, MemoryBudget};
use crate::env::sim::{CrashPolicy, FaultKind, FaultPlan, SimEnv};
use crate::key::{InternalKey, ValueKind};
use crate::options::ReadMode;
use crate::version::{Run, Version};

/// Key, sequence number, and the value unless it is a tombstone.
type Entry = (String, u64, Option<String>);

struct Fixture {
    env: SimEnv,
    store: TableStore,
    options: KeyspaceOptions,
    next_number: Cell<u64>,
    cancel: AtomicBool,
    /// How often a run let others go first, and at which time it is cancelled meanwhile.
    steps: Cell<usize>,
    cancelled_at: usize,
}

impl Fixture {
    fn new() -> Self {
        let env = SimEnv::new(7);
        let store = TableStore {
            env: Arc::new(env.clone()),
            dir: PathBuf::from("."),
            cache: Arc::new(BlockCache::new(1 << 20)),
            read_mode: ReadMode::Positional,
            account: MemoryBudget::new(1 << 20).open_free_account(),
        };
        let options = KeyspaceOptions::new().block_bytes(256).table_bytes(2048);
        Self {
            env,
            store,
            options,
            next_number: Cell::new(1),
            cancel: AtomicBool::new(false),
            steps: Cell::new(0),
            cancelled_at: usize::MAX,
        }
    }

    fn step_aside(&self) {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() == self.cancelled_at {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }

    fn allocate(&self) -> u64 {
        self.next_number.replace(self.next_number.get() + 1)
    }

    fn write(&self, entries: &[Entry]) -> Arc<Table> {
        let target = Target {
            store: &self.store,
            layout: layout(&self.options, 0),
            table_bytes: u64::MAX,
            cut: Cut::Near,
            borders: &[],
            allocate: &|| self.allocate(),
            cancel: &self.cancel,
            step_aside: &|| {},
        };
        let mut files = NewFiles::new(&self.store);
        let mut table = files.create(&target).unwrap();
        for (user, seqno, value) in entries {
            let kind = value.as_ref().map_or(ValueKind::Delete, |_| ValueKind::Put);
            let key = InternalKey::new(user.as_bytes(), SeqNo(*seqno), kind);
            let value = value.as_deref().unwrap_or("");
            table.builder.add(key, value.as_bytes()).unwrap();
        }
        let meta = table.finish().unwrap();
        files.keep().unwrap();
        Arc::new(Table::new(meta, self.store.clone()))
    }

    fn run(&self, plan: &Plan, boundaries: &[SeqNo]) -> Result<Outputs> {
        let context = Context {
            store: &self.store,
            options: &self.options,
            boundaries,
            allocate: &|| self.allocate(),
            cancel: &self.cancel,
            step_aside: &|| self.step_aside(),
        };
        run(plan, &context)
    }

    fn entries(&self, tables: &[TableMeta]) -> Vec<Entry> {
        let mut entries = Vec::new();
        for meta in tables {
            let table = Table::new(meta.clone(), self.store.clone());
            let first = entries.len();
            let mut cursor = table.reader().unwrap().cursor(Access::Positional);
            cursor.seek_to_first().unwrap();
            while cursor.is_valid() {
                let key = cursor.key();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let value = (key.kind() == ValueKind::Put).then(|| text(cursor.value()));
                entries.push((text(key.user), key.seqno().0, value));
                cursor.next().unwrap();
            }
            assert_eq!(meta.entries, (entries.len() - first) as u64);
            assert_eq!(meta.smallest, entries[first].0.as_bytes());
            assert_eq!(meta.largest, entries.last().unwrap().0.as_bytes());
            let bytes = self.env.file_bytes(&self.store.path(meta.number)).unwrap();
            assert_eq!(meta.len, bytes.len() as u64);
        }
        entries
    }

    /// The names of all files.
    fn files(&self) -> Vec<String> {
        use crate::env::Env;
        self.env.list_dir(Path::new(".")).unwrap()
    }
}

fn key(index: u64) -> String {
    format!("key{index:05}")
}

fn put(index: u64, seqno: u64) -> Entry {
    (key(index), seqno, Some(format!("{seqno:040}")))
}

fn delete(index: u64, seqno: u64) -> Entry {
    (key(index), seqno, None)
}

/// Two overlapping runs over a level of two tables, with a table below them.
fn version(fixture: &Fixture) -> (Version, Vec<Entry>) {
    let newest: Vec<_> = (0..200).step_by(2).map(|i| put(i, 2000 + i)).collect();
    let older: Vec<_> = (0..200)
        .step_by(3)
        .map(|i| {
            if i % 2 == 0 {
                put(i, 1000 + i)
            } else {
                delete(i, 1000 + i)
            }
        })
        .collect();
    let base: Vec<_> = (0..300).map(|i| put(i, 1 + i)).collect();
    let below: Vec<_> = (50..60).map(|i| put(i, 0)).collect();
    let mut version = Version::default();
    let levels = &mut version.levels;
    levels[0].runs.push(Run::new(vec![fixture.write(&newest)]));
    levels[0].runs.push(Run::new(vec![fixture.write(&older)]));
    levels[5].runs.push(Run::new(vec![
        fixture.write(&base[..130]),
        fixture.write(&base[130..]),
    ]));
    levels[6].runs.push(Run::new(vec![fixture.write(&below)]));
    let all = [newest, older, base, below].concat();
    (version, all)
}

fn plan(version: &Version) -> Plan {
    let mut inputs: Vec<Input> = Vec::new();
    for level in [0, 5] {
        for run in &version.levels[level].runs {
            let tables = run.tables().to_vec();
            inputs.push(Input { level, tables });
        }
    }
    Plan::new(version, Kind::Merge, inputs, 5)
}

/// The newest version of each key at or below `seqno`, without deleted ones.
fn visible(entries: &[Entry], seqno: u64) -> BTreeMap<&str, &str> {
    let mut newest: BTreeMap<&str, (u64, Option<&str>)> = BTreeMap::new();
    for (user, at, value) in entries.iter().filter(|entry| entry.1 <= seqno) {
        let slot = newest.entry(user).or_insert((*at, value.as_deref()));
        if slot.0 < *at {
            *slot = (*at, value.as_deref());
        }
    }
    let values = newest.into_iter();
    values
        .filter_map(|(user, (_, value))| Some((user, value?)))
        .collect()
}

#[test]
fn merges_into_tables_that_read_the_same() {
    for boundaries in [vec![], vec![SeqNo(1500)], vec![SeqNo(60), SeqNo(1100)]] {
        let fixture = Fixture::new();
        let (version, all) = version(&fixture);
        let plan = plan(&version);
        let outputs = fixture.run(&plan, &boundaries).unwrap();
        assert!(outputs.tables.len() > 2, "{outputs:?}");
        let mut kept = fixture.entries(&outputs.tables);
        for pair in outputs.tables.windows(2) {
            assert!(pair[0].largest < pair[1].smallest);
        }
        if boundaries.is_empty() {
            assert_eq!(outputs.tables.iter().map(|t| t.tombstones).sum::<u64>(), 2);
            let (_, seqno, _) = kept.iter().find(|entry| entry.0 == key(299)).unwrap();
            assert_eq!(*seqno, 0, "the last of its key");
            let (_, seqno, _) = kept.iter().find(|entry| entry.0 == key(52)).unwrap();
            assert_eq!(*seqno, 2052, "older data below");
        }
        let lens = outputs.tables.iter().map(|table| table.len);
        assert_eq!(outputs.bytes_written, lens.sum::<u64>());
        let below = version.levels[6].tables().map(|table| table.meta.clone());
        kept.extend(fixture.entries(&below.collect::<Vec<_>>()));
        for seqno in boundaries.iter().map(|b| b.0).chain([u64::MAX]) {
            assert_eq!(visible(&kept, seqno), visible(&all, seqno));
        }
    }
}

#[test]
fn a_full_compaction_leaves_only_what_counts() {
    let fixture = Fixture::new();
    let (version, all) = version(&fixture);
    let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
    let outputs = fixture.run(&plan, &[]).unwrap();
    let kept = fixture.entries(&outputs.tables);
    assert!(
        kept.iter()
            .all(|(_, seqno, value)| *seqno == 0 && value.is_some())
    );
    assert_eq!(visible(&kept, 0), visible(&all, u64::MAX));
    assert_eq!(kept.len(), visible(&all, u64::MAX).len());

    let mut version = Version::default();
    let tables = outputs.tables.iter();
    let tables = tables.map(|meta| Arc::new(Table::new(meta.clone(), fixture.store.clone())));
    version.levels[6].runs.push(Run::new(tables.collect()));
    assert!(leveled::pick_full(&version, &Busy::default()).is_none());
}

#[test]
fn all_versions_of_a_key_stay_in_one_table() {
    let fixture = Fixture::new();
    let entries: Vec<_> = (0..600).map(|i| put(i / 200, 1000 - i)).collect();
    let mut version = Version::default();
    version.levels[0]
        .runs
        .push(Run::new(vec![fixture.write(&entries)]));
    let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
    let boundaries: Vec<_> = (0..1000).map(SeqNo).collect();
    let outputs = fixture.run(&plan, &boundaries).unwrap();
    assert_eq!(outputs.tables.len(), 3);
    assert!(
        outputs
            .tables
            .iter()
            .all(|table| table.smallest == table.largest)
    );
    assert_eq!(fixture.entries(&outputs.tables), entries);
}

#[test]
fn nothing_kept_makes_no_table() {
    let fixture = Fixture::new();
    let mut version = Version::default();
    let table = fixture.write(&[delete(1, 5), delete(2, 6)]);
    version.levels[0].runs.push(Run::new(vec![table]));
    let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
    let outputs = fixture.run(&plan, &[]).unwrap();
    assert!(outputs.tables.is_empty());
    assert_eq!(outputs.stats.dropped_tombstones, 2);
    assert_eq!(fixture.files().len(), 1);
}

#[test]
fn outputs_survive_a_crash_right_after() {
    let fixture = Fixture::new();
    let (version, _) = version(&fixture);
    let outputs = fixture.run(&plan(&version), &[]).unwrap();
    let after = fixture.env.capture().crash(CrashPolicy::MaxLoss, 1);
    for meta in &outputs.tables {
        let path = fixture.store.path(meta.number);
        assert_eq!(after.file_bytes(&path), fixture.env.file_bytes(&path));
        assert!(after.file_bytes(&path).is_some());
    }
}

#[test]
fn every_failed_io_fails_the_run_and_leaves_the_inputs_alone() {
    let fixture = Fixture::new();
    let (version, _) = version(&fixture);
    let plan = plan(&version);
    let inputs = fixture.files();
    let (writes, reads) = (fixture.env.io_count(), fixture.env.read_count());
    let outputs = fixture.run(&plan, &[]).unwrap();
    let expected = fixture.entries(&outputs.tables);
    let outputs_len = outputs.tables.len() as u64;
    for meta in outputs.tables {
        let path = fixture.store.path(meta.number);
        crate::env::Env::remove_file(&fixture.env, &path).unwrap();
    }
    let writes = fixture.env.io_count() - writes - outputs_len;
    let reads = fixture.env.read_count() - reads;
    assert!(writes > 8 && reads > 8, "{writes} writes, {reads} reads");
    let mut read_faults = 0;
    for at in 0..writes + reads {
        if at < writes {
            let kind = FaultKind::ALL[usize::try_from(at).unwrap() % FaultKind::ALL.len()];
            let at = fixture.env.io_count() + at;
            fixture.env.set_fault(FaultPlan::once(at, kind));
        } else {
            fixture
                .env
                .set_read_fault(fixture.env.read_count() + at - writes);
        }
        let faults = fixture.env.fault_count();
        let result = fixture.run(&plan, &[]);
        let has_failed = fixture.env.fault_count() > faults;
        fixture.env.clear_faults();
        assert_eq!(result.is_err(), has_failed, "I/O {at}: {result:?}");
        match result {
            Err(error) => {
                read_faults += u64::from(at >= writes);
                assert_eq!(error.kind(), ErrorKind::Io, "I/O {at}: {error}");
                assert_eq!(fixture.files(), inputs, "I/O {at}");
            }
            // The tables are open by now: their heads are not read again.
            Ok(outputs) => {
                assert!(at >= writes);
                for meta in outputs.tables {
                    let path = fixture.store.path(meta.number);
                    crate::env::Env::remove_file(&fixture.env, &path).unwrap();
                }
            }
        }
    }
    assert!(read_faults > 3, "{read_faults}");
    let outputs = fixture.run(&plan, &[]).unwrap();
    assert_eq!(fixture.entries(&outputs.tables), expected);
}

#[test]
fn a_cancelled_run_leaves_nothing() {
    let fixture = Fixture::new();
    let (version, _) = version(&fixture);
    let inputs = fixture.files();
    fixture.cancel.store(true, Ordering::Relaxed);
    let error = fixture.run(&plan(&version), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!(fixture.files(), inputs);
}

#[test]
fn a_run_lets_others_go_first_and_may_be_cancelled_meanwhile() {
    let mut fixture = Fixture::new();
    let entries: Vec<Entry> = (0..4 * STEP_LEN as u64).map(|at| put(at, at + 1)).collect();
    let table = fixture.write(&entries);
    let mut version = Version::default();
    version.levels[0].runs.push(Run::new(vec![table]));
    let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
    let inputs = fixture.files();
    fixture.cancelled_at = 3;
    let error = fixture.run(&plan, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert_eq!((fixture.steps.get(), fixture.files()), (3, inputs));
    fixture.cancel.store(false, Ordering::Relaxed);
    fixture.run(&plan, &[]).unwrap();
    assert_eq!(fixture.steps.get(), 3 + 4);
}

#[test]
fn fewer_entries_than_known_are_corruption() {
    let fixture = Fixture::new();
    let table = fixture.write(&[put(1, 5), put(2, 6)]);
    let mut meta = table.meta.clone();
    meta.entries = 3;
    let mut version = Version::default();
    let table = Arc::new(Table::new(meta, fixture.store.clone()));
    version.levels[0].runs.push(Run::new(vec![table]));
    let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
    let error = fixture.run(&plan, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(
        error.to_string(),
        "tables [1]: 2 entries read, 3 are known of them"
    );
    assert_eq!(fixture.files().len(), 1);
}

#[test]
fn tables_that_overlap_against_all_knowledge_are_corruption() {
    let fixture = Fixture::new();
    let first = fixture.write(&[put(1, 5), put(4, 6)]);
    let second = fixture.write(&[put(3, 7), put(5, 8)]);
    let mut meta = second.meta.clone();
    meta.smallest = Slice::copy_from(key(5).as_bytes());
    let second = Arc::new(Table::new(meta, fixture.store.clone()));
    let mut version = Version::default();
    version.levels[5].runs.push(Run::new(vec![first, second]));
    let plan = leveled::pick_full(&version, &Busy::default()).unwrap();
    let error = fixture.run(&plan, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn levels_are_laid_out_as_they_were_asked_for() {
    let options = KeyspaceOptions::new();
    assert_eq!(layout(&options, 0).compression, Compression::Lz4);
    let options = options.uncompressed_levels(1);
    let [upper, middle, last] = [0, 1, 6].map(|level| layout(&options, level));
    assert_eq!(
        (upper.compression, upper.filter_bits),
        (Compression::None, 16)
    );
    assert_eq!(
        (middle.compression, middle.filter_bits),
        (Compression::Lz4, 16)
    );
    assert_eq!((last.compression, last.filter_bits), (Compression::Lz4, 10));
}
