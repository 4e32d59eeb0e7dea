//! Input positions that wait for a commit.

use std::collections::BTreeMap;

use crate::changelog::RecordRef;

/// The newest position of each input, with the room that their records need in the changelog.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    positions: BTreeMap<String, u64>,
    /// Kept beside the positions: every write asks for it.
    room: u64,
}

impl Inputs {
    pub(super) fn get(&self, source: &str) -> Option<u64> {
        self.positions.get(source).copied()
    }

    /// Sets the position of an input; the newest one counts.
    pub(super) fn set(&mut self, source: &str, position: u64) {
        if let Some(known) = self.positions.get_mut(source) {
            *known = position;
            return;
        }
        self.room += room_of(source);
        self.positions.insert(source.to_owned(), position);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, u64)> {
        self.positions
            .iter()
            .map(|(source, position)| (source, *position))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// What the records of all of them count in the changelog.
    pub(super) fn room(&self) -> u64 {
        self.room
    }
}

/// What the record of an input's position counts in the changelog.
pub(super) fn room_of(source: &str) -> u64 {
    RecordRef::new(source.as_bytes(), Some(&[0; 8])).size()
}
