//! Every documented shape of a result line, and some that were only ever seen.

use proptest::prelude::*;

use super::*;

/// Decodes a line in both ways: they must agree.
fn decode_line(line: &[u8]) -> Result<Answer<'static>, BadLine> {
    let patient = decode_odd_line(line);
    assert_eq!(super::decode_line(line), patient, "{}", String::from_utf8_lossy(line));
    patient
}

/// The outcome of a line with this content.
fn of(rest: &str) -> Outcome<'static> {
    let answer = decode_line(format!(r#"{{"id":"batch_req_1","custom_id":"n-7",{rest}}}"#).as_bytes()).unwrap();
    assert_eq!(answer.custom_id, "n-7");
    answer.outcome
}

/// The outcome of a success with this message and reason.
fn success(message: &str, finish_reason: &str) -> Outcome<'static> {
    of(&format!(
        r#""response":{{"status_code":200,"request_id":"r","body":{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini-2024-07-18",
        "choices":[{{"index":0,"message":{message},"logprobs":null,"finish_reason":{finish_reason}}}],
        "usage":{{"prompt_tokens":22,"completion_tokens":5,"total_tokens":27,"prompt_tokens_details":{{"cached_tokens":3}},"completion_tokens_details":{{"reasoning_tokens":2}}}},
        "system_fingerprint":null}}}},"error":null"#
    ))
}

fn kind(outcome: &Outcome<'_>) -> Option<FailureKind> {
    if let Outcome::Failed { kind, .. } = outcome { Some(*kind) } else { None }
}

const TOKENS: Tokens = Tokens { input: 22, cached: 3, output: 5, reasoning: 2 };

#[test]
fn a_success_is_an_answer_with_its_model_and_tokens() {
    let expected = Outcome::Answered {
        response: "Hello.\u{2028}\"".into(),
        finish_reason: Some("stop".into()),
        model: Some("gpt-4o-mini-2024-07-18".into()),
        tokens: Some(TOKENS),
    };
    assert_eq!(
        success("{\"role\":\"assistant\",\"content\":\"Hello.\u{2028}\\\"\",\"refusal\":null}", "\"stop\""),
        expected
    );
}

