//! The initramfs asked a DHCP server over the standby, and configured it for good (`ip=dhcp`, klibc's ipconfig): what it
//! got ends on the bond, and either somebody renews it, or it is told that nobody does.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, is_accelerated, said};
use tandem_lab::full_guest::Manager;
use tandem_lab::tandem::{BOND, Guest, STEP_LIMIT};

#[test]
fn nobody_renews_it_and_that_is_told() {
    run(&[], |machine, guest| {
        is_accelerated(guest)?;
        let address = machine.lease()?.address;
        for shown in [
            format!("ip -o -4 address show scope global | grep -v '^1: ' | cut -d ' ' -f 2,7 | grep -x '{BOND} {address}/24'"),
            format!("ip -o -4 route show default | grep ' dev {BOND} '"),
        ] {
            guest.vm.wait_sh(&shown, STEP_LIMIT).context(shown)?;
        }
        let everywhere = guest.vm.sh(&format!("ip -o -4 address show | grep -c ' {address}/'; ip -o -4 route show default | wc -l"))?;
        ensure!(everywhere == "1\n1", "not on {BOND} alone: {everywhere}");
        let check = guest.tandem(&["check"])?.text();
        let told = format!("the initramfs got {address} by DHCP, and nobody renews its lease");
        ensure!(check.contains(&told), "{check}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn networkd_takes_it_over() {
    let file = (
        "/etc/systemd/network/10-lan.network".to_owned(),
        "[Match]\nName=enp0s4\n[Network]\nDHCP=yes\n[DHCP]\nRouteMetric=100\n".to_owned(),
    );
    run(&[file], |machine, guest| {
        let lease = machine.lease()?;
        machine.is_as_without_tandem(guest, &lease, "systemd-networkd, as 10-lan.network")?;
        machine.has_renewed(guest, &machine.lease()?)
    })
    .unwrap();
}

fn run(
    files: &[(String, String)],
    story: impl Fn(&Machine<'_>, &Guest) -> Result<()>,
) -> Result<()> {
    let Some(lab) = Lab::for_test("initramfs") else {
        return Ok(());
    };
    let machine = Machine::new(&lab, Manager::Networkd)?;
    let machine = machine.with_tandem().initramfs_asks();
    let guest = machine.boot(files)?;
    story(&machine, &guest).with_context(|| said(&guest))
}
