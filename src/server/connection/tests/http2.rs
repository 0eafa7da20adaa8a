//! Tests of HTTP/2 on TLS, with a client of small windows that reads when the test says so.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::*;

/// A body of some bytes that never ends, or ends with them.
enum Sent {
    All(Full<Bytes>),
    Unending(Option<Bytes>),
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Sent::All(body) => Pin::new(body).poll_frame(context),
            Sent::Unending(first) => match first.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Pending,
            },
        }
    }
}

type Client = SendRequest<Sent>;
type Pump = Connection<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>, Sent, TokioExecutor>;

impl Server {
    /// A client, and the connection that must be polled for it to work.
    async fn client(&self) -> (Client, Pump) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let stream = self.shake(stream, &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(ALPN_TWO), "CORE-09");
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(1 << 20)
            .max_header_list_size(1 << 20)
            // Pings are not requests.
            .keep_alive_interval(Duration::from_millis(50))
            .keep_alive_while_idle(true);
        builder.handshake(TokioIo::new(stream)).await.unwrap()
    }
}

fn request(method: &str, path: &str, body: Sent) -> Request<Sent> {
    Request::builder().method(method).uri(format!("https://localhost{path}")).body(body).unwrap()
}

fn nothing() -> Sent {
    Sent::All(Full::default())
}

async fn ask(client: &mut Client, path: &str) -> hyper::Result<hyper::Response<Incoming>> {
    client.ready().await?;
    client.send_request(request("GET", path, nothing())).await
}

