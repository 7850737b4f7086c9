//! Single files with their exact outcome, read through the same helpers.

use super::*;

#[test]
fn a_bad_row_is_named_with_row_line_and_byte() {
    let file = b"a,b\n1,2\n\n\"x\ny\",2\n1,2,3\n4\n5,\xff\n6,\0\n\"7\"7,8\n9\r,9\n";
    let info = open("x.csv", file, None, Caps::default()).unwrap();
    let chunks = read(&info, file, Caps::default(), None).unwrap();
    let messages: Vec<String> = faults(&chunks).into_iter().map(|(_, message)| message).collect();
    assert_eq!(
        messages,
        [
            "row 3 (line 6, byte 17) has 3 cells, the header has 2",
            "row 4 (line 7, byte 23) has 1 cell, the header has 2",
            "row 5 (line 8, byte 25) is not UTF-8 at byte 27",
            "row 6 (line 9, byte 29) has a NUL byte at byte 31",
            "row 7 (line 10, byte 33) has text after a closing quote at byte 36",
            "row 8 (line 11, byte 40) has a carriage return without a line feed at byte 41",
        ]
    );
    assert_eq!(records(&chunks).concat().len(), file.len() - 4 - 1, "faulty rows are carried too");
}

#[test]
fn a_quote_that_is_never_closed_names_the_row_where_it_began() {
    let file = b"a,b\n1,2\n3,\"x\n5,6\n";
    let info = open("x.csv", file, None, Caps::default()).unwrap();
    let error = read(&info, file, Caps::default(), None).unwrap_err();
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.code, RefusalCode::BadRow);
    assert!(refusal.message.starts_with("row 2 (line 3, byte 8) opens a quote at byte 10"), "{}", refusal.message);
}

#[test]
fn a_record_over_the_cap_is_refused_without_holding_more_than_the_cap() {
    let mut file = b"a,b\n1,2\n3,\"".to_vec();
    file.extend(vec![b'x'; 5_000]);
    let caps = Caps { max_record_bytes: 1_000, read_bytes: 100, chunk_bytes: 100, ..Caps::default() };
    let info = open("x.csv", &file, None, caps).unwrap();
    let mut decoder = CsvDecoder::open(&info, file.len() as u64, caps, None).unwrap();
    let mut most = 0;
    let error = loop {
        match decoder.step() {
            Ok(Step::Need(ranges)) => {
                most = ranges[0].end;
                decoder.push(ranges[0].clone(), slice(&file, &ranges[0]));
            }
            Ok(Step::Rows(_)) => {}
            Ok(Step::End(_)) => panic!("the record was read"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.refusal().unwrap().code, RefusalCode::InputTooLarge);
    assert!(error.to_string().contains("row 2 (line 3, byte 8)"), "{error}");
    assert!(most <= 1_300, "{most}");
}

#[test]
fn a_file_that_changed_since_it_was_opened_is_refused() {
    let info = open("x.csv", b"a,b\n1,2\n", None, Caps::default()).unwrap();
    for other in [b"a,c\n1,2\n".as_slice(), b"", b"a,b"] {
        let error = read(&info, other, Caps::default(), None).unwrap_err();
        assert_eq!(error.refusal().unwrap().code, RefusalCode::InputChanged);
    }
    let beyond = Position { row: 9, byte: 99, line: 9 };
    assert!(read(&info, b"a,b\n1,2\n", Caps::default(), Some(beyond)).is_err());
}

#[test]
fn a_header_alone_is_a_table_without_rows() {
    for file in [b"a,b".as_slice(), b"a,b\n", b"\xEF\xBB\xBFa,b\r\n", b"\n\na,b\n\n\n"] {
        let info = open("x.csv", file, None, Caps::default()).unwrap();
        assert!(read(&info, file, Caps::default(), None).unwrap().is_empty());
    }
}

#[test]
fn blank_lines_without_end_do_not_pile_up() {
    let mut file = b"a,b\n".to_vec();
    file.extend(vec![b'\n'; 10_000]);
    file.extend(b"1,2\n");
    let caps = Caps { chunk_bytes: 64, max_record_bytes: 100, ..Caps::default() };
    let info = table(2, ',', "a,b\n", false);
    let chunks = read(&info, &file, caps, None).unwrap();
    assert_eq!(records(&chunks), [b"1,2\n"]);
    assert_eq!(chunks[0].end, Position { row: 1, byte: file.len() as u64, line: 10_002 });
}

#[test]
fn bytes_that_were_not_asked_for_are_an_error() {
    let info = table(2, ',', "a,b\n", false);
    let mut decoder = CsvDecoder::open(&info, 8, Caps::default(), None).unwrap();
    decoder.push(0..8, Bytes::from_static(b"a,b\n"));
    assert!(matches!(decoder.step(), Err(Error::Data(_))));
}
