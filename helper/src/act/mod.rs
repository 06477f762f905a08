//! Carries out the machine's actions; the only place that changes the kernel.
//!
//! Each action runs on a thread of its own, with sockets of its own: a netlink
//! request is carried out in the caller's context, and a driver may hold the
//! kernel's RTNL lock for seconds (iavf waits up to 2.5 s for its PF when a MAC is
//! set), in which the service's own thread has to go on.

mod addressing;
mod announce;
mod assign;
mod bond;
mod clone;
mod frames;
mod link;
mod local;
mod nexthop;

use std::future::Future;
use std::io;
use std::time::Duration;

use tandem_core::action::{Action, ActionKind};
use tandem_core::input::{Outcome, Source};
use tandem_core::types::Ifindex;
use tokio::task::JoinHandle;

use crate::observe::netlink::request::{RequestError, Requests};
use crate::observe::reader::one_link;
use crate::observe::{Completion, Touched};

/// Longest time that an action may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Carries out actions, each within a time limit.
#[derive(Debug, Clone)]
pub struct Executor {
    limit: Duration,
}

impl Executor {
    /// An executor with the usual time limit.
    pub fn new() -> io::Result<Self> {
        Ok(Self { limit: LIMIT })
    }

    /// Starts an action. The future ends within the time limit; hand its result to
    /// [`crate::observe::Sources::complete`], which reads what was touched and then
    /// yields the `Input::Done`. Actions that are started one after the other run
    /// side by side.
    ///
    /// `Reply` and `Notify` are not for the executor, nor is `Observe` of the eBPF
    /// monitor and of the channel; `Observe` of the others is answered at once.
    ///
    /// Has to be called within a tokio runtime. An action that has run into its
    /// time limit keeps its thread until the kernel lets it go, so end the runtime
    /// with `shutdown_background`.
    pub fn start(&self, action: Action) -> impl Future<Output = Completion> + Send + 'static {
        let Action { id, kind } = action;
        let limit = self.limit;
        let touched = touched_by(&kind);
        let work = tokio::task::spawn_blocking(move || carry_out(&kind));
        async move {
            let outcome = outcome_within(limit, work).await;
            Completion {
                action: id,
                outcome,
                touched,
            }
        }
    }
}

