//! From settings to a provider.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use model::{JobSpec, Refusal, RefusalCode};
use secrecy::SecretString;
use serde::Deserialize;

use crate::caps::{Caps, ModelSettings};
use crate::observe::{Observed, Observer};
use crate::openai::Client;
use crate::provider::{Class, Provider};

/// The settings of one provider account, as they stand under `[providers.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// The protocol it speaks: `openai`.
    pub kind: String,
    /// Where its API is, the version included. Default: `https://api.openai.com/v1`.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The key, from the environment or a file. Without one no Authorization header is sent, as a simulator likes it.
    #[serde(default)]
    pub api_key: Option<SecretString>,
    /// The most time to reach the provider, in milliseconds. Default: 10,000.
    #[serde(default = "default_connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// The most time for a whole small call, and between two reads of a download, in milliseconds. Default: 60,000. An upload
    /// gets this and a second more for each 256 KiB.
    #[serde(default = "default_request_timeout_ms")]
    pub request_timeout_ms: u64,
    /// How often a batch is looked at.
    #[serde(default)]
    pub poll: PollSchedule,
    /// The most batches at a time, over all models; none: no cap on the account.
    #[serde(default)]
    pub max_batches: Option<NonZeroU64>,
    /// What is set for single models, by the provider's own names.
    #[serde(default)]
    pub models: BTreeMap<String, ModelSettings>,
}

fn default_connect_timeout_ms() -> u64 {
    10_000
}

fn default_request_timeout_ms() -> u64 {
    60_000
}

impl ProviderSettings {
    /// Settings of this kind with every default.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            base_url: None,
            api_key: None,
            connect_timeout_ms: default_connect_timeout_ms(),
            request_timeout_ms: default_request_timeout_ms(),
            poll: PollSchedule::default(),
            max_batches: None,
            models: BTreeMap::new(),
        }
    }

    /// A simulator at this address, `http://127.0.0.1:<port>/v1`: it answers at once, so it is looked at often.
    #[must_use]
    pub fn simulator(base_url: impl Into<String>) -> Self {
        let poll = PollSchedule { first_ms: 20, most_ms: 1_000 };
        Self { base_url: Some(base_url.into()), poll, ..Self::new("openai") }
    }
}

/// How often a batch is looked at: first soon, then ever half as often again, up to a limit. The first look is immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PollSchedule {
    /// Between the first look and the second, in milliseconds. Default: 10,000.
    pub first_ms: u64,
    /// The longest interval, in milliseconds. Default: 300,000.
    pub most_ms: u64,
}

impl Default for PollSchedule {
    fn default() -> Self {
        Self { first_ms: 10_000, most_ms: 300_000 }
    }
}

impl PollSchedule {
    /// How long to wait after this many looks at a batch (1 or more), without jitter.
    #[must_use]
    pub fn after(&self, looks: u32) -> Duration {
        let mut wait = self.first_ms.max(1);
        for _ in 1..looks {
            if wait >= self.most_ms {
                break;
            }
            wait = wait.saturating_add(wait.div_ceil(2));
        }
        Duration::from_millis(wait.min(self.most_ms.max(1)))
    }
}

/// A provider that can't be used as the settings have it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedProvider {
    /// A kind that nobody knows.
    #[error(
        "provider {name:?} has the unknown kind {kind:?}: the one kind there is is \"openai\" (any server with OpenAI's Files and Batches API)"
    )]
    UnknownKind {
        /// The provider's name in the settings.
        name: String,
        /// The kind.
        kind: String,
    },
    /// A kind whose class has no protocol against double billing yet.
    #[error(
        "provider {name:?} is of kind {kind:?}, class {class:?}, which is not supported yet: only class B (upload, create, list, delete) is"
    )]
    Class {
        /// The provider's name in the settings.
        name: String,
        /// The kind.
        kind: String,
        /// Its class.
        class: Class,
    },
    /// The settings are wrong.
    #[error("provider {name:?}: {message}")]
    Settings {
        /// The provider's name in the settings.
        name: String,
        /// What is wrong.
        message: String,
    },
}

impl UnsupportedProvider {
    /// The refusal of a job that names this provider.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(RefusalCode::UnsupportedProvider, self.to_string())
    }
}

/// `[providers]`: the accounts by name.
pub type ProviderMap = BTreeMap<String, ProviderSettings>;

/// The providers of a process, by name. One that can't be used refuses the jobs that name it, not the process.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    opened: BTreeMap<String, Result<Arc<dyn Provider>, UnsupportedProvider>>,
    caps: BTreeMap<String, Caps>,
}

impl Providers {
    /// Opens all of them. Nothing is sent.
    #[must_use]
    pub fn open(settings: &ProviderMap) -> Self {
        let caps = |settings: &ProviderSettings| Caps::new(settings.max_batches, &settings.models);
        Self {
            opened: settings.iter().map(|(name, settings)| (name.clone(), open(name, settings))).collect(),
            caps: settings.iter().map(|(name, settings)| (name.clone(), caps(settings))).collect(),
        }
    }

    /// These providers, made elsewhere: for tests and simulations.
    #[must_use]
    pub fn of_map(providers: BTreeMap<String, Arc<dyn Provider>>) -> Self {
        let opened = providers.into_iter().map(|(name, provider)| (name, Ok(provider))).collect();
        Self { opened, caps: BTreeMap::new() }
    }

    /// The same with these caps on an account.
    #[must_use]
    pub fn with_caps(mut self, name: &str, caps: Caps) -> Self {
        self.caps.insert(name.to_owned(), caps);
        self
    }

    /// The caps of all accounts, by name.
    #[must_use]
    pub fn caps(&self) -> &BTreeMap<String, Caps> {
        &self.caps
    }

