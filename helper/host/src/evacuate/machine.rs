//! The whole interface: inputs go in, actions and an outcome come out.

use std::collections::BTreeMap;

use super::action::{Action, ActionId, ActionKey, ActionKind};
use super::carry::CarryNotes;
use super::cause::{Cause, CauseCode, Obstacles};
use super::conclude::conclude;
use super::input::{Failure, FailureKind, Input, Reply};
use super::limits::Limits;
use super::notes::{DeviceNotes, Issued, Notes, Recovery};
use super::outcome::{Outcome, PhaseTime};
use super::phase::Phase;
use super::phases::{self, Step};
use super::progress::{Owner, PaceBefore, Progress, Record, Stage};
use super::spec::{Side, Spec};
use super::state::Evacuation;
use super::tries::Tries;
use super::view::HostView;
use crate::hypervisor::JobFacts;

/// What an evacuation begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// What shall be brought about.
    pub spec: Spec,
    /// How long it may take.
    pub limits: Limits,
    /// Random; names the evacuation.
    pub evacuation: String,
    /// This process.
    pub owner: Owner,
    /// It ends before anything would be changed, and says whether it could go on.
    pub check_only: bool,
    /// What was found before any host was asked.
    pub obstacles: Obstacles,
}

impl Evacuation {
    /// Begins an evacuation.
    pub fn new(start: Start, now_ms: u64) -> Self {
        let record = Record {
            progress: Progress {
                version: start.spec.record_version(),
                evacuation: start.evacuation,
                domain: start.spec.domain.clone(),
                renamed: start.spec.renamed.clone(),
                owner: Some(start.owner),
                beat: 0,
                stage: Stage::Claimed,
                migration_begun: false,
                home: None,
                bond: start.spec.bonds().first().cloned(),
                more_bonds: start.spec.bonds().into_iter().skip(1).collect(),
                let_go: start.spec.let_go(),
                lacking: 0,
            },
            spec: start.spec,
            pace: None,
        };
        let notes = Notes {
            check_only: start.check_only,
            obstacles: start.obstacles,
            devices: vec![DeviceNotes::default(); record.spec.devices.len()],
            ..Notes::default()
        };
        Self::with(record, start.limits, Phase::Check, notes, now_ms)
    }

    /// The same, and frames for the guest are carried. `before` is what a recovery sets back.
    #[must_use]
    pub fn with_carry(mut self, before: Option<PaceBefore>) -> Self {
        self.record.pace = before;
        self.notes.carry = CarryNotes::Wanted;
        self
    }

    /// Goes on with, or undoes, what another process began and left. `owner_is_dead` if that
    /// is known; otherwise its signs of life are watched for a while first.
    pub fn recover(
        found: Record,
        owner: Owner,
        limits: Limits,
        owner_is_dead: bool,
        now_ms: u64,
    ) -> Self {
        let Record {
            progress,
            spec,
            pace,
        } = found;
        let unplug_asked = matches!(progress.stage, Stage::Unplugging | Stage::Restoring);
        let device = DeviceNotes {
            unplug_asked_ms: unplug_asked.then_some(now_ms),
            ..DeviceNotes::default()
        };
        let notes = Notes {
            devices: vec![device; spec.devices.len()],
            recovery: Some(Recovery {
                dead: progress
                    .owner
                    .filter(|_| owner_is_dead)
                    .map(|owner| owner.token),
                beats: BTreeMap::new(),
                owner_lives: false,
            }),
            touched: true,
            doubt_until_ms: now_ms + limits.settle_ms,
            migration_begun: progress.migration_begun,
            vf_claimed: true,
            ..Notes::default()
        };
        let progress = Progress {
            owner: Some(owner),
            version: spec.record_version().max(progress.version),
            ..progress
        };
        let record = Record {
            progress,
            spec,
            pace,
        };
        Self::with(record, limits, Phase::Takeover, notes, now_ms)
    }

