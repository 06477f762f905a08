//! The guest that grows, and what is measured in it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::status::{BondState, Status, Switchover};
use tandem_lab::agent::Background;
use tandem_lab::tandem::{
    BOND, CONFIG, Channel, Guest, LOG, PROGRAM, STEP_LIMIT, Setup, monitor_is_decided,
};
use tandem_lab::{Host, Lab, Mac};

use super::Axis;

/// Thousands of links, and what the kernel keeps of each.
const MEMORY_MIB: u32 = 1536;
/// Adding thousands of links to an emulated guest.
const GROW_LIMIT: Duration = Duration::from_secs(600);
/// The service has come to rest once it has used no more than [`REST_CPU_US`] in this time.
const REST: Duration = Duration::from_secs(2);
const REST_CPU_US: u64 = 1000;
const REST_LIMIT: Duration = Duration::from_secs(180);
/// The group that the service's processor time is counted by, of all its threads, past ones too.
const GROUP: &str = "/sys/fs/cgroup/tandem";
const BATCH: &str = "/tmp/batch";
const SIGHUP: i32 = 1;
const SIGTERM: i32 = 15;
/// Root bus slots of the further standbys, eight in each.
const FIRST_SLOT: usize = 0x8;
const FUNCTIONS: usize = 8;
/// The last byte of the first further standby's MAC.
const FIRST_MAC: usize = 0x40;

/// What one point came to; where there are several figures, each is one sample.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) resident_kib: u64,
    /// From the beginning of the step until the service was at rest again.
    pub(super) step_cpu_us: u64,
    /// Everything read and announced anew, as after a pause of the guest.
    pub(super) reread_cpu_us: Vec<u64>,
    /// From the decision to the moment the new port was seen active.
    pub(super) failover_us: Vec<u64>,
    pub(super) failback_us: Vec<u64>,
    /// Both switchovers, with announcements and drain.
    pub(super) switchover_cpu_us: Vec<u64>,
    /// From exec until the channel answers and every bond has its state; by this machine's clock.
    pub(super) start_ms: u64,
    /// From exec until the service is at rest; loading the kernel programs is most of it.
    pub(super) start_cpu_us: u64,
}

/// The guest, its service in a group of its own.
pub(super) struct Patient {
    guest: Guest,
    setup: Setup,
    service: Background,
    bonds: usize,
}

impl Patient {
    pub(super) fn boot(lab: &Lab, host: &Host) -> Result<Self> {
        lab.client()?;
        let setup = Setup::new()?;
        let most = Axis::Bonds.sizes().last().copied().unwrap_or(1);
        let vm = setup
            .guest(lab)?
            .memory_mib(MEMORY_MIB)
            .module("veth")
            .hardware(|hardware| {
                for number in 1..most {
                    hardware.extra_arguments.extend(further_standby(number));
                }
            })
            .boot(host)?;
        vm.sh(&format!("mkdir {GROUP}"))?;
        let guest = Guest::new(vm, setup.standby);
        guest.put_addresses_on_standby()?;
        let service = start(&guest)?;
        let patient = Self {
            guest,
            setup,
            service,
            bonds: 1,
        };
        patient.await_bonds(&mut patient.guest.channel()?)?;
        patient.await_rest()?;
        Ok(patient)
    }

    /// How large the guest is without any step.
    pub(super) fn size(&self, axis: Axis) -> usize {
        if axis == Axis::Bonds { 1 } else { 0 }
    }

