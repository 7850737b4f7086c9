//! Going over a line of JSON once, from left to right, and taking out only what is wanted.
//!
//! It is strict, and takes less than JSON allows: UTF-8 without control characters, no half surrogate pairs in what it
//! takes out, no key with an escape where keys are looked at, counts that are whole and not negative, 32 levels of
//! nesting in what it passes over. Whatever is not so makes it give up (`None`), and a patient parser decides about the
//! line; so what is read here is read as that parser reads it. What is passed over is checked, too: a line that is no JSON
//! is never taken for one.
//!
//! It allocates only for a text with escapes, and copies what is between them in one go.

use std::borrow::Cow;

use super::find::{quote, special};
use super::pattern::MAX_HOLES;

/// The most digits of a count: more may not fit.
const MAX_DIGITS: usize = 18;

/// What a letter behind a backslash stands for; 0 for `u` and for what may not stand there.
const SIMPLE: [u8; 256] = {
    let mut table = [0; 256];
    let (letters, bytes) = (b"\"\\/ntrbf", b"\"\\/\n\t\r\x08\x0c");
    let mut at = 0;
    while at < letters.len() {
        table[letters[at] as usize] = bytes[at];
        at += 1;
    }
    table
};

/// Where we are in a line.
pub(super) struct Scan<'l> {
    /// The line. It is UTF-8, which is known of the whole, and looked at again only for the texts that are taken out.
    pub(super) bytes: &'l [u8],
    pub(super) at: usize,
    /// Where the next backslash is: most lines have them in one place, so most strings need only be searched for their end.
    pub(super) backslash: usize,
    /// The values that were met, except for `null`, `true` and `false`.
    holes: Vec<Hole>,
}

/// A value of a line: what stands between the quotes of a string, or a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hole {
    pub(super) begin: usize,
    pub(super) end: usize,
    pub(super) field: Field,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// A string, a number or a count that nobody wants.
    Text,
    Number,
    Count,
    CustomId,
    Status,
    Model,
    FinishReason,
    Content,
    Input,
    Output,
    Cached,
    Reasoning,
}

impl Field {
    /// Whether it is the row's own, another one in each line.
    pub(super) fn is_of_the_row(self) -> bool {
        matches!(self, Self::CustomId | Self::Content)
    }
}

impl<'l> Scan<'l> {
    /// At the start of a line, which must be UTF-8 without control characters, but for white space at its end.
    pub(super) fn new(line: &'l [u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))?;
        let bytes = line.get(..=end)?;
        // Without a branch for each byte, so that many are compared at once. Nearly all lines are plain ASCII.
        let most = bytes.iter().fold(0, |most: u8, byte| most.max(byte.wrapping_sub(b' ')));
        if most > 0x7f - b' ' {
            let least = bytes.iter().fold(u8::MAX, |least, byte| least.min(*byte));
            std::str::from_utf8(bytes).ok().filter(|_| least >= b' ')?;
        }
        let mut scan = Self { bytes, at: 0, backslash: 0, holes: Vec::new() };
        scan.start();
        Some(scan)
    }

    /// Back to the start.
    pub(super) fn start(&mut self) {
        self.at = 0;
        self.find_backslash();
        self.holes.clear();
    }

    /// The line, and its values.
    pub(super) fn holes(&self) -> (&'l [u8], &[Hole]) {
        (self.bytes, &self.holes)
    }

    pub(super) fn note(&mut self, begin: usize, end: usize, field: Field) {
        // One more than a pattern takes says that there are too many.
        if self.holes.len() <= MAX_HOLES {
            self.holes.push(Hole { begin, end, field });
        }
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Option<()> {
        (self.at == self.bytes.len()).then_some(())
    }

    pub(super) fn find_backslash(&mut self) {
        let found = self.bytes.get(self.at..).and_then(|rest| memchr::memchr(b'\\', rest));
        self.backslash = found.map_or(self.bytes.len(), |found| self.at + found);
    }

    #[inline(always)]
    pub(super) fn spaces(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
        }
    }

    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    pub(super) fn take(&mut self, byte: u8) -> Option<()> {
        self.eats(byte).then_some(())
    }

