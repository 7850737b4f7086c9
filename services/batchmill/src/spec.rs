//! From flags to a job spec.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use model::JobSpec;
use model::digest::{Sha256Hex, sha256_hex};
use model::spec::{BatchLimits, FileFormat, Input, OnBadRow, Output, Request};

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
    let output = args.output.clone().unwrap_or_else(|| default_output(input));
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
        retry: std::collections::BTreeMap::new(),
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

/// `products.csv` → `products.answers.csv`; a double extension stays together.
fn default_output(input: &str) -> String {
    let (folder, name) = match input.rsplit_once('/') {
        Some((folder, name)) => (format!("{folder}/"), name),
        None => (String::new(), input),
    };
    let lower = name.to_ascii_lowercase();
    let known = [".csv.gz", ".tsv.gz", ".csv", ".tsv", ".parquet"].into_iter().find(|ending| lower.ends_with(ending));
    let at =
        known.map_or_else(|| name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len()), |end| name.len() - end.len());
    format!("{folder}{}.answers{}", &name[..at], &name[at..])
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
            assert_eq!(default_output(input), output);
        }
    }

    #[test]
    fn a_local_path_becomes_an_absolute_uri_without_dots() {
        let uri = local_uri("a/../b/./c.csv").unwrap();
        assert!(uri.starts_with("file:///") && uri.ends_with("/b/c.csv") && !uri.contains(".."), "{uri}");
        assert_eq!(local_uri("s3://b/k").unwrap(), "s3://b/k");
    }

    #[test]
    fn a_parameter_is_a_key_and_json() {
        assert_eq!(parse_param("temperature=0").unwrap(), ("temperature".to_owned(), serde_json::json!(0)));
        assert!(parse_param("temperature").is_err() && parse_param("stop=x").is_err());
    }
}
