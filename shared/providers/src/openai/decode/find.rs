//! Where a string ends: searches for the bytes that end one, or stand for something else.
//!
//! Most strings of a line are short, and most searches end within a few words, so the first bytes are looked at eight at a time,
//! and only a longer string is worth the start of a vector search.

/// So many bytes of a string are looked at eight at a time, before the search for long strings is worth its start.
const SHORT: usize = 32;

/// A byte in each of eight places.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Where the next quote is.
#[inline(always)]
pub(super) fn quote(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let mut at = 0;
    while let Some(eight_bytes) = rest.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = zeros(u64::from_le_bytes(*eight_bytes) ^ eight(b'"'));
        if found != 0 {
            return Some(from + at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
        if at == SHORT {
            break;
        }
    }
    memchr::memchr(b'"', rest.get(at..)?).map(|found| from + at + found)
}

/// Where the next quote or backslash is.
#[inline]
pub(super) fn special(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let mut at = 0;
    while let Some(eight_bytes) = rest.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight_bytes);
        let found = zeros(word ^ eight(b'"')) | zeros(word ^ eight(b'\\'));
        if found != 0 {
            return Some(from + at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
        if at == SHORT {
            break;
        }
    }
    memchr::memchr2(b'"', b'\\', rest.get(at..)?).map(|found| from + at + found)
}

/// The high bit of each byte that is zero. Above the first such byte a bit may be wrong, so only the lowest counts.
#[inline]
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(eight(1)) & !word & eight(0x80)
}
