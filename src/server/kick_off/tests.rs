//! Tests of kick-off parsing: query strings and headers, and the parameters that result.

use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::issue::IssueCode;
use crate::limits::{KICKOFF_PROBLEMS_MAX, MESSAGES_PER_CAUSE_MAX};
use crate::patient_restriction::PatientList;
use crate::request::ExportRequest;
use crate::server::error::ANY_JSON;
use crate::server::parameters::{OUTPUT_FORMATS, PARAMETERS};
use axum::http::HeaderValue;
use proptest::prelude::*;

mod filters;
use super::*;

const NOW: &str = "2024-06-01T12:00:00Z";
const IG: KickOffPolicy = KickOffPolicy {
    headers: HeaderPolicy::Strict,
    parameters: PARAMETERS,
    answer_types: &[FHIR_JSON],
    case_sensitive_types: true,
    compartment_types: false,
    type_refused: IssueCode::NotSupported,
    dates: false,
    clock_skew_seconds: 60,
    presets: std::collections::BTreeMap::new(),
};

fn headers(accept: &[&str], prefer: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in [("accept", accept), ("prefer", prefer)] {
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
    }
    headers
}

/// The clock of the tests, before any transactionTime was given out, and a mount with a base.
fn context() -> KickOffContext<'static> {
    let now = Instant::parse(NOW).unwrap();
    KickOffContext { now, last: &|| None, defaults: defaults(), unread_body: false }
}

fn defaults() -> ExportRequest {
    ExportRequest::system().fhir_bases(["https://x.example/fhir"])
}

fn with(level: &Level, query: &str, prefer: &str, policy: &KickOffPolicy) -> Result<RequestedExport, ApiError> {
    let headers = headers(&["application/fhir+json"], &[prefer]);
    parse(level, Some(query), None, &headers, &context(), policy)
}

/// A system-level kick-off under strict handling.
fn strict(query: &str) -> Result<RequestedExport, ApiError> {
    with(&Level::System, query, "respond-async", &IG)
}

fn lenient(query: &str) -> Result<RequestedExport, ApiError> {
    with(&Level::System, query, "respond-async, handling=lenient", &IG)
}

/// The places of the problems, one for each.
#[track_caller]
fn wrong(found: Result<RequestedExport, ApiError>) -> Vec<String> {
    let refusal = found.unwrap_err();
    assert_eq!(refusal.status, 400);
    let named = |issue: &OutcomeIssue| issue.diagnostics.split(':').next().unwrap().to_string();
    refusal.issues.iter().map(named).collect()
}

fn types(params: &RequestedExport) -> Vec<&str> {
    params.request.types.iter().map(|of| of.name()).collect()
}

fn instant(text: &str) -> Option<Instant> {
    Some(Instant::parse(text).unwrap())
}