    fn with(record: Record, limits: Limits, phase: Phase, notes: Notes, now_ms: u64) -> Self {
        let mut evacuation = Self {
            limits,
            record,
            now_ms,
            phase,
            entered_ms: now_ms,
            views: Side::BOTH.map(|side| (side, HostView::default())).into(),
            saved: BTreeMap::new(),
            tries: BTreeMap::new(),
            notes,
            in_flight: None,
            outbox: None,
            next_id: 0,
            deadline_ms: None,
            phases: Vec::from([PhaseTime { phase, ms: 0 }]),
            outcome: None,
        };
        evacuation.proceed();
        evacuation
    }

    /// Learns something at the moment `now_ms`, and decides anew.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        self.now_ms = self.now_ms.max(now_ms);
        if self.outcome.is_some() {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Abort => self.abort(),
            Input::Event { side, kind } => self.event(side, &kind),
            Input::MigrationEnded(result) => self.migration_ended(result),
            Input::Carried(outcome) => {
                self.notes.carry = CarryNotes::Over(outcome);
                self.notes.carry_over_ms = Some(self.now_ms);
            }
            Input::Done { action, reply } => self.done(action, reply),
        }
        self.proceed();
    }

    /// What to do next, to be fetched after each [`Evacuation::handle`]. One action at a time.
    pub fn next_action(&mut self) -> Option<Action> {
        self.outbox.take()
    }

    /// When to hand in [`Input::Tick`] if nothing else comes before, in ms.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The migration as it was seen last.
    pub fn job(&self) -> Option<&JobFacts> {
        self.notes.job.as_ref()
    }

    /// Where the domain stays, once that is decided.
    pub fn residence(&self) -> Option<Side> {
        self.notes.residence
    }

    /// What it shall bring about.
    pub fn spec(&self) -> &Spec {
        &self.record.spec
    }

    /// The record, as it would be written first.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The longest that an action may take, in ms.
    pub fn action_limit_ms(&self) -> u64 {
        self.limits.action_ms
    }

    /// Why it rolls back, or will end degraded, if it does.
    pub fn cause(&self) -> Option<&Cause> {
        self.notes.cause.as_ref()
    }

    fn expire(&mut self) {
        let late = |busy: &mut Issued| self.now_ms >= busy.issued_ms + self.limits.action_ms;
        if let Some(busy) = self.in_flight.take_if(late) {
            let message = format!("no end of {:?} was told", busy.kind.key());
            let failure = Failure::new(FailureKind::TimedOut, message);
            self.finish(busy, Reply::Failed(failure));
        }
    }

    /// Decides what is next.
    fn proceed(&mut self) {
        self.expire();
        while self.in_flight.is_none() && self.outcome.is_none() {
            match phases::step(self) {
                Step::Do(kind) => self.issue(kind),
                Step::WaitUntil(at_ms) => {
                    self.deadline_ms = Some(at_ms.max(self.now_ms + 1));
                    return;
                }
                Step::Go(phase) => self.enter(phase),
                Step::Fail(cause) => self.fail(cause),
                Step::Refuse(causes) => {
                    let mut causes = causes.into_iter();
                    self.notes.cause = causes.next();
                    self.notes.more_causes = causes.collect();
                    self.end();
                }
                Step::End => self.end(),
            }
        }
        let end_ms = |busy: &Issued| busy.issued_ms + self.limits.action_ms;
        self.deadline_ms = self.in_flight.as_ref().map(end_ms);
    }

    fn issue(&mut self, mut kind: ActionKind) {
        let notes = &mut self.notes;
        match &mut kind {
            ActionKind::Save { record, .. } => {
                let beat = &mut self.record.progress.beat;
                *beat = beat.saturating_add(1);
                record.progress.beat = *beat;
                notes.wrote = true;
            }
            ActionKind::Claim { side, .. } => notes.claim = Some(*side),
            ActionKind::Guest { .. } if self.phase != Phase::Check => notes.touched = true,
            ActionKind::Detach { device, .. } => {
                notes.touched = true;
                let notes = &mut notes.devices[*device];
                notes.unplug_requests += 1;
                notes.unplug_asked_ms = Some(self.now_ms);
                notes.unplug_last_ms = notes.unplug_asked_ms;
            }
            ActionKind::Migrate => {
                notes.touched = true;
                notes.migration_begun = true;
            }
            ActionKind::ResumeMemory => notes.migration_end = None,
            ActionKind::ClaimVf { .. } => notes.vf_claimed = true,
            ActionKind::Cancel => {
                notes.cancel_ms.get_or_insert(self.now_ms);
            }
            _ => {}
        }
        self.next_id += 1;
        let id = ActionId(self.next_id);
        self.in_flight = Some(Issued {
            id,
            kind: kind.clone(),
            issued_ms: self.now_ms,
        });
        self.outbox = Some(Action { id, kind });
    }

    fn enter(&mut self, phase: Phase) {
        match phase {
            Phase::Claim => {
                for device in self.devices() {
                    if self.vf_nic(Side::Source, device).is_none() {
                        // Gone before we came: nothing to unplug, and nothing to put back.
                        self.record.spec.devices[device].source = None;
                    }
                }
            }
            // The report wants a look of its own.
            Phase::Release => {
                for view in self.views.values_mut() {
                    view.look_anew(self.now_ms);
                }
            }
            Phase::Announce => self.notes.residence = Some(Side::Destination),
            Phase::Plug => self.notes.to_plug = self.missing(Side::Destination).len() as u64,
            Phase::Restore => {
                self.notes.residence = Some(Side::Source);
                self.notes.restores += 1;
                self.notes.to_plug = self.missing(Side::Source).len() as u64;
            }
            Phase::Verify => {
                for device in self.devices() {
                    let was_back = self.vf_nic(Side::Source, device).is_some();
                    let notes = &mut self.notes.devices[device];
                    notes.guest = None;
                    notes.was_back = was_back;
                }
            }
            _ => {}
        }
        if let Some(last) = self.phases.last_mut() {
            last.ms = self.now_ms - self.entered_ms;
        }
        self.phases.push(PhaseTime { phase, ms: 0 });
        self.phase = phase;
        self.entered_ms = self.now_ms;
        self.tries.clear();
    }

    fn fail(&mut self, cause: Cause) {
        let stopped = cause.code == CauseCode::Stopped;
        let undo = cause.code == CauseCode::Interrupted;
        self.notes.cause.get_or_insert(cause);
        match self.phase {
            _ if stopped => {
                self.notes.residence = None;
                self.enter(Phase::Release);
            }
            Phase::Takeover if !undo => self.end(),
            Phase::Check => self.end(),
            Phase::Claim if !self.notes.wrote => self.end(),
            Phase::Claim => {
                self.notes.residence = Some(Side::Source);
                self.enter(Phase::Release);
            }
            Phase::Takeover | Phase::Prepare | Phase::Unplug | Phase::Migrate => {
                self.enter(Phase::Restore);
            }
            Phase::Plug => self.enter(Phase::Verify),
            // Nothing to roll back to: what is so is told.
            _ => self.end(),
        }
    }

    fn end(&mut self) {
        if let Some(last) = self.phases.last_mut() {
            last.ms = self.now_ms - self.entered_ms;
        }
        self.outcome = Some(conclude(self));
        self.deadline_ms = None;
    }

    pub(super) fn view(&self, side: Side) -> &HostView {
        &self.views[&side]
    }

    pub(super) fn tries(&self, key: ActionKey) -> Tries {
        self.tries.get(&key).cloned().unwrap_or_default()
    }

    pub(super) fn phase_times(&self) -> Vec<PhaseTime> {
        self.phases.clone()
    }

    /// This stage was written there, and recently enough to be a sign of life.
    pub(super) fn is_saved(&self, side: Side, stage: Stage, migration_begun: bool) -> bool {
        self.saved.get(&side).is_some_and(|saved| {
            saved.stage == stage
                && saved.migration_begun == migration_begun
                && self.now_ms < saved.at_ms + self.limits.heartbeat_ms
        })
    }

    /// The record carries our name.
    pub(super) fn is_ours(&self, record: &Progress) -> bool {
        let owner = self.record.progress.owner.as_ref();
        owner.is_some_and(|owner| record.is_owned_by(&owner.token))
    }
}
