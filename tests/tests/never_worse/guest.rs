//! What can be wrong with the guest, and how it fares then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_lab::Lab;
use tandem_lab::full_guest::machine::{Guest, Machine, WAIT_LIMIT};
use tandem_lab::full_guest::{install, systemd};
use tandem_lab::tandem::{self, BOND, CONFIG};

pub(crate) const PROGRAM: &str = tandem::PROGRAM;
const UNIT: &str = "tandem.service";
const UNIT_FILE: &str = "/usr/lib/systemd/system/tandem.service";
const NO_BONDING: &str = "/etc/modprobe.d/no-bonding.conf";
const IN_USE: &str = "/etc/udev/rules.d/99-lab.rules";
/// Is there once [`Broken::RefreshKilled`] has happened.
pub(crate) const KILLED: &str = "/run/tandem-nics/lab-killed";
/// Where the sandboxes of the units reach it.
const ASIDE: &str = "/var/lib/lab-aside";

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// A key of the configuration is misspelt.
    Typo,
    /// The administrator forbids the bonding driver.
    Blacklisted,
    Masked,
    Disabled,
    /// Half removed: the unit is gone.
    NoUnit,
    /// Half removed: the program is gone.
    NoProgram,
    /// The program crashes whatever it is asked.
    CrashesAlways,
    /// Only the service crashes.
    CrashesInRun,
    /// The first of what marks the ports is killed.
    RefreshKilled,
    NoUser,
    /// The service runs, and no bond can take a NIC in: each has a macvlan on it.
    NicsInUse,
}

/// What a guest suffers here.
pub(crate) trait Suffers {
    /// The guide's commands for an installation by hand, and a configuration.
    fn install_by_hand(&self) -> Result<()>;
    /// The time from udevd's start to a network that counts as online, by the guest's clock.
    fn online_after(&self) -> Result<Duration>;
    /// As at a boot: no service, no bond, no bonding driver, nothing in /run, and NICs that are new to udev.
    fn take_nics_anew(&self) -> Result<()>;
    /// Gives how much of the guest's own time goes by from then on until it has its plain network.
    fn nics_come_anew(&self) -> Result<Duration> {
        self.nics_come_anew_while(|| Ok(()))
    }
    /// The same, and something happens meanwhile.
    fn nics_come_anew_while(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration>;
    /// How long whichever of its processors waited longest has waited for one of this machine since then, or since
    /// QEMU began.
    fn lost_since(&self, before: &BTreeMap<String, Duration>) -> Result<Duration>;
    fn break_by(&self, broken: Broken) -> Result<()>;
    /// Everything is as it was installed.
    fn restore(&self) -> Result<()>;
}

/// A machine with what an installation by hand takes from a checkout.
pub(crate) fn machine(lab: &Lab) -> Result<Machine<'_>> {
    let mut machine = Machine::new(lab)?;
    for (from, _) in install::FILES {
        machine.checkout(&install::source(from), from);
    }
    machine.checkout(&tandem::binary()?, "target/release/tandem");
    Ok(machine)
}

