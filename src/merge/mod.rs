//! Many sorted sources as one.
//!
//! [`Merge`] is the k-way merge of sources that may overlap; [`Chain`] puts sources that follow
//! one another (the tables of a run) behind each other and opens them as it reaches them.

mod chain;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use crate::error::Result;
use crate::key::{Approach, Cursor, InternalKey, Trailer};
use crate::planted::{Bug, planted};
use crate::slice::Slice;

pub(crate) use chain::{Chain, Links};

/// A k-way merge of sorted sources, itself a [`Cursor`].
///
/// Sources are given newest first: of two equal keys the one of the earlier source comes first.
/// A failing source ends the walk with its error: the merge is invalid then, which is never to be
/// taken for the end.
///
/// The sources play a tournament whose inner nodes remember the loser (Knuth, volume 3, 5.4.1), so
/// that a step costs one comparison a round, and a single one where the same source wins again.
pub(crate) struct Merge<C> {
    sources: Vec<C>,
    /// The winner at 0, the losers of the inner nodes behind it; source `i` enters the tournament
    /// at node `(sources.len() + i) / 2`.
    tree: Vec<usize>,
    /// The best of all but the winner, known once a source has won twice in a row.
    runner_up: Option<usize>,
    direction: Direction,
    /// True if the winner stands on the merge's entry.
    is_valid: bool,
    /// The key that a change of direction turns around.
    turn_key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// A node of the tournament that no source has reached yet.
const NOBODY: usize = usize::MAX;

impl<C: Cursor> Merge<C> {
    pub(crate) fn new(sources: Vec<C>) -> Self {
        Self {
            tree: vec![NOBODY; sources.len()],
            sources,
            runner_up: None,
            direction: Direction::Forward,
            is_valid: false,
            turn_key: Vec::new(),
        }
    }

    /// Places all sources by `place`, then plays the tournament from its start.
    fn place(
        &mut self,
        direction: Direction,
        mut place: impl FnMut(&mut C) -> Result<()>,
    ) -> Result<()> {
        self.is_valid = false;
        self.direction = direction;
        self.sources.iter_mut().try_for_each(&mut place)?;
        self.play_all();
        Ok(())
    }

    fn play_all(&mut self) {
        self.runner_up = None;
        self.tree.fill(NOBODY);
        for source in 0..self.sources.len() {
            self.play(source);
        }
        self.is_valid = self
            .tree
            .first()
            .is_some_and(|winner| self.sources[*winner].is_valid());
    }

    /// Leads `source` from its leaf towards the root. It waits at the first node where its
    /// opponent has not arrived.
    fn play(&mut self, source: usize) {
        let mut winner = source;
        let mut node = usize::midpoint(self.sources.len(), source);
        while node > 0 {
            let opponent = self.tree[node];
            if opponent == NOBODY {
                self.tree[node] = winner;
                return;
            }
            if self.beats(opponent, winner) {
                self.tree[node] = winner;
                winner = opponent;
            }
            node /= 2;
        }
        self.tree[0] = winner;
    }

    /// True if the entry of source `left` comes before that of source `right`.
    fn beats(&self, left: usize, right: usize) -> bool {
        let (a, b) = (&self.sources[left], &self.sources[right]);
        if !a.is_valid() || !b.is_valid() {
            return a.is_valid();
        }
        let mut tie = left.cmp(&right);
        if planted(Bug::MergeTieToTheOlder) {
            tie = tie.reverse();
        }
        let order = a.key().cmp(&b.key()).then(tie);
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    /// Moves the winner and finds the next one.
    fn step(&mut self) -> Result<()> {
        let winner = self.tree[0];
        self.is_valid = false;
        match self.direction {
            Direction::Forward => self.sources[winner].next()?,
            Direction::Backward => self.sources[winner].prev()?,
        }
        if let Some(runner_up) = self.runner_up
            && self.beats(winner, runner_up)
        {
            self.is_valid = true;
            return Ok(());
        }
        let had_runner_up = self.runner_up.take().is_some();
        self.play(winner);
        self.is_valid = self.sources[self.tree[0]].is_valid();
        if self.tree[0] == winner && !had_runner_up {
            self.runner_up = self.find_runner_up();
        }
        Ok(())
    }

    /// The best of those who lost against the winner itself: all others lost against one of them.
    fn find_runner_up(&self) -> Option<usize> {
        let mut best = None;
        let mut node = usize::midpoint(self.sources.len(), self.tree[0]);
        while node > 0 {
            let loser = self.tree[node];
            if best.is_none_or(|best| self.beats(loser, best)) {
                best = Some(loser);
            }
            node /= 2;
        }
        best
    }

    /// Places every other source on the far side of the current entry, so that a step leads the
    /// other way.
    fn turn(&mut self, direction: Direction) -> Result<()> {
        assert!(self.is_valid, "a merge moved without being placed");
        if self.direction == direction {
            return Ok(());
        }
        let winner = self.tree[0];
        let mut turn_key = std::mem::take(&mut self.turn_key);
        turn_key.clear();
        let key = self.sources[winner].key();
        turn_key.extend_from_slice(key.user);
        let trailer = key.trailer;
        self.is_valid = false;
        let turned = self.turn_others(winner, direction, &turn_key, trailer);
        self.turn_key = turn_key;
        turned?;
        self.direction = direction;
        self.play_all();
        assert_eq!(
            self.tree[0], winner,
            "a change of direction lost the current entry"
        );
        Ok(())
    }

    fn turn_others(
        &mut self,
        winner: usize,
        direction: Direction,
        user: &[u8],
        trailer: Trailer,
    ) -> Result<()> {
        let target = InternalKey { user, trailer };
        for (index, source) in self.sources.iter_mut().enumerate() {
            if index == winner {
                continue;
            }
            match direction {
                Direction::Forward => {
                    source.seek(target)?;
                    if source.is_valid() && index < winner && source.key() == target {
                        source.next()?;
                    }
                }
                Direction::Backward => {
                    source.seek_for_prev(target)?;
                    if source.is_valid() && index > winner && source.key() == target {
                        source.prev()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn current(&self) -> &C {
        assert!(self.is_valid, "a merge read without being placed");
        &self.sources[self.tree[0]]
    }
}

impl<C: Cursor> Cursor for Merge<C> {
    fn is_valid(&self) -> bool {
        self.is_valid
    }

    fn key(&self) -> InternalKey<'_> {
        self.current().key()
    }

    fn value(&self) -> &[u8] {
        self.current().value()
    }

    fn value_slice(&self) -> Slice {
        self.current().value_slice()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.place(Direction::Forward, Cursor::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.place(Direction::Backward, Cursor::seek_to_last)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.is_valid = false;
        if self.sources.len() > 1 {
            for step in [Approach::Place, Approach::Memory] {
                for source in &mut self.sources {
                    source.approach(target, step)?;
                }
            }
        }
        self.place(Direction::Forward, |source| source.seek(target))
    }

    fn seek_for_prev(&mut self, target: InternalKey<'_>) -> Result<()> {
        self.place(Direction::Backward, |source| source.seek_for_prev(target))
    }

    fn next(&mut self) -> Result<()> {
        self.turn(Direction::Forward)?;
        self.step()
    }

    fn prev(&mut self) -> Result<()> {
        self.turn(Direction::Backward)?;
        self.step()
    }
}
