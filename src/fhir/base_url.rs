//! Membership of a base URL in the set of a store's own base URLs (reading 5).
//!
//! Compares text only: nothing is normalised or resolved but for final slashes of the configured bases. The base of
//! `https://a.example/fhir//Patient/1` ends with a slash and is never ours: RFC 3986 tells a path with an empty segment
//! from one without, and where two URLs may differ no row leaves.

/// The base URLs under which absolute references name resources of the store, as configured: with or without final
/// slashes, in any order. The empty base, that of relative references, always belongs to the set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BaseUrls<'a>(&'a [String]);

impl<'a> BaseUrls<'a> {
    /// The set of these base URLs and the empty base.
    pub(crate) fn new(bases: &'a [String]) -> BaseUrls<'a> {
        BaseUrls(bases)
    }

    /// Whether a base belongs to the set. `base` has no final slash, as in
    /// [`Reference::base`](crate::fhir::reference::Reference::base); one with a final slash does not belong.
    pub(crate) fn contains(self, base: &str) -> bool {
        base.is_empty() || self.0.iter().any(|own| own.trim_end_matches('/') == base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The empty base always belongs, final slashes of the set do not count, nothing else is normalised.
    #[test]
    fn final_slashes_of_the_set_do_not_count() {
        let bases = ["https://a.example/fhir//".to_string(), "https://b.example".to_string(), "/".to_string()];
        let set = BaseUrls::new(&bases);
        for base in ["", "https://a.example/fhir", "https://b.example"] {
            assert!(set.contains(base), "{base}");
        }
        for base in ["https://a.example", "https://a.example/fhir/", "https://A.example/fhir", "http://b.example", "/"]
        {
            assert!(!set.contains(base), "{base}");
        }
        assert!(BaseUrls::new(&[]).contains("") && !BaseUrls::new(&[]).contains("https://b.example"));
    }
}
