//! Records that state the hash of everything else in them, so that one which is not as it was written is told.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hash::xxh3_128;

/// A record in a job that states the hash of everything else in it.
pub(crate) trait HashedRecord: Clone + Serialize + DeserializeOwned {
    /// The hash that it states.
    fn stated_hash(&mut self) -> &mut String;

    /// The record as it is written.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a record is plain data");
        bytes.push(b'\n');
        bytes
    }

    /// The hash of the record, whatever hash it states.
    fn content_hash(&self) -> String {
        let mut unnamed = self.clone();
        unnamed.stated_hash().clear();
        format!("{:032x}", xxh3_128(&unnamed.to_bytes()))
    }

    /// The record with the hash of its contents.
    fn hashed(mut self) -> Self {
        *self.stated_hash() = self.content_hash();
        self
    }

    /// The record of these bytes; `None` if they are not just as it is written.
    fn from_written(bytes: &[u8]) -> Option<Self> {
        let mut record: Self = serde_json::from_slice(bytes).ok()?;
        let hash = record.content_hash();
        (*record.stated_hash() == hash && record.to_bytes() == bytes).then_some(record)
    }
}
