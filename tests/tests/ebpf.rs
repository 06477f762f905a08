//! The eBPF monitor alone, on a real kernel: programs load with the service's capabilities, events
//! arrive filtered, warnings come before the driver stops, and what is missing is said.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_core::Input;
use tandem_core::input::{Removal, RemovalStage, Source};
use tandem_core::status::{CheckItem, SourceHealth};
use tandem_core::types::{Ifindex, PciAddress};
use tandem_lab::agent::{Agent, Background};
use tandem_lab::artifacts::cargo::{self, Profile};
use tandem_lab::{HotPlug, Kernel, Lab, Mac, NicModel, SmallGuest, Vm, test_mac};

const MONITOR: &str = "/usr/bin/ebpf_monitor";
const LOG: &str = "/tmp/monitor.log";
/// aya reads all of the kernel's types twice, and the guest is emulated.
const START_LIMIT: Duration = Duration::from_secs(90);
const EVENT_LIMIT: Duration = Duration::from_secs(60);
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

const STANDBY: Mac = test_mac(1);
const E1000E: Mac = test_mac(2);
const IGB: Mac = test_mac(3);

fn guest(lab: &Lab) -> Result<SmallGuest<'_>> {
    let monitor = cargo::example("tandem-guest", "ebpf_monitor", Profile::Dev)?;
    Ok(lab
        .small_guest()
        .kernel(Kernel::from_environment()?)
        .standby(STANDBY)
        .vf(NicModel::E1000e, E1000E)
        .vf(NicModel::Igb, IGB)
        .module("veth")
        .program(&monitor, MONITOR))
}

/// The monitor in the guest, and what it has printed.
struct Monitor {
    agent: Agent,
    process: Background,
}

impl Monitor {
    fn start(vm: &Vm, arguments: &[&str]) -> Result<Self> {
        let argv: Vec<&str> = [MONITOR].iter().chain(arguments).copied().collect();
        let agent = vm.agent().clone();
        let process = agent.spawn(&argv, &[("RUST_LOG", "debug")], LOG)?;
        Ok(Self { agent, process })
    }

    /// With the capabilities of the service's unit, and running.
    fn running(vm: &Vm) -> Result<Self> {
        let monitor = Self::start(vm, &["--drop-to-bpf"])?;
        let health = monitor.health()?.0;
        ensure!(
            !matches!(health, SourceHealth::Missing { .. }),
            "no program works: {health:?}"
        );
        Ok(monitor)
    }

    /// Waits for the first input that fits.
    fn await_input<T>(
        &self,
        what: &str,
        limit: Duration,
        found: impl Fn(&Input) -> Option<T>,
    ) -> Result<T> {
        self.agent.await_lines(LOG, what, limit, |lines| {
            lines.iter().find_map(|line| found(&input(line)?))
        })
    }

    /// How the programs fare once they are loaded.
    fn health(&self) -> Result<(SourceHealth, Vec<CheckItem>)> {
        self.await_input("its health", START_LIMIT, |input| match input {
            Input::SourceHealth { health, parts, .. } => Some((health.clone(), parts.clone())),
            _ => None,
        })
    }

    /// What is said of a program: whether it works, and how or why not.
    fn program(&self, name: &str) -> Result<(bool, String)> {
        let parts = self.health()?.1.into_iter();
        let mut parts = parts.filter(|part| part.name == name);
        let part = parts.next().with_context(|| format!("nothing of {name}"))?;
        Ok((part.ok, part.detail))
    }

    fn removals(&self, device: PciAddress) -> Result<Vec<Removal>> {
        Ok(removals_of(&self.agent.lines(LOG)?, device))
    }

    /// Waits for both signs that a driver stops: RTNL is taken, and the link is closed.
    fn await_driver_stopped(&self, device: PciAddress) -> Result<[Removal; 2]> {
        let what = format!("the end of {device}");
        self.agent.await_lines(LOG, &what, EVENT_LIMIT, |lines| {
            let mut stopping = removals_of(lines, device)
                .into_iter()
                .filter(|removal| removal.stage == RemovalStage::DriverStopping);
            Some([stopping.next()?, stopping.next()?])
        })
    }

    fn await_removal(&self, stage: RemovalStage, device: PciAddress) -> Result<Removal> {
        let what = format!("{stage:?} of {device}");
        self.await_input(&what, EVENT_LIMIT, |input| match input {
            Input::Removal(removal) if removal.pci == device && removal.stage == stage => {
                Some(*removal)
            }
            _ => None,
        })
    }
}

