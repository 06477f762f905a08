//! dhcpcd, as a service of its own with Debian's file, configures the bond as it would the standby: DHCPv4, DHCPv6, router
//! advertisements and DNS from outside, Tandem with nothing but the MACs configured.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, said};
use tandem_lab::dhcp::Lease;
use tandem_lab::full_guest::{Flavor, Manager};
use tandem_lab::tandem::{BOND, Guest, STEP_LIMIT};

/// The standby's name without a rule.
const STANDBY: &str = "enp0s4";
const WORDS: &str = "dhcpcd, as /etc/dhcpcd.conf says of enp0s4";

#[test]
fn dhcpcd_configures_the_bond_as_it_would_the_standby() {
    let Some(lab) = Lab::for_test("addressing, dhcpcd") else {
        return;
    };
    let story = || -> Result<()> {
        let machine = Machine::new(&lab, Manager::Dhcpcd)?.flavor(Flavor::Stock);
        let mut guest = machine.boot(&[])?;
        let address = |guest: &Guest| {
            let shown = format!("ip -o -4 address show dev {STANDBY} | grep ' 10.77.0.'");
            guest.vm.wait_sh(&shown, STEP_LIMIT)
        };
        address(&guest).with_context(|| said(&guest))?;
        let plain = machine.lease()?;
        let steps = |guest: &mut Guest| -> Result<()> {
            guest.vm.sh("systemctl enable --now tandem.service")?;
            is_as_without_tandem(&machine, guest, &plain).context("on a running guest")?;
            for command in [
                "systemctl restart dhcpcd.service",
                "touch /etc/dhcpcd.conf && systemctl restart tandem.service",
            ] {
                guest.vm.sh(command)?;
                let is_so = is_as_without_tandem(&machine, guest, &plain);
                is_so.with_context(|| format!("after `{command}`"))?;
            }
            machine.vfs_come_and_go(guest, &plain, WORDS)?;
            machine.outlives_kills(guest, &plain, WORDS)?;
            machine.lives_without_the_service(guest, &plain, WORDS)?;
            is_as_without_tandem(&machine, guest, &plain).context("in the end")
        };
        steps(&mut guest).with_context(|| said(&guest))?;
        guest.vm.sh("sync")?;
        drop(guest);

        let guest = machine.boot(&[])?;
        let steps = || -> Result<()> {
            is_as_without_tandem(&machine, &guest, &plain).context("after a boot")?;
            let check = guest.tandem(&["check"])?;
            ensure!(check.success(), "`tandem check`: {}", check.text());
            somebody_else_configures_a_port(&guest)?;
            is_given_back(&machine, &guest, &plain)
        };
        steps().with_context(|| said(&guest))
    };
    story().unwrap();
}

/// And nothing is left on a port.
fn is_as_without_tandem(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    machine.is_as_without_tandem(guest, plain, WORDS)?;
    let on_ports = guest.vm.sh(&format!(
        "for nic in $(cat /sys/class/net/{BOND}/bonding/slaves); do ip -o -4 address show dev $nic; done"
    ))?;
    ensure!(on_ports.is_empty(), "a port has an address: {on_ports}");
    Ok(())
}

/// What is put on a port moves to the bond, and is told when it comes again and again.
fn somebody_else_configures_a_port(guest: &Guest) -> Result<()> {
    for number in 241..244 {
        let shown =
            |dev: &str| format!("ip -o -4 address show dev {dev} | grep ' 10.77.0.{number}/'");
        guest
            .vm
            .sh(&format!("ip address add 10.77.0.{number}/24 dev {STANDBY}"))?;
        guest
            .vm
            .wait_sh(&format!("! {}", shown(STANDBY)), STEP_LIMIT)?;
        guest.vm.sh(&format!(
            "ip address del 10.77.0.{number}/24 dev {BOND} || true"
        ))?;
    }
    let status = guest.tandem(&["status"])?.text();
    ensure!(status.contains("(port-contested)"), "{status}");
    Ok(())
}

/// Without Tandem from now on, and without a boot.
fn is_given_back(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    guest.vm.sh(&format!(
        "systemctl stop tandem.service tandem-nics.service tandem-refresh.path
         rm /etc/tandem/tandem.toml
         echo -{BOND} >/sys/class/net/bonding_masters
         tandem udev --refresh"
    ))?;
    let shown = format!(
        "ip -o -4 address show dev {STANDBY} | grep ' {}/'",
        plain.address
    );
    guest.vm.wait_sh(&shown, STEP_LIMIT)?;
    guest.vm.sh("test ! -e /run/tandem-nics/dhcpcd.conf")?;
    ensure!(
        machine.lease()?.client_id == plain.client_id,
        "another client"
    );
    Ok(())
}
