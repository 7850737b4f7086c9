//! OpenAI's Files and Batches API, and the many servers that speak it (class B).
//!
//! The facts are from OpenAI's API reference and published captures of live replies; where real replies differ from the
//! reference, [`wire`] and [`decode`] take both: file ids that are `""`, `completed` without a file, rows with status 0
//! and no body, a `200` create of a batch that fails later.

mod client;
pub mod decode;
pub mod encode;
mod errors;
mod lenient;
mod streams;
mod wire;

pub use client::Client;
pub use decode::{decode_line, decode_odd_line, line_id};
pub use encode::Encoder;
pub use errors::MAX_MESSAGE_CHARS;

/// The endpoint of every request.
pub(crate) const ENDPOINT: &str = "/v1/chat/completions";
