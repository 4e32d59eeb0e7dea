//! What the state of a producer asks of the thread that speaks with the coordinator.

/// What the thread that speaks with the coordinator has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, for now.
    Wait,
    /// Prove that the task is still this owner's: somebody asked, or the fence is due.
    Prove,
    /// Make these partitions part of the transaction: records wait for it.
    Enlist(Vec<usize>),
    /// The prepared commit's records are all in the log: make it count.
    Commit(u64),
    /// Everything that was sent is answered: end the transaction that is being aborted.
    Abort,
    /// Nothing is under way, and a new epoch is due for new sequence numbers.
    Resume,
    /// An answer spoke of a newer epoch: find out whether another owner has the task.
    Doubt,
}
