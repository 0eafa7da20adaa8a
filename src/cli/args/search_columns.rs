//! Arguments of `outpour index` about search columns.

/// Which search columns the index has.
#[derive(clap::Args, Debug)]
pub(crate) struct SearchColumnArgs {
    /// Keep the values of these search parameters in columns, from which --type-filter then decides without a look at the
    /// rows; separated by commas, repeats add up. Every run completes them
    #[arg(long, value_name = "TYPE.PARAMETER", value_delimiter = ',')]
    pub search: Vec<String>,
    /// Drop the columns of these search parameters; `all` for every one
    #[arg(long, value_name = "TYPE.PARAMETER", value_delimiter = ',')]
    pub drop_search: Vec<String>,
}
