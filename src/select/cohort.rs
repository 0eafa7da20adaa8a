//! Who is asked for: Groups, lists and levels resolved to a set of patients of the dictionary.
//!
//! A patient is named by base and id; a member stands for its id under the relative base and under every base that is
//! ours (reading 5). What does not resolve is a warning, never an error (GROUP-06).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::bitmap::Bitmap;
pub use super::groups::rows_of;
use super::groups::{FoundGroup, Unusable, find_group, similar_groups, unusable};
use super::request::{ExportRequest, Members, Population};
use crate::bytes::kernels::Kernel;
use crate::error::{ExportError, IndexError, RequestError};
use crate::extract::group::{GroupHead, GroupReader, Member};
use crate::extract::identifiers::IdentifierReader;
use crate::fhir::instant::date_time_span;
use crate::fhir::{Id, Instant, Reference, ResourceType};
use crate::limits::{GROUP_DEPTH_MAX, READ_BYTES};
use crate::observe::{Code, Messages, Severity};
use crate::store::merged::Section;
use crate::store::rows::{row_range, stream_range};
use crate::store::sealed::Damaged;
use crate::store::snapshot::{Snapshot, State};

/// Feeds the pieces of a document.
type Pieces<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&[u8])) -> Result<(), ExportError>;

/// The patients of an export.
pub struct Cohort {
    /// Patients of the dictionary; `None` at system level, where compartments do not count.
    pub patients: Option<Bitmap>,
    /// Those of them that stand for a member: one each, the relative name where there is one.
    pub members: Bitmap,
    /// Whether each reference base of the index is ours.
    pub ours: Vec<bool>,
    /// The row of the Group asked for (extent, row), when it lies in the store: the one Group row that may leave.
    pub group_row: Option<(usize, usize)>,
    /// The id of the Group asked for.
    pub group_id: Option<String>,
    /// Members listed (entries of the Group or lines of the file), before duplicates collapse.
    pub listed: u64,
    /// xxh3 (128 bit) of the membership file, if one was read.
    pub file_hash: Option<u128>,
    /// What did not resolve.
    pub messages: Messages,
}

impl Cohort {
    /// Resolves the request's population in a snapshot.
    ///
    /// # Errors
    /// [`ExportError::Request`] when the Group or file cannot stand for a set of patients; store errors.
    pub fn resolve(snapshot: &Snapshot, request: &ExportRequest) -> Result<Cohort, ExportError> {
        let index = snapshot.index();
        let ours: Vec<bool> = index
            .bases()
            .iter()
            .map(|base| base.is_empty() || request.fhir_bases.iter().any(|b| b.trim_end_matches('/') == base))
            .collect();
        let mut resolver = Resolver {
            snapshot,
            request,
            our_bases: (0..ours.len() as u32).filter(|base| ours[*base as usize]).collect(),
            patients: Bitmap::new(index.patients()),
            members: Bitmap::new(index.patients()),
            identifiers: HashMap::new(),
            groups: Vec::new(),
            seen_groups: HashSet::new(),
            listed: 0,
            messages: Messages::default(),
            damaged: None,
        };
        let mut cohort_group = (None, None);
        let mut file_hash = None;
        match &request.population {
            Population::System => {}
            Population::AllPatients => resolver.everyone(&ours)?,
            Population::Patients(path) => file_hash = Some(resolver.list(path)?),
            Population::Group(id) => {
                let row = resolver.find_group(id, &ours)?;
                let head = resolver.group_in_store(row, &ours, id)?;
                cohort_group = (Some(row), head.id.map(|id| id.to_string()));
            }
            Population::GroupFile(path) => {
                let (head, hash) = resolver.group_in_file(path)?;
                file_hash = Some(hash);
                // Its namesake in the store is the Group asked for, should `_type` name Group.
                let row = match head.id.map(|id| resolver.find_group(id.as_str(), &ours)) {
                    Some(Ok(row)) => Some(row),
                    None | Some(Err(ExportError::Request(_))) => None,
                    Some(Err(error)) => return Err(error),
                };
                cohort_group = (row, head.id.map(|id| id.to_string()));
            }
        }
        resolver.nested(&ours)?;
        resolver.resolve_identifiers(&ours)?;
        if let Some(damaged) = resolver.damaged {
            return Err(damaged.into());
        }
        let Resolver { patients, members, listed, messages, .. } = resolver;
        Ok(Cohort {
            patients: (request.population != Population::System).then_some(patients),
            members,
            ours,
            group_row: cohort_group.0,
            group_id: cohort_group.1,
            listed,
            file_hash,
            messages,
        })
    }
}

