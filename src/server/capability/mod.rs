//! The CapabilityStatement and OperationDefinitions of a mount, as R4 JSON.
//!
//! They are made from the tables that requests are routed and checked by, so that they state what the service does
//! (CAP-01, CAP-13). Shapes: <https://hl7.org/fhir/R4/capabilitystatement.html>,
//! <https://hl7.org/fhir/R4/operationdefinition.html>; canonical URLs:
//! <https://hl7.org/fhir/uv/bulkdata/artifacts.html>. Search parameters are those that `_typeFilter` takes (CAP-06),
//! where it is served.

pub(crate) mod documentation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::codec::compression::Compression;
use crate::fhir::attachment_url::AttachmentPath;
use crate::fhir::resource_type::ResourceType;
use crate::fhir::search::parameter::parameters_of;
use crate::group::lookup::MembershipRule;
use crate::group::member_filter::{COHORT_PROFILE, FilteredGroups};
use crate::group::registry::query;
use crate::policies::FileBounds;
use crate::policies::{Context, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished};
use crate::server::config::presets::PresetConfig;
use crate::server::parameters::{ParameterRow, find};
use crate::server::routes::{Enabled, Operation, Route, routes_on};
use crate::server::smart::discovery::TOKEN_PATH;

/// Canonical URL of the CapabilityStatement that a Bulk Data server instantiates (CAP-02).
const INSTANTIATES: &str = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data";
/// Canonical URL of the Bulk Data IG.
const GUIDE: &str = "http://hl7.org/fhir/uv/bulkdata/ImplementationGuide/hl7.fhir.uv.bulkdata";
/// Prefix of the canonical URLs of the IG's OperationDefinitions (CAP-03).
const DEFINITIONS: &str = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/";
/// Extension with the places of authorization (<https://hl7.org/fhir/smart-app-launch/1.0.0/conformance>).
const OAUTH_URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";
/// Code system of `rest.security.service`.
const SECURITY_SERVICES: &str = "http://terminology.hl7.org/CodeSystem/restful-security-service";
/// Extension that marks abilities of REST that an export does not have (CAP-07, C-18).
const NOT_IN_BULK: &str = "http://hl7.org/fhir/uv/bulkdata/Extension/operation-not-supported";

/// A kick-off operation, as statement and definition describe it.
struct ExportDeclaration {
    /// The operation of its routes.
    operation: Operation,
    /// Id of its OperationDefinition, and its name in releases before 3 (CAP-04).
    id: &'static str,
    /// The resource type it is an operation of; `None` at system level.
    resource: Option<&'static str>,
    /// Whether it is an operation of one instance of that type.
    instance: bool,
    /// Name of the OperationDefinition, a computer-readable identifier.
    name: &'static str,
    /// Title of the OperationDefinition.
    title: &'static str,
    /// Word for the level in the documentation.
    level: &'static str,
    /// One sentence on what it exports.
    description: &'static str,
}

/// The kick-off operations of all levels.
static EXPORTS: [ExportDeclaration; 3] = [
    ExportDeclaration {
        operation: Operation::SystemExport,
        id: "export",
        resource: None,
        instance: false,
        name: "BulkDataExport",
        title: "Export of the whole system",
        level: "system",
        description: "Exports every resource, whether or not it belongs to a patient.",
    },
    ExportDeclaration {
        operation: Operation::PatientExport,
        id: "patient-export",
        resource: Some("Patient"),
        instance: false,
        name: "PatientLevelExport",
        title: "Export of all patients",
        level: "patient",
        description: "Exports the records of all patients.",
    },
    ExportDeclaration {
        operation: Operation::GroupExport,
        id: "group-export",
        resource: Some("Group"),
        instance: true,
        name: "GroupLevelExport",
        title: "Export of a Group",
        level: "group",
        description: "Exports the records of the members of one Group.",
    },
];

