//! What the record of an export says of the chain that it is a part of.

use serde::{Deserialize, Serialize};

/// What the record of an export says of the chain that it is a part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChainLink {
    /// The chain's own id, which no other chain has.
    pub chain: String,
    /// Position in the chain, from 1.
    pub number: u64,
    /// Number of the full export that the increment builds on in the end; its own for a full one.
    pub full: u64,
}
