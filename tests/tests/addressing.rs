//! The network comes up on the bond as it would have come up on the standby: same manager, same lease, renewed by
//! it. Debian 13 with systemd-networkd and the files that netplan makes for it, DHCPv4, DHCPv6, router
//! advertisements and DNS from outside, Tandem with nothing but the MACs configured.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tandem_core::status::BondState;
use tandem_lab::dhcp::{DhcpServer, Lease};
use tandem_lab::full_guest::{Disk, FullGuest, Manager, systemd};
use tandem_lab::net::CLIENT_V4;
use tandem_lab::tandem::{BOND, Guest, PROGRAM, STEP_LIMIT, Setup};
use tandem_lab::{Host, Lab, artifacts};

const UNIT: &str = "tandem.service";
const WAIT_ONLINE: &str = "systemd-networkd-wait-online.service";
/// Emulated and on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(400);
/// The standby's name, as `set-name` of netplan gives it.
const STANDBY: &str = "lan0";
/// What netplan writes of `dhcp4: true`, `dhcp6: true`, in its order of names.
const NETWORK: &str = "10-netplan-lan0.network";
/// The file that Tandem has networkd read.
const COPY: &str = "/run/systemd/network/02-tandem-bond0.network";
const ASIDE: &str = "/var/lib/lab-aside";

/// The machine: it is off between two boots, and its disk stays.
struct Machine<'lab> {
    lab: &'lab Lab,
    host: Host,
    disk: Disk,
    setup: Setup,
    server: DhcpServer,
}

impl<'lab> Machine<'lab> {
    fn new(lab: &'lab Lab) -> Result<Self> {
        Ok(Self {
            lab,
            host: lab.host("a")?,
            disk: Disk::new(lab)?,
            setup: Setup::new()?,
            server: DhcpServer::start(lab)?,
        })
    }

    /// Boots until systemd has nothing more to do, and nothing failed.
    fn boot(&self) -> Result<Guest> {
        let setup = &self.setup;
        let mac = setup.standby;
        let wait = "/usr/lib/systemd/systemd-networkd-wait-online";
        let vm = FullGuest::new(self.lab)
            .standby(mac)
            .vf(setup.model, setup.vf)
            .manager(Manager::Networkd)
            .tandem(&setup.config())?
            .not_enabled()
            .disk(&self.disk)
            .text(
                "/etc/systemd/network/10-netplan-lan0.link",
                &format!("[Match]\nPermanentMACAddress={mac}\n[Link]\nName={STANDBY}\n"),
            )
            .text(
                &format!("/etc/systemd/network/{NETWORK}"),
                &format!(
                    "[Match]\nPermanentMACAddress={mac}\nName={STANDBY}\n[Network]\nDHCP=yes\n\
                     LinkLocalAddressing=ipv6\n[DHCP]\nRouteMetric=100\nUseMTU=true\n"
                ),
            )
            .text(
                &format!("/etc/systemd/system/{WAIT_ONLINE}.d/10-netplan.conf"),
                &format!(
                    "[Service]\nExecStart=\nExecStart={wait} -i {STANDBY}:degraded\n\
                     ExecStart={wait} --any -o routable -i {STANDBY}\n"
                ),
            )
            .boot(&self.host)?;
        systemd::wait_started(&vm, START_LIMIT)?;
        Ok(Guest::new(vm, mac))
    }

    fn lease(&self) -> Result<Lease> {
        let lease = self.server.lease(self.setup.standby)?;
        lease.with_context(|| format!("there is no lease; the server says:\n{}", self.server.log()))
    }

    /// Address, default route and name server are on this interface and nowhere else, as the lease says, and
    /// whoever asks from outside gets an answer.
    fn has_network(&self, guest: &Guest, interface: &str, address: &str) -> Result<()> {
        let look = || self.network_is_on(guest, interface, address);
        let found = systemd::eventually(
            &format!("the network is on {interface}"),
            STEP_LIMIT,
            || Ok(look().map_err(|error| format!("{error:#}"))),
        );
        found.with_context(|| said(guest))
    }

