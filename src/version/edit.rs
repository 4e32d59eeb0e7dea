//! What changes between two states of a store, and how the manifest stores it.
//!
//! An edit is one record of the manifest: all of it happens or nothing. Layout: `docs/format.md`,
//! "Manifest".

use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};
use crate::key::SeqNo;
use crate::options::Wal;
use crate::slice::Slice;

use super::TableMeta;

/// Longest name of a keyspace, in bytes; the shortest has one.
pub(crate) const KEYSPACE_NAME_LEN_MAX: usize = 255;

/// The layout of edits that this build writes; a higher one is refused.
const EDIT_FORMAT: u8 = 1;

const TAG_DB_ID: u64 = 1;
const TAG_WAL_MODE: u64 = 2;
const TAG_WAL_ID: u64 = 3;
const TAG_NEXT_KEYSPACE: u64 = 4;
const TAG_NEXT_FILE: u64 = 5;
const TAG_LAST_SEQNO: u64 = 6;
const TAG_WAL_FIRST: u64 = 7;
const TAG_POSITION: u64 = 8;
const TAG_CREATE_KEYSPACE: u64 = 9;
const TAG_DROP_KEYSPACE: u64 = 10;
const TAG_RENAME_KEYSPACE: u64 = 11;
const TAG_FLUSHED: u64 = 12;
const TAG_ADD_TABLE: u64 = 13;
const TAG_REMOVE_TABLE: u64 = 14;

/// One change of a store's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The store's random id; only in the first edit of a manifest, and never zero.
    DbId(u64),
    /// Whether the store keeps a write-ahead log.
    WalMode(Wal),
    /// The write-ahead log is another one from here on: its journal's id. Its first segment is
    /// forgotten with the old one.
    WalId(u64),
    /// The lowest keyspace id that was never used.
    NextKeyspace(u32),
    /// File numbers below this one are in use or were. Lower than the state's: no effect, for
    /// edits may be made in another order than they are installed.
    NextFile(u64),
    /// The newest write that the store knows of. Lower than the state's: no effect.
    LastSeqNo(SeqNo),
    /// The first segment of the write-ahead log that is still needed. Lower than the state's: no
    /// effect.
    WalFirst(u64),
    /// Bytes of the layer above: the position of the changelog that the tables cover.
    Position(Option<Vec<u8>>),
    CreateKeyspace {
        id: u32,
        name: String,
    },
    /// Drops a keyspace and all its tables.
    DropKeyspace {
        id: u32,
    },
    /// Gives a keyspace another name: a free one, or one that this edit has freed before.
    RenameKeyspace {
        id: u32,
        name: String,
    },
    /// Every write of the keyspace up to `seqno` is in tables. Never decreases.
    Flushed {
        keyspace: u32,
        seqno: SeqNo,
    },
    /// Puts a table into a run of a level. Tables of one level with the same `run` are one run; a
    /// higher run is a newer one. In the last level the only run is 0. A table that the same edit
    /// has removed before is moved.
    AddTable {
        keyspace: u32,
        level: u8,
        run: u64,
        meta: TableMeta,
    },
    RemoveTable {
        keyspace: u32,
        number: u64,
    },
}

/// Changes that happen together, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct VersionEdit {
    pub(crate) changes: Vec<Change>,
}

impl VersionEdit {
    pub(crate) fn new(changes: Vec<Change>) -> Self {
        Self { changes }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![EDIT_FORMAT];
        for change in &self.changes {
            change.encode(&mut out);
        }
        out
    }

    /// # Errors
    ///
    /// `Unsupported` for a newer layout or a change that this build does not know, `Corruption`
    /// for anything that `encode` cannot have made.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let format = decoder.u8("edit format")?;
        if format == 0 {
            return Err(Error::corruption("edit format 0 does not exist"));
        }
        if format > EDIT_FORMAT {
            return Err(Error::unsupported(format!(
                "edit format {format}; this build reads up to {EDIT_FORMAT}"
            )));
        }
        let mut changes = Vec::new();
        while !decoder.is_empty() {
            changes.push(Change::decode(&mut decoder)?);
        }
        Ok(Self { changes })
    }
}

