//! A guest of one of the systems, and what that system has done with it around the host's steps.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::Status;
use tandem_core::status::{BondState, Switchover};

use super::case::{Case, System};
use super::peers;
use crate::carried::CARRIED;
use crate::command;
use crate::libvirt::host_program;
use crate::qemu::named_with_control;
use crate::tandem::{Channel, Guest, STEP_LIMIT, Setup, switchover};
use crate::{Host, Lab, Mac, Vm};

const SETPRIV: &str = "/usr/bin/setpriv";
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

/// What the host does with the VF around the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostPart {
    /// There is no VF.
    Nothing,
    /// It unplugs the VF before and plugs one in afterwards.
    UnplugsAndPlugs,
    /// QEMU does both by itself.
    LeavesItToQemu,
}

/// Two hosts, and a guest that moves between them.
#[derive(Debug)]
pub struct Stage<'lab> {
    lab: &'lab Lab,
    hosts: [Host; 2],
}

impl<'lab> Stage<'lab> {
    /// Makes the hosts.
    pub fn new(lab: &'lab Lab) -> Result<Self> {
        Ok(Self {
            lab,
            hosts: [lab.host("a")?, lab.host("b")?],
        })
    }

    /// Boots a guest on the first host; its VF carries the traffic then.
    pub fn boot(&self, case: Case) -> Result<Subject> {
        Subject::boot(self.lab, &self.hosts[0], case)
            .with_context(|| format!("booting the guest of {}", case.key()))
    }

    /// The host a guest goes to from where it is.
    pub fn other_host(&self, subject: &Subject) -> &Host {
        let here = subject.vm().host().name();
        let [first, second] = &self.hosts;
        if first.name() == here { second } else { first }
    }
}

/// A guest of one of the systems. Its VF carries the traffic between evacuations.
pub struct Subject {
    pub(super) case: Case,
    guest: Guest,
    setup: Setup,
    pub(super) present_vf: Mac,
    channel: Option<Channel>,
    /// Of the QEMU that it is in, and how often it has moved, where that is by `tandem-host`.
    pub(super) qmp: PathBuf,
    pub(super) moves: usize,
    switchovers_before: u64,
    switchovers_seen: u64,
}

impl Subject {
    fn boot(lab: &Lab, host: &Host, case: Case) -> Result<Self> {
        let mut setup = Setup::new()?;
        if let Some((model, hot_plug)) = case.vf {
            (setup.model, setup.hot_plug) = (model, hot_plug);
        }
        let qmp = lab.folder().join("0.qmp");
        if case.system.is_carried() {
            // Built before anything is measured.
            host_program()?;
            setup.control = named_with_control(CARRIED, &qmp);
        }
        let guest = match case.system {
            System::TandemPlanned
            | System::TandemCarried
            | System::TandemWarned
            | System::TandemKernelAlone => setup.boot(lab, host)?,
            System::TandemWithoutEbpf => without_ebpf(lab, host, &setup)?,
            _ => Guest::new(peers::boot(lab, host, case, &setup)?, setup.standby),
        };
        if case.system.is_tandem() {
            guest.await_state(&mut guest.channel()?, BondState::Accelerated)?;
        }
        Ok(Self {
            case,
            guest,
            present_vf: setup.vf,
            qmp,
            moves: 0,
            setup,
            channel: None,
            switchovers_before: 0,
            switchovers_seen: 0,
        })
    }

    /// The virtual machine.
    pub fn vm(&self) -> &Vm {
        &self.guest.vm
    }

    pub(super) fn vm_mut(&mut self) -> &mut Vm {
        &mut self.guest.vm
    }

    pub(super) fn host_part(&self) -> HostPart {
        match self.case.system {
            System::Floor | System::FloorCarried => HostPart::Nothing,
            System::NetFailover => HostPart::LeavesItToQemu,
            _ => HostPart::UnplugsAndPlugs,
        }
    }

    /// The MAC of the VF that waits on the other host.
    pub(super) fn other_vf(&self) -> Mac {
        let later = self.setup.later_vfs.first().copied();
        match later {
            Some(later) if self.present_vf == self.setup.vf => later,
            _ => self.setup.vf,
        }
    }

