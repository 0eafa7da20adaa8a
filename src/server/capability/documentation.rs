//! The documentation that the IG requires of a server (CAP-12), made from its tables and policies.
//!
//! Each topic has a text for readers and values for programs. The texts form `rest.documentation`; the same topics
//! are an extension beside it, so that a program can read them from the resource that clients fetch anyway.

use serde_json::{Value, json};

use crate::associated_data::AssociatedData;
use crate::codec::compression::Compression;
use crate::count_text::counted;
use crate::fhir::compartment;
use crate::fhir::context;
use crate::fhir::resource_type::ResourceType;
use crate::group::lookup::MembershipRule;
use crate::group::member_filter::{FilteredGroups, MEMBER_FILTER};
use crate::policies::{Context, LateArrivals, MissingLastUpdated, NewMembers, PatientStrict, Vanished};
use crate::server::capability::Declaration;
use crate::server::parameters::{OUTPUT_FORMATS, find};

/// URL of the extension. Each topic is a nested extension under its key, with a `text` and `value`s.
pub(crate) const EXTENSION: &str = "urn:outpour:documentation:1";

/// One topic of the documentation, for readers and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Key of the topic, for programs.
    pub key: String,
    /// Title of the topic, for readers.
    pub title: String,
    /// The documentation, in markdown.
    pub text: String,
    /// The documentation as words: types, parameters, formats, a policy.
    pub values: Vec<String>,
}

/// All topics, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Documentation(pub Vec<Topic>);

impl Documentation {
    /// The topics as one markdown text.
    pub(crate) fn markdown(&self) -> String {
        let topic = |topic: &Topic| format!("## {}\n\n{}", topic.title, topic.text);
        self.0.iter().map(topic).collect::<Vec<_>>().join("\n\n")
    }

    /// The topics as an extension of `CapabilityStatement.rest`.
    pub(crate) fn extension(&self) -> Value {
        let topic = |topic: &Topic| {
            let text = json!({ "url": "text", "valueMarkdown": topic.text });
            let values = topic.values.iter().map(|value| json!({ "url": "value", "valueString": value }));
            json!({ "url": topic.key, "extension": std::iter::once(text).chain(values).collect::<Vec<_>>() })
        };
        json!({ "url": EXTENSION, "extension": self.0.iter().map(topic).collect::<Vec<_>>() })
    }
}

/// A topic from its parts.
fn topic(key: &str, title: &str, text: impl Into<String>, values: Vec<String>) -> Topic {
    Topic { key: key.into(), title: title.into(), text: text.into(), values }
}

/// A text that ends as a sentence does.
fn sentence(text: &str) -> String {
    let text = text.trim_end();
    if text.ends_with(['.', '!', '?']) { text.to_string() } else { format!("{text}.") }
}

/// Words as a comma list of markdown code spans.
fn code_list<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

