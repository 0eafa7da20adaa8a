//! Compressed files whose checksum fails or that are cut off: only lines of members that are proven are exported, the rest
//! is one fault, and `verify` and the naive oracle count the same.

use crate::comparison::Comparison;
use crate::golden::AS_OF;
use crate::naive::Who;
use crate::random::{Random, each_case, knob};
use crate::run::{self, Bounds, Export, scratch};
use std::io::Write;
use std::path::Path;

/// One gzip member.
pub(crate) fn gzip(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One zstd frame.
fn zstd_frame(bytes: &[u8], has_checksum: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(has_checksum).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A row with some text that hardly compresses, so that a flipped bit often alters a value and nothing else.
fn row(number: usize, random: &mut Random) -> Vec<u8> {
    let text: String = (0..random.below(200)).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    format!(
        r#"{{"resourceType":"Observation","id":"o{number}","subject":{{"reference":"Patient/p"}},"note":[{{"text":"{text}"}}]}}"#
    )
    .into_bytes()
}

/// A compressed file with one altered byte that only the checksum at its end tells.
fn altered(name: &str) -> (Vec<u8>, usize) {
    let mut random = Random::new(1, 1);
    let text: Vec<u8> = (0..500).flat_map(|number| [row(number, &mut random), b"\n".to_vec()].concat()).collect();
    if name.ends_with(".gz") {
        let mut file = gzip(&text, 0);
        let middle = file.len() / 2;
        let at = middle
            + file[middle..]
                .windows(8)
                .position(|part| part == br#"text":"a"#)
                .unwrap_or_else(|| file[middle..].windows(7).position(|part| part == br#"text":""#).unwrap());
        file[at + 7] ^= 1;
        return (file, text.len());
    }
    let file = zstd_frame(&text, true);
    for at in (file.len() / 4..file.len()).step_by(7) {
        let mut altered = file.clone();
        altered[at] ^= 1;
        if let Err(error) = zstd::stream::decode_all(&altered[..])
            && error.to_string().contains("checksum")
        {
            return (altered, text.len());
        }
    }
    panic!("no byte is covered by the checksum alone");
}

/// Exports everything with these arguments more; the export, and its exit code.
fn export(store: &Path, out: &Path, more: &[&str]) -> (Export, i32) {
    // Rows that are not proven any more are gone as far as the index knows.
    let common = ["--system", "--as-of", AS_OF, "--allow-missing", "100"];
    let run = run::export(store, out, &[&common, more].concat());
    assert!([0, 1].contains(&run.code), "{run:#?}");
    (Export::read(out, Bounds::DEFAULT), run.code)
}

/// Makes an index again under a policy.
#[track_caller]
fn remake(store: &Path, index: &Path, policy: &str) {
    let (store, index) = (store.to_str().unwrap(), index.to_str().unwrap());
    let words = ["index", "--store", store, "--index-dir", index, "--allow-missing", "100", "--remake"];
    let done = run::run(&[&words[..], &["--unproven", policy]].concat());
    assert_eq!(done.code, 0, "{done:#?}");
}

/// Both directions of `verify` find what the index and the export say.
#[track_caller]
fn assert_verified(store: &Path, out: &Path, index: &Path) {
    let (store, out, index) = (store.to_str().unwrap(), out.to_str().unwrap(), index.to_str().unwrap());
    let verified = run::run(&["verify", store, "--index-dir", index]);
    assert_eq!(verified.code, 0, "{verified:#?}");
    let verified = run::run(&["verify", out, "--ledger"]);
    assert_eq!(verified.code, 0, "{verified:#?}");
}

/// No row leaves of a member whose checksum fails; the message names the lines and the place in the file. `--unproven
/// export` gives the rows, as a choice that the index keeps until it is made again by another.
#[test]
fn altered_values_do_not_leave() {
    for name in ["a.ndjson.gz", "a.ndjson.zst"] {
        let scratch = scratch();
        let (store, index) = (scratch.path().join("store"), scratch.path().join("index"));
        std::fs::create_dir(&store).unwrap();
        let (file, bytes) = altered(name);
        std::fs::write(store.join(name), file).unwrap();
        let by = |policy: &'static [&'static str], step: &str| {
            let out = scratch.path().join(step);
            let (export, code) = export(&store, &out, &[&["--index-dir", index.to_str().unwrap()], policy].concat());
            assert_eq!(code, 1, "{name} {step}");
            assert_verified(&store, &out, &index);
            let rows = export.lines().get("Observation").map_or(0, Vec::len);
            let texts: Vec<String> = export.messages().into_iter().map(|message| message.text).collect();
            (rows, export.ledger()["faulty"], texts.join("\n"))
        };
        let (rows, faulty, text) = by(&[], "new");
        assert_eq!((rows, faulty), (0, 1), "{name}: {text}");
        let named = format!("{name}: from line 1 on, bytes 0 to {bytes} uncompressed, from byte 0 of the file: ");
        assert!(text.contains(&named) && text.contains("append whole members only"), "{text}");
        remake(&store, &index, "export");
        let (rows, faulty, text) = by(&["--unproven", "export"], "export");
        assert_eq!((rows, faulty), (500, 1), "{name}: {text}");
        assert!(text.contains(&format!("{name}: line 501 at byte {bytes}: ")), "{text}");
        assert_eq!(by(&[], "kept").0, 500, "{name}");
        remake(&store, &index, "fault");
        assert_eq!(by(&["--unproven", "fault"], "fault").0, 0, "{name}");
        assert_eq!(by(&[], "kept-again").0, 0, "{name}");
    }
}

/// Rows that another policy makes visible are new to every reader: an increment has them, though no file has changed.
#[test]
fn rows_that_become_visible_are_new() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let dated = |id: &str| {
        format!(
            "{{\"resourceType\":\"Patient\",\"id\":\"{id}\",\"meta\":{{\"lastUpdated\":\"2020-01-01T00:00:00Z\"}}}}\n"
        )
    };
    let mut last = gzip(dated("b").as_bytes(), 6);
    let end = last.len();
    last[end - 8] ^= 1;
    std::fs::write(store.join("p.ndjson.gz"), [gzip(dated("a").as_bytes(), 6), last].concat()).unwrap();
    let ids = |export: &Export| -> Vec<String> {
        let lines = export.lines().remove("Patient").unwrap_or_default();
        lines.iter().map(|line| String::from_utf8_lossy(line)[32..33].to_string()).collect()
    };
    assert_eq!(ids(&export(&store, &scratch.path().join("full"), &[]).0), ["a"]);
    let later = |step: &str, more: &[&str]| {
        let out = scratch.path().join(step);
        let args = ["--system", "--as-of", "2026-07-01T00:00:00Z", "--since", AS_OF];
        let run = run::export(&store, &out, &[&args, more].concat());
        assert_eq!(run.code, 1, "{run:#?}");
        Export::read(&out, Bounds::DEFAULT)
    };
    assert_eq!(ids(&later("nothing", &[])), Vec::<String>::new());
    remake(&store, &store.join(".outpour"), "export");
    assert!(ids(&later("new", &["--unproven", "export"])).contains(&"b".to_string()));
}

/// A member that is still being written is one fault; once it is whole, its rows are exported, and those before it stay.
#[test]
fn a_torn_append_is_taken_when_it_is_whole() {
    for name in ["a.ndjson.gz", "a.ndjson.zst"] {
        let scratch = scratch();
        let (store, index) = (scratch.path().join("store"), scratch.path().join("index"));
        std::fs::create_dir(&store).unwrap();
        let path = store.join(name);
        let mut random = Random::new(2, 2);
        let mut member = |number| {
            let line = [row(number, &mut random), b"\n".to_vec()].concat();
            if name.ends_with(".gz") { gzip(&line, 6) } else { zstd_frame(&line, true) }
        };
        let (first, second) = (member(1), member(2));
        for (step, bytes, rows, faulty) in [
            ("first", first.clone(), 1, 0),
            ("torn", [&first[..], &second[..second.len() - 2]].concat(), 1, 1),
            ("whole", [&first[..], &second[..]].concat(), 2, 0),
            ("garbage", [&first[..], &second[..], b"garbage"].concat(), 2, 1),
            ("cut", [&first[..], &second[..6]].concat(), 1, 1),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let out = scratch.path().join(step);
            let (export, _) = export(&store, &out, &["--index-dir", index.to_str().unwrap()]);
            let found = (export.lines()["Observation"].len(), export.ledger()["faulty"]);
            assert_eq!(found, (rows, faulty), "{name} {step}");
            assert_verified(&store, &out, &index);
        }
    }
}

/// Random files of members, with a byte flipped, a cut, or bytes behind them: the binary exports what the naive oracle
/// decodes member by member, and counts the same.
#[test]
fn only_lines_of_proven_members_are_exported() {
    let count = knob("OUTPOUR_TEST_CASES", 30);
    each_case("unproven", count, |_, random| {
        let scratch = scratch();
        let (store, index) = (scratch.path().join("store"), scratch.path().join("index"));
        std::fs::create_dir(&store).unwrap();
        for number in 0..1 + random.below(3) {
            let is_gzip = random.one_in(2);
            let lines: Vec<Vec<u8>> = (0..random.below(40))
                .map(|line| match random.below(12) {
                    0 => b"{\"resourceType\":".to_vec(),
                    1 => br#"{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"DELETE","url":"Observation/o1"}}]}"#.to_vec(),
                    _ => row(100 * number + line, random),
                })
                .collect();
            let text = crate::generator::join(&lines, random);
            let mut rest = &text[..];
            let mut file = Vec::new();
            while !rest.is_empty() || file.is_empty() {
                // Half of the members end with a line, and some are empty.
                let mut take = random.below(rest.len() + 1);
                if random.one_in(2) {
                    take = rest[..take].iter().rposition(|byte| *byte == b'\n').map_or(take, |newline| newline + 1);
                }
                if random.one_in(4) {
                    take = rest.len();
                }
                let (member, after) = rest.split_at(take);
                rest = after;
                file.extend(match is_gzip {
                    true => gzip(member, [0, 1, 6][random.below(3)]),
                    false => zstd_frame(member, random.one_in(2)),
                });
                if random.one_in(6) {
                    file.extend(if is_gzip { &[0; 5][..] } else { &b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..] });
                }
            }
            match random.below(5) {
                0 => file.truncate(random.below(file.len() + 1)),
                1 | 2 => {
                    let at = random.below(file.len());
                    file[at] ^= 1 << random.below(8);
                }
                3 => file.extend(b"\x1f\x8b\x08 or something else"),
                _ => {}
            }
            let suffix = if is_gzip { "gz" } else { "zst" };
            std::fs::write(store.join(format!("{number}.ndjson.{suffix}")), file).unwrap();
        }
        let index_dir = index.to_str().unwrap();
        let comparison = Comparison::new(Who::System, AS_OF).with(&["--index-dir", index_dir]);
        let oracle = comparison.read(&store);
        let out = scratch.path().join("out");
        comparison.check(&oracle, &store, &out, scratch.path()).unwrap();
        assert_verified(&store, &out, &index);
        // The same again after the other policy was in force.
        let other = scratch.path().join("other");
        remake(&store, &index, "export");
        let (_, code) = export(&store, &other, &["--index-dir", index_dir, "--unproven", "export"]);
        assert!([0, 1].contains(&code));
        assert_verified(&store, &other, &index);
        remake(&store, &index, "fault");
        let comparison = comparison.with(&["--unproven", "fault"]);
        let out = scratch.path().join("again");
        comparison.check(&oracle, &store, &out, scratch.path()).unwrap();
        assert_verified(&store, &out, &index);
    });
}
