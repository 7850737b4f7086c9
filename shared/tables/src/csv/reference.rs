//! Property tests of the CSV half against a model that is too simple to be wrong: one byte at a time, no `memchr`, no
//! buffers, whole files in memory.

mod examples;

use std::borrow::Cow;
use std::io::{Read, Write};

use arrow::array::{Array, AsArray};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use model::table::{CsvDialect, FileKind};
use model::{RefusalCode, TableInfo};
use proptest::prelude::*;

use super::*;
use crate::input::{Caps, Chunk, Error, Position, Step};
use crate::open::{OpenStep, Opener};

/// A record as the model sees it.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    raw: Vec<u8>,
    cells: Vec<Vec<u8>>,
    flawed: bool,
    open: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Start,
    Plain,
    Quoted,
    Closing,
}

/// Splits a whole text into records, blank lines left out.
fn model(text: &[u8], delimiter: u8) -> Vec<Model> {
    let fresh = || Model { raw: vec![], cells: vec![vec![]], flawed: false, open: false };
    let (mut out, mut now, mut mode) = (Vec::new(), fresh(), Mode::Start);
    for (i, &byte) in text.iter().enumerate() {
        now.raw.push(byte);
        let next = text.get(i + 1).copied();
        let ends = byte == b'\n' || (byte == b'\r' && next.is_none());
        if mode != Mode::Quoted && (ends || (byte == b'\r' && next == Some(b'\n'))) {
            if ends {
                out.push(std::mem::replace(&mut now, fresh()));
                mode = Mode::Start;
            }
            continue;
        }
        let last = now.cells.len() - 1;
        mode = match (mode, byte) {
            (Mode::Quoted, b'"') => Mode::Closing,
            (Mode::Closing, b'"') => {
                now.cells[last].push(b'"');
                Mode::Quoted
            }
            (Mode::Start, b'"') => Mode::Quoted,
            (Mode::Start | Mode::Plain | Mode::Closing, b) if b == delimiter => {
                now.cells.push(vec![]);
                Mode::Start
            }
            (Mode::Quoted, _) => {
                now.cells[last].push(byte);
                Mode::Quoted
            }
            (mode, _) => {
                now.flawed |= mode == Mode::Closing || byte == b'\r';
                now.cells[last].push(byte);
                Mode::Plain
            }
        };
    }
    if !now.raw.is_empty() {
        now.open = mode == Mode::Quoted;
        out.push(now);
    }
    out.retain(|record| !matches!(record.raw.as_slice(), b"\n" | b"\r\n" | b"\r"));
    out
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn slice(file: &[u8], range: &std::ops::Range<u64>) -> Bytes {
    Bytes::copy_from_slice(&file[range.start as usize..range.end as usize])
}

fn open(name: &str, file: &[u8], delimiter: Option<char>, caps: Caps) -> Result<TableInfo, Error> {
    let mut opener = Opener::new(name, file.len() as u64, None, delimiter, caps);
    loop {
        match opener.step()? {
            OpenStep::Done(info) => return Ok(info),
            OpenStep::Need(ranges) => {
                ranges.into_iter().for_each(|range| opener.push(range.clone(), slice(file, &range)))
            }
        }
    }
}

fn read(info: &TableInfo, file: &[u8], caps: Caps, resume: Option<Position>) -> Result<Vec<Chunk>, Error> {
    let mut decoder = CsvDecoder::open(info, file.len() as u64, caps, resume)?;
    let mut chunks: Vec<Chunk> = Vec::new();
    loop {
        match decoder.step()? {
            Step::Need(ranges) => ranges.into_iter().for_each(|range| decoder.push(range.clone(), slice(file, &range))),
            Step::Rows(chunk) => chunks.push(chunk),
            Step::End(end) => {
                assert_eq!(end.rows, chunks.last().map_or(resume.unwrap_or_default(), |chunk| chunk.end).row);
                assert!(matches!(decoder.step()?, Step::End(again) if again == end));
                return Ok(chunks);
            }
        }
    }
}

fn records(chunks: &[Chunk]) -> Vec<Vec<u8>> {
    chunks
        .iter()
        .flat_map(|chunk| {
            let records = chunk.rows.column(0).as_binary::<i32>();
            (0..records.len()).map(|row| records.value(row).to_vec()).collect::<Vec<_>>()
        })
        .collect()
}

fn faults(chunks: &[Chunk]) -> Vec<(u64, String)> {
    let of = |chunk: &Chunk| {
        let first = chunk.first_row;
        chunk.faults.iter().map(move |fault| (first + fault.row as u64, fault.message.clone())).collect::<Vec<_>>()
    };
    chunks.iter().flat_map(of).collect()
}

fn table(columns: usize, delimiter: char, header: &str, gzip: bool) -> TableInfo {
    TableInfo {
        kind: FileKind::Csv,
        columns: (0..columns).map(|i| format!("c{i}")).collect(),
        csv: Some(CsvDialect {
            delimiter,
            bom: false,
            header: header.into(),
            quote_all: false,
            line_ending: "\n".into(),
            gzip,
        }),
        arrow_schema: None,
        codec: None,
    }
}

/// Small pieces and small chunks, so that every boundary falls everywhere.
fn small_caps() -> impl Strategy<Value = Caps> {
    (1u64..40, 1usize..60, 1usize..9).prop_map(|(read_bytes, chunk_bytes, chunk_rows)| Caps {
        read_bytes,
        chunk_bytes,
        chunk_rows,
        ..Caps::default()
    })
}

fn delimiters() -> impl Strategy<Value = char> {
    prop::sample::select(vec![',', ';', '\t', '|'])
}

/// A cell's text, rich in what CSV finds special, never a NUL byte.
fn cell() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "a", "007", " ", "\"", ",", ";", "\t", "|", "\n", "\r\n", "é", "漢", "'", "\u{feff}",
        ]),
        0..5,
    )
    .prop_map(|parts| parts.concat())
}

