//! The compression of data objects and of Parquet outputs.

use std::str::FromStr;

use model::TableInfo;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use serde::{Deserialize, Serialize};

/// A compression, by its name in the settings (`store.codec`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// None at all.
    None,
    /// Snappy: cheap, and the default.
    #[default]
    Snappy,
    /// Zstandard at level 1.
    Zstd,
    /// LZ4 (raw blocks).
    Lz4,
    /// Gzip, for inputs that have it.
    Gzip,
    /// Brotli, for inputs that have it.
    Brotli,
}

impl Codec {
    /// The codec for a table's batch data and output: a Parquet input keeps its own where it can be written (LZO can't
    /// be), everything else has the one of the settings.
    #[must_use]
    pub fn for_table(info: &TableInfo, setting: Self) -> Self {
        match info.codec.as_deref() {
            Some("UNCOMPRESSED") => Self::None,
            Some("SNAPPY") => Self::Snappy,
            Some("ZSTD") => Self::Zstd,
            Some("LZ4" | "LZ4_RAW") => Self::Lz4,
            Some("GZIP") => Self::Gzip,
            Some("BROTLI") => Self::Brotli,
            _ => setting,
        }
    }

    /// The same for the Parquet writer.
    pub(crate) fn compression(self) -> Compression {
        match self {
            Self::None => Compression::UNCOMPRESSED,
            Self::Snappy => Compression::SNAPPY,
            Self::Zstd => Compression::ZSTD(ZstdLevel::default()),
            Self::Lz4 => Compression::LZ4_RAW,
            Self::Gzip => Compression::GZIP(GzipLevel::default()),
            Self::Brotli => Compression::BROTLI(BrotliLevel::default()),
        }
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "none" => Self::None,
            "snappy" => Self::Snappy,
            "zstd" => Self::Zstd,
            "lz4" => Self::Lz4,
            "gzip" => Self::Gzip,
            "brotli" => Self::Brotli,
            _ => return Err(format!("{text:?} is no codec: use none, snappy, zstd, lz4, gzip or brotli")),
        })
    }
}
