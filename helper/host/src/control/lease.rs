//! The one way to a guest's channel for everybody but `serve`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;

use super::client::{ControlError, Watching};
use super::message::{ControlReply, ControlRequest};
use crate::agent::{Agent, AgentError, ChannelLimits};
use crate::hypervisor::ChannelSocket;

/// How long to wait for `serve`, and for another tool that has the channel.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks `serve` for the channel of one domain before it is opened, and keeps it until dropped.
/// Where no `serve` runs, there is nothing to ask.
#[derive(Debug, Default)]
pub struct LeaseClient {
    socket: Option<PathBuf>,
    lease: Mutex<Option<Watching>>,
}

impl LeaseClient {
    /// A client that asks on this socket.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: Some(socket.to_owned()),
            lease: Mutex::default(),
        }
    }

    /// Where it asks.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Opens a guest's channel, and agrees with the guest on a version of the messages: nothing else is asked
    /// before. `domain` is the same each time.
    ///
    /// # Errors
    /// As [`Agent::connect`] and [`Agent::info`], and if another tool has the channel.
    pub async fn connect(
        &self,
        domain: &str,
        channel: &ChannelSocket,
        limits: ChannelLimits,
    ) -> Result<Agent, AgentError> {
        self.hold(domain).await?;
        let mut agent = Agent::connect(channel, limits).await?;
        agent.info().await?;
        Ok(agent)
    }

    /// Has the lease, or knows that none is needed.
    async fn hold(&self, domain: &str) -> Result<(), AgentError> {
        let Some(socket) = &self.socket else {
            return Ok(());
        };
        let mut lease = self.lease.lock().await;
        if lease.as_ref().is_some_and(|lease| !lease.is_over()) {
            return Ok(());
        }
        *lease = None;
        match take(socket, domain).await {
            Ok(taken) => *lease = Some(taken),
            Err(ControlError::NotRunning { .. }) => {}
            Err(ControlError::Silent { .. }) => {
                return Err(AgentError::Leased {
                    domain: domain.to_owned(),
                    limit: PATIENCE,
                });
            }
            // The channel itself will say whether it is free.
            Err(error) => tracing::warn!("no lease of domain {domain}: {error}"),
        }
        Ok(())
    }
}

async fn take(socket: &Path, domain: &str) -> Result<Watching, ControlError> {
    let domain = domain.to_owned();
    let mut connection = Watching::ask(socket, &ControlRequest::Lease { domain }).await?;
    match connection.next_within(PATIENCE).await? {
        ControlReply::Leased {} => Ok(connection),
        other => Err(ControlError::NotUnderstood {
            reason: format!("{other:?} is no answer to `lease`"),
        }),
    }
}
