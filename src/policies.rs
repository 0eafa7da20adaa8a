//! The policies of a request: late rows, undated ones, resources that are gone, those that come by reference, and rows of
//! several patients.

use crate::group::lookup::MembershipRule;
use crate::limits::FILE_BYTES_DEFAULT;
use crate::named_enum::by_name;

use serde::{Deserialize, Serialize};

/// What happens to late rows under `_since`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LateArrivals {
    /// They are exported whatever their lastUpdated.
    #[default]
    Include,
    /// They are only counted.
    Report,
}

impl LateArrivals {
    /// Every value.
    pub const ALL: [LateArrivals; 2] = [LateArrivals::Include, LateArrivals::Report];

    /// Its word, as that of [`MembershipRule`].
    pub const fn name(self) -> &'static str {
        match self {
            LateArrivals::Include => "include",
            LateArrivals::Report => "report",
        }
    }
}

/// What happens to rows without `meta.lastUpdated` under `_since` and `_until` (reading 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MissingLastUpdated {
    /// They pass.
    #[default]
    Include,
    /// They do not.
    Exclude,
}

impl MissingLastUpdated {
    /// Every value.
    pub const ALL: [MissingLastUpdated; 2] = [MissingLastUpdated::Include, MissingLastUpdated::Exclude];

    /// Its word, as that of [`MembershipRule`].
    pub const fn name(self) -> &'static str {
        match self {
            MissingLastUpdated::Include => "include",
            MissingLastUpdated::Exclude => "exclude",
        }
    }
}

/// Whether resources that are no patient's records come with those that refer to them (COMP-06).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Context {
    /// They do not.
    #[default]
    None,
    /// Practitioners, Organizations, Locations and the like come that exported resources refer to, and what those refer to
    /// in turn. Under `_since` also those that resources exported before refer to and that have changed since.
    Referenced,
    /// As [`Context::Referenced`], and under `_since` only those that changed since, whatever refers to them (SINCE-05).
    Changed,
}

impl Context {
    /// Every value.
    pub const ALL: [Context; 3] = [Context::None, Context::Referenced, Context::Changed];

    /// Its word, as that of [`MembershipRule`].
    pub const fn name(self) -> &'static str {
        match self {
            Context::None => "none",
            Context::Referenced => "referenced",
            Context::Changed => "changed",
        }
    }

    /// Whether it is the default, which records leave out: they were written before there was a choice.
    pub(crate) fn is_default(&self) -> bool {
        *self == Context::default()
    }
}

/// What happens under `_since` to resources that are gone from a replaced file (reading 26).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vanished {
    /// They are only counted.
    #[default]
    Report,
    /// They are listed as deletions.
    Delete,
}

impl Vanished {
    /// Every value.
    pub const ALL: [Vanished; 2] = [Vanished::Report, Vanished::Delete];

    /// Its word, as that of [`MembershipRule`].
    pub const fn name(self) -> &'static str {
        match self {
            Vanished::Report => "report",
            Vanished::Delete => "delete",
        }
    }

    /// Whether it is the default, which records leave out: they were written before there was a choice.
    pub(crate) fn is_default(&self) -> bool {
        *self == Vanished::default()
    }
}

/// Which rows belong to the patients to whom an export is restricted (COMP-05).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatientStrict {
    /// Those that are in the record of any of them.
    #[default]
    Any,
    /// Of these the ones that are in nobody else's record.
    All,
}

impl PatientStrict {
    /// Every value.
    pub const ALL: [PatientStrict; 2] = [PatientStrict::Any, PatientStrict::All];

    /// Its word, as that of [`MembershipRule`].
    pub const fn name(self) -> &'static str {
        match self {
            PatientStrict::Any => "any",
            PatientStrict::All => "all",
        }
    }

    /// Whether it is the default, which records leave out: they were written before there was a choice.
    pub(crate) fn is_default(&self) -> bool {
        *self == PatientStrict::default()
    }
}

/// What an increment does for patients who joined the population after its baseline (GROUP-11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NewMembers {
    /// All their records are exported, whatever their age.
    Full,
    /// Their records are exported as everybody's, and the manifest says how many have joined.
    #[default]
    Report,
    /// Their records are exported as everybody's.
    Ignore,
}

impl NewMembers {
    /// Every value.
    pub(crate) const ALL: [NewMembers; 3] = [NewMembers::Full, NewMembers::Report, NewMembers::Ignore];

    /// Its word, as that of [`MembershipRule`].
    pub(crate) const fn name(self) -> &'static str {
        match self {
            NewMembers::Full => "full",
            NewMembers::Report => "report",
            NewMembers::Ignore => "ignore",
        }
    }
}

/// Bounds of an output file; a row is never split (FILE-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileBounds {
    /// Most uncompressed bytes; one longer row gets a file of its own.
    pub file_bytes: u64,
    /// Most rows, if bounded.
    pub file_resources: Option<u64>,
}

impl Default for FileBounds {
    fn default() -> FileBounds {
        FileBounds { file_bytes: FILE_BYTES_DEFAULT, file_resources: None }
    }
}

by_name!(MembershipRule, LateArrivals, MissingLastUpdated, Context, Vanished, PatientStrict, NewMembers);

/// Who reads the messages and the ledger of an export (reading 24).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Who runs the store: everything is told.
    #[default]
    Operator,
    /// A client of a service that may have the whole store. What concerns patients outside a Group is left out of the
    /// messages of that Group.
    Client,
    /// A client that may have some Groups, types or one patient only: it is told of those alone.
    BoundClient,
}

/// How rows are selected. Every way gives the same rows and counts; this is for tests and benches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessPath {
    /// The shorter one.
    #[default]
    Auto,
    /// From the members' side.
    Postings,
    /// By a pass over the columns, which passes by what `_since` does not want.
    Columns,
    /// By a pass over the columns, row by row.
    Rows,
}
