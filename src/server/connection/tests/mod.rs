//! Tests of connections over real sockets, plain and under TLS, with short time-outs.

pub(super) mod http2;
pub(super) mod tls;

use std::time::{Duration, Instant};

use axum::Extension;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::codec::compression::Compression;
use crate::server::files::{FileReader, StoredFile, send};
use crate::server::tls::tests::{connector, make};
use crate::server::tls::{Certificate, TlsFiles};
use crate::sys::sigbus;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Tcp,
    Tls,
}

const BOTH: [Over; 2] = [Over::Tcp, Over::Tls];

/// The client's side of a connection.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

struct Server {
    over: Over,
    certificate: Arc<Certificate>,
    trusted: CertificateDer<'static>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<DrainState>,
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
}

fn short() -> ConnectionLimits {
    let wait = Duration::from_millis(300);
    ConnectionLimits { head_wait: wait, idle_wait: wait, body_wait: wait, write_wait: wait, ..Default::default() }
}

impl Server {
    async fn start(over: Over, limits: ConnectionLimits) -> Server {
        sigbus::install().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..6_000_000u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
        std::fs::write(dir.path().join("stored"), &bytes).unwrap();
        let root = dir.path().to_path_buf();
        let len = bytes.len() as u64;
        let file = move || StoredFile {
            media_type: "application/fhir+ndjson",
            root: root.clone(),
            place: "stored".into(),
            name: "Patient.00001.ndjson".into(),
            coding: Compression::None,
            bytes: len,
            file_bytes: len,
            etag_seed: "seed".into(),
            finished: std::time::SystemTime::UNIX_EPOCH,
        };
        let slow = async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            "slow"
        };
        let watch = async |Extension(peer): Extension<Peer>| {
            peer.watch();
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if peer.has_closed() {
                    return "it has closed";
                }
            }
            "it is here"
        };
        let app = Router::new()
            .route(
                "/file",
                get(async move |method, headers: HeaderMap| {
                    send(&method, &headers, file(), FileReader::default()).await
                }),
            )
            .route("/hello", get(async |ConnectInfo(client): ConnectInfo<SocketAddr>| client.ip().to_string()))
            .route("/slow", get(slow))
            .route("/watch", get(watch))
            .route("/tls", get(async |Extension(tls): Extension<OverTls>| tls.0.to_string()))
            .route("/panic", get(async || -> String { panic!("secret") }))
            .route("/refuse", post(async || StatusCode::PAYLOAD_TOO_LARGE))
            .route("/read", post(async |body: String| body));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (files, trusted) = make(dir.path());
        let certificate = Certificate::load(files).unwrap();
        let tls = (over == Over::Tls).then(|| certificate.acceptor().unwrap());
        let ended = tokio::spawn(serve(listener, tls, app, limits, |_| false, async move { drop(stopped.await) }));
        Server { over, certificate, trusted, address, stop: Some(stop), ended, dir, bytes }
    }

    /// A connection that speaks HTTP/1.1.
    async fn connect(&self) -> Box<dyn Pipe> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        match self.over {
            Over::Tcp => Box::new(stream),
            Over::Tls => Box::new(self.shake(stream, &["http/1.1"]).await.unwrap()),
        }
    }

    async fn shake(&self, stream: TcpStream, alpn: &[&str]) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        connector(&self.trusted, &[&TLS13, &TLS12], alpn).connect(name, stream).await
    }

    /// All bytes of the server until it closes.
    async fn say(&self, words: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.write_all(words.as_ref()).await.unwrap();
        hear(&mut client).await
    }

    async fn lives(&self) {
        let answer = self.say("GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("127.0.0.1"), "{answer}");
    }

    async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

async fn hear(client: &mut (impl Pipe + ?Sized)) -> String {
    let mut heard = Vec::new();
    // A reset after the answer is a fault, and fails the test.
    tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut heard)).await.unwrap().unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

#[track_caller]
fn refused(answer: &str, status: u16, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/fhir+json"), "{answer}");
    assert!(head.to_ascii_lowercase().contains(&format!("content-length: {}", body.len())), "{answer}");
    assert!(body.contains("OperationOutcome") && body.contains(&format!("\"{code}\"")), "{answer}");
}

