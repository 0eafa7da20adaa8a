//! Validation of a job record read from disk, before anything in it is used: another program or damage may have written
//! it. A record that does not pass is treated as one that cannot be read. The checksum of a record is verified in
//! `record`.

use crate::associated_data::AssociatedData;
use crate::fhir::elements::selection::ElementSelection;
use crate::fhir::id::Id;
use crate::fhir::instant::Instant;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::type_filter::TypeFilter;
use crate::hash::digest::{Digest, DigestAlgorithm};
use crate::job::record::{
    DEPARTED_TYPE, DepartedRecord, JobRecord, RecordKind, RecordedPopulation, ScopeGroup, StoredRequest, UrlNaming,
    is_hex, is_job_id,
};
use crate::job::state::JobState;
use crate::write::output_name::are_numbered;
use std::collections::HashSet;

/// Whether a text is an instant that can be formatted and parsed again: its offset does not carry it out of the years
/// 0001 to 9999, the range of dates in headers.
fn is_instant(text: &str) -> bool {
    Instant::parse(text).is_some_and(|instant| Instant::parse(&instant.to_string()).is_some())
}

impl JobRecord {
    /// Checks everything that is relied on later: ids, names and instants are well-formed, counts agree with each
    /// other, and the state agrees with the fields that are present.
    ///
    /// # Errors
    /// The first rule that is broken, in words that repeat nothing of the record.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let all = |checks: &[(bool, &'static str)]| match checks.iter().find(|(holds, _)| !holds) {
            Some((_, wrong)) => Err(*wrong),
            None => Ok(()),
        };
        let active = self.state.is_active();
        let may_have_files = matches!(self.state, JobState::Complete | JobState::Expired);
        all(&[
            (is_job_id(&self.id), "its id is none"),
            (is_instant(&self.transaction_time), "its transactionTime is no instant"),
            (is_instant(&self.accepted), "it was accepted at what is no instant"),
            (self.ended.as_deref().is_none_or(is_instant), "it ended at what is no instant"),
            (self.expires.as_deref().is_none_or(is_instant), "it expires at what is no instant"),
            (active == self.ended.is_none(), "its state and its end contradict each other"),
            (!active || self.view.is_some(), "it is active and does not say what it exports"),
            (self.state != JobState::Failed || self.failure.is_some(), "it has failed and does not say why"),
            (may_have_files || self.file_ids().next().is_none(), "it has files before it is complete"),
            (!self.files_removed || self.files.is_empty(), "it has files that were removed"),
            (self.planned.is_none_or(|planned| planned.complete <= planned.shards), "it has done more than there is"),
        ])?;
        self.request.check()?;
        self.check_files()
    }

    /// Whether an id in URLs is as the files of the job have them; `of` is the type of the file.
    fn is_file_id(&self, id: &str, of: &str) -> bool {
        match self.naming {
            UrlNaming::Random => is_job_id(id),
            UrlNaming::Typed => {
                let digits = id.strip_prefix(of).and_then(|rest| rest.strip_prefix('_'));
                digits.and_then(|rest| rest.strip_suffix(".ndjson")).is_some_and(|digits| is_hex(digits, 8))
            }
        }
    }

    /// Checks the files of a record: ids, names, lists, compression, digest, and their sums against the planned counts.
    fn check_files(&self) -> Result<(), &'static str> {
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        let (mut shards, mut rows) = (0u64, 0u64);
        for file in &self.files {
            let name = file.receipt.checked().ok_or("a file of it is not as a file is recorded")?;
            let id_holds = self.is_file_id(&file.id, name.resource_type.name());
            let digest = file.receipt.digest.as_ref().map_or(DigestAlgorithm::None, |digest| digest.algorithm);
            if !id_holds || !ids.insert(&file.id) {
                return Err("the id of a file of it is none, or stands twice");
            }
            if !names.insert(&file.receipt.file) || file.kind != RecordKind::of(&name) {
                return Err("a file of it stands twice, or in the wrong list");
            }
            if name.compression != self.request.compression || digest != self.request.digest {
                return Err("a file of it has another coding or digest than was asked for");
            }
            if file.kind == RecordKind::Output {
                (shards, rows) = (shards + 1, rows.saturating_add(file.receipt.count));
            }
        }
        let departed = self.departed.as_ref();
        let is_sound = |list: &DepartedRecord| list.digest.as_ref().is_none_or(Digest::is_well_formed);
        if departed
            .is_some_and(|list| !self.is_file_id(&list.id, DEPARTED_TYPE) || !ids.insert(&list.id) || !is_sound(list))
        {
            return Err("its list of who left is not as it is recorded");
        }
        if !are_numbered(self.files.iter().map(|file| file.receipt.file.as_str())) {
            return Err("its files are not numbered as an export numbers them");
        }
        match self.planned {
            Some(planned) if self.state == JobState::Complete && (planned.shards, planned.rows) != (shards, rows) => {
                Err("its files are not as they were planned")
            }
            _ => Ok(()),
        }
    }
}

impl StoredRequest {
    /// Checks the request of a record: ids, types, instants, and bounds of files that are not zero.
    fn check(&self) -> Result<(), &'static str> {
        let id = match &self.population {
            RecordedPopulation::System | RecordedPopulation::AllPatients => None,
            RecordedPopulation::Patient(id) | RecordedPopulation::StoreGroup(id) | RecordedPopulation::OwnGroup(id) => {
                Some(id)
            }
        };
        if id.is_some_and(|id| Id::parse(id.as_bytes()).is_none()) {
            return Err("the id of whose records it exports is none");
        }
        let listed = self.scope.iter().flat_map(|scope| scope.groups.iter().flatten());
        let sources = self.scope.iter().flat_map(|scope| scope.patients_of.iter().flatten());
        let sources = sources.map(|source| match source {
            ScopeGroup::Store(id) | ScopeGroup::Copied(id) => id,
        });
        if !listed.chain(sources).chain(&self.absent_groups).all(|id| Id::parse(id.as_bytes()).is_some()) {
            return Err("the id of a Group that its Group may reach, or not, is none");
        }
        if !self.member_filter_types.iter().all(|name| ResourceType::parse(name).is_some()) {
            return Err("filters of its Group search a type that there is not");
        }
        if !self.types.iter().all(|name| ResourceType::parse(name).is_some()) {
            return Err("it exports a type that there is not");
        }
        if !ElementSelection::parse(&self.elements).1.is_empty() {
            return Err("it keeps an element that there is not");
        }
        if self.type_filters.iter().any(|text| TypeFilter::parse(text).is_err()) {
            return Err("it filters by what is no filter");
        }
        if !self.since.iter().chain(&self.until).all(|text| is_instant(text)) {
            return Err("it exports what changed since, or until, what is no instant");
        }
        let baseline = self.baseline.as_ref();
        let mut hashes =
            self.question.iter().chain(baseline.iter().flat_map(|baseline| [&baseline.plan_id, &baseline.cohort]));
        if !hashes.all(|text| is_hex(text, 32)) || baseline.is_some() && self.since.is_none() {
            return Err("what it builds on is not as an export is named");
        }
        if self.associated.as_deref().is_some_and(|code| AssociatedData::parse(code).is_none()) {
            return Err("it adds associated data of a name that there is not");
        }
        if self.bounds.file_bytes == 0 || self.bounds.file_resources == Some(0) {
            return Err("its files may hold nothing");
        }
        Ok(())
    }
}
