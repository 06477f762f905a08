//! What the kernel refuses, and what is left then.

use anyhow::{Result, ensure};
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::link::{FailOverMac, Occupant, PrimaryReselect};

use super::super::{BOND_MAC, Rig, VF_MAC, address, route};

pub(in crate::sim::contract) fn only_a_port_becomes_primary(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    let port = vf;
    rig.act(&ActionKind::Release { port, bond })?;
    let errno = rig.refused(&ActionKind::SetPrimary { bond, port })?;
    ensure!(errno == 22, "errno {errno}, not EINVAL");
    let facts = rig.facts(bond)?;
    ensure!(facts.primary == Some(standby), "{facts:?}");
    let port = standby;
    let errno = rig.refused(&ActionKind::Enslave { port, bond: vf })?;
    ensure!(errno == 22, "errno {errno}, not EINVAL");
    Ok(())
}

pub(in crate::sim::contract) fn last_usable_port_stays(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    rig.set_cable(standby, false)?;
    let release = ActionKind::Release { port: vf, bond };
    let errno = rig.refused(&release)?;
    ensure!(errno == 16, "errno {errno}, not EBUSY");
    let active = rig.active(bond)?;
    ensure!(active == Some(vf), "the traffic is on {active:?}");
    rig.set_cable(standby, true)?;
    rig.act(&release)
}

pub(in crate::sim::contract) fn fail_over_mac_is_fixed(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    rig.enslave(standby, bond)?;
    let options = BondOptions {
        primary_reselect: Some(PrimaryReselect::Always),
        fail_over_mac: Some(FailOverMac::Active),
        all_ports_active: Some(true),
        ..BondOptions::default()
    };
    let errno = rig.refused(&ActionKind::SetBondOptions { bond, options })?;
    ensure!(errno == 39, "errno {errno}, not ENOTEMPTY");
    // The kernel takes one option after the other.
    let facts = rig.facts(bond)?;
    let (reselect, all) = (facts.primary_reselect, facts.all_ports_active);
    ensure!(
        reselect == PrimaryReselect::Always && !all,
        "the options before are set, those after are not: {facts:?}"
    );
    Ok(())
}

pub(in crate::sim::contract) fn too_large_mtu_is_refused(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.plug_vf()?;
    let limit = rig.link(vf)?.max_mtu;
    ensure!(limit > 0 && limit < 65_535, "the VF has no limit: {limit}");
    rig.act(&ActionKind::SetMtu {
        link: bond,
        mtu: limit + 1,
    })?;
    rig.refused(&ActionKind::Enslave { port: vf, bond })?;
    let vf = rig.link(vf)?;
    ensure!(vf.controller.is_none(), "{vf:?}");
    Ok(())
}

pub(in crate::sim::contract) fn a_ports_mtu_may_differ(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    let before = rig.link(bond)?.mtu;
    let (link, mtu) = (standby, before - 100);
    rig.act(&ActionKind::SetMtu { link, mtu })?;
    ensure!(rig.link(standby)?.mtu == mtu, "{:?}", rig.link(standby)?);
    ensure!(rig.link(bond)?.mtu == before, "{:?}", rig.link(bond)?);
    ensure!(rig.link(vf)?.mtu == before, "{:?}", rig.link(vf)?);
    let (link, mtu) = (bond, before - 50);
    rig.act(&ActionKind::SetMtu { link, mtu })?;
    for port in [bond, standby, vf] {
        ensure!(rig.link(port)?.mtu == mtu, "{:?}", rig.link(port)?);
    }
    Ok(())
}

pub(in crate::sim::contract) fn pinned_mac_is_refused_unless_followed(
    rig: &mut Rig<'_>,
) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.kernel.plug_igbvf(VF_MAC, true)?;
    rig.vf = Some(vf);
    let errno = rig.refused(&ActionKind::Enslave { port: vf, bond })?;
    ensure!(errno == 99, "errno {errno}, not EADDRNOTAVAIL");
    let link = rig.link(vf)?;
    ensure!(link.controller.is_none(), "{link:?}");
    ensure!(link.mac == Some(VF_MAC) && !link.admin_up, "{link:?}");
    rig.kernel.delete_bond(bond)?;
    let bond = rig.bond(None, FailOverMac::Active)?;
    rig.enslave(vf, bond)?;
    let mac = rig.link(bond)?.mac;
    ensure!(mac == Some(VF_MAC), "the bond did not follow: {mac:?}");
    Ok(())
}

pub(in crate::sim::contract) fn occupied_nic_is_refused(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.plug_vf()?;
    rig.set_admin_up(vf, true)?;
    rig.kernel.occupy(vf, Some("macvlan"))?;
    let before = rig.link(vf)?;
    ensure!(
        matches!(&before.occupant, Some(Occupant::Device { kind, .. }) if kind == "macvlan"),
        "nothing lies on it: {before:?}"
    );
    for action in [
        ActionKind::CheckFree { port: vf, bond },
        ActionKind::Enslave { port: vf, bond },
    ] {
        let errno = rig.refused(&action)?;
        ensure!(errno == 16, "errno {errno}, not EBUSY");
        ensure!(rig.link(vf)? == before, "{:?}", rig.link(vf)?);
    }
    rig.kernel.occupy(vf, None)?;
    rig.enslave(vf, bond)
}

pub(in crate::sim::contract) fn a_question_changes_nothing(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.plug_vf()?;
    for up in [false, true] {
        rig.set_admin_up(vf, up)?;
        let before = rig.link(vf)?;
        rig.act(&ActionKind::CheckFree { port: vf, bond })?;
        ensure!(rig.link(vf)? == before, "{:?}", rig.link(vf)?);
    }
    Ok(())
}

pub(in crate::sim::contract) fn what_lies_on_a_nic_is_seen(rig: &mut Rig<'_>) -> Result<()> {
    let vf = rig.plug_vf()?;
    for wanted in ["vlan", "vxlan"] {
        rig.kernel.occupy(vf, Some(wanted))?;
        let link = rig.link(vf)?;
        ensure!(
            matches!(&link.occupant, Some(Occupant::Device { kind, .. }) if kind == wanted),
            "no {wanted} lies on it: {link:?}"
        );
        rig.kernel.occupy(vf, None)?;
        let link = rig.link(vf)?;
        ensure!(link.occupant.is_none(), "the {wanted} stayed: {link:?}");
    }
    Ok(())
}

pub(in crate::sim::contract) fn closed_link_takes_no_route(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    let given = address([192, 0, 2, 79]);
    let errno = rig.refused(&ActionKind::AddAddressing {
        link: standby,
        addresses: vec![given],
        routes: vec![route()],
    })?;
    ensure!(errno == 101, "errno {errno}, not ENETUNREACH");
    ensure!(rig.has_address(standby, &given)?, "the address went too");
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    rig.set_admin_up(bond, false)?;
    let errno = rig.refused(&ActionKind::MoveAddressing {
        from: standby,
        to: bond,
    })?;
    ensure!(errno == 100, "errno {errno}, not ENETDOWN");
    ensure!(rig.has_address(standby, &given)?, "half of it was moved");
    Ok(())
}
