use std::io::Write as _;

use super::*;
use serde::Deserialize;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Room {
    batch_rows: u32,
    label: String,
    ratio: f64,
    list: Vec<String>,
    on: bool,
    mode: Mode,
    api_key: Option<Secret>,
    inner: Inner,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
struct Inner {
    depth: u8,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Slow,
    Fast,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            batch_rows: 10,
            label: "x".to_owned(),
            ratio: 0.5,
            list: Vec::new(),
            on: false,
            mode: Mode::Slow,
            api_key: None,
            inner: Inner::default(),
        }
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings> {
    let own =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
    Settings::load(Some(file(text).path()), own(env).into_iter(), &own(flags))
}

fn room(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Room> {
    load(text, env, flags)?.section("room")
}

#[test]
fn nothing_set_gives_the_defaults() {
    assert_eq!(room("", &[], &[]).unwrap(), Room::default());
    assert_eq!(Common::declare(&mut load("", &[], &[]).unwrap()).unwrap(), Common::default());
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let text = "[room]\nbatch_rows = 1\nlabel = 'file'\nratio = 1";
    let read = room(
        text,
        &[("BATCHMILL__ROOM__BATCH_ROWS", "2"), ("BATCHMILL__ROOM__LABEL", "env")],
        &[("room.batch_rows", "3")],
    );
    let read = read.unwrap();
    assert_eq!((read.batch_rows, read.label.as_str(), read.ratio), (3, "env", 1.0));
}

#[test]
fn text_takes_the_type_that_the_setting_wants() {
    let env = [
        ("BATCHMILL__ROOM__LABEL", "007"),
        ("BATCHMILL__ROOM__ON", "true"),
        ("BATCHMILL__ROOM__LIST", "['a', 'b']"),
        ("BATCHMILL__ROOM__MODE", "fast"),
        ("BATCHMILL__ROOM__INNER__DEPTH", "7"),
    ];
    let read = room("", &env, &[]).unwrap();
    assert_eq!((read.label.as_str(), read.on, read.mode, read.inner.depth), ("007", true, Mode::Fast, 7));
    assert_eq!(read.list, ["a", "b"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_name() {
    let text = "\n[room]\nlabel = 'a'\nbatch_row = 5";
    let error = room(text, &[], &[]).unwrap_err().to_string();
    assert!(error.contains(":4: unknown setting `room.batch_row`; did you mean `batch_rows`?"), "{error}");
    let error = room("", &[("BATCHMILL__ROOM__INNER__DEPHT", "1")], &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "environment variable BATCHMILL__ROOM__INNER__DEPHT: unknown setting `room.inner.depht`; did you mean `depth`?"
    );
    let error = room("", &[], &[("room.completely_else", "1")]).unwrap_err().to_string();
    assert_eq!(error, "flag --set room.completely_else: unknown setting `room.completely_else`");
}

#[test]
fn an_unknown_section_is_refused_too() {
    let mut settings = load("[rooom]\nlabel = 'a'", &[], &[]).unwrap();
    let error = settings.check_sections(&["kafka", "room"]).unwrap_err().to_string();
    assert!(error.contains(":2: unknown section `rooom`; did you mean `room`?"), "{error}");
    settings.declare::<serde_json::Value>("rooom").unwrap();
    settings.check_sections(&["room"]).unwrap();
    assert!(settings.mentions("rooom") && !settings.mentions("room"));
}

#[test]
fn a_value_that_does_not_fit_names_key_and_place() {
    let error = room("[room]\nbatch_rows = 'many'", &[], &[]).unwrap_err().to_string();
    assert!(error.contains(":2: setting `room.batch_rows`: invalid type: string \"many\", expected u32"), "{error}");
    let error = room("", &[("BATCHMILL__ROOM__MODE", "quick")], &[]).unwrap_err().to_string();
    assert!(error.contains("BATCHMILL__ROOM__MODE: setting `room.mode`: unknown variant `quick`"), "{error}");
    let error = room("", &[], &[("room.inner.depth", "300")]).unwrap_err().to_string();
    assert!(error.contains("flag --set room.inner.depth: setting `room.inner.depth`"), "{error}");
    let error = room("[room]\ninner = 4", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("setting `room.inner`"), "{error}");
}

#[test]
fn what_is_not_toml_names_the_line() {
    let error = load("[room]\nlabel = = 'a'", &[], &[]).unwrap_err().to_string();
    assert!(error.contains(":2: not TOML"), "{error}");
    let missing = Settings::load(Some(Path::new("/nonexistent/batchmill.toml")), std::iter::empty(), &[]);
    assert!(missing.unwrap_err().to_string().starts_with("/nonexistent/batchmill.toml: can't be read"));
    let error = load("label = 'a'", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("it belongs into a section"), "{error}");
}

#[test]
fn a_secret_comes_from_the_environment_or_from_a_file_that_it_names() {
    let secret = file("  sk-1\n");
    let path = secret.path().to_str().unwrap();
    let key = |read: Room| read.api_key.unwrap().expose().to_owned();
    assert_eq!(key(room("", &[("BATCHMILL__ROOM__API_KEY_FILE", path)], &[]).unwrap()), "sk-1");
    assert_eq!(key(room("", &[("BATCHMILL__ROOM__API_KEY", "12345")], &[]).unwrap()), "12345");
    let both = [("BATCHMILL__ROOM__API_KEY", "a"), ("BATCHMILL__ROOM__API_KEY_FILE", path)];
    assert!(room("", &both, &[]).unwrap_err().to_string().contains("given twice"));
    let gone = room("", &[("BATCHMILL__ROOM__API_KEY_FILE", "/nonexistent/key")], &[]).unwrap_err().to_string();
    assert!(
        gone.contains("/nonexistent/key: can't be read") && gone.contains("BATCHMILL__ROOM__API_KEY_FILE"),
        "{gone}"
    );
}

#[test]
fn a_secret_in_the_file_or_in_a_flag_is_refused_without_repeating_it() {
    for (text, flags) in [("[room]\napi_key = 'sk-1'", &[] as &[_]), ("", &[("room.api_key", "sk-1")])] {
        let error = room(text, &[], flags).unwrap_err().to_string();
        assert!(
            error.contains("`room.api_key` is a secret") && error.contains("BATCHMILL__ROOM__API_KEY_FILE"),
            "{error}"
        );
        assert!(!error.contains("sk-1"), "{error}");
    }
    let error = load("[kafka.properties]\n'sasl.password' = 'p'", &[], &[]).unwrap_err().to_string();
    assert!(error.contains("set BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD"), "{error}");
}

#[test]
fn a_property_of_kafka_keeps_its_dots() {
    let text = "[kafka.properties]\n'security.protocol' = 'SASL_SSL'";
    let env = [("BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD", "p")];
    let flags = [("kafka.properties.sasl.mechanism", "PLAIN")];
    let kafka: Kafka = load(text, &env, &flags).unwrap().section("kafka").unwrap();
    let names: Vec<&str> = kafka.properties.keys().map(String::as_str).collect();
    assert_eq!(names, ["sasl.mechanism", "sasl.password", "security.protocol"]);
}

#[test]
fn the_secrets_of_kafka_come_from_files_that_the_environment_names() {
    let (password, key) = (file("hunter2\n"), file("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n"));
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let (password, pem) = (path(&password), path(&key));
    let env = [
        ("BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD_FILE", password.as_str()),
        ("BATCHMILL__KAFKA__PROPERTIES__SSL_KEY_PEM_FILE", &pem),
        ("BATCHMILL__KAFKA__PROPERTIES__SSL_KEY_PASSWORD", "hunter2"),
        ("BATCHMILL__KAFKA__PROPERTIES__SASL_OAUTHBEARER_ASSERTION_PRIVATE_KEY_PASSPHRASE", "hunter2"),
    ];
    let settings = load("", &env, &[]).unwrap();
    let kafka: Kafka = settings.section("kafka").unwrap();
    let exposed = |name: &str| kafka.properties[name].expose().to_owned();
    assert_eq!((exposed("sasl.password").as_str(), exposed("ssl.key.password").as_str()), ("hunter2", "hunter2"));
    assert!(exposed("ssl.key.pem").starts_with("-----BEGIN PRIVATE KEY-----\nabc"));
    let shown = settings.show();
    assert_eq!(shown.len(), env.len());
    assert!(shown.iter().all(|shown| shown.value == "***"), "{shown:?}");
    let flag = load("", &[], &[("kafka.properties.sasl.password", "hunter2")]).unwrap_err().to_string();
    assert!(flag.contains("BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD_FILE") && !flag.contains("hunter2"), "{flag}");
}

#[test]
fn show_has_defaults_and_origins_and_no_secret() {
    let env = [("BATCHMILL__ROOM__API_KEY", "sk-1"), ("BATCHMILL__KAFKA__PROPERTIES__SASL_PASSWORD", "p-1")];
    let mut settings = load("[room]\nbatch_rows = 5", &env, &[("room.label", "l")]).unwrap();
    settings.declare::<Room>("room").unwrap();
    let shown = settings.show();
    let of = |key: &str| shown.iter().find(|shown| shown.key == key).unwrap().clone();
    assert!(of("room.batch_rows").origin.ends_with(":2"));
    assert_eq!((of("room.label").value.as_str(), of("room.label").origin.as_str()), ("l", "flag --set room.label"));
    assert_eq!((of("room.ratio").value.as_str(), of("room.ratio").origin.as_str()), ("0.5", "default"));
    assert_eq!(of("room.api_key").value, "***");
    assert_eq!(of("kafka.properties.\"sasl.password\"").value, "***");
    assert!(!format!("{shown:?}").contains("sk-1") && !format!("{shown:?}").contains("p-1"));
}

#[test]
fn a_key_that_is_both_a_value_and_a_table_is_refused() {
    let error = load("[room]\ninner = 1", &[("BATCHMILL__ROOM__INNER__DEPTH", "2")], &[]).unwrap_err().to_string();
    assert!(error.contains("setting `room.inner`: it is a value here"), "{error}");
}

#[test]
fn the_standard_variables_of_a_collector_count_below_ours() {
    let read = |env: &[(&str, &str)], flags: &[(&str, &str)]| {
        let settings = load("[tracing]\notlp_endpoint = \"http://file\"\n", env, flags).unwrap();
        (settings.section::<Tracing>("tracing").unwrap(), settings)
    };
    let standard = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard"), ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2")];
    let (tracing, mut settings) = read(&standard, &[]);
    assert_eq!((tracing.otlp_endpoint.as_str(), tracing.sample_ratio), ("http://standard", 1.0));
    assert_eq!(tracing.otlp_headers.unwrap().expose(), "a=hunter2");
    settings.declare::<Tracing>("tracing").unwrap();
    let shown = format!("{:?}", settings.show());
    assert!(shown.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !shown.contains("hunter2"), "{shown}");
    let ours = [standard[0], ("BATCHMILL__TRACING__OTLP_ENDPOINT", "http://ours")];
    assert_eq!(read(&ours, &[]).0.otlp_endpoint, "http://ours");
    assert_eq!(read(&ours, &[("tracing.otlp_endpoint", "http://flag")]).0.otlp_endpoint, "http://flag");
    assert_eq!(read(&[], &[]).0.otlp_endpoint, "http://file");
}
