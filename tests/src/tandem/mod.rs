//! Tandem in a small guest of the lab: set up, started, asked, and held against the kernel.

mod channel;
mod health;
pub mod switchover;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tandem_core::Status;
use tandem_core::input::Source;
use tandem_core::status::BondState;
use tandem_wire::reply::StatusReport;

pub use channel::Channel;
pub use health::addresses_are_on_the_bond;

use crate::agent::{Agent, Background, Output};
use crate::artifacts::cargo::{self, Profile};
use crate::net::{GUEST_V4, GUEST_V6};
use crate::{Host, HotPlug, Kernel, Lab, Mac, NicModel, SmallGuest, Vm, test_mac};

/// Where the service is in the guest.
pub const PROGRAM: &str = "/usr/bin/tandem";
/// Its configuration there.
pub const CONFIG: &str = "/etc/tandem/tandem.toml";
/// What it logs there.
pub const LOG: &str = "/tmp/tandem.log";
/// The bond of all suites.
pub const BOND: &str = "bond0";
/// How long a guest under emulation may take for a step that takes a moment on metal.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

/// What a guest of a suite has.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Which Linux.
    pub kernel: Kernel,
    /// What stands in for a VF.
    pub model: NicModel,
    /// How hot-plug is signalled.
    pub hot_plug: HotPlug,
    /// Whether its clock counts its one processor's instructions.
    pub counts_instructions: bool,
    /// The standby's MAC.
    pub standby: Mac,
    /// The first VF's MAC: there at boot.
    pub vf: Mac,
    /// MACs of VFs that may come later.
    pub later_vfs: Vec<Mac>,
    /// Lines added to the bond in the configuration.
    pub bond_lines: Vec<String>,
    /// QEMU's arguments for a control connection besides the lab's.
    pub control: Vec<String>,
}

impl Setup {
    /// An igb NIC as the VF, a second one that may come later, the kernel of `LAB_KERNEL_VERSION`.
    pub fn new() -> Result<Self> {
        Ok(Self {
            kernel: Kernel::from_environment()?,
            model: NicModel::Igb,
            hot_plug: HotPlug::Acpi,
            counts_instructions: false,
            standby: test_mac(1),
            vf: test_mac(2),
            later_vfs: vec![test_mac(3)],
            bond_lines: Vec::new(),
            control: Vec::new(),
        })
    }

    /// The configuration file for it.
    pub fn config(&self) -> String {
        let vfs: Vec<_> = std::iter::once(&self.vf)
            .chain(&self.later_vfs)
            .map(|mac| format!("{{ mac = \"{mac}\" }}"))
            .collect();
        format!(
            "[[bond]]\nname = \"{BOND}\"\nstandby = {{ mac = \"{}\" }}\nvfs = [{}]\n{}\n",
            self.standby,
            vfs.join(", "),
            self.bond_lines.join("\n")
        )
    }

    /// The guest with its NICs, the service and its configuration; not booted yet.
    pub fn guest<'lab>(&self, lab: &'lab Lab) -> Result<SmallGuest<'lab>> {
        let mut guest = lab.small_guest();
        if self.counts_instructions {
            guest = guest
                .cpus(1)
                .hardware(|hardware| hardware.counts_instructions = true);
        }
        let control = self.control.clone();
        Ok(guest
            .hardware(|hardware| hardware.extra_arguments = control)
            .kernel(self.kernel)
            .hot_plug(self.hot_plug)
            .standby(self.standby)
            .vf(self.model, self.vf)
            // Where there is no tcx, before Linux 6.6, the fast-path programs are attached by these.
            .module("sch_ingress")
            .module("cls_bpf")
            .program(&binary()?, PROGRAM)
            .text(CONFIG, &self.config()))
    }

    /// Boots it, with the guest's addresses on its standby, and starts the service.
    pub fn boot(&self, lab: &Lab, host: &Host) -> Result<Guest> {
        // The peer that every check talks to.
        lab.client()?;
        let vm = self.guest(lab)?.boot(host)?;
        let mut guest = Guest {
            vm,
            service: None,
            standby: self.standby,
        };
        guest.put_addresses_on_standby()?;
        guest.start(&[])?;
        Ok(guest)
    }
}

/// The release binary of the service, as it is shipped.
pub fn binary() -> Result<PathBuf> {
    cargo::program("tandem-guest", "tandem", Profile::Release)
}

/// A guest with the service.
pub struct Guest {
    /// The virtual machine.
    pub vm: Vm,
    service: Option<Background>,
    standby: Mac,
}

impl Guest {
    /// A guest that has booted, its service not started.
    pub fn new(vm: Vm, standby: Mac) -> Self {
        Self {
            vm,
            service: None,
            standby,
        }
    }

    /// Gives the standby the addresses that the lab's client knows the guest by.
    pub fn put_addresses_on_standby(&self) -> Result<()> {
        let device = self
            .vm
            .find_interface(self.standby)?
            .with_context(|| format!("the guest has no NIC {}", self.standby))?;
        self.vm.sh(&format!(
            "ip link set {device} up && ip address add {GUEST_V4}/24 dev {device} && \
             ip -6 address add {GUEST_V6}/64 dev {device} nodad"
        ))?;
        Ok(())
    }

    /// Starts the service, with more environment variables.
    pub fn start(&mut self, env: &[(&str, &str)]) -> Result<()> {
        self.start_through(&[], env)
    }

