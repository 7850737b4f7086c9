//! Finding records and their cells at a gulp: what most of a file is read by.
//!
//! 64 bytes are turned into a bit mask for each byte that matters; where quotes are open, and so which delimiters and line
//! feeds count, is then arithmetic on 64 bits (Langdale and Lemire, "Parsing gigabytes of JSON per second", section 3.1).
//! What has to be looked at one by one are the ends of cells.
//!
//! It knows usual records only: a quote opens at the front of a cell, closes at its end and is written twice between, and
//! a carriage return stands before a line feed. It stops in front of any other, and of one whose end has not arrived: those
//! are left to the [`super::records::Scanner`], which reads them byte by byte. A property test holds the two together.

use wide::i8x16;

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// A record, found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Where it begins in the text.
    pub(crate) start: usize,
    /// Where it ends, line ending included.
    pub(crate) end: usize,
    /// How many cells it has.
    pub(crate) cells: usize,
}

/// Finds the usual records of `text` from `from` on, and gives the end of the last one. The end of each cell is appended to
/// `ends`; lines without any byte have none, and are passed over. It goes on until `take` says no, or up to a record
/// that ends at `most` or behind.
pub(crate) fn sweep(
    text: &[u8],
    from: usize,
    delimiter: u8,
    most: usize,
    ends: &mut Vec<u32>,
    mut take: impl FnMut(Swept) -> bool,
) -> usize {
    let mut record = Record { start: from, cells_before: ends.len() };
    let mut carried = Carried::default();
    let (blocks, tail) = text[from..].as_chunks::<BLOCK>();
    let mut last = [0; BLOCK];
    last[..tail.len()].copy_from_slice(tail);
    for (number, block) in blocks.iter().chain(std::iter::once(&last)).enumerate() {
        let base = from + number * BLOCK;
        let within = if number == blocks.len() { (1 << tail.len()) - 1 } else { u64::MAX };
        let Marks { mut stops, feeds, odd } = carried.marks(block, delimiter);
        let odd = odd & within;
        // What stands behind something odd means something else.
        stops &= odd.wrapping_sub(1) & !odd;
        while stops != 0 {
            let bit = stops & stops.wrapping_neg();
            let at = base + stops.trailing_zeros() as usize;
            stops ^= bit;
            if feeds & bit == 0 {
                ends.push(narrow(at));
                continue;
            }
            if !record.end(text, at, ends, &mut take) || record.start >= most {
                return record.start;
            }
        }
        if odd != 0 {
            break;
        }
    }
    ends.truncate(record.cells_before);
    record.start
}

/// The record that is being swept.
struct Record {
    start: usize,
    /// How many ends of cells there were before it.
    cells_before: usize,
}

impl Record {
    /// Ends it with the line feed at `at`, and begins the next one.
    fn end(&mut self, text: &[u8], at: usize, ends: &mut Vec<u32>, take: &mut impl FnMut(Swept) -> bool) -> bool {
        let returned = at > self.start && text[at - 1] == b'\r';
        let body_end = at - usize::from(returned);
        let start = std::mem::replace(&mut self.start, at + 1);
        if body_end == start {
            return true;
        }
        ends.push(narrow(body_end));
        let cells = ends.len() - self.cells_before;
        self.cells_before = ends.len();
        take(Swept { start, end: at + 1, cells })
    }
}

