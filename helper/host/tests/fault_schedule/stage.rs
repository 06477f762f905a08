//! Runs processes, hosts and guest on one clock, in one order that the seed decides.

use std::collections::BTreeMap;

use tandem_host::evacuate::{
    Action, ActionKind, Device, DeviceRole, Evacuation, Failure, FailureKind, Input, Limits,
    Outcome, Owner, Phase, Record, Reply, Side, Spec, Start, Verdict,
};

use crate::brief::{brief, brief_action};
use crate::devices::vf;
use crate::happen::Happening;
use crate::losses::LATEST_EFFECT_MS;
use crate::rng::Rng;
use crate::script::{Carry, Script};
use crate::world::{DOMAIN, World};

/// A run that takes longer has not ended, in ms.
const END_OF_TIME_MS: u64 = 3_600_000;
/// Recoveries that an operator starts by himself.
const MAX_RECOVERIES: u32 = 12;
/// As many steps, in case time stands still.
const MAX_STEPS: u64 = 60_000;

/// One process that drives the evacuation, or tries to.
pub(crate) struct Process {
    pub(crate) machine: Evacuation,
    /// The evacuation's name.
    pub(crate) evacuation: String,
    begun_ms: u64,
    pub(crate) is_alive: bool,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) phase: Phase,
    /// What the guest's last answer in the last phase said of the VF.
    pub(crate) said_in_use: Option<bool>,
    /// So long the guest had used a VF when it was asked no more, in ms.
    pub(crate) used_ms: u64,
    /// The own record of its evacuation is its.
    wrote: bool,
}

impl Process {
    /// It lives, and that is the name by which it owns records.
    pub(crate) fn drives_as(&self, token: &str) -> bool {
        let owner = self.machine.record().progress.owner.as_ref();
        let is_it = owner.is_some_and(|owner| owner.token == token);
        is_it && self.is_alive && self.outcome.is_none()
    }
}

/// Everything of one run.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) processes: Vec<Process>,
    /// Those that have ended, in this order.
    pub(crate) ended: Vec<usize>,
    queue: BTreeMap<(u64, u64), Happening>,
    sequence: u64,
    triggered: Vec<Phase>,
    aborts_left: Vec<(Phase, u64)>,
    kills_left: Vec<((Phase, u64), u64)>,
    pub(crate) recoveries: u32,
    /// Times that the guest began to boot.
    pub(crate) boots: u32,
    /// The guest reads no request before that, in ms.
    pub(crate) channel_free_ms: u64,
    /// The guest uses a VF since then, in ms.
    pub(crate) in_use_since_ms: Option<u64>,
    /// Records as their writers keep them, one for each evacuation, the one written last at the end.
    pub(crate) own: Vec<Record>,
    /// The hosts answer from now on.
    pub(crate) healed: bool,
    pub(crate) history: Vec<(u64, String)>,
    pub(crate) keeps_history: bool,
    /// Phases in which a process was killed or stopped, for the tally.
    pub(crate) hits: Vec<String>,
}

impl Stage {
    pub(crate) fn new(script: Script, seed: u64, keeps_history: bool) -> Self {
        let mut stage = Self {
            aborts_left: script.aborts.clone(),
            kills_left: script.kills.clone(),
            world: World::new(script),
            rng: Rng::new(seed),
            now_ms: 0,
            processes: Vec::new(),
            ended: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            triggered: Vec::new(),
            recoveries: 0,
            boots: 0,
            channel_free_ms: 0,
            in_use_since_ms: None,
            own: Vec::new(),
            healed: false,
            history: Vec::new(),
            keeps_history,
            hits: Vec::new(),
        };
        if stage.world.script.vf_is_taken
            && let Some(claim) = stage.world.host_mut(Side::Destination).claims.last_mut()
        {
            *claim = Some("another domain".into());
        }
        if let Some(after_ms) = stage.world.script.second_after_ms {
            stage.at(after_ms, Happening::Second);
        }
        stage.begin();
        stage
    }

    pub(crate) fn limits() -> Limits {
        Limits {
            migrate_ms: 60_000,
            ..Limits::default()
        }
    }

