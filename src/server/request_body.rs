//! Bodies of requests, read as a whole: within a length, a time, and a share of the memory for all of them.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use bytes::BytesMut;
use http_body_util::BodyExt;

use crate::issue::IssueCode;
use crate::server::admission::AnswerPlace;
use crate::server::error::ApiError;

/// Limits of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// Most bytes.
    pub bytes_max: usize,
    /// Longest time from its first byte to its last.
    pub whole_wait: Duration,
}

/// Reads the whole body of a request into memory. What it takes counts for the client until the answer has ended.
///
/// # Errors
/// 413 for a longer body, 503 for one that does not fit into what bodies may take at a time, 408 for one that takes longer
/// than it may, 400 for one that breaks off.
pub(crate) async fn read_body(body: Body, limits: BodyLimits, place: Option<&AnswerPlace>) -> Result<Bytes, ApiError> {
    let reading = collect(body, limits.bytes_max, place);
    tokio::time::timeout(limits.whole_wait, reading).await.unwrap_or_else(|_| {
        let text = format!(
            "the body took longer than {} seconds, which is what this service gives it: send less, or faster",
            limits.whole_wait.as_secs()
        );
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, IssueCode::Timeout, text))
    })
}

/// As [`read_body`], however long it takes.
async fn collect(mut body: Body, bytes_max: usize, place: Option<&AnswerPlace>) -> Result<Bytes, ApiError> {
    let too_long = || {
        let text = format!("the body has more than {bytes_max} bytes, which is what this service takes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, IssueCode::TooLong, text)
    };
    let hold = |bytes: usize| place.map_or(Ok(()), |place| place.hold_request_bytes(bytes as u64));
    // 1. A length that is announced is refused, or held, before a byte of it is read.
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > bytes_max) {
        return Err(too_long());
    }
    let mut held = announced.unwrap_or(0);
    hold(held)?;
    // 2. Its bytes.
    let mut whole = BytesMut::with_capacity(held);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let text = "the body did not arrive as a whole; send it again";
            ApiError::new(StatusCode::BAD_REQUEST, IssueCode::Incomplete, text)
        })?;
        let Ok(piece) = frame.into_data() else { continue };
        let length = whole.len() + piece.len();
        if length > bytes_max {
            return Err(too_long());
        }
        if length > held {
            // Its buffer grows by doubling.
            let next = length.max(held * 2).min(bytes_max);
            hold(next - held)?;
            whole.reserve(next - whole.len());
            held = next;
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}
