//! What the service says about itself: the CapabilityStatement and the OperationDefinitions, made from the tables that
//! the router routes by, the parser of kick-offs reads by and the search for Groups searches by (CAP-13). Nothing is
//! claimed that is not there: an operation that is switched off is not mentioned, and there is no word of SMART without
//! authorization.

use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::http::accept::Accept;
use super::http::query::Query;
use super::outcome::{FHIR_JSON, IssueType, Refusal};
use super::parameters::PARAMETERS;
use super::routes::{Enabled, IG_ROUTES, Operation};
use crate::fhir::ResourceType;
use crate::job::groups::PARAMETERS as GROUP_PARAMETERS;

/// Day on which what is said here was last changed (`CapabilityStatement.date` is required).
const DATE: &str = "2026-11-21";
/// Where the Bulk Data IG keeps its artifacts.
const IG: &str = "http://hl7.org/fhir/uv/bulkdata";
/// What marks a search parameter that an export has no use for (CAP-07).
const NOT_IN_EXPORTS: &str = "http://hl7.org/fhir/uv/bulkdata/Extension/operation-not-supported";
/// `rest.security.description` where nobody is asked who they are.
const NO_AUTHORIZATION: &str = "No authorization is configured: requests are answered whoever sends them, on the \
    loopback address of this machine alone. An Authorization header is ignored.";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// An export as it is described.
struct Export {
    operation: Operation,
    /// Name of its definition, and of the operation in the IG's second release (CAP-04).
    name: &'static str,
    /// Where it stands: nowhere, a type, an instance of one.
    resource: Option<&'static str>,
    title: &'static str,
    description: &'static str,
}

const EXPORTS: [Export; 3] = [
    Export {
        operation: Operation::SystemExport,
        name: "export",
        resource: None,
        title: "Export of the system",
        description: "Every resource of the store, whether it belongs to a patient or not.",
    },
    Export {
        operation: Operation::PatientExport,
        name: "patient-export",
        resource: Some("Patient"),
        title: "Export of all patients",
        description: "The resources of every patient's compartment, the Patients among them.",
    },
    Export {
        operation: Operation::GroupExport,
        name: "group-export",
        resource: Some("Group"),
        title: "Export of a Group",
        description: "The resources of the compartments of a Group's members, the Patients among them. \
            The Group itself is exported when _type names Group; no other Group is.",
    },
];

impl Export {
    /// Its definition in the IG.
    fn canonical(&self) -> String {
        format!("{IG}/OperationDefinition/{}", self.name)
    }

    /// Its entries in the list of operations: `export` everywhere (CAP-03), and by the older name (CAP-04).
    fn entries(&self) -> Vec<Value> {
        let mut names = vec!["export", self.name];
        names.dedup();
        let entry = |name| json!({"name": name, "definition": self.canonical(), "documentation": self.description});
        names.into_iter().map(entry).collect()
    }
}

/// The exports that are switched on and stand at a type, or nowhere.
fn exports(enabled: &Enabled, at: Option<&str>) -> impl Iterator<Item = &'static Export> {
    EXPORTS.iter().filter(move |export| enabled.has(export.operation) && export.resource == at)
}

/// The CapabilityStatement of a mount at this base URL (CAP-01, CAP-02, CAP-10).
pub fn statement(url: &str, enabled: &Enabled) -> Value {
    let mut rest = json!({
        "mode": "server",
        "documentation": "Exports are asynchronous: start one with GET and the headers Accept: application/fhir+json \
            and Prefer: respond-async, poll the URL of Content-Location until it answers 200 with the manifest, fetch \
            the files that the manifest lists, and DELETE the polling URL when done. Files are NDJSON of one resource \
            type each, split by size; resources are written as they are stored. No resource outside the patients' \
            compartments is added to an export of patients.",
        "security": {"description": NO_AUTHORIZATION},
        "resource": ResourceType::all().map(|of| resource(of.name(), enabled)).collect::<Vec<_>>(),
    });
    let operations: Vec<Value> = exports(enabled, None).flat_map(Export::entries).collect();
    if !operations.is_empty() {
        rest["operation"] = json!(operations);
    }
    json!({
        "resourceType": "CapabilityStatement",
        "url": format!("{url}/metadata"),
        "version": VERSION,
        "name": "Outpour",
        "title": "outpour, a bulk exporter",
        "status": "active",
        "date": DATE,
        "kind": "instance",
        "instantiates": [format!("{IG}/CapabilityStatement/bulk-data")],
        "software": {"name": "outpour", "version": VERSION},
        "implementation": {"description": "Bulk export of a store of FHIR resources", "url": url},
        "fhirVersion": "4.0.1",
        "format": [FHIR_JSON, "application/json", "json"],
        "rest": [rest],
    })
}

