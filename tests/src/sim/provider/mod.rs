//! A provider of class B that does, from a seed, everything that real ones have been seen to do, and keeps the truth about
//! it: what ran, what was billed, and what each row's line says.
//!
//! - [`hub`]: the provider itself, which outlives every process. [`batch`]: what becomes of one batch.
//! - This file: one process's connection to it, with the faults of calls.
//!
//! Its list never lags and a deleted file is gone: what batchmill's promise rests on. Everything else may fail.

pub mod batch;
pub mod hub;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use model::spec::Request;
use providers::{
    Answer, BadLine, ByteStream, Class, CreateOutcome, Deleted, Download, Encode, EncodeError, Error, FilePage, Limits,
    Page, PollSchedule, Provider, ProviderBatch, Result, UploadedFile,
};

use super::faults::Faults;
use super::gate::Gate;
use hub::Hub;

/// Faults of calls.
pub const FAULTS: &[&str] = &[
    "upload fails",
    "upload done, fails",
    "create lost before",
    "create lost after",
    "create lands late",
    "create 503, accepted",
    "create 500",
    "create 429",
    "create 429, retry-after",
    "create 401",
    "create file 404",
    "create 400 for good",
    "delete of file fails",
    "delete of file done, fails",
    "list page fails",
    "get fails",
    "get 429",
    "cancel fails",
    "cancel done, fails",
    "download fails",
    "download cut",
    "download short",
    "call slow",
];

const CREATES: &[&str] = FAULTS.split_at(12).0.split_at(2).1;

/// One process's connection.
#[derive(Debug)]
pub struct SimProvider {
    hub: Arc<Hub>,
    gate: Arc<Gate>,
    faults: Faults,
}

impl SimProvider {
    /// The connection of a process.
    #[must_use]
    pub fn new(hub: &Arc<Hub>, gate: &Arc<Gate>, faults: &Faults) -> Arc<Self> {
        Arc::new(Self { hub: Arc::clone(hub), gate: Arc::clone(gate), faults: faults.clone() })
    }

    /// A fault of a call that is no create.
    async fn draw(&self, kinds: &[&'static str], about: &str) -> Option<&'static str> {
        if self.faults.draw(self.faults.rates.slow, &["call slow"], about).is_some() {
            self.faults.wait(100, 40_000).await;
            self.gate.open().await;
        }
        self.faults.draw(self.faults.rates.provider, kinds, about)
    }

    async fn send_create(&self, file: &str, metadata: &BTreeMap<String, String>) -> CreateOutcome {
        let unknown = |reason: &str| CreateOutcome::Unknown { reason: reason.to_owned() };
        let refused = |status, message: &str, retry_after| {
            self.hub.refuse(metadata, status);
            let (code, message) = ("simulated".to_owned(), message.to_owned());
            CreateOutcome::Rejected { status, code, message, retry_after }
        };
        let late = self.faults.draw(self.faults.rates.late, &["create lands late"], file);
        match late.or_else(|| self.faults.draw(self.faults.rates.create, CREATES, file)) {
            Some("create lost before") => {
                self.faults.wait(1_000, 60_000).await;
                unknown("timed out")
            }
            Some("create lost after") => {
                let _ = self.hub.create(file, metadata, &self.faults);
                self.faults.wait(1_000, 60_000).await;
                unknown("timed out")
            }
            Some("create lands late") => {
                self.land_late(file, metadata);
                self.faults.wait(100, 60_000).await;
                unknown("timed out")
            }
            Some("create 503, accepted") => {
                let _ = self.hub.create(file, metadata, &self.faults);
                unknown("503")
            }
            Some("create 500") => unknown("500"),
            Some("create 429") => refused(429, "slow down", None),
            Some("create 429, retry-after") => {
                refused(429, "slow down", Some(self.faults.chance.duration(100, 60_000)))
            }
            Some("create 401") => refused(401, "bad key", None),
            Some("create file 404") => match self.faults.chance.hits(500) {
                true => refused(404, "no such file", None),
                false => refused(400, "Cannot find file", None),
            },
            Some("create 400 for good") => refused(400, "this can't be", None),
            _ => match self.hub.create(file, metadata, &self.faults) {
                Some(batch) => CreateOutcome::Accepted(Box::new(batch)),
                None => refused(400, "Cannot find file", None),
            },
        }
    }

    /// It arrives long after the client gave up, unless its file is gone by then.
    fn land_late(&self, file: &str, metadata: &BTreeMap<String, String>) {
        let (hub, faults, late) =
            (Arc::clone(&self.hub), self.faults.clone(), self.faults.chance.duration(500, 300_000));
        let (file, metadata) = (file.to_owned(), metadata.clone());
        tokio::spawn(async move {
            faults.clock.sleep(late).await;
            faults.journal.note(format_args!("provider late create of {file}"));
            if hub.create(&file, &metadata, &faults).is_none() && faults.chance.hits(500) {
                hub.accept_to_fail(&file, &metadata);
            }
        });
    }
}

fn again(what: &str) -> Error {
    Error::Retry { what: what.to_owned(), retry_after: None }
}

#[async_trait]
impl Provider for SimProvider {
    fn class(&self) -> Class {
        Class::B
    }

    fn limits(&self) -> Limits {
        self.hub.format.limits()
    }

    fn poll_schedule(&self) -> PollSchedule {
        PollSchedule { first_ms: 1_000, most_ms: 60_000 }
    }

    fn encoder(&self, request: &Request) -> Result<Box<dyn Encode>, EncodeError> {
        self.hub.format.encoder(request)
    }

    fn line_id<'l>(&self, line: &'l [u8]) -> Option<Cow<'l, str>> {
        self.hub.format.line_id(line)
    }

