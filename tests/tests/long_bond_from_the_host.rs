//! The host gives a running guest its bond, and whoever had configured the standby configures the bond. Tandem is
//! installed and nothing of it configured; DHCPv4, DHCPv6, router advertisements and DNS from outside.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, said};
use tandem_lab::full_guest::Manager;
use tandem_lab::tandem::{BOND, CONFIG, STEP_LIMIT};

/// As the image names the standby.
const STANDBY: &str = "enp0s4";
/// An nmcli that hangs once before the bond has anything, and kills once whoever is about to leave the bond its own
/// lease alone.
const BAD_NMCLI: &str = "mv /usr/bin/nmcli /usr/bin/nmcli.good
cat >/usr/bin/nmcli <<'END'
#!/bin/sh
case \"$*\" in
*'device modify'*) mkdir /run/lab-hung 2>/dev/null && exec sleep 1000 ;;
*'device reapply'*) mkdir /run/lab-killed 2>/dev/null && kill -9 $PPID && exit 1 ;;
esac
exec nmcli.good \"$@\"
END
chmod 755 /usr/bin/nmcli";
/// How long NetworkManager may take to be told again and again.
const TELLING_LIMIT: Duration = Duration::from_secs(300);
/// It did, and NetworkManager was told all.
const TOLD_AGAIN: &str =
    "ls -d /run/lab-hung /run/lab-killed && test ! -e /run/tandem-nics/network-manager-told.json";

#[test]
fn network_manager_configures_a_bond_from_the_host() {
    let words = "NetworkManager, as its automatic profile";
    is_configured(Manager::NetworkManager, &[], words, "true", "true").unwrap();
}

#[test]
fn network_manager_is_told_again() {
    let words = "NetworkManager, as its automatic profile";
    is_configured(Manager::NetworkManager, &[], words, BAD_NMCLI, TOLD_AGAIN).unwrap();
}

#[test]
fn ifupdown_configures_a_bond_from_the_host() {
    let stanzas =
        format!("auto {STANDBY}\niface {STANDBY} inet dhcp\niface {STANDBY} inet6 auto\n");
    let file = ("/etc/network/interfaces.d/lan".to_owned(), stanzas);
    let words = format!("ifupdown, as /etc/network/interfaces says of {STANDBY}");
    is_configured(Manager::Ifupdown, &[file], &words, "true", "true").unwrap();
}

#[test]
fn networkd_configures_a_bond_from_the_host() {
    let name = "10-lan.network";
    let text = format!(
        "[Match]\nName={STANDBY}\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv6\n[DHCP]\nRouteMetric=100\n"
    );
    let file = (format!("/etc/systemd/network/{name}"), text);
    let words = format!("systemd-networkd, as {name}");
    is_configured(Manager::Networkd, &[file], &words, "true", "true").unwrap();
}

/// `before` is done before the host gives the bond, and `after` succeeds once all is done.
fn is_configured(
    manager: Manager,
    files: &[(String, String)],
    words: &str,
    before: &str,
    after: &str,
) -> Result<()> {
    let Some(lab) = Lab::for_test("a bond from the host") else {
        return Ok(());
    };
    let machine = Machine::new(&lab, manager)?;
    let setup = &machine.setup;
    let guest = machine.boot(files)?;
    let story = || -> Result<()> {
        let plain = machine.lease()?;
        guest.vm.sh(&format!("rm {CONFIG}"))?;
        guest.vm.sh("systemctl enable --now tandem.service")?;
        // NetworkManager's automatic profile is for the VF too, as long as nobody takes it.
        let address = format!(
            "ip -o -4 address show dev {STANDBY} | grep ' {}/'",
            plain.address
        );
        guest.vm.wait_sh(&address, STEP_LIMIT)?;
        guest.vm.sh(before)?;
        let bond = json!({
            "name": BOND,
            "standby": { "mac": setup.standby.to_string() },
            "vfs": [{ "mac": setup.vf.to_string() }],
        });
        let bonds = json!({ "bonds": [&bond] });
        machine.is_uninterrupted(&guest, &plain.address, "a bond from the host", || {
            let mut channel = guest.channel()?;
            channel.call("tandem-configure", bonds, STEP_LIMIT)?;
            drop(channel);
            guest.vm.wait_sh(after, TELLING_LIMIT)?;
            machine.is_as_without_tandem(&guest, &plain, words)
        })?;
        let check = guest.tandem(&["check"])?;
        ensure!(check.success(), "`tandem check`: {}", check.text());
        machine.has_renewed(&guest, &machine.lease()?)?;
        guest.vm.sh("systemctl restart tandem.service")?;
        let is_so = machine.is_as_without_tandem(&guest, &plain, words);
        is_so.context("after a restart of the service")
    };
    story().with_context(|| said(&guest))
}