    fn owner(&self) -> Owner {
        let number = u32::try_from(self.processes.len()).expect("a few");
        Owner {
            token: format!("token {number}"),
            // Each on a machine of its own, so that no lock keeps them apart.
            host: format!("manager {number}"),
            pid: 1000 + number,
            started_at: "2026-01-01T00:00:00Z".into(),
        }
    }

    pub(crate) fn begin(&mut self) {
        let script = &self.world.script;
        let spec = Spec {
            domain: DOMAIN.into(),
            renamed: None,
            source_uri: "qemu:///system".into(),
            destination_uri: "qemu+ssh://b/system".into(),
            devices: script
                .devices()
                .enumerate()
                .map(|(device, one)| Device {
                    role: match one.let_go {
                        true => DeviceRole::LetGo,
                        false => DeviceRole::Vf {
                            bond: (device > 0).then(|| format!("bond{device}")),
                        },
                    },
                    source: Some(vf(Side::Source, device)),
                    destination: one.named.then(|| vf(Side::Destination, device)),
                })
                .collect(),
            agent: script.agent_use,
            reaches_destination_agent: !script.destination_is_remote,
            configure: true,
            yes_degraded: script.yes_degraded,
        };
        let start = Start {
            spec,
            limits: Self::limits(),
            evacuation: format!("evacuation {}", self.processes.len()),
            owner: self.owner(),
            check_only: false,
            obstacles: Default::default(),
        };
        let evacuation = start.evacuation.clone();
        let mut machine = Evacuation::new(start, 0);
        if script.carry != Carry::NotWanted {
            machine = machine.with_carry(None);
        }
        self.add(machine, evacuation);
    }

    fn add(&mut self, machine: Evacuation, evacuation: String) {
        let phase = machine.phase();
        self.processes.push(Process {
            machine,
            evacuation,
            begun_ms: self.now_ms,
            is_alive: true,
            outcome: None,
            phase,
            said_in_use: None,
            used_ms: 0,
            wrote: false,
        });
        let process = self.processes.len() - 1;
        self.note(|| format!("process {process} starts in {}", phase.as_str()));
        self.entered(process, phase);
        self.pump(process);
    }

    pub(crate) fn at(&mut self, at_ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue
            .insert((at_ms.max(self.now_ms), self.sequence), happening);
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if self.keeps_history {
            let text = text();
            self.history.push((self.now_ms, text));
        }
    }

