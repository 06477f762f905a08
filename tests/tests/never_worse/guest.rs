//! The guest, what can be wrong with it, and what is seen of its network from outside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tandem_lab::agent::Output;
use tandem_lab::full_guest::{Disk, FullGuest, Manager, install, systemd};
use tandem_lab::net::{GUEST_V4, GUEST_V6};
use tandem_lab::tandem::{self, BOND, CONFIG, STEP_LIMIT, Setup};
use tandem_lab::{Host, Lab, Mac, Vm, artifacts, readme};

pub(crate) const PROGRAM: &str = tandem::PROGRAM;
/// Where README.md's commands are run: a checkout, as far as they need one.
const CHECKOUT: &str = "/var/lib/lab-checkout";
/// So long a wait may be by the machine's clock, however busy it is.
pub(crate) const WAIT_LIMIT: Duration = Duration::from_secs(300);
const UNIT: &str = "tandem.service";
const UNIT_FILE: &str = "/usr/lib/systemd/system/tandem.service";
const NO_BONDING: &str = "/etc/modprobe.d/no-bonding.conf";
const IN_USE: &str = "/etc/udev/rules.d/99-lab.rules";
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
    NoUser,
    /// The service runs, and no bond can take a NIC in: each has a macvlan on it.
    NicsInUse,
}

/// The machine: it is off between two boots, and its disk stays.
pub(crate) struct Machine<'lab> {
    lab: &'lab Lab,
    host: Host,
    disk: Disk,
    setup: Setup,
}

impl<'lab> Machine<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        lab.client()?;
        let setup = Setup {
            bond_lines: vec![format!(
                "addressing = \"static\"\naddresses = [\"{GUEST_V4}/24\", \"{GUEST_V6}/64\"]"
            )],
            ..Setup::new()?
        };
        Ok(Self {
            lab,
            host: lab.host("a")?,
            disk: Disk::new(lab)?,
            setup,
        })
    }

    /// Its standby is configured by MAC, as a cloud's image does it.
    pub(crate) fn boot(&mut self) -> Result<Guest<'lab>> {
        let setup = &self.setup;
        let mut guest = FullGuest::new(self.lab)
            .standby(setup.standby)
            .vf(setup.model, setup.vf)
            .manager(Manager::Networkd)
            .settled()
            .disk(&self.disk)
            .text(
                "/etc/systemd/network/50-lan.network",
                &format!(
                    "[Match]\nMACAddress={}\n[Network]\nAddress={GUEST_V4}/24\nAddress={GUEST_V6}/64\n\
                     LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
                    setup.standby
                ),
            );
        for (from, _) in install::FILES {
            guest = guest.copy(&install::source(from), &format!("{CHECKOUT}/{from}"))?;
        }
        let program = format!("{CHECKOUT}/target/release/tandem");
        guest = guest.copy(&tandem::binary()?, &program)?;
        let vm = guest.boot(&self.host)?;
        eprintln!("booted in {:?}", vm.booted_in());
        Ok(Guest {
            tandem: tandem::Guest::new(vm, setup.standby),
            lab: self.lab,
            setup: setup.clone(),
        })
    }

    /// Switches it off, once everything is on its disk, and on again.
    pub(crate) fn reboot(&mut self, guest: Guest<'lab>) -> Result<Guest<'lab>> {
        guest.sh("sync")?;
        drop(guest);
        self.boot()
    }
}

/// The machine while it is on.
pub(crate) struct Guest<'lab> {
    pub(crate) tandem: tandem::Guest,
    lab: &'lab Lab,
    setup: Setup,
}