/// Export policies of a mount that its documentation states (CAP-12).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Policies {
    /// Size limits of an output file.
    pub bounds: FileBounds,
    /// Compression of stored files.
    pub compression: Compression,
    /// Which listed members of a Group count.
    pub members: MembershipRule,
    /// What becomes of a Group that has filters of its members.
    pub filtered_groups: FilteredGroups,
    /// Which resources come with those that refer to them.
    pub context: Context,
    /// Treatment of rows that reached the store after `_since` with an earlier date.
    pub late: LateArrivals,
    /// Treatment of rows without `meta.lastUpdated`.
    pub missing_last_updated: MissingLastUpdated,
    /// Handling of resources that are gone from replaced files.
    pub vanished: Vanished,
    /// What happens for patients who joined a Group.
    pub new_members: NewMembers,
    /// Whether a patient who is not there is refused.
    pub strict_patients: bool,
    /// Which rows belong to the patients of `patient`.
    pub patient_strict: PatientStrict,
}

/// All facts about a mount that the statement and the definitions are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declaration<'a> {
    /// Absolute URL of the mount, without a slash at its end (CORE-05).
    pub base_url: &'a str,
    /// Routes of the dialect.
    pub routes: &'a [Route],
    /// Kick-off parameters of the dialect.
    pub parameters: &'a [ParameterRow],
    /// Where attachments are downloaded.
    pub attachments: AttachmentPath,
    /// The operations that are switched on.
    pub enabled: Enabled,
    /// Description of the authentication for readers.
    pub security: &'a str,
    /// Public URL of the service, below which tokens are asked for.
    pub root_url: &'a str,
    /// Whether clients get in by tokens of SMART Backend Services.
    pub names_smart: bool,
    /// Profiles that the statement names, by resource type (NETSMART-G08).
    pub profiles: &'a BTreeMap<String, Vec<String>>,
    /// Presets of `includeAssociatedData`, by name.
    pub presets: &'a BTreeMap<String, PresetConfig>,
    /// Export policies of the mount.
    pub policies: Policies,
}