/// Waits for an action, but not longer than the limit.
async fn outcome_within(limit: Duration, work: JoinHandle<Result<(), ActError>>) -> Outcome {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(Ok(()))) => Outcome::Accepted,
        Ok(Ok(Err(error))) => error.into_outcome(),
        Ok(Err(error)) => Outcome::Failed {
            errno: 0,
            message: format!("the action ended abnormally: {error}"),
        },
        Err(_) => Outcome::TimedOut,
    }
}

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
enum ActError {
    /// A device it was meant for is not there.
    #[error("the device is gone")]
    Gone,
    /// A step failed.
    #[error("{step}: {error}")]
    Step {
        /// What was being done, with the device's name.
        step: String,
        /// Why it failed.
        error: RequestError,
    },
    /// It can't be done as things are.
    #[error("{message}")]
    Refused {
        /// The error number that fits.
        errno: i32,
        /// What is in the way and what to do.
        message: String,
    },
    /// A packet could not be sent.
    #[error("{step}: {error}")]
    Send {
        /// What was being done.
        step: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl ActError {
    /// For `map_err`: names the step that failed.
    fn at(step: impl Into<String>) -> impl FnOnce(RequestError) -> Self {
        move |error| Self::Step {
            step: step.into(),
            error,
        }
    }

    fn into_outcome(self) -> Outcome {
        let errno = match &self {
            Self::Gone => return Outcome::Gone,
            Self::Step {
                error: RequestError::TimedOut,
                ..
            } => return Outcome::TimedOut,
            Self::Step { error, .. } => error.errno(),
            Self::Refused { errno, .. } => *errno,
            Self::Send { error, .. } => error.raw_os_error().unwrap_or(0),
        };
        Outcome::Failed {
            errno,
            message: self.to_string(),
        }
    }
}

fn carry_out(kind: &ActionKind) -> Result<(), ActError> {
    let mut requests = Requests::open().map_err(ActError::at("open a netlink socket"))?;
    let result = attempt(&mut requests, kind);
    let Err(error) = result else {
        return Ok(());
    };
    // A device that vanished shows in many ways; a request that names it as a
    // bond's new member gets EINVAL, for instance.
    for device in devices_of(kind) {
        if matches!(one_link(&mut requests, device), Ok(None)) {
            return Err(ActError::Gone);
        }
    }
    Err(error)
}

fn attempt(requests: &mut Requests, kind: &ActionKind) -> Result<(), ActError> {
    match *kind {
        ActionKind::CreateBond {
            ref name,
            mac,
            options,
        } => bond::create(requests, name, mac, &options),
        ActionKind::SetBondOptions { bond, options } => bond::set_options(requests, bond, &options),
        ActionKind::SetPrimary { bond, port } => bond::set_primary(requests, bond, port),
        ActionKind::SetAdminUp { link, up } => link::set_admin_up(requests, link, up),
        ActionKind::SetMtu { link, mtu } => link::set_mtu(requests, link, mtu),
        ActionKind::SetMac { link, mac } => link::set_mac(requests, link, mac),
        ActionKind::Enslave { port, bond } => link::enslave(requests, port, bond),
        ActionKind::Release { port, bond } => link::release(requests, port, bond),
        ActionKind::MoveAddressing { from, to } => addressing::r#move(requests, from, to),
        ActionKind::AddAddressing {
            link,
            ref addresses,
            ref routes,
        } => assign::add(requests, link, addresses, routes),
        ActionKind::FlushAddressing { link } => addressing::flush(requests, link),
        ActionKind::Announce { bond, port } => announce::announce(requests, bond, port),
        ActionKind::Observe {
            source: Source::Links | Source::Addressing | Source::Udev,
        } => Ok(()),
        ActionKind::Observe { .. } | ActionKind::Reply { .. } | ActionKind::Notify(_) => {
            Err(ActError::Refused {
                errno: 0,
                message: "not an action of the executor".to_owned(),
            })
        }
    }
}

/// The devices without which an action makes no sense.
fn devices_of(kind: &ActionKind) -> Vec<Ifindex> {
    match *kind {
        ActionKind::SetBondOptions { bond, .. } => vec![bond],
        ActionKind::SetAdminUp { link, .. }
        | ActionKind::SetMtu { link, .. }
        | ActionKind::SetMac { link, .. }
        | ActionKind::AddAddressing { link, .. }
        | ActionKind::FlushAddressing { link } => vec![link],
        ActionKind::Enslave { port, bond }
        | ActionKind::Release { port, bond }
        | ActionKind::SetPrimary { bond, port }
        | ActionKind::Announce { bond, port } => vec![port, bond],
        ActionKind::MoveAddressing { from, to } => vec![from, to],
        ActionKind::CreateBond { .. }
        | ActionKind::Observe { .. }
        | ActionKind::Reply { .. }
        | ActionKind::Notify(_) => Vec::new(),
    }
}

/// What has to be read after an action, whatever came of it.
fn touched_by(kind: &ActionKind) -> Touched {
    match *kind {
        // Its index is not known yet.
        ActionKind::CreateBond { .. } => Touched {
            source: Some(Source::Links),
            ..Touched::default()
        },
        ActionKind::Observe { source } => Touched {
            source: Some(source),
            ..Touched::default()
        },
        ActionKind::Announce { .. } | ActionKind::Reply { .. } | ActionKind::Notify(_) => {
            Touched::default()
        }
        ActionKind::MoveAddressing { .. }
        | ActionKind::AddAddressing { .. }
        | ActionKind::FlushAddressing { .. } => Touched {
            addressing: devices_of(kind),
            ..Touched::default()
        },
        // Opening and closing a link makes and removes addresses and routes.
        ActionKind::SetAdminUp { .. } | ActionKind::Enslave { .. } | ActionKind::Release { .. } => {
            Touched {
                links: devices_of(kind),
                addressing: devices_of(kind),
                source: None,
            }
        }
        ActionKind::SetBondOptions { .. }
        | ActionKind::SetMtu { .. }
        | ActionKind::SetMac { .. }
        | ActionKind::SetPrimary { .. } => Touched {
            links: devices_of(kind),
            ..Touched::default()
        },
    }
}

#[cfg(test)]
mod tests;
