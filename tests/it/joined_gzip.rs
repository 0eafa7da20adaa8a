//! Stores packed in gzip: what is exported from them in gzip is joined from segments, and is one member that every reader
//! takes whole; files of other tools that look packed, and tables that lie, are not believed.

use crate::comparison::Comparison;
use crate::fixture::plain_store;
use crate::naive;
use crate::pack::{CODINGS, everything};
use crate::run::{self, Export, scratch};
use crate::store_forms;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The rows of a compressed file, of one gzip member or several.
pub(crate) fn decode_members(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if path.extension().is_none_or(|end| end != "gz") {
        return run::decode(path.to_str().unwrap(), &bytes);
    }
    let mut rows = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut rows).unwrap();
    rows
}

/// Bytes of the extra field's only part of each member behind the first, and the end of the first member.
fn parts(bytes: &[u8]) -> (usize, Vec<&[u8]>) {
    let mut rest = bytes;
    std::io::copy(&mut flate2::bufread::GzDecoder::new(&mut rest), &mut std::io::sink()).unwrap();
    let end = bytes.len() - rest.len();
    let mut parts = Vec::new();
    while !rest.is_empty() {
        // RFC 1952: ten bytes, the length of the extra field, then one subfield: two letters, its length, its content.
        assert_eq!((&rest[..4], &rest[12..14]), (&[0x1f, 0x8b, 8, 4][..], &b"OP"[..]));
        let len = usize::from(u16::from_le_bytes([rest[14], rest[15]]));
        assert_eq!(usize::from(u16::from_le_bytes([rest[10], rest[11]])), len + 4);
        parts.push(&rest[16..16 + len]);
        // An empty block, and the checksum and the length of nothing.
        assert_eq!(rest[16 + len..26 + len], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rest = &rest[26 + len..];
    }
    (end, parts)
}

/// Offset and length of each segment of a gzip-packed file, as format.md has its table.
pub(crate) fn segments(bytes: &[u8]) -> Vec<(u64, u64)> {
    let (end, parts) = parts(bytes);
    let table = parts.concat();
    let word = |at: usize| u64::from_le_bytes(table[at..at + 8].try_into().unwrap());
    let trailer = table.len() - 112;
    assert_eq!(&table[table.len() - 8..], b"OUTPGZI\x01");
    let count = word(trailer + 8) as usize;
    let places: Vec<u64> = (0..=count).map(|i| word(16 * i)).collect();
    assert_eq!((places[0], places[count]), (24, end as u64 - 10), "segments fill the member");
    places.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect()
}

/// Writes a table that its own checksum confirms, with one part of a gzip-packed file's table changed.
fn forge(bytes: &[u8], change: &dyn Fn(&mut [u8], usize)) -> Vec<u8> {
    let (end, parts) = parts(bytes);
    let mut table = parts.concat();
    let trailer = table.len() - 112;
    let count = u64::from_le_bytes(table[trailer + 8..trailer + 16].try_into().unwrap()) as usize;
    change(&mut table, count);
    let sum = xxhash_rust::xxh3::xxh3_64(&table[..table.len() - 16]);
    let at = table.len() - 16;
    table[at..at + 8].copy_from_slice(&sum.to_le_bytes());
    let mut out = bytes[..end].to_vec();
    let (first, last) = table.split_at(trailer);
    for part in first.chunks(65_531).chain([last]) {
        out.extend_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
        out.extend_from_slice(&(part.len() as u16 + 4).to_le_bytes());
        out.extend_from_slice(b"OP");
        out.extend_from_slice(&(part.len() as u16).to_le_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    out
}

/// Some types of the bundled store, packed in gzip.
fn small_store(scratch: &Path) -> PathBuf {
    let (source, packed) = (scratch.join("source"), scratch.join("packed"));
    plain_store(&source, &["Patient", "Claim", "Group"], 1);
    store_forms::packed_in("gzip", &source, &packed, crate::golden::AS_OF);
    packed
}

/// Replaces a file by rename, as a copy would.
fn replace(file: &Path, bytes: &[u8]) {
    let new = file.with_file_name(".new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// The same rows in the same order, whatever the form of the store and the compression of the output: a packed store in
/// both codings, each beside newer files of the other forms. Groups take parts of segments.
#[test]
fn every_form_gives_the_same_rows() {
    let scratch = scratch();
    let source = scratch.path().join("source");
    plain_store(&source, &["Patient", "Immunization", "CareTeam", "Group"], 1);
    let stores = CODINGS.map(|coding| {
        let store = scratch.path().join(coding);
        store_forms::packed_in(coding, &source, &store, crate::golden::AS_OF);
        store
    });
    for (store, other) in [(&stores[0], &stores[1]), (&stores[1], &stores[0])] {
        // Rows of the other form beside it, as later versions of nobody.
        let name = std::fs::read_dir(other)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .find(|name| name.to_str().unwrap().starts_with("Immunization."));
        let name = name.unwrap();
        std::fs::copy(other.join(&name), store.join(format!("zz-{}", name.to_str().unwrap()))).unwrap();
    }
    let mut found = BTreeMap::new();
    for (store, coding) in stores.iter().zip(CODINGS) {
        for compression in ["none", "zstd", "gzip"] {
            for (who, words) in [("all", &["--all-patients"][..]), ("ten", &["--group", "ten"])] {
                let out = scratch.path().join(format!("out-{coding}-{compression}-{who}"));
                let bounds = ["--max-file-bytes", "300kB", "--compress", compression, "--as-of", crate::golden::AS_OF];
                let done = run::export(store, &out, &[words, &bounds[..]].concat());
                assert_eq!(done.code, 0, "{done:#?}");
                if compression == "gzip" {
                    let verified = run::run(&["verify", out.to_str().unwrap(), "--ledger"]);
                    assert_eq!(verified.code, 0, "{verified:#?}");
                }
                let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(&out)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .filter(|path| path.to_str().unwrap().contains(".ndjson"))
                    .map(|path| {
                        // `run::decode` refuses a second member.
                        let rows = run::decode(path.to_str().unwrap(), &std::fs::read(&path).unwrap());
                        let name = path.file_name().unwrap().to_str().unwrap();
                        (name.split(".ndjson").next().unwrap().to_string(), rows)
                    })
                    .collect();
                assert!(files.len() >= 3, "{:?}", files.keys());
                // Both packs order rows alike, so that files are the same.
                let first = found.entry(who).or_insert_with(|| files.clone());
                assert!(*first == files, "{coding} {compression} {who}");
            }
        }
    }
}

/// What other programs make of a joined file, and of a packed one: `gzip`, Python's `gzip` and `zlib`, Node's `zlib`, Java's
/// `GZIPInputStream` and Go's `compress/gzip`, each where it is installed. `gzip` and one more must be. What HTTP clients make of them
/// is told by `benches/load/run.py --only readers`.
#[test]
fn every_reader_takes_a_joined_file_whole() {
    let scratch = scratch();
    let packed = small_store(scratch.path());
    let out = scratch.path().join("out");
    let done = run::export(&packed, &out, &["--group", "ten", "--compress", "gzip", "--as-of", crate::golden::AS_OF]);
    assert_eq!(done.code, 0, "{done:#?}");
    let joined = out.join("Claim.00001.ndjson.gz");
    let rows = run::decode("x.gz", &std::fs::read(&joined).unwrap());
    let stored = packed.join("Claim.00001.ndjson.gz");
    let own_rows = decode_members(&stored);
    // The rows of the first member alone, for readers that stop there.
    let python = "import gzip,sys,zlib\n\
                  b=open(sys.argv[1],'rb').read()\n\
                  r=gzip.decompress(b)\n\
                  d=zlib.decompressobj(31); z=d.decompress(b)+d.flush()\n\
                  assert r==z and d.eof, 'zlib reads other rows than gzip'\n\
                  sys.stdout.buffer.write(r)";
    let node =
        "const z=require('zlib'),f=require('fs');process.stdout.write(z.gunzipSync(f.readFileSync(process.argv[1])))";
    let readers: [(&str, &[&str]); 4] =
        [("gzip", &["-dc"]), ("python3", &["-c", python]), ("node", &["-e", node]), ("zcat", &[])];
    let mut read_by = Vec::new();
    for (program, words) in readers {
        for (file, expected) in [(&joined, &rows), (&stored, &own_rows)] {
            let child = Command::new(program).args(words).arg(file).stderr(Stdio::inherit()).output();
            let Ok(read) = child else { continue };
            assert!(read.status.success() && read.stdout == *expected, "{program} reads {}", file.display());
            read_by.push(program);
        }
    }
    // These print a digest and the number of rows for each file, because they start slowly.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/load/readers");
    let told = [&rows, &own_rows].map(|rows| {
        let digest: String = Sha256::digest(rows).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digest} {}\n", rows.iter().filter(|byte| **byte == b'\n').count())
    });
    for (program, words, version) in
        [("java", vec!["Rows.java"], "-version"), ("go", vec!["run", "rows.go"], "version")]
    {
        // A Java without a compiler cannot run a source file, and what stands under the name may be no Go.
        let compiler = if program == "java" { "javac" } else { program };
        if !Command::new(compiler).arg(version).output().is_ok_and(|asked| asked.status.success()) {
            eprintln!("skipped: no {compiler} that says its {version}");
            continue;
        }
        let read = Command::new(program).args(words).args([&joined, &stored]).current_dir(&sources).output().unwrap();
        assert!(read.status.success(), "{program}: {}", String::from_utf8_lossy(&read.stderr));
        assert_eq!(String::from_utf8_lossy(&read.stdout), told.concat(), "{program}");
        read_by.push(program);
    }
    // `gzip -l` tells the length of the rows, as of any file; of a packed one it sees the last member, which is empty.
    let listed = Command::new("gzip").arg("-l").arg(&joined).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let len = listed.lines().nth(1).and_then(|line| line.split_whitespace().nth(1));
    assert_eq!(len, Some(&*rows.len().to_string()), "{listed}");
    let tested = Command::new("gzip").arg("-t").args([&joined, &stored]).status().unwrap();
    assert!(tested.success(), "gzip -t");
    read_by.dedup();
    assert!(read_by.len() > 1, "read by {read_by:?} alone");
    eprintln!("read by {read_by:?}");
}

/// A table that lies about its segments, though its own checksum holds, and a file of another tool with a field like ours:
/// rows are those of an ordinary file or none, faults are named, and no row is altered.
#[test]
fn tables_that_lie_are_not_believed() {
    let scratch = scratch();
    let packed = small_store(scratch.path());
    let (_, whole) = everything(&packed, &scratch.path().join("whole"), &[], 0);
    let file = packed.join("Claim.00001.ndjson.gz");
    let bytes = std::fs::read(&file).unwrap();
    let word = |table: &mut [u8], at: usize, change: &dyn Fn(u64) -> u64| {
        let old = u64::from_le_bytes(table[at..at + 8].try_into().unwrap());
        table[at..at + 8].copy_from_slice(&change(old).to_le_bytes());
    };
    type Change<'a> = (&'a str, Box<dyn Fn(&mut [u8], usize) + 'a>);
    let crcs = |count: usize| (count + 1) * 16 + count * 28;
    let changes: Vec<Change<'_>> = vec![
        ("a segment begins a byte later", Box::new(|table, _| word(table, 16, &|old| old + 1))),
        ("a segment is a byte longer", Box::new(|table, _| word(table, 24, &|old| old + 1))),
        ("two segments have each other's checksums, so that their sum is another", {
            Box::new(|table, count| {
                let at = crcs(count);
                let first: [u8; 4] = table[at..at + 4].try_into().unwrap();
                table.copy_within(at + 4..at + 8, at);
                table[at + 4..at + 8].copy_from_slice(&first);
            })
        }),
        (
            "another number of rows",
            Box::new(|table, count| {
                // Of two frames, so that the sum stays.
                let at = (count + 1) * 16 + count * 24;
                table[at] ^= 1;
                table[at + 4] ^= 1;
            }),
        ),
        ("another hash", Box::new(|table, count| word(table, (count + 1) * 16, &|old| old ^ 1))),
    ];
    for (number, (what, change)) in changes.iter().enumerate() {
        replace(&file, &forge(&bytes, change));
        {
            let compression = ["none", "gzip"][number % 2];
            let out = scratch.path().join(format!("out-{number}-{compression}"));
            let done =
                run::export(&packed, &out, &["--system", "--as-of", crate::golden::AS_OF, "--compress", compression]);
            assert!([0, 1].contains(&done.code), "{what}: {done:#?}");
            let export = Export::read(&out, run::Bounds::DEFAULT);
            let lines = export.lines();
            let known = |line: &Vec<u8>| whole["Claim"].binary_search(line).is_ok();
            let claims = lines.get("Claim").map_or(&[][..], |lines| &lines[..]);
            assert!(claims.iter().all(known), "{what}: a row was altered");
            let reported = export.messages().iter().filter(|message| message.text.contains("Claim.00001")).count();
            assert!(
                claims.len() == whole["Claim"].len() || done.code == 1 && reported > 0,
                "{what}: rows are missing in silence: {done:#?}"
            );
            let verified = run::run(&["verify", packed.to_str().unwrap()]);
            assert_eq!(verified.code, 1, "{what}: {verified:#?}");
        }
    }
    // Another member behind the file: an ordinary file with its rows, and the table is named.
    let more =
        r#"{"resourceType":"Claim","id":"appended","patient":{"reference":"Patient/nobody"}}"#.to_string() + "\n";
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(more.as_bytes()).unwrap();
    replace(&file, &[&bytes[..], &encoder.finish().unwrap()].concat());
    let (export, lines) = everything(&packed, &scratch.path().join("appended"), &[], 1);
    assert_eq!(lines["Claim"].len(), whole["Claim"].len() + 1);
    assert!(export.messages().iter().any(|message| message.text.contains("Claim.00001")));
}

/// Files of other tools with extra fields, as `bgzip` writes them, are ordinary gzip files.
#[test]
fn extra_fields_of_others_are_nobody_s_table() {
    let scratch = scratch();
    let store = scratch.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let line = |id: &str| format!("{{\"resourceType\":\"Patient\",\"id\":\"{id}\"}}\n");
    let member = |extra: &[u8], text: &str| {
        let mut encoder = flate2::GzBuilder::new().extra(extra).write(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let bgzip = b"BC\x02\0\x1b\0";
    let ours = b"OP\x08\0OUTPGZI\x02";
    let files: [(&str, Vec<u8>); 2] = [
        ("a.ndjson.gz", [member(bgzip, &line("a")), member(bgzip, &line("b")), member(bgzip, "")].concat()),
        ("b.ndjson.gz", [member(ours, &line("c")), member(b"OP\x02\0xx", &line("d"))].concat()),
    ];
    for (name, bytes) in &files {
        std::fs::write(store.join(name), bytes).unwrap();
    }
    let (_, lines) = everything(&store, &scratch.path().join("out"), &["--compress", "gzip"], 0);
    assert_eq!(lines["Patient"].len(), 4);
    // With the very head of the format but no table: rows of an ordinary file, and a fault.
    let head = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 12, 0, b'O', b'P', 8, 0];
    let mut body = flate2::Compress::new(flate2::Compression::default(), false);
    let mut deflated = Vec::with_capacity(1000);
    let text = line("e");
    body.compress_vec(text.as_bytes(), &mut deflated, flate2::FlushCompress::Finish).unwrap();
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    let end = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
    std::fs::write(store.join("c.ndjson.gz"), [&head[..], b"OUTPGZI\x01", &deflated, &end].concat()).unwrap();
    let (export, lines) = everything(&store, &scratch.path().join("out-2"), &[], 1);
    assert_eq!(lines["Patient"].len(), 5);
    assert!(export.messages().iter().any(|message| message.text.contains("c.ndjson.gz")));
}

/// The oracle reads the rows of a gzip-packed store, and of joined files, as of any others.
#[test]
fn the_oracle_agrees_with_joined_files() {
    let scratch = scratch();
    let packed = small_store(scratch.path());
    for since in [None, Some("2015-01-01")] {
        let mut comparison = Comparison::new(naive::Who::AllPatients, crate::golden::AS_OF);
        comparison.since = since.map(str::to_string);
        let comparison = comparison.with(&["--compress", "gzip"]);
        let oracle = comparison.read(&packed);
        let out = scratch.path().join(format!("out-{}", since.unwrap_or("all")));
        assert!(comparison.check(&oracle, &packed, &out, scratch.path()).is_some());
    }
}
