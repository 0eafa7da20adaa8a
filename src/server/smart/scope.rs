//! SMART system scopes: read from a token request, granted within a registration, and what they open.
//!
//! `system/` and a type or `*`, a dot, and rights: `read`, `write` and `*` of version 1, or letters of `cruds` in this order
//! of version 2 (<https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html>). An export needs `r` and `s` of a
//! type (AUTH-21). Nothing that writes is ever granted (AUTH-18).

use std::collections::BTreeMap;
use std::fmt;

use crate::fhir::resource_type::ResourceType;
use crate::limits::SCOPES_MAX;

/// Rights to resources: to read one by its id, and to search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TypeRights {
    /// `r` of version 2.
    pub read: bool,
    /// `s` of version 2.
    pub search: bool,
}

impl TypeRights {
    /// Both rights: `read` of version 1.
    pub(crate) const BOTH: TypeRights = TypeRights { read: true, search: true };

    /// Whether an export may hold the type (AUTH-21).
    pub(crate) fn may_export(self) -> bool {
        self.read && self.search
    }

    fn is_empty(self) -> bool {
        !self.read && !self.search
    }

    /// The rights in both.
    pub(crate) fn within(self, other: TypeRights) -> TypeRights {
        TypeRights { read: self.read && other.read, search: self.search && other.search }
    }

    /// The rights in either.
    fn or(self, other: TypeRights) -> TypeRights {
        TypeRights { read: self.read || other.read, search: self.search || other.search }
    }

    /// Its letters in version 2.
    fn letters(self) -> &'static str {
        match (self.read, self.search) {
            (true, true) => "rs",
            (true, false) => "r",
            (false, true) => "s",
            (false, false) => "",
        }
    }
}

/// The rights that scopes open together, by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScopeRights {
    /// Rights to every type.
    all: TypeRights,
    /// Rights to some types, beside `all`.
    by_type: BTreeMap<ResourceType, TypeRights>,
}

impl ScopeRights {
    /// The rights to a type.
    pub(crate) fn of(&self, resource_type: ResourceType) -> TypeRights {
        self.by_type.get(&resource_type).copied().unwrap_or_default().or(self.all)
    }

    /// Whether every type may be exported.
    pub(crate) fn exports_all(&self) -> bool {
        self.all.may_export()
    }

    /// Whether there is no right in it.
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.by_type.values().all(|rights| rights.is_empty())
    }

    fn add(&mut self, target: ScopeTarget, rights: TypeRights) {
        match target {
            ScopeTarget::All => self.all = self.all.or(rights),
            ScopeTarget::Type(of) => {
                let known = self.by_type.entry(of).or_default();
                *known = known.or(rights);
            }
        }
    }

    /// The rights of a registration's scopes, or of those that a token holds.
    ///
    /// # Errors
    /// A sentence on each scope that is none, or that holds more than reading and searching.
    pub(crate) fn registered<'t>(scopes: impl Iterator<Item = &'t str>) -> Result<ScopeRights, Vec<String>> {
        let (mut rights, mut problems) = (ScopeRights::default(), Vec::new());
        for text in scopes {
            match Scope::parse(text) {
                Ok(scope) if scope.writes => {
                    problems
                        .push(format!("the scope {text:?} holds rights to write, which are never granted; give .rs"));
                }
                Ok(scope) => rights.add(scope.target, scope.rights),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() && rights.is_empty() {
            problems.push("no scope is given, so that no token would open anything".to_string());
        }
        if problems.is_empty() { Ok(rights) } else { Err(problems) }
    }
}

/// What a scope is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScopeTarget {
    All,
    Type(ResourceType),
}

/// The version of SMART whose form a scope has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScopeForm {
    /// `.read`
    V1,
    /// `.rs`
    V2,
}

/// One well-formed system scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scope {
    target: ScopeTarget,
    form: ScopeForm,
    rights: TypeRights,
    /// Whether it asks for rights to write, too.
    writes: bool,
}

