//! The tag of resources that lack elements (ELEM-03).

/// Its `system`.
pub(crate) const SUBSETTED_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue";
/// Its `code`.
pub(crate) const SUBSETTED_CODE: &str = "SUBSETTED";
/// The tag as a Coding, in the form in which it is written.
pub(crate) const SUBSETTED_CODING: &str =
    r#"{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}"#;
/// The tag as the only one of a `meta`, which is the most that a reduction adds to a resource.
pub(crate) const SUBSETTED_META: &str =
    r#""meta":{"tag":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ObservationValue","code":"SUBSETTED"}]}"#;

/// Most bytes that a reduction adds to a row: [`SUBSETTED_META`] with a comma before it. Only a row whose `meta` has several
/// `tag`s may grow by more.
pub(crate) const REDUCTION_BYTES_MAX: u64 = SUBSETTED_META.len() as u64 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_agree() {
        let coding = serde_json::json!({"system": SUBSETTED_SYSTEM, "code": SUBSETTED_CODE});
        assert_eq!(coding.to_string(), SUBSETTED_CODING);
        assert_eq!(format!("\"meta\":{{\"tag\":[{SUBSETTED_CODING}]}}"), SUBSETTED_META);
    }
}
