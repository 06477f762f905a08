//! A seeded run: a rough world for a while, then calm, then judgement; again and again.

mod disturb;
mod order;
mod programs;
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tandem_core::link::Address;
use tandem_core::status::{BondStatus, Problem, ProblemCode};
use tandem_core::{Ifindex, Mac};

use super::fake::{FakeKernel, Flow, name};
use super::oracle::{faults_at_any_moment, faults_of_the_status, faults_when_calm, is_lost};
use super::rng::Rng;
use super::stage::Happened;
use super::{Disorder, Stage};

/// Permanent MAC of the standby.
pub const STANDBY_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
/// Permanent MACs of VFs that the policy lists.
pub const VF_MACS: [Mac; 3] = [
    STANDBY_MAC,
    Mac([0x52, 0x54, 0, 0, 0, 2]),
    Mac([0x52, 0x54, 0, 0, 0, 3]),
];
/// Permanent MAC of the standby of a second bond.
pub const SECOND_STANDBY_MAC: Mac = Mac([0x52, 0x54, 0, 0, 1, 1]);
/// Permanent MAC of its VF.
pub const SECOND_VF_MAC: Mac = Mac([0x52, 0x54, 0, 0, 1, 2]);
/// Permanent MAC of a NIC that nobody described.
pub const UNKNOWN_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

/// Steps of disturbance before each calm.
const STEPS_PER_ROUND: u64 = 40;
/// Time in which everything has to have settled, in ms: longer than any hold,
/// back-off and time limit of the policy below.
const CALM_MS: u64 = 1_000_000;
/// Of it, the time in which frames flow, in ms: enough to find a dead path after a whole wait at rest, as often as the
/// VF may have been tried again meanwhile.
const FLOW_MS: u64 = 20_000;
/// Longest wait for the end of what is tried again, in ms, before it is judged.
const REST_MS: u64 = 1_000;
/// Time in which nothing at all may happen afterwards, in ms.
const IDLE_MS: u64 = 2_000_000;

/// One seeded run.
pub struct Chaos {
    stage: Stage,
    rng: Rng,
    seed: u64,
    standby: Option<Ifindex>,
    vf: Option<Ifindex>,
    another_vf: Option<Ifindex>,
    second_standby: Option<Ifindex>,
    second_vf: Option<Ifindex>,
    stranger: Option<Ifindex>,
    guarded: BTreeSet<Address>,
    /// Those that have come to the bond, while it has ports.
    arrived: BTreeSet<Address>,
    steps: u64,
    effects: u64,
    at_rest: u64,
}

/// What runs amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Disturbances, also those that found nothing to disturb.
    pub steps: u64,
    /// Disturbances that did something to the guest.
    pub effects: u64,
    /// Moments after a step at which the service had nothing left to learn, so that its
    /// status was held against the kernel.
    pub at_rest: u64,
    /// How often each kind of action, event and answer came.
    pub seen: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.effects += other.effects;
        self.at_rest += other.at_rest;
        for (kind, count) in other.seen {
            *self.seen.entry(kind).or_default() += count;
        }
    }
}

