//! What the core relies on of a kernel, as a suite that any [`Kernel`] can be
//! put through: the fake one of the simulation, and a real one in a guest.
//! A kernel that behaves differently makes the simulation worthless.
//!
//! Over 500 lines because it is one list of cases, each short and on its own.

use anyhow::{Context as _, Result, bail, ensure};
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::input::Outcome;
use tandem_core::link::{
    Address, BondFacts, BondMode, FailOverMac, Link, LinkKind, PrimaryReselect, Route,
};
use tandem_core::{IfName, Ifindex, Mac};

use super::Kernel;
use super::fake::name;

/// Name of the bond that the cases make.
const BOND: &str = "contract0";
/// MAC of the VF that the cases plug in.
const VF_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x7f]);
/// MAC that the cases give the bond.
const BOND_MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 0x70]);

/// One thing that the core relies on.
pub struct Case {
    /// What it is, in one sentence.
    pub name: &'static str,
    run: fn(&mut Rig<'_>) -> Result<()>,
}

/// All cases.
pub const CASES: &[Case] = &[
    Case {
        name: "a bond is made as asked, down and empty",
        run: bond_is_made_as_asked,
    },
    Case {
        name: "a second bond of the same name is refused",
        run: name_is_taken_once,
    },
    Case {
        name: "a port carries the bond's MAC and MTU, and its own again afterwards",
        run: port_is_dressed_and_undressed,
    },
    Case {
        name: "setting the primary moves the traffic at once and for good",
        run: primary_moves_traffic,
    },
    Case {
        name: "with primary_reselect=failure a port that recovers stays a backup",
        run: recovered_port_stays_backup,
    },
    Case {
        name: "an active port that vanishes is replaced by the other",
        run: vanished_port_is_replaced,
    },
    Case {
        name: "a primary is remembered by name after it vanished",
        run: primary_is_remembered_by_name,
    },
    Case {
        name: "a primary that is renamed is primary no longer",
        run: renamed_primary_is_forgotten,
    },
    Case {
        name: "an emptied bond gets a random MAC, and one that was set stays",
        run: emptied_bond_loses_its_mac,
    },
    Case {
        name: "fail_over_mac cannot change while there are ports",
        run: fail_over_mac_is_fixed,
    },
    Case {
        name: "with fail_over_mac=active the bond carries the active port's MAC",
        run: mac_follows_active_port,
    },
    Case {
        name: "an MTU that a port cannot have is refused",
        run: too_large_mtu_is_refused,
    },
    Case {
        name: "moved addressing is on the bond and nowhere else",
        run: addressing_moves,
    },
    Case {
        name: "taking a port in costs it IPv6 addresses and routes, not IPv4 addresses",
        run: enslaving_takes_addressing_down,
    },
];

/// Puts a kernel through all cases. Returns each case's name and result.
pub fn examine(kernel: &mut dyn Kernel) -> Vec<(&'static str, Result<()>)> {
    let results = CASES.iter().map(|case| {
        let mut rig = Rig { kernel, vf: None };
        let result = (case.run)(&mut rig);
        let cleaned = rig.clean_up().context("cleaning up");
        (case.name, result.and(cleaned))
    });
    results.collect()
}

/// A kernel and what a case made in it.
struct Rig<'a> {
    kernel: &'a mut dyn Kernel,
    vf: Option<Ifindex>,
}

