//! Codings, batches and journals: decoders that meet bytes from anywhere.

use std::path::{Path, PathBuf};

use crate::batch::{self as batches, WriteBatch};
use crate::cache::{BlockCache, MemoryBudget};
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::env::Env;
use crate::env::sim::SimEnv;
use crate::error::Result;
use crate::journal::{self as journals, Lsn, SegmentFile, SegmentHeader, Writer};
use crate::key::{KeyspaceId, SeqNo, ValueKind};
use crate::options::{ReadMode, Wal};
use crate::slice::Slice;
use crate::sync::Arc;
use crate::version::{Change, State, TableMeta, TableStore, VersionEdit};

use super::input::{Damage, Input};

/// Varints and lengths: what is read again is what was read, and nothing beyond the end is.
pub fn coding(data: &[u8]) {
    let mut decoder = Decoder::new(data);
    while let Ok(value) = decoder.varint("value") {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!(Decoder::new(&out).varint("value").unwrap_or(!value), value);
    }
    let mut decoder = Decoder::new(data);
    while let Ok(bytes) = decoder.bytes("bytes") {
        let mut out = Vec::new();
        put_bytes(&mut out, bytes);
        assert_eq!(Decoder::new(&out).bytes("bytes").ok(), Some(bytes));
        assert!(decoder.pos() + decoder.remaining() == data.len());
    }
    let mut decoder = Decoder::new(data);
    while decoder.str("text").is_ok() || decoder.varint_u32("number").is_ok() {}
}

pub(super) fn coding_seeds() -> Vec<Vec<u8>> {
    let mut varints = Vec::new();
    for shift in 0..64 {
        put_varint(&mut varints, 1 << shift);
    }
    put_varint(&mut varints, u64::MAX);
    let mut strings = Vec::new();
    for text in ["", "a", "stone", "\u{1faa8}"] {
        put_bytes(&mut strings, text.as_bytes());
    }
    vec![varints, strings]
}

/// A batch: what decodes is made again with the same writes.
pub fn batch(data: &[u8]) {
    let Ok((first, operations)) = batches::decode(data) else {
        return;
    };
    let operations: Vec<_> = operations
        .map(|each| each.expect("checked by `decode`"))
        .collect();
    let mut copy = WriteBatch::new();
    for operation in &operations {
        let keyspace = KeyspaceId {
            db: 1,
            id: operation.keyspace,
        };
        let added = match operation.kind {
            ValueKind::Put => copy.put(keyspace, operation.key, operation.value),
            ValueKind::Delete => copy.delete(keyspace, operation.key),
        };
        added.expect("what was decoded is allowed");
    }
    let (first_again, again) = batches::decode(copy.seal(first)).expect("just made");
    assert_eq!(first_again, first);
    assert!(again.map(Result::ok).eq(operations.into_iter().map(Some)));
}

pub(super) fn batch_seeds() -> Vec<Vec<u8>> {
    let keyspace = |id| KeyspaceId { db: 1, id };
    let mut small = WriteBatch::new();
    let mut mixed = WriteBatch::new();
    let made = small.put(keyspace(1), "key", "value").and_then(|()| {
        for id in [1, 200, 70_000] {
            mixed.put(keyspace(id), vec![7; id as usize % 300 + 1], vec![9; 200])?;
            mixed.delete(keyspace(id), "gone")?;
        }
        Ok(())
    });
    made.expect("keys and values within their bounds");
    vec![
        small.seal(SeqNo(1)).to_vec(),
        mixed.seal(SeqNo(1 << 40)).to_vec(),
    ]
}

const KIND: journals::Kind = *b"FUZZ";
const JOURNAL_ID: u64 = 7;

/// A journal, from raw bytes or from a writer and then damaged: recovery finds a prefix of what
/// was written, all of it where nothing was damaged, and the same once more after its cut.
pub fn journal(data: &[u8]) {
    let mut input = Input::new(data);
    let env = SimEnv::new(1);
    if input.u8().is_multiple_of(2) {
        env.set_file_bytes(&segment_path(1), input.rest());
        recover_twice(&env, 1);
        return;
    }
    let (written, segments) = write_journal(&env, &mut input).expect("nothing fails");
    let number = 1 + input.index(segments) as u64;
    let mut bytes = env.file_bytes(&segment_path(number)).expect("just written");
    let damage = Damage::draw(&mut input, bytes.len());
    damage.apply(&mut bytes);
    env.set_file_bytes(&segment_path(number), bytes);
    let found = recover_twice(&env, segments as u64);
    if matches!(damage, Damage::None) {
        assert_eq!(found.as_deref(), Some(&*written));
    } else if let Some(found) = found {
        assert!(written.starts_with(&found), "{damage:?} made records");
    }
}

fn segment_path(number: u64) -> PathBuf {
    PathBuf::from(format!("/{number}.journal"))
}

fn header(segment: u64, base: Lsn, durable: Lsn) -> SegmentHeader {
    SegmentHeader {
        kind: KIND,
        journal_id: JOURNAL_ID,
        segment,
        base,
        durable,
        has_stage: false,
    }
}

