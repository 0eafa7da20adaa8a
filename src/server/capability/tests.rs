//! Tests of the statements against the tables that they are made from, under every setting of the switches.

use serde_json::Value;

use super::*;
use crate::fhir::attachment_url::AttachmentPath;
use crate::group::registry::query;
use crate::policies::NewMembers;
use crate::server::capability::documentation;
use crate::server::parameters::PARAMETERS;
use crate::server::routes::IG_ROUTES;

const BASE: &str = "http://127.0.0.1:8080/fhir";
const ALL: Enabled =
    Enabled { system: true, patient: true, group: true, groups_searchable: true, groups_writable: true };

fn declaration(enabled: Enabled) -> Declaration<'static> {
    let policies = Policies {
        new_members: NewMembers::Report,
        bounds: FileBounds { file_bytes: 1000, file_resources: Some(7) },
        compression: Compression::None,
        members: MembershipRule::Active,
        filtered_groups: FilteredGroups::Evaluated,
        context: Context::Referenced,
        late: LateArrivals::Include,
        missing_last_updated: MissingLastUpdated::Include,
        vanished: Vanished::Report,
        strict_patients: false,
        patient_strict: PatientStrict::Any,
    };
    static NONE: BTreeMap<String, Vec<String>> = BTreeMap::new();
    static NO_PRESETS: BTreeMap<String, PresetConfig> = BTreeMap::new();
    let security = "without authorization, on the loopback";
    Declaration {
        base_url: BASE,
        routes: IG_ROUTES,
        parameters: PARAMETERS,
        attachments: AttachmentPath::Plain,
        enabled,
        security,
        root_url: "https://bulk.example.org",
        names_smart: false,
        profiles: &NONE,
        presets: &NO_PRESETS,
        policies,
    }
}

fn statement(declaration: &Declaration) -> Value {
    declaration.statement("2024-01-01T00:00:00Z", "0.1.0")
}

/// A member of each item of a list; empty if there is no list.
fn each<'a>(list: &'a Value, name: &str) -> Vec<&'a str> {
    list.as_array().into_iter().flatten().map(|item| item[name].as_str().unwrap()).collect()
}

fn resource<'a>(statement: &'a Value, name: &str) -> &'a Value {
    let list = statement["rest"][0]["resource"].as_array().unwrap();
    list.iter().find(|resource| resource["type"] == name).unwrap_or(&Value::Null)
}

fn every_setting() -> impl Iterator<Item = Enabled> {
    (0..16).map(|bits| {
        let on = |bit: u8| bits >> bit & 1 != 0;
        Enabled { system: on(0), patient: on(1), group: on(2), groups_searchable: true, groups_writable: on(3) }
    })
}

/// FHIR JSON has no nulls and no empty objects, lists or strings.
fn check_json(value: &Value) {
    match value {
        Value::Null => panic!("null"),
        Value::String(text) => assert!(!text.trim().is_empty()),
        Value::Array(list) => {
            assert!(!list.is_empty());
            list.iter().for_each(check_json);
        }
        Value::Object(fields) => {
            assert!(!fields.is_empty());
            fields.values().for_each(check_json);
        }
        _ => {}
    }
}

/// CAP-01, CAP-09, CAP-13: under every setting, statement, OperationDefinitions and documentation list the exports
/// that are on, with the parameters that the table serves, and nothing else.
#[test]
fn all_say_what_the_tables_say() {
    for enabled in every_setting() {
        let declaration = declaration(enabled);
        let statement = statement(&declaration);
        check_json(&statement);
        let served_at = |system: bool| PARAMETERS.iter().filter(move |of| of.supported && (of.system || !system));
        for (on, id, level, value) in [
            (enabled.system, "export", "level-system", &statement["rest"][0]),
            (enabled.patient, "patient-export", "level-patient", resource(&statement, "Patient")),
            (enabled.group, "group-export", "level-group", resource(&statement, "Group")),
        ] {
            assert_eq!(each(&value["operation"], "name").contains(&"export"), on, "{id} {enabled:?}");
            let definition = declaration.operation_definition(id, "0.1.0");
            assert_eq!(definition.is_some(), on, "{id} {enabled:?}");
            let documentation = declaration.documentation();
            let topic = documentation.0.iter().find(|topic| topic.key == level);
            assert_eq!(topic.is_some(), on, "{id} {enabled:?}");
            if let (Some(definition), Some(topic)) = (definition, topic) {
                check_json(&definition);
                let parameters: Vec<&str> = served_at(id == "export").map(|of| of.name).collect();
                assert_eq!(each(&definition["parameter"], "name"), parameters);
                assert_eq!(topic.values, parameters);
                let served = served_at(id == "export");
                for (stated, of) in definition["parameter"].as_array().unwrap().iter().zip(served) {
                    assert_eq!((&stated["type"], &stated["min"]), (&json!(of.fhir_type), &json!(of.min)));
                    assert_eq!((&stated["max"], &stated["use"]), (&json!(of.max), &json!("in")));
                }
            }
        }
        let mut stated = Vec::new();
        for resource in statement["rest"][0]["resource"].as_array().unwrap() {
            let of = resource["type"].as_str().unwrap();
            stated.extend(each(&resource["interaction"], "code").into_iter().map(|code| (of, code)));
        }
        let routed = routes_on(IG_ROUTES, &enabled).filter_map(|route| route.operation.interaction());
        let mut routed: Vec<_> = routed.collect();
        stated.sort();
        routed.sort();
        assert_eq!(stated, routed, "{enabled:?}");
    }
    assert_eq!(declaration(ALL).operation_definition("Group", "0.1.0"), None);
}

