//! The rewriter beside its slow twin and beside serde_json, over odd rows and random ones, in pieces of any size (ATTACH-02,
//! ATTACH-04).

use super::url_rewriter::UrlRewriter;
use crate::fhir::attachment_url::{AttachmentPath, AttachmentUrls};
use crate::fhir::reference::Reference;
use crate::verify::rewritten_line::rewritten_line;
use proptest::prelude::*;
use serde_json::Value;

/// URLs below a base, of every Binary but one named `gone`; of the version 2 unless one is named.
fn new_url(found: Reference<'_>) -> Option<String> {
    let urls = AttachmentUrls::new("https://a.example/fhir", AttachmentPath::Plain);
    (found.id != "gone").then(|| urls.json_text(found.id, found.version.or(Some("2"))))
}

/// The rewriter over pieces that end at `cuts`.
fn rewrite_pieces(line: &[u8], cuts: &[usize]) -> (Vec<u8>, bool) {
    let mut rewriter = UrlRewriter::default();
    // A row before it leaves nothing behind.
    for torn in [&br#"{"extension":[{"url":"Bina"#[..], br#"{"a":{"request"  :"#, br#"{"url":"Binary/a\"#, br#"{"url""#]
    {
        let mut out = Vec::new();
        rewriter.feed(torn, &mut new_url, &mut out);
        assert!(!rewriter.end_row(&mut out));
        assert_eq!(out, torn);
    }
    let (mut out, mut start) = (Vec::new(), 0);
    for end in cuts.iter().copied().chain([line.len()]) {
        let end = end.clamp(start, line.len());
        rewriter.feed(&line[start..end], &mut new_url, &mut out);
        start = end;
    }
    let is_complete = rewriter.end_row(&mut out);
    (out, is_complete)
}

/// Rewrites a row whole, byte by byte and in two pieces; all give the same, and the twin, too.
#[track_caller]
fn rewrite(line: &str) -> String {
    let line = line.as_bytes();
    let every: Vec<usize> = (0..line.len()).collect();
    let twin = rewritten_line(line, new_url);
    for cuts in [vec![], every].into_iter().chain((0..line.len()).step_by(1 + line.len() / 300).map(|cut| vec![cut])) {
        assert_eq!(rewrite_pieces(line, &cuts), (twin.clone(), true), "{cuts:?}");
    }
    String::from_utf8(twin).unwrap()
}

/// ATTACH-02, ATTACH-04: wherever a URL of an attachment stands, its text changes and nothing else.
#[test]
fn urls_of_attachments_become_absolute() {
    let new = "https://a.example/fhir/attachment/";
    for (line, expected) in [
        (
            r#"{"content":[{"attachment":{"url":"Binary/1","size":5}}]}"#,
            format!(r#"{{"content":[{{"attachment":{{"url":"{new}1?v=2","size":5}}}}]}}"#),
        ),
        // Escapes in name and value, white space, another place, several.
        (
            r#"{ "photo" : [ { "\u0075rl" : "\u0042inary\/x" } , {"url":"Binary/y"}],"url":"Binary/z"}"#,
            format!(r#"{{ "photo" : [ {{ "\u0075rl" : "{new}x?v=2" }} , {{"url":"{new}y?v=2"}}],"url":"{new}z?v=2"}}"#),
        ),
        // In an extension and in what is contained; the URL of the extension itself stays.
        (
            r#"{"extension":[{"url":"Binary/e","valueAttachment":{"url":"Binary/1"}}],"contained":[{"content":{"url":"Binary/2"}}]}"#,
            format!(
                r#"{{"extension":[{{"url":"Binary/e","valueAttachment":{{"url":"{new}1?v=2"}}}}],"contained":[{{"content":{{"url":"{new}2?v=2"}}}}]}}"#
            ),
        ),
        (
            r#"{"modifierExtension":{"extension":[{"extension":[{"valueAttachment":{"url":"Binary/1"},"url":"Binary/e"}],"url":"Binary/f"}],"url":"Binary/g"},"url":"Binary/2"}"#,
            format!(
                r#"{{"modifierExtension":{{"extension":[{{"extension":[{{"valueAttachment":{{"url":"{new}1?v=2"}},"url":"Binary/e"}}],"url":"Binary/f"}}],"url":"Binary/g"}},"url":"{new}2?v=2"}}"#
            ),
        ),
        // An entry of a Bundle is asked for where it was asked for.
        (
            r#"{"entry":[{"request":{"method":"PUT","url":"Binary/1"},"resource":{"url":"Binary/1"}}],"link":[{"url":"Binary/1"}]}"#,
            format!(
                r#"{{"entry":[{{"request":{{"method":"PUT","url":"Binary/1"}},"resource":{{"url":"{new}1?v=2"}}}}],"link":[{{"url":"Binary/1"}}]}}"#
            ),
        ),
        (r#"{"url":"Binary/1/_history/7"}"#, format!(r#"{{"url":"{new}1?v=7"}}"#)),
    ] {
        assert_eq!(rewrite(line), expected);
    }
}

/// ATTACH-02: what is no URL of an attachment of the store stays, byte for byte.
#[test]
fn other_texts_stay() {
    for line in [
        r#"{"url":"Binary/gone"}"#,
        r#"{"url":"https://b.example/Binary/1"}"#,
        r#"{"url":["Binary/1"],"uri":"Binary/1","urls":"Binary/1","reference":"Binary/1"}"#,
        r#"{"note":"\"url\":\"Binary/1\"","a":["url","Binary/1"],"b":{"c":"url"},"d":"Binary/1"}"#,
        r#"{"url":1,"a":{"url":null},"b":"Binary/1"}"#,
        r#"{"url":{"a":"Binary/1"}}"#,
        r#"{"url":"Binary/\ud800"}"#,
        r#"{"url":"Binary/a\""}"#,
        "{}",
    ] {
        assert_eq!(rewrite(line), line);
    }
    // Names and values that are too long to be looked at, up to the bounds and over them.
    for len in [254, 255, 256, 2400, 70_000] {
        let long = "~".repeat(len);
        let line =
            format!(r#"{{"{long}":"Binary/1","url":"Binary/{long}","a":{{"data":"{long}\\","url":"Binary/1"}}}}"#);
        assert_eq!(rewrite(&line).contains(&format!("\"Binary/{long}")), len > 255);
        let escaped = "\\u007e".repeat(len.min(300));
        assert_eq!(rewrite(&format!(r#"{{"url":"Binary/{escaped}"}}"#)).contains("Binary"), len > 255);
    }
    // Containers in one another without end.
    let deep = format!("{}{{\"url\":\"Binary/1\"}}{}", "{\"extension\":[".repeat(3000), "]}".repeat(3000));
    let line = format!("{{\"a\":{deep},\"url\":\"Binary/1\"}}");
    let rewritten = String::from_utf8(rewrite_pieces(line.as_bytes(), &[7, 12_345]).0).unwrap();
    assert!(rewritten.contains(&deep) && rewritten.ends_with("\"https://a.example/fhir/attachment/1?v=2\"}"));
}

/// A name, often one that counts.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["url", "\\u0075r\\u006c", "extension", "\\u0065xtension", "request", "link"]),
        1 => prop::sample::select(vec!["a", "Url", "urls", "url\\\\", "reference", "attachment", ""]),
    ]
    .prop_map(str::to_string)
}

/// A text, often a URL of a Binary.
fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "Binary/1",
        "Binary\\/x",
        "\\u0042inary/y",
        "Binary/gone",
        "Binary/1/_history/3",
        "Binary/",
        "Binary/a\\\"",
        "url",
        "\\\\",
        "\\\"url\\\":",
        "é{[",
        "\\n",
        "",
    ])
    .prop_map(str::to_string)
}

/// A value, some containers deep.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![3 => text().prop_map(|text| format!("\"{text}\"")), 1 => Just("-1.5e3".to_string()), 1 => Just("null".to_string())];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let space = || prop::sample::select(vec!["", "", " ", "\t \r"]);
        prop_oneof![
            1 => (prop::collection::vec(inner.clone(), 0..3), space()).prop_map(|(list, space)| format!("[{space}{}]", list.join(&format!("{space},")))),
            3 => object(inner, space()),
        ]
    })
}

