//! Walks with links: every kind of link, and random graphs of them against an obvious enumeration.

use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

fn follow(root: &Path) -> Walk {
    follow_by(root, "")
}

/// A walk with links and these patterns.
fn follow_by(root: &Path, patterns: &str) -> Walk {
    if !patterns.is_empty() {
        fs::write(root.join(".outpourignore"), patterns).unwrap();
    }
    let ignore = IgnoreFile::read(root, Links::Follow).unwrap();
    walk_by(root, WalkRules { links: Links::Follow, ignore }, &root.join(".outpour")).unwrap()
}

fn names(walk: &Walk) -> Vec<&str> {
    walk.files.iter().map(|found| found.name.as_str()).collect()
}

/// A directory with files at these paths.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    dir
}

#[test]
fn links_are_followed_on_request_only() {
    let dir = tree(&["store/a.ndjson", "other/b.ndjson", "other/sub/c.ndjson", "other/note.txt"]);
    let root = dir.path().join("store");
    symlink("../other/b.ndjson", root.join("file.ndjson")).unwrap();
    symlink("../other/b.ndjson", root.join("file.txt")).unwrap();
    symlink("../other/note.txt", root.join("note.ndjson.gz")).unwrap();
    symlink("../other", root.join("link")).unwrap();
    symlink("../other", root.join(".hidden")).unwrap();
    symlink("nowhere", root.join("broken.ndjson")).unwrap();
    symlink("circle.ndjson", root.join("circle.ndjson")).unwrap();
    symlink(".", root.join("self")).unwrap();
    let plain = walk(&root).unwrap();
    assert_eq!(names(&plain), ["a.ndjson"]);
    assert_eq!((plain.ignored.len(), plain.ignored_links), (7, 7));
    let linked = follow(&root);
    // The file behind two links has the lesser path; the name of the link decides what a file is.
    assert_eq!(names(&linked), ["a.ndjson", "file.ndjson", "link/sub/c.ndjson", "note.ndjson.gz"]);
    assert_eq!(linked.ignored, ["broken.ndjson", "circle.ndjson", "file.txt", "link/note.txt"]);
    assert_eq!(linked.ignored_links, 3);
    assert_eq!(linked.linked, [dir.path().canonicalize().unwrap().join("other")]);
    let stamp = FileStamp::of_metadata(&fs::metadata(dir.path().join("other/b.ndjson")).unwrap());
    assert_eq!(linked.files[1].stamp, stamp);
}

/// Volumes of Kubernetes: every name is a link into a directory that is replaced as a whole.
#[test]
fn volumes_of_kubernetes_are_read() {
    let dir = tree(&["..2026_01/Patient.ndjson"]);
    symlink("..2026_01", dir.path().join("..data")).unwrap();
    symlink("..data/Patient.ndjson", dir.path().join("Patient.ndjson")).unwrap();
    assert_eq!(names(&follow(dir.path())), ["Patient.ndjson"]);
}

/// Hard links are one file when links are followed, and two when they are not.
#[test]
fn hard_links_are_one_file() {
    let dir = tree(&["b.ndjson"]);
    fs::hard_link(dir.path().join("b.ndjson"), dir.path().join("a.ndjson")).unwrap();
    assert_eq!(names(&walk(dir.path()).unwrap()), ["a.ndjson", "b.ndjson"]);
    assert_eq!(names(&follow(dir.path())), ["a.ndjson"]);
}

/// A link into an export obeys its manifest, wherever it leads; one into what is not finished, or into the index, reads
/// nothing.
#[test]
fn links_into_our_own_directories() {
    let dir = tree(&[
        "out/Patient.00001.ndjson",
        "out/stray.ndjson",
        "out/deleted/Bundle.00001.ndjson",
        "out/deleted/stray.ndjson",
        "out/error/OperationOutcome.00001.ndjson",
        "unfinished/Patient.00001.ndjson",
        "unfinished/.outpour-job/plan.json",
        "above/unfinished/Patient.00001.ndjson",
        "above/unfinished/.outpour-job/plan.json",
        ".pack.outpour-partial/Patient.ndjson.zst",
        "store/.outpour/extents.ndjson",
        "store/x.ndjson",
    ]);
    let manifest = r#"{"output":[{"url":"Patient.00001.ndjson"}],"deleted":[{"url":"deleted/Bundle.00001.ndjson"}],
        "error":[{"url":"error/OperationOutcome.00001.ndjson"}],"extension":{"urn:outpour:export:1":{}}}"#;
    fs::write(dir.path().join("out/manifest.json"), manifest).unwrap();
    let root = dir.path().join("store");
    let read_by = |target: &str| {
        let link = root.join("link.ndjson");
        symlink(format!("../{target}"), &link).unwrap();
        let found = names(&follow(&root)).into_iter().map(str::to_string).collect::<Vec<_>>();
        fs::remove_file(link).unwrap();
        found.into_iter().filter(|name| name != "x.ndjson").collect::<Vec<String>>()
    };
    for (target, expected) in [
        ("out", &["link.ndjson/Patient.00001.ndjson", "link.ndjson/deleted/Bundle.00001.ndjson"][..]),
        ("out/deleted", &["link.ndjson/Bundle.00001.ndjson"]),
        ("out/error", &[]),
        ("out/Patient.00001.ndjson", &["link.ndjson"]),
        ("out/stray.ndjson", &[]),
        ("out/deleted/Bundle.00001.ndjson", &["link.ndjson"]),
        ("out/deleted/stray.ndjson", &[]),
        ("out/error/OperationOutcome.00001.ndjson", &[]),
        ("unfinished", &[]),
        ("unfinished/Patient.00001.ndjson", &[]),
        ("unfinished/.outpour-job", &[]),
        ("above", &[]),
        (".pack.outpour-partial", &[]),
        (".pack.outpour-partial/Patient.ndjson.zst", &[]),
        ("store/.outpour", &[]),
        ("store/.outpour/extents.ndjson", &[]),
    ] {
        assert_eq!(read_by(target), expected, "{target}");
    }
}