/// C-17, HDR-01, HDR-02, HDR-03, HDR-04, CLIENT-01: required headers, under both policies; mounts other than the IG's
/// take any JSON.
#[test]
fn headers_are_checked() {
    let assume = KickOffPolicy { headers: HeaderPolicy::Assume, answer_types: ANY_JSON, ..IG };
    for (accept, prefer, strictly, assumed) in [
        (&["application/fhir+json"][..], &["respond-async"][..], Ok(()), Ok(())),
        (&["application/json;q=0.5"], &["RESPOND-ASYNC, wait=10"], Err(406), Ok(())),
        (&["application/fhir+json;q=0.001"], &["RESPOND-ASYNC, wait=10"], Ok(()), Ok(())),
        (&["application/json", "application/fhir+json;q=0.5"], &["respond-async"], Ok(()), Ok(())),
        (&["application/json, */*;q=0.1"], &["respond-async"], Ok(()), Ok(())),
        (&["application/json, */*;q=0"], &["respond-async"], Err(406), Ok(())),
        (&["application/json, application/*;q=0.0"], &["respond-async"], Err(406), Ok(())),
        (&["application/fhir+json;q=0, */*"], &["respond-async"], Err(406), Ok(())),
        (&["text/json, application/ndjson"], &["respond-async"], Err(406), Err(406)),
        (&["*/*"], &["handling=lenient", "respond-async"], Ok(()), Ok(())),
        (&["application/fhir+json, */*; q=0.1"], &["respond-async"], Ok(()), Ok(())),
        (&["text/html", "application/*"], &["respond-async"], Ok(()), Ok(())),
        (&[], &["respond-async"], Err(400), Ok(())),
        (&[""], &["respond-async"], Err(400), Ok(())),
        (&["*/*"], &[], Err(400), Ok(())),
        (&["*/*"], &["handling=lenient"], Err(400), Ok(())),
        (&[], &[], Err(400), Ok(())),
        (&["text/html"], &["respond-async"], Err(406), Err(406)),
        (&["application/fhir+xml"], &["respond-async"], Err(406), Err(406)),
        (&["application/fhir+json;q=0"], &["respond-async"], Err(406), Err(406)),
        (&["text/html"], &[], Err(406), Err(406)),
    ] {
        let read = |policy| {
            let found = parse(&Level::Patient, None, None, &headers(accept, prefer), &context(), policy);
            found.map(drop).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!((read(&IG), read(&assume)), (strictly, assumed), "{accept:?} {prefer:?}");
    }
}

/// CORE-04, KICK-11: all problems of headers and parameters are in one answer, each with name and place.
#[test]
fn all_problems_are_told_at_once() {
    let query = "_outputFormat=csv&_since=yesterday&_type=Nope&foo=1&_until=%zz&_typeFilter=x";
    let refusal = parse(&Level::System, Some(query), None, &HeaderMap::new(), &context(), &IG).unwrap_err();
    let reported: Vec<_> = refusal.issues.iter().map(|issue| (issue.code, issue.expression.as_deref())).collect();
    assert_eq!(
        reported,
        [
            (IssueCode::Required, Some("http.accept")),
            (IssueCode::Required, Some("http.prefer")),
            (IssueCode::Invalid, None),
            (IssueCode::NotSupported, Some("http._outputFormat")),
            (IssueCode::Value, Some("http._since")),
            (IssueCode::NotSupported, Some("http._type")),
            (IssueCode::Invalid, Some("http._typeFilter")),
            (IssueCode::NotSupported, Some("http.foo")),
        ]
    );
    let names = ["Accept", "Prefer", "_until", "_outputFormat", "_since", "_type", "_typeFilter", "foo"];
    assert_eq!(wrong(Err(refusal)), names);
    let html = headers(&["text/html"], &[]);
    let refusal = parse(&Level::System, Some("foo=1"), None, &html, &context(), &IG).unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.issues.len()), (406, 3));
}

/// FMT-01, FMT-02, PARAM-06, HDR-07: the three names of NDJSON, with each spelling of `+`; nothing else, lenient or
/// not.
#[test]
fn output_formats() {
    for value in [
        "application/fhir+ndjson",
        "application/fhir%2Bndjson",
        "application/fhir%20ndjson",
        "application%2Fndjson",
        "ndjson",
        "",
    ] {
        assert!(strict(&format!("_outputFormat={value}")).is_ok(), "{value}");
    }
    for value in [
        "application/xml",
        "text/html",
        "x-custom",
        "application/fhir%2Bjson",
        "NDJSON,ndjson",
        "application/vnd.apache.parquet",
    ] {
        let query = format!("_outputFormat={value}");
        assert_eq!(wrong(strict(&query)), ["_outputFormat"]);
        assert_eq!(wrong(lenient(&query)), ["_outputFormat"]);
    }
}

