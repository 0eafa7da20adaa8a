//! The flags that say which records of its population an export has.

use clap::ValueEnum;

/// The parameters of the Bulk Data Access IG that choose records, and how strictly they are taken.
#[derive(clap::Args, Debug, Clone)]
#[command(next_help_heading = "Which records")]
pub(crate) struct RecordArgs {
    /// Of these the records of some patients alone: ids or references, separated by commas; repeats add up
    #[arg(long, value_name = "ID,ID")]
    pub patient: Vec<String>,
    /// With --patient: one whose records are not among these, or who is not in the store, is an error and no warning
    #[arg(long, requires = "patient")]
    pub strict_patients: bool,
    /// With --patient: records of any of these patients, or only those that are in nobody else's record, too
    #[arg(long, value_name = "WHOSE", default_value = "any", requires = "patient")]
    pub patient_strict: PatientStrictArg,
    /// Add the Provenance of the exported resources, whatever --type says: LatestProvenanceResources,
    /// RelevantProvenanceResources [default: Provenance that is about the patients' records]
    #[arg(long, value_name = "A,B")]
    pub include_associated_data: Vec<String>,
    /// Resource types, separated by commas; repeats add up [default: all]
    #[arg(long = "type", value_name = "A,B")]
    pub types: Vec<String>,
    /// Only what was updated after this time (strictly): an instant such as 2026-11-29T00:00Z, a date (00:00Z of that day), a time
    /// before now such as -24h or -7d, now, today or yesterday
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Only what was updated before this time (strictly), in the forms of --since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// Root elements that records keep beside mandatory ones, as Type.element or element; repeats add up [default: all]
    #[arg(long, value_name = "A.b,c")]
    pub elements: Vec<String>,
    /// Of a type only what this search finds, such as 'Observation?category=laboratory&date=ge2024-01'; of several searches over
    /// a type one suffices, other types are whole; repeat it for more
    #[arg(long, value_name = "TYPE?SEARCH")]
    pub type_filter: Vec<String>,
    /// Leave out what there is not of --type, --elements, --type-filter and --include-associated-data, with a message each in
    /// the error files; else it is refused
    #[arg(long)]
    pub lenient: bool,
}

/// See `--patient-strict`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum PatientStrictArg {
    Any,
    All,
}
