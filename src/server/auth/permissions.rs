//! Permissions of a principal: which exports, results and Groups it may have. The rules are the same on every mount
//! (DIALECT-05).

use axum::http::{HeaderValue, StatusCode, header};

use std::collections::BTreeSet;

use crate::fhir::compartment;
use crate::fhir::resource_type::ResourceType;
use crate::issue::IssueCode;
use crate::job::record::{FileRecord, JobRecord, RecordKind, RecordedPopulation};
use crate::request::ExportRequest;
use crate::server::auth::Principal;
use crate::server::error::ApiError;
use crate::server::kick_off::request::Level;
use crate::server::kick_off::start::unknown_group;
use crate::server::routes::Operation;

/// 403 for what the scopes of a token do not open (RFC 6750, 3.1).
fn insufficient_scope(text: impl Into<String>) -> ApiError {
    let challenge = HeaderValue::from_static("Bearer realm=\"outpour\", error=\"insufficient_scope\"");
    forbidden(text).header(header::WWW_AUTHENTICATE, challenge)
}

/// 403 with a text that says what the client may not do.
fn forbidden(text: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, IssueCode::Forbidden, text)
}

impl Principal {
    /// Whether it may export at a level. A user may export its own record and nothing else.
    pub(crate) fn may_export(&self, level: &Level) -> bool {
        match (level, &self.patient) {
            (Level::User(own), patient) => patient.as_ref() == Some(own),
            (_, Some(_)) => false,
            (Level::System, None) => self.levels[0],
            (Level::Patient, None) => self.levels[1],
            (Level::Group(id), None) => self.levels[2] && self.sees_group(id),
        }
    }

    /// Whether it may export a resource type.
    pub(crate) fn may_export_type(&self, of: ResourceType) -> bool {
        self.exportable().is_none_or(|types| types.contains(&of))
    }

    /// Whether the scopes of its token let it export Groups that it sees: with the right to read Groups, where that is required.
    pub(crate) fn has_scope_for_group_exports(&self) -> bool {
        self.token.as_ref().is_none_or(|token| token.groups.read || !token.exports_groups_by_scope)
    }

    /// Checks that the scopes of its token allow it to read Groups, or to search them (AUTH-24).
    ///
    /// # Errors
    /// 403 with the scope that is missing.
    fn check_group_scope(&self, is_search: bool) -> Result<(), ApiError> {
        let Some(token) = &self.token else { return Ok(()) };
        let (is_allowed, letter) = if is_search { (token.groups.search, "s") } else { (token.groups.read, "r") };
        match is_allowed {
            true => Ok(()),
            false => Err(insufficient_scope(format!(
                "the scopes of this token do not open Groups: ask for one with system/Group.{letter}, or system/*.rs"
            ))),
        }
    }

    /// 403 for something that the client may not have, or may have with another token.
    fn forbidden_by_type(&self, text: String, of: &[ResourceType]) -> ApiError {
        let has_right = |of: &ResourceType| self.types.as_ref().is_none_or(|types| types.contains(of));
        match self.token.is_some() && of.iter().all(has_right) {
            true => insufficient_scope(format!("{text} with this token: its scopes do not open that")),
            false => forbidden(text),
        }
    }

    /// Whether it may see any Group: it may export or write Groups, or export them as resources of the system. Group
    /// level suffices whatever its types are, since the records of the members identify them anyway.
    pub(crate) fn sees_groups(&self) -> bool {
        let as_resources = self.levels[0] && self.may_export_type(ResourceType::GROUP);
        self.patient.is_none() && (self.levels[2] || self.writes_groups || as_resources)
    }

    /// Whether it may see the Group `id`. An invisible Group is answered as if it did not exist (KICK-16).
    pub(crate) fn sees_group(&self, id: &str) -> bool {
        self.sees_groups() && self.groups.as_ref().is_none_or(|groups| groups.iter().any(|known| known == id))
    }

    /// Checks the level of a kick-off (KICK-18).
    ///
    /// # Errors
    /// 403 for one at which it may not export.
    pub(crate) fn check_level(&self, level: &Level) -> Result<(), ApiError> {
        // An invisible Group is not refused here but looked up, so that it takes as long as a missing one (KICK-16).
        let hidden = matches!(level, Level::Group(id) if !self.sees_group(id));
        if !hidden && !self.may_export(level) {
            return Err(forbidden("this client may not export at this level; ask for a Group that it may see"));
        }
        match matches!(level, Level::Group(_)) && !self.has_scope_for_group_exports() {
            true => self.check_group_scope(false),
            false => Ok(()),
        }
    }

