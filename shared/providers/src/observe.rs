//! Watching calls from outside: how long each took, and how it ended.
//!
//! This crate has neither a clock nor metrics. It tells an [`Observer`] when a call begins and how it ended; what is made of
//! that is the observer's business. A call whose future is dropped has no end, and is not told of.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use model::spec::Request;

use crate::provider::{
    Answer, BadLine, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError, Error, FilePage, Limits,
    Page, Provider, ProviderBatch, Result, UploadedFile,
};
use crate::registry::PollSchedule;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$each])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its stable name, as metrics have it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

named! {
    /// A call of a [`Provider`].
    Operation {
        /// [`Provider::upload`], to the provider's reply.
        Upload = "upload",
        /// [`Provider::delete_file`]
        DeleteFile = "delete_file",
        /// [`Provider::file_bytes`]
        FileBytes = "file_bytes",
        /// [`Provider::list_files`]
        ListFiles = "list_files",
        /// [`Provider::list_batches`]
        ListBatches = "list_batches",
        /// [`Provider::create`]
        Create = "create",
        /// [`Provider::get`]
        Get = "get",
        /// [`Provider::cancel`]
        Cancel = "cancel",
        /// [`Provider::download`], to its last byte.
        Download = "download",
    }
}

named! {
    /// How a call ended, by who has to do something about it.
    CallOutcome {
        /// It was done.
        Ok = "ok",
        /// The provider said no in its own words, or that it is not there.
        Refused = "refused",
        /// The provider refuses the key: an operator mends that.
        Unauthorized = "unauthorized",
        /// A rate or queue limit.
        Limited = "limited",
        /// Network or provider failed; of a create: its outcome is unknown.
        Failed = "failed",
        /// The caller's own stream failed; only an upload has one.
        Source = "source",
    }
}

impl CallOutcome {
    fn of_error(error: &Error) -> Self {
        match error {
            Error::Retry { .. } => Self::Failed,
            Error::RateLimited { .. } => Self::Limited,
            Error::Auth { .. } => Self::Unauthorized,
            Error::NotFound { .. } | Error::Rejected { .. } | Error::Unsupported(_) => Self::Refused,
            Error::Source(_) => Self::Source,
        }
    }

    fn of<T>(result: &Result<T>) -> Self {
        result.as_ref().err().map_or(Self::Ok, Self::of_error)
    }

    fn of_create(created: &CreateOutcome) -> Self {
        match created {
            CreateOutcome::Accepted(_) => Self::Ok,
            CreateOutcome::Rejected { status: 401 | 403, .. } => Self::Unauthorized,
            CreateOutcome::Rejected { status: 429, .. } => Self::Limited,
            CreateOutcome::Rejected { .. } => Self::Refused,
            CreateOutcome::Unknown { .. } => Self::Failed,
        }
    }

    /// Whether a call of this kind can end so.
    #[must_use]
    pub fn is_of(self, operation: Operation) -> bool {
        self != Self::Source || operation == Operation::Upload
    }
}

/// What is to be done when a call has ended.
pub type Ended = Box<dyn FnOnce(CallOutcome) + Send>;

/// Hears of each call.
pub trait Observer: Debug + Send + Sync {
    /// A call of the provider of this name (in the settings) begins.
    fn begin(&self, provider: &str, operation: Operation) -> Ended;
}

/// A provider whose calls are watched.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) name: String,
    pub(crate) inner: Arc<dyn Provider>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Observed {
    fn begin(&self, operation: Operation) -> Ended {
        self.observer.begin(&self.name, operation)
    }

    async fn watch<T>(&self, operation: Operation, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let ended = self.begin(operation);
        let result = call.await;
        ended(CallOutcome::of(&result));
        result
    }
}

#[async_trait]
impl Provider for Observed {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn poll_schedule(&self) -> PollSchedule {
        self.inner.poll_schedule()
    }

