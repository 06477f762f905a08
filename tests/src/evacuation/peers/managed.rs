//! Guests whose bond a network manager makes and cares for, in Debian 13 with systemd and udev.

use std::time::Duration;

use anyhow::Result;

use super::{await_vf_active, with_addresses};
use crate::evacuation::case::System;
use crate::full_guest::{FullGuest, Manager, systemd};
use crate::tandem::{BOND, Setup};
use crate::{Host, Lab, Mac, Vm};

/// Emulated and on a busy machine; usually about 40 s.
pub(in crate::evacuation) const START_LIMIT: Duration = Duration::from_secs(400);
const CONNECTIONS: &str = "/etc/NetworkManager/system-connections";

/// Boots the guest with the network manager of `system`.
pub(in crate::evacuation) fn boot(
    lab: &Lab,
    host: &Host,
    system: System,
    setup: &Setup,
) -> Result<Vm> {
    let guest = FullGuest::new(lab)
        .hot_plug(setup.hot_plug)
        .standby(setup.standby)
        .vf(setup.model, setup.vf);
    let guest = if system == System::Networkd {
        networkd(guest.manager(Manager::Networkd), setup)
    } else {
        network_manager(guest.manager(Manager::NetworkManager), setup)
    };
    let vm = guest.boot(host)?;
    systemd::wait_started(&vm, START_LIMIT)?;
    await_vf_active(&vm, setup)?;
    Ok(vm)
}

/// By systemd.netdev(5) and systemd.network(5) of systemd 257: the VFs' `PrimarySlave=`, and nothing but the
/// bond has addresses.
fn networkd<'lab>(guest: FullGuest<'lab>, setup: &Setup) -> FullGuest<'lab> {
    let file = |name: &str| format!("/etc/systemd/network/{name}");
    let vfs: Vec<_> = std::iter::once(&setup.vf)
        .chain(&setup.later_vfs)
        .map(Mac::to_string)
        .collect();
    guest
        .text(
            &file("10-bond.netdev"),
            &format!(
                "[NetDev]\nName={BOND}\nKind=bond\nMACAddress={}\n\
                 [Bond]\nMode=active-backup\nMIIMonitorSec=100ms\nPrimaryReselectPolicy=always\n",
                setup.standby
            ),
        )
        .text(
            &file("20-standby.network"),
            &format!(
                "[Match]\nPermanentMACAddress={}\n[Network]\nBond={BOND}\n",
                setup.standby
            ),
        )
        .text(
            &file("20-vf.network"),
            &format!(
                "[Match]\nPermanentMACAddress={}\n[Network]\nBond={BOND}\nPrimarySlave=yes\n",
                vfs.join(" ")
            ),
        )
        .text(
            &file("30-bond.network"),
            &with_addresses(&format!(
                "[Match]\nName={BOND}\n[Network]\nAddress=@ADDRESS4@\nAddress=@ADDRESS6@\n\
                 LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
            )),
        )
}

/// By nm-settings-keyfile(5) of NetworkManager 1.52: a profile for the bond and one for each NIC by its MAC.
/// The primary is a name; all VFs of this guest get the same, from their slot.
fn network_manager<'lab>(guest: FullGuest<'lab>, setup: &Setup) -> FullGuest<'lab> {
    let mut profiles = vec![(
        "bond".to_owned(),
        with_addresses(&format!(
            "type=bond\ninterface-name={BOND}\nautoconnect-ports=1\n\
             [ethernet]\ncloned-mac-address={}\n\
             [bond]\nmode=active-backup\nmiimon=100\nprimary={}\nprimary_reselect=always\n\
             [ipv4]\nmethod=manual\naddress1=@ADDRESS4@\n[ipv6]\nmethod=manual\naddress1=@ADDRESS6@\n",
            setup.standby, VF_NAME
        )),
    )];
    let ports = [setup.standby, setup.vf]
        .into_iter()
        .chain(setup.later_vfs.iter().copied());
    for (number, mac) in ports.enumerate() {
        let profile = format!(
            "type=ethernet\ncontroller={BOND}\nport-type=bond\n[ethernet]\nmac-address={mac}\n"
        );
        profiles.push((format!("port{number}"), profile));
    }
    let mut guest = guest.text(
        "/etc/tmpfiles.d/lab.conf",
        // NetworkManager wants them for root alone.
        &format!("z {CONNECTIONS}/*.nmconnection 0600 root root\n"),
    );
    for (number, (name, text)) in profiles.into_iter().enumerate() {
        let head = format!(
            "[connection]\nid={name}\nuuid=7a6e646d-0000-4000-8000-{number:012}\nautoconnect=true\n"
        );
        guest = guest.text(
            &format!("{CONNECTIONS}/{name}.nmconnection"),
            &format!("{head}{text}"),
        );
    }
    guest
}

/// What udev calls the NIC behind the first root port.
const VF_NAME: &str = "enp1s0";