    /// Before anything happens: the guest is as it is at rest.
    pub(super) fn begin(&mut self) -> Result<()> {
        if !self.case.system.is_tandem() {
            return Ok(());
        }
        let mut channel = self.guest.channel()?;
        let status = channel
            .await_status("an armed fast path", STEP_LIMIT, switchover::is_armed)
            .with_context(|| self.log_tail())?;
        self.switchovers_before = switchover::count(&status);
        self.switchovers_seen = self.switchovers_before;
        self.channel = Some(channel);
        Ok(())
    }

    /// The host asks the guest to prepare, where it does that.
    pub(super) fn prepare(&mut self) -> Result<()> {
        let asks = [System::TandemPlanned, System::TandemCarried];
        if !asks.contains(&self.case.system) {
            return Ok(());
        }
        let channel = self.channel.as_mut().context("the channel is not open")?;
        let answer = channel.call("tandem-prepare-unplug", json!({}), STEP_LIMIT)?;
        ensure!(
            answer["ready"] == json!(true),
            "the guest is not ready for the unplug: {answer}"
        );
        Ok(())
    }

    /// The host takes the VF.
    pub(super) fn lose_vf(&mut self) -> Result<()> {
        let alone = self.case.system == System::TandemKernelAlone;
        if alone {
            self.guest.signal(SIGSTOP)?;
        }
        self.guest.vm.unplug_vf()?;
        if alone {
            self.guest.signal(SIGCONT)?;
        }
        Ok(())
    }

    /// The VF is gone: the service has told what there is to tell.
    pub(super) fn failed_over(&mut self) -> Result<()> {
        let seen = self.switchovers_seen;
        // A service that stood still meanwhile may never know the gap.
        let is_told: fn(&Status, u64) -> bool = match self.case.system {
            System::TandemKernelAlone => |status, seen| switchover::count(status) > seen,
            _ => switchover::is_measured_since,
        };
        if let Some(mut channel) = self.channel.take() {
            let status = channel
                .await_status("the failover", STEP_LIMIT, |status| is_told(status, seen))
                .with_context(|| self.log_tail())?;
            self.switchovers_seen = switchover::count(&status);
        }
        Ok(())
    }

    /// The traffic is on the new VF: the service has told what there is to tell.
    pub(super) fn failed_back(&mut self) -> Result<()> {
        if !self.case.system.is_tandem() {
            return Ok(());
        }
        let seen = self.switchovers_seen;
        let mut channel = self.guest.channel()?;
        self.guest
            .await_state(&mut channel, BondState::Accelerated)?;
        channel
            .await_status("the failback's gap", STEP_LIMIT, |status| {
                switchover::is_measured_since(status, seen)
            })
            .with_context(|| self.log_tail())?;
        self.channel = Some(channel);
        Ok(())
    }

    /// The switchovers of this evacuation, by the service.
    pub(super) fn take_switchovers(&mut self) -> Result<Vec<Switchover>> {
        let Some(mut channel) = self.channel.take() else {
            return Ok(Vec::new());
        };
        let status = channel.status(STEP_LIMIT)?;
        let switchovers = status.bonds.into_iter().flat_map(|bond| bond.switchovers);
        Ok(switchovers
            .filter(|switchover| switchover.number > self.switchovers_before)
            .collect())
    }

    /// All that the service logged so far; nothing where there is none in a file.
    pub fn log(&self) -> Result<Vec<u8>> {
        match self.case.system.is_tandem() {
            true => self.vm().read_file(crate::tandem::LOG),
            false => Ok(Vec::new()),
        }
    }

    /// The service's last words, for errors.
    pub(super) fn log_tail(&self) -> String {
        match self.case.system.is_tandem() {
            true => format!("the service's log ends:\n{}", self.guest.log_tail()),
            false => String::new(),
        }
    }
}

/// A guest whose service may not load kernel programs.
fn without_ebpf(lab: &Lab, host: &Host, setup: &Setup) -> Result<Guest> {
    lab.client()?;
    let setpriv = command::find_program("setpriv").context("`setpriv` is missing (util-linux)")?;
    let vm = setup.guest(lab)?.program(&setpriv, SETPRIV).boot(host)?;
    let mut guest = Guest::new(vm, setup.standby);
    guest.put_addresses_on_standby()?;
    guest.start_through(
        &[SETPRIV, "--bounding-set", "-bpf,-perfmon,-sys_admin"],
        &[],
    )?;
    Ok(guest)
}
