//! Random resources and random filters: what `_typeFilter` exports is what the naive search of `naive/search.rs` finds. Values of
//! filters are drawn from the values of the resources and their neighbours, so that boundaries are met.

use crate::generator::{Json, Spelling, text, write};
use crate::naive::search::{Searcher, span};
use crate::naive::search_table::{TYPES, parameters};
use crate::random::{Random, each_case, knob};
use crate::run::scratch;
use outpour::{ExportRequest, Instant, MemorySink, Progress, Store, StoreOptions, export_to_sink};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Resources of each type in a store.
const ROWS: usize = 40;
/// Exports of a store.
const EXPORTS: usize = 60;
const BASE: &str = "https://us.example/fhir";
const NOW: &str = "2024-06-01T12:00:00Z";

const CODES: [&str; 16] = [
    "final",
    "Final",
    "a",
    "A",
    "b",
    "a,b",
    "a|b",
    "x$y",
    r"back\slash",
    "ü",
    "two words",
    "100%",
    "x&y=z",
    "http://h.example/x",
    "a+b",
    "",
];
const SYSTEMS: [&str; 5] = ["http://loinc.org", "urn:s", "s|t", "S", ""];
const TEXTS: [&str; 21] = [
    "Núñe",
    "nune\u{301}",
    "ΠΆΠΑΣ",
    "Anna",
    "ANNA",
    "anna maria",
    "Müller",
    "müller",
    "MÜLLER",
    "u\u{308}",
    "ΠΑΠΑΣ",
    "παπας",
    "Straße",
    "STRASSE",
    "İ",
    "a\"b",
    r"back\",
    "smith-jones",
    "1, High St",
    " lead",
    "",
];
const NUMBERS: [&str; 26] = [
    "5.4",
    "5.40",
    "5.35",
    "5.45",
    "5.449999",
    "5",
    "4.5",
    "5.5",
    "5.94",
    "4.86",
    "0",
    "-0.0",
    "-5.4",
    "100",
    "100.5",
    "99.5",
    "1e2",
    "95",
    "105",
    "104.99",
    "0.05",
    "1E-2",
    "540e-2",
    "12345678901234567890.5",
    "12345678901234567891",
    "1E+2",
];
const REFERENCES: [&str; 16] = [
    "Patient/a",
    "Patient/b",
    "Patient/A",
    "Group/a",
    "https://us.example/fhir/Patient/a",
    "https://us.example/fhir/Group/a/_history/1",
    "https://them.example/fhir/Patient/a",
    "Patient/a/_history/2",
    "urn:uuid:1",
    "#a",
    "Patient/",
    "/Patient/a",
    "patient/a",
    "Practitioner/a.b",
    "Patient?identifier=x",
    "",
];
const URLS: [&str; 11] = [
    "http://q.example/Q",
    "http://q.example/Q|1",
    "http://q.example/Q|1|2",
    "http://q.example/q",
    "http://q.example/Q/",
    "http://q.example/Questionnaire/q1",
    "http://q.example/Questionnaire/q1|1",
    "Questionnaire/q1",
    "urn:oid:1.2",
    "http://q.example/a,b",
    "",
];

/// A date of any precision near a few others, of which some do not exist.
fn date(random: &mut Random) -> String {
    let (year, month, day) = match random.below(3) {
        0 => {
            let year = random.pick(&["2019", "2020", "2021", "1970", "0001"]);
            (year, random.pick(&["01", "02", "03", "12", "13"]), random.pick(&["01", "28", "30", "31", "00"]))
        }
        _ => ("2020", "02", "29"),
    };
    let clock = match random.below(7) {
        0 => return year.to_string(),
        1 => return format!("{year}-{month}"),
        2 => return format!("{year}-{month}-{day}"),
        3 => "23:59",
        4 => "00:00:00",
        5 => "23:59:59",
        _ => "12:00:00",
    };
    let fraction = match clock.len() {
        8 if random.one_in(2) => random.pick(&[".0", ".000", ".5", ".500", ".123", ".123456", ".9999999999999"]),
        _ => "",
    };
    let zone = random.pick(&["Z", "Z", "+00:00", "-05:00", "+14:00", "+05:30", "-13:59", ""]);
    format!("{year}-{month}-{day}T{clock}{fraction}{zone}")
}

fn one_of(choices: &[&str], random: &mut Random) -> Json {
    match random.below(30) {
        0 => Json::Raw(random.pick(&["null", "0", "true", "{}", "[]", "[[null]]"]).to_string()),
        _ => text(random.pick(choices)),
    }
}

