//! A guest that gets its network as a cloud gives it, without Tandem and with it: one machine over several boots,
//! and whether its network is where it should be.

mod changes;
mod uninterrupted;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tandem_core::status::BondState;

use crate::artifacts;
use crate::dhcp::{DhcpServer, Lease};
use crate::full_guest::{Disk, EarlyNetwork, Flavor, FullGuest, Manager, systemd};
use crate::lab::Lab;
use crate::net::{CLIENT_V4, CLIENT_V6, Host};
use crate::tandem::{BOND, Guest, STEP_LIMIT, Setup};

/// Emulated and on a busy machine.
pub const START_LIMIT: Duration = Duration::from_secs(400);

/// How much of Tandem a machine has from its first boot on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Installed {
    No,
    NotEnabled,
    Enabled,
}

/// The machine: it is off between two boots, and its disk stays. Tandem is installed, with nothing but the MACs
/// configured, and not enabled at the first boot.
pub struct Machine<'lab> {
    lab: &'lab Lab,
    host: Host,
    disk: Disk,
    manager: Manager,
    flavor: Flavor,
    installed: Installed,
    initramfs_asks: bool,
    dracut: Option<EarlyNetwork>,
    route_metric: u32,
    /// Files of this machine that are put there at the first boot.
    copies: Vec<(PathBuf, String)>,
    /// What Tandem is configured with.
    pub setup: Setup,
    /// What gives it its addresses.
    pub server: DhcpServer,
}

impl<'lab> Machine<'lab> {
    /// One that this manager configures.
    pub fn new(lab: &'lab Lab, manager: Manager) -> Result<Self> {
        Ok(Self {
            lab,
            host: lab.host("a")?,
            disk: Disk::new(lab)?,
            manager,
            flavor: Flavor::default(),
            installed: Installed::NotEnabled,
            initramfs_asks: false,
            dracut: None,
            route_metric: 100,
            copies: Vec::new(),
            setup: Setup::new()?,
            server: DhcpServer::start(lab)?,
        })
    }

    /// Tandem is enabled from the first boot on.
    pub fn with_tandem(mut self) -> Self {
        self.installed = Installed::Enabled;
        self
    }

    /// Tandem is not there.
    pub fn without_tandem(mut self) -> Self {
        self.installed = Installed::No;
        self
    }

    /// [`FullGuest::initramfs_asks`].
    pub fn initramfs_asks(mut self) -> Self {
        self.initramfs_asks = true;
        self
    }

    /// [`FullGuest::dracut`].
    pub fn dracut(mut self, network: EarlyNetwork) -> Self {
        self.dracut = Some(network);
        self
    }

    /// The IPv4 default route is to have this metric.
    pub fn route_metric(mut self, metric: u32) -> Self {
        self.route_metric = metric;
        self
    }

    /// With this image.
    pub fn flavor(mut self, flavor: Flavor) -> Self {
        self.flavor = flavor;
        self
    }

    /// Puts a file of this machine there at the first boot.
    pub fn copy(mut self, from: &Path, to: &str) -> Self {
        self.copies.push((from.to_owned(), to.to_owned()));
        self
    }

    /// The same machine, server and leases with an empty disk.
    pub fn with_empty_disk(mut self) -> Result<Self> {
        self.disk = Disk::new(self.lab)?;
        self.copies.clear();
        Ok(self)
    }

    /// Boots until systemd has nothing more to do, and nothing failed. `files` are put there at the first boot.
    pub fn boot(&self, files: &[(String, String)]) -> Result<Guest> {
        let setup = &self.setup;
        let guest = FullGuest::new(self.lab)
            .standby(setup.standby)
            .vf(setup.model, setup.vf)
            .manager(self.manager)
            .flavor(self.flavor)
            .disk(&self.disk);
        let guest = match self.initramfs_asks {
            true => guest.initramfs_asks(),
            false => guest,
        };
        let guest = match self.dracut {
            Some(network) => guest.dracut(network)?,
            None => guest,
        };
        let with_copy =
            |guest: FullGuest<'lab>, (from, to): &(PathBuf, String)| guest.copy(from, to);
        let guest = self.copies.iter().try_fold(guest, with_copy)?;
        let guest = match self.installed {
            Installed::No => guest,
            Installed::NotEnabled => guest.tandem(&setup.config())?.not_enabled(),
            Installed::Enabled => guest.tandem(&setup.config())?,
        };
        let with_files =
            |guest: FullGuest<'lab>, (path, text): &(String, String)| guest.text(path, text);
        let vm = files.iter().fold(guest, with_files).boot(&self.host)?;
        let guest = Guest::new(vm, setup.standby);
        let started = systemd::wait_started(&guest.vm, START_LIMIT);
        started.with_context(|| said(&guest))?;
        Ok(guest)
    }

    /// What the standby's MAC leased. A boot may be over before: a router's advertisement is enough for its end.
    pub fn lease(&self) -> Result<Lease> {
        let mac = self.setup.standby;
        systemd::eventually(&format!("{mac} has a lease"), STEP_LIMIT, || {
            let lease = self.server.lease(mac)?;
            Ok(lease.ok_or_else(|| format!("the server says:\n{}", self.server.log())))
        })
    }

    /// Address, default route and name server are on this interface and nowhere else, as the lease says, and
    /// whoever asks from outside gets an answer.
    pub fn has_network(&self, guest: &Guest, interface: &str, address: &str) -> Result<()> {
        let look = || self.network_is_on(guest, interface, address);
        let found = systemd::eventually(
            &format!("the network is on {interface}"),
            STEP_LIMIT,
            || Ok(look().map_err(|error| format!("{error:#}"))),
        );
        found.with_context(|| said(guest))
    }