/// SINCE-01, SINCE-03, SINCE-08, SINCE-09, PARAM-06, HDR-07: instants and nothing else, at every level, lenient or not.
#[test]
fn instants() {
    for (text, read) in [
        ("2024-05-01T00:00:00Z", "2024-05-01T00:00:00Z"),
        ("2024-05-01T00:00:00%2B05:00", "2024-04-30T19:00:00Z"),
        ("2024-05-01T00:00:00+05:00", "2024-04-30T19:00:00Z"),
        ("2024-05-01T00:00:00%2005:00", "2024-04-30T19:00:00Z"),
        ("%202024-05-01T00:00:00.123456789Z+", "2024-05-01T00:00:00.123456789Z"),
        ("2024-06-01T12:00:30Z", "2024-06-01T12:00:30Z"),
        ("2024-06-01T12:01:00Z", "2024-06-01T12:01:00Z"),
    ] {
        for level in [Level::System, Level::Patient, Level::Group("g".into())] {
            let kick_off = with(&level, &format!("_since={text}"), "respond-async", &IG).unwrap();
            assert_eq!(kick_off.request.since, instant(read), "{text}");
            let params = with(&level, &format!("_until={text}"), "respond-async", &IG).unwrap();
            assert_eq!(params.request.until, instant(read), "{text}");
        }
    }
    for text in [
        "0000-60-01T30:70:80+05:00",
        "2024-02-30T00:00:00Z",
        "2024-05-01",
        "2024-05",
        "2024-05-01T00:00Z",
        "2024-05-01T00:00:00",
        "2024-05-01 00:00:00Z",
        "2024-05-01t00:00:00z",
        "yesterday",
        "1714521600",
        "%F0%9F%8E%89",
    ] {
        for name in ["_since", "_until"] {
            let query = format!("{name}={text}");
            assert_eq!([wrong(strict(&query)), wrong(lenient(&query))], [[name], [name]], "{text}");
        }
    }
    // A future `_since` is refused even under lenient handling; a future `_until` is no bound.
    for text in ["2024-06-01T12:01:00.0000001Z", "2024-06-01T13:00:00Z", "2057-01-01T00:00:00Z"] {
        assert_eq!(wrong(lenient(&format!("_since={text}"))), ["_since"]);
        assert_eq!(strict(&format!("_until={text}")).unwrap().request.until, instant(text));
    }
    // Under a clock that was set back, the last transactionTime is taken back from who was given it, and nothing later.
    let last = || instant("2024-06-01T15:00:00Z");
    for policy in [IG, KickOffPolicy { dates: true, ..IG }] {
        for (since, taken) in [
            ("2024-06-01T12:01:00Z", true),
            ("2024-06-01T12:01:00.0000001Z", true),
            ("2024-06-01T15:00:00Z", true),
            ("2024-06-01T15:00:00.0000001Z", false),
            ("2024-06-01T15:01:00Z", false),
        ] {
            let context = KickOffContext { last: &last, ..context() };
            let headers = headers(&["application/fhir+json"], &["respond-async"]);
            let found = parse(&Level::System, Some(&format!("_since={since}")), None, &headers, &context, &policy);
            if taken { assert!(found.is_ok(), "{since}") } else { assert_eq!(wrong(found), ["_since"], "{since}") }
        }
    }
    for (since, until, fits) in [
        ("2024-05-01T00:00:00Z", "2024-05-01T00:00:00.0000001Z", true),
        ("2024-05-01T00:00:00Z", "2024-05-01T02:00:00%2B02:00", false),
        ("2024-05-02T00:00:00Z", "2024-05-01T00:00:00Z", false),
    ] {
        let found = lenient(&format!("_since={since}&_until={until}"));
        if fits { assert!(found.is_ok()) } else { assert_eq!(wrong(found), ["_until"]) }
    }
}

/// PARAM-03: a single-valued parameter may be repeated with the same value, not with another.
#[test]
fn repeats() {
    let [one, other] = ["_since=2024-05-01T00:00:00%2B01:00", "_since=2024-05-02T00:00:00Z"];
    let respelled = "_since=2024-05-01T00:00:00+01:00&_since=";
    assert_eq!(strict(&format!("{one}&{one}&{respelled}")), strict(one));
    assert_eq!(wrong(strict(&format!("{one}&{other}"))), ["_since"]);
    assert_eq!(wrong(lenient(&format!("{one}&{other}"))), ["_since"]);
    assert_eq!(wrong(lenient("_outputFormat=ndjson&_outputFormat=application/ndjson")), ["_outputFormat"]);
}

/// PARAM-01, PARAM-07, PARAM-09: all spellings of a list mean the same, and have one normal form.
#[test]
fn lists_are_normalised() {
    let expected = strict("_type=Observation,Patient").unwrap();
    assert_eq!(types(&expected), ["Observation", "Patient"]);
    for query in [
        "_type=Patient&_type=Observation",
        "_type=Patient,,Observation,%20Patient%20,&_type=",
        "_type=Patient%2C+Observation",
        "%5Ftype=Observation,Patient",
        "&&_type=,&_type=Observation&_since=&_type=Patient,Patient",
    ] {
        assert_eq!(strict(query).unwrap(), expected, "{query}");
    }
    for query in
        ["", "_type=", "_type", "_type=,%20,", "_since=&_until=+&_outputFormat", "_elements=&includeAssociatedData"]
    {
        let params = strict(query).unwrap();
        assert_eq!(params.request, defaults(), "{query}");
    }
}

