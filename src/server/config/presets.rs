//! Presets of `includeAssociatedData`: names that clients may give, each for some defaults of other parameters (ASSOC-09).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::associated_data::AssociatedData;
use crate::fhir::elements::selection::ElementSelection;
use crate::ignorable_part::{read_associated, read_elements};
use crate::limits::NAME_BYTES_MAX;
use crate::policies::Context;

/// Most characters of a description.
const DESCRIPTION_CHARS_MAX: usize = 500;

/// One preset of a mount, under its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PresetConfig {
    /// What it is for, in the documentation that clients read.
    pub description: String,
    /// `context` of an export that names it; `None` for that of the mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Context>,
    /// `_elements` of an export that names it and gives none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub elements: Vec<String>,
    /// Codes of `includeAssociatedData` that it stands for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub associated: Vec<String>,
}

/// What a preset sets. Of several in one request the least restrictive counts (ASSOC-04): elements add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preset {
    /// The referenced context; `None` for that of the mount.
    pub context: Option<Context>,
    /// Items of `_elements`; empty for nothing set.
    pub elements: Vec<String>,
    /// The associated data; `None` for nothing set.
    pub associated: Option<AssociatedData>,
}

impl PresetConfig {
    /// The preset, of a configuration without problems.
    pub(crate) fn resolved(&self) -> Preset {
        Preset {
            context: self.context,
            elements: ElementSelection::parse(&self.elements).0.items().map(str::to_string).collect(),
            associated: read_associated(&self.associated, &[]).0,
        }
    }

    /// What it sets, as a clause for readers in markdown.
    pub(crate) fn effect(&self) -> String {
        let mut parts = Vec::new();
        match self.context {
            Some(Context::None) => parts.push("adds no supporting types".to_string()),
            Some(Context::Changed) => parts.push("adds what changed of supporting types".to_string()),
            Some(Context::Referenced) => parts.push("adds supporting types".to_string()),
            None => {}
        }
        if !self.elements.is_empty() {
            parts.push(format!("stands for `_elements={}` where none is given", self.elements.join(",")));
        }
        if !self.associated.is_empty() {
            parts.push(format!("stands for `{}`", self.associated.join(",")));
        }
        parts.join(", and ")
    }
}

/// What is wrong with the presets of the mount in a table, one sentence each.
pub(crate) fn preset_problems(table: &str, presets: &BTreeMap<String, PresetConfig>) -> Vec<String> {
    let mut problems = Vec::new();
    if table != "ig" && !presets.is_empty() {
        problems.push(format!("{table}.presets: only ig's clients can name presets; leave them out"));
        return problems;
    }
    for (name, preset) in presets {
        let mut wrong = |what: String| problems.push(format!("{table}.presets.{name} {what}"));
        let is_plain = name.bytes().skip(1).all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if !name.starts_with('_') || !(2..=NAME_BYTES_MAX).contains(&name.len()) || !is_plain {
            wrong("is no name of a preset: an underscore, then letters, digits, '-' and '_'".to_string());
        }
        let chars = preset.description.chars().count();
        if !(1..=DESCRIPTION_CHARS_MAX).contains(&chars) || preset.description.chars().any(char::is_control) {
            wrong(format!("has no description of 1 to {DESCRIPTION_CHARS_MAX} characters on one line"));
        }
        if preset.context.is_none() && preset.elements.is_empty() && preset.associated.is_empty() {
            wrong("sets nothing; give context, elements or associated".to_string());
        }
        let parts = read_elements(&preset.elements).1.into_iter().chain(read_associated(&preset.associated, &[]).1);
        parts.for_each(|part| wrong(format!("has {}", part.refusal())));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASSOC-09: everything that is wrong with presets is told; on mounts whose clients cannot name any, that they are there.
    #[test]
    fn presets_are_checked() {
        let read = |toml: &str| toml::from_str::<BTreeMap<String, PresetConfig>>(toml).unwrap();
        let good =
            read("_a-1 = { description = 'x', context = 'none' }\n_b = { description = 'x', elements = ['id'] }");
        assert_eq!(preset_problems("ig", &good), [""; 0]);
        assert_eq!(preset_problems("netsmart", &good).len(), 1);
        for (wrong, words) in [
            ("a = { description = 'x', context = 'none' }", "ig.presets.a is no name"),
            ("_ = { description = 'x', context = 'none' }", "is no name"),
            ("'_a b' = { description = 'x', context = 'none' }", "is no name"),
            ("_a = { context = 'none' }", "has no description"),
            ("_a = { description = \"x\\ny\", context = 'none' }", "has no description"),
            ("_a = { description = 'x' }", "sets nothing"),
            ("_a = { description = 'x', elements = ['Patient.nmae'] }", "nmae"),
            ("_a = { description = 'x', associated = ['Nope'] }", "Nope"),
        ] {
            let problems = preset_problems("ig", &read(wrong));
            assert!(problems.len() == 1 && problems[0].contains(words), "{wrong}: {problems:?}");
        }
        for wrong in ["_a = { since = 'x' }", "_a = { context = 'all' }"] {
            assert!(toml::from_str::<BTreeMap<String, PresetConfig>>(wrong).is_err(), "{wrong}");
        }
    }
}
