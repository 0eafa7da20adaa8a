//! The command: parse, run, exit code.

use clap::Parser;
use outpour::cli;

fn main() -> std::process::ExitCode {
    let exit = cli::run(cli::args::Args::parse());
    std::process::ExitCode::from(exit as u8)
}
