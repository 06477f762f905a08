//! The network comes up on the bond as it would have come up on the standby: same manager, same lease, renewed by
//! it. Debian 13 with systemd-networkd and the files that netplan makes for it, DHCPv4, DHCPv6, router
//! advertisements and DNS from outside, Tandem with nothing but the MACs configured.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, START_LIMIT, is_accelerated, said};
use tandem_lab::agent::proto::Exit;
use tandem_lab::dhcp::{self, Lease};
use tandem_lab::full_guest::{FullGuest, Manager, systemd};
use tandem_lab::net::GUEST_V4;
use tandem_lab::tandem::{BOND, CONFIG, Guest, PROGRAM, STEP_LIMIT, Setup};

const UNIT: &str = "tandem.service";
const WAIT_ONLINE: &str = "systemd-networkd-wait-online.service";
/// The standby's name, as `set-name` of netplan gives it.
const STANDBY: &str = "lan0";
/// What netplan writes of `dhcp4: true`, `dhcp6: true`, in its order of names.
const NETWORK: &str = "10-netplan-lan0.network";
/// The file that Tandem has networkd read.
const COPY: &str = "/run/systemd/network/02-tandem-bond0.network";
/// How long the bond has to be without an address until it is told.
const GRACE: Duration = Duration::from_secs(60);
const ASIDE: &str = "/var/lib/lab-aside";
/// Makes udev wait with the bond's first event.
const SLOW_UDEV: &str =
    "SUBSYSTEM==\"net\", ACTION==\"add\", KERNEL==\"bond0\", PROGRAM==\"/usr/bin/sleep 5\"\n";

/// As netplan writes them.
fn files(machine: &Machine<'_>) -> Vec<(String, String)> {
    let mac = machine.setup.standby;
    let wait = "/usr/lib/systemd/systemd-networkd-wait-online";
    vec![
        (
            "/etc/sysctl.d/lan.conf".to_owned(),
            format!("net.ipv4.conf.{STANDBY}.arp_announce = 2\n"),
        ),
        (
            "/etc/systemd/network/10-netplan-lan0.link".to_owned(),
            format!("[Match]\nPermanentMACAddress={mac}\n[Link]\nName={STANDBY}\n"),
        ),
        (
            format!("/etc/systemd/network/{NETWORK}"),
            format!(
                "[Match]\nPermanentMACAddress={mac}\nName={STANDBY}\n[Network]\nDHCP=yes\n\
                 LinkLocalAddressing=ipv6\n[DHCP]\nRouteMetric=100\nUseMTU=true\n"
            ),
        ),
        (
            format!("/etc/systemd/system/{WAIT_ONLINE}.d/10-netplan.conf"),
            format!(
                "[Service]\nExecStart=\nExecStart={wait} -i {STANDBY}:degraded\n\
                 ExecStart={wait} --any -o routable -i {STANDBY}\n"
            ),
        ),
    ]
}

/// The bond has what the standby had before, of networkd.
fn is_as_without_tandem(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let words = format!("systemd-networkd, as {NETWORK}");
    machine.is_as_without_tandem(guest, plain, &words)
}

#[test]
fn networkd_configures_the_bond_as_it_would_the_standby() {
    let Some(lab) = Lab::for_test("addressing, networkd") else {
        return;
    };
    let story = || -> Result<()> {
        let machine = Machine::new(&lab, Manager::Networkd)?;
        let plain_guest = machine.boot(&files(&machine))?;
        let plain = machine.lease()?;
        machine.has_network(&plain_guest, STANDBY, &plain.address)?;
        starts_on_a_running_guest(&machine, &plain_guest, &plain)?;

        plain_guest.vm.sh("sync")?;
        drop(plain_guest);
        let guest = machine.boot(&files(&machine))?;
        boots(&machine, &guest, &plain)?;
        networkd_is_disturbed(&machine, &guest, &plain)?;
        a_file_for_networkd_alone_is_copied_for_it(&machine, &guest, &plain)?;
        a_silent_server_is_told(&machine, &guest, &plain)?;
        the_lease_outlives_its_end(&machine, &guest)?;
        is_given_back(&machine, &guest, &plain)
    };
    story().unwrap();
}

