//! The flags that say how a store is read.

use clap::ValueEnum;

/// How a store is read. An index keeps what it was made with; a choice that differs is refused.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct ChoiceArgs {
    /// Rows of a gzip member or zstd frame whose checksum fails or that is cut off: one fault, with what stands behind
    /// them, or exported up to the damage [default: fault, or what the index was made with]
    #[arg(long, value_name = "HOW")]
    pub unproven: Option<UnprovenArg>,
    /// Ids that are taken: up to 255 letters, digits, '-', '.', '_' and '~', or what R4 allows [default: any, or what the
    /// index was made with]
    #[arg(long, value_name = "RULE")]
    pub ids: Option<IdsArg>,
    /// Lines with half of a surrogate pair, which many JSON readers refuse: faults, or rows [default: fault, or what the
    /// index was made with]
    #[arg(long, value_name = "HOW")]
    pub lone_surrogates: Option<LoneSurrogatesArg>,
    /// Patient references that count: literal ones, or also those with a slash too much, white space around them or
    /// another case of `Patient` [default: strict, or what the index was made with]
    #[arg(long, value_name = "HOW")]
    pub patient_references: Option<PatientReferencesArg>,
    /// Which references make a record a patient's: all of R4's Patient compartment, or those alone that name whom it is about
    /// (an Observation's subject, not its performer) [default: r4, or what the index was made with]
    #[arg(long, value_name = "WHICH")]
    pub compartment_paths: Option<CompartmentPathsArg>,
    /// Whether symbolic links in the store are followed, also to files and directories outside of it; the flag alone says
    /// yes [default: no, or what the index was made with]
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "yes")]
    pub follow_symlinks: Option<FollowSymlinksArg>,
}

/// See `--validate`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum ValidateArg {
    Full,
    Structure,
}

/// See `--follow-symlinks`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum FollowSymlinksArg {
    Yes,
    No,
}

/// See `--ids`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum IdsArg {
    Any,
    R4,
}

/// See `--lone-surrogates`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum LoneSurrogatesArg {
    Fault,
    Pass,
}

/// See `--patient-references`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum PatientReferencesArg {
    Strict,
    Lenient,
}

/// See `--unproven`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum UnprovenArg {
    Export,
    Fault,
}

/// See `--compartment-paths`.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum CompartmentPathsArg {
    R4,
    Primary,
}