    /// Runs until every process has ended and nothing is left to happen.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..MAX_STEPS {
            self.world.check();
            self.note_use();
            if let Some(violation) = self.world.violations.first() {
                return Err(violation.clone());
            }
            if self.drivers() > 1 {
                return Err("two processes drive the evacuation at once".into());
            }
            let queued = self.queue.first_key_value().map(|((at_ms, _), _)| *at_ms);
            let tick = self.next_tick();
            match (queued, tick) {
                (None, None) => return Ok(()),
                (Some(at_ms), tick) if tick.is_none_or(|(tick_ms, _)| at_ms <= tick_ms) => {
                    self.now_ms = at_ms;
                    let (_, happening) = self.queue.pop_first().expect("it was seen");
                    self.happen(happening);
                }
                (_, Some((at_ms, process))) => {
                    self.now_ms = at_ms;
                    self.hand(process, Input::Tick);
                }
                (Some(_), None) => unreachable!("a queue without ticks comes first"),
            }
            if self.now_ms > END_OF_TIME_MS {
                return Err("the run does not end".into());
            }
        }
        Err("the run takes too many steps".into())
    }

    fn note_use(&mut self) {
        let now_ms = self.now_ms;
        let since_ms = self.in_use_since_ms.unwrap_or(now_ms);
        self.in_use_since_ms = self.world.uses_vf(now_ms).then_some(since_ms);
    }

    /// Processes that may change something now.
    fn drivers(&self) -> usize {
        let drives = |process: &&Process| {
            let claims = [Phase::Check, Phase::Claim, Phase::Takeover, Phase::Release];
            process.is_alive && process.outcome.is_none() && !claims.contains(&process.phase)
        };
        self.processes.iter().filter(drives).count()
    }

    fn next_tick(&self) -> Option<(u64, usize)> {
        let alive = self
            .processes
            .iter()
            .enumerate()
            .filter(|(_, one)| one.is_alive);
        let ticks = alive.filter_map(|(process, one)| {
            let deadline_ms = one.machine.next_deadline()?;
            Some((one.begun_ms + deadline_ms, process))
        });
        ticks.min()
    }

    pub(crate) fn hand(&mut self, process: usize, input: Input) {
        let one = &mut self.processes[process];
        if !one.is_alive || one.outcome.is_some() {
            return;
        }
        let now_ms = self.now_ms - one.begun_ms;
        if !matches!(input, Input::Tick) {
            let text = self.keeps_history.then(|| brief(&input));
            self.note(|| format!("process {process} -> {}", text.unwrap_or_default()));
        }
        self.processes[process].machine.handle(now_ms, input);
        self.pump(process);
    }

    /// Takes what the machine wants, and sees where it stands.
    fn pump(&mut self, process: usize) {
        let one = &mut self.processes[process];
        let action = one.machine.next_action();
        let phase = one.machine.phase();
        let outcome = one.machine.outcome().cloned();
        if phase != one.phase {
            if one.phase == Phase::Verify {
                one.used_ms = self.in_use_since_ms.map_or(0, |at| self.now_ms - at);
            }
            one.phase = phase;
            self.note(|| format!("process {process} is in {}", phase.as_str()));
            self.entered(process, phase);
        }
        if let Some(action) = action {
            let text = self.keeps_history.then(|| brief_action(&action.kind));
            self.note(|| format!("process {process} <- {}", text.unwrap_or_default()));
            self.send(process, action);
        }
        if let Some(outcome) = outcome
            && self.processes[process].outcome.is_none()
        {
            self.note(|| format!("process {process} ended: {outcome:?}"));
            self.processes[process].outcome = Some(outcome);
            self.ended.push(process);
            self.judge(process);
            self.unlock(process);
            let interrupted = Some(Verdict::Interrupted);
            let verdict = self.processes[process]
                .outcome
                .as_ref()
                .map(|one| one.verdict);
            if verdict == interrupted && self.recoveries < MAX_RECOVERIES {
                self.at(self.now_ms + 5_000, Happening::Recover);
            }
        }
    }

    /// A process that leaves nothing to recover removes the record that it wrote.
    fn unlock(&mut self, process: usize) {
        let one = &self.processes[process];
        if one.wrote && one.machine.is_over() {
            let evacuation = self.evacuation(process);
            self.own
                .retain(|record| record.progress.evacuation != evacuation);
        }
    }

    /// Makes happen what the script has for this phase.
    fn entered(&mut self, process: usize, phase: Phase) {
        let now_ms = self.now_ms;
        if let Some(at) = self.aborts_left.iter().position(|one| one.0 == phase) {
            let (_, after_ms) = self.aborts_left.remove(at);
            self.at(now_ms + after_ms, Happening::Abort { process });
        }
        if let Some(at) = self.kills_left.iter().position(|one| one.0.0 == phase) {
            let ((_, after_ms), pause_ms) = self.kills_left.remove(at);
            self.at(now_ms + after_ms, Happening::Kill { process, pause_ms });
        }
        if self.triggered.contains(&phase) {
            return;
        }
        self.triggered.push(phase);
        for (side, (of, after_ms), length_ms) in self.world.script.outages.clone() {
            if of == phase {
                self.at(now_ms + after_ms, Happening::Outage { side, length_ms });
            }
        }
        if let Some((_, after_ms)) = self.world.script.reboot.filter(|one| one.0 == phase) {
            self.at(now_ms + after_ms, Happening::Reboot);
        }
        if let Some((_, after_ms)) = self.world.script.shutdown.filter(|one| one.0 == phase) {
            self.at(now_ms + after_ms, Happening::ShutDown);
        }
    }

    /// A call sets out; it arrives after a while, or too late, or not at all.
    fn send(&mut self, process: usize, action: Action) {
        let id = action.id;
        let now_ms = self.now_ms;
        if let ActionKind::Save { record, .. } = &action.kind {
            if self.rng.chance(self.world.script.full_disk) {
                let full = Failure::new(FailureKind::Refused, "no space left on device");
                let answer = Happening::Answer {
                    process,
                    action: id,
                    reply: Reply::Failed(full),
                };
                return self.at(now_ms + 1, answer);
            }
            self.keep(process, record);
        }
        if let ActionKind::Guest { side, call } = action.kind {
            return self.ask(process, &action, side, call);
        }
        let mut latency_ms = self.rng.between(1, self.world.script.latency_ms + 1);
        let is_look = matches!(action.kind, ActionKind::Observe { .. });
        if let (true, Some(look_ms)) = (is_look, self.world.script.look_ms) {
            latency_ms = look_ms;
        }
        if let Some(takes_effect) = self.is_lost(&action.kind) {
            return self.lose(process, action, takes_effect);
        }
        self.at(
            now_ms + latency_ms,
            Happening::Effect {
                process,
                action,
                answer: true,
            },
        );
    }

    /// The whole record, on the machine of its writer.
    fn keep(&mut self, process: usize, record: &Record) {
        let is_its = |one: &Record| one.progress.evacuation == record.progress.evacuation;
        self.own.retain(|one| !is_its(one));
        self.own.push(record.clone());
        self.processes[process].wrote = true;
    }

    /// What the operator does after a kill: `tandem-host recover`, as soon as a record is seen.
    pub(crate) fn recover(&mut self) {
        let running = |one: &Process| one.is_alive && one.outcome.is_none();
        if self.processes.iter().any(running) {
            // The one that runs sees to it, or is refused.
            self.at(self.now_ms + 5_000, Happening::Recover);
            return;
        }
        let is_down = |side: &Side| self.world.host(*side).down_until_ms > self.now_ms;
        if Side::BOTH.iter().any(is_down) {
            self.at(self.now_ms + 5_000, Happening::Recover);
            return;
        }
        self.recover_now();
    }

    /// `serve` does so too, where a record has no owner any more.
    pub(crate) fn take_up(&mut self) {
        let mut records = Side::BOTH
            .iter()
            .filter_map(|side| self.world.record(*side));
        if records.any(|record| record.owner.is_none()) && self.recoveries < MAX_RECOVERIES {
            self.recover_now();
        }
    }

    fn recover_now(&mut self) {
        let records = Side::BOTH
            .into_iter()
            .filter_map(|side| self.world.record(side));
        let newest = records.max_by_key(|record| record.beat);
        // On the machine that has it: what is in the metadata alone says neither hosts nor devices.
        let is_it = |own: &&Record| match &newest {
            Some(newest) => newest.evacuation == own.progress.evacuation,
            None => true,
        };
        let Some(mut found) = self.own.iter().rev().find(is_it).cloned() else {
            return;
        };
        if let Some(newest) = newest.filter(|newest| newest.beat > found.progress.beat) {
            found.progress = newest;
        }
        self.recoveries += 1;
        let is_dead = self.world.script.death_is_known;
        let evacuation = found.progress.evacuation.clone();
        let machine = Evacuation::recover(found, self.owner(), Self::limits(), is_dead, 0);
        self.add(machine, evacuation);
    }

    /// The operator tries again, with hosts that answer.
    pub(crate) fn recover_at_last(&mut self) -> Result<(), String> {
        for side in Side::BOTH {
            self.world.host_mut(side).down_until_ms = 0;
        }
        self.aborts_left.clear();
        self.kills_left.clear();
        self.world.script.outages.clear();
        self.world.script.timeouts = 0;
        self.world.script.full_disk = 0;
        self.world.script.agent_loss = 0;
        self.world.script.reply_loss = 0;
        self.world.script.agent_stuck = 0;
        self.at(self.now_ms + LATEST_EFFECT_MS, Happening::Recover);
        self.run()
    }
}
