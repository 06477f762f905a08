//! Golden scenarios: a script of what happens to a guest, and the transcript of
//! what Tandem does about it, for people to read and for tests to compare.

mod text;

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::input::{Removal, RemovalStage, Request};
use tandem_core::link::{Address, Occupant, Route};
use tandem_core::policy::Policy;
use tandem_core::{IfName, Ifindex, Input, Mac, Output, PciAddress};

use super::fake::{FakeKernel, Flow, NicSpec, Path, pci, pci_port, standby_nic, vf_nic};
use super::stage::Said;
use super::{Disorder, Stage};

/// One line of a scenario's `input.jsonl`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Line {
    /// When it happens, in ms since the scenario's start.
    pub at_ms: u64,
    /// What happens.
    #[serde(rename = "do")]
    pub step: Step,
}

/// Something that happens.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum Step {
    /// A NIC is plugged in.
    Plug {
        /// What it is.
        nic: NicModel,
        /// Its permanent MAC.
        mac: Mac,
        /// Name that its driver gives it.
        #[serde(default)]
        name: Option<IfName>,
        /// Its PF forbids a change of its MAC.
        #[serde(default)]
        refuses_mac: bool,
        /// The network behind its cable takes none of its frames.
        #[serde(default)]
        is_cut_off: bool,
        /// Largest MTU in bytes.
        #[serde(default)]
        max_mtu: Option<u32>,
        /// Its driver makes its present MAC the permanent one at each reset.
        #[serde(default)]
        rewrites_mac: bool,
        /// The slot that it sits in, if not its kind's.
        #[serde(default)]
        slot: Option<u8>,
    },
    /// A NIC is plugged out.
    Unplug(IfName),
    /// A cable is plugged in or out.
    Cable {
        /// The NIC.
        nic: IfName,
        /// In.
        plugged: bool,
    },
    /// A network manager brings an interface up and gives it addresses.
    Configure {
        /// The interface.
        link: IfName,
        /// Its addresses.
        addresses: Vec<Address>,
        /// Its routes.
        #[serde(default)]
        routes: Vec<Route>,
    },
    /// udev renames an interface.
    Rename {
        /// Its name.
        from: IfName,
        /// Its new name.
        to: IfName,
    },
    /// The kernel announces a removal.
    Warn {
        /// How far it is.
        stage: RemovalStage,
        /// The NIC.
        nic: IfName,
    },
    /// Somebody asks for something.
    Ask(Request),
    /// The service starts with this policy.
    Start(Policy),
    /// The service starts again with the policy that it had.
    Restart,
    /// The service is killed.
    Kill,
    /// The service reads a new policy.
    Reload(Policy),
    /// The clock jumps.
    ClockJump {
        /// By how much, in ms.
        forward_ms: u64,
    },
    /// The bonding driver can be loaded or not.
    Bonding(bool),
    /// Another manager makes a bond.
    MakeBond {
        /// Its name.
        name: IfName,
        /// It is of mode active-backup.
        active_backup: bool,
    },
    /// Somebody adds an interface that is neither NIC nor bond.
    AddSoftware(IfName),
    /// Another manager takes a port out of its bond.
    Steal(IfName),
    /// A device is put on top of a NIC.
    LayOn {
        /// The NIC.
        nic: IfName,
        /// Its name.
        name: IfName,
        /// Its kind.
        kind: String,
    },
    /// What was put on top of a NIC is taken away.
    Clear(IfName),
    /// Something that no dump shows is put on top of a NIC and keeps it out of bonds, or is taken away.
    Occupy {
        /// The NIC.
        nic: IfName,
        /// Put.
        busy: bool,
    },
    /// Somebody changes an MTU.
    SetMtu {
        /// The interface.
        link: IfName,
        /// The MTU in bytes.
        mtu: u32,
    },
    /// Every write to the kernel is acknowledged and ignored, or no longer is.
    IgnoreWrites(bool),
    /// Frames of a NIC pass the network or do not, whatever its carrier.
    Path {
        /// The NIC.
        nic: IfName,
        /// Those that it sends pass.
        out: bool,
        /// Those that are sent to it pass.
        back: bool,
    },
    /// What the network does with a NIC's MACs.
    Macs {
        /// The NIC.
        nic: IfName,
        /// The network learns from its frames that the bond is there.
        learnt: bool,
        /// Its host lets it send with no MAC but the bond's.
        guarded: bool,
    },
    /// Each bond sends frames.
    Flow {
        /// How many a second.
        sent_per_s: u64,
    },
    /// Nothing; lets time pass.
    Wait,
}