/// What can be done with a type: exported, all of them (CAP-05, CLIENT-04); Groups are kept besides.
fn resource(name: &str, enabled: &Enabled) -> Value {
    let mut resource = json!({"type": name});
    let operations: Vec<Value> = exports(enabled, Some(name)).flat_map(Export::entries).collect();
    match name {
        "Group" => groups(&mut resource, enabled),
        // Some clients leave `_since` out unless they see this, though nobody searches for Patients here (CLIENT-04).
        "Patient" => {
            resource["searchParam"] = json!([{
                "name": "_lastUpdated",
                "definition": "http://hl7.org/fhir/SearchParameter/Resource-lastUpdated",
                "type": "date",
                "documentation": "Looked at by _since and _until of an export. There is no search for Patients.",
            }]);
        }
        _ => {}
    }
    if !operations.is_empty() {
        resource["operation"] = json!(operations);
    }
    resource
}

/// The REST of Groups (GROUP-01).
fn groups(resource: &mut Value, enabled: &Enabled) {
    let routes = IG_ROUTES.iter().filter(|route| enabled.has(route.operation));
    let interactions = routes.filter_map(|route| interaction(route.operation)).map(|code| json!({"code": code}));
    resource["interaction"] = interactions.collect();
    resource["versioning"] = json!("versioned");
    resource["readHistory"] = json!(false);
    resource["conditionalRead"] = json!("full-support");
    resource["updateCreate"] = json!(enabled.has(Operation::GroupUpdate));
    resource["conditionalCreate"] = json!(false);
    resource["conditionalUpdate"] = json!(false);
    resource["conditionalDelete"] = json!("not-supported");
    let not_in_exports: Vec<Value> = EXPORTS
        .iter()
        .filter(|export| enabled.has(export.operation))
        .map(|export| json!({"url": NOT_IN_EXPORTS, "valueCanonical": export.canonical()}))
        .collect();
    let parameter = |(name, kind): &(&str, &str)| {
        let mut parameter = json!({"name": name, "type": kind});
        if !not_in_exports.is_empty() {
            parameter["extension"] = json!(not_in_exports);
        }
        match *name {
            "_id" => parameter["definition"] = json!("http://hl7.org/fhir/SearchParameter/Resource-id"),
            // R4 has no parameter for it, R5 does.
            "name" => parameter["documentation"] = json!("Matches the beginning of Group.name, whatever the case."),
            name => parameter["definition"] = json!(format!("http://hl7.org/fhir/SearchParameter/Group-{name}")),
        }
        parameter
    };
    resource["searchParam"] = GROUP_PARAMETERS.iter().map(parameter).collect();
}

fn interaction(operation: Operation) -> Option<&'static str> {
    match operation {
        Operation::GroupRead => Some("read"),
        Operation::GroupVersion => Some("vread"),
        Operation::GroupSearch => Some("search-type"),
        Operation::GroupCreate => Some("create"),
        Operation::GroupUpdate => Some("update"),
        Operation::GroupDelete => Some("delete"),
        _ => None,
    }
}

/// The OperationDefinition of this name at this base URL, if that operation is switched on (CAP-09).
pub fn operation_definition(name: &str, url: &str, enabled: &Enabled) -> Option<Value> {
    let export = EXPORTS.iter().find(|export| export.name == name && enabled.has(export.operation))?;
    let parameter = |parameter: &super::parameters::Parameter| {
        json!({
            "name": parameter.name,
            "use": "in",
            "min": 0,
            "max": parameter.max,
            "documentation": parameter.documentation,
            "type": parameter.fhir_type,
        })
    };
    let mut definition = json!({
        "resourceType": "OperationDefinition",
        "id": name,
        "url": format!("{url}/OperationDefinition/{name}"),
        "version": VERSION,
        // R4 wants a name that a program can use.
        "name": name.split('-').map(capitalised).collect::<String>(),
        "title": export.title,
        "status": "active",
        "kind": "operation",
        "date": DATE,
        "description": export.description,
        "affectsState": false,
        "code": "export",
        "base": export.canonical(),
    });
    if let Some(resource) = export.resource {
        definition["resource"] = json!([resource]);
    }
    definition["system"] = json!(export.resource.is_none());
    definition["type"] = json!(export.operation == Operation::PatientExport);
    definition["instance"] = json!(export.operation == Operation::GroupExport);
    definition["parameter"] = PARAMETERS.iter().filter(|parameter| parameter.supported).map(parameter).collect();
    Some(definition)
}

