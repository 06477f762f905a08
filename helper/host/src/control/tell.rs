//! Tells `serve` what it has no part in, and counts.

use std::path::Path;
use std::time::Duration;

use super::carry::CarryFigures;
use super::client::{ControlError, Watching};
use super::message::{ControlReply, ControlRequest};

/// The evacuation is over by then: nobody waits for a `serve` that hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the `serve` of this socket; one that does not run is told nothing.
///
/// # Errors
/// If it does not count it.
pub async fn tell_carry(socket: &Path, figures: CarryFigures) -> Result<(), ControlError> {
    let told = async {
        let mut connection = Watching::ask(socket, &ControlRequest::Carried { figures }).await?;
        match connection.next().await? {
            ControlReply::Counted {} => Ok(()),
            other => Err(ControlError::NotUnderstood {
                reason: format!("{other:?} is no answer to `carried`"),
            }),
        }
    };
    let silent = ControlError::Silent { limit: PATIENCE };
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Err(ControlError::NotRunning { .. })) => Ok(()),
        Ok(told) => told,
        Err(_) => Err(silent),
    }
}
