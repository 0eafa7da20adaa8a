//! Tests of downloads: every header and byte of an answer, without a socket.

use crate::hash::digest::DigestAlgorithm;
use crate::server::files::binary::send_as_binary;
use crate::sys::sigbus;
use crate::write::encode::Encoder;
use crate::write::sink::MemorySink;
use std::io::Write;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE,
};

use super::*;

const CODINGS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// A stored file, its decoded bytes and its stored ones.
struct Stored {
    dir: tempfile::TempDir,
    file: StoredFile,
    plain: Vec<u8>,
    coded: Vec<u8>,
}

impl Stored {
    fn new(coding: Compression, plain: Vec<u8>) -> Stored {
        sigbus::install().unwrap();
        let sink = MemorySink::default();
        let mut encoder = Encoder::begin(sink.clone(), "f", coding, DigestAlgorithm::Xxh3, 1).unwrap();
        encoder.write(&plain).unwrap();
        let sums = encoder.finish().unwrap();
        let coded = sink.files().remove("f").unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("stored"), &coded).unwrap();
        let file = StoredFile {
            media_type: "application/fhir+ndjson",
            root: dir.path().to_path_buf(),
            place: "stored".into(),
            name: "Patient.00001.ndjson".into(),
            coding,
            bytes: sums.bytes,
            file_bytes: sums.file_bytes,
            etag_seed: "seed:1".into(),
            finished: SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250),
        };
        Stored { dir, file, plain, coded }
    }

    fn path(&self) -> PathBuf {
        self.file.root.join(&self.file.place)
    }

    /// The bytes of a representation.
    fn bytes(&self, coding: Compression) -> &[u8] {
        if coding == Compression::None { &self.plain } else { &self.coded }
    }

    async fn ask(&self, method: Method, headers: &[(HeaderName, &str)]) -> Answered {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let response = send(&method, &map, self.file.clone(), FileReader::default()).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes().to_vec());
        Answered { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn get(&self, headers: &[(HeaderName, &str)]) -> Answered {
        self.ask(Method::GET, headers).await
    }
}

struct Answered {
    status: u16,
    headers: HeaderMap,
    body: Result<Vec<u8>, axum::Error>,
}

impl Answered {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn body(&self) -> &[u8] {
        self.body.as_ref().unwrap()
    }

    #[track_caller]
    fn is_refused(&self, status: u16, word: &str) {
        assert_eq!(self.status, status);
        let text = str::from_utf8(self.body()).unwrap();
        assert!(text.contains("OperationOutcome") && text.contains(word), "{text}");
        assert!(!text.contains("stored\"") && !text.contains("/tmp"), "{text}");
    }
}

fn rows(len: usize) -> Vec<u8> {
    let mut rows = Vec::new();
    for n in 0u64.. {
        if rows.len() >= len {
            break;
        }
        let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        writeln!(rows, "{{\"resourceType\":\"Patient\",\"id\":\"{n}\",\"noise\":{noise}}}").unwrap();
    }
    rows
}

fn accepting(coding: Compression) -> &'static str {
    coding_name(coding).unwrap_or("identity")
}

