//! Tests of Group requests and their answers.

use std::path::Path;

use axum::body::to_bytes;
use axum::http::HeaderName;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::limits::GROUP_PIECE_BYTES;
use crate::store::Store;
use crate::sys::durability::FileSync;

const BASE: &str = "https://us.example/fhir";

struct Shop {
    _home: tempfile::TempDir,
    book: GroupRegistry,
    snapshot: Option<Snapshot>,
    bases: Vec<String>,
    rules: GroupRules,
    principal: Principal,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// CORE-03, CORE-04: an error is an OperationOutcome with severity, code and diagnostics.
    #[track_caller]
    fn issues(&self, status: u16) -> Vec<(String, String)> {
        assert_eq!((self.status, self.header("content-type")), (status, FHIR_JSON), "{:?}", self.json());
        let outcome = self.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome");
        let text = |issue: &Value, name: &str| issue[name].as_str().unwrap_or_default().to_string();
        let issues = outcome["issue"].as_array().unwrap();
        assert!(issues.iter().all(|issue| issue["severity"] == "error" && !text(issue, "diagnostics").is_empty()));
        let place = |issue: &Value| issue["expression"][0].as_str().unwrap_or_default().to_string();
        issues.iter().map(|issue| (text(issue, "code"), place(issue))).collect()
    }
}

fn second(second: i64) -> Instant {
    Instant::from_unix_millis(1_700_000_000_000 + second * 1000)
}

fn anybody() -> Principal {
    Principal::unrestricted("anybody")
}

impl Shop {
    fn new(rows: &[String]) -> Shop {
        let scratch = tempfile::tempdir().unwrap();
        let book = GroupRegistry::open(&scratch.path().join("groups"), FileSync::No).unwrap();
        let snapshot = (!rows.is_empty()).then(|| snapshot(&scratch.path().join("store"), rows));
        let bases = vec![BASE.to_string()];
        Shop { _home: scratch, book, snapshot, bases, rules: GroupRules::default(), principal: anybody() }
    }

    fn desk(&self, ticks: i64) -> GroupHandlers<'_> {
        GroupHandlers {
            book: &self.book,
            snapshot: self.snapshot.as_ref(),
            base: BASE,
            bases: &self.bases,
            rules: self.rules,
            principal: &self.principal,
            now: second(ticks),
        }
    }
}