fn removals_of(lines: &[String], device: PciAddress) -> Vec<Removal> {
    let removals = lines.iter().filter_map(|line| match input(line)? {
        Input::Removal(removal) if removal.pci == device => Some(removal),
        _ => None,
    });
    removals.collect()
}

/// The input that a line holds; messages are no inputs.
fn input(line: &str) -> Option<Input> {
    serde_json::from_str(line).ok()
}

const LINK_PROGRAMS: [&str; 5] = [
    "link_unregistering",
    "link_stopped",
    "carrier_on",
    "carrier_off",
    "bond_port_state",
];
const WARNING_PROGRAMS: [&str; 4] = [
    "warn_button_press",
    "warn_acpi_eject",
    "warn_pci_stop",
    "warn_driver_remove",
];

/// On ports and bonds; they take more than the monitor's capabilities.
const TRAFFIC_PROGRAMS: [&str; 3] = ["port_ingress", "port_egress", "bond_egress"];

fn interface_of(vm: &Vm, mac: Mac) -> Result<String> {
    vm.sh(&format!(
        "for d in /sys/class/net/*; do grep -q {mac} $d/address && basename $d && break; done"
    ))
}

fn pci_address_of(vm: &Vm, interface: &str) -> Result<PciAddress> {
    let name = vm.sh(&format!(
        "basename $(readlink -f /sys/class/net/{interface}/device)"
    ))?;
    Ok(name.parse()?)
}

/// Warning, RTNL taken, driver stopped, in this order; prints the lead times.
fn check_order(monitor: &Monitor, warned: Removal, device: PciAddress) -> Result<()> {
    let [taken, stopped] = monitor.await_driver_stopped(device)?;
    ensure!(
        warned.at < taken.at && taken.at < stopped.at,
        "wrong order: {warned:?} {taken:?} {stopped:?}"
    );
    eprintln!(
        "{:?} of {}: {} us before RTNL was taken, {} us before the driver had stopped",
        warned.stage,
        warned.pci,
        taken.at.since_us(warned.at),
        stopped.at.since_us(warned.at)
    );
    Ok(())
}

#[test]
fn programs_load_and_report_only_what_has_a_device() -> Result<()> {
    let Some(lab) = Lab::for_test("eBPF events") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let mut vm = guest(&lab)?.boot(&host)?;
    let e1000e = interface_of(&vm, E1000E)?;
    let igb = interface_of(&vm, IGB)?;
    for nic in [&e1000e, &igb] {
        vm.sh(&format!("ip link set {nic} up"))?;
        vm.wait_sh(
            &format!("grep -qx 1 /sys/class/net/{nic}/carrier"),
            EVENT_LIMIT,
        )?;
    }
    let (e1000e_pci, igb_pci) = (pci_address_of(&vm, &e1000e)?, pci_address_of(&vm, &igb)?);

    let monitor = Monitor::running(&vm)?;
    for program in LINK_PROGRAMS.iter().chain(&WARNING_PROGRAMS) {
        let (works, detail) = monitor.program(program)?;
        assert!(
            works && detail.starts_with("attached to "),
            "{program}: {detail}"
        );
    }

    // Virtual devices come and go without waking the monitor.
    let wake_ups = format!("grep voluntary /proc/{}/status", monitor.process.pid);
    let before = vm.sh(&wake_ups)?;
    vm.sh(
        "i=0; while [ $i -lt 30 ]; do ip link add u$i type veth peer name v$i; ip link set u$i up; \
           ip link set v$i up; ip link del u$i; i=$((i+1)); done",
    )?;
    let after = vm.sh(&wake_ups)?;
    assert_eq!(before, after, "virtual devices woke the monitor");

    let index: u32 = vm
        .sh(&format!("cat /sys/class/net/{igb}/ifindex"))?
        .parse()?;
    vm.sh(&format!("ip link set {igb} down"))?;
    monitor.await_input("carrier lost", EVENT_LIMIT, |input| match input {
        Input::CarrierLost { ifindex, .. } if *ifindex == Ifindex(index) => Some(()),
        _ => None,
    })?;
    monitor.await_removal(RemovalStage::DriverStopping, igb_pci)?;
    assert_eq!(
        monitor.removals(e1000e_pci)?,
        [],
        "nothing of the other NIC"
    );

    // Plain device_del, without a word to the guest.
    vm.unplug("vf")?;
    for stage in [RemovalStage::EjectRequested, RemovalStage::RemovalStarted] {
        let warned = monitor.await_removal(stage, e1000e_pci)?;
        check_order(&monitor, warned, e1000e_pci)?;
    }
    // The PCI core's word and the driver's.
    let removals = monitor.removals(e1000e_pci)?;
    let started = removals
        .iter()
        .filter(|removal| removal.stage == RemovalStage::RemovalStarted);
    assert_eq!(started.count(), 2, "{removals:?}");
    Ok(())
}

