use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::key::Cursor as _;

type Entries = Vec<(Vec<u8>, Trailer, Vec<u8>)>;

fn build(entries: &Entries) -> Vec<u8> {
    let mut builder = Builder::new(4096);
    for (user, trailer, value) in entries {
        builder.add(
            InternalKey {
                user,
                trailer: *trailer,
            },
            value,
        );
    }
    let mut out = Vec::new();
    let estimate = builder.estimated_len();
    builder.finish(&mut out);
    assert_eq!(out.len(), estimate);
    assert!(builder.is_empty() && builder.estimated_len() == 0);
    out
}

/// The newest version of a key that a reader at `seqno` may see.
fn get(block: &Block, user_key: &[u8], seqno: SeqNo) -> Result<Option<(Trailer, Range<usize>)>> {
    let index = block.lower_bound(InternalKey::seek_to(user_key, seqno))?;
    if index == block.entries() {
        return Ok(None);
    }
    block.version_at(index, user_key)
}

fn decode(bytes: Vec<u8>) -> Block {
    Block::decode(Slice::from(bytes)).unwrap()
}

/// Sorted entries over few short keys, so that prefixes, empty suffixes and versions all occur.
fn entries() -> impl Strategy<Value = Entries> {
    let key = vec(prop_oneof![Just(0), Just(b'a'), Just(0xff)], 1..8);
    let versions = btree_map(0..6_u64, (any::<bool>(), vec(any::<u8>(), 0..9)), 1..4);
    (vec(Just(b'p'), 0..5), btree_map(key, versions, 1..40)).prop_map(|(prefix, keys)| {
        let mut entries = Vec::new();
        for (key, versions) in keys {
            let user = [&prefix[..], &key].concat();
            for (seqno, (put, value)) in versions.into_iter().rev() {
                let (kind, value) = if put {
                    (ValueKind::Put, value)
                } else {
                    (ValueKind::Delete, Vec::new())
                };
                entries.push((user.clone(), Trailer::new(SeqNo(seqno), kind), value));
            }
        }
        entries
    })
}

fn expect(cursor: &Cursor, expected: Option<&(Vec<u8>, Trailer, Vec<u8>)>) {
    match expected {
        Some((user, trailer, value)) => {
            assert_eq!(
                cursor.key(),
                InternalKey {
                    user,
                    trailer: *trailer
                }
            );
            assert_eq!(cursor.value(), value);
            assert_eq!(cursor.value_slice(), value);
        }
        None => assert!(!cursor.is_valid()),
    }
}

