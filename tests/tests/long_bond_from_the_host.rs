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
/// An nmcli that hangs once before the bond has anything, and kills twice whoever is about to leave the bond its own
/// lease alone: then all tries are over.
const BAD_NMCLI: &str = "mv /usr/bin/nmcli /usr/bin/nmcli.good
cat >/usr/bin/nmcli <<'END'
#!/bin/sh
case \"$*\" in
*'device modify'*) mkdir /run/lab-hung 2>/dev/null && exec sleep 1000 ;;
*'device reapply'*)
    for n in 1 2; do mkdir /run/lab-killed-$n 2>/dev/null && kill -9 $PPID && exit 1; done ;;
esac
exec nmcli.good \"$@\"
END
chmod 755 /usr/bin/nmcli";
/// How long NetworkManager may take to be told again and again.
const TELLING_LIMIT: Duration = Duration::from_secs(300);
/// It did, and nothing is left of what the bond had from its standby: all that is leased has an end.
const TOLD_AGAIN: &str = "ls -d /run/lab-hung /run/lab-killed-1 /run/lab-killed-2 && \
    test ! -e /run/tandem-nics/network-manager-told.json && \
    ip -4 address show dev bond0 | grep 'inet 10.77.0.' && ! ip -4 address show dev bond0 | grep 'valid_lft forever'";
/// The standby comes after other NICs. The VF has nothing, so that what is lost is the standby's and the bond's.
const PROFILE: &str = "for nic in $(nmcli -g DEVICE,TYPE device | sed -n 's/:ethernet$//p' | grep -v '^enp0s4$'); do
    nmcli device disconnect $nic
done
nmcli connection add type ethernet ifname enp0s4 con-name lan ipv4.route-metric 2000 ipv6.route-metric 2000
nmcli --wait 50 connection up lan";
const METRIC: u32 = 2000;
const HAS_METRIC: &str = "ip -6 route show default | grep 'dev bond0 .*metric 2000 '";

struct Case<'a> {
    manager: Manager,
    files: &'a [(String, String)],
    /// What `tandem status` says of the bond's configuration.
    words: &'a str,
    route_metric: u32,
    /// Done before the host gives the bond.
    before: &'a str,
    /// Succeeds once all is done.
    after: &'a str,
}

impl<'a> Case<'a> {
    fn of(manager: Manager, files: &'a [(String, String)], words: &'a str) -> Self {
        Self {
            manager,
            files,
            words,
            route_metric: 100,
            before: "true",
            after: "true",
        }
    }
}

#[test]
fn network_manager_configures_a_bond_from_the_host() {
    let words = "NetworkManager, as its automatic profile";
    is_configured(&Case::of(Manager::NetworkManager, &[], words)).unwrap();
}

#[test]
fn network_manager_is_told_again() {
    let words = "NetworkManager, as its automatic profile";
    let case = Case {
        before: BAD_NMCLI,
        after: TOLD_AGAIN,
        ..Case::of(Manager::NetworkManager, &[], words)
    };
    is_configured(&case).unwrap();
}

#[test]
fn network_manager_keeps_the_metric_of_the_standby() {
    let words = "NetworkManager, as /etc/NetworkManager/system-connections/lan.nmconnection";
    let case = Case {
        route_metric: METRIC,
        before: PROFILE,
        after: HAS_METRIC,
        ..Case::of(Manager::NetworkManager, &[], words)
    };
    is_configured(&case).unwrap();
}

#[test]
fn ifupdown_configures_a_bond_from_the_host() {
    let stanzas =
        format!("auto {STANDBY}\niface {STANDBY} inet dhcp\niface {STANDBY} inet6 auto\n");
    let file = ("/etc/network/interfaces.d/lan".to_owned(), stanzas);
    let words = format!("ifupdown, as /etc/network/interfaces says of {STANDBY}");
    is_configured(&Case::of(Manager::Ifupdown, &[file], &words)).unwrap();
}

#[test]
fn networkd_configures_a_bond_from_the_host() {
    let name = "10-lan.network";
    let text = format!(
        "[Match]\nName={STANDBY}\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv6\n[DHCP]\nRouteMetric=100\n"
    );
    let file = (format!("/etc/systemd/network/{name}"), text);
    let words = format!("systemd-networkd, as {name}");
    is_configured(&Case::of(Manager::Networkd, &[file], &words)).unwrap();
}

fn is_configured(case: &Case<'_>) -> Result<()> {
    let Some(lab) = Lab::for_test("a bond from the host") else {
        return Ok(());
    };
    let machine = Machine::new(&lab, case.manager)?.route_metric(case.route_metric);
    let setup = &machine.setup;
    let guest = machine.boot(case.files)?;
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
        guest.vm.sh(case.before)?;
        guest.vm.wait_sh(&address, STEP_LIMIT)?;
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
            guest.vm.wait_sh(case.after, TELLING_LIMIT)?;
            machine.is_as_without_tandem(&guest, &plain, case.words)
        })?;
        let check = guest.tandem(&["check"])?;
        ensure!(check.success(), "`tandem check`: {}", check.text());
        machine.has_renewed(&guest, &machine.lease()?)?;
        guest.vm.sh("systemctl restart tandem.service")?;
        let is_so = machine.is_as_without_tandem(&guest, &plain, case.words);
        is_so.context("after a restart of the service")
    };
    story().with_context(|| said(&guest))
}
