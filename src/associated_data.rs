//! The sets of associated resources that a request may ask for by name.

/// Value of `includeAssociatedData`. Of several the greatest counts, the least restrictive one (ASSOC-04).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AssociatedData {
    /// `LatestProvenanceResources`: of each exported resource the newest Provenance (ASSOC-02).
    LatestProvenance,
    /// `RelevantProvenanceResources`: of each exported resource every Provenance (ASSOC-03).
    RelevantProvenance,
}

impl AssociatedData {
    /// Every value.
    pub const ALL: [AssociatedData; 2] = [AssociatedData::LatestProvenance, AssociatedData::RelevantProvenance];

    /// Its code in the Bulk Data IG.
    pub const fn name(self) -> &'static str {
        match self {
            AssociatedData::LatestProvenance => "LatestProvenanceResources",
            AssociatedData::RelevantProvenance => "RelevantProvenanceResources",
        }
    }

    /// The value of a code; `None` for a code that is none of them.
    pub fn parse(code: &str) -> Option<AssociatedData> {
        AssociatedData::ALL.into_iter().find(|known| known.name() == code)
    }
}
