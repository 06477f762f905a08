//! The cases, each on a clean kernel.

use anyhow::{Context as _, Result, ensure};
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::link::{BondMode, FailOverMac, LinkKind, PrimaryReselect};

use super::{BOND_MAC, Rig, VF_MAC, address, address6, bond_name, route, usual};
use crate::sim::fake::name;

pub(super) fn bond_is_made_as_asked(rig: &mut Rig<'_>) -> Result<()> {
    let name = bond_name();
    let mac = Some(BOND_MAC);
    let options = usual();
    rig.act(&ActionKind::CreateBond { name, mac, options })?;
    let bond = rig.index_of_bond()?;
    let link = rig.link(bond)?;
    let facts = rig.facts(bond)?;
    ensure!(link.kind == LinkKind::Bond && !link.admin_up, "{link:?}");
    ensure!(link.mac == Some(BOND_MAC), "{link:?}");
    ensure!(facts.mode == BondMode::ActiveBackup, "{facts:?}");
    ensure!(
        facts.miimon_ms == 100 && !facts.all_ports_active,
        "{facts:?}"
    );
    ensure!(
        facts.primary_reselect == PrimaryReselect::Failure,
        "{facts:?}"
    );
    ensure!(facts.fail_over_mac == FailOverMac::None, "{facts:?}");
    ensure!(
        facts.active.is_none() && facts.primary.is_none(),
        "{facts:?}"
    );
    let options = BondOptions {
        all_ports_active: Some(true),
        ..BondOptions::default()
    };
    rig.act(&ActionKind::SetBondOptions { bond, options })?;
    let facts = rig.facts(bond)?;
    ensure!(
        facts.all_ports_active && facts.miimon_ms == 100,
        "{facts:?}"
    );
    Ok(())
}

pub(super) fn name_is_taken_once(rig: &mut Rig<'_>) -> Result<()> {
    rig.bond(None, FailOverMac::None)?;
    let again = ActionKind::CreateBond {
        name: bond_name(),
        mac: None,
        options: usual(),
    };
    let errno = rig.refused(&again)?;
    ensure!(errno == 17, "errno {errno}, not EEXIST");
    Ok(())
}

pub(super) fn port_is_dressed_and_undressed(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    let before = rig.link(standby)?;
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    rig.act(&ActionKind::SetMtu {
        link: bond,
        mtu: 1400,
    })?;
    rig.enslave(standby, bond)?;
    let port = rig.link(standby)?;
    ensure!(port.controller == Some(bond) && port.admin_up, "{port:?}");
    ensure!(port.mac == Some(BOND_MAC) && port.mtu == 1400, "{port:?}");
    let facts = port.port.context("a port without facts")?;
    ensure!(facts.active && facts.mii_up, "{facts:?}");
    ensure!(facts.permanent_mac == before.mac, "{facts:?}");
    let vf = rig.plug_vf()?;
    rig.enslave(vf, bond)?;
    let port = standby;
    rig.act(&ActionKind::Release { port, bond })?;
    let after = rig.link(standby)?;
    ensure!(after.controller.is_none() && !after.admin_up, "{after:?}");
    ensure!(
        after.mac == before.mac && after.mtu == before.mtu,
        "{after:?}"
    );
    ensure!(
        rig.link(bond)?.mac == Some(BOND_MAC),
        "the bond's MAC changed"
    );
    Ok(())
}

pub(super) fn primary_moves_traffic(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    let active = rig.active(bond)?;
    ensure!(
        active == Some(standby),
        "a new port took the traffic: {active:?}"
    );
    rig.set_primary(bond, vf)?;
    let facts = rig.facts(bond)?;
    ensure!(
        facts.active == Some(vf) && facts.primary == Some(vf),
        "{facts:?}"
    );
    rig.set_primary(bond, standby)?;
    rig.unplug_vf()?;
    let vf = rig.plug_vf()?;
    rig.enslave(vf, bond)?;
    let active = rig.active(bond)?;
    ensure!(active == Some(standby), "not for good: {active:?}");
    Ok(())
}

pub(super) fn recovered_port_stays_backup(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.kernel.set_carrier(vf, false)?;
    rig.kernel.settle()?;
    let active = rig.active(bond)?;
    ensure!(
        active == Some(standby),
        "the kernel kept the failed port: {active:?}"
    );
    rig.kernel.set_carrier(vf, true)?;
    rig.kernel.settle()?;
    let active = rig.active(bond)?;
    ensure!(
        active == Some(standby),
        "the kernel went back by itself: {active:?}"
    );
    rig.set_primary(bond, vf)?;
    let active = rig.active(bond)?;
    ensure!(
        active == Some(vf),
        "the same primary again did nothing: {active:?}"
    );
    Ok(())
}

pub(super) fn vanished_port_is_replaced(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.unplug_vf()?;
    let facts = rig.facts(bond)?;
    ensure!(facts.active == Some(standby), "{facts:?}");
    ensure!(facts.primary.is_none(), "{facts:?}");
    Ok(())
}

