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

use super::pattern::MAX_HOLES;

/// The most levels of objects and lists in a value that is passed over.
const MAX_DEPTH: u32 = 32;
/// The most digits of a count: more may not fit.
const MAX_DIGITS: usize = 18;
/// So many bytes of a string are looked at eight at a time, before the search for long strings is worth its start.
const SHORT: usize = 32;

/// Where we are in a line.
pub(super) struct Scan<'l> {
    text: &'l str,
    bytes: &'l [u8],
    at: usize,
    /// Where the next backslash is: most lines have them in one place, so most strings need only be searched for their end.
    backslash: usize,
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

impl<'l> Scan<'l> {
    /// At the start of a line, which must be UTF-8 without control characters, but for white space at its end.
    pub(super) fn new(line: &'l [u8]) -> Option<Self> {
        let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))?;
        let bytes = line.get(..=end)?;
        // Without a branch for each byte, so that many are compared at once.
        let least = bytes.iter().fold(u8::MAX, |least, byte| least.min(*byte));
        let text = std::str::from_utf8(bytes).ok().filter(|_| least >= b' ')?;
        let mut scan = Self { text, bytes, at: 0, backslash: 0, holes: Vec::new() };
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

    fn note(&mut self, begin: usize, end: usize, field: Field) {
        // One more than a pattern takes says that there are too many.
        if self.holes.len() <= MAX_HOLES {
            self.holes.push(Hole { begin, end, field });
        }
    }

    /// Nothing is left.
    pub(super) fn end(&self) -> Option<()> {
        (self.at == self.bytes.len()).then_some(())
    }

    fn find_backslash(&mut self) {
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
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> Option<()> {
        self.eats(byte).then_some(())
    }

    #[inline(always)]
    fn eats(&mut self, byte: u8) -> bool {
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
            field(self, key.as_bytes())?;
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
    fn colon(&mut self) -> Option<()> {
        self.spaces();
        self.take(b':')?;
        self.spaces();
        Some(())
    }

    /// Behind a value: whether another follows, or the object or list ends.
    #[inline(always)]
    fn goes_on(&mut self, end: u8) -> Option<bool> {
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

    fn key(&mut self) -> Option<&'l str> {
        self.take(b'"')?;
        let key = self.plain_inside()?;
        self.at += 1;
        Some(key)
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
        self.at = quote(self.bytes, begin).filter(|end| *end <= self.backslash)?;
        self.text.get(begin..self.at)
    }

    /// From behind a quote to the one that ends the string.
    pub(super) fn inside(&mut self) -> Option<Cow<'l, str>> {
        let begin = self.at;
        if let Some(text) = self.plain_inside() {
            return Some(Cow::Borrowed(text));
        }
        // Unescaping makes nothing longer.
        let mut text = String::with_capacity(self.bytes.len() - begin);
        loop {
            let end = special(self.bytes, self.at)?;
            text.push_str(self.text.get(self.at..end)?);
            self.at = end;
            if self.peek() == Some(b'"') {
                self.find_backslash();
                return Some(Cow::Owned(text));
            }
            text.push(self.escape()?);
        }
    }

    /// The character that an escape stands for.
    fn escape(&mut self) -> Option<char> {
        let letter = *self.bytes.get(self.at + 1)?;
        self.at += 2;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let unit = self.hex()?;
                match unit {
                    0xd800..=0xdbff => {
                        self.word(br"\u")?;
                        let low = self.hex().filter(|low| (0xdc00..=0xdfff).contains(low))?;
                        char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?
                    }
                    unit => char::from_u32(unit)?,
                }
            }
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..)?.first_chunk::<4>()?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Option<()> {
        self.skip_within(MAX_DEPTH)
    }

    fn skip_within(&mut self, depth: u32) -> Option<()> {
        let begin = self.at;
        match self.peek()? {
            b'"' => {
                self.skip_string()?;
                self.note(begin + 1, self.at - 1, Field::Text);
                Some(())
            }
            b'n' => self.word(b"null"),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'{' => self.skip_all(b'}', depth.checked_sub(1)?),
            b'[' => self.skip_all(b']', depth.checked_sub(1)?),
            _ => {
                self.skip_number()?;
                self.note(begin, self.at, Field::Number);
                Some(())
            }
        }
    }

    /// Passes over an object or a list.
    fn skip_all(&mut self, end: u8, depth: u32) -> Option<()> {
        self.at += 1;
        self.spaces();
        if self.eats(end) {
            return Some(());
        }
        loop {
            if end == b'}' {
                self.skip_string()?;
                self.colon()?;
            }
            self.skip_within(depth)?;
            if !self.goes_on(end)? {
                return Some(());
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        self.skip_inside()?;
        self.at += 1;
        Some(())
    }

    /// From behind a quote to the one that ends the string.
    #[inline(always)]
    pub(super) fn skip_inside(&mut self) -> Option<()> {
        let end = quote(self.bytes, self.at)?;
        if end > self.backslash {
            return self.skip_escaped();
        }
        self.at = end;
        Some(())
    }

    fn skip_escaped(&mut self) -> Option<()> {
        loop {
            self.at = special(self.bytes, self.at)?;
            if self.peek() == Some(b'"') {
                self.find_backslash();
                return Some(());
            }
            self.escape()?;
        }
    }

    pub(super) fn skip_number(&mut self) -> Option<()> {
        self.eats(b'-');
        let leading_zero = self.peek() == Some(b'0');
        if self.skip_digits()? > 1 && leading_zero {
            return None;
        }
        if self.eats(b'.') {
            self.skip_digits()?;
        }
        if self.eats(b'e') || self.eats(b'E') {
            let _ = self.eats(b'+') || self.eats(b'-');
            self.skip_digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn skip_digits(&mut self) -> Option<usize> {
        let digits = self.bytes.get(self.at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        (digits > 0).then_some(digits)
    }
}

/// A byte in each of eight places.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// Where the next quote is.
#[inline(always)]
fn quote(bytes: &[u8], from: usize) -> Option<usize> {
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
fn special(bytes: &[u8], from: usize) -> Option<usize> {
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