/// Tandem configures the bond, and networkd has nothing else: it would wait for nothing, until it gives up. udev is
/// slow: the bond has its ports long before its event.
#[test]
fn a_boot_waits_for_a_bond_that_networkd_does_not_configure() {
    let Some(lab) = Lab::for_test("addressing, static") else {
        return;
    };
    let story = || -> Result<()> {
        let mut setup = Setup::new()?;
        setup.bond_lines = vec![
            "addressing = \"static\"".to_owned(),
            format!("addresses = [\"{GUEST_V4}/24\"]"),
        ];
        lab.client()?;
        let mac = setup.standby;
        let vm = FullGuest::new(&lab)
            .standby(mac)
            .vf(setup.model, setup.vf)
            .manager(Manager::Networkd)
            .tandem(&setup.config())?
            .text(
                "/etc/systemd/network/10-lan.network",
                &format!("[Match]\nPermanentMACAddress={mac}\n[Network]\nDHCP=yes\n"),
            )
            .text("/etc/udev/rules.d/05-slow.rules", SLOW_UDEV)
            .boot(&lab.host("a")?)?;
        systemd::wait_started(&vm, START_LIMIT)?;
        let guest = Guest::new(vm, mac);
        let story = || -> Result<()> {
            is_accelerated(&guest)?;
            has_waited_for_the_bond(&guest)
        };
        story().with_context(|| said(&guest))
    };
    story().unwrap();
}

/// Not for a port, and not in vain, which lasts longer than this waits. It may have been told of the bond just when it
/// was done, and begun anew.
fn has_waited_for_the_bond(guest: &Guest) -> Result<()> {
    systemd::eventually("the network is waited for", STEP_LIMIT, || {
        let names = ["Result", "ActiveState", "ExecStart"];
        let waited = systemd::properties(&guest.vm, WAIT_ONLINE, &names)?;
        let command = &waited["ExecStart"];
        let is_so = waited["Result"] == "success"
            && waited["ActiveState"] == "active"
            && command.contains(&format!(" -i {BOND} "))
            && !command.contains(STANDBY);
        Ok(is_so
            .then_some(())
            .ok_or_else(|| format!("{WAIT_ONLINE}: {waited:?}")))
    })
}

/// Without a boot: networkd had the standby, and has the bond now. The configuration is what `tandem setup` finds.
fn starts_on_a_running_guest(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let story = || -> Result<()> {
        guest.vm.sh(&format!("rm {CONFIG}"))?;
        let shown = guest.tandem(&["setup", "--dry-run"])?;
        let effect = format!("systemd-networkd configures {BOND} by {NETWORK}");
        ensure!(
            shown.success() && shown.text().contains(&effect),
            "`tandem setup --dry-run`: {}{}",
            shown.text(),
            shown.error_text()
        );
        guest.vm.sh(&format!("test ! -e {CONFIG}"))?;
        let written = guest.tandem(&["setup", "--write"])?;
        ensure!(written.success(), "{}", written.error_text());
        let again = guest.tandem(&["setup", "--write"])?;
        ensure!(
            again.exit == Exit::Status(1) && again.error_text().contains("--force"),
            "a second `tandem setup --write`: {}",
            again.error_text()
        );
        guest.vm.sh(&format!("systemctl enable --now {UNIT}"))?;
        is_as_without_tandem(machine, guest, plain)
    };
    story()
        .context("on a running guest")
        .with_context(|| said(guest))
}

