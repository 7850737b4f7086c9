//! Bytes that were sound, changed by a seed: the inputs of the fuzz tests.
//!
//! A mutation flips a bit, cuts or repeats a stretch, inserts a word or a number that means something to some format, or goes on
//! with another sound input in the middle. The same seed gives the same bytes, so a failure is told by its number.

/// Words and numbers that mean something to some parser.
const WORDS: [&[u8]; 40] = [
    b"",
    b"\0",
    b"\n",
    b"\r",
    b"\r\n",
    b"\"",
    b"\"\"",
    b",",
    b";",
    b"\t",
    b"|",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\x98\x80",
    b"\\ud800",
    b"\\u0000",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"-1",
    b"0",
    b"1e999",
    b"18446744073709551616",
    b"../",
    b"%2e%2e",
    b"://",
    b"PAR1",
    b"\x1f\x8b\x08",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x10",
    b"\x00\x00\x00\x80",
    b"{{",
];

/// Sound inputs, and how they are changed.
#[derive(Debug)]
pub struct Mutator {
    sound: Vec<Vec<u8>>,
}

impl Mutator {
    /// Over these sound inputs.
    ///
    /// # Panics
    /// Without any.
    #[must_use]
    pub fn new(sound: Vec<Vec<u8>>) -> Self {
        assert!(!sound.is_empty(), "there is nothing to change");
        Self { sound }
    }

    /// The bytes of this seed. Those of the first seeds are the sound inputs themselves.
    #[must_use]
    pub fn bytes(&self, seed: u64) -> Vec<u8> {
        if let Some(whole) = usize::try_from(seed).ok().and_then(|seed| self.sound.get(seed)) {
            return whole.clone();
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = self.sound[random.usize(..self.sound.len())].clone();
        for _ in 0..=random.usize(..4) {
            self.change(&mut bytes, &mut random);
        }
        bytes
    }

    /// The same as text, what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self, seed: u64) -> String {
        String::from_utf8_lossy(&self.bytes(seed)).into_owned()
    }

    fn change(&self, bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..=16)).min(bytes.len());
        match random.u8(..8) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 if at < bytes.len() => bytes[at] = random.u8(..),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => {
                let stretch = bytes[at..end].to_vec();
                bytes.splice(at..at, stretch);
            }
            6 => {
                let other = &self.sound[random.usize(..self.sound.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
            _ => drop(bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
        }
    }
}
