//! Follows a migration with a carry: has the halves hold when little memory is left, stops the guest when they want it,
//! tells them where it runs.

mod asked;
mod begin;
mod end;
mod stop;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tandem_carry::Limits;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use self::asked::{ASK, asked};
use self::begin::{begin, begin_alone};
use super::convergence::{Convergence, Verdict};
use super::moment::{MOST_MS, Moment};
use super::pace::{Pace, as_ms};
use super::relay::{HalfProcess, start_alone};
use super::settings::CarrySettings;
use super::words::{FromHalf, HalfReport, ToHalf};
use crate::evacuate::{CarryOutcome, Side};
use crate::hypervisor::{DomainState, Host, HostError, JobFacts, JobPhase, JobWhich};
use crate::words::printable;

/// Between two looks at the hypervisors: while memory is copied, near the end of that, while the guest stands still, and
/// afterwards.
const LOOK: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(5),
    Duration::from_millis(2),
    Duration::from_millis(500),
];
/// A pause that QEMU never takes for short enough while memory changes: the stop is the carry's then.
pub(super) const NEVER_MS: u64 = 0;
/// The pause that QEMU takes for short enough unless it is told otherwise, in ms (`DEFAULT_MIGRATE_SET_DOWNTIME` of
/// migration/options.c, QEMU 11.1).
const OWN_MS: u64 = 300;
/// From the guest's arrival until the halves end by themselves, at most.
const LAST: Duration = Duration::from_secs(130);

/// A carry whose halves stand ready.
#[derive(Debug)]
pub(crate) struct Conductor {
    source: Arc<dyn Host>,
    destination: Arc<dyn Host>,
    domain: String,
    max_pause_ms: u64,
    pace: Pace,
    convergence: Convergence,
    /// The migration does not come to its end within the pause that may be: the hypervisor stops the domain.
    given_up: bool,
    begun: Instant,
    /// The end is near.
    moment: Option<Moment>,
    halves: [HalfProcess; 2],
    /// There never was a destination's half.
    alone: bool,
    source_command: Vec<String>,
    hold_wanted: bool,
    /// The hypervisor was asked for the stop: whatever it said, that may be whose stop it is.
    stop_asked: bool,
    /// That call, once it took too long.
    stopping: Option<JoinHandle<Result<(), HostError>>>,
    /// Why it is not known yet whether that came.
    stop_unknown: Option<String>,
    /// The source half was told that the guest stands still; by whose order, and since when.
    stopped: Option<Stop>,
    completed: bool,
    /// The source half was told that the guest won't run there again.
    departed: bool,
    failed: bool,
    failed_at: Option<Instant>,
    /// The hypervisor itself says so, and not only that there is no migration any more.
    job_failed: bool,
    /// Whoever has the source's guest run again wants that now; when it was tried last.
    resume_wanted: bool,
    resume_tried: Option<Instant>,
    /// Whoever asked for the migration says that it came to nothing.
    ended_badly: bool,
    paused_told: bool,
    runs: Option<Instant>,
    /// It runs on the source again.
    stays: bool,
    reports: [Option<HalfReport>; 2],
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    ours: bool,
    at: Instant,
}

impl Conductor {
    /// Starts both halves.
    ///
    /// # Errors
    /// Why there is no carry.
    pub(crate) async fn start(
        settings: &CarrySettings,
        [from, to]: &[String; 2],
        hosts: [Arc<dyn Host>; 2],
        domain: &str,
        pace: Pace,
    ) -> Result<Self, (String, Pace)> {
        let source_command = source_command(settings, from, domain, &pace);
        let destination = settings.command(Side::Destination, to, domain);
        let commands = [source_command.clone(), destination];
        let (halves, reason) = match begin(commands, hosts[1].as_ref(), domain).await {
            Ok(halves) => (halves, None),
            // Without the other half, what is held goes to the network once the guest is elsewhere.
            Err(reason) => match begin_alone(&source_command).await {
                Ok(half) => ([half, HalfProcess::none()], Some(reason)),
                Err(_) => return Err((reason, pace)),
            },
        };
        let [here, there] = [&halves[0], &halves[1]].map(HalfProcess::process);
        let is_one_tap = here.zip(there).is_some_and(|(a, b)| a.shares_network(b));
        if is_one_tap && from == to {
            let reason = format!(
                "both halves are on one host, at its tap {from}: --carry-from and --carry-to say where each is to run"
            );
            return Err((reason, pace));
        }
        let mut conductor = Self::with_halves(halves, hosts, domain, pace);
        conductor.is_to(settings, source_command, reason);
        Ok(conductor)
    }

