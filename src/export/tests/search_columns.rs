//! Filters find the same rows whether columns, lines passed over fast, or parsed lines decide: plain, packed, appended,
//! compacted, with columns of all segments or of some, intact or damaged (TFILTER-10).

use crate::pack::writer::FrameCoder;
use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;

use crate::export::planning::plan_cancellably;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::date_range::TimeSpan;
use crate::fhir::search::filter_set::FilterSet;
use crate::fhir::search::parameter::ParameterName;
use crate::fhir::search::type_filter::TypeFilter;
use crate::index::search::column_file::{ColumnFileWriter, SegmentKey};
use crate::index::search::maintenance::{DroppedColumns, maintain_columns};
use crate::index::snapshot::Snapshot;
use crate::index::test_lines::append;
use crate::pack::{PackOptions, pack};
use crate::progress::Progress;
use crate::request::ExportRequest;
use crate::select::segment_filter::FilterWork;
use crate::select::type_filters::ColumnUse;
use crate::store::{SearchColumnOptions, Store, StoreOptions};
use crate::sys::durability::FileSync;

const T: &str = "2022-03-11T00:00:00Z";
const BASE: &str = "https://a.example/r4";

/// Members of an Observation, each in forms that a search tells apart, and in odd ones.
const MEMBERS: [&[&str]; 9] = [
    &[
        r#""status":"final""#,
        r#""status":"amended""#,
        r#""status":["final"]"#,
        r#""status":7"#,
        r#""status":null"#,
        r#""st\u0061tus":"f\u0069nal""#,
    ],
    &[
        r#""category":[{"coding":[{"system":"c","code":"lab"},{"code":"bare"}],"text":"Labs"}]"#,
        r#""category":[{"coding":[{"system":"d","code":"lab"}]},{"coding":[{"system":"c","code":"vital"}]}]"#,
        r#""category":{"coding":{"code":"lab"}}"#,
        r#""category":[{"text":"lab"}]"#,
        r#""category":[]"#,
    ],
    &[
        r#""code":{"coding":[{"system":"http://loinc.org","code":"1-1"}]}"#,
        r#""code":{"coding":[{"system":"http://loinc.org","code":"2-2"},{"system":"x","code":"1-1"}]}"#,
        r#""code": { "text" : "1-1" }"#,
        "DEEP",
    ],
    &[
        r#""subject":{"reference":"Patient/p0"}"#,
        r#""subject":{"reference":"https://a.example/r4/Patient/p1"}"#,
        r#""subject":{"reference":"https://b.example/Patient/p0"}"#,
        r#""subject":{"reference":"Group/p0"}"#,
        r#""subject":{"type":"Patient","identifier":{"value":"x"}}"#,
    ],
    &[
        r#""effectiveDateTime":"2020""#,
        r#""effectiveDateTime":"2020-05""#,
        r#""effectiveDateTime":"2020-05-01""#,
        r#""effectiveDateTime":"2020-05-01T10:00:00Z""#,
        r#""effectiveDateTime":"2020-05-01T10:00:00.5+00:00""#,
        r#""effectiveDateTime":"2020-05-01T10:00:00.1234567Z""#,
        r#""effectiveDateTime":"2016-12-31T23:59:60Z""#,
        r#""effectiveDateTime":"soon""#,
        r#""effectivePeriod":{"start":"2020-04-30T00:00:00Z","end":"2020-05-02"}"#,
        r#""effectivePeriod":{"end":"2020-05-02"},"effectiveInstant":"2021-01-01T00:00:00Z""#,
    ],
    &[
        r#""valueQuantity":{"value":5.40,"unit":"percent","system":"http://unitsofmeasure.org","code":"%"}"#,
        r#""valueQuantity":{"value":5.4,"comparator":"<","code":"%"}"#,
        r#""valueQuantity":{"value":540e-2,"unit":"%"}"#,
        r#""valueQuantity":{"value":1e400}"#,
        r#""valueString":"Hello, World""#,
        r#""valueCodeableConcept":{"coding":[{"code":"1-1"}]}"#,
    ],
    &[
        r#""identifier":[{"system":"i","value":"42"},{"value":"43"}]"#,
        r#""identifier":{"system":"i"}"#,
        r#""identifier":null"#,
    ],
    &[
        r#""meta":{"profile":["http://p.example/a|2","http://p.example/b"],"tag":[{"system":"t","code":"x"}]}"#,
        r#""meta":{"lastUpdated":"2020-05-01T10:00:00Z","security":[{"code":"R"}]}"#,
        r#""meta":{"tag":{"code":"x"}}"#,
    ],
    &[r#""issued":"2020-05-01T10:00:00.000Z""#, r#""note":[{"text":"final lab 1-1 p0 42"}]"#],
];

/// Criteria, of which some have no column.
const CRITERIA: [&str; 44] = [
    "status=final",
    "status=amended,final",
    "status:not=final",
    "status:missing=true",
    "category=lab",
    "category=c|lab",
    "category=|lab",
    "category=c|",
    "category=bare,vital",
    "category:not=lab",
    "category:missing=false",
    "code=1-1",
    "code=http://loinc.org|1-1,3-3",
    "code:missing=false",
    "combo-code=1-1",
    "subject=p0",
    "subject=Patient/p0",
    "subject=https://a.example/r4/Patient/p1,Group/p0",
    "subject:Patient=p1",
    "patient=p0",
    "patient:missing=true",
    "date=2020",
    "date=ge2020-05-01",
    "date=gt2020-05-01T10:00:00Z",
    "date=lt2020-05-01T10:00:00.2Z",
    "date=le2020-05",
    "date=ne2020-05-01",
    "date=sa2020-04-30,eb2017",
    "date=ap2020-05-01",
    "date=2016-12-31T23:59:60Z",
    "date:missing=true",
    "value-quantity=5.4",
    "value-quantity=lt5||%25",
    "value-quantity=gt5|http://unitsofmeasure.org|%25",
    "value-string=hello",
    "value-concept=1-1",
    "identifier=i|42",
    "identifier=43,i|",
    "_profile=http://p.example/a",
    "_profile=http://p.example/a|1,http://p.example/b",
    "_tag=x",
    "_security=R",
    "_lastUpdated=ge2020-05-01",
    "_id=o1,o3,o5",
];

/// A random Observation without an id: members in any order, some twice.
fn members() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..MEMBERS.len(), 0..10usize), 0..9)
}