fn snapshot(store: &Path, rows: &[String]) -> Snapshot {
    std::fs::create_dir(store).unwrap();
    let (plain, packed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| !row.contains("packed"));
    let join = |rows: Vec<&String>| rows.into_iter().map(|row| format!("{row}\n")).collect::<String>();
    std::fs::write(store.join("plain.ndjson"), join(plain)).unwrap();
    std::fs::write(store.join("packed.ndjson.zst"), zstd::encode_all(join(packed).as_bytes(), 1).unwrap()).unwrap();
    Store::open(store).unwrap().snapshot(second(1000)).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn take(response: Response) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (parts, body) = response.into_parts();
    let body = runtime.block_on(to_bytes(body, usize::MAX)).unwrap().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn group(more: &str) -> Vec<u8> {
    format!(r#"{{"resourceType":"Group","type":"person","actual":true{more}}}"#).into_bytes()
}

fn row(id: &str, more: &str) -> String {
    let instant = second(5);
    format!(
        r#"{{"resourceType":"Group","id":"{id}","meta":{{"versionId":"5","lastUpdated":"{instant}"}},"type":"person","actual":true{more}}}"#
    )
}

/// GROUP-01: `POST` 201 with Location, ETag and Last-Modified; `GET` the same bytes; `PUT` 200; `DELETE` 204, again 204;
/// `GET` 410; `PUT` brings it back, 201.
#[test]
fn a_group_from_post_to_delete() {
    let shop = Shop::new(&[]);
    let created = take(shop.desk(1).create(&HeaderMap::new(), &group(r#","name":"A""#), &|| [0xab; 16]));
    assert_eq!(created.status, 201);
    let id = "ab".repeat(16);
    assert_eq!(created.header("location"), format!("{BASE}/Group/{id}/_history/1"));
    assert_eq!(created.header("etag"), "W/\"1\"");
    assert_eq!(created.header("last-modified"), "Tue, 14 Nov 2023 22:13:21 GMT");
    assert_eq!(created.json()["id"], id.as_str());
    let read = take(shop.desk(2).read(&id, &HeaderMap::new()));
    assert_eq!((read.status, &read.body), (200, &created.body));
    assert_eq!((read.header("content-type"), read.header("etag")), (FHIR_JSON, "W/\"1\""));
    for unchanged in [("if-none-match", "\"0\", W/\"1\""), ("if-modified-since", "Tue, 14 Nov 2023 22:13:21 GMT")] {
        let answer = take(shop.desk(2).read(&id, &headers(&[unchanged])));
        assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, "W/\"1\""));
    }
    assert_eq!(take(shop.desk(2).read(&id, &headers(&[("if-none-match", "\"2\"")]))).status, 200);
    let put = group(&format!(r#","id":"{id}","name":"B""#));
    let updated = take(shop.desk(3).update(&id, &headers(&[("if-match", "W/\"1\"")]), &put));
    assert_eq!((updated.status, updated.header("etag")), (200, "W/\"2\""));
    assert_eq!(take(shop.desk(3).read_version(&id, "2", &HeaderMap::new())).status, 200);
    assert_eq!(take(shop.desk(3).read_version(&id, "1", &HeaderMap::new())).status, 404);
    assert_eq!(take(shop.desk(4).delete(&id, &HeaderMap::new())).status, 204);
    assert_eq!(take(shop.desk(4).delete(&id, &HeaderMap::new())).status, 204);
    let gone = take(shop.desk(4).read(&id, &HeaderMap::new()));
    assert_eq!(gone.issues(410), [("deleted".to_string(), String::new())]);
    assert_eq!(take(shop.desk(5).update(&id, &HeaderMap::new(), &put)).status, 201);
}

/// KICK-16, CORE-07: an unknown id and an illegal one get the same answer.
#[test]
fn unknown_and_illegal_ids_are_the_same() {
    let shop = Shop::new(&[]);
    let unknown = take(shop.desk(1).read("nobody", &HeaderMap::new()));
    assert_eq!(unknown.issues(404), [("not-found".to_string(), String::new())]);
    for id in ["..%2f", "../lock", "a/b", "", "\0", &"a".repeat(65), "é"] {
        for answer in [
            shop.desk(1).read(id, &HeaderMap::new()),
            shop.desk(1).delete(id, &HeaderMap::new()),
            shop.desk(1).update(id, &HeaderMap::new(), &group("")),
        ] {
            let answer = take(answer);
            assert_eq!((answer.status, &answer.body), (404, &unknown.body), "{id:?}");
        }
    }
}

/// An update whose precondition fails is refused, in every form, and changes nothing.
#[test]
fn conflicts_are_told() {
    let shop = Shop::new(&[row("s", "")]);
    let put = group(r#","id":"s""#);
    let update = |pairs: &[(&'static str, &str)]| take(shop.desk(9).update("s", &headers(pairs), &put));
    let conflict = [("conflict".to_string(), "http.if-match".to_string())];
    assert_eq!(update(&[("if-match", "W/\"4\"")]).issues(412), conflict);
    assert_eq!(update(&[("if-none-match", "*")]).issues(412), conflict);
    assert_eq!(update(&[("if-match", "5")]).issues(400), [("value".to_string(), "http.if-match".to_string())]);
    assert_eq!(update(&[("if-none-match", "\"5\"")]).status, 400);
    assert_eq!(take(shop.desk(9).delete("s", &headers(&[("if-match", "\"4\"")]))).status, 412);
    assert_eq!(take(shop.desk(9).delete("none", &headers(&[("if-match", "*")]))).status, 412);
    assert_eq!(take(shop.desk(9).read("s", &HeaderMap::new())).header("etag"), "W/\"5\"");
    let updated = update(&[("if-match", "W/\"4\", \"5\"")]);
    assert_eq!((updated.status, updated.header("etag")), (200, "W/\"6\""));
    assert_eq!(take(shop.desk(9).delete("s", &HeaderMap::new())).status, 204);
    assert_eq!(take(shop.desk(9).read("s", &HeaderMap::new())).status, 410);
}

/// `Prefer: return=` selects the body of an answer, never its headers.
#[test]
fn preferences_decide_the_body() {
    let shop = Shop::new(&[]);
    for (i, (requested, kind)) in [
        ("", "Group"),
        ("return=representation", "Group"),
        ("return=minimal", ""),
        ("return=OperationOutcome", "OperationOutcome"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = take(shop.desk(1).create(&headers(&[("prefer", requested)]), &group(""), &|| [i as u8; 16]));
        assert_eq!(
            (answer.status, answer.header("etag"), answer.header("preference-applied")),
            (201, "W/\"1\"", requested)
        );
        match kind {
            "" => assert_eq!(answer.body, b""),
            kind => assert_eq!(answer.json()["resourceType"], kind),
        }
    }
}

/// A client's editor may have written one; it is not stored.
#[test]
fn a_body_may_begin_with_a_byte_order_mark() {
    let shop = Shop::new(&[]);
    let marked = [b"\xef\xbb\xbf", &group("")[..]].concat();
    let created = take(shop.desk(0).create(&headers(&[("content-type", FHIR_JSON)]), &marked, &|| [1; 16]));
    assert_eq!((created.status, created.body.first()), (201, Some(&b'{')));
    let id = created.json()["id"].as_str().unwrap().to_string();
    let own = group(&format!(r#","id":"{id}""#));
    let updated = take(shop.desk(1).update(&id, &headers(&[]), &[b"\xef\xbb\xbf", &own[..]].concat()));
    assert_eq!(updated.status, 200, "{:?}", updated.json());
    let read = take(shop.desk(2).read(&id, &headers(&[])));
    assert_eq!(read.body.first(), Some(&b'{'));
    let twice = take(shop.desk(3).update(&id, &headers(&[]), &[b"\xef\xbb\xbf\xef\xbb\xbf", &own[..]].concat()));
    assert_eq!(twice.issues(400).len(), 1);
}

/// CORE-06, CORE-04: an illegal Group is refused with every problem and its place, and is not stored.
#[test]
fn bad_bodies_are_refused() {
    let mut shop = Shop::new(&[]);
    let post = |shop: &Shop, pairs: &[(&'static str, &str)], body: &[u8]| {
        take(shop.desk(1).create(&headers(pairs), body, &|| [1; 16]))
    };
    let text = |code: &str, place: &str| (code.to_string(), place.to_string());
    assert_eq!(post(&shop, &[], b"{\n\"a\":}").issues(400), [text("structure", "")]);
    assert_eq!(
        post(&shop, &[], br#"{"resourceType":"Group","member":[{}]}"#).issues(400),
        [text("required", "Group.member[0].entity"), text("required", "Group.type"), text("required", "Group.actual")]
    );
    assert_eq!(
        post(&shop, &[("if-none-exist", "identifier=a")], &group("")).issues(400),
        [text("not-supported", "http.if-none-exist")]
    );
    assert_eq!(
        post(&shop, &[("content-type", "application/fhir+xml")], &group("")).issues(415),
        [text("not-supported", "http.content-type")]
    );
    assert_eq!(
        take(shop.desk(1).update("g", &HeaderMap::new(), &group(r#","id":"h""#))).issues(400),
        [text("value", "Group.id")]
    );
    shop.rules.members_max = Some(0);
    let one = group(r#","member":[{"entity":{"reference":"Patient/a"}}]"#);
    assert_eq!(post(&shop, &[], &one).issues(413), [text("too-long", "Group.member")]);
    shop.rules.members_max = None;
    assert_eq!(take(shop.desk(1).search(None, &HeaderMap::new())).json()["total"], 0);
    assert_eq!(post(&shop, &[("content-type", "application/fhir+json; charset=utf-8")], &group("")).status, 201);
}

/// GROUP-01: a search is a searchset with a total, its own link, pages that together hold every match, and the bytes
/// of each Group, of the store and of the registry alike.
#[test]
fn a_search_is_a_searchset() {
    let identifier = r#","identifier":[{"system":"s","value":"v"}],"extension":[{"url":"u","valueDecimal":1.50}]"#;
    let shop = Shop::new(&[row("b-store", identifier), row("c-packed", identifier)]);
    take(shop.desk(9).update("a-made", &HeaderMap::new(), &group(&format!(r#","id":"a-made"{identifier}"#))));
    let mut url = format!("{BASE}/Group?identifier=s%7Cv&_count=1");
    let mut seen = Vec::new();
    loop {
        let answer = take(shop.desk(9).search(Some(url.split_once('?').unwrap().1), &HeaderMap::new()));
        assert_eq!((answer.status, answer.header("content-type")), (200, FHIR_JSON));
        assert!(String::from_utf8_lossy(&answer.body).contains(r#""valueDecimal":1.50"#), "digits stay");
        let bundle = answer.json();
        assert_eq!((&bundle["type"], &bundle["total"]), (&json!("searchset"), &json!(3)));
        assert_eq!(bundle["link"][0], json!({"relation": "self", "url": url}));
        let [entry] = bundle["entry"].as_array().unwrap().as_slice() else { panic!("one a page: {bundle}") };
        assert_eq!(entry["search"]["mode"], "match");
        assert_eq!(entry["fullUrl"], format!("{BASE}/Group/{}", entry["resource"]["id"].as_str().unwrap()));
        seen.push(entry["resource"]["id"].as_str().unwrap().to_string());
        let Some(next) = bundle["link"][1]["url"].as_str() else { break };
        url = next.to_string();
    }
    assert_eq!(seen, ["a-made", "b-store", "c-packed"]);
    let none = take(shop.desk(9).search(Some("identifier=other"), &HeaderMap::new())).json();
    assert_eq!((&none["total"], none.get("entry")), (&json!(0), None));
    let strict = take(shop.desk(9).search(Some("foo=1&_sort=name&name=x"), &HeaderMap::new()));
    assert_eq!(strict.issues(400).len(), 2);
    let lenient = headers(&[("prefer", "handling=lenient")]);
    let bundle = take(shop.desk(9).search(Some("foo=1&identifier=s%7Cv"), &lenient)).json();
    assert_eq!(bundle["total"], 3);
    let outcome = &bundle["entry"][3];
    assert_eq!(outcome["search"]["mode"], "outcome");
    assert_eq!(outcome["resource"]["issue"][0]["expression"][0], "http.foo");
    assert!(!bundle["link"][0]["url"].as_str().unwrap().contains("foo"));
}

/// A Group that is longer than a piece is sent byte for byte from store and registry, with its length announced; and
/// a page ends with it.
#[test]
fn long_groups_are_sent_in_pieces() {
    let members: Vec<String> =
        (0..400_000).map(|n| format!(r#"{{"entity":{{"reference":"Patient/p{n}"}}}}"#)).collect();
    let more = format!(r#","member":[{}]"#, members.join(","));
    assert!(more.len() > 8 * GROUP_PIECE_BYTES + 17);
    let rows = [row("b-store", &more), row("c-packed", &more)];
    let shop = Shop::new(&rows);
    let made = take(shop.desk(9).update("a-made", &HeaderMap::new(), &group(&format!(r#","id":"a-made"{more}"#))));
    for (id, bytes) in [("a-made", &made.body[..]), ("b-store", rows[0].as_bytes()), ("c-packed", rows[1].as_bytes())] {
        let response = shop.desk(9).read(id, &HeaderMap::new());
        assert_eq!(axum::body::HttpBody::size_hint(response.body()).exact(), Some(bytes.len() as u64));
        assert!(take(response).body == bytes, "{id}");
    }
    let page = take(shop.desk(9).search(Some("member=Patient/p399999"), &HeaderMap::new())).json();
    assert_eq!((&page["total"], page["entry"].as_array().unwrap().len()), (&json!(3), 1));
    assert_eq!(page["entry"][0]["resource"]["member"].as_array().unwrap().len(), 400_000);
    assert_eq!(take(shop.desk(9).search(Some("member=p400000"), &HeaderMap::new())).json()["total"], 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// No request causes a panic, and every answer has a documented status.
    #[test]
    fn no_request_is_a_panic(
        id in "[a-z./%\u{0}-]{0,5}",
        body in proptest::collection::vec(any::<u8>(), 0..60),
        header in "[ -~]{0,20}",
        query in "[%&=a-f_|+,:]{0,20}",
    ) {
        let shop = Shop::new(&[]);
        let headers = headers(&[("if-match", &header), ("prefer", &header)]);
        for answer in [
            shop.desk(1).create(&headers, &body, &|| [1; 16]),
            shop.desk(1).update(&id, &headers, &body),
            shop.desk(1).read(&id, &headers),
            shop.desk(1).delete(&id, &headers),
            shop.desk(1).search(Some(&query), &headers),
        ] {
            let answer = take(answer);
            prop_assert!([200, 201, 204, 400, 404, 412].contains(&answer.status), "{}", answer.status);
        }
    }
}

/// ONEUP-G02, ONEUP-G04, ONEUP-G06: under 1upHealth's rules a Group that is too large is 422 with both numbers, and
/// so is one with other members than Patients; what R4 refuses stays 400. ONEUP-G08: without the rules neither is
/// refused.
#[test]
fn oneup_rules_are_answered() {
    let members = |count: usize, of: &str, more: &str| {
        let list: Vec<_> =
            (0..count).map(|offset| format!(r#"{{"entity":{{"reference":"{of}/{offset}"}}{more}}}"#)).collect();
        group(&format!(r#","member":[{}]"#, list.join(",")))
    };
    let mut shop = Shop::new(&[]);
    let made = std::cell::Cell::new(0);
    let post = |shop: &Shop, body: &[u8]| {
        made.set(made.get() + 1);
        take(shop.desk(1).create(&HeaderMap::new(), body, &|| [made.get(); 16]))
    };
    let issue = |code: &str, place: &str| (code.to_string(), place.to_string());
    let (many, large) = (members(10_001, "Patient", ""), members(9000, "Patient", r#","inactive":false"#));
    assert!(large.len() > 409_600);
    for body in [&many, &large, &members(1, "Practitioner", "")] {
        assert_eq!(post(&shop, body).status, 201, "ONEUP-G08");
    }
    shop.rules = GroupRules::oneup();
    let refused = post(&shop, &many);
    assert_eq!(refused.issues(422), [issue("too-long", "Group.member")]);
    let text = refused.json()["issue"][0]["diagnostics"].as_str().unwrap().to_string();
    assert!(text.contains("10001") && text.contains("10000"), "{text}");
    assert_eq!(post(&shop, &large).issues(422), [issue("too-long", "Group")]);
    assert_eq!(
        post(&shop, &members(1, "Practitioner", "")).issues(422),
        [issue("business-rule", "Group.member[0].entity.reference")]
    );
    assert_eq!(post(&shop, &group("")).issues(400), [issue("required", "Group.member")]);
    assert_eq!(post(&shop, &members(10_000, "Patient", "")).status, 201);
    let put = take(shop.desk(1).update("g", &HeaderMap::new(), &group(r#","id":"g""#)));
    assert_eq!(put.issues(400), [issue("required", "Group.member")]);
}

/// KICK-16: to a client that may see some Groups only, the others do not exist: reads, versions, updates and
/// deletions get the status, headers and body of an unknown Group and change nothing; searches, their totals and
/// pages hold the visible Groups only.
#[test]
fn what_a_client_may_not_see_is_not_there() {
    let mut shop = Shop::new(&[row("in-store", ""), row("store-too", r#","name":"mine""#)]);
    for id in ["book", "book-too", "mine-a", "mine-b", "gone"] {
        let made = take(shop.desk(1).update(id, &HeaderMap::new(), &group(&format!(r#","id":"{id}","name":"n""#))));
        assert_eq!(made.status, 201);
    }
    assert_eq!(take(shop.desk(2).delete("gone", &HeaderMap::new())).status, 204);
    shop.principal.groups =
        Some(["mine-a", "mine-b", "store-too", "not-yet", "no legal id"].map(String::from).to_vec());
    let same = |of: &dyn Fn(&str) -> Response| {
        let reported = |id: &str| {
            let answer = take(of(id));
            (answer.status, answer.headers, answer.body)
        };
        let unknown = reported("unknown");
        for hidden in ["book", "book-too", "in-store", "gone"] {
            assert_eq!(reported(hidden), unknown, "{hidden}");
        }
        unknown.0
    };
    let none = HeaderMap::new();
    let (any, first) = (headers(&[("if-match", "*")]), headers(&[("if-match", "W/\"1\"")]));
    let only_new = headers(&[("if-none-match", "*")]);
    assert_eq!(same(&|id| shop.desk(3).read(id, &none)), 404);
    assert_eq!(same(&|id| shop.desk(3).read(id, &headers(&[("if-none-match", "*")]))), 404);
    assert_eq!(same(&|id| shop.desk(3).read_version(id, "1", &none)), 404);
    assert_eq!(same(&|id| shop.desk(3).delete(id, &none)), 204);
    assert_eq!(same(&|id| shop.desk(3).delete(id, &any)), 412);
    let put = |id: &str, headers: &HeaderMap| shop.desk(3).update(id, headers, &group(&format!(r#","id":"{id}""#)));
    assert_eq!(same(&|id| put(id, &none)), 404);
    assert_eq!(same(&|id| put(id, &only_new)), 404);
    assert_eq!(same(&|id| put(id, &any)), 412);
    assert_eq!(same(&|id| put(id, &first)), 412);
    // The visible Groups are served as before.
    assert_eq!(take(shop.desk(3).read("mine-a", &none)).status, 200);
    assert_eq!(take(put("not-yet", &none)).status, 201);
    assert_eq!(take(put("mine-b", &first)).status, 200);
    assert_eq!(take(shop.desk(3).delete("mine-b", &none)).status, 204);
    let search = |query: &str| {
        let bundle = take(shop.desk(4).search(Some(query), &none)).json();
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        let ids = entries.iter().map(|entry| entry["resource"]["id"].as_str().unwrap().to_string());
        (bundle["total"].as_u64().unwrap(), ids.collect::<Vec<_>>(), bundle["link"].as_array().unwrap().len())
    };
    let found = |total, ids: &[&str], links| (total, ids.iter().map(|id| id.to_string()).collect::<Vec<_>>(), links);
    assert_eq!(search(""), found(3, &["mine-a", "not-yet", "store-too"], 1));
    assert_eq!(search("_count=2"), found(3, &["mine-a", "not-yet"], 2));
    assert_eq!(search("name=n"), found(1, &["mine-a"], 1));
    assert_eq!(search("_id=book,mine-a,in-store"), found(1, &["mine-a"], 1));
    assert_eq!(search("_id=book"), found(0, &[], 1));
    // The invisible Groups are unchanged.
    shop.principal.groups = None;
    for (id, status) in [("book", 200), ("book-too", 200), ("in-store", 200), ("gone", 410), ("unknown", 404)] {
        assert_eq!(take(shop.desk(5).read(id, &none)).status, status, "{id}");
    }
    assert_eq!(take(shop.desk(5).read("book", &none)).header("etag"), "W/\"1\"");
    assert_eq!(take(shop.desk(5).search(None, &none)).json()["total"], 6);
}