/// C-16, CAP-03: `export` under the definitions of release 3. CAP-04: the names of release 2 beside it.
#[test]
fn exports_stand_under_old_and_new_names() {
    let statement = statement(&declaration(ALL));
    let operations = |value: &Value| -> Vec<(String, String)> {
        let names = each(&value["operation"], "name").into_iter().map(String::from);
        let definitions = each(&value["operation"], "definition").into_iter().map(String::from);
        names.zip(definitions).collect()
    };
    let under =
        |name: &str, id: &str| (name.to_string(), format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{id}"));
    assert_eq!(operations(&statement["rest"][0]), [under("export", "export")]);
    let patient = [under("export", "patient-export"), under("patient-export", "patient-export")];
    assert_eq!(operations(resource(&statement, "Patient")), patient);
    let group = [under("export", "group-export"), under("group-export", "group-export")];
    assert_eq!(operations(resource(&statement, "Group")), group);
}

/// CAP-05, CLIENT-04: every type that `_type` accepts is listed once; none if nothing can be exported (CAP-01).
#[test]
fn every_exportable_type_is_listed() {
    let all: Vec<&str> = ResourceType::all().map(|of| of.name()).collect();
    for enabled in every_setting() {
        let statement = statement(&declaration(enabled));
        let listed = each(&statement["rest"][0]["resource"], "type");
        match enabled.system || enabled.patient || enabled.group {
            true => assert_eq!(listed, all),
            false => assert_eq!(listed, ["OperationDefinition"]),
        }
    }
}

/// CAP-02, CAP-10: instantiated statement, version and formats; `oauth-uris` in any case, SMART where its tokens are taken.
#[test]
fn the_head_of_the_statement() {
    let statement = statement(&declaration(ALL));
    assert_eq!(statement["resourceType"], "CapabilityStatement");
    assert_eq!(statement["instantiates"], json!(["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]));
    assert_eq!(statement["fhirVersion"], "4.0.1");
    assert_eq!(statement["kind"], "instance");
    assert_eq!(statement["format"], json!(["application/fhir+json", "json"]));
    assert_eq!(statement["date"], "2024-01-01T00:00:00Z");
    assert_eq!(statement["implementation"]["url"], BASE);
    assert_eq!(statement["rest"].as_array().unwrap().len(), 1, "a public suite looks at the last one only");
    assert_eq!(statement["rest"][0]["mode"], "server");
    let security = &statement["rest"][0]["security"];
    assert!(security["description"].as_str().unwrap().contains("without authorization, on the loopback"));
    assert_eq!(security["service"], Value::Null, "nobody is asked who they are");
    let uris = &security["extension"][0];
    assert!(uris["url"].as_str().unwrap().ends_with("/oauth-uris"));
    assert_eq!(uris["extension"][0], json!({"url": "token", "valueUri": "https://bulk.example.org/auth/token"}));
    let with_tokens = Declaration { names_smart: true, ..declaration(ALL) }.statement("2024-01-01T00:00:00Z", "0.1.0");
    let service = &with_tokens["rest"][0]["security"]["service"][0];
    assert_eq!(service["coding"][0]["code"], "SMART-on-FHIR");
}

/// CAP-06, C-18, CLIENT-04: Patient declares `_lastUpdated`. GROUP-01: Groups are read and searched. CAP-07: searches are
/// marked as REST only.
#[test]
fn search_parameters() {
    let full = statement(&declaration(ALL));
    let patient = resource(&full, "Patient");
    let names = each(&patient["searchParam"], "name");
    assert!(names[0] == "_lastUpdated" && names[1..].contains(&"birthdate") && !names[1..].contains(&"_lastUpdated"));
    let group = resource(&full, "Group");
    let own = query::PARAMETERS.len();
    assert_eq!(each(&group["searchParam"], "name")[..own], query::PARAMETERS.map(|(name, _)| name));
    assert_eq!(each(&group["searchParam"], "type")[..own], query::PARAMETERS.map(|(_, of)| of));
    assert!(each(&group["searchParam"], "name")[own..].contains(&"characteristic"), "CAP-06");
    for parameter in &group["searchParam"].as_array().unwrap()[..own] {
        assert_eq!(
            parameter["extension"][0]["url"],
            "http://hl7.org/fhir/uv/bulkdata/Extension/operation-not-supported"
        );
    }
    assert_eq!(each(&group["interaction"], "code"), ["search-type", "create", "read", "vread", "update", "delete"]);
    assert_eq!(group["versioning"], "versioned");
    let read_only = statement(&declaration(Enabled { groups_writable: false, ..ALL }));
    let group = resource(&read_only, "Group");
    assert_eq!(each(&group["interaction"], "code"), ["search-type", "read", "vread"]);
    assert_eq!(group["updateCreate"], Value::Null);
}

/// CAP-09: derived from the IG's definitions, and called by GET.
#[test]
fn operation_definitions() {
    let declaration = declaration(ALL);
    for (id, resource, flags) in [
        ("export", Value::Null, [true, false, false]),
        ("patient-export", json!(["Patient"]), [false, true, false]),
        ("group-export", json!(["Group"]), [false, false, true]),
    ] {
        let definition = declaration.operation_definition(id, "0.1.0").unwrap();
        assert_eq!(definition["id"], id);
        assert_eq!(definition["url"], format!("{BASE}/OperationDefinition/{id}"));
        assert_eq!(definition["base"], format!("http://hl7.org/fhir/uv/bulkdata/OperationDefinition/{id}"));
        assert_eq!((&definition["code"], &definition["kind"]), (&json!("export"), &json!("operation")));
        assert_eq!(definition["affectsState"], false);
        assert_eq!(definition["resource"], resource);
        assert_eq!(["system", "type", "instance"].map(|at| definition[at].as_bool().unwrap()), flags);
    }
    let group = declaration.operation_definition("group-export", "0.1.0").unwrap();
    assert!(group["description"].as_str().unwrap().contains("by GET or POST at `[base]/Group/[id]/$export` with"));
}

/// PATIENT-03, CAP-13: another dialect's tables: a parameter that does not apply at system level is not listed there,
/// and a route under another path is stated with that path.
#[test]
fn other_tables_say_other_things() {
    let parameters = PARAMETERS.iter().map(|of| ParameterRow { supported: of.name == "patient", ..*of });
    let parameters: Vec<ParameterRow> = parameters.collect();
    let moved = IG_ROUTES.iter().filter(|route| route.operation == Operation::GroupExport);
    let routes: Vec<Route> = moved.map(|route| Route { path: "/cohort/{id}/$export", ..route.clone() }).collect();
    let declaration = Declaration { routes: &routes, parameters: &parameters, ..declaration(ALL) };
    assert_eq!(declaration.operation_definition("export", "0.1.0"), None, "not routed");
    let group = declaration.operation_definition("group-export", "0.1.0").unwrap();
    assert_eq!(each(&group["parameter"], "name"), ["patient"]);
    assert!(group["description"].as_str().unwrap().contains("`[base]/cohort/[id]/$export`"));
    assert_eq!(resource(&statement(&declaration), "Patient")["searchParam"], Value::Null, "_since is not served");
    let declaration = Declaration { routes: IG_ROUTES, ..declaration };
    let system = declaration.operation_definition("export", "0.1.0").unwrap();
    assert_eq!(system["parameter"], Value::Null);
}

/// CAP-12: every topic of the IG is documented, as markdown and as JSON. SINCE-07: new members. COMP-12: types from
/// outside the records.
#[test]
fn documentation_answers_the_guide() {
    let statement = statement(&declaration(ALL));
    let rest = &statement["rest"][0];
    let markdown = rest["documentation"].as_str().unwrap();
    let extension = &rest["extension"][0];
    assert_eq!(extension["url"], documentation::EXTENSION);
    let topics = extension["extension"].as_array().unwrap();
    let keys = each(&extension["extension"], "url");
    for key in [
        "level-system",
        "level-patient",
        "level-group",
        "formats",
        "profiles",
        "files",
        "supporting-types",
        "since-new-members",
        "include-associated-data",
        "member-filter",
    ] {
        assert!(keys.contains(&key), "{key}");
    }
    for topic in topics {
        assert!(markdown.contains(topic["extension"][0]["valueMarkdown"].as_str().unwrap()), "{topic}");
    }
    let values = |key: &str| -> Vec<&str> {
        let topic = topics.iter().find(|topic| topic["url"] == key).unwrap();
        let values = topic["extension"].as_array().unwrap().iter().filter(|part| part["url"] == "value");
        values.map(|part| part["valueString"].as_str().unwrap()).collect()
    };
    assert_eq!(values("formats"), crate::server::parameters::OUTPUT_FORMATS);
    assert_eq!(values("files"), ["bytes=1000", "resources=7"]);
    assert_eq!(values("since-new-members"), ["report"]);
    assert_eq!(values("supporting-types").len(), 10);
    let provenance = ["LatestProvenanceResources", "RelevantProvenanceResources"];
    assert_eq!(values("include-associated-data"), provenance);
    assert_eq!(values("patient-data").len(), 67, "66 types of R4, and Device");
    assert!(values("lenient").contains(&"_type") && !values("lenient").contains(&"_since"), "HDR-05, HDR-07");
}

/// CAP-11, COHORT-08: where filters of members are evaluated, the statement names the profile of Groups that have some, beside
/// configured ones and once, and says how they are evaluated; elsewhere neither.
#[test]
fn the_profile_of_filtered_groups_is_named() {
    let first = declaration(ALL);
    let named = |declaration: &Declaration<'_>| resource(&statement(declaration), "Group")["supportedProfile"].clone();
    assert_eq!(named(&first), serde_json::json!([COHORT_PROFILE]));
    let configured =
        BTreeMap::from([("Group".to_string(), vec!["https://a.example".to_string(), COHORT_PROFILE.into()])]);
    assert_eq!(
        named(&Declaration { profiles: &configured, ..first }),
        serde_json::json!(["https://a.example", COHORT_PROFILE])
    );
    let policies = Policies { filtered_groups: FilteredGroups::Refused, ..first.policies };
    let refusing = Declaration { policies, ..first };
    assert_eq!(named(&refusing), Value::Null);
    assert!(first.documentation().markdown().contains("member-filter"));
    assert!(!refusing.documentation().markdown().contains("member-filter"));
}

/// CAP-12: the documentation is made from the configuration.
#[test]
fn documentation_follows_the_policies() {
    let first = declaration(ALL);
    let bounds = FileBounds { file_bytes: 2000, file_resources: None };
    for policies in [
        Policies { bounds, ..first.policies },
        Policies { compression: Compression::Gzip, ..first.policies },
        Policies { compression: Compression::Zstd, ..first.policies },
        Policies { members: MembershipRule::Listed, ..first.policies },
        Policies { filtered_groups: FilteredGroups::Refused, ..first.policies },
        Policies { late: LateArrivals::Report, ..first.policies },
        Policies { context: Context::None, ..first.policies },
        Policies { context: Context::Changed, ..first.policies },
        Policies { missing_last_updated: MissingLastUpdated::Exclude, ..first.policies },
        Policies { vanished: Vanished::Delete, ..first.policies },
        Policies { strict_patients: true, ..first.policies },
        Policies { patient_strict: PatientStrict::All, ..first.policies },
    ] {
        let other = Declaration { policies, ..first };
        assert_ne!(first.documentation().markdown(), other.documentation().markdown(), "{policies:?}");
    }
}

/// ASSOC-01, CAP-12: the documentation names the values of `includeAssociatedData` where it is served, and nowhere else.
#[test]
fn associated_data_is_documented_where_it_is_served() {
    use crate::server::parameters::NETSMART_PARAMETERS;
    let enabled = Enabled { system: true, patient: true, group: true, groups_searchable: true, groups_writable: true };
    for (parameters, values) in
        [(PARAMETERS, &["LatestProvenanceResources", "RelevantProvenanceResources"][..]), (NETSMART_PARAMETERS, &[])]
    {
        let documentation = Declaration { parameters, ..declaration(enabled) }.documentation();
        let topic = documentation.0.iter().find(|topic| topic.key == "include-associated-data").unwrap();
        assert_eq!(topic.values, values);
        assert_eq!(topic.text.contains("not served"), values.is_empty(), "{}", topic.text);
    }
}

/// ASSOC-09, CAP-12: presets are documented by name, with what they are for and what they set.
#[test]
fn presets_are_documented() {
    let preset = PresetConfig {
        description: "Names only".to_string(),
        elements: vec!["Patient.name".to_string()],
        ..PresetConfig::default()
    };
    let presets = BTreeMap::from([("_names".to_string(), preset)]);
    let documentation = Declaration { presets: &presets, ..declaration(ALL) }.documentation();
    let topic = documentation.0.iter().find(|topic| topic.key == "include-associated-data").unwrap();
    assert_eq!(topic.values.last().unwrap(), "_names");
    for words in ["`_names`: Names only", "`_elements=Patient.name`"] {
        assert!(topic.text.contains(words), "{}", topic.text);
    }
}
