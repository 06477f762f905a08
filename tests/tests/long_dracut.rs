//! dracut made the initramfs, and a network was asked for in it (`rd.neednet=1 ip=dhcp`), as for a root that is
//! mounted over it: what the standby got there ends on the bond, is renewed, and the VF never asked.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, is_accelerated, said};
use tandem_lab::full_guest::{EarlyNetwork, Manager};
use tandem_lab::tandem::{BOND, Guest};

/// As a server's installer writes it.
const LAN: &str =
    "[Match]\nName=en*\n[Network]\nDHCP=yes\n[DHCP]\nRouteMetric=100\nClientIdentifier=mac\n";

#[test]
fn networkd_asks_and_goes_on() {
    let file = (
        "/etc/systemd/network/10-lan.network".to_owned(),
        LAN.to_owned(),
    );
    run(EarlyNetwork::Networkd, Manager::Networkd, &[file]).unwrap();
}

#[test]
fn network_manager_asks_and_goes_on() {
    run(EarlyNetwork::NetworkManager, Manager::NetworkManager, &[]).unwrap();
}

fn goes_on(machine: &Machine<'_>, guest: &Guest) -> Result<()> {
    is_accelerated(guest)?;
    let first = machine.lease()?;
    machine.has_network(guest, BOND, &first.address)?;
    let of_the_vf = machine.server.lease(machine.setup.vf)?;
    ensure!(of_the_vf.is_none(), "the VF asked: {of_the_vf:?}");
    machine.has_renewed(guest, &first)
}

fn run(early: EarlyNetwork, manager: Manager, files: &[(String, String)]) -> Result<()> {
    let Some(lab) = Lab::for_test("dracut") else {
        return Ok(());
    };
    let machine = Machine::new(&lab, manager)?;
    let machine = machine.with_tandem().dracut(early);
    let guest = machine.boot(files)?;
    goes_on(&machine, &guest).with_context(|| said(&guest))
}