struct Resolver<'a> {
    snapshot: &'a Snapshot,
    request: &'a ExportRequest,
    our_bases: Vec<u32>,
    patients: Bitmap,
    members: Bitmap,
    /// Identifier members (system, value) and who lists them.
    identifiers: HashMap<(String, String), String>,
    /// Nested Groups still to read: id, depth, who lists them.
    groups: Vec<(String, usize, String)>,
    seen_groups: HashSet<String>,
    listed: u64,
    messages: Messages,
    damaged: Option<Damaged>,
}

impl Resolver<'_> {
    /// Patient level: everybody that a reference of ours or a Patient row names.
    fn everyone(&mut self, ours: &[bool]) -> Result<(), Damaged> {
        let index = self.snapshot.index();
        let bases = index.merged().proven_words(Section::PatientBase, 0..index.patients())?;
        for (patient, base) in bases.iter().enumerate() {
            if ours[*base as usize] {
                self.patients.insert(patient);
            }
        }
        Ok(())
    }

    fn patient(&mut self, id: &Id, listed_by: &dyn Fn() -> String) {
        let index = self.snapshot.index();
        let mut found = false;
        for base in &self.our_bases {
            let known = index.patient(*base, id).unwrap_or_else(|damaged| {
                // Told when the cohort is resolved: the callbacks in between know no errors.
                self.damaged = Some(damaged);
                None
            });
            if let Some(patient) = known {
                self.patients.insert(patient as usize);
                if !found {
                    // Bases are in order, the relative one first.
                    self.members.insert(patient as usize);
                }
                found = true;
            }
        }
        if !found {
            let text = format!(
                "{} lists Patient/{id}, which the store does not hold: nothing was exported for it",
                listed_by()
            );
            self.messages.push(Severity::Warning, Code::NotFound, "member-not-found", text);
        }
    }

    /// A reference of a member or of a line of a list.
    fn reference(&mut self, text: &str, depth: usize, listed_by: &dyn Fn() -> String) {
        let Some(reference) = Reference::parse(text) else {
            let text = format!(
                "{} has a member whose reference is in no form that names a resource of this store",
                listed_by()
            );
            return self.messages.push(Severity::Warning, Code::Invalid, "member-malformed", text);
        };
        let base = reference.base;
        if !base.is_empty() && !self.request.fhir_bases.iter().any(|ours| ours.trim_end_matches('/') == base) {
            let text = format!(
                "{} lists a member under the base {base}, which is not ours: nothing was exported for it; \
                 if that base is this store's, give --fhir-base {base}",
                listed_by()
            );
            return self.messages.push(Severity::Warning, Code::NotFound, "member-foreign", text);
        }
        match reference.resource_type {
            ResourceType::PATIENT => self.patient(&reference.id, listed_by),
            ResourceType::GROUP => self.groups.push((reference.id.to_string(), depth + 1, listed_by())),
            other => {
                let text = format!("{} lists {other}/{}, which is no Patient", listed_by(), reference.id);
                self.messages.push(Severity::Warning, Code::NotSupported, "member-type", text);
            }
        }
    }

    fn member(&mut self, member: &Member<'_>, depth: usize, listed_by: &str) {
        self.listed += 1;
        if self.request.members == Members::Active && !is_active(member, self.snapshot.as_of()) {
            return;
        }
        let number = self.listed;
        let listed_by = || listed_by.to_string();
        if let Some(text) = member.reference {
            self.reference(text, depth, &listed_by);
        } else if let Some((system, value)) = member.identifier {
            self.identifiers.insert((system.to_string(), value.to_string()), listed_by());
        } else {
            let text = format!("{}: member {number} has neither a reference nor an identifier", listed_by());
            self.messages.push(Severity::Warning, Code::Invalid, "member-empty", text);
        }
    }

    fn group_in_store(
        &mut self,
        (extent, row): (usize, usize),
        _ours: &[bool],
        id: &str,
    ) -> Result<GroupHead, ExportError> {
        let index = self.snapshot.index();
        let range = row_range(index, extent, row);
        let file = index.entry(extent).file;
        self.seen_groups.insert(id.to_string());
        let place = format!("{} at byte {}", index.file_name(file), range.start);
        let snapshot = self.snapshot;
        let name = format!("Group/{id}");
        let head =
            self.read_group(&name, &place, 0, &mut |feed| stream_range(snapshot.index(), file, range.clone(), feed))?;
        self.check_head(&head, &name)?;
        Ok(head)
    }

    fn group_in_file(&mut self, path: &Path) -> Result<(GroupHead, u128), ExportError> {
        let problem = |what: String| RequestError::one(format!("--group: {}: {what}", path.display()));
        let mut file = File::open(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let name = path.display().to_string();
        let mut failed = None;
        let head = self.read_group(&name, &name, 0, &mut |feed| {
            let mut buffer = vec![0; READ_BYTES];
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(len) => {
                        hash.update(&buffer[..len]);
                        feed(&buffer[..len]);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        failed = Some(error);
                        return Ok(());
                    }
                }
            }
        });
        if let Some(error) = failed {
            return Err(problem(format!("cannot be read: {error}")).into());
        }
        let head = head?;
        if let Some(id) = head.id {
            self.seen_groups.insert(id.to_string());
        }
        self.check_head(&head, &name)?;
        Ok((head, hash.digest128()))
    }

    /// Reads a Group, its members as they come; `name` stands for it in messages, `place` says where it lies.
    fn read_group(
        &mut self,
        name: &str,
        place: &str,
        depth: usize,
        pieces: Pieces<'_>,
    ) -> Result<GroupHead, ExportError> {
        let mut lines = LineCounter::default();
        let outcome = {
            let mut on_member = |member: &Member<'_>| self.member(member, depth, name);
            let mut reader = GroupReader::new(Kernel::detect(), &mut on_member);
            reader.begin();
            pieces(&mut |piece| {
                lines.count(piece);
                reader.feed(piece);
            })?;
            reader.finish()
        };
        outcome.map_err(|fault| {
            let line = lines.line_of(fault.at);
            RequestError::one(format!("--group: {place}: line {line}, byte {}: {}", fault.at, fault.kind)).into()
        })
    }

    /// Whether a Group can stand for a set of patients (GROUP-09, GROUP-10, readings 5 and 9).
    fn check_head(&mut self, head: &GroupHead, name: &str) -> Result<(), RequestError> {
        let unusable = unusable(head, self.request.members);
        if head.active == Some(false) && self.request.members == Members::Listed {
            let text = format!("{name} has active false; it was exported because members are taken as listed");
            self.messages.push(Severity::Warning, Code::Processing, "group-inactive", text);
        }
        let advice = |problem: &Unusable| match problem {
            Unusable::Inactive => "; use --members listed to export it",
            _ => "",
        };
        let problems: Vec<String> =
            unusable.iter().map(|problem| format!("--group: {name} {problem}{}", advice(problem))).collect();
        if problems.is_empty() { Ok(()) } else { Err(RequestError { problems }) }
    }

    /// The current version of a Group at T.
    fn find_group(&self, id: &str, ours: &[bool]) -> Result<(usize, usize), ExportError> {
        let unknown = |why: &str| {
            let similar = match similar_groups(self.snapshot, id) {
                Ok(similar) => similar,
                Err(damaged) => return damaged.into(),
            };
            let advice = match similar.as_slice() {
                [] => "the store holds no Group with a similar id".to_string(),
                near => format!("similar ids: {}", near.join(", ")),
            };
            ExportError::from(RequestError::one(format!("--group: Group/{id} {why}; {advice}")))
        };
        let Some(wanted) = Id::parse(id.as_bytes()) else {
            return Err(RequestError::one(format!(
                "--group: {id:?} is no legal id (1 to 64 letters, digits, '-' and '.'); give an id, or a path with a '/'"
            ))
            .into());
        };
        let why = match find_group(self.snapshot, &wanted, ours)? {
            FoundGroup::Current(extent, row) => return Ok((extent, row)),
            FoundGroup::Future => "is not in the store yet at the transactionTime: its lastUpdated is later",
            FoundGroup::Deleted => "was deleted before the transactionTime",
            FoundGroup::Unknown => "is not in the store",
        };
        Err(unknown(why))
    }

    /// Nested Groups, breadth first; a cycle ends by itself because no Group is read twice (GROUP-03).
    fn nested(&mut self, ours: &[bool]) -> Result<(), ExportError> {
        while let Some((id, depth, listed_by)) = self.groups.pop() {
            if !self.seen_groups.insert(id.clone()) {
                continue;
            }
            if depth > GROUP_DEPTH_MAX {
                let text = format!(
                    "{listed_by} lists Group/{id} more than {GROUP_DEPTH_MAX} Groups deep; it was not followed"
                );
                self.messages.push(Severity::Warning, Code::NotSupported, "group-depth", text);
                continue;
            }
            let row = match self.find_group(&id, ours) {
                Ok(row) => row,
                Err(ExportError::Request(_)) => {
                    let text =
                        format!("{listed_by} lists Group/{id}, which the store does not hold at the transactionTime");
                    self.messages.push(Severity::Warning, Code::NotFound, "group-not-found", text);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let index = self.snapshot.index();
            let file = index.entry(row.0).file;
            let range = row_range(index, row.0, row.1);
            let name = format!("Group/{id}");
            let place = format!("{} at byte {}", index.file_name(file), range.start);
            let snapshot = self.snapshot;
            let before = (self.patients.clone(), self.members.clone(), self.identifiers.clone(), self.groups.len());
            let head = self.read_group(&name, &place, depth, &mut |feed| {
                stream_range(snapshot.index(), file, range.clone(), feed)
            })?;
            if let Err(problem) = self.check_head(&head, &name) {
                (self.patients, self.members, self.identifiers) = (before.0, before.1, before.2);
                self.groups.truncate(before.3);
                let text = format!("{listed_by} lists it, but {}", problem.problems.join("; "));
                self.messages.push(Severity::Warning, Code::NotSupported, "group-unusable", text);
            }
        }
        Ok(())
    }

    /// A file with one id or reference a line. Its hash.
    fn list(&mut self, path: &Path) -> Result<u128, ExportError> {
        let problem = |what: String| RequestError::one(format!("--patients: {}: {what}", path.display()));
        let file = File::open(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let mut reader = BufReader::with_capacity(READ_BYTES, file);
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        let (mut line, mut number) = (Vec::new(), 0u64);
        let mut wrong = Vec::new();
        loop {
            line.clear();
            // No line of a list is longer than a reference may be; a longer one is cut there and reported.
            let limit = 2 * crate::limits::REFERENCE_BYTES_MAX as u64;
            let read = (&mut reader).take(limit).read_until(b'\n', &mut line);
            if read.map_err(|error| problem(format!("cannot be read: {error}")))? == 0 {
                break;
            }
            hash.update(&line);
            number += 1;
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            self.listed += 1;
            let listed_by = || format!("{} (line {number})", path.display());
            match (Id::parse(text), str::from_utf8(text).ok()) {
                (Some(id), _) => self.patient(&id, &listed_by),
                (None, Some(text)) if Reference::parse(text).is_some() => {
                    // A list names patients; Groups are asked for with --group.
                    match Reference::parse(text) {
                        Some(reference) if reference.resource_type == ResourceType::PATIENT => {
                            self.reference(text, 0, &listed_by)
                        }
                        _ => wrong.push(number),
                    }
                }
                _ => wrong.push(number),
            }
        }
        if let Some(first) = wrong.first() {
            return Err(problem(format!(
                "line {first}{} is neither a patient id nor a reference such as Patient/123",
                match wrong.len() {
                    1 => String::new(),
                    more => format!(" (and {} more lines)", more - 1),
                }
            ))
            .into());
        }
        Ok(hash.digest128())
    }

    /// Identifier members: each must match exactly one current Patient (GROUP-02). Reads the Patient rows once.
    fn resolve_identifiers(&mut self, ours: &[bool]) -> Result<(), ExportError> {
        if self.identifiers.is_empty() {
            return Ok(());
        }
        let wanted = std::mem::take(&mut self.identifiers);
        let mut matches: HashMap<&(String, String), Vec<Id>> = HashMap::new();
        let index = self.snapshot.index();
        let as_of = self.snapshot.as_of().as_ref();
        for extent in self.snapshot.extents() {
            if !index.extents()[extent].head().has_type(ResourceType::PATIENT.index()) {
                continue;
            }
            let columns = index.extents()[extent].prove_whole()?;
            for row in 0..columns.rows() {
                if columns.type_of(row) != ResourceType::PATIENT
                    || self.snapshot.state(extent, row, as_of, ours, &|_| true)? != State::Current
                {
                    continue;
                }
                let mut found: Vec<(String, String)> = Vec::new();
                let mut on_identifier = |system: &str, value: &str| found.push((system.into(), value.into()));
                let mut reader = IdentifierReader::new(Kernel::detect(), &mut on_identifier);
                reader.begin();
                let file = index.entry(extent).file;
                stream_range(index, file, row_range(index, extent, row), &mut |piece| reader.feed(piece))?;
                // The row passed the scan when it was indexed; a fault now means that it was changed in place.
                if reader.finish().is_err() {
                    let path = index.source(file)?.path().to_path_buf();
                    return Err(IndexError::Changed { path, reason: "was rewritten in place".into() }.into());
                }
                let id = columns.id_of(row);
                for pair in found {
                    if let Some((key, _)) = wanted.get_key_value(&pair) {
                        let ids = matches.entry(key).or_default();
                        if !ids.contains(&id) {
                            ids.push(id);
                        }
                    }
                }
            }
        }
        let mut pairs: Vec<_> = wanted.iter().collect();
        pairs.sort();
        for (pair, listed_by) in pairs {
            match matches.get(pair).map(Vec::as_slice).unwrap_or_default() {
                [id] => self.patient(&id.clone(), &|| listed_by.clone()),
                found => {
                    // The identifier's value may be a medical record number, so it is not repeated.
                    let text = format!(
                        "{listed_by} lists a member by an identifier of system {:?} that matches {} Patients, not one",
                        pair.0,
                        found.len()
                    );
                    self.messages.push(Severity::Warning, Code::NotFound, "member-identifier", text);
                }
            }
        }
        Ok(())
    }
}

/// GROUP-04: neither inactive nor outside its period at T. A bound that is no date is taken as not given.
fn is_active(member: &Member<'_>, at: &Instant) -> bool {
    let bound = |text: Option<&str>| text.and_then(|text| date_time_span(text.as_bytes()));
    let begun = bound(member.period_start).is_none_or(|(first, _)| first <= *at);
    let over = bound(member.period_end).is_some_and(|(_, after)| after <= *at);
    !member.inactive && begun && !over
}

/// Counts newlines as bytes pass, to turn a byte offset into a line number.
#[derive(Default)]
struct LineCounter {
    position: u64,
    newlines: Vec<u64>,
}

impl LineCounter {
    fn count(&mut self, piece: &[u8]) {
        // A message needs the line of one offset; a file of more lines than this is no hand-written Group.
        if self.newlines.len() < 1 << 20 {
            self.newlines.extend(memchr::memchr_iter(b'\n', piece).map(|at| self.position + at as u64));
        }
        self.position += piece.len() as u64;
    }

    fn line_of(&self, offset: u64) -> usize {
        self.newlines.partition_point(|at| *at < offset) + 1
    }
}
