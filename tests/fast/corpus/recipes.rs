//! Inputs that are too large to be checked in. None has any randomness.

use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

/// The longest record by the defaults (`splitter.max_record_bytes`).
const CAP: usize = 16 << 20;

/// The name under which the input lies, and its bytes.
pub(crate) fn make(recipe: &str) -> (&'static str, Vec<u8>) {
    match recipe {
        "gzip-bomb" => {
            ("bomb.csv.gz", gzip(&["a,b\n".to_owned(), format!("0,{}\n", "0".repeat(100_000)).repeat(1_600)]))
        }
        "gzip-bomb-in-one-cell" => ("bomb.csv.gz", gzip(&["a,b\n1,".to_owned(), "x".repeat(160 << 20)])),
        "gzip-bomb-in-its-header" => ("bomb.csv.gz", gzip(&["x".repeat(160 << 20)])),
        "cell-of-a-hundred-megabytes" => ("big.csv", format!("a,b\n1,x\n2,{}\n", "y".repeat(100_000_000)).into_bytes()),
        "quoted-cell-of-a-hundred-megabytes" => {
            ("big.csv", format!("a,b\n1,x\n2,\"{}\"\n", "y\n".repeat(50_000_000)).into_bytes())
        }
        "row-at-the-cap" => ("cap.csv", row_of(CAP)),
        "row-over-the-cap" => ("cap.csv", row_of(CAP + 1)),
        "ten-thousand-columns" => ("wide.csv", wide(10_000)),
        "columns-at-the-cap" => ("wide.csv", wide(16_384)),
        "columns-over-the-cap" => ("wide.csv", wide(16_385)),
        "header-over-the-cap" => ("wide.csv", format!("{}\n1\n", "x".repeat(CAP + 1)).into_bytes()),
        "one-line-of-a-hundred-megabytes" => ("line.csv", vec![b'x'; 100_000_000]),
        "zeros-of-a-hundred-megabytes" => ("zeros.csv", vec![0; 100_000_000]),
        "open-quote-before-a-hundred-megabytes" => {
            ("quote.csv", format!("a,b\n1,\"x\n{}", "2,y\n".repeat(25_000_000)).into_bytes())
        }
        "parquet-of-ten-thousand-columns" => ("wide.parquet", wide_parquet(10_000)),
        "parquet-of-columns-over-the-cap" => ("wide.parquet", wide_parquet(16_385)),
        "parquet-cell-of-twenty-megabytes" => ("big.parquet", big_parquet()),
        "parquet-that-unpacks-to-a-gigabyte" => ("bomb.parquet", parquet_bomb()),
        other => panic!("there is no recipe {other}"),
    }
}

fn gzip(pieces: &[String]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    pieces.iter().for_each(|piece| encoder.write_all(piece.as_bytes()).unwrap());
    encoder.finish().unwrap()
}

/// A table whose second row has so many bytes, its line feed counted.
fn row_of(bytes: usize) -> Vec<u8> {
    let cell = "y".repeat(bytes - "2,\n".len());
    format!("a,b\n1,x\n2,{cell}\n3,z\n").into_bytes()
}

fn wide(columns: usize) -> Vec<u8> {
    let row = |cell: &dyn Fn(usize) -> String| (0..columns).map(cell).collect::<Vec<_>>().join(",");
    format!("{}\n{}\n", row(&|column| format!("c{column}")), row(&|column| column.to_string())).into_bytes()
}

fn parquet(columns: Vec<(String, ArrayRef)>) -> Vec<u8> {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

fn wide_parquet(columns: usize) -> Vec<u8> {
    let cell: ArrayRef = Arc::new(Int8Array::from(vec![7]));
    parquet((0..columns).map(|column| (format!("c{column}"), Arc::clone(&cell))).collect())
}

fn big_parquet() -> Vec<u8> {
    let big = "y".repeat(20_000_000);
    let cells: ArrayRef = Arc::new(StringArray::from(vec!["x", big.as_str(), "z"]));
    parquet(vec![("a".to_owned(), cells)])
}

/// One row group of a thousand equal texts, which as a dictionary take a few kilobytes, and a gigabyte as they are read.
fn parquet_bomb() -> Vec<u8> {
    let text = "y".repeat(1 << 20);
    let numbers: ArrayRef = Arc::new(Int8Array::from(vec![7; 16]));
    let cells: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 16]));
    let rows = RecordBatch::try_from_iter([("a", numbers), ("big", cells)]).unwrap();
    // What is read is kept in the input's own compression: the test's memory has to hold it.
    let zstd = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(zstd)).unwrap();
    (0..64).for_each(|_| writer.write(&rows).unwrap());
    writer.into_inner().unwrap()
}
