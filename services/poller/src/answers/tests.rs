use proptest::prelude::*;

use super::*;

const N: &str = "0000000000000000";

fn answered(id: &str, text: &str) -> String {
    format!(
        r#"{{"id":"r","custom_id":"{id}","response":{{"status_code":200,"request_id":"q","body":{{"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":2,"completion_tokens":1}}}}}},"error":null}}"#
    )
}

fn failed(id: &str) -> String {
    format!(r#"{{"id":"r","custom_id":"{id}","response":null,"error":{{"code":"batch_expired","message":"late"}}}}"#)
}

/// What is said of each row, as text, and the unknown and the duplicate lines.
type Heard = (Vec<String>, u64, u64);

/// Reads files, in pieces of so many bytes.
fn heard(files: &[&str], rows: usize, max_decoded_bytes: usize, piece: usize) -> Heard {
    let provider = providers::open("p", &providers::ProviderSettings::simulator("http://127.0.0.1:1/v1")).unwrap();
    let config = Config { max_line_bytes: 4_096, max_decoded_bytes };
    let scratch = Scratch::new(None, 1 << 30).unwrap();
    let mut answers = Answers::new(provider.as_ref(), Nonce::from_bits(0), rows, &config, scratch);
    for file in files {
        file.as_bytes().chunks(piece).for_each(|piece| answers.push(piece).unwrap());
        answers.end_file().unwrap();
    }
    answers.finish().unwrap();
    let said = (0..rows).map(|row| match answers.of(row, &mut Vec::new()).unwrap() {
        Said::Nothing => "nothing".to_owned(),
        Said::TooLong => "too long".to_owned(),
        Said::Ended(Outcome::Answered { response, finish_reason, model, tokens }) => {
            assert_eq!((finish_reason.as_deref(), model.as_deref()), (Some("stop"), Some("m")));
            assert_eq!(tokens, Some(Tokens { input: 2, output: 1, ..Tokens::default() }));
            response.into_owned()
        }
        Said::Ended(Outcome::Failed { kind, .. }) => kind.to_string(),
    });
    (said.collect(), answers.unknown(), answers.duplicates())
}

/// The same however much is kept and however it comes.
fn said(files: &[&str], rows: usize) -> Heard {
    let kept = heard(files, rows, 1 << 20, 1 << 20);
    assert_eq!(heard(files, rows, 0, 1 << 20), kept);
    assert_eq!(heard(files, rows, 12, 7), kept);
    kept
}

#[test]
fn shuffled_lines_find_their_rows_and_a_line_separator_in_a_string_ends_nothing() {
    let (a, b) = (answered(&format!("{N}-1"), "x\u{2028}y"), answered(&format!("{N}-0"), "z"));
    let expected = ["z", "x\u{2028}y", "nothing"].map(str::to_owned);
    assert_eq!(said(&[&format!("{a}\n \r\n\n{b}"), ""], 3), (expected.to_vec(), 0, 0));
}

#[test]
fn lines_of_other_attempts_of_no_row_or_without_an_id_are_counted_and_kept_aside() {
    let strays =
        [answered("ffffffffffffffff-0", "x"), answered(&format!("{N}-3"), "x"), "{}".to_owned(), "not json".to_owned()];
    assert_eq!(said(&[&strays.join("\n")], 3), (vec!["nothing".to_owned(); 3], 4, 0));
}

#[test]
fn of_two_lines_for_a_row_a_success_beats_an_error_and_else_the_first_wins() {
    let id = format!("{N}-0");
    let (first, second) = (answered(&id, "one"), answered(&id, "two"));
    let one = |duplicates| (vec!["one".to_owned()], 0, duplicates);
    assert_eq!(said(&[&format!("{first}\n{second}\n"), &failed(&id)], 1), one(2));
    assert_eq!(said(&[&format!("{}\n{first}\n", failed(&id))], 1), one(1));
}

#[test]
fn a_line_that_breaks_off_fails_its_row_if_it_tells_which() {
    let line = answered(&format!("{N}-0"), "one");
    let broken = &line[..line.len() - 9];
    assert_eq!(said(&[broken], 1), (vec!["malformed".to_owned()], 0, 0));
    assert_eq!(said(&[&format!("{broken}\n{line}")], 1), (vec!["one".to_owned()], 0, 1));
}

#[test]
fn a_line_over_the_limit_costs_its_own_row_only() {
    let long = answered(&format!("{N}-0"), &"x".repeat(5_000));
    let short = answered(&format!("{N}-1"), "y");
    let rows = |first: &str| vec![first.to_owned(), "y".to_owned()];
    assert_eq!(said(&[&format!("{long}\n{short}")], 2), (rows("too long"), 0, 0));
    let better = answered(&format!("{N}-0"), "z");
    assert_eq!(said(&[&format!("{long}\n{short}\n{better}")], 2), (rows("z"), 0, 1));
    assert_eq!(said(&[&format!("{better}\n{short}\n{long}\n{long}")], 2), (rows("z"), 0, 2));
}

#[test]
fn a_full_scratch_is_told() {
    let provider = providers::open("p", &providers::ProviderSettings::simulator("http://127.0.0.1:1/v1")).unwrap();
    let config = Config { max_line_bytes: 4_096, max_decoded_bytes: 0 };
    let scratch = Scratch::new(None, 10).unwrap();
    let mut answers = Answers::new(provider.as_ref(), Nonce::from_bits(0), 1, &config, scratch);
    answers.push(answered(&format!("{N}-0"), "x").as_bytes()).unwrap();
    answers.end_file().unwrap();
    assert_eq!(answers.finish().unwrap_err().to_string(), "scratch is full");
}

/// A line, of one of few rows.
fn line() -> impl Strategy<Value = String> {
    (0u32..6, 0usize..7, 0usize..300).prop_map(|(row, shape, size)| {
        let id = format!("{N}-{row}");
        match shape {
            0 => failed(&id),
            1 => answered(&id, &"z".repeat(4_096)),
            2 => answered(&id, "x")[..60].to_owned(),
            3 => answered("ffffffffffffffff-0", "x"),
            _ => answered(&id, &format!("{size}{}", "a\\n".repeat(size))),
        }
    })
}

proptest! {
    #[test]
    fn what_is_said_depends_neither_on_the_bound_nor_on_the_pieces(lines in proptest::collection::vec(line(), 0..20), bound in 0usize..4_000, piece in 1usize..2_000, cut in any::<prop::sample::Index>()) {
        let cut = cut.index(lines.len() + 1);
        let files = [lines[..cut].join("\n"), lines[cut..].join("\n")];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        prop_assert_eq!(heard(&files, 5, bound, piece), heard(&files, 5, 1 << 20, 1 << 20));
    }
}
