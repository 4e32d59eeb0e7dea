//! Files of a newer format: told as such, with the version, and left alone.

use siltstone::ErrorKind;

use super::forge::{Segment, Table, forged_current};
use super::store::{self, Store, look, path};

/// Positions of format versions; see `docs/format.md`.
const CURRENT_VERSION_POS: usize = 8;
const SEGMENT_VERSION_POS: usize = 8;
const TABLE_VERSION_FROM_END: usize = 4 + 8 + 4;

fn refused(store: &Store, name: &str, bytes: Vec<u8>) {
    let env = store.copy();
    env.set_file_bytes(&path(name), bytes);
    let before = env.content_hash();
    let seen = look(&env, &store::runtime(), &store.contents, name);
    assert!(!seen.errors.is_empty(), "{name}: nothing was told");
    for error in &seen.errors {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains(name), "{name}: {error}");
        assert!(text.contains(" 9"), "{name}: no version is told: {error}");
    }
    if seen.refused {
        assert_eq!(env.content_hash(), before, "{name}: something was changed");
    }
}

#[test]
fn newer_formats_are_told_by_their_version() {
    let store = Store::build(1);
    let current = store.bytes("CURRENT");
    let newer = forged_current(&current, |copy| copy[CURRENT_VERSION_POS] = 9);
    refused(&store, "CURRENT", newer);
    for name in [store.names(".wal"), store.names("MANIFEST")].concat() {
        let segment = Segment::parse(&store.bytes(&name));
        let newer = segment.forged(|bytes| bytes[SEGMENT_VERSION_POS] = 9);
        refused(&store, &name, newer);
    }
    for name in store.names(".sst") {
        let table = Table::parse(&store.bytes(&name));
        let newer = table.forged(|bytes| {
            let pos = bytes.len() - TABLE_VERSION_FROM_END;
            bytes[pos] = 9;
        });
        refused(&store, &name, newer);
    }
}