impl Scope {
    /// Reads a scope.
    ///
    /// # Errors
    /// A sentence with the scope and why it is refused.
    fn parse(text: &str) -> Result<Scope, String> {
        // A text that is no scope may hold anything, also what belongs to a patient: it is not repeated.
        let wrong = |why: &str| {
            let named =
                if text.contains('?') { "a granular scope".to_string() } else { format!("the scope {}", Shown(text)) };
            Err(format!("{named} {why}"))
        };
        let Some(rest) = text.strip_prefix("system/") else {
            return wrong("is no system scope; ask for such as system/*.rs or system/Patient.rs");
        };
        if rest.contains('?') {
            return wrong("is not served: ask for the type as a whole, and filter the export by _typeFilter");
        }
        let Some((name, rights)) = rest.split_once('.') else {
            return wrong("has no rights behind a dot; ask for such as system/Patient.rs");
        };
        let target = match name {
            "*" => ScopeTarget::All,
            name => match ResourceType::parse(name) {
                Some(of) => ScopeTarget::Type(of),
                None => return wrong("names no resource type of R4"),
            },
        };
        let (form, rights, writes) = match rights {
            "read" => (ScopeForm::V1, TypeRights::BOTH, false),
            "write" => (ScopeForm::V1, TypeRights::default(), true),
            "*" => (ScopeForm::V1, TypeRights::BOTH, true),
            letters => {
                let mut order = "cruds".chars();
                let is_in_order =
                    !letters.is_empty() && letters.chars().all(|letter| order.any(|known| known == letter));
                if !is_in_order {
                    return wrong("has other rights than letters of cruds in this order, read, write or *");
                }
                let rights = TypeRights { read: letters.contains('r'), search: letters.contains('s') };
                (ScopeForm::V2, rights, letters.contains(['c', 'u', 'd']))
            }
        };
        Ok(Scope { target, form, rights, writes })
    }

    /// The scope as it is granted with such rights to a target: in the form that was asked, where that can say it (AUTH-16).
    fn granted(form: ScopeForm, target: ScopeTarget, rights: TypeRights) -> String {
        let name = match target {
            ScopeTarget::All => "*",
            ScopeTarget::Type(of) => of.name(),
        };
        let rights = if form == ScopeForm::V1 && rights.may_export() { "read" } else { rights.letters() };
        format!("system/{name}.{rights}")
    }
}

/// The beginning of a scope that is refused, escaped.
struct Shown<'t>(&'t str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(64).collect();
        write!(f, "{shown:?}")
    }
}

/// The scopes of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantedScopes {
    /// As the answer to the token request names them.
    pub text: String,
    /// What they open, before the client's own limits.
    pub rights: ScopeRights,
}