impl Change {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::DbId(id) => put_numbers(out, TAG_DB_ID, &[*id]),
            Self::WalMode(wal) => put_numbers(out, TAG_WAL_MODE, &[u64::from(*wal == Wal::On)]),
            Self::WalId(id) => put_numbers(out, TAG_WAL_ID, &[*id]),
            Self::NextKeyspace(id) => put_numbers(out, TAG_NEXT_KEYSPACE, &[u64::from(*id)]),
            Self::NextFile(number) => put_numbers(out, TAG_NEXT_FILE, &[*number]),
            Self::LastSeqNo(seqno) => put_numbers(out, TAG_LAST_SEQNO, &[seqno.0]),
            Self::WalFirst(segment) => put_numbers(out, TAG_WAL_FIRST, &[*segment]),
            Self::Position(None) => put_numbers(out, TAG_POSITION, &[0]),
            Self::Position(Some(bytes)) => {
                put_numbers(out, TAG_POSITION, &[1]);
                put_bytes(out, bytes);
            }
            Self::CreateKeyspace { id, name } => {
                put_numbers(out, TAG_CREATE_KEYSPACE, &[u64::from(*id)]);
                put_bytes(out, name.as_bytes());
            }
            Self::DropKeyspace { id } => put_numbers(out, TAG_DROP_KEYSPACE, &[u64::from(*id)]),
            Self::RenameKeyspace { id, name } => {
                put_numbers(out, TAG_RENAME_KEYSPACE, &[u64::from(*id)]);
                put_bytes(out, name.as_bytes());
            }
            Self::Flushed { keyspace, seqno } => {
                put_numbers(out, TAG_FLUSHED, &[u64::from(*keyspace), seqno.0]);
            }
            Self::AddTable {
                keyspace,
                level,
                run,
                meta,
            } => {
                let place = [u64::from(*keyspace), u64::from(*level), *run];
                put_numbers(out, TAG_ADD_TABLE, &place);
                encode_meta(out, meta);
            }
            Self::RemoveTable { keyspace, number } => {
                put_numbers(out, TAG_REMOVE_TABLE, &[u64::from(*keyspace), *number]);
            }
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let at = decoder.pos();
        Ok(match decoder.varint("change")? {
            TAG_DB_ID => Self::DbId(decoder.varint("store id")?),
            TAG_WAL_MODE => Self::WalMode(match decoder.u8("wal mode")? {
                0 => Wal::Off,
                1 => Wal::On,
                mode => return Err(Error::corruption(format!("wal mode {mode} does not exist"))),
            }),
            TAG_WAL_ID => Self::WalId(decoder.varint("wal id")?),
            TAG_NEXT_KEYSPACE => Self::NextKeyspace(decoder.varint_u32("next keyspace")?),
            TAG_NEXT_FILE => Self::NextFile(decoder.varint("next file")?),
            TAG_LAST_SEQNO => Self::LastSeqNo(decode_seqno(decoder, "last sequence number")?),
            TAG_WAL_FIRST => Self::WalFirst(decoder.varint("first wal segment")?),
            TAG_POSITION => Self::Position(match decoder.u8("position")? {
                0 => None,
                1 => Some(decoder.bytes("position")?.to_vec()),
                flag => return Err(Error::corruption(format!("position: flag {flag}"))),
            }),
            TAG_CREATE_KEYSPACE => Self::CreateKeyspace {
                id: decoder.varint_u32("keyspace")?,
                name: decode_name(decoder)?,
            },
            TAG_DROP_KEYSPACE => Self::DropKeyspace {
                id: decoder.varint_u32("keyspace")?,
            },
            TAG_RENAME_KEYSPACE => Self::RenameKeyspace {
                id: decoder.varint_u32("keyspace")?,
                name: decode_name(decoder)?,
            },
            TAG_FLUSHED => Self::Flushed {
                keyspace: decoder.varint_u32("keyspace")?,
                seqno: decode_seqno(decoder, "flushed sequence number")?,
            },
            TAG_ADD_TABLE => Self::AddTable {
                keyspace: decoder.varint_u32("keyspace")?,
                level: decode_level(decoder)?,
                run: decoder.varint("run")?,
                meta: decode_meta(decoder)?,
            },
            TAG_REMOVE_TABLE => Self::RemoveTable {
                keyspace: decoder.varint_u32("keyspace")?,
                number: decoder.varint("table number")?,
            },
            tag => {
                return Err(Error::unsupported(format!(
                    "change {tag} at byte {at} of an edit is unknown to this build"
                )));
            }
        })
    }
}

fn put_numbers(out: &mut Vec<u8>, tag: u64, numbers: &[u64]) {
    put_varint(out, tag);
    for number in numbers {
        put_varint(out, *number);
    }
}

fn encode_meta(out: &mut Vec<u8>, meta: &TableMeta) {
    for number in [
        meta.number,
        meta.id,
        meta.len,
        meta.entries,
        meta.tombstones,
        meta.raw_bytes,
    ] {
        put_varint(out, number);
    }
    put_bytes(out, &meta.smallest);
    put_bytes(out, &meta.largest);
    put_varint(out, meta.seqno_min.0);
    put_varint(out, meta.seqno_max.0);
}