impl Guest<'_> {
    pub(crate) fn vm(&self) -> &Vm {
        &self.tandem.vm
    }

    pub(crate) fn sh(&self, script: &str) -> Result<String> {
        self.vm().sh(script)
    }

    /// README.md's commands, one by one, and a configuration.
    pub(crate) fn install_as_the_readme_says(&self) -> Result<()> {
        let pages = readme::pages()?;
        let first = pages.first().context("there is no README.md")?;
        let blocks = readme::blocks(&first.text, "sh");
        let block = blocks
            .iter()
            .find(|block| block.contains("install -D "))
            .context("README.md installs nothing")?;
        let commands = readme::commands(&format!("```sh\n{block}```\n"));
        // Built on the machine that the lab runs on.
        let commands = commands
            .iter()
            .filter(|command| !command.starts_with("cargo "));
        for command in commands {
            self.sh(&format!("cd {CHECKOUT} && {command}"))
                .with_context(|| format!("README.md's `{command}`"))?;
        }
        self.sh("mkdir -p /etc/tandem")?;
        let config = self.setup.config();
        self.vm().write_file(CONFIG, config.as_bytes(), false)
    }

    /// The time from udevd's start to a network that counts as online, by the guest's clock.
    pub(crate) fn online_after(&self) -> Result<Duration> {
        let online = systemd::eventually("the network is online", WAIT_LIMIT, || {
            let since = systemd::active_since_us(self.vm(), "network-online.target");
            Ok(since.map_err(|error| format!("{error:#}")))
        })
        .with_context(|| self.network())?;
        let udevd = systemd::active_since_us(self.vm(), "systemd-udevd.service")?;
        Ok(Duration::from_micros(online.saturating_sub(udevd)))
    }

    /// The service says that it has started.
    pub(crate) fn service_is_up(&self) -> Result<()> {
        systemd::eventually("the service has started", WAIT_LIMIT, || {
            let state = systemd::property(self.vm(), UNIT, "ActiveState")?;
            Ok((state == "active").then_some(()).ok_or(state))
        })
        .with_context(|| self.network())
    }

    /// Seen from outside, over IPv4 and IPv6.
    pub(crate) fn answers_the_client(&self) -> Result<()> {
        systemd::eventually("the guest answers the client", WAIT_LIMIT, || {
            let seen = self.ping()?;
            Ok(seen.success().then_some(()).ok_or_else(|| seen.text()))
        })
        .with_context(|| self.network())
    }

    /// The client asks once.
    pub(crate) fn ping(&self) -> Result<Output> {
        let ping = format!("{} ping -c 1 -W 3", artifacts::busybox()?.display());
        let ping = format!("({ping} {GUEST_V4} && {ping} {GUEST_V6}) 2>&1");
        let client = self.lab.client()?;
        client.agent().run(&["sh", "-c", &ping], STEP_LIMIT)
    }

    /// The standby alone has the address, and whoever asks from outside gets an answer.
    pub(crate) fn has_plain_network(&self) -> Result<()> {
        self.answers_the_client()?;
        let standby = self.nic(self.setup.standby)?;
        let holders = self.sh(&format!("ip -o address show | grep ' {GUEST_V4}/'"))?;
        ensure!(
            holders.lines().count() == 1 && holders.contains(&format!(" {standby} ")),
            "{GUEST_V4} is not on {standby} alone:\n{holders}"
        );
        Ok(())
    }

    /// Both NICs are as wanted, once udev is done with them.
    pub(crate) fn is_marked(&self, wanted: bool) -> Result<()> {
        systemd::eventually("udev's marks", STEP_LIMIT, || {
            Ok(self.marks_are(wanted).map_err(|error| format!("{error:#}")))
        })
    }

    /// Whether udev keeps other managers off both NICs, or off none.
    fn marks_are(&self, wanted: bool) -> Result<()> {
        for mac in [self.setup.standby, self.setup.vf] {
            let nic = self.nic(mac)?;
            let told = self.sh(&format!(
                "udevadm info --query=property /sys/class/net/{nic}"
            ))?;
            let is_marked = ["TANDEM_UNMANAGED=1", "ID_NET_MANAGED_BY=tandem"]
                .map(|mark| told.lines().any(|line| line == mark));
            ensure!(
                is_marked == [wanted; 2],
                "{nic} is marked {is_marked:?}, which should be {wanted}:\n{told}"
            );
        }
        Ok(())
    }

    fn nic(&self, mac: Mac) -> Result<String> {
        self.vm().wait_interface(mac, STEP_LIMIT)
    }

    /// As at a boot: no service, no bond, no bonding driver, nothing in /run, and NICs that are new to udev.
    pub(crate) fn take_nics_anew(&self) -> Result<()> {
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

    /// Gives how much of the guest's own time goes by from then on until it has its plain network.
    pub(crate) fn nics_come_anew(&self) -> Result<Duration> {
        self.take_nics_anew()?;
        let (started, before) = (Instant::now(), self.vm().qemu().waited_for_processor()?);
        self.has_plain_network()?;
        let took = started.elapsed();
        Ok(took.saturating_sub(self.lost_since(&before)?))
    }

    /// How long whichever of its processors waited longest has waited for one of this machine since then, or since
    /// QEMU began.
    pub(crate) fn lost_since(&self, before: &BTreeMap<String, Duration>) -> Result<Duration> {
        let now = self.vm().qemu().waited_for_processor()?;
        let since = |(id, waited): (&String, &Duration)| {
            waited.saturating_sub(before.get(id).copied().unwrap_or_default())
        };
        Ok(now.iter().map(since).max().unwrap_or_default())
    }

    pub(crate) fn break_by(&self, broken: Broken) -> Result<()> {
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

    /// Everything is as README.md left it.
    pub(crate) fn restore(&self) -> Result<()> {
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

    /// What the guest knows of its network.
    fn network(&self) -> String {
        let script = "ip address show; networkctl --no-pager list; cat /proc/net/bonding/*; \
                      cat /run/tandem-nics/*; journalctl -b -o short-monotonic --no-pager | tail -n 60";
        let shown = self.vm().run(&["sh", "-c", script], STEP_LIMIT);
        shown.map_or_else(|error| format!("{error:#}"), |output| output.text())
    }
}
