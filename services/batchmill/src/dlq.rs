//! `dlq`: dead letters. What there is, what one says, and sending it back; the deeds are in `runtime::dead_letters`.
//!
//! A letter's body is shown as it is, prompts included, since it is what was asked for. Secrets have no place in an event;
//! should somebody have written one into a record by mistake, values under names that say so and the signed parts of URLs
//! are left out.

use std::process::ExitCode;

use runtime::Context;
use runtime::dead_letters::{self, Letter, Place};
use serde_json::{Value, json};

use crate::UsageError;
use crate::cli::{DlqCommand, DlqListArgs, DlqReplayArgs, DlqShowArgs};
use crate::operate::on_cluster;

/// What stands where something is not shown.
const HIDDEN: &str = "***";
/// A name with one of these in it is a secret's.
const SECRET_WORDS: &[&str] =
    &["authorization", "password", "passwd", "secret", "api_key", "apikey", "api-key", "token", "credential", "cookie"];
/// Names that only look like it: counts of tokens are no secrets.
const NO_SECRETS: &[&str] = &["max_tokens", "tokens", "max_completion_tokens"];

/// `dlq`.
pub(crate) async fn dlq(command: DlqCommand) -> anyhow::Result<ExitCode> {
    match command {
        DlqCommand::Ls(args) => list(args).await,
        DlqCommand::Show(args) => show(args).await,
        DlqCommand::Replay(args) => replay(args).await,
    }
}

