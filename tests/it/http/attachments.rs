//! Downloads of attachments: what Binaries of the store hold, for whom, and in which form (ATTACH-02, ATTACH-03, NETSMART-E08).

use std::io::Write;
use std::path::Path;

use base64ct::{Base64, Encoding};

use super::client::Answer;
use super::credentials::{Credential, client};
use super::job_lifecycle::{accepted, ended, files};
use super::server::Server;
use super::smart::signer::Signer;
use crate::run::scratch;

/// A row of a type with members.
fn row(of: &str, id: &str, members: &str) -> String {
    format!(r#"{{"resourceType":"{of}","id":"{id}"{members}}}"#)
}

/// A Binary of a version.
fn binary(id: &str, version: &str, content_type: &str, bytes: &[u8]) -> String {
    let data = Base64::encode_string(bytes);
    let meta = format!(r#","meta":{{"versionId":"{version}","lastUpdated":"2024-01-0{version}T00:00:00Z"}}"#);
    row("Binary", id, &format!(r#"{meta},"contentType":"{content_type}","data":"{data}""#))
}

/// A DocumentReference of a patient with an attachment.
fn document(id: &str, patient: &str, url: &str) -> String {
    let content = format!(r#""content":[{{"attachment":{{"url":"{url}"}}}}]"#);
    row("DocumentReference", id, &format!(r#","subject":{{"reference":"Patient/{patient}"}},{content}"#))
}

/// Patients `a` and `b`, of whom only `a` is a member of the Group `g`, with a document each.
fn lines() -> Vec<String> {
    let group = |id: &str, patient: &str| {
        let member = format!(r#""member":[{{"entity":{{"reference":"Patient/{patient}"}}}}]"#);
        row("Group", id, &format!(r#","type":"person","actual":true,{member}"#))
    };
    vec![
        group("g", "a"),
        group("h", "b"),
        row("Patient", "a", r#","photo":[{"url":"Binary/photo"}]"#),
        row("Patient", "b", ""),
        document("d", "a", "Binary/note"),
        document("e", "b", "Binary/foreign"),
        row("Practitioner", "p", r#","photo":[{"url":"Binary/nobody"}]"#),
        binary("note", "1", "text/plain;charset=utf-8", b"the first version"),
        binary("note", "2", "text/plain;charset=utf-8", b"0123456789"),
        binary("photo", "1", "image/png", &[0x89, b'P', b'N', b'G', 0, 255]),
        binary("foreign", "1", "text/html", b"<script>"),
        binary("nobody", "1", "text/plain", b"system only"),
        binary("unnamed", "1", "text/plain", b"no row names it"),
    ]
}

/// ATTACH-02: URLs that are none of an attachment give no access, nor does a reference to a Binary of another patient; what
/// was deleted does not come back when its id is used again. An escaped slash is a slash.
#[test]
fn what_gives_no_access() {
    let scratch = scratch();
    let mut all = lines();
    let extension = r#","subject":{"reference":"Patient/a"},"extension":[{"url":"Binary/ext","valueString":"x"}]"#;
    let of_b = r#","securityContext":{"reference":"Patient/b"},"contentType":"text/plain","data":"eA==""#;
    let deletion = r#"{"resourceType":"Bundle","type":"batch","meta":{"lastUpdated":"2024-01-02T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Binary/again"}}]}"#;
    all.extend([
        row("Observation", "oe", extension),
        row("Observation", "ol", r#","subject":{"reference":"Patient/a"},"link":[{"url":"Binary/ext"}]"#),
        binary("ext", "1", "text/plain", b"x"),
        row("Binary", "sec", of_b),
        document("s", "a", "Binary/sec"),
        binary("again", "1", "text/plain", b"deleted"),
        deletion.to_string(),
        binary("again", "3", "text/plain", b"new"),
        document("t", "a", "Binary/again"),
        binary("slash", "1", "text/plain", b"slash"),
        document("u", "a", "Binary\\u002fslash"),
    ]);
    let member = Credential::token(&[]);
    let clients = client("member", "levels = ['group']\ngroups = ['g']", &[&member]);
    let server = serve(scratch.path(), &all, &clients);
    let http = server.client();
    let get = |path: &str| member.get(&http, &format!("/fhir/attachment/{path}"));
    for path in ["ext", "sec", "again?v=1"] {
        assert_unknown(&get(path));
    }
    assert_eq!((get("again").body, get("again?v=3").body), (b"new".to_vec(), b"new".to_vec()));
    assert_eq!(get("slash").body, b"slash");
}

/// Writes a store, and starts a service over it.
fn serve(directory: &Path, lines: &[String], toml: &str) -> Server {
    std::fs::create_dir_all(directory.join("store")).unwrap();
    std::fs::write(directory.join("store/all.ndjson"), lines.join("\n") + "\n").unwrap();
    std::fs::write(directory.join("serve.toml"), toml).unwrap();
    let server = Server::start(directory, &["--store", "store", "--data", "data", "--config", "serve.toml"]);
    server.wait_until_ready();
    server
}

/// Asserts the one answer for whatever cannot be had.
#[track_caller]
fn assert_unknown(answer: &Answer) {
    let text = answer.outcome(404, "not-found");
    assert_eq!(text, "this file is not known here");
}

/// ATTACH-02, ATTACH-03: content, headers, HEAD, ranges and conditions, without credentials where none are required.
#[test]
fn content_is_sent_as_it_is() {
    let scratch = scratch();
    let mut all = lines();
    let hooked = "text/plain\\r\\nSet-Cookie: a=b";
    all.extend([
        document("f", "a", "Binary\\/odd.-_~x"),
        binary("odd.-_~x", "1", hooked, b"?"),
        document("h", "a", "Binary/empty"),
        row("Binary", "empty", r#","data":"""#),
        document("i", "a", "Binary/escaped"),
        row("Binary", "escaped", r#","data":" aG\/q\n\u0061Gk= ","contentType":"a\/b""#),
        document("j", "a", "Binary/hollow"),
        row("Binary", "hollow", r#","contentType":"text/plain""#),
        document("k", "a", "Binary/broken"),
        row("Binary", "broken", r#","contentType":"text/plain","data":"SECRET!!""#),
    ]);
    let server = serve(scratch.path(), &all, "");
    let http = server.client();
    let get = |path: &str| http.get(&format!("/fhir/attachment/{path}"));
    // 1. The current version, with the headers of a file that no browser runs.
    let answer = http.ask("GET", "/fhir/attachment/note?v=2", &[("Accept", "text/plain")], b"");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"0123456789"[..]));
    for (name, value) in [
        ("content-type", "text/plain;charset=utf-8"),
        ("content-length", "10"),
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
        ("cache-control", "private, no-transform"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    for accept in ["application/fhir+json", "image/*", "text/plain;q=0"] {
        let other = http.ask("GET", "/fhir/attachment/note", &[("Accept", accept)], b"");
        assert_eq!((other.status, other.body), (200, answer.body.clone()), "{accept}");
    }
    let head = http.ask("HEAD", "/fhir/attachment/note", &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    // 2. A former version that the store still holds; others are not known.
    assert_eq!(get("note?v=1").body, b"the first version");
    for unknown in ["note?v=3", "note?v=", "note?v=1&v=1", "unnamed", "unknown", "a%20b", "%2e%2e", "hollow"] {
        assert_unknown(&get(unknown));
    }
    // 3. Conditions and ranges.
    let tag = answer.header("etag").unwrap().to_string();
    let ask = |headers: &[(&str, &str)]| http.ask("GET", "/fhir/attachment/note?v=2", headers, b"");
    assert_eq!(ask(&[("If-None-Match", &tag)]).status, 304);
    assert_eq!(ask(&[("If-Modified-Since", "Sun, 06 Nov 2094 08:49:37 GMT")]).status, 200, "no date is known");
    ask(&[("If-Match", "\"x\"")]).outcome(412, "conflict");
    let part = ask(&[("Range", "bytes=3-5"), ("If-Range", &tag)]);
    assert_eq!((part.status, &part.body[..], part.header("content-range")), (206, &b"345"[..], Some("bytes 3-5/10")));
    assert_eq!(ask(&[("Range", "bytes=-2")]).body, b"89");
    let beyond = ask(&[("Range", "bytes=10-")]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    // 4. Odd ones.
    let odd = get("odd.-_~x?v=1");
    assert_eq!((odd.status, odd.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(odd.header("set-cookie"), None);
    let empty = get("empty");
    assert_eq!((empty.status, empty.header("content-length"), empty.body.len()), (200, Some("0"), 0));
    let escaped = get("escaped");
    assert_eq!((&escaped.body[..], escaped.header("content-type")), (&b"h\x6f\xeahi"[..], Some("a/b")));
    get("broken").outcome(500, "processing");
    assert_eq!(get("photo").body, [0x89, b'P', b'N', b'G', 0, 255]);
    // 5. Nothing of it is in the log.
    let log = server.log();
    for secret in ["SECRET", "odd.-_~x", "script", "the first version"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(log.contains("an attachment is sent"), "{log}");
    assert_eq!(http.ask("DELETE", "/fhir/attachment/note", &[], b"").status, 405);
}

/// AUTH-21, AUTH-24: a token opens the attachments of the rows that it may export, at levels that it may export: none with a scope
/// that exports nothing, and none through Groups without a scope for Groups.
#[test]
fn scopes_reach_to_attachments() {
    let scratch = scratch();
    let (all, group) = (Signer::new("all", "ES384"), Signer::new("group", "ES384"));
    let clients = [all.inline(""), group.inline("levels = ['group']")].concat();
    let server = serve(scratch.path(), &lines(), &format!("public_url = '{}'\n{clients}", super::smart::URL));
    server.wait_until_ready();
    let client = server.client();
    for (signer, scope, note, foreign, photo) in [
        (&all, "system/*.rs", 200, 200, 200),
        (&all, "system/DocumentReference.rs", 200, 200, 404),
        (&all, "system/Patient.rs", 404, 404, 200),
        (&all, "system/Patient.r", 404, 404, 404),
        (&all, "system/*.r", 404, 404, 404),
        (&all, "system/DocumentReference.s system/Group.rs", 404, 404, 404),
        (&group, "system/DocumentReference.rs system/Group.r", 200, 200, 404),
        (&group, "system/DocumentReference.rs", 404, 404, 404),
        (&group, "system/Group.rs", 404, 404, 404),
    ] {
        let token = signer.token(&client, scope);
        let found = ["note", "foreign", "photo"]
            .map(|id| super::smart::with_token(&client, &token, "GET", &format!("/fhir/attachment/{id}")).status);
        assert_eq!(found, [note, foreign, photo], "{scope}");
    }
}

/// ATTACH-02, ATTACH-03, AUTH-22, KICK-16: who may export a row that refers to it may have an attachment, at that moment;
/// for all others, and for what is not there, the answer is the same.
#[test]
fn rights_are_those_to_the_rows_that_refer_to_it() {
    let scratch = scratch();
    let [all, member, typed, level, narrow] = std::array::from_fn(|_| Credential::token(&[]));
    let clients = [
        client("all", "", &[&all]),
        client("member", "levels = ['group']\ngroups = ['g']", &[&member]),
        client("typed", "types = ['Patient', 'Observation']", &[&typed]),
        client("level", "levels = ['group']", &[&level]),
        client("narrow", "types = ['Observation']\nlevels = ['group']\ngroups = ['g']", &[&narrow]),
    ];
    let mut rows = lines();
    // The record of a practitioner comes with those that refer to it (COMP-06).
    let performed = r#","subject":{"reference":"Patient/a"},"performer":[{"reference":"Practitioner/q"}]"#;
    rows.push(row("Observation", "o", performed));
    rows.push(row("Practitioner", "q", r#","photo":[{"url":"Binary/face"}]"#));
    rows.push(binary("face", "1", "image/png", b"a face"));
    rows.push(document("gone", "a", "Binary/gone"));
    rows.push(binary("gone", "1", "text/plain", b"deleted"));
    rows.push(r#"{"resourceType":"Bundle","type":"batch","meta":{"lastUpdated":"2024-01-08T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Binary/gone"}}]}"#.to_string());
    let server = serve(scratch.path(), &rows, &clients.concat());
    let http = server.client();
    let may = |who: &Credential, id: &str| {
        let answer = who.get(&http, &format!("/fhir/attachment/{id}"));
        if answer.status != 200 {
            assert_unknown(&answer);
        }
        answer.status == 200
    };
    let ids = ["note", "photo", "foreign", "face", "nobody", "gone", "unnamed"];
    for (who, name, expected) in [
        (&all, "all", [true, true, true, true, true, false, false]),
        (&member, "member", [true, true, false, true, false, false, false]),
        (&typed, "typed", [false, true, false, false, false, false, false]),
        (&level, "level", [true, true, true, true, false, false, false]),
        (&narrow, "narrow", [false, false, false, false, false, false, false]),
    ] {
        assert_eq!(ids.map(|id| may(who, id)), expected, "{name}");
    }
    // The token and nothing else.
    assert_eq!(http.get("/fhir/attachment/note").status, 401);
    let token = all.headers[0].1.strip_prefix("Bearer ").unwrap();
    assert_eq!(http.get(&format!("/fhir/attachment/note?access_token={token}")).status, 401);
}

/// ATTACH-02, GROUP-03: a Group that a client makes or deletes decides from then on.
#[test]
fn rights_follow_the_groups() {
    let scratch = scratch();
    let bound = Credential::token(&[]);
    let clients =
        client("bound", "levels = ['group']\ngroups = ['mine']\nwrites_groups = true\npatients = 'any'", &[&bound]);
    let server = serve(scratch.path(), &lines(), &clients);
    let http = server.client();
    assert_unknown(&bound.get(&http, "/fhir/attachment/note"));
    let group = r#"{"resourceType":"Group","id":"mine","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/a"}}]}"#;
    let mut headers = vec![("Content-Type", "application/fhir+json")];
    headers.extend(bound.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    assert_eq!(http.ask("PUT", "/fhir/Group/mine", &headers, group.as_bytes()).status, 201);
    assert_eq!(bound.get(&http, "/fhir/attachment/note").body, b"0123456789");
    assert_unknown(&bound.get(&http, "/fhir/attachment/foreign"));
    assert_eq!(bound.ask(&http, "DELETE", "/fhir/Group/mine", &[]).status, 204);
    assert_unknown(&bound.get(&http, "/fhir/attachment/note"));
}

/// Bytes of a Binary that is far longer than what the service needs to answer at all.
const LONG: u32 = 24 << 20;

/// ATTACH-02: Binaries of compressed files, longer than what is read at a time, whole and in part.
#[test]
fn long_content_is_decoded_as_it_is_sent() {
    let scratch = scratch();
    let bytes: Vec<u8> = (0..LONG).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let server = {
        let directory = scratch.path();
        std::fs::create_dir_all(directory.join("store")).unwrap();
        for coding in ["gz", "zst", "plain"] {
            let id = format!("big-{coding}");
            let mut rows = vec![document(&format!("d-{coding}"), "a", &format!("Binary/{id}"))];
            rows.push(binary("before", "1", "text/plain", &bytes[..100_000]));
            rows.push(binary(&id, "1", "application/pdf", &bytes));
            let text = rows.join("\n") + "\n";
            let path = |name: &str| directory.join("store").join(name);
            match coding {
                "gz" => {
                    let file = std::fs::File::create(path("a.ndjson.gz")).unwrap();
                    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                    out.write_all(text.as_bytes()).unwrap();
                    out.finish().unwrap();
                }
                "zst" => {
                    std::fs::write(path("b.ndjson.zst"), zstd::bulk::compress(text.as_bytes(), 1).unwrap()).unwrap()
                }
                _ => std::fs::write(path("c.ndjson"), text).unwrap(),
            }
        }
        serve(directory, &lines(), "")
    };
    let http = server.client();
    let before = server.memory();
    for coding in ["gz", "zst", "plain"] {
        let path = format!("/fhir/attachment/big-{coding}?v=1");
        let whole = http.get(&path);
        assert_eq!((whole.status, whole.header("content-length")), (200, Some("25165824")), "{coding}");
        assert!(whole.body == bytes, "{coding}");
        let part = http.ask("GET", &path, &[("Range", "bytes=5000001-5000007")], b"");
        assert_eq!((part.status, &part.body[..]), (206, &bytes[5_000_001..5_000_008]), "{coding}");
    }
    let grown = server.memory().saturating_sub(before);
    // Less than the content, and far less than its base64: threads, caches and buffers of a first answer are all that grows.
    assert!(grown < 20 << 20, "{grown}");
}

/// ATTACH-02, ATTACH-03, ATTACH-04, NETSMART-E08: the URLs in exported rows are absolute on every mount and download, and the
/// command line gives the same bytes with the same base.
#[test]
fn urls_in_exported_rows_lead_here() {
    let scratch = scratch();
    let mut rows = lines();
    rows.push(document("f", "a", "Binary/note/_history/1"));
    rows.push(document("i", "a", "Binary/unknown"));
    let toml = "[netsmart]\nenabled = true\nbase = '/n'\n[oneup_ste]\nenabled = true\nbase = '/o'\n[limits]\npolls_burst = 1000\n";
    let server = serve(scratch.path(), &rows, toml);
    let http = server.client();
    for (base, shape) in
        [("/fhir", "/attachment/{}?v="), ("/n", "/Binary/{}/$binary-access-read?v="), ("/o", "/attachment/{}?v=")]
    {
        let headers = [("Accept", "application/fhir+json"), ("Prefer", "respond-async")];
        let target = format!("{base}/Group/g/$export?_type=DocumentReference,Patient");
        let done = ended(&http, &accepted(&http, &http.ask("GET", &target, &headers, b"")));
        assert_eq!(done.status, 200, "{}", done.text());
        let (mut urls, mut texts, mut told) = (Vec::new(), Vec::new(), String::new());
        for (of, path, _) in files(&http, &done.json()) {
            let text = http.get(&path).text();
            match of.as_str() {
                "OperationOutcome" => told += &text,
                _ => {
                    urls.extend(text.split('"').filter(|word| word.contains("?v=")).map(str::to_string));
                    texts.push((of, text));
                }
            }
        }
        urls.sort();
        let url =
            |id: &str, version: u32| format!("http://{}{base}{}{version}", server.address, shape.replace("{}", id));
        assert_eq!(urls, [url("note", 1), url("note", 2), url("photo", 1)], "{base}");
        assert!(
            told.contains("1 attachment URL of exported resources names a Binary that the store does not hold"),
            "{told}"
        );
        for (url, body) in
            urls.iter().zip([&b"the first version"[..], b"0123456789", &[0x89, b'P', b'N', b'G', 0, 255]])
        {
            assert_eq!(http.get(http.path(url)).body, body);
        }
        if base == "/n" {
            continue;
        }
        let (store, out) =
            (scratch.path().join("store"), scratch.path().join(format!("out{}", base.replace('/', "-"))));
        let base_url = format!("http://{}{base}", server.address);
        let more = ["--group", "g", "--type", "DocumentReference,Patient", "--base-url", &base_url];
        let run = crate::run::export(&store, &out, &more);
        assert!(run.code <= 1, "{run:#?}");
        for (of, text) in texts {
            assert_eq!(std::fs::read_to_string(out.join(format!("{of}.00001.ndjson"))).unwrap(), text);
        }
    }
}

/// NETSMART-E08, NETSMART-E07: attachments have the form of files, and what is neither is not known.
#[test]
fn netsmart_has_one_operation_for_both() {
    let scratch = scratch();
    let server = serve(scratch.path(), &lines(), "[netsmart]\nenabled = true\nbase = '/n'\n");
    let http = server.client();
    let answer = http.get("/n/Binary/note/$binary-access-read?v=2");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"0123456789"[..]));
    assert_eq!(answer.header("content-disposition"), Some("attachment"));
    for unknown in ["unknown", "unnamed", "0123456789abcdef0123456789abcdef"] {
        assert_unknown(&http.get(&format!("/n/Binary/{unknown}/$binary-access-read")));
    }
    assert_eq!(http.get("/n/attachment/note").status, 404);
    assert_eq!(http.get("/fhir/Binary/note/$binary-access-read").status, 404);
}
