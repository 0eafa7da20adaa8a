//! Admission of requests: shares of the answers in progress, and of the memory that their bodies hold while clients do not
//! take them. So no client, and no address without one, keeps the others from being answered.
//!
//! An answer counts from its request until its last byte is taken, for the client's address at first, and for the client
//! once that is known. Health probes always go. Addresses of trusted proxies stand for many clients and are not counted.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use hyper::body::{Frame, SizeHint};

use crate::issue::IssueCode;
use crate::server::error::ApiError;
use crate::server::proxy::{Proxies, RequestOrigin};
use crate::server::shares::{Holder, Share, Shares};

/// Answers in progress that a client may have whatever it has already, while there is room: what a browser opens at once.
const ANSWERS_LEAST: u64 = 16;

/// Bytes of bodies of requests in memory, and of the parameters in them, over all clients, and those that a client may have whatever others have.
const REQUEST_BYTES: u64 = 192 << 20;
const REQUEST_BYTES_LEAST: u64 = 1 << 20;

/// Least bound of the bytes of bodies of requests in files, over all clients: more where eight largest ones are more.
const REQUEST_FILE_BYTES: u64 = 1 << 30;

/// Bytes of bodies in memory, over all clients.
const BODY_BYTES: u64 = 256 << 20;

/// Bodies up to this length, in bytes, are not counted: the number of answers bounds them.
const SMALL_BODY_BYTES: u64 = 16 << 10;

/// Downloads that decode a file up to the range that is asked for, over all clients: threads that may block are many more.
const SKIPS_MAX: u64 = 64;

/// The same of one client.
const CLIENT_SKIPS_MAX: u64 = 4;

/// `Retry-After` of an answer to a client that has its share in progress, in seconds.
const RETRY_SECONDS: u64 = 5;

/// Response extension: so many bytes of the body are held in memory; the others are read piece by piece as the client takes
/// them. Without it a body is held as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldBytes(pub u64);

/// The shares of a service.
pub(crate) struct Admission {
    answers: Shares,
    skips: Shares,
    request_bytes: Shares,
    request_file_bytes: Shares,
    body_bytes: Shares,
    proxies: Proxies,
}

impl Admission {
    /// Shares of so many answers in progress, to requests whose bodies have at most so many bytes.
    pub(crate) fn new(answers_max: usize, body_bytes_max: usize, proxies: Proxies) -> Admission {
        let body_bytes_max = body_bytes_max as u64;
        Admission {
            answers: Shares::new(answers_max as u64, ANSWERS_LEAST),
            skips: Shares::bounded(SKIPS_MAX, CLIENT_SKIPS_MAX),
            request_bytes: Shares::new(REQUEST_BYTES, REQUEST_BYTES_LEAST),
            request_file_bytes: Shares::new(REQUEST_FILE_BYTES.max(body_bytes_max.saturating_mul(8)), body_bytes_max),
            body_bytes: Shares::new(BODY_BYTES, SMALL_BODY_BYTES),
            proxies,
        }
    }

    /// Who a request counts for before it is authenticated; `None` for one of a trusted proxy itself.
    fn holder(&self, origin: Option<&RequestOrigin>) -> Option<Holder> {
        origin.map(|origin| origin.client).filter(|address| !self.proxies.trusts(*address)).map(Holder::Address)
    }
}

/// Request extension: the place of the answer among those in progress.
#[derive(Clone)]
pub(crate) struct AnswerPlace {
    answers: Shares,
    skips: Shares,
    request_bytes: Shares,
    request_file_bytes: Shares,
    held: Arc<Mutex<HeldPlace>>,
}

/// What an answer holds.
#[derive(Debug, Default)]
struct HeldPlace {
    holder: Option<Holder>,
    share: Option<Share>,
    /// Bytes of the request's body.
    request: Vec<Share>,
}

impl AnswerPlace {
    /// Counts the answer for the client that has authenticated, and no longer for its address.
    ///
    /// # Errors
    /// 429 if the client has its share of answers in progress.
    pub(crate) fn hand_over(&self, client: &str) -> Result<(), ApiError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = Holder::Client(client.to_string());
        held.share = None;
        held.share = Some(self.answers.take(&holder, 1).ok_or_else(answers_error)?);
        held.holder = Some(holder);
        Ok(())
    }
}

impl AnswerPlace {
    /// Counts bytes of the body of the request, held in memory, for its client, until the request is answered.
    ///
    /// # Errors
    /// 503 if the client may have no more at a time.
    pub(crate) fn hold_request_bytes(&self, bytes: u64) -> Result<(), ApiError> {
        self.hold(&self.request_bytes, bytes)
    }