    /// Starts the service through another program, which changes what it may do and becomes it.
    pub fn start_through(&mut self, launcher: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let argv: Vec<&str> = launcher.iter().copied().chain([PROGRAM, "run"]).collect();
        let mut all = vec![("TANDEM_LOG", "debug,aya=warn,aya_obj=warn")];
        all.extend_from_slice(env);
        self.service = Some(self.vm.spawn(&argv, &all, LOG)?);
        Ok(())
    }

    /// The service's process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self
            .service
            .as_ref()
            .context("the service was not started")?
            .pid)
    }

    /// Sends the service a signal, by number.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let service = self.service.context("the service was not started")?;
        self.vm.signal(service, signal)
    }

    /// Has the service read its configuration anew (SIGHUP).
    pub fn reload(&self) -> Result<()> {
        self.signal(1)
    }

    /// Kills the service as `kill -9` does, and waits until it is gone.
    pub fn kill_service(&mut self) -> Result<()> {
        self.end_service(9)
    }

    /// Sends the service this signal, and waits until it is gone.
    pub fn end_service(&mut self, signal: i32) -> Result<()> {
        let service = self.service.take().context("the service was not started")?;
        self.vm.signal(service, signal)?;
        self.vm
            .wait(service, STEP_LIMIT)?
            .with_context(|| format!("the service outlived signal {signal}"))?;
        Ok(())
    }

    /// What the service logged, its last lines.
    pub fn log_tail(&self) -> String {
        self.vm
            .sh(&format!("tail -n 60 {LOG}"))
            .unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Runs the service's command line in the guest.
    pub fn tandem(&self, arguments: &[&str]) -> Result<Output> {
        let argv: Vec<&str> = std::iter::once(PROGRAM)
            .chain(arguments.iter().copied())
            .collect();
        self.vm.run(&argv, STEP_LIMIT)
    }

    /// The service's status, asked for in the guest.
    pub fn status(&self) -> Result<Status> {
        let output = self.tandem(&["status", "--json"])?;
        ensure!(output.success(), "tandem status: {}", output.error_text());
        let report: serde_json::Value = serde_json::from_str(&output.text())?;
        serde_json::from_value(report["status"].clone()).context("the status is not understood")
    }

    /// Opens Tandem's channel, from the host's side.
    pub fn channel(&self) -> Result<Channel> {
        Channel::new(self.vm.channel()?, STEP_LIMIT)
    }

    /// Waits until the bond is in this state; the error tells what it is in and what the service logged.
    pub fn await_state(&self, channel: &mut Channel, state: BondState) -> Result<Status> {
        channel
            .await_status(&format!("{state:?}"), STEP_LIMIT, |status| {
                let bond = status.bonds.first();
                bond.is_some_and(|bond| bond.state == state) && monitor_is_decided(status)
            })
            .with_context(|| format!("the service's log ends:\n{}", self.log_tail()))
    }
}

impl Guest {
    /// Waits for the state, over the channel, and holds it against the kernel.
    pub fn reach(&self, state: BondState) -> Result<()> {
        self.await_state(&mut self.channel()?, state)?;
        self.check()
            .with_context(|| format!("while it should be {state:?}"))
    }

    /// Waits for the state, by asking inside the guest, and holds it against the kernel.
    pub fn reach_here(&self, state: BondState) -> Result<Status> {
        let status = self.await_here(&format!("{state:?}"), |status| {
            let bond = status.bonds.first();
            bond.is_some_and(|bond| bond.state == state) && monitor_is_decided(status)
        })?;
        self.check()
            .with_context(|| format!("while it should be {state:?}"))?;
        Ok(status)
    }

    /// Waits until the status is as wanted, by asking inside the guest: for guests without a channel, and for
    /// those whose channel somebody else has.
    pub fn await_here(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            // The socket is not there before the service is.
            let status = self.status();
            if let Ok(status) = &status
                && wanted(status)
            {
                return Ok(status.clone());
            }
            ensure!(
                Instant::now() < deadline,
                "not {what} within {STEP_LIMIT:?}; status: {status:#?}; the service's log ends:\n{}",
                self.log_tail()
            );
            self.vm.sh(NEXT_EVENT)?;
        }
    }
}

/// Ends with the service's next event; not every change of a status is one, so after a second at the latest.
/// Where no service runs yet it only pauses.
const NEXT_EVENT: &str = "rm -f /tmp/events; mkfifo /tmp/events; \
    timeout 1 tandem status --watch --json >/tmp/events 2>/dev/null & \
    { read -r status; read -r event; } </tmp/events; kill $! 2>/dev/null; \
    test -n \"$status\" || sleep 0.2; true";

/// The status of the service in this guest, with the moment of the guest's clock that it was made at.
pub(crate) fn report(agent: &Agent, limit: Duration) -> Result<StatusReport> {
    let output = agent.run(&[PROGRAM, "status", "--json"], limit)?;
    ensure!(output.success(), "tandem status: {}", output.error_text());
    serde_json::from_str(&output.text()).context("the status is not understood")
}

/// The service has found out which kernel programs work; loading them, on an emulated
/// machine, takes seconds of its processor.
pub fn monitor_is_decided(status: &Status) -> bool {
    let monitor = status.sources.iter().find(|one| one.source == Source::Ebpf);
    monitor.is_some_and(|monitor| !monitor.parts.is_empty())
}
