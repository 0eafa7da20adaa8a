//! Connections: HTTP/1.1 over TCP, or HTTP/1.1 and HTTP/2 over TLS, within limits, until the server stops.
//!
//! hyper reads requests and writes answers, over a `timeout_stream` over a `transport`; `http2` has the deadlines of
//! HTTP/2. Routes and certificates are the caller's. Requests that hyper cannot read reach no handler: a malformed
//! request line or header is 400, a URI longer than 65,534 bytes 414, too many or too long headers 431, headers that
//! do not end in time 408; each with an OperationOutcome, after which the connection is closed. A connection that is
//! silent between requests is closed without an answer.

pub(crate) mod http2;
pub(crate) mod limits;
pub(crate) mod protocol_errors;
pub(crate) mod request_tracker;
pub(crate) mod stream_pace;
#[cfg(test)]
mod tests;
pub(crate) mod timeout_stream;
pub(crate) mod timer;
pub(crate) mod transport;

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;

use crate::issue::IssueCode;
use crate::server::connection::limits::ConnectionLimits;
use crate::server::connection::request_tracker::{Peer, RequestTracker, TrackedBody, TrackedResponseBody};
use crate::server::connection::timeout_stream::{Protocol, TimeoutStream};
use crate::server::connection::transport::Transport;
use crate::server::error::ApiError;
use crate::server::shares::{Holder, Shares};

/// ALPN identifier of HTTP/2.
const ALPN_TWO: &[u8] = b"h2";

/// Pause after `accept` failed for lack of a resource, such as file descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Longest time for which a closing HTTP/2 connection without requests in progress may take no bytes. Its client
/// should confirm the close, but may not be listening.
const UNCONFIRMED_WAIT: Duration = Duration::from_secs(5);

/// Request extension: whether the request came over TLS to this server, not to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverTls(pub bool);

/// Request extension: the target of the request had a fragment, which the library has left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TargetFragment;

/// Connections that an address may have whatever it has already, while there is room: those of a busy browser or client.
const CONNECTIONS_LEAST: u64 = 32;

/// Closes a connection of an address that has its share. Where no TLS is to be spoken, it is told so first, as far as the
/// kernel takes the bytes at once.
fn refuse(stream: &TcpStream, over_tls: bool) {
    if !over_tls {
        let _ = stream.try_write(&protocol_errors::too_many_connections().bytes);
    }
}

/// Tells the log of refused connections, at most once in [`REFUSALS_PAUSE`].
#[derive(Default)]
struct RefusalLog {
    told: Option<Instant>,
    /// Refused since.
    count: u64,
}

impl RefusalLog {
    /// Counts a refused connection of an address, and tells the log of it if it is time.
    fn note(&mut self, address: IpAddr) {
        self.count += 1;
        if self.told.is_none_or(|told| told.elapsed() >= REFUSALS_PAUSE) {
            let count = std::mem::take(&mut self.count);
            tracing::warn!(client = %address, count, "connections were refused: an address has its share of them open");
            self.told = Some(Instant::now());
        }
    }
}

/// Pause between two lines of the log about refused connections.
const REFUSALS_PAUSE: Duration = Duration::from_secs(10);

/// Result of the drain when a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainState {
    /// Number of connections that were cut, since their answers took longer than the drain.
    pub cut: usize,
}

/// Serves connections until `stop` resolves, of each address but the exempt ones so many that there is room for those of
/// others; then accepts no more, and gives the answers in flight `drain_wait` to
/// end. Requests carry the client's address as [`ConnectInfo`], the state of its connection as [`Peer`], and
/// [`OverTls`]. A handler that panics is answered 500.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    limits: ConnectionLimits,
    exempt: impl Fn(IpAddr) -> bool,
    stop: impl Future<Output = ()>,
) -> DrainState {
    // 1. Shared state of the connections.
    let shares = Shares::new(limits.connections_max as u64, CONNECTIONS_LEAST);
    let mut refusals = RefusalLog::default();
    let connection_permits = Arc::new(Semaphore::new(limits.connections_max));
    let (stopping, stops) = watch::channel(());
    let context = ServerContext { app: app.layer(catch_panics()), tls, limits: Arc::new(limits), stops };
    // 2. Accept until `stop`.
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // The permit comes first: a connection that is not accepted waits in the kernel and takes no memory here.
            let permit = connection_permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, client)) => {
                let holder = Holder::Address(client.ip().to_canonical());
                let share = match exempt(client.ip()) {
                    true => None,
                    false => match shares.take(&holder, 1) {
                        Some(share) => Some(share),
                        None => {
                            refusals.note(client.ip());
                            refuse(&stream, context.tls.is_some());
                            continue;
                        }
                    },
                };
                let context = context.clone();
                connections.spawn(async move {
                    let _held = (permit, share);
                    context.answer(stream, client).await;
                });
            }
            // The client closed the connection before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: check the limit of open files");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
    // 3. Drain.
    drop(listener);
    drop(stopping);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(context.limits.drain_wait, all_ended).await.is_ok() {
        return DrainState { cut: 0 };
    }
    while connections.try_join_next().is_some() {}
    let cut = connections.len();
    connections.shutdown().await;
    DrainState { cut }
}