    /// As [`AnswerPlace::hold_request_bytes`], for bytes in a file.
    ///
    /// # Errors
    /// 503 if the client may have no more at a time.
    pub(crate) fn hold_request_file_bytes(&self, bytes: u64) -> Result<(), ApiError> {
        self.hold(&self.request_file_bytes, bytes)
    }

    /// Takes a share of `units` for the body of the request.
    fn hold(&self, units: &Shares, bytes: u64) -> Result<(), ApiError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holder) = held.holder.clone().filter(|_| bytes > 0) else { return Ok(()) };
        let share = units.take(&holder, bytes).ok_or_else(|| {
            let text = "bodies of requests take as much room as they may at a time: send this one again later";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Throttled, text).retry_after(RETRY_SECONDS)
        })?;
        held.request.push(share);
        Ok(())
    }

    /// A permit to decode a file up to a range; nothing for a trusted proxy itself.
    ///
    /// # Errors
    /// 429 if the client has as many already, or all clients together.
    pub(crate) fn begin_skip(&self) -> Result<Option<Share>, ApiError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holder) = &held.holder else { return Ok(None) };
        self.skips.take(holder, 1).map(Some).ok_or_else(|| {
            let text = "this range is decoded from the start of its file, and as many such downloads as may be are at it: ask \
                        for the ranges one after the other, or for the stored coding with Accept-Encoding";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, text).retry_after(RETRY_SECONDS)
        })
    }
}

/// 429 for a client that has its share of answers in progress.
pub(crate) fn answers_error() -> ApiError {
    let text = "as many answers to this client are in progress as it may have at a time: read them to their ends, then ask \
                again";
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, IssueCode::Throttled, text).retry_after(RETRY_SECONDS)
}

/// Answers a request if its client may have another answer in progress, and 429 if not; 503 if its body would take more
/// memory than the client may hold.
pub(crate) async fn admit(State(admission): State<Arc<Admission>>, mut request: Request, next: Next) -> Response<Body> {
    if request.uri().path().starts_with("/health/") {
        return next.run(request).await;
    }
    let holder = admission.holder(request.extensions().get::<RequestOrigin>());
    let share = match &holder {
        Some(holder) => match admission.answers.take(holder, 1) {
            Some(share) => Some(share),
            None => return answers_error().into_response(),
        },
        None => None,
    };
    let held = Arc::new(Mutex::new(HeldPlace { holder, share, request: Vec::new() }));
    request.extensions_mut().insert(AnswerPlace {
        answers: admission.answers.clone(),
        skips: admission.skips.clone(),
        request_bytes: admission.request_bytes.clone(),
        request_file_bytes: admission.request_file_bytes.clone(),
        held: held.clone(),
    });
    let response = next.run(request).await;
    // What it holds from here on ends with the body.
    let HeldPlace { holder, share, .. } = std::mem::take(&mut *held.lock().unwrap_or_else(PoisonError::into_inner));
    let whole = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(0);
    let size = response.extensions().get::<HeldBytes>().map_or(whole, |held| held.0);
    let memory = match holder.filter(|_| size > SMALL_BODY_BYTES) {
        Some(holder) => match admission.body_bytes.take(&holder, size) {
            Some(memory) => Some(memory),
            None => {
                let text = "answers to this client that it has not read yet take as much memory as they may: read them, then \
                            ask again";
                return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, IssueCode::Throttled, text)
                    .retry_after(RETRY_SECONDS)
                    .into_response();
            }
        },
        None => None,
    };
    response.map(|body| Body::new(AdmittedBody { body, _answer: share, _memory: memory }))
}

/// The body of an answer, which gives back what it holds when it ends.
struct AdmittedBody {
    body: Body,
    _answer: Option<Share>,
    _memory: Option<Share>,
}

