//! A data object as the readers of tables take it: read once, and checked as it passes.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use runtime::store::Passing;
use tables::Source;

/// A data object of the store, until it was checked.
#[derive(Debug)]
pub(crate) struct Data(Option<Passing>);

impl Data {
    pub(crate) fn new(object: Passing) -> Self {
        Self(Some(object))
    }
}

impl Source for Data {
    fn bytes(&self) -> io::Result<u64> {
        self.0.as_ref().ok_or_else(ended)?.bytes()
    }

    fn look(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.0.as_ref().ok_or_else(ended)?.look(range).map(Bytes::from)
    }

    fn pass(&mut self, range: Range<u64>) -> io::Result<Bytes> {
        self.0.as_mut().ok_or_else(ended)?.pass(range).map(Bytes::from)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.take().ok_or_else(ended)?.check().map(drop).map_err(io::Error::other)
    }
}

fn ended() -> io::Error {
    io::Error::other("it was read to its end and checked, and is not open any more")
}
