//! NetworkManager makes and configures the bond as it would have configured the standby. Debian 13, DHCPv4, DHCPv6,
//! router advertisements and DNS from outside, Tandem with nothing but the MACs configured.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, said};
use tandem_lab::dhcp::Lease;
use tandem_lab::full_guest::{Manager, systemd};
use tandem_lab::tandem::{BOND, Guest, STEP_LIMIT};

const UNIT: &str = "tandem.service";
/// As cloud-init writes one.
const PROFILE: &str = "/etc/NetworkManager/system-connections/cloud-init-lan.nmconnection";
const AUTOMATIC: &str = "its automatic profile";

#[test]
fn network_manager_configures_the_bond_as_it_would_the_standby() {
    let Some(lab) = Lab::for_test("addressing, NetworkManager") else {
        return;
    };
    let story = || -> Result<()> {
        let machine = Machine::new(&lab, Manager::NetworkManager)?;
        let mut guest = machine.boot(&[])?;
        let plain = machine.lease()?;
        let standby = guest.vm.wait_interface(machine.setup.standby, STEP_LIMIT)?;
        // Its VF has a network of its own, as long as nobody takes it.
        guest.vm.wait_sh(
            &format!(
                "ip -o -4 address show dev {standby} | grep ' {}/'",
                plain.address
            ),
            STEP_LIMIT,
        )?;
        let steps = |guest: &mut Guest| -> Result<()> {
            starts_on_a_running_guest(&machine, guest, &plain)?;
            let of_network_manager = [
                "nmcli networking off && nmcli networking on",
                "systemctl restart NetworkManager",
            ];
            is_disturbed_by(&of_network_manager, &machine, guest, &plain)?;
            let of_others = [
                "udevadm trigger --action=change --subsystem-match=net && udevadm settle",
                "systemctl restart tandem",
            ];
            is_disturbed_by(&of_others, &machine, guest, &plain)?;
            let words = made_by(AUTOMATIC);
            machine.vfs_come_and_go(guest, &plain, &words)?;
            machine.outlives_kills(guest, &plain, &words)?;
            machine.lives_without_the_service(guest, &plain, &words)
        };
        steps(&mut guest).with_context(|| said(&guest))?;

        has_a_profile_from_now_on(&machine, &guest)?;
        guest.vm.sh("sync")?;
        drop(guest);
        let guest = machine.boot(&[])?;
        boots(&machine, &guest, &plain).with_context(|| said(&guest))
    };
    story().unwrap();
}

/// What `tandem status` says of the bond.
fn made_by(profile: &str) -> String {
    format!("NetworkManager, as {profile} says")
}

/// Without a boot: NetworkManager had the standby, and has the bond now.
fn starts_on_a_running_guest(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    let is_so = machine.is_uninterrupted(guest, &plain.address, "its start", || {
        guest.vm.sh(&format!("systemctl enable --now {UNIT}"))?;
        machine.is_as_without_tandem(guest, plain, &made_by(AUTOMATIC))
    });
    is_so.context("on a running guest")
}

fn is_disturbed_by(
    commands: &[&str],
    machine: &Machine<'_>,
    guest: &Guest,
    plain: &Lease,
) -> Result<()> {
    for command in commands {
        guest.vm.sh(command)?;
        machine
            .is_as_without_tandem(guest, plain, &made_by(AUTOMATIC))
            .with_context(|| format!("after `{command}`"))?;
    }
    Ok(())
}

fn has_a_profile_from_now_on(machine: &Machine<'_>, guest: &Guest) -> Result<()> {
    let text = format!(
        "[connection]\nid=cloud-init lan\nuuid=7a6e646d-0000-4000-8000-000000000001\n\
         autoconnect-priority=120\ntype=ethernet\n[user]\norg.freedesktop.NetworkManager.origin=cloud-init\n\
         [ethernet]\nmac-address={}\n[ipv4]\nmethod=auto\nmay-fail=false\n[ipv6]\nmethod=auto\nmay-fail=true\n",
        machine.setup.standby
    );
    guest.vm.write_file(PROFILE, text.as_bytes(), false)?;
    guest.vm.sh(&format!("chmod 600 {PROFILE}")).map(|_| ())
}

fn boots(machine: &Machine<'_>, guest: &Guest, plain: &Lease) -> Result<()> {
    machine.is_as_without_tandem(guest, plain, &made_by(PROFILE))?;
    let waited = systemd::properties(
        &guest.vm,
        "NetworkManager-wait-online.service",
        &["Result", "ActiveState"],
    )?;
    ensure!(
        waited["Result"] == "success" && waited["ActiveState"] == "active",
        "NetworkManager-wait-online: {waited:?}"
    );
    let check = guest.tandem(&["check"])?;
    ensure!(
        check.success()
            && check
                .text()
                .contains(&format!("addressing: {BOND}: NetworkManager")),
        "`tandem check`: {}",
        check.text()
    );
    Ok(())
}