    /// Takes the step from one size to the next, and measures what it costs and what it changed.
    pub(super) fn grow(
        &mut self,
        axis: Axis,
        (from, to): (usize, usize),
        samples: u32,
    ) -> Result<Measured> {
        let before_us = self.cpu_us()?;
        match axis {
            Axis::Addresses => self.batch(from, to, |number, text| {
                let (high, low) = (number / 250, number % 250 + 1);
                writeln!(text, "address add 10.79.{high}.{low}/32 dev {BOND}")
            })?,
            Axis::Routes => self.batch(from, to, |number, text| {
                let (high, low) = (number / 250, number % 250 + 1);
                writeln!(text, "route add 10.80.{high}.{low}/32 dev {BOND}")
            })?,
            // A pair is two links.
            Axis::Links => self.batch(from / 2, to / 2, |number, text| {
                writeln!(text, "link add a{number} type veth peer name b{number}")
            })?,
            Axis::Bonds => self.set_bonds(to)?,
        }
        self.await_rest()?;
        let mut measured = Measured {
            step_cpu_us: self.cpu_us()? - before_us,
            resident_kib: self.resident_kib()?,
            ..Measured::default()
        };

        for _ in 0..samples {
            measured.reread_cpu_us.push(self.cpu_of(|patient| {
                // A clock that was set forward is how a pause shows.
                patient.guest.vm.sh("date -s @$(($(date +%s) + 5))")?;
                Ok(())
            })?);
        }
        let mut channel = self.guest.channel()?;
        for _ in 0..samples {
            let cpu_us = self.cpu_of(|_| {
                let failover = switch_over(&mut channel, "tandem-failover")?;
                let failback = switch_over(&mut channel, "tandem-failback")?;
                measured.failover_us.extend(failover.took_us);
                measured.failback_us.extend(failback.took_us);
                Ok(())
            })?;
            measured.switchover_cpu_us.push(cpu_us);
        }
        drop(channel);
        self.restart(&mut measured)?;
        Ok(measured)
    }

    /// Undoes all steps of an axis, so that the next one begins with a small guest.
    pub(super) fn shrink(&mut self, axis: Axis) -> Result<()> {
        let last = axis.sizes().last().copied().unwrap_or(0);
        match axis {
            Axis::Addresses => {
                self.guest
                    .vm
                    .sh(&format!("ip address flush dev {BOND} to 10.79.0.0/16"))?;
            }
            Axis::Routes => {
                self.guest
                    .vm
                    .sh(&format!("ip route flush dev {BOND} root 10.80.0.0/16"))?;
            }
            Axis::Links => {
                let gone = self.guest.vm.run(&["rmmod", "veth"], GROW_LIMIT)?;
                ensure!(gone.success(), "{last} links stay: {}", gone.error_text());
            }
            Axis::Bonds => {}
        }
        self.await_rest()
    }

    /// Has `ip` do a line for each number.
    fn batch(
        &self,
        from: usize,
        to: usize,
        line: impl Fn(usize, &mut String) -> std::fmt::Result,
    ) -> Result<()> {
        let mut text = String::new();
        for number in from..to {
            line(number, &mut text)?;
        }
        let vm = &self.guest.vm;
        vm.write_file(BATCH, text.as_bytes(), false)?;
        let done = vm.run(&["ip", "-batch", BATCH], GROW_LIMIT)?;
        ensure!(done.success(), "ip -batch: {}", done.error_text());
        Ok(())
    }

    fn set_bonds(&mut self, bonds: usize) -> Result<()> {
        let mut config = self.setup.config();
        for number in 1..bonds {
            write!(
                config,
                "[[bond]]\nname = \"bond{number}\"\nstandby = {{ mac = \"{}\" }}\n\
                 vfs = [{{ mac = \"{}\" }}]\n",
                further_mac(number)?,
                // None has it.
                Mac::test(u8::try_from(0x80 + number)?)
            )?;
        }
        self.guest.vm.write_file(CONFIG, config.as_bytes(), false)?;
        self.bonds = bonds;
        self.guest.vm.signal(self.service, SIGHUP)?;
        self.await_bonds(&mut self.guest.channel()?)
    }

    /// Waits until the first bond has its VF at work, and all others their standby.
    fn await_bonds(&self, channel: &mut Channel) -> Result<()> {
        let bonds = self.bonds;
        let ready = move |status: &Status| {
            let (first, others) = match status.bonds.split_first() {
                Some((first, others)) => (first, others),
                None => return false,
            };
            first.state == BondState::Accelerated
                && others.len() + 1 == bonds
                && others.iter().all(|bond| bond.state == BondState::Standby)
                && monitor_is_decided(status)
        };
        channel
            .await_status("all bonds at work", GROW_LIMIT, ready)
            .map(|_| ())
            .with_context(|| format!("the service's log ends:\n{}", self.guest.log_tail()))
    }

