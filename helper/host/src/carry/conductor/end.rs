//! How a migration with a carry ends: it has completed or failed, the guest has left and arrived.

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::asked::asked;
use super::{Conductor, LAST, Stop};
use crate::carry::total::total;
use crate::carry::words::ToHalf;
use crate::evacuate::CarryOutcome;
use crate::hypervisor::DomainState;

impl Conductor {
    /// Whoever asked for the migration says so.
    pub(super) async fn migration_ended(&mut self, well: bool) {
        if well {
            self.has_completed().await;
        } else {
            // What that means, a look tells: the domain may have gone all the same.
            self.ended_badly = true;
        }
    }

    pub(super) async fn has_completed(&mut self) {
        self.stopped_by_itself().await;
        self.completed = true;
        self.tell_departed().await;
    }

    /// The guest won't run on the source again: in post-copy that is so long before the end, and what was handed over need not be
    /// kept.
    pub(super) async fn tell_departed(&mut self) {
        if !self.departed {
            self.departed = true;
            self.halves[0].tell(ToHalf::MigrationCompleted).await;
        }
    }

    pub(super) async fn has_failed(&mut self) {
        self.failed = true;
        self.failed_at = Some(Instant::now());
        for half in &mut self.halves {
            half.tell(ToHalf::MigrationFailed).await;
        }
        // Who had it stopped has died.
        self.resume_wanted |= self.source_command.is_empty();
        self.look_after_failure().await;
    }

    async fn look_after_failure(&mut self) {
        if asked(self.source.state(&self.domain)).await == Some(DomainState::Paused) {
            self.resume_source().await;
        }
    }

    /// There is no migration any more, and whoever asked for it says that it came to nothing; so may one that only lost its
    /// connection. Where the guest is tells, and as long as that is open nothing follows.
    pub(super) async fn look_for_either(&mut self) {
        match asked(self.source.state(&self.domain)).await {
            Some(DomainState::Running) => self.has_failed().await,
            Some(DomainState::Absent | DomainState::ShutOff) => self.has_completed().await,
            Some(_) => match asked(self.destination.state(&self.domain)).await {
                Some(DomainState::Running) => self.has_completed().await,
                Some(DomainState::Absent | DomainState::ShutOff) => self.has_failed().await,
                _ => {}
            },
            None => {}
        }
    }

    /// A source without the domain's process has no job of it either.
    pub(super) async fn look_for_departure(&mut self) {
        let state = asked(self.source.state(&self.domain)).await;
        if matches!(state, Some(DomainState::Absent | DomainState::ShutOff)) {
            self.has_completed().await;
        }
    }

    pub(super) async fn stopped_by_itself(&mut self) {
        if self.stopped.is_none() {
            let at = Instant::now();
            self.stopped = Some(Stop { ours: false, at });
            self.halves[0].tell(ToHalf::GuestStopped).await;
        }
    }

    pub(super) async fn look_for_arrival(&mut self) {
        match asked(self.destination.state(&self.domain)).await {
            Some(DomainState::Paused) if self.completed => {
                if self.halves[1].gone {
                    // Nobody else will have it run.
                    self.resume_orphan().await;
                } else if !self.paused_told {
                    self.paused_told = true;
                    self.halves[1].tell(ToHalf::GuestPaused).await;
                }
            }
            Some(DomainState::Running) => {
                self.runs = Some(Instant::now());
                self.halves[1].tell(ToHalf::GuestRuns).await;
            }
            _ => {}
        }
    }

    pub(super) async fn resume_orphan(&mut self) {
        if self.stop_asked
            && let Err(error) = self.destination.unpause(&self.domain).await
        {
            tracing::warn!("{error}");
        }
    }

    /// Both halves are gone, and the guest may still stand still by our own stop. How the migration ended may be told only now.
    pub(super) async fn last_duties(&mut self, mut ended: Option<oneshot::Receiver<bool>>) {
        let end = Instant::now() + LAST;
        while (self.stopped.is_some() || self.stop_unknown.is_some())
            && self.runs.is_none()
            && !self.stays
            && Instant::now() < end
        {
            self.look().await;
            let next = sleep_until(Instant::now() + self.look_after());
            match &mut ended {
                None => next.await,
                Some(told) => tokio::select! {
                    well = told => {
                        ended = None;
                        self.migration_ended(well == Ok(true)).await;
                    }
                    () = next => {}
                },
            }
        }
    }

    pub(super) fn outcome(self) -> CarryOutcome {
        let pause = self.stopped.zip(self.runs);
        let pause_ms = pause
            .and_then(|(stop, runs)| u64::try_from(runs.duration_since(stop.at).as_millis()).ok());
        CarryOutcome {
            stop_was_ours: self.stopped.is_some_and(|stop| stop.ours),
            pause_ms,
            ..total(self.reason, self.reports)
        }
    }
}