/// CORE-04, FILE-11: unreadable requests are answered with an OperationOutcome, and the server goes on.
#[tokio::test]
async fn unreadable_requests_are_answered() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        let bomb = format!("GET /hello HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(300_000));
        let many = format!("GET /hello HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(500));
        let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(65_600));
        refused(&server.say(bomb).await, 431, "too-long");
        refused(&server.say(many).await, 431, "too-long");
        let answer = server.say(long).await;
        refused(&answer, if answer.contains(" 414 ") { 414 } else { 431 }, "too-long");
        for nonsense in [
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
            "GET  /\r\n\r\n",
            "GET /a\0b HTTP/1.1\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
        ] {
            refused(&server.say(nonsense).await, 400, "structure");
        }
        server.lives().await;
    }
}

/// A handler that panics is answered 500, without its panic message.
#[tokio::test]
async fn a_panic_is_a_500() {
    let server = Server::start(Over::Tcp, short()).await;
    let answer = server.say("GET /panic HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    refused(&answer, 500, "exception");
    assert!(!answer.contains("secret"));
    server.lives().await;
}

/// Headers that do not end, silence between requests, and a body that stops.
#[tokio::test]
async fn silent_clients_are_closed() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        refused(&server.say("GET /hello HTTP/1.1\r\nhost:").await, 408, "timeout");
        refused(&server.say("").await, 408, "timeout");
        // Single bytes at intervals do not extend the wait.
        let mut client = server.connect().await;
        let begun = Instant::now();
        while client.write_all(b"G").await.is_ok() && begun.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        // After an answer the idle wait applies, and ends without an answer.
        let answer = server.say("GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.ends_with("127.0.0.1"), "{answer}");
        let answer = server.say("POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        // A slow handler is not silence of the client.
        let answer = server.say("GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.ends_with("slow"), "{answer}");
        server.lives().await;
    }
}

/// A client that closes its side after its request is answered.
#[tokio::test]
async fn a_half_closed_client_is_answered() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        for path in ["hello", "slow", "file"] {
            let mut client = server.connect().await;
            client.write_all(format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(hear(&mut client).await.starts_with("HTTP/1.1 200 OK"), "{path}");
        }
    }
}

/// An answer before the end of a large body reaches a client that still sends.
#[tokio::test]
async fn an_early_answer_is_heard() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        let mut client = server.connect().await;
        client.write_all(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(client);
        let body = vec![b'x'; 20_000_000];
        let mut heard = vec![0; 12];
        let (_, read) = tokio::join!(writing.write_all(&body), reading.read_exact(&mut heard));
        read.unwrap();
        assert_eq!(heard, b"HTTP/1.1 413");
        server.lives().await;
    }
}

/// FILE-14, FILE-15: a file over a socket, whole and from the middle, on one connection, has the same bytes.
#[tokio::test]
async fn a_file_arrives() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        let mut client = server.connect().await;
        for start in [0usize, 7_654_321] {
            let ask = format!("GET /file HTTP/1.1\r\nhost: x\r\nrange: bytes={start}-\r\n\r\n");
            client.write_all(ask.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"HTTP/1.1 206"));
            let mut body = vec![0; server.bytes.len() - start];
            client.read_exact(&mut body).await.unwrap();
            assert!(body == server.bytes[start..]);
        }
    }
}

/// DELETE-06, EXPIRE-02: a slow download ends with the right bytes after the file's name is deleted.
#[tokio::test]
async fn deletion_does_not_cut_a_slow_download() {
    for over in BOTH {
        let server = Server::start(over, ConnectionLimits { write_wait: Duration::from_secs(5), ..short() }).await;
        let mut client = server.connect().await;
        client.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut got = vec![0; 1000];
        client.read_exact(&mut got).await.unwrap();
        std::fs::remove_file(server.dir.path().join("stored")).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        client.read_to_end(&mut got).await.unwrap();
        assert!(got.ends_with(&server.bytes) && got.starts_with(b"HTTP/1.1 200"));
        let answer = server.say("GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        refused(&answer, 500, "exception");
    }
}

/// A client that takes no bytes is cut after the wait; one that takes some at intervals is not.
#[tokio::test]
async fn a_stalled_reader_is_cut() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        let mut client = server.connect().await;
        client.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut got = Vec::new();
        let read = client.read_to_end(&mut got).await;
        assert!(read.is_err() || got.len() < server.bytes.len());

        let mut client = server.connect().await;
        client.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut got = vec![0; 3_000_000];
        for _ in 0..5 {
            client.read_exact(&mut got).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // A client that goes on reading gets all bytes.
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert!(5 * got.len() + rest.len() > server.bytes.len());
    }
}