    /// Starts the source's half, as the destination can't have one for this reason.
    ///
    /// # Errors
    /// Why there is no carry.
    pub(crate) async fn alone(
        settings: &CarrySettings,
        tap: &str,
        hosts: [Arc<dyn Host>; 2],
        domain: &str,
        pace: Pace,
        reason: String,
    ) -> Result<Self, String> {
        let source_command = source_command(settings, tap, domain, &pace);
        let half = begin_alone(&source_command).await?;
        let halves = [half, HalfProcess::none()];
        let mut conductor = Self::with_halves(halves, hosts, domain, pace);
        conductor.is_to(settings, source_command, Some(reason));
        Ok(conductor)
    }

    /// As it was asked for; `alone` is why there is no destination's half.
    fn is_to(&mut self, settings: &CarrySettings, command: Vec<String>, alone: Option<String>) {
        self.alone = alone.is_some();
        self.reason = alone;
        self.max_pause_ms = settings.max_pause_ms;
        self.convergence = Convergence::new(settings.max_pause_ms);
        self.source_command = command;
    }

    fn with_halves(
        halves: [HalfProcess; 2],
        [source, destination]: [Arc<dyn Host>; 2],
        domain: &str,
        pace: Pace,
    ) -> Self {
        Self {
            source,
            destination,
            domain: domain.to_owned(),
            max_pause_ms: OWN_MS,
            pace,
            convergence: Convergence::new(OWN_MS),
            given_up: false,
            begun: Instant::now(),
            moment: None,
            halves,
            alone: false,
            source_command: Vec::new(),
            hold_wanted: false,
            stop_asked: false,
            stopping: None,
            stop_unknown: None,
            stopped: None,
            completed: false,
            departed: false,
            failed: false,
            failed_at: None,
            job_failed: false,
            resume_wanted: false,
            resume_tried: None,
            ended_badly: false,
            paused_told: false,
            runs: None,
            stays: false,
            reports: [None, None],
            reason: None,
        }
    }

    /// Follows the migration, which has been asked for, until the carry is over. `ended` tells how whoever asked for it saw it
    /// end.
    pub(crate) async fn run(mut self, mut ended: oneshot::Receiver<bool>) -> CarryOutcome {
        let mut told = false;
        let mut looked = Instant::now();
        if let Err(error) = self.source.set_max_downtime(&self.domain, NEVER_MS).await {
            self.reason.get_or_insert(error.to_string());
        }
        while !self.halves.iter().all(|half| half.gone) {
            if self.runs.is_some_and(|since| since.elapsed() >= LAST) {
                break;
            }
            self.leave_stuck_halves().await;
            // However often a half says something.
            let next = self.next_look(looked);
            let [source, destination] = &mut self.halves;
            tokio::select! {
                word = source.told.recv(), if !source.gone => self.heard(Side::Source, word).await,
                word = destination.told.recv(), if !destination.gone => {
                    self.heard(Side::Destination, word).await;
                }
                well = &mut ended, if !told => {
                    told = true;
                    self.migration_ended(well == Ok(true)).await;
                }
                () = sleep_until(next) => {
                    self.look().await;
                    looked = Instant::now();
                }
            }
        }
        self.last_duties((!told).then_some(ended)).await;
        if self.stays {
            // For the next migration, which may have no carry.
            self.ease().await;
        }
        self.outcome()
    }

    /// After the last one; none between it and the moment of the hold would be late for that.
    fn next_look(&self, looked: Instant) -> Instant {
        let next = looked + self.look_after();
        match self.moment.filter(|_| self.awaits_its_end()) {
            Some(moment) => {
                let due = Duration::from_millis(moment.due_ms(self.pace.takes_ms()));
                next.min(looked.max(self.begun + due))
            }
            None => next,
        }
    }

