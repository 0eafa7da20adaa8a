//! `outpour group import`: makes a Group file a file of the store, by rename.
//!
//! The file is read twice: once to check it against the rules before anything is written, and again while it is copied
//! under a temporary name, because it may have changed meanwhile. The copy is synced before it is renamed, so that a
//! crash leaves either the old Group or the new one, complete, and at most a file whose name begins with a dot: no
//! reader of a store takes that in, and the next import of the Group overwrites it. Imports of one Group wait for each
//! other.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use crate::cli::args::group::GroupImportArgs;
use crate::cli::args::run::AllowMissingArgs;
use crate::cli::clock::StoreClock;
use crate::cli::config::{group_rules, open_store, pool};
use crate::cli::group::{read, refuse_pipe, store_args};
use crate::cli::{Exit, put_json, say, warn};
use crate::error::{ExportError, RequestError};
use crate::fhir::id::Id;
use crate::group::lookup::{FoundGroup, find_group, our_bases};
use crate::group::rules::GroupRules;
use crate::ids::RowAddress;
use crate::index::snapshot::Snapshot;
use crate::store::Store;
use crate::store::choices::RowChoices;
use crate::sys::durability::sync_directory;
use crate::sys::private_files::create_private;
use crate::text_table::grouped_with;

/// Runs `outpour group import`.
///
/// # Errors
/// If the file cannot be read or breaks a rule, or the store cannot be opened, written or indexed.
pub(crate) fn run(args: &GroupImportArgs) -> Result<Exit, ExportError> {
    let rules = group_rules(&args.rules)?;
    refuse_pipe(&args.file, "an import")?;
    let (head, _) = read(&args.file, rules, &mut |_| Ok(()))?;
    let id = head.id.ok_or_else(|| RequestError::one(format!("{}: has no id", args.file.display())))?;
    let store = open_store(
        &store_args(&args.store, args.index_dir.clone(), AllowMissingArgs::default()),
        RowChoices::default(),
        false,
        true,
    )?;
    let target = store.root().join(format!("Group.{id}.ndjson"));
    let failed = |source| ExportError::Import { path: target.clone(), source };
    let (temporary, file) = lock(&target).map_err(failed)?;
    let copied = copy(&args.file, rules, &id, &file).and_then(|members| {
        std::fs::rename(&temporary, &target).map_err(CopyError::Write)?;
        Ok(members)
    });
    let members = copied.map_err(|error| {
        std::fs::remove_file(&temporary).ok();
        match error {
            CopyError::Write(source) => failed(source),
            CopyError::Read(error) => error,
        }
    })?;
    drop(file);
    sync_directory(store.root()).map_err(|source| ExportError::Unsynced { path: target.clone(), source })?;
    let current = is_current(&store, &id, &target)?;
    if args.json {
        put_json(
            &json!({ "status": "complete", "exitCode": 0, "id": id.as_str(), "file": target, "members": members, "current": current }),
        );
    }
    say(&format!("Group/{id} with {} is stored as {}", grouped_with(members, "member"), target.display()));
    if !current {
        warn(&format!(
            "another file of the store holds a version of Group/{id} that counts as later: give this one a later \
             meta.lastUpdated"
        ));
    }
    Ok(Exit::Done)
}

/// Opens and locks the temporary file beside the target, emptied. Blocks while another import of the Group holds it.
fn lock(target: &Path) -> io::Result<(std::path::PathBuf, File)> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = target.with_file_name(format!(".{name}.part"));
    loop {
        let file = create_private(&temporary)?;
        file.lock()?;
        // The previous holder of the lock may have renamed or removed the file: then another one, or none, has that
        // name.
        let (locked, named) = (file.metadata()?, std::fs::metadata(&temporary));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            file.set_len(0)?;
            return Ok((temporary, file));
        }
    }
}

/// Error of [`copy`], by the side that failed.
enum CopyError {
    /// The copy cannot be written, synced or renamed.
    Write(io::Error),
    /// The file cannot be read, breaks a rule, or has changed.
    Read(ExportError),
}

/// Copies a Group as one line, without the white space between tokens, and syncs the copy. Returns the number of
/// members.
///
/// # Errors
/// [`CopyError`] if either file fails, or the file has another id than `id`.
fn copy(from: &Path, rules: GroupRules, id: &Id, to: &File) -> Result<u64, CopyError> {
    let mut out = BufWriter::with_capacity(1 << 20, to);
    let mut line = Vec::new();
    let mut unwritten = None;
    let (mut in_string, mut escaped) = (false, false);
    let outcome = read(from, rules, &mut |piece| {
        if unwritten.is_some() {
            return Ok(());
        }
        line.clear();
        line.extend(piece.iter().copied().filter(|byte| {
            if in_string {
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                return true;
            }
            in_string = *byte == b'"';
            !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
        }));
        unwritten = out.write_all(&line).err();
        Ok(())
    });
    // A write error is kept aside, so that a file that breaks a rule is reported first.
    let (head, _) = outcome.map_err(CopyError::Read)?;
    if let Some(error) = unwritten {
        return Err(CopyError::Write(error));
    }
    if head.id != Some(*id) {
        let text = format!("{} was changed while it was imported; import it again", from.display());
        return Err(CopyError::Read(RequestError::one(text).into()));
    }
    let synced =
        out.write_all(b"\n").and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all());
    synced.map(|()| head.members).map_err(CopyError::Write)
}

/// Whether the imported version is the Group's current one: no other file of the store holds a later version.
fn is_current(store: &Store, id: &Id, target: &Path) -> Result<bool, ExportError> {
    pool(None)?.install(|| {
        let (index, _) = store.index(&crate::progress::Progress::default())?;
        let snapshot = Snapshot::of_latest(index, StoreClock::of(Some(store)).transaction_time());
        let found = find_group(&snapshot, id, &our_bases(&snapshot, &[]))?;
        let file = |segment| snapshot.index().file_name(snapshot.index().file_of(segment));
        let is_target = |row: RowAddress| target.file_name().is_some_and(|name| *name == *file(row.segment));
        Ok(matches!(found, FoundGroup::Current(row) if is_target(row)))
    })
}
