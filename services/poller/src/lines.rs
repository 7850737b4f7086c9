//! Lines of a file that comes in pieces.
//!
//! They end at line feeds and at nothing else: U+2028 inside a string is data. Of a line over the limit only the beginning is
//! kept. A line that lies in one piece is handed on where it lies.

use memchr::memchr;

/// Cuts pieces into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// The line that the last piece began, as far as the limit allows.
    open: Vec<u8>,
    /// Whether that line is over the limit.
    too_long: bool,
    max_line: usize,
}

impl Lines {
    /// Lines of at most so many bytes.
    pub(crate) fn new(max_line: usize) -> Self {
        Self { open: Vec::new(), too_long: false, max_line }
    }

    /// Hands on each line that ends in this piece, without its line feed, and whether it is whole.
    pub(crate) fn push<E>(
        &mut self,
        mut piece: &[u8],
        mut take: impl FnMut(&[u8], bool) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            if self.is_open() {
                self.keep(line);
                self.end(&mut take)?;
            } else {
                let fits = line.len().min(self.max_line);
                take(&line[..fits], fits == line.len())?;
            }
            piece = rest;
        }
        self.keep(piece);
        Ok(())
    }

    /// The file ends: so does its last line, which needs no line feed.
    pub(crate) fn end<E>(&mut self, mut take: impl FnMut(&[u8], bool) -> Result<(), E>) -> Result<(), E> {
        let taken = if self.is_open() { take(&self.open, !self.too_long) } else { Ok(()) };
        self.forget();
        taken
    }

    /// The file is not read to its end: what of a line is there counts nothing.
    pub(crate) fn forget(&mut self) {
        self.open.clear();
        self.too_long = false;
    }

    /// Bytes of a line that has not ended.
    pub(crate) fn open_bytes(&self) -> usize {
        self.open.len()
    }

    fn is_open(&self) -> bool {
        !self.open.is_empty() || self.too_long
    }

    fn keep(&mut self, part: &[u8]) {
        let fits = part.len().min(self.max_line - self.open.len());
        self.open.extend_from_slice(&part[..fits]);
        self.too_long |= fits < part.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]], max_line: usize) -> Vec<(Vec<u8>, bool)> {
        let (mut lines, mut found) = (Lines::new(max_line), Vec::new());
        let mut take = |line: &[u8], whole: bool| -> Result<(), ()> {
            found.push((line.to_vec(), whole));
            Ok(())
        };
        pieces.iter().for_each(|piece| lines.push(piece, &mut take).unwrap());
        lines.end(&mut take).unwrap();
        found
    }

    #[test]
    fn a_line_needs_no_line_feed_at_the_end_of_the_file_and_an_empty_rest_is_none() {
        let line = |text: &str| (text.as_bytes().to_vec(), true);
        assert_eq!(lines(&[b"a\n\nb"], 9), [line("a"), line(""), line("b")]);
        assert_eq!(lines(&[b"a", b"b\n", b""], 9), [line("ab")]);
        assert_eq!(lines(&["x\u{2028}y\r\n".as_bytes()], 9), [line("x\u{2028}y\r")]);
    }

    #[test]
    fn of_a_line_over_the_limit_the_beginning_is_there() {
        let cut = (b"abc".to_vec(), false);
        assert_eq!(lines(&[b"abcd\nefg\n"], 3), [cut.clone(), (b"efg".to_vec(), true)]);
        assert_eq!(lines(&[b"ab", b"cd", b"ef"], 3), [cut]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in proptest::collection::vec(proptest::sample::select(&b"ab\n"[..]), 0..60), size in 1usize..20, max_line in 1usize..6) {
            let expected = lines(&[&text], max_line);
            prop_assert_eq!(lines(&text.chunks(size).collect::<Vec<_>>(), max_line), expected.clone());
            let ends = text.split(|byte| *byte == b'\n').count() - usize::from(text.is_empty() || text.ends_with(b"\n"));
            prop_assert_eq!(expected.len(), ends);
        }
    }
}