async fn said(client: &mut Client, path: &str) -> (u16, Bytes) {
    let answer = ask(client, path).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

#[track_caller]
fn outcome(said: (u16, Bytes), status: u16, code: &str) {
    let text = String::from_utf8_lossy(&said.1).into_owned();
    assert_eq!(said.0, status, "{text}");
    assert!(text.contains("OperationOutcome") && text.contains(&format!("\"{code}\"")), "{text}");
}

/// CORE-09: requests in sequence and many at once on one connection, files among them; a panic is one 500.
#[tokio::test]
async fn many_requests_on_one_connection() {
    let server = Server::start(Over::Tls, ConnectionLimits::default()).await;
    let (mut client, pump) = server.client().await;
    tokio::spawn(pump);
    assert_eq!(said(&mut client, "/hello").await, (200, "127.0.0.1".into()));
    outcome(said(&mut client, "/panic").await, 500, "exception");
    let mut all = JoinSet::new();
    for n in 0..150 {
        let mut client = client.clone();
        all.spawn(async move {
            match n % 50 {
                0 => said(&mut client, "/file").await,
                _ => said(&mut client, "/slow").await,
            }
        });
    }
    let mut files = 0;
    while let Some(answer) = all.join_next().await {
        let (status, bytes) = answer.unwrap();
        assert_eq!(status, 200);
        if bytes.len() > 4 {
            assert!(bytes == server.bytes, "FILE-15");
            files += 1;
        }
    }
    assert_eq!(files, 3);
    let head = client.send_request(request("HEAD", "/file", nothing())).await.unwrap();
    assert_eq!(head.headers()["content-length"], server.bytes.len().to_string());
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

/// CORE-08: too many headers are 431 with an OperationOutcome, too long ones 431 by the library.
#[tokio::test]
async fn headers_are_bounded() {
    let server = Server::start(Over::Tls, ConnectionLimits::default()).await;
    let (mut client, pump) = server.client().await;
    tokio::spawn(pump);
    let mut many = request("GET", "/hello", nothing());
    for n in 0..101 {
        many.headers_mut().insert(hyper::header::HeaderName::try_from(format!("x-{n}")).unwrap(), "y".parse().unwrap());
    }
    let answer = client.send_request(many).await.unwrap();
    let status = answer.status().as_u16();
    outcome((status, answer.into_body().collect().await.unwrap().to_bytes()), 431, "too-long");
    let mut long = request("GET", "/hello", nothing());
    long.headers_mut().insert("x", "y".repeat(70_000).parse().unwrap());
    client.ready().await.unwrap();
    assert_eq!(client.send_request(long).await.unwrap().status(), 431);
    assert_eq!(said(&mut client, "/hello").await.0, 200);
}

/// A stream whose client takes no bytes is reset, and no other on its connection.
#[tokio::test]
async fn a_stalled_stream_is_reset() {
    let server = Server::start(Over::Tls, ConnectionLimits { idle_wait: Duration::from_secs(20), ..short() }).await;
    let (mut client, pump) = server.client().await;
    tokio::spawn(pump);
    let stalled = ask(&mut client, "/file").await.unwrap();
    let begun = Instant::now();
    let whole = said(&mut client, "/file").await;
    assert!(whole.1 == server.bytes);
    tokio::time::sleep_until((begun + Duration::from_secs(2)).into()).await;
    assert!(stalled.into_body().collect().await.is_err());
    assert_eq!(said(&mut client, "/hello").await.0, 200);
    // A client that takes some bytes at intervals is not reset.
    let mut body = ask(&mut client, "/file").await.unwrap().into_body();
    let mut len = 0;
    while let Some(frame) = body.frame().await {
        let before = len;
        len += frame.unwrap().data_ref().unwrap().len();
        if before >> 20 != len >> 20 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    assert_eq!(len, server.bytes.len());
}

/// A client that does not read its socket loses the connection.
#[tokio::test]
async fn a_stalled_connection_is_cut() {
    let server = Server::start(Over::Tls, ConnectionLimits { connections_max: 1, ..short() }).await;
    let (mut client, mut pump) = server.client().await;
    let mut requested = pin!(client.send_request(request("GET", "/file", nothing())));
    // Polled until the answer begins, then never again.
    tokio::select! {
        answer = &mut requested => drop(answer.unwrap().into_body().frame()),
        _ = &mut pump => panic!("the connection ended"),
    }
    let begun = Instant::now();
    server.lives().await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// A connection without requests is closed, despite other frames: before the first request, and after the last.
#[tokio::test]
async fn idle_connections_are_closed() {
    let server = Server::start(Over::Tls, short()).await;
    for asks in [0, 1] {
        let (mut client, pump) = server.client().await;
        let begun = Instant::now();
        let pump = tokio::spawn(pump);
        for _ in 0..asks {
            // An answer that takes longer than the wait is not silence.
            assert_eq!(said(&mut client, "/slow").await.0, 200);
        }
        tokio::time::timeout(Duration::from_secs(5), pump).await.unwrap().unwrap().unwrap();
        let least = if asks == 0 { 250 } else { 750 };
        assert!(begun.elapsed() >= Duration::from_millis(least), "{:?}", begun.elapsed());
    }
}

/// A body that stops is a 400, as on HTTP/1.1.
#[tokio::test]
async fn a_stalled_body_is_refused() {
    let server = Server::start(Over::Tls, short()).await;
    let (mut client, pump) = server.client().await;
    tokio::spawn(pump);
    let body = Sent::Unending(Some("half".into()));
    let answer = tokio::time::timeout(Duration::from_secs(5), client.send_request(request("POST", "/read", body)));
    assert_eq!(answer.await.unwrap().unwrap().status(), 400);
    let body = Sent::All(Full::from("whole"));
    let answer = client.send_request(request("POST", "/read", body)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "whole");
}

/// DELETE-06, FILE-15: a deleted file is sent to its end, a truncated one ends in an error.
#[tokio::test]
async fn files_that_change() {
    let server = Server::start(Over::Tls, ConnectionLimits { write_wait: Duration::from_secs(5), ..short() }).await;
    let (mut client, pump) = server.client().await;
    tokio::spawn(pump);
    let (kept, short) = (ask(&mut client, "/file").await.unwrap(), ask(&mut client, "/file").await.unwrap());
    let path = server.dir.path().join("stored");
    let stored = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(kept.into_body().collect().await.unwrap().to_bytes() == server.bytes);
    stored.set_len(10_000_001).unwrap();
    assert!(short.into_body().collect().await.is_err());
}

/// When the server stops, answers in flight end, and connections close; a client that does not read is not waited
/// for.
#[tokio::test]
async fn stopping_drains_streams() {
    let mut server = Server::start(Over::Tls, ConnectionLimits::default()).await;
    let (mut client, pump) = server.client().await;
    let pump = tokio::spawn(pump);
    let (mut deaf, mut deaf_pump) = server.client().await;
    tokio::select! {
        answer = deaf.send_request(request("GET", "/hello", nothing())) => drop(answer.unwrap()),
        _ = &mut deaf_pump => panic!("the connection ended"),
    }
    let file = ask(&mut client, "/file").await.unwrap();
    let mut other = client.clone();
    let slow = tokio::spawn(async move { said(&mut other, "/slow").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop().await;
    assert_eq!(slow.await.unwrap(), (200, "slow".into()));
    assert!(file.into_body().collect().await.unwrap().to_bytes() == server.bytes);
    pump.await.unwrap().unwrap();
    assert_eq!(server.ended.await.unwrap(), DrainState { cut: 0 });
}
