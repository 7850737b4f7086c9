//! The job specification: what a caller asks for, as JSON.
//!
//! The same document is the body of a plain Kafka message, the data of a `job.submitted` event, the content of
//! `--spec FILE`, and what the command builds from its flags. Checks that need only the text are here
//! ([`JobSpec::validate`]); checks that need the input's columns belong to the splitter.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::ids::JobId;
use crate::outcome::FailureKind;
use crate::refusal::{Refusal, RefusalCode};
use crate::retry::{RetryLimit, may_be_tried_again, never_tried_again};

/// The most rows that any provider takes in one batch file (OpenAI, Batch API guide).
pub const MAX_BATCH_ROWS: u32 = 50_000;
/// The most encoded bytes of one batch. OpenAI refuses files above 209,715,200; 200 MB leaves room for what others count.
pub const MAX_BATCH_BYTES: u64 = 200_000_000;
/// The most bytes of a spec as compact JSON, so that an event with it stays below 64 KiB.
pub const MAX_SPEC_BYTES: usize = 60 * 1024;
/// The longest deadline: a year.
pub const MAX_DEADLINE_SECONDS: u64 = 365 * 24 * 3_600;

/// A whole job: read this file, ask this of each row, write that file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The job's name: the same name and the same spec again is the same job.
    pub id: JobId,
    /// Where the rows are.
    pub input: Input,
    /// Where the answered file goes.
    pub output: Output,
    /// What is asked of each row.
    pub request: Request,
    /// How large a batch may become.
    #[serde(default)]
    pub batch: BatchLimits,
    /// The name of the added column with the answers.
    #[serde(default = "default_response_column")]
    pub response_column: String,
    /// Whether the columns beyond the answer and the error are added too (status, tokens, model, …).
    #[serde(default)]
    pub details: bool,
    /// What a malformed row (ragged, not UTF-8, too large a cell) does.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// Tries by kind of failure, over the defaults: a count, or `"deadline"` for as often as time allows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retry: BTreeMap<FailureKind, RetryLimit>,
    /// Seconds from the plan after which nothing new is tried and the job ends with what there is; else the settings'
    /// hours count (72 by default). At most a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub deadline_seconds: Option<u64>,
}

/// The input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Where it is: `s3://bucket/key`; with the embedded store also `file:///path`.
    pub uri: String,
    /// Its format, when content and name mislead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// The CSV delimiter, when detection misleads: one ASCII character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
}

/// The output file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Where it goes. Its format is the input's.
    pub uri: String,
    /// Whether an output that an earlier, ended job (or somebody else) left there may be replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
}

/// What is asked of each row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// `provider/model`: the part before the first slash names the provider in the settings.
    pub model: String,
    /// The system prompt, sent as it stands with every row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The user prompt: a Jinja template over the row's columns.
    pub template: String,
    /// Parameters of the provider's request body (`temperature`, `max_tokens`, …), sent as they stand.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub params: serde_json::Map<String, serde_json::Value>,
}

/// How large a batch may become; the provider's own limits stand above these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchLimits {
    /// Rows, at most 50,000.
    #[serde(default = "default_max_rows")]
    #[schemars(range(min = 1, max = 50_000))]
    pub max_rows: u32,
    /// Encoded bytes, at most 200,000,000.
    #[serde(default = "default_max_bytes")]
    #[schemars(range(min = 1, max = 200_000_000))]
    pub max_bytes: u64,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { max_rows: MAX_BATCH_ROWS, max_bytes: MAX_BATCH_BYTES }
    }
}

fn default_max_rows() -> u32 {
    MAX_BATCH_ROWS
}

fn default_max_bytes() -> u64 {
    MAX_BATCH_BYTES
}

fn default_response_column() -> String {
    "response".to_owned()
}

/// What a malformed row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The job is refused, naming the first such row; nothing is spent.
    #[default]
    FailJob,
    /// The row alone fails, as `bad_row`; its text comes back as it was.
    FailRow,
}

