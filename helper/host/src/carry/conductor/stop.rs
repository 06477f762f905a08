//! The guest's stop, which is the carry's own: asked for, and then known of or not; and its end, if the guest stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::asked::asked;
use super::{Conductor, Stop};
use crate::carry::words::ToHalf;
use crate::hypervisor::DomainState;

/// A stop that takes longer is looked for.
const PAUSE: Duration = Duration::from_secs(1);
/// A guest that our own stop has paused runs again so long after the migration's failure, whether its half asks for that or
/// not; and so often it is tried.
const RESUME: Duration = Duration::from_secs(1);

impl Conductor {
    pub(super) async fn stop(&mut self) {
        // A stop that comes late would pause a guest that nobody carries for.
        if (self.halves[1].gone && !self.alone) || self.failed {
            return self.halves[0].tell(ToHalf::StopRefused).await;
        }
        // What is left of the memory and the devices' state go at full speed. Frames are held already, so that it does not matter
        // who stops the guest: before that counts, it would only stand still.
        self.release_pace().await;
        if let Some(wakes_ms) = self.moment.and_then(|moment| moment.wakes_ms()) {
            sleep_until(self.begun + Duration::from_millis(wakes_ms)).await;
        }
        // It may have gone meanwhile: its end is heard once this is over, and the guest has taken no harm yet.
        if self.halves[1].told.is_closed() && !self.alone {
            return self.halves[0].tell(ToHalf::StopRefused).await;
        }
        let at = Instant::now();
        self.stop_asked = true;
        let (host, domain) = (Arc::clone(&self.source), self.domain.clone());
        let mut pausing = tokio::spawn(async move { host.pause(&domain).await });
        match timeout(PAUSE, &mut pausing).await {
            Ok(Ok(Ok(()))) => {
                self.stopped.get_or_insert(Stop { ours: true, at });
                self.halves[0].tell(ToHalf::GuestStopped).await;
            }
            Ok(ended) => {
                let ended = ended.map(|paused| paused.map_err(|error| error.to_string()));
                let why = ended.map_or_else(|error| Some(error.to_string()), Result::err);
                self.stop_unknown = why;
                self.look_for_stop().await;
            }
            // It may come yet.
            Err(_) => {
                self.stopping = Some(pausing);
                self.stop_unknown = Some("the guest's stop took too long".to_owned());
                self.look_for_stop().await;
            }
        }
    }

    /// Whether it stands still, after a stop that failed. While that can't be told, nothing follows from it: the next look asks
    /// again, and the source half asks too before it gives back what it has held for too long.
    pub(super) async fn look_for_stop(&mut self) {
        let may_come = self
            .stopping
            .as_ref()
            .is_some_and(|stopping| !stopping.is_finished());
        if self.stopped.is_none() {
            match asked(self.source.state(&self.domain)).await {
                Some(DomainState::Running) if may_come => return,
                Some(DomainState::Running) => {
                    self.reason = self.reason.take().or(self.stop_unknown.take());
                    return self.halves[0].tell(ToHalf::StopRefused).await;
                }
                // Or the hypervisor was first.
                Some(_) => self.stopped_by_itself().await,
                None => return,
            }
        }
        self.stop_unknown = None;
        if self.halves[0].died() && !self.failed {
            self.halves[1].tell(ToHalf::OtherHalfDied).await;
            self.follow_up().await;
        }
    }

    /// Has the guest run on the source again, which our own stop has paused there, if it is due.
    pub(super) async fn resume_source(&mut self) {
        let since = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() >= RESUME);
        let is_due = self.resume_wanted || since(self.failed_at);
        let may_try = self.resume_tried.is_none() || since(self.resume_tried);
        if !self.stop_asked || !is_due || !may_try {
            return;
        }
        self.resume_tried = Some(Instant::now());
        if self.may_resume_source().await
            && let Err(error) = self.source.unpause(&self.domain).await
        {
            tracing::warn!("{error}");
        }
    }

    /// It does not run on the destination, and never will: two that run would destroy one disk.
    async fn may_resume_source(&self) -> bool {
        match asked(self.destination.state(&self.domain)).await {
            Some(DomainState::Absent | DomainState::ShutOff) => true,
            Some(DomainState::Running) => false,
            // All had come there when it was cancelled.
            Some(DomainState::Paused) => self.job_failed && self.nobody_resumes_destination(),
            // It has not begun there, or can't be asked.
            Some(DomainState::Incoming) | None => self.job_failed,
        }
    }
    /// There is no half that would have the guest run there, or it has had time to read that the guest stays. One that is only cut
    /// off may do so at any time.
    fn nobody_resumes_destination(&self) -> bool {
        let half = &self.halves[1];
        let has_read = !half.gone && self.failed_at.is_some_and(|at| at.elapsed() >= RESUME);
        self.alone || half.died() || self.reports[1].is_some() || has_read
    }
}
