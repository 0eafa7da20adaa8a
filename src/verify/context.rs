//! Referenced context, recounted: closures over lists of versions, without any of the index's columns (COMP-06, TYPE-05).

use std::collections::{HashMap, HashSet};

use crate::fhir::context;
use crate::policies::Context;
use crate::verify::recount::{RecountClass, RecountQuestion};
use crate::verify::version_history::ResourceVersion;

impl RecountQuestion<'_> {
    /// The versions that are exported as context beside those of class exported, among which the associated ones count.
    pub(crate) fn context(&self, classes: &[RecountClass], whole: &[RecountClass]) -> HashSet<usize> {
        if self.request.context == Context::None {
            return HashSet::new();
        }
        let is_exported = |classes: &[RecountClass], i: usize| classes[i] == RecountClass::Exported;
        let roots =
            |classes: &[RecountClass]| (0..classes.len()).filter(|i| is_exported(classes, *i)).collect::<Vec<_>>();
        let mut found = self.closure(roots(classes), classes);
        if self.request.since.is_some() {
            let of_whole = self.closure(roots(whole), whole);
            let changed = of_whole.into_iter().filter(|i| self.passes(*i, &self.history.versions[*i]));
            let more: Vec<usize> = changed.filter(|i| !is_exported(classes, *i)).collect();
            if self.request.context == Context::Changed {
                return more.into_iter().collect();
            }
            found.extend(self.closure(more.clone(), classes));
            found.extend(more);
        }
        found
    }

    /// The current versions of context that versions lead to, but those of class exported.
    fn closure(&self, roots: Vec<usize>, classes: &[RecountClass]) -> HashSet<usize> {
        let versions = &self.history.versions;
        let mut by_name: HashMap<u128, Vec<usize>> = HashMap::new();
        for (i, version) in
            versions.iter().enumerate().filter(|(_, version)| context::is_context(version.resource_type))
        {
            if !matches!(classes[i], RecountClass::Future | RecountClass::Superseded | RecountClass::Deleted) {
                let mut names: Vec<u128> = version.context.keys.to_vec();
                names.push(version.entity);
                names.sort_unstable();
                names.dedup();
                names.into_iter().for_each(|name| by_name.entry(name).or_default().push(i));
            }
        }
        let mut found = HashSet::new();
        let mut waiting = roots;
        while let Some(i) = waiting.pop() {
            for name in &versions[i].context.references {
                // Of several resources of one identifier none is taken.
                let Some([one]) = by_name.get(name).map(|all| &all[..]) else { continue };
                let version = &versions[*one];
                if classes[*one] != RecountClass::Exported
                    && self.is_selected_context(*one, version)
                    && found.insert(*one)
                {
                    waiting.push(*one);
                }
            }
        }
        found
    }

    /// Whether a version is of a selected type of context, and no record of a patient outside the cohort.
    fn is_selected_context(&self, i: usize, version: &ResourceVersion) -> bool {
        let types = &self.request.types;
        context::is_context(version.resource_type)
            && (types.is_empty() || types.contains(&version.resource_type))
            && (!version.context.is_patients || self.belongs_by_itself(i))
    }

    /// Whether any version of the cohort leads to the deleted resource whose last version this is.
    pub(crate) fn leads_to_deleted(&self, last: usize) -> bool {
        let version = &self.history.versions[last];
        let is_named = |names: &HashSet<u128>| {
            names.contains(&version.entity) || version.context.keys.iter().any(|key| names.contains(key))
        };
        self.request.context != Context::None
            && self.is_selected_context(last, version)
            && is_named(self.names_ever.get_or_init(|| self.names_ever_referred_to()))
    }

    /// The names that any version of the cohort refers to, or a version of context that has such a name.
    fn names_ever_referred_to(&self) -> HashSet<u128> {
        let mut names: HashSet<u128> = HashSet::new();
        let mut taken = vec![false; self.history.versions.len()];
        loop {
            let before = names.len();
            for (i, version) in self.history.versions.iter().enumerate() {
                if taken[i]
                    || version.updated.as_ref().is_some_and(|updated| *updated > self.request.as_of)
                    || !self.lists_deletions_of(version.resource_type)
                {
                    continue;
                }
                let is_named =
                    || names.contains(&version.entity) || version.context.keys.iter().any(|key| names.contains(key));
                if self.belongs(i) || self.is_selected_context(i, version) && is_named() {
                    taken[i] = true;
                    names.extend(&version.context.references);
                }
            }
            if names.len() == before {
                return names;
            }
        }
    }
}
