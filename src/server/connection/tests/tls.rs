//! Tests of connections that concern TLS only.

use super::*;

/// CORE-01: TLS 1.2 and 1.3 are spoken; a client that speaks at most TLS 1.1, or plain HTTP, gets an alert and is
/// closed. CORE-09: without ALPN, and with a protocol that both know, the connection is HTTP/1.1.
#[tokio::test]
async fn versions_and_protocols() {
    let server = Server::start(Over::Tls, short()).await;
    let name = || ServerName::try_from("localhost").unwrap();
    for (version, alpn, agreed) in
        [(&TLS12, &["http/1.1"][..], Some("http/1.1")), (&TLS13, &[], None), (&TLS12, &["http/1.1", "h2"], Some("h2"))]
    {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let mut client = connector(&server.trusted, &[version], alpn).connect(name(), stream).await.unwrap();
        assert_eq!(client.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(client.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        if agreed != Some("h2") {
            client.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            assert!(hear(&mut client).await.starts_with("HTTP/1.1 200 OK"));
        }
    }
    let stream = TcpStream::connect(server.address).await.unwrap();
    assert!(server.shake(stream, &["spdy/1"]).await.is_err());

    // A ClientHello of TLS 1.1 with one cipher suite of that time, and no extensions.
    let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    for words in [&hello[..], b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(words).await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!((heard.first(), heard.len()), (Some(&21), 7), "a fatal alert, and nothing else: {heard:?}");
    }
    server.lives().await;
}

/// A handshake that stops, or arrives byte by byte, is cut; until then it counts as one connection.
#[tokio::test]
async fn slow_handshakes_are_cut() {
    let server = Server::start(Over::Tls, ConnectionLimits { connections_max: 1, ..short() }).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let begun = Instant::now();
    server.lives().await;
    assert!(begun.elapsed() >= Duration::from_millis(250));
    assert_eq!(silent.read(&mut [0; 10]).await.unwrap_or(0), 0);
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let begun = Instant::now();
    while client.write_all(&[22]).await.is_ok() && begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    server.lives().await;
}

/// A server that stops does not wait for handshakes.
#[tokio::test]
async fn stopping_drops_handshakes() {
    let mut server = Server::start(Over::Tls, ConnectionLimits::default()).await;
    let _silent = TcpStream::connect(server.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop().await;
    assert_eq!(server.ended.await.unwrap(), DrainState { cut: 0 });
}

/// FILE-15: a stored file that is truncated while it is sent cuts the connection: no byte is sent that it does not
/// have.
#[tokio::test]
async fn a_shortened_file_is_cut() {
    for over in BOTH {
        let server = Server::start(over, ConnectionLimits { write_wait: Duration::from_secs(5), ..short() }).await;
        let mut client = server.connect().await;
        client.write_all(b"GET /file HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut heard = vec![0; 1000];
        client.read_exact(&mut heard).await.unwrap();
        let stored = std::fs::OpenOptions::new().write(true).open(server.dir.path().join("stored")).unwrap();
        stored.set_len(20_000_001).unwrap();
        let _ = client.read_to_end(&mut heard).await;
        let head = heard.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        assert!(heard.len() - head <= 20_000_001, "{}", heard.len() - head);
        assert!(heard[head..] == server.bytes[..heard.len() - head]);
    }
}

/// New connections use a replaced certificate; an open one keeps the old one. A key that does not match the
/// certificate changes nothing.
#[tokio::test]
async fn certificates_are_replaced() {
    let mut server = Server::start(Over::Tls, ConnectionLimits::default()).await;
    let mut old = server.connect().await;
    let (_, trusted) = make(server.dir.path());
    let before = std::mem::replace(&mut server.trusted, trusted);
    let stream = || TcpStream::connect(server.address);
    assert!(server.shake(stream().await.unwrap(), &[]).await.is_err(), "not loaded yet");
    server.certificate.reload().unwrap();
    server.lives().await;
    let name = ServerName::try_from("localhost").unwrap();
    let distrustful = connector(&before, &[&TLS13], &[]);
    assert!(distrustful.connect(name, stream().await.unwrap()).await.is_err());
    old.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(hear(&mut old).await.starts_with("HTTP/1.1 200 OK"));

    let elsewhere = tempfile::tempdir().unwrap();
    let (TlsFiles { key, .. }, _) = make(elsewhere.path());
    std::fs::copy(key, server.dir.path().join("key.pem")).unwrap();
    assert!(server.certificate.reload().is_err());
    server.lives().await;
}

/// Handlers can see whether a request came over TLS.
#[tokio::test]
async fn handlers_know() {
    for over in BOTH {
        let server = Server::start(over, short()).await;
        let answer = server.say("GET /tls HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.ends_with(if over == Over::Tls { "true" } else { "false" }), "{answer}");
    }
}
