//! Rows as lines of a batch input file.
//!
//! All that is the same for each row of a job is written once, beforehand; a row costs one scan of its prompt. The scan
//! looks at 32 bytes at a time for one that JSON wants escaped; UTF-8 beyond ASCII is copied as it is. Lengths are exact,
//! because the splitter cuts batches by them and never encodes.

use model::ids::CustomId;
use model::spec::Request;

use super::ENDPOINT;
use crate::provider::{Encode, EncodeError};

/// What a byte is written as: 0 itself, `u` as `\u00XX`, any other letter as that letter behind a backslash.
const ESCAPES: [u8; 256] = escapes();

const fn escapes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
}

/// Encodes the rows of one job.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// From the custom id to the user prompt.
    middle: Vec<u8>,
    /// Behind the user prompt, the line end included.
    end: Vec<u8>,
}

const START: &[u8] = b"{\"custom_id\":\"";

impl Encoder {
    /// An encoder for this request's model, system prompt and parameters.
    ///
    /// # Errors
    /// The model has no provider before it, or a parameter is one that the encoder writes itself.
    pub fn new(request: &Request) -> Result<Self, EncodeError> {
        let model = request.model.split_once('/').map(|(_, model)| model).filter(|model| !model.is_empty());
        let model = model.ok_or_else(|| EncodeError::Model(request.model.clone()))?;
        if let Some(param) =
            ["model", "messages", "stream"].into_iter().find(|param| request.params.contains_key(*param))
        {
            return Err(EncodeError::ReservedParam(param.to_owned()));
        }
        let mut middle = format!("\",\"method\":\"POST\",\"url\":\"{ENDPOINT}\",\"body\":{{\"model\":\"").into_bytes();
        escape(model, &mut middle);
        middle.extend_from_slice(b"\",\"messages\":[");
        if let Some(system) = &request.system {
            middle.extend_from_slice(b"{\"role\":\"system\",\"content\":\"");
            escape(system, &mut middle);
            middle.extend_from_slice(b"\"},");
        }
        middle.extend_from_slice(b"{\"role\":\"user\",\"content\":\"");
        let mut end = b"\"}]".to_vec();
        for (name, value) in &request.params {
            end.extend_from_slice(b",\"");
            escape(name, &mut end);
            end.extend_from_slice(b"\":");
            end.extend_from_slice(value.to_string().as_bytes());
        }
        end.extend_from_slice(b"}}\n");
        Ok(Self { middle, end })
    }
}

impl Encode for Encoder {
    fn frame_len(&self, custom_id: &CustomId<'_>) -> u64 {
        let digits = u64::from(custom_id.row.checked_ilog10().unwrap_or(0)) + 1;
        (START.len() + self.middle.len() + self.end.len()) as u64 + escaped_len(custom_id.nonce) + 1 + digits
    }

    fn text_len(&self, piece: &str) -> u64 {
        escaped_len(piece)
    }

    fn begin(&self, custom_id: &CustomId<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(START);
        escape(custom_id.nonce, out);
        out.push(b'-');
        push_number(custom_id.row, out);
        out.extend_from_slice(&self.middle);
    }

    fn text(&self, piece: &str, out: &mut Vec<u8>) {
        escape(piece, out);
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.end);
    }
}

fn push_number(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 10];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// How many bytes are looked at together: the compiler makes a few vector instructions of such a loop.
const LANES: usize = 32;

