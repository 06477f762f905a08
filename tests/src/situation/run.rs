//! Carries a situation out in the lab.

use std::cell::OnceCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tandem_core::Status;
use tandem_core::status::Held;

use super::step::{Boot, Lost, Place, Port, State, Step, Verb, Way};
use crate::artifacts::cargo::{self, Profile};
use crate::command::progress;
use crate::net::{CLIENT_V4, GUEST_V4, GUEST_V6, Host};
use crate::probe::{Count, Direction, FrameOptions, FrameProbe, FrameReport};
use crate::tandem::{BOND, Guest, PROGRAM, STEP_LIMIT, Setup, switchover};
use crate::{Lab, Mac, Nic, Slot, Vm, test_mac};

/// Between two looks at a state that has to stay.
const LOOK: Duration = Duration::from_millis(500);
/// The first has the first VF.
const SECOND_ROOT_PORT: u8 = 1;
const PEER: Mac = test_mac(9);
const PEER_MEMORY_MIB: u32 = 256;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// Runs the steps in a lab of this name.
pub(super) fn run(name: &str, steps: &[(usize, Step)]) -> Result<()> {
    let lab = Lab::new(name)?;
    let began = Instant::now();
    let mut stage = Stage::new(&lab, steps)?;
    for (line, step) in steps {
        let at = began.elapsed().as_secs_f64();
        progress(&format!("{name}:{line} ({at:.1} s): {step:?}"));
        stage
            .carry_out(step)
            .with_context(|| format!("{name}:{line}: {step:?}{}", stage.said()))?;
    }
    let took = began.elapsed().as_secs_f64();
    progress(&format!("{name}: as written, in {took:.1} s"));
    Ok(())
}

/// Everything there is.
struct Stage<'lab> {
    lab: &'lab Lab,
    setup: Setup,
    hosts: [Host; 2],
    guest: Option<Guest>,
    peer: OnceCell<Vm>,
    /// The MAC of the VF that is plugged in, or was last.
    vf: Mac,
    probe: Option<FrameProbe>,
    report: Option<FrameReport>,
}

impl<'lab> Stage<'lab> {
    fn new(lab: &'lab Lab, steps: &[(usize, Step)]) -> Result<Self> {
        // The peer that every check talks to.
        lab.client()?;
        let mut setup = Setup::new()?;
        setup.bond_lines = steps
            .iter()
            .filter_map(|(_, step)| match step {
                Step::Config(line) => Some(line.clone()),
                _ => None,
            })
            .collect();
        Ok(Self {
            lab,
            hosts: [lab.host("a")?, lab.host("b")?],
            guest: None,
            peer: OnceCell::new(),
            vf: setup.vf,
            setup,
            probe: None,
            report: None,
        })
    }

    fn guest(&self) -> Result<&Guest> {
        self.guest.as_ref().context("no guest has booted")
    }

    fn guest_mut(&mut self) -> Result<&mut Guest> {
        self.guest.as_mut().context("no guest has booted")
    }

    fn carry_out(&mut self, step: &Step) -> Result<()> {
        match step {
            // It was read before the guest booted.
            Step::Config(_) => Ok(()),
            Step::Boot(boot) => self.boot(boot),
            Step::Service(verb) => self.service(*verb),
            Step::Prepare(vf) => self.prepare(*vf),
            Step::Unplug(vf) => self.guest_mut()?.vm.unplug(id(*vf)).map(drop),
            Step::PlugSecond => self.plug_second(),
            Step::Plug { other } => self.plug(*other),
            Step::Migrate => self.migrate(),
            Step::Carrier(port, up) => {
                let link = json!({ "name": id(*port), "up": up });
                let qmp = self.guest()?.vm.qmp();
                qmp.execute("set_link", link).map(drop)
            }
            Step::Bridge(port, on) => self.bridge(*port, *on),
            Step::Run {
                place,
                line,
                succeeds,
            } => self.run(*place, line, *succeeds),
            Step::Wait(time) => {
                std::thread::sleep(*time);
                Ok(())
            }
            Step::WaitUpTo(longest) => {
                let time = longest.mul_f64(by_chance());
                progress(&format!("{:.3} s", time.as_secs_f64()));
                std::thread::sleep(time);
                Ok(())
            }
            Step::Probe(rate_hz) => {
                let options = FrameOptions {
                    rate_hz: *rate_hz,
                    ..FrameOptions::default()
                };
                let vm = &self.guest()?.vm;
                let by_ipv4 = vm.sh(&format!("ip -4 -o address show to {GUEST_V4}"))?;
                let address = match by_ipv4.is_empty() {
                    true => GUEST_V6.into(),
                    false => GUEST_V4.into(),
                };
                self.probe = Some(self.lab.probe_frames(vm, address, options)?);
                Ok(())
            }
            Step::Mark(phase) => {
                self.probe.as_mut().context("no probe runs")?.mark(phase);
                Ok(())
            }
            Step::End => {
                let report = self.probe.take().context("no probe runs")?.finish()?;
                progress(&format!("{report}"));
                self.report = Some(report);
                Ok(())
            }
            Step::Lost(lost) => self.lost(lost),
            Step::Expect(state) => {
                let what = format!("{state:?}");
                let wanted = |status: &Status| is_so(*state, status);
                self.guest()?.await_here(&what, wanted).map(drop)
            }
            Step::Holds(time, state) => self.holds(*time, *state),
            Step::Check => self.guest()?.check(),
        }
    }

