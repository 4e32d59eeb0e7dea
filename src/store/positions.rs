//! How far the tables of a task cover each of its changelog partitions: one value, which the
//! manifest keeps beside the tables.

use std::collections::BTreeMap;

use crate::changelog::{Offset, Position};
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};

use super::codec::Kind;

/// The versions of the encoded form; layout in `docs/format.md`, section "Position". The first one
/// knows plain stores only, none of which is being restored, and is written where all are so.
const VERSION_PLAIN: u8 = 1;
const VERSION: u8 = 2;

/// What is covered of one store's partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Covered {
    /// Its time is that of the oldest read which it rests on: in the midst of a restore, when that
    /// began, for a tombstone may have been dropped since.
    pub(super) position: Position,
    /// The log had dropped tombstones up to here when what is covered was begun to be read. None
    /// of those matters any more.
    pub(super) dropped_below: Offset,
    /// Where the reading began that has not reached the end of the log yet: what was dropped above
    /// it meanwhile may be missed. The next offset, once the end was reached.
    pub(super) since: Offset,
    /// What the store keeps of a record.
    pub(super) kind: Kind,
}

/// What is covered, by the name of the store. Stores that are not configured now keep theirs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Positions {
    stores: BTreeMap<String, Covered>,
}

impl Positions {
    pub(super) fn get(&self, store: &str) -> Option<&Covered> {
        self.stores.get(store)
    }

    pub(super) fn set(&mut self, store: &str, covered: Covered) {
        self.stores.insert(store.to_owned(), covered);
    }

    pub(super) fn remove(&mut self, store: &str) -> bool {
        self.stores.remove(store).is_some()
    }

    /// Replaces the position of a store that is up to date, at a commit or a heartbeat.
    pub(super) fn advance(&mut self, store: &str, position: Position) {
        let covered = self.stores.get_mut(store);
        let covered = covered.expect("a store that is up to date is covered");
        covered.since = position.next;
        covered.position = position;
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.stores.keys().map(String::as_str)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let is_plain = |covered: &Covered| {
            covered.kind == Kind::KeyValue && covered.since == covered.position.next
        };
        let is_plain = self.stores.values().all(is_plain);
        let version = if is_plain { VERSION_PLAIN } else { VERSION };
        let mut out = vec![version];
        put_varint(&mut out, self.stores.len() as u64);
        for (store, covered) in &self.stores {
            put_bytes(&mut out, store.as_bytes());
            if !is_plain {
                out.push(covered.kind as u8);
                let unproved = covered.position.next.0.saturating_sub(covered.since.0);
                put_varint(&mut out, unproved);
            }
            put_varint(&mut out, covered.dropped_below.0);
            put_bytes(&mut out, &covered.position.encode());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8("version of positions")?;
        if ![VERSION_PLAIN, VERSION].contains(&version) {
            return Err(Error::unsupported(format!(
                "positions of version {version}; this build reads up to {VERSION}"
            )));
        }
        let count = decoder.varint("count of positions")?;
        let mut stores = BTreeMap::new();
        // Each takes bytes, so a wild count ends at the end of the bytes.
        for _ in 0..count {
            let store = decoder.str("store of a position")?.to_owned();
            let mut kind = Kind::KeyValue;
            let mut unproved = 0;
            if version == VERSION {
                kind = Kind::from_number(decoder.u8("kind of a store")?)?;
                unproved = decoder.varint("offsets not proved")?;
            }
            let dropped_below = Offset(decoder.varint("dropped tombstones")?);
            let position = Position::decode(decoder.bytes("position")?)?;
            let since = position.next.0.checked_sub(unproved).map(Offset);
            let since = since.ok_or_else(|| Error::corruption("a reading from below offset 0"))?;
            stores.insert(
                store,
                Covered {
                    position,
                    dropped_below,
                    since,
                    kind,
                },
            );
        }
        decoder.finish("positions")?;
        Ok(Self { stores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changelog::{Owner, Partition};
    use crate::error::ErrorKind;

    fn position() -> Position {
        Position {
            cluster: "c".into(),
            topic_id: [3; 16],
            partition: Partition::new("t", 2),
            next: Offset(77),
            leader_epoch: 4,
            owner: Owner { id: 5, epoch: 6 },
            time_ms: 1_700_000_000_000,
        }
    }

    fn covered(kind: Kind) -> Covered {
        Covered {
            position: position(),
            dropped_below: Offset(9),
            since: position().next,
            kind,
        }
    }

    #[test]
    fn positions_round_trip_and_cut_ones_are_refused() {
        for kind in [Kind::KeyValue, Kind::Timestamped] {
            let mut positions = Positions::default();
            positions.set("a", covered(Kind::KeyValue));
            positions.set("b", covered(kind));
            let next = Offset(78);
            positions.advance("a", Position { next, ..position() });
            let bytes = positions.encode();
            let back = Positions::decode(&bytes).unwrap();
            assert_eq!(back, positions);
            assert_eq!(back.get("a").unwrap().position.next, next);
            assert_eq!(back.get("a").unwrap().dropped_below, Offset(9));
            assert_eq!(back.get("b").unwrap().kind, kind);
            for len in 0..bytes.len() {
                assert!(Positions::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn the_stored_forms_never_change() {
        let of = |kind| {
            let mut positions = Positions::default();
            positions.set("s", covered(kind));
            positions.encode()
        };
        let encoded = position().encode();
        let len = u8::try_from(encoded.len()).unwrap();
        let plain = [&[1, 1, 1, b's', 9, len][..], &encoded].concat();
        assert_eq!(of(Kind::KeyValue), plain);
        let timestamped = [&[2, 1, 1, b's', 1, 0, 9, len][..], &encoded].concat();
        assert_eq!(of(Kind::Timestamped), timestamped);
        let mut positions = Positions::default();
        let since = Offset(7);
        positions.set(
            "s",
            Covered {
                since,
                ..covered(Kind::KeyValue)
            },
        );
        let unproved = [&[2, 1, 1, b's', 0, 70, 9, len][..], &encoded].concat();
        assert_eq!(positions.encode(), unproved);
        assert_eq!(Positions::decode(&unproved).unwrap(), positions);
        let below_zero = [&[2, 1, 1, b's', 0, 78, 9, len][..], &encoded].concat();
        let error = Positions::decode(&below_zero).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }

    #[test]
    fn other_versions_and_kinds_are_unsupported() {
        let mut positions = Positions::default();
        positions.set("s", covered(Kind::Timestamped));
        let bytes = positions.encode();
        for (at, byte) in [(0, 0), (0, 3), (4, 2)] {
            let mut other = bytes.clone();
            other[at] = byte;
            let error = Positions::decode(&other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
}
