//! Addresses and routes.

use anyhow::{Result, ensure};
use tandem_core::action::ActionKind;
use tandem_core::link::FailOverMac;

use super::super::{BOND_MAC, Rig, address, address6, route};

pub(in crate::sim::contract) fn addressing_moves(rig: &mut Rig<'_>) -> Result<()> {
    let standby = rig.kernel.standby()?;
    rig.set_admin_up(standby, true)?;
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

pub(in crate::sim::contract) fn enslaving_takes_addressing_down(rig: &mut Rig<'_>) -> Result<()> {
    let bond = rig.bond(Some(BOND_MAC), FailOverMac::None)?;
    let vf = rig.plug_vf()?;
    rig.set_admin_up(vf, true)?;
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