    fn boot(&mut self, boot: &Boot) -> Result<()> {
        self.setup.kernel = boot.kernel.unwrap_or(self.setup.kernel);
        (self.setup.model, self.setup.hot_plug) = (boot.model, boot.hot_plug);
        let vm = self.setup.guest(self.lab)?.boot(&self.hosts[0])?;
        let guest = Guest::new(vm, self.setup.standby);
        guest.put_addresses_on_standby()?;
        self.guest = Some(guest);
        Ok(())
    }

    fn service(&mut self, verb: Verb) -> Result<()> {
        let guest = self.guest_mut()?;
        match verb {
            Verb::Start => guest.start(&[]),
            Verb::Stop => guest.end_service(SIGTERM),
            Verb::Kill => guest.kill_service(),
            Verb::Freeze => guest.signal(SIGSTOP),
            Verb::Thaw => guest.signal(SIGCONT),
            Verb::Reload => guest.reload(),
        }
    }

    fn prepare(&self, vf: Option<Port>) -> Result<()> {
        let arguments = match vf {
            Some(vf) => json!({ "vf": self.mac(vf)?.to_string() }),
            None => json!({}),
        };
        let mut channel = self.guest()?.channel()?;
        let answer = channel.call("tandem-prepare-unplug", arguments, STEP_LIMIT)?;
        ensure!(answer["ready"] == json!(true), "not ready: {answer}");
        Ok(())
    }

    /// The VF that the configuration names beside the first.
    fn plug_second(&mut self) -> Result<()> {
        let nic = Nic {
            id: id(Port::Second).to_owned(),
            model: self.setup.model,
            mac: self.mac(Port::Second)?,
            slot: Slot::RootPort(SECOND_ROOT_PORT),
            properties: Vec::new(),
        };
        self.guest_mut()?.vm.plug(nic)
    }

    fn mac(&self, port: Port) -> Result<Mac> {
        match port {
            Port::Vf => Ok(self.vf),
            Port::Second => {
                let later = self.setup.later_vfs.first().copied();
                later.context("there is no other VF")
            }
            Port::Standby => Ok(self.setup.standby),
        }
    }

    fn plug(&mut self, other: bool) -> Result<()> {
        if other {
            let later = self.setup.later_vfs.first().copied();
            let later = later.context("there is no other VF")?;
            self.vf = match self.vf == later {
                true => self.setup.vf,
                false => later,
            };
        }
        let (model, vf) = (self.setup.model, self.vf);
        self.guest_mut()?.vm.plug_vf(model, vf)
    }

    fn migrate(&mut self) -> Result<()> {
        let here = self.guest()?.vm.host().name().to_owned();
        let there = self.hosts.iter().find(|host| host.name() != here);
        let there = there.context("there is no other host")?.clone();
        let report = self.guest_mut()?.vm.migrate_to(&there)?;
        progress(&format!(
            "{} ms in all, stopped for {} ms",
            report.total_ms, report.downtime_ms
        ));
        Ok(())
    }

    fn bridge(&self, port: Port, on: bool) -> Result<()> {
        let vm = &self.guest()?.vm;
        let tap = vm.tap(id(port))?;
        let joined: &[&str] = if on {
            &["master", "br0"]
        } else {
            &["nomaster"]
        };
        let words = [&["link", "set", tap], joined].concat();
        vm.host().namespace().ip(&words).map(drop)
    }

