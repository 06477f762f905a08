//! What a hypervisor is asked that something hangs on.

use std::time::Duration;

use tokio::time::timeout;

use crate::hypervisor::Answer;

/// No answer is waited for longer; the question is asked again.
pub(super) const ASK: Duration = Duration::from_secs(2);

/// What it answers, if it does.
pub(super) async fn asked<T>(answer: Answer<'_, T>) -> Option<T> {
    match timeout(ASK, answer).await {
        Ok(Ok(told)) => Some(told),
        Ok(Err(error)) => {
            tracing::debug!("{error}");
            None
        }
        Err(_) => None,
    }
}
