//! The eBPF monitor alone, on a real kernel: programs load with the service's capabilities, events
//! arrive filtered, warnings come before the driver stops, and what is missing is said.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tandem_lab::agent::{Agent, Background};
use tandem_lab::artifacts::cargo::{self, Profile};
use tandem_lab::{HotPlug, Kernel, Lab, Mac, NicModel, SmallGuest, Vm};

const MONITOR: &str = "/usr/bin/ebpf_monitor";
const LOG: &str = "/tmp/monitor.log";
/// aya reads all of the kernel's types twice, and the guest is emulated.
const START_LIMIT: Duration = Duration::from_secs(90);
const EVENT_LIMIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(200);
/// The service's limit, in KiB: 16 MiB.
const RSS_LIMIT_KIB: u64 = 16 * 1024;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

const STANDBY: Mac = Mac::test(1);
const E1000E: Mac = Mac::test(2);
const IGB: Mac = Mac::test(3);
const WATCHED: Mac = Mac::test(9);

fn guest(lab: &Lab) -> Result<SmallGuest<'_>> {
    let monitor = cargo::example("tandem-guest", "ebpf_monitor", Profile::Release)?;
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
    fn running(vm: &Vm, arguments: &[&str]) -> Result<Self> {
        let arguments: Vec<&str> = ["--drop-to-bpf"].iter().chain(arguments).copied().collect();
        let monitor = Self::start(vm, &arguments)?;
        monitor.await_line("ready", START_LIMIT, |line| line == "ready")?;
        Ok(monitor)
    }

    fn lines(&self) -> Result<Vec<String>> {
        let text = String::from_utf8_lossy(&self.agent.read_file(LOG)?).into_owned();
        // The last line may not be complete yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(complete.lines().map(str::to_owned).collect())
    }

    fn await_line(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let lines = self.lines()?;
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            ensure!(
                Instant::now() < deadline,
                "the monitor did not report {what}; it said:\n{}",
                lines.join("\n")
            );
            std::thread::sleep(STEP);
        }
    }

    /// Waits for the first event of a kind that has this word among its fields.
    fn await_event(&self, kind: &str, word: &str) -> Result<Event> {
        let line = self.await_line(&format!("{kind} of {word}"), EVENT_LIMIT, |line| {
            Event::parse(line).is_some_and(|event| event.is(kind, word))
        })?;
        Event::parse(&line).context("an event line")
    }

    fn events(&self) -> Result<Vec<Event>> {
        Ok(self
            .lines()?
            .iter()
            .filter_map(|line| Event::parse(line))
            .collect())
    }

    fn program(&self, name: &str) -> Result<String> {
        let start = format!("program {name} ");
        self.lines()?
            .iter()
            .find_map(|line| Some(line.strip_prefix(&start)?.to_owned()))
            .with_context(|| format!("the monitor did not report the program {name}"))
    }
}

/// `event BOOT_NS KIND WORD…`
#[derive(Debug)]
struct Event {
    boot_ns: u64,
    rest: String,
}

impl Event {
    fn parse(line: &str) -> Option<Self> {
        let (boot_ns, rest) = line.strip_prefix("event ")?.split_once(' ')?;
        Some(Self {
            boot_ns: boot_ns.parse().ok()?,
            rest: rest.to_owned(),
        })
    }

    fn is(&self, kind: &str, word: &str) -> bool {
        self.rest.starts_with(kind) && self.rest.split(' ').any(|field| field == word)
    }
}