/// TYPE-03, TYPE-07, PARAM-08, HDR-05: unknown type names are refused with advice, or ignored with a message.
#[test]
fn unknown_types() {
    for name in ["Nope", "patient", "Resource", "DomainResource", "Patient;Observation", "*", "Pateint"] {
        let refusal = strict(&format!("_type=Patient,{name}")).unwrap_err();
        assert!(refusal.issues[0].diagnostics.contains(name), "{name}");
        assert_eq!((refusal.issues[0].code, refusal.issues.len()), (IssueCode::NotSupported, 1));
        let params = lenient(&format!("_type=Patient,{name},{name}")).unwrap();
        assert_eq!(types(&params), ["Patient"]);
        let [note] = &params.request.notes[..] else { panic!("{name}: {:?}", params.request.notes) };
        assert!(note.text.contains(name) && note.text.starts_with("_type:"));
        // If no type remained, everything would be exported.
        assert_eq!(wrong(lenient(&format!("_type={name}"))), ["_type"]);
    }
    let advice = strict("_type=Pateint").unwrap_err().issues.remove(0).diagnostics;
    assert!(advice.ends_with("did you mean Patient?"), "{advice}");
    let blind = KickOffPolicy { case_sensitive_types: false, ..IG };
    assert_eq!(types(&with(&Level::System, "_type=patient,PATIENT", "respond-async", &blind).unwrap()), ["Patient"]);
}

/// TYPE-04: types outside the compartment only, at a level that exports patients' records only.
#[test]
fn types_outside_the_compartment() {
    for level in [Level::Patient, Level::Group("g".into())] {
        let read = |query| with(&level, query, "respond-async, handling=lenient", &IG);
        assert_eq!(wrong(read("_type=Practitioner,Location")), ["_type"]);
        assert_eq!(types(&read("_type=Practitioner,Observation").unwrap()), ["Observation", "Practitioner"]);
        // The other problems are reported with it.
        assert_eq!(wrong(read("_type=Practitioner&_since=x")), ["_since", "_type"]);
    }
    assert!(strict("_type=Practitioner,Location").is_ok());
}

/// PARAM-04, PARAM-08, HDR-05, HDR-06, OUTCOME-04, FILE-13: unsupported parameters are refused by name, or ignored
/// with one message for each name. HDR-07: a slip of what narrows an export is refused.
#[test]
fn unsupported_parameters() {
    for name in ["organizeOutputBy", "allowPartialManifests", "_maximumFileSize", "foo", "_Format", "_prettify"] {
        let query = format!("{name}=true&_type=Patient&{name}=false");
        let refusal = strict(&query).unwrap_err();
        assert_eq!((refusal.issues[0].code, refusal.issues.len()), (IssueCode::NotSupported, 1));
        assert_eq!(wrong(Err(refusal)), [name]);
        let params = lenient(&query).unwrap();
        let [note] = &params.request.notes[..] else { panic!("{name}: {:?}", params.request.notes) };
        assert!(note.text.starts_with(&format!("{name}: ")), "{}", note.text);
        assert_eq!(types(&params), ["Patient"]);
    }
    let slips = "_Type _type, type _type, since _since, _untl _until, patients patient, Patient patient, _type:in _type, _element _elements";
    for (name, meant) in slips.split(", ").filter_map(|slip| slip.split_once(' ')) {
        let refusal = lenient(&format!("{name}=Patient")).unwrap_err();
        assert!(refusal.issues[0].diagnostics.ends_with(&format!("did you mean {meant}?")), "{name}");
        assert_eq!(wrong(Err(refusal)), [name.trim_end_matches(":in")]);
    }
    assert_eq!(lenient("foo=1&bar=2&_type=Patient,Nope").unwrap().request.notes.len(), 3);
    assert!(strict("_Type=Patient").unwrap_err().issues[0].diagnostics.ends_with("did you mean _type?"));
    assert_eq!(wrong(strict("bar")), ["bar"], "an empty value does not hide a slip of the name");
}