/// An object with some of these members.
fn some_of(members: Vec<(&str, Json)>, random: &mut Random) -> Json {
    let mut kept: Vec<(String, Json)> = Vec::new();
    for (name, value) in members {
        if !random.one_in(4) {
            kept.push((name.to_string(), value));
        }
    }
    if kept.len() > 1 && random.one_in(20) {
        kept[0].0 = kept[1].0.clone();
    }
    Json::Map(kept)
}

/// The value, a list with it, or a list in a list.
fn listed(mut value: impl FnMut(&mut Random) -> Json, random: &mut Random) -> Json {
    match random.below(8) {
        0 | 1 => value(random),
        2 => Json::List(Vec::new()),
        3 => Json::List(vec![Json::List(vec![value(random)]), Json::Raw("null".to_string())]),
        _ => Json::List((0..1 + random.below(3)).map(|_| value(random)).collect()),
    }
}

/// A value of a data type.
fn value(of: &str, random: &mut Random) -> Json {
    let date = |random: &mut Random| if random.one_in(30) { one_of(&["soon"], random) } else { text(&date(random)) };
    let number = |random: &mut Random| match random.below(20) {
        0 => text("5.4"),
        1 => Json::Raw(random.pick(&["1e999", "-1e999", "1e-999"]).to_string()),
        _ => Json::Raw(random.pick(&NUMBERS).to_string()),
    };
    match of {
        "boolean" | "truth" => Json::Raw(random.pick(&["true", "false", "false", "null", "\"true\""]).to_string()),
        "code" | "text" => one_of(&CODES, random),
        "string" => one_of(&TEXTS, random),
        "uri" | "canonical" => one_of(&URLS, random),
        "date" | "dateTime" | "instant" => date(random),
        "decimal" => number(random),
        "Coding" => some_of(vec![("system", one_of(&SYSTEMS, random)), ("code", one_of(&CODES, random))], random),
        "CodeableConcept" => {
            let coding = listed(|random| value("Coding", random), random);
            some_of(vec![("coding", coding), ("text", one_of(&TEXTS, random))], random)
        }
        "Identifier" => some_of(vec![("system", one_of(&SYSTEMS, random)), ("value", one_of(&CODES, random))], random),
        "ContactPoint" => {
            let (system, usage) = (one_of(&["phone", "email"], random), one_of(&["home", "work"], random));
            some_of(vec![("system", system), ("use", usage), ("value", one_of(&CODES, random))], random)
        }
        "HumanName" => {
            let given = listed(|random| one_of(&TEXTS, random), random);
            let members = vec![("use", text("Anna")), ("text", one_of(&TEXTS, random)), ("given", given)];
            some_of([members, vec![("family", one_of(&TEXTS, random))]].concat(), random)
        }
        "Address" => {
            let line = listed(|random| one_of(&TEXTS, random), random);
            let members = vec![("type", text("Anna")), ("line", line), ("city", one_of(&TEXTS, random))];
            some_of([members, vec![("use", one_of(&CODES, random))]].concat(), random)
        }
        "Quantity" | "Money" => {
            let units = ["mg", "kg", "m|g", "%"];
            let mut members = vec![("value", number(random)), ("unit", one_of(&units, random))];
            members.extend([("system", one_of(&SYSTEMS, random)), ("code", one_of(&units, random))]);
            if random.one_in(4) {
                members.push(("comparator", one_of(&["<", "<=", ">", ">="], random)));
            }
            members.push(("currency", one_of(&units, random)));
            some_of(members, random)
        }
        "Range" => some_of(vec![("low", value("Quantity", random)), ("high", value("Quantity", random))], random),
        "Period" => some_of(vec![("start", date(random)), ("end", date(random))], random),
        "Timing" => {
            let repeat = some_of(vec![("boundsPeriod", value("Period", random))], random);
            some_of(vec![("event", listed(date, random)), ("repeat", repeat)], random)
        }
        "Reference" => {
            let of = one_of(&["Patient", "Group"], random);
            some_of(vec![("reference", one_of(&REFERENCES, random)), ("type", of)], random)
        }
        _ => unreachable!("{of}"),
    }
}

/// An element below which values stand at paths: their rests, and data types.
fn element(paths: &[(Vec<&str>, &str)], random: &mut Random) -> Json {
    let leaves: Vec<&str> = paths.iter().filter(|(rest, _)| rest.is_empty()).map(|(_, of)| *of).collect();
    if !leaves.is_empty() && (leaves.len() == paths.len() || random.one_in(2)) {
        return value(random.pick(&leaves), random);
    }
    let mut below: BTreeMap<&str, Vec<(Vec<&str>, &str)>> = BTreeMap::new();
    for (rest, of) in paths.iter().filter(|(rest, _)| !rest.is_empty()) {
        below.entry(rest[0]).or_default().push((rest[1..].to_vec(), *of));
    }
    let members = below.into_iter().map(|(name, paths)| (name, listed(|random| element(&paths, random), random)));
    let members = members.collect();
    some_of(members, random)
}

