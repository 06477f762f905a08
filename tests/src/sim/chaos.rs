//! A seeded run: a rough world for a while, then calm, then judgement; again and again.
//!
//! Over 500 lines because what a run does to the kernel and what is asserted after it are read side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use tandem_core::action::ActionKind;
use tandem_core::input::{Removal, RemovalStage, Request, Source};
use tandem_core::link::{Address, LinkKind, Route};
use tandem_core::policy::{
    AddressingPolicy, BondPolicy, MacPolicy, Origin, Ownership, Policy, PortMatch, Timing,
};
use tandem_core::status::{BondStatus, Problem, ProblemCode};
use tandem_core::{Ifindex, Input, Mac};

use super::fake::{FakeKernel, NicSpec, name, standby_nic, vf_nic};
use super::oracle::{faults_when_calm, is_lost};
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
/// Permanent MAC of a NIC that nobody described.
pub const UNKNOWN_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

/// Steps of disturbance before each calm.
const STEPS_PER_ROUND: u64 = 40;
/// Time in which everything has to have settled, in ms: longer than any hold,
/// back-off and time limit of the policy below.
const CALM_MS: u64 = 1_000_000;
/// Time in which nothing at all may happen afterwards, in ms.
const IDLE_MS: u64 = 2_000_000;

/// One seeded run.
pub struct Chaos {
    stage: Stage,
    rng: Rng,
    seed: u64,
    standby: Option<Ifindex>,
    vf: Option<Ifindex>,
    stranger: Option<Ifindex>,
    guarded: BTreeSet<Address>,
    steps: u64,
}

/// What runs amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Disturbances.
    pub steps: u64,
    /// How often each kind of action, event and answer came.
    pub seen: BTreeMap<String, u64>,
}

impl Tally {
    /// Adds another run.
    pub fn add(&mut self, other: Self) {
        self.steps += other.steps;
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
        let policy = policy(&mut rng);
        let kernel = FakeKernel::new();
        let stage = Stage::new(kernel, policy, Disorder::default(), rng.bits());
        let mut chaos = Self {
            stage,
            rng,
            seed,
            standby: None,
            vf: None,
            stranger: None,
            guarded: BTreeSet::new(),
            steps: 0,
        };
        chaos.boot();
        chaos
    }

