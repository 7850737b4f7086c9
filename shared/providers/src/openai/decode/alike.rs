//! The decoder of usual lines against the patient one: whatever the line, they agree; and usual lines are not left to the
//! patient one.

use proptest::prelude::*;

use super::{Answer, Outcome, decode_line, decode_odd_line, usual};

fn agree(line: &[u8]) -> Result<(), TestCaseError> {
    prop_assert_eq!(decode_line(line), decode_odd_line(line), "{}", String::from_utf8_lossy(line));
    Ok(())
}

/// A usual line, in pieces: between two pieces stands one of [`USUAL`].
const PIECES: [&str; 18] = [
    r#"{"id":"r","custom_id":"#,
    r#","response":{"status_code":"#,
    r#","request_id":"q","body":{"id":"c","created":1764000000,"model":"#,
    r#","choices":["#,
    r#"{"index":0,"message":{"role":"assistant","content":"#,
    r#","refusal":"#,
    r#","tool_calls":"#,
    r#","annotations":"#,
    r#"},"logprobs":null,"finish_reason":"#,
    r#"}],"usage":{"prompt_tokens":"#,
    r#","completion_tokens":"#,
    r#","total_tokens":27,"prompt_tokens_details":"#,
    r#","completion_tokens_details":{"reasoning_tokens":"#,
    r#"}},"service_tier":"#,
    r#","error":"#,
    r#"}},"error":"#,
    r#","extra":"#,
    "}",
];
const USUAL: [&str; 17] = [
    r#""0000000000000007-12""#,
    "200",
    r#""gpt-4o-mini""#,
    "",
    r#""{\"category\": \"caf\u00e9 \ud83d\ude00\"}""#,
    "null",
    "null",
    "[]",
    r#""stop""#,
    "22",
    "5",
    r#"{"cached_tokens":3,"audio_tokens":0}"#,
    "2",
    r#""default""#,
    "null",
    "null",
    "[0.97,-1e-7,true,{}]",
];

/// What may stand there instead, usual, odd or wrong.
const OTHER: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "00",
    "-0",
    "-",
    "1.",
    ".5",
    "1.5",
    "1e3",
    "1e999",
    "-1e999",
    "+1",
    "01",
    "200",
    "299",
    "300",
    "404",
    "22.0",
    "\"22\"",
    "\"\"",
    "\"a\"",
    "\"length\"",
    "\"content_filter\"",
    "\"a\\\"b\"",
    "\"\\ud83d\"",
    "\"\\ude00x\"",
    "\"\\ud83d\\ud83d\"",
    "\"\\uD83D\\uDE00\"",
    "\"\\u000a\\b\\f\\/\"",
    "\"\\x\"",
    "\"\\u12g4\"",
    "\"\\u+123\"",
    "\"\\\"",
    "\"é\u{2028}\"",
    "\"a",
    "\"tab\there\"",
    "12345678901234567890",
    "999999999999999999",
    "9999999999999999999999",
    "[]",
    "{}",
    "[null]",
    "[{}]",
    "{\"a\":[{\"b\":\"\\ud83d\"}]}",
    "{\"\\ud83d\":1}",
    "{\"a\":1,}",
    "[1,]",
    "[1 2]",
    "{\"a\" 1}",
    "{1:1}",
    "{\"cached_tokens\":\"3\"}",
    "{\"cached_tokens\":1,\"cached_tokens\":1}",
    "[{\"type\":\"text\",\"text\":\"a\"}]",
    "{\"code\":\"batch_expired\",\"message\":\"late\"}",
    "nul",
    "nulll",
    "null null",
    " null ",
    "\tnull",
    "",
    "}",
    "]",
    ",",
    "null,\"content\":\"twice\"",
    "null,\"custom_id\":\"n-1\"",
    "1,\"input_tokens\":1",
    "null,\"model\":\"m\"",
    "null,\"detail\":\"d\"",
    "null,\"\\u0063ontent\":\"x\"",
    "null,\"a\\nb\":1",
    "{},{}",
    "{\"message\":{\"content\":\"first\"}},",
];

/// A line in which some of what is usual is not.
fn line() -> impl Strategy<Value = String> {
    let changes = proptest::collection::vec((0..USUAL.len(), proptest::sample::select(OTHER)), 0..3);
    (changes, ".{0,40}", any::<bool>(), any::<bool>()).prop_map(|(changes, said, spaced, own_words)| {
        let mut between = USUAL.map(str::to_owned);
        if own_words {
            between[4] = serde_json::to_string(&said).unwrap();
        }
        for (at, other) in changes {
            between[at] = other.to_owned();
        }
        let pieces = PIECES.iter().zip(between.iter().map(String::as_str).chain([""]));
        let space = if spaced { " " } else { "" };
        pieces.map(|(piece, between)| format!("{piece}{space}{between}{space}")).collect()
    })
}

