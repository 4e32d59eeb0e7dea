//! The file CURRENT: which manifest counts, and how far the journals were durable.
//!
//! Layout: `docs/format.md`, "CURRENT".

use std::path::Path;

use crate::checksum::crc32_at;
use crate::coding::Decoder;
use crate::env::{Env, read_file};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Lsn;
use crate::planted::{Bug, planted};

use super::directory::{CURRENT_NAME, CURRENT_TMP_NAME};

pub(crate) const MAGIC: [u8; 8] = *b"SILTCURR";
const FORMAT_VERSION: u32 = 1;

/// Each copy fills a sector, so that one bad sector spares the other.
const COPY_LEN: usize = 512;
const COPIES: usize = 2;
pub(super) const CURRENT_LEN: usize = COPIES * COPY_LEN;
const CRC_POS: usize = COPY_LEN - 4;

/// What CURRENT says. The ends are positions up to which a journal was durable at the time;
/// there may be more behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) db_id: u64,
    /// Number of the manifest that counts, its journal's id, and its durable end.
    pub(crate) manifest: u64,
    pub(crate) manifest_id: u64,
    pub(crate) manifest_end: Lsn,
    /// Id of the write-ahead log's journal, and its durable end.
    pub(crate) wal_id: u64,
    pub(crate) wal_end: Lsn,
    /// Written by a clean close. The manifest has not grown since; the write-ahead log may have.
    pub(crate) clean: bool,
}

impl Current {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CURRENT_LEN);
        for copy in 0..COPIES {
            let start = copy * COPY_LEN;
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
            for number in [
                self.db_id,
                self.manifest,
                self.manifest_id,
                self.manifest_end.0,
                self.wal_id,
                self.wal_end.0,
            ] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.push(u8::from(self.clean));
            out.resize(start + CRC_POS, 0);
            let crc = crc32_at(0, start as u64, &[&out[start..]]);
            out.extend_from_slice(&crc.to_le_bytes());
        }
        out
    }

    /// One good copy suffices.
    ///
    /// # Errors
    ///
    /// `Unsupported` if a good copy is of a newer format; else `Corruption`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > CURRENT_LEN {
            return Err(Error::corruption(format!(
                "{} bytes long, not {CURRENT_LEN}",
                bytes.len()
            )));
        }
        let copies = (0..COPIES).map(|copy| {
            let start = copy * COPY_LEN;
            Self::decode_copy(start, bytes.get(start..).unwrap_or_default())
                .map_err(|error| error.context(format!("copy {}", copy + 1)))
        });
        let (good, bad): (Vec<_>, Vec<_>) = copies.partition(Result::is_ok);
        let newer = |error: &Error| error.kind() == ErrorKind::Unsupported;
        if let Some(error) = bad
            .iter()
            .filter_map(|copy| copy.as_ref().err())
            .find(|e| newer(e))
        {
            return Err(error.clone());
        }
        let mut good = good.into_iter().flatten();
        match (good.next(), good.next()) {
            (Some(first), Some(second)) if first != second => Err(Error::corruption(format!(
                "its copies disagree: {first:?} and {second:?}"
            ))),
            (Some(first), _) => Ok(first),
            (None, _) => Err(bad.into_iter().find_map(Result::err).expect("none is good")),
        }
    }

    fn decode_copy(start: usize, bytes: &[u8]) -> Result<Self> {
        let copy: &[u8; COPY_LEN] = bytes
            .first_chunk()
            .ok_or_else(|| Error::corruption(format!("{} bytes of {COPY_LEN}", bytes.len())))?;
        let mut trailer = Decoder::new(&copy[CRC_POS..]);
        let stored = trailer.u32("checksum")?;
        let computed = crc32_at(0, start as u64, &[&copy[..CRC_POS]]);
        if stored != computed {
            return Err(Error::corruption(format!(
                "checksum: stored {stored:08x}, computed {computed:08x}"
            )));
        }
        let mut decoder = Decoder::new(&copy[..CRC_POS]);
        if decoder.array("magic")? != MAGIC {
            return Err(Error::corruption("not the magic of CURRENT"));
        }
        let version = decoder.u32("format version")?;
        if version > FORMAT_VERSION {
            return Err(Error::unsupported(format!(
                "format version {version}; this build reads up to {FORMAT_VERSION}"
            )));
        }
        let current = Self {
            db_id: decoder.u64("store id")?,
            manifest: decoder.u64("manifest number")?,
            manifest_id: decoder.u64("manifest id")?,
            manifest_end: Lsn(decoder.u64("manifest end")?),
            wal_id: decoder.u64("wal id")?,
            wal_end: Lsn(decoder.u64("wal end")?),
            clean: match decoder.u8("clean")? {
                0 => false,
                1 => true,
                flag => return Err(Error::corruption(format!("clean: flag {flag}"))),
            },
        };
        let padding = decoder.take(decoder.remaining(), "padding")?;
        if version == 0 || padding.iter().any(|byte| *byte != 0) {
            return Err(Error::corruption("version 0, or bytes where zeros belong"));
        }
        Ok(current)
    }

    pub(crate) fn read(env: &dyn Env, dir: &Path) -> Result<Self> {
        let path = dir.join(CURRENT_NAME);
        let bytes = read_file(env, &path, CURRENT_LEN as u64)?;
        Self::decode(&bytes).map_err(|error| error.context(path.display()))
    }

    /// Writes what shall become CURRENT beside it, durably.
    ///
    /// # Errors
    ///
    /// `Poisoned` for a failed sync, else `Io`. CURRENT is as it was.
    pub(super) fn stage(&self, env: &dyn Env, dir: &Path) -> Result<()> {
        let path = dir.join(CURRENT_TMP_NAME);
        let file = match env.create_new(&path) {
            Err(error) if error.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => {
                // The rest of an earlier attempt.
                env.remove_file(&path)?;
                env.create_new(&path)?
            }
            other => other?,
        };
        file.write_all_at(0, &self.encode())?;
        if planted(Bug::CurrentSyncSkipped) {
            return Ok(());
        }
        synced(file.sync())
    }

    /// Puts what was staged in the place of CURRENT, durably.
    ///
    /// # Errors
    ///
    /// `Poisoned` for a failed sync, else `Io`. Either way the old CURRENT may be found by the next
    /// open, or the new one.
    pub(super) fn commit_staged(env: &dyn Env, dir: &Path) -> Result<()> {
        env.rename(&dir.join(CURRENT_TMP_NAME), &dir.join(CURRENT_NAME))?;
        if planted(Bug::CurrentNameSyncSkipped) {
            return Ok(());
        }
        synced(env.sync_dir(dir))
    }
}

