//! A bit that flips between disk and memory: what is on the disk stays good.

use super::store::{self, Store, look};
use super::watchdog::within;

/// Each read of a bit that is flipped gives the right answer or an error, and the next open finds
/// all that was there: nothing was cut or replaced for it.
#[test]
fn every_flip_on_the_way_from_the_disk_is_told_or_does_no_harm() {
    within(120, || {
        let store = Store::build(1);
        let runtime = store::runtime();
        let counted = store.copy();
        look(&counted, &runtime, &store.contents, "no flip");
        let (mut told, mut harmless) = (0, 0);
        for read in 0..counted.read_count() {
            // Each time another bit, as the seed of the disk is the same.
            let env = store.copy();
            env.set_read_flip(read);
            let what = format!("a flip in read {read}");
            let seen = look(&env, &runtime, &store.contents, &what);
            for error in &seen.errors {
                let names_a_file = error.to_string().contains(store::DIR);
                assert!(names_a_file, "{what}: {error:?}");
            }
            if seen.errors.is_empty() {
                harmless += 1;
            } else {
                told += 1;
            }
            env.clear_faults();
            let after = look(&env, &runtime, &store.contents, &what);
            assert!(after.errors.is_empty(), "{what}: {:?}", after.errors);
        }
        assert!(told > 50, "{told} told, {harmless} harmless");
    });
}