/// CLIENT-04, HDR-01, HDR-02, PARAM-06: `_format` replaces `Accept`, as elsewhere, and `_pretty` changes nothing; both
/// are no parameters of the export.
#[test]
fn forms_of_answers() {
    let read = |accept: &[&str], query: &str| {
        let found = parse(&Level::Patient, Some(query), None, &headers(accept, &["respond-async"]), &context(), &IG);
        found
            .map(|params| (types(&params).join(","), params.request.notes.len()))
            .map_err(|refusal| refusal.status.as_u16())
    };
    let plain = Ok(("Patient".to_string(), 0));
    for query in [
        "_format=json",
        "_format=application/fhir+json",
        "_format=application%2Ffhir%2Bjson",
        "_format=application/fhir%20json;fhirVersion=4.0",
        "_format=application/json",
        "_format=text/json&_format=json",
        "_pretty=false&_format=JSON&_pretty=true",
    ] {
        for accept in [&["text/html"][..], &["application/json"], &["*/*"], &[]] {
            assert_eq!(read(accept, &format!("_type=Patient&{query}")), plain, "{accept:?} {query}");
        }
    }
    for query in ["_pretty=true", "_pretty=", "_pretty", "_format=", "_format=%20&_pretty=0"] {
        assert_eq!(read(&["*/*"], &format!("{query}&_type=Patient")), plain, "{query}");
        assert_eq!(read(&["text/html"], &format!("{query}&_type=Patient")), Err(406), "{query}");
        assert_eq!(read(&[], &format!("{query}&_type=Patient")), Err(400), "{query}");
    }
    for query in ["_format=xml", "_format=application/fhir+xml", "_format=json&_format=ttl", "_format=ndjson"] {
        for accept in [&["*/*"][..], &["application/fhir+json"], &[]] {
            assert_eq!(read(accept, query), Err(406), "{accept:?} {query}");
        }
    }
    let refusal = lenient("_format=xml").unwrap_err();
    assert_eq!((refusal.status.as_u16(), refusal.issues[0].expression.as_deref()), (406, Some("http._format")));
}

/// HDR-11: only preferences that were sent and had an effect are reported as applied.
#[test]
fn applied_preferences_are_told() {
    let assume = KickOffPolicy { headers: HeaderPolicy::Assume, ..IG };
    for (prefer, query, applied) in [
        ("respond-async", "", Some("respond-async")),
        ("respond-async, handling=lenient", "", Some("respond-async")),
        ("handling=lenient; respond-async, respond-async", "foo=1", Some("respond-async, handling=lenient")),
        ("handling=lenient", "foo=1", Some("handling=lenient")),
        ("return=minimal", "", None),
        ("separate-export-status, respond-async", "", Some("respond-async, separate-export-status")),
        ("separate-export-status", "", None),
    ] {
        let params = with(&Level::System, query, prefer, &assume).unwrap();
        assert_eq!(params.preference_applied(), applied.map(HeaderValue::from_static), "{prefer}");
    }
}

/// Reading 1: mounts that accept dates accept them in `_since`.
#[test]
fn dates_where_a_mount_takes_them() {
    let dates = KickOffPolicy { dates: true, ..IG };
    let params = with(&Level::System, "_since=2024-05-01", "respond-async", &dates).unwrap();
    assert_eq!(params.request.since, instant("2024-05-01T00:00:00Z"));
    assert_eq!(wrong(with(&Level::System, "_since=2024-5-1", "respond-async", &dates)), ["_since"]);
    assert_eq!(wrong(with(&Level::System, "_until=2024-05-01", "respond-async", &dates)), ["_until"]);
}

