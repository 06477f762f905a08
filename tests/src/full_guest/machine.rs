//! A machine that is booted more than once: Debian 13 with systemd-networkd, which has the standby's addresses, and
//! Tandem not installed. Whatever a test installs stays on its disk.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Disk, FullGuest, Manager, systemd};
use crate::agent::Output;
use crate::net::{GUEST_V4, GUEST_V6};
use crate::tandem::{self, STEP_LIMIT, Setup};
use crate::{Host, Lab, Mac, Vm, artifacts, readme};

/// Where the commands of README.md and the pages are run: a checkout, as far as they need one.
pub const CHECKOUT: &str = "/var/lib/lab-checkout";
/// So long a wait may be by the machine's clock, however busy it is.
pub const WAIT_LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

/// The machine: it is off between two boots, and its disk stays.
#[derive(Debug)]
pub struct Machine<'lab> {
    lab: &'lab Lab,
    host: Host,
    disk: Disk,
    setup: Setup,
    /// In the checkout: files of this machine, and their paths there.
    checkout: Vec<(std::path::PathBuf, String)>,
}

impl<'lab> Machine<'lab> {
    /// A machine that has never been booted.
    ///
    /// # Errors
    /// The lab has no client or host for it.
    pub fn new(lab: &'lab Lab) -> Result<Self> {
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
            checkout: Vec::new(),
        })
    }

    /// Puts a file of this machine into the checkout, at the first boot.
    pub fn checkout(&mut self, from: &Path, to: &str) {
        self.checkout.push((from.to_owned(), to.to_owned()));
    }

    /// Its standby is configured by MAC, as a cloud's image does it.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(&mut self) -> Result<Guest<'lab>> {
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
        for (from, to) in &self.checkout {
            guest = guest.copy(from, &format!("{CHECKOUT}/{to}"))?;
        }
        let vm = guest.boot(&self.host)?;
        eprintln!("booted in {:?}", vm.booted_in());
        Ok(Guest {
            tandem: tandem::Guest::new(vm, setup.standby),
            lab: self.lab,
            setup: setup.clone(),
        })
    }

    /// Switches it off, once everything is on its disk, and on again.
    ///
    /// # Errors
    /// It does not come up.
    pub fn reboot(&mut self, guest: Guest<'lab>) -> Result<Guest<'lab>> {
        guest.sh("sync")?;
        drop(guest);
        self.boot()
    }
}

/// The machine while it is on.
pub struct Guest<'lab> {
    /// Tandem in it, once it is installed.
    pub tandem: tandem::Guest,
    lab: &'lab Lab,
    /// What it has.
    pub setup: Setup,
}

impl Guest<'_> {
    /// The virtual machine.
    pub fn vm(&self) -> &Vm {
        &self.tandem.vm
    }

    /// Runs a shell command that must succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.vm().sh(script)
    }

    /// The commands of the block in which a page shows one that begins so, one by one; cargo's were run on the
    /// machine that the lab runs on.
    ///
    /// # Errors
    /// There is no such page or block, or a command fails.
    pub fn run_block(&self, page: &str, begin: &str) -> Result<()> {
        let pages = readme::pages()?;
        let page = pages.iter().find(|one| one.name == page);
        let page = page.context("there is no such page")?;
        let blocks = readme::blocks(&page.text, "sh");
        let mut blocks = blocks
            .iter()
            .map(|block| readme::commands(&format!("```sh\n{block}```\n")));
        let is_meant = |commands: &Vec<String>| commands.iter().any(|one| one.starts_with(begin));
        let commands = blocks.find(is_meant);
        for command in commands.with_context(|| format!("{} shows no `{begin}`", page.name))? {
            if command.starts_with("cargo ") {
                continue;
            }
            let words = ["sh", "-c", &format!("cd {CHECKOUT} && {command}")];
            let ran = self.vm().run(&words, WAIT_LIMIT)?;
            eprintln!("`{command}`:\n{}{}", ran.text(), ran.error_text());
            if !ran.success() {
                bail!("`{command}` of {} ended with {:?}", page.name, ran.exit);
            }
        }
        Ok(())
    }

    /// Writes the configuration of its two NICs.
    ///
    /// # Errors
    /// It can't be written.
    pub fn configure(&self) -> Result<()> {
        let config = self.setup.config();
        self.vm()
            .write_file(tandem::CONFIG, config.as_bytes(), false)
    }

    /// The service says that it has started.
    ///
    /// # Errors
    /// It never does.
    pub fn service_is_up(&self) -> Result<()> {
        systemd::eventually("the service has started", WAIT_LIMIT, || {
            let state = systemd::property(self.vm(), "tandem.service", "ActiveState")?;
            Ok((state == "active").then_some(()).ok_or(state))
        })
        .with_context(|| self.network())
    }

    /// Seen from outside, over IPv4 and IPv6.
    ///
    /// # Errors
    /// It does not answer.
    pub fn answers_the_client(&self) -> Result<()> {
        systemd::eventually("the guest answers the client", WAIT_LIMIT, || {
            let seen = self.ping()?;
            Ok(seen.success().then_some(()).ok_or_else(|| seen.text()))
        })
        .with_context(|| self.network())
    }

    /// The client asks once.
    ///
    /// # Errors
    /// There is no client.
    pub fn ping(&self) -> Result<Output> {
        let ping = format!("{} ping -c 1 -W 3", artifacts::busybox()?.display());
        let ping = format!("({ping} {GUEST_V4} && {ping} {GUEST_V6}) 2>&1");
        let client = self.lab.client()?;
        client.agent().run(&["sh", "-c", &ping], STEP_LIMIT)
    }

    /// The standby alone has the address, and whoever asks from outside gets an answer.
    ///
    /// # Errors
    /// It is otherwise.
    pub fn has_plain_network(&self) -> Result<()> {
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
    ///
    /// # Errors
    /// They are not.
    pub fn is_marked(&self, wanted: bool) -> Result<()> {
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

    /// The name of the NIC with this permanent MAC.
    ///
    /// # Errors
    /// There is none.
    pub fn nic(&self, mac: Mac) -> Result<String> {
        self.vm().wait_interface(mac, STEP_LIMIT)
    }

    /// What the guest knows of its network.
    pub fn network(&self) -> String {
        let script = "ip address show; networkctl --no-pager list; cat /proc/net/bonding/*; \
                      cat /run/tandem-nics/*; journalctl -b -o short-monotonic --no-pager | tail -n 60";
        let shown = self.vm().run(&["sh", "-c", script], STEP_LIMIT);
        shown.map_or_else(|error| format!("{error:#}"), |output| output.text())
    }
}
