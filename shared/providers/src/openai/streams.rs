//! Streams whose length is watched: what goes out must be as long as promised, what comes in as long as announced.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};

use crate::provider::{ByteStream, Error, Result};

/// What went wrong with the stream of an upload, told apart from what went wrong with the network.
#[derive(Debug, Clone, Default)]
pub(super) struct Source(Arc<Mutex<Option<String>>>);

impl Source {
    /// The fault, if the stream had one.
    pub(super) fn fault(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fail(&self, fault: String) -> std::io::Error {
        let error = std::io::Error::other(fault.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
        error
    }
}

/// The stream, with an error at its end if it is not exactly `length` bytes long.
pub(super) fn exact(
    body: ByteStream,
    length: u64,
) -> (impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, Source) {
    let source = Source::default();
    let watched = source.clone();
    let stream = stream::unfold(Some((body, 0u64)), move |state| {
        let source = watched.clone();
        async move {
            let (mut body, sent) = state?;
            match body.next().await {
                Some(Ok(chunk)) if sent + chunk.len() as u64 <= length => {
                    let sent = sent + chunk.len() as u64;
                    Some((Ok(chunk), Some((body, sent))))
                }
                Some(Ok(_)) => {
                    Some((Err(source.fail(format!("more than the {length} bytes that were announced"))), None))
                }
                Some(Err(error)) => Some((Err(source.fail(error.to_string())), None)),
                None if sent < length => {
                    Some((Err(source.fail(format!("{sent} bytes, but {length} were announced"))), None))
                }
                None => None,
            }
        }
    });
    (stream, source)
}

/// The stream without its first `skip` bytes, with an error at its end if the file turns out shorter than `total`. `from` is
/// where in the file the stream begins once they are skipped.
pub(super) fn counted(
    chunks: BoxStream<'static, Result<Bytes>>,
    skip: u64,
    from: u64,
    total: Option<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    let state = Some((chunks, skip, from));
    stream::unfold(state, move |state| async move {
        let (mut chunks, mut skip, mut at) = state?;
        loop {
            match chunks.next().await {
                Some(Ok(mut chunk)) => {
                    let cut = skip.min(chunk.len() as u64);
                    let rest = chunk.split_off(usize::try_from(cut).unwrap_or(chunk.len()));
                    skip -= cut;
                    if rest.is_empty() {
                        continue;
                    }
                    at += rest.len() as u64;
                    return Some((Ok(rest), Some((chunks, skip, at))));
                }
                Some(Err(error)) => return Some((Err(error), None)),
                None if skip > 0 || total.is_some_and(|total| at < total) => {
                    let what = format!("the download ended after byte {}", at - skip.min(at));
                    return Some((Err(Error::Retry { what, retry_after: None }), None));
                }
                None => return None,
            }
        }
    })
    .boxed()
}
