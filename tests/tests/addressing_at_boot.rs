//! A guest that boots with Tandem, and nothing but the MACs configured: NetworkManager and ifupdown configure the bond.
//! What they do besides is shown by the suites `long-addressing-network-manager` and `long-addressing-ifupdown`.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, said};
use tandem_lab::full_guest::{Manager, systemd};
use tandem_lab::tandem::BOND;

#[test]
fn network_manager_configures_the_bond() {
    let wait = "NetworkManager-wait-online.service";
    boots(
        Manager::NetworkManager,
        &[],
        "NetworkManager, as its automatic profile says",
        wait,
    )
    .unwrap();
}

#[test]
fn ifupdown_configures_the_bond() {
    let stanzas = (
        "/etc/network/interfaces.d/lan".to_owned(),
        "allow-hotplug enp0s4\niface enp0s4 inet dhcp\niface enp0s4 inet6 auto\n".to_owned(),
    );
    let words = "ifupdown, as /etc/network/interfaces says of enp0s4";
    boots(Manager::Ifupdown, &[stanzas], words, "networking.service").unwrap();
}

fn boots(manager: Manager, files: &[(String, String)], words: &str, wait: &str) -> Result<()> {
    let Some(lab) = Lab::for_test("addressing at boot") else {
        return Ok(());
    };
    let machine = Machine::new(&lab, manager)?.with_tandem();
    let guest = machine.boot(files)?;
    let story = || -> Result<()> {
        machine.is_as_without_tandem(&guest, &machine.lease()?, words)?;
        let waited = systemd::properties(&guest.vm, wait, &["Result", "ActiveState"])?;
        ensure!(
            waited["Result"] == "success" && waited["ActiveState"] == "active",
            "{wait}: {waited:?}"
        );
        let check = guest.tandem(&["check"])?;
        ensure!(
            check.success() && check.text().contains(&format!("addressing: {BOND}: ")),
            "`tandem check`: {}",
            check.text()
        );
        Ok(())
    };
    story().with_context(|| said(&guest))
}
