//! How a job ended: for people on stdout, or as JSON, and as an exit code.

use std::process::ExitCode;

use jiff::SpanRound;
use model::EndFact;

use crate::failures::{self, grouped};
use crate::{FAILED, FAILED_ROWS, cost, spec};

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
    lines.extend(failures::lines(&end.counts).iter().map(|failure| line("", failure)));
    lines.push(line("tokens", &cost::tokens(&end.tokens)));
    lines.push(line("cost", &cost::text(end.cost.as_ref())));
    lines.push(line(
        "batches",
        &format!("{} in {} attempts", grouped(end.batches.into()), grouped(end.attempts.into())),
    ));
    lines.push(line("time", &elapsed(end)));
    lines.extend(end.output.iter().map(|output| line("output", &place(&output.uri))));
    if let Some(failed) = &end.failed_rows {
        lines.push(line("to rerun", &format!("{} (the failed rows alone, as the input has them)", place(&failed.uri))));
    }
    lines.join("\n")
}

/// A file as people name it: a path where it is one.
fn place(uri: &str) -> String {
    spec::local_path(uri).map_or_else(|| uri.to_owned(), |path| path.display().to_string())
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<9} {value}")
}

fn elapsed(end: &EndFact) -> String {
    let options = SpanRound::new().largest(jiff::Unit::Hour).smallest(jiff::Unit::Millisecond);
    let span = (end.ended_at - end.accepted_at).round(options).unwrap_or_default();
    format!("{span:#}")
}
