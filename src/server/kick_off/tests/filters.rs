//! Tests of `_typeFilter` in kick-offs.

use super::*;

/// TFILTER-05, TFILTER-06, TFILTER-08, TFILTER-11: filters are read and judged, each problem by name and without its value.
#[test]
fn filters_are_read() {
    let filters = |found: &RequestedExport| format!("{:?}", found.request.type_filters);
    let two =
        "_typeFilter=Observation%3Fcode%3Da%252Cb,Patient%3Fgender%3Dmale&_typeFilter=Observation%3Fdate%3Dgt2020";
    assert_eq!(filters(&strict(two).unwrap()), "[Observation?code, Patient?gender, Observation?date]");
    assert_eq!(wrong(strict(&format!("{two}&_type=Patient"))), ["_typeFilter"]);
    let ignored = lenient(&format!("{two}&_type=Patient")).unwrap();
    assert_eq!((filters(&ignored).as_str(), ignored.request.notes.len()), ("[Patient?gender]", 1));
    // One that cannot be evaluated takes the others of its type with it.
    let bad = format!("{two}&_typeFilter=Observation%3Fnope%3DSECRET");
    assert_eq!(wrong(strict(&bad)), ["_typeFilter"]);
    let ignored = lenient(&bad).unwrap();
    assert_eq!((filters(&ignored).as_str(), ignored.request.notes.len()), ("[Patient?gender]", 1));
    assert!(ignored.request.notes[0].text.starts_with("_typeFilter: Observation is not filtered"));
    for malformed in ["Observation", "Patient%2F1%2FObservation%3Fcode%3Da", "%3Fcode%3Da"] {
        assert_eq!(wrong(lenient(&format!("_typeFilter={malformed}"))), ["_typeFilter"], "{malformed}");
    }
    let values = format!("_typeFilter=Patient%3F_id%3D{}&", "a%252C".repeat(999)).repeat(6);
    assert_eq!(wrong(lenient(&values)), ["_typeFilter"]);
    let many = "_typeFilter=Patient%3Fgender%3Dmale&".repeat(101);
    assert_eq!(wrong(lenient(&many)), ["_typeFilter"]);
}