/// A line of a type, with values at some of the paths of its parameters.
fn line(of: &str, id: usize, random: &mut Random) -> Vec<u8> {
    let mut below: BTreeMap<&str, Vec<(Vec<&str>, &str)>> = BTreeMap::new();
    for path in parameters(of).into_iter().flat_map(|(_, _, paths)| paths) {
        let (names, data_type) = path.split_once(':').unwrap();
        let names: Vec<&str> = names.split('.').map(|name| name.split('[').next().unwrap()).collect();
        below.entry(names[0]).or_default().push((names[1..].to_vec(), data_type.split('>').next().unwrap()));
    }
    below.remove("id");
    let mut members = vec![("resourceType".to_string(), text(of)), ("id".to_string(), text(&format!("r{id}")))];
    for (name, paths) in &below {
        if random.one_in(3) {
            continue;
        }
        // Facts of the index must be read: a part that decides is faulty where it is given twice or has another shape.
        match *name {
            "meta" => members.push((name.to_string(), element(paths, random))),
            _ => members.push((name.to_string(), listed(|random| element(paths, random), random))),
        }
        if random.one_in(15) {
            members.push((name.to_string(), element(paths, random)));
        }
    }
    if random.one_in(20) {
        let deep = |levels: usize| Json::Raw(format!("{}\"final\"{}", "[".repeat(levels), "]".repeat(levels)));
        let levels = *random.pick(&[&60, &200]);
        let name = if random.one_in(2) { "x" } else { "status" };
        members.retain(|(own, _)| own != name);
        members.push((name.to_string(), deep(levels)));
    }
    let spelling = if random.one_in(3) { Spelling::Plain } else { Spelling::Wild };
    write(&Json::Map(members), spelling, random)
}

/// A text with a backslash before what separates values.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if r"\,|$".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

/// A text as a URL has it, with some characters encoded that need not be.
fn encoded(text: &str, random: &mut Random) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match "%& #".contains(c) || random.one_in(12) {
            true => c.to_string().bytes().for_each(|byte| out += &format!("%{byte:02X}")),
            false => out.push(c),
        }
    }
    out
}