/// Writes up to four segments. Returns the payloads and how many segments there are.
fn write_journal(env: &SimEnv, input: &mut Input<'_>) -> Result<(Vec<Vec<u8>>, usize)> {
    let mut writer = Writer::create(env, &segment_path(1), header(1, Lsn::ZERO, Lsn::ZERO))?;
    let (mut durable, mut segments) = (Lsn::ZERO, 1);
    let mut written = Vec::new();
    for _ in 0..input.index(32) {
        let choice = input.u8();
        if choice & 1 == 1 {
            durable = writer.end();
        }
        if choice & 6 == 6 && segments < 4 {
            segments += 1;
            let next = header(segments, writer.end(), durable);
            writer = Writer::create(env, &segment_path(segments), next)?;
        }
        let payloads: Vec<_> = (0..=choice >> 6).map(|_| input.key()).collect();
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        writer.append(&slices, durable)?;
        written.extend(payloads);
    }
    Ok((written, usize::try_from(segments).unwrap_or(usize::MAX)))
}

/// Recovers, cuts, and recovers again, which must find the same and nothing more to cut.
fn recover_twice(env: &SimEnv, segments: u64) -> Option<Vec<Vec<u8>>> {
    let files: Vec<_> = (1..=segments)
        .map(|number| SegmentFile {
            number,
            path: segment_path(number),
        })
        .collect();
    let read = |files: &[SegmentFile]| {
        let mut payloads = Vec::new();
        let mut visit = |_: usize, _: Lsn, payload: &[u8]| {
            payloads.push(payload.to_vec());
            Ok(())
        };
        let recovered =
            journals::recover(env, KIND, JOURNAL_ID, files, None, Lsn::ZERO, &mut visit).ok()?;
        Some((recovered, payloads))
    };
    let (recovered, payloads) = read(&files)?;
    journals::cut(env, Path::new("/"), &files, None, &recovered).expect("nothing fails");
    let left: Vec<_> = files
        .into_iter()
        .filter(|file| env.metadata(&file.path).is_ok())
        .collect();
    let (again, payloads_again) = read(&left).expect("what was cut is whole");
    assert_eq!((again.end, again.cut), (recovered.end, None));
    assert_eq!(payloads_again, payloads);
    Some(payloads)
}

pub(super) fn journal_seeds() -> Vec<Vec<u8>> {
    let env = SimEnv::new(1);
    let drawn = (0..200_u16).map(|n| (n * 37 % 251).to_le_bytes()[0]);
    let choices: Vec<u8> = [1, 20].into_iter().chain(drawn).collect();
    let mut segments = Vec::new();
    if write_journal(&env, &mut Input::new(&choices[1..])).is_ok() {
        let raw = env.file_bytes(&segment_path(1)).unwrap_or_default();
        segments.push([&[0], &raw[..]].concat());
    }
    let mut damaged = choices.clone();
    damaged.extend([0, 1, 90, 1]);
    segments.extend([choices, damaged, vec![1]]);
    segments
}

/// Edits of the manifest, each behind its length: what decodes is made again, and the state that
/// they lead to, told in one edit, leads to the same.
pub fn manifest(data: &[u8]) {
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let tables = TableStore {
        env: Arc::new(SimEnv::new(1)),
        dir: PathBuf::from("/"),
        cache: Arc::new(BlockCache::new(0)),
        read_mode: ReadMode::Positional,
        account: budget.open_account(0, 0).expect("nothing is asked for"),
    };
    let mut state = State::nothing();
    let mut decoder = Decoder::new(data);
    while let Ok(bytes) = decoder.bytes("edit") {
        let Ok(edit) = VersionEdit::decode(bytes) else {
            continue;
        };
        let again = VersionEdit::decode(&edit.encode()).expect("just made");
        assert_eq!(again, edit);
        if let Ok(next) = state.apply(&edit, &tables) {
            // What an edit drops is in the state before it.
            assert!(state.removed_tables(&edit).len() <= state.tables().count());
            state = next;
        }
    }
    if state.db_id != 0 {
        let told = state.to_edit();
        let copy = State::nothing()
            .apply(&told, &tables)
            .expect("a state follows from nothing");
        assert_eq!(copy.to_edit(), told);
    }
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    let meta = |number: u64, low: &str, high: &str| TableMeta {
        number,
        id: number + 1000,
        len: 4096,
        entries: 3,
        tombstones: 1,
        raw_bytes: 30,
        smallest: Slice::copy_from(low.as_bytes()),
        largest: Slice::copy_from(high.as_bytes()),
        seqno_min: SeqNo(1),
        seqno_max: SeqNo(9),
    };
    let add = |level, run, meta| Change::AddTable {
        keyspace: 1,
        level,
        run,
        meta,
    };
    let begin = vec![
        Change::DbId(7),
        Change::WalMode(Wal::On),
        Change::WalId(8),
        Change::CreateKeyspace {
            id: 1,
            name: "words".to_owned(),
        },
        Change::NextKeyspace(2),
        Change::NextFile(20),
        Change::LastSeqNo(SeqNo(9)),
    ];
    let flush = vec![
        add(0, 11, meta(11, "a", "m")),
        Change::Flushed {
            keyspace: 1,
            seqno: SeqNo(9),
        },
        Change::WalFirst(3),
        Change::Position(Some(vec![1, 2, 3])),
    ];
    let compaction = vec![
        Change::RemoveTable {
            keyspace: 1,
            number: 11,
        },
        add(6, 0, meta(12, "a", "c")),
        add(6, 0, meta(13, "d", "m")),
    ];
    let rest = vec![
        Change::RenameKeyspace {
            id: 1,
            name: "counts".to_owned(),
        },
        Change::DropKeyspace { id: 1 },
        Change::Position(None),
    ];
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for changes in [begin, flush, compaction, rest] {
        put_bytes(&mut all, &VersionEdit::new(changes).encode());
        seeds.push(all.clone());
    }
    seeds
}