/// An expensive answer can be given up when its client closes its side. A client that closes only its sending side
/// still gets an answer.
#[tokio::test]
async fn a_client_that_closes_is_noticed() {
    let ask = "GET /watch HTTP/1.1\r\nhost: x\r\n\r\n";
    for over in BOTH {
        let server = Server::start(over, ConnectionLimits::default()).await;
        let mut client = server.connect().await;
        client.write_all(ask.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.shutdown().await.unwrap();
        assert!(hear(&mut client).await.ends_with("it has closed"), "{over:?}");
        // The close may come at once, and behind another request.
        let mut client = server.connect().await;
        client.write_all(ask.repeat(2).as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let heard = hear(&mut client).await;
        assert_eq!((heard.matches("it has closed").count(), heard.matches("HTTP/1.1 200").count()), (2, 2), "{heard}");
        // Another request is not a close.
        let mut client = server.connect().await;
        client.write_all(ask.repeat(2).as_bytes()).await.unwrap();
        let mut heard = String::new();
        while heard.matches("it is here").count() < 2 {
            let mut piece = [0; 1000];
            let len = client.read(&mut piece).await.unwrap();
            assert!(len > 0, "{heard}");
            heard += &String::from_utf8_lossy(&piece[..len]);
        }
        assert!(!heard.contains("closed"), "{over:?}");
    }
}

/// When the server stops, answers in flight end, idle connections close, and answers beyond the drain are cut.
#[tokio::test]
async fn stopping_drains() {
    for over in BOTH {
        let mut server = Server::start(over, ConnectionLimits::default()).await;
        let mut idle = server.connect().await;
        idle.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        idle.read_exact(&mut [0; 50]).await.unwrap();
        let (mut slow, mut file) = (server.connect().await, server.connect().await);
        slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        file.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        file.read_exact(&mut [0; 1000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.stop().await;
        assert!(hear(&mut slow).await.ends_with("slow"));
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(&server.bytes[1_000_000..]));
        hear(&mut idle).await;
        assert_eq!(server.ended.await.unwrap(), DrainState { cut: 0 });

        let mut server =
            Server::start(over, ConnectionLimits { drain_wait: Duration::from_millis(50), ..Default::default() }).await;
        let mut file = server.connect().await;
        file.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        file.read_exact(&mut [0; 1000]).await.unwrap();
        server.stop().await;
        assert_eq!(server.ended.await.unwrap(), DrainState { cut: 1 });
    }
}

/// An address has at most its share of connections; the next one of it is told so, and one that is closed makes room.
#[tokio::test]
async fn an_address_has_a_share() {
    for over in BOTH {
        let server = Server::start(over, ConnectionLimits { connections_max: 100, ..Default::default() }).await;
        let mut open = Vec::new();
        for _ in 0..50 {
            let mut client = server.connect().await;
            client.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            client.read_u8().await.unwrap();
            open.push(client);
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).await.unwrap();
        match over {
            Over::Tcp => refused(&String::from_utf8(told).unwrap(), 503, "throttled"),
            Over::Tls => assert!(told.is_empty()),
        }
        open.pop();
        while tokio::time::timeout(Duration::from_secs(5), server.say("GET /hello HTTP/1.0\r\nhost: x\r\n\r\n"))
            .await
            .is_err()
        {}
        drop(open);
        server.lives().await;
    }
}

/// At most the allowed number of connections is accepted; the next one waits.
#[tokio::test]
async fn further_connections_wait() {
    for over in BOTH {
        let server = Server::start(over, ConnectionLimits { connections_max: 1, ..short() }).await;
        let _first = server.connect().await;
        let begun = Instant::now();
        server.lives().await;
        assert!(begun.elapsed() >= Duration::from_millis(250));
    }
}
