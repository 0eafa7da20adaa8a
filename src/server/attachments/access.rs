//! Who may have an attachment: a principal that may export, at this moment, a row that refers to it (ATTACH-02).
//!
//! The rows are judged as an export of each level and Group would judge them that the principal may ask for, without `_since`.

use crate::error::ExportError;
use crate::fhir::id::Id;
use crate::group::registry::RegisteredGroup;
use crate::group::registry::view::{GroupLookup, GroupView};
use crate::ids::RowAddress;
use crate::index::snapshot::Snapshot;
use crate::job::record::RecordedScope;
use crate::request::{ExportRequest, Population};
use crate::select::row_export::exports_any;
use crate::server::auth::Principal;
use crate::server::error::ApiError;
use crate::server::group_scope::scope_of;
use crate::server::kick_off::request::Level;
use crate::server::kick_off::start::unusable_store;
use crate::server::mount::Mount;
use crate::server::state::App;
use std::fmt::Display;

/// The rights of a principal to the rows of a snapshot, on a mount.
pub(crate) struct RowAccess<'a> {
    /// The service.
    pub app: &'a App,
    /// The mount that is asked.
    pub mount: &'a Mount,
    /// Who asks.
    pub principal: &'a Principal,
    /// The snapshot of the moment.
    pub snapshot: &'a Snapshot,
}

impl RowAccess<'_> {
    /// Whether the principal may export one of these rows at least that `refers` says refers to the Binary. Blocks.
    ///
    /// # Errors
    /// 503 if the store, its index or a Group cannot be read.
    pub(crate) fn may_export_any(
        &self,
        (rows, binary): (&[RowAddress], RowAddress),
        refers: &mut dyn FnMut(RowAddress) -> Result<bool, ExportError>,
    ) -> Result<bool, ApiError> {
        let RowAccess { mount, principal, snapshot, .. } = self;
        // No types at all would be read as all types.
        if rows.is_empty() || principal.exportable().is_some_and(<[_]>::is_empty) {
            return Ok(false);
        }
        let enabled = &mount.enabled;
        let mut holds = |request: &ExportRequest| {
            exports_any(snapshot, request, (rows, binary), refers).map_err(|error| unreadable(&error))
        };
        if let Some(patient) = &principal.patient {
            let may = mount.dialect.user_exports && principal.may_export(&Level::User(patient.clone()));
            return Ok(may && holds(&self.request(Population::PatientIds(vec![patient.clone()])))?);
        }
        let system = enabled.system && principal.may_export(&Level::System);
        let patients = enabled.patient && principal.may_export(&Level::Patient);
        if system && holds(&self.request(Population::System))?
            || patients && holds(&self.request(Population::AllPatients))?
        {
            return Ok(true);
        }
        if !enabled.group || !principal.levels[2] || !principal.has_scope_for_group_exports() {
            return Ok(false);
        }
        let tenant = self.app.tenant(mount);
        let groups = GroupView::new(&tenant.groups, Some(snapshot), mount.fhir_bases());
        let visible = GroupView::new(&tenant.groups, Some(snapshot), mount.fhir_bases());
        let visible = visible.seen_by(principal.groups.as_deref());
        let absent = groups.superseded_ids().map_err(|error| unreadable(&error))?;
        for id in visible.ids().map_err(|error| unreadable(&error))? {
            if !principal.may_export(&Level::Group(id.to_string())) {
                continue;
            }
            let Some(mut request) = self.request_of_group(&groups, &id)? else { continue };
            request.absent_groups = absent.iter().map(Id::to_string).collect();
            if holds(&request)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An export of a population by the policies of the mount, of the types that the principal may export.
    fn request(&self, population: Population) -> ExportRequest {
        let mut request = self.mount.request().for_population(population);
        request.types = self.principal.exportable().unwrap_or_default().to_vec();
        request
    }

    /// An export of a Group; `None` if there is none, or it cannot be read: one Group does not stop the others.
    fn request_of_group(&self, groups: &GroupView<'_>, id: &Id) -> Result<Option<ExportRequest>, ApiError> {
        let tenant = self.app.tenant(self.mount);
        let group = match groups.find(id) {
            Ok(GroupLookup::Store(_)) => return Ok(Some(self.request(Population::Group(id.to_string())))),
            Ok(GroupLookup::Registered(group)) => group,
            Ok(GroupLookup::Deleted { .. } | GroupLookup::Unknown) => return Ok(None),
            Err(error) => {
                tracing::error!(%error, "a Group cannot be read");
                return Ok(None);
            }
        };
        let scope = scope_of(self.app.authenticator.as_ref(), &tenant.name, groups, id.as_str(), &group);
        let scope = scope.map_err(|error| unreadable(&error))?;
        let mut request = self.request(document(&group)?);
        if let Some((scope, copies)) = scope {
            request.writer = Some(writer_scope(&scope, &copies)?);
        }
        Ok(Some(request))
    }
}

/// The scope of a Group's writer for an export request, with the copied Groups in memory.
fn writer_scope(scope: &RecordedScope, copies: &[RegisteredGroup]) -> Result<crate::request::WriterScope, ApiError> {
    let mut documents = Vec::new();
    for copy in copies {
        documents.push((copy.facts().id.as_ref().map(Id::to_string), document(copy)?));
    }
    let copied = |id: &str| {
        let found =
            documents.iter().find(|(known, _)| known.as_deref() == Some(id)).map(|(_, document)| document.clone());
        found.unwrap_or(Population::PatientIds(Vec::new()))
    };
    Ok(scope.to_scope(&copied))
}

/// A registered Group as a population in memory.
fn document(group: &RegisteredGroup) -> Result<Population, ApiError> {
    let mut json = vec![0; group.len() as usize];
    group.read_at(0, &mut json).map_err(|error| unreadable(&error))?;
    Ok(Population::GroupDocument(json.into()))
}

/// 503 for a store, index or Group that cannot be read; `error` is logged.
pub(crate) fn unreadable(error: &dyn Display) -> ApiError {
    tracing::error!(%error, "the store cannot be read");
    unusable_store()
}
