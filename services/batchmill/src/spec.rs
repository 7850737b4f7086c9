//! From flags to a job spec.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model::digest::{Sha256Hex, sha256_hex};
use model::retry::{RetryLimit, RetryTable, may_be_tried_again, never_tried_again};
use model::spec::{BatchLimits, FileFormat, Input, MAX_DEADLINE_SECONDS, OnBadRow, Output, Request, before_extension};
use model::{FailureKind, JobSpec};

use crate::UsageError;
use crate::cli::{BadRow, Format, JobArgs};

/// The job as flags or `--spec` say it, with `name` as its id where neither gives one.
pub(crate) fn from_args(args: &JobArgs) -> anyhow::Result<JobSpec> {
    if let Some(path) = &args.spec {
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).map_err(|error| UsageError(format!("{shown}: can't be read: {error}")))?;
        return Ok(
            serde_json::from_str(&text).map_err(|error| UsageError(format!("{shown}: is not a job spec: {error}")))?
        );
    }
    let (Some(input), Some(template), Some(model)) = (&args.input, &args.template, &args.model) else {
        return Err(UsageError("give INPUT, --template and --model, or --spec".to_owned()).into());
    };
    let output = args.output.clone().unwrap_or_else(|| before_extension(input, "answers"));
    let mut spec = JobSpec {
        // Replaced below or by the caller: an id is made of all the rest.
        id: "unnamed".parse()?,
        input: Input { uri: input.clone(), format: args.format.map(Into::into), delimiter: args.delimiter },
        output: Output { uri: output, overwrite: args.overwrite },
        request: Request {
            model: model.clone(),
            system: args.system.as_deref().map(text_or_file).transpose()?,
            template: text_or_file(template)?,
            params: args.params.iter().map(|param| parse_param(param)).collect::<Result<_, _>>()?,
        },
        batch: BatchLimits { max_rows: args.batch_rows, max_bytes: args.batch_bytes },
        response_column: args.response_column.clone(),
        details: args.details,
        on_bad_row: match args.on_bad_row {
            BadRow::FailJob => OnBadRow::FailJob,
            BadRow::FailRow => OnBadRow::FailRow,
        },
        retry: retries(&args.retries)?,
        deadline_seconds: args.deadline.as_deref().map(parse_deadline).transpose()?,
    };
    spec.id = match &args.id {
        Some(id) => id.parse().map_err(|error| UsageError(format!("--id: {error}")))?,
        None => made_id(&spec, "")?,
    };
    Ok(spec)
}

/// Whether the id is made rather than given.
pub(crate) fn is_unnamed(args: &JobArgs) -> bool {
    args.spec.is_none() && args.id.is_none()
}

/// An id of a job's spec and whatever else tells it from others: readable first, then sure.
pub(crate) fn made_id(spec: &JobSpec, rest: &str) -> anyhow::Result<model::JobId> {
    let mut unnamed = spec.clone();
    unnamed.id = "unnamed".parse()?;
    let digest = sha256_hex(format!("{}\n{rest}", unnamed.digest()).as_bytes());
    let name = spec.input.uri.rsplit('/').next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let label: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').take(40).collect();
    let label = label.trim_start_matches(['-', '_']);
    let label = if label.is_empty() { "job" } else { label };
    Ok(format!("{label}-{}", &digest[..12]).parse()?)
}

/// What tells one state of a local input from another: path, size and content.
pub(crate) fn fingerprint(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path).with_context(|| format!("{}: can't be opened", path.display()))?;
    let mut digest = Sha256Hex::default();
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("{}: can't be read", path.display()))?;
        if read == 0 {
            return Ok(format!("{}\n{bytes}\n{}", path.display(), digest.finish()));
        }
        bytes += read;
        digest.update(&buffer[..read]);
    }
}

/// A local path as a `file://` URI; a URI stays what it is.
pub(crate) fn local_uri(path_or_uri: &str) -> anyhow::Result<String> {
    if path_or_uri.contains("://") {
        return Ok(path_or_uri.to_owned());
    }
    let path = std::path::absolute(path_or_uri).with_context(|| format!("{path_or_uri}: is not a path"))?;
    let clean = lexically_clean(&path);
    let text = clean.to_str().with_context(|| format!("{}: is not UTF-8: rename it", clean.display()))?;
    Ok(format!("file://{text}"))
}

/// The path of a `file://` URI.
pub(crate) fn local_path(uri: &str) -> Option<PathBuf> {
    uri.strip_prefix("file://").map(PathBuf::from)
}

/// Resolves `.` and `..` by name alone: the file need not exist.
fn lexically_clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// Text, or the content of `@FILE`.
fn text_or_file(text: &str) -> anyhow::Result<String> {
    match text.strip_prefix('@') {
        Some(path) => {
            Ok(std::fs::read_to_string(path).map_err(|error| UsageError(format!("@{path}: can't be read: {error}")))?)
        }
        None => Ok(text.to_owned()),
    }
}