impl Suffers for Guest<'_> {
    fn install_by_hand(&self) -> Result<()> {
        self.run_block("docs/guide.md", "install -D ")?;
        self.sh("mkdir -p /etc/tandem")?;
        self.configure()
    }

    fn online_after(&self) -> Result<Duration> {
        let online = systemd::eventually("the network is online", WAIT_LIMIT, || {
            let since = systemd::active_since_us(self.vm(), "network-online.target");
            Ok(since.map_err(|error| format!("{error:#}")))
        })
        .with_context(|| self.network())?;
        let udevd = systemd::active_since_us(self.vm(), "systemd-udevd.service")?;
        Ok(Duration::from_micros(online.saturating_sub(udevd)))
    }

    fn take_nics_anew(&self) -> Result<()> {
        let nics = [self.nic(self.setup.standby)?, self.nic(self.setup.vf)?].join(" ");
        self.sh(&format!(
            "systemctl stop {UNIT} tandem-nics.service; systemctl reset-failed
             test ! -e /sys/class/net/{BOND} || echo -{BOND} >/sys/class/net/bonding_masters
             rmmod bonding; rm -f /run/tandem-nics/*
             for nic in {nics}; do
                 device=$(readlink -f /sys/class/net/$nic/device)
                 driver=$(readlink -f $device/driver)
                 echo ${{device##*/}} >$driver/unbind
                 echo ${{device##*/}} >$driver/bind
             done
             if systemctl --quiet is-enabled {UNIT}; then systemctl start --no-block {UNIT}; fi"
        ))
        .map(|_| ())
    }

    fn nics_come_anew_while(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<Duration> {
        self.take_nics_anew()?;
        let (started, before) = (Instant::now(), self.vm().qemu().waited_for_processor()?);
        meanwhile()?;
        self.has_plain_network()?;
        let took = started.elapsed();
        Ok(took.saturating_sub(self.lost_since(&before)?))
    }

    fn lost_since(&self, before: &BTreeMap<String, Duration>) -> Result<Duration> {
        let now = self.vm().qemu().waited_for_processor()?;
        let since = |(id, waited): (&String, &Duration)| {
            waited.saturating_sub(before.get(id).copied().unwrap_or_default())
        };
        Ok(now.iter().map(since).max().unwrap_or_default())
    }

    fn break_by(&self, broken: Broken) -> Result<()> {
        let aside = |path: &str| format!("mkdir -p {ASIDE} && mv {path} {ASIDE}/");
        let script = |text: &str| {
            format!(
                "{} && printf '#!/bin/sh\n{text}\n' >{PROGRAM} && chmod 755 {PROGRAM}",
                aside(PROGRAM)
            )
        };
        let command = match broken {
            Broken::Typo => format!(
                "{} && sed 's/^standby/stanby/' {ASIDE}/tandem.toml >{CONFIG}",
                aside(CONFIG)
            ),
            Broken::Blacklisted => format!("echo 'blacklist bonding' >{NO_BONDING}"),
            Broken::Masked => format!("systemctl mask {UNIT}"),
            Broken::Disabled => format!("systemctl disable {UNIT}"),
            Broken::NoUnit => format!("{} && systemctl daemon-reload", aside(UNIT_FILE)),
            Broken::NoProgram => aside(PROGRAM),
            Broken::CrashesAlways => script("kill -ABRT $$"),
            Broken::CrashesInRun => script(&format!(
                "test \"$1\" = run && kill -ABRT $$\nexec {ASIDE}/tandem \"$@\""
            )),
            Broken::RefreshKilled => script(&format!(
                "test \"$2\" = --refresh && mkdir {KILLED} 2>/dev/null && kill -KILL $$\nexec {ASIDE}/tandem \"$@\""
            )),
            Broken::NoUser => format!("systemctl stop {UNIT}; userdel tandem"),
            Broken::NicsInUse => format!(
                "cat >{IN_USE} <<'END' && udevadm control --reload
ACTION==\"add\", SUBSYSTEM==\"net\", DEVPATH!=\"/devices/virtual/*\", \
RUN+=\"/usr/sbin/ip link add link $name name use$attr{{ifindex}} type macvlan\"
END"
            ),
        };
        self.sh(&command).map(|_| ())
    }

    fn restore(&self) -> Result<()> {
        let back = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            format!("test ! -e {ASIDE}/{name} || mv -f {ASIDE}/{name} {path}")
        };
        self.sh(&format!(
            "rm -f {NO_BONDING} {IN_USE}; udevadm control --reload; systemctl unmask {UNIT}
             for upper in $(ip -o link show type macvlan | sed 's/^[^:]*: *//; s/@.*//'); do ip link del $upper; done
             {}; {}; {}
             systemd-sysusers tandem.conf
             systemctl daemon-reload; systemctl enable {UNIT}",
            back(CONFIG),
            back(UNIT_FILE),
            back(PROGRAM)
        ))
        .map(|_| ())
    }
}