/// CORE-08, OUTCOME-06: any number of problems gives a bounded answer, soon, that repeats little of the request.
#[test]
fn floods_are_bounded() {
    let many: String = (0..5_000).map(|n| format!("Nope{n},")).collect();
    let query = format!("_type={many}Patient");
    assert_eq!(strict(&query).unwrap_err().issues.len(), KICKOFF_PROBLEMS_MAX + 1);
    assert!(strict(&query).unwrap_err().issues.last().unwrap().diagnostics.starts_with("4900 more"));
    assert_eq!(lenient(&query).unwrap().request.notes.len(), MESSAGES_PER_CAUSE_MAX + 1);
    let query: String = (0..900).map(|n| format!("p{n}=1&")).collect();
    assert_eq!(strict(&query).unwrap_err().issues.len(), KICKOFF_PROBLEMS_MAX + 1);
    assert_eq!(lenient(&query).unwrap().request.notes.len(), MESSAGES_PER_CAUSE_MAX + 1);
    let long = "é".repeat(100_000);
    for query in
        [format!("_type={long}"), format!("_since={long}"), format!("_outputFormat={long}"), format!("{long}=1")]
    {
        let refusal = strict(&query).unwrap_err();
        assert_eq!(refusal.issues.len(), 1);
        assert!(refusal.issues[0].diagnostics.len() < 500);
    }
}

/// CAP-13: every advertised parameter is accepted at every level, and every type by `_type` at system level.
#[test]
fn what_is_advertised_is_accepted() {
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.supported && parameter.name != "patient") {
        let value = match parameter.fhir_type {
            "instant" => "2024-05-01T00:00:00Z",
            _ if parameter.name == "_type" => "Patient",
            "code" => "LatestProvenanceResources",
            _ if parameter.name == "_elements" => "id,Patient.name",
            _ if parameter.name == "_typeFilter" => "Observation%3Fcode%3Da",
            _ => OUTPUT_FORMATS[0],
        };
        for level in [Level::System, Level::Patient, Level::Group("g".into())] {
            let query = format!("{}={value}", parameter.name);
            assert!(with(&level, &query, "respond-async", &IG).is_ok(), "{query}");
        }
    }
    for of in ResourceType::all() {
        assert_eq!(strict(&format!("_type={}", of.name())).unwrap().request.types, [of]);
    }
}

proptest! {
    /// CORE-04: every request is read or refused, and a refusal has a text.
    #[test]
    fn nothing_panics(
        query in "([_a-zA-Z%]{0,8}|_type|_since|_until|_outputFormat)=[ -~é]{0,30}(&_(type|since)=[-0-9TZ:+ ,PatientGroup]{0,40})?",
        accept in "[ -~]{0,30}",
        prefer in "(respond-async|handling=lenient)?[ -~]{0,30}",
        strictly: bool,
        dates: bool,
    ) {
        let headers_policy = if strictly { HeaderPolicy::Strict } else { HeaderPolicy::Assume };
        let policy = KickOffPolicy { headers: headers_policy, case_sensitive_types: strictly, dates, clock_skew_seconds: u64::MAX, ..IG };
        for level in [Level::System, Level::Patient] {
            let found = parse(&level, Some(&query), None, &headers(&[&accept], &[&prefer]), &context(), &policy);
            if let Err(refusal) = found {
                prop_assert!(!refusal.issues.is_empty() && refusal.issues.iter().all(|issue| issue.diagnostics.contains(' ')));
            }
        }
    }

    /// PARAM-09: a request and its normal form are read as equal.
    #[test]
    fn what_is_normalised_stays_so(
        names in prop::collection::vec(prop::sample::select(ResourceType::all().map(|of| of.name()).collect::<Vec<_>>()), 0..6),
        since in 0i64..1_700_000_000_000,
        span in 1i64..1_000_000_000_000,
    ) {
        let [since, until] = [since, since + span].map(|at| Instant::from_unix_millis(at).to_string());
        let params = strict(&format!("_until={until}&_type={}&_since={since}", names.join(","))).unwrap();
        let of: Vec<String> = params.request.types.iter().map(|of| format!("&_type={}", of.name())).collect();
        let [since, until] = [&params.request.since, &params.request.until].map(|at| at.as_ref().unwrap().to_string());
        prop_assert_eq!(strict(&format!("_since={since}&_until={until}{}", of.concat())).unwrap(), params);
    }
}

