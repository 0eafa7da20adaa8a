//! Checks that an output directory does not lie inside a store, where later exports would read its files.

use std::path::{Path, PathBuf};

use crate::error::{RequestError, RequestProblem};
use crate::issue::Parameter;

/// Name of the directory beside an output that holds the record of its run.
pub(crate) const JOB: &str = ".outpour-job";

/// Checks that `out` does not lie inside `store`, links resolved.
///
/// # Errors
/// [`RequestError`] naming the output directory when it does.
pub(crate) fn check_outside_store(store: &Path, out: &Path) -> Result<(), RequestError> {
    match without_links(out).starts_with(without_links(store)) {
        false => Ok(()),
        true => Err(inside(out, &format!("the store {}", store.display()))),
    }
}

/// Checks that `out` does not lie inside a directory that a link of the store leads to, where `linked` are those that a walk
/// entered, without links in their paths.
///
/// # Errors
/// [`RequestError`] naming the output directory when it does.
pub(crate) fn check_outside_linked(linked: &[PathBuf], out: &Path) -> Result<(), RequestError> {
    let real = without_links(out);
    match linked.iter().find(|directory| real.starts_with(directory)) {
        None => Ok(()),
        Some(directory) => Err(inside(out, &format!("{}, which a link of the store leads to", directory.display()))),
    }
}

/// The error of an output directory that lies inside of `what`.
fn inside(out: &Path, what: &str) -> RequestError {
    RequestError::one(RequestProblem::of(
        Parameter::Out,
        format!(
            "{} lies inside {what}, where the next export would read it as input; choose a directory outside",
            out.display()
        ),
    ))
}

/// A path with its links resolved. It need not exist yet: its longest existing prefix is resolved.
fn without_links(path: &Path) -> PathBuf {
    let mut rest = Vec::new();
    let mut place = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    loop {
        match place.canonicalize() {
            Ok(found) => return rest.iter().rev().fold(found, |path, part| path.join(part)),
            Err(_) => match (place.file_name().map(|name| name.to_os_string()), place.parent()) {
                (Some(name), Some(parent)) => {
                    rest.push(name);
                    place = parent.to_path_buf();
                }
                _ => return place,
            },
        }
    }
}