/// `--retry`, each `KIND=N` or `KIND=deadline`.
fn retries(flags: &[String]) -> anyhow::Result<BTreeMap<FailureKind, RetryLimit>> {
    let mut retries = BTreeMap::new();
    for flag in flags {
        let wrong = |why: String| UsageError(format!("--retry {flag:?}: {why}: write expired=deadline or refused=0"));
        let (kind, limit) = flag.split_once('=').ok_or_else(|| wrong("there is no =".to_owned()))?;
        let kind = FailureKind::parse(kind).ok_or_else(|| {
            let kinds: Vec<&str> = RetryTable::default().limits().keys().map(|kind| kind.as_str()).collect();
            wrong(format!("{kind:?} is no kind of failure; there are {}", kinds.join(", ")))
        })?;
        if !may_be_tried_again(kind) {
            return Err(UsageError(format!("--retry {flag:?}: {}", never_tried_again(kind))).into());
        }
        if retries.insert(kind, limit.parse().map_err(wrong)?).is_some() {
            return Err(UsageError(format!("--retry {kind} is given twice: remove one")).into());
        }
    }
    Ok(retries)
}

/// A duration of whole seconds: `90m`, `48h`, `3d`, `1w`. A day is 24 hours.
fn parse_deadline(text: &str) -> anyhow::Result<u64> {
    let span = text.parse::<jiff::Span>().ok();
    let duration = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    let seconds = duration.and_then(|duration| u64::try_from(duration.as_secs()).ok());
    match seconds.filter(|seconds| (1..=MAX_DEADLINE_SECONDS).contains(seconds)) {
        Some(seconds) => Ok(seconds),
        None => {
            let message = format!("--deadline {text:?} is no duration of 1 s to 365 d: write 90m, 48h or 3d");
            Err(UsageError(message).into())
        }
    }
}

fn parse_param(param: &str) -> anyhow::Result<(String, serde_json::Value)> {
    let wrong = |why: &str| {
        UsageError(format!("--param {param:?} {why}: write KEY=JSON, as in temperature=0 or stop='[\"\\n\"]'"))
    };
    let (key, json) = param.split_once('=').ok_or_else(|| wrong("has no ="))?;
    let value = serde_json::from_str(json).map_err(|error| wrong(&format!("is not JSON behind the = ({error})")))?;
    Ok((key.to_owned(), value))
}

impl From<Format> for FileFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Tsv => Self::Tsv,
            Format::CsvGz => Self::CsvGz,
            Format::Parquet => Self::Parquet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_lie_beside_the_input() {
        for (input, output) in [
            ("a/products.csv", "a/products.answers.csv"),
            ("x.csv.gz", "x.answers.csv.gz"),
            ("s3://b/k/t.parquet", "s3://b/k/t.answers.parquet"),
            ("v1.2.TSV", "v1.2.answers.TSV"),
            ("noext", "noext.answers"),
            (".hidden", ".hidden.answers"),
        ] {
            assert_eq!(before_extension(input, "answers"), output);
        }
    }

    #[test]
    fn a_local_path_becomes_an_absolute_uri_without_dots() {
        let uri = local_uri("a/../b/./c.csv").unwrap();
        assert!(uri.starts_with("file:///") && uri.ends_with("/b/c.csv") && !uri.contains(".."), "{uri}");
        assert_eq!(local_uri("s3://b/k").unwrap(), "s3://b/k");
    }

    #[test]
    fn retries_are_kinds_with_limits() {
        let flags = |flags: &[&str]| retries(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>());
        let read = flags(&["expired=deadline", "refused=0"]).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"{"expired":"deadline","refused":0}"#);
        for (wrong, says) in [
            ("refused", "no ="),
            ("refusal=1", "there are expired, rate_limited"),
            ("refused=often", "\"deadline\""),
            ("refused=-1", "\"deadline\""),
            ("too_large=1", "never tried again"),
        ] {
            let error = flags(&[wrong]).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains(says), "{error}");
        }
        assert!(flags(&["refused=1", "refused=2"]).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn a_deadline_is_a_duration() {
        for (text, seconds) in [("90m", 5_400), ("48h", 172_800), ("3d", 259_200), ("1h30m", 5_400), ("1w", 604_800)] {
            assert_eq!(parse_deadline(text).unwrap(), seconds, "{text}");
        }
        for wrong in ["", "72", "soon", "0s", "-1h", "1mo", "366d", "500ms"] {
            assert!(parse_deadline(wrong).unwrap_err().is::<UsageError>(), "{wrong}");
        }
    }

    #[test]
    fn a_parameter_is_a_key_and_json() {
        assert_eq!(parse_param("temperature=0").unwrap(), ("temperature".to_owned(), serde_json::json!(0)));
        assert!(parse_param("temperature").is_err() && parse_param("stop=x").is_err());
    }
}