    fn boot(&mut self) {
        if self.rng.chance(900) {
            self.plug_standby();
        }
        if let Some(standby) = self.standby {
            let address = Address {
                ip: [192, 0, 2, 10].into(),
                prefix: 24,
            };
            let address6 = Address {
                ip: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10).into(),
                prefix: 64,
            };
            self.stage.change(|kernel| {
                kernel.set_admin_up(standby, true);
                kernel.give_address(standby, address);
                kernel.give_address(standby, address6);
                kernel.give_route(standby, default_route());
            });
            if self.inherits() {
                self.guarded.extend([address, address6]);
            }
        }
        if self.rng.chance(500) {
            self.plug_vf();
        }
        if self.stage.policy().bonds[0].ownership == Ownership::Adopt {
            self.stage.change(|kernel| {
                let bond = kernel
                    .add_foreign_bond(&name("bond0"), tandem_core::link::BondMode::ActiveBackup);
                if let Some(bond) = bond {
                    kernel.set_admin_up(bond, true);
                    let options = tandem_core::action::BondOptions {
                        miimon_ms: Some(100),
                        ..Default::default()
                    };
                    kernel.change_options(bond, &options);
                }
            });
        }
        self.stage.start_service();
    }

    fn inherits(&self) -> bool {
        self.stage.policy().bonds[0].addressing == AddressingPolicy::Inherit
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
            self.disturb();
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

    fn disturb(&mut self) {
        match self.rng.below(100) {
            0..14 => self.plug_vf(),
            14..22 => self.unplug_vf(),
            22..30 => self.warn_and_unplug(),
            30..38 => self.toggle_cable(),
            38..40 => self.flap(),
            40..44 => self.rename(),
            44..60 => self.ask(),
            60..66 => self.restart(),
            66..70 => self.stranger(),
            70..74 => self.meddle(),
            74..77 => self.stray_address(),
            77..79 => self.standby_comes_or_goes(),
            79..81 => self.jump(),
            81..84 => self.lose(),
            84..86 => self.reload(),
            86..88 => self.bonding_driver(),
            88..90 => self.name_squatter(),
            90..92 => self.occupy(),
            _ => {}
        }
    }

    /// The bonding driver is missing for a while, which only matters while there is no bond.
    fn bonding_driver(&mut self) {
        let present = self.rng.chance(700);
        self.stage.change(|kernel| kernel.has_bonding = present);
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let ours = self.stage.policy().bonds[0].ownership == Ownership::Create;
        // Its addresses go with it, which is not ours to prevent.
        if let Some(bond) = bond.filter(|_| ours && !present) {
            self.stage.change(|kernel| kernel.delete_bond(bond));
            let stage = &self.stage;
            self.guarded.retain(|address| !is_lost(stage, address));
        }
    }

    /// Something on top of the standby keeps it out of bonds, if it is not in one.
    fn occupy(&mut self) {
        let busy = self.rng.chance(500);
        let Some(standby) = self.standby else { return };
        let link = self.stage.kernel.dump_link(standby);
        if !busy || link.is_some_and(|link| link.controller.is_none()) {
            self.stage.change(|kernel| kernel.set_busy(standby, busy));
        }
    }

    /// Something else takes the bond's name while there is no bond, or gives it back.
    fn name_squatter(&mut self) {
        let holder = self.stage.kernel.index_of(&name("bond0"));
        match holder {
            None => {
                self.stage
                    .change(|kernel| kernel.add_software(&name("bond0"), UNKNOWN_MAC));
            }
            Some(holder) => {
                let link = self.stage.kernel.dump_link(holder);
                if link.is_some_and(|link| link.kind == LinkKind::Software) {
                    self.stage.unplug(holder);
                }
            }
        }
    }

    fn plug_standby(&mut self) {
        if self.standby.is_none() {
            let spec = standby_nic(STANDBY_MAC);
            self.standby = Some(self.stage.change(|kernel| kernel.plug(spec)));
        }
    }

    fn plug_vf(&mut self) {
        if self.vf.is_some() {
            return;
        }
        let mac = self.rng.pick(&VF_MACS).copied().unwrap_or(STANDBY_MAC);
        let spec = NicSpec {
            name: if self.rng.chance(500) {
                name("enp2s0")
            } else {
                name("vf")
            },
            refuses_mac: self.rng.chance(150),
            max_mtu: if self.rng.chance(100) { 1_400 } else { 9_216 },
            carrier_delay_ms: self.rng.below(300),
            ..vf_nic(mac)
        };
        self.vf = Some(self.stage.change(|kernel| kernel.plug(spec)));
    }

    fn unplug_vf(&mut self) {
        if let Some(vf) = self.vf.take() {
            self.stage.unplug(vf);
        }
    }

    /// The kernel warns; mostly it then means it.
    fn warn_and_unplug(&mut self) {
        let Some(vf) = self.vf else { return };
        let Some(link) = self.stage.kernel.dump_link(vf) else {
            return;
        };
        let (Some(pci), Some(parent)) = (link.pci, link.pci_parent) else {
            return;
        };
        let button = self.rng.chance(500);
        let first = if button {
            (RemovalStage::ButtonPressed, parent)
        } else {
            (RemovalStage::EjectRequested, pci)
        };
        self.warn(first.0, first.1);
        let lead_ms = if button {
            self.rng.below(5_000)
        } else {
            self.rng.below(10)
        };
        self.stage.run_ms(lead_ms);
        if button && self.rng.chance(200) {
            self.warn(RemovalStage::ButtonCancelled, parent);
        } else if self.rng.chance(850) {
            if self.rng.chance(500) {
                self.warn(RemovalStage::DriverStopping, pci);
            }
            self.unplug_vf();
        }
    }

    fn warn(&mut self, stage: RemovalStage, pci: tandem_core::PciAddress) {
        let at = self.stage.now;
        let removal = Removal { stage, pci, at };
        self.stage.feed_at(at.plus_ms(1), Input::Removal(removal));
    }

    fn toggle_cable(&mut self) {
        let of_vf = self.rng.chance(700);
        let nic = if of_vf { self.vf } else { self.standby };
        let plugged = self.rng.chance(if of_vf { 600 } else { 800 });
        if let Some(nic) = nic {
            self.stage.change(|kernel| kernel.set_cable(nic, plugged));
        }
    }

    /// A bad cable.
    fn flap(&mut self) {
        let Some(vf) = self.vf else { return };
        for plugged in [true, false, true, false, true, false, true] {
            self.stage.change(|kernel| kernel.set_cable(vf, plugged));
            let pause_ms = 500 + self.rng.below(1_500);
            self.stage.run_ms(pause_ms);
        }
    }

    fn rename(&mut self) {
        let nic = if self.rng.chance(700) {
            self.vf
        } else {
            self.standby
        };
        let names = ["eth0", "eth1", "enp2s0", "ens5"];
        let new = name(self.rng.pick(&names).copied().unwrap_or("eth7"));
        if let Some(nic) = nic {
            self.stage.change(|kernel| kernel.rename(nic, &new));
        }
    }

    fn ask(&mut self) {
        let bond = self.rng.chance(500).then(|| name("bond0"));
        let request = match self.rng.below(10) {
            0..2 => Request::Failover { bond },
            2..4 => Request::Failback { bond },
            4..7 => Request::PrepareUnplug {
                bond,
                vf: self.rng.chance(300).then_some(VF_MACS[1]),
            },
            7..9 => Request::Resume { bond },
            _ => Request::Announce { bond },
        };
        self.stage.command(request);
    }

    fn restart(&mut self) {
        self.stage.stop_service();
        let pause_ms = self.rng.below(3_000);
        self.stage.run_ms(pause_ms);
        self.stage.start_service();
    }

    /// A NIC that nobody described comes or goes.
    fn stranger(&mut self) {
        match self.stranger.take() {
            Some(nic) => self.stage.unplug(nic),
            None => {
                let spec = vf_nic(UNKNOWN_MAC);
                self.stranger = Some(self.stage.change(|kernel| kernel.plug(spec)));
            }
        }
    }

    /// Another manager interferes.
    fn meddle(&mut self) {
        let bond = self.stage.kernel.index_of(&name("bond0"));
        let (Some(bond), Some(standby), what) = (bond, self.standby, self.rng.below(6)) else {
            return;
        };
        let vf = self.vf;
        self.stage.change(|kernel| match (what, vf) {
            (0, Some(vf)) => kernel.steal(vf),
            (1, Some(vf)) => kernel.set_active(bond, vf),
            (2, Some(vf)) => kernel.change_primary(bond, vf),
            (3, _) => kernel.change_primary(bond, standby),
            (4, Some(vf)) => kernel.set_admin_up(vf, false),
            (5, _) => {
                let on = tandem_core::action::BondOptions {
                    all_ports_active: Some(true),
                    ..Default::default()
                };
                kernel.change_options(bond, &on);
            }
            _ => kernel.set_active(bond, standby),
        });
    }

    fn stray_address(&mut self) {
        let address = Address {
            ip: [198, 51, 100, 7].into(),
            prefix: 24,
        };
        if let Some(vf) = self.vf {
            self.stage.change(|kernel| kernel.give_address(vf, address));
        }
    }

    fn standby_comes_or_goes(&mut self) {
        let releasing = |kind: &ActionKind| matches!(kind, ActionKind::Release { .. });
        if self.stage.is_under_way(releasing) {
            return;
        }
        match self.standby {
            None => self.plug_standby(),
            Some(standby) => {
                self.standby = None;
                self.stage.unplug(standby);
                self.stage.standby_left_at = Some(self.stage.now);
                let stage = &self.stage;
                self.guarded.retain(|address| !is_lost(stage, address));
            }
        }
    }

    fn jump(&mut self) {
        let forward_ms = self.rng.below(100_000);
        self.stage.run_ms(0);
        self.stage.feed(Input::ClockJump { forward_ms });
    }

    fn lose(&mut self) {
        let sources = [
            Source::Links,
            Source::Addressing,
            Source::Udev,
            Source::Ebpf,
        ];
        if let Some(source) = self.rng.pick(&sources) {
            self.stage.feed(Input::Lost(*source));
        }
    }

    fn reload(&mut self) {
        let mut policy = self.stage.policy().clone();
        let timing = &mut policy.bonds[0].timing;
        timing.hold_ms = [100, 1_000, 3_000][usize::try_from(self.rng.below(3)).unwrap_or(0)];
        self.stage.set_policy(policy);
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
                if bond.handoffs.len() > tandem_core::status::BondStatus::MAX_HANDOFFS
                    || bond.problems.len() > 32
                {
                    faults.push("the status grows without bound".into());
                }
            }
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
        self.stage.run_ms(CALM_MS);
        self.check()?;
        self.judge(faults_when_calm(&self.stage))?;
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
        self.judge(faults)
    }

    /// A refused port is tried again for as long as it is there.
    fn has_refusal(&self) -> bool {
        let status = self.stage.machine.as_ref().map(|machine| machine.status());
        let retried = |problem: &Problem| {
            matches!(
                problem.code,
                ProblemCode::MacRefused | ProblemCode::MtuRefused | ProblemCode::ActionFailed
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
                Happened::Wanted(action) => writeln!(text, "{ms:>9} ms <- {action:?}"),
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
            seen: self.stage.seen,
        }
    }
}