fn decode_meta(decoder: &mut Decoder<'_>) -> Result<TableMeta> {
    Ok(TableMeta {
        number: decoder.varint("table number")?,
        id: decoder.varint("table id")?,
        len: decoder.varint("table length")?,
        entries: decoder.varint("table entries")?,
        tombstones: decoder.varint("table tombstones")?,
        raw_bytes: decoder.varint("table raw bytes")?,
        smallest: Slice::copy_from(decoder.bytes("smallest key")?),
        largest: Slice::copy_from(decoder.bytes("largest key")?),
        seqno_min: decode_seqno(decoder, "lowest sequence number")?,
        seqno_max: decode_seqno(decoder, "highest sequence number")?,
    })
}

fn decode_seqno(decoder: &mut Decoder<'_>, what: &str) -> Result<SeqNo> {
    let seqno = SeqNo(decoder.varint(what)?);
    if seqno > SeqNo::MAX {
        return Err(Error::corruption(format!(
            "{what}: {seqno} is above 56 bits"
        )));
    }
    Ok(seqno)
}

fn decode_level(decoder: &mut Decoder<'_>) -> Result<u8> {
    let level = decoder.varint("level")?;
    u8::try_from(level).map_err(|_| Error::corruption(format!("level {level} does not exist")))
}

fn decode_name(decoder: &mut Decoder<'_>) -> Result<String> {
    Ok(decoder.str("keyspace name")?.to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    fn seqno() -> impl Strategy<Value = SeqNo> {
        (0..=SeqNo::MAX.0).prop_map(SeqNo)
    }

    fn meta() -> impl Strategy<Value = TableMeta> {
        let numbers = proptest::array::uniform6(any::<u64>());
        let keys = (vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40));
        (numbers, keys, seqno(), seqno()).prop_map(
            |([number, id, len, entries, tombstones, raw_bytes], keys, seqno_min, seqno_max)| {
                TableMeta {
                    number,
                    id,
                    len,
                    entries,
                    tombstones,
                    raw_bytes,
                    smallest: Slice::from(keys.0),
                    largest: Slice::from(keys.1),
                    seqno_min,
                    seqno_max,
                }
            },
        )
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            any::<u64>().prop_map(Change::DbId),
            any::<bool>().prop_map(|on| Change::WalMode(if on { Wal::On } else { Wal::Off })),
            any::<u64>().prop_map(Change::WalId),
            any::<u32>().prop_map(Change::NextKeyspace),
            any::<u64>().prop_map(Change::NextFile),
            seqno().prop_map(Change::LastSeqNo),
            any::<u64>().prop_map(Change::WalFirst),
            proptest::option::of(vec(any::<u8>(), 0..50)).prop_map(Change::Position),
            (any::<u32>(), ".{0,20}").prop_map(|(id, name)| Change::CreateKeyspace { id, name }),
            any::<u32>().prop_map(|id| Change::DropKeyspace { id }),
            (any::<u32>(), ".{0,20}").prop_map(|(id, name)| Change::RenameKeyspace { id, name }),
            (any::<u32>(), seqno())
                .prop_map(|(keyspace, seqno)| Change::Flushed { keyspace, seqno }),
            (any::<u32>(), any::<u8>(), any::<u64>(), meta()).prop_map(
                |(keyspace, level, run, meta)| {
                    Change::AddTable {
                        keyspace,
                        level,
                        run,
                        meta,
                    }
                }
            ),
            (any::<u32>(), any::<u64>())
                .prop_map(|(keyspace, number)| Change::RemoveTable { keyspace, number }),
        ]
    }

    pub(in crate::version) fn edit() -> impl Strategy<Value = VersionEdit> {
        vec(change(), 0..12).prop_map(VersionEdit::new)
    }

    proptest! {
        #[test]
        fn edits_round_trip_and_no_cut_passes_for_another(edit in edit()) {
            let bytes = edit.encode();
            prop_assert_eq!(&VersionEdit::decode(&bytes).unwrap(), &edit);
            for len in 0..bytes.len() {
                if let Ok(cut) = VersionEdit::decode(&bytes[..len]) {
                    prop_assert!(cut.changes.len() < edit.changes.len());
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = VersionEdit::decode(&bytes);
            let mut tagged = vec![EDIT_FORMAT];
            tagged.extend(bytes.iter().map(|byte| byte % 16));
            if let Ok(edit) = VersionEdit::decode(&tagged) {
                prop_assert_eq!(VersionEdit::decode(&edit.encode()).unwrap(), edit);
            }
        }
    }

    #[test]
    fn what_is_newer_is_named_as_such() {
        let error = VersionEdit::decode(&[EDIT_FORMAT + 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = VersionEdit::decode(&[EDIT_FORMAT, 99]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("change 99 at byte 1"), "{error}");
        assert_eq!(
            VersionEdit::decode(&[]).unwrap_err().kind(),
            ErrorKind::Corruption
        );
        assert_eq!(
            VersionEdit::decode(&[0]).unwrap_err().kind(),
            ErrorKind::Corruption
        );
    }
}
