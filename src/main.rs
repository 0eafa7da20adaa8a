//! The binary: everything is in the library's `cli`.

fn main() -> std::process::ExitCode {
    outpour::internals::run_from_arguments()
}