const LINK_PROGRAMS: [&str; 6] = [
    "link_registered",
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

fn pci_address_of(vm: &Vm, interface: &str) -> Result<String> {
    vm.sh(&format!(
        "basename $(readlink -f /sys/class/net/{interface}/device)"
    ))
}

/// Warning, RTNL taken, driver stopped, in this order; prints the lead times.
fn check_order(monitor: &Monitor, warning: &str, device: &str, mac: Mac) -> Result<()> {
    let nic = format!("perm_mac={mac}");
    let warned = monitor.await_event(warning, device)?;
    let taken = monitor.await_event("Unregistering", &nic)?;
    let stopped = monitor.await_event("Stopped", &nic)?;
    ensure!(
        warned.boot_ns < taken.boot_ns && taken.boot_ns < stopped.boot_ns,
        "wrong order: {warned:?} {taken:?} {stopped:?}"
    );
    eprintln!(
        "{warning} of {device}: {} us before RTNL was taken, {} us before the driver had stopped",
        (taken.boot_ns - warned.boot_ns) / 1000,
        (stopped.boot_ns - warned.boot_ns) / 1000
    );
    Ok(())
}

#[test]
fn programs_load_and_report_only_what_is_watched() -> Result<()> {
    let Some(lab) = Lab::for_test("eBPF events") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let mut vm = guest(&lab)?.boot(&host)?;
    let e1000e = interface_of(&vm, E1000E)?;
    let igb = interface_of(&vm, IGB)?;
    let standby = interface_of(&vm, STANDBY)?;
    vm.sh(&format!("ip link set {igb} up"))?;
    let (e1000e_pci, igb_pci) = (pci_address_of(&vm, &e1000e)?, pci_address_of(&vm, &igb)?);

    let watched = WATCHED.to_string();
    let monitor = Monitor::running(&vm, &["--parented", &watched])?;
    for program in LINK_PROGRAMS.iter().chain(&WARNING_PROGRAMS) {
        assert_eq!(monitor.program(program)?, "attached", "{program}");
    }
    let memory = monitor.await_line("its memory", EVENT_LIMIT, |line| {
        line.starts_with("memory ")
    })?;
    eprintln!("{} {memory}", vm.sh("uname -r")?);
    let rss_kib: u64 = memory
        .split(['=', ' '])
        .nth(2)
        .context("no rss_kib")?
        .parse()?;
    assert!(rss_kib <= RSS_LIMIT_KIB, "{memory}");

    // Unrelated devices come and go without waking the monitor.
    let netns = vm.sh("readlink /proc/self/ns/net")?;
    let wake_ups = format!("grep voluntary /proc/{}/status", monitor.process.pid);
    let before = vm.sh(&wake_ups)?;
    vm.sh(
        "i=0; while [ $i -lt 30 ]; do ip link add u$i type veth peer name v$i; ip link set u$i up; \
           ip link set v$i up; ip link del u$i; i=$((i+1)); done",
    )?;
    let after = vm.sh(&wake_ups)?;
    assert_eq!(before, after, "unrelated devices woke the monitor");

    vm.sh(&format!(
        "ip link add w0 address {watched} type dummy && ip link set w0 up && ip link del w0"
    ))?;
    let gone = monitor.await_event("Unregistering", "name=w0")?;
    let registered = monitor.await_event("Registered", "name=w0")?;
    assert!(registered.boot_ns < gone.boot_ns);
    assert!(
        registered.is("Registered", &format!("mac={watched}")),
        "{registered:?}"
    );
    assert!(
        netns.contains(&format!(
            "[{}]",
            registered.rest.rsplit("netns=").next().unwrap_or("")
        )),
        "{netns} {registered:?}"
    );
    monitor.await_event("Stopped", "name=w0")?;
    let foreign: Vec<Event> = monitor
        .events()?
        .into_iter()
        .filter(|event| !event.is("", "name=w0"))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");

    // A name that the kernel refuses inside register_netdevice: the program's own message.
    let refused = vm.run(
        &["/sbin/ip", "link", "add", "a%db%d", "type", "dummy"],
        EVENT_LIMIT,
    )?;
    assert!(!refused.success(), "{refused:?}");
    monitor.await_line("its own message", EVENT_LIMIT, |line| {
        line.contains("register_netdevice failed with -22")
    })?;

    // A bond over the VF and the standby: its view of the ports, and the carrier of a NIC with a parent.
    vm.sh(&format!(
        "modprobe bonding && /sbin/ip link add bond0 type bond mode active-backup miimon 100 && \
         ip link set {standby} down && ip link set {standby} master bond0 && \
         ip link set {e1000e} down && ip link set {e1000e} master bond0 && \
         ip link set bond0 up && /sbin/ip link set bond0 type bond primary {e1000e}"
    ))?;
    monitor.await_event("CarrierOn", &format!("parent={e1000e_pci}"))?;
    monitor.await_event(
        "BondPort Some(PortState { link_up: true, active: true })",
        &format!("name={e1000e}"),
    )?;
    vm.sh(&format!(
        "/sbin/ip link set bond0 type bond primary {standby}"
    ))?;
    monitor.await_event(
        "BondPort Some(PortState { link_up: true, active: true })",
        &format!("name={standby}"),
    )?;

    // Plain device_del, without a word to the guest.
    for (id, address, mac) in [("vf", e1000e_pci, E1000E), ("vf2", igb_pci, IGB)] {
        vm.unplug(id)?;
        for warning in ["AcpiEject", "PciStop", "DriverRemove"] {
            check_order(&monitor, warning, &format!("pci={address}"), mac)?;
        }
    }
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
    let monitor = Monitor::running(&vm, &["--parented"])?;
    vm.unplug("vf")?;
    check_order(
        &monitor,
        "ButtonPress(PowersOff)",
        &format!("pci={port}"),
        E1000E,
    )?;
    check_order(&monitor, "PciStop", &format!("pci={address}"), E1000E)?;
    // Plugging in presses the same button.
    vm.plug_vf(NicModel::E1000e, E1000E)?;
    monitor.await_event("ButtonPress(PowersOn)", &format!("pci={port}"))?;
    monitor.await_event("Registered", &format!("perm_mac={E1000E}"))?;
    Ok(())
}

#[test]
fn events_that_found_no_room_are_counted() -> Result<()> {
    let Some(lab) = Lab::for_test("eBPF overrun") else {
        return Ok(());
    };
    let host = lab.host("a")?;
    let vm = guest(&lab)?.boot(&host)?;
    let watched = WATCHED.to_string();
    let monitor = Monitor::running(&vm, &[&watched])?;
    monitor.agent.signal(monitor.process, SIGSTOP)?;
    // Three events each, and the ring buffer holds about 800.
    vm.sh(&format!(
        "awk 'BEGIN {{ for (i = 0; i < 320; i++) print \"link add w0 address {watched} type dummy\\n\
         link set w0 up\\nlink del w0\" }}' | /sbin/ip -batch -"
    ))?;
    monitor.agent.signal(monitor.process, SIGCONT)?;
    let lost = monitor.await_line("loss", EVENT_LIMIT, |line| line.starts_with("lost "))?;
    let lost: usize = lost.trim_start_matches("lost ").parse()?;
    let kept = monitor.events()?.len();
    eprintln!("{kept} events kept, {lost} lost");
    assert!(
        lost > 0 && lost + kept >= 3 * 320,
        "{kept} kept, {lost} lost"
    );
    // And it goes on.
    vm.sh(&format!("ip link add w1 address {watched} type dummy"))?;
    monitor.await_event("Registered", "name=w1")?;
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
    monitor.await_line("its end", START_LIMIT, |line| {
        line.contains("no program works")
    })?;
    for program in LINK_PROGRAMS
        .iter()
        .chain(&WARNING_PROGRAMS)
        .chain(&TRAFFIC_PROGRAMS)
    {
        let state = monitor.program(program)?;
        assert!(
            state.contains("CAP_BPF and CAP_PERFMON"),
            "{program}: {state}"
        );
    }

    // Lockdown leaves link watch and bond watch; names behind untyped pointers stay empty.
    vm.sh("mount -t securityfs none /sys/kernel/security; grep -q '\\[confidentiality\\]' /sys/kernel/security/lockdown")?;
    let watched = WATCHED.to_string();
    let monitor = Monitor::running(&vm, &["--parented", &watched])?;
    for program in LINK_PROGRAMS {
        assert_eq!(monitor.program(program)?, "attached", "{program}");
    }
    for program in WARNING_PROGRAMS {
        let state = monitor.program(program)?;
        assert!(
            state.starts_with("missing") && state.contains("lockdown"),
            "{program}: {state}"
        );
    }
    for program in TRAFFIC_PROGRAMS {
        let state = monitor.program(program)?;
        assert!(
            state.starts_with("missing") && state.contains("CAP_NET_ADMIN"),
            "{program}: {state}"
        );
    }
    vm.sh(&format!("ip link add w0 address {watched} type dummy"))?;
    monitor.await_event("Registered", "name=w0")?;
    Ok(())
}
