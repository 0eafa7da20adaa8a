//! Stores with more files than a process may have open: every command gives what it gives of the same rows in one file.

use std::path::Path;

use crate::http::job_lifecycle::{accepted, ended, files};
use crate::http::server::Server;
use crate::run::{self, Bounds, Export, run, scratch};

/// Files of the store, and how many files a process may have open.
const FILES: usize = 1500;
const OPEN_MAX: u64 = 256;

/// Has a command have at most so many files open.
fn limit_open_files(command: &mut std::process::Command, files: u64) {
    use std::os::unix::process::CommandExt;
    let limit = libc::rlimit { rlim_cur: files, rlim_max: files };
    // SAFETY: the call is async-signal-safe and touches only the new process's own limits.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// Runs a command that may have [`OPEN_MAX`] files open, to a good end.
#[track_caller]
fn run_limited(words: &[&str]) -> run::Run {
    let mut command = run::command();
    command.args(words).args(["--progress", "never"]);
    limit_open_files(&mut command, OPEN_MAX);
    let done = run::finish(&mut command);
    assert_eq!(done.code, 0, "{done:#?}");
    done
}

/// Three rows of a file: a Patient, and Observations of it and of another one.
fn rows(file: usize) -> String {
    let observation = |n: usize, of: usize| {
        let of = of % FILES;
        format!(
            "{{\"resourceType\":\"Observation\",\"id\":\"o{file}-{n}\",\"subject\":{{\"reference\":\"Patient/p{of}\"}}}}\n"
        )
    };
    let patient = format!("{{\"resourceType\":\"Patient\",\"id\":\"p{file}\",\"active\":true}}\n");
    patient + &observation(0, file) + &observation(1, file * 7 + 1)
}

/// Index, exports, packs, verification, a grown file and a job of the service.
#[test]
fn more_files_than_may_be_open() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_string();
    for directory in ["many/a", "many/b", "one"] {
        std::fs::create_dir_all(at(directory)).unwrap();
    }
    let name = |file: usize| format!("many/{}/{file:04}.ndjson", if file < FILES / 2 { "a" } else { "b" });
    (0..FILES).for_each(|file| std::fs::write(at(&name(file)), rows(file)).unwrap());
    let whole: String = (0..FILES).map(rows).collect();
    std::fs::write(at("one/all.ndjson"), &whole).unwrap();
    std::fs::write(at("ids"), "p3\np1499\np900\n").unwrap();

    // 1. The same bytes of everything, and of three patients; by descriptors that are mapped and that are not.
    let (many, one, ids) = (text("many"), text("one"), text("ids"));
    run_limited(&["index", "--store", &many]);
    let expect = |of: &str, words: &[&str]| {
        assert_eq!(run::export(Path::new(&one), &at(&format!("{of}-one")), words).code, 0);
        Export::read(&at(&format!("{of}-one")), Bounds::DEFAULT).lines()
    };
    for (of, words) in [("all", &["--system"][..]), ("three", &["--patients", &ids])] {
        let expected = expect(of, words);
        for access in ["mapped", "called"] {
            let out = text(&format!("{of}-{access}"));
            let command = ["export", "--store", &many, "--out", &out, "--no-sync", "--access", access];
            run_limited(&[&command[..], words].concat());
            assert_eq!(Export::read(Path::new(&out), Bounds::DEFAULT).lines(), expected, "{of} {access}");
        }
    }
    // 2. Verification and packing read each file whole.
    run_limited(&["verify", &many]);
    run_limited(&["verify", "--ledger", &text("all-mapped")]);
    run_limited(&["pack", "--store", &many, "--to", &text("packed")]);
    let packed = run::export(&at("packed"), &at("packed-out"), &["--system"]);
    assert_eq!(packed.code, 0, "{packed:#?}");
    // 3. Touched and grown files are read again.
    let more = "{\"resourceType\":\"Patient\",\"id\":\"new\"}\n";
    std::fs::write(at(&name(1400)), rows(1400) + more).unwrap();
    let grown = run_limited(&["index", "--store", &many]);
    assert!(grown.said().contains("4,501"), "{grown:#?}");
    // 4. A job of the service.
    let words = ["--store", "many", "--data", "data"];
    let server = Server::start_with(scratch.path(), &words, &mut |command| limit_open_files(command, OPEN_MAX));
    server.wait_until_ready();
    let client = server.client();
    let status = accepted(&client, &server.fhir("$export?_type=Observation"));
    let manifest = ended(&client, &status).json();
    let listed = files(&client, &manifest);
    assert_eq!(listed.len(), 1, "{manifest}");
    let rows: Vec<&str> = whole.lines().filter(|line| line.contains("Observation")).collect();
    assert!(client.get(&listed[0].1).text().lines().eq(rows));
    assert_eq!(server.stop(), Some(0));
}

/// A limit below the number of files is none for any command, however low it is.
#[test]
fn a_low_limit_is_enough_for_every_command() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_string();
    std::fs::create_dir(at("store")).unwrap();
    (0..60).for_each(|file| std::fs::write(format!("{}/{file}.ndjson", at("store")), rows(file)).unwrap());
    for words in [
        &["index", "--store", &at("store")][..],
        &["export", "--store", &at("store"), "--system", "--out", &at("out"), "--threads", "1"],
        &["verify", &at("store")],
        &["verify", "--ledger", &at("out")],
    ] {
        let mut command = run::command();
        command.args(words).args(["--progress", "never"]);
        limit_open_files(&mut command, 40);
        let done = run::finish(&mut command);
        assert_eq!(done.code, 0, "{done:#?}");
    }
    assert_eq!(run(&["verify", &at("out")]).code, 0);
}
