//! One object into the store or out of it: `bench store`. Nothing is measured but the code that the rooms use, its checksums
//! included: [`runtime::store::ObjectWriter`] for what goes in, `Store::fetch_verified` for data that comes out, and the pinned
//! ranged reads of a location for a caller's file.
//!
//! A command is one process, so that who measures it from outside sees the memory too.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use model::digest::{Checksum, Checksummer};
use model::{DataRef, Team};
use runtime::Context;
use runtime::locations::ReadOn;

use super::process::{self, Stretch};

/// A room's writes have about this size: a row group's pages, a piece of encoded output.
const WRITE_BYTES: usize = 1 << 20;
/// The splitter asks for so much of a CSV file at a time.
const READ_BYTES: u64 = 4 << 20;

/// Puts a file.
pub(super) async fn put(context: &Context, file: &Path, key: &str) -> anyhow::Result<()> {
    let mut source = File::open(file).with_context(|| format!("{}: can't be read", file.display()))?;
    let stretch = Stretch::begin(&context.clock);
    let mut object = context.store.upload(key);
    loop {
        let mut piece = Vec::with_capacity(WRITE_BYTES);
        if Read::take(&mut source, WRITE_BYTES as u64).read_to_end(&mut piece)? == 0 {
            break;
        }
        object.write(piece).await?;
    }
    let written = object.finish().await?;
    report(context, stretch, written.bytes, &written.checksum)
}

/// Gets an object, and proves that it is the one that was put.
pub(super) async fn get(context: &Context, key: &str, bytes: u64, blake3: &str) -> anyhow::Result<()> {
    let checksum = Checksum::Blake3(blake3.to_owned());
    let data = DataRef { key: key.to_owned(), checksum, bytes, rows: 0 };
    let stretch = Stretch::begin(&context.clock);
    context.store.fetch_verified(&data, &context.scratch).await?;
    report(context, stretch, bytes, &data.checksum)
}

/// Reads a caller's file from its begin to its end.
pub(super) async fn read(context: &Context, uri: &str) -> anyhow::Result<()> {
    let location = context.locations.resolve(uri, &Team::shared())?;
    let stretch = Stretch::begin(&context.clock);
    let pinned = location.head().await?.with_context(|| format!("{uri}: there is nothing"))?;
    let (mut checksum, mut on) = (Checksummer::default(), ReadOn::new(true));
    let mut at = 0;
    while at < pinned.bytes {
        let end = (at + READ_BYTES).min(pinned.bytes);
        for piece in on.read(&location, std::slice::from_ref(&(at..end)), &pinned).await? {
            checksum.update(&piece);
        }
        at = end;
    }
    report(context, stretch, pinned.bytes, &checksum.finish())
}

fn report(context: &Context, stretch: Stretch, bytes: u64, checksum: &Checksum) -> anyhow::Result<()> {
    let seconds = stretch.seconds(&context.clock);
    let (Checksum::Blake3(digest) | Checksum::Sha256(digest)) = checksum;
    let figures = serde_json::json!({
        "bytes": bytes, "blake3": digest, "seconds": seconds, "mb_per_second": bytes as f64 / 1e6 / seconds,
        "cpu_seconds": stretch.cpu_seconds(), "peak_bytes": process::peak(),
    });
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}