    /// Checks the level and the types of a kick-off (KICK-18); if it names no types, sets those that the principal
    /// may export (AUTH-22, NETSMART-E02).
    ///
    /// # Errors
    /// 403 for a level or type that it may not export.
    pub(crate) fn allow(&self, level: &Level, request: &mut ExportRequest) -> Result<(), ApiError> {
        self.check_level(level)?;
        let Some(allowed) = self.exportable() else { return Ok(()) };
        if allowed.is_empty() {
            return Err(insufficient_scope(
                "the scopes of this token open no type for an export: ask for one with system/*.rs, or with .rs of some types",
            ));
        }
        if request.associated.is_some() && !self.may_export_type(ResourceType::PROVENANCE) {
            let text = "includeAssociatedData: this client may not export Provenance".to_string();
            return Err(self.forbidden_by_type(text, &[ResourceType::PROVENANCE]));
        }
        let denied: Vec<ResourceType> = request.types.iter().copied().filter(|of| !self.may_export_type(*of)).collect();
        if !denied.is_empty() {
            let names: Vec<&str> = denied.iter().map(|of| of.name()).collect();
            return Err(
                self.forbidden_by_type(format!("_type: this client may not export {}", names.join(", ")), &denied)
            );
        }
        if request.types.is_empty() {
            // Below system level only compartment types are exported, and Group only if it is named (reading 6).
            let is_system = *level == Level::System;
            let is_at_level =
                |of: &ResourceType| is_system || (compartment::in_compartment(*of) && *of != ResourceType::GROUP);
            request.types = allowed.iter().copied().filter(is_at_level).collect();
            request.types.sort_unstable();
            request.types.dedup();
            if request.types.is_empty() {
                let names: Vec<&str> = allowed.iter().map(|of| of.name()).collect();
                return Err(forbidden(format!(
                    "this client may export {} only, which this level does not give by itself",
                    names.join(", ")
                )));
            }
        }
        // A filter of a type that this client does not get would refuse its job later.
        let filtered = request.type_filters.iter().map(|filter| filter.resource_type);
        let denied: BTreeSet<ResourceType> = filtered.filter(|of| !request.types.contains(of)).collect();
        if !denied.is_empty() {
            let denied: Vec<ResourceType> = denied.into_iter().collect();
            let names: Vec<&str> = denied.iter().map(|of| of.name()).collect();
            let text = format!("_typeFilter: this client may not export {} here", names.join(", "));
            return Err(self.forbidden_by_type(text, &denied));
        }
        Ok(())
    }

    /// Checks that it may still have all that its job exports: its rights may have been reduced since (STATUS-14).
    ///
    /// # Errors
    /// 403 for a level, Group or type that it may no longer export.
    pub(crate) fn check_job(&self, job: &JobRecord) -> Result<(), ApiError> {
        self.check_population(job)?;
        self.check_types_of_client(job)?;
        match holds_only(job, self.exportable()) {
            true => Ok(()),
            false => Err(insufficient_scope(
                "this export has types that the scopes of this token do not open: ask for a token with those of the kick-off",
            )),
        }
    }

    /// Checks that the client may still export all types of its job, whatever the scopes of its token are.
    ///
    /// # Errors
    /// 403 if it may not.
    fn check_types_of_client(&self, job: &JobRecord) -> Result<(), ApiError> {
        match holds_only(job, self.types.as_deref()) {
            true => Ok(()),
            false => Err(forbidden("this export has types that this client may no longer export; ask for a new one")),
        }
    }

    /// Checks that it may still export at the level, and the Group or patient, of its job, and what filters of the Group search.
    ///
    /// # Errors
    /// 403 if it may not.
    fn check_population(&self, job: &JobRecord) -> Result<(), ApiError> {
        let level = match &job.request.population {
            RecordedPopulation::System => Level::System,
            RecordedPopulation::AllPatients => Level::Patient,
            RecordedPopulation::Patient(id) => Level::User(id.clone()),
            RecordedPopulation::StoreGroup(id) | RecordedPopulation::OwnGroup(id) => Level::Group(id.clone()),
        };
        if !self.may_export(&level) {
            return Err(forbidden("this client may no longer export whom this export is of; ask for a new one"));
        }
        let mut searched = job.request.member_filter_types.iter().filter_map(|name| ResourceType::parse(name));
        match searched.find(|of| !self.may_export_type(*of)) {
            None => Ok(()),
            Some(of) => Err(forbidden(format!(
                "a filter of this export's Group searches {of}, which this client may no longer export; ask for a new one"
            ))),
        }
    }

