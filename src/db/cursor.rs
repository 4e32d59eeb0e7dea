//! [`Cursor`]: a position among the entries of a keyspace that can be placed anywhere.

use crate::error::{Error, Result};
use crate::key::{InternalKey, SeqNo};
use crate::slice::Slice;

use super::Db;
use super::snapshot::ReadPoint;
use super::walk::{Keeping, Walk};

/// A position among the entries of a keyspace: placed anywhere, moved in either direction, and
/// read without copying.
///
/// A cursor sees the moment at which it was made, whatever is written meanwhile, and keeps what it
/// needs alive until it is dropped. It begins on no entry. Moving beyond either end leaves it on no
/// entry, and so does an error; then it has to be placed anew.
///
/// Placing a cursor again is cheaper than making another one. For a walk between two keys there is
/// [`Keyspace::range`](super::Keyspace::range).
///
/// ```
/// # fn main() -> siltstone::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use siltstone::{Db, KeyspaceOptions, Options};
/// let db = Db::open(dir.path().join("db"), Options::new())?;
/// let fruit = db.keyspace("fruit", KeyspaceOptions::new())?;
/// for (name, count) in [("apple", "1"), ("cherry", "2"), ("plum", "3")] {
///     fruit.put(name, count)?;
/// }
/// let mut cursor = fruit.cursor()?;
/// cursor.seek("b")?;
/// assert_eq!(cursor.entry(), Some((&b"cherry"[..], &b"2"[..])));
/// cursor.next()?;
/// assert_eq!(cursor.key(), Some(&b"plum"[..]));
/// cursor.next()?;
/// assert_eq!(cursor.key(), None);
/// cursor.seek_for_prev("b")?;
/// assert_eq!(cursor.key(), Some(&b"apple"[..]));
/// # drop(cursor);
/// # db.close()
/// # }
/// ```
pub struct Cursor {
    db: Db,
    walk: Walk,
}

impl Cursor {
    /// A cursor at a snapshot's point.
    pub(super) fn new(db: &Db, id: u32, point: ReadPoint) -> Result<Self> {
        let inner = db.inner();
        inner.health.check_read()?;
        let view = inner.view();
        inner.aborts.check(point.seqno, point.aborts)?;
        let walk = Walk::new(inner, view, id, point, Keeping::Copied)?;
        Ok(Self {
            db: db.clone(),
            walk,
        })
    }

    /// A cursor at the newest point.
    pub(super) fn newest(db: &Db, id: u32) -> Result<Self> {
        let inner = db.inner();
        inner.health.check_read()?;
        let (view, point) = inner.read_point();
        let walk = Walk::new(inner, view, id, point, Keeping::Copied)?;
        Ok(Self {
            db: db.clone(),
            walk,
        })
    }

    /// True if the cursor is on an entry.
    pub fn is_valid(&self) -> bool {
        self.walk.is_valid()
    }

    /// The key of the entry that the cursor is on, until it moves.
    pub fn key(&self) -> Option<&[u8]> {
        self.is_valid().then(|| self.walk.key())
    }

    /// The value of the entry that the cursor is on, until it moves.
    pub fn value(&self) -> Option<&[u8]> {
        self.is_valid().then(|| self.walk.value())
    }

    /// Key and value of the entry that the cursor is on, until it moves.
    pub fn entry(&self) -> Option<(&[u8], &[u8])> {
        self.is_valid()
            .then(|| (self.walk.key(), self.walk.value()))
    }

    /// The value of the entry that the cursor is on, to be kept; without a copy where it lies in a
    /// table.
    pub fn value_slice(&self) -> Option<Slice> {
        self.is_valid().then(|| self.walk.value_slice())
    }

    /// Goes to the first entry.
    ///
    /// # Errors
    ///
    /// `Closed`, `Corruption`, `Io`; `Aborted` if the cursor saw writes that have been aborted
    /// since.
    pub fn seek_to_first(&mut self) -> Result<()> {
        self.moved(Walk::seek_to_first)
    }

    /// Goes to the last entry.
    ///
    /// # Errors
    ///
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek_to_last(&mut self) -> Result<()> {
        self.moved(Walk::seek_to_last)
    }

