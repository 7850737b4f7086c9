//! Logs: on stderr, JSON off a terminal and text on one.
//!
//! Every line that is logged under a handler, also deep in a library, says which event it is about: `room`, `job`, `batch`
//! (`00000007-a1`), `attempt`, `team` where it is known, `trace_id` and `span_id`. They come from the span that the work loop opens
//! around the handler, so no call site has to think of them. In JSON they are keys of the line itself, not of an object in it.
//!
//! Prompts, keys and signed URLs never reach a log: what is logged are ids, keys of objects, counts and errors.

mod line;

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;

use crate::settings::{Log, LogFormat};
use crate::trace::TARGET;

/// Begins logging. A second call in a process changes nothing.
///
/// # Errors
/// If the filter does not parse.
pub fn init(settings: &Log) -> anyhow::Result<()> {
    let terminal = std::io::stderr().is_terminal();
    // An error means that a subscriber is there already, as in tests.
    let _already = if is_json(settings.format, terminal) {
        set_global_default(json(settings, std::io::stderr)?)
    } else {
        set_global_default(text(settings, std::io::stderr, terminal)?)
    };
    Ok(())
}

/// What logs in JSON lines, as [`init`] has it, to this writer.
///
/// # Errors
/// If the filter does not parse.
pub fn json<W>(settings: &Log, writer: W) -> anyhow::Result<impl Subscriber + Send + Sync + use<W>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(settings)?).with_writer(writer);
    Ok(builder.event_format(line::JsonLine).fmt_fields(JsonFields::new()).finish())
}

/// What logs in text for people, as [`init`] has it, to this writer.
///
/// # Errors
/// If the filter does not parse.
pub fn text<W>(settings: &Log, writer: W, colours: bool) -> anyhow::Result<impl Subscriber + Send + Sync + use<W>>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Ok(tracing_subscriber::fmt().with_env_filter(filter(settings)?).with_writer(writer).with_ansi(colours).finish())
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    }
}

fn filter(settings: &Log) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| {
        anyhow::anyhow!("setting log.filter {:?}: {error}; use a level such as info", settings.filter)
    })?;
    // A filter for one module must not hide the span around the handlers from its lines.
    Ok(filter.add_directive(format!("{TARGET}=error").parse()?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn speak() {
        let team = tracing::field::Empty;
        let span = tracing::error_span!(target: TARGET, "event", room = "poller", job = "a", attempt = 2, team);
        span.in_scope(|| {
            let inner = tracing::info_span!("inner", job = "wrong", url = "u\"1");
            inner.in_scope(|| tracing::warn!(rows = 7_u64, ok = true, error = %"no\nroom", "it \"said\""));
            span.record("team", "search");
            tracing::error!(job = "b", ratio = 0.5, "later");
        });
        tracing::error!("outside");
        tracing::debug!("not shown");
    }

    fn of(filter: &str) -> Log {
        Log { filter: filter.to_owned(), ..Log::default() }
    }

    #[test]
    fn a_filter_that_does_not_parse_names_the_setting() {
        assert!(init(&of("info,==")).unwrap_err().to_string().contains("log.filter"));
        // A second call is no error either; `off` keeps the other tests quiet.
        for format in [LogFormat::Auto, LogFormat::Json, LogFormat::Text] {
            init(&Log { format, ..of("off") }).unwrap();
        }
        assert!(is_json(LogFormat::Auto, false) && !is_json(LogFormat::Auto, true));
    }

    #[test]
    fn a_json_line_has_the_fields_of_its_event_and_of_the_spans_around_it_as_keys_of_its_own() {
        for filter in ["info", "runtime=warn"] {
            let lines = Lines::default();
            let writer = lines.clone();
            tracing::subscriber::with_default(json(&of(filter), move || writer.clone()).unwrap(), speak);
            let text = lines.text();
            let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let [first, second, third] = lines.as_slice() else { panic!("{text}") };
            for (key, value) in [
                ("level", serde_json::json!("WARN")),
                ("message", "it \"said\"".into()),
                ("rows", 7.into()),
                ("ok", true.into()),
                ("error", "no\nroom".into()),
                ("room", "poller".into()),
                ("job", "a".into()),
                ("attempt", 2.into()),
                ("target", "runtime::log::tests".into()),
            ] {
                assert_eq!(first[key], value, "{key}: {text}");
            }
            assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{text}");
            assert!(text.starts_with("{\"timestamp\":"), "{text}");
            // What the event itself says wins.
            assert_eq!(
                (&second["job"], &second["team"], &second["ratio"]),
                (&"b".into(), &"search".into(), &0.5.into())
            );
            assert_eq!((third.get("job"), &third["message"]), (None, &"outside".into()));
        }
    }

    #[test]
    fn a_text_line_says_which_event_it_is_about_too() {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing::subscriber::with_default(text(&of("warn"), move || writer.clone(), false).unwrap(), speak);
        let text = lines.text();
        let about = r#"event{room="poller" job="a" attempt=2"#;
        assert_eq!(text.lines().filter(|line| line.contains(about)).count(), 2, "{text}");
        assert!(text.trim_end().ends_with("ERROR runtime::log::tests: outside"), "{text}");
    }
}