/// A kind of NIC.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// virtio-net.
    Standby,
    /// A VF.
    Vf,
}

/// Plays a script and returns the transcript.
///
/// # Errors
///
/// The line that is wrong.
pub fn play(script: &str) -> Result<String> {
    let kernel = FakeKernel::new();
    let mut stage = Stage::new(kernel, Policy::default(), Disorder::default(), 0);
    let start = stage.now;
    let mut teller = Teller {
        text: String::new(),
    };
    for (number, text) in script.lines().enumerate() {
        if text.trim().is_empty() || text.starts_with("//") {
            continue;
        }
        let number = number + 1;
        let line: Line =
            serde_json::from_str(text).with_context(|| format!("line {number}: {text}"))?;
        let at = start.plus_ms(line.at_ms);
        if at < stage.now {
            bail!("line {number} is earlier than the one before");
        }
        stage.run_until(at);
        teller.tell(&mut stage);
        teller.say(line.at_ms, &format!("** {}", text::step_text(&line.step)));
        take(&mut stage, line.step).with_context(|| format!("line {number}"))?;
        teller.tell(&mut stage);
    }
    if !stage.violations.is_empty() {
        bail!("promises were broken: {:?}", stage.violations);
    }
    Ok(teller.text)
}

fn take(stage: &mut Stage, step: Step) -> Result<()> {
    match step {
        Step::Plug {
            nic,
            mac,
            name,
            refuses_mac,
            is_cut_off,
            max_mtu,
            rewrites_mac,
            slot,
        } => {
            let model = match nic {
                NicModel::Standby => standby_nic(mac),
                NicModel::Vf => vf_nic(mac),
            };
            let spec = NicSpec {
                name: name.unwrap_or_else(|| model.name.clone()),
                refuses_mac,
                is_cut_off,
                max_mtu: max_mtu.unwrap_or(model.max_mtu),
                rewrites_mac,
                pci: slot.map_or(model.pci, pci),
                pci_parent: slot.map_or(model.pci_parent, pci_port),
                ..model
            };
            stage.change(|kernel| kernel.plug(spec));
        }
        Step::Unplug(name) => {
            let nic = find(stage, &name)?;
            stage.unplug(nic);
        }
        Step::Cable { nic, plugged } => {
            let nic = find(stage, &nic)?;
            stage.change(|kernel| kernel.set_cable(nic, plugged));
        }
        Step::Configure {
            link,
            addresses,
            routes,
        } => {
            let link = find(stage, &link)?;
            stage.change(|kernel| {
                kernel.set_admin_up(link, true);
                for address in addresses {
                    kernel.give_address(link, address);
                }
                for route in routes {
                    kernel.give_route(link, route);
                }
            });
        }
        Step::Rename { from, to } => {
            let link = find(stage, &from)?;
            stage.change(|kernel| kernel.rename(link, &to));
        }
        Step::Warn {
            stage: removal,
            nic,
        } => warn(stage, removal, &nic)?,
        Step::Ask(request) => {
            stage.command(request);
        }
        Step::Start(policy) => {
            policy.validate()?;
            stage.put_policy(policy);
            stage.start_service();
        }
        Step::Restart => stage.start_service(),
        Step::Kill => stage.stop_service(),
        Step::Reload(policy) => {
            policy.validate()?;
            stage.set_policy(policy);
        }
        Step::ClockJump { forward_ms } => stage.feed(Input::ClockJump { forward_ms }),
        Step::Bonding(present) => stage.change(|kernel| kernel.has_bonding = present),
        Step::MakeBond {
            name,
            active_backup,
        } => make_bond(stage, &name, active_backup),
        Step::AddSoftware(name) => {
            stage.change(|kernel| kernel.add_software(&name, Mac([2, 0, 0, 0, 0, 1])));
        }
        Step::Steal(name) => {
            let port = find(stage, &name)?;
            stage.change(|kernel| kernel.steal(port));
        }
        Step::LayOn { nic, name, kind } => {
            let nic = find(stage, &nic)?;
            let occupant = Some(Occupant::Device { name, kind });
            stage.change(|kernel| kernel.set_occupant(nic, occupant));
        }
        Step::Clear(nic) => {
            let nic = find(stage, &nic)?;
            stage.change(|kernel| kernel.set_occupant(nic, None));
        }
        Step::Occupy { nic, busy } => {
            let nic = find(stage, &nic)?;
            stage.change(|kernel| kernel.set_busy(nic, busy));
        }
        Step::SetMtu { link, mtu } => {
            let link = find(stage, &link)?;
            let done = stage.change(|kernel| kernel.change_mtu(link, mtu));
            ensure!(done, "the kernel refuses that MTU");
        }
        Step::Path { nic, out, back } => {
            let nic = find(stage, &nic)?;
            let before = stage.kernel.path(nic).context("no NIC")?;
            let path = Path {
                out,
                back,
                ..before
            };
            stage.change(|kernel| kernel.set_path(nic, path));
        }
        Step::Macs {
            nic,
            learnt,
            guarded,
        } => {
            let nic = find(stage, &nic)?;
            let before = stage.kernel.path(nic).context("no NIC")?;
            let path = Path {
                learnt,
                guarded,
                ..before
            };
            stage.change(|kernel| kernel.set_path(nic, path));
        }
        Step::Flow { sent_per_s } => {
            stage.kernel.flow = Flow {
                sent_per_s,
                ..Flow::IDLE
            };
        }
        Step::IgnoreWrites(ignored) => {
            stage.disorder.ignore = if ignored { 1000 } else { 0 };
        }
        Step::Wait => {}
    }
    Ok(())
}

