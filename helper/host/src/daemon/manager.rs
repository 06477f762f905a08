//! The service manager (`sd_notify(3)`): it hears that the service began, and that its loop still turns.
//! Without a manager every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// What the manager wants to hear.
#[derive(Debug)]
pub(super) struct Manager {
    /// Half of the watchdog's limit (`sd_watchdog_enabled(3)`), if there is a watchdog.
    every: Option<Duration>,
    at: Instant,
}

impl Manager {
    /// The service began.
    pub(super) fn ready() -> Self {
        tell(NotifyState::Ready);
        Self {
            every: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            at: Instant::now(),
        }
    }

    /// The loop turns. Returns when it should say so again, if ever.
    pub(super) fn alive(&mut self) -> Option<Instant> {
        let every = self.every?;
        let now = Instant::now();
        if self.at <= now {
            tell(NotifyState::Watchdog);
            self.at = now + every;
        }
        Some(self.at)
    }

    /// The service ends on purpose.
    pub(super) fn stopping(&self) {
        tell(NotifyState::Stopping);
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager can't be told: {error}");
    }
}
