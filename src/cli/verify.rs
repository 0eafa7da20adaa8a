//! `outpour verify`

use super::Exit;
use super::args::VerifyArgs;

/// Runs the command.
pub fn run(_args: VerifyArgs) -> Exit {
    Exit::Failed
}
