//! What a bond is, and what its ports become.

use anyhow::{Context as _, Result, ensure};
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::link::{BondMode, FailOverMac, LinkKind, PrimaryReselect};

use super::super::{BOND_MAC, Rig, VF_MAC, bond_name, usual};

pub(in crate::sim::contract) fn bond_is_made_as_asked(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn name_is_taken_once(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn port_is_dressed_and_undressed(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn asking_again_changes_nothing(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    let before = rig.facts(bond)?;
    rig.enslave(standby, bond)?;
    rig.set_primary(bond, standby)?;
    ensure!(rig.facts(bond)? == before, "{:?}", rig.facts(bond)?);
    let port = vf;
    rig.act(&ActionKind::Release { port, bond })?;
    let released = rig.link(vf)?;
    rig.act(&ActionKind::Release { port, bond })?;
    ensure!(rig.link(vf)? == released, "{:?}", rig.link(vf)?);
    Ok(())
}

pub(in crate::sim::contract) fn emptied_bond_loses_its_mac(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn mac_follows_active_port(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn driver_rewrites_permanent_mac(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    // An emptied bond would lose its MAC.
    let standby = rig.kernel.standby()?;
    rig.enslave(standby, bond)?;
    let vf = rig.kernel.plug_igbvf(VF_MAC, false)?;
    rig.vf = Some(vf);
    rig.enslave(vf, bond)?;
    rig.act(&ActionKind::Release { port: vf, bond })?;
    let link = rig.link(vf)?;
    ensure!(
        (link.mac, link.permanent_mac) == (Some(VF_MAC), Some(BOND_MAC)),
        "released: {link:?}"
    );
    rig.enslave(vf, bond)?;
    let mtu = rig.link(bond)?.mtu - 100;
    rig.act(&ActionKind::SetMtu { link: bond, mtu })?;
    let link = rig.link(vf)?;
    let before_bond = link.port.as_ref().and_then(|port| port.permanent_mac);
    ensure!(
        (link.permanent_mac, before_bond) == (Some(BOND_MAC), Some(VF_MAC)),
        "with another MTU: {link:?}"
    );
    Ok(())
}

pub(in crate::sim::contract) fn mac_that_follows_is_not_set(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(None, FailOverMac::Active)?;
    let before = rig.link(bond)?.mac;
    rig.act(&ActionKind::SetMac {
        link: bond,
        mac: BOND_MAC,
    })?;
    let after = rig.link(bond)?.mac;
    ensure!(after == before, "it was set to {after:?}");
    Ok(())
}