#[test]
fn an_answer_that_was_cut_is_kept_and_says_so() {
    let outcome = success(r#"{"content":"half a sen"}"#, "\"length\"");
    assert!(
        matches!(outcome, Outcome::Answered { response, finish_reason: Some(reason), .. } if response == "half a sen" && reason == "length")
    );
}

#[test]
fn successes_without_an_answer_are_failures_by_kind() {
    for (message, finish_reason, expected) in [
        (r#"{"content":null,"refusal":"I can't help with that."}"#, "\"stop\"", FailureKind::Refused),
        (r#"{"content":"","refusal":"No."}"#, "\"stop\"", FailureKind::Refused),
        (r#"{"content":null}"#, "\"content_filter\"", FailureKind::Refused),
        (r#"{"content":"I was about to"}"#, "\"content_filter\"", FailureKind::Refused),
        (r#"{"content":null}"#, "\"length\"", FailureKind::Truncated),
        (r#"{"content":""}"#, "\"length\"", FailureKind::Truncated),
        (r#"{"content":null}"#, "\"stop\"", FailureKind::Malformed),
        (r#"{"content":null,"tool_calls":[]}"#, "\"stop\"", FailureKind::Malformed),
        ("{}", "null", FailureKind::Malformed),
        ("null", "null", FailureKind::Malformed),
    ] {
        let outcome = success(message, finish_reason);
        assert_eq!(kind(&outcome), Some(expected), "{message}");
        assert!(matches!(outcome, Outcome::Failed { tokens: Some(TOKENS), model: Some(_), .. }), "{message}");
    }
    for body in [r#"{"choices":[]}"#, "{}", r#"{"choices":[null]}"#] {
        assert_eq!(
            kind(&of(&format!(r#""response":{{"status_code":200,"body":{body}}},"error":null"#))),
            Some(FailureKind::Malformed),
            "{body}"
        );
    }
}

#[test]
fn other_spellings_of_an_answer_are_read() {
    let text = |outcome| if let Outcome::Answered { response, .. } = outcome { Some(response) } else { None };
    assert_eq!(text(success(r#"{"content":""}"#, "\"stop\"")).as_deref(), Some(""));
    assert_eq!(text(success(r#"{"content":"x","refusal":"y"}"#, "\"stop\"")).as_deref(), Some("x"));
    assert_eq!(
        text(success(r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#, "\"stop\"")).as_deref(),
        Some("ab")
    );
    let calls = r#"[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]"#;
    assert_eq!(
        text(success(&format!(r#"{{"content":null,"tool_calls":{calls}}}"#), "\"tool_calls\"")).as_deref(),
        Some(calls)
    );
    let bare = r#""response":{"body":{"choices":[{"message":{"content":"bare"}}],"usage":{"prompt_tokens":"3","completion_tokens":null}}}"#;
    assert_eq!(text(of(bare)).as_deref(), Some("bare"));
}

#[test]
fn rows_that_never_ran_fail_by_their_code() {
    for (code, expected) in [
        ("batch_expired", FailureKind::Expired),
        ("batch_cancelled", FailureKind::Cancelled),
        ("request_timeout", FailureKind::Timeout),
        ("rate_limit_exceeded", FailureKind::RateLimited),
        ("server_error", FailureKind::ServerError),
        ("context_length_exceeded", FailureKind::ContextTooLong),
        ("content_filter", FailureKind::Refused),
        ("invalid_image_url", FailureKind::InvalidImage),
        ("invalid_request", FailureKind::InvalidRequest),
        ("batch_client_error", FailureKind::InvalidRequest),
        ("something_new", FailureKind::ServerError),
    ] {
        for response in ["\"response\":null,", ""] {
            let outcome = of(&format!(
                r#"{response}"error":{{"code":"{code}","message":"This request could not be executed."}}"#
            ));
            assert_eq!(kind(&outcome), Some(expected), "{code}");
            assert!(
                matches!(outcome, Outcome::Failed { message, .. } if message.contains(code) && message.contains("could not")),
                "{code}"
            );
        }
    }
}

#[test]
fn http_failures_of_the_error_file_fail_by_status_and_code() {
    for (status, error, expected) in [
        (
            400,
            r#"{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}"#,
            FailureKind::ContextTooLong,
        ),
        (
            400,
            r#"{"message":"This model's maximum context length is 4096 tokens, however","type":"BadRequestError","code":400}"#,
            FailureKind::ContextTooLong,
        ),
        (413, r#"{"message":"too large"}"#, FailureKind::ContextTooLong),
        (400, r#"{"message":"The response was filtered","type":null,"code":"content_filter"}"#, FailureKind::Refused),
        (
            400,
            r#"{"message":"Your request was rejected","type":"invalid_request_error","code":"content_policy_violation"}"#,
            FailureKind::Refused,
        ),
        (
            400,
            r#"{"message":"Error while downloading https://x","type":"invalid_request_error","code":"invalid_image_url"}"#,
            FailureKind::InvalidImage,
        ),
        (400, r#"{"message":"bad","type":"image_parse_error","code":null}"#, FailureKind::InvalidImage),
        (
            400,
            r#"{"message":"Unsupported value: 'temperature'","type":"invalid_request_error","code":"unsupported_value"}"#,
            FailureKind::InvalidRequest,
        ),
        (401, r#"{"message":"no key","code":"invalid_api_key"}"#, FailureKind::InvalidRequest),
        (404, r#"{"message":"no model","code":"model_not_found"}"#, FailureKind::InvalidRequest),
        (408, r#"{"message":"slow"}"#, FailureKind::Timeout),
        (429, r#"{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}"#, FailureKind::RateLimited),
        (429, r#"{"message":"quota","code":"insufficient_quota"}"#, FailureKind::RateLimited),
        (
            500,
            r#"{"message":"The server had an error","type":"server_error","param":null,"code":null}"#,
            FailureKind::ServerError,
        ),
        (503, r#"{"message":"overloaded"}"#, FailureKind::ServerError),
        (504, r#"{"message":"gateway"}"#, FailureKind::Timeout),
        (500, "null", FailureKind::ServerError),
        (400, r#""plain text""#, FailureKind::InvalidRequest),
    ] {
        let outcome = of(&format!(
            r#""response":{{"status_code":{status},"request_id":"r","body":{{"error":{error}}}}},"error":null"#
        ));
        assert_eq!(kind(&outcome), Some(expected), "{status} {error}");
        assert!(matches!(outcome, Outcome::Failed { message, .. } if !message.is_empty()));
    }
}

#[test]
fn status_0_and_no_body_are_the_providers_failure() {
    for rest in [
        r#""response":{"status_code":0,"request_id":"","body":""},"error":null"#,
        r#""response":{"status_code":0,"request_id":"","body":null},"error":null"#,
        r#""response":{"status_code":200,"request_id":"","body":null},"error":null"#,
        r#""response":{"status_code":502,"body":"<html>Bad Gateway</html>"},"error":null"#,
        r#""response":{"status_code":302,"body":{}},"error":null"#,
        r#""response":{},"error":null"#,
        r#""response":null,"error":null"#,
        r#""response":7"#,
        r#""error":"broken""#,
        r#""error":[]"#,
    ] {
        assert_eq!(kind(&of(rest)), Some(FailureKind::ServerError), "{rest}");
    }
}

#[test]
fn an_error_beside_a_response_is_a_failure() {
    let rest = r#""response":{"status_code":200,"body":{"choices":[{"message":{"content":"x"}}]}},"error":{"code":"batch_expired","message":"m"}"#;
    assert_eq!(kind(&of(rest)), Some(FailureKind::Expired));
}

#[test]
fn a_providers_message_is_cut() {
    let long = "ä".repeat(5 * MAX_MESSAGE_CHARS);
    let outcome = of(&format!(r#""response":null,"error":{{"code":"c","message":"{long}"}}"#));
    assert!(matches!(outcome, Outcome::Failed { message, .. } if message.chars().count() == MAX_MESSAGE_CHARS + 1));
}

#[test]
fn a_line_without_an_id_or_without_sense_is_bad_and_shows_no_text() {
    for line in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"custom_id":null}"#,
        r#"{"custom_id":{"a":"secret"}}"#,
        "secret",
        r#"{"response":{"secret":1}}"#,
    ] {
        let bad = decode_line(line.as_bytes()).unwrap_err();
        assert_eq!(bad.custom_id, None, "{line}");
        assert!(!bad.to_string().contains("secret"), "{bad}");
    }
    let cut =
        br#"{"id":"x","custom_id":"n-7","response":{"status_code":200,"body":{"choices":[{"message":{"content":"sec"#;
    assert_eq!(decode_line(cut).unwrap_err().custom_id.as_deref(), Some("n-7"));
    assert_eq!(line_id(cut).as_deref(), Some("n-7"));
}

#[test]
fn only_the_lines_own_custom_id_counts() {
    let line =
        br#"{"id":"batch_req_1","response":{"custom_id":"inner","body":{"custom_id":"deeper"}},"custom_id":"n-7"}"#;
    assert_eq!(line_id(line).as_deref(), Some("n-7"));
    let line = br#"{"id":"\"custom_id\":\"fake\"","custom_id":"\u006e-7"}"#;
    assert_eq!(line_id(line).as_deref(), Some("n-7"));
    assert_eq!(line_id(br#"{"id":"x"}"#), None);
    assert_eq!(line_id(b"{\"custom_id\":\"\xff\"}"), None);
}

#[test]
fn a_broken_character_costs_that_character_and_not_the_row() {
    let text = |line: &[u8]| match decode_line(line).unwrap().outcome {
        Outcome::Answered { response, .. } => response,
        failed @ Outcome::Failed { .. } => panic!("{failed:?}"),
    };
    let line = |content: &[u8]| {
        [
            br#"{"custom_id":"n-7","response":{"status_code":200,"body":{"choices":[{"message":{"content":""#,
            content,
            br#""}}]}}}"#,
        ]
        .concat()
    };
    assert_eq!(text(&line(br"a\ud83db")), "a\u{fffd}b");
    assert_eq!(text(&line(br"\ude00")), "\u{fffd}");
    assert_eq!(text(&line(br"\ud83d\ud83d\ude00 \\ud83d")), "\u{fffd}\u{1f600} \\ud83d");
    assert_eq!(text(&line(b"a\xff\xfeb")), "a\u{fffd}\u{fffd}b");
    assert_eq!(text(&line(br"\ud83d\ude00")), "\u{1f600}");
}

fn valid_line() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop_oneof![
        any::<String>().prop_map(|text| serde_json::json!({"status_code": 200, "body": {"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": text}}], "usage": {"prompt_tokens": 1}}})),
        (0u16..600, any::<String>()).prop_map(|(status, text)| serde_json::json!({"status_code": status, "body": {"error": {"message": text, "code": null}}})),
        Just(serde_json::Value::Null),
    ];
    (rest, 0u32..1000).prop_map(|(response, row)| {
        serde_json::to_vec(
            &serde_json::json!({"id": "b", "custom_id": format!("n-{row}"), "response": response, "error": null}),
        )
        .unwrap()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused_without_a_panic(bytes: Vec<u8>) {
        let _ = (decode_line(&bytes), line_id(&bytes));
    }

    #[test]
    fn a_mutated_line_is_decoded_or_refused_without_a_panic(mut line in valid_line(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in any::<prop::sample::Index>()) {
        for (at, byte) in changes {
            let at = at.index(line.len());
            line[at] = byte;
        }
        let _ = (decode_line(&line), line_id(&line));
        line.truncate(cut.index(line.len()));
        let _ = (decode_line(&line), line_id(&line));
    }

    #[test]
    fn an_answer_comes_back_as_it_was_said(text: String, row: u32) {
        let line = serde_json::to_vec(&serde_json::json!({"custom_id": format!("n-{row}"), "response": {"status_code": 200, "body": {"choices": [{"message": {"content": text}}]}}})).unwrap();
        let id = format!("n-{row}");
        let peeked = line_id(&line);
        prop_assert_eq!(peeked.as_deref(), Some(id.as_str()));
        let answer = decode_line(&line).unwrap();
        prop_assert_eq!(answer.custom_id, id);
        prop_assert_eq!(answer.outcome, Outcome::Answered { response: text.into(), finish_reason: None, model: None, tokens: None });
    }
}
