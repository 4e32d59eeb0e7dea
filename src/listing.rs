//! Readable lines about stored bytes, for people who look into files.

use std::fmt::{self, Arguments};
use std::io::Write;

use crate::error::{Error, ErrorKind, Result};

/// Takes lines and hands them on.
pub(crate) struct Listing<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// `Io`, with the writer's error as its source.
    pub(crate) fn line(&mut self, text: Arguments<'_>) -> Result<()> {
        writeln!(self.out, "{text}")
            .map_err(|error| Error::new(ErrorKind::Io, "write the listing").with_source(error))
    }
}

/// Shows bytes as a quoted text of bounded length.
pub(crate) struct Excerpt<'a>(pub(crate) &'a [u8]);

const EXCERPT_LEN_MAX: usize = 200;

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..EXCERPT_LEN_MAX) {
            Some(start) if self.0.len() > EXCERPT_LEN_MAX => {
                write!(
                    f,
                    "\"{}\"... ({} bytes)",
                    start.escape_ascii(),
                    self.0.len()
                )
            }
            _ => write!(f, "\"{}\"", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_and_say_so() {
        assert_eq!(Excerpt(b"a\"\n").to_string(), r#""a\"\n""#);
        let long = Excerpt(&[b'x'; 201]).to_string();
        assert!(long.ends_with("x\"... (201 bytes)"), "{long}");
        assert_eq!(Excerpt(&[b'x'; 200]).to_string().len(), 202);
    }
}
