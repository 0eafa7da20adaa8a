//! Seed: the bundled patients, with the ranges of their lines that a copy replaces.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::fhir::resource_type::ResourceType;
use crate::synth::rename::{UUID_BYTES, parse};

macro_rules! bundled {
    ($($name:literal),*) => {
        /// Files of the bundled store, Groups left out.
        const BUNDLED: &[(&str, &[u8])] = &[$((
            $name,
            include_bytes!(concat!("../../testdata/stores/synthea-r4-100/", $name, ".ndjson.zst")),
        )),*];
    };
}

bundled!(
    "AllergyIntolerance",
    "CarePlan",
    "CareTeam",
    "Claim",
    "Condition",
    "Device",
    "DiagnosticReport",
    "Encounter",
    "ExplanationOfBenefit",
    "ImagingStudy",
    "Immunization",
    "MedicationRequest",
    "Observation",
    "Organization",
    "Patient",
    "Practitioner",
    "Procedure"
);

/// Content of a replaced range.
#[derive(Clone, Copy)]
pub(crate) enum SeedCut {
    /// A UUID of the patient's resources.
    Uuid(u128),
    /// Digits of the `meta.versionId`.
    Version,
    /// Text of `meta.lastUpdated`, an instant.
    Updated,
}

/// One resource of the seed.
pub(crate) struct SeedRow {
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// UUID that is its id in the seed.
    pub id: u128,
    /// Its line in the seed's text, without the newline.
    line: Range<usize>,
    /// Ranges of the text that a copy replaces, ascending, and their content.
    cuts: Vec<(Range<usize>, SeedCut)>,
    /// Number of its visit among its patient's.
    pub visit: u32,
    /// Number of the row among those of its visit.
    pub place: u32,
}

/// One patient of the seed and its resources.
#[derive(Default)]
pub(crate) struct SeedPatient {
    /// UUID that is its id in the seed.
    pub id: u128,
    /// Its rows, by type and then in the order of the bundled files.
    pub rows: Vec<SeedRow>,
    /// Rows of each visit, as indexes into [`SeedPatient::rows`].
    pub visits: Vec<Vec<u32>>,
}

/// The bundled patients and the resources that they share.
pub(crate) struct Seed {
    /// All bundled files, decoded, one after another.
    text: Vec<u8>,
    /// The patients, in order of their first row.
    pub patients: Vec<SeedPatient>,
    /// Organizations and practitioners, which belong to no patient.
    pub shared: Vec<SeedRow>,
}

impl Seed {
    /// Decodes the bundled store and finds the ranges that copies replace.
    pub(crate) fn load() -> Seed {
        let mut text = Vec::new();
        let mut lines: Vec<(ResourceType, Range<usize>)> = Vec::new();
        for (name, packed) in BUNDLED {
            let resource_type = ResourceType::parse(name).expect("a type of R4");
            let mut start = text.len();
            zstd::stream::copy_decode(*packed, &mut text).expect("the bundled store is whole");
            let ends: Vec<usize> = memchr::memchr_iter(b'\n', &text[start..]).map(|end| start + end).collect();
            for end in ends {
                lines.push((resource_type, start..end));
                start = end + 1;
            }
        }
        let owner = |resource_type: ResourceType, line: &[u8]| match resource_type {
            ResourceType::PATIENT => id_of(line),
            _ => reference(line, b"\"Patient/"),
        };
        let ids: HashMap<usize, u128> =
            lines.iter().map(|(_, line)| (line.start, id_of(&text[line.clone()]).expect("a UUID"))).collect();
        let is_shared = |resource_type, line: &Range<usize>| owner(resource_type, &text[line.clone()]).is_none();
        let shared_ids: HashSet<u128> =
            lines.iter().filter(|(t, line)| is_shared(*t, line)).map(|(_, line)| ids[&line.start]).collect();
        let mut patients: Vec<SeedPatient> = Vec::new();
        let mut numbers: HashMap<u128, usize> = HashMap::new();
        let mut visits: HashMap<(usize, u128), u32> = HashMap::new();
        let mut shared = Vec::new();
        for (resource_type, line) in &lines {
            let bytes = &text[line.clone()];
            let id = ids[&line.start];
            let cuts = cuts(bytes, line.start, &shared_ids);
            let mut row = SeedRow { resource_type: *resource_type, id, line: line.clone(), cuts, visit: 0, place: 0 };
            let Some(owner) = owner(*resource_type, bytes) else {
                shared.push(row);
                continue;
            };
            let number = *numbers.entry(owner).or_insert(patients.len());
            if number == patients.len() {
                patients.push(SeedPatient { id: owner, ..SeedPatient::default() });
            }
            let patient = &mut patients[number];
            // A resource without an encounter is a visit of its own.
            let encounter = match resource_type.name() {
                "Encounter" => id,
                _ => reference(bytes, b"\"Encounter/").unwrap_or(id),
            };
            row.visit = *visits.entry((number, encounter)).or_insert(patient.visits.len() as u32);
            if row.visit as usize == patient.visits.len() {
                patient.visits.push(Vec::new());
            }
            let visit = &mut patient.visits[row.visit as usize];
            row.place = visit.len() as u32;
            visit.push(patient.rows.len() as u32);
            patient.rows.push(row);
        }
        text.shrink_to_fit();
        Seed { text, patients, shared }
    }

    /// Appends a copy of a row and its newline; `put` appends the content of each replaced range.
    pub(crate) fn put(&self, row: &SeedRow, out: &mut Vec<u8>, mut put: impl FnMut(&mut Vec<u8>, SeedCut)) {
        let mut offset = row.line.start;
        for (range, cut) in &row.cuts {
            out.extend_from_slice(&self.text[offset..range.start]);
            put(out, *cut);
            offset = range.end;
        }
        out.extend_from_slice(&self.text[offset..row.line.end]);
        out.push(b'\n');
    }
}

/// UUID of the first `id` in a line of the seed.
fn id_of(line: &[u8]) -> Option<u128> {
    reference(line, b"\"id\":\"")
}

/// UUID after the first occurrence of `prefix`; `None` if there is none.
fn reference(line: &[u8], prefix: &[u8]) -> Option<u128> {
    memchr::memmem::find(line, prefix).and_then(|offset| parse(&line[offset + prefix.len()..]))
}

/// Ranges that a copy replaces, in line order: version, time, and every UUID except those of shared resources. `base`
/// is the offset of the line in the text.
fn cuts(line: &[u8], base: usize, shared: &HashSet<u128>) -> Vec<(Range<usize>, SeedCut)> {
    let value = |name: &[u8]| {
        let from = memchr::memmem::find(line, name)? + name.len();
        let len = memchr::memchr(b'"', &line[from..])?;
        Some(base + from..base + from + len)
    };
    let mut cuts: Vec<(Range<usize>, SeedCut)> = Vec::new();
    cuts.extend(value(b"\"versionId\":\"").map(|range| (range, SeedCut::Version)));
    cuts.extend(value(b"\"lastUpdated\":\"").map(|range| (range, SeedCut::Updated)));
    let mut offset = 0;
    while let Some(dash) = memchr::memchr(b'-', &line[offset..]).map(|n| offset + n) {
        offset = dash + 1;
        let Some(from) = dash.checked_sub(8) else { continue };
        if let Some(uuid) = parse(&line[from..]) {
            offset = from + UUID_BYTES;
            if !shared.contains(&uuid) {
                cuts.push((base + from..base + offset, SeedCut::Uuid(uuid)));
            }
        }
    }
    cuts.sort_by_key(|(range, _)| range.start);
    cuts
}
