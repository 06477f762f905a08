//! ifupdown configures the bond as it would the standby: Debian's classic /etc/network/interfaces with dhclient, DHCPv4,
//! router advertisements and DNS from outside, Tandem with nothing but the MACs configured.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, is_accelerated, said};
use tandem_lab::dhcp::Lease;
use tandem_lab::full_guest::{Manager, systemd};
use tandem_lab::net::CLIENT_V4;
use tandem_lab::tandem::{BOND, Guest, STEP_LIMIT};

/// The standby's name.
const STANDBY: &str = "lan0";
const INTERFACES: &str = "/etc/network/interfaces.d/lan";
const STANZAS: &str = "auto lan0\niface lan0 inet dhcp\niface lan0 inet6 auto\n";
/// Written, not leased.
const ADDRESS: &str = "10.77.0.30";
const WORDS: &str = "ifupdown, as /etc/network/interfaces says of lan0";

#[test]
fn ifupdown_configures_the_bond_as_it_would_the_standby() {
    let Some(lab) = Lab::for_test("addressing, ifupdown") else {
        return;
    };
    let story = || -> Result<()> {
        let machine = Machine::new(&lab, Manager::Ifupdown)?;
        let mac = machine.setup.standby;
        let files = [
            (
                "/etc/systemd/network/10-lan.link".to_owned(),
                format!("[Match]\nPermanentMACAddress={mac}\n[Link]\nName={STANDBY}\n"),
            ),
            (INTERFACES.to_owned(), STANZAS.to_owned()),
        ];
        let mut guest = machine.boot(&files)?;
        let plain = machine.lease()?;
        machine.has_network(&guest, STANDBY, &plain.address)?;
        let steps = |guest: &mut Guest| -> Result<()> {
            // Without a boot: ifupdown had the standby, and has the bond now.
            guest.vm.sh("systemctl enable --now tandem.service")?;
            let is_so = machine.is_as_without_tandem(guest, &plain, WORDS);
            is_so.context("on a running guest")?;
            machine.lives_without_the_service(guest, &plain, WORDS)?;
            guest.vm.sh("systemctl restart networking.service")?;
            let is_so = machine.is_as_without_tandem(guest, &plain, WORDS);
            is_so.context("after a restart of networking")?;
            machine.vfs_come_and_go(guest, &plain, WORDS)?;
            machine.outlives_kills(guest, &plain, WORDS)
        };
        steps(&mut guest).with_context(|| said(&guest))?;
        guest.vm.sh("sync")?;
        drop(guest);

        let guest = machine.boot(&[])?;
        let boots = || boots(&machine, &guest, &plain);
        boots().with_context(|| said(&guest))?;
        let is_left = || is_left_alone(&machine, &guest, &plain);
        is_left().with_context(|| said(&guest))
    };
    story().unwrap();
}

/// A written address, and one of DHCPv6 alone.
#[test]
fn static_stanzas_and_those_of_dhcpv6_are_for_the_bond_too() {
    let Some(lab) = Lab::for_test("addressing, ifupdown, static") else {
        return;
    };
    let nic = "enp0s4";
    let story = || -> Result<()> {
        let machine = Machine::new(&lab, Manager::Ifupdown)?;
        let stanzas = format!(
            "auto {nic}\niface {nic} inet static\n    address {ADDRESS}/24\n    gateway {CLIENT_V4}\n\
             iface {nic} inet6 dhcp\n"
        );
        let guest = machine.boot(&[(INTERFACES.to_owned(), stanzas)])?;
        let plain = written_and_leased(&guest, nic).with_context(|| said(&guest))?;
        guest.vm.sh("systemctl enable --now tandem.service")?;
        let is_so = |guest: &Guest| -> Result<()> {
            is_accelerated(guest)?;
            let now = written_and_leased(guest, BOND)?;
            ensure!(now == plain, "{now} on the bond, {plain} before");
            let told = guest.tandem(&["status"])?.text();
            ensure!(
                told.contains("ifupdown, as /etc/network/interfaces"),
                "{told}"
            );
            Ok(())
        };
        is_so(&guest).context("on a running guest")?;
        guest.vm.sh("sync")?;
        drop(guest);
        let guest = machine.boot(&[])?;
        is_so(&guest).context("after a boot")
    };
    story().unwrap();
}

/// Both addresses are on this interface, and the written one and the route nowhere else. Gives the leased one.
fn written_and_leased(guest: &Guest, interface: &str) -> Result<String> {
    let leased = format!(
        "ip -o -6 address show dev {interface} scope global | sed -n 's|.* inet6 \\([^ ]*\\)/128 .*|\\1|p'"
    );
    let script = format!(
        "test \"$(ip -o -4 address show | sed -n 's|^[0-9]*: \\([^ ]*\\) .* {ADDRESS}/.*|\\1|p')\" = {interface} && \
         test \"$(ip -o -4 route show default | cut -d ' ' -f 3,5)\" = '{CLIENT_V4} {interface}' && test -n \"$({leased})\""
    );
    guest.vm.wait_sh(&script, STEP_LIMIT)?;
    guest.vm.sh(&leased)
}

fn boots(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    machine.is_as_without_tandem(guest, plain, WORDS)?;
    let check = guest.tandem(&["check"])?;
    ensure!(
        check.success()
            && check
                .text()
                .contains(&format!("addressing: {BOND}: ifupdown")),
        "`tandem check`: {}",
        check.text()
    );
    // The boot waited for the bond.
    let online = systemd::active_since_us(&guest.vm, "network-online.target")?;
    let up = systemd::active_since_us(&guest.vm, "networking.service")?;
    ensure!(
        up <= online,
        "networking.service was up {up} µs after the boot, the network at {online}"
    );
    Ok(())
}

/// What can't be handed over stays as without Tandem, and `tandem check` says why.
fn is_left_alone(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    guest.vm.write_file(
        INTERFACES,
        format!("{STANZAS}    up ip rule add iif lan0 table 7\n").as_bytes(),
        false,
    )?;
    guest.vm.sh(&format!(
        "systemctl stop tandem.service tandem-nics.service networking.service
         echo -{BOND} >/sys/class/net/bonding_masters
         systemctl start tandem.service && systemctl start networking.service"
    ))?;
    machine.has_network(guest, STANDBY, &plain.address)?;
    let check = guest.tandem(&["check"])?;
    ensure!(
        !check.success() && check.text().contains("iif lan0"),
        "`tandem check`: {}",
        check.text()
    );
    Ok(())
}