proptest! {
    #[test]
    fn holds_what_was_added(entries in entries(), probe in vec(0..=255_u8, 0..6), at in 0..7_u64) {
        let block = decode(build(&entries));
        block.check(Repeats::Forbidden).unwrap();
        let mut cursor = Cursor::new(block.clone());
        prop_assert!(!cursor.is_valid());
        cursor.seek_to_first().unwrap();
        for entry in &entries {
            expect(&cursor, Some(entry));
            cursor.next().unwrap();
        }
        expect(&cursor, None);
        cursor.seek_to_last().unwrap();
        for entry in entries.iter().rev() {
            expect(&cursor, Some(entry));
            cursor.prev().unwrap();
        }
        expect(&cursor, None);
        let mut probes: Vec<Vec<u8>> = entries.iter().map(|entry| entry.0.clone()).collect();
        let longer: Vec<_> = probes.iter().map(|key| [key, &[0][..]].concat()).collect();
        probes.extend(longer);
        probes.push(probe);
        for user in &probes {
            let target = InternalKey::seek_to(user, SeqNo(at));
            let key_of = |entry: &(Vec<u8>, Trailer, Vec<u8>)| (entry.0.clone(), entry.1);
            let place = entries.partition_point(|entry| {
                let (user, trailer) = key_of(entry);
                InternalKey { user: &user, trailer } < target
            });
            cursor.seek(target).unwrap();
            expect(&cursor, entries.get(place));
            cursor.seek_for_prev(target).unwrap();
            expect(&cursor, place.checked_sub(1).map(|place| &entries[place]));
            let found = get(&block, user, SeqNo(at)).unwrap();
            let expected = entries.get(place).filter(|entry| entry.0 == *user);
            let found = found.map(|(trailer, value)| (trailer, block.bytes()[value].to_vec()));
            prop_assert_eq!(found, expected.map(|entry| (entry.1, entry.2.clone())));
        }
        for entry in &entries {
            let exact = InternalKey { user: &entry.0, trailer: entry.1 };
            cursor.seek_for_prev(exact).unwrap();
            expect(&cursor, Some(entry));
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        entries in entries(),
        damage in vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = build(&entries);
        for (pos, byte) in damage {
            let pos = usize::from(pos) % bytes.len();
            bytes[pos] = byte;
        }
        walk_all(bytes);
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        walk_all(bytes);
    }
}

#[test]
fn a_tombstone_with_a_value_is_found_by_the_check() {
    let tombstone = Trailer::new(SeqNo(1), ValueKind::Delete);
    for (value, is_sound) in [(Vec::new(), true), (b"1".to_vec(), false)] {
        let block = decode(build(&vec![(b"a".to_vec(), tombstone, value)]));
        assert_eq!(block.check(Repeats::Forbidden).is_ok(), is_sound);
    }
}

/// Touches everything in a block that may be garbage.
fn walk_all(bytes: Vec<u8>) {
    let Ok(block) = Block::decode(Slice::from(bytes)) else {
        return;
    };
    // Garbage of this size cannot claim more: the fixed parts must lie within it.
    assert!(block.entries() < 100_000);
    let _ = block.check(Repeats::Allowed);
    let _ = get(&block, b"ppaa", SeqNo(3));
    let mut key = Vec::new();
    let mut cursor = Cursor::new(block.clone());
    for index in 0..block.entries() {
        let _ = block.copy_key(index, &mut key);
        let _ = block.version_at(index, b"a");
    }
    let _ = cursor.seek(InternalKey::behind(b"ppa"));
    let _ = cursor.seek_for_prev(InternalKey::behind(b"p"));
    let mut moved = cursor.seek_to_first();
    while moved.is_ok() && cursor.is_valid() {
        let _ = (cursor.key(), cursor.value());
        moved = cursor.next();
    }
    assert!(moved.is_ok() || !cursor.is_valid());
}

#[test]
fn truncated_blocks_are_corruption() {
    let trailer = Trailer::new(SeqNo(1), ValueKind::Put);
    let entries: Entries = (0..20)
        .map(|i| (vec![b'k', i], trailer, vec![i; usize::from(i)]))
        .collect();
    let bytes = build(&entries);
    for len in 0..bytes.len() {
        assert!(
            Block::decode(Slice::copy_from(&bytes[..len])).is_err(),
            "{len}"
        );
    }
}

#[test]
fn trailers_take_no_room_where_all_are_zero() {
    let puts = |seqno| -> Entries {
        let trailer = Trailer::new(SeqNo(seqno), ValueKind::Put);
        (0..10).map(|i| (vec![b'k', i], trailer, vec![i])).collect()
    };
    assert_eq!(
        build(&puts(1)).len() - build(&puts(0)).len(),
        10 * TRAILER_LEN
    );
    let deletes = vec![(
        b"k".to_vec(),
        Trailer::new(SeqNo(0), ValueKind::Delete),
        Vec::new(),
    )];
    let block = decode(build(&deletes));
    assert_eq!(
        get(&block, b"k", SeqNo(0)).unwrap().unwrap().0.kind(),
        ValueKind::Delete
    );
}

#[test]
fn large_keys_and_values_need_wide_ends() {
    let trailer = Trailer::new(SeqNo(1), ValueKind::Put);
    let entries: Entries = vec![
        (vec![1; KEY_LEN_MAX], trailer, vec![3; 100_000]),
        (vec![2; KEY_LEN_MAX], trailer, vec![4; 10]),
    ];
    let block = decode(build(&entries));
    assert!(block.wide);
    for (user, _, value) in &entries {
        let (_, range) = get(&block, user, SeqNo(1)).unwrap().unwrap();
        assert_eq!(&block.bytes()[range], value);
    }
}

#[test]
fn a_key_that_ends_the_common_prefix_needs_room_for_all() {
    let mut builder = Builder::new(4096);
    let value = [1; 10];
    for number in 0..20 {
        let user = [&[b'p'; 1000][..], &[number]].concat();
        assert!(builder.has_room_for(&user, &value));
        builder.add(InternalKey::new(&user, SeqNo(1), ValueKind::Put), &value);
    }
    assert!(builder.estimated_len() < 2000);
    assert!(!builder.has_room_for(b"q", &value));
}

#[test]
fn flags_of_newer_formats_are_refused() {
    let mut bytes = build(&vec![(b"k".to_vec(), implied_trailer(), Vec::new())]);
    bytes[6] |= FLAG_HASH_INDEX;
    let error = Block::decode(Slice::copy_from(&bytes)).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
    bytes[6] = 1 << 7;
    assert!(Block::decode(Slice::copy_from(&bytes)).is_err());
}

#[test]
#[should_panic(expected = "added behind")]
fn entries_out_of_order_are_a_bug_of_the_caller() {
    build(&vec![
        (b"b".to_vec(), implied_trailer(), Vec::new()),
        (b"a".to_vec(), implied_trailer(), Vec::new()),
    ]);
}
