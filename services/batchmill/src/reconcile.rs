//! `reconcile`: emits what the facts of open jobs leave to do, and says what that was.
//!
//! The services do the same by themselves, now and then; this is for who does not want to wait for them, after topics were
//! lost. It does no harm at any time: the rooms take what they know already for a redelivery.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use jiff::SignedDuration;
use poller::clean::Cleaned;
use runtime::{Reconciled, Reconciling};
use serde_json::json;

use crate::cli::ReconcileArgs;
use crate::operate::{job_id, not_found, on_cluster};
use crate::{FAILED, UsageError, rooms};

/// `reconcile`.
pub(crate) async fn reconcile(args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    let only = args.job.as_deref().map(job_id).transpose()?;
    let older_than = duration(&args.older_than)?;
    let context = on_cluster(&args.config)?;
    let mut all = Vec::new();
    let how = Reconciling { only: only.as_ref(), older_than, dry_run: args.dry_run };
    runtime::reconcile_each(&context, how, |job| {
        if !args.json && job.known {
            println!("{}", line(job));
        }
        all.push(job.clone());
    })
    .await?;
    context.finish().await;
    if let Some(unknown) = only.filter(|_| all.iter().all(|job| !job.known)) {
        return Ok(not_found(&unknown));
    }
    let cleaned = match args.clean {
        true => Some(poller::Poller::new(&context, &rooms::providers(&context)?)?.clean_up(args.dry_run).await?),
        false => None,
    };
    if args.json {
        let jobs: Vec<serde_json::Value> = all.iter().map(as_json).collect();
        let cleaned = cleaned.map(|Cleaned { jobs, objects, bytes, files }| {
            json!({"jobs": jobs, "objects": objects, "bytes": bytes, "files": files})
        });
        println!("{}", serde_json::to_string_pretty(&json!({"jobs": jobs, "cleaned": cleaned}))?);
    } else {
        if all.is_empty() {
            println!("no open jobs");
        }
        if let Some(Cleaned { jobs, objects, bytes, files }) = cleaned {
            println!("cleaned up: {objects} objects ({bytes} bytes) of {jobs} jobs, {files} files at providers");
        }
    }
    let corrupt = all.iter().any(|job| job.corrupt.is_some());
    Ok(if corrupt { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    Ok(parsed.ok_or_else(|| UsageError(format!("--older-than {text:?} is no duration: write 90s, 10m or 1h30m")))?)
}

/// `spring-catalog: dispatch 3, collect 12; 2 too young`.
fn line(job: &Reconciled) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for action in &job.emitted {
        *counts.entry(action.word()).or_default() += 1;
    }
    let emitted: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    let emitted = if emitted.is_empty() { "nothing".to_owned() } else { emitted.join(", ") };
    let young = if job.young == 0 { String::new() } else { format!("; {} too young", job.young) };
    match &job.corrupt {
        Some(why) => format!("{}: left alone, its facts can't be read: {why}", job.job),
        None => format!("{}: {emitted}{young}", job.job),
    }
}

fn as_json(job: &Reconciled) -> serde_json::Value {
    let emitted: Vec<serde_json::Value> = job
        .emitted
        .iter()
        .map(|action| json!({"action": action.word(), "batch": action.batch().map(|batch| batch.to_string())}))
        .collect();
    json!({"job": job.job, "emitted": emitted, "young": job.young, "corrupt": job.corrupt})
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::next::Action;

    #[test]
    fn a_job_is_a_line_with_counts_by_action() {
        let job = Reconciled {
            job: "a".parse().unwrap(),
            known: true,
            emitted: vec![Action::Merge],
            young: 2,
            corrupt: None,
        };
        assert_eq!(line(&job), "a: merge 1; 2 too young");
        assert_eq!(line(&Reconciled { emitted: Vec::new(), young: 0, ..job.clone() }), "a: nothing");
        assert!(line(&Reconciled { corrupt: Some("broken".to_owned()), ..job }).ends_with("broken"));
    }

    #[test]
    fn a_duration_has_a_unit_and_is_not_negative() {
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(duration("0s").unwrap(), Duration::ZERO);
        for wrong in ["", "5", "-5m", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