fn boots(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let story = || -> Result<()> {
        is_as_without_tandem(machine, guest, plain)?;
        has_waited_for_the_bond(guest)?;
        guest.vm.wait_sh(
            &format!("test $(cat /proc/sys/net/ipv4/conf/{BOND}/arp_announce) = 2"),
            STEP_LIMIT,
        )?;
        let check = guest.tandem(&["check"])?;
        ensure!(
            check.success()
                && check
                    .text()
                    .contains(&format!("addressing: {BOND}: systemd-networkd"))
                && check.text().contains("network: no problem"),
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
        is_as_without_tandem(machine, guest, plain)
            .with_context(|| format!("after `{command}`"))?;
    }
    Ok(())
}

/// As netplan writes it where it has secrets: the copy is for the same eyes, also where a unit without the right to give
/// files away makes it.
fn a_file_for_networkd_alone_is_copied_for_it(
    machine: &Machine<'_>,
    guest: &Guest,
    plain: &Lease,
) -> Result<()> {
    let story = || -> Result<()> {
        let vm = &guest.vm;
        let group = "systemd-network";
        vm.sh(&format!(
            "cd /etc/systemd/network && chgrp {group} {NETWORK} && chmod 640 {NETWORK}"
        ))?;
        vm.wait_sh(
            &format!(
                "test $(stat -c %a {COPY}) = 640 && runuser -u {group} -- grep -q DHCP {COPY}"
            ),
            STEP_LIMIT,
        )?;
        vm.sh(&format!("! runuser -u nobody -- cat {COPY} 2>&1"))?;
        vm.sh("networkctl reload")?;
        is_as_without_tandem(machine, guest, plain)
    };
    story()
        .context("a file that networkd alone may read")
        .with_context(|| said(guest))
}

/// The server answers nobody: the lease runs out, and the bond has no address. The service says both while all
/// else is well, and no longer when the server answers again.
fn a_silent_server_is_told(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let check = || -> Result<(Exit, String)> {
        let check = guest.tandem(&["check"])?;
        Ok((check.exit, check.text()))
    };
    let story = || -> Result<()> {
        machine.server.be_silent()?;
        let limit = dhcp::LEASE + GRACE + STEP_LIMIT;
        systemd::eventually("the missing address is told", limit, || {
            let told = guest.tandem(&["status"])?.text();
            Ok(told.contains("(no-address)").then_some(()).ok_or(told))
        })?;
        let journal = systemd::journal(&guest.vm, UNIT)?;
        ensure!(journal.contains("(lease-unrenewed)"), "{journal}");
        let (exit, text) = check()?;
        // What the router advertised lasts longer.
        let told = format!("network: {BOND}: there was an IPv4 address, and it has none");
        ensure!(
            exit == Exit::Status(1) && text.contains(&told),
            "{exit:?}: {text}"
        );

        machine.server.speak()?;
        guest.vm.sh(&format!("networkctl reconfigure {BOND}"))?;
        is_as_without_tandem(machine, guest, plain)?;
        let (exit, text) = check()?;
        ensure!(
            exit == Exit::Status(0) && text.contains("network: no problem"),
            "{exit:?}: {text}"
        );
        Ok(())
    };
    story()
        .context("a silent server")
        .with_context(|| said(guest))
}

/// networkd renews it, whether the service is there or not.
fn the_lease_outlives_its_end(machine: &Machine<'_>, guest: &Guest) -> Result<()> {
    guest.vm.sh(&format!("systemctl stop {UNIT}"))?;
    machine.has_renewed(guest, &machine.lease()?)
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
    // After the files for networkd, which the network waits for no more.
    let waits = format!("{WAIT_ONLINE} waits for {STANDBY}");
    systemd::eventually(&waits, STEP_LIMIT, || {
        let wait = systemd::property(vm, WAIT_ONLINE, "ExecStart")?;
        let is_told = wait.contains(&format!(" -i {STANDBY} "));
        Ok(is_told.then_some(()).ok_or(wait))
    })?;

    // Mended, and the bond has it again.
    vm.sh(&format!(
        "mv -f {ASIDE}/tandem {PROGRAM}; systemctl restart {UNIT}"
    ))?;
    is_as_without_tandem(machine, guest, plain)
}
