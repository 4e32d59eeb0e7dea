//! What a store may hold after a crash: the states that the commits led through, and for each
//! moment which of them are still possible.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::operation::{NAMES, SLOTS};

/// A keyspace's contents, with a hash that does not depend on the order of the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) hash: u64,
}

pub(crate) fn entry_hash(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key))
}

impl Tree {
    pub(crate) fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        if let Some(old) = self.entries.remove(&key) {
            self.hash = self.hash.wrapping_sub(entry_hash(&key, &old));
        }
        if let Some(value) = value {
            self.hash = self.hash.wrapping_add(entry_hash(&key, &value));
            self.entries.insert(key, value);
        }
    }
}

/// Tells keyspaces of the same name, created one after the other, apart.
pub(crate) type Incarnation = usize;

/// Which keyspace goes by each name.
pub(crate) type Names = [Option<Incarnation>; SLOTS];

/// The contents of all keyspaces that ever were. A copy shares what does not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct State(BTreeMap<Incarnation, Arc<Tree>>);

impl State {
    pub(crate) fn tree_mut(&mut self, incarnation: Incarnation) -> &mut Tree {
        Arc::make_mut(self.0.entry(incarnation).or_default())
    }

    pub(crate) fn tree(&self, incarnation: Incarnation) -> Arc<Tree> {
        self.0.get(&incarnation).cloned().unwrap_or_default()
    }

    pub(crate) fn hash(&self, incarnation: Incarnation) -> u64 {
        self.0.get(&incarnation).map_or(0, |tree| tree.hash)
    }

    fn hashes(&self, names: &Names) -> Hashes {
        names.map(|name| name.map(|incarnation| self.hash(incarnation)))
    }
}

/// What a store was found to hold: a hash for each keyspace that is there.
pub(crate) type Hashes = [Option<u64>; SLOTS];

/// A commit, or what one attempt of it may have left.
struct Step {
    state: State,
    /// The I/O before which it had done nothing.
    sent: u64,
}

/// A creation or removal of a keyspace, durable on return.
struct Naming {
    names: Names,
    sent: u64,
    /// Commits that had been sent before it.
    step: usize,
    is_failed: bool,
}

/// From the I/O with this index on, what came before it is certain.
#[derive(Debug, Clone, Copy)]
struct Point {
    io: u64,
    index: usize,
}

/// All commits of a run, and when each was acknowledged.
pub(crate) struct History {
    steps: Vec<Step>,
    /// The newest step that is no failed attempt.
    committed: usize,
    namings: Vec<Naming>,
    /// Acknowledged: survives the process.
    acked: Vec<Point>,
    /// Acknowledged as durable: survives power loss.
    durable: Vec<Point>,
    named: Vec<Point>,
}

/// The commits that a store may show after a crash at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) floor: usize,
    pub(crate) end: usize,
    naming_floor: usize,
    naming_end: usize,
}

impl History {
    pub(crate) fn new() -> Self {
        let start = Point { io: 0, index: 0 };
        Self {
            steps: vec![Step {
                state: State::default(),
                sent: 0,
            }],
            committed: 0,
            namings: vec![Naming {
                names: [None; SLOTS],
                sent: 0,
                step: 0,
                is_failed: false,
            }],
            acked: vec![start],
            durable: vec![start],
            named: vec![start],
        }
    }

    /// Adds the state after a commit that began before the I/O `sent`.
    pub(crate) fn push(&mut self, state: State, sent: u64) {
        self.committed = self.steps.len();
        self.steps.push(Step { state, sent });
    }

    /// Adds a commit that failed, after which all is as `before`. It may be found until a later
    /// commit was acknowledged.
    pub(crate) fn push_failed(&mut self, state: State, before: State, sent: u64) {
        self.steps.push(Step { state, sent });
        self.steps.push(Step {
            state: before,
            sent,
        });
    }

    /// The newest commit, and so every one before it, was acknowledged before the I/O `io`.
    pub(crate) fn ack(&mut self, io: u64, durable: bool) {
        let index = self.committed;
        self.acked.push(Point { io, index });
        if durable {
            self.durable.push(Point { io, index });
        }
    }

