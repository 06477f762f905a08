//! A real kernel: a guest of the lab with a virtio NIC as the standby and an
//! emulated e1000e that is plugged in and out as the VF. Actions are carried out
//! by the service's executor, links and addressing read by its observers, both in
//! the guest (`helper/examples/kernel_driver.rs`); what other managers and the
//! host do, `ip` and QEMU do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tandem_core::action::ActionKind;
use tandem_core::input::Outcome;
use tandem_core::link::{Addressing, Link};
use tandem_core::{IfName, Ifindex, Input, Mac};

use super::Kernel;
use crate::agent::COMMAND_LIMIT;
use crate::artifacts::cargo::{self, Profile};
use crate::{Lab, Nic, NicModel, Slot, Vm};

/// Where the driver is in the guest.
const DRIVER: &str = "/usr/bin/kernel_driver";
/// The standby's MAC.
const STANDBY_MAC: Mac = crate::test_mac(1);
/// The MAC of the NIC that has a pinned VF.
const PF_MAC: Mac = crate::test_mac(50);
/// QEMU's names of the NICs.
const STANDBY_ID: &str = "standby";
const VF_ID: &str = "vf";
const PF_ID: &str = "pf";
/// The root port of the PF; the VF has the first.
const PF_PORT: u8 = 1;
/// What lies on a NIC.
const OCCUPANT: &str = "occupant0";
/// An emulated NIC takes seconds from its opening to its carrier.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// How often the guest is asked while something is waited for.
const STEP: Duration = Duration::from_millis(100);

/// The kernel of a guest.
#[derive(Debug)]
pub struct RealKernel {
    vm: Vm,
    standby: Ifindex,
    /// The VF, and QEMU's name of what leaves with it.
    vf: Option<(Ifindex, &'static str)>,
}

impl RealKernel {
    /// Boots a guest with the kernel that `LAB_KERNEL_VERSION` names.
    ///
    /// # Errors
    /// The guest does not boot, or its standby is missing.
    pub fn boot(lab: &Lab) -> Result<Self> {
        let driver = cargo::example("tandem-guest", "kernel_driver", Profile::Dev)?;
        let vm = lab
            .small_guest()
            .kernel(crate::Kernel::from_environment()?)
            .module("vxlan")
            .standby(STANDBY_MAC)
            .program(&driver, DRIVER)
            .boot(&lab.host("a")?)?;
        let links = of_links(&look(&vm)?);
        let standby =
            with_permanent_mac(&links, STANDBY_MAC).context("the guest has no standby")?;
        Ok(Self {
            vm,
            standby,
            vf: None,
        })
    }

    /// The kernel's release.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn release(&self) -> Result<String> {
        self.vm.sh("uname -r")
    }

    fn name_of(&mut self, link: Ifindex) -> Result<IfName> {
        let found = self.links()?.into_iter().find(|one| one.ifindex == link);
        Ok(found
            .with_context(|| format!("interface {link} is not there"))?
            .name)
    }

    /// Makes the VF of the PF that is plugged in. It learns its MAC when its driver
    /// starts, so the PF's driver has to know it before.
    fn make_vf(&mut self, mac: Mac, pinned: bool) -> Result<Ifindex> {
        let pf = self.wait_nic(PF_MAC)?;
        let pf = self.name_of(pf)?;
        let device = format!("/sys/class/net/{pf}/device");
        let trust = if pinned { "off" } else { "on" };
        let steps = [
            format!("ip link set {pf} up"),
            format!("echo 0 >{device}/sriov_drivers_autoprobe"),
            format!("echo 1 >{device}/sriov_numvfs"),
            format!("ip link set {pf} vf 0 mac {mac}"),
            format!("ip link set {pf} vf 0 trust {trust}"),
            format!("echo 1 >{device}/sriov_drivers_autoprobe"),
            format!("basename $(readlink {device}/virtfn0) >/sys/bus/pci/drivers/igbvf/bind"),
        ];
        for step in steps {
            self.vm.sh(&step)?;
        }
        self.wait_nic(mac)
    }

    fn wait_nic(&mut self, mac: Mac) -> Result<Ifindex> {
        self.wait(&|links| with_permanent_mac(links, mac).is_some())?;
        with_permanent_mac(&self.links()?, mac).context("the NIC went at once")
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        let argv = [&["/sbin/ip"], arguments].concat();
        let output = self.vm.run(&argv, COMMAND_LIMIT)?;
        ensure!(
            output.success(),
            "`{}` failed: {}",
            argv.join(" "),
            output.error_text()
        );
        Ok(())
    }
}

impl Kernel for RealKernel {
    fn act(&mut self, action: &ActionKind) -> Result<Outcome> {
        let kind = serde_json::to_string(action)?;
        let inputs = drive(&self.vm, &["act", &kind])?;
        let done = inputs.into_iter().find_map(|input| match input {
            Input::Done { outcome, .. } => Some(outcome),
            _ => None,
        });
        done.context("the driver told no end of the action")
    }

    fn links(&mut self) -> Result<Vec<Link>> {
        Ok(of_links(&look(&self.vm)?))
    }

    fn addressings(&mut self) -> Result<Vec<Addressing>> {
        let inputs = look(&self.vm)?;
        let all = inputs.into_iter().find_map(|input| match input {
            Input::Addressings(all) => Some(all),
            _ => None,
        });
        let all = all.context("the driver told no addresses")?;
        let some = |one: &Addressing| !one.addresses.is_empty() || !one.routes.is_empty();
        Ok(all.into_iter().filter(some).collect())
    }