fn warn(stage: &mut Stage, removal: RemovalStage, nic: &IfName) -> Result<()> {
    let index = find(stage, nic)?;
    let link = stage.kernel.dump_link(index);
    let link = link.with_context(|| format!("{nic} is gone"))?;
    let pci: Option<PciAddress> = match removal {
        RemovalStage::ButtonPressed | RemovalStage::ButtonCancelled => link.pci_parent,
        _ => link.pci,
    };
    let pci = pci.with_context(|| format!("{nic} is no PCI device"))?;
    let at = stage.now;
    let stage_of_removal = removal;
    stage.feed(Input::Removal(Removal {
        stage: stage_of_removal,
        pci,
        at,
    }));
    Ok(())
}

fn make_bond(stage: &mut Stage, name: &IfName, active_backup: bool) {
    use tandem_core::link::BondMode;
    let mode = if active_backup {
        BondMode::ActiveBackup
    } else {
        BondMode::Other
    };
    let options = BondOptions {
        miimon_ms: Some(100),
        ..BondOptions::default()
    };
    stage.change(|kernel| {
        if let Some(bond) = kernel.add_foreign_bond(name, mode) {
            kernel.set_admin_up(bond, true);
            kernel.change_options(bond, &options);
        }
    });
}

fn find(stage: &Stage, name: &IfName) -> Result<Ifindex> {
    let found = stage.kernel.index_of(name);
    found.with_context(|| format!("there is no interface {name}"))
}

/// A look at what a port has sent.
fn is_routine(kind: &ActionKind) -> bool {
    matches!(kind, ActionKind::ReadTraffic { .. })
}

/// Writes the transcript.
struct Teller {
    text: String,
}

impl Teller {
    fn say(&mut self, at_ms: u64, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:>8}.{:03}  {text}", at_ms / 1000, at_ms % 1000);
    }

    /// Tells what was done and said since the last time.
    fn tell(&mut self, stage: &mut Stage) {
        for (at, said) in std::mem::take(&mut stage.said) {
            let at_ms = at.since_ms(super::stage::START);
            // There is no end of those.
            if matches!(&said, Said::Output(Output::Act(action)) if is_routine(&action.kind)) {
                continue;
            }
            let text = match &said {
                Said::Output(output) => text::output_text(stage, output),
                Said::Failed(text) => format!("       {text}"),
            };
            self.say(at_ms, &text);
        }
    }
}
