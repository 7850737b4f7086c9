//! Passing over values that nobody wants. They are checked all the same: a line that is no JSON is never taken for one.

use super::find::{quote, special};
use super::scan::{Field, Scan};

/// The most levels of objects and lists in a value that is passed over.
const MAX_DEPTH: u32 = 32;

impl Scan<'_> {
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