/// Runs `steps` disturbances from `seed`.
///
/// # Errors
///
/// The invariant that broke, and what went before.
pub fn run(seed: u64, steps: u64) -> Result<Tally, String> {
    let mut chaos = Chaos::new(seed);
    while chaos.steps < steps {
        chaos.round()?;
    }
    Ok(chaos.tally())
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let policy = setup::policy(&mut rng);
        let kernel = FakeKernel::new();
        let mut stage = Stage::new(kernel, policy, Disorder::default(), rng.bits());
        stage.fast_paths.supported = rng.chance(600);
        let mut chaos = Self {
            stage,
            rng,
            seed,
            standby: None,
            vf: None,
            another_vf: None,
            second_standby: None,
            second_vf: None,
            stranger: None,
            guarded: BTreeSet::new(),
            arrived: BTreeSet::new(),
            steps: 0,
            effects: 0,
            at_rest: 0,
        };
        chaos.boot();
        chaos
    }

    fn inherits(&self) -> bool {
        self.stage.policy().bonds[0].addressing.inherits()
    }

    fn round(&mut self) -> Result<(), String> {
        let rough = self.rng.chance(700);
        self.stage.disorder = if rough {
            Disorder::ROUGH
        } else {
            Disorder::default()
        };
        for _ in 0..STEPS_PER_ROUND {
            self.steps += 1;
            self.effects += u64::from(self.disturb());
            let pause_ms = self.pause_ms();
            self.stage.run_ms(pause_ms);
            self.check()?;
        }
        self.calm()
    }

    fn pause_ms(&mut self) -> u64 {
        match self.rng.below(10) {
            0..5 => self.rng.below(60),
            5..9 => self.rng.below(1_500),
            _ => self.rng.below(20_000),
        }
    }

    /// What must be true at every moment.
    fn check(&mut self) -> Result<(), String> {
        let mut faults = std::mem::take(&mut self.stage.violations);
        let stage = &self.stage;
        for address in self.guarded.iter().filter(|one| is_lost(stage, one)) {
            faults.push(format!("{address:?} is lost"));
        }
        if let Some(stranger) = self.stranger
            && stage.kernel.touched.contains(&stranger)
        {
            faults.push("a NIC that nobody described was touched".into());
        }
        if let Some(machine) = &stage.machine {
            let status = machine.status();
            for bond in &status.bonds {
                if bond.switchovers.len() > BondStatus::MAX_SWITCHOVERS || bond.problems.len() > 32
                {
                    faults.push("the status grows without bound".into());
                }
            }
        }
        faults.extend(faults_at_any_moment(stage));
        if stage.is_at_rest() {
            self.at_rest += 1;
            faults.extend(faults_of_the_status(stage));
        }
        let bond = stage.kernel.index_of(&name("bond0"));
        let links = stage.kernel.dump_links();
        let has_ports = bond.is_some() && links.iter().any(|link| link.controller == bond);
        let held = bond.and_then(|bond| stage.kernel.dump_addressing(bond));
        let held = held.filter(|_| has_ports).map(|one| one.addresses);
        match held {
            Some(held) => {
                for address in self.arrived.iter().filter(|one| !held.contains(one)) {
                    faults.push(format!("{address:?} left the bond"));
                }
                let guarded = self.guarded.iter().copied();
                self.arrived
                    .extend(guarded.filter(|one| held.contains(one)));
            }
            // One that can take no port gives them back.
            None => self.arrived.clear(),
        }
        self.stage.kernel.touched.clear();
        self.stage.kernel.announcements.clear();
        self.judge(faults)
    }

    /// Lets everything settle and checks what must be true then.
    fn calm(&mut self) -> Result<(), String> {
        self.stage.disorder = Disorder::default();
        self.stage.change(|kernel| kernel.has_bonding = true);
        self.stage.run_ms(1_000);
        self.stage.lose_everything();
        // Each look at what flows costs a test its time.
        let flow = std::mem::replace(&mut self.stage.kernel.flow, Flow::IDLE);
        if (self.steps / STEPS_PER_ROUND).is_multiple_of(2) {
            self.stage.run_ms(1_000);
            self.stage.change(FakeKernel::drop_xdp);
        }
        self.stage.run_ms(CALM_MS);
        self.stage.kernel.flow = flow;
        self.stage.run_ms(FLOW_MS);
        self.let_rest();
        self.check()?;
        self.judge(faults_when_calm(&self.stage))?;
        self.stage.kernel.flow = Flow::IDLE;
        self.stage.run_ms(FLOW_MS);
        let actions = self.stage.actions();
        let generation = self.stage.machine.as_ref().map(|m| m.status().generation);
        self.stage.run_ms(IDLE_MS);
        let mut faults = Vec::new();
        let retries = self.has_refusal();
        if self.stage.actions() != actions && !retries {
            faults.push("the machine is not idle though nothing happens".into());
        }
        let later = self.stage.machine.as_ref().map(|m| m.status().generation);
        if later != generation && !retries && !self.waits() {
            faults.push("the status changes though nothing happens".into());
        }
        self.judge(faults)?;
        self.try_policys_order()
    }

    /// A path check that fails is made again every minute, and has all ports deliver meanwhile.
    fn let_rest(&mut self) {
        let end = self.stage.now.plus_ms(REST_MS);
        while !self.stage.is_at_rest() && self.stage.now < end {
            self.stage.run_ms(1);
        }
    }

    /// A refused port, and one whose frames do not pass, is tried again for as long as it is there.
    fn has_refusal(&self) -> bool {
        let status = self.stage.machine.as_ref().map(|machine| machine.status());
        let retried = |problem: &Problem| {
            matches!(
                problem.code,
                ProblemCode::MacRefused
                    | ProblemCode::MtuRefused
                    | ProblemCode::PathBroken
                    | ProblemCode::PathLost
                    | ProblemCode::NicInUse
                    | ProblemCode::ActionFailed
            )
        };
        let any = |bond: &BondStatus| bond.problems.iter().any(retried);
        status.is_some_and(|status| status.bonds.iter().any(any))
    }

    /// A hold of the host runs out by itself.
    fn waits(&self) -> bool {
        let status = self.stage.machine.as_ref().map(|machine| machine.status());
        status.is_some_and(|status| status.bonds.iter().any(|bond| bond.next_deadline.is_some()))
    }

    fn judge(&self, faults: Vec<String>) -> Result<(), String> {
        if faults.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        let seed = self.seed;
        let _ = writeln!(text, "seed {seed} broke at step {}:", self.steps);
        for fault in &faults {
            let _ = writeln!(text, "  * {fault}");
        }
        let _ = writeln!(text, "What went before:");
        for (at, what) in &self.stage.history {
            let ms = at.0 / 1000;
            let _ = match what {
                Happened::Heard(input) => writeln!(text, "{ms:>9} ms -> {input:?}"),
                Happened::Wanted(output) => writeln!(text, "{ms:>9} ms <- {output:?}"),
                Happened::Did(kind, outcome) => {
                    writeln!(text, "{ms:>9} ms    {kind:?}: {outcome:?}")
                }
            };
        }
        if let Some(machine) = &self.stage.machine {
            let _ = writeln!(text, "Status: {:#?}", machine.status().bonds);
        }
        for link in self.stage.kernel.dump_links() {
            let _ = writeln!(text, "Kernel: {link:?}");
        }
        let _ = writeln!(
            text,
            "Again: TANDEM_SIM_SEED={seed} cargo test -p tandem-lab --test sim"
        );
        Err(text)
    }

    fn tally(self) -> Tally {
        Tally {
            steps: self.steps,
            effects: self.effects,
            at_rest: self.at_rest,
            seen: self.stage.seen,
        }
    }
}

/// A seed for one of many runs.
pub fn seed_of(number: u64) -> u64 {
    Rng::new(number).bits()
}
