//! A half whose starter is gone looks to the hypervisor itself: a guest that the carry's own stop has paused shall run,
//! and a migration that waits for a stop that nobody will order shall end by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tandem_carry_kernel::Order;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::settings::HalfArguments;
use super::words::ToHalf;
use crate::evacuate::Side;
use crate::hypervisor::{Answer, DomainState, Host, HostError, JobPhase, JobWhich};

/// No answer of the hypervisor takes longer.
const LIMIT: Duration = Duration::from_secs(5);

/// A stop that was asked for takes no longer.
const STOP: Duration = Duration::from_millis(200);

/// What it takes to ask the hypervisor of this half's side. Each question waits for its answer.
pub(super) struct Orphan {
    host: Arc<dyn Host>,
    handle: Handle,
    side: Side,
    domain: String,
    max_pause_ms: u64,
    full_speed: Option<u64>,
    /// Nothing more is asked, and no answer waited for.
    ended: Arc<watch::Sender<bool>>,
    /// A stop that was asked for before is done by then, or was never asked for.
    stops_until: Option<Instant>,
    /// Nothing is left to be done there.
    settled: bool,
}

impl Orphan {
    pub(super) fn new(arguments: &HalfArguments, host: Arc<dyn Host>, handle: Handle) -> Self {
        Self {
            host,
            handle,
            side: arguments.side,
            domain: arguments.domain.clone(),
            max_pause_ms: arguments.max_pause,
            full_speed: arguments.speed,
            ended: Arc::new(watch::Sender::new(false)),
            stops_until: None,
            settled: false,
        }
    }

    /// The hypervisor that it asks.
    pub(super) fn uri(&self) -> &str {
        self.host.uri()
    }

    /// Something is still to be done.
    pub(super) const fn is_busy(&self) -> bool {
        !self.settled
    }

    /// What ends each question that waits, and all that follow.
    pub(super) fn ended(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.ended)
    }

    /// What the hypervisor shows.
    pub(super) fn look(&mut self) -> Option<ToHalf> {
        let host = Arc::clone(&self.host);
        self.stops_until
            .get_or_insert_with(|| Instant::now() + STOP);
        match self.side {
            Side::Source => self.look_at_source(host.as_ref()),
            Side::Destination => self.look_at_destination(host.as_ref()),
        }
    }

    /// Has a migration end by itself that nobody will order a stop for, until that is done.
    pub(super) fn settle(&mut self) {
        if self.side == Side::Destination || self.settled {
            return;
        }
        let host = self.host.as_ref();
        let eased = self.ask(host.set_max_downtime(&self.domain, self.max_pause_ms));
        let hurried = self
            .full_speed
            .map(|speed| self.ask(host.set_speed(&self.domain, speed)));
        self.settled = eased.is_ok() && hurried.is_none_or(|hurried| hurried.is_ok());
    }

    fn look_at_source(&self, host: &dyn Host) -> Option<ToHalf> {
        let job = self.ask(host.job(&self.domain, JobWhich::Current));
        let phase = job.map(|job| job.phase).ok();
        match phase {
            Some(JobPhase::Completed) => return Some(ToHalf::MigrationCompleted),
            // A domain that has gone has no job to ask for.
            None | Some(JobPhase::None | JobPhase::Failed | JobPhase::Cancelled) => {}
            Some(_) => return self.look_at_migrating(host),
        }
        match self.ask(host.state(&self.domain)).ok()? {
            DomainState::Absent | DomainState::ShutOff => Some(ToHalf::MigrationCompleted),
            _ if phase.is_none() => None,
            DomainState::Running => Some(ToHalf::GuestRuns),
            // Whoever asked for it may have lost its connection only, and the guest run on the destination, where this half can't
            // look: `recover` does.
            _ if phase == Some(JobPhase::None) => None,
            _ => Some(ToHalf::MigrationFailed),
        }
    }

    /// Whoever was asked to stop the guest may have done so, or not.
    fn look_at_migrating(&self, host: &dyn Host) -> Option<ToHalf> {
        let is_late = self
            .stops_until
            .is_some_and(|until| Instant::now() >= until);
        match self.ask(host.state(&self.domain)).ok()? {
            DomainState::Paused => Some(ToHalf::GuestStopped),
            DomainState::Running if is_late => Some(ToHalf::GuestRuns),
            _ => None,
        }
    }

    fn look_at_destination(&mut self, host: &dyn Host) -> Option<ToHalf> {
        match self.ask(host.state(&self.domain)).ok()? {
            DomainState::Incoming => None,
            DomainState::Paused => Some(ToHalf::GuestPaused),
            DomainState::Running => {
                self.settled = true;
                Some(ToHalf::GuestRuns)
            }
            DomainState::Absent | DomainState::ShutOff => {
                self.settled = true;
                None
            }
        }
    }

    /// Does what the half wants; what became of it the next look shows.
    pub(super) fn order(&self, order: Order) {
        let done = match order {
            Order::ResumeGuest => self.ask(self.host.unpause(&self.domain)),
            // Who goes with nobody left shall not stop a guest.
            Order::StopGuest | Order::AskGuest => Ok(()),
        };
        if let Err(error) = done {
            tracing::warn!("{error}");
        }
    }

    /// The domain's process, where its hypervisor is one.
    pub(super) fn process(&self) -> Option<i32> {
        self.ask(self.host.process(&self.domain)).ok().flatten()
    }

    /// Whether the guest stands still on the source, of which whoever started this half does not know either.
    pub(super) fn guest(&self) -> Option<ToHalf> {
        match self.ask(self.host.state(&self.domain)).ok()? {
            DomainState::Paused => Some(ToHalf::GuestStopped),
            DomainState::Running => Some(ToHalf::StopRefused),
            _ => None,
        }
    }

    fn ask<T>(&self, answer: Answer<'_, T>) -> Result<T, HostError> {
        let mut ended = self.ended.subscribe();
        let limited = async {
            tokio::select! {
                biased;
                _ = ended.wait_for(|ended| *ended) => None,
                answered = timeout(LIMIT, answer) => answered.ok(),
            }
        };
        self.handle.block_on(limited).unwrap_or_else(|| {
            Err(HostError::TimedOut {
                host: self.host.uri().to_owned(),
                what: "a carry's question".to_owned(),
                limit: LIMIT,
            })
        })
    }
}
