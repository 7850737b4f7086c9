//! Logs: on stderr, JSON off a terminal and text on one.
//!
//! Prompts, keys and signed URLs never reach a log: what is logged are ids, keys of objects, counts and errors.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::settings::{Log, LogFormat};

/// Begins logging. A second call in a process changes nothing.
///
/// # Errors
/// If the filter does not parse.
pub fn init(settings: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| {
        anyhow::anyhow!("setting log.filter {:?}: {error}; use a level such as info", settings.filter)
    })?;
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a subscriber is there already, as in tests.
    let _already = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_names_the_setting() {
        let wrong = Log { filter: "info,==".to_owned(), ..Log::default() };
        assert!(init(&wrong).unwrap_err().to_string().contains("log.filter"));
        // A second call is no error either; `off` keeps the other tests quiet.
        for format in [LogFormat::Auto, LogFormat::Json, LogFormat::Text] {
            init(&Log { filter: "off".to_owned(), format }).unwrap();
        }
    }
}