    pub(crate) fn push_names(&mut self, names: Names, sent: u64, done: Option<u64>) {
        let index = self.namings.len();
        self.namings.push(Naming {
            names,
            sent,
            step: self.steps.len() - 1,
            is_failed: done.is_none(),
        });
        self.named.extend(done.map(|io| Point { io, index }));
    }

    /// What may be found after a crash before the I/O `io`, if only the process died or if the
    /// power went.
    pub(crate) fn window(&self, io: u64, only_process: bool) -> Window {
        let points = if only_process {
            &self.acked
        } else {
            &self.durable
        };
        let floor = last(points, io).max(last(&self.durable, io));
        let naming_floor = last(&self.named, io);
        let sent = self.steps.iter().rposition(|step| step.sent < io);
        let sent_names = self.namings.iter().rposition(|naming| naming.sent < io);
        Window {
            floor,
            end: sent.unwrap_or(0).max(floor),
            naming_floor,
            naming_end: sent_names.unwrap_or(0).max(naming_floor),
        }
    }

    /// The newest state of the window that looks as what was found.
    pub(crate) fn find(&self, found: &Hashes, window: Window) -> Option<(State, Names)> {
        let floor = &self.steps[window.floor].state;
        for naming in self.namings[window.naming_floor..=window.naming_end]
            .iter()
            .rev()
        {
            if naming.is_failed && self.loses(naming, window, floor) {
                continue;
            }
            let steps = &self.steps[window.floor..=window.end];
            let step = steps
                .iter()
                .rev()
                .find(|step| step.state.hashes(&naming.names) == *found);
            if let Some(step) = step {
                return Some((step.state.clone(), naming.names));
            }
        }
        None
    }

    /// True if a removal that was reported as failed would take writes that were acknowledged
    /// after the report.
    fn loses(&self, naming: &Naming, window: Window, floor: &State) -> bool {
        let before = &self.namings[window.naming_floor].names;
        let then = &self.steps[naming.step].state;
        before.iter().zip(&naming.names).any(|(before, after)| {
            before.is_some_and(|incarnation| {
                after.is_none()
                    && window.floor > naming.step
                    && floor.hash(incarnation) != then.hash(incarnation)
            })
        })
    }

    /// What was expected, for people: the oldest and the newest state of a window.
    pub(crate) fn describe(&self, window: Window) -> String {
        let mut text = format!(
            "expected a state of the commits {} to {}, with the keyspaces of changes {} to {}\n",
            window.floor, window.end, window.naming_floor, window.naming_end
        );
        for (what, step, naming) in [
            ("oldest", window.floor, window.naming_floor),
            ("newest", window.end, window.naming_end),
        ] {
            let names = &self.namings[naming].names;
            let state = &self.steps[step].state;
            let trees = names.map(|name| name.map(|incarnation| state.tree(incarnation)));
            let _ = writeln!(text, "{what}:");
            describe_trees(&mut text, trees.each_ref().map(Option::as_deref));
        }
        text
    }
}

fn last(points: &[Point], io: u64) -> usize {
    let count = points.partition_point(|point| point.io <= io);
    points[count - 1].index
}

/// Writes the entries of keyspaces, values by tag and length.
pub(crate) fn describe_trees(text: &mut String, trees: [Option<&Tree>; SLOTS]) {
    for (name, tree) in NAMES.iter().zip(trees) {
        let Some(tree) = tree else {
            let _ = writeln!(text, "  {name}: not there");
            continue;
        };
        let _ = write!(text, "  {name}:");
        for (key, value) in &tree.entries {
            let key = String::from_utf8_lossy(key);
            let tag = value.split(|byte| *byte == b':').next().unwrap_or_default();
            let tag = String::from_utf8_lossy(tag);
            let key = key.trim_start_matches("key ");
            let _ = write!(text, " {key}={tag}({})", value.len());
        }
        text.push('\n');
    }
}
