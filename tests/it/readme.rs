//! Every command in the `sh` blocks of README.md, and of the page on tasks, runs, in a copy of the bundled data. `cargo run --release --` is
//! replaced by the built binary, and `cargo test` lines are left out. A block that starts a service keeps running in
//! the background, on a free port, for the blocks after it.

use crate::http::server::Server;
use crate::run::{scratch, testdata};
use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        match entry.file_type().unwrap().is_dir() {
            true if name != ".outpour" => copy(&entry.path(), &to.join(name)),
            true => {}
            false => drop(std::fs::copy(entry.path(), to.join(name)).unwrap()),
        }
    }
}

/// The scripts of the `sh` blocks, in order.
fn blocks(readme: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in readme.lines() {
        match &mut open {
            None if line.trim_end() == "```sh" => open = Some(String::new()),
            None => {}
            Some(_) if line.starts_with("```") => blocks.extend(open.take()),
            Some(script) if line.trim_start().starts_with("cargo test") => *script += "true\n",
            Some(script) => *script += &format!("{line}\n"),
        }
    }
    blocks
}

#[test]
fn every_command_of_the_readme_runs() {
    let Ok(readme) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")) else {
        println!("skipped: there is no README.md");
        return;
    };
    let scratch = scratch();
    copy(&testdata("stores"), &scratch.path().join("testdata/stores"));
    copy(&testdata("groups"), &scratch.path().join("testdata/groups"));
    let binary = env!("CARGO_BIN_EXE_outpour");
    let path = format!("{}:{}", Path::new(binary).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let blocks = blocks(&readme);
    assert!(!blocks.is_empty(), "README.md shows no command");
    let mut server: Option<Server> = None;
    for block in blocks {
        if block.contains(" -- serve ") {
            let words = block.split(" -- serve ").nth(1).unwrap().split_whitespace();
            server = Some(Server::start(scratch.path(), &words.collect::<Vec<_>>()));
            continue;
        }
        let block = match &server {
            Some(server) => block.replace("127.0.0.1:8080", &server.address.to_string()),
            None => block,
        };
        let script = [
            "cargo run --release --quiet --",
            "cargo run --quiet --release --",
            "cargo run -r --",
            "cargo run --release --",
        ]
        .iter()
        .fold(block.clone(), |script, words| script.replace(words, binary));
        let output = Command::new("sh")
            .args(["-euc", &script])
            .current_dir(scratch.path())
            .env("PATH", &path)
            .env("HOME", scratch.path())
            .output()
            .unwrap();
        let reported = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{reported}{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The commands of the page on exports in tasks, but for those of schedulers that are not here.
#[test]
fn every_command_of_the_page_on_tasks_runs() {
    let page = include_str!("../../src/docs/scale.md");
    let scratch = scratch();
    copy(&testdata("stores/synthea-r4-100"), &scratch.path().join("testdata/stores/synthea-r4-100"));
    let binary = Path::new(env!("CARGO_BIN_EXE_outpour"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let is_run = |block: &String| ["sbatch", "spark"].iter().all(|word| !block.contains(word));
    let blocks: Vec<String> = blocks(page).into_iter().filter(is_run).collect();
    assert!(blocks.len() >= 2, "{blocks:?}");
    for block in blocks {
        let script = block.replace("/tmp/", &format!("{}/", scratch.path().display()));
        let output = Command::new("sh").args(["-euc", &script]).current_dir(scratch.path()).env("PATH", &path).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{said}{}", String::from_utf8_lossy(&output.stdout));
    }
    for made in ["outpour-job/manifest.json", "outpour-index-job/committed.json"] {
        assert!(scratch.path().join(made).is_file(), "{made}");
    }
}
