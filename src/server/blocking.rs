//! Work of handlers that blocks, on threads that may.

use axum::http::StatusCode;

use crate::issue::IssueCode;
use crate::server::error::ApiError;

/// Runs `work` on a thread that may block.
///
/// # Errors
/// Those of `work`; 500 if it panics.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        let text = "the service failed at this request: try again, and tell its operator";
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, IssueCode::Exception, text))
    })
}