    fn restart(&mut self, measured: &mut Measured) -> Result<()> {
        let vm = &self.guest.vm;
        vm.signal(self.service, SIGTERM)?;
        vm.wait(self.service, STEP_LIMIT)?
            .context("the service does not end")?;
        let before_us = self.cpu_us()?;
        let begin = Instant::now();
        self.service = start(&self.guest)?;
        let mut channel = self.guest.channel()?;
        let bonds = self.bonds;
        channel.await_status("every bond known", STEP_LIMIT, |status| {
            let known = |state| !matches!(state, BondState::Waiting | BondState::Assembling);
            status.bonds.len() == bonds && status.bonds.iter().all(|bond| known(bond.state))
        })?;
        measured.start_ms = u64::try_from(begin.elapsed().as_millis())?;
        self.await_bonds(&mut channel)?;
        drop(channel);
        self.await_rest()?;
        measured.start_cpu_us = self.cpu_us()? - before_us;
        Ok(())
    }

    /// The service's processor time for something, until it is at rest again.
    fn cpu_of(&self, work: impl FnOnce(&Self) -> Result<()>) -> Result<u64> {
        let before_us = self.cpu_us()?;
        work(self)?;
        self.await_rest()?;
        Ok(self.cpu_us()? - before_us)
    }

    fn await_rest(&self) -> Result<()> {
        let deadline = Instant::now() + REST_LIMIT;
        let mut before_us = self.cpu_us()?;
        loop {
            // Nothing to wait for: that nothing happens is what is waited for.
            std::thread::sleep(REST);
            let now_us = self.cpu_us()?;
            if now_us - before_us <= REST_CPU_US {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the service does not come to rest; its log ends:\n{}",
                self.guest.log_tail()
            );
            before_us = now_us;
        }
    }

    fn cpu_us(&self) -> Result<u64> {
        let said = self.guest.vm.sh(&format!("cat {GROUP}/cpu.stat"))?;
        let usage = said
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "));
        Ok(usage.context("no processor time is counted")?.parse()?)
    }

    fn resident_kib(&self) -> Result<u64> {
        let pid = self.service.pid;
        let said = self
            .guest
            .vm
            .sh(&format!("grep VmRSS: /proc/{pid}/status"))?;
        let number = said.split_whitespace().nth(1);
        Ok(number.context("no resident memory is counted")?.parse()?)
    }
}

/// Starts the service in its group, its log as quiet as in the field.
fn start(guest: &Guest) -> Result<Background> {
    let script = format!("echo $$ >{GROUP}/cgroup.procs && exec {PROGRAM} run");
    guest
        .vm
        .spawn(&["sh", "-c", &script], &[("TANDEM_LOG", "info")], LOG)
}

/// One planned switchover, once it has been measured.
fn switch_over(channel: &mut Channel, command: &str) -> Result<Switchover> {
    let switchovers =
        |status: &Status| status.bonds.first().map_or(0, |bond| bond.switchover_count);
    let before = switchovers(&channel.status(STEP_LIMIT)?);
    channel.call(command, json!({ "bond": BOND }), STEP_LIMIT)?;
    let status = channel.await_status(command, STEP_LIMIT, |status| {
        let last = status
            .bonds
            .first()
            .and_then(|bond| bond.switchovers.last());
        switchovers(status) > before && last.is_some_and(|switchover| switchover.gap.is_some())
    })?;
    let last = status
        .bonds
        .first()
        .and_then(|bond| bond.switchovers.last());
    last.cloned().context("the status has no switchover")
}

/// A virtio NIC without a network behind it.
fn further_standby(number: usize) -> [String; 2] {
    let (slot, function) = (
        FIRST_SLOT + (number - 1) / FUNCTIONS,
        (number - 1) % FUNCTIONS,
    );
    let mac = further_mac(number).map_or_else(|_| String::new(), |mac| mac.to_string());
    let device = json!({
        "driver": "virtio-net-pci",
        "id": format!("further{number}"),
        "mac": mac,
        "bus": "pcie.0",
        "addr": format!("0x{slot:x}.{function}"),
        "multifunction": true,
        "romfile": "",
    });
    ["-device".to_owned(), device.to_string()]
}

fn further_mac(number: usize) -> Result<Mac> {
    Ok(Mac::test(u8::try_from(FIRST_MAC + number)?))
}