    /// Checks that it may have a file of its job: an output file of a type that it may export, or a message file
    /// about such types only. `None` is the list of who left.
    ///
    /// # Errors
    /// 403 if it may not.
    pub(crate) fn check_file(&self, job: &JobRecord, file: Option<&FileRecord>) -> Result<(), ApiError> {
        self.check_population(job)?;
        // Who left is told of all types of the job, as deletions are.
        let Some(file) = file else { return self.check_types_of_client(job) };
        // A client that was bound after the job began may not read messages about the whole store (reading 24).
        if file.kind == RecordKind::Error && self.is_bound() && !job.request.bound_client {
            return Err(forbidden(
                "these messages are of the whole store, which this client may no longer have; ask for a new export",
            ));
        }
        // Messages and deletions are of no type that a scope could name, and go to every token of the client.
        if file.kind != RecordKind::Output {
            return self.check_types_of_client(job);
        }
        let Some(of) = ResourceType::parse(&file.receipt.r#type) else {
            return Err(forbidden("this client may not fetch files of this type"));
        };
        match self.may_export_type(of) {
            true => Ok(()),
            false => Err(self.forbidden_by_type("this client may not fetch files of this type".to_string(), &[of])),
        }
    }

    /// Checks that it may export every type that filters of a Group search, to write the Group or to export it (COHORT-05).
    ///
    /// # Errors
    /// 403 naming the types that it may not export.
    pub(crate) fn check_filters(&self, group: &str, searched: &[ResourceType]) -> Result<(), ApiError> {
        let denied: Vec<&str> = searched.iter().filter(|of| !self.may_export_type(**of)).map(|of| of.name()).collect();
        match denied.is_empty() {
            true => Ok(()),
            false => Err(forbidden(format!(
                "{group} has a member-filter of {}, which this client may not export",
                denied.join(", ")
            ))),
        }
    }

    /// Checks that it may perform a Group operation; `id` is empty for create and search (GROUP-08).
    ///
    /// # Errors
    /// 403 for an operation that it may not perform at all, 404 for a Group that it may not see.
    pub(crate) fn check_group(&self, operation: Operation, id: &str) -> Result<(), ApiError> {
        let writes = matches!(operation, Operation::GroupCreate | Operation::GroupUpdate | Operation::GroupDelete);
        if writes && (!self.writes_groups || self.patient.is_some()) {
            return Err(forbidden("this client may not make, change or delete Groups"));
        }
        if operation == Operation::GroupCreate && self.groups.is_some() {
            // The service chooses the id, which would not be among the Groups of the client.
            let text = "this client may change its own Groups only; put one under an id that it may see";
            return Err(forbidden(text));
        }
        if !writes {
            self.check_group_scope(operation == Operation::GroupSearch)?;
        }
        match id.is_empty() {
            true if !self.sees_groups() => Err(forbidden("this client may not see Groups")),
            false if !self.sees_group(id) => Err(unknown_group()),
            _ => Ok(()),
        }
    }
}