/// A table as a writer would have written it: the text, and its cells.
#[derive(Debug, Clone)]
struct Written {
    delimiter: char,
    bom: bool,
    text: Vec<u8>,
    cells: Vec<Vec<String>>,
}

fn written() -> impl Strategy<Value = Written> {
    let rows = (1usize..5).prop_flat_map(|columns| {
        let row = prop::collection::vec((cell(), any::<bool>()), columns);
        prop::collection::vec((row, 0u8..4, 0usize..3), 0..12).prop_map(move |rows| (columns, rows))
    });
    (rows, delimiters(), any::<bool>(), any::<bool>()).prop_map(|((columns, rows), delimiter, bom, ended)| {
        let mut text = String::new();
        let header: Vec<String> = (0..columns).map(|i| format!("column {i}")).collect();
        text.push_str(&header.join(&delimiter.to_string()));
        text.push('\n');
        let count = rows.len();
        let mut cells = Vec::new();
        for (index, (row, ending, blanks)) in rows.into_iter().enumerate() {
            let line: Vec<String> =
                row.iter().map(|(cell, force)| quote(cell, *force || columns == 1, delimiter)).collect();
            text.push_str(&line.join(&delimiter.to_string()));
            if index + 1 < count || ended {
                text.push_str(if ending == 0 { "\r\n" } else { "\n" });
                text.push_str(&"\n".repeat(blanks));
            }
            cells.push(row.into_iter().map(|(cell, _)| cell).collect());
        }
        let mut bytes = if bom { BOM.to_vec() } else { Vec::new() };
        bytes.extend(text.into_bytes());
        Written { delimiter, bom, text: bytes, cells }
    })
}

