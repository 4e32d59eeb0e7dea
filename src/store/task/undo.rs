//! What an abort has to undo in a changelog whose commits are not atomic: the keys that were
//! written since the last commit, for some of their records may have become visible.

use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};

/// Bytes of keys that one commit and the next may write, all told.
const BYTES_MAX: usize = 32 << 20;
/// What a key costs beside its bytes.
const KEY_OVERHEAD: usize = 64;

/// A key, by the index of its store.
pub(super) type Key = (usize, Vec<u8>);

/// Keys written since the last commit that succeeded.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// Of the commit that was sent.
    sent: BTreeSet<Key>,
    /// Written since.
    open: BTreeSet<Key>,
    sent_bytes: usize,
    open_bytes: usize,
}

impl Undo {
    /// Fails if keys of `bytes` in all cannot be noted.
    pub(super) fn check_room(&self, keys: usize, bytes: usize) -> Result<()> {
        let more = keys.saturating_mul(KEY_OVERHEAD).saturating_add(bytes);
        if self.bytes().saturating_add(more) > BYTES_MAX {
            return Err(Error::new(
                ErrorKind::MemoryLimit,
                format!(
                    "the task has written keys of {} bytes since its last commit, of at most \
                     {BYTES_MAX} that it could undo: commit first",
                    self.bytes()
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn note(&mut self, store: usize, key: &[u8]) {
        if self.open.insert((store, key.to_vec())) {
            self.open_bytes += key.len() + KEY_OVERHEAD;
        }
    }

    pub(super) fn wants_commit(&self) -> bool {
        self.bytes() > BYTES_MAX / 2
    }

    /// What was noted belongs to the commit that is sent now.
    pub(super) fn sent(&mut self) {
        self.sent.append(&mut self.open);
        self.sent_bytes += std::mem::take(&mut self.open_bytes);
    }

    /// The commit that was sent has succeeded.
    pub(super) fn committed(&mut self) {
        self.sent.clear();
        self.sent_bytes = 0;
    }

    /// All keys, each once.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.sent.union(&self.open).cloned().collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn bytes(&self) -> usize {
        self.sent_bytes + self.open_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_until_their_commit_succeeds() {
        let mut undo = Undo::default();
        undo.note(0, b"a");
        undo.note(0, b"a");
        undo.sent();
        undo.note(1, b"b");
        undo.note(0, b"a");
        assert_eq!(undo.keys(), [(0, b"a".to_vec()), (1, b"b".to_vec())]);
        undo.committed();
        assert_eq!(undo.keys().len(), 2);
        undo.sent();
        undo.committed();
        assert!(undo.keys().is_empty());
        assert_eq!(undo.bytes(), 0);
        assert!(undo.check_room(1, BYTES_MAX).is_err());
    }
}