#[test]
fn a_native_button_press_warns_before_the_guest_lets_go() -> Result<()> {
    let Some(lab) = Lab::for_test("eBPF native hot-plug") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let mut vm = guest(&lab)?.hot_plug(HotPlug::Native).boot(&host)?;
    let e1000e = interface_of(&vm, E1000E)?;
    let address = pci_address_of(&vm, &e1000e)?;
    let port = vm.sh(&format!(
        "basename $(dirname $(readlink -f /sys/class/net/{e1000e}/device))"
    ))?;
    vm.sh(&format!("ip link set {e1000e} up"))?;
    let monitor = Monitor::running(&vm)?;
    vm.unplug("vf")?;
    let port = port.parse()?;
    let pressed = monitor.await_removal(RemovalStage::ButtonPressed, port)?;
    check_order(&monitor, pressed, address)?;
    let started = monitor.await_removal(RemovalStage::RemovalStarted, address)?;
    check_order(&monitor, started, address)?;
    // Plugging in presses the same button, which is no warning.
    vm.plug_vf(NicModel::E1000e, E1000E)?;
    vm.wait_interface(E1000E, EVENT_LIMIT)?;
    assert_eq!(monitor.removals(port)?, [pressed]);
    Ok(())
}

#[test]
fn events_that_found_no_room_are_told() -> Result<()> {
    let Some(lab) = Lab::for_test("eBPF overrun") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let vm = guest(&lab)?.boot(&host)?;
    let standby = interface_of(&vm, STANDBY)?;
    let igb = interface_of(&vm, IGB)?;
    let address = pci_address_of(&vm, &igb)?;
    let monitor = Monitor::running(&vm)?;
    monitor.agent.signal(monitor.process, SIGSTOP)?;
    // One event at least each, and the ring buffer holds about 1300.
    vm.sh(&format!(
        "awk 'BEGIN {{ for (i = 0; i < 1500; i++) print \"link set {standby} up\\n\
         link set {standby} down\" }}' | /sbin/ip -batch -"
    ))?;
    monitor.agent.signal(monitor.process, SIGCONT)?;
    monitor.await_input("the loss", EVENT_LIMIT, |input| {
        (*input == Input::Lost(Source::Ebpf)).then_some(())
    })?;
    // And it goes on.
    vm.sh(&format!("echo {address} >/sys/bus/pci/drivers/igb/unbind"))?;
    monitor.await_removal(RemovalStage::RemovalStarted, address)?;
    Ok(())
}

#[test]
fn what_is_missing_is_said() -> Result<()> {
    let Some(lab) = Lab::for_test("eBPF obstacles") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let vm = guest(&lab)?
        .kernel_parameter("lockdown=confidentiality")
        .boot(&host)?;

    let monitor = Monitor::start(&vm, &["--drop-all"])?;
    let (health, _) = monitor.health()?;
    assert!(matches!(health, SourceHealth::Missing { .. }), "{health:?}");
    for program in LINK_PROGRAMS
        .iter()
        .chain(&WARNING_PROGRAMS)
        .chain(&TRAFFIC_PROGRAMS)
    {
        let (works, detail) = monitor.program(program)?;
        assert!(
            !works && detail.contains("CAP_BPF and CAP_PERFMON"),
            "{program}: {detail}"
        );
    }

    // Lockdown leaves link watch and bond watch; names behind untyped pointers stay empty.
    vm.sh("mount -t securityfs none /sys/kernel/security; grep -q '\\[confidentiality\\]' /sys/kernel/security/lockdown")?;
    let monitor = Monitor::running(&vm)?;
    assert_eq!(monitor.health()?.0, SourceHealth::Partial);
    for program in LINK_PROGRAMS {
        let (works, detail) = monitor.program(program)?;
        assert!(works, "{program}: {detail}");
    }
    for program in WARNING_PROGRAMS {
        let (works, detail) = monitor.program(program)?;
        assert!(!works && detail.contains("lockdown"), "{program}: {detail}");
    }
    for program in TRAFFIC_PROGRAMS {
        let (works, detail) = monitor.program(program)?;
        assert!(
            !works && detail.contains("CAP_NET_ADMIN"),
            "{program}: {detail}"
        );
    }
    Ok(())
}