fn quote(cell: &str, force: bool, delimiter: char) -> String {
    if force || cell.starts_with('"') || cell.contains([delimiter, '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn cells_of(info: &TableInfo, record: &[u8]) -> Vec<String> {
    let wanted: Vec<usize> = (0..info.columns.len()).collect();
    let mut out = Vec::new();
    cells(record, info.csv.as_ref().unwrap(), &wanted, |cell| out.push(cell.into_owned())).unwrap();
    out
}

/// The text behind the header line of a file that has neither a byte order mark nor a quoted header.
fn body(file: &[u8]) -> &[u8] {
    &file[file.iter().position(|&byte| byte == b'\n').unwrap() + 1..]
}

/// Text in which quotes, delimiters and line ends are frequent.
fn wild() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"\"\",,\n\n\ra b\xc3\xa9\0".to_vec()), 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_writer_wrote_is_read_back_cell_for_cell(file in written(), caps in small_caps(), gz in any::<bool>()) {
        let stored = if gz { gzip(&file.text) } else { file.text.clone() };
        let info = open("x.csv", &stored, Some(file.delimiter), caps).unwrap();
        let dialect = info.csv.as_ref().unwrap();
        prop_assert_eq!((dialect.delimiter, dialect.bom, dialect.gzip), (file.delimiter, file.bom, gz));
        let chunks = read(&info, &stored, caps, None).unwrap();
        prop_assert_eq!(faults(&chunks), vec![]);
        let found: Vec<Vec<String>> = records(&chunks).iter().map(|record| cells_of(&info, record)).collect();
        prop_assert_eq!(found, file.cells);
    }

    #[test]
    fn any_text_is_split_as_the_model_splits_it(tail in wild(), caps in small_caps(), gz in any::<bool>()) {
        let mut text = b"a,b\n".to_vec();
        text.extend(&tail);
        let expected = model(body(&text), b',');
        let stored = if gz { gzip(&text) } else { text.clone() };
        let read = read(&table(2, ',', "a,b\n", gz), &stored, caps, None);
        if expected.last().is_some_and(|record| record.open) {
            prop_assert_eq!(read.unwrap_err().refusal().unwrap().code, RefusalCode::BadRow);
            return Ok(());
        }
        let chunks = read.unwrap();
        prop_assert_eq!(records(&chunks), expected.iter().map(|record| record.raw.clone()).collect::<Vec<_>>());
        let bad = |record: &Model| {
            record.flawed || record.cells.len() != 2 || record.raw.contains(&0) || std::str::from_utf8(&record.raw).is_err()
        };
        let expected_bad: Vec<u64> = (0u64..).zip(&expected).filter(|(_, record)| bad(record)).map(|(row, _)| row).collect();
        prop_assert_eq!(faults(&chunks).into_iter().map(|(row, _)| row).collect::<Vec<_>>(), expected_bad.clone());
        for (row, record) in (0u64..).zip(&expected).filter(|(row, _)| !expected_bad.contains(row)) {
            let found = cells_of(&table(2, ',', "a,b\n", gz), &record.raw);
            prop_assert_eq!(found.iter().map(|cell| cell.as_bytes()).collect::<Vec<_>>(), record.cells.clone(), "row {}", row);
        }
    }

    #[test]
    fn the_records_together_are_the_body_without_its_blank_lines(file in written(), caps in small_caps()) {
        let info = open("x.csv", &file.text, Some(file.delimiter), caps).unwrap();
        let chunks = read(&info, &file.text, caps, None).unwrap();
        let expected: Vec<u8> = model(body(&file.text), file.delimiter as u8).into_iter().flat_map(|record| record.raw).collect();
        prop_assert_eq!(records(&chunks).concat(), expected);
    }

    #[test]
    fn a_resumed_reader_goes_on_exactly(tail in wild(), caps in small_caps(), gz in any::<bool>()) {
        let mut text = b"\"a\",b\r\n".to_vec();
        text.extend(&tail);
        let stored = if gz { gzip(&text) } else { text };
        let info = table(2, ',', "\"a\",b\r\n", gz);
        let Ok(whole) = read(&info, &stored, caps, None) else { return Ok(()) };
        for (done, chunk) in whole.iter().enumerate() {
            let rest = read(&info, &stored, caps, Some(chunk.end)).unwrap();
            prop_assert_eq!(records(&rest), records(&whole[done + 1..]));
            prop_assert_eq!(faults(&rest), faults(&whole[done + 1..]));
            prop_assert_eq!(rest.last().map_or(chunk.end, |chunk| chunk.end), whole.last().unwrap().end);
        }
    }

    #[test]
    fn how_the_bytes_arrive_changes_nothing(tail in wild(), caps in small_caps(), other in 1u64..40) {
        let mut text = b"a,b\n".to_vec();
        text.extend(&tail);
        let info = table(2, ',', "a,b\n", false);
        let again = read(&info, &text, Caps { read_bytes: other, ..caps }, None).map(|chunks| (records(&chunks), faults(&chunks)));
        let once = read(&info, &text, caps, None).map(|chunks| (records(&chunks), faults(&chunks)));
        prop_assert_eq!(once.map_err(|error| error.to_string()), again.map_err(|error| error.to_string()));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(file in prop::collection::vec(any::<u8>(), 0..200), wild in wild(), caps in small_caps(), kind in 0u8..4) {
        let file = match kind {
            0 => file,
            1 => wild,
            2 => gzip(&wild),
            _ => [b"\x1f\x8b\x08\x00".as_slice(), &file].concat(),
        };
        if let Ok(info) = open("x", &file, None, caps) {
            let _ = read(&info, &file, caps, None);
        }
    }

    #[test]
    fn an_output_read_again_has_the_same_cells_and_the_answers(
        file in written(),
        answers in prop::collection::vec((cell(), prop::option::of(cell())), 12),
        gz in any::<bool>(),
    ) {
        let caps = Caps::default();
        let info = open("x.csv", &file.text, Some(file.delimiter), caps).unwrap();
        let mut output = CsvOutput::new(&info, &["response", "er\"r;o,r"], gz).unwrap();
        output.header().unwrap();
        let mut bytes = Vec::new();
        for (record, (response, error)) in records(&read(&info, &file.text, caps, None).unwrap()).iter().zip(&answers) {
            output.row(record, &[Some(response), error.as_deref()]).unwrap();
            bytes.extend(output.take());
        }
        bytes.extend(output.finish().unwrap());
        let again = open("y.csv", &bytes, Some(file.delimiter), caps).unwrap();
        prop_assert_eq!(&again.columns[info.columns.len()..], ["response", "er\"r;o,r"]);
        let chunks = read(&again, &bytes, caps, None).unwrap();
        prop_assert_eq!(faults(&chunks), vec![]);
        let found: Vec<Vec<String>> = records(&chunks).iter().map(|record| cells_of(&again, record)).collect();
        let mut expected = file.cells.clone();
        for (row, (response, error)) in expected.iter_mut().zip(&answers) {
            row.extend([response.clone(), error.clone().unwrap_or_default()]);
        }
        prop_assert_eq!(found, expected);
        if gz {
            let mut text = Vec::new();
            MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut text).unwrap();
            prop_assert_eq!(text.starts_with(BOM), file.bom);
        }
    }
}