impl Declaration<'_> {
    /// The CapabilityStatement. `date` is a FHIR date; `version` is that of the software.
    pub(crate) fn statement(&self, date: &str, version: &str) -> Value {
        let documentation = self.documentation();
        let mut rest = json!({
            "extension": [documentation.extension()],
            "mode": "server",
            "documentation": documentation.markdown(),
            "security": self.security(),
        });
        let types = ResourceType::all().map(|known| self.resource(known.name()));
        add_list(&mut rest, "resource", types.flatten().collect());
        let system = self.exports().filter(|export| export.resource.is_none());
        add_list(&mut rest, "operation", system.flat_map(|export| self.operations(export)).collect());
        json!({
            "resourceType": "CapabilityStatement",
            "url": format!("{}/metadata", self.base_url),
            "version": version,
            "name": "OutpourBulkExport",
            "title": "outpour bulk export",
            "status": "active",
            "experimental": false,
            "date": date,
            "description": "Bulk export of FHIR R4 records as newline-delimited JSON.",
            "kind": "instance",
            "instantiates": [INSTANTIATES],
            "software": { "name": "outpour", "version": version },
            "implementation": { "description": "outpour bulk export", "url": self.base_url },
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json", "json"],
            "implementationGuide": [GUIDE],
            "rest": [rest],
        })
    }

    /// The OperationDefinition `export`, `patient-export` or `group-export` (CAP-09); `None` for another name and for
    /// an operation that is switched off.
    ///
    /// It is derived from the IG's definition, with the parameters that are served here. `affectsState` is false,
    /// since the operation may be called by GET.
    pub(crate) fn operation_definition(&self, name: &str, version: &str) -> Option<Value> {
        let export = self.exports().find(|export| export.id == name)?;
        let mut definition = json!({
            "resourceType": "OperationDefinition",
            "id": export.id,
            "url": self.definition_url(export),
            "version": version,
            "name": export.name,
            "title": export.title,
            "status": "active",
            "kind": "operation",
            "experimental": false,
            "description": format!(
                "{} Called by {} at {} with `Prefer: respond-async`, as the \
                 [asynchronous pattern](http://hl7.org/fhir/R4/async.html) of FHIR R4 says.",
                export.description,
                self.methods(export),
                self.urls_in_markdown(export),
            ),
            "affectsState": false,
            "code": "export",
            "base": format!("{DEFINITIONS}{}", export.id),
        });
        add_list(&mut definition, "resource", export.resource.iter().map(|of| json!(of)).collect());
        let fields = definition.as_object_mut().expect("an object");
        fields.insert("system".into(), json!(export.resource.is_none()));
        fields.insert("type".into(), json!(export.resource.is_some() && !export.instance));
        fields.insert("instance".into(), json!(export.instance));
        let parameter = |of: &ParameterRow| {
            json!({
                "name": of.name,
                "use": "in",
                "min": of.min,
                "max": of.max,
                "documentation": of.documentation,
                "type": of.fhir_type,
            })
        };
        add_list(&mut definition, "parameter", self.parameters_of(export).map(parameter).collect());
        Some(definition)
    }

    /// `rest.security`: SMART, where its tokens are taken, and for older clients the place where tokens are asked for, which is
    /// there in any case (CAP-10).
    fn security(&self) -> Value {
        let mut security = json!({
            "extension": [{
                "url": OAUTH_URIS,
                "extension": [{ "url": "token", "valueUri": format!("{}{TOKEN_PATH}", self.root_url) }],
            }],
            "description": self.security,
        });
        if self.names_smart {
            let coding = json!({ "system": SECURITY_SERVICES, "code": "SMART-on-FHIR", "display": "SMART-on-FHIR" });
            let text = "SMART Backend Services: client credentials with signed assertions";
            add_list(&mut security, "service", vec![json!({ "coding": [coding], "text": text })]);
        }
        security
    }

    /// The kick-off operations that have a route and are switched on.
    fn exports(&self) -> impl Iterator<Item = &'static ExportDeclaration> {
        EXPORTS.iter().filter(|export| self.is_on(export.operation))
    }

    /// Whether an operation has a route and is switched on.
    fn is_on(&self, operation: Operation) -> bool {
        routes_on(self.routes, &self.enabled).any(|route| route.operation == operation)
    }

    /// The parameters of a kick-off operation that are served and apply at its level.
    fn parameters_of(&self, export: &'static ExportDeclaration) -> impl Iterator<Item = &ParameterRow> {
        let system = export.resource.is_none();
        self.parameters.iter().filter(move |parameter| parameter.supported && (parameter.system || !system))
    }

    /// Absolute URL of the OperationDefinition of a kick-off operation.
    fn definition_url(&self, export: &ExportDeclaration) -> String {
        format!("{}/OperationDefinition/{}", self.base_url, export.id)
    }

    /// The methods of a kick-off operation, for readers.
    fn methods(&self, export: &ExportDeclaration) -> String {
        let routes = routes_on(self.routes, &self.enabled).filter(|route| route.operation == export.operation);
        let mut methods: Vec<&str> = routes.map(|route| route.method.as_str()).collect();
        methods.dedup();
        methods.join(" or ")
    }

    /// The URLs of a kick-off operation, in markdown, each `$` in its plain form only.
    fn urls_in_markdown(&self, export: &ExportDeclaration) -> String {
        let routes = routes_on(self.routes, &self.enabled).filter(|route| route.operation == export.operation);
        let written = routes.filter(|route| !route.path.contains('%'));
        let place = |route: &Route| format!("`[base]{}`", route.path.replace('{', "[").replace('}', "]"));
        let mut places: Vec<String> = written.map(place).collect();
        places.dedup();
        places.join(" or ")
    }

    /// A kick-off operation under its name in release 3 and the one in release 2, if they differ (CAP-03, CAP-04).
    fn operations(&self, export: &'static ExportDeclaration) -> Vec<Value> {
        let mut names = vec!["export", export.id];
        names.dedup();
        let parameter = |of: &ParameterRow| format!("`{}` ({}): {}", of.name, of.fhir_type, of.documentation);
        let parameters: Vec<String> = self.parameters_of(export).map(parameter).collect();
        let documentation = format!(
            "{} Parameters are defined in {}.\n\n{}",
            export.description,
            self.definition_url(export),
            parameters.join("\n\n")
        );
        let definition = format!("{DEFINITIONS}{}", export.id);
        let operation = |name| json!({ "name": name, "definition": definition, "documentation": documentation });
        names.into_iter().map(operation).collect()
    }

    /// The statement about a resource type; `None` if it can neither be exported (CAP-05) nor used by REST.
    fn resource(&self, name: &str) -> Option<Value> {
        let mut codes: Vec<&str> = Vec::new();
        for route in routes_on(self.routes, &self.enabled) {
            if let Some((of, code)) = route.operation.interaction()
                && of == name
                && !codes.contains(&code)
            {
                codes.push(code);
            }
        }
        let exported = self.exports().next().is_some();
        if !exported && codes.is_empty() {
            return None;
        }
        let mut resource = json!({ "type": name });
        if !exported {
            add_list(&mut resource, "extension", vec![not_in_bulk()]);
        }
        let mut profiles: Vec<&str> = self.profiles.get(name).into_iter().flatten().map(String::as_str).collect();
        // CAP-11.
        let is_filtered = name == "Group" && self.policies.filtered_groups == FilteredGroups::Evaluated;
        if is_filtered && !profiles.contains(&COHORT_PROFILE) {
            profiles.push(COHORT_PROFILE);
        }
        add_list(&mut resource, "supportedProfile", profiles.into_iter().map(|profile| json!(profile)).collect());
        let has_code = |code: &str| codes.contains(&code);
        let (updated, searched) = (has_code("update"), has_code("search-type"));
        add_list(&mut resource, "interaction", codes.iter().map(|code| json!({ "code": code })).collect());
        let fields = resource.as_object_mut().expect("an object");
        if name == "OperationDefinition" && !codes.is_empty() {
            let text = "What is read are the definitions of this server's own operations.";
            fields.insert("documentation".into(), json!(text));
        }
        if updated {
            fields.insert("versioning".into(), json!("versioned"));
            fields.insert("readHistory".into(), json!(false));
            fields.insert("updateCreate".into(), json!(true));
        }
        let mut search = Vec::new();
        if name == "Group" && searched {
            search.extend(query::PARAMETERS.iter().map(|(name, of)| group_search(name, of)));
        }
        let is_served = |parameter: &str| exported && find(self.parameters, parameter).is_some_and(|of| of.supported);
        let is_dated = name == "Patient" && is_served("_since");
        if is_dated {
            search.push(last_updated());
        }
        if is_served("_typeFilter")
            && let Some(of) = ResourceType::parse(name)
        {
            let is_stated = |code: &str| {
                is_dated && code == "_lastUpdated"
                    || name == "Group" && searched && query::PARAMETERS.iter().any(|(known, _)| *known == code)
            };
            let own = parameters_of(of).into_iter().filter(|(code, _)| !is_stated(code));
            search.extend(own.map(|(code, kind)| json!({ "name": code, "type": kind })));
        }
        add_list(&mut resource, "searchParam", search);
        let own = self.exports().filter(|export| export.resource == Some(name));
        add_list(&mut resource, "operation", own.flat_map(|export| self.operations(export)).collect());
        Some(resource)
    }
}

