//! Models of readers and walks beside the writer, in interleavings that a model checker chooses.
//! `docs/testing.md` tells how to run them. Nodes have three slots here, so that a few writes
//! split all levels. The list of fences is crossbeam's own: what happens within one of its calls
//! is not interleaved; what happens between them is.

use shuttle::rand::Rng as _;
use shuttle::rand::thread_rng as random;

use super::*;
use crate::cache::MemoryBudget;
use crate::key::Cursor;
use crate::sync::{Arc, check_model, thread};

/// Versions of a few keys: what each sequence number writes is settled beforehand.
struct History {
    memtable: Arc<Memtable>,
    /// The key of each write, the first of which has sequence number 1.
    written: Vec<u8>,
    visible: AtomicU64,
}

impl History {
    /// A history of which `before` writes are done.
    fn new(before: usize, beside: usize) -> Arc<Self> {
        let account = MemoryBudget::new(1 << 30).open_free_account();
        let keys = random().gen_range(1..40_u8);
        let pattern = random().gen_range(0..4_u8);
        let written = (0..before + beside).map(|number| {
            let number = u8::try_from(number).expect("few writes") % keys;
            match pattern {
                0 => number,
                1 => keys - 1 - number,
                _ => random().gen_range(0..keys),
            }
        });
        let history = Self {
            memtable: Arc::new(Memtable::new(account.charge())),
            written: written.collect(),
            visible: AtomicU64::new(0),
        };
        history.write(0..before);
        Arc::new(history)
    }

    fn key(number: u8) -> [u8; 9] {
        let mut key = *b"a key   .";
        key[7] = number;
        key
    }

    fn write(&self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let seqno = number as u64 + 1;
            let user = Self::key(self.written[number]);
            let key = InternalKey::new(&user, SeqNo(seqno), ValueKind::Put);
            self.memtable.insert(key, &seqno.to_le_bytes(), 1);
            self.visible.store(seqno, Ordering::Release);
        }
    }

    /// Every version up to `at` of every key, in order.
    fn expected(&self, at: u64) -> Vec<(u8, u64)> {
        let mut all: Vec<_> = self.written.iter().copied().zip(1..=at).collect();
        all.sort_by_key(|(key, seqno)| (*key, u64::MAX - seqno));
        all
    }

    fn get_all(&self) {
        for key in 0..40 {
            let at = self.visible.load(Ordering::Acquire);
            let expected = self
                .expected(at)
                .into_iter()
                .find(|(found, _)| *found == key);
            let found = self.memtable.get(&Self::key(key), SeqNo(at), &[]);
            let found = found.map(|(_, value)| value.to_vec());
            let expected = expected.map(|(_, seqno)| seqno.to_le_bytes().to_vec());
            assert_eq!(found, expected, "key {key} at {at}");
        }
    }

    fn walk(&self, forward: bool) {
        let at = self.visible.load(Ordering::Acquire);
        let mut cursor = MemtableCursor::new(Arc::clone(&self.memtable));
        if forward {
            cursor.seek_to_first().expect("no I/O");
        } else {
            cursor.seek_to_last().expect("no I/O");
        }
        let mut found = Vec::new();
        while cursor.is_valid() {
            let key = cursor.key();
            if key.seqno() <= SeqNo(at) {
                found.push((key.user[7], key.seqno().0));
            }
            if forward {
                cursor.next().expect("no I/O");
            } else {
                cursor.prev().expect("no I/O");
            }
        }
        if !forward {
            found.reverse();
        }
        assert_eq!(
            found,
            self.expected(at),
            "a walk at {at}, forward: {forward}"
        );
    }
}

fn beside_a_writer(read: impl Fn(&History) + Send + Sync + Copy + 'static) {
    check_model(move || {
        let (before, beside) = (random().gen_range(0..50), 4);
        let history = History::new(before, beside);
        let reader = {
            let history = Arc::clone(&history);
            thread::spawn(move || read(&history))
        };
        history.write(before..before + beside);
        reader.join().expect("the reader ends");
        read(&history);
    });
}

#[test]
fn a_get_finds_what_is_visible_while_nodes_are_split() {
    beside_a_writer(History::get_all);
}

#[test]
fn a_walk_sees_each_version_once_while_nodes_are_split() {
    beside_a_writer(|history| history.walk(true));
}

#[test]
fn a_walk_back_sees_each_version_once_while_nodes_are_split() {
    beside_a_writer(|history| history.walk(false));
}
