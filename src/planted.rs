//! Planted bugs: known mistakes, each behind a name, to prove that the tests would find them.
//!
//! A build with `--cfg planted` behaves wrongly where [`planted`] says so: at the one bug whose
//! name is in the environment variable `SILTSTONE_PLANTED`. Without the cfg it is always false,
//! and the compiler leaves the bugs out. `tests/planted/run` runs the suite against each of them.
//! No test may know of any: tests state promises, and a planted bug breaks one.

/// Names the bugs.
macro_rules! bugs {
    ($($name:ident)*) => {
        /// A mistake that can be switched on.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($name,)*
        }

        #[cfg(planted)]
        const BUGS: &[(&str, Bug)] = &[$((stringify!($name), Bug::$name),)*];
    };
}

bugs! {
    // Syncs that are left out.
    ChangelogIndexSyncSkipped
    ChangelogNameSyncSkipped
    ChangelogSyncSkipped
    CompactedSegmentSyncSkipped
    CurrentNameSyncSkipped
    CurrentSyncSkipped
    DirectoryNameSyncSkipped
    ManifestNameSyncSkipped
    ManifestSettleSkipped
    ManifestSnapshotSyncSkipped
    ManifestSyncSkipped
    TableNameSyncSkipped
    TableSyncSkipped
    WalCutSyncSkipped
    WalFirstNameSyncSkipped
    WalNameSyncSkipped
    WalPreparedNameSyncSkipped
    WalStageNotWrittenBeforeSync
    WalSyncSkipped
    WriteAcknowledgedBeforeSync
    // Steps in the wrong order.
    ChangelogRemovesInputsFirst
    CurrentBeforeManifest
    ManifestRemovedBeforeCurrent
    PositionBeforeTables
    TableBeforeWal
    TablesRemovedBeforeEdit
    TablesRemovedWhileRead
    WalRemovedBeforeEdit
    WalStageBegunBeforeWrite
    // Errors and damage taken lightly.
    BlockChecksumIgnored
    ChangelogFailedAppendKept
    ChecksumNotBoundToPlace
    DurableDamageCut
    FailedSyncRetried
    JournalBadRecordPassed
    JournalChecksumIgnored
    UnsyncedTailNotRewritten
    WalStageDroppedByFailedWrite
    WalStageGapPassed
    WalStageIgnored
    WalStageNotMovedByRecovery
    WalStageNumberReused
    WalStageOutlivesSegment
    WalStageTellsNothing
    // What a reader sees.
    AbortedWritesRead
    AbortedWritesReadOffByOne
    AbortedWritesForgotten
    CacheKeyWithoutFile
    FilterProbesOneMore
    IndexSeparatorTooShort
    Level0OldestFirst
    MemoryCompactionGoesFirst
    MemtableLeftBeforeRight
    MemtableLooksOnce
    MemtableParentsFence
    MemtableSlotPublishedEarly
    MemtableTakesAllForNewest
    MergeTieToTheOlder
    RangeEndIncluded
    ReadPointNotLookedAtAgain
    SnapshotRegistersLate
    VisibleBeforeInsert
    // What a flush or a compaction keeps.
    AbortedWritesFlushed
    CompactionIgnoresSnapshots
    FlushedUpToMark
    KeyspaceInstalledAlone
    MemoryCompactionIgnoresSnapshots
    OlderLevelOverlooked
    OlderRunLeftBehind
    SeqNoZeroedUnderSnapshot
    TombstoneDroppedEarly
    // What an open finds.
    FileNumbersReused
    ReplayBelowFlushed
    ReplaySkipsOneTooMany
    WalRetiredBelowMark
    // Commits, changelog, restore.
    AbortKeepsInputs
    AbortForgetsPosition
    ChangelogFenceTooLow
    ChangelogOlderRecordKept
    ChangelogOwnerIgnored
    ChangelogTombstoneDroppedEarly
    ChangelogTombstoneDropNotTold
    InputPositionInNextCommit
    PositionAheadOfTables
    ReleaseBeforeAnswer
    ReleaseOfAllWrites
    RestoreKeepsOldest
    RestorePositionAhead
    StaleStateAccepted
    // Memory.
    BudgetWakesNobody
    ReserveGivenTwice
}

/// Whether this process is to make the mistake.
#[cfg(not(planted))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}

/// Whether this process is to make the mistake.
#[cfg(planted)]
pub(crate) fn planted(bug: Bug) -> bool {
    static CHOSEN: crate::sync::OnceLock<Option<Bug>> = crate::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("SILTSTONE_PLANTED").ok()?;
        let found = BUGS.iter().find(|(known, _)| *known == name);
        let (_, bug) = found.unwrap_or_else(|| panic!("there is no planted bug {name}"));
        Some(*bug)
    });
    *chosen == Some(bug)
}
