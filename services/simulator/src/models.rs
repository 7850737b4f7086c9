//! The models: functions of the prompt, so that whoever checks a job can compute every right answer alone.
//!
//! `echo` answers with the last user message verbatim; `digest` with the lower-case hex SHA-256 of it. A token is four
//! bytes. A request that OpenAI would refuse (no messages, a parameter of the wrong type, an unknown one) is refused in
//! the same shape: in a batch it fails alone, as a row of the error file.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use crate::wire::ApiError;

/// The models that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// The last user message.
    Echo,
    /// The SHA-256 of the last user message.
    Digest,
}

impl Model {
    pub(crate) const ALL: [Self; 2] = [Self::Echo, Self::Digest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Digest => "digest",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name() == name)
    }
}

/// An answered request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) model: Model,
    pub(crate) content: String,
    /// Whether `max_tokens` cut the answer (`finish_reason` is `length`).
    pub(crate) cut: bool,
    /// How many choices were asked for (`n`).
    pub(crate) choices: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a JSON string.
pub(crate) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
}

/// What the messages of a request come to.
struct Prompt<'a> {
    last_user: Cow<'a, str>,
    bytes: usize,
}

fn wrong_type(param: impl Into<String>, expected: &str) -> ApiError {
    let param = param.into();
    ApiError::invalid(format!("Invalid type for '{param}': expected {expected}.")).param(param).code("invalid_type")
}

fn prompt(messages: &RawValue) -> Result<Prompt<'_>, ApiError> {
    let messages: Vec<Message<'_>> =
        serde_json::from_str(messages.get()).map_err(|_| wrong_type("messages", "an array of message objects"))?;
    let mut prompt = Prompt { last_user: Cow::Borrowed(""), bytes: 0 };
    let mut user = false;
    for (at, message) in messages.iter().enumerate() {
        let role = message.role.ok_or_else(|| ApiError::missing(&format!("messages[{at}].role")))?;
        let role = text(role).ok_or_else(|| wrong_type(format!("messages[{at}].role"), "a string"))?;
        if !["system", "developer", "user", "assistant", "tool", "function"].contains(&role.as_ref()) {
            let error = ApiError::invalid(format!("Invalid value: '{role}'. It is not the role of a message."));
            return Err(error.param(format!("messages[{at}].role")).code("invalid_value"));
        }
        let content = match message.content.filter(|content| content.get() != "null") {
            Some(content) => content_text(content, at)?,
            None if role == "assistant" => Cow::Borrowed(""),
            None => return Err(ApiError::missing(&format!("messages[{at}].content"))),
        };
        prompt.bytes += content.len();
        if role == "user" {
            prompt.last_user = content;
            user = true;
        }
    }
    if messages.is_empty() {
        let error = ApiError::invalid("Invalid 'messages': empty array. Expected an array with minimum length 1.");
        return Err(error.param("messages").code("empty_array"));
    }
    if !user {
        let error = ApiError::invalid("Invalid 'messages': there is no message with the role 'user' to answer.");
        return Err(error.param("messages").code("invalid_value"));
    }
    Ok(prompt)
}

/// A message's content: a string, or the texts of its parts put together.
fn content_text(content: &RawValue, at: usize) -> Result<Cow<'_, str>, ApiError> {
    if let Some(text) = text(content) {
        return Ok(text);
    }
    let param = format!("messages[{at}].content");
    let parts: Vec<Part> = serde_json::from_str(content.get())
        .map_err(|_| wrong_type(param.as_str(), "a string or an array of content parts"))?;
    let mut whole = String::new();
    for part in parts {
        match part {
            Part { r#type, text: Some(text) } if r#type == "text" => whole.push_str(&text),
            Part { r#type, .. } if r#type == "text" => return Err(ApiError::missing(&format!("{param}.text"))),
            Part { r#type, .. } => {
                let message = format!("Invalid value: '{type}'. This model takes content parts of type 'text' only.");
                return Err(ApiError::invalid(message).param(param).code("invalid_value"));
            }
        }
    }
    Ok(Cow::Owned(whole))
}

/// The text of the last user message of a request body, if the body has one that can be read.
pub(crate) fn last_user(messages: &RawValue) -> Option<Cow<'_, str>> {
    prompt(messages).ok().map(|prompt| prompt.last_user)
}

