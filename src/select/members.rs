//! Resolves the members of Groups and patient lists, by reference or identifier, to patients of the dictionary.
//!
//! A member that does not resolve is a warning that names the Group or line that lists it. A Group is streamed; of its
//! members only nested Groups and members named by identifier are held.

use crate::codec::byte_order_mark::skip_mark;
use crate::count_text::counted;
use crate::error::{CorruptIndex, ExportError, IndexError, RequestError, RequestProblem};
use crate::extract::identifiers::IdentifierReader;
use crate::fhir::base_url::BaseUrls;
use crate::fhir::id::Id;
use crate::fhir::reference::Reference;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::{
    FoundGroup, MembershipRule, UnusableGroup, check_usable, find_group, read_group, similar_groups,
};
use crate::group::member_filter::FilteredGroups;
use crate::group::reader::{GroupHead, GroupMember, GroupReader};
use crate::hash::Hasher128;
use crate::ids::{BaseId, PatientId, RowAddress, SegmentId};
use crate::index::global::Section;
use crate::index::row_reader::{row_range, stream_range};
use crate::index::snapshot::{RowState, Snapshot};
use crate::index::vanished::VanishedResource;
use crate::issue::{Advice, Issue, IssueCode, IssueLog, IssuePlace, Parameter};
use crate::limits::{GROUP_DEPTH_MAX, READ_BYTES};
use crate::policies::Audience;
use crate::request::{ExportRequest, WriterScope};
use crate::select::bitmap::Bitmap;
use crate::select::line_counter::LineCounter;
use crate::select::member_filters::GroupFilters;
use crate::select::member_messages::{absent_group, prefixed, quote, unreadable_error};
use crate::select::member_starts::{MemberStart, MemberStarts};
use crate::select::nested_groups::{GroupQueue, NestedGroup, is_active};
use crate::simd::Kernel;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The result of resolving all members.
pub(crate) struct ResolvedMembers {
    /// The patients, under every base that is ours.
    pub patients: Bitmap,
    /// One of the patients for each member, under the relative base if it is there.
    pub members: Bitmap,
    /// Members that only vanished resources name.
    pub vanished: HashSet<Id>,
    /// When the members joined, if that is asked for.
    pub starts: Option<MemberStarts>,
    /// Filters that they must meet.
    pub filters: GroupFilters,
    /// Number of members listed, duplicates included.
    pub listed: u64,
    /// Warnings about members that did not resolve, and notes on the Groups read.
    pub messages: IssueLog,
}

/// Collects the patients of a cohort, member by member; [`finish`](Self::finish) returns them.
pub(crate) struct MemberResolver<'a> {
    snapshot: &'a Snapshot,
    pub(crate) request: &'a ExportRequest,
    /// Whether each reference base of the index is ours.
    ours: &'a [bool],
    /// Numbers of the bases that are ours, the relative one first.
    our_bases: Vec<BaseId>,
    /// Patients that the Group's writer may list; all if `None`.
    eligible: Option<Bitmap>,
    patients: Bitmap,
    members: Bitmap,
    /// Patients of vanished resources, and those of them that are members without a row that names them.
    vanished: (HashSet<Id>, HashSet<Id>),
    /// When the members joined, if that is asked for.
    starts: Option<MemberStarts>,
    /// The start of the entry that is being added.
    start: MemberStart,
    /// Members by identifier (system, value), with the first place that lists each, its number there, and their start.
    identifiers: HashMap<(String, String), (usize, u64, MemberStart)>,
    groups: GroupQueue,
    /// Filters of the requested Group.
    filters: GroupFilters,
    /// What lists members; a `place` is an index here.
    pub(crate) places: Vec<IssuePlace>,
    pub(crate) listed: u64,
    /// Number of the member that is being added in the Group that lists it, from 1; 0 in a list of patients.
    number: u64,
    messages: IssueLog,
    /// A corrupt page found in a callback that cannot return an error.
    corrupt: Option<CorruptIndex>,
}

