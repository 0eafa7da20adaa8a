//! `outpour inspect`

use super::Exit;
use super::args::InspectArgs;

/// Runs the command.
pub fn run(_args: InspectArgs) -> Exit {
    Exit::Failed
}