    fn encoder(&self, request: &Request) -> Result<Box<dyn Encode>, EncodeError> {
        self.inner.encoder(request)
    }

    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        self.inner.line_id(line)
    }

    fn decode_line<'l>(&self, line: &'l [u8]) -> Result<Answer<'l>, BadLine> {
        self.inner.decode_line(line)
    }

    async fn upload(&self, name: &str, length: u64, body: ByteStream) -> Result<UploadedFile> {
        self.watch(Operation::Upload, self.inner.upload(name, length, body)).await
    }

    async fn delete_file(&self, id: &str) -> Result<Deleted> {
        self.watch(Operation::DeleteFile, self.inner.delete_file(id)).await
    }

    async fn file_bytes(&self, id: &str) -> Result<Option<u64>> {
        self.watch(Operation::FileBytes, self.inner.file_bytes(id)).await
    }

    async fn list_files(&self, after: Option<&str>) -> Result<FilePage> {
        self.watch(Operation::ListFiles, self.inner.list_files(after)).await
    }

    async fn list_batches(&self, after: Option<&str>) -> Result<Page> {
        self.watch(Operation::ListBatches, self.inner.list_batches(after)).await
    }

    async fn create(&self, file_id: &str, metadata: &BTreeMap<String, String>) -> CreateOutcome {
        let ended = self.begin(Operation::Create);
        let created = self.inner.create(file_id, metadata).await;
        ended(CallOutcome::of_create(&created));
        created
    }

    async fn get(&self, id: &str) -> Result<ProviderBatch> {
        self.watch(Operation::Get, self.inner.get(id)).await
    }

    async fn cancel(&self, id: &str) -> Result<ProviderBatch> {
        self.watch(Operation::Cancel, self.inner.cancel(id)).await
    }

    async fn download(&self, file_id: &str, from: u64) -> Result<Download> {
        let ended = self.begin(Operation::Download);
        match self.inner.download(file_id, from).await {
            Ok(Download { stream, total }) => Ok(Download { stream: watched(stream, ended), total }),
            Err(error) => {
                ended(CallOutcome::of_error(&error));
                Err(error)
            }
        }
    }
}

/// The stream, which tells how it ended.
fn watched(
    stream: stream::BoxStream<'static, Result<bytes::Bytes>>,
    ended: Ended,
) -> stream::BoxStream<'static, Result<bytes::Bytes>> {
    stream::unfold((stream, Some(ended)), |(mut stream, mut ended)| async move {
        let item = stream.next().await;
        let outcome = match &item {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(CallOutcome::of_error(error)),
            None => Some(CallOutcome::Ok),
        };
        if let Some(outcome) = outcome
            && let Some(ended) = ended.take()
        {
            ended(outcome);
        }
        item.map(|item| (item, (stream, ended)))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, PoisonError};

    #[test]
    fn outcomes_tell_who_has_to_do_something() {
        let text = || "m".to_owned();
        let rejected = |status| CreateOutcome::Rejected { status, code: text(), message: text(), retry_after: None };
        for (created, outcome) in [
            (rejected(400), CallOutcome::Refused),
            (rejected(401), CallOutcome::Unauthorized),
            (rejected(403), CallOutcome::Unauthorized),
            (rejected(429), CallOutcome::Limited),
            (CreateOutcome::Unknown { reason: text() }, CallOutcome::Failed),
        ] {
            assert_eq!(CallOutcome::of_create(&created), outcome, "{created:?}");
        }
        for (error, outcome) in [
            (Error::Retry { what: text(), retry_after: None }, CallOutcome::Failed),
            (Error::RateLimited { message: text(), retry_after: None }, CallOutcome::Limited),
            (Error::Auth { status: 401, message: text() }, CallOutcome::Unauthorized),
            (Error::NotFound { message: text() }, CallOutcome::Refused),
            (Error::Source(text()), CallOutcome::Source),
        ] {
            assert_eq!(CallOutcome::of_error(&error), outcome, "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_download_ends_with_its_last_byte_or_where_it_breaks() {
        let broken = || Err(Error::Retry { what: "it broke".to_owned(), retry_after: None });
        let byte = || Ok(bytes::Bytes::from_static(b"x"));
        for (items, taken, expected) in [
            (vec![byte(), byte()], 3, Some(CallOutcome::Ok)),
            (vec![byte(), broken()], 3, Some(CallOutcome::Failed)),
            (vec![byte(), byte()], 1, None),
        ] {
            let heard: Arc<Mutex<Option<CallOutcome>>> = Arc::default();
            let told = Arc::clone(&heard);
            let ended: Ended = Box::new(move |outcome| {
                let before = told.lock().unwrap_or_else(PoisonError::into_inner).replace(outcome);
                assert_eq!(before, None, "it is told once");
            });
            let passed: Vec<_> = watched(stream::iter(items.clone()).boxed(), ended).take(taken).collect().await;
            assert_eq!(passed, items[..taken.min(items.len())]);
            assert_eq!(*heard.lock().unwrap_or_else(PoisonError::into_inner), expected);
        }
    }
}