/// Whether a job exports nothing but these types; `None` for all types.
fn holds_only(job: &JobRecord, allowed: Option<&[ResourceType]>) -> bool {
    let Some(allowed) = allowed else { return true };
    let is_allowed = |name: &str| allowed.iter().any(|of| of.name() == name);
    let types = &job.request.types;
    let has_provenance = job.request.associated.is_some();
    (!has_provenance || is_allowed(ResourceType::PROVENANCE.name()))
        && !types.is_empty()
        && types.iter().all(|name| is_allowed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        Principal::unrestricted("a")
    }

    fn types(names: &[&str]) -> Vec<ResourceType> {
        names.iter().map(|name| ResourceType::parse(name).unwrap()).collect()
    }

    fn group(id: &str) -> Level {
        Level::Group(id.into())
    }

    /// KICK-18: the levels and Groups that a client may export.
    #[test]
    fn a_principal_sees_its_own() {
        let mut principal = principal();
        assert!(principal.may_export(&group("a")) && principal.may_export(&Level::System));
        principal.groups = Some(vec!["b".into()]);
        principal.levels[0] = false;
        assert!(!principal.may_export(&group("a")) && principal.may_export(&group("b")));
        assert!(!principal.may_export(&Level::System));
    }

    /// ONEUP-S01: a user may export its own record, and no other level or Group.
    #[test]
    fn a_user_has_no_level() {
        let user = Principal { patient: Some("p".into()), ..principal() };
        for level in [Level::System, Level::Patient, group("a")] {
            assert!(!user.may_export(&level));
            let hidden = matches!(level, Level::Group(_));
            assert_eq!(
                user.allow(&level, &mut ExportRequest::system()).is_ok(),
                hidden,
                "a Group is looked for in vain"
            );
        }
        for operation in [Operation::GroupSearch, Operation::GroupCreate] {
            assert_eq!(user.check_group(operation, "").unwrap_err().status, 403);
        }
        assert_eq!(user.check_group(Operation::GroupRead, "a").unwrap_err().status, 404);
        let mut request = ExportRequest::system();
        let user = Principal { types: Some(types(&["Group", "Organization", "Patient"])), ..user };
        user.allow(&Level::User("p".into()), &mut request).unwrap();
        assert!(!user.may_export(&Level::User("q".into())) && !principal().may_export(&Level::User("p".into())));
        assert_eq!(request.types, types(&["Patient"]));
    }

    /// AUTH-22, NETSMART-E02: without `_type` a client gets those of its types that the level exports; other types
    /// are refused.
    #[test]
    fn types_are_narrowed() {
        let client = Principal { types: Some(types(&["Patient", "Organization", "Group"])), ..principal() };
        for (level, expected) in [
            (Level::System, &["Group", "Organization", "Patient"][..]),
            (Level::Patient, &["Patient"]),
            (group("a"), &["Patient"]),
        ] {
            let mut request = ExportRequest::system();
            client.allow(&level, &mut request).unwrap();
            assert_eq!(request.types, types(expected), "{level:?}");
        }
        let mut named = ExportRequest::system().types(["Group", "Patient"]);
        client.allow(&group("a"), &mut named).unwrap();
        assert_eq!(named.types, types(&["Group", "Patient"]), "what is named stays");
        let mut foreign = ExportRequest::system().types(["Condition", "Patient"]);
        let refused = client.allow(&Level::Patient, &mut foreign).unwrap_err();
        assert!(refused.status == 403 && refused.to_json().contains("Condition"));
        let outside = Principal { types: Some(types(&["Organization"])), ..principal() };
        assert_eq!(outside.allow(&Level::Patient, &mut ExportRequest::system()).unwrap_err().status, 403);
        // Provenance that is added to what is exported needs its right, too (ASSOC-08).
        let mut added = ExportRequest::system().include_associated_data(["LatestProvenanceResources"]);
        assert_eq!(client.allow(&Level::Patient, &mut added).unwrap_err().status, 403);
        principal().allow(&Level::Patient, &mut added).unwrap();
        // A filter needs the right to its type, and a level that gives it (TFILTER-08).
        for (filter, level, is_allowed) in [
            ("Patient?gender=male", Level::Patient, true),
            ("Organization?name=a", Level::System, true),
            ("Organization?name=a", Level::Patient, false),
            ("Condition?code=a", Level::System, false),
        ] {
            let mut filtered = ExportRequest::system().type_filters([filter]);
            let found = client.allow(&level, &mut filtered).map_err(|refusal| refusal.status.as_u16());
            assert_eq!(found, if is_allowed { Ok(()) } else { Err(403) }, "{filter} {level:?}");
        }
        let mut all = ExportRequest::system();
        principal().allow(&Level::System, &mut all).unwrap();
        assert!(all.types.is_empty());
    }

    /// GROUP-08, AUTH-24: a client that may export a Group may read it; one that may write Groups changes only its
    /// own, and creates Groups only if it may see all.
    #[test]
    fn groups_are_seen_and_written() {
        let all = [Operation::GroupRead, Operation::GroupUpdate, Operation::GroupDelete, Operation::GroupVersion];
        let status =
            |who: &Principal, operation, id: &str| who.check_group(operation, id).err().map(|e| e.status.as_u16());
        let own = Principal { groups: Some(vec!["b".into()]), levels: [false, false, true], ..principal() };
        for operation in all {
            assert_eq!((status(&own, operation, "b"), status(&own, operation, "a")), (None, Some(404)));
            assert_eq!(status(&principal(), operation, "a"), None);
        }
        assert_eq!(
            (status(&own, Operation::GroupSearch, ""), status(&own, Operation::GroupCreate, "")),
            (None, Some(403))
        );
        assert_eq!(status(&principal(), Operation::GroupCreate, ""), None);
        let reader = Principal { writes_groups: false, ..own };
        assert_eq!(
            (status(&reader, Operation::GroupRead, "b"), status(&reader, Operation::GroupDelete, "b")),
            (None, Some(403))
        );
        let typed = Principal { types: Some(types(&["Patient"])), writes_groups: false, ..principal() };
        assert_eq!(status(&typed, Operation::GroupRead, "a"), None, "it may export the Group");
        let system = Principal { levels: [true, false, false], ..typed };
        assert_eq!(
            (status(&system, Operation::GroupRead, "a"), status(&system, Operation::GroupSearch, "")),
            (Some(404), Some(403))
        );
        let with_type = Principal { types: Some(types(&["Group"])), ..system };
        assert_eq!(status(&with_type, Operation::GroupSearch, ""), None);
    }
}