fn capitalised(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// The media type in which a description is sent: JSON by the name that the client gave it, in `_format` or, without
/// that, in `Accept` (<https://hl7.org/fhir/R4/http.html#mime-type>; CLIENT-04).
///
/// # Errors
/// 406 when it wants another format than JSON.
pub fn media_type(headers: &HeaderMap, query: Option<&str>) -> Result<&'static str, Refusal> {
    let (pairs, _) = Query::parse(query);
    let formats = pairs.iter().filter(|(name, value)| name == "_format" && !value.trim().is_empty());
    // A space is a `+` that nobody has encoded (PARAM-06).
    let mut formats = formats.map(|(_, value)| value.trim().replace(' ', "+")).peekable();
    let refused = |what: &str| {
        let text = format!("{what}: this is described in JSON alone; ask for {FHIR_JSON}");
        Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, IssueType::NotSupported, text))
    };
    if formats.peek().is_some() {
        let named: Option<Vec<&str>> = formats.map(|format| json_named(&format)).collect();
        return named.and_then(|names| names.first().copied()).map_or_else(|| refused("_format"), Ok);
    }
    match Accept::of(headers).best(&[FHIR_JSON, "application/json", "text/json"]) {
        Some(found) => {
            Ok([FHIR_JSON, "application/json"].into_iter().find(|name| *name == found).unwrap_or("text/json"))
        }
        None => refused("Accept"),
    }
}

