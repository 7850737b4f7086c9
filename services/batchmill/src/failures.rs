//! Failed rows by kind, for people: how many, and what to do about each.

use model::{Counts, FailureKind};

/// What a kind of failure means, or what to do about it, in a few words.
fn advice(kind: FailureKind) -> &'static str {
    use FailureKind as K;
    match kind {
        K::Expired => "the provider's window closed first: run the failed rows again",
        K::RateLimited => "the provider's limits: run the failed rows again later, or raise the limits",
        K::ServerError => "the provider failed: run the failed rows again later",
        K::Timeout => "the provider took too long: run the failed rows again, or ask for shorter answers",
        K::Missing => "the provider's files say nothing of them: run the failed rows again",
        K::Malformed => "the provider's lines can't be read: run the failed rows again",
        K::Refused => "the model or a content filter said no: change prompt or model",
        K::InvalidImage => "the provider can't fetch or read the image: mend the link",
        K::InvalidRequest => "the provider says that the request is wrong: look at the error column",
        K::ContextTooLong => "the prompt is longer than the model's context: shorten it",
        K::Truncated => "cut at the token limit: raise max_tokens",
        K::SchemaInvalid => "the answer does not fit the schema: mend schema or prompt",
        K::BatchRejected => "the provider refused the batch: look at credentials, model and the error column",
        K::BatchFailed => "the provider failed the whole batch: run the failed rows again later",
        K::BadRow => "malformed in the input: mend the rows",
        K::TemplateFailed => "the template can't be rendered for them: mend template or cells",
        K::EmptyPrompt => "the prompt is empty: fill the cells that the template uses",
        K::TooLarge => "the prompt is too large for one request: shorten it",
        K::Cancelled => "the job was cancelled before they were answered",
        K::Deadline => "the deadline passed before they were sent: run the failed rows again",
        K::CrashLoop => "they took the process down: report it, with the rows",
    }
}

/// A line for each kind: its rows, its name, what to do. Aligned; the kinds with most rows first.
pub(crate) fn lines(counts: &Counts) -> Vec<String> {
    let mut failed: Vec<(FailureKind, u64)> = counts.failed.iter().map(|(kind, rows)| (*kind, *rows)).collect();
    failed.retain(|(_, rows)| *rows > 0);
    failed.sort_by_key(|(kind, rows)| (std::cmp::Reverse(*rows), *kind));
    let rows: Vec<String> = failed.iter().map(|(_, rows)| grouped(*rows)).collect();
    let widest = rows.iter().map(String::len).max().unwrap_or(0);
    let longest = failed.iter().map(|(kind, _)| kind.as_str().len()).max().unwrap_or(0);
    failed
        .iter()
        .zip(&rows)
        .map(|((kind, _), rows)| format!("{rows:>widest$} {:<longest$}  {}", kind.as_str(), advice(*kind)))
        .collect()
}

/// 1234567 as 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_grouped_by_three() {
        let texts: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn kinds_stand_aligned_the_most_frequent_first() {
        let failed = [(FailureKind::Refused, 7), (FailureKind::InvalidRequest, 1_234), (FailureKind::Missing, 0)];
        let counts = Counts { rows: 1_241, failed: failed.into(), ..Counts::default() };
        assert_eq!(
            lines(&counts),
            [
                "1,234 invalid_request  the provider says that the request is wrong: look at the error column",
                "    7 refused          the model or a content filter said no: change prompt or model",
            ]
        );
        assert_eq!(lines(&Counts::default()), Vec::<String>::new());
    }

    #[test]
    fn each_kind_has_words_that_fit_a_line() {
        for kind in FailureKind::ALL {
            assert!((20..=90).contains(&advice(*kind).len()), "{kind}: {}", advice(*kind).len());
        }
    }
}
