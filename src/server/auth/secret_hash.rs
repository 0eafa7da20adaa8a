//! The text of a secret's hash in the configuration, kept out of messages and `Debug` output. It is parsed by
//! `secret`.

use serde::Deserialize;
use serde::Serialize;

/// Text of a hash, to be parsed by [`StoredHash`](crate::server::auth::secret::StoredHash). `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretHash(pub String);

impl SecretHash {
    /// Whether no hash is configured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(..)")
    }
}
