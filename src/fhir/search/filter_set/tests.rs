//! Vectors by hand for every kind of parameter: what matches, what does not, the boundaries between.

use super::*;

const OBSERVATION: &str = r#"{"resourceType":"Observation","id":"o1","meta":{"lastUpdated":"2021-05-01T10:00:00.123Z","versionId":"1",
"profile":["http://p.example/a|2","http://p.example/b"],"tag":[{"system":"t","code":"x"}],"source":"http://s.example"},
"identifier":[{"system":"i","value":"42"},{"value":"43"}],"status":"final",
"category":[{"coding":[{"system":"c","code":"laboratory"},{"code":"bare"}],"text":"Labs"}],
"code":{"coding":[{"system":"http://loinc.org","code":"4548-4","display":"HbA1c"}]},
"subject":{"reference":"Patient/p1"},"encounter":{"reference":"https://us.example/fhir/Encounter/e1"},
"performer":[{"reference":"https://them.example/fhir/Practitioner/d1"},{"reference":"Organization/g1/_history/3"}],
"effectivePeriod":{"start":"2021-03-10","end":"2021-03-12T08:00:00Z"},
"valueQuantity":{"value":5.40,"unit":"percent","system":"http://unitsofmeasure.org","code":"%"},
"component":[{"code":{"coding":[{"code":"sys"}]},"valueQuantity":{"value":120,"comparator":"<"}}]}"#;

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p1","active":true,"gender":"female","birthDate":"1970-02",
"name":[{"family":"Müller-Smith","given":["Anna","Bé"]},{"text":"Nan"}],
"telecom":[{"system":"phone","value":"555","use":"home"},{"system":"email","value":"a@b"}],
"address":[{"line":["1 High St"],"city":"Oslo","postalCode":"0150"}],"deceasedBoolean":false,
"generalPractitioner":[{"reference":"Practitioner/d1"}],"link":[{"other":{"reference":"Patient/p2"},"type":"seealso"}]}"#;

/// Whether a line meets one of the filters.
fn met(line: &str, filters: &[&str]) -> bool {
    let filters: Vec<TypeFilter> = filters.iter().map(|text| TypeFilter::parse(text).unwrap()).collect();
    let bases = ["https://us.example/fhir".to_string()];
    let now = TimeSpan::parse("2022-03-11T00:00:00Z").unwrap();
    let of = filters[0].resource_type;
    let set = FilterSet::of(of, &filters, BaseUrls::new(&bases), now).unwrap();
    let line = line.replace('\n', "");
    set.is_met(line.as_bytes()).unwrap()
}

/// Checks searches over a line: each matches, or does not.
#[track_caller]
fn check(line: &str, of: &str, vectors: &[(&str, bool)]) {
    for (search, expected) in vectors {
        assert_eq!(met(line, &[&format!("{of}?{search}")]), *expected, "{of}?{search}");
    }
}

