//! What a system's service costs the guest when nothing of its own happens: in the full guest, where network
//! managers are at home, with the same bond for each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::case::System;
use super::peers;
use crate::full_guest::{FullGuest, systemd};
use crate::net::{GUEST_V4, GUEST_V6};
use crate::tandem::{self, Setup};
use crate::{Lab, Vm, command, usage};

/// Making and removing interfaces: this, and more for each pair. udev, systemd and a network manager take an
/// emulated guest up to half a second for each interface.
const LINKS_LIMIT: Duration = Duration::from_secs(300);
const PAIR_LIMIT: Duration = Duration::from_secs(2);
/// Steps in which the pairs are made and then removed, and looks at the idle service: so many samples.
const SAMPLES: u32 = 4;
/// Longer than the 10 s that an idle thread of tokio's pool lives on (tokio 1.54, `runtime/blocking/pool.rs`,
/// `KEEP_ALIVE`).
const BEFORE_IDLE: Duration = Duration::from_secs(12);
/// Has PID 1 make no device units of the pairs, and udev start no program for each of them (systemd-sysctl): no
/// part of any service, and much of an emulated guest's time.
const BARE_LINKS: &str = r#"SUBSYSTEM=="net", KERNEL=="va*|vb*", TAG-="systemd", RUN="""#;
/// Behind systemd's own `99-systemd.rules`.
const BARE_LINKS_FILE: &str = "/run/udev/rules.d/99-tandem-lab.rules";
/// Has systemd expect no signs of life from a unit.
const NO_WATCHDOG: &str = "[Service]\nWatchdogSec=0\n";
/// A service is done with the interfaces when it used no more than a moment of its CPU for this long.
const CALM: Duration = Duration::from_secs(3);
const CALM_CPU_US: u64 = 2_000;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostOptions {
    /// Pairs of veth interfaces that are made and removed.
    pub pairs: u32,
    /// Once they have been made for so long, no further step of making pairs is begun: what a link costs a
    /// network manager may grow with the links that there are.
    pub making: Duration,
    /// How long the idle service is watched.
    pub idle: Duration,
}

/// What a service costs. Where there are several figures, each is one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cost {
    /// Resident memory before any interface was made, in KiB.
    pub resident_kib: Vec<u64>,
    /// Times its threads were woken in a minute without events.
    pub wake_ups_per_minute: Vec<f64>,
    /// Signs of life that systemd's watchdog gets from it, in a minute; 0 without one.
    pub signs_of_life_per_minute: f64,
    /// Wake-ups once systemd asks for no signs of life; none of a unit that has no watchdog.
    pub unwatched_wake_ups_per_minute: Vec<f64>,
    /// Pairs of interfaces made and removed: as many as were wanted, or as many as there was time for.
    pub pairs: u32,
    /// The service's CPU time for an interface made and removed, in ms; a sample is a step of making some of the
    /// pairs and the step of removing those.
    pub cpu_ms_per_link: Vec<f64>,
    /// Its program, in bytes.
    pub program_bytes: u64,
    /// What its package takes when installed (dpkg's Installed-Size), in KiB; nothing if it is not packaged.
    pub installed_kib: Option<u64>,
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
        System::Floor
        | System::FloorCarried
        | System::TandemCarried
        | System::TandemKernelAlone
        | System::TandemWithoutEbpf
        | System::UnmanagedBond
        | System::NetFailover => None,
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
    let unit = service.unit;
    let group = systemd::property(vm, unit, "ControlGroup")?;
    await_calm(vm, &group, LINKS_LIMIT)?;
    let idle = watch_idle(vm, unit, options.idle)?;
    let (pairs, cpu_ms_per_link) = links(vm, &group, options)?;
    let installed_kib = match service.package {
        None => None,
        Some(package) => Some(number(
            &vm.sh(&format!("dpkg-query -W -f '${{Installed-Size}}' {package}"))?,
        )?),
    };
    let program_bytes = number(&vm.sh(&format!("stat -c %s {}", service.program))?)?;
    // It says "infinity" without one. The service's own habit is half of it (sd_watchdog_enabled(3)).
    let watchdog = vm.sh(&format!(
        "systemctl show --property=WatchdogUSec --value {unit}"
    ))?;
    let signs_of_life_per_minute = signs_of_life(&watchdog);
    let mut unwatched_wake_ups_per_minute = Vec::new();
    if signs_of_life_per_minute > 0.0 {
        let folder = format!("/run/systemd/system/{unit}.d");
        vm.sh(&format!("mkdir -p {folder}"))?;
        vm.write_file(&format!("{folder}/lab.conf"), NO_WATCHDOG.as_bytes(), false)?;
        vm.sh(&format!(
            "systemctl daemon-reload && systemctl restart {unit}"
        ))?;
        await_calm(vm, &group, LINKS_LIMIT)?;
        unwatched_wake_ups_per_minute = watch_idle(vm, unit, options.idle)?.wake_ups_per_minute;
    }
    Ok(Cost {
        resident_kib: idle.resident_kib,
        wake_ups_per_minute: idle.wake_ups_per_minute,
        signs_of_life_per_minute,
        unwatched_wake_ups_per_minute,
        pairs,
        cpu_ms_per_link,
        program_bytes,
        installed_kib,
    })
}

/// What was seen of a service that has nothing to do.
struct Idle {
    resident_kib: Vec<u64>,
    wake_ups_per_minute: Vec<f64>,
}