    /// Goes to the first entry whose key is `key` or behind it.
    ///
    /// # Errors
    ///
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let target = InternalKey::seek_to(key.as_ref(), SeqNo::MAX);
        self.moved(|walk| walk.seek(target))
    }

    /// Goes to the last entry whose key is `key` or before it.
    ///
    /// # Errors
    ///
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        let target = InternalKey::behind(key.as_ref());
        self.moved(|walk| walk.seek_for_prev(target))
    }

    /// Goes to the next entry in key order.
    ///
    /// # Errors
    ///
    /// As [`seek_to_first`](Self::seek_to_first); `InvalidArgument` if the cursor is on no entry.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not lend what the cursor is on"
    )]
    pub fn next(&mut self) -> Result<()> {
        self.check_valid()?;
        self.moved(Walk::next)
    }

    /// Goes to the entry before.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn prev(&mut self) -> Result<()> {
        self.check_valid()?;
        self.moved(Walk::prev)
    }

    fn check_valid(&self) -> Result<()> {
        if self.is_valid() {
            return Ok(());
        }
        Err(Error::invalid("the cursor is on no entry: seek first"))
    }

    fn moved(&mut self, step: impl FnOnce(&mut Walk) -> Result<()>) -> Result<()> {
        let inner = self.db.inner();
        let point = self.walk.point();
        let result = inner
            .health
            .check_read()
            .and_then(|()| inner.aborts.check(point.seqno, point.aborts))
            .and_then(|()| step(&mut self.walk));
        if result.is_err() {
            self.walk.leave();
        }
        result
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("seqno", &self.walk.point().seqno)
            .field("key", &self.key().map(|key| key.escape_ascii().to_string()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::db::Keyspace;
    use crate::db::tests::runtime;
    use crate::env::sim::SimEnv;
    use crate::error::ErrorKind;
    use crate::options::{KeyspaceOptions, Options};
    use crate::sync::Arc;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (self.0 >> 33) % bound
        }

        fn key(&mut self) -> Vec<u8> {
            let len = usize::try_from(1 + self.below(3)).unwrap();
            (0..len)
                .map(|_| b"abcde"[usize::try_from(self.below(5)).unwrap()])
                .collect()
        }
    }

    /// A store whose work is done by callers, small enough for all levels to be used.
    fn open() -> (Db, Keyspace) {
        let env = SimEnv::new(1);
        let runtime = runtime(&env);
        let options = Options::new().env(Arc::new(env));
        let options = options.memtable_bytes_max(4 << 10);
        let db = Db::open_with("/db", options, &runtime).unwrap();
        let small = KeyspaceOptions::new()
            .block_bytes(64)
            .table_bytes(1 << 10)
            .level_ratio(2);
        let keyspace = db.keyspace("a", small).unwrap();
        (db, keyspace)
    }

    fn change(random: &mut Random, db: &Db, keyspace: &Keyspace, model: &mut Model) {
        for _ in 0..random.below(60) {
            let key = random.key();
            if random.below(3) == 0 {
                keyspace.delete(&key).unwrap();
                model.remove(&key);
            } else {
                // Some longer than what a walk backwards copies.
                let len = usize::try_from(random.below(40) * random.below(40)).unwrap();
                let value = vec![u8::try_from(random.below(256)).unwrap(); len];
                keyspace.put(&key, &value).unwrap();
                model.insert(key, value);
            }
        }
        match random.below(6) {
            0 => keyspace.compact().unwrap(),
            1 | 2 => db.flush().unwrap(),
            _ => {}
        }
    }

    /// The entry before or behind `key` in the model, or at it.
    fn near(model: &Model, key: &[u8], forward: bool, inclusive: bool) -> Option<Vec<u8>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let at = if inclusive {
            Included(key)
        } else {
            Excluded(key)
        };
        let found = if forward {
            model.range::<[u8], _>((at, Unbounded)).next()
        } else {
            model.range::<[u8], _>((Unbounded, at)).next_back()
        };
        found.map(|(key, _)| key.clone())
    }

    fn walk_about(random: &mut Random, cursor: &mut Cursor, model: &Model) {
        let mut place: Option<Vec<u8>> = None;
        for _ in 0..200 {
            let target = random.key();
            place = match random.below(10) {
                0 => {
                    cursor.seek(&target).unwrap();
                    near(model, &target, true, true)
                }
                1 => {
                    cursor.seek_for_prev(&target).unwrap();
                    near(model, &target, false, true)
                }
                2 => {
                    cursor.seek_to_first().unwrap();
                    model.keys().next().cloned()
                }
                3 => {
                    cursor.seek_to_last().unwrap();
                    model.keys().next_back().cloned()
                }
                other => {
                    let forward = other > 6;
                    let moved = if forward {
                        cursor.next()
                    } else {
                        cursor.prev()
                    };
                    assert_eq!(moved.is_ok(), place.is_some());
                    place.and_then(|key| near(model, &key, forward, false))
                }
            };
            let expected = place.as_ref().map(|key| (&key[..], &model[key][..]));
            assert_eq!(cursor.entry(), expected);
            assert_eq!(cursor.value_slice().as_deref(), cursor.value());
        }
    }

    #[test]
    fn goes_wherever_a_map_goes() {
        for seed in 1..=40 {
            eprintln!("seed {seed}");
            let mut random = Random(seed);
            let (db, keyspace) = open();
            let mut model = Model::new();
            for _ in 0..12 {
                change(&mut random, &db, &keyspace, &mut model);
                let (snapshot, then) = (db.snapshot().unwrap(), model.clone());
                let mut newest = keyspace.cursor().unwrap();
                change(&mut random, &db, &keyspace, &mut model);
                walk_about(&mut random, &mut newest, &then);
                let mut older = snapshot.cursor(&keyspace).unwrap();
                walk_about(&mut random, &mut older, &then);
            }
        }
    }

    #[test]
    fn misuse_is_told_and_changes_nothing() {
        let (db, keyspace) = open();
        keyspace.put("a", "1").unwrap();
        let mut cursor = keyspace.cursor().unwrap();
        assert_eq!((cursor.key(), cursor.value()), (None, None));
        assert_eq!(
            cursor.next().unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            cursor.prev().unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        cursor.seek("").unwrap();
        assert_eq!(cursor.key(), Some(&b"a"[..]));
        cursor.seek_for_prev("").unwrap();
        assert!(!cursor.is_valid());
        cursor.seek_to_first().unwrap();
        db.close().unwrap();
        assert_eq!(cursor.next().unwrap_err().kind(), ErrorKind::Closed);
        assert!(!cursor.is_valid());
        assert_eq!(keyspace.cursor().unwrap_err().kind(), ErrorKind::Closed);
        let (other, _) = open();
        let snapshot = other.snapshot().unwrap();
        let error = snapshot.cursor(&keyspace).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}