/// A file format, by the name of its usual extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FileFormat {
    /// Delimited text.
    #[serde(rename = "csv")]
    Csv,
    /// Tab-separated text.
    #[serde(rename = "tsv")]
    Tsv,
    /// Gzipped delimited text.
    #[serde(rename = "csv.gz")]
    CsvGz,
    /// Apache Parquet.
    #[serde(rename = "parquet")]
    Parquet,
}

impl FileFormat {
    /// The format that a file's name promises, if any.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name.ends_with(".csv.gz") || name.ends_with(".tsv.gz") {
            return Some(Self::CsvGz);
        }
        [(".csv", Self::Csv), (".tsv", Self::Tsv), (".parquet", Self::Parquet)]
            .into_iter()
            .find_map(|(ending, format)| name.ends_with(ending).then_some(format))
    }

    /// Whether this is one of the CSV family.
    #[must_use]
    pub fn is_csv(self) -> bool {
        self != Self::Parquet
    }
}

impl JobSpec {
    /// The digest that tells whether two specs are the same job: over the canonical JSON of the whole spec.
    #[must_use]
    pub fn digest(&self) -> String {
        // A spec is plain data with text keys: it always serialises.
        sha256_hex(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// The provider's name in the settings: the part of the model before the first slash.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.request.model.split_once('/').map_or("", |(provider, _)| provider)
    }

    /// The model as the provider knows it: the part after the first slash.
    #[must_use]
    pub fn provider_model(&self) -> &str {
        self.request.model.split_once('/').map_or("", |(_, model)| model)
    }

    /// The added columns, in order, that the output will have behind the caller's.
    #[must_use]
    pub fn added_columns(&self) -> Vec<&str> {
        let mut columns = vec![self.response_column.as_str(), "error"];
        if self.details {
            columns.extend(DETAIL_COLUMNS);
        }
        columns
    }

    /// Where the failed rows go, beside the output: `products.answers.csv` → `products.answers.failed.csv`. It lies in the
    /// output's folder, so whoever may write there may write here.
    #[must_use]
    pub fn failed_rows_uri(&self) -> String {
        before_extension(&self.output.uri, "failed")
    }

    /// Checks all that needs only the spec itself.
    ///
    /// # Errors
    /// A [`Refusal`] that names the field, what is wrong with it and what would be right.
    pub fn validate(&self) -> Result<(), Refusal> {
        let bad = |message: String| Err(Refusal::new(RefusalCode::SpecInvalid, message));
        if self.provider().is_empty() || self.provider_model().is_empty() {
            return Err(Refusal::new(
                RefusalCode::ModelUnknown,
                format!(
                    "request.model {:?} is not of the form provider/model, as in openai/gpt-4o-mini or sim/echo",
                    self.request.model
                ),
            ));
        }
        if !(1..=MAX_BATCH_ROWS).contains(&self.batch.max_rows) {
            return bad(format!("batch.max_rows is {}: give 1 to {MAX_BATCH_ROWS}", self.batch.max_rows));
        }
        if !(1..=MAX_BATCH_BYTES).contains(&self.batch.max_bytes) {
            return bad(format!("batch.max_bytes is {}: give 1 to {MAX_BATCH_BYTES}", self.batch.max_bytes));
        }
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_SPEC_BYTES {
            return bad(format!(
                "the spec is {bytes} bytes as JSON: at most {MAX_SPEC_BYTES} fit an event; shorten the template"
            ));
        }
        if self.request.template.trim().is_empty() {
            return bad("request.template is empty: write the prompt, as in 'Describe {{ title }}'".to_owned());
        }
        if self.response_column.is_empty() || self.response_column == "error" {
            return bad(format!(
                "response_column {:?} is empty or taken by the error column: choose another name",
                self.response_column
            ));
        }
        if self.details && DETAIL_COLUMNS.contains(&self.response_column.as_str()) {
            return bad(format!(
                "response_column {:?} is one of the detail columns: choose another name",
                self.response_column
            ));
        }
        if let Some(param) = RESERVED_PARAMS.iter().find(|p| self.request.params.contains_key(**p)) {
            return bad(format!("request.params has {param:?}, which batchmill sets itself: remove it"));
        }
        if self.input.uri == self.output.uri {
            return bad("output.uri is the input itself: choose another place".to_owned());
        }
        if self.input.uri == self.failed_rows_uri() {
            return bad(format!(
                "output.uri {:?} would put its failed rows where the input is: choose another place",
                self.output.uri
            ));
        }
        if let Some(kind) = self.retry.keys().find(|kind| !may_be_tried_again(**kind)) {
            return bad(format!("retry has {kind}: {}", never_tried_again(*kind)));
        }
        if let Some(seconds) = self.deadline_seconds.filter(|seconds| !(1..=MAX_DEADLINE_SECONDS).contains(seconds)) {
            return bad(format!("deadline_seconds is {seconds}: give 1 to {MAX_DEADLINE_SECONDS}"));
        }
        match self.input.delimiter {
            Some(d) if !d.is_ascii() || matches!(d, '"' | '\n' | '\r' | '\0') => bad(format!(
                "input.delimiter {d:?} cannot delimit: use one ASCII character other than quote, newline and NUL"
            )),
            _ => Ok(()),
        }
    }
}

/// A file's name with a word before its extension: `a/products.csv` → `a/products.WORD.csv`. A double extension stays
/// together.
#[must_use]
pub fn before_extension(path: &str, word: &str) -> String {
    let (folder, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    let lower = name.to_ascii_lowercase();
    let known = [".csv.gz", ".tsv.gz", ".csv", ".tsv", ".parquet"].into_iter().find(|ending| lower.ends_with(ending));
    let at =
        known.map_or_else(|| name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len()), |end| name.len() - end.len());
    format!("{folder}{}.{word}{}", &name[..at], &name[at..])
}

/// The columns that `details` adds behind the answer and the error.
pub const DETAIL_COLUMNS: [&str; 10] = [
    "status",
    "error_kind",
    "finish_reason",
    "model",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "attempts",
    COST_COLUMN,
];

/// The last of them: what the row cost over all its attempts, in US dollars. Outputs of jobs that were planned before there
/// were prices lack it.
pub const COST_COLUMN: &str = "cost_usd";

/// Parameters of a request body that the encoder writes itself, or that a batch can't honour.
const RESERVED_PARAMS: [&str; 4] = ["model", "messages", "stream", "n"];

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const COMPLETE: &str = r#"{"id":"spring-catalog",
 "input":{"uri":"s3://lake/in/products.csv"},
 "output":{"uri":"s3://lake/out/products.csv"},
 "request":{"model":"openai/gpt-4o-mini","system":"You write product copy.","template":"Describe {{ title }} in 20 words.","params":{"temperature":0,"max_tokens":60}},
 "batch":{"max_rows":50000,"max_bytes":200000000},
 "response_column":"response","details":false,"on_bad_row":"fail_job"}"#;

    fn complete() -> JobSpec {
        serde_json::from_str(COMPLETE).unwrap()
    }

    #[test]
    fn the_documented_spec_is_valid_and_knows_its_provider() {
        let spec = complete();
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!((spec.provider(), spec.provider_model()), ("openai", "gpt-4o-mini"));
    }

    #[test]
    fn a_model_may_have_slashes_of_its_own() {
        let mut spec = complete();
        spec.request.model = "together/meta/llama".to_owned();
        assert_eq!((spec.provider(), spec.provider_model()), ("together", "meta/llama"));
    }

    #[test]
    fn the_digest_ignores_spelling_and_sees_every_field() {
        let spec = complete();
        let short: JobSpec =
            serde_json::from_str(&COMPLETE.replace(r#","details":false,"on_bad_row":"fail_job""#, "")).unwrap();
        assert_eq!(spec.digest(), short.digest());
        let mut other = complete();
        other.details = true;
        assert_ne!(spec.digest(), other.digest());
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = serde_json::from_str::<JobSpec>(&COMPLETE.replace("\"details\"", "\"detials\"")).unwrap_err();
        assert!(error.to_string().contains("detials"), "{error}");
    }

    #[test]
    fn limits_outside_the_providers_are_refused() {
        for (rows, bytes) in [(0, 1), (50_001, 1), (1, 0), (1, 200_000_001)] {
            let mut spec = complete();
            spec.batch = BatchLimits { max_rows: rows, max_bytes: bytes };
            assert_eq!(spec.validate().unwrap_err().code, RefusalCode::SpecInvalid, "{rows} {bytes}");
        }
    }

    #[test]
    fn the_failed_rows_lie_beside_the_output() {
        for (output, failed) in [
            ("s3://b/k/products.answers.csv", "s3://b/k/products.answers.failed.csv"),
            ("file:///a.b/x.answers.csv.gz", "file:///a.b/x.answers.failed.csv.gz"),
            ("s3://b/T.TSV", "s3://b/T.failed.TSV"),
            ("s3://b/t.parquet", "s3://b/t.failed.parquet"),
            ("s3://b.c/answers", "s3://b.c/answers.failed"),
        ] {
            let mut spec = complete();
            spec.output.uri = output.to_owned();
            assert_eq!(spec.failed_rows_uri(), failed);
        }
    }

    #[test]
    fn failed_rows_that_would_land_on_the_input_are_refused() {
        let mut spec = complete();
        spec.input.uri = "s3://lake/out/products.failed.csv".to_owned();
        let refusal = spec.validate().unwrap_err();
        assert!(refusal.message.contains("failed rows where the input is"), "{refusal}");
    }

    #[test]
    fn a_kind_that_is_never_tried_again_and_a_deadline_out_of_range_are_refused() {
        let mut spec = complete();
        spec.retry = BTreeMap::from([(FailureKind::TooLarge, RetryLimit::Times(1))]);
        let refusal = spec.validate().unwrap_err();
        assert!(refusal.message.contains("too_large") && refusal.message.contains("never"), "{refusal}");
        for seconds in [0, MAX_DEADLINE_SECONDS + 1] {
            let spec = JobSpec { deadline_seconds: Some(seconds), ..complete() };
            assert!(spec.validate().unwrap_err().message.contains("deadline_seconds"), "{seconds}");
        }
        assert_eq!(JobSpec { deadline_seconds: Some(1), ..complete() }.validate(), Ok(()));
    }

    #[test]
    fn an_unknown_kind_or_limit_is_refused_in_words() {
        let with = |retry: &str| COMPLETE.replace("\"batch\":", &format!("\"retry\":{retry},\"batch\":"));
        let error = |retry: &str| serde_json::from_str::<JobSpec>(&with(retry)).unwrap_err().to_string();
        assert!(error(r#"{"expird":1}"#).contains("expird"));
        for limit in ["\"always\"", "-1", "1.5", "true", "4294967296"] {
            let error = error(&format!(r#"{{"expired":{limit}}}"#));
            assert!(error.contains("\"deadline\""), "{error}");
        }
        assert!(serde_json::from_str::<JobSpec>(&with(r#"{"expired":"deadline","refused":0}"#)).is_ok());
    }

    #[test]
    fn a_format_follows_from_the_name() {
        assert_eq!(FileFormat::from_name("a/B.CSV"), Some(FileFormat::Csv));
        assert_eq!(FileFormat::from_name("x.csv.gz"), Some(FileFormat::CsvGz));
        assert_eq!(FileFormat::from_name("x.parquet"), Some(FileFormat::Parquet));
        assert_eq!(FileFormat::from_name("x.txt"), None);
    }
}