/// A kick-off by POST; the body holds these entries of `Parameters.parameter`.
fn post(level: &Level, query: &str, entries: &str, prefer: &str) -> Result<RequestedExport, ApiError> {
    let body = format!(r#"{{"resourceType":"Parameters","parameter":[{entries}]}}"#);
    parse(level, Some(query), Some(body.as_bytes()), &headers(&["application/fhir+json"], &[prefer]), &context(), &IG)
}

/// KICK-05, KICK-06, PARAM-01, PARAM-03, PARAM-05: a body says what a query would, and is merged with it.
#[test]
fn bodies_say_what_queries_do() {
    let entry = |name: &str, value_type: &str, value: &str| format!(r#"{{"name":"{name}","{value_type}":{value}}}"#);
    let since = "2024-05-01T00:00:00Z";
    for (query, entries, expected) in [
        ("", String::new(), ""),
        ("", entry("_type", "valueString", r#""Patient,Observation""#), "_type=Patient,Observation"),
        ("_type=Patient", entry("_type", "valueCode", r#""Observation""#), "_type=Patient,Observation"),
        ("", entry("_since", "valueInstant", &format!("{since:?}")), "_since=2024-05-01T00:00:00Z"),
        ("", entry("_since", "valueDateTime", &format!("{since:?}")), "_since=2024-05-01T00:00:00Z"),
        ("", entry("_since", "valueString", &format!("{since:?}")), "_since=2024-05-01T00:00:00Z"),
        (
            "_since=2024-05-01T00:00:00Z",
            entry("_since", "valueInstant", &format!("{since:?}")),
            "_since=2024-05-01T00:00:00Z",
        ),
        ("", entry("_until", "valueInstant", r#""2024-05-01T05:00:00+05:00""#), "_until=2024-05-01T05:00:00%2B05:00"),
        ("", entry("_outputFormat", "valueString", r#""application/fhir+ndjson""#), ""),
        ("", entry("_type", "valueString", r#""""#), ""),
    ] {
        let by_get = with(&Level::System, expected, "respond-async", &IG).unwrap();
        assert_eq!(post(&Level::System, query, &entries, "respond-async").unwrap(), by_get, "{query} {entries}");
    }
    for (query, entries, places) in [
        ("_since=2024-05-02T00:00:00Z", entry("_since", "valueInstant", &format!("{since:?}")), vec!["_since"]),
        ("", entry("_since", "valueDate", r#""2024-05-01""#), vec!["_since"]),
        ("", entry("_since", "valueString", r#""2024-05-01T05:00:00 05:00""#), vec!["_since"]),
        ("", entry("_type", "valueCoding", r#"{"code":"Patient"}"#), vec!["_type"]),
        ("", entry("_type", "valueReference", r#"{"reference":"Patient/a"}"#), vec!["_type"]),
        (
            "foo=1",
            [entry("bar", "valueString", r#""x""#), entry("_until", "valueBoolean", "true")].join(","),
            vec!["_until", "bar", "foo"],
        ),
    ] {
        assert_eq!(wrong(post(&Level::System, query, &entries, "respond-async")), places, "{query} {entries}");
    }
    let ignored = post(&Level::System, "foo=1", &entry("bar", "valueUrl", r#""x""#), "respond-async, handling=lenient");
    assert_eq!(ignored.unwrap().request.notes.len(), 2);
    // Problems of the body and of everything else at once.
    let both = parse(&Level::System, Some("foo=1"), Some(b"{}"), &HeaderMap::new(), &context(), &IG).unwrap_err();
    assert_eq!(both.issues.len(), 4);
}

/// PATIENT-01, PATIENT-02, PATIENT-03, PATIENT-06, HDR-07: forms of references, and what is refused under lenient, too.
#[test]
fn patients_are_listed_in_bodies() {
    let entry = |reference: &str| format!(r#"{{"name":"patient","valueReference":{{"reference":"{reference}"}}}}"#);
    let group = Level::Group("g".into());
    let entries =
        ["Patient/b", "https://x.example/fhir/Patient/a", "Patient/b/_history/3", "Patient/b"].map(entry).join(",");
    for level in [&Level::Patient, &group] {
        let ids = PatientList::Ids(vec!["a".into(), "b".into()]);
        assert_eq!(post(level, "", &entries, "respond-async").unwrap().request.only_patients, Some(ids));
        assert_eq!(post(level, "", "", "respond-async").unwrap().request.only_patients, None);
    }
    for prefer in ["respond-async", "respond-async, handling=lenient"] {
        for reference in
            ["Group/a", "#a", "https://y.example/fhir/Patient/a", "Patient", "a", "urn:uuid:a", "Patient/a b", ""]
        {
            let found = post(&group, "", &[entry("Patient/a"), entry(reference)].join(","), prefer);
            let refusal = found.unwrap_err();
            assert!(refusal.issues[0].diagnostics.starts_with("patient: number 2 "), "{:?}", refusal.issues);
        }
        assert_eq!(wrong(post(&Level::System, "", &entries, prefer)), ["patient"]);
        assert_eq!(wrong(with(&group, "patient=Patient/a", prefer, &IG)), ["patient"]);
        assert_eq!(wrong(post(&group, "patient=Patient/a", &entries, prefer)), ["patient"]);
        let texts = r#"{"name":"patient","valueString":"Patient/a"}"#;
        assert_eq!(wrong(post(&group, "", texts, prefer)), ["patient"]);
    }
    let many: Vec<String> = (0..100_000).map(|n| entry(&format!("Patient/p{n}"))).collect();
    let found = post(&group, "", &many.join(","), "respond-async").unwrap();
    assert_eq!(found.request.only_patients.unwrap().into_ids().unwrap().len(), 100_000);
}

/// ASSOC-01, ASSOC-04, ASSOC-07, PARAM-01, PARAM-05: one value, a list and repeats, in query and body; the least restrictive
/// counts; an unknown one is refused, or ignored with a message.
#[test]
fn associated_data_is_named() {
    use crate::associated_data::AssociatedData::{LatestProvenance, RelevantProvenance};
    let (latest, relevant) = ("LatestProvenanceResources", "RelevantProvenanceResources");
    for (query, expected) in [
        (format!("includeAssociatedData={latest}"), Some(LatestProvenance)),
        (format!("includeAssociatedData={latest},{relevant}"), Some(RelevantProvenance)),
        (format!("includeAssociatedData={relevant}&includeAssociatedData={latest}"), Some(RelevantProvenance)),
        ("includeAssociatedData=,".to_string(), None),
    ] {
        for level in [Level::System, Level::Patient, Level::Group("g".into())] {
            assert_eq!(with(&level, &query, "respond-async", &IG).unwrap().request.associated, expected, "{query}");
        }
    }
    for entry in [
        format!(r#""valueCode":"{latest}""#),
        format!(r#""valueString":"{latest}""#),
        format!(r#""valueCoding":{{"code":"{latest}"}}"#),
    ] {
        let entry = format!(r#"{{"name":"includeAssociatedData",{entry}}}"#);
        assert_eq!(
            post(&Level::Patient, "", &entry, "respond-async").unwrap().request.associated,
            Some(LatestProvenance)
        );
    }
    assert_eq!(wrong(strict("includeAssociatedData=Nope,_x")), ["includeAssociatedData", "includeAssociatedData"]);
    let ignored = lenient(&format!("includeAssociatedData=Nope,{latest}")).unwrap();
    assert_eq!((ignored.request.associated, ignored.request.notes.len()), (Some(LatestProvenance), 1));
}

/// ELEM-01, ELEM-05, PARAM-01: items of `_elements` in query and body; wrong ones are refused, or ignored with a message each.
#[test]
fn elements_are_named() {
    let items = |found: RequestedExport| found.request.elements.items().map(str::to_string).collect::<Vec<_>>();
    let query = "_elements=id,Patient.name&_elements=%20Observation.value%20,";
    assert_eq!(items(strict(query).unwrap()), ["Observation.value", "Patient.name", "id"]);
    let entry = r#"{"name":"_elements","valueString":"Patient.name"}"#;
    assert_eq!(items(post(&Level::Patient, "_elements=id", entry, "respond-async").unwrap()), ["Patient.name", "id"]);
    assert_eq!(wrong(strict("_elements=Patient.name.family,nmae,Pateint.name,id")), ["_elements"; 3]);
    let ignored = lenient("_elements=Patient.name.family,id").unwrap();
    assert_eq!(ignored.request.notes.len(), 1);
    assert_eq!(items(ignored), ["id"]);
}
