//! `outpour spark`: the driver of an export on Apache Spark, printed, or run by spark-submit.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cli::args::tasks::SparkArgs;
use crate::cli::run_task::random;
use crate::cli::{Exit, complain};
use crate::sys::interrupt::{interrupts, terminate};
use crate::sys::private_files::{create_private, private_directory};

/// The driver, a Python program.
const DRIVER: &str = include_str!("../spark/driver.py");
/// Time between two looks at whether spark-submit has ended, or a signal has come.
const POLL: Duration = Duration::from_millis(50);
/// Exit codes of the driver, which are passed on. Others are those of spark-submit or of Python.
const DRIVER_CODES: [Exit; 8] = [
    Exit::Done,
    Exit::Usage,
    Exit::DataChanged,
    Exit::Differs,
    Exit::InputOutput,
    Exit::NotYet,
    Exit::NotPermitted,
    Exit::Interrupted,
];

/// Runs `outpour spark` and returns its exit code.
pub(crate) fn run(args: SparkArgs) -> Exit {
    let Some(job) = &args.job else {
        // A closed pipe is not a failure: the reader has read enough.
        io::stdout().write_all(DRIVER.as_bytes()).ok();
        return Exit::Done;
    };
    let ships_files =
        args.words.iter().any(|word| word == "--files" || word.as_encoded_bytes().starts_with(b"--files="));
    if args.ship && ships_files {
        complain(
            "--ship: the words for spark-submit have --files, of which it takes one; add the binary there, and start the driver \
             (--print) with the name of the binary as --outpour",
        );
        return Exit::Usage;
    }
    let submit = args.spark_submit.clone().unwrap_or_else(default_submit);
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => {
            complain(&format!("the path of this binary cannot be read: {error}"));
            return Exit::InputOutput;
        }
    };
    let directory = match DriverDirectory::new(&binary) {
        Ok(directory) => directory,
        Err(error) => {
            complain(&format!("{}: the driver cannot be written there: {error}", std::env::temp_dir().display()));
            return Exit::InputOutput;
        }
    };
    let mut command = Command::new(&submit);
    command.args(words(&args, job, &binary, &directory.driver()));
    // Before the child is there, so that no signal leaves it alone.
    let interrupted = interrupts();
    let ended = command.spawn().and_then(|mut child| wait(&mut child, || interrupted.load(Relaxed)));
    match ended {
        Ok(ended) => exit_of(ended, interrupted.load(Relaxed)),
        Err(error) => {
            complain(&format!(
                "{} cannot be run: {error}; install Spark (`pip install pyspark` has it), or name it by --spark-submit",
                submit.display()
            ));
            Exit::Usage
        }
    }
}

/// The spark-submit of SPARK_HOME, else what PATH has.
fn default_submit() -> PathBuf {
    let home = std::env::var_os("SPARK_HOME").filter(|home| !home.is_empty());
    home.map_or_else(|| PathBuf::from("spark-submit"), |home| Path::new(&home).join("bin/spark-submit"))
}

/// The words for spark-submit: the user's, ours, the driver, and the driver's own.
fn words(args: &SparkArgs, job: &Path, binary: &Path, driver: &Path) -> Vec<OsString> {
    let mut words = args.words.clone();
    if args.ship {
        words.extend([OsString::from("--files"), binary.into()]);
    }
    words.extend([driver.into(), "--job".into(), job.into()]);
    if let Some(store) = &args.store {
        words.extend([OsString::from("--store"), store.into()]);
    }
    // What is shipped is found by its name, everything else under its path.
    let name = binary.file_name().filter(|_| args.ship).unwrap_or(binary.as_os_str());
    words.extend([OsString::from("--outpour"), name.to_os_string()]);
    words
}

/// Waits for a child, and asks it once to end when a signal has come.
fn wait(child: &mut Child, is_interrupted: impl Fn() -> bool) -> io::Result<ExitStatus> {
    let mut is_asked = false;
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(ended);
        }
        if !is_asked && is_interrupted() {
            terminate(child);
            is_asked = true;
        }
        std::thread::sleep(POLL);
    }
}

/// The exit code for how spark-submit ended.
fn exit_of(ended: ExitStatus, is_interrupted: bool) -> Exit {
    let known = ended.code().and_then(|code| DRIVER_CODES.into_iter().find(|exit| *exit as i32 == code));
    match known {
        Some(exit) => exit,
        None if is_interrupted => Exit::Interrupted,
        None => {
            complain(&format!("spark-submit ended by itself, with {ended}; what it said is above"));
            Exit::Failed
        }
    }
}

/// A directory of this process alone with the driver, and beside it a link to the binary, by which a driver on this machine finds
/// it when Spark has it for the workers only. Removed at the end.
struct DriverDirectory(PathBuf);

impl DriverDirectory {
    /// Makes the directory below that for temporary files.
    fn new(binary: &Path) -> io::Result<DriverDirectory> {
        let path = std::env::temp_dir().join(format!("outpour-spark-{:016x}", random()));
        private_directory(&path)?;
        let directory = DriverDirectory(path);
        create_private(&directory.driver())?.write_all(DRIVER.as_bytes())?;
        if let Some(name) = binary.file_name() {
            symlink(binary, directory.0.join(name))?;
        }
        Ok(directory)
    }

    /// Path of the driver.
    fn driver(&self) -> PathBuf {
        self.0.join("driver.py")
    }
}

impl Drop for DriverDirectory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
