//! What lies in a store's directory: the names of its files, and what their presence tells.

use std::path::Path;

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::SEGMENT_HEADER_LEN;
use crate::wal;

use super::manifest::{FIRST_MANIFEST, holds_edits};
use super::table_name;

pub(crate) const CURRENT_NAME: &str = "CURRENT";
pub(crate) const CURRENT_TMP_NAME: &str = "CURRENT.tmp";
/// The file whose lock says that the store is open. It tells nothing else.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// File numbers are below this one, so that there is always a next.
pub(crate) const FILE_NUMBER_MAX: u64 = u64::MAX >> 1;

const TABLE_SUFFIX: &str = ".sst";
const MANIFEST_PREFIX: &str = "MANIFEST-";

pub(crate) fn manifest_name(number: u64) -> String {
    format!("{MANIFEST_PREFIX}{number:08}")
}

/// Whether there is a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is none, and nothing else either: no directory, an empty one, or one with the
    /// leftovers of a creation that never ended (see [`remove_leftovers`]).
    Absent,
    Present,
    /// As `Absent`, but for these names, which are not ours.
    Foreign(Vec<String>),
}

/// Tells whether `dir` holds a store. Changes nothing.
///
/// # Errors
///
/// `InvalidArgument` if `dir` is no directory; `Corruption` if it holds a store's files without
/// the one that tells which of them count.
pub(crate) fn detect(env: &dyn Env, dir: &Path) -> Result<Presence> {
    match env.metadata(dir) {
        Ok(metadata) if metadata.is_dir => {}
        Ok(_) => return Err(Error::invalid(format!("{} is no directory", dir.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Presence::Absent),
        Err(error) => return Err(error),
    }
    let listing = Listing::read(env, dir)?;
    if listing.current {
        return Ok(Presence::Present);
    }
    listing.check_leftovers(env, dir)?;
    if listing.foreign.is_empty() {
        return Ok(Presence::Absent);
    }
    Ok(Presence::Foreign(listing.foreign))
}

/// Removes what a creation that never ended has left: the first step of the next creation.
///
/// # Errors
///
/// As [`detect`], and `InvalidArgument` if there is a store.
pub(crate) fn remove_leftovers(env: &dyn Env, dir: &Path) -> Result<()> {
    if detect(env, dir)? == Presence::Present {
        return Err(Error::invalid(format!(
            "{} is a store already",
            dir.display()
        )));
    }
    let listing = match Listing::read(env, dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    listing
        .own()
        .try_for_each(|name| env.remove_file(&dir.join(name)))
}

/// The names in a store's directory, by what they are.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) current: bool,
    pub(super) current_tmp: bool,
    pub(super) manifests: Vec<u64>,
    pub(super) tables: Vec<u64>,
    wal_segments: Vec<u64>,
    wal_stage: bool,
    foreign: Vec<String>,
}

impl Listing {
    pub(super) fn read(env: &dyn Env, dir: &Path) -> Result<Self> {
        let mut listing = Self::default();
        for name in env.list_dir(dir)? {
            listing.add(name);
        }
        Ok(listing)
    }

    fn add(&mut self, name: String) {
        let numbered = |digits: Option<&str>, name_of: fn(u64) -> String| {
            let number = digits?
                .parse()
                .ok()
                .filter(|number| *number < FILE_NUMBER_MAX)?;
            // Only the very name that we would give: `+1` and `1` are numbers too.
            (name_of(number) == name).then_some(number)
        };
        if name == CURRENT_NAME {
            self.current = true;
        } else if name == CURRENT_TMP_NAME {
            self.current_tmp = true;
        } else if let Some(number) = numbered(name.strip_suffix(TABLE_SUFFIX), table_name) {
            self.tables.push(number);
        } else if let Some(number) = numbered(name.strip_prefix(MANIFEST_PREFIX), manifest_name) {
            self.manifests.push(number);
        } else if let Some(number) = wal::segment_number(&name) {
            self.wal_segments.push(number);
        } else if name == wal::STAGE_NAME {
            self.wal_stage = true;
        } else if name != LOCK_NAME {
            self.foreign.push(name);
        }
    }

    /// Our names, without CURRENT and the lock.
    fn own(&self) -> impl Iterator<Item = String> {
        let manifests = self.manifests.iter().copied().map(manifest_name);
        let tables = self.tables.iter().copied().map(table_name);
        let wal_segments = self.wal_segments.iter().copied().map(wal::segment_name);
        let tmp = self.current_tmp.then(|| CURRENT_TMP_NAME.to_owned());
        manifests.chain(tables).chain(wal_segments).chain(tmp)
    }

    /// Without CURRENT there may only be what a creation makes before it: the first manifest with
    /// the first state and nothing behind it, and a write-ahead log without records, which has no
    /// stage either.
    fn check_leftovers(&self, env: &dyn Env, dir: &Path) -> Result<()> {
        let mut found = self.tables.first().copied().map(table_name);
        for &number in &self.manifests {
            let path = dir.join(manifest_name(number));
            if number != FIRST_MANIFEST || holds_edits(env, &path)? {
                found = found.or(Some(manifest_name(number)));
            }
        }
        if self.wal_stage {
            found = found.or(Some(wal::STAGE_NAME.to_owned()));
        }
        for name in self.wal_segments.iter().copied().map(wal::segment_name) {
            if env.metadata(&dir.join(&name))?.len > SEGMENT_HEADER_LEN as u64 {
                found = found.or(Some(name));
            }
        }
        match found {
            Some(name) => Err(Error::corruption(format!(
                "{}: {CURRENT_NAME} is missing beside {name}",
                dir.display()
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_that_we_give_are_ours() {
        let mut listing = Listing::default();
        let ours = [
            "00000007.sst",
            "123456789.sst",
            "MANIFEST-00000002",
            "00000003.wal",
        ];
        let others = [
            "7.sst",
            "+0000007.sst",
            "MANIFEST-2",
            "18446744073709551615.sst",
            "a.wal",
        ];
        for name in
            ours.iter()
                .chain(&others)
                .chain(&["LOCK", "CURRENT", "CURRENT.tmp", "WAL-STAGE"])
        {
            listing.add((*name).to_owned());
        }
        assert_eq!(listing.tables, [7, 123_456_789]);
        assert_eq!(
            (listing.manifests, listing.wal_segments),
            (vec![2], vec![3])
        );
        assert_eq!(listing.foreign, others);
        assert!(listing.current && listing.current_tmp && listing.wal_stage);
    }
}