    fn network_is_on(&self, guest: &Guest, interface: &str, address: &str) -> Result<()> {
        let is_on = |what: &str, text: &str| {
            let lines: Vec<_> = text.lines().collect();
            let fits = lines.len() == 1 && lines[0].contains(&format!(" {interface} "));
            ensure!(fits, "{what} is not on {interface} alone:\n{text}");
            Ok(())
        };
        let vm = &guest.vm;
        let list = |command: &str| vm.sh(&format!("{command} || true"));
        is_on(
            address,
            &list(&format!("ip -o -4 address show | grep ' {address}/'"))?,
        )?;
        let routes = list("ip -o -4 route show default")?;
        is_on("the default route", &routes)?;
        ensure!(
            routes.contains(&format!("via {CLIENT_V4} ")) && routes.contains(" proto dhcp "),
            "not the lease's route: {routes}"
        );
        // From the router's advertisement, and from DHCPv6.
        let addresses = list(&format!(
            "ip -o -6 address show dev {interface} scope global"
        ))?;
        ensure!(
            addresses.contains("/128 scope") && addresses.contains(" mngtmpaddr "),
            "not both IPv6 addresses on {interface}: {addresses}"
        );
        let state = list(&format!(
            "cat /run/systemd/netif/links/$(cat /sys/class/net/{interface}/ifindex)"
        ))?;
        ensure!(
            state
                .lines()
                .any(|line| line.starts_with("DNS=") && line.contains(&CLIENT_V4.to_string())),
            "{interface} has no name server:\n{state}"
        );
        let ping = format!(
            "{} ping -c 1 -W 3 {address} 2>&1",
            artifacts::busybox()?.display()
        );
        let seen = self
            .lab
            .client()?
            .agent()
            .run(&["sh", "-c", &ping], STEP_LIMIT)?;
        ensure!(seen.success(), "nobody answers: {}", seen.text());
        Ok(())
    }

    /// The bond has what the standby had before.
    fn is_as_without_tandem(&self, guest: &Guest, plain: &Lease) -> Result<()> {
        self.has_network(guest, BOND, &plain.address)?;
        let lease = self.lease()?;
        ensure!(
            (&lease.address, &lease.client_id) == (&plain.address, &plain.client_id),
            "{lease:?} is not the standby's {plain:?}"
        );
        let told = guest.tandem(&["status"])?.text();
        ensure!(
            told.contains(&format!("systemd-networkd, as {NETWORK}")),
            "{told}"
        );
        Ok(())
    }
}

/// Not by the addresses that the lab gives to guests elsewhere.
fn is_accelerated(guest: &Guest) -> Result<()> {
    let state = guest.await_state(&mut guest.channel()?, BondState::Accelerated);
    state.map(|_| ()).with_context(|| said(guest))
}

/// What the guest knows of its network.
fn said(guest: &Guest) -> String {
    let script = "ip address show; ip route; networkctl --no-pager list; head -n 99 /run/systemd/network/*; \
                  cat /run/tandem-nics/*; networkctl --no-pager status bond0; udevadm info /sys/class/net/bond0; systemctl --no-pager --failed; \
                  journalctl -b -o short-monotonic --no-pager | tail -n 150";
    let shown = guest.vm.run(&["sh", "-c", script], STEP_LIMIT);
    shown.map_or_else(|error| format!("{error:#}"), |output| output.text())
}

#[test]
fn networkd_configures_the_bond_as_it_would_the_standby() {
    let Some(lab) = Lab::for_test("addressing, networkd") else {
        return;
    };
    let story = || -> Result<()> {
        let machine = Machine::new(&lab)?;
        let plain_guest = machine.boot()?;
        let plain = machine.lease()?;
        machine.has_network(&plain_guest, STANDBY, &plain.address)?;
        starts_on_a_running_guest(&machine, &plain_guest, &plain)?;

        plain_guest.vm.sh("sync")?;
        drop(plain_guest);
        let guest = machine.boot()?;
        boots(&machine, &guest, &plain)?;
        networkd_is_disturbed(&machine, &guest, &plain)?;
        the_lease_outlives_its_end(&machine, &guest, &plain)?;
        is_given_back(&machine, &guest, &plain)
    };
    story().unwrap();
}