    fn look_after(&self) -> Duration {
        let [copying, near, still, afterwards] = LOOK;
        match (self.stopped, self.runs.is_some() || self.stays) {
            (_, true) => afterwards,
            (Some(_), false) => still,
            (None, false) if self.moment.is_some() => near,
            (None, false) => copying,
        }
    }

    async fn heard(&mut self, side: Side, word: Option<FromHalf>) {
        let index = usize::from(side == Side::Destination);
        match (side, word) {
            // Another host's half may say anything at any time: only what is due is done.
            (Side::Source, Some(FromHalf::StopGuest)) if self.hold_wanted => self.stop().await,
            (Side::Source, Some(FromHalf::AskGuest)) if self.stop_unknown.is_some() => {
                self.look_for_stop().await;
            }
            (Side::Source, Some(FromHalf::ResumeGuest)) if self.failed => {
                self.resume_wanted = true;
                self.resume_tried = None;
                self.look().await;
            }
            (Side::Destination, Some(FromHalf::ResumeGuest)) if self.paused_told => {
                if let Err(error) = self.destination.unpause(&self.domain).await {
                    tracing::warn!("{error}");
                }
                self.look().await;
            }
            (_, Some(FromHalf::Ended(report))) => self.reports[index] = Some(report),
            (_, Some(FromHalf::Failed(reason))) => {
                self.reason.get_or_insert(printable(&reason));
            }
            (_, Some(_)) => {}
            (_, None) => {
                self.halves[index].gone = true;
                self.half_is_gone(side).await;
            }
        }
    }

    /// One that takes no words counts as gone; that it is dead is not known.
    async fn leave_stuck_halves(&mut self) {
        for side in Side::BOTH {
            let index = usize::from(side == Side::Destination);
            if self.halves[index].is_stuck() {
                self.halves[index].gone = true;
                self.half_is_gone(side).await;
            }
        }
    }

    /// Nobody will order a stop any more: the hypervisor stops the guest by itself then. Who is left is told whether the other one
    /// may still give the guest a frame.
    async fn half_is_gone(&mut self, side: Side) {
        if self.reports[usize::from(side == Side::Destination)].is_none() {
            let reason = format!("the {}'s half ended too early", side.as_str());
            self.reason.get_or_insert(reason);
        }
        let other = usize::from(side == Side::Source);
        let died = self.halves[1 - other].died();
        if died && side == Side::Source && self.hold_wanted && self.stopped.is_none() {
            // What is held has gone to the destination, and is of use only if the guest goes there now.
            self.stop().await;
        }
        // Before the guest stands still, the destination can't know where it goes on.
        if died && !self.failed && (side == Side::Destination || self.stopped.is_some()) {
            self.halves[other].tell(ToHalf::OtherHalfDied).await;
        }
        self.halves[other].end_stream().await;
        if died && side == Side::Source && self.stopped.is_some() && !self.failed {
            self.follow_up().await;
        }
        if self.stopped.is_none() && !self.failed {
            self.ease().await;
        }
    }

    /// What has come to the source since its half died waits in the tap's queue, as nobody reads that: another one takes it from
    /// there, and what comes later, and gives it to the network.
    async fn follow_up(&mut self) {
        let mut command = std::mem::take(&mut self.source_command);
        if command.is_empty() {
            // The second one has died too.
            return;
        }
        command.push("--without-destination".to_owned());
        match start_alone(&command) {
            Ok(half) => self.halves[0] = half,
            Err(error) => return tracing::warn!("{error}"),
        }
        self.halves[0].tell(ToHalf::GuestStopped).await;
        if self.departed {
            self.halves[0].tell(ToHalf::MigrationCompleted).await;
        }
    }

    /// The hypervisor may stop the domain by itself.
    async fn ease(&mut self) {
        let eased = self
            .source
            .set_max_downtime(&self.domain, self.max_pause_ms);
        if let Err(error) = eased.await {
            tracing::warn!("{error}");
        }
        self.release_pace().await;
    }

    async fn release_pace(&mut self) {
        if let Err(error) = self.pace.release().await {
            tracing::warn!("{error}");
        }
    }

