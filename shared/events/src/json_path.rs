//! Where in a JSON document a parse error lies, and what it says, without the values.
//!
//! `serde_json` gives line and column. The path of field names up to there is found by walking the bytes before that place;
//! it costs nothing while documents are good. A value that the message quotes may be a prompt, so it is left out.

use crate::poison::shorten;

/// The most bytes of a message or a path.
const MAX_BYTES: usize = 300;

/// The error as `field.path: message`, without values of the document.
pub(crate) fn describe(json: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    let message = shorten(&without_values(message), MAX_BYTES);
    let path = path_at(json, offset(json, error.line(), error.column()));
    if path.is_empty() { message } else { format!("{}: {message}", shorten(&path, MAX_BYTES)) }
}

/// `invalid type: string "…", expected X` without the string.
fn without_values(message: &str) -> String {
    for start in ["invalid type: string ", "invalid value: string "] {
        if message.starts_with(start) {
            let expected = message.rfind(", expected ").map_or("", |at| &message[at..]);
            return format!("{}{expected}", start.trim_end());
        }
    }
    message.to_owned()
}

/// The byte offset of a line and column, both as `serde_json` counts them: lines from 1, columns in bytes.
fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let newlines = json.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let start = std::iter::once(0).chain(newlines).nth(line.saturating_sub(1)).unwrap_or(json.len());
    start.saturating_add(column).min(json.len())
}

/// A container that is open at the place.
enum Open {
    Object(Option<String>),
    Array(usize),
}

/// The path of names and indices that leads to the byte at `end`: `request.params`, `batches[2].number`.
fn path_at(json: &[u8], end: usize) -> String {
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while at < end {
        match json[at] {
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::Array(0)),
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Open::Object(key)) => *key = None,
                Some(Open::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let text = &json[at + 1..string_end(json, at + 1, end)];
                if let Some(Open::Object(key @ None)) = open.last_mut() {
                    *key = Some(String::from_utf8_lossy(text).into_owned());
                }
                at += text.len() + 1;
            }
            _ => {}
        }
        at += 1;
    }
    open.iter().fold(String::new(), |path, open| match open {
        Open::Object(None) => path,
        Open::Object(Some(key)) if path.is_empty() => key.clone(),
        Open::Object(Some(key)) => format!("{path}.{key}"),
        Open::Array(index) => format!("{path}[{index}]"),
    })
}

/// Where the string whose content begins at `start` ends: its closing quote, or `end`.
fn string_end(json: &[u8], start: usize, end: usize) -> usize {
    let mut at = start;
    while at < end && json[at] != b'"' {
        at += if json[at] == b'\\' { 2 } else { 1 };
    }
    at.min(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::JobSpec;
    use proptest::prelude::*;

    fn spec_error(json: &str) -> String {
        describe(json.as_bytes(), &serde_json::from_str::<JobSpec>(json).unwrap_err())
    }

    #[test]
    fn an_error_names_its_field_and_not_the_value() {
        assert_eq!(
            spec_error("{\"id\":\"a\",\n \"batch\": {\"max_rows\":\n\"my \\\"secret\\\" prompt, expected \"}}"),
            "batch.max_rows: invalid type: string, expected u32"
        );
        let unknown = spec_error(r#"{"id":"a","request":{"tempalte":"x"}}"#);
        assert!(unknown.starts_with("request.tempalte: unknown field `tempalte`, expected one of"), "{unknown}");
        assert_eq!(spec_error(r#"{"id":"a","input":{}}"#), "input: missing field `uri`");
        assert_eq!(spec_error(r#"{"id":"a"}"#), "missing field `input`");
    }

    #[test]
    fn a_path_goes_through_arrays_and_past_closed_containers() {
        let json = br#"{"a":{"b":1},"c\"":[[],{"d":2,"e":X"#;
        assert_eq!(path_at(json, json.len()), r#"c\"[1].e"#);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_walk_panic(json in proptest::collection::vec(any::<u8>(), 0..200), line in 0usize..9, column: usize) {
            let end = offset(&json, line, column);
            prop_assert!(end <= json.len());
            let _ = path_at(&json, end);
        }

        #[test]
        fn no_json_like_text_makes_the_walk_panic(json in r#"[\[\]{},:"\\a1 \n]{0,60}"#) {
            if let Err(error) = serde_json::from_str::<JobSpec>(&json) {
                let _ = describe(json.as_bytes(), &error);
            }
        }
    }
}
