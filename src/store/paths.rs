//! Checks that an output directory does not lie inside a store, where later exports would read its files.

use std::path::Path;

use crate::error::{RequestError, RequestProblem};
use crate::issue::Parameter;

/// Checks that `out` does not lie inside `store`, links resolved.
///
/// # Errors
/// [`RequestError`] naming the output directory when it does.
pub(crate) fn check_outside_store(store: &Path, out: &Path) -> Result<(), RequestError> {
    let absolute = |path: &Path| {
        // The directory need not exist yet: its longest existing prefix is resolved.
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
    };
    match absolute(out).starts_with(absolute(store)) {
        false => Ok(()),
        true => Err(RequestError::one(RequestProblem::of(
            Parameter::Out,
            format!(
                "{} lies inside the store {}, where the next export would read it as input; choose a directory outside",
                out.display(),
                store.display()
            ),
        ))),
    }
}
