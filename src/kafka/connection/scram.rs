//! SCRAM (RFC 5802): proves a password to a broker without showing it, and has the broker prove
//! that it knows it too.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use crate::error::{Error, Result};

/// What the standard asks for at least.
const ITERATIONS_MIN: u32 = 4096;
/// A broker that asks for more wants to keep us busy.
const ITERATIONS_MAX: u32 = 1_000_000;
/// The header of a client without channel binding, as it is and in base 64.
const HEADER: &str = "n,,";
const HEADER_BASE64: &str = "biws";

/// The hash function that the mechanism is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }

    fn mac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        fn mac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
            let mut mac = <M as KeyInit>::new_from_slice(key).expect("keys may be of any length");
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            Self::Sha256 => mac::<Hmac<Sha256>>(key, message),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, message),
        }
    }

    fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let password = password.as_bytes();
        match self {
            Self::Sha256 => {
                let mut out = vec![0; 32];
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut out);
                out
            }
            Self::Sha512 => {
                let mut out = vec![0; 64];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut out);
                out
            }
        }
    }
}

/// The client's first message.
pub(super) struct First {
    hash: Hash,
    bare: String,
    nonce: String,
}

impl First {
    pub(super) fn new(hash: Hash, user: &str, nonce: &str) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            bare: format!("n={user},r={nonce}"),
            nonce: nonce.to_owned(),
        }
    }

    pub(super) fn message(&self) -> String {
        format!("{HEADER}{}", self.bare)
    }

    /// Answers the broker's challenge.
    ///
    /// # Errors
    ///
    /// `Corruption` for one that the standard does not know or that answers somebody else.
    pub(super) fn answer(&self, challenge: &[u8], password: &str) -> Result<Last> {
        let text = text(challenge)?;
        let mut parts = text.split(',');
        let nonce = field(parts.next(), "r=")?;
        let salt = from_base64(field(parts.next(), "s=")?)?;
        let iterations: u32 = field(parts.next(), "i=")?
            .parse()
            .map_err(|_| wrong("the count of iterations is no number"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(wrong("the broker's nonce does not continue ours"));
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(wrong(&format!(
                "{iterations} iterations, allowed are {ITERATIONS_MIN} to {ITERATIONS_MAX}"
            )));
        }
        let salted = self.hash.salted(password, &salt, iterations);
        let client_key = self.hash.mac(&salted, b"Client Key");
        let without_proof = format!("c={HEADER_BASE64},r={nonce}");
        let signed = format!("{},{text},{without_proof}", self.bare);
        let stored_key = self.hash.digest(&client_key);
        let signature = self.hash.mac(&stored_key, signed.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(one, two)| one ^ two)
            .collect();
        let server_key = self.hash.mac(&salted, b"Server Key");
        Ok(Last {
            message: format!("{without_proof},p={}", to_base64(&proof)),
            server_signature: self.hash.mac(&server_key, signed.as_bytes()),
        })
    }
}

/// The client's last message, and what the broker's must be.
pub(super) struct Last {
    message: String,
    server_signature: Vec<u8>,
}

impl Last {
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Checks that the broker knows the password.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` if it does not, or says that we do not.
    pub(super) fn verify(&self, answer: &[u8]) -> Result<()> {
        let text = text(answer)?;
        if let Some(reason) = text.strip_prefix("e=") {
            let reason = reason.escape_debug();
            return Err(Error::invalid(format!("login is refused: {reason}")));
        }
        let signature = from_base64(field(text.split(',').next(), "v=")?)?;
        // Compares in a time that does not tell where they differ.
        let differs = signature
            .iter()
            .zip(&self.server_signature)
            .fold(0, |differs, (one, two)| differs | (one ^ two));
        if signature.len() != self.server_signature.len() || differs != 0 {
            return Err(Error::invalid(
                "the broker's signature is wrong: it does not know the password",
            ));
        }
        Ok(())
    }
}

fn wrong(what: &str) -> Error {
    Error::corruption(format!("SCRAM: {what}"))
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| wrong("a message is not UTF-8"))
}

fn field<'a>(part: Option<&'a str>, name: &str) -> Result<&'a str> {
    part.and_then(|part| part.strip_prefix(name))
        .ok_or_else(|| wrong(&format!("a message lacks {name}")))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for index in 0..4 {
            let six = (bits >> (18 - 6 * index) & 63) as usize;
            let digit = if index <= chunk.len() {
                char::from(ALPHABET[six])
            } else {
                '='
            };
            out.write_char(digit).expect("a string grows");
        }
    }
    out
}

fn from_base64(text: &str) -> Result<Vec<u8>> {
    let bytes = text.as_bytes();
    let digits = text.trim_end_matches('=').as_bytes();
    if !bytes.len().is_multiple_of(4) || bytes.len() - digits.len() > 2 {
        return Err(wrong("base 64 of a wrong length"));
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let six = ALPHABET.iter().position(|known| known == digit);
        let six = six.ok_or_else(|| wrong("a message is not in base 64"))?;
        bits = bits << 6 | u32::try_from(six).unwrap_or(0);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// The conversation of RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SIGNATURE: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn first() -> First {
        First::new(Hash::Sha256, "user", NONCE)
    }

    #[test]
    fn the_example_of_the_standard_comes_out() {
        assert_eq!(first().message(), format!("n,,n=user,r={NONCE}"));
        let last = first().answer(CHALLENGE.as_bytes(), "pencil").unwrap();
        assert_eq!(
            last.message(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        last.verify(SIGNATURE.as_bytes()).unwrap();
    }

    #[test]
    fn a_wrong_signature_is_refused() {
        let last = first().answer(CHALLENGE.as_bytes(), "pencil").unwrap();
        let wrong = SIGNATURE.replace("6rri", "6rrj");
        for answer in [wrong.as_str(), "v=", "v=AAAA", "e=invalid-proof"] {
            let error = last.verify(answer.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{answer}");
        }
        let other = first().answer(CHALLENGE.as_bytes(), "pencils").unwrap();
        assert!(other.verify(SIGNATURE.as_bytes()).is_err());
        for answer in ["", "x", "v=*", "v=A"] {
            let error = last.verify(answer.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{answer}");
        }
        assert!(last.verify(&[0xff]).is_err());
    }

    #[test]
    fn hostile_challenges_are_refused() {
        let nonce = format!("r={NONCE}x");
        let challenges = [
            String::new(),
            nonce.clone(),
            format!("{nonce},s=AAAA"),
            format!("{nonce},s=AAAA,i=x"),
            format!("{nonce},s=AAAA,i=4095"),
            format!("{nonce},s=AAAA,i=4294967295"),
            format!("{nonce},s=A,i=4096"),
            format!("{nonce},s=A===,i=4096"),
            format!("r={NONCE},s=AAAA,i=4096"),
            "r=other,s=AAAA,i=4096".to_owned(),
            "m=extension,r=x,s=AAAA,i=4096".to_owned(),
        ];
        for challenge in challenges {
            let error = first()
                .answer(challenge.as_bytes(), "pencil")
                .err()
                .unwrap();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{challenge}");
        }
        assert!(first().answer(&[0xff, 0xfe], "pencil").is_err());
    }

    #[test]
    fn names_are_escaped() {
        let first = First::new(Hash::Sha512, "a=b,c", "x");
        assert_eq!(first.message(), "n,,n=a=3Db=2Cc,r=x");
    }

    #[test]
    fn base_64_round_trips() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..bytes.len() {
            let text = to_base64(&bytes[..len]);
            assert_eq!(from_base64(&text).unwrap(), bytes[..len]);
        }
        assert_eq!(to_base64(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw==");
    }
}
