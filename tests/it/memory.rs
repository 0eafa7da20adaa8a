//! Memory of an export: anonymous and shared memory stays below 200 MiB, and the run succeeds under a limit of 256 MiB
//! of data; on a store of many patients, with a very long line, for a Group of every patient. Small sizes by default;
//! `OUTPOUR_TEST_FULL=1`: 2 GB, a line of 200 MB and one of 3 GB, a million members.

use crate::random::knob;
use crate::run::{command, scratch};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::Stdio;

const LIMIT_DATA: u64 = 256 << 20;
const LIMIT_USED: u64 = 200 << 20;

struct Sizes {
    members: usize,
    observation_bytes: usize,
    lines: &'static [u64],
}

fn store(dir: &Path, sizes: &Sizes) {
    std::fs::create_dir_all(dir).unwrap();
    let open = |name: &str| BufWriter::with_capacity(1 << 20, std::fs::File::create(dir.join(name)).unwrap());
    let (mut patients, mut observations, mut group) =
        (open("Patient.ndjson"), open("Observation.ndjson"), open("Group.ndjson"));
    let filler = "x".repeat(sizes.observation_bytes);
    let id = |number: usize| format!("{:08x}-5b1d-4c53-9d50-{:012x}", number.wrapping_mul(0x9e37_79b9) as u32, number);
    write!(group, r#"{{"resourceType":"Group","id":"every","type":"person","actual":true,"member":["#).unwrap();
    for number in 0..sizes.members {
        let (id, comma) = (id(number), if number == 0 { "" } else { "," });
        let meta = r#""meta":{"versionId":"1","lastUpdated":"2020-01-01T00:00:00Z"}"#;
        writeln!(patients, r#"{{"resourceType":"Patient","id":"{id}",{meta}}}"#).unwrap();
        writeln!(
            observations,
            r#"{{"resourceType":"Observation","id":"o-{number}",{meta},"subject":{{"reference":"Patient/{id}"}},"text":{{"div":"{filler}"}}}}"#
        )
        .unwrap();
        write!(group, r#"{comma}{{"entity":{{"reference":"Patient/{id}"}}}}"#).unwrap();
    }
    writeln!(group, "]}}").unwrap();
    for (number, length) in sizes.lines.iter().enumerate() {
        let mut long = open(&format!("DocumentReference.{number}.ndjson"));
        write!(
            long,
            r#"{{"resourceType":"DocumentReference","id":"long-{number}","content":[{{"attachment":{{"data":""#
        )
        .unwrap();
        let piece = vec![b'A'; 1 << 20];
        for _ in 0..length >> 20 {
            long.write_all(&piece).unwrap();
        }
        writeln!(long, r#""}}}}],"subject":{{"reference":"Patient/{}"}}}}"#, id(0)).unwrap();
    }
}

/// Runs the binary under the limit and samples its memory. Exit code, standard error, peak in bytes.
pub(crate) fn measured(args: &[&str]) -> (i32, String, u64) {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    let mut command = command();
    command.args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    let limit = libc::rlimit { rlim_cur: LIMIT_DATA, rlim_max: LIMIT_DATA };
    // SAFETY: setrlimit is async-signal-safe and touches only this process's own limits.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_DATA, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let kibibytes = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("x 0");
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        peak = peak.max((kibibytes("RssAnon:") + kibibytes("RssShmem:")) << 10);
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (status.code().unwrap_or_else(|| -status.signal().unwrap()), stderr, peak)
}

#[test]
fn memory_stays_bounded() {
    let full = knob("OUTPOUR_TEST_FULL", 0) == 1;
    let sizes = match full {
        true => Sizes { members: 1_000_000, observation_bytes: 1700, lines: &[200 << 20, 3 << 30] },
        false => Sizes { members: 200_000, observation_bytes: 600, lines: &[100 << 20] },
    };
    let scratch = scratch();
    let dir = scratch.path().join("store");
    store(&dir, &sizes);
    let dir = dir.to_str().unwrap();
    for (number, compression) in ["none", "gzip", "zstd"].into_iter().enumerate() {
        let out = scratch.path().join(format!("out-{number}"));
        let mut args = vec!["export", "--store", dir, "--out", out.to_str().unwrap(), "--group", "every", "--no-sync"];
        args.extend(["--as-of", crate::golden::AS_OF, "--compress", compression, "--progress", "never"]);
        let (code, stderr, peak) = measured(&args);
        println!("{compression}: peak {} MiB", peak >> 20);
        assert_eq!(code, 0, "{compression}: {stderr}");
        assert!(peak < LIMIT_USED, "{compression}: {} MiB in use", peak >> 20);
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
        let count = |name: &str| -> u64 {
            let items = manifest["output"].as_array().unwrap().iter();
            items.filter(|item| item["type"] == name).map(|item| item["count"].as_u64().unwrap()).sum()
        };
        assert_eq!(count("Patient"), sizes.members as u64);
        assert_eq!(count("Observation"), sizes.members as u64);
        assert_eq!(count("DocumentReference"), sizes.lines.len() as u64);
        std::fs::remove_dir_all(&out).unwrap();
    }
}