    async fn look(&mut self) {
        if self.runs.is_some() || self.stays {
            return;
        }
        if self.stop_unknown.is_some() {
            self.look_for_stop().await;
        }
        if !self.completed && !self.failed {
            let job = self.source.job(&self.domain, JobWhich::Current);
            match timeout(ASK, job).await {
                Ok(Ok(job)) => self.saw_job(&job).await,
                // Such as that there is no such domain any more.
                Ok(Err(error)) => {
                    tracing::debug!("{error}");
                    self.look_for_departure().await;
                }
                Err(_) => {}
            }
        }
        if self.failed {
            // A stop that came now would be of a guest that shall run.
            if let Some(stopping) = self.stopping.take() {
                stopping.abort();
            }
            match asked(self.source.state(&self.domain)).await {
                Some(DomainState::Running) => {
                    self.stays = true;
                    self.halves[0].tell(ToHalf::GuestRuns).await;
                }
                Some(DomainState::Paused) => self.resume_source().await,
                _ => {}
            }
        } else if self.stopped.is_some() {
            self.look_for_arrival().await;
        }
    }

    async fn saw_job(&mut self, job: &JobFacts) {
        match job.phase {
            JobPhase::PreCopy if self.awaits_its_end() => self.follow(job).await,
            JobPhase::SwitchOver => self.stopped_by_itself().await,
            JobPhase::PostCopy | JobPhase::PostCopyBroken => {
                self.stopped_by_itself().await;
                self.tell_departed().await;
            }
            JobPhase::Completed => self.has_completed().await,
            JobPhase::Failed | JobPhase::Cancelled => {
                self.job_failed = true;
                self.has_failed().await;
            }
            JobPhase::None if self.ended_badly => self.look_for_either().await,
            JobPhase::None if self.stopped.is_some() => self.look_for_departure().await,
            _ => {}
        }
    }

    /// It is for this to say when the guest stops.
    const fn awaits_its_end(&self) -> bool {
        self.stopped.is_none() && !self.hold_wanted && !self.given_up
    }

    /// Memory is being copied, and nothing is held.
    async fn follow(&mut self, job: &JobFacts) {
        let rest = job.memory_remaining_bytes.unwrap_or(0);
        if self.moment.is_some() {
            return self.near(rest).await;
        }
        match self.convergence.look(self.since_begun_ms(), job) {
            Verdict::Near => self.near(rest).await,
            Verdict::Never => {
                self.given_up = true;
                let most_ms = self.max_pause_ms.max(OWN_MS);
                self.max_pause_ms = most_ms;
                self.ease().await;
            }
            Verdict::NotYet if job.memory_remaining_bytes.is_some() => {
                let paced = self.pace.follow(rest, self.convergence.rate()).await;
                if let Err(error) = paced {
                    tracing::debug!("{error}");
                }
            }
            Verdict::NotYet => {}
        }
    }

    /// So much is left, which goes within the pause that may be.
    async fn near(&mut self, rest: u64) {
        let (now_ms, raise_ms) = (self.since_begun_ms(), self.pace.takes_ms());
        let moment = self.moment.get_or_insert(Moment::new(now_ms, rest));
        moment.look(now_ms, rest);
        // At this speed it may be over before the next look.
        let ends_soon = self.pace.lasts_ms(rest) < MOST_MS + raise_ms;
        if ends_soon || now_ms >= moment.due_ms(raise_ms) {
            self.hold_wanted = true;
            let sleeps = moment.sleeps();
            self.halves[0].tell(ToHalf::HoldWanted).await;
            if sleeps {
                // While the guest empties its tap's queue.
                self.release_pace().await;
            }
        }
    }

    fn since_begun_ms(&self) -> u64 {
        as_ms(self.begun.elapsed())
    }
}

/// What starts the source's half, which knows how fast the migration may be once nobody slows it down.
fn source_command(settings: &CarrySettings, tap: &str, domain: &str, pace: &Pace) -> Vec<String> {
    let mut command = settings.command(Side::Source, tap, domain);
    command.extend(["--speed".to_owned(), pace.full().to_string()]);
    let hold_ms = pace.hold_ms();
    // A half of a former version knows no other than the usual.
    if hold_ms != Limits::default().hold_ms {
        command.extend(["--hold-limit".to_owned(), hold_ms.to_string()]);
    }
    command
}
