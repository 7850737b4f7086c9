//! Checksums and digests, in lower-case hex.
//!
//! A [`Checksum`] proves that an object's bytes are those that a fact names. It is BLAKE3: every byte that batchmill moves is
//! hashed when it is written and again when it is read, and SHA-256, at a quarter of BLAKE3's speed even with the processor's
//! own instructions, was most of the cost of a merge. Facts that were written with SHA-256 are checked with it.
//!
//! [`sha256_hex`] is for names: what must be the same for the same text on every version, such as a job's id.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What proves an object's bytes: a digest in lower-case hex, under the name of its algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// BLAKE3, 256 bits. What is written now.
    Blake3(String),
    /// SHA-256. What was written before.
    Sha256(String),
}

impl Checksum {
    /// The checksum of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Checksummer::default();
        sum.update(bytes);
        sum.finish()
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blake3(hex) => write!(f, "BLAKE3 {hex}"),
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
        }
    }
}

/// A checksum in the making, for data that streams by. The default is the algorithm that is written.
#[derive(Clone)]
pub struct Checksummer(Algorithm);

#[derive(Clone)]
enum Algorithm {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256Hex),
}

impl Default for Checksummer {
    fn default() -> Self {
        Self(Algorithm::Blake3(Box::default()))
    }
}

impl Checksummer {
    /// One of the same algorithm as `other`, to be compared with it.
    #[must_use]
    pub fn like(other: &Checksum) -> Self {
        match other {
            Checksum::Blake3(_) => Self::default(),
            Checksum::Sha256(_) => Self(Algorithm::Sha256(Sha256Hex::default())),
        }
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Algorithm::Blake3(hasher) => drop(hasher.update(bytes)),
            Algorithm::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The checksum of all bytes.
    #[must_use]
    pub fn finish(self) -> Checksum {
        match self.0 {
            Algorithm::Blake3(hasher) => Checksum::Blake3(hasher.finalize().to_hex().to_string()),
            Algorithm::Sha256(hasher) => Checksum::Sha256(hasher.finish()),
        }
    }
}

/// The lower-case hex SHA-256 of some bytes.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let mut hasher = Sha256Hex::default();
    hasher.update(bytes);
    hasher.finish()
}

/// A SHA-256 in the making, for data that streams by.
#[derive(Default, Clone)]
pub struct Sha256Hex {
    hasher: Sha256,
}

impl Sha256Hex {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The digest in lower-case hex.
    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.hasher.finalize())
    }
}

/// Lower-case hex of some bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_abc_is_the_published_one() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        // The BLAKE3 team's test vectors, `abc`.
        let abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(Checksum::of(b"abc"), Checksum::Blake3(abc.to_owned()));
    }

    #[test]
    fn what_was_written_with_another_algorithm_is_checked_with_it() {
        let old = Checksum::Sha256(sha256_hex(b"abc"));
        let mut again = Checksummer::like(&old);
        again.update(b"a");
        again.update(b"bc");
        assert_eq!(again.finish(), old);
        let mut other = Checksummer::like(&old);
        other.update(b"abd");
        assert_ne!(other.finish(), old);
    }
}
