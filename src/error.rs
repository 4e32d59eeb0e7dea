//! The one error type of the crate, and what its kinds tell a caller to do.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::Path;

use crate::sync::Arc;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system failed an I/O. The call had no effect unless its docs say otherwise;
    /// repeat it when the cause (a full disk, say) is gone.
    Io,
    /// Stored bytes are not what was written. Nothing was changed; restore, or repair.
    Corruption,
    /// The caller passed something that can never work. Change the call.
    InvalidArgument,
    /// The bytes are of a newer format, or need a feature that this build lacks.
    Unsupported,
    /// There is no store, keyspace or file where one was named.
    NotFound,
    /// Another process or handle has the store or changelog open.
    Locked,
    /// The handle was used after `close`.
    Closed,
    /// An earlier failed sync or a panic of a worker stopped all writes. Reopen the store.
    Poisoned,
    /// The memory budget has no room and nothing that runs can free any. Commit, then repeat.
    MemoryLimit,
    /// The changelog failed: records may or may not be in it. Abort, then go on.
    Changelog,
    /// Another owner has taken the task over. Stop; nothing that this owner writes counts.
    Fenced,
    /// The read point lies in a range of writes that was aborted. Take a new snapshot.
    Aborted,
    /// The local state and the changelog do not belong together (another topic, a shorter log).
    /// Nothing was changed; check the address, or ask for a rebuild.
    Diverged,
}

impl ErrorKind {
    /// True where the same call may succeed later without any other change by the caller.
    pub fn is_retriable(self) -> bool {
        matches!(self, Self::Io | Self::Locked | Self::MemoryLimit)
    }
}

/// An error: its [`ErrorKind`], a sentence that names what is wrong, and the cause if there is one.
///
/// Cheap to clone, so that one failure can be reported to every waiting caller.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    detail: Cow<'static, str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind` with a sentence for its reader.
    pub fn new(kind: ErrorKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            detail: detail.into(),
            source: None,
        }))
    }

    /// The same error with `source` as its cause.
    #[must_use]
    pub fn with_source(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            detail: self.0.detail.clone(),
            source: Some(Arc::from(source.into())),
        }))
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True where the same call may succeed later without any other change by the caller.
    pub fn is_retriable(&self) -> bool {
        self.0.kind.is_retriable()
    }

    /// The operating system's kind of error, if this is an I/O error that has one.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        let source = self.0.source.as_deref()?;
        source.downcast_ref::<io::Error>().map(io::Error::kind)
    }

    /// The same error with `what` in front of its detail: where, or during what, it happened.
    #[must_use]
    pub fn context(&self, what: impl fmt::Display) -> Self {
        Self(Arc::new(Inner {
            kind: self.0.kind,
            detail: format!("{what}: {}", self.0.detail).into(),
            source: self.0.source.clone(),
        }))
    }

    /// The same cause under another kind, for a layer that means something else by it.
    #[must_use]
    pub fn into_kind(&self, kind: ErrorKind) -> Self {
        Self(Arc::new(Inner {
            kind,
            detail: self.0.detail.clone(),
            source: self.0.source.clone(),
        }))
    }

    pub(crate) fn io(operation: &str, path: &Path, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{operation} {}", path.display())).with_source(source)
    }

    pub(crate) fn corruption(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corruption, detail)
    }

    pub(crate) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidArgument, detail)
    }

    pub(crate) fn unsupported(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, detail)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_cause() {
        let cause = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("write", Path::new("a/b"), cause).context("flush");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
        assert!(
            error.to_string().starts_with("flush: write a/b: "),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(
            Error::io("open", Path::new("x"), cause).kind(),
            ErrorKind::NotFound
        );
    }
}