fn default_route() -> Route {
    Route {
        destination: Address {
            ip: [0, 0, 0, 0].into(),
            prefix: 0,
        },
        gateway: Some([192, 0, 2, 1].into()),
        metric: None,
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let by_mac = |mac| PortMatch {
        mac: Some(mac),
        ..PortMatch::default()
    };
    let addressing = match rng.below(4) {
        0 => AddressingPolicy::None,
        1 => AddressingPolicy::Static {
            addresses: vec![Address {
                ip: [203, 0, 113, 5].into(),
                prefix: 24,
            }],
            routes: vec![default_route()],
        },
        _ => AddressingPolicy::Inherit,
    };
    Policy {
        origin: Origin::File,
        bonds: vec![BondPolicy {
            name: name("bond0"),
            standby: PortMatch {
                mac: Some(STANDBY_MAC),
                driver: Some("virtio_net".into()),
                pci: None,
            },
            vfs: VF_MACS.into_iter().map(by_mac).collect(),
            mac: if rng.chance(250) {
                MacPolicy::Follow
            } else {
                MacPolicy::Standby
            },
            ownership: if rng.chance(150) {
                Ownership::Adopt
            } else {
                Ownership::Create
            },
            addressing,
            mtu: rng.chance(200).then_some(1_450),
            timing: Timing {
                hold_max_ms: 30_000,
                ..Timing::default()
            },
        }],
    }
}

/// A seed for one of many runs.
pub fn seed_of(number: u64) -> u64 {
    Rng::new(number).bits()
}