/// One value of a criterion; empty where the draw gives none that a search can have.
fn wanted(kind: &str, types: &[&str], modifier: &str, random: &mut Random) -> String {
    let prefix = random.pick(&["", "", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"]);
    match kind {
        "token" => {
            let code = match types[0] {
                "boolean" | "truth" => random.pick(&["true", "false"]),
                "id" => random.pick(&["r1", "r2", "r33", "R1", "r100"]),
                _ => random.pick(&CODES),
            };
            let takes_system = types.iter().any(|of| ["Coding", "CodeableConcept", "Identifier"].contains(of));
            match random.below(4) {
                0 if takes_system => {
                    format!("{}|{}", escaped(random.pick(&SYSTEMS)), escaped(code)).replacen("|", "|", 1)
                }
                1 if takes_system && !code.is_empty() => format!("|{}", escaped(code)),
                2 if takes_system => format!("{}|", escaped(random.pick(&SYSTEMS))),
                _ => escaped(code),
            }
        }
        "date" => loop {
            let date = date(random);
            if span(&date).is_some() {
                let spaced = random.one_in(3);
                break format!("{prefix}{}", if spaced { date.replace('+', " ") } else { date });
            }
        },
        "string" => {
            let whole = random.pick(&TEXTS);
            let part: String = whole.chars().skip(random.below(2)).take(1 + random.below(6)).collect();
            escaped(if random.one_in(2) { whole } else { &part })
        }
        "number" => format!("{prefix}{}", random.pick(&NUMBERS)),
        "quantity" => {
            let number = format!("{prefix}{}", random.pick(&NUMBERS));
            let (system, unit) = (random.pick(&SYSTEMS), random.pick(&["mg", "kg", "m|g", "%", ""]));
            if random.one_in(2) { number } else { format!("{number}|{}|{}", escaped(system), escaped(unit)) }
        }
        "uri" => escaped(random.pick(&URLS)),
        _ if types[0] == "canonical" && random.one_in(2) => random.pick(&URLS).replace(',', "\\,"),
        _ if types[0] == "canonical" => escaped(random.pick(&URLS)),
        _ if !modifier.is_empty() => random.pick(&["a", "b", "A", "a.b"]).to_string(),
        _ if random.one_in(3) => random.pick(&["a", "b", "A", "a.b"]).to_string(),
        _ => escaped(random.pick(&REFERENCES)),
    }
}

/// A criterion of a type.
fn criterion(of: &str, random: &mut Random) -> String {
    let all = parameters(of);
    let (name, kind, paths) = all[random.below(all.len())];
    let types: Vec<&str> = paths.iter().map(|path| path.split([':', '>']).nth(1).unwrap()).collect();
    let modifier = match (random.below(5), kind) {
        (0, _) => "missing",
        (1 | 2, "token") => "not",
        (1, "string") => "exact",
        (2, "string") => "contains",
        (1, "reference") if types[0] == "Reference" => random.pick(&["Patient", "Group"]),
        _ => "",
    };
    let colon = if modifier.is_empty() { "" } else { ":" };
    let count = if random.one_in(25) { 20 } else { 1 + random.below(3) };
    let values: Vec<String> = match modifier {
        "missing" => vec![random.pick(&["true", "false"]).to_string()],
        _ => (0..count).map(|_| wanted(kind, &types, modifier, random)).filter(|one| one != "|").collect(),
    };
    match values.iter().all(String::is_empty) {
        true => criterion(of, random),
        false => {
            let values: Vec<String> = values.iter().map(|one| encoded(one, random)).collect();
            format!("{}={}", encoded(&format!("{name}{colon}{modifier}"), random), values.join(","))
        }
    }
}

/// Lines of the files of an export, which makes search columns if the store may have them.
fn export(store: &Store, request: &ExportRequest) -> BTreeSet<Vec<u8>> {
    let (mut sink, now) = (MemorySink::default(), NOW.parse::<Instant>().unwrap());
    export_to_sink(store, request, now, &mut sink, &Progress::default()).unwrap_or_else(|error| panic!("{error}"));
    let files = sink.files().into_iter().filter(|(name, _)| name.ends_with(".ndjson") && !name.contains('/'));
    files.flat_map(|(_, file)| file.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
}

/// TFILTER-01, TFILTER-02, TFILTER-03, TFILTER-10, TFILTER-11: whatever resources and filters are, those resources are exported
/// that the naive search finds.
#[test]
fn filters_find_what_the_naive_search_finds() {
    let found = std::sync::atomic::AtomicUsize::new(0);
    each_case("filters at random", knob("OUTPOUR_TEST_CASES", 6), |case, random| {
        let scratch = scratch();
        let directory = scratch.path().join("store");
        std::fs::create_dir(&directory).unwrap();
        for (of, _) in TYPES {
            let mut lines: Vec<Vec<u8>> = (0..ROWS).map(|id| line(of, id, random)).collect();
            lines.push(Vec::new());
            std::fs::write(directory.join(format!("{of}.ndjson")), lines.join(&b'\n')).unwrap();
        }
        // Of the stores one in three gets a search column for each parameter, one drops most of them again, one has none.
        let columns = [1000, 4, 0][case as usize % 3];
        let options = StoreOptions::default().index_dir(scratch.path().join("index")).search_columns(columns);
        let store = Store::open_with(&directory, options).unwrap();
        let request = || ExportRequest::system().fhir_bases([BASE]);
        let whole = export(&store, &request());
        assert!(whole.len() > ROWS * TYPES.len() / 2, "{}", whole.len());
        let parsed: Vec<(&Vec<u8>, Value)> = whole
            .iter()
            .filter(|line| !line.is_empty())
            .map(|line| {
                let mut reader = serde_json::Deserializer::from_slice(line);
                reader.disable_recursion_limit();
                (line, Value::deserialize(&mut reader).unwrap())
            })
            .collect();
        let searcher = Searcher { bases: &[BASE], now: span(NOW).unwrap().0 };
        for _ in 0..EXPORTS {
            let mut filters = Vec::new();
            for (of, _) in TYPES {
                for _ in 0..random.below(4) {
                    let criteria: Vec<String> = (0..1 + random.below(3)).map(|_| criterion(of, random)).collect();
                    filters.push(format!("{of}?{}", criteria.join("&")));
                }
            }
            let exported = export(&store, &request().type_filters(&filters));
            for (line, resource) in &parsed {
                let (is_found, expected) = (exported.contains(*line), searcher.meets_one(&filters, resource));
                let of = resource["resourceType"].as_str().unwrap();
                let own: Vec<&String> = filters.iter().filter(|filter| filter.starts_with(of)).collect();
                let shown = String::from_utf8_lossy(line);
                assert!(is_found == expected, "found {is_found}, expected {expected}: {own:#?}\n{shown}\n{resource}");
                found.fetch_add(usize::from(is_found && !own.is_empty()), std::sync::atomic::Ordering::Relaxed);
            }
        }
        let names = std::fs::read_dir(scratch.path().join("index")).unwrap().map(|entry| entry.unwrap().file_name());
        let files = names.filter(|name| name.to_str().unwrap().starts_with("search-")).count();
        assert_eq!(files > 0, columns > 0, "{files} files of search columns");
    });
    let found = found.into_inner();
    println!("{found} resources met a filter");
    assert!(found > 0);
}
