//! Keeps one guest's channel: configures the guest once per boot, subscribes, and asks for the
//! status whenever the guest says that something happened. Hangs up when somebody else wants the
//! channel, and comes back afterwards.
//!
//! A guest may flood, lie, or never answer. It is read only as fast as it is asked, its bytes are
//! counted, and a connection that ends early is made again ever more rarely; no other guest waits.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tandem_core::Policy;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::lease::ChannelLeases;
use super::registry::Registry;
use super::told::Told;
use crate::agent::{Agent, AgentError, ChannelLimits};
use crate::hypervisor::ChannelSocket;
use crate::report::ChannelUse;

/// Shortest time between two questions to one guest.
const GAP: Duration = Duration::from_millis(50);
/// Wait before a broken connection is made again, doubled each time.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Longest such wait.
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// A connection that lasted for so long was a good one.
const LASTED: Duration = Duration::from_secs(60);
/// Most bytes that a guest may send within [`WINDOW`].
const MAX_WINDOW_BYTES: u64 = 4 << 20;
/// See [`MAX_WINDOW_BYTES`].
const WINDOW: Duration = Duration::from_secs(10);

/// What a guest's channel task shall do, as the last look at the domain has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DesiredState {
    /// Which start of the domain it is about.
    pub(super) run_id: String,
    /// Grows whenever the guest may have booted, or its service started, within that run.
    pub(super) boot: u64,
    /// Where the guest is, or why it can't be asked.
    pub(super) channel: Result<ChannelSocket, String>,
    /// What it is to be given, if anything; or why that is not sound.
    pub(super) policy: Result<Option<Policy>, String>,
}

/// Bonds that a guest was given.
#[derive(Debug, Clone)]
pub(super) struct Configured {
    /// In that run and boot.
    run_id: String,
    boot: u64,
    policy: Policy,
}

impl Configured {
    /// It is of that run and boot.
    fn is_of(&self, desired: &DesiredState) -> bool {
        self.run_id == desired.run_id && self.boot == desired.boot
    }

    /// The domain has a VF that the guest was not told of: one that a `<vf>` names by its alias alone is known by its
    /// MAC only once it is there.
    fn lacks(&self, desired: &DesiredState) -> bool {
        let Ok(Some(policy)) = &desired.policy else {
            return false;
        };
        policy.bonds.iter().any(|bond| {
            let known = self.policy.bonds.iter().find(|one| one.name == bond.name);
            let is_new = |vf| !known.is_some_and(|known| known.vfs.contains(vf));
            known.is_some() && bond.vfs.iter().any(is_new)
        })
    }
}

/// One guest's channel task.
#[derive(Debug)]
pub(super) struct ChannelTask {
    pub(super) name: String,
    pub(super) desired: watch::Receiver<DesiredState>,
    pub(super) channel_leases: Arc<ChannelLeases>,
    pub(super) registry: Arc<Registry>,
    /// A guest that says nothing is asked this often.
    pub(super) interval: Duration,
    /// What the guest got last, or said that it does not want.
    pub(super) configured: Option<Configured>,
    /// What was logged of it.
    pub(super) told: Told,
}

enum SessionEnd {
    Wanted,
    Changed,
    Failed(AgentError),
}

impl ChannelTask {
    /// Never ends by itself.
    pub(super) async fn keep(mut self) {
        let mut back_off = BACK_OFF;
        let mut changes = self.desired.clone();
        loop {
            let desired = self.desired.borrow_and_update().clone();
            changes.mark_unchanged();
            let socket = match &desired.channel {
                Ok(socket) => socket.clone(),
                Err(reason) => {
                    let reason = reason.clone();
                    self.registry.silent(&self.name, ChannelUse::None, reason);
                    self.changed(&mut changes, &desired).await;
                    continue;
                }
            };
            if self.channel_leases.is_wanted() {
                self.registry.leased(&self.name);
            }
            let channel_leases = Arc::clone(&self.channel_leases);
            let turn = tokio::select! {
                turn = channel_leases.enter() => turn,
                () = self.changed(&mut changes, &desired) => continue,
            };
            let begun = Instant::now();
            let configured = self.configured_for(&desired).cloned();
            let ended = tokio::select! {
                () = channel_leases.until_wanted() => SessionEnd::Wanted,
                () = differs(&mut changes, &desired, configured.as_ref()) => SessionEnd::Changed,
                error = self.session(&desired, &socket) => SessionEnd::Failed(error),
            };
            // The connection is closed by now.
            drop(turn);
            let lasted = begun.elapsed() >= LASTED;
            match ended {
                SessionEnd::Wanted => self.registry.leased(&self.name),
                SessionEnd::Changed => {}
                SessionEnd::Failed(error) => {
                    tracing::debug!("domain {}: {error}", self.name);
                    let reason = error.to_string();
                    self.registry.silent(&self.name, ChannelUse::None, reason);
                    if lasted {
                        back_off = BACK_OFF;
                    }
                    // A guest can bring about another desired state, but not that it may flood.
                    let patient = matches!(error, AgentError::Floods { .. });
                    tokio::select! {
                        () = sleep(back_off) => {}
                        () = self.changed(&mut changes, &desired), if !patient => {}
                    }
                    back_off = (back_off * 2).min(MAX_BACK_OFF);
                }
            }
        }
    }

