use super::*;

fn known(rows: u64) -> Known {
    Known { nonce: "00000000000000aa".to_owned(), first_row: 150_000, rows }
}

fn file(known: &Known, from: u64) -> Vec<u8> {
    known.clone().pieces(from).flat_map(Result::unwrap).collect()
}

#[test]
fn a_result_file_is_as_long_as_it_is_said_to_be_and_goes_on_from_any_byte() {
    for rows in [1, 9, 10, 11, 100, 101, 1_000, 7_919] {
        let (known, whole) = (known(rows), file(&known(rows), 0));
        assert_eq!(known.bytes(), whole.len() as u64, "{rows} rows");
        for from in [1, whole.len() / 2, whole.len()] {
            assert_eq!(file(&known, from as u64), whole[from..], "{rows} rows from byte {from}");
        }
    }
}

#[test]
fn every_row_is_answered_once_with_the_number_of_its_own_prompt() {
    let provider = Instant::new().unwrap();
    let whole = file(&known(2_000), 0);
    let mut places: Vec<u64> = whole
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            let answer = provider.decode_line(line).unwrap();
            let place: u64 = answer.custom_id.strip_prefix("00000000000000aa-").unwrap().parse().unwrap();
            let providers::Outcome::Answered { response, .. } = answer.outcome else { panic!("{:?}", answer.outcome) };
            assert_eq!(response, format!("row {:012}", 150_000 + place));
            place
        })
        .collect();
    assert_ne!(places[1], 1, "results are in another order");
    places.sort_unstable();
    assert_eq!(places, (0..2_000).collect::<Vec<u64>>());
}

fn request(nonce: &str, place: u64, row: u64) -> String {
    format!("{{\"custom_id\":\"{nonce}-{place}\",\"body\":{{\"content\":\"row {row:012}: what is it?\"}}}}\n")
}

fn noticed_of(text: &str, piece: usize) -> Result<Known, Error> {
    let mut noticing = Noticing::default();
    text.as_bytes().chunks(piece).for_each(|piece| noticing.take(piece));
    noticing.known()
}

#[test]
fn of_an_upload_it_notices_the_same_however_its_bytes_come() {
    let text: String = (0..40).map(|place| request("n", place, 70 + place)).collect();
    for piece in [1, 7, 100, 5_000] {
        let expected = Known { nonce: "n".to_owned(), first_row: 70, rows: 40 };
        assert_eq!(noticed_of(&text, piece).unwrap(), expected, "pieces of {piece}");
    }
}

#[test]
fn an_upload_that_is_not_one_batch_is_refused() {
    for wrong in [
        String::new(),
        request("n", 1, 5),
        request("n", 0, 5) + &request("m", 1, 6),
        request("n", 0, 5) + &request("n", 1, 7),
        request("n", 0, 5) + &request("n", 2, 7),
        (request("n", 0, 5) + &request("n", 1, 6)).trim_end().to_owned(),
    ] {
        assert!(noticed_of(&wrong, 64).is_err(), "{wrong}");
    }
}
