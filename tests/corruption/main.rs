//! Damaged files: an error that names the file, or the right answer; never a wrong answer, a
//! panic, a hang, or memory out of proportion to the files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod flipped_reads;
mod forge;
mod forged;
mod journals;
mod memory;
mod newer;
mod store;
#[path = "../watchdog/mod.rs"]
mod watchdog;
mod whole_files;

use store::{Seen, Store, look, named};
use watchdog::within;

/// Damages one file in every way of `damages`, and looks at what the store says.
fn damage_each(
    store: &Store,
    name: &str,
    damages: impl Iterator<Item = (String, Vec<u8>)>,
    mut judge: impl FnMut(&str, &Seen),
) {
    let runtime = store::runtime();
    for (what, bytes) in damages {
        let env = store.copy();
        env.set_file_bytes(&store::path(name), bytes);
        let what = format!("{name}: {what}");
        let seen = look(&env, &runtime, &store.contents, &what);
        judge(&what, &seen);
    }
}

/// Every byte inverted, and of every third byte one bit after the other.
fn flips(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    (0..bytes.len()).flat_map(move |pos| {
        let sampled = (pos % 3 == 0).then_some(1_u8 << (pos / 3 % 8));
        [Some(0xff), sampled]
            .into_iter()
            .flatten()
            .map(move |mask| {
                let mut damaged = bytes.to_vec();
                damaged[pos] ^= mask;
                (format!("byte {pos} xor {mask:02x}"), damaged)
            })
    })
}

/// The store's files have what the other tests rely on.
#[test]
fn the_store_has_what_it_should() {
    let store = Store::build(1);
    let seen = look(&store.copy(), &store::runtime(), &store.contents, "intact");
    assert!(seen.errors.is_empty(), "{:?}", seen.errors);
    assert!(seen.entries > 0);
    let levels: Vec<usize> = store.stats.levels.iter().map(|it| it.tables).collect();
    assert!(levels[0] > 0, "{}", store.stats);
    assert!(
        levels[1..].iter().filter(|count| **count > 0).count() >= 2,
        "{}",
        store.stats
    );
    assert!(store.stats.levels.iter().any(|it| it.tombstones > 0));
    assert!(store.stats.memtable_bytes > 0, "the log has a tail");
    assert_eq!(store.contents.len(), 2);
    assert!(store.contents.values().all(|map| map.len() > 10));
    let compressions: Vec<Vec<u8>> = store
        .names(".sst")
        .iter()
        .map(|name| forge::Table::parse(&store.bytes(name)).compressions())
        .collect();
    assert!(
        compressions.iter().any(|of_table| of_table.contains(&1)),
        "LZ4 blocks"
    );
    assert!(
        compressions.iter().any(|of_table| !of_table.contains(&1)),
        "raw tables"
    );
    let wal = store.names(".wal");
    assert!(wal.len() >= 2, "{wal:?}");
    let total: usize = store
        .all_names()
        .iter()
        .map(|name| store.bytes(name).len())
        .sum();
    assert!(
        total < 24 << 10,
        "{total} bytes take too long to flip one by one"
    );
}

#[test]
fn every_flip_in_a_table_is_found() {
    within(120, || {
        let store = Store::build(1);
        for name in store.names(".sst") {
            damage_each(&store, &name, flips(&store.bytes(&name)), |what, seen| {
                assert!(
                    !seen.refused,
                    "{what}: tables are read when they are needed"
                );
                assert!(seen.verify_failed, "{what}: not found");
                named(seen, &name, what);
            });
        }
    });
}

#[test]
fn every_flip_in_a_journal_is_found_after_a_clean_close() {
    within(120, || {
        let store = Store::build(1);
        let journals = [store.names(".wal"), store.names("MANIFEST")].concat();
        for name in journals {
            let bytes = store.bytes(&name);
            // A segment without records, which the close has left, holds nothing to lose.
            let is_empty = bytes.len() <= forge::SEGMENT_HEADER_LEN;
            damage_each(&store, &name, flips(&bytes), |what, seen| {
                assert!(seen.refused || is_empty, "{what}: not found");
                named(seen, &name, what);
            });
        }
    });
}

#[test]
fn a_flip_in_current_is_harmless() {
    within(120, || {
        let store = Store::build(1);
        let bytes = store.bytes("CURRENT");
        damage_each(&store, "CURRENT", flips(&bytes), |what, seen| {
            assert!(seen.errors.is_empty(), "{what}: {:?}", seen.errors);
        });
        let both = (0..bytes.len() / 2).map(|pos| {
            let mut damaged = bytes.clone();
            damaged[pos] ^= 0xff;
            damaged[pos + bytes.len() / 2] ^= 0xff;
            (format!("byte {pos} of both copies"), damaged)
        });
        damage_each(&store, "CURRENT", both, |what, seen| {
            assert!(seen.refused, "{what}: not found");
            named(seen, "CURRENT", what);
        });
    });
}

#[test]
fn every_cut_is_found() {
    within(120, || {
        let store = Store::build(1);
        for name in store.all_names() {
            let bytes = store.bytes(&name);
            let is_empty = name.contains(".wal") && bytes.len() <= forge::SEGMENT_HEADER_LEN;
            let cuts = (0..bytes.len()).map(|len| (format!("cut to {len}"), bytes[..len].to_vec()));
            damage_each(&store, &name, cuts, |what, seen| {
                // One whole copy of CURRENT suffices, and an unused segment is not missed.
                let len: usize = what.rsplit(' ').next().unwrap().parse().unwrap();
                let is_harmless = is_empty || name == "CURRENT" && len >= bytes.len() / 2;
                assert!(seen.refused || is_harmless, "{what}: not found");
                named(seen, &name, what);
            });
        }
    });
}

#[test]
fn bytes_behind_the_end_are_found_or_cut() {
    within(120, || {
        let store = Store::build(1);
        for name in store.all_names() {
            let bytes = store.bytes(&name);
            let longer = [1, 20, 600, 5000].into_iter().flat_map(|more| {
                [0_u8, 0xff, 0x5a].map(|byte| {
                    let mut longer = bytes.clone();
                    longer.resize(bytes.len() + more, byte);
                    (format!("{more} bytes {byte:02x} behind the end"), longer)
                })
            });
            damage_each(&store, &name, longer, |what, seen| {
                named(seen, &name, what);
                let is_journal = name.contains(".wal") || name.starts_with("MANIFEST");
                assert!(seen.errors.is_empty() || !is_journal, "{what}: a torn tail");
            });
        }
    });
}