    fn decode_line<'l>(&self, line: &'l [u8]) -> Result<Answer<'l>, BadLine> {
        self.hub.format.decode_line(line)
    }

    async fn upload(&self, name: &str, length: u64, mut body: ByteStream) -> Result<UploadedFile> {
        let mut content = Vec::new();
        while let Some(piece) = body.next().await {
            content.extend_from_slice(&piece.map_err(|error| Error::Source(error.to_string()))?);
        }
        if content.len() as u64 != length {
            return Err(Error::Source(format!("{length} bytes were announced and {} came", content.len())));
        }
        self.gate.step("upload<").await;
        let fault = self.draw(&["upload fails", "upload done, fails"], name).await;
        if fault == Some("upload fails") {
            return Err(again("upload"));
        }
        let file = self.hub.upload(name, content);
        self.gate.step("upload>").await;
        if fault.is_some() { Err(again("upload")) } else { Ok(file) }
    }

    async fn delete_file(&self, id: &str) -> Result<Deleted> {
        self.gate.step("fence<").await;
        let fault = self.draw(&["delete of file fails", "delete of file done, fails"], id).await;
        if fault == Some("delete of file fails") {
            return Err(again("delete"));
        }
        let deleted = self.hub.delete_file(id);
        self.gate.step("fence>").await;
        if fault.is_some() { Err(again("delete")) } else { Ok(deleted) }
    }

    async fn list_files(&self, after: Option<&str>) -> Result<FilePage> {
        self.gate.open().await;
        Ok(self.hub.list_files(after))
    }

    async fn list_batches(&self, after: Option<&str>) -> Result<Page> {
        self.gate.open().await;
        if self.draw(&["list page fails"], after.unwrap_or("first page")).await.is_some() {
            return Err(again("list"));
        }
        let page = self.hub.list(after);
        self.gate.step("list>").await;
        Ok(page)
    }

    async fn create(&self, file: &str, metadata: &BTreeMap<String, String>) -> CreateOutcome {
        self.gate.step("create<").await;
        let outcome = self.send_create(file, metadata).await;
        self.gate.step("create>").await;
        outcome
    }

    async fn get(&self, id: &str) -> Result<ProviderBatch> {
        self.gate.open().await;
        match self.draw(&["get fails", "get 429"], id).await {
            Some("get 429") => {
                let retry_after = Some(Duration::from_secs(self.faults.chance.between(1, 30)));
                return Err(Error::RateLimited { message: "slow down".to_owned(), retry_after });
            }
            Some(_) => return Err(again("get")),
            None => {}
        }
        self.hub.get(id)
    }

    async fn cancel(&self, id: &str) -> Result<ProviderBatch> {
        self.gate.step("cancel<").await;
        let fault = self.draw(&["cancel fails", "cancel done, fails"], id).await;
        if fault == Some("cancel fails") {
            return Err(again("cancel"));
        }
        let cancelled = self.hub.cancel(id);
        self.gate.step("cancel>").await;
        if fault.is_some() { Err(again("cancel")) } else { cancelled }
    }

    async fn download(&self, file: &str, from: u64) -> Result<Download> {
        self.gate.open().await;
        let fault = self.draw(&["download fails", "download cut", "download short"], file).await;
        if fault == Some("download fails") {
            return Err(again("download"));
        }
        let content = self.hub.content(file).ok_or_else(|| Error::NotFound { message: file.to_owned() })?;
        let total = Some(content.len() as u64);
        let rest = content.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
        let part = Bytes::copy_from_slice(if fault.is_some() { &rest[..rest.len() / 2] } else { rest });
        self.gate.step("download>").await;
        let mut pieces = vec![Ok(part)];
        if fault == Some("download cut") {
            pieces.push(Err(again("connection reset")));
        }
        Ok(Download { stream: futures::stream::iter(pieces).boxed(), total })
    }
}
