//! Requests made at random: over the route tables, beside them, and against HTTP itself.

use super::bodies::{BODY_BYTES, body, kick_off_body};
use super::chance::Chance;
use super::service::{Service, WriteKind};

/// Bases of the mounts, the last two by tenant.
const IG: &str = "/fhir";
const NETSMART: &str = "/uscore/v1/bulk-data";
const ONEUP_STE: &str = "/bulk-data/r4";
const ONEUP_MTE: &str = "/v1/default/bulk-export/bulk-data/r4";
const ONEUP_MTE_OTHER: &str = "/v1/ExampleCompany/bulk-export/bulk-data/r4";
/// Bases as they are chosen, among them those of no tenant and of no mount.
const BASES: &[&str] = &[
    IG,
    IG,
    IG,
    IG,
    IG,
    IG,
    IG,
    IG,
    NETSMART,
    NETSMART,
    ONEUP_STE,
    ONEUP_STE,
    ONEUP_MTE,
    ONEUP_MTE,
    ONEUP_MTE_OTHER,
    "/v1/nobody/bulk-export/bulk-data/r4",
    "/none",
];

/// Bytes for a connection, and what may come of them.
pub(crate) struct Exchange {
    pub bytes: Vec<u8>,
    /// Methods of the requests, in their order, as far as it is certain where one ends and the next begins: an answer to
    /// HEAD has no body.
    pub methods: Vec<String>,
    /// Answers that must come at least.
    pub answers_least: usize,
    /// Whether the client's side is closed once everything is sent.
    pub half_close: bool,
    /// After so many bytes are sent the connection is closed, and no answer is read.
    pub hang_up_at: Option<usize>,
}

/// The next exchange; `number` is in the request ids, so that the log can name it.
pub(crate) fn exchange(chance: &mut Chance, service: &Service, number: u64) -> Exchange {
    let mut made = match chance.below(40) {
        0..=1 => broken_head(chance),
        2..=4 => pipelined(chance, service, number),
        _ => {
            let (bytes, method, whole) = request(chance, service, number, true);
            let half_close = !whole || chance.one_in(3);
            Exchange { bytes, methods: vec![method], answers_least: usize::from(whole), half_close, hang_up_at: None }
        }
    };
    if chance.one_in(25) {
        made.hang_up_at = Some(chance.below(made.bytes.len() + 1));
        made.answers_least = 0;
    }
    made
}

/// A request that deletes what there is too much of, so that a long run stays as large as a short one.
pub(crate) fn deletion(path: &str, credential: &str, number: u64) -> Exchange {
    let accept = if path.contains(NETSMART) { "" } else { "Accept: application/fhir+json\r\n" };
    let head = format!(
        "DELETE {path} HTTP/1.1\r\nHost: localhost\r\n{accept}{credential}X-Request-ID: {}\r\nConnection: close\r\n\r\n",
        request_id(number)
    );
    let methods = vec!["DELETE".to_string()];
    Exchange { bytes: head.into_bytes(), methods, answers_least: 1, half_close: false, hang_up_at: None }
}