    fn configured_for(&self, desired: &DesiredState) -> Option<&Configured> {
        let configured = self.configured.as_ref();
        configured.filter(|configured| configured.is_of(desired))
    }

    async fn changed(&self, changes: &mut watch::Receiver<DesiredState>, desired: &DesiredState) {
        differs(changes, desired, self.configured_for(desired)).await;
    }

    /// Talks to the guest until something fails.
    async fn session(&mut self, desired: &DesiredState, socket: &ChannelSocket) -> AgentError {
        match self.talk(desired, socket).await {
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    async fn talk(
        &mut self,
        desired: &DesiredState,
        socket: &ChannelSocket,
    ) -> Result<Infallible, AgentError> {
        let mut agent = Agent::connect(socket, ChannelLimits::default()).await?;
        agent.info().await?;
        let configured = self.configured_for(desired);
        if configured.is_none_or(|configured| configured.lacks(desired)) {
            self.configure(&mut agent, desired).await?;
        }
        match agent.subscribe().await {
            // It is asked now and then all the same.
            Ok(()) | Err(AgentError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut window = (Instant::now(), 0);
        loop {
            let asked = Instant::now();
            let (status, bytes) = agent.sized_status().await?;
            // What it told before its answer is in its answer.
            agent.forget_events();
            self.registry.guest(&self.name, status, bytes);
            if window.0.elapsed() >= WINDOW {
                window = (Instant::now(), agent.read_bytes());
            }
            if agent.read_bytes() - window.1 > MAX_WINDOW_BYTES {
                return Err(AgentError::Floods {
                    bytes: MAX_WINDOW_BYTES as usize,
                });
            }
            sleep_until(asked + GAP).await;
            if let Ok(heard) = timeout_at(asked + self.patience(), agent.heard()).await {
                heard?;
            }
        }
    }

    /// Not all guests are asked in the same moment.
    fn patience(&self) -> Duration {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 256).unwrap_or_default();
        self.interval + self.interval * share / 1024
    }

    async fn configure(
        &mut self,
        agent: &mut Agent,
        desired: &DesiredState,
    ) -> Result<(), AgentError> {
        let done = |policy: &Policy| {
            Some(Configured {
                run_id: desired.run_id.clone(),
                boot: desired.boot,
                policy: policy.clone(),
            })
        };
        let error = match &desired.policy {
            // Another look may show some.
            Ok(None) => None,
            // Another look may show better ones.
            Err(reason) => Some(reason.clone()),
            Ok(Some(policy)) => match agent.configure(policy.clone()).await {
                Ok((configured, lacks)) => {
                    if configured.changed
                        && let Some(more) = self.told.may()
                    {
                        tracing::info!("domain {}: the guest has its bonds{more}", self.name);
                    }
                    self.configured = done(policy);
                    lacks
                }
                // Asking again would not change the guest's mind.
                Err(error @ AgentError::Refused { .. }) => {
                    self.configured = done(policy);
                    Some(error.to_string())
                }
                Err(error) => {
                    self.registry
                        .configured(&self.name, Some(error.to_string()));
                    return Err(error);
                }
            },
        };
        if let Some(error) = &error
            && let Some(more) = self.told.may()
        {
            tracing::warn!(
                "domain {}: not configured as its XML says: {error}{more}",
                self.name
            );
        }
        self.registry.configured(&self.name, error);
        Ok(())
    }
}

/// Waits for a desired state for which the connection has to be made anew. Other bonds are one only where the guest has
/// none yet, or lacks a VF in them.
async fn differs(
    changes: &mut watch::Receiver<DesiredState>,
    desired: &DesiredState,
    configured: Option<&Configured>,
) {
    let other = |new: &DesiredState| {
        let same = new.run_id == desired.run_id
            && new.boot == desired.boot
            && new.channel == desired.channel
            && (new.policy == desired.policy
                || configured.is_some_and(|configured| !configured.lacks(new)));
        !same
    };
    if changes.wait_for(other).await.is_err() {
        // The supervisor is gone, and this task is about to be.
        std::future::pending::<()>().await;
    }
}
