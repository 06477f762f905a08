//! Which port carries the traffic.

use anyhow::{Result, ensure};
use tandem_core::action::{ActionKind, BondOptions};

use super::super::Rig;
use crate::sim::fake::name;

pub(in crate::sim::contract) fn primary_moves_traffic(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn recovered_port_stays_backup(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.set_cable(vf, false)?;
    let active = rig.active(bond)?;
    ensure!(
        active == Some(standby),
        "the kernel kept the failed port: {active:?}"
    );
    rig.set_cable(vf, true)?;
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

pub(in crate::sim::contract) fn closed_bond_has_no_link_monitor(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    let options = BondOptions {
        miimon_ms: Some(10),
        ..BondOptions::default()
    };
    rig.act(&ActionKind::SetBondOptions { bond, options })?;
    rig.set_admin_up(bond, false)?;
    rig.set_cable(standby, false)?;
    // Far longer than 10 ms.
    rig.set_cable(vf, false)?;
    rig.set_cable(vf, true)?;
    let active = rig.active(bond)?;
    ensure!(active == Some(standby), "{active:?} without a link monitor");
    rig.set_admin_up(bond, true)?;
    let active = rig.active(bond)?;
    ensure!(active == Some(vf), "not noticed after opening: {active:?}");
    Ok(())
}

pub(in crate::sim::contract) fn vanished_port_is_replaced(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.unplug_vf()?;
    let facts = rig.facts(bond)?;
    ensure!(facts.active == Some(standby), "{facts:?}");
    ensure!(facts.primary.is_none(), "{facts:?}");
    Ok(())
}

pub(in crate::sim::contract) fn primary_is_remembered_by_name(rig: &mut Rig<'_>) -> Result<()> {
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

pub(in crate::sim::contract) fn renamed_primary_is_forgotten(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, _, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    // Linux before 6.2 renames closed interfaces only.
    rig.set_admin_up(vf, false)?;
    rig.kernel.rename(vf, &name("renamed0"))?;
    rig.set_admin_up(vf, true)?;
    let facts = rig.facts(bond)?;
    ensure!(facts.primary.is_none(), "{facts:?}");
    Ok(())
}