/// Names that are passed over are counted, not descended into, and need not be readable.
#[test]
fn names_are_passed_over() {
    let dir = tree(&["a.ndjson", "old/b.ndjson", "old/deep/c.ndjson", "keep/old.ndjson", "note.txt", ".b.ndjson"]);
    symlink("nowhere", dir.path().join("broken.ndjson")).unwrap();
    symlink("keep", dir.path().join("x-old")).unwrap();
    let found = follow_by(dir.path(), "old/\n*.txt\nbroken.ndjson\nx-old/\n!.b.ndjson\n");
    assert_eq!(names(&found), ["a.ndjson", "keep/old.ndjson"]);
    assert_eq!((found.excluded, found.ignored.len()), (4, 0));
}

/// A name that is no UTF-8 is read like any other, and so is a directory.
#[test]
fn names_that_are_no_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&place).unwrap();
    fs::write(place.join(OsStr::from_bytes(b"\xff.ndjson")), "").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b".\xff.ndjson")), "").unwrap();
    fs::write(dir.path().join(OsStr::from_bytes(b"\xff.txt")), "").unwrap();
    let found = walk(dir.path()).unwrap();
    assert_eq!((names(&found), &found.ignored[..]), (vec![r"caf\xe9/\xff.ndjson"], &[r"\xff.txt".to_string()][..]));
    assert!(found.files.iter().all(|file| is_store_name(&file.name)));
}

/// A chain of directories, each with two links to the next, has as many paths as 2 to its length: each is visited once.
#[test]
fn many_paths_take_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..24 {
        let own = dir.path().join(format!("d{i}"));
        fs::create_dir(&own).unwrap();
        fs::write(own.join("f.ndjson"), "").unwrap();
        for link in ["l", "m"] {
            symlink(format!("../d{}", i + 1), own.join(link)).unwrap();
        }
    }
    let found = follow(dir.path());
    assert_eq!(found.files.len(), 24);
}

/// The least path of every file, over all paths in which no directory lies in itself.
fn obvious_paths(root: &Path) -> Vec<String> {
    fn visit(directory: &Path, prefix: &str, above: &[(u64, u64)], least: &mut BTreeMap<(u64, u64), String>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let Ok(found) = fs::metadata(entry.path()) else { continue };
            let own = (found.dev(), found.ino());
            if found.is_dir() && !above.contains(&own) {
                visit(&entry.path(), &format!("{name}/"), &[above, &[own]].concat(), least);
            } else if found.is_file() && name.ends_with(".ndjson") {
                let known = least.entry(own).or_insert_with(|| name.clone());
                *known = name.min(known.clone());
            }
        }
    }
    let found = fs::metadata(root).unwrap();
    let mut least = BTreeMap::new();
    visit(root, "", &[(found.dev(), found.ino())], &mut least);
    let mut names: Vec<String> = least.into_values().collect();
    names.sort();
    names
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Directories, files, links and hard links at random places, within the store and beside it.
    #[test]
    fn a_walk_finds_what_an_obvious_enumeration_does(
        directories in proptest::collection::vec((0usize..6, "[a-c!]{1,2}"), 1..6),
        entries in proptest::collection::vec((0usize..7, "[a-c!]{1,2}", 0usize..12, 0u8..4), 0..14),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        fs::create_dir(&root).unwrap();
        // The last of them lies beside the store.
        let mut places = vec![root.clone()];
        for (parent, name) in directories {
            let place = places[parent % places.len()].join(name);
            if fs::create_dir(&place).is_ok() {
                places.push(place);
            }
        }
        places.push(dir.path().join("beside"));
        fs::create_dir(places.last().unwrap()).unwrap();
        let mut files: Vec<PathBuf> = Vec::new();
        for (place, name, target, kind) in entries {
            let place = places[place % places.len()].join(&name);
            let file = place.with_extension("ndjson");
            let of_files = (!files.is_empty()).then(|| files[target % files.len()].clone());
            // A name that is taken stays what it is.
            match (kind, of_files) {
                (0, _) | (_, None) if !file.exists() => {
                    fs::write(&file, "").unwrap();
                    files.push(file);
                }
                (1, Some(target)) => drop(symlink(target, file)),
                (2, Some(target)) => drop(fs::hard_link(target, file)),
                _ => drop(symlink(&places[target % places.len()], place)),
            }
        }
        let found = follow(&root);
        prop_assert_eq!(names(&found), obvious_paths(&root));
    }
}
