//! The lines of result files, as OpenAI writes them.

use serde::Serialize;
use serde_json::Value;

use crate::models::Answer;

/// A line.
#[derive(Serialize)]
pub(crate) struct ResultRow<'a> {
    pub(crate) id: String,
    pub(crate) custom_id: &'a str,
    pub(crate) response: Option<ResponseRow<'a>>,
    pub(crate) error: Option<RowError>,
}

#[derive(Serialize)]
pub(crate) struct RowError {
    pub(crate) code: &'static str,
    pub(crate) message: &'static str,
}

#[derive(Serialize)]
pub(crate) struct ResponseRow<'a> {
    pub(crate) status_code: u16,
    pub(crate) request_id: String,
    pub(crate) body: ResponseBody<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum ResponseBody<'a> {
    Completion(Completion<'a>),
    Error(Value),
}

#[derive(Serialize)]
pub(crate) struct Completion<'a> {
    pub(crate) id: String,
    object: &'static str,
    created: u64,
    model: &'static str,
    choices: Vec<Choice<'a>>,
    usage: RowUsage,
    service_tier: &'static str,
    system_fingerprint: Option<()>,
}

#[derive(Serialize)]
pub(crate) struct Choice<'a> {
    index: u64,
    pub(crate) message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
    annotations: [(); 0],
}

#[derive(Serialize)]
pub(crate) struct RowUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
pub(crate) struct PromptDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
pub(crate) struct CompletionDetails {
    reasoning_tokens: u64,
}

pub(crate) fn row_id(name: &str, at: usize) -> String {
    format!("batch_req_{name}{at:08x}")
}

pub(crate) fn completion<'a>(name: &str, at: usize, created: u64, answer: &'a Answer) -> Completion<'a> {
    let choice = |index| Choice {
        index,
        message: Message { role: "assistant", content: &answer.content, refusal: None, annotations: [] },
        logprobs: None,
        finish_reason: if answer.cut { "length" } else { "stop" },
    };
    Completion {
        id: format!("chatcmpl-{name}{at:08x}"),
        object: "chat.completion",
        created,
        model: answer.model.name(),
        choices: (0..answer.choices).map(choice).collect(),
        usage: RowUsage {
            prompt_tokens: answer.prompt_tokens,
            completion_tokens: answer.completion_tokens,
            total_tokens: answer.prompt_tokens + answer.completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens: 0 },
            completion_tokens_details: CompletionDetails { reasoning_tokens: 0 },
        },
        service_tier: "default",
        system_fingerprint: None,
    }
}
