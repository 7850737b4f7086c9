//! A data object as the readers of tables take it: read once, and checked as it passes.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use runtime::store::Passing;
use tables::Source;

/// A data object of the store.
#[derive(Debug)]
pub(crate) struct Data(pub(crate) Passing);

impl Source for Data {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn look(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.0.look(range).map(Bytes::from)
    }

    fn pass(&mut self, range: Range<u64>) -> io::Result<Bytes> {
        self.0.pass(range).map(Bytes::from)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.check().map_err(io::Error::other)
    }
}
