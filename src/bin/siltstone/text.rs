//! Keys and values as text: how they are typed and how they are printed.

use std::fmt::Write;

/// How bytes are typed and printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text; bytes that are no printable UTF-8 are `\xNN`, a backslash is `\\`.
    Escaped,
    /// Two hexadecimal digits a byte.
    Hex,
}

impl Form {
    /// The bytes that `typed` stands for; `what` names it in an error.
    pub(crate) fn parse(self, typed: &str, what: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Escaped => parse_escaped(typed, what),
            Self::Hex => parse_hex(typed, what),
        }
    }

    /// Text from which [`parse`](Self::parse) makes the same bytes. One line, without tabs.
    pub(crate) fn print(self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        match self {
            Self::Hex => bytes.iter().for_each(|byte| push_hex(&mut out, "", *byte)),
            Self::Escaped => {
                for chunk in bytes.utf8_chunks() {
                    chunk
                        .valid()
                        .chars()
                        .for_each(|c| push_escaped(&mut out, c));
                    chunk
                        .invalid()
                        .iter()
                        .for_each(|byte| push_hex(&mut out, "\\x", *byte));
                }
            }
        }
        out
    }
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // Line and paragraph separators end a line for some readers.
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
            let mut utf8 = [0; 4];
            c.encode_utf8(&mut utf8)
                .bytes()
                .for_each(|byte| push_hex(out, "\\x", byte));
        }
        c => out.push(c),
    }
}

fn push_hex(out: &mut String, prefix: &str, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(out, "{prefix}{byte:02x}");
}

fn parse_escaped(typed: &str, what: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(typed.len());
    let mut rest = typed;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let (byte, len) = match rest.as_bytes() {
            [b'\\', ..] => (b'\\', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'x', high, low, ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, 3),
                _ => return Err(bad_escape(typed, what)),
            },
            _ => return Err(bad_escape(typed, what)),
        };
        out.push(byte);
        rest = &rest[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

fn bad_escape(typed: &str, what: &str) -> String {
    format!("{what} {typed:?}: a backslash begins \\xNN, \\n, \\r, \\t, \\0 or \\\\")
}

fn parse_hex(typed: &str, what: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = typed.bytes().map(digit).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()),
        _ => Err(format!(
            "{what} {typed:?}: --hex takes two hexadecimal digits a byte"
        )),
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_typed() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [
            &all[..],
            "é\u{2028}\\x41\u{85}\t".as_bytes(),
            b"",
            b"\xff\xfe plain",
        ] {
            for form in [Form::Escaped, Form::Hex] {
                let printed = form.print(bytes);
                assert_eq!(form.parse(&printed, "key").unwrap(), bytes, "{printed}");
                assert!(!printed.contains(['\n', '\t']), "{printed}");
            }
        }
        assert_eq!(
            Form::Escaped.print("é\n\0\u{ff}\\".as_bytes()),
            "é\\n\\x00ÿ\\\\"
        );
        assert_eq!(
            Form::Escaped.parse("a\\x4a\\0\\t", "key").unwrap(),
            b"aJ\0\t"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for typed in ["\\", "\\x", "\\x4", "\\xg0", "\\q", "a\\xé"] {
            let error = Form::Escaped.parse(typed, "key").unwrap_err();
            assert!(error.starts_with("key "), "{error}");
        }
        for typed in ["4", "4g", "é"] {
            assert!(
                Form::Hex
                    .parse(typed, "value")
                    .unwrap_err()
                    .contains("--hex")
            );
        }
    }
}
