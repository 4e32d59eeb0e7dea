//! How far the tables of a task cover each of its changelog partitions: one value, which the
//! manifest keeps beside the tables.

use std::collections::BTreeMap;

use crate::changelog::{Offset, Position};
use crate::coding::{Decoder, put_bytes, put_varint};
use crate::error::{Error, Result};

/// The version of the encoded form; layout in `docs/format.md`, section "Position".
const VERSION: u8 = 1;

/// What is covered of one store's partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Covered {
    /// Its time is that of the oldest read which it rests on: in the midst of a restore, when that
    /// began, for a tombstone may have been dropped since.
    pub(super) position: Position,
    /// The log had dropped tombstones up to here when what is covered was begun to be read. None
    /// of those matters any more.
    pub(super) dropped_below: Offset,
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
        match self.stores.get_mut(store) {
            Some(covered) => covered.position = position,
            None => self.set(
                store,
                Covered {
                    position,
                    dropped_below: Offset(0),
                },
            ),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.stores.keys().map(String::as_str)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.stores.len() as u64);
        for (store, covered) in &self.stores {
            put_bytes(&mut out, store.as_bytes());
            put_varint(&mut out, covered.dropped_below.0);
            put_bytes(&mut out, &covered.position.encode());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8("version of positions")?;
        if version != VERSION {
            return Err(Error::unsupported(format!(
                "positions of version {version}; this build reads {VERSION}"
            )));
        }
        let count = decoder.varint("count of positions")?;
        let mut stores = BTreeMap::new();
        // Each takes bytes, so a wild count ends at the end of the bytes.
        for _ in 0..count {
            let store = decoder.str("store of a position")?.to_owned();
            let dropped_below = Offset(decoder.varint("dropped tombstones")?);
            let position = Position::decode(decoder.bytes("position")?)?;
            stores.insert(
                store,
                Covered {
                    position,
                    dropped_below,
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

    #[test]
    fn positions_round_trip_and_cut_ones_are_refused() {
        let position = Position {
            cluster: "c".into(),
            topic_id: [3; 16],
            partition: Partition::new("t", 2),
            next: Offset(77),
            leader_epoch: 4,
            owner: Owner { id: 5, epoch: 6 },
            time_ms: 1_700_000_000_000,
        };
        let mut positions = Positions::default();
        positions.set(
            "a",
            Covered {
                position: position.clone(),
                dropped_below: Offset(9),
            },
        );
        positions.advance("b", position.clone());
        positions.advance(
            "a",
            Position {
                next: Offset(78),
                ..position
            },
        );
        let bytes = positions.encode();
        let back = Positions::decode(&bytes).unwrap();
        assert_eq!(back, positions);
        assert_eq!(back.get("a").unwrap().position.next, Offset(78));
        assert_eq!(back.get("a").unwrap().dropped_below, Offset(9));
        for len in 0..bytes.len() {
            assert!(Positions::decode(&bytes[..len]).is_err());
        }
    }
}