    fn standby(&mut self) -> Result<Ifindex> {
        Ok(self.standby)
    }

    fn plug_vf(&mut self, mac: Mac) -> Result<Ifindex> {
        self.vm.plug_vf(NicModel::E1000e, mac)?;
        let vf = self.wait_nic(mac)?;
        self.vf = Some((vf, VF_ID));
        Ok(vf)
    }

    /// A real one, with its PF in the same guest.
    fn plug_igbvf(&mut self, mac: Mac, pinned: bool) -> Result<Ifindex> {
        self.vm.plug(Nic {
            id: PF_ID.into(),
            model: NicModel::Igb,
            mac: PF_MAC,
            slot: Slot::RootPort(PF_PORT),
            properties: Vec::new(),
        })?;
        let made = self.make_vf(mac, pinned);
        match made {
            Ok(vf) => self.vf = Some((vf, PF_ID)),
            // The next case starts without it.
            Err(_) => {
                self.vm.unplug(PF_ID)?;
            }
        }
        made
    }

    fn unplug_vf(&mut self, vf: Ifindex) -> Result<()> {
        let (_, id) = self
            .vf
            .take_if(|(present, _)| *present == vf)
            .with_context(|| format!("interface {vf} is not the VF"))?;
        self.vm.unplug(id)?;
        self.wait(&|links| links.iter().all(|link| link.ifindex != vf))
    }

    fn set_cable(&mut self, nic: Ifindex, plugged: bool) -> Result<()> {
        let id = match nic {
            nic if nic == self.standby => STANDBY_ID,
            nic => match self.vf {
                Some((vf, VF_ID)) if vf == nic => VF_ID,
                _ => bail!("interface {nic} has no cable of its own"),
            },
        };
        let arguments = json!({ "name": id, "up": plugged });
        self.vm.qmp().execute("set_link", arguments)?;
        Ok(())
    }

    fn rename(&mut self, link: Ifindex, name: &IfName) -> Result<()> {
        let old = self.name_of(link)?;
        self.ip(&["link", "set", old.as_str(), "name", name.as_str()])
    }

    fn occupy(&mut self, nic: Ifindex, kind: Option<&str>) -> Result<()> {
        let Some(kind) = kind else {
            return self.ip(&["link", "delete", OCCUPANT]);
        };
        let nic = self.name_of(nic)?;
        let below: &[&str] = match kind {
            "vxlan" => &["id", "7", "dstport", "4789", "dev", nic.as_str()],
            "vlan" => &["id", "100"],
            _ => &[],
        };
        let lower: &[&str] = match kind {
            "vxlan" => &[],
            _ => &["link", nic.as_str()],
        };
        let argv: &[&str] = &["link", "add"];
        self.ip(&[argv, lower, &["name", OCCUPANT, "type", kind], below].concat())
    }

    fn set_active(&mut self, bond: Ifindex, port: Ifindex) -> Result<bool> {
        let (bond, port) = (self.name_of(bond)?, self.name_of(port)?);
        let argv = ["/sbin/ip", "link", "set", bond.as_str(), "type", "bond"];
        let argv = [&argv[..], &["active_slave", port.as_str()]].concat();
        Ok(self.vm.run(&argv, COMMAND_LIMIT)?.success())
    }

    fn delete_bond(&mut self, bond: Ifindex) -> Result<()> {
        let name = self.name_of(bond)?;
        self.ip(&["link", "delete", name.as_str(), "type", "bond"])
    }

    fn wait(&mut self, condition: &dyn Fn(&[Link]) -> bool) -> Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let links = self.links()?;
            if condition(&links) {
                return Ok(());
            }
            let seconds = WAIT_LIMIT.as_secs();
            ensure!(
                Instant::now() < deadline,
                "not within {seconds} s; links: {links:#?}"
            );
            std::thread::sleep(STEP);
        }
    }
}

fn look(vm: &Vm) -> Result<Vec<Input>> {
    drive(vm, &["look"])
}

fn drive(vm: &Vm, arguments: &[&str]) -> Result<Vec<Input>> {
    let argv = [&[DRIVER], arguments].concat();
    let output = vm.run(&argv, COMMAND_LIMIT)?;
    let text = output.text();
    ensure!(
        output.success() && !output.truncated,
        "the driver failed ({:?}): {}",
        output.exit,
        output.error_text()
    );
    let inputs = text.lines().map(|line| {
        serde_json::from_str(line).with_context(|| format!("the driver said `{line}`"))
    });
    inputs.collect()
}

/// The links as of the last of these inputs.
fn of_links(inputs: &[Input]) -> Vec<Link> {
    let mut links = BTreeMap::new();
    for input in inputs {
        match input {
            Input::Links(all) => {
                links = all
                    .iter()
                    .map(|link| (link.ifindex, link.clone()))
                    .collect();
            }
            Input::Link(link) => {
                links.insert(link.ifindex, link.clone());
            }
            Input::LinkGone { ifindex } => {
                links.remove(ifindex);
            }
            _ => {}
        }
    }
    links.into_values().collect()
}

fn with_permanent_mac(links: &[Link], mac: Mac) -> Option<Ifindex> {
    let found = links.iter().find(|link| link.permanent_mac == Some(mac));
    found.map(|link| link.ifindex)
}