pub(super) fn primary_is_remembered_by_name(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    let name = rig.link(vf)?.name;
    rig.set_primary(bond, vf)?;
    rig.unplug_vf()?;
    let vf = rig.plug_vf()?;
    rig.kernel.rename(vf, &name)?;
    rig.enslave(vf, bond)?;
    let active = rig.active(bond)?;
    ensure!(active == Some(vf), "{name} was forgotten: {active:?}");
    rig.set_primary(bond, standby)?;
    rig.unplug_vf()?;
    let vf = rig.plug_vf()?;
    rig.kernel.rename(vf, &name)?;
    rig.enslave(vf, bond)?;
    let active = rig.active(bond)?;
    ensure!(
        active == Some(standby),
        "{name} is still primary: {active:?}"
    );
    Ok(())
}

pub(super) fn renamed_primary_is_forgotten(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, _, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.kernel.rename(vf, &name("renamed0"))?;
    let facts = rig.facts(bond)?;
    ensure!(facts.primary.is_none(), "{facts:?}");
    Ok(())
}

pub(super) fn emptied_bond_loses_its_mac(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.plug_vf()?;
    rig.enslave(vf, bond)?;
    ensure!(
        rig.link(bond)?.mac == Some(BOND_MAC),
        "the first port lent its MAC"
    );
    rig.unplug_vf()?;
    let mac = rig.link(bond)?.mac;
    ensure!(mac != Some(BOND_MAC), "the emptied bond kept its MAC");
    rig.act(&ActionKind::SetMac {
        link: bond,
        mac: BOND_MAC,
    })?;
    let vf = rig.plug_vf()?;
    rig.enslave(vf, bond)?;
    let mac = rig.link(bond)?.mac;
    ensure!(
        mac == Some(BOND_MAC),
        "the MAC that was set did not stay: {mac:?}"
    );
    Ok(())
}

pub(super) fn fail_over_mac_is_fixed(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    rig.enslave(standby, bond)?;
    let options = BondOptions {
        fail_over_mac: Some(FailOverMac::Active),
        ..BondOptions::default()
    };
    let errno = rig.refused(&ActionKind::SetBondOptions { bond, options })?;
    ensure!(errno == 39, "errno {errno}, not ENOTEMPTY");
    Ok(())
}

pub(super) fn mac_follows_active_port(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    let standby_mac = rig.link(standby)?.mac;
    let bond = rig.bond(None, FailOverMac::Active)?;
    rig.enslave(standby, bond)?;
    ensure!(
        rig.link(bond)?.mac == standby_mac,
        "not the first port's MAC"
    );
    rig.set_primary(bond, standby)?;
    let vf = rig.plug_vf()?;
    rig.enslave(vf, bond)?;
    ensure!(
        rig.link(vf)?.mac == Some(VF_MAC),
        "the backup's MAC changed"
    );
    rig.set_primary(bond, vf)?;
    let mac = rig.link(bond)?.mac;
    ensure!(mac == Some(VF_MAC), "the bond did not follow: {mac:?}");
    Ok(())
}

pub(super) fn too_large_mtu_is_refused(rig: &mut Rig<'_>) -> Result<()> {
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

pub(super) fn addressing_moves(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    rig.act(&ActionKind::SetAdminUp {
        link: standby,
        up: true,
    })?;
    rig.kernel.settle()?;
    let addresses = vec![address([192, 0, 2, 77]), address6()];
    rig.act(&ActionKind::AddAddressing {
        link: standby,
        addresses: addresses.clone(),
        routes: vec![route()],
    })?;
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    rig.act(&ActionKind::MoveAddressing {
        from: standby,
        to: bond,
    })?;
    for one in &addresses {
        ensure!(rig.has_address(bond, one)?, "{one:?} is not on the bond");
        ensure!(
            !rig.has_address(standby, one)?,
            "{one:?} is still on the standby"
        );
    }
    ensure!(
        rig.has_route(bond, &route())?,
        "the route is not on the bond"
    );
    ensure!(
        !rig.has_route(standby, &route())?,
        "the route is still on the standby"
    );
    rig.enslave(standby, bond)?;
    for one in &addresses {
        ensure!(rig.has_address(bond, one)?, "{one:?} was lost");
    }
    ensure!(rig.has_route(bond, &route())?, "the route was lost");
    Ok(())
}

pub(super) fn enslaving_takes_addressing_down(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.plug_vf()?;
    rig.act(&ActionKind::SetAdminUp { link: vf, up: true })?;
    rig.kernel.settle()?;
    let kept = address([192, 0, 2, 78]);
    rig.act(&ActionKind::AddAddressing {
        link: vf,
        addresses: vec![kept, address6()],
        routes: vec![route()],
    })?;
    rig.enslave(vf, bond)?;
    ensure!(rig.has_address(vf, &kept)?, "the IPv4 address went");
    ensure!(
        !rig.has_address(vf, &address6())?,
        "the IPv6 address stayed"
    );
    ensure!(!rig.has_route(vf, &route())?, "the route stayed");
    Ok(())
}
