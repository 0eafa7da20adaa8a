//! The key of a resource or of a patient: 128 bits of hash in place of its type and id.

use crate::fhir::resource_type::ResourceType;
use crate::hash::xxh3_64_with_seed;

/// Seed of the second half of a key, apart from those of the first half.
const SECOND_SEED: u64 = 0x6f75_7470_6f75_7200;

/// A type and a logical id as two hashes: [`entity_hash`], by which the index finds rows, and another one. Two resources share
/// a key only if both collide: among 10^9 resources with a probability below 10^-20.
pub(crate) type ResourceKey = [u64; 2];

/// The key of a resource.
pub(crate) fn resource_key(resource_type: ResourceType, id: &[u8]) -> ResourceKey {
    let second = xxh3_64_with_seed(id, SECOND_SEED + resource_type.index() as u64);
    [entity_hash(resource_type, id), second]
}

/// The key of a patient, whether or not there is a Patient resource.
pub(crate) fn patient_key(id: &[u8]) -> ResourceKey {
    resource_key(ResourceType::PATIENT, id)
}

/// Hash of an entity: a type and a logical id.
pub(crate) fn entity_hash(resource_type: ResourceType, id: &[u8]) -> u64 {
    xxh3_64_with_seed(id, resource_type.index() as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys stand on disk: those of a version are those of every later one.
    #[test]
    fn keys_stay_as_they_are() {
        let observation = ResourceType::parse("Observation").unwrap();
        let key = resource_key(observation, b"o-1");
        assert_eq!(key, [12_661_940_319_761_108_636, 6_023_233_363_052_998_265]);
        let other = patient_key(b"o-1");
        assert!(key[0] != other[0] && key[1] != other[1]);
    }
}