impl<'a> MemberResolver<'a> {
    /// A resolver without members. `ours` says of each base of the index whether it is ours; `eligible` limits the
    /// patients that may be members.
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        request: &'a ExportRequest,
        ours: &'a [bool],
        eligible: Option<Bitmap>,
    ) -> MemberResolver<'a> {
        let index = snapshot.index();
        MemberResolver {
            snapshot,
            request,
            ours,
            our_bases: (0..ours.len()).filter(|base| ours[*base]).map(BaseId::of).collect(),
            eligible,
            patients: Bitmap::new(index.patients()),
            members: Bitmap::new(index.patients()),
            vanished: Default::default(),
            starts: request.start_asked().map(|since| MemberStarts::new(since.clone(), index.patients())),
            start: MemberStart::Before,
            identifiers: HashMap::new(),
            groups: GroupQueue::default(),
            filters: GroupFilters::default(),
            places: Vec::new(),
            listed: 0,
            number: 0,
            messages: IssueLog::default(),
            corrupt: None,
        }
    }

    /// The patients of all members added.
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page read by any member failed its checksum.
    pub(crate) fn finish(self) -> Result<ResolvedMembers, CorruptIndex> {
        let MemberResolver { patients, members, starts, filters, listed, messages, corrupt, .. } = self;
        let (_, vanished) = self.vanished;
        corrupt.map_or(Ok(ResolvedMembers { patients, members, vanished, starts, filters, listed, messages }), Err)
    }

    /// Has members noted that are patients of vanished resources and named by no row any more. Not for a Group whose
    /// writer may list some patients only: which these were is known of the rows that stand.
    pub(crate) fn remember_vanished(&mut self, list: &[VanishedResource]) {
        if self.eligible.is_none() {
            let own = list.iter().filter(|gone| gone.resource_type == ResourceType::PATIENT).map(|gone| gone.id);
            let owners = list.iter().flat_map(|gone| &gone.owners).map(|(_, id)| *id);
            self.vanished.0 = own.chain(owners).collect();
        }
    }

    /// Adds everybody whom the Group's writer may access, if the requested Group has filters and no members (COHORT-05).
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn add_unlisted(&mut self) -> Result<(), CorruptIndex> {
        if self.filters.is_open { self.add_everyone() } else { Ok(()) }
    }

    /// Adds every eligible patient that a Patient row, or a reference under a base of ours, names (Patient level).
    ///
    /// # Errors
    /// [`CorruptIndex`] if a page that is read fails its checksum.
    pub(crate) fn add_everyone(&mut self) -> Result<(), CorruptIndex> {
        let index = self.snapshot.index();
        let bases = index.global().verified_words(Section::PatientBase, 0..index.patients())?;
        for (patient, base) in bases.iter().enumerate() {
            if self.ours[*base as usize] && self.eligible.as_ref().is_none_or(|eligible| eligible.contains(patient)) {
                self.patients.insert(patient);
            }
        }
        Ok(())
    }

    /// The eligible patients of an id under the bases that are ours, the relative base first.
    fn known_patient(&mut self, id: &Id) -> Vec<usize> {
        let index = self.snapshot.index();
        let mut found = Vec::new();
        for base in &self.our_bases {
            match index.patient(*base, id) {
                Ok(patient) => found.extend(patient.map(PatientId::index)),
                // Returned by `finish`: the callbacks in between cannot return errors.
                Err(corrupt) => self.corrupt = Some(corrupt),
            }
        }
        found.retain(|patient| self.eligible.as_ref().is_none_or(|eligible| eligible.contains(*patient)));
        found
    }

    /// Adds the patient of an id, or a warning if there is none.
    pub(crate) fn add_patient(&mut self, id: &Id, place: usize) {
        let found = self.known_patient(id);
        match found.first() {
            Some(first) => self.members.insert(*first),
            None => {
                self.vanished.1.extend(self.vanished.0.get(id));
                // One text for a patient that is missing and one that the Group's writer may not list: different texts
                // would disclose to that writer which ids are patients.
                let why = match self.eligible {
                    None => "which the store does not hold",
                    Some(_) => "which is in no Group that this Group's writer was given, or not in the store",
                };
                let text = format!("lists Patient/{id}, {why}: nothing was exported for it");
                return self.warn_at("member-not-found", place, Issue::warning(IssueCode::NotFound, text));
            }
        };
        for patient in found {
            self.patients.insert(patient);
            if let Some(starts) = &mut self.starts {
                starts.add(patient, self.start);
            }
        }
    }

    /// The member that is being added, in words that another word follows.
    fn member(&self) -> String {
        match self.number {
            // A line of a list of patients, which is named by its place.
            0 => "a member ".to_string(),
            number => format!("a member, number {number} of its list, "),
        }
    }

    /// Adds a warning about a place to the log, which keeps the first few of each cause and counts the rest. Causes that begin
    /// with `member-` are of single members.
    fn warn_at(&mut self, cause: &'static str, place: usize, message: Issue) {
        self.messages.push(cause, message.at(self.places[place].clone()));
    }

    /// Adds the patient or nested Group that a reference names, or a warning; `depth` is that of the Group that lists
    /// it.
    pub(crate) fn add_reference(&mut self, text: &str, depth: usize, place: usize) {
        let Some(reference) = Reference::parse(text) else {
            // A client bound to Groups is told nothing that stands in Groups which it may not see.
            let is_hidden = self.request.audience == Audience::BoundClient && depth > 0;
            let reference = if is_hidden { String::new() } else { format!(" {}", quote(text)) };
            let text = format!(
                "has {}whose reference{reference} is in no form that names a resource of this store",
                self.member()
            );
            return self.warn_at("member-malformed", place, Issue::warning(IssueCode::Invalid, text));
        };
        let base = reference.base;
        if !BaseUrls::new(&self.request.fhir_bases).contains(base) {
            let text =
                format!("lists {}under the base {base}, which is not ours: nothing was exported for it", self.member());
            let message = Issue::warning(IssueCode::NotFound, text).advise(Advice::on_foreign_base(base));
            return self.warn_at("member-foreign", place, message);
        }
        match reference.resource_type {
            ResourceType::PATIENT => self.add_patient(&reference.id(), place),
            ResourceType::GROUP => self.add_nested(reference.id(), depth + 1, place),
            other => {
                let text = format!("lists {other}/{}, which is no Patient", reference.id);
                self.warn_at("member-type", place, Issue::warning(IssueCode::NotSupported, text));
            }
        }
    }

    /// Resolves a member that is a Group: queues it, or warns that it is not followed. The writer's scope limits only
    /// what the requested Group lists (`depth` 1); Groups of the store have no writer.
    fn add_nested(&mut self, id: Id, depth: usize, listed_by: usize) {
        let scope = self.request.writer.as_ref().filter(|_| depth == 1);
        match scope {
            Some(WriterScope { known: false, .. }) => {
                let text = format!(
                    "lists Group/{id}, which was not followed because who wrote this version is not recorded; write the Group again"
                );
                self.warn_at("group-writer-unknown", listed_by, Issue::warning(IssueCode::NotSupported, text));
            }
            Some(WriterScope { groups: Some(groups), .. }) if groups.iter().all(|known| known != id.as_str()) => {
                self.warn_at("group-not-found", listed_by, absent_group(&format!("Group/{id}")));
            }
            _ => self.groups.push(NestedGroup { id, depth, listed_by, start: self.start }),
        }
    }

    /// Adds a member of a Group: its reference, else its identifier, else a warning. Inactive members are skipped if
    /// members must be active. `listed` is the start of the Group's own entry.
    fn add_member(&mut self, member: &GroupMember<'_>, depth: usize, place: usize, listed: MemberStart) {
        self.listed += 1;
        self.number += 1;
        if self.request.members == MembershipRule::Active && !is_active(member, self.snapshot.as_of()) {
            return;
        }
        self.start = self.starts.as_ref().map_or(MemberStart::Before, |starts| listed.within(starts.of(member)));
        if let Some(text) = member.reference {
            self.add_reference(text, depth, place);
        } else if let Some((system, value)) = member.identifier {
            let first = (place, self.number, self.start);
            let known = self.identifiers.entry((system.to_string(), value.to_string())).or_insert(first);
            known.2 = known.2.min(self.start);
        } else {
            let text = format!("has {}with neither a reference nor an identifier", self.member());
            self.warn_at("member-empty", place, Issue::warning(IssueCode::Invalid, text));
        }
    }

    /// Registers what lists the next members, and returns its index in `places`.
    pub(crate) fn register_place(&mut self, place: IssuePlace) -> usize {
        self.number = 0;
        self.places.push(place);
        self.places.len() - 1
    }

    /// Adds the members of the requested Group, a row of the store.
    ///
    /// # Errors
    /// [`ExportError::Request`] if its text is faulty or it does not define a set of patients; index and store errors
    /// if the row cannot be read.
    pub(crate) fn add_group_of_store(&mut self, row: RowAddress, id: &str) -> Result<(), ExportError> {
        let index = self.snapshot.index();
        Id::parse(id.as_bytes()).into_iter().for_each(|id| self.groups.exclude_group(id));
        let place = self.register_place(IssuePlace::Group(id.to_string()));
        let snapshot = self.snapshot;
        let read = read_group(snapshot, row, &mut |member| self.add_member(member, 0, place, MemberStart::Before))?;
        let head = read.map_err(|fault| {
            let (file, start) = (index.file_name(index.file_of(row.segment)), row_range(index, row).start);
            let text = format!("{file} at byte {start}: byte {} of the line: {}", fault.at, fault.kind);
            RequestError::one(RequestProblem::of(Parameter::Group, text))
        })?;
        self.take_head(&head, &format!("Group/{id}"))?;
        self.note_inactive(&head, place);
        Ok(())
    }

    /// Adds the members of the requested Group in a file. Returns its id, if it has one, and the XXH3-128 of the file.
    ///
    /// # Errors
    /// [`ExportError::Request`] if the file cannot be read, is no Group, or the Group does not define a set of
    /// patients.
    pub(crate) fn add_group_file(&mut self, path: &Path) -> Result<(Option<Id>, u128), ExportError> {
        let name = path.display().to_string();
        let mut file = File::open(path).map_err(|error| unreadable_error(Parameter::Group, &name, &error))?;
        self.add_group(&mut file, Some(&name))
    }

    /// The same of a Group in memory.
    ///
    /// # Errors
    /// As [`MemberResolver::add_group_file`].
    pub(crate) fn add_group_document(&mut self, mut json: &[u8]) -> Result<(Option<Id>, u128), ExportError> {
        self.add_group(&mut json, None)
    }

    /// The Group that `source` gives; `name` is that of its file.
    fn add_group(&mut self, source: &mut dyn Read, name: Option<&str>) -> Result<(Option<Id>, u128), ExportError> {
        let unreadable = |error| unreadable_error(Parameter::Group, name.unwrap_or("the Group"), &error);
        let (mark, mut source) = skip_mark(source).map_err(unreadable)?;
        // The hash is that of the file, mark and all.
        let mut hash = Hasher128::new();
        hash.update(mark);
        let mut lines = LineCounter::default();
        let place = self.register_place(IssuePlace::GroupFile);
        let outcome = {
            let mut on_member = |member: &GroupMember<'_>| self.add_member(member, 0, place, MemberStart::Before);
            let mut reader = GroupReader::new(Kernel::detect(), &mut on_member);
            reader.begin();
            let mut buffer = vec![0; READ_BYTES];
            loop {
                match source.read(&mut buffer) {
                    Ok(0) => break reader.finish(),
                    Ok(len) => {
                        hash.update(&buffer[..len]);
                        lines.count(&buffer[..len]);
                        reader.feed(&buffer[..len]);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(unreadable(error).into()),
                }
            }
        };
        let head = outcome.map_err(|fault| {
            let byte = fault.at + mark.len() as u64;
            let text = format!("line {}, byte {byte}: {}", lines.line_of(fault.at), fault.kind);
            RequestError::one(RequestProblem::of(Parameter::Group, prefixed(name, text)))
        })?;
        self.take_head(&head, name.unwrap_or("the Group"))?;
        if let Some(id) = head.id {
            // The id may come last, after messages that name the file.
            let named = IssuePlace::Group(id.to_string());
            self.messages.replace_place(&IssuePlace::GroupFile, &named);
            self.places[place] = named;
            self.groups.exclude_group(id);
        }
        self.note_inactive(&head, place);
        Ok((head.id, hash.digest()))
    }

    /// Checks that the requested Group defines a set of patients (GROUP-09, GROUP-10, readings 5, 9, 22 and 37), and takes its
    /// filters.
    ///
    /// # Errors
    /// Every reason why it does not.
    fn take_head(&mut self, head: &GroupHead, name: &str) -> Result<(), RequestError> {
        let problem = |of: &UnusableGroup| {
            let problem = RequestProblem::of(Parameter::Group, format!("{name} {of}"));
            if *of == UnusableGroup::Inactive { problem.advise(Advice::TakeAsListed) } else { problem }
        };
        let problems = check_usable(head, self.request.members, self.request.filtered_groups);
        if !problems.is_empty() {
            return Err(RequestError { problems: problems.iter().map(problem).collect() });
        }
        self.filters = GroupFilters::of(head, self.request.writer.as_ref(), name)?;
        Ok(())
    }

    /// Warns if a Group with `active` false is exported because members are taken as listed.
    fn note_inactive(&mut self, head: &GroupHead, place: usize) {
        if head.active == Some(false) && self.request.members == MembershipRule::Listed {
            let text = "has active false; it was exported because members are taken as listed";
            self.warn_at("group-inactive", place, Issue::warning(IssueCode::Processing, text));
        }
    }

    /// The row of the current version at T of the requested Group.
    ///
    /// # Errors
    /// [`ExportError::Request`] if there is none, with similar ids; index errors.
    pub(crate) fn find_group(&self, id: &str) -> Result<RowAddress, ExportError> {
        let Some(wanted) = Id::parse_r4(id.as_bytes()) else {
            let text = format!("{id:?} is no legal id (1 to 64 letters, digits, '-' and '.')");
            return Err(
                RequestError::one(RequestProblem::of(Parameter::Group, text).advise(Advice::GroupIdOrFile)).into()
            );
        };
        let why = match find_group(self.snapshot, &wanted, self.ours)? {
            FoundGroup::Current(row) => return Ok(row),
            FoundGroup::Future => "is not in the store yet at the transactionTime: its lastUpdated is later",
            FoundGroup::Deleted => "was deleted before the transactionTime",
            FoundGroup::Unknown => "is not in the store",
        };
        let near = match similar_groups(self.snapshot, id)?.as_slice() {
            [] => "the store holds no Group with a similar id".to_string(),
            near => format!("similar ids: {}", near.join(", ")),
        };
        let problem = RequestProblem::of(Parameter::Group, format!("Group/{id} {why}; {near}"));
        Err(RequestError::one(problem.not_found()).into())
    }

    /// Resolves and adds the members of all nested Groups, breadth first. Each Group is read twice: it counts only if
    /// all of it is valid and defines a set of patients, and its members, of which there may be a million, are not held
    /// until that is known.
    ///
    /// # Errors
    /// [`ExportError::Request`] if one has a modifier, a filter among them, because its members are unknown then (readings 22
    /// and 37); index and store errors. A Group that is missing, unreadable, too deep or unusable for another reason is a warning.
    pub(crate) fn add_nested_groups(&mut self) -> Result<(), ExportError> {
        while let Some(NestedGroup { id, depth, listed_by, start }) = self.groups.pop() {
            // A client bound to Groups must not learn ids or members of Groups that it may not see. It knows the ids
            // that the requested Group lists (depth 1).
            let is_hidden = self.request.audience == Audience::BoundClient;
            let name = if is_hidden && depth > 1 { "a Group".to_string() } else { format!("Group/{id}") };
            if depth > GROUP_DEPTH_MAX {
                let text = format!("lists {name} more than {GROUP_DEPTH_MAX} Groups deep; it was not followed");
                self.warn_at("group-depth", listed_by, Issue::warning(IssueCode::NotSupported, text));
                continue;
            }
            let found = match self.request.absent_groups.contains(id.as_str()) {
                true => FoundGroup::Unknown,
                false => find_group(self.snapshot, &id, self.ours)?,
            };
            let FoundGroup::Current(row) = found else {
                self.warn_at("group-not-found", listed_by, absent_group(&name));
                continue;
            };
            let snapshot = self.snapshot;
            let head = match read_group(snapshot, row, &mut |_| {})? {
                Ok(head) => head,
                Err(fault) => {
                    let text = format!("lists {name}, which cannot be read: byte {}: {}", fault.at, fault.kind);
                    self.warn_at("group-unreadable", listed_by, Issue::warning(IssueCode::Structure, text));
                    continue;
                }
            };
            let unusable = check_usable(&head, self.request.members, FilteredGroups::Refused);
            let modified = unusable.iter().filter(|problem| matches!(problem, UnusableGroup::Modified(_)));
            let problem = |of| {
                RequestProblem::of(
                    Parameter::Group,
                    format!("Group/{id}, which is nested in the Group asked for, {of}"),
                )
            };
            let problems: Vec<RequestProblem> = modified.map(problem).collect();
            if !problems.is_empty() {
                return Err(RequestError { problems }.into());
            }
            if !unusable.is_empty() {
                let why: Vec<String> = unusable.iter().map(UnusableGroup::to_string).collect();
                let text = format!("lists {name}, which was passed over: it {}", why.join("; it "));
                self.warn_at("group-unusable", listed_by, Issue::warning(IssueCode::NotSupported, text));
                continue;
            }
            let place = match (is_hidden, self.places.first()) {
                (true, Some(IssuePlace::Group(top))) => IssuePlace::BelowGroup(top.clone()),
                (true, _) => IssuePlace::GroupFile,
                (false, _) => IssuePlace::Group(id.to_string()),
            };
            let place = self.register_place(place);
            self.note_inactive(&head, place);
            // The same bytes were a valid Group a moment ago.
            let second_read = read_group(snapshot, row, &mut |member| self.add_member(member, depth, place, start))?;
            if second_read.is_err() {
                return Err(rewritten_error(snapshot, row.segment)?);
            }
        }
        Ok(())
    }

    /// Adds the patients of members named by identifier: each must match exactly one current Patient (GROUP-02), else
    /// it is a warning. Streams every current Patient row once, if there is such a member.
    ///
    /// # Errors
    /// If the index is corrupt, or a Patient row cannot be read or changed since it was indexed.
    pub(crate) fn add_identified(&mut self) -> Result<(), ExportError> {
        if self.identifiers.is_empty() {
            return Ok(());
        }
        let wanted = std::mem::take(&mut self.identifiers);
        // The first match of each identifier, and the number of matches.
        let mut matches: HashMap<&(String, String), (Id, u64)> = HashMap::new();
        let index = self.snapshot.index();
        let as_of = self.snapshot.as_of().as_ref();
        for segment in self.snapshot.segments() {
            if !index.segment(segment).head().has_type(ResourceType::PATIENT.index()) {
                continue;
            }
            let columns = index.segment(segment).verify_all()?;
            for row in 0..columns.rows() {
                if columns.type_of(row) != ResourceType::PATIENT
                    || self.snapshot.state(RowAddress::of(segment, row), as_of, self.ours, &|_| true)?
                        != RowState::Current
                {
                    continue;
                }
                let mut found: Vec<(String, String)> = Vec::new();
                let mut on_identifier = |system: &str, value: &str| found.push((system.into(), value.into()));
                let mut reader = IdentifierReader::new(Kernel::detect());
                reader.begin();
                let file = index.file_of(segment);
                stream_range(index, file, row_range(index, RowAddress::of(segment, row)), &mut |piece| {
                    reader.feed(piece, &mut on_identifier)
                })?;
                // The row passed the scan when it was indexed; a fault now means that it was changed in place.
                if reader.finish().is_err() {
                    return Err(rewritten_error(self.snapshot, segment)?);
                }
                // A row that gives an identifier twice is one match.
                found.sort();
                found.dedup();
                found.retain(|pair| wanted.contains_key(pair));
                let id = columns.id_of(row);
                if found.is_empty() || self.known_patient(&id).is_empty() {
                    continue;
                }
                for pair in &found {
                    if let Some((key, _)) = wanted.get_key_value(pair) {
                        matches.entry(key).or_insert((id, 0)).1 += 1;
                    }
                }
            }
        }
        let mut pairs: Vec<_> = wanted.iter().collect();
        pairs.sort();
        for (pair, (place, number, start)) in pairs {
            let found = match matches.get(pair) {
                Some((id, 1)) => {
                    self.start = *start;
                    self.add_patient(&id.clone(), *place);
                    continue;
                }
                Some((_, found)) => *found,
                None => 0,
            };
            // The identifier's value may be a medical record number, so it is not repeated.
            let text = format!(
                "lists a member, number {number} of its list, by an identifier of system {:?} that matches {}, not one",
                pair.0,
                counted(found, "Patient")
            );
            self.warn_at("member-identifier", *place, Issue::warning(IssueCode::NotFound, text));
        }
        Ok(())
    }
}

/// The error for a row of a segment that was changed in place: it was valid when it was indexed, and no longer is.
///
/// # Errors
/// If the segment's file cannot be opened.
fn rewritten_error(snapshot: &Snapshot, segment: SegmentId) -> Result<ExportError, ExportError> {
    let index = snapshot.index();
    let path = index.source(index.file_of(segment))?.path().to_path_buf();
    Ok(IndexError::Changed { path, reason: "was rewritten in place".into() }.into())
}