/// TFILTER-10: tokens of every type, with and without a system.
#[test]
fn tokens_match() {
    check(
        OBSERVATION,
        "Observation",
        &[
            ("code=4548-4", true),
            ("code=http://loinc.org|4548-4", true),
            ("code=http://other.example|4548-4", false),
            ("code=|4548-4", false),
            ("code=http://loinc.org|", true),
            ("code=4548", false),
            ("category=laboratory,imaging", true),
            ("category=imaging,c|laboratory", true),
            ("category=|bare", true),
            ("category=|laboratory", false),
            ("category=Laboratory", false),
            ("category=Labs", false),
            ("status=final", true),
            ("status=amended,final", true),
            ("status=amended", false),
            ("status:not=final", false),
            ("status:not=amended", true),
            ("category:not=imaging,laboratory", false),
            ("method:not=x", true),
            ("identifier=i|42", true),
            ("identifier=|43", true),
            ("identifier=i|43", false),
            ("identifier=42", true),
            ("_id=o1", true),
            ("_id=o2,o1", true),
            ("_id=O1", false),
            ("_tag=t|x", true),
            ("_tag=x&_id=o1", true),
            ("_tag=x&_id=o2", false),
            ("_security=x", false),
            ("combo-code=sys", true),
        ],
    );
    check(
        PATIENT,
        "Patient",
        &[
            ("active=true", true),
            ("active=false", false),
            ("gender=female", true),
            ("phone=555", true),
            ("email=555", false),
            ("telecom=a@b", true),
            ("deceased=false", true),
            ("deceased=true", false),
        ],
    );
    check(r#"{"resourceType":"Patient","id":"p"}"#, "Patient", &[("deceased=false", true), ("deceased=true", false)]);
    let dead = r#"{"resourceType":"Patient","id":"p","deceasedDateTime":"2020"}"#;
    check(dead, "Patient", &[("deceased=false", false), ("deceased=true", true)]);
}

/// TFILTER-10: dates of every precision and prefix, against instants, partial dates and periods.
#[test]
fn dates_match() {
    check(
        OBSERVATION,
        "Observation",
        &[
            // The period lasts from 2021-03-10 to 2021-03-12T08:00:00Z.
            ("date=2021-03", true),
            ("date=2021", true),
            ("date=2021-03-10", false),
            ("date=ne2021-03-10", true),
            ("date=ne2021", false),
            ("date=gt2021-03-12T08:00:00Z", false),
            ("date=gt2021-03-12T07:59:59Z", true),
            ("date=gt2021-03-11", true),
            ("date=gt2021-03", false),
            ("date=lt2021-03-10", false),
            ("date=lt2021-03-11", true),
            ("date=ge2021-03", true),
            ("date=ge2021-04", false),
            ("date=le2021-03", true),
            ("date=le2021-02", false),
            // It begins or ends within the date, and goes on beyond it.
            ("date=le2021-03-10", true),
            ("date=le2021-03-09", false),
            ("date=ge2021-03-12", true),
            ("date=ge2021-03-13", false),
            ("date=ge2021-03-12T08:00:00Z", true),
            ("date=le2021-03-10T00:00:00Z", true),
            ("date=sa2021-03-09", true),
            ("date=sa2021-03-10", false),
            ("date=eb2021-03-13", true),
            ("date=eb2021-03-12", false),
            ("date=eb2021-03-12T08:00:01Z", true),
            ("date=eb2021-03-12T08:00:00Z", false),
            // A tenth of a year to either side.
            ("date=ap2021-04-10", true),
            ("date=ap2021-06-10", false),
            ("date=ge2021-01-01&date=lt2022-01-01", true),
            ("date=ge2021-04-01&date=lt2022-01-01", false),
            ("_lastUpdated=2021-05-01", true),
            ("_lastUpdated=2021-05-01T10:00:00Z", true),
            ("_lastUpdated=2021-05-01T12:00:00.123%2B02:00", true),
            ("_lastUpdated=gt2021-05-01T10:00:00.123Z", false),
            ("_lastUpdated=gt2021-05-01T10:00:00.122Z", true),
            ("_lastUpdated=lt2021-05-01T10:00:00.123Z", false),
            // An instant is a point, whatever its digits: it lies within a finer one that begins with it, and before the next.
            ("_lastUpdated=2021-05-01T10:00:00.123000Z", true),
            ("_lastUpdated=2021-05-01T10:00:00.1235Z", false),
            ("_lastUpdated=gt2021-05-01T10:00:00.1229Z", true),
            ("_lastUpdated=gt2021-05-01T10:00:00.1235Z", false),
            ("_lastUpdated=eb2021-05-01T10:00:00.1235Z", true),
            ("_lastUpdated=sa2021-05-01T10:00:00.122Z", true),
        ],
    );
    check(
        PATIENT,
        "Patient",
        &[
            ("birthdate=1970", true),
            ("birthdate=1970-02", true),
            ("birthdate=1970-02-01", false),
            ("birthdate=ge1970-02-01", true),
            ("birthdate=lt1970-02-15", true),
            ("birthdate=gt1970-02", false),
            ("death-date:missing=true", true),
            ("death-date:missing=false", false),
            ("birthdate:missing=true", false),
        ],
    );
    let open = r#"{"resourceType":"Observation","id":"o","effectivePeriod":{"start":"2021-03-10"}}"#;
    check(
        open,
        "Observation",
        &[("date=gt2099", true), ("date=2021", false), ("date=sa2021-03-09", true), ("date=eb2099", false)],
    );
    let timing = r#"{"resourceType":"Observation","id":"o","effectiveTiming":{"event":["2021-03-01","2021-03-05"]}}"#;
    check(timing, "Observation", &[("date=2021-03", true), ("date=gt2021-03-04", true), ("date=lt2021-03-01", false)]);
    let reversed = r#"{"resourceType":"Observation","id":"o","effectivePeriod":{"start":"2022","end":"2020"}}"#;
    check(reversed, "Observation", &[("date=2021", false), ("date=ne2021", false), ("date:missing=false", true)]);
    let wrong = r#"{"resourceType":"Observation","id":"o","effectiveDateTime":"yesterday"}"#;
    check(wrong, "Observation", &[("date=ne2021", false), ("date:missing=false", true)]);
}

/// TFILTER-10: texts begin so, have a part, or are so; case and accents do not count unless they are asked for.
#[test]
fn texts_match() {
    check(
        PATIENT,
        "Patient",
        &[
            ("family=mül", true),
            ("family=MUL", true),
            ("family=mu\u{308}ller", true),
            ("family:contains=ller-smith", true),
            ("family:exact=Muller-Smith", false),
            ("given=be", true),
            ("family=smith", false),
            ("family:contains=smith", true),
            ("family:exact=Müller-Smith", true),
            ("family:exact=müller-smith", false),
            ("given=anna", true),
            ("given=bé,x", true),
            ("name=nan", true),
            ("name=anna&name=nan", true),
            ("address=oslo", true),
            ("address=1 high", true),
            ("address-postalcode=015", true),
            ("address-country=x", false),
        ],
    );
    let greek = r#"{"resourceType":"Patient","id":"p","name":[{"family":"ΠΑΠΑΣΤΑΘΗΣ"}]}"#;
    check(
        greek,
        "Patient",
        &[("family=ΠΑΠΑΣ", true), ("family=παπας", true), ("family:contains=σταθησ", true), ("family=στα", false)],
    );
}

/// TFILTER-10: references by id, by type and id, and by URL; those of our bases are local.
#[test]
fn references_match() {
    check(
        OBSERVATION,
        "Observation",
        &[
            ("subject=Patient/p1", true),
            ("subject=p1", true),
            ("subject=Group/p1", false),
            ("subject:Patient=p1", true),
            ("subject:Group=p1", false),
            ("patient=p1", true),
            ("patient=p2,Patient/p1", true),
            ("subject=https://us.example/fhir/Patient/p1", true),
            ("subject=https://them.example/fhir/Patient/p1", false),
            ("encounter=Encounter/e1", true),
            ("performer=Practitioner/d1", false),
            ("performer=https://them.example/fhir/Practitioner/d1", true),
            ("performer=Organization/g1", true),
            ("performer=g1", true),
            ("device:missing=true", true),
            ("patient:missing=false", true),
            ("performer:missing=true", false),
        ],
    );
    check(
        PATIENT,
        "Patient",
        &[("general-practitioner=Practitioner/d1", true), ("link=p2", true), ("organization=x", false)],
    );
    let group = r#"{"resourceType":"Observation","id":"o","subject":{"reference":"Group/p1"}}"#;
    check(
        group,
        "Observation",
        &[("patient=p1", false), ("subject=p1", true), ("patient:missing=true", true), ("subject:missing=true", false)],
    );
    let urn = r#"{"resourceType":"Observation","id":"o","subject":{"reference":"urn:uuid:1"}}"#;
    check(urn, "Observation", &[("subject=urn:uuid:1", true), ("patient=urn:uuid:1", false)]);
    let typed = r#"{"resourceType":"Observation","id":"o","subject":{"reference":"urn:uuid:1","type":"Patient"}}"#;
    check(
        typed,
        "Observation",
        &[("patient=urn:uuid:1", true), ("patient=urn:uuid:2", false), ("patient:missing=false", true)],
    );
}

/// TFILTER-10: numbers by their precision, with a unit or without; a comparator stands for all that is less or more.
#[test]
fn quantities_match() {
    check(
        OBSERVATION,
        "Observation",
        &[
            ("value-quantity=5.4", true),
            ("value-quantity=5.40", true),
            ("value-quantity=5", true),
            ("value-quantity=5.0", false),
            ("value-quantity=5.35", false),
            ("value-quantity=ne5.4", false),
            ("value-quantity=gt5.4", false),
            ("value-quantity=gt5.39", true),
            ("value-quantity=ge5.4", true),
            ("value-quantity=lt5.4", false),
            ("value-quantity=le5.4", true),
            ("value-quantity=sa5.3", true),
            ("value-quantity=eb5.5", true),
            ("value-quantity=ap5", true),
            ("value-quantity=ap4", false),
            ("value-quantity=5.4|http://unitsofmeasure.org|%25", true),
            ("value-quantity=5.4|http://unitsofmeasure.org|mg", false),
            ("value-quantity=5.4||%25", true),
            ("value-quantity=5.4||percent", true),
            ("value-quantity=5.4||mg", false),
            ("component-value-quantity=lt200", true),
            ("component-value-quantity=lt50", true),
            ("component-value-quantity=gt119", true),
            ("component-value-quantity=gt120", false),
            ("component-value-quantity=120", false),
        ],
    );
    let risk =
        |number: &str| format!(r#"{{"resourceType":"Observation","id":"o","valueQuantity":{{"value":{number}}}}}"#);
    check(&risk("0.1e1"), "Observation", &[("value-quantity=1", true), ("value-quantity=1.00", true)]);
    check(&risk("1e999"), "Observation", &[("value-quantity=gt1", true), ("value-quantity=lt1", false)]);
    check(
        &risk("12345678901234567890.5"),
        "Observation",
        &[("value-quantity=12345678901234567890.5", true), ("value-quantity=12345678901234567890.6", false)],
    );
}

/// TFILTER-10: a Range is compared as the range that it is, one without an end as one that has none.
#[test]
fn ranges_match() {
    let condition = r#"{"resourceType":"Condition","id":"c","onsetRange":{"low":{"value":40,"code":"a"},"high":{"value":50,"code":"a"}},
"abatementRange":{"low":{"value":60,"unit":"years"}}}"#;
    check(
        condition,
        "Condition",
        &[
            ("onset-age=45", false),
            ("onset-age=ne45", true),
            ("onset-age=4e1", false),
            ("onset-age=gt45", true),
            ("onset-age=gt50", false),
            ("onset-age=lt41", true),
            ("onset-age=ge50", true),
            ("onset-age=ge51", false),
            ("onset-age=le40", true),
            ("onset-age=le39", false),
            ("onset-age=sa39", true),
            ("onset-age=sa40", false),
            ("onset-age=eb51||a", true),
            ("onset-age=eb51||b", false),
            ("onset-age:missing=false", true),
            ("abatement-age=gt1000||years", true),
            ("abatement-age=lt60", false),
        ],
    );
    let risk = r#"{"resourceType":"RiskAssessment","id":"r","prediction":[{"probabilityRange":{"low":{"value":0.1},"high":{"value":0.2}}}]}"#;
    check(
        risk,
        "RiskAssessment",
        &[("probability=gt0.15", true), ("probability=0.15", false), ("probability=0.1", false)],
    );
}

/// TFILTER-10: URIs as they are; canonical URLs of any version unless one is named.
#[test]
fn uris_match() {
    check(
        OBSERVATION,
        "Observation",
        &[
            ("_profile=http://p.example/b", true),
            ("_profile=http://p.example/a", true),
            ("_profile=http://p.example/a|2", true),
            ("_profile=http://p.example/a|1", false),
            ("_profile=http://p.example/", false),
            ("_source=http://s.example", true),
            ("_source=http://S.example", false),
        ],
    );
}

/// TFILTER-03: one filter of several suffices; TFILTER-10: every criterion of it must be met.
#[test]
fn filters_are_alternatives() {
    assert!(met(OBSERVATION, &["Observation?status=amended", "Observation?code=4548-4", "Patient?gender=male"]));
    assert!(!met(OBSERVATION, &["Observation?status=amended", "Observation?code=4548-4&status=amended"]));
}

/// TFILTER-10: a token that is a text is compared without its case, one that is a code with it.
#[test]
fn texts_as_tokens_match_in_any_case() {
    let questionnaire = r#"{"resourceType":"Questionnaire","id":"q","version":"1.0-Draft|a","status":"draft"}"#;
    check(
        questionnaire,
        "Questionnaire",
        &[
            (r"version=1.0-DRAFT\|A", true),
            (r"version=2,1.0-draft\|a", true),
            ("version=1.0", false),
            (r"version:not=1.0-draft\|a", false),
            ("version:not=1.0", true),
            ("status=Draft", false),
        ],
    );
}

/// A member given twice counts as its last value, lists and single values are read alike, and a member that a filter looks at and
/// that is nested too deep is an error; one beside it is not.
#[test]
fn odd_documents_are_read() {
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    let beside = format!(r#"{{"resourceType":"Observation","x":{deep},"status":"amended","status":"final"}}"#);
    check(&beside, "Observation", &[("status=final", true), ("status=amended", false)]);
    let shapes = r#"{"resourceType":"Observation","code":[{"coding":{"code":"a"}}],"status":["final"],"subject":"Patient/p1","identifier":null}"#;
    check(
        shapes,
        "Observation",
        &[("code=a", true), ("status=final", true), ("subject=p1", false), ("identifier:missing=true", true)],
    );
    let filters = [TypeFilter::parse("Observation?status=final").unwrap()];
    let observation = ResourceType::parse("Observation").unwrap();
    let set = FilterSet::of(observation, &filters, BaseUrls::new(&[]), TimeSpan::ALWAYS).unwrap();
    assert_eq!(set.is_met(format!(r#"{{"status":{deep},"x":"final"}}"#).as_bytes()), Err(UnreadableRow));
    // A filter that does not look at what is too deep decides.
    let found = format!(r#"{{"resourceType":"Observation","status":"final","code":{deep}}}"#);
    assert!(met(&found, &["Observation?code:missing=true", "Observation?status=final"]));
}