/// The usual line as it is.
fn usual_line() -> String {
    PIECES.iter().zip(USUAL.into_iter().chain([""])).map(|(piece, between)| format!("{piece}{between}")).collect()
}

#[test]
fn usual_lines_are_read_as_usual() {
    let line = usual_line();
    let expected = Outcome::Answered {
        response: "{\"category\": \"café 😀\"}".into(),
        finish_reason: Some("stop".into()),
        model: Some("gpt-4o-mini".into()),
        tokens: Some(model::Tokens { input: 22, cached: 3, output: 5, reasoning: 2 }),
    };
    let answer = Answer { custom_id: "0000000000000007-12".into(), outcome: expected };
    assert_eq!(usual::decode(line.as_bytes()), Some(answer));
    for line in [
        // With spaces, as Python writes it, and a carriage return.
        r#"{ "custom_id": "n-7", "response": {"status_code": 200, "body": {"choices": [ {"message": {"content": "x"}} ]}} }"#,
        "{\"custom_id\":\"n-7\",\"response\":{\"status_code\":200,\"body\":{\"choices\":[{\"message\":{\"content\":\"x\"}}]}}}\r",
        // vLLM's.
        r#"{"id":"vllm-1","custom_id":"n-7","response":{"status_code":200,"request_id":"vllm-batch-1","body":{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":null,"content":"x","tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1,"prompt_tokens_details":null},"prompt_logprobs":null}},"error":null}"#,
    ] {
        assert!(usual::decode(line.as_bytes()).is_some(), "{line}");
        agree(line.as_bytes()).unwrap();
    }
}

#[test]
fn a_usual_line_that_breaks_off_or_goes_on_is_not_usual() {
    let line = usual_line();
    for cut in 0..line.len() {
        assert_eq!(usual::decode(&line.as_bytes()[..cut]), None, "{cut}");
    }
    for more in ["}", ",", "{}", "\u{c}", "\0", "x"] {
        assert_eq!(usual::decode(format!("{line}{more}").as_bytes()), None, "{more:?}");
    }
}

#[test]
fn each_odd_value_in_each_place_is_read_alike() {
    for at in 0..USUAL.len() {
        for other in OTHER {
            let mut between = USUAL;
            between[at] = other;
            let pieces = PIECES.iter().zip(between.into_iter().chain([""]));
            let line: String = pieces.map(|(piece, between)| format!("{piece}{between}")).collect();
            // Behind a usual line, and behind itself.
            agree(usual_line().as_bytes()).unwrap();
            agree(line.as_bytes()).unwrap();
            agree(line.as_bytes()).unwrap();
            agree(usual_line().as_bytes()).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn an_odd_line_is_read_alike(line in line()) {
        agree(line.as_bytes())?;
    }

    #[test]
    fn a_line_is_read_alike_whatever_line_was_before_it(first in line(), second in line()) {
        agree(first.as_bytes())?;
        agree(second.as_bytes())?;
        agree(first.as_bytes())?;
    }

    #[test]
    fn a_line_that_differs_from_the_one_before_in_some_bytes_is_read_alike(changes in proptest::collection::vec((any::<prop::sample::Index>(), proptest::sample::select(&b"\"\\{}[]:,0129.-eEu ntx\x1f\xc3"[..])), 1..3)) {
        let usual = usual_line().into_bytes();
        agree(&usual)?;
        let mut line = usual;
        for (at, byte) in changes {
            let at = at.index(line.len());
            line[at] = byte;
        }
        agree(&line)?;
    }

    #[test]
    fn a_line_with_other_bytes_is_read_alike(line in line(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), cut in any::<prop::sample::Index>()) {
        let mut line = line.into_bytes();
        for (at, byte) in changes {
            let at = at.index(line.len());
            line[at] = byte;
        }
        agree(&line)?;
        line.truncate(cut.index(line.len()));
        agree(&line)?;
    }

    #[test]
    fn any_text_is_read_as_usual(said in ".{1,200}", ascii: bool) {
        let mut quoted = serde_json::to_string(&said).unwrap();
        if ascii {
            quoted = quoted.encode_utf16().map(|unit| if unit < 0x80 { char::from(unit as u8).to_string() } else { format!("\\u{unit:04x}") }).collect();
        }
        let line = format!(r#"{{"custom_id":"n-7","response":{{"status_code":200,"body":{{"choices":[{{"message":{{"content":{quoted}}}}}]}}}}}}"#);
        // DEL and what is above it are no control characters to JSON.
        let Some(Answer { outcome: Outcome::Answered { response, .. }, .. }) = usual::decode(line.as_bytes()) else {
            return Err(TestCaseError::fail(line));
        };
        prop_assert_eq!(response, said);
        agree(line.as_bytes())?;
    }
}
