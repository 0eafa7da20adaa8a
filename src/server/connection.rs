//! Accepting connections: HTTP/1.1 over TCP, within bounds, until the server stops.
//!
//! hyper reads requests and writes answers; `wire` is the socket under it. What routes there are is not known here.
//! Requests that hyper cannot read never reach a handler: a bad request line or header is 400, a URI longer than 65,534
//! bytes 414, too many or too long headers 431, headers that do not end in time 408; each with an OperationOutcome, and
//! the connection is closed. A client that is silent between requests is closed without a word.

mod flow;
mod limits;
mod unread;
mod wire;

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
use tower::Service;
use tower_http::catch_panic::CatchPanicLayer;

use self::flow::{Answer, Asked, Flow};
pub use self::limits::ConnectionLimits;
use self::wire::Wire;
use crate::server::outcome::{IssueType, Refusal};

/// Pause after the system has refused a connection for want of something, such as file descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// How a server's connections ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut, since their answers took longer than the drain.
    pub cut: usize,
}

/// Answers connections until `stop` comes; then takes no more of them, and lets the answers in flight end within
/// `drain_wait`. Handlers find the client's address in [`ConnectInfo`]. One that panics costs its client a 500.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) -> Drained {
    let app = app.layer(CatchPanicLayer::custom(panicked));
    let limits = Arc::new(limits);
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let (stopping, stops) = watch::channel(());
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
                let (app, limits, stops) = (app.clone(), limits.clone(), stops.clone());
                open.spawn(async move {
                    let _permit = permit;
                    answer(stream, client, app, limits, stops).await;
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
    if tokio::time::timeout(limits.drain_wait, all).await.is_ok() {
        return Drained { cut: 0 };
    }
    while open.try_join_next().is_some() {}
    let cut = open.len();
    open.shutdown().await;
    Drained { cut }
}

/// Answers one connection's requests, until either side closes it.
async fn answer(
    stream: TcpStream,
    client: SocketAddr,
    app: Router,
    limits: Arc<ConnectionLimits>,
    mut stops: watch::Receiver<()>,
) {
    // Answers are written whole, so that waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let flow = Arc::new(Flow::default());
    let door = Door { app, client, flow: flow.clone(), body_wait: limits.body_wait };
    let mut builder = http1::Builder::new();
    builder
        .half_close(true) // a client that has said all may still listen
        .header_read_timeout(None) // the wire has this wait, and others
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.head_bytes_max.max(8192));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Wire::new(stream, flow, limits)), door));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // The sender is dropped when the server stops.
        _ = stops.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%client, %error, "a connection ended early");
    }
}

/// The way from a connection to the routes.
struct Door {
    app: Router,
    client: SocketAddr,
    flow: Arc<Flow>,
    body_wait: Duration,
}

impl hyper::service::Service<Request<Incoming>> for Door {
    type Response = hyper::Response<Answer<Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answering = self.flow.begin();
        let mut request = request.map(|body| Body::new(Asked::new(body, self.flow.clone(), self.body_wait)));
        request.extensions_mut().insert(ConnectInfo(self.client));
        let answer = self.app.clone().call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Answer { body, _answering: answering })) })
    }
}

/// The answer of a handler that has panicked. What it said goes to the panic hook, not to the client.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    let reason = "the server failed at this request: try again, and tell its operator";
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, IssueType::Exception, reason).into_response()
}

#[cfg(test)]
mod tests;