/// Whether one of these bytes is a control character, a quote or a backslash.
#[inline]
fn any_escape(chunk: &[u8; LANES]) -> bool {
    chunk.iter().fold(false, |any, byte| any | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\'))
}

/// Of eight bytes, the high bit of each that is to be escaped.
#[inline]
const fn escapes_in(word: u64) -> u64 {
    const LOW: u64 = u64::from_le_bytes([0x7f; 8]);
    const fn is_not_zero(word: u64) -> u64 {
        ((word & LOW) + LOW) | word
    }
    let control = is_not_zero(word & u64::from_le_bytes([0xe0; 8]));
    let quote = is_not_zero(word ^ u64::from_le_bytes([b'"'; 8]));
    let backslash = is_not_zero(word ^ u64::from_le_bytes([b'\\'; 8]));
    !(control & quote & backslash) & !LOW
}

/// Where, from `at` on, the next byte is that is to be escaped: found 32 bytes at a time, and its place in them 8 at a time.
#[inline]
fn next_escape(bytes: &[u8], mut at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    at += LANES * rest.as_chunks::<LANES>().0.iter().take_while(|chunk| !any_escape(chunk)).count();
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let found = escapes_in(u64::from_le_bytes(*eight));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    // The last few are looked at together with some before them, which are known.
    match bytes.last_chunk::<8>() {
        Some(last) => {
            let known = at + 8 - bytes.len();
            let found = escapes_in(u64::from_le_bytes(*last)).checked_shr(8 * known as u32)?;
            (found != 0).then(|| at + found.trailing_zeros() as usize / 8)
        }
        None => bytes[at..].iter().position(|byte| ESCAPES[usize::from(*byte)] != 0).map(|found| at + found),
    }
}

/// Appends a text as the inside of a JSON string.
fn escape(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len());
    let mut copied = 0;
    while let Some(at) = next_escape(bytes, copied) {
        out.extend_from_slice(&bytes[copied..at]);
        push_escape(bytes[at], ESCAPES[usize::from(bytes[at])], out);
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn push_escape(byte: u8, letter: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if letter == b'u' {
        let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
    } else {
        out.extend_from_slice(&[b'\\', letter]);
    }
}

/// The length of what [`escape`] appends.
fn escaped_len(text: &str) -> u64 {
    let (chunks, rest) = text.as_bytes().as_chunks::<LANES>();
    let extra = |bytes: &[u8]| bytes.iter().map(|byte| extra_bytes(ESCAPES[usize::from(*byte)])).sum::<u64>();
    let in_chunks: u64 = chunks.iter().filter(|chunk| any_escape(chunk)).map(|chunk| extra(chunk.as_slice())).sum();
    text.len() as u64 + in_chunks + extra(rest)
}

fn extra_bytes(letter: u8) -> u64 {
    match letter {
        0 => 0,
        b'u' => 5,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(model: &str, system: Option<&str>, params: serde_json::Value) -> Request {
        let params = params.as_object().cloned().unwrap();
        Request { model: model.to_owned(), system: system.map(str::to_owned), template: "t".to_owned(), params }
    }

    #[test]
    fn a_row_is_written_as_the_api_reference_has_it() {
        let request =
            request("openai/gpt-4o-mini", Some("Be brief."), serde_json::json!({"max_tokens": 60, "temperature": 0}));
        let encoder = Encoder::new(&request).unwrap();
        let mut out = Vec::new();
        encoder.encode(&CustomId { nonce: "0123456789abcdef", row: 10 }, "Say \"hi\"\n", &mut out);
        let expected = concat!(
            r#"{"custom_id":"0123456789abcdef-10","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o-mini","#,
            r#""messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Say \"hi\"\n"}],"max_tokens":60,"temperature":0}}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_model_keeps_its_own_slashes() {
        let encoder = Encoder::new(&request("together/meta/llama", None, serde_json::json!({}))).unwrap();
        let mut out = Vec::new();
        encoder.encode(&CustomId { nonce: "n", row: 0 }, "x", &mut out);
        assert!(String::from_utf8(out).unwrap().contains(r#""model":"meta/llama","messages":[{"role":"user","#));
    }

    #[test]
    fn what_the_encoder_writes_itself_can_not_be_a_parameter() {
        for name in ["model", "messages", "stream"] {
            let error = Encoder::new(&request("sim/echo", None, serde_json::json!({ name: 1 }))).unwrap_err();
            assert_eq!(error, EncodeError::ReservedParam(name.to_owned()));
        }
        assert!(matches!(Encoder::new(&request("echo", None, serde_json::json!({}))), Err(EncodeError::Model(_))));
    }

    #[test]
    fn every_byte_at_every_place_of_a_chunk_is_escaped_as_serde_json_does_it() {
        for character in
            (0..0x100).filter_map(char::from_u32).chain(['\u{2028}', '\u{2029}', '\u{d7ff}', '\u{e000}', '\u{10ffff}'])
        {
            for before in 0..LANES * 2 + 1 {
                let text = format!("{}{character}{}", "a".repeat(before), "b".repeat(LANES + 1));
                let mut out = Vec::new();
                escape(&text, &mut out);
                assert_eq!(
                    format!("\"{}\"", String::from_utf8(out.clone()).unwrap()),
                    serde_json::to_string(&text).unwrap()
                );
                assert_eq!(escaped_len(&text), out.len() as u64);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_escaped_as_serde_json_does_it(text in "[a-z\"\\\\\u{1}\n\u{7f}\u{e9}\u{2028}]{0,90}") {
            let mut out = Vec::new();
            escape(&text, &mut out);
            let expected = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(&out, &expected.as_bytes()[1..expected.len() - 1]);
            prop_assert_eq!(escaped_len(&text), out.len() as u64);
        }

        #[test]
        fn a_row_reads_back_and_its_length_is_exact(
            user in prop_oneof![any::<String>(), "[\\x00-\\x7f\u{80}\u{2028}\u{d7ff}\u{e000}\u{10ffff}]{0,200}", "\\PC*"],
            system in proptest::option::of(any::<String>()),
            model in "[ -~]{1,20}",
            bits: u64,
            row: u32,
            key in "[a-z\"\\\\]{1,8}",
            value: String,
        ) {
            prop_assume!(!["model", "messages", "stream"].contains(&key.as_str()));
            let params = serde_json::json!({ key: {"nested": [value, 1.5, null]} });
            let encoder = Encoder::new(&request(&format!("p/{model}"), system.as_deref(), params.clone())).unwrap();
            let nonce = model::Nonce::from_bits(bits);
            let id = CustomId { nonce: nonce.as_str(), row };
            let mut out = b"before".to_vec();
            encoder.encode(&id, &user, &mut out);
            let line = &out[6..];
            prop_assert_eq!(line.len() as u64, encoder.encoded_len(&id, &user));
            let (mut pieces, mut bytes) = (b"before".to_vec(), encoder.frame_len(&id));
            encoder.begin(&id, &mut pieces);
            for piece in user.split_inclusive(|c: char| c.is_ascii_punctuation()) {
                encoder.text(piece, &mut pieces);
                bytes += encoder.text_len(piece);
            }
            encoder.end(&mut pieces);
            prop_assert_eq!((&pieces, bytes), (&out, line.len() as u64));
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let mut messages: Vec<serde_json::Value> = system.iter().map(|text| serde_json::json!({"role": "system", "content": text})).collect();
            messages.push(serde_json::json!({"role": "user", "content": user}));
            let mut body = serde_json::json!({"model": model, "messages": messages});
            body.as_object_mut().unwrap().extend(params.as_object().cloned().unwrap());
            let expected = serde_json::json!({"custom_id": id.to_string(), "method": "POST", "url": "/v1/chat/completions", "body": body});
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(line).unwrap(), expected);
        }
    }
}
