//! Accepting connections: HTTP/1.1 over TCP, or HTTP/1.1 and HTTP/2 over TLS, within bounds, until the server stops.
//!
//! hyper reads requests and writes answers; `wire` is the connection under it, over a `transport`; `streams` has what
//! HTTP/2 needs besides. What routes there are is not known here, nor where certificates come from.
//! Requests that hyper cannot read never reach a handler: a bad request line or header is 400, a URI longer than 65,534
//! bytes 414, too many or too long headers 431, headers that do not end in time 408; each with an OperationOutcome, and
//! the connection is closed. A client that is silent between requests is closed without a word.

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
use std::net::SocketAddr;
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

use crate::server::connection::limits::ConnectionLimits;
use crate::server::connection::request_tracker::{Peer, RequestTracker, TrackedBody, TrackedResponseBody};
use crate::server::connection::timeout_stream::{Protocol, TimeoutStream};
use crate::server::connection::transport::Transport;
use crate::server::error::{ApiError, OutcomeIssueType};

/// HTTP/2 as clients name it in the TLS handshake.
const ALPN_TWO: &[u8] = b"h2";

/// Pause after the system has refused a connection for want of something, such as file descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Longest time for which an HTTP/2 connection on which nothing is answered may take nothing while it is being closed:
/// the client is to confirm that, but one that is not just waiting for an answer may not listen.
const UNCONFIRMED_WAIT: Duration = Duration::from_secs(5);

/// Whether a request came over TLS to this server itself. Handlers find it among the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverTls(pub bool);

/// How a server's connections ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DrainState {
    /// Connections that were cut, since their answers took longer than the drain.
    pub cut: usize,
}

/// Answers connections until `stop` comes; then takes no more of them, and lets the answers in flight end within
/// `drain_wait`. Handlers find the client's address in [`ConnectInfo`], and whether it is still there in [`Peer`]. One
/// that panics costs its client a 500.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) -> DrainState {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let (stopping, stops) = watch::channel(());
    let host = Host {
        app: app.layer(CatchPanicLayer::custom(panicked)),
        tls,
        streams: Arc::new(Semaphore::new(limits.connections_max)),
        limits: Arc::new(limits),
        stops,
    };
    let mut open = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // Room first: a connection that is not accepted waits in the kernel, and costs nothing here.
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        while open.try_join_next().is_some() {}
        match accepted {
            Ok((stream, client)) => {
                let host = host.clone();
                open.spawn(async move {
                    let _permit = permit;
                    host.answer(stream, client).await;
                });
            }
            // The client has gone again before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection: check the limit of open files");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(stopping);
    let all = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(host.limits.drain_wait, all).await.is_ok() {
        return DrainState { cut: 0 };
    }
    while open.try_join_next().is_some() {}
    let cut = open.len();
    open.shutdown().await;
    DrainState { cut }
}

/// What every connection needs.
#[derive(Clone)]
struct Host {
    app: Router,
    tls: Option<TlsAcceptor>,
    limits: Arc<ConnectionLimits>,
    /// One permit for each request that may be under way on HTTP/2 connections.
    streams: Arc<Semaphore>,
    /// Tells when the server stops: the sender is dropped.
    stops: watch::Receiver<()>,
}

impl Host {
    /// Answers one connection's requests, until either side closes it.
    async fn answer(mut self, stream: TcpStream, client: SocketAddr) {
        // Answers are written whole, so that waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let since = Instant::now();
        let ended = match self.tls.take() {
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
                    Ok(Err(error)) => Err(format!("no TLS: {error}")),
                    Err(_) => Err("the TLS handshake took too long".to_string()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%client, error, "a connection ended early");
        }
    }

    /// HTTP/1.1.
    async fn answer_one(
        mut self,
        stream: impl Transport,
        since: Instant,
        client: SocketAddr,
        tls: OverTls,
    ) -> hyper::Result<()> {
        let (flow, limits) = (Arc::new(RequestTracker::default()), self.limits);
        let wire = TimeoutStream::new(stream, Protocol::One, since, flow.clone(), limits.clone());
        let mut builder = http1::Builder::new();
        builder
            .half_close(true) // a client that has said all may still listen
            .header_read_timeout(None) // the wire has this wait, and others
            .max_headers(limits.headers_max)
            .max_header_size(limits.head_bytes_max)
            .max_buf_size(limits.head_bytes_max.max(8192));
        let door = ConnectionService { app: self.app, client, tls, flow, limits, streams: None };
        let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), door));
        tokio::select! {
            ended = &mut connection => return ended,
            _ = self.stops.changed() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }

    /// HTTP/2.
    async fn answer_two(mut self, stream: impl Transport, since: Instant, client: SocketAddr) -> hyper::Result<()> {
        let (flow, limits) = (Arc::new(RequestTracker::default()), self.limits);
        let wire = TimeoutStream::new(stream, Protocol::Two, since, flow.clone(), limits.clone());
        let streams = Some(self.streams);
        let door = ConnectionService { app: self.app, client, tls: OverTls(true), flow: flow.clone(), limits, streams };
        let limits = door.limits.clone();
        let mut connection = pin!(http2::builder(&limits).serve_connection(TokioIo::new(wire), door));
        tokio::select! {
            ended = &mut connection => return ended,
            () = http2::wait_idle(&flow, since, &limits) => {}
            _ = self.stops.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => ended,
            () = http2::wait_still(&flow, UNCONFIRMED_WAIT) => Ok(()),
        }
    }
}

/// The way from a connection to the routes.
struct ConnectionService {
    app: Router,
    client: SocketAddr,
    tls: OverTls,
    flow: Arc<RequestTracker>,
    limits: Arc<ConnectionLimits>,
    /// Where requests get a permit; none where there is one at a time.
    streams: Option<Arc<Semaphore>>,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = hyper::Response<TrackedResponseBody<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut answering = self.flow.begin();
        let mut request =
            request.map(|body| Body::new(TrackedBody::new(body, self.flow.clone(), self.limits.body_wait)));
        request.extensions_mut().insert(ConnectInfo(self.client));
        request.extensions_mut().insert(self.tls);
        request.extensions_mut().insert(Peer::new(self.flow.clone()));
        let Some(streams) = self.streams.clone() else {
            let answer = self.app.clone().call(request);
            return Box::pin(async move {
                Ok(answer.await?.map(|body| TrackedResponseBody { body, _answering: answering }))
            });
        };
        if request.headers().len() > self.limits.headers_max {
            let response = protocol_errors::too_many_headers(&self.limits).into_response();
            return Box::pin(
                async move { Ok(response.map(|body| TrackedResponseBody { body, _answering: answering })) },
            );
        }
        let mut app = self.app.clone();
        Box::pin(async move {
            answering.hold(streams.acquire_owned().await.ok());
            Ok(app.call(request).await?.map(|body| TrackedResponseBody { body, _answering: answering }))
        })
    }
}

/// The answer of a handler that has panicked. What it said goes to the panic hook, not to the client.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    let reason = "the server failed at this request: try again, and tell its operator";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, OutcomeIssueType::Exception, reason).into_response()
}