async fn list(args: DlqListArgs) -> anyhow::Result<ExitCode> {
    let context = on_cluster(&args.config)?;
    let mut boxes = dead_letters::boxes(&context).await?;
    if let Some(topic) = &args.topic {
        boxes.retain(|found| found.name == *topic);
        anyhow::ensure!(
            !boxes.is_empty(),
            "there is no topic of dead letters {topic}: dlq ls without a topic names them"
        );
    }
    let mut shown = Vec::new();
    for found in boxes {
        let letters =
            if found.kept == 0 { Vec::new() } else { dead_letters::newest(&context, &found.name, args.limit).await? };
        if args.json {
            let letters: Vec<Value> = letters.iter().map(summary).collect();
            shown.push(json!({"topic": found.name, "source": found.source, "group": found.group, "kept": found.kept,
                "open": found.open, "letters": letters}));
            continue;
        }
        println!("{}: {} kept, {} not replayed", found.name, found.kept, found.open);
        for letter in &letters {
            println!("  {}", line(letter));
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// `topic/0/7  2026-11-22T06:26:43Z  not_json  job spring-catalog  the value is not JSON: …`.
fn line(letter: &Letter) -> String {
    let at = letter.at().map_or_else(|| "-".to_owned(), |at| at.to_string());
    let code = letter.noted("code").unwrap_or_else(|| "-".to_owned());
    let job = letter.job().map_or_else(|| "no job".to_owned(), |job| format!("job {job}"));
    let replayed = if letter.replayed { "  (replayed)" } else { "" };
    format!("{}  {at}  {code}  {job}{replayed}", letter.place())
}

fn summary(letter: &Letter) -> Value {
    json!({"place": letter.place().to_string(), "time": letter.at().map(|at| at.to_string()),
        "code": letter.noted("code"), "message": letter.noted("message"), "attempts": letter.noted("attempts"),
        "job": letter.job(), "replayed": letter.replayed})
}

async fn show(args: DlqShowArgs) -> anyhow::Result<ExitCode> {
    let place: Place = args.letter.parse().map_err(UsageError)?;
    let context = on_cluster(&args.config)?;
    let letter = found(&context, &place).await?;
    let headers: Vec<Value> = letter
        .record
        .headers
        .iter()
        .map(|(name, value)| {
            let value = if is_secret(name) { HIDDEN.to_owned() } else { without_signature(&text(value)) };
            json!({"name": name, "value": value})
        })
        .collect();
    let body = letter.record.value.as_deref().map(body);
    if args.json {
        let mut whole = summary(&letter);
        whole["key"] = letter.record.key.as_deref().map(text).into();
        whole["headers"] = headers.into();
        whole["body"] = body.unwrap_or_default();
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", line(&letter));
    println!("key: {}", letter.record.key.as_deref().map_or_else(|| "none".to_owned(), text));
    for header in &headers {
        println!("{}: {}", plain(&header["name"]), plain(&header["value"]));
    }
    match body {
        None => println!("\nno body"),
        Some(Value::String(text)) => println!("\n{text}"),
        Some(json) => println!("\n{}", serde_json::to_string_pretty(&json)?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn found(context: &Context, place: &Place) -> anyhow::Result<Letter> {
    let letter = dead_letters::letter(context, place).await?;
    letter.ok_or_else(|| anyhow::anyhow!("there is no dead letter at {place}: it may be past the topic's retention"))
}

async fn replay(args: DlqReplayArgs) -> anyhow::Result<ExitCode> {
    let context = on_cluster(&args.config)?;
    let done = if args.all {
        dead_letters::replay_all(&context, &args.what).await?
    } else {
        let place: Place = args.what.parse().map_err(UsageError)?;
        dead_letters::replay_one(&context, &place, args.again).await?
    };
    if args.json {
        println!("{}", json!({"replayed": done.sent, "replayed_before": done.before}));
    } else {
        println!("{} replayed, {} had been replayed before", done.sent, done.before);
        if done.before > 0 && !args.all {
            println!("--again sends it once more");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Bytes as text that leaves a terminal alone.
fn text(bytes: &[u8]) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    String::from_utf8_lossy(bytes).chars().map(clean).collect()
}

/// The body as JSON without secrets, or as text.
fn body(bytes: &[u8]) -> Value {
    match serde_json::from_slice(bytes) {
        Ok(json) => redacted(json),
        Err(_) => Value::String(text(bytes)),
    }
}

fn redacted(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let value = if is_secret(&name) { HIDDEN.into() } else { redacted(value) };
                (name, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(redacted).collect(),
        Value::String(text) => without_signature(&text).into(),
        other => other,
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !NO_SECRETS.contains(&name.as_str()) && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// A text that is one URL, without user and query: either may be a key.
fn without_signature(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    if !scheme.bytes().all(|b| b.is_ascii_alphanumeric()) || text.contains(char::is_whitespace) {
        return text.to_owned();
    }
    let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, _)| (path, "?***"));
    let (authority, path) = path.split_once('/').map_or((path, None), |(authority, path)| (authority, Some(path)));
    let authority = authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    format!("{scheme}://{authority}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_shown_without_what_should_not_be_in_it() {
        let given = r#"{"id":"j","api_key":"sk-1","input":{"uri":"https://u:p@h/in.csv?X-Amz-Signature=s"},
            "request":{"params":{"max_tokens":5},"template":"{{ a }}"},"list":[{"Password":"x"}]}"#;
        let shown = body(given.as_bytes());
        assert_eq!(shown["api_key"], HIDDEN);
        assert_eq!(shown["input"]["uri"], "https://***@h/in.csv?***");
        assert_eq!(shown["request"]["params"]["max_tokens"], 5);
        assert_eq!(shown["list"][0]["Password"], HIDDEN);
        assert_eq!(shown["request"]["template"], "{{ a }}");
    }

    #[test]
    fn what_is_no_json_is_text_that_a_terminal_survives() {
        assert_eq!(body(b"\x1b[2Jnot json\xff"), Value::String("\u{fffd}[2Jnot json\u{fffd}".to_owned()));
    }

    #[test]
    fn a_text_that_is_no_url_stays_as_it_is() {
        for text in ["s3://b/k", "why? see http://a b", "a?b", "tell me about ://x?y z"] {
            assert_eq!(without_signature(text), text);
        }
    }
}
