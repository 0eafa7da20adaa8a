//! The reference implementation against the scanner, on lines that invite different readings.

use super::*;
use crate::extract::extractor::Extractor;
use crate::extract::fault::FaultKind;
use crate::extract::rules::LineRules;
use crate::simd::Kernel;
use std::path::Path;

fn scanned(line: &[u8]) -> OracleLine {
    match Extractor::new(Kernel::detect(), LineRules::default()).extract(line) {
        Ok(facts) => OracleLine::of_facts(facts, LineRules::default()),
        Err(fault) if fault.kind == FaultKind::NoType => OracleLine::Untyped,
        Err(_) => OracleLine::Faulty,
    }
}

/// Reference implementation and scanner agree on the facts of a line that the index stores.
#[track_caller]
fn agree(line: &[u8]) {
    let shown = || String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned();
    match (OracleLine::read(line, LineRules::default()), scanned(line)) {
        (OracleLine::Blank, _) | (OracleLine::Faulty, OracleLine::Faulty) => {}
        (OracleLine::Row(oracle), OracleLine::Row(scanned)) => {
            assert_eq!((oracle.owners(), oracle.targets()), (scanned.owners(), scanned.targets()), "{}", shown());
            let facts = |row: &OracleRow| {
                (row.resource_type, row.id, row.updated.clone(), row.illegal_updated, row.version.clone())
            };
            assert_eq!(facts(&oracle), facts(&scanned), "{}", shown());
        }
        (oracle, scanned) => assert_eq!(oracle, scanned, "{}", shown()),
    }
}

/// Every line of the hostile stores, which were made to set readers apart.
#[test]
fn twin_and_scanner_agree_on_the_hostile_stores() {
    let mut lines = 0;
    for store in ["store", "deleted", "coverage"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hostile").join(store);
        for entry in std::fs::read_dir(directory).unwrap() {
            for line in std::fs::read(entry.unwrap().path()).unwrap().split(|byte| *byte == b'\n') {
                agree(line.strip_suffix(b"\r").unwrap_or(line));
                lines += 1;
            }
        }
    }
    assert!(lines > 100, "{lines}");
}

/// Shapes that are easily read in two ways.
#[test]
fn twin_and_scanner_agree_on_odd_shapes() {
    let row = |inner: &str| format!(r#"{{"resourceType":"Observation","id":"a",{inner}}}"#);
    let inners = [
        r#""subject":{"reference":"Patient/p"}"#,
        r#""subject":[[{"reference":"Patient/p"}],{"reference":"Patient/q"}]"#,
        r#""subject":{"reference":["Patient/p"]}"#,
        r#""subject":{"reference":"Patient/p","reference":"Patient/q"}"#,
        r#""subject":{"reference":"Patient/p"},"subject":null"#,
        r#""performer":{"reference":"http:\/\/h\/b/Patient/\u0070"}"#,
        r#""subject":{"reference":"Patient/\ud800"}"#,
        r#""subject":{"identifier":{"reference":"Patient/p"}}"#,
        r#""contained":[{"subject":{"reference":"Patient/p"}}]"#,
        r#""meta":{"lastUpdated":"2020-01-01T00:00:00.123456789Z","versionId":"007"}"#,
        r#""meta":[{"lastUpdated":null},{"versionId":"1"},{"lastUpdated":"2020-01-01T00:00:00Z"}]"#,
        r#""meta":[{"lastUpdated":"2020-01-01T00:00:00Z"},{"lastUpdated":"2020-01-01T00:00:00Z"}]"#,
        r#""meta":[{"lastUpdated":5},{"lastUpdated":"2020-01-01T00:00:00Z"}]"#,
        r#""meta":[{"lastUpdated":"2020-01-01T00:00:00Z"},{"lastUpdated":5}]"#,
        r#""meta":{"lastUpdated":["2020-01-01T00:00:00Z"]}"#,
        r#""meta":{"lastUpdated":"yesterday","versionId":7}"#,
        r#""meta":{"versionId":"1","versionId":"2"}"#,
        r#""meta":{"versionId":"123456789012345678901234567890"}"#,
        r#""meta":"x""#,
        r#""v":1e999,"w":-0,"x":[[[]]]"#,
        r#""v":01"#,
        r#""\u0069d":"b""#,
        r#""\ud800":1"#,
    ];
    inners.iter().for_each(|inner| agree(row(inner).as_bytes()));
    let deep = "[".repeat(3000) + &"]".repeat(3000);
    agree(row(&format!(r#""x":{deep}"#)).as_bytes());
    agree(row(&format!(r#""subject":{deep}"#)).as_bytes());
    let bundle = |inner: &str| format!(r#"{{"resourceType":"Bundle",{inner}}}"#);
    for inner in [
        r#""type":"batch","entry":[{"request":{"method":"DELETE","url":"Patient/p"}}]"#,
        r#""type":"batch","entry":{"request":{"method":"DELETE","url":"http://h/Patient/p"}}"#,
        r#""type":"batch","entry":[{"request":{"method":"DELETE","url":"Patient/p/_history/1"}}]"#,
        r#""type":"batch","entry":[{"request":{"method":"DELETE","url":"Patient/p"},"resource":null}]"#,
        r#""type":"searchset","entry":[{"request":{"method":"DELETE","url":"Patient/p"}}]"#,
        r#""type":"batch","entry":[{"request":{"method":"PUT","url":"Patient/p"}}]"#,
        r#""type":"batch","entry":[]"#,
        r#""type":"batch""#,
        r#""entry":[{"request":{"method":"DELETE","url":"Patient/p"}}],"meta":{"lastUpdated":"2020-01-01T00:00:00Z"},"type":"batch""#,
    ] {
        agree(bundle(inner).as_bytes());
    }
    for line in ["[]", "{}", "null", "{\"id\":1}", " {\"resourceType\":\"Patient\",\"id\":\"x\"} \t", "{} {}"] {
        agree(line.as_bytes());
    }
    agree(b"{\"resourceType\":\"Patient\",\"id\":\"x\",\"n\":\"\xc3\"}");
}
