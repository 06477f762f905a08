//! What a system's service costs the guest when nothing of its own happens: in the full guest, where network
//! managers are at home, with the same bond for each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::case::System;
use super::peers;
use crate::full_guest::{FullGuest, systemd};
use crate::net::{GUEST_V4, GUEST_V6};
use crate::tandem::{self, STEP_LIMIT, Setup};
use crate::{Lab, Vm, usage};

/// udev, systemd and the network manager take an emulated guest up to half a second for each interface.
const LINKS_LIMIT: Duration = Duration::from_secs(3600);
/// A service is done with the interfaces when it used no more than a moment of its CPU for this long.
const CALM: Duration = Duration::from_secs(3);
const CALM_CPU_US: u64 = 2_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostOptions {
    /// Pairs of veth interfaces that are made and removed.
    pub pairs: u32,
    /// How long the idle service is watched.
    pub idle: Duration,
}

/// What a service costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cost {
    /// Resident memory before any interface was made, in KiB.
    pub resident_kib: u64,
    /// Times its threads were woken in a minute without events.
    pub wake_ups_per_minute: f64,
    /// Pairs of interfaces made and removed.
    pub pairs: u32,
    /// The service's CPU time for them, in ms.
    pub links_cpu_ms: f64,
    /// Its program, in bytes.
    pub program_bytes: u64,
    /// What its package takes when installed (dpkg's Installed-Size), in KiB; nothing if it is not packaged.
    pub installed_kib: Option<u64>,
}

impl Cost {
    /// CPU time for one interface made and removed, in ms.
    pub fn cpu_ms_per_link(&self) -> f64 {
        self.links_cpu_ms / f64::from(self.pairs.max(1) * 2)
    }
}

/// A service in the guest: its unit, its program, its Debian package.
struct Service {
    unit: &'static str,
    program: &'static str,
    package: Option<&'static str>,
}

fn service(system: System) -> Option<Service> {
    match system {
        System::TandemPlanned | System::TandemWarned => Some(Service {
            unit: "tandem.service",
            program: tandem::PROGRAM,
            package: None,
        }),
        System::Networkd => Some(Service {
            unit: "systemd-networkd.service",
            program: "/usr/lib/systemd/systemd-networkd",
            package: Some("systemd"),
        }),
        System::NetworkManager => Some(Service {
            unit: "NetworkManager.service",
            program: "/usr/sbin/NetworkManager",
            package: Some("network-manager"),
        }),
        System::Floor | System::TandemWithoutEbpf | System::UnmanagedBond | System::NetFailover => {
            None
        }
    }
}

/// Measures a system's service; nothing if it has none, or is measured as another one.
///
/// # Errors
/// The guest does not start, or a step does not end in time.
pub fn cost(lab: &Lab, system: System, options: CostOptions) -> Result<Option<Cost>> {
    let Some(service) = service(system) else {
        return Ok(None);
    };
    let host = lab.host("c")?;
    let setup = Setup {
        bond_lines: vec![format!(
            "addressing = \"static\"\naddresses = [\"{GUEST_V4}/24\", \"{GUEST_V6}/64\"]"
        )],
        ..Setup::new()?
    };
    let vm = if system.is_tandem() {
        lab.client()?;
        let vm = FullGuest::new(lab)
            .standby(setup.standby)
            .vf(setup.model, setup.vf)
            .tandem(&setup.config())?
            .boot(&host)?;
        systemd::wait_started(&vm, peers::START_LIMIT)?;
        peers::await_vf_active(&vm, &setup)?;
        vm
    } else {
        peers::managed(lab, &host, system, &setup)?
    };
    measure(&vm, &service, options).map(Some)
}

fn measure(vm: &Vm, service: &Service, options: CostOptions) -> Result<Cost> {
    let pid: u32 = systemd::property(vm, service.unit, "MainPID")?.parse()?;
    let group = systemd::property(vm, service.unit, "ControlGroup")?;
    await_calm(vm, &group)?;
    let resident_kib = usage::memory_kib(vm, pid, "VmRSS")?;

    // Longer than the 10 s that an idle thread of a pool may live on.
    std::thread::sleep(Duration::from_secs(12));
    let before = usage::wake_ups(vm, pid)?;
    // Nothing to wait for: that nothing happens meanwhile is what is measured.
    std::thread::sleep(options.idle);
    let woken = usage::woken_between(&before, &usage::wake_ups(vm, pid)?);

    let cpu_before_us = cpu_us(vm, &group)?;
    let all = format!("seq 1 {} | sed", options.pairs);
    for change in ["add va& type veth peer name vb&", "del va&"] {
        let script = format!(
            "{all} 's/.*/link {change}/' >/tmp/links && ip -batch /tmp/links && udevadm settle --timeout=3600"
        );
        let output = vm.run(&["sh", "-c", &script], LINKS_LIMIT)?;
        ensure!(
            output.success(),
            "`{script}` ended with {:?}: {}",
            output.exit,
            output.error_text()
        );
        await_calm(vm, &group)?;
    }
    let links_cpu_us = cpu_us(vm, &group)? - cpu_before_us;

    let installed_kib = match service.package {
        None => None,
        Some(package) => Some(number(
            &vm.sh(&format!("dpkg-query -W -f '${{Installed-Size}}' {package}"))?,
        )?),
    };
    Ok(Cost {
        resident_kib,
        wake_ups_per_minute: woken as f64 * 60.0 / options.idle.as_secs_f64(),
        pairs: options.pairs,
        links_cpu_ms: links_cpu_us as f64 / 1e3,
        program_bytes: number(&vm.sh(&format!("stat -c %s {}", service.program))?)?,
        installed_kib,
    })
}

/// CPU time of a unit since it was started, in µs.
fn cpu_us(vm: &Vm, group: &str) -> Result<u64> {
    number(&vm.sh(&format!(
        "sed -n 's/^usage_usec //p' /sys/fs/cgroup{group}/cpu.stat"
    ))?)
}

fn await_calm(vm: &Vm, group: &str) -> Result<()> {
    let deadline = Instant::now() + STEP_LIMIT * 5;
    let mut before = cpu_us(vm, group)?;
    loop {
        std::thread::sleep(CALM);
        let now = cpu_us(vm, group)?;
        if now - before <= CALM_CPU_US {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "{group} does not calm down: {} µs of CPU in {CALM:?}",
                now - before
            );
        }
        before = now;
    }
}

fn number(text: &str) -> Result<u64> {
    text.trim()
        .parse()
        .with_context(|| format!("`{text}` is not a number"))
}