    /// The same, of whose calls the observer hears.
    #[must_use]
    pub fn observed_by(&self, observer: &Arc<dyn Observer>) -> Self {
        let observed = |(name, opened): (&String, &Result<Arc<dyn Provider>, UnsupportedProvider>)| {
            let opened = opened.clone().map(|inner| {
                let (name, observer) = (name.clone(), Arc::clone(observer));
                Arc::new(Observed { name, inner, observer }) as Arc<dyn Provider>
            });
            (name.clone(), opened)
        };
        Self { opened: self.opened.iter().map(observed).collect(), caps: self.caps.clone() }
    }

    /// Those that can be used, by name.
    pub fn usable(&self) -> impl Iterator<Item = (&str, &Arc<dyn Provider>)> {
        self.opened.iter().filter_map(|(name, opened)| Some((name.as_str(), opened.as_ref().ok()?)))
    }

    /// The provider of a job's model.
    ///
    /// # Errors
    /// The refusal when the settings have no such provider, or when it can't be used.
    pub fn of(&self, spec: &JobSpec) -> Result<&Arc<dyn Provider>, Refusal> {
        match self.opened.get(spec.provider()) {
            Some(Ok(provider)) => Ok(provider),
            Some(Err(unsupported)) => Err(unsupported.refusal()),
            None => {
                let known: Vec<&str> = self.opened.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let (model, name) = (&spec.request.model, spec.provider());
                let message = format!(
                    "model {model:?}: the settings have no provider {name:?} (known: {known}); add [providers.{name}]"
                );
                Err(Refusal::new(RefusalCode::ModelUnknown, message))
            }
        }
    }
}

/// Opens the provider of this name. Nothing is sent.
///
/// # Errors
/// The kind is unknown or not supported yet, or the settings are wrong.
pub fn open(name: &str, settings: &ProviderSettings) -> Result<Arc<dyn Provider>, UnsupportedProvider> {
    let known_class = match settings.kind.as_str() {
        "openai" => Class::B,
        "bedrock" => Class::A,
        "anthropic" => Class::C,
        _ => return Err(UnsupportedProvider::UnknownKind { name: name.to_owned(), kind: settings.kind.clone() }),
    };
    if known_class != Class::B {
        return Err(UnsupportedProvider::Class {
            name: name.to_owned(),
            kind: settings.kind.clone(),
            class: known_class,
        });
    }
    let client =
        Client::new(settings).map_err(|message| UnsupportedProvider::Settings { name: name.to_owned(), message })?;
    Ok(Arc::new(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_documented_defaults_and_know_every_field() {
        let settings: ProviderSettings = serde_json::from_str(r#"{"kind":"openai","api_key":"sk-canary"}"#).unwrap();
        assert_eq!((settings.connect_timeout_ms, settings.request_timeout_ms), (10_000, 60_000));
        assert_eq!(settings.poll, PollSchedule { first_ms: 10_000, most_ms: 300_000 });
        assert!(!format!("{settings:?}").contains("sk-canary"));
        assert!(serde_json::from_str::<ProviderSettings>(r#"{"kind":"openai","api_kye":"x"}"#).is_err());
    }

    #[test]
    fn caps_are_set_for_an_account_and_for_models_and_none_is_zero() {
        let text = r#"{"kind":"openai","max_batches":9,"models":{"gpt-4.1":{"max_batches":4},"free":{}}}"#;
        let providers = Providers::open(&[("p".to_owned(), serde_json::from_str(text).unwrap())].into());
        let caps = &providers.caps()["p"];
        assert_eq!(
            (caps.account.map(NonZeroU64::get), caps.models["gpt-4.1"].get(), caps.models.len()),
            (Some(9), 4, 1)
        );
        for wrong in [r#""max_batches":0"#, r#""models":{"m":{"max_batches":0}}"#, r#""models":{"m":{"max_batch":1}}"#]
        {
            assert!(serde_json::from_str::<ProviderSettings>(&format!(r#"{{"kind":"openai",{wrong}}}"#)).is_err());
        }
    }

    #[test]
    fn a_batch_is_looked_at_ever_more_seldom_up_to_the_limit() {
        let schedule = PollSchedule::default();
        let waits: Vec<u64> = (1..12).map(|looks| schedule.after(looks).as_secs()).collect();
        assert_eq!(waits[..3], [10, 15, 22]);
        assert!(waits.is_sorted());
        assert_eq!(schedule.after(u32::MAX).as_secs(), 300);
        assert_eq!(ProviderSettings::simulator("http://127.0.0.1:1/v1").poll.after(1), Duration::from_millis(20));
    }

    #[test]
    fn only_class_b_can_be_opened() {
        let refusal = |kind: &str| open("p", &ProviderSettings::new(kind)).unwrap_err();
        for (kind, class) in [("bedrock", Class::A), ("anthropic", Class::C)] {
            assert_eq!(
                refusal(kind),
                UnsupportedProvider::Class { name: "p".to_owned(), kind: kind.to_owned(), class }
            );
        }
        assert!(refusal("opneai").to_string().contains("opneai"));
        assert_eq!(refusal("x").refusal().code, RefusalCode::UnsupportedProvider);
        assert_eq!(open("p", &ProviderSettings::new("openai")).unwrap().class(), Class::B);
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for address in ["", "api.openai.com", "ftp://x/v1", "http://user:secret@x/v1", "http://x/v1?key=secret"] {
            let error =
                open("p", &ProviderSettings { base_url: Some(address.to_owned()), ..ProviderSettings::new("openai") })
                    .unwrap_err();
            assert!(
                matches!(error, UnsupportedProvider::Settings { .. }) && !error.to_string().contains("secret"),
                "{address}: {error}"
            );
        }
    }
}