/// Answers a chat completion request.
///
/// # Errors
/// The request is invalid; the refusal is the 400 or 404 that the endpoint would answer.
pub(crate) fn answer(body: &RawValue) -> Result<Answer, ApiError> {
    let mut fields: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(body.get()).map_err(|_| wrong_type("body", "an object"))?;
    let name = fields.remove("model").ok_or_else(|| ApiError::missing("model"))?;
    let name = text(name).ok_or_else(|| wrong_type("model", "a string"))?;
    let model = Model::named(&name).ok_or_else(|| {
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        ApiError::not_found(message).param("model").code("model_not_found")
    })?;
    let messages = fields.remove("messages").ok_or_else(|| ApiError::missing("messages"))?;
    let prompt = prompt(messages)?;
    let params = params(&fields)?;
    let mut content = match model {
        Model::Echo => prompt.last_user.clone().into_owned(),
        Model::Digest => sha256_hex(prompt.last_user.as_bytes()),
    };
    let cut = params.max_tokens.is_some_and(|most| most < tokens(content.len()));
    if let (true, Some(most)) = (cut, params.max_tokens) {
        let most = usize::try_from(most.saturating_mul(4)).unwrap_or(usize::MAX);
        content.truncate(content.floor_char_boundary(most));
    }
    Ok(Answer {
        model,
        cut,
        choices: params.choices,
        prompt_tokens: tokens(prompt.bytes),
        completion_tokens: tokens(content.len()) * params.choices,
        content,
    })
}

struct Params {
    max_tokens: Option<u64>,
    choices: u64,
}

/// The type of a request parameter.
enum Kind {
    Number(f64, f64),
    Integer(i64, i64),
    Boolean,
    Text,
    Object,
    Array,
    Any,
}

/// The parameters of a chat completion besides `model` and `messages`, as OpenAI's reference lists them.
fn kind(param: &str) -> Option<Kind> {
    Some(match param {
        "temperature" => Kind::Number(0.0, 2.0),
        "top_p" => Kind::Number(0.0, 1.0),
        "frequency_penalty" | "presence_penalty" => Kind::Number(-2.0, 2.0),
        "max_tokens" | "max_completion_tokens" => Kind::Integer(1, i64::MAX),
        "n" => Kind::Integer(1, 128),
        "seed" => Kind::Integer(i64::MIN, i64::MAX),
        "top_logprobs" => Kind::Integer(0, 20),
        "logprobs" | "store" | "parallel_tool_calls" | "stream" => Kind::Boolean,
        "user"
        | "service_tier"
        | "reasoning_effort"
        | "verbosity"
        | "prompt_cache_key"
        | "prompt_cache_retention"
        | "safety_identifier" => Kind::Text,
        "metadata" | "logit_bias" | "response_format" | "audio" | "prediction" | "web_search_options"
        | "stream_options" | "moderation" => Kind::Object,
        "modalities" | "tools" | "functions" => Kind::Array,
        "stop" | "tool_choice" | "function_call" => Kind::Any,
        _ => return None,
    })
}

fn params(fields: &BTreeMap<Cow<'_, str>, &RawValue>) -> Result<Params, ApiError> {
    let mut params = Params { max_tokens: None, choices: 1 };
    for (name, raw) in fields {
        let Some(kind) = kind(name) else {
            let error = ApiError::invalid(format!("Unknown parameter: '{name}'."));
            return Err(error.param(name.as_ref()).code("unknown_parameter"));
        };
        let value: Value = serde_json::from_str(raw.get()).map_err(|_| wrong_type(name.as_ref(), "valid JSON"))?;
        if value.is_null() {
            continue;
        }
        let number = check(name, &kind, &value)?;
        match name.as_ref() {
            "max_completion_tokens" => params.max_tokens = number,
            "max_tokens" => params.max_tokens = params.max_tokens.or(number),
            "n" => params.choices = number.unwrap_or(1),
            _ => {}
        }
    }
    Ok(params)
}

