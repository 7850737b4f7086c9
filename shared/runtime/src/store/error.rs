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
                    Self::Refused { key, reason: error.to_string() }
                }
                error => Self::Unavailable { key, reason: error.to_string() },
            }
        }
    }
}