impl Declaration<'_> {
    /// The documentation of this mount.
    pub(crate) fn documentation(&self) -> Documentation {
        let mut topics = self.levels();
        topics.extend([profiles(), self.formats(), self.files(), self.patient_data(), self.supporting_types()]);
        topics.extend([self.since_new_members(), self.last_updated(), self.associated_data(), self.lenient()]);
        topics.push(self.attachments());
        topics.extend(self.member_filters());
        Documentation(topics)
    }

    /// A topic for each export level, with its parameters.
    fn levels(&self) -> Vec<Topic> {
        let level = |export: &'static crate::server::capability::ExportDeclaration| {
            let values: Vec<String> = self.parameters_of(export).map(|of| of.name.to_string()).collect();
            let text = format!(
                "{} Asked for by {} at {}. Parameters: {}; what they mean stands in {}.",
                export.description,
                self.methods(export),
                self.urls_in_markdown(export),
                code_list(&values),
                self.definition_url(export),
            );
            topic(&format!("level-{}", export.level), export.title, text, values)
        };
        self.exports().map(level).collect()
    }

    /// The topic on output formats and content codings.
    fn formats(&self) -> Topic {
        let values = OUTPUT_FORMATS.map(String::from).to_vec();
        let stored = match self.policies.compression {
            Compression::None => "Files are sent as they are, without a content coding.",
            Compression::Gzip => "Files are sent with gzip coding to clients that accept it, otherwise without.",
            Compression::Zstd => "Files are sent with zstd coding to clients that accept it, otherwise without.",
        };
        let text = format!(
            "Newline-delimited JSON, served as `application/fhir+ndjson`. `_outputFormat` may be {}. {stored}",
            code_list(&values)
        );
        topic("formats", "Output formats", text, values)
    }

    /// The topic on how output is split into files.
    fn files(&self) -> Topic {
        let bounds = self.policies.bounds;
        let mut values = vec![format!("bytes={}", bounds.file_bytes)];
        let mut most = format!("{} before compression", counted(bounds.file_bytes, "byte"));
        if let Some(resources) = bounds.file_resources {
            values.push(format!("resources={resources}"));
            most += &format!(" and {}", counted(resources, "resource"));
        }
        let text = format!(
            "Each file holds resources of one type. A type has as many files as it needs: a file holds at most {most}. A \
             resource is never split; one that is longer has a file of its own. A type without resources has no file."
        );
        topic("files", "How files are split", text, values)
    }

    /// The topic on the parts of a patient's record that are exported.
    fn patient_data(&self) -> Topic {
        let types = ResourceType::all().filter(|known| compartment::in_compartment(*known));
        let members = match self.policies.members {
            MembershipRule::Active => {
                "Members of a Group are those that are not inactive and whose period covers the time of the export."
            }
            MembershipRule::Listed => "Members of a Group are all that it lists; `inactive` and `period` are ignored.",
        };
        let text = format!(
            "At Patient and Group level: the Patient resources, the resources of the \
             [Patient compartment](http://hl7.org/fhir/R4/compartmentdefinition-patient.html), each Device by its \
             `patient`, and each Provenance that is about one of these. A resource in several patients' compartments is \
             exported once. A Group is exported only if it is the one asked for, `_type` names Group, and `patient` does not \
             restrict the export. A Patient that \
             is linked to one of these is exported, the rest of its record is not. {members}{}",
            self.restriction(),
        );
        topic("patient-data", "What belongs to a patient", text, types.map(|of| of.name().to_string()).collect())
    }

    /// The topic on supporting types from outside the patients' records.
    fn supporting_types(&self) -> Topic {
        if self.policies.context == Context::None {
            let text = "None: at Patient and Group level nothing is added from outside the patients' records, such as \
                        Practitioner or Organization. At system level every type is exported.";
            return topic("supporting-types", "Supporting types", text, Vec::new());
        }
        let since = match self.policies.context {
            Context::Changed => "With `_since` those of them come that changed after it; deletions likewise.",
            _ => {
                "With `_since` also those come, whatever their date, that exported resources refer to, and those that changed \
                 after `_since` and that any resource of the cohort refers to; deletions likewise."
            }
        };
        let text = format!(
            "At Patient and Group level resources of these types are added that exported resources refer to, and what \
                    those refer to in turn, each once; `_type`, if given, must name the type. References count wherever they \
                    stand: by id, absolute under this server's base, or by an identifier that exactly one resource has \
                    (`Practitioner?identifier=system|value`). A Device that names a patient is exported only with that \
                    patient's records. {since} \
                    References that lead to no resource are counted in messages. At system level every type is exported."
        );
        topic("supporting-types", "Supporting types", text, context::types().map(|of| of.name().to_string()).collect())
    }

    /// Sentences on `patient`, each after a space; none where it is not served.
    fn restriction(&self) -> String {
        if !find(self.parameters, "patient").is_some_and(|of| of.supported) {
            return String::new();
        }
        let absent = match self.policies.strict_patients {
            true => "refused",
            false => "passed over with a message",
        };
        let shared = match self.policies.patient_strict {
            PatientStrict::Any => "also if it is in another patient's",
            PatientStrict::All => "unless it is in another patient's, too",
        };
        format!(
            " Under `patient` what is in the record of one whom it names is exported, {shared}. A patient whom it names and who is \
             not in the Group, or not known, is {absent}."
        )
    }

    /// The topic on `_since`, new members of a Group and late rows.
    fn since_new_members(&self) -> Topic {
        let late = match self.policies.late {
            LateArrivals::Include => {
                "Resources that reached the store after `_since` are exported even if they are dated before it."
            }
            LateArrivals::Report => {
                "Resources that reached the store after `_since` but are dated before it are not exported, only counted."
            }
        };
        let vanished = match self.policies.vanished {
            Vanished::Report => "Resources that are gone from the store without a deletion are counted in messages.",
            Vanished::Delete => {
                "Resources that are gone from a file of the store that was replaced are listed as deleted; others that are \
                 gone are counted in messages."
            }
        };
        let policy = self.policies.new_members;
        let known = "Who joined is known where `_since` is the `transactionTime` of an export of the same Group that this client \
                     made here and that had the same types or more, and was asked for in the same way: it is kept for that who was \
                     in it, also when the export is deleted. Else `member.period.start` of the Group says who joined; of how many \
                     it is not known, a message says. Those who left since such an export are named in a file that the manifest's \
                     root extension names under `departed`.";
        let strict = "of a patient who joined the Group after `_since` only what changed after `_since` is exported, as of every \
                      other member";
        let whole = "To get a new member's whole record, ask without `_since`, or for `patient`.";
        let joined = match policy {
            NewMembers::Full => {
                format!("`full`: of a patient who joined the Group after `_since` all records are exported. {known}")
            }
            NewMembers::Report => format!("`report`: {strict}; a message says how many joined. {whole} {known}"),
            NewMembers::Ignore => format!("`ignore`: {strict}. {whole}"),
        };
        let text = format!("{joined} {late} {vanished}");
        topic("since-new-members", "_since and new members", text, vec![policy.name().to_string()])
    }

    /// The topic on resources without `meta.lastUpdated`.
    fn last_updated(&self) -> Topic {
        let (text, value) = match self.policies.missing_last_updated {
            MissingLastUpdated::Include => ("exported whatever `_since` and `_until` say", "include"),
            MissingLastUpdated::Exclude => ("not exported when `_since` or `_until` is given", "exclude"),
        };
        let text = format!("Resources without `meta.lastUpdated` are {text}; a message gives their number.");
        topic("missing-last-updated", "Resources without a date", text, vec![value.to_string()])
    }

    /// The topic on `includeAssociatedData`.
    fn associated_data(&self) -> Topic {
        let served = find(self.parameters, "includeAssociatedData").filter(|of| of.supported);
        let text = served.map_or(
            "`includeAssociatedData` is not served: it has no values here. Every Provenance about an exported patient's record is \
             exported unless `_type` leaves it out.",
            |of| of.documentation,
        );
        let mut text = text.to_string();
        let mut values =
            served.map_or(Vec::new(), |_| AssociatedData::ALL.map(|data| data.name().to_string()).to_vec());
        for (name, preset) in self.presets.iter().filter(|_| served.is_some()) {
            text += &format!("\n\n`{name}`: {} It {}.", sentence(&preset.description), preset.effect());
            values.push(name.clone());
        }
        topic("include-associated-data", "includeAssociatedData", text, values)
    }

    /// The topic on attachments.
    fn attachments(&self) -> Topic {
        let url = self.attachments.url_template(self.base_url);
        let text = format!(
            "A relative URL of an attachment, `Binary/[id]`, becomes `{url}` in exported resources. It answers, under the same \
             authorization as the export, who may export a resource that refers to the Binary: with what the Binary holds, in its \
             own media type. URLs of Binaries that the store does not hold stay as they are; a message gives their number."
        );
        topic("attachments", "Attachments", text, vec![url])
    }

    /// The topic on filters of members of Groups; none where they are refused (COHORT-08).
    fn member_filters(&self) -> Option<Topic> {
        if self.policies.filtered_groups == FilteredGroups::Refused {
            return None;
        }
        let text = format!(
            "A Group may choose its members by filters: modifier extensions `{MEMBER_FILTER}`, each with a search in \
             `application/x-fhir-query` over Patient, or over a type of the Patient compartment but Group and Provenance, such as \
             `Condition?code=a`. Parameters are those of R4 but composite and special ones, without chains. A patient is in the Group \
             who meets each filter, a Patient by itself, another type by one resource of the patient's record. With `member` \
             these choose among the members, without it among all patients whom the Group's writer may access. They are evaluated \
             at each export, as of its `transactionTime`. The types must be among those that the writer and who exports may \
             export. A Group that another one lists has no filters."
        );
        Some(topic("member-filter", "Groups by filters", text, vec![MEMBER_FILTER.to_string()]))
    }

    /// The topic on `handling=lenient`.
    fn lenient(&self) -> Topic {
        let passed = self.parameters.iter().filter(|of| of.lenient);
        let values: Vec<String> = passed.map(|of| of.name.to_string()).collect();
        let text = format!(
            "What cannot be served is refused. With `Prefer: handling=lenient` unknown parameters, and of these what \
             cannot be served, are passed over, each with a message in the manifest's `error` files: {}. An unknown parameter \
             whose name is much like that of one which narrows an export is refused all the same.",
            code_list(&values)
        );
        topic("lenient", "Lenient handling", text, values)
    }
}

/// The topic on the restriction to profiles: there is none.
fn profiles() -> Topic {
    let text = "None: resources of every type and profile are exported, byte for byte as they are stored unless `_elements` reduces \
                them.";
    topic("profiles", "Restriction to profiles", text, Vec::new())
}