/// An object of values.
fn object(
    value: impl Strategy<Value = String>,
    space: impl Strategy<Value = &'static str>,
) -> impl Strategy<Value = String> {
    (prop::collection::vec((name(), value), 0..4), space).prop_map(|(members, space)| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("\"{name}\"{space}:{space}{value}{space}")).collect();
        format!("{{{space}{}}}", members.join(&format!("{space},{space}")))
    })
}

/// What is expected of a value, by serde_json; equal names are numbered to stay apart.
fn rewritten_value(value: &mut Value, name: Option<&str>) {
    const KEEPERS: [&str; 4] = ["extension", "modifierExtension", "request", "link"];
    match value {
        Value::Array(list) => list.iter_mut().for_each(|element| match element {
            Value::Array(_) => rewritten_value(element, None),
            other => rewritten_value(other, name.filter(|name| KEEPERS.contains(name))),
        }),
        Value::Object(members) => {
            let keeps = name.is_some_and(|name| KEEPERS.contains(&name));
            for (member, value) in members.iter_mut() {
                let found = value.as_str().filter(|_| member == "url" && !keeps);
                match found.and_then(crate::fhir::attachment_url::named_binary).and_then(new_url) {
                    Some(new) => *value = new.into(),
                    None => rewritten_value(value, Some(member)),
                }
            }
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Random rows in random pieces: the rewriter writes the bytes of its twin, and they are what serde_json expects.
    #[test]
    fn the_rewriter_equals_its_twins(row in object(value(), Just("")), cuts in prop::collection::vec(0usize..600, 0..6)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let twin = rewritten_line(row.as_bytes(), new_url);
        prop_assert_eq!(rewrite_pieces(row.as_bytes(), &cuts), (twin.clone(), true), "{}", &row);
        let mut expected: Value = serde_json::from_str(&row).unwrap();
        rewritten_value(&mut expected, None);
        prop_assert_eq!(serde_json::from_slice::<Value>(&twin).unwrap(), expected);
        // What is rewritten already stays as it is.
        prop_assert_eq!(&rewritten_line(&twin, new_url), &twin);
    }

    /// Bytes that are no JSON do not make the rewriter panic, and are copied but for what looks like a URL.
    #[test]
    fn any_bytes_are_survived(bytes in "[\\{\\}\\[\\]:,\"\\\\ a1]{0,80}", cut in 0usize..80) {
        for text in [bytes.clone(), format!("{{\"extension\":{bytes}")] {
            prop_assert_eq!(rewrite_pieces(text.as_bytes(), &[cut]).0, text.as_bytes());
        }
    }
}