impl hyper::body::Body for AdmittedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use std::net::SocketAddr;
    use tower::ServiceExt;

    /// A service of few answers, whose route takes `size` bytes of memory.
    fn service(answers_max: usize, trusted: &[&str], size: usize) -> Router {
        let proxies = Proxies::parse(&trusted.iter().map(|text| text.to_string()).collect::<Vec<_>>()).unwrap();
        let admission = Arc::new(Admission::new(answers_max, 16 << 20, proxies.clone()));
        let hand_over = async |place: axum::Extension<AnswerPlace>| match place.hand_over("client") {
            Ok(()) => "mine".into_response(),
            Err(error) => error.into_response(),
        };
        Router::new()
            .route("/", get(move || async move { vec![0u8; size] }))
            .route("/mine", get(hand_over))
            .route(
                "/streamed",
                get(move || async move {
                    let mut response = vec![0u8; size].into_response();
                    response.extensions_mut().insert(HeldBytes(0));
                    response
                }),
            )
            .route("/health/live", get(|| async { "alive" }))
            .layer(axum::middleware::from_fn_with_state(admission, admit))
            .layer(tower::util::MapRequestLayer::new(move |request| proxies.mark_origin(request)))
    }

    async fn ask(service: &Router, from: &str, path: &str) -> Response<Body> {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let (peer, forwarded) = from.split_once(' ').unwrap_or((from, ""));
        let peer: SocketAddr = format!("{peer}:1").parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        if !forwarded.is_empty() {
            request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        }
        service.clone().oneshot(request).await.unwrap()
    }

    /// Asks until refused; the answers, which are in progress.
    async fn fill(service: &Router, from: &str, path: &str) -> Vec<Response<Body>> {
        let mut answers = Vec::new();
        loop {
            let answer = ask(service, from, path).await;
            match answer.status().as_u16() {
                200 => answers.push(answer),
                429 | 503 => return answers,
                other => panic!("{other}"),
            }
        }
    }

    /// Whoever has many answers in progress, there is room for the next one, and for health probes.
    #[tokio::test]
    async fn answers_in_progress_are_shared() {
        let service = service(1000, &["10.0.0.1"], 1);
        let first = fill(&service, "127.0.0.1", "/").await;
        assert_eq!(first.len(), 500);
        assert_eq!(fill(&service, "127.0.0.2", "/").await.len(), 250);
        assert_eq!(ask(&service, "127.0.0.1", "/health/live").await.status(), 200);
        // A proxy's clients are counted, and it itself is not.
        assert_eq!(fill(&service, "10.0.0.1 127.0.0.3", "/").await.len(), 250);
        for _ in 0..2000 {
            assert_eq!(ask(&service, "10.0.0.1", "/").await.status(), 200);
        }
        // A client that has authenticated counts for itself.
        assert_eq!(fill(&service, "127.0.0.4", "/mine").await.len(), 250);
        drop(first);
        let refused = ask(&service, "127.0.0.1", "/").await;
        assert_eq!(refused.status(), 200, "what was read is free again");
        let own = fill(&service, "127.0.0.1", "/").await;
        let refused = ask(&service, "127.0.0.1", "/").await;
        assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"5".parse().unwrap()));
        drop(own);
    }

    /// Bodies of requests are bounded in sum, whoever sends them.
    #[tokio::test]
    async fn bodies_of_requests_are_shared() {
        let admission = Admission::new(1000, 16 << 20, Proxies::default());
        let place = |number: u8| {
            let holder = Some(Holder::Address([127, 0, 0, number].into()));
            let held = HeldPlace { holder, ..HeldPlace::default() };
            AnswerPlace {
                answers: admission.answers.clone(),
                skips: admission.skips.clone(),
                request_bytes: admission.request_bytes.clone(),
                request_file_bytes: admission.request_file_bytes.clone(),
                held: Arc::new(Mutex::new(held)),
            }
        };
        let first = place(1);
        let taken = (0..100).take_while(|_| first.hold_request_file_bytes(16 << 20).is_ok()).count();
        assert_eq!(taken, 32);
        assert_eq!((0..1000).take_while(|_| first.hold_request_bytes(256 << 10).is_ok()).count(), 384);
        let second = place(2);
        assert_eq!((0..100).take_while(|_| second.hold_request_file_bytes(16 << 20).is_ok()).count(), 16);
        let refusal = second.hold_request_file_bytes(16 << 20).unwrap_err();
        assert_eq!(refusal.status, 503);
        drop(first);
        assert!(second.hold_request_file_bytes(16 << 20).is_ok());
        second.hold_request_bytes(0).unwrap();
    }

    /// Bodies in memory are bounded in sum, those that are read piece by piece are not counted.
    #[tokio::test]
    async fn bodies_in_memory_are_shared() {
        let service = service(1000, &[], 8 << 20);
        let held = fill(&service, "127.0.0.1", "/").await;
        assert_eq!(held.len(), 16);
        assert_eq!(fill(&service, "127.0.0.2", "/").await.len(), 8);
        drop(held);
        assert_eq!(ask(&service, "127.0.0.1", "/").await.status(), 200);
        let size = 1 << 20;
        assert_eq!(fill(&self::service(64, &[], size), "127.0.0.1", "/streamed").await.len(), 32);
    }
}