/// The media type that a value of `_format` stands for, parameters such as `fhirVersion` aside; none if it is not JSON.
fn json_named(format: &str) -> Option<&'static str> {
    let name = format.split(';').next().unwrap_or_default().trim_matches(['+', ' ']).to_ascii_lowercase();
    match name.as_str() {
        "json" | FHIR_JSON => Some(FHIR_JSON),
        "application/json" => Some("application/json"),
        "text/json" => Some("text/json"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Enabled = Enabled { system: true, patient: true, group: true, groups_writable: true };
    const NONE: Enabled = Enabled { system: false, patient: false, group: false, groups_writable: false };
    const URL: &str = "https://bulk.example.org/fhir";

    fn of_type<'s>(statement: &'s Value, name: &str) -> &'s Value {
        let resources = statement["rest"][0]["resource"].as_array().unwrap();
        resources.iter().find(|resource| resource["type"] == name).unwrap()
    }

    fn names(list: &Value, key: &str) -> Vec<String> {
        list.as_array().into_iter().flatten().map(|item| item[key].as_str().unwrap().to_string()).collect()
    }

    /// CAP-02, CAP-03, CAP-04, CAP-10: what suites and clients look for.
    #[test]
    fn the_statement_says_what_clients_look_for() {
        let statement = statement(URL, &ALL);
        assert_eq!(statement["fhirVersion"], "4.0.1");
        assert_eq!(statement["format"], json!(["application/fhir+json", "application/json", "json"]));
        let instantiated = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data";
        assert_eq!(statement["instantiates"], json!([instantiated]));
        let listed = |operations: &Value| -> Vec<(String, String)> {
            names(operations, "name").into_iter().zip(names(operations, "definition")).collect()
        };
        let entry = |name: &str, definition: &str| {
            (name.to_string(), format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{definition}"))
        };
        assert_eq!(listed(&statement["rest"][0]["operation"]), [entry("export", "export")]);
        for (name, definition) in [("Patient", "patient-export"), ("Group", "group-export")] {
            let expected = [entry("export", definition), entry(definition, definition)];
            assert_eq!(listed(&of_type(&statement, name)["operation"]), expected);
        }
        // No authorization, no word of SMART or a token endpoint.
        let security = &statement["rest"][0]["security"];
        assert!(security["description"].as_str().unwrap().contains("No authorization"));
        assert_eq!(security.as_object().unwrap().len(), 1);
    }

    /// CAP-05, CLIENT-04: every type that `_type` takes is listed, once.
    #[test]
    fn every_exportable_type_is_listed() {
        let statement = statement(URL, &ALL);
        let listed = names(&statement["rest"][0]["resource"], "type");
        assert_eq!(listed, ResourceType::all().map(|of| of.name().to_string()).collect::<Vec<_>>());
        assert_eq!(names(&of_type(&statement, "Patient")["searchParam"], "name"), ["_lastUpdated"]);
    }

    /// CAP-01: what is switched off is not mentioned, each switch by itself.
    #[test]
    fn what_is_switched_off_is_not_mentioned() {
        let all = statement(URL, &ALL);
        let every = ["search-type", "create", "read", "vread", "update", "delete"];
        assert_eq!(names(&of_type(&all, "Group")["interaction"], "code"), every);
        assert_eq!(of_type(&all, "Group")["updateCreate"], true);
        let off = statement(URL, &NONE);
        assert!(off["rest"][0].get("operation").is_none() && !off.to_string().contains("-export"));
        assert_eq!(names(&of_type(&off, "Group")["interaction"], "code"), ["search-type", "read", "vread"]);
        assert_eq!(of_type(&off, "Group")["updateCreate"], false);
        for (enabled, name) in [
            (Enabled { system: true, ..NONE }, "export"),
            (Enabled { patient: true, ..NONE }, "patient-export"),
            (Enabled { group: true, ..NONE }, "group-export"),
        ] {
            let text = statement(URL, &enabled).to_string();
            for export in &EXPORTS {
                let expected = export.name == name;
                let definition = format!("{}\"", export.canonical());
                assert_eq!(text.contains(&definition), expected, "{name} {}", export.name);
                assert_eq!(operation_definition(export.name, URL, &enabled).is_some(), expected);
            }
        }
    }

    /// CAP-06, CAP-07: the search parameters of Groups are those of the search, none of them for exports.
    #[test]
    fn search_parameters_are_those_of_the_search() {
        let statement = statement(URL, &ALL);
        let parameters = &of_type(&statement, "Group")["searchParam"];
        assert_eq!(names(parameters, "name"), GROUP_PARAMETERS.map(|(name, _)| name));
        for parameter in parameters.as_array().unwrap() {
            assert_eq!(names(&parameter["extension"], "url"), [NOT_IN_EXPORTS; 3]);
            assert_ne!(parameter.get("definition").is_some(), parameter.get("documentation").is_some());
        }
    }

    /// CAP-09: the definitions, with the parameters of the table.
    #[test]
    fn operations_are_defined() {
        for (name, machine, places) in [
            ("export", "Export", [true, false, false]),
            ("patient-export", "PatientExport", [false, true, false]),
            ("group-export", "GroupExport", [false, false, true]),
        ] {
            let definition = operation_definition(name, URL, &ALL).unwrap();
            assert_eq!(definition["url"], format!("{URL}/OperationDefinition/{name}"));
            assert_eq!(definition["base"], format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{name}"));
            assert_eq!((&definition["name"], &definition["code"]), (&json!(machine), &json!("export")));
            assert_eq!(["system", "type", "instance"].map(|place| definition[place] == true), places);
            assert_eq!(names(&definition["parameter"], "name"), ["_outputFormat", "_since", "_until", "_type"]);
            assert!(definition["parameter"].as_array().unwrap().iter().all(|one| one["documentation"] != ""));
        }
        assert!(operation_definition("everything", URL, &ALL).is_none());
        assert!(operation_definition("", URL, &ALL).is_none());
    }

    /// CLIENT-04: JSON under its names, in `_format` before `Accept`; other formats are 406.
    #[test]
    fn descriptions_are_json() {
        let (fhir, plain, text) = (Ok("application/fhir+json"), Ok("application/json"), Ok("text/json"));
        let refused = Err(StatusCode::NOT_ACCEPTABLE);
        for (accept, query, expected) in [
            ("", None, fhir),
            ("*/*", Some("_summary=true"), fhir),
            ("application/json", None, plain),
            ("text/json", None, text),
            ("application/fhir+json;q=0.5, application/json", None, plain),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", None, fhir),
            ("application/fhir+xml", None, refused),
            ("application/fhir+xml", Some("_format=json"), fhir),
            ("", Some("_format=application/fhir+json"), fhir),
            ("", Some("_format=application%2Ffhir%2Bjson;fhirVersion=4.0"), fhir),
            ("", Some("_format=application/json"), plain),
            ("", Some("_format=text%2Fjson"), text),
            ("", Some("_format="), fhir),
            ("", Some("_format=xml"), refused),
            ("", Some("_format=json&_format=xml"), refused),
            ("*/*", Some("_format=application/fhir+xml"), refused),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert("accept", accept.parse().unwrap());
            }
            let found = media_type(&headers, query).map_err(|refusal| refusal.status);
            assert_eq!(found, expected, "{accept} {query:?}");
        }
    }
}
