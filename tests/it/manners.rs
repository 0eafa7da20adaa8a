//! The manners of the command line: which stream has what, quiet and verbose, progress in logs, variables, times, signals,
//! help within 80 columns.

use crate::messages::{GROUP, PATIENT_A, write_store};
use crate::run::{Run, command, finish, run, scratch};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A store with a patient, a Group and nothing wrong.
fn clean_store(scratch: &Path) -> String {
    let store = scratch.join("store");
    write_store(
        &store,
        "a.ndjson",
        &[&PATIENT_A.replace('}', r#","meta":{"lastUpdated":"2024-01-01T00:00:00Z"}}"#), GROUP],
    );
    store.to_str().unwrap().to_string()
}

/// The document on standard output.
#[track_caller]
fn document(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:#?}"))
}

/// Every command and what stands below it.
const COMMANDS: [&[&str]; 31] = [
    &[],
    &["export"],
    &["index"],
    &["pack"],
    &["verify"],
    &["inspect"],
    &["serve"],
    &["synth"],
    &["import"],
    &["append"],
    &["apply"],
    &["plan"],
    &["run-task"],
    &["index-plan"],
    &["index-task"],
    &["index-commit"],
    &["commit"],
    &["spark"],
    &["jobs"],
    &["jobs", "list"],
    &["jobs", "show"],
    &["jobs", "remove"],
    &["group"],
    &["group", "check"],
    &["group", "import"],
    &["group", "list"],
    &["credential"],
    &["credential", "token"],
    &["credential", "secret"],
    &["credential", "keys"],
    &["credential", "ask"],
];

/// Short and long help of every command fit 80 columns, whatever is set; each names the flags of messages, and a wrong flag is
/// told with the prefix of errors, as a document where one is asked for.
#[test]
fn help_fits_eighty_columns() {
    for words in COMMANDS {
        for flag in ["-h", "--help"] {
            let long = "x".repeat(100);
            let help = finish(command().args(words).arg(flag).env("OUTPOUR_STORE", &long).env("OUTPOUR_DATA", &long));
            assert!(help.code == 0 && help.stderr.is_empty(), "{words:?}: {help:#?}");
            let wide: Vec<&str> = help.stdout.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{words:?} {flag}: {wide:#?}");
            assert!(help.stdout.contains("--quiet") && help.stdout.contains("--verbose"), "{words:?}");
        }
        let wrong = run(&[words, &["--no-such-flag", "--json"]].concat());
        // Schedulers tell these codes from others by sysexits.h.
        let is_of_tasks = matches!(words, ["run-task" | "commit" | "index-task" | "index-commit" | "spark"]);
        let code = if is_of_tasks { 64 } else { 2 };
        assert!(wrong.code == code && wrong.stderr.starts_with("outpour: error: "), "{words:?}: {wrong:#?}");
        let told = document(&wrong);
        assert_eq!((&told["status"], &told["exitCode"]), (&"failed".into(), &code.into()), "{told}");
        assert!(told["problems"][0].as_str().unwrap().contains("--no-such-flag"), "{told}");
    }
    let plain = run(&["export", "--no-such-flag"]);
    assert!(plain.code == 2 && plain.stdout.is_empty(), "{plain:#?}");
}

/// The summary is on standard output, and with `--json` on standard error; a night without trouble is silent when quiet, and
/// with trouble only the trouble is told.
#[test]
fn each_stream_has_its_own() {
    let scratch = scratch();
    let store = clean_store(scratch.path());
    let out = scratch.path().join("out").to_str().unwrap().to_string();
    let export = |more: &[&str]| {
        run(&[&["export", "--store", &store, "--out", &out, "--group", "g", "--force"][..], more].concat())
    };
    let done = export(&["--since", "2020-01-01"]);
    assert!(done.code == 0 && done.stderr.is_empty(), "{done:#?}");
    assert!(
        done.stdout.contains("manifest   ") && done.stdout.contains("  since      2020-01-01T00:00:00.000Z"),
        "{done:#?}"
    );
    let json = export(&["--json", "--until", "2050-01-01 00:00+0000"]);
    assert_eq!(document(&json)["until"], "2050-01-01T00:00:00.000Z");
    assert!(json.stderr.contains("manifest   ") && json.stderr.contains("until      2050-01-01"), "{json:#?}");
    let quiet = export(&["--quiet"]);
    assert_eq!((quiet.code, &*quiet.stdout, &*quiet.stderr), (0, "", ""));
    for words in [
        &["index", "--store", &store][..],
        &["verify", &out],
        &["verify", &store],
        &["group", "check", "--store", &store, &format!("{store}/a.ndjson")],
    ] {
        let quiet = run(&[&["-q"], words].concat());
        assert!(quiet.stdout.is_empty(), "{words:?}: {quiet:#?}");
    }
    let json = export(&["--quiet", "--json"]);
    assert!(document(&json)["exitCode"] == 0 && json.stderr.is_empty(), "{json:#?}");
    // Phases that end within a twentieth of a second are not seen, so there may be none.
    let verbose = export(&["--verbose"]);
    let is_phase = |line: &str| line.starts_with("outpour: ") && line.contains(" took ");
    assert!(verbose.code == 0 && verbose.stderr.lines().all(is_phase), "{verbose:#?}");
    // What needs an operator.
    write_store(
        Path::new(&store),
        "b.ndjson",
        &["{", r#"{"resourceType":"Patient","id":"b","meta":{"lastUpdated":"soon"}}"#],
    );
    let quiet = export(&["--quiet"]);
    assert!(quiet.code == 1 && quiet.stdout.is_empty(), "{quiet:#?}");
    assert!(
        quiet.stderr.lines().all(|line| line.starts_with("outpour: warning: ") || line.starts_with("outpour: error: ")),
        "{quiet:#?}"
    );
    assert!(quiet.stderr.contains("b.ndjson"), "{quiet:#?}");
    let refused = run(&["export", "--store", &store, "--out", &out, "--group", "nobody", "--quiet", "--json"]);
    assert!(refused.code == 2 && refused.stderr.starts_with("outpour: error: "), "{refused:#?}");
    assert!(document(&refused)["problems"][0].is_string());
}

/// The first five kinds of messages of each severity are told, and how many more there are; all when verbose.
#[test]
fn messages_are_told_by_severity() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let faulty = [
        "{",
        "[]",
        "1",
        r#"{"resourceType":"Nope","id":"a"}"#,
        r#"{"resourceType":"Patient"}"#,
        r#"{"id":"a"}"#,
        r#"{"resourceType":"Patient","id":"a b"}"#,
        "{}x",
    ];
    write_store(&store, "a.ndjson", &[&[PATIENT_A][..], &faulty].concat());
    let out = scratch.path().join("out");
    let with = |more: &[&str]| crate::run::export(&store, &out, &[&["--all-patients", "--force"], more].concat());
    let (short, long) = (with(&[]), with(&["--verbose"]));
    let errors = |run: &Run| run.stderr.lines().filter(|line| line.starts_with("outpour: error: ")).count();
    assert!(short.code == 1 && errors(&short) <= 6 && short.stderr.contains("--verbose shows all"), "{short:#?}");
    assert!(errors(&long) >= 7, "{long:#?}");
}

/// Variables stand for flags, and flags go before them; help names them.
#[test]
fn variables_stand_for_flags() {
    let scratch = scratch();
    let store = clean_store(scratch.path());
    let index = scratch.path().join("index");
    let set = |words: &[&str]| {
        let mut command = command();
        command.args(words).env("OUTPOUR_STORE", &store).env("OUTPOUR_INDEX_DIR", &index).env("OUTPOUR_THREADS", "1");
        command.env("OUTPOUR_PROGRESS", "never");
        finish(&mut command)
    };
    let done = set(&["index"]);
    assert!(done.code == 0 && index.is_dir() && !Path::new(&store).join(".outpour").exists(), "{done:#?}");
    let verified = set(&["verify", &store]);
    assert!(verified.code == 0 && !verified.said().contains("has no index"), "{verified:#?}");
    let out = scratch.path().join("out").to_str().unwrap().to_string();
    assert_eq!(set(&["export", "--out", &out, "--group", "g"]).code, 0);
    assert_eq!(set(&["verify", &out]).code, 0, "the variable does not make a store of an export");
    set(&["export", "--store", "/no/such/store", "--out", &out, "--system"]).refused(2, &["/no/such/store"]);
    let wrong = finish(command().args(["index", "--store", &store]).env("OUTPOUR_THREADS", "many"));
    assert!(wrong.code == 2 && wrong.stderr.contains("many"), "{wrong:#?}");
    let config =
        finish(command().args(["serve", "--print-config"]).env("OUTPOUR_STORE", &store).env("OUTPOUR_DATA", &out));
    assert!(config.code == 0 && config.stdout.contains(&store), "{config:#?}");
    let help = run(&["export", "--help"]).stdout;
    ["OUTPOUR_STORE", "OUTPOUR_INDEX_DIR", "OUTPOUR_THREADS", "OUTPOUR_PROGRESS"]
        .iter()
        .for_each(|name| assert!(help.contains(name)));
}

/// Times of the command line may be relative or short; every wrong one is told at once; the service takes none of them.
#[test]
fn times_of_the_command_line_are_generous() {
    let scratch = scratch();
    let store = clean_store(scratch.path());
    let plan =
        |more: &[&str]| run(&[&["export", "--store", &store, "--system", "--plan", "--json"][..], more].concat());
    for since in ["-24h", "-7d", "yesterday", "2026-01-29T00:00Z", "2026-01-29T00:00:00+0000", "2026-01-29"] {
        let done = plan(&["--since", since]);
        assert!(done.code == 0 && document(&done)["since"].as_str().unwrap().ends_with('Z'), "{since}: {done:#?}");
    }
    assert_eq!(document(&plan(&["--as-of", "2026-01-29"]))["transactionTime"], "2026-01-29T00:00:00.000Z");
    let wrong = plan(&["--since", "2026-01-29T00:00", "--until", "soon", "--as-of", "-3y", "--max-file-bytes", "1X"]);
    wrong.refused(
        2,
        &["--since: \"2026-01-29T00:00\" has no offset", "--until: \"soon\"", "--as-of: \"-3y\"", "--max-file-bytes"],
    );
}

/// Progress in a log has no control characters, and says the phase.
#[test]
fn plain_progress_is_lines() {
    let scratch = scratch();
    let out = scratch.path().join("synth").to_str().unwrap().to_string();
    let done = run(&["synth", "--out", &out, "--patients", "60", "--progress", "plain", "--no-sync"]);
    assert!(done.code == 0 && !done.stderr.chars().any(|c| c.is_control() && c != '\n'), "{done:#?}");
    assert!(done.stderr.lines().any(|line| line.starts_with("outpour: writing ") && line.contains(" % ")), "{done:#?}");
}

/// The Groups of a store, as a table and as a document; a deleted one and an older version are not among them.
#[test]
fn groups_are_listed() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let group = |id: &str, more: &str| {
        format!(
            r#"{{"resourceType":"Group","id":"{id}","type":"person","actual":true{more},"member":[{{"entity":{{"reference":"Patient/a"}}}}]}}"#
        )
    };
    let dated = |day: u32| format!(r#","meta":{{"lastUpdated":"2024-01-0{day}T00:00:00Z"}}"#);
    let named = r#","active":false,"name":"Ward\u0007 7""#.to_string();
    let deletion = r#"{"resourceType":"Bundle","type":"batch","meta":{"lastUpdated":"2024-01-05T00:00:00Z"},"entry":[{"request":{"method":"DELETE","url":"Group/gone"}}]}"#;
    let lines = [
        group("ward", &dated(1)),
        group("ward", &(dated(2) + &named)),
        group("gone", &dated(1)),
        deletion.to_string(),
        group("b", ""),
    ];
    write_store(&store, "groups.ndjson", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let list = |more: &[&str]| run(&[&["group", "list", "--store", store.to_str().unwrap()][..], more].concat());
    let found = document(&list(&["--json"]));
    let groups = found["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["id"].as_str().unwrap()).collect::<Vec<_>>(), ["b", "ward"], "{found}");
    assert_eq!(groups[1]["lastUpdated"], "2024-01-02T00:00:00.000Z");
    assert_eq!(
        (&groups[1]["active"], &groups[1]["members"], &groups[1]["file"]),
        (&false.into(), &1.into(), &"groups.ndjson".into())
    );
    let table = list(&["-q"]);
    assert!(table.code == 0 && table.stderr.is_empty() && table.stdout.contains("Ward  7"), "{table:#?}");
    assert!(!store.join(".outpour").exists(), "nothing is written");
    std::fs::remove_file(store.join("groups.ndjson")).unwrap();
    write_store(&store, "a.ndjson", &[PATIENT_A]);
    assert!(list(&[]).stdout.contains("holds no Group"));
}

/// A run over a store that takes a while, in the background.
fn long_run(store: &Path, out: &Path) -> Child {
    let mut command = command();
    command.args(["export", "--system", "--threads", "1", "--no-sync", "--compress", "zstd"]);
    command.arg("--store").arg(store).arg("--out").arg(out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A closed terminal ends an export as Ctrl-C does, resumable; one that nohup(1) started goes on.
#[test]
fn a_hangup_ends_an_export() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    let made =
        run(&["synth", "--out", store.to_str().unwrap(), "--patients", "400", "--no-sync", "--progress", "never"]);
    assert_eq!(made.code, 0, "{made:#?}");
    let wait_for = |path: &Path| {
        let begun = Instant::now();
        while !path.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", path.display());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let hang_up = |child: &Child| {
        let sent = std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    let out = scratch.path().join("out");
    let mut child = long_run(&store, &out);
    wait_for(&out.join(".outpour-job/plan.json"));
    hang_up(&child);
    let code = child.wait().unwrap().code();
    // A machine of another speed may be done before.
    assert!(code == Some(130) || code == Some(0) && out.join("manifest.json").exists(), "{code:?}");
    let done = crate::run::export(&store, &out, &["--system", "--compress", "zstd", "--resume"]);
    assert_eq!(done.code, 0, "{done:#?}");
    let ignored = scratch.path().join("ignored");
    let shell = format!(
        "trap '' HUP; exec {} export --system --threads 1 --no-sync --store {} --out {}",
        env!("CARGO_BIN_EXE_outpour"),
        store.display(),
        ignored.display()
    );
    let mut child = std::process::Command::new("sh").args(["-c", &shell]).stdout(Stdio::null()).spawn().unwrap();
    wait_for(&ignored.join(".outpour-job/plan.json"));
    hang_up(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The status document in a directory, once it says what is asked for.
fn status_when(directory: &Path, holds: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let read = std::fs::read(directory.join("status.json")).ok();
        let status = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(status) = status.filter(|status| holds(status)) {
            return status;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", directory.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `status.json` is there while the store is indexed, says the process, the phase and how far it is, and names why a run failed.
/// A run that ended before its plan stood is no obstacle to the next; one that was refused leaves nothing.
#[test]
fn the_status_is_there_from_the_first_moment() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let made = run(&[
        "synth",
        "--out",
        at("store").to_str().unwrap(),
        "--patients",
        "300",
        "--no-sync",
        "--progress",
        "never",
    ]);
    assert_eq!(made.code, 0, "{made:#?}");
    let out = at("out");
    let mut child = long_run(&at("store"), &out);
    let early = status_when(&out, |status| status["phase"] == "indexing");
    assert_eq!((&early["status"], &early["pid"]), (&"In Progress".into(), &child.id().into()), "{early}");
    assert!(
        early.get("id").is_none() && early["heartbeat"].is_string() && !out.join("manifest.json").exists(),
        "{early}"
    );
    let verified = run(&["verify", out.to_str().unwrap()]);
    assert!(verified.code == 1 && verified.stdout.contains("indexing"), "{verified:#?}");
    let shown = run(&["inspect", out.to_str().unwrap()]);
    assert!(shown.stdout.contains("heartbeat"), "{shown:#?}");
    // Killed while it indexes: the next run takes the directory without --force.
    child.kill().unwrap();
    child.wait().unwrap();
    let failed =
        crate::run::export(&at("store"), &out, &["--system", "--faults-allowed", "0", "--since", "2024-12-27"]);
    assert_eq!(failed.code, 0, "{failed:#?}");
    let done = status_when(&out, |_| true);
    assert!(done["status"] == "Successful" && done.get("phase").is_none() && done["id"].is_string(), "{done}");
    // A request that is refused, a run that fails: beside the finished export, which stays as it is.
    let before = crate::run::snapshot(&out);
    for more in [&["--force"][..], &[], &["--resume"]] {
        let refused = crate::run::export(&at("store"), &out, &[&["--group", "nobody"], more].concat());
        assert_eq!(refused.code, 2, "{refused:#?}");
        assert!(crate::run::snapshot(&out) == before && !out.join(".outpour-job/next").exists(), "{more:?}");
    }
    write_store(&at("store"), "faulty.ndjson", &["{"]);
    let failed = crate::run::export(&at("store"), &out, &["--system", "--faults-allowed", "0", "--force"]);
    assert_eq!(failed.code, 3, "{failed:#?}");
    assert!(crate::run::snapshot(&out) == before);
    let told = status_when(&out.join(".outpour-job/next"), |_| true);
    assert!(told["status"] == "Failed" && told["reason"].as_str().unwrap().starts_with("1 of "), "{told}");
    assert_eq!(run(&["verify", out.to_str().unwrap()]).code, 0);
    // The same in a new directory, and the next run into it.
    let fresh = at("fresh");
    let failed = crate::run::export(&at("store"), &fresh, &["--system", "--faults-allowed", "0"]);
    assert!(failed.code == 3 && status_when(&fresh, |_| true)["status"] == "Failed", "{failed:#?}");
    assert!(run(&["inspect", fresh.to_str().unwrap()]).stdout.contains("Failed"));
    let verified = run(&["verify", fresh.to_str().unwrap()]);
    assert!(verified.code == 1 && verified.stdout.contains("run the same command again"), "{verified:#?}");
    let refused = crate::run::export(&at("store"), &at("none"), &["--group", "nobody"]);
    assert!(refused.code == 2 && !at("none").exists(), "{refused:#?}");
    assert_eq!(crate::run::export(&at("store"), &fresh, &["--system", "--since", "2024-12-27"]).code, 1);
    // A status of somebody else is foreign.
    std::fs::create_dir(at("foreign")).unwrap();
    std::fs::write(at("foreign/status.json"), "{}").unwrap();
    for more in [&[][..], &["--force"]] {
        crate::run::export(&at("store"), &at("foreign"), &[&["--system"], more].concat()).refused(2, &["status.json"]);
        assert_eq!(std::fs::read(at("foreign/status.json")).unwrap(), b"{}");
    }
}

/// Published files and directories have the modes that were asked for, those of a resumed run too, and the record has none of
/// them; without, they are the owner's alone. Every wrong mode is named.
#[test]
fn modes_are_those_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let store = Path::new(&clean_store(scratch.path())).to_path_buf();
    write_store(&store, "b.ndjson", &["{"]);
    let out = scratch.path().join("out");
    let mode = |name: &str| std::fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o7777;
    let modes = ["--mode", "0640", "--dir-mode", "750"];
    let files = ["manifest.json", "status.json", "Patient.00001.ndjson", "error/OperationOutcome.00001.ndjson"];
    let export = |more: &[&str]| crate::run::export(&store, &out, &[&["--system"], more].concat()).code;
    assert_eq!(export(&[]), 1);
    assert!(files.iter().all(|name| mode(name) == 0o600) && mode("") == 0o700 && mode("error") == 0o700);
    assert_eq!(export(&[&modes[..], &["--force"]].concat()), 1);
    let has_modes = || {
        files.iter().for_each(|name| assert_eq!(mode(name), 0o640, "{name}"));
        ["", "error"].iter().for_each(|name| assert_eq!(mode(name), 0o750, "{name}"));
        [".outpour-job/plan.json", ".outpour-job/receipts.jsonlog"]
            .iter()
            .for_each(|name| assert_eq!(mode(name), 0o600));
        assert_eq!(mode(".outpour-job"), 0o700);
    };
    has_modes();
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    for name in ["Patient.00001.ndjson", "status.json"] {
        std::fs::set_permissions(out.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    assert_eq!(export(&[&modes[..], &["--resume"]].concat()), 1);
    has_modes();
    let wrong = crate::run::export(&store, &out, &["--system", "--force", "--mode", "0o640", "--dir-mode", "0650"]);
    wrong.refused(2, &["--mode: \"0o640\"", "--dir-mode: \"0650\""]);
}

/// Rows that no export of today has because of their dates are told, also quietly; not where the time was asked for.
#[test]
fn rows_of_the_future_are_told() {
    let scratch = scratch();
    let store = Path::new(&clean_store(scratch.path())).to_path_buf();
    let row = r#"{"resourceType":"Patient","id":"f","meta":{"lastUpdated":"2999-01-01T00:00:00Z"}}"#;
    write_store(&store, "b.ndjson", &[row]);
    let out = scratch.path().join("out");
    let export =
        |more: &[&str]| crate::run::export(&store, &out, &[&["--system", "--force", "--quiet"], more].concat());
    let run = export(&[]);
    assert!(run.code == 0 && run.stderr.starts_with("outpour: warning: 1 row is dated after "), "{run:#?}");
    let run = export(&["--as-of", "2024-06-01"]);
    assert!(run.code == 0 && run.stderr.is_empty(), "{run:#?}");
}