/// A failed sync as what it means: nothing written since the last one may be relied on, and
/// another sync would not tell.
pub(super) fn synced(result: Result<()>) -> Result<()> {
    result.map_err(|error| {
        error
            .into_kind(ErrorKind::Poisoned)
            .context("a sync failed; reopen the store")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Current = Current {
        db_id: 1,
        manifest: 2,
        manifest_id: 3,
        manifest_end: Lsn(4),
        wal_id: 5,
        wal_end: Lsn(6),
        clean: true,
    };

    #[test]
    fn every_flip_and_cut_is_harmless_or_found() {
        let bytes = SAMPLE.encode();
        assert_eq!(bytes.len(), CURRENT_LEN);
        assert_eq!(Current::decode(&bytes).unwrap(), SAMPLE);
        for pos in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[pos] ^= 1 << bit;
                assert_eq!(Current::decode(&damaged).unwrap(), SAMPLE, "byte {pos}");
                damaged[(pos + COPY_LEN) % CURRENT_LEN] ^= 1;
                let error = Current::decode(&damaged).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corruption);
            }
        }
        for len in 0..bytes.len() {
            let result = Current::decode(&bytes[..len]);
            assert_eq!(result.is_ok(), len >= COPY_LEN, "{len} bytes");
        }
        assert!(Current::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    fn with_crcs(mut bytes: Vec<u8>) -> Vec<u8> {
        for start in (0..CURRENT_LEN).step_by(COPY_LEN) {
            let crc = crc32_at(0, start as u64, &[&bytes[start..start + CRC_POS]]);
            bytes[start + CRC_POS..start + COPY_LEN].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn a_newer_format_is_named_and_disagreement_is_not_guessed_about() {
        let mut newer = SAMPLE.encode();
        newer[MAGIC.len()] = 2;
        newer[COPY_LEN + MAGIC.len()] = 2;
        let error = Current::decode(&with_crcs(newer)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format version 2"), "{error}");
        let other = Current {
            manifest: 9,
            ..SAMPLE
        };
        let mixed = [&SAMPLE.encode()[..COPY_LEN], &other.encode()[COPY_LEN..]].concat();
        assert!(
            Current::decode(&mixed)
                .unwrap_err()
                .to_string()
                .contains("disagree")
        );
        let mut padded = SAMPLE.encode();
        padded[CRC_POS - 1] = 1;
        padded[COPY_LEN + CRC_POS - 1] = 1;
        assert!(Current::decode(&with_crcs(padded)).is_err());
    }
}