/// A place in a text: the decoder refuses caps that allow texts of 2 GiB.
fn narrow(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// What one block hands to the next: each is the highest bit of a mask, as the lowest.
struct Carried {
    /// All bits when a quoted cell is open.
    quoted: u64,
    stop: u64,
    quote: u64,
    closing: u64,
    returned: u64,
}

impl Default for Carried {
    /// In front of a record.
    fn default() -> Self {
        Self { quoted: 0, stop: 1, quote: 0, closing: 0, returned: 0 }
    }
}

/// What a block has, a bit for each byte.
struct Marks {
    /// Delimiters and line feeds outside quotes.
    stops: u64,
    /// Line feeds.
    feeds: u64,
    /// Where something is not as it is in usual records, or was one byte before.
    odd: u64,
}

impl Carried {
    #[inline]
    fn marks(&mut self, block: &[u8; BLOCK], delimiter: u8) -> Marks {
        let [quotes, delimiters, feeds, returns] = masks(block, [b'"', delimiter, b'\n', b'\r']);
        let quoted = running_parity(quotes) ^ self.quoted;
        let stops = (delimiters | feeds) & !quoted;
        let returned = returns & !quoted;
        let (opening, closing) = (quotes & quoted, quotes & !quoted);
        let behind = |mask: u64, carried: u64| (mask << 1) | carried;
        let odd = (opening & !(behind(stops, self.stop) | behind(quotes, self.quote)))
            | (behind(closing, self.closing) & !(stops | returned | quotes))
            | (behind(returned, self.returned) & !(feeds & !quoted));
        let top = |mask: u64| mask >> 63;
        *self = Self {
            quoted: top(quoted).wrapping_neg(),
            stop: top(stops),
            quote: top(quotes),
            closing: top(closing),
            returned: top(returned),
        };
        Marks { stops, feeds, odd }
    }
}

/// For each byte value, where it stands in the block.
#[inline]
fn masks<const N: usize>(block: &[u8; BLOCK], bytes: [u8; N]) -> [u64; N] {
    let mut masks = [0; N];
    for (place, lane) in block.as_chunks::<16>().0.iter().enumerate() {
        let lane = i8x16::new(lane.map(u8::cast_signed));
        for (mask, byte) in masks.iter_mut().zip(bytes) {
            let equal = lane.simd_eq(i8x16::splat(byte.cast_signed())).to_bitmask();
            *mask |= (u64::from(equal) & 0xffff) << (16 * place);
        }
    }
    masks
}

/// Bit `i` is the parity of the bits up to and with `i`.
#[inline]
fn running_parity(mut mask: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        mask ^= mask << shift;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::super::fields::raw_cells;
    use super::super::records::Scanner;
    use super::*;
    use proptest::prelude::*;

    /// A record's end, and the ends of its cells.
    type Swiped = Vec<(usize, Vec<u32>)>;

    fn swept(text: &[u8], most: usize, rows: usize) -> (usize, Swiped) {
        let (mut ends, mut found) = (Vec::new(), Vec::new());
        let end = sweep(text, 0, b',', most, &mut ends, |swept| {
            found.push(swept);
            found.len() < rows
        });
        let mut ends = ends.into_iter();
        let records: Swiped =
            found.iter().map(|swept| (swept.end, ends.by_ref().take(swept.cells).collect())).collect();
        assert_eq!(ends.next(), None);
        (end, records)
    }

    /// What the scanner finds before the first record that is not usual.
    fn scanned(text: &[u8]) -> (usize, Swiped) {
        let (mut scanner, mut at, mut records) = (Scanner::new(b','), 0, Vec::new());
        while let Some(found) = scanner.next(&text[at..], false) {
            let record = &text[at..at + found.len];
            let (mut ends, mut from, mut usual) = (Vec::new(), at, found.flaw.is_none());
            for cell in raw_cells(record, b',') {
                usual &= cell.first() == Some(&b'"') || !cell.contains(&b'"');
                ends.push(u32::try_from(from + cell.len()).unwrap());
                from += cell.len() + 1;
            }
            if !usual {
                break;
            }
            at += found.len;
            if found.body > 0 {
                records.push((at, ends));
            }
        }
        (at, records)
    }

    #[test]
    fn records_and_their_cells_are_found_whatever_is_quoted() {
        let text = b"a,bc\n\"x,\n\"\"y\",\r\n\n\"\"\nrest";
        assert_eq!(
            swept(text, usize::MAX, usize::MAX),
            (20, vec![(5, vec![1, 4]), (16, vec![13, 14]), (20, vec![19])])
        );
    }

    #[test]
    fn it_stops_after_so_many_bytes_or_rows() {
        let text = b"a\nb\nc\nd\n".repeat(40);
        assert_eq!(swept(&text, 3, usize::MAX).0, 4);
        assert_eq!(swept(&text, usize::MAX, 70).0, 140);
    }

    #[test]
    fn what_is_not_usual_is_left() {
        for odd in ["5\" pipe,1\n", "\"a\"b,1\n", "a\rb,1\n", "a,\"b\" \n", "\"never closed\n"] {
            for before in 0..150 {
                let text = format!("{}\n{odd}next\n", "x".repeat(before));
                assert_eq!(swept(text.as_bytes(), usize::MAX, usize::MAX).0, before + 1, "{odd}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn it_finds_what_the_scanner_finds(
            text in prop_oneof![
                proptest::collection::vec(proptest::sample::select(b"ab,\"\r\n\0\xff".as_slice()), 0..400),
                proptest::collection::vec(proptest::sample::select(
                    ["a,", "\"b\",", "\"c\"\"\n\",", "long enough for a block,", "\r\n", "\n", ",", "\"\"\n", "d\n", "\"e", "\"\r\n"].as_slice()), 0..120)
                    .prop_map(|pieces| pieces.concat().into_bytes()),
            ],
        ) {
            prop_assert_eq!(swept(&text, usize::MAX, usize::MAX), scanned(&text));
        }
    }
}