    fn network_is_on(&self, guest: &Guest, interface: &str, address: &str) -> Result<()> {
        let list = |command: &str| guest.vm.sh(&format!("{command} || true"));
        let is_on = |what: &str, text: &str| {
            let lines: Vec<_> = text.lines().collect();
            let is_there = |line: &&str| line.split_whitespace().any(|word| word == interface);
            let fits = lines.len() == 1 && lines.iter().all(is_there);
            ensure!(fits, "{what} is not on {interface} alone:\n{text}");
            Ok(())
        };
        is_on(
            address,
            &list(&format!("ip -o -4 address show | grep ' {address}/'"))?,
        )?;
        let routes = list("ip -o -4 route show default")?;
        is_on("the default route", &routes)?;
        // As the file of networkd and NetworkManager's automatic profile have it, and dhcpcd, with the interface's
        // number; dhclient says nothing of itself.
        let is_classic = self.manager == Manager::Ifupdown;
        let metric = format!(" metric {}", self.route_metric);
        let is_dhcp = routes.contains(" proto dhcp ") && routes.contains(&metric);
        ensure!(
            routes.contains(&format!("via {CLIENT_V4} ")) && is_dhcp != is_classic,
            "not the lease's route, as the standby would have it: {routes}"
        );
        // From the router's advertisement, and from DHCPv6, which the stanza does not ask for.
        let addresses = list(&format!(
            "ip -o -6 address show dev {interface} scope global"
        ))?;
        ensure!(
            addresses.contains("/128 scope") != is_classic && addresses.contains("/64 scope"),
            "not both IPv6 addresses on {interface}: {addresses}"
        );
        let servers = list(&match self.manager {
            Manager::Networkd => format!(
                "sed -n s/^DNS=//p /run/systemd/netif/links/$(cat /sys/class/net/{interface}/ifindex)"
            ),
            Manager::NetworkManager => format!("nmcli -g IP4.DNS device show {interface}"),
            Manager::Ifupdown => "sed -n 's/^nameserver //p' /etc/resolv.conf".to_owned(),
            Manager::Dhcpcd => format!("resolvectl dns {interface}"),
        })?;
        // Of dhcpcd's two, resolved keeps the one that was told last.
        let is_dhcpcd = self.manager == Manager::Dhcpcd;
        let is_known = |server: &str| {
            server == CLIENT_V4.to_string() || is_dhcpcd && server == CLIENT_V6.to_string()
        };
        ensure!(
            servers.split_whitespace().any(is_known),
            "{interface} has not the name server: {servers}"
        );
        let ping = format!(
            "{} ping -c 1 -W 3 {address} 2>&1",
            artifacts::busybox()?.display()
        );
        let client = self.lab.client()?;
        let seen = client.agent().run(&["sh", "-c", &ping], STEP_LIMIT)?;
        ensure!(seen.success(), "nobody answers: {}", seen.text());
        Ok(())
    }

    /// The bond carries by its VF and has what the standby had before, and `tandem status` says so in these words.
    pub fn is_as_without_tandem(&self, guest: &Guest, plain: &Lease, words: &str) -> Result<()> {
        is_accelerated(guest)?;
        self.has_network(guest, BOND, &plain.address)?;
        let lease = self.lease()?;
        ensure!(
            (&lease.address, &lease.client_id) == (&plain.address, &plain.client_id),
            "{lease:?} is not the standby's {plain:?}"
        );
        let told = guest.tandem(&["status"])?.text();
        ensure!(told.contains(words), "{told}");
        Ok(())
    }

    /// Waits until this lease has ended, and holds that the bond has the network all the same, by a later one.
    pub fn has_renewed(&self, guest: &Guest, first: &Lease) -> Result<()> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        std::thread::sleep(Duration::from_secs(
            (first.ends_s + 1).saturating_sub(now_s),
        ));
        self.has_network(guest, BOND, &first.address)?;
        let renewed = self.lease()?;
        ensure!(
            renewed.ends_s > first.ends_s,
            "nobody renewed {first:?}: {renewed:?}"
        );
        Ok(())
    }
}

/// The bond carries by its VF; not by the addresses that the lab gives to guests elsewhere.
pub fn is_accelerated(guest: &Guest) -> Result<()> {
    let state = guest.await_state(&mut guest.channel()?, BondState::Accelerated);
    state.map(|_| ()).with_context(|| said(guest))
}

/// What the guest knows of its network.
pub fn said(guest: &Guest) -> String {
    let script = "ip address show; ip route; cat /run/tandem-nics/*; grep . /sys/class/net/*/bonding/slaves; \
                  if test -d /run/NetworkManager; then nmcli device; nmcli connection; \
                  head -n 99 /run/NetworkManager/system-connections/*; fi; \
                  if test -d /run/systemd/netif; then networkctl --no-pager list; networkctl --no-pager status bond0; \
                  head -n 99 /run/systemd/network/*; fi; \
                  if test -d /run/cloud-init; then cat /run/cloud-init/*.log; tail -n 60 /var/log/cloud-init.log; fi; udevadm info /sys/class/net/bond0; tandem status; \
                  systemctl --no-pager --failed; journalctl -b -o short-monotonic --no-pager | tail -n 200";
    let shown = guest.vm.run(&["sh", "-c", script], STEP_LIMIT);
    shown.map_or_else(|error| format!("{error:#}"), |output| output.text())
}