/// The line of an Observation, or of a Patient.
fn line(number: usize, members: &[(usize, usize)]) -> String {
    if number % 7 == 6 {
        return format!(r#"{{"resourceType":"Patient","id":"p{number}","status":"final","gender":"female"}}"#);
    }
    let mut seen = BTreeSet::new();
    // `subject` and `meta` decide, and must not be there twice.
    let kept = members.iter().filter(|(kind, _)| ![3, 7].contains(kind) || seen.insert(*kind));
    let deep = format!(r#""code":{}1{}"#, "[".repeat(140), "]".repeat(140));
    let text = |(kind, form): &(usize, usize)| match MEMBERS[*kind][form % MEMBERS[*kind].len()] {
        "DEEP" => format!(",{deep}"),
        text => format!(",{text}"),
    };
    let members: String = kept.map(text).collect();
    format!(r#"{{"resourceType":"Observation","id":"o{number}"{members}}}"#)
}

/// A random filter.
fn filter() -> impl Strategy<Value = String> {
    proptest::collection::vec(0..CRITERIA.len(), 1..4).prop_map(|criteria| {
        let criteria: Vec<&str> = criteria.into_iter().map(|i| CRITERIA[i]).collect();
        format!("Observation?{}", criteria.join("&"))
    })
}

/// Ids that a request selects, and how its filters were decided.
fn selected(snapshot: &Snapshot, filters: &[String], columns: ColumnUse) -> (BTreeSet<String>, FilterWork) {
    let mut request = ExportRequest::system().type_filters(filters);
    request.fhir_bases.push(BASE.to_string());
    let plan = plan_cancellably(snapshot, &request, columns, &Progress::default()).unwrap();
    assert!(plan.ledger().balances(), "{:?}", plan.ledger());
    let (mut ids, mut undated) = (BTreeSet::new(), 0);
    for (segment, rows) in snapshot.index().segment_ids().zip(&plan.selection.rows) {
        let segment = snapshot.index().segment(segment);
        ids.extend(rows.iter().map(|row| segment.row_id(row).unwrap().to_string()));
        undated += rows.iter().filter(|row| segment.updated(*row).unwrap().is_none()).count() as u64;
    }
    assert_eq!(plan.selection.stats.undated, undated, "counted of what is exported alone");
    let work = plan.selection.stats.filters[0].clone();
    assert_eq!(work.rows, work.by_columns + work.read);
    (ids, work)
}

/// Whether a line is nested deep, or has a member twice, so that columns leave it to the parser.
fn is_read_whole(line: &str) -> bool {
    let names = [
        "\"status\":",
        "st\\u0061tus",
        "category\":",
        "code\":{",
        "code\": {",
        "effective",
        "\"value",
        "identifier\":[",
        "issued",
    ];
    let times: usize = names.iter().map(|name| line.matches(name).count().saturating_sub(1)).sum();
    line.contains("[[[[") || times > 0 || line.contains("tus\":\"f\\u") || line.matches("identifier").count() > 1
}

/// Ids of the lines that meet one of the filters, and how many could not be read.
fn expected(lines: &[String], filters: &[String]) -> (BTreeSet<String>, u64) {
    let filters: Vec<TypeFilter> = filters.iter().map(|text| TypeFilter::parse(text).unwrap()).collect();
    let (bases, now) = ([BASE.to_string()], TimeSpan::parse(T).unwrap());
    let of = ResourceType::parse("Observation").unwrap();
    let set = FilterSet::of(of, &filters, BaseUrls::new(&bases), now).unwrap();
    let (mut ids, mut unreadable) = (BTreeSet::new(), 0);
    for line in lines {
        let id = line.split("\"id\":\"").nth(1).unwrap().split('"').next().unwrap().to_string();
        let is_met =
            if line.starts_with("{\"resourceType\":\"Patient\"") { Ok(true) } else { set.is_met(line.as_bytes()) };
        unreadable += u64::from(is_met.is_err());
        if is_met == Ok(true) {
            ids.insert(id);
        }
    }
    (ids, unreadable)
}

/// The parameters of some filters that may have a column.
fn columns_of(filters: &[String]) -> Vec<ParameterName> {
    let parsed = filters.iter().flat_map(|text| TypeFilter::parse(text).unwrap().criteria);
    let with_column = parsed.map(|criterion| criterion.parameter).filter(|parameter| parameter.has_column());
    with_column.map(|one| ParameterName::parse(&format!("Observation.{}", one.code)).unwrap()).collect()
}

/// Completes the columns of some filters.
fn complete(snapshot: &Snapshot, filters: &[String]) {
    let (names, none) = (columns_of(filters), DroppedColumns::Of(Vec::new()));
    maintain_columns(snapshot.index(), &names, &none, &Progress::default()).unwrap();
}

/// A store of some lines, opened with its index elsewhere.
fn opened(dir: &Path, index: &str) -> Store {
    Store::open_with(dir.join("store"), StoreOptions::default().index_dir(dir.join(index)).allow_missing(1e9)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// TFILTER-02, TFILTER-03, TFILTER-10: columns decide as the parser does. A store grows by appends, whose segments are joined;
    /// columns are absent, of earlier segments, complete, made on the way, damaged; then the store is packed.
    #[test]
    fn columns_and_parser_decide_alike(
        rounds in proptest::collection::vec(proptest::collection::vec(members(), 1..40), 1..5),
        filters in proptest::collection::vec(filter(), 1..4),
        others in proptest::collection::vec(filter(), 1..3),
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let (store, made) = (opened(dir.path(), "index"), opened(dir.path(), "made"));
        let mut lines: Vec<String> = Vec::new();
        for (round, rows) in rounds.iter().enumerate() {
            let new: Vec<String> = rows.iter().enumerate().map(|(i, row)| line(lines.len() + i, row)).collect();
            append(&dir.path().join("store").join(["a.ndjson", "b.ndjson"][round % 2]), &new);
            lines.extend(new);
            let (wanted, unreadable) = expected(&lines, &filters);
            // 1. With what columns there are: none, then those of earlier rounds; and with all.
            let snapshot = store.snapshot(Instant::parse(T).unwrap()).unwrap();
            let (found, work) = selected(&snapshot, &filters, ColumnUse::Existing);
            prop_assert_eq!((&found, work.unreadable), (&wanted, unreadable), "{:?}", filters);
            complete(&snapshot, &filters);
            let (found, work) = selected(&snapshot, &filters, ColumnUse::Existing);
            prop_assert_eq!((&found, work.unreadable), (&wanted, unreadable), "{:?}", filters);
            let all_have_columns = work.parameters.iter().all(|(_, has_column)| *has_column);
            let odd = lines.iter().filter(|line| is_read_whole(line)).count() as u64;
            prop_assert!(!all_have_columns || work.read <= odd, "{} {odd}", work.read);
            // 2. Made when they are asked for, and used the next time.
            let snapshot = made.snapshot(Instant::parse(T).unwrap()).unwrap();
            let (found, _) = selected(&snapshot, &filters, ColumnUse::Completed);
            prop_assert_eq!(&found, &wanted, "{:?}", filters);
            let (found, work) = selected(&snapshot, &filters, ColumnUse::Existing);
            prop_assert_eq!(&found, &wanted, "{:?}", filters);
            let is_kept = |(code, has_column): &(&str, bool)| *has_column || *code == "value-string" || work.rows == 0;
            prop_assert!(work.parameters.iter().all(is_kept));
            let (found, _) = selected(&snapshot, &others, ColumnUse::Completed);
            prop_assert_eq!(&found, &expected(&lines, &others).0, "{:?}", others);
        }
        // 3. A damaged file is of no use, and made again.
        let wanted = expected(&lines, &filters).0;
        for entry in std::fs::read_dir(dir.path().join("made")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("search-Observation") {
                let mut bytes = std::fs::read(entry.path()).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                std::fs::write(entry.path(), bytes).unwrap();
            }
        }
        let snapshot = made.snapshot(Instant::parse(T).unwrap()).unwrap();
        for columns in [ColumnUse::Existing, ColumnUse::Completed, ColumnUse::Existing] {
            prop_assert_eq!(&selected(&snapshot, &filters, columns).0, &wanted, "{:?}", filters);
        }
        // 4. Packed, which orders rows by time: with and without columns.
        let options = PackOptions { to: dir.path().join("packed"), coder: FrameCoder::gzip(1), sync: FileSync::No };
        pack(&store, Instant::parse(T).unwrap(), &options, &Progress::default()).unwrap();
        let packed = Store::open(dir.path().join("packed")).unwrap();
        let snapshot = packed.snapshot(Instant::parse(T).unwrap()).unwrap();
        for columns in [ColumnUse::Existing, ColumnUse::Completed, ColumnUse::Existing] {
            prop_assert_eq!(&selected(&snapshot, &filters, columns).0, &wanted, "{:?}", filters);
        }
    }
}

/// Of columns that filters ask for, those used last are kept, so many as may be; those that are listed are never dropped for them,
/// and none is made where none may be.
#[test]
fn columns_that_were_not_used_for_longest_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let rows: Vec<String> = (0..20).map(|i| line(i, &[(0, i % 3), (1, i % 2), (2, 0)])).collect();
    append(&dir.path().join("store").join("a.ndjson"), &rows);
    let names = |snapshot: &Snapshot| -> Vec<&str> {
        snapshot.index().search().stored().iter().map(|stored| stored.name.code).collect()
    };
    let ask = |options: SearchColumnOptions, parameter: &str| {
        let store = opened(dir.path(), "index").with_search_columns(options);
        let snapshot = store.snapshot(Instant::parse(T).unwrap()).unwrap();
        selected(&snapshot, &[format!("Observation?{parameter}=x")], ColumnUse::Completed);
        snapshot
    };
    let options = |others_max, listed: &[&str]| SearchColumnOptions {
        listed: listed.iter().filter_map(|name| ParameterName::parse(name)).collect(),
        others_max,
        ..SearchColumnOptions::default()
    };
    assert_eq!(names(&ask(options(0, &[]), "status")), [""; 0]);
    let full = SearchColumnOptions { disk_high_water: 0, ..options(2, &[]) };
    assert_eq!(names(&ask(full, "status")), [""; 0], "the disk is too full");
    assert_eq!(names(&ask(options(2, &[]), "status")), ["status"]);
    // Times of files tell which was used last.
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    pause();
    assert_eq!(names(&ask(options(2, &[]), "category")), ["category", "status"]);
    pause();
    ask(options(2, &[]), "status");
    pause();
    assert_eq!(names(&ask(options(2, &[]), "code")), ["code", "status"]);
    pause();
    assert_eq!(names(&ask(options(1, &["Observation.status"]), "category")), ["category", "status"]);
    assert_eq!(names(&ask(options(0, &["Observation.status"]), "status")), ["status"]);
}

/// A column whose numbers lead nowhere, written with the right checksums by somebody else, is not believed: rows are read.
#[test]
fn forged_columns_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let rows: Vec<String> = (0..20).map(|i| line(i, &[(0, i % 2)])).collect();
    append(&dir.path().join("store").join("a.ndjson"), &rows);
    let (store, filters) = (opened(dir.path(), "index"), ["Observation?status=final".to_string()]);
    let take = || store.snapshot(Instant::parse(T).unwrap()).unwrap();
    complete(&take(), &filters);
    let path = dir.path().join("index/search-Observation.status-000000000001");
    let definition = u64::from_le_bytes(std::fs::read(&path).unwrap()[8..16].try_into().unwrap());
    let mut writer = ColumnFileWriter::begin(std::fs::File::create(&path).unwrap(), definition).unwrap();
    for segment in take().index().segments() {
        let (mut section, rows) = (Vec::new(), segment.rows());
        for word in [u32::try_from(rows).unwrap(), 1, 1, 0, 0, 0] {
            section.extend_from_slice(&word.to_le_bytes());
        }
        section.extend(vec![9; rows.next_multiple_of(8) + 8]);
        writer.add(&SegmentKey::of(segment.head()), &section).unwrap();
    }
    writer.finish().unwrap();
    let (found, work) = selected(&take(), &filters, ColumnUse::Existing);
    assert_eq!((found, work.by_columns), (expected(&rows, &filters).0, 0));
}