/// Without a boot: networkd had the standby, and has the bond now.
fn starts_on_a_running_guest(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let story = || -> Result<()> {
        guest.vm.sh(&format!("systemctl enable --now {UNIT}"))?;
        is_accelerated(guest)?;
        machine.is_as_without_tandem(guest, plain)
    };
    story()
        .context("on a running guest")
        .with_context(|| said(guest))
}

fn boots(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let story = || -> Result<()> {
        is_accelerated(guest)?;
        machine.is_as_without_tandem(guest, plain)?;
        let waited = systemd::properties(
            &guest.vm,
            WAIT_ONLINE,
            &["Result", "ActiveState", "ExecStart"],
        )?;
        ensure!(
            waited["Result"] == "success" && waited["ActiveState"] == "active",
            "{WAIT_ONLINE}: {waited:?}"
        );
        ensure!(
            waited["ExecStart"].contains(&format!(" -i {BOND} "))
                && !waited["ExecStart"].contains(STANDBY),
            "{WAIT_ONLINE} waits for a port: {waited:?}"
        );
        let check = guest.tandem(&["check"])?;
        ensure!(
            check.success()
                && check
                    .text()
                    .contains(&format!("addressing: {BOND}: systemd-networkd")),
            "`tandem check`: {}",
            check.text()
        );
        Ok(())
    };
    story().context("after a boot").with_context(|| said(guest))
}

fn networkd_is_disturbed(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    for command in [
        "networkctl reload",
        "systemctl restart systemd-networkd",
        "udevadm trigger --action=change --subsystem-match=net && udevadm settle",
        "systemctl restart tandem",
    ] {
        guest.vm.sh(command)?;
        is_accelerated(guest)?;
        machine
            .is_as_without_tandem(guest, plain)
            .with_context(|| format!("after `{command}`"))?;
    }
    Ok(())
}

/// networkd renews it, whether the service is there or not.
fn the_lease_outlives_its_end(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    guest.vm.sh(&format!("systemctl stop {UNIT}"))?;
    let first = machine.lease()?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    std::thread::sleep(Duration::from_secs(first.ends_s.saturating_sub(now_s) + 1));
    machine.has_network(guest, BOND, &plain.address)?;
    let renewed = machine.lease()?;
    ensure!(
        renewed.ends_s > first.ends_s,
        "nobody renewed {first:?}: {renewed:?}"
    );
    Ok(())
}

/// The service crashes from now on, and the NICs are new: networkd has the standby again.
fn is_given_back(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let vm = &guest.vm;
    vm.sh(&format!(
        "mkdir -p {ASIDE} && mv {PROGRAM} {ASIDE}/ && \
         printf '#!/bin/sh\\ntest \"$1\" = run && kill -ABRT $$\\nexec {ASIDE}/tandem \"$@\"\\n' >{PROGRAM} && \
         chmod 755 {PROGRAM}"
    ))?;
    let nics =
        [machine.setup.standby, machine.setup.vf].map(|mac| vm.wait_interface(mac, STEP_LIMIT));
    let [standby, vf] = nics;
    vm.sh(&format!(
        "systemctl stop {UNIT} tandem-nics.service; systemctl reset-failed
         echo -{BOND} >/sys/class/net/bonding_masters
         for nic in {} {}; do
             device=$(readlink -f /sys/class/net/$nic/device)
             driver=$(readlink -f $device/driver)
             echo ${{device##*/}} >$driver/unbind
             echo ${{device##*/}} >$driver/bind
         done",
        standby?, vf?
    ))?;
    machine.has_network(guest, STANDBY, &plain.address)?;
    vm.wait_sh(&format!("test ! -e {COPY}"), STEP_LIMIT)?;
    let wait = systemd::property(vm, WAIT_ONLINE, "ExecStart")?;
    ensure!(
        wait.contains(&format!(" -i {STANDBY} ")),
        "{WAIT_ONLINE}: {wait}"
    );

    // Mended, and the bond has it again.
    vm.sh(&format!(
        "mv -f {ASIDE}/tandem {PROGRAM}; systemctl restart {UNIT}"
    ))?;
    is_accelerated(guest)?;
    machine.is_as_without_tandem(guest, plain)
}
