//! The counts of [`Stats`](siltstone::Stats) against the kernel's: a binary of its own, for the
//! kernel counts what the whole process writes.

#![expect(clippy::print_stdout, reason = "a test may say what it measured")]
#![cfg(target_os = "linux")]

use std::fs;

use siltstone::{Db, KeyspaceOptions, Options, Runtime, RuntimeOptions, Wal};

/// Bytes that this process has handed to system calls that write.
fn kernel_count() -> u64 {
    let text = fs::read_to_string("/proc/self/io").expect("the kernel counts");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|count| count.parse().ok()).expect("a count")
}

fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Overwrites, flushes and compacts. Returns what the store counted and what the kernel did.
fn count(wal: Wal) -> siltstone::Result<(u64, u64)> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = kernel_count();
    let runtime = Runtime::new(RuntimeOptions::new().threads(0))?;
    let options = Options::new().memtable_bytes_max(256 << 10).wal(wal);
    let db = Db::open_with(dir.path().join("store"), options, &runtime)?;
    let keyspace = db.keyspace("words", KeyspaceOptions::new().table_bytes(64 << 10))?;
    for number in 0..30_000 {
        let key = (mixed(number) % 10_000).to_be_bytes();
        keyspace.put(key, mixed(number).to_le_bytes().repeat(12))?;
        if number % 500 == 0 {
            while runtime.run_pending() {}
        }
    }
    db.flush()?;
    while runtime.run_pending() {}
    let stats = db.stats()?;
    let after = kernel_count();
    assert!(stats.compactions > 3 && stats.flushes > 3, "{stats}");
    let written = stats.wal_bytes
        + stats.manifest_bytes
        + stats.flush_bytes
        + stats.compaction_written_bytes
        + stats.restore_bytes;
    db.close()?;
    Ok((written, after - before))
}

#[test]
fn the_store_counts_what_the_kernel_counts() {
    for wal in [Wal::On, Wal::Off] {
        let (ours, kernels) = count(wal).expect("nothing fails");
        println!("log {wal:?}: {ours} bytes by the store's count, {kernels} by the kernel's");
        // The harness prints a line now and then.
        assert!(
            kernels.abs_diff(ours) <= kernels / 100,
            "{ours} and {kernels}"
        );
    }
}