    #[inline(always)]
    pub(super) fn eats(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    /// An object: `field` gets each key and must read its value.
    pub(super) fn object(&mut self, mut field: impl FnMut(&mut Self, &'l [u8]) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        self.spaces();
        if self.eats(b'}') {
            return Some(());
        }
        loop {
            let key = self.key()?;
            self.colon()?;
            field(self, key)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// An object, or `null`.
    pub(super) fn object_or_null(&mut self, field: impl FnMut(&mut Self, &'l [u8]) -> Option<()>) -> Option<bool> {
        if self.peek() == Some(b'n') {
            return self.null().map(|()| false);
        }
        self.object(field).map(|()| true)
    }

    /// A list of exactly one thing.
    pub(super) fn list_of_one<T>(&mut self, item: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.take(b'[')?;
        self.spaces();
        let item = item(self)?;
        self.spaces();
        self.take(b']')?;
        Some(item)
    }

    #[inline(always)]
    pub(super) fn colon(&mut self) -> Option<()> {
        self.spaces();
        self.take(b':')?;
        self.spaces();
        Some(())
    }

    /// Behind a value: whether another follows, or the object or list ends.
    #[inline(always)]
    pub(super) fn goes_on(&mut self, end: u8) -> Option<bool> {
        self.spaces();
        if self.eats(b',') {
            self.spaces();
            return Some(true);
        }
        self.take(end).map(|()| false)
    }

    /// `null`.
    pub(super) fn null(&mut self) -> Option<()> {
        self.word(b"null")
    }

    /// Exactly these bytes.
    #[inline(always)]
    pub(super) fn word(&mut self, word: &[u8]) -> Option<()> {
        self.bytes.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    /// A whole number that is not negative.
    pub(super) fn count(&mut self, field: Field) -> Option<u64> {
        let begin = self.at;
        let count = self.digits()?;
        self.note(begin, self.at, field);
        Some(count)
    }

    /// The same, not noted.
    pub(super) fn digits(&mut self) -> Option<u64> {
        let digits = self.bytes.get(self.at..)?.iter().take(MAX_DIGITS + 1).take_while(|byte| byte.is_ascii_digit());
        let (count, number) =
            digits.fold((0, 0), |(count, number), digit| (count + 1, number * 10 + u64::from(digit - b'0')));
        if count == 0 || count > MAX_DIGITS || (count > 1 && self.peek() == Some(b'0')) {
            return None;
        }
        self.at += count;
        Some(number)
    }

    /// A count, or `null`.
    pub(super) fn count_or_null(&mut self, field: Field) -> Option<Option<u64>> {
        if self.peek() == Some(b'n') {
            return self.null().map(|()| None);
        }
        self.count(field).map(Some)
    }

    fn key(&mut self) -> Option<&'l [u8]> {
        self.take(b'"')?;
        let begin = self.at;
        self.skip_plain()?;
        self.at += 1;
        self.bytes.get(begin..self.at - 1)
    }

    /// What stands between two places.
    #[inline]
    pub(super) fn text(&self, begin: usize, end: usize) -> Option<&'l str> {
        std::str::from_utf8(self.bytes.get(begin..end)?).ok()
    }

    /// A string without escapes.
    pub(super) fn plain(&mut self, field: Field) -> Option<&'l str> {
        self.take(b'"')?;
        let begin = self.at;
        let text = self.plain_inside()?;
        self.note(begin, self.at, field);
        self.at += 1;
        Some(text)
    }

    /// A string without escapes, or `null`.
    pub(super) fn plain_or_null(&mut self, field: Field) -> Option<Option<&'l str>> {
        if self.peek() == Some(b'n') {
            return self.null().map(|()| None);
        }
        self.plain(field).map(Some)
    }

    /// A string.
    pub(super) fn string(&mut self, field: Field) -> Option<Cow<'l, str>> {
        self.take(b'"')?;
        let begin = self.at;
        let text = self.inside()?;
        self.note(begin, self.at, field);
        self.at += 1;
        Some(text)
    }

    /// From behind a quote to the next one: a string without escapes.
    #[inline(always)]
    pub(super) fn plain_inside(&mut self) -> Option<&'l str> {
        let begin = self.at;
        self.skip_plain()?;
        self.text(begin, self.at)
    }

    #[inline(always)]
    fn skip_plain(&mut self) -> Option<()> {
        self.at = quote(self.bytes, self.at).filter(|end| *end <= self.backslash)?;
        Some(())
    }

    /// From behind a quote to the one that ends the string.
    pub(super) fn inside(&mut self) -> Option<Cow<'l, str>> {
        let begin = self.at;
        if self.skip_plain().is_some() {
            return self.text(begin, self.at).map(Cow::Borrowed);
        }
        // Unescaping makes nothing longer.
        let mut text = Vec::with_capacity(self.bytes.len() - begin);
        loop {
            let end = special(self.bytes, self.at)?;
            text.extend_from_slice(self.bytes.get(self.at..end)?);
            self.at = end;
            if self.peek() == Some(b'"') {
                self.find_backslash();
                return String::from_utf8(text).ok().map(Cow::Owned);
            }
            match self.bytes.get(end + 1).map(|letter| SIMPLE[usize::from(*letter)]) {
                Some(0) => text.extend_from_slice(self.escape()?.encode_utf8(&mut [0; 4]).as_bytes()),
                Some(byte) => {
                    text.push(byte);
                    self.at = end + 2;
                }
                None => return None,
            }
        }
    }

    /// The character that an escape stands for.
    pub(super) fn escape(&mut self) -> Option<char> {
        let letter = *self.bytes.get(self.at + 1)?;
        self.at += 2;
        match (SIMPLE[usize::from(letter)], letter) {
            (0, b'u') => match self.hex()? {
                unit @ 0xd800..=0xdbff => {
                    self.word(br"\u")?;
                    let low = self.hex().filter(|low| (0xdc00..=0xdfff).contains(low))?;
                    char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
                }
                unit => char::from_u32(unit),
            },
            (0, _) => None,
            (byte, _) => Some(char::from(byte)),
        }
    }

    /// Four hexadecimal digits.
    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..)?.first_chunk::<4>()?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    }
}