    fn run(&self, place: Place, line: &str, succeeds: bool) -> Result<()> {
        let guest = self.guest()?;
        let mac = self.setup.standby;
        let addresses = format!("GUEST={GUEST_V4} CLIENT={CLIENT_V4} BOND={BOND} MAC={mac}");
        let in_guest = || self.names(&guest.vm).map(|names| names + &addresses);
        let done = match place {
            Place::Guest => shell(&guest.vm, &in_guest()?, line),
            Place::Tandem => shell(&guest.vm, &in_guest()?, &format!("{PROGRAM} {line}")),
            Place::Client => shell(self.lab.client()?.agent(), &addresses, line),
            Place::Peer => {
                let peer = self.peer()?;
                let nic = peer.wait_interface(PEER, STEP_LIMIT)?;
                shell(peer, &format!("NIC={nic} {addresses}"), line)
            }
            Place::Host => {
                let agent = cargo::program("tandem-lab", "lab-agent", Profile::Dev)?
                    .display()
                    .to_string();
                let tap = |port| guest.vm.tap(id(port)).unwrap_or_default();
                let (vf, standby) = (tap(Port::Vf), tap(Port::Standby));
                let devices = format!(
                    "TAP_VF={vf} TAP_STANDBY={standby} VF_MAC={} LAB_AGENT={agent}",
                    self.vf
                );
                let script = format!("{devices} {addresses}; {line}");
                guest.vm.host().namespace().exec(&script)
            }
        };
        match (done, succeeds) {
            (Ok(said), true) => {
                progress(said.trim_end());
                Ok(())
            }
            (Ok(said), false) => bail!("it was not refused, and said: {}", said.trim_end()),
            (Err(error), true) => Err(error),
            (Err(error), false) => {
                progress(&format!("refused: {error:#}"));
                Ok(())
            }
        }
    }

    /// Booted when it is first asked for something: this machine's kernel may know no VLANs.
    fn peer(&self) -> Result<&Vm> {
        if let Some(peer) = self.peer.get() {
            return Ok(peer);
        }
        let peer = self
            .lab
            .small_guest()
            .kernel(self.setup.kernel)
            .standby(PEER)
            .memory_mib(PEER_MEMORY_MIB)
            .without_channel()
            .boot(&self.hosts[1])?;
        Ok(self.peer.get_or_init(|| peer))
    }

    /// The guest's names of its NICs; none for one that is not there.
    fn names(&self, vm: &Vm) -> Result<String> {
        let name = |mac| Ok::<_, anyhow::Error>(vm.find_interface(mac)?.unwrap_or_default());
        let name_of = |port| self.mac(port).and_then(name);
        let (vf, second, standby) = (
            name_of(Port::Vf)?,
            name_of(Port::Second)?,
            name_of(Port::Standby)?,
        );
        Ok(format!("VF={vf} SECOND={second} STANDBY={standby} "))
    }

    fn lost(&self, lost: &Lost) -> Result<()> {
        let report = self.report.as_ref().context("no probe has ended")?;
        let of = |direction: &Direction| -> Result<Count> {
            match &lost.phase {
                None => Ok(direction.total.clone()),
                Some(phase) => {
                    let count = direction.phase(phase).cloned();
                    count.with_context(|| format!("the probe knows no phase {phase}"))
                }
            }
        };
        let (to, from) = (of(&report.to_guest)?, of(&report.to_client)?);
        let counted = match lost.way {
            Way::Both => vec![to, from],
            Way::ToGuest => vec![to],
            Way::FromGuest => vec![from],
        };
        let frames: u64 = counted.iter().map(|count| count.lost).sum();
        let sent: u64 = counted.iter().map(|count| count.sent).sum();
        ensure!(sent > 0, "no frame was sent then");
        let holds = match lost.at_most {
            true => frames <= lost.frames,
            false => frames >= lost.frames,
        };
        ensure!(holds, "{frames} of {sent} frames were lost\n{report}");
        Ok(())
    }

    fn holds(&self, time: Duration, state: State) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            let status = self.guest()?.status()?;
            ensure!(
                is_so(state, &status),
                "no longer so, {:.1} s before the end: {}",
                until
                    .saturating_duration_since(Instant::now())
                    .as_secs_f64(),
                serde_json::to_string_pretty(&status)?
            );
            if Instant::now() >= until {
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// What the service said last, for errors.
    fn said(&self) -> String {
        let log = |guest: &Guest| format!("; the service's log ends:\n{}", guest.log_tail());
        self.guest.as_ref().map_or(String::new(), log)
    }
}

fn id(port: Port) -> &'static str {
    match port {
        Port::Vf => "vf",
        Port::Second => "second",
        Port::Standby => "standby",
    }
}

/// From 0 to 1.
fn by_chance() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    bits as f64 / f64::from(u32::MAX)
}

fn shell(agent: &crate::agent::Agent, variables: &str, line: &str) -> Result<String> {
    agent.sh(&format!("{variables}; {line}"))
}

/// Whether the first bond is so.
fn is_so(state: State, status: &Status) -> bool {
    let Some(bond) = status.bonds.first() else {
        return false;
    };
    match state {
        State::Bond(wanted) => bond.state == wanted,
        State::Traffic(wanted) => bond.traffic == wanted,
        State::Problem(code) => {
            let mut problems = bond.problems.iter().chain(&status.problems);
            problems.any(|problem| problem.code == code)
        }
        State::NoProblem => bond.problems.is_empty() && status.problems.is_empty(),
        State::Backup => {
            let mut backups = bond.backup_vfs.iter();
            backups.any(|vf| vf.held == Some(Held::Backup))
        }
        State::Armed => switchover::is_armed(status),
        State::Measured => switchover::is_measured(status),
    }
}
