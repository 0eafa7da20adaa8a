//! `outpour spark`: the driver that it prints, the words that spark-submit gets, its exit codes. The exports on Spark are tested by
//! `tests/spark/cluster.py`.

use crate::run::{self, command, scratch};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The driver.
fn driver() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spark/driver.py")).unwrap()
}

/// Writes a script in place of spark-submit, which tells its words, its driver and what lies beside it.
fn submit(directory: &Path, then: &str) -> PathBuf {
    std::fs::create_dir_all(directory.join("bin")).unwrap();
    let path = directory.join("bin/spark-submit");
    let script = format!(
        "#!/bin/sh\nfor word; do echo \"$word\"; case $word in *driver.py) driver=$word ;; esac; done\n\
         cp \"$driver\" '{0}/copy'; ls -l \"$(dirname \"$driver\")\" >'{0}/beside'; echo \"$driver\" >'{0}/driver'\n{then}\n",
        directory.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What is printed is the driver, which is whole; it is compiled, and tested with a Spark that is made up, where there is Python.
#[test]
fn the_driver_is_printed_and_does_what_it_says() {
    let scratch = scratch();
    let printed = run::run(&["spark", "--print"]);
    assert!(printed.code == 0 && printed.stdout == driver() && printed.stderr.is_empty(), "{printed:#?}");
    let driver = scratch.path().join("driver.py");
    std::fs::write(&driver, printed.stdout).unwrap();
    let Ok(compiled) = Command::new("python3").args(["-m", "py_compile"]).arg(&driver).output() else {
        println!("skipped: there is no python3");
        return;
    };
    assert!(compiled.status.success(), "{compiled:?}");
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spark/driver_test.py");
    let tested = Command::new("python3").arg(test).output().unwrap();
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stderr));
}

/// The words of spark-submit, with and without shipping; the directory of the driver is private and does not stay.
#[test]
fn spark_submit_gets_its_words() {
    let scratch = scratch();
    let submit = submit(scratch.path(), "");
    let binary = env!("CARGO_BIN_EXE_outpour");
    let spark = |more: &[&str]| {
        let mut spark = command();
        spark.args(["spark", "--job", "/job"]).args(more).env("SPARK_HOME", scratch.path());
        let run = run::finish(&mut spark);
        assert_eq!(run.code, 0, "{run:#?}");
        let driver = std::fs::read_to_string(scratch.path().join("driver")).unwrap().trim().to_string();
        assert!(!Path::new(&driver).parent().unwrap().exists(), "{driver}");
        assert_eq!(std::fs::read_to_string(scratch.path().join("copy")).unwrap(), self::driver());
        let beside = std::fs::read_to_string(scratch.path().join("beside")).unwrap();
        assert!(beside.contains("-rw-------") && beside.contains(&format!("outpour -> {binary}")), "{beside}");
        run.stdout.replace(&driver, "DRIVER").lines().map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(spark(&[]), ["DRIVER", "--job", "/job", "--outpour", binary]);
    assert_eq!(
        spark(&["--store", "/s", "--ship", "--spark-submit", submit.to_str().unwrap(), "--", "--master", "yarn"]),
        ["--master", "yarn", "--files", binary, "DRIVER", "--job", "/job", "--store", "/s", "--outpour", "outpour"]
    );
    run::run(&["spark", "--job", "/j", "--ship", "--", "--files", "x"]).refused(64, &["--ship: ", "--files"]);
    run::run(&["spark", "--job", "/j", "--spark-submit", "/nowhere"]).refused(64, &["/nowhere", "--spark-submit"]);
    run::run(&["spark"]).refused(64, &["--job"]);
}

/// Exit codes of the driver are passed on, others are not; a signal goes to spark-submit.
#[test]
fn exit_codes_and_signals_are_passed_on() {
    let scratch = scratch();
    let with = |then: &str| {
        let submit = submit(scratch.path(), then);
        run::run(&["spark", "--job", "/job", "--spark-submit", submit.to_str().unwrap()])
    };
    for code in [0, 64, 65, 70, 74, 75, 77, 130] {
        assert_eq!(with(&format!("exit {code}")).code, code);
    }
    with("exit 1").refused(3, &["spark-submit ended by itself, with exit status: 1"]);
    with("kill -9 $$").refused(3, &["spark-submit ended by itself, with signal: 9"]);
    let submit = submit(scratch.path(), "trap 'exit 143' TERM; while :; do sleep 0.05; done");
    let mut spark = command();
    spark.args(["spark", "--job", "/job", "--spark-submit", submit.to_str().unwrap()]);
    std::fs::remove_file(scratch.path().join("driver")).unwrap();
    let mut child = spark.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let written = || std::fs::read_to_string(scratch.path().join("driver")).is_ok_and(|text| text.ends_with('\n'));
    while !written() {
        assert!(begun.elapsed() < Duration::from_secs(20), "spark-submit was not started");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The trap is set just after.
    std::thread::sleep(Duration::from_millis(100));
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) }, 0);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let driver = std::fs::read_to_string(scratch.path().join("driver")).unwrap();
    assert!(!Path::new(driver.trim()).parent().unwrap().exists(), "{driver}");
}