impl Rig<'_> {
    fn act(&mut self, action: &ActionKind) -> Result<()> {
        match self.kernel.act(action)? {
            Outcome::Accepted => Ok(()),
            other => bail!("{action:?} ended with {other:?}"),
        }
    }

    /// The error number of an action that has to be refused.
    fn refused(&mut self, action: &ActionKind) -> Result<i32> {
        match self.kernel.act(action)? {
            Outcome::Failed { errno, .. } => Ok(errno),
            other => bail!("{action:?} should be refused and ended with {other:?}"),
        }
    }

    fn link(&mut self, ifindex: Ifindex) -> Result<Link> {
        let links = self.kernel.links()?;
        let found = links.into_iter().find(|link| link.ifindex == ifindex);
        found.with_context(|| format!("interface {ifindex} is not there"))
    }

    fn facts(&mut self, bond: Ifindex) -> Result<BondFacts> {
        self.link(bond)?.bond.context("a bond without facts")
    }

    fn active(&mut self, bond: Ifindex) -> Result<Option<Ifindex>> {
        Ok(self.facts(bond)?.active)
    }

    /// A bond that is up, with these options on top of the usual ones.
    fn bond(&mut self, mac: Option<Mac>, fail_over_mac: FailOverMac) -> Result<Ifindex> {
        let options = BondOptions {
            fail_over_mac: Some(fail_over_mac),
            ..usual()
        };
        let name = bond_name();
        self.act(&ActionKind::CreateBond { name, mac, options })?;
        let bond = self.index_of_bond()?;
        self.act(&ActionKind::SetAdminUp {
            link: bond,
            up: true,
        })?;
        Ok(bond)
    }

    fn index_of_bond(&mut self) -> Result<Ifindex> {
        let links = self.kernel.links()?;
        let found = links.into_iter().find(|link| link.name == bond_name());
        Ok(found.context("the bond is not there")?.ifindex)
    }

    fn plug_vf(&mut self) -> Result<Ifindex> {
        let vf = self.kernel.plug_vf(VF_MAC)?;
        self.vf = Some(vf);
        Ok(vf)
    }

    fn unplug_vf(&mut self) -> Result<()> {
        if let Some(vf) = self.vf.take() {
            self.kernel.unplug_vf(vf)?;
        }
        Ok(())
    }

    fn enslave(&mut self, port: Ifindex, bond: Ifindex) -> Result<()> {
        self.act(&ActionKind::Enslave { port, bond })?;
        self.kernel.settle()
    }

    fn set_primary(&mut self, bond: Ifindex, port: Ifindex) -> Result<()> {
        self.act(&ActionKind::SetPrimary { bond, port })
    }

    /// A bond with standby and VF, the standby active.
    fn pair(&mut self) -> Result<(Ifindex, Ifindex, Ifindex)> {
        let standby = self.kernel.standby()?;
        let bond = self.bond(Some(BOND_MAC), FailOverMac::None)?;
        self.enslave(standby, bond)?;
        self.set_primary(bond, standby)?;
        let vf = self.plug_vf()?;
        self.enslave(vf, bond)?;
        Ok((bond, standby, vf))
    }

    fn has_address(&mut self, link: Ifindex, address: &Address) -> Result<bool> {
        let all = self.kernel.addressings()?;
        let found = all.iter().find(|one| one.ifindex == link);
        Ok(found.is_some_and(|one| one.addresses.contains(address)))
    }

    fn has_route(&mut self, link: Ifindex, route: &Route) -> Result<bool> {
        let all = self.kernel.addressings()?;
        let found = all.iter().find(|one| one.ifindex == link);
        let same =
            |one: &Route| one.destination == route.destination && one.gateway == route.gateway;
        Ok(found.is_some_and(|one| one.routes.iter().any(same)))
    }

    fn clean_up(&mut self) -> Result<()> {
        self.unplug_vf()?;
        if let Ok(bond) = self.index_of_bond() {
            self.kernel.delete_bond(bond)?;
        }
        let standby = self.kernel.standby()?;
        self.kernel.set_carrier(standby, true)?;
        self.act(&ActionKind::FlushAddressing { link: standby })?;
        self.act(&ActionKind::SetAdminUp {
            link: standby,
            up: false,
        })
    }
}

fn bond_name() -> IfName {
    name(BOND)
}

fn usual() -> BondOptions {
    BondOptions {
        miimon_ms: Some(100),
        fail_over_mac: Some(FailOverMac::None),
        primary_reselect: Some(PrimaryReselect::Failure),
        all_ports_active: Some(false),
        peer_notifications: Some(3),
    }
}

fn address(text: [u8; 4]) -> Address {
    Address {
        ip: text.into(),
        prefix: 24,
    }
}

fn address6() -> Address {
    Address {
        ip: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77).into(),
        prefix: 64,
    }
}

fn route() -> Route {
    Route {
        destination: address([198, 51, 100, 0]),
        gateway: Some([192, 0, 2, 1].into()),
        metric: None,
    }
}

fn bond_is_made_as_asked(rig: &mut Rig<'_>) -> Result<()> {
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

fn name_is_taken_once(rig: &mut Rig<'_>) -> Result<()> {
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

fn port_is_dressed_and_undressed(rig: &mut Rig<'_>) -> Result<()> {
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

fn primary_moves_traffic(rig: &mut Rig<'_>) -> Result<()> {
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

fn recovered_port_stays_backup(rig: &mut Rig<'_>) -> Result<()> {
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

fn vanished_port_is_replaced(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, standby, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.unplug_vf()?;
    let facts = rig.facts(bond)?;
    ensure!(facts.active == Some(standby), "{facts:?}");
    ensure!(facts.primary.is_none(), "{facts:?}");
    Ok(())
}

fn primary_is_remembered_by_name(rig: &mut Rig<'_>) -> Result<()> {
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

fn renamed_primary_is_forgotten(rig: &mut Rig<'_>) -> Result<()> {
    let (bond, _, vf) = rig.pair()?;
    rig.set_primary(bond, vf)?;
    rig.kernel.rename(vf, &name("renamed0"))?;
    let facts = rig.facts(bond)?;
    ensure!(facts.primary.is_none(), "{facts:?}");
    Ok(())
}

fn emptied_bond_loses_its_mac(rig: &mut Rig<'_>) -> Result<()> {
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

fn fail_over_mac_is_fixed(rig: &mut Rig<'_>) -> Result<()> {
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

fn mac_follows_active_port(rig: &mut Rig<'_>) -> Result<()> {
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

fn too_large_mtu_is_refused(rig: &mut Rig<'_>) -> Result<()> {
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

fn addressing_moves(rig: &mut Rig<'_>) -> Result<()> {
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

fn enslaving_takes_addressing_down(rig: &mut Rig<'_>) -> Result<()> {
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