fn watch_idle(vm: &Vm, unit: &str, idle: Duration) -> Result<Idle> {
    let pid: u32 = systemd::property(vm, unit, "MainPID")?.parse()?;
    std::thread::sleep(BEFORE_IDLE);
    let mut seen = Idle {
        resident_kib: Vec::new(),
        wake_ups_per_minute: Vec::new(),
    };
    let mut before = usage::wake_ups(vm, pid)?;
    let mut looked = Instant::now();
    for _ in 0..SAMPLES {
        // Nothing to wait for: that nothing happens meanwhile is what is measured.
        std::thread::sleep(idle / SAMPLES);
        let now = usage::wake_ups(vm, pid)?;
        let minutes = looked.elapsed().as_secs_f64() / 60.0;
        looked = Instant::now();
        let woken = usage::woken_between(&before, &now);
        seen.wake_ups_per_minute.push(woken as f64 / minutes);
        seen.resident_kib.push(usage::memory_kib(vm, pid, "VmRSS")?);
        before = now;
    }
    Ok(seen)
}

/// How many pairs were made and removed, and the service's CPU time for a link, by step. All pairs are there at
/// once before the first is removed.
fn links(vm: &Vm, group: &str, options: CostOptions) -> Result<(u32, Vec<f64>)> {
    vm.sh("mkdir -p /run/udev/rules.d")?;
    vm.write_file(BARE_LINKS_FILE, BARE_LINKS.as_bytes(), false)?;
    vm.sh("udevadm control --reload")?;
    let began = Instant::now();
    let mut made = Vec::new();
    for step in steps(options.pairs) {
        if began.elapsed() >= options.making {
            break;
        }
        let cpu_us = change_links(vm, group, "add va& type veth peer name vb&", step)?;
        made.push((step, cpu_us));
    }
    let mut per_link = Vec::new();
    let mut pairs = 0;
    for ((first, last), making_us) in made {
        let removing_us = change_links(vm, group, "del va&", (first, last))?;
        let links = f64::from(last - first + 1) * 2.0;
        per_link.push((making_us + removing_us) as f64 / 1e3 / links);
        pairs = last;
    }
    Ok((pairs, per_link))
}

/// Makes or removes pairs, the first and the last of which are named; the service's CPU time for it, in µs.
fn change_links(vm: &Vm, group: &str, change: &str, (first, last): (u32, u32)) -> Result<u64> {
    let before_us = cpu_of(vm, group)?;
    let began = Instant::now();
    let limit = LINKS_LIMIT + PAIR_LIMIT * (last - first + 1);
    let script = format!(
        "seq {first} {last} | sed 's/.*/link {change}/' >/tmp/links && ip -batch /tmp/links && \
         udevadm settle --timeout={}",
        limit.as_secs()
    );
    let output = vm.run(&["sh", "-c", &script], limit)?;
    ensure!(
        output.success(),
        "`{script}` ended with {:?}: {}",
        output.exit,
        output.error_text()
    );
    await_calm(vm, group, limit)?;
    let used_us = cpu_of(vm, group)? - before_us;
    command::progress(&format!(
        "`{change}` for pairs {first} to {last}: {} ms of CPU in {} s",
        used_us / 1000,
        began.elapsed().as_secs()
    ));
    Ok(used_us)
}

/// The first and the last pair of each step.
fn steps(pairs: u32) -> Vec<(u32, u32)> {
    let each = pairs.div_ceil(SAMPLES).max(1);
    let firsts = (1..=pairs).step_by(usize::try_from(each).unwrap_or(usize::MAX));
    let steps = firsts.map(|first| (first, pairs.min(first + each - 1)));
    steps.collect()
}

/// From what systemd says of a unit's watchdog, such as `30s`, `3min` or `infinity`.
fn signs_of_life(watchdog: &str) -> f64 {
    let text = watchdog.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (count, unit) = text.split_at(digits.unwrap_or(text.len()));
    let seconds = match (count.parse::<f64>(), unit) {
        (Ok(count), "s") => count,
        (Ok(count), "min") => count * 60.0,
        _ => 0.0,
    };
    match seconds > 0.0 {
        true => 120.0 / seconds,
        false => 0.0,
    }
}

/// CPU time of a unit since it was started, in µs.
fn cpu_of(vm: &Vm, group: &str) -> Result<u64> {
    number(&vm.sh(&format!(
        "sed -n 's/^usage_usec //p' /sys/fs/cgroup{group}/cpu.stat"
    ))?)
}

fn await_calm(vm: &Vm, group: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut before = cpu_of(vm, group)?;
    loop {
        std::thread::sleep(CALM);
        let now = cpu_of(vm, group)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_all_pairs_once() {
        assert_eq!(
            steps(2000),
            [(1, 500), (501, 1000), (1001, 1500), (1501, 2000)]
        );
        assert_eq!(steps(5), [(1, 2), (3, 4), (5, 5)]);
        assert_eq!(steps(1), [(1, 1)]);
        assert_eq!(steps(0), []);
    }

    #[test]
    fn a_watchdog_gets_two_signs_of_life_in_its_time() {
        let signs = ["30s\n", "3min", "infinity", "0"].map(signs_of_life);
        assert!((signs[0] - 4.0).abs() < 1e-9, "{signs:?}");
        assert!((signs[1] - 2.0 / 3.0).abs() < 1e-9, "{signs:?}");
        assert!(signs[2..].iter().all(|signs| *signs == 0.0), "{signs:?}");
    }
}
