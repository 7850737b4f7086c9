//! What can go wrong with the store, by what the caller does about it.

/// The result of a call to the store.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call to the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store didn't answer, or can't serve this now. Try again; the outcome of a write is unknown.
    #[error("{key}: the store can't be reached or can't serve it now: {reason}")]
    Unavailable {
        /// The key.
        key: String,
        /// What was said.
        reason: String,
    },
    /// The store refuses this client. It stays so until someone acts.
    #[error("{key}: the store refuses it: {reason}; check the credentials and what they may do")]
    Refused {
        /// The key.
        key: String,
        /// What was said.
        reason: String,
    },
    /// There is no object.
    #[error("{key}: there is no such object")]
    Missing {
        /// The key.
        key: String,
    },
    /// The object is not what the fact about it says.
    #[error("{key}: the object is corrupt: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no room on the scratch disk now. Try again later.
    #[error("{key}: no room on the scratch disk for {bytes} bytes; try again later, or raise `scratch.max_bytes`")]
    ScratchFull {
        /// The key.
        key: String,
        /// The bytes that were wanted.
        bytes: u64,
    },
    /// The scratch disk failed.
    #[error("{key}: the scratch disk failed: {reason}")]
    Scratch {
        /// The key.
        key: String,
        /// What the operating system said.
        reason: String,
    },
    /// The key can't be one. It was not made by `model::keys`.
    #[error("{key:?} is not an object key: {reason}")]
    InvalidKey {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A setting is wrong.
    #[error("setting {setting}: {reason}")]
    Settings {
        /// The setting.
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anyone acting on it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::ScratchFull { .. } | Self::Scratch { .. })
    }

    /// Translates an error of the backend.
    pub(crate) fn reading(key: &str) -> impl Fn(object_store::Error) -> Self + use<> {
        let key = key.to_owned();
        move |error| {
            let key = key.clone();
            match error {
                object_store::Error::NotFound { .. } => Self::Missing { key },
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                    Self::Refused { key, reason: said(&error) }
                }
                error => Self::Unavailable { key, reason: said(&error) },
            }
        }
    }
}

/// A backend's error in words. S3 servers repeat the access key's id and what was signed in the XML of a refusal: of that
/// only code and message are kept.
pub(crate) fn said(error: &object_store::Error) -> String {
    without_xml(&error.to_string())
}

fn without_xml(text: &str) -> String {
    let Some(start) = text.find("<?xml").or_else(|| text.find("<Error")) else { return text.to_owned() };
    let (before, xml) = text.split_at(start);
    let element = |name: &str| {
        let inner = xml.split_once(&format!("<{name}>"))?.1;
        inner.split_once(&format!("</{name}>")).map(|(inner, _)| inner)
    };
    let words: Vec<&str> = ["Code", "Message"].into_iter().filter_map(element).collect();
    format!("{before}{}", words.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_s3_refusal_only_code_and_message_are_kept() {
        let xml = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It does not match.</Message>\
                   <AWSAccessKeyId>AKIA</AWSAccessKeyId><StringToSign>AKIA</StringToSign></Error>";
        let kept = without_xml(&format!("Client error with status 403 Forbidden: {xml}"));
        assert_eq!(kept, "Client error with status 403 Forbidden: SignatureDoesNotMatch: It does not match.");
        assert_eq!(without_xml("403: <Error><AWSAccessKeyId>AKIA"), "403: ");
        assert_eq!(without_xml("no such host"), "no such host");
    }
}
