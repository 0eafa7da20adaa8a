//! Lines for property tests of few ids, bases and instants, so that most lines are about the same few records.

use proptest::prelude::*;

/// A random line: a resource of few ids and versions, a DELETE entry, a Provenance of any target, or a fault.
pub(crate) fn line() -> impl Strategy<Value = String> {
    let reference = (0..3usize, 0..4usize).prop_map(|(base, id)| {
        format!("{}Patient/p{id}", ["", "https://a.example/r4/", "https://b.example/r4/"][base])
    });
    let meta = (0..30u32, 0..3u32).prop_map(|(second, version)| match second {
        0 => String::new(),
        _ => format!(r#","meta":{{"versionId":"{version}","lastUpdated":"2020-01-01T00:00:{second:02}Z"}}"#),
    });
    let about = (0..3usize, 0..4usize)
        .prop_map(|(kind, id)| format!("{}/p{id}", ["Patient", "Observation", "Provenance"][kind]));
    // What rows refer to beside patients, and rows that such references may lead to, by id and by identifier.
    let context = (0..3usize, 0..4usize, 0..3usize).prop_map(|(base, id, form)| {
        let base = ["", "https://a.example/r4/", "https://b.example/r4/"][base];
        match form {
            0 => format!("{base}Practitioner/p{id}"),
            1 => format!("{base}Location/p{id}/_history/1"),
            _ => format!("{base}Practitioner?identifier=s|{id}"),
        }
    });
    (0..18u32, 0..4usize, meta, reference, proptest::collection::vec(about, 1..3), context).prop_map(
        |(kind, id, meta, reference, about, context)| match kind {
            12..14 => format!(
                r#"{{"resourceType":"Practitioner","id":"p{id}"{meta},"identifier":[{{"system":"s","value":"{}"}},{{"system":"s","value":"{id}"}}]}}"#,
                (id + meta.len()) % 3
            ),
            14..16 => format!(
                r#"{{"resourceType":"Location","id":"p{id}"{meta},"x":{{"reference":"{context}"}},"y":[{{"reference":"Practitioner/p0"}}]}}"#
            ),
            16..18 => format!(
                r#"{{"resourceType":"Observation","id":"p{id}"{meta},"subject":{{"reference":"{reference}"}},"performer":[{{"reference":"{context}"}},{{"url":"Binary/b{id}"}},{{"url":"Binary/b{id}"}}]}}"#
            ),
            0..4 => format!(r#"{{"resourceType":"Observation","id":"p{id}"{meta},"subject":{{"reference":"{reference}"}}}}"#),
            4..7 => format!(r#"{{"resourceType":"Patient","id":"p{id}"{meta}}}"#),
            7..9 => {
                let targets: Vec<String> = about.iter().map(|about| format!(r#"{{"reference":"{about}"}}"#)).collect();
                format!(r#"{{"resourceType":"Provenance","id":"p{id}"{meta},"target":[{}]}}"#, targets.join(","))
            }
            9..=10 => format!(
                r#"{{"resourceType":"Bundle"{meta},"type":"batch","entry":[{{"request":{{"method":"DELETE","url":"{}"}}}}]}}"#,
                about[0]
            ),
            _ => "{".to_string(),
        },
    )
}

/// Appends lines to a file.
pub(crate) fn append(path: &std::path::Path, lines: &[String]) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::io::Write::write_all(&mut &file, text.as_bytes()).unwrap();
}