/// Checks one parameter; gives it back if it is a whole number ≥ 0.
fn check(name: &str, kind: &Kind, value: &Value) -> Result<Option<u64>, ApiError> {
    let (fits, expected) = match kind {
        Kind::Number(..) => (value.is_number(), "a number"),
        Kind::Integer(..) => (value.is_i64() || value.is_u64(), "an integer"),
        Kind::Boolean => (value.is_boolean(), "a boolean"),
        Kind::Text => (value.is_string(), "a string"),
        Kind::Object => (value.is_object(), "an object"),
        Kind::Array => (value.is_array(), "an array"),
        Kind::Any => (true, ""),
    };
    if !fits {
        return Err(wrong_type(name, expected));
    }
    let inside = match *kind {
        Kind::Number(least, most) => value.as_f64().is_some_and(|number| (least..=most).contains(&number)),
        Kind::Integer(least, most) => value.as_i64().is_some_and(|number| (least..=most).contains(&number)),
        _ => true,
    };
    if !inside {
        let error = ApiError::invalid(format!("Invalid '{name}': {value} is outside the values that are allowed."));
        return Err(error.param(name).code("invalid_value"));
    }
    Ok(value.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str) -> Result<Answer, ApiError> {
        answer(&RawValue::from_string(body.to_owned()).unwrap())
    }

    #[test]
    fn echo_answers_with_the_last_user_message_verbatim() {
        let body = r#"{"model":"echo","messages":[{"role":"system","content":"s"},{"role":"user","content":"one"},
            {"role":"assistant","content":null},{"role":"user","content":"tw\u00f6\n\"\u2028"},{"role":"assistant","content":"x"}]}"#;
        let answer = ask(body).unwrap();
        assert_eq!(answer.content, "twö\n\"\u{2028}");
        assert_eq!(answer.prompt_tokens, tokens(1 + 3 + 9 + 1));
        assert_eq!(answer.completion_tokens, 3);
        assert!(!answer.cut);
    }

    #[test]
    fn digest_answers_with_the_sha_256_of_the_message() {
        let body = r#"{"model":"digest","messages":[{"role":"user","content":[{"type":"text","text":"ab"},{"type":"text","text":"c"}]}]}"#;
        assert_eq!(ask(body).unwrap().content, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn an_answer_is_cut_at_a_character_not_inside_it() {
        let body = r#"{"model":"echo","max_tokens":1,"messages":[{"role":"user","content":"abcé"}]}"#;
        let answer = ask(body).unwrap();
        assert_eq!((answer.content.as_str(), answer.cut, answer.completion_tokens), ("abc", true, 1));
        let body = r#"{"model":"echo","max_tokens":1,"max_completion_tokens":2,"messages":[{"role":"user","content":"abcé"}]}"#;
        assert!(!ask(body).unwrap().cut);
    }

    #[test]
    fn wrong_requests_are_refused_with_param_and_code() {
        let with = |rest: &str| format!(r#"{{"model":"echo","messages":[{{"role":"user","content":"x"}}]{rest}}}"#);
        for (body, param, code) in [
            (r#"{"messages":[]}"#.to_owned(), "model", "missing_required_parameter"),
            (r#"{"model":"gpt"}"#.to_owned(), "model", "model_not_found"),
            (r#"{"model":"echo"}"#.to_owned(), "messages", "missing_required_parameter"),
            (r#"{"model":"echo","messages":"x"}"#.to_owned(), "messages", "invalid_type"),
            (r#"{"model":"echo","messages":[]}"#.to_owned(), "messages", "empty_array"),
            (
                r#"{"model":"echo","messages":[{"role":"system","content":"x"}]}"#.to_owned(),
                "messages",
                "invalid_value",
            ),
            (
                r#"{"model":"echo","messages":[{"role":"user"}]}"#.to_owned(),
                "messages[0].content",
                "missing_required_parameter",
            ),
            (
                r#"{"model":"echo","messages":[{"role":"user","content":7}]}"#.to_owned(),
                "messages[0].content",
                "invalid_type",
            ),
            (
                r#"{"model":"echo","messages":[{"role":"boss","content":"x"}]}"#.to_owned(),
                "messages[0].role",
                "invalid_value",
            ),
            (with(r#","temperature":"hot""#), "temperature", "invalid_type"),
            (with(r#","temperature":3"#), "temperature", "invalid_value"),
            (with(r#","max_tokens":0"#), "max_tokens", "invalid_value"),
            (with(r#","max_tokens":1.5"#), "max_tokens", "invalid_type"),
            (with(r#","temprature":1"#), "temprature", "unknown_parameter"),
        ] {
            let error = ask(&body).unwrap_err();
            assert_eq!((error.param.as_deref(), error.code), (Some(param), Some(code)), "{body}");
        }
        assert!(ask(&with(r#","temperature":null,"stop":["x"],"seed":-1"#)).is_ok());
    }
}