/// Shared state of all connections; each has a clone.
#[derive(Clone)]
struct ServerContext {
    app: Router,
    tls: Option<TlsAcceptor>,
    limits: Arc<ConnectionLimits>,
    /// Changes when the server stops: its sender is dropped.
    stops: watch::Receiver<()>,
}

impl ServerContext {
    /// Serves the requests of one connection until either side closes it.
    async fn answer(mut self, stream: TcpStream, client: SocketAddr) {
        // Answers are written in large pieces: Nagle's algorithm would only delay their ends.
        let _ = stream.set_nodelay(true);
        let since = Instant::now();
        let result = match self.tls.take() {
            None => self.answer_one(stream, since, client, OverTls(false)).await.map_err(|error| error.to_string()),
            Some(tls) => {
                let handshake = tokio::time::timeout(self.limits.head_wait, tls.accept(stream));
                let stream = tokio::select! {
                    stream = handshake => stream,
                    _ = self.stops.changed() => return,
                };
                match stream {
                    Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ALPN_TWO) => {
                        self.answer_two(stream, since, client).await.map_err(|error| error.to_string())
                    }
                    Ok(Ok(stream)) => {
                        self.answer_one(stream, since, client, OverTls(true)).await.map_err(|error| error.to_string())
                    }
                    Ok(Err(error)) => {
                        protocol_errors::log_cut(client, "no TLS");
                        Err(format!("no TLS: {error}"))
                    }
                    Err(_) => {
                        protocol_errors::log_cut(client, "the TLS handshake took too long");
                        Err("the TLS handshake took too long".to_string())
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%client, error, "a connection ended early");
        }
    }

    /// Serves an HTTP/1.1 connection.
    async fn answer_one(
        mut self,
        stream: impl Transport,
        since: Instant,
        client: SocketAddr,
        tls: OverTls,
    ) -> hyper::Result<()> {
        let (tracker, limits) = (Arc::new(RequestTracker::default()), self.limits);
        let timeout_stream =
            TimeoutStream::new(stream, Protocol::One, (since, client), tracker.clone(), limits.clone());
        let mut builder = http1::Builder::new();
        builder
            .half_close(true) // a client that has sent its last byte may still read
            .header_read_timeout(None) // `TimeoutStream` has this wait, and others
            .max_headers(limits.headers_max)
            .max_header_size(limits.head_bytes_max)
            .max_buf_size(limits.head_bytes_max.max(8192));
        let service = ConnectionService { app: self.app, client, tls, tracker, limits };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(timeout_stream), service));
        tokio::select! {
            ended = &mut connection => return ended,
            _ = self.stops.changed() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// Serves an HTTP/2 connection.
    async fn answer_two(mut self, stream: impl Transport, since: Instant, client: SocketAddr) -> hyper::Result<()> {
        let (tracker, limits) = (Arc::new(RequestTracker::default()), self.limits);
        let timeout_stream =
            TimeoutStream::new(stream, Protocol::Two, (since, client), tracker.clone(), limits.clone());
        let service = ConnectionService { app: self.app, client, tls: OverTls(true), tracker: tracker.clone(), limits };
        let limits = service.limits.clone();
        let mut connection =
            pin!(http2::builder(&limits, client).serve_connection(TokioIo::new(timeout_stream), service));
        tokio::select! {
            ended = &mut connection => return ended,
            () = http2::wait_idle(&tracker, since, &limits) => {}
            _ = self.stops.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => ended,
            () = http2::wait_still(&tracker, UNCONFIRMED_WAIT) => Ok(()),
        }
    }
}

/// The service of one connection: passes its requests to the routes.
struct ConnectionService {
    app: Router,
    client: SocketAddr,
    tls: OverTls,
    tracker: Arc<RequestTracker>,
    limits: Arc<ConnectionLimits>,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = hyper::Response<TrackedResponseBody<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = self.tracker.begin();
        let mut request =
            request.map(|body| Body::new(TrackedBody::new(body, self.tracker.clone(), self.limits.body_wait)));
        request.extensions_mut().insert(ConnectInfo(self.client));
        request.extensions_mut().insert(self.tls);
        request.extensions_mut().insert(Peer::new(self.tracker.clone()));
        if self.tracker.take_fragment(request.method(), request.uri()) {
            request.extensions_mut().insert(TargetFragment);
        }
        // Under HTTP/1.1 the library has counted them.
        if request.headers().len() > self.limits.headers_max {
            let response = protocol_errors::too_many_headers(&self.limits).into_response();
            protocol_errors::log_answer(self.client, response.status().as_u16(), "too many headers");
            return Box::pin(async move { Ok(response.map(|body| TrackedResponseBody { body, _answering: guard })) });
        }
        let answer = self.app.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| TrackedResponseBody { body, _answering: guard })) })
    }
}

/// Makes handlers that panic answer 500.
pub(crate) fn catch_panics() -> CatchPanicLayer<fn(Box<dyn Any + Send>) -> Response> {
    CatchPanicLayer::custom(panicked)
}

/// 500 of a handler that panicked. The panic message goes to the panic hook, not to the client.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    let reason = "the server failed at this request: try again, and tell its operator";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, reason).into_response()
}
