//! `outpour group list`: the current Groups of a store, as a table or a document. Writes nothing.

use serde_json::json;

use crate::cli::args::group::GroupListArgs;
use crate::cli::clock::StoreClock;
use crate::cli::config::{open_store, pool};
use crate::cli::group::store_args;
use crate::cli::{Exit, put_json, show};
use crate::error::ExportError;
use crate::group::listing::list_groups;
use crate::index::snapshot::Snapshot;
use crate::progress::Progress;
use crate::store::choices::RowChoices;
use crate::text_table::{TextTable, grouped};

/// Runs `outpour group list`.
///
/// # Errors
/// If the store cannot be opened, indexed in memory as far as needed, or read.
pub(crate) fn run(args: &GroupListArgs) -> Result<Exit, ExportError> {
    let store = store_args(&args.store, args.index_dir.clone(), args.missing);
    let store = open_store(&store, RowChoices::default(), false, true)?;
    let as_of = StoreClock::of(Some(&store)).transaction_time();
    let groups = pool(None)?.install(|| -> Result<_, ExportError> {
        let (index, _) = store.read_only().index(&Progress::default())?;
        list_groups(&Snapshot::of_latest(index, as_of))
    })?;
    if args.json {
        put_json(&json!({ "status": "complete", "exitCode": 0, "groups": groups }));
        return Ok(Exit::Done);
    }
    if groups.is_empty() {
        show("The store holds no Group; `outpour group import` puts one into it.");
        return Ok(Exit::Done);
    }
    let mut table = TextTable::new(&["id", "name", "type", "active", "members", "last updated", "file"]);
    for group in groups {
        let active = group.active.map(|active| if active { "yes" } else { "no" });
        // A name may hold anything; a table has one line for each Group.
        let name: String =
            group.name.unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        table.row([
            group.id,
            name,
            group.r#type.unwrap_or_default(),
            active.unwrap_or_default().to_string(),
            grouped(group.members),
            group.last_updated.unwrap_or_default(),
            group.file,
        ]);
    }
    show(table.text().trim_end());
    Ok(Exit::Done)
}
