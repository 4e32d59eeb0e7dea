//! Concurrency models: threads that append and sync, as a model checker interleaves them.

use super::*;
use crate::env::sim::{FaultKind, FaultPlan, SimEnv};
use crate::sync::{check_model as check, thread};

fn open(env: &SimEnv) -> Arc<Wal> {
    let config = Config {
        env: Arc::new(env.clone()),
        dir: PathBuf::from("db"),
        journal_id: 7,
        segment_bytes_max: 150,
        stage_bytes: 0,
        ahead_bytes: 0,
    };
    Arc::new(Wal::open(config, 0, Lsn::ZERO, &mut |_, _| Ok(())).unwrap())
}

fn new_env() -> SimEnv {
    let env = SimEnv::new(1);
    env.create_dir(Path::new("db")).unwrap();
    env
}

/// Runs three threads that each append and sync twice, and returns what they were told.
fn sync_side_by_side(wal: &Arc<Wal>) -> Vec<Result<()>> {
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let wal = Arc::clone(wal);
            thread::spawn(move || {
                let append_and_sync = || {
                    let lsn = wal.append(&[b"record"], &[], Durability::Synced)?;
                    wal.sync_to(lsn)?;
                    assert!(wal.durable() >= lsn, "told to be durable, and is not");
                    Ok(())
                };
                [append_and_sync(), append_and_sync()]
            })
        })
        .collect();
    threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect()
}

#[test]
fn threads_that_share_syncs_all_come_back_with_what_they_wanted() {
    check(|| {
        let wal = open(&new_env());
        for result in sync_side_by_side(&wal) {
            result.unwrap();
        }
        assert_eq!(wal.durable(), wal.end());
    });
}

#[test]
fn a_failed_sync_is_told_to_all_who_wait_for_it() {
    check(|| {
        let env = new_env();
        let wal = open(&env);
        // Every call from here on, so that no sync succeeds.
        let end = wal.append(&[b"record"], &[], Durability::Synced).unwrap();
        env.set_fault(FaultPlan::starting(env.io_count(), FaultKind::Eio));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let wal = Arc::clone(&wal);
                thread::spawn(move || wal.sync_to(end).unwrap_err().kind())
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), ErrorKind::Poisoned);
        }
        assert_eq!(wal.durable(), Lsn::ZERO);
    });
}