/// Adds an array to a JSON object, unless it is empty: FHIR has no empty arrays.
fn add_list(object: &mut Value, name: &str, list: Vec<Value>) {
    let fields: &mut Map<String, Value> = object.as_object_mut().expect("an object");
    if !list.is_empty() {
        fields.insert(name.into(), Value::Array(list));
    }
}

/// The extension that marks an ability that exports do not have.
fn not_in_bulk() -> Value {
    json!({ "url": NOT_IN_BULK, "valueCanonical": INSTANTIATES })
}

/// A search parameter of Groups, marked as REST only, since exports take no searches. R4 does not define `name` for
/// Group.
fn group_search(name: &str, of: &str) -> Value {
    let mut out = json!({ "extension": [not_in_bulk()], "name": name });
    let definition = match name {
        "name" => None,
        "_id" => Some("http://hl7.org/fhir/SearchParameter/Resource-id".to_string()),
        _ => Some(format!("http://hl7.org/fhir/SearchParameter/Group-{name}")),
    };
    let fields = out.as_object_mut().expect("an object");
    if let Some(definition) = definition {
        fields.insert("definition".into(), json!(definition));
    }
    fields.insert("type".into(), json!(of));
    out
}

/// The search parameter `_lastUpdated` of Patient: clients use `_since` only if Patient declares it (CLIENT-04).
fn last_updated() -> Value {
    json!({
        "name": "_lastUpdated",
        "definition": "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated",
        "type": "date",
        "documentation": "By `_since` and `_until` of an export; Patients are not searched over REST.",
    })
}
