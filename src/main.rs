//! The binary `outpour`. It holds no logic: the command line is the library's module `cli`.

/// Runs the command line and ends the process with its exit code.
fn main() -> std::process::ExitCode {
    outpour::internals::run_from_arguments()
}
