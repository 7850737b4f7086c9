//! Why a job is refused before anything is spent. Codes are stable and each has a page under `docs/errors/`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! refusal_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// A stable code for a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum RefusalCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl RefusalCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The code as it is printed and as its page is named.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

refusal_codes! {
    /// The spec contradicts itself or a limit.
    SpecInvalid = "spec_invalid",
    /// A location is malformed, or outside what the settings allow.
    LocationRefused = "location_refused",
    /// There is nothing at the input's location.
    InputMissing = "input_missing",
    /// The input has no bytes, or no columns.
    InputEmpty = "input_empty",
    /// The input is neither CSV nor Parquet, or not what its name or the spec says.
    InputFormat = "input_format",
    /// The input is broken: a torn footer, a bad gzip stream, a column that can't be read.
    InputCorrupt = "input_corrupt",
    /// The input changed while it was read.
    InputChanged = "input_changed",
    /// The input breaks a cap that stands before every decoder.
    InputTooLarge = "input_too_large",
    /// Two columns have one name.
    DuplicateColumn = "duplicate_column",
    /// A row is malformed and the job says `on_bad_row: fail_job`.
    BadRow = "bad_row",
    /// The template does not parse.
    TemplateInvalid = "template_invalid",
    /// The template names a column that the input lacks.
    UnknownColumn = "unknown_column",
    /// An added column has the name of one of the input's.
    ColumnClash = "column_clash",
    /// The output's name promises another format than the input has.
    OutputFormat = "output_format",
    /// Something is at the output's location that is not this job's.
    OutputExists = "output_exists",
    /// The job id belongs to a job with another spec.
    JobIdConflict = "job_id_conflict",
    /// The model's provider is not in the settings, or the provider does not know the model.
    ModelUnknown = "model_unknown",
    /// The provider's class is not supported yet.
    UnsupportedProvider = "unsupported_provider",
    /// The job was cancelled before it was planned.
    Cancelled = "cancelled",
}

impl std::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: a code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The stable code.
    pub code: RefusalCode,
    /// What is wrong, where (file, row, byte, field), and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal with this code and message.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
