//! The bundled patients, cut where a copy differs from them.

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

/// Where a copy of a row differs from the seed.
#[derive(Clone, Copy)]
pub(crate) enum SeedCut {
    /// A UUID of the patient's.
    Uuid(u128),
    /// `meta.versionId`.
    Version,
    /// `meta.lastUpdated`.
    Updated,
}

/// A resource of the seed.
pub(crate) struct SeedRow {
    pub resource_type: ResourceType,
    pub id: u128,
    /// Its line in the seed's text, without the newline.
    line: Range<usize>,
    /// Ranges in the text, ascending, and what stands there.
    cuts: Vec<(Range<usize>, SeedCut)>,
    /// Number of the visit it belongs to, among its patient's.
    pub visit: u32,
    /// Its place among the rows of the visit.
    pub place: u32,
}

/// A patient of the seed.
#[derive(Default)]
pub(crate) struct SeedPatient {
    pub id: u128,
    /// Rows, by type and then in the seed's order.
    pub rows: Vec<SeedRow>,
    /// Rows of each visit, as numbers among [`SeedPatient::rows`].
    pub visits: Vec<Vec<u32>>,
}

/// The bundled patients, and what they share.
pub(crate) struct Seed {
    text: Vec<u8>,
    pub patients: Vec<SeedPatient>,
    /// Organizations and practitioners.
    pub shared: Vec<SeedRow>,
}

impl Seed {
    /// Decodes and cuts the bundled store.
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
            // What belongs to no encounter is a visit of its own.
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

    /// Writes a row: `put` is asked for what stands at each cut.
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

/// The id of a row of the seed.
fn id_of(line: &[u8]) -> Option<u128> {
    reference(line, b"\"id\":\"")
}

/// The UUID behind the first `prefix`.
fn reference(line: &[u8], prefix: &[u8]) -> Option<u128> {
    memchr::memmem::find(line, prefix).and_then(|offset| parse(&line[offset + prefix.len()..]))
}

/// Where a copy differs: version, time, and every UUID but those of shared resources.
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
