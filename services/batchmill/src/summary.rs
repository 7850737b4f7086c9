//! How a job ended: for people on stdout, or as JSON, and as an exit code.

use std::process::ExitCode;

use jiff::SpanRound;
use model::EndFact;

use crate::{FAILED, FAILED_ROWS, spec};

/// Prints the end of a job and gives the exit code that goes with it.
pub(crate) fn print(end: &EndFact, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(end)?);
    } else if let Some(refusal) = &end.refusal {
        eprintln!("error: {refusal}");
        eprintln!("The job {} was refused before anything was spent.", end.job);
    } else {
        println!("{}", text(end));
    }
    Ok(exit_code(end))
}

/// 0 all answered, 1 refused, 3 with failed rows.
pub(crate) fn exit_code(end: &EndFact) -> ExitCode {
    match end {
        end if end.refusal.is_some() => ExitCode::from(FAILED),
        end if end.counts.failed_rows() > 0 => ExitCode::from(FAILED_ROWS),
        _ => ExitCode::SUCCESS,
    }
}

fn text(end: &EndFact) -> String {
    let mut lines = vec![
        line("job", end.job.as_str()),
        line("rows", &grouped(end.counts.rows)),
        line("answered", &grouped(end.counts.answered)),
        line("failed", &grouped(end.counts.failed_rows())),
    ];
    lines.extend(end.counts.failed.iter().map(|(kind, rows)| line("", &format!("{} {kind}", grouped(*rows)))));
    let tokens = end.tokens;
    lines.push(line("tokens", &format!("{} in, {} out", grouped(tokens.input), grouped(tokens.output))));
    lines.push(line(
        "batches",
        &format!("{} in {} attempts", grouped(end.batches.into()), grouped(end.attempts.into())),
    ));
    lines.push(line("time", &elapsed(end)));
    if let Some(output) = &end.output {
        let place = spec::local_path(&output.uri).map_or_else(|| output.uri.clone(), |path| path.display().to_string());
        lines.push(line("output", &place));
    }
    lines.join("\n")
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<9} {value}")
}

fn elapsed(end: &EndFact) -> String {
    let options = SpanRound::new().largest(jiff::Unit::Hour).smallest(jiff::Unit::Millisecond);
    let span = (end.ended_at - end.accepted_at).round(options).unwrap_or_default();
    format!("{span:#}")
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
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
    use super::grouped;

    #[test]
    fn large_numbers_are_grouped_by_three() {
        let texts: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }
}
