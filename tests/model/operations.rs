//! What is done to a store, as data that proptest can make and shrink.

use std::ops::Bound;

use proptest::prelude::*;

/// Keyspaces that the operations use.
pub(crate) const KEYSPACES: usize = 2;

/// A key that is easy to draw twice: from a small set of shapes and numbers.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    /// No key, but a bound or prefix.
    Empty,
    Short(u8),
    /// A long prefix in common, differing at the end.
    Shared(u8),
    /// Up to 300 bytes, differing in length and at the end.
    Long(u8),
    /// Bytes that have no successor.
    Ones(u8),
    Zeros(u8),
    /// The longest that is allowed.
    Huge(u8),
    Any(Vec<u8>),
}

impl Key {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Short(number) => vec![b'a' + number % 20],
            Self::Shared(number) => format!("store/shared/prefix/{number:03}").into_bytes(),
            Self::Long(number) => {
                let mut key = vec![b'l'; 20 + usize::from(*number)];
                key.push(*number);
                key
            }
            Self::Ones(number) => {
                let mut key = vec![0xff; usize::from(number % 4) + 1];
                if *number >= 128 {
                    key.push(number % 3);
                }
                key
            }
            Self::Zeros(number) => vec![0; usize::from(number % 4) + 1],
            Self::Huge(number) => {
                let mut key = vec![b'h'; siltstone::KEY_LEN_MAX];
                *key.last_mut().unwrap() = number % 2;
                key
            }
            Self::Any(bytes) => bytes.clone(),
        }
    }
}

pub(crate) fn any_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        4 => (0..20_u8).prop_map(Key::Short),
        10 => any::<u8>().prop_map(Key::Shared),
        6 => any::<u8>().prop_map(Key::Long),
        2 => any::<u8>().prop_map(Key::Ones),
        1 => any::<u8>().prop_map(Key::Zeros),
        1 => prop::collection::vec(any::<u8>(), 1..6).prop_map(Key::Any),
    ]
}

fn written_key() -> impl Strategy<Value = Key> {
    prop_oneof![60 => any_key(), 1 => any::<u8>().prop_map(Key::Huge)]
}

fn bound_key() -> impl Strategy<Value = Key> {
    prop_oneof![
        12 => any_key(),
        1 => Just(Key::Empty),
        1 => any::<u8>().prop_map(Key::Huge),
    ]
}

/// A value by its length and where its bytes start from.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) len: usize,
    pub(crate) seed: u8,
    pub(crate) is_noise: bool,
}

impl Value {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut state = u32::from(self.seed) + 1;
        (0..self.len)
            .map(|_| {
                if !self.is_noise {
                    return self.seed;
                }
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3]
            })
            .collect()
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let len = prop_oneof![
        1 => Just(0),
        10 => 1..60_usize,
        4 => 60..600_usize,
        1 => 4000..4200_usize,
        1 => 600..10_240_usize,
    ];
    (len, any::<u8>(), any::<bool>()).prop_map(|(len, seed, is_noise)| Value {
        len,
        seed,
        is_noise,
    })
}

#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) keyspace: usize,
    pub(crate) key: Key,
    /// `None` deletes.
    pub(crate) value: Option<Value>,
}

fn any_write() -> impl Strategy<Value = Write> {
    let value = prop::option::weighted(0.75, any_value());
    (0..KEYSPACES, written_key(), value).prop_map(|(keyspace, key, value)| Write {
        keyspace,
        key,
        value,
    })
}

/// Which entries are asked for.
#[derive(Debug, Clone)]
pub(crate) enum Span {
    Range(Bound<Key>, Bound<Key>),
    Prefix(Key),
}

fn any_bound() -> impl Strategy<Value = Bound<Key>> {
    prop_oneof![
        2 => bound_key().prop_map(Bound::Included),
        2 => bound_key().prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn any_span() -> impl Strategy<Value = Span> {
    // A shorter key than those that are written, so that it is the prefix of some.
    let prefix = (bound_key(), any::<prop::sample::Index>()).prop_map(|(key, cut)| {
        let mut bytes = key.bytes();
        bytes.truncate(cut.index(bytes.len() + 1));
        Key::Any(bytes)
    });
    prop_oneof![
        3 => (any_bound(), any_bound()).prop_map(|(low, high)| Span::Range(low, high)),
        1 => prop_oneof![prefix, bound_key()].prop_map(Span::Prefix),
    ]
}

/// From which end the entries of a range are taken, one after the other, over and over.
pub(crate) type Ends = Vec<bool>;

fn any_ends() -> impl Strategy<Value = Ends> {
    prop_oneof![
        Just(vec![true]),
        Just(vec![false]),
        prop::collection::vec(any::<bool>(), 1..12),
    ]
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write {
        writes: Vec<Write>,
        is_synced: bool,
    },
    /// Many writes of one shape, to fill memtables.
    Fill {
        keyspace: usize,
        first: u8,
        count: u8,
        value: Value,
    },
    Get {
        keyspace: usize,
        key: Key,
        snapshot: Option<usize>,
    },
    Scan {
        keyspace: usize,
        span: Span,
        ends: Ends,
        snapshot: Option<usize>,
    },
    /// A range of which some entries are taken now, and the rest after later operations.
    Hold {
        keyspace: usize,
        span: Span,
        ends: Ends,
        taken: usize,
    },
    Resume(usize),
    Snapshot,
    Forget(usize),
    Sync,
    Flush,
    Compact(usize),
    Work(u8),
    Recreate(usize),
    Reopen,
    Kill,
    Verify,
}

pub(crate) fn any_op() -> impl Strategy<Value = Op> {
    let keyspace = || 0..KEYSPACES;
    let snapshot = || prop::option::of(0..4_usize);
    let write = (prop::collection::vec(any_write(), 1..12), any::<bool>())
        .prop_map(|(writes, is_synced)| Op::Write { writes, is_synced });
    let fill = (keyspace(), any::<u8>(), 1..80_u8, any_value()).prop_map(
        |(keyspace, first, count, mut value)| {
            value.len %= 300;
            Op::Fill {
                keyspace,
                first,
                count,
                value,
            }
        },
    );
    let get = (keyspace(), any_key(), snapshot()).prop_map(|(keyspace, key, snapshot)| Op::Get {
        keyspace,
        key,
        snapshot,
    });
    let scan = (keyspace(), any_span(), any_ends(), snapshot()).prop_map(
        |(keyspace, span, ends, snapshot)| Op::Scan {
            keyspace,
            span,
            ends,
            snapshot,
        },
    );
    let hold = (keyspace(), any_span(), any_ends(), 0..6_usize).prop_map(
        |(keyspace, span, ends, taken)| Op::Hold {
            keyspace,
            span,
            ends,
            taken,
        },
    );
    prop_oneof![
        30 => write,
        10 => fill,
        12 => get,
        16 => scan,
        3 => hold,
        3 => (0..4_usize).prop_map(Op::Resume),
        3 => Just(Op::Snapshot),
        2 => (0..4_usize).prop_map(Op::Forget),
        1 => Just(Op::Sync),
        4 => Just(Op::Flush),
        2 => keyspace().prop_map(Op::Compact),
        8 => (1..6_u8).prop_map(Op::Work),
        1 => keyspace().prop_map(Op::Recreate),
        2 => Just(Op::Reopen),
        2 => Just(Op::Kill),
        1 => Just(Op::Verify),
    ]
}