/// FILE-03, FILE-15, FILE-19: the headers of a whole file, in every stored coding.
#[tokio::test]
async fn a_file_is_described() {
    for coding in CODINGS {
        let stored = Stored::new(coding, rows(100_000));
        let got = stored.get(&[]).await;
        assert_eq!((got.status, got.body()), (200, &stored.plain[..]), "{coding:?}");
        for (name, value) in [
            (CONTENT_TYPE, "application/fhir+ndjson"),
            (CONTENT_LENGTH, &*stored.plain.len().to_string()),
            (CONTENT_DISPOSITION, "attachment; filename=\"Patient.00001.ndjson\""),
            (CACHE_CONTROL, "private, no-transform"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (ACCEPT_RANGES, "bytes"),
            (ETAG, "\"seed:1\""),
            (LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            assert_eq!(got.header(name.clone()), Some(value), "{name}");
        }
        assert_eq!(got.header(CONTENT_ENCODING), None);
        assert_eq!(got.header(VARY).is_some(), coding != Compression::None);
    }
}

/// FILE-04: the stored coding and identity, each with its own length and tag; never `identity` as a coding.
#[tokio::test]
async fn codings_are_offered() {
    for stored_as in CODINGS {
        let stored = Stored::new(stored_as, rows(3_000_000));
        for (accepted, coding) in [
            ("gzip, zstd", stored_as),
            ("*", stored_as),
            ("gzip;q=0, zstd;q=0", Compression::None),
            ("identity", Compression::None),
            ("br", Compression::None),
        ] {
            let got = stored.get(&[(ACCEPT_ENCODING, accepted)]).await;
            let bytes = stored.bytes(coding);
            assert_eq!(got.status, 200);
            assert!(got.body() == bytes, "{stored_as:?} {accepted}");
            assert_eq!(got.header(CONTENT_LENGTH), Some(&*bytes.len().to_string()));
            assert_eq!(got.header(CONTENT_ENCODING), coding_name(coding));
            assert_eq!(got.header(CONTENT_TYPE), Some("application/fhir+ndjson"));
            let tag = coding_name(coding).map_or("\"seed:1\"".into(), |name| format!("\"seed:1-{name}\""));
            assert_eq!(got.header(ETAG), Some(&*tag));
        }
        stored.get(&[(ACCEPT_ENCODING, "*;q=0")]).await.is_refused(406, "Accept-Encoding");
    }
}

/// FILE-05, FILE-11: unacceptable requests are answered with an OperationOutcome.
#[tokio::test]
async fn what_cannot_be_answered_is_refused() {
    let stored = Stored::new(Compression::None, rows(1000));
    stored.get(&[(ACCEPT, "text/csv")]).await.is_refused(406, "Accept header");
    let got = stored.ask(Method::DELETE, &[]).await;
    got.is_refused(405, "GET or HEAD");
    assert_eq!(got.header(ALLOW), Some("GET, HEAD"));
    for accepted in ["*/*", "application/ndjson", "application/octet-stream", "application/fhir+ndjson"] {
        assert_eq!(stored.get(&[(ACCEPT, accepted)]).await.status, 200);
    }
    stored.get(&[(IF_MATCH, "\"other\"")]).await.is_refused(412, "If-Match");
    assert_eq!(stored.get(&[(IF_MATCH, "\"seed:1\"")]).await.status, 200);
}

/// FILE-14: a cut download is resumed at any byte, in every coding, mapped or read, and yields the same bytes.
#[tokio::test]
async fn downloads_resume_at_any_byte() {
    let mut seed = 11u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for stored_as in CODINGS {
        let stored = Stored::new(stored_as, rows(2_500_000));
        for coding in [stored_as, Compression::None] {
            let whole = stored.bytes(coding);
            let accepted = (ACCEPT_ENCODING, accepting(coding));
            let tag = stored.get(std::slice::from_ref(&accepted)).await.header(ETAG).unwrap().to_string();
            for _ in 0..12 {
                let cut = random(whole.len() - 1) + 1;
                let first = format!("bytes=0-{}", cut - 1);
                let rest = format!("bytes={cut}-");
                let first = stored.get(&[accepted.clone(), (RANGE, &first)]).await;
                let rest = stored.get(&[accepted.clone(), (RANGE, &rest), (IF_RANGE, &tag)]).await;
                assert_eq!((first.status, rest.status), (206, 206));
                assert!([first.body(), rest.body()].concat() == whole, "{stored_as:?} {coding:?} {cut}");
                let reported = format!("bytes {cut}-{}/{}", whole.len() - 1, whole.len());
                assert_eq!(rest.header(CONTENT_RANGE), Some(&*reported));
                assert_eq!(rest.header(CONTENT_LENGTH), Some(&*(whole.len() - cut).to_string()));
                assert_eq!(rest.header(CONTENT_ENCODING), coding_name(coding));
            }
            let last = stored.get(&[accepted.clone(), (RANGE, "bytes=-7")]).await;
            assert_eq!((last.status, last.body()), (206, &whole[whole.len() - 7..]));
        }
    }
}

/// FILE-14: ranges behind the end are 416 with the length; a stale `If-Range`, the other coding's tag, and several
/// ranges give the whole file.
#[tokio::test]
async fn ranges_that_do_not_count() {
    let stored = Stored::new(Compression::Gzip, rows(50_000));
    let len = stored.coded.len();
    let gzip = (ACCEPT_ENCODING, "gzip");
    let got = stored.get(&[gzip.clone(), (RANGE, &format!("bytes={len}-"))]).await;
    got.is_refused(416, "Range");
    assert_eq!(got.header(CONTENT_RANGE), Some(&*format!("bytes */{len}")));
    assert_eq!(stored.get(&[(RANGE, &format!("bytes={len}-"))]).await.status, 206);
    for others in [
        &[(RANGE, "bytes=5-"), (IF_RANGE, "\"stale\"")][..],
        &[(RANGE, "bytes=5-"), (IF_RANGE, "\"seed:1\"")],
        &[(RANGE, "bytes=5-"), (IF_RANGE, "W/\"seed:1-gzip\"")],
        &[(RANGE, "bytes=0-1,5-6")],
        &[(RANGE, "rows=5-")],
    ] {
        let got = stored.get(&[std::slice::from_ref(&gzip), others].concat()).await;
        assert!((got.status, got.body()) == (200, &stored.coded[..]), "{others:?}");
    }
    let date = (IF_RANGE, "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(stored.get(&[gzip, (RANGE, "bytes=5-"), date]).await.status, 206);
}

/// FILE-14: a current copy is not sent again, and the 304 has its tag.
#[tokio::test]
async fn what_the_client_has_is_not_sent() {
    let stored = Stored::new(Compression::Zstd, rows(50_000));
    let zstd = (ACCEPT_ENCODING, "zstd");
    let got = stored.get(&[zstd.clone(), (IF_NONE_MATCH, "\"x\", W/\"seed:1-zstd\"")]).await;
    assert_eq!((got.status, got.body()), (304, &b""[..]));
    assert_eq!(got.header(ETAG), Some("\"seed:1-zstd\""));
    assert!(got.header(VARY).is_some() && got.header(CACHE_CONTROL).is_some() && got.header(CONTENT_LENGTH).is_none());
    assert_eq!(stored.get(&[(IF_NONE_MATCH, "\"seed:1-zstd\"")]).await.status, 200);
    // The precondition is judged before the range.
    assert_eq!(stored.get(&[zstd, (IF_NONE_MATCH, "*"), (RANGE, "bytes=0-1")]).await.status, 304);
}

/// FILE-14, FILE-15: HEAD has the headers of GET, without the bytes.
#[tokio::test]
async fn head_is_get_without_the_bytes() {
    for stored_as in CODINGS {
        let stored = Stored::new(stored_as, rows(50_000));
        for accepted in ["identity", "gzip, zstd"] {
            let headers = [(ACCEPT_ENCODING, accepted)];
            let (head, get) = (stored.ask(Method::HEAD, &headers).await, stored.get(&headers).await);
            assert_eq!((head.status, head.body()), (200, &b""[..]));
            assert_eq!(head.headers, get.headers);
        }
        assert_eq!(stored.ask(Method::HEAD, &[(RANGE, "bytes=0-1")]).await.status, 200);
    }
}

#[tokio::test]
async fn an_empty_file_is_sent() {
    for stored_as in CODINGS {
        let stored = Stored::new(stored_as, Vec::new());
        let got = stored.get(&[]).await;
        assert_eq!((got.status, got.body(), got.header(CONTENT_LENGTH)), (200, &b""[..], Some("0")));
        stored.get(&[(RANGE, "bytes=0-")]).await.is_refused(416, "Range");
    }
}

/// FILE-11: a missing file, or one that differs from its record, is refused without its path.
#[tokio::test]
async fn a_file_that_is_gone_is_refused() {
    for change in [
        |path: &PathBuf| std::fs::remove_file(path).unwrap(),
        |path: &PathBuf| std::fs::write(path, "short").unwrap(),
        |path: &PathBuf| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
    ] {
        for accepted in ["gzip", "identity"] {
            let stored = Stored::new(Compression::Gzip, rows(1000));
            change(&stored.path());
            stored.get(&[(ACCEPT_ENCODING, accepted)]).await.is_refused(500, "operator");
        }
    }
}

/// Only a regular file below the directory of files is sent, and no open blocks: no link, even to the right bytes, no
/// pipe, no socket, no name that leads out of the directory.
#[tokio::test]
async fn what_is_no_file_of_ours_is_refused() {
    use std::os::unix::fs::symlink;
    let stands_for = |kind: usize, stored: &mut Stored| {
        let (path, dir) = (stored.path(), stored.dir.path().to_path_buf());
        let moved = dir.with_extension("moved");
        std::fs::rename(&path, &moved).unwrap();
        match kind {
            0 => symlink(&moved, &path).unwrap(),
            1 => crate::sys::test_pipe::make_pipe(&path),
            2 => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            3 => {
                symlink(dir.parent().unwrap(), dir.join("link")).unwrap();
                stored.file.place = format!("link/{}", moved.file_name().unwrap().to_str().unwrap());
            }
            _ => stored.file.place = format!("../{}", moved.file_name().unwrap().to_str().unwrap()),
        }
        moved
    };
    for kind in 0..5 {
        let mut stored = Stored::new(Compression::Gzip, rows(1000));
        let moved = stands_for(kind, &mut stored);
        for accepted in ["gzip", "identity"] {
            let headers = [(ACCEPT_ENCODING, accepted)];
            let answered = tokio::time::timeout(Duration::from_secs(20), stored.get(&headers)).await;
            answered.expect("an answer at once").is_refused(500, "operator");
        }
        let fhir = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/fhir+json"))]);
        assert_eq!(
            send_as_binary(&Method::GET, &fhir, stored.file.clone(), "x", FileReader::default()).await.status(),
            500
        );
        std::fs::remove_file(moved).unwrap();
    }
}

/// DELETE-06: a download that has begun ends normally even if the name of the file is deleted.
#[tokio::test]
async fn deletion_does_not_cut_a_download() {
    for (stored_as, accepted) in
        [(Compression::None, "identity"), (Compression::Gzip, "gzip"), (Compression::Gzip, "identity")]
    {
        let stored = Stored::new(stored_as, rows(5_000_000));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(accepted));
        let mut body = send(&Method::GET, &headers, stored.file.clone(), FileReader::default()).await.into_body();
        let mut got = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
        drop(stored.dir);
        got.extend(body.collect().await.unwrap().to_bytes());
        let whole = if accepted == "gzip" { &stored.coded } else { &stored.plain };
        assert!(&got == whole, "{stored_as:?} {accepted}");
    }
}

/// FILE-15: a truncated or damaged file ends the body with an error, so that no client takes it for complete.
#[tokio::test]
async fn a_damaged_file_is_never_whole() {
    for stored_as in [Compression::Gzip, Compression::Zstd] {
        let stored = Stored::new(stored_as, rows(2_000_000));
        let mut damaged = stored.coded.clone();
        let i = damaged.len() - 6; // in the checksum
        damaged[i] ^= 1;
        std::fs::write(stored.path(), &damaged).unwrap();
        assert!(stored.get(&[]).await.body.is_err(), "{stored_as:?}");
        for bytes in [stored.file.bytes - 1, stored.file.bytes + 1] {
            let mut other = Stored::new(stored_as, stored.plain.clone());
            other.file.bytes = bytes;
            assert!(other.get(&[]).await.body.is_err(), "{stored_as:?} {bytes}");
        }
    }
    // A mapped file that is truncated while it is sent.
    let stored = Stored::new(Compression::None, rows(5_000_000));
    let mut body = send(&Method::GET, &HeaderMap::new(), stored.file.clone(), FileReader::default()).await.into_body();
    body.frame().await.unwrap().unwrap();
    std::fs::OpenOptions::new().write(true).open(stored.path()).unwrap().set_len(1 << 20).unwrap();
    assert!(body.collect().await.is_err());
}

/// Bytes before a range are skipped in parts, and no more once the client has gone away or the body is dropped.
#[tokio::test]
async fn skipping_ends_with_the_client() {
    for stored_as in [Compression::Gzip, Compression::Zstd] {
        let stored = Stored::new(stored_as, rows(30_000_000));
        let last = stored.plain.len() - 1;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={last}-")).unwrap());
        for leaves in [false, true] {
            let peer = Peer::default();
            let reader = FileReader { place: None, peer: Some(peer.clone()) };
            let body = send(&Method::GET, &headers, stored.file.clone(), reader).await.into_body();
            if leaves {
                peer.close();
            }
            match body.collect().await {
                Ok(body) => assert!(!leaves && body.to_bytes() == stored.plain[last..]),
                Err(_) => assert!(leaves),
            }
        }
    }
}