/// Grants what of `asked` a client is registered for, and of single types what `may_export` says that it may export; what is
/// granted less is seen in the text of the result (AUTH-15). A wildcard stands for all types that the client may export
/// (AUTH-19), and is granted as one where the registration has it.
///
/// # Errors
/// A sentence on each scope that cannot be granted in any form, or one if none is left (AUTH-12, AUTH-18).
pub(crate) fn grant_scopes(
    asked: &str,
    registered: &ScopeRights,
    may_export: impl Fn(ResourceType) -> bool,
) -> Result<GrantedScopes, Vec<String>> {
    let texts: Vec<&str> = asked.split(' ').filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return Err(vec!["no scope is asked for; ask for such as system/*.rs".to_string()]);
    }
    if texts.len() > SCOPES_MAX {
        return Err(vec![format!("more than {SCOPES_MAX} scopes are asked for; ask for system/*.rs")]);
    }
    let (mut names, mut rights, mut problems) = (Vec::new(), ScopeRights::default(), Vec::new());
    let mut add = |form, target, granted: TypeRights| {
        if granted.is_empty() {
            return;
        }
        let name = Scope::granted(form, target, granted);
        if !names.contains(&name) {
            names.push(name);
        }
        rights.add(target, granted);
    };
    for text in texts {
        match Scope::parse(text) {
            Err(problem) => problems.push(problem),
            Ok(Scope { target: ScopeTarget::All, form, rights: wanted, .. }) => {
                add(form, ScopeTarget::All, wanted.within(registered.all));
                for (of, theirs) in registered.by_type.iter().filter(|(of, _)| may_export(**of)) {
                    let more = wanted.within(*theirs);
                    if more.within(registered.all) != more {
                        add(form, ScopeTarget::Type(*of), more);
                    }
                }
            }
            Ok(Scope { target: ScopeTarget::Type(of), form, rights: wanted, .. }) => {
                if may_export(of) {
                    add(form, ScopeTarget::Type(of), wanted.within(registered.of(of)));
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if rights.is_empty() {
        return Err(vec!["none of the scopes may be granted to this client for reading".to_string()]);
    }
    if names.len() > SCOPES_MAX {
        return Err(vec![format!("more than {SCOPES_MAX} scopes would be granted; ask for system/*.rs alone")]);
    }
    Ok(GrantedScopes { text: names.join(" "), rights })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(name: &str) -> ResourceType {
        ResourceType::parse(name).unwrap()
    }

    fn registered(scopes: &str) -> ScopeRights {
        ScopeRights::registered(scopes.split(' ')).unwrap()
    }

    /// What is granted of `asked` to a client registered for `scopes`, or the problems.
    fn granted(scopes: &str, asked: &str) -> Result<String, String> {
        let granted = grant_scopes(asked, &registered(scopes), |of| of.name() != "Basic");
        granted.map(|granted| granted.text).map_err(|problems| problems.join("; "))
    }

    /// AUTH-15, AUTH-16, AUTH-18, AUTH-19: the form that was asked stays, rights to write go, and what the client may not have is
    /// left out.
    #[test]
    fn scopes_are_granted_within_the_registration() {
        for (scopes, asked, text) in [
            ("system/*.rs", "system/*.read", "system/*.read"),
            ("system/*.rs", "system/*.rs", "system/*.rs"),
            ("system/*.rs", "system/*.*", "system/*.read"),
            ("system/*.rs", "system/*.cruds", "system/*.rs"),
            ("system/*.rs", "system/Patient.read system/Observation.rs", "system/Patient.read system/Observation.rs"),
            ("system/*.rs", " system/Patient.rs  system/Patient.rs ", "system/Patient.rs"),
            ("system/*.rs", "system/Patient.read system/Patient.write", "system/Patient.read"),
            ("system/*.rs", "system/Patient.r", "system/Patient.r"),
            ("system/*.rs", "system/Patient.rs system/Basic.rs", "system/Patient.rs"),
            ("system/Patient.rs", "system/Patient.read system/Condition.read", "system/Patient.read"),
            (
                "system/Patient.rs system/Condition.rs system/Basic.rs",
                "system/*.read",
                "system/Condition.read system/Patient.read",
            ),
            ("system/Patient.r", "system/*.read", "system/Patient.r"),
            ("system/*.r system/Patient.rs", "system/*.rs", "system/*.r system/Patient.rs"),
            ("system/*.rs system/Patient.rs", "system/*.rs", "system/*.rs"),
        ] {
            let found = granted(scopes, asked).map(|text| {
                let mut names: Vec<&str> = text.split(' ').collect();
                names.sort_unstable();
                names.join(" ")
            });
            let mut names: Vec<&str> = text.split(' ').collect();
            names.sort_unstable();
            assert_eq!(found, Ok(names.join(" ")), "{scopes}: {asked}");
        }
    }

    /// AUTH-12, AUTH-17, AUTH-18, AUTH-20: what is no system scope of R4 refuses the request, beside others also; the problem names it,
    /// but never the value of a granular one.
    #[test]
    fn wrong_scopes_are_refused() {
        for (asked, word) in [
            ("", "no scope"),
            ("  ", "no scope"),
            ("launch fhirUser", "no system scope"),
            ("openid system/*.rs", "\"openid\""),
            ("patient/*.rs", "no system scope"),
            ("system/*.rs user/Patient.read", "user/Patient.read"),
            ("system/UnknownResource.read", "no resource type"),
            ("system/patient.rs", "no resource type"),
            ("system/Patient.unknownAction", "other rights"),
            ("system/Patient.xyz", "other rights"),
            ("system/Patient.sr", "in this order"),
            ("system/Patient.rr", "in this order"),
            ("system/Patient.", "other rights"),
            ("system/Patient", "no rights"),
            ("system/Patient.write", "for reading"),
            ("system/*.cud", "for reading"),
            ("system/Basic.rs", "for reading"),
            ("system/Patient.rs?name=secret", "_typeFilter"),
            ("system/Patient.rs\tsystem/Group.rs", "other rights"),
        ] {
            let refused = granted("system/*.rs", asked).unwrap_err();
            assert!(refused.contains(word) && !refused.contains("secret"), "{asked}: {refused}");
        }
        assert!(
            granted("system/*.rs", &"system/Patient.rs ".repeat(SCOPES_MAX + 1)).unwrap_err().contains("more than")
        );
    }

    /// A registration holds nothing that would never be granted.
    #[test]
    fn registrations_are_checked() {
        for scopes in ["system/*.*", "system/Patient.cruds", "system/Patiant.rs", "user/*.rs", ""] {
            assert!(ScopeRights::registered(scopes.split(' ')).is_err(), "{scopes}");
        }
        assert!(ScopeRights::registered([].into_iter()).unwrap_err()[0].contains("no scope"));
    }

    /// AUTH-21: reading and searching together make a type exportable, from one scope or from several.
    #[test]
    fn an_export_needs_both_rights() {
        assert!(!registered("system/Patient.r").of(of("Patient")).may_export());
        assert!(!registered("system/Patient.s").of(of("Patient")).may_export());
        assert!(registered("system/Patient.r system/Patient.s").of(of("Patient")).may_export());
        assert!(registered("system/*.r system/Patient.s").of(of("Patient")).may_export());
        assert!(!registered("system/*.r system/Patient.s").of(of("Group")).may_export());
        assert!(registered("system/*.read").exports_all() && !registered("system/*.r").exports_all());
    }

    proptest! {
        /// Whatever is asked: what is granted is within the registration and what was asked, reads back as itself, and no text
        /// panics.
        #[test]
        fn nothing_is_widened(
            asked in prop::collection::vec(("(\\*|Patient|Group|Basic)", "(c?r?u?d?s?|read|write|\\*)"), 1..5),
            theirs in prop::collection::vec(("(\\*|Patient|Group)", "(r|s|rs|read)"), 1..4),
            junk in "\\PC{0,40}",
        ) {
            let text = |scopes: &[(String, String)]| {
                scopes.iter().map(|(name, rights)| format!("system/{name}.{rights}")).collect::<Vec<_>>().join(" ")
            };
            let (asked, registration) = (text(&asked), registered(&text(&theirs)));
            let may_export = |of: ResourceType| of.name() != "Basic";
            let parsed: Vec<Scope> = asked.split(' ').filter_map(|one| Scope::parse(one).ok()).collect();
            if let Ok(granted) = grant_scopes(&asked, &registration, may_export) {
                let again = ScopeRights::registered(granted.text.split(' ')).unwrap();
                prop_assert_eq!(&again, &granted.rights);
                for of in ["Patient", "Group", "Observation"].map(of) {
                    let found = granted.rights.of(of);
                    let wanted = parsed.iter().filter(|scope| matches!(scope.target, ScopeTarget::All) || scope.target == ScopeTarget::Type(of));
                    let wanted = wanted.fold(TypeRights::default(), |sum, scope| sum.or(scope.rights));
                    prop_assert_eq!(found, wanted.within(registration.of(of)), "{}", of);
                }
            }
            let _ = grant_scopes(&junk, &registration, may_export);
        }
    }
}