/// The request id by which the log names a request; every mount takes a UUID.
fn request_id(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Several requests at once, of which the last one closes the connection.
fn pipelined(chance: &mut Chance, service: &Service, number: u64) -> Exchange {
    let mut made =
        Exchange { bytes: Vec::new(), methods: Vec::new(), answers_least: 0, half_close: true, hang_up_at: None };
    let count = 2 + chance.below(7);
    let mut all_whole = true;
    for at in 0..count {
        let (bytes, method, whole) = request(chance, service, number, at + 1 == count);
        made.bytes.extend(bytes);
        // What follows a request with a damaged frame may be part of its body.
        if all_whole {
            made.methods.push(method);
        }
        all_whole &= whole;
        made.answers_least += usize::from(all_whole);
    }
    // An answer to a request whose body was not read may close the connection.
    made.answers_least = made.answers_least.min(1);
    made
}

/// Heads that are no HTTP/1.1, or hardly.
fn broken_head(chance: &mut Chance) -> Exchange {
    let long = "a".repeat(70_000);
    let many: String = (0..150).map(|n| format!("X-{n}: y\r\n")).collect();
    let bytes = match chance.below(16) {
        0 => chance.bytes(3000),
        1 => b"GET /fhir/metadata HTTP/9.9\r\nHost: localhost\r\n\r\n".to_vec(),
        2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        3 => format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
        4 => format!("GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n").into_bytes(),
        5 => format!("GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes(),
        6 => b"GET /fhir/metadata HTTP/1.1\nHost: localhost\n\n".to_vec(),
        7 => b"GET\t/fhir/metadata\tHTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        8 => b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n".to_vec(),
        9 => b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n".to_vec(),
        10 => b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n".to_vec(),
        11 => b"GET /fhir/metadata HTTP/1.0\r\n\r\n".to_vec(),
        12 => b"GET /fhir/metadata".to_vec(),
        13 => b"\r\n\r\n\r\nGET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_vec(),
        14 => b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03random".to_vec(),
        _ => {
            let mut head = b"GET /fhir/Group?_count=3 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".to_vec();
            let at = chance.below(head.len());
            head[at] ^= 1 << chance.below(8);
            head
        }
    };
    Exchange { bytes, methods: vec!["GET".into()], answers_least: 0, half_close: true, hang_up_at: None }
}

/// A request with its method, and whether its frame is sound, so that it must be answered.
fn request(chance: &mut Chance, service: &Service, number: u64, is_last: bool) -> (Vec<u8>, String, bool) {
    let (mut method, mut target, kind) = operation(chance, service);
    // Half of the requests are right but for their parameters, bodies and conditions, so that jobs and files come about.
    let is_wild = chance.one_in(2);
    if is_wild && chance.one_in(8) {
        method = chance
            .pick(&["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "EXPORT", "TRACE", "BREW", "get"])
            .into();
    }
    if is_wild && chance.one_in(5) {
        target = damaged_target(chance, &target);
    }
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    let host = match if is_wild { chance.below(40) } else { 40 } {
        0 => String::new(),
        1 => "Host: elsewhere.example\r\n".into(),
        2 => "Host: localhost\r\nHost: localhost\r\n".into(),
        3 => "Host: a b\r\n".into(),
        4 => "Host: [::1]:80\r\n".into(),
        _ => "Host: localhost\r\n".into(),
    };
    head += &host;
    if is_wild {
        head += &credential(chance, service);
        head += &headers(chance, service);
    } else {
        head += service.credentials.first().map_or("", String::as_str);
        let is_file = ["bulk-files", "/file/", "Binary"].iter().any(|place| target.contains(place));
        head += if is_file { "Accept: */*\r\n" } else { "Accept: application/fhir+json\r\nPrefer: respond-async\r\n" };
        head += &conditions(chance, service);
    }
    if is_wild && chance.one_in(20) {
        head += &format!("X-Request-ID: {}\r\n", chance.name());
    } else {
        head += &format!("X-Request-ID: {}\r\n", request_id(number));
    }
    // Without clients a request is refused that a page of another site may have caused.
    if is_wild && chance.one_in(40) {
        head += chance.pick(&["Origin: null\r\n", "Origin: http://x.example\r\n", "Sec-Fetch-Site: cross-site\r\n"]);
    }
    if is_last {
        head += "Connection: close\r\n";
    }
    let with_body = kind.is_some_and(|kind| kind != WriteKind::KickOff || !chance.one_in(6)) || chance.one_in(30);
    if !with_body {
        let odd = if chance.one_in(60) { chance.pick(&["Content-Length: 0\r\n", "Content-Length: 5\r\n"]) } else { "" };
        let whole = !odd.contains('5');
        return ((head + odd + "\r\n").into_bytes(), method, whole);
    }
    let id = target.rsplit('/').next().filter(|_| method == "PUT");
    let body = if kind == Some(WriteKind::KickOff) { kick_off_body(chance) } else { body(chance, id) };
    if !chance.one_in(15) {
        let types = [
            "application/fhir+json",
            "application/fhir+json",
            "application/fhir+json",
            "application/json; charset=utf-8",
        ];
        head += &format!("Content-Type: {}\r\n", chance.pick(&types));
    } else if chance.one_in(2) {
        let types =
            ["text/plain", "application/fhir+xml", "application/json; charset=latin1", "a", "", "\u{e9}/\u{e9}"];
        head += &format!("Content-Type: {}\r\n", chance.pick(&types));
    }
    if chance.one_in(30) {
        head += &format!("Content-Encoding: {}\r\n", chance.pick(&["gzip", "identity", "zstd, gzip", "x"]));
    }
    let (frame, whole) = framed(chance, &body);
    // A body that is longer than any that is taken may be refused while it is sent, and the refusal lost.
    ([head.into_bytes(), frame].concat(), method, whole && body.len() <= BODY_BYTES)
}

/// The rest of a head, and a body in a frame that may be damaged; whether it is sound.
fn framed(chance: &mut Chance, body: &[u8]) -> (Vec<u8>, bool) {
    let length = body.len();
    match chance.below(24) {
        0 => {
            let lengths =
                ["-1", "", "0x10", "1, 2", "18446744073709551615", "99999999999999999999", "+5", "5 5", "\u{665}"];
            let head = format!("Content-Length: {}\r\n\r\n", chance.pick(&lengths));
            ([head.as_bytes(), body].concat(), false)
        }
        1 => (
            [format!("Content-Length: {}\r\n\r\n", length + 1 + chance.below(500_000)).as_bytes(), body].concat(),
            false,
        ),
        2 => ([format!("Content-Length: {}\r\n\r\n", length / 2).as_bytes(), body].concat(), false),
        3 => {
            let codings = [
                "gzip",
                "chunked, gzip",
                "identity",
                "chunked\r\nContent-Length: 3",
                "CHUNKED",
                "chunked, chunked",
                "x",
            ];
            let head = format!("Transfer-Encoding: {}\r\n\r\n", chance.pick(&codings));
            ([head.as_bytes(), body].concat(), false)
        }
        4..=6 => {
            let mut bytes = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(1 + chance.below(4000)) {
                bytes.extend(format!("{:x}{}\r\n", chunk.len(), chance.pick(&["", "", ";a=b"])).as_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            let end = chance.pick(&[
                "0\r\n\r\n",
                "0\r\n\r\n",
                "0\r\nX: y\r\n\r\n",
                "",
                "FFFFFFFFFFFFFFFFF\r\n",
                "g\r\n",
                "5\r\nabc",
            ]);
            bytes.extend(end.as_bytes());
            (bytes, end.starts_with('0'))
        }
        7 => (
            [&b"Expect: 100-continue\r\n"[..], format!("Content-Length: {length}\r\n\r\n").as_bytes(), body].concat(),
            true,
        ),
        _ => ([format!("Content-Length: {length}\r\n\r\n").as_bytes(), body].concat(), true),
    }
}

/// A method and a target of the route tables, with parameters; and what it writes.
fn operation(chance: &mut Chance, service: &Service) -> (String, String, Option<WriteKind>) {
    let base = chance.pick(BASES);
    // Groups are made and changed below /fhir, seldom tried elsewhere.
    let writable = if chance.one_in(8) { base } else { IG };
    let known = &service.known;
    let job = |chance: &mut Chance| match chance.below(10) {
        0 => format!("{base}/bulk-status/{}", chance.name()),
        1 => format!("{base}/$export-poll-status?_id={}", chance.name()),
        2 => format!("{base}/$export/job/{}-0000-4000-8000-000000000000", chance.below(90_000_000)),
        _ => known.jobs.pick(chance).unwrap_or_else(|| format!("{base}/bulk-status/0")),
    };
    let group = |chance: &mut Chance| match chance.below(8) {
        0 => chance.name(),
        1 => known.groups.pick(chance).unwrap_or("ten".into()),
        2..=3 => format!("g{}", chance.below(16)),
        _ => chance.pick(&["one", "one", "one", "ten", "example-group"]).to_string(),
    };
    let (method, path, kind) = match chance.below(33) {
        0 => ("GET", format!("{base}/$export{}", narrow_query(chance)), None),
        1 => ("GET", format!("{base}/Patient/$export{}", narrow_query(chance)), None),
        2 => ("GET", format!("{base}/Group/{}/$export{}", group(chance), query(chance, EXPORT)), None),
        3 => {
            let method = chance.pick(&["GET", "EXPORT"]);
            (
                method,
                format!(
                    "{ONEUP_MTE}/{}{}",
                    chance.pick(&["Patient", "patient", "Group", "Nope"]),
                    query(chance, EXPORT)
                ),
                None,
            )
        }
        4..=8 => ("GET", job(chance), None),
        9 => ("DELETE", job(chance), None),
        10 => ("PUT", job(chance), None),
        11..=14 => {
            let file = known.files.pick(chance).filter(|_| !chance.one_in(5));
            let places = ["bulk-files/", "$export/file/Patient_", "Binary/"];
            let made = || format!("{base}/bulk-files/0");
            let path = file.unwrap_or_else(|| match chance.below(4) {
                0 => made(),
                _ => format!("{base}/{}{}", chance.pick(&places), chance.name()),
            });
            // A file's own URL, or that of the Binary around it.
            let path =
                path.strip_suffix("/$binary-access-read").filter(|_| chance.one_in(3)).unwrap_or(&path).to_string();
            (chance.pick(&["GET", "GET", "GET", "HEAD"]), path, None)
        }
        15..=16 => ("GET", format!("{base}/Group{}", query(chance, SEARCH)), None),
        17..=19 => ("POST", format!("{writable}/Group"), Some(WriteKind::Create)),
        20..=22 => ("GET", format!("{base}/Group/{}", group(chance)), None),
        23 => (
            "GET",
            format!("{base}/Group/{}/_history/{}", group(chance), chance.pick(&["1", "2", "0", "x", "-1"])),
            None,
        ),
        24..=26 => ("PUT", format!("{writable}/Group/g{}", chance.below(16)), Some(WriteKind::Replace)),
        27 => ("DELETE", format!("{writable}/Group/{}", group(chance)), None),
        30 => ("POST", format!("{base}/$export{}", narrow_query(chance)), Some(WriteKind::KickOff)),
        31 => ("POST", format!("{base}/Patient/$export{}", narrow_query(chance)), Some(WriteKind::KickOff)),
        32 => {
            let path = format!("{base}/Group/{}/$export{}", group(chance), query(chance, EXPORT));
            ("POST", path, Some(WriteKind::KickOff))
        }
        28 => {
            let names = [
                "metadata",
                ".well-known/smart-configuration",
                "OperationDefinition/export",
                "OperationDefinition/group-export",
                "OperationDefinition/x",
                "",
            ];
            ("GET", format!("{base}/{}{}", chance.pick(&names), query(chance, FORMAT)), None)
        }
        _ => {
            let paths = [
                "/",
                "/health/live",
                "/health/ready",
                "/health",
                "/auth/token",
                "/nowhere",
                "*",
                "http://localhost/fhir/metadata",
            ];
            ("GET", chance.pick(&paths).to_string(), None)
        }
    };
    (method.to_string(), path, kind)
}

/// Names of parameters, with values that are right and wrong.
type Parameters = &'static [(&'static str, &'static [&'static str])];

const EXPORT: Parameters = &[
    (
        "_type",
        &["Patient", "Patient,Condition", "Nope", "", "patient", ",", "Observation%2CPatient", "Patient,Patient"],
    ),
    ("_since", &["2019-06-01T00:00:00Z", "2999-01-01T00:00:00Z", "2019", "yesterday", "2019-02-30T00:00:00Z", ""]),
    ("_until", &["2021-06-01T00:00:00+14:00", "0000-00-00T00:00:00Z", "2019-06-01"]),
    ("_outputFormat", &["application/fhir%2Bndjson", "application/fhir+ndjson", "ndjson", "text/csv", "%ff"]),
    ("_elements", &["id", "Patient.id"]),
    ("_typeFilter", &["Patient%3Fname%3Da", "%00"]),
    ("includeAssociatedData", &["LatestProvenanceResources", "RelevantProvenanceResources,_x", "%00"]),
    ("patient", &["Patient/a"]),
    ("_format", &["json", "xml", "application/fhir%2Bjson"]),
    ("_pretty", &["true"]),
    ("unknown", &["1", "%E0%A4%A", "\u{e9}"]),
];
const SEARCH: Parameters = &[
    ("_id", &["one", "ten,one", "%00", ""]),
    ("name", &["Gr", "gr%C3%BCn", "%5C,", "%ff"]),
    ("identifier", &["http://x|1", "|", "1", "a|b|c"]),
    ("member", &["Patient/777", "777", "http://elsewhere/fhir/Patient/a", "/"]),
    ("type", &["person", "device", "nope"]),
    ("actual", &["true", "false", "yes"]),
    ("code", &["http://x|c", "c"]),
    ("managing-entity", &["Organization/a"]),
    ("_count", &["1", "0", "-1", "1000000", "99999999999999999999", "x"]),
    ("_page", &["x", "1", "%FF%FE", "AAAA"]),
    ("name:exact", &["one"]),
    ("_format", &["json", "xml"]),
    ("_sort", &["name"]),
];
const FORMAT: Parameters =
    &[("_format", &["json", "application/fhir%2Bjson", "xml", "", "%"]), ("_pretty", &["true", "x"])];

/// A query with a few of the parameters, one of them perhaps twice.
fn query(chance: &mut Chance, parameters: Parameters) -> String {
    let pairs: Vec<String> = (0..[0, 0, 1, 1, 1, 2, 3, 5][chance.below(8)])
        .map(|_| {
            let (name, values) = parameters[chance.below(parameters.len())];
            let value =
                if chance.one_in(10) { format!("%{:02X}", chance.below(256)) } else { chance.pick(values).into() };
            format!("{name}={value}")
        })
        .collect();
    let odd = if chance.one_in(20) { chance.pick(&["&", "&&=", "&a", "?", ";b=1", "&=x"]) } else { "" };
    if pairs.is_empty() && odd.is_empty() { String::new() } else { format!("?{}{odd}", pairs.join("&")) }
}

/// A query of a kick-off for everybody, most with one small type: what they write is not what this bench is about.
fn narrow_query(chance: &mut Chance) -> String {
    match chance.below(20) {
        0 => query(chance, EXPORT),
        1 => "?_type=Patient&_type=Nope".into(),
        _ => format!("?_type={}", chance.pick(&["Patient", "Group", "Organization", "Device"])),
    }
}

/// A target with something wrong, or said in another way.
fn damaged_target(chance: &mut Chance, target: &str) -> String {
    let at = chance.below(target.len() + 1);
    let at = (0..=at).rev().find(|at| target.is_char_boundary(*at)).unwrap_or(0);
    let (before, after) = target.split_at(at);
    match chance.below(9) {
        0 => target.replace('$', "%24"),
        1 => target.replace('/', "//"),
        2 => format!("{target}/"),
        3 => {
            let mut letters = after.chars();
            let encoded = letters.next().map_or(String::new(), |letter| format!("%{:02x}", u32::from(letter) & 0xff));
            format!("{before}{encoded}{}", letters.as_str())
        }
        4 => {
            let parts = [
                "%00",
                "%2F",
                "..%2f..%2fetc%2fpasswd",
                "/../",
                "%ff",
                "#a",
                "%",
                "%zz",
                ";a",
                "\u{e9}",
                "\\",
                "\"",
                "{}",
                "|",
                "%0d%0aX:%20y",
            ];
            format!("{before}{}{after}", chance.pick(&parts))
        }
        5 => before.to_string(),
        6 => after.to_string(),
        7 => format!("{target}{}", "a".repeat(chance.below(9000))),
        _ => target.to_uppercase(),
    }
}

/// Header lines that say who asks.
fn credential(chance: &mut Chance, service: &Service) -> String {
    if service.credentials.is_empty() {
        return if chance.one_in(10) { "Authorization: Bearer a.b\r\n".into() } else { String::new() };
    }
    match chance.below(20) {
        0 => String::new(),
        1 => {
            let wrong = [
                "Bearer ",
                "Bearer a.b",
                "Basic YTpi",
                "Bearer \u{e9}",
                "bearer",
                "Bearer a.b, Bearer c.d",
                "Negotiate x",
            ];
            format!("Authorization: {}\r\n", chance.pick(&wrong))
        }
        2 => "client_id: acme-1\r\nclient_secret: wrong\r\n".into(),
        3 => service.credentials.concat(),
        4..=7 => service.credentials[chance.below(service.credentials.len())].clone(),
        _ => service.credentials[0].clone(),
    }
}

/// Header lines with ranges and conditions.
fn conditions(chance: &mut Chance, service: &Service) -> String {
    let mut lines = String::new();
    let mut add = |name: &str, value: &str| lines += &format!("{name}: {value}\r\n");
    if chance.one_in(5) {
        let values = [
            "bytes=0-99",
            "bytes=-1",
            "bytes=5-",
            "bytes=0-0,2-3",
            "bytes=99999999999999999999-",
            "bytes=9-1",
            "bytes=18446744073709551615-18446744073709551615",
            "lines=0-1",
            "bytes=",
            "bytes=-0",
        ];
        add("Range", chance.pick(&values));
    }
    for name in ["If-None-Match", "If-Match", "If-Range"] {
        if chance.one_in(10) {
            let known = service.known.tags.pick(chance).unwrap_or("\"a\"".into());
            let values = ["*", "W/\"1\"", "W/\"2\"", "\"x\", W/\"1\"", "\"", "1", "", "W/", &known, &known];
            add(name, chance.pick(&values));
        }
    }
    lines
}

/// Header lines with values right and wrong.
fn headers(chance: &mut Chance, service: &Service) -> String {
    let mut lines = conditions(chance, service);
    let mut add = |name: &str, value: &str| lines += &format!("{name}: {value}\r\n");
    if !chance.one_in(10) {
        let values = [
            "application/fhir+json",
            "application/fhir+json",
            "application/fhir+json",
            "*/*",
            "application/json",
            "application/fhir+json;q=0, */*",
            "text/html",
            "application/fhir+ndjson",
            "application/fhir+json;q=9",
            ",;q",
            "",
            "\u{e9}",
        ];
        add("Accept", chance.pick(&values));
    }
    if chance.one_in(2) {
        let values = [
            "respond-async",
            "respond-async",
            "respond-async, handling=lenient",
            "handling=strict",
            "return=minimal",
            "return=OperationOutcome",
            "respond-async=1",
            "=",
            "a=\"",
            "handling=lenient;x=\"\\\"\"",
        ];
        add("Prefer", chance.pick(&values));
    }
    if chance.one_in(20) {
        add("If-None-Exist", chance.pick(&["name=a", "identifier=http://x|1", "", "_id=one"]));
    }
    if chance.one_in(8) {
        let values = ["gzip", "zstd", "identity;q=0", "*;q=0", "zstd;q=0.5, identity", "gzip;q=2", ""];
        add("Accept-Encoding", chance.pick(&values));
    }
    if chance.one_in(10) {
        let values =
            ["203.0.113.7", "203.0.113.8, 127.0.0.1", "unknown", "[2001:db8::1]:443", ", ,", "\u{e9}", "1.2.3.4.5"];
        add("X-Forwarded-For", chance.pick(&values));
    }
    if chance.one_in(30) {
        add("X-Forwarded-Proto", chance.pick(&["https", "http", "HTTP, https", ""]));
        add("X-Forwarded-Host", "elsewhere.example");
    }
    if chance.one_in(40) {
        let name = chance.pick(&[
            "Upgrade",
            "TE",
            "Trailer",
            "Via",
            "Cookie",
            "If-Modified-Since",
            "x-oneup-user-id",
            "HTTP2-Settings",
        ]);
        let value = chance.pick(&["h2c", "trailers", "client", "Sat, 29 Oct 1994 19:43:31 GMT", ""]);
        add(name, value);
    }
    lines
}
