//! Talk with the service manager: READY, STATUS, RELOADING and the watchdog
//! (`sd_notify(3)`). Without a manager every call does nothing.

use std::time::Duration;

use sd_notify::NotifyState;
use tandem_core::Status;

/// The service manager, as far as it wants to hear from us.
#[derive(Debug, Default)]
pub struct ServiceManager {
    last_status: String,
}

impl ServiceManager {
    /// How often the watchdog wants to hear from us: half of its limit
    /// (`sd_watchdog_enabled(3)`); `None` if there is no watchdog.
    pub fn watchdog_interval() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|limit| limit / 2)
    }

    /// The service observes, decides and acts.
    pub fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    /// The configuration is being read anew; [`ServiceManager::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "no monotonic time for the service manager"),
        }
    }

    /// The service ends on purpose.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }

    /// The main loop turns.
    pub fn alive(&self) {
        send(&[NotifyState::Watchdog]);
    }

    /// One line for `systemctl status`; sent only if it differs from the last.
    pub fn status(&mut self, status: &Status) {
        let line = line(status);
        if line != self.last_status {
            send(&[NotifyState::Status(&line)]);
            self.last_status = line;
        }
    }
}

/// `bond0: VF enp2s0 carries the traffic; bond1: …`, after what is wrong beyond a single bond.
fn line(status: &Status) -> String {
    let general = status
        .problems
        .iter()
        .map(|problem| problem.message.clone());
    let mut parts: Vec<_> = general.collect();
    let bonds = status.bonds.iter();
    parts.extend(bonds.map(|bond| format!("{}: {}", bond.name, bond.reason)));
    if status.bonds.is_empty() {
        parts.push("no bond is configured".to_string());
    }
    // The protocol has a line for each variable (`sd_notify(3)`).
    parts.join("; ").replace(char::is_control, " ")
}

/// The start goes on, and takes up to so much longer from now on (`EXTEND_TIMEOUT_USEC` of `sd_notify(3)`).
pub(crate) fn needs_longer(time: Duration) {
    let time = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(time)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager can't be told");
    }
}
