//! What the core relies on of a kernel, as a suite that any [`Kernel`] can be
//! put through: the fake one of the simulation, and a real one in a guest.
//! A kernel that behaves differently makes the simulation worthless.

mod cases;
mod view;
mod walk;

use anyhow::{Context as _, Result, bail};
use tandem_core::action::{ActionKind, BondOptions};
use tandem_core::input::Outcome;
use tandem_core::link::{Address, BondFacts, FailOverMac, Link, LinkKind, PrimaryReselect, Route};
use tandem_core::{IfName, Ifindex, Mac};

use cases::{addressing, bonds, refusals, traffic};

use super::Kernel;
use super::fake::name;

pub use walk::walk;

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
        run: bonds::bond_is_made_as_asked,
    },
    Case {
        name: "a second bond of the same name is refused",
        run: bonds::name_is_taken_once,
    },
    Case {
        name: "a port carries the bond's MAC and MTU, and its own again afterwards",
        run: bonds::port_is_dressed_and_undressed,
    },
    Case {
        name: "setting the primary moves the traffic at once and for good",
        run: traffic::primary_moves_traffic,
    },
    Case {
        name: "with primary_reselect=failure a port that recovers stays a backup",
        run: traffic::recovered_port_stays_backup,
    },
    Case {
        name: "what is asked for again is well and changes nothing",
        run: bonds::asking_again_changes_nothing,
    },
    Case {
        name: "only a bond has ports, and only a port becomes its primary",
        run: refusals::only_a_port_becomes_primary,
    },
    Case {
        name: "the link monitor rests while the bond is closed",
        run: traffic::closed_bond_has_no_link_monitor,
    },
    Case {
        name: "an active port that vanishes is replaced by the other",
        run: traffic::vanished_port_is_replaced,
    },
    Case {
        name: "a primary is remembered by name after it vanished",
        run: traffic::primary_is_remembered_by_name,
    },
    Case {
        name: "a primary that is renamed is primary no longer",
        run: traffic::renamed_primary_is_forgotten,
    },
    Case {
        name: "an emptied bond gets a random MAC, and one that was set stays",
        run: bonds::emptied_bond_loses_its_mac,
    },
    Case {
        name: "a port is not let go while no other is usable",
        run: refusals::last_usable_port_stays,
    },
    Case {
        name: "fail_over_mac cannot change while there are ports; options before it do",
        run: refusals::fail_over_mac_is_fixed,
    },
    Case {
        name: "with fail_over_mac=active setting a MAC is acknowledged without effect",
        run: bonds::mac_that_follows_is_not_set,
    },
    Case {
        name: "with fail_over_mac=active the bond carries the active port's MAC",
        run: bonds::mac_follows_active_port,
    },
    Case {
        name: "igbvf makes the bond's MAC its permanent one; the bond knows what it was",
        run: bonds::driver_rewrites_permanent_mac,
    },
    Case {
        name: "an MTU that a port cannot have is refused",
        run: refusals::too_large_mtu_is_refused,
    },
    Case {
        name: "a port may be given another MTU, and follows the bond's next change",
        run: refusals::a_ports_mtu_may_differ,
    },
    Case {
        name: "a VF whose PF pins its MAC is refused, except by a bond that follows",
        run: refusals::pinned_mac_is_refused_unless_followed,
    },
    Case {
        name: "a NIC whose frames something else has is refused, and stays as it is",
        run: refusals::occupied_nic_is_refused,
    },
    Case {
        name: "asking whether a NIC is free changes nothing",
        run: refusals::a_question_changes_nothing,
    },
    Case {
        name: "a VLAN and a VXLAN are seen on the NIC below them",
        run: refusals::what_lies_on_a_nic_is_seen,
    },
    Case {
        name: "a closed link takes addresses and no routes, and nothing moves to it",
        run: refusals::closed_link_takes_no_route,
    },
    Case {
        name: "moved addressing is on the bond and nowhere else",
        run: addressing::addressing_moves,
    },
    Case {
        name: "taking a port in costs it IPv6 addresses and routes, not IPv4 addresses",
        run: addressing::enslaving_takes_addressing_down,
    },
];

/// Puts a kernel through all cases. Returns each case's name and result.
pub fn examine(kernel: &mut dyn Kernel) -> Vec<(&'static str, Result<()>)> {
    let results = CASES.iter().map(|case| {
        let mut rig = Rig::new(kernel);
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
    /// The bond, as of the last look at everything.
    bond: Option<Ifindex>,
    /// NICs without a cable.
    unplugged: Vec<Ifindex>,
}

impl<'a> Rig<'a> {
    fn new(kernel: &'a mut dyn Kernel) -> Self {
        Self {
            kernel,
            vf: None,
            bond: None,
            unplugged: Vec::new(),
        }
    }
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
        self.set_admin_up(bond, true)?;
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
        self.settle()
    }

    /// Plugs a cable in or out, and waits until all took note.
    fn set_cable(&mut self, nic: Ifindex, plugged: bool) -> Result<()> {
        self.kernel.set_cable(nic, plugged)?;
        self.unplugged.retain(|one| *one != nic);
        if !plugged {
            self.unplugged.push(nic);
        }
        self.settle()
    }

    /// Opens or closes a link, and waits until all took note.
    fn set_admin_up(&mut self, link: Ifindex, up: bool) -> Result<()> {
        self.act(&ActionKind::SetAdminUp { link, up })?;
        self.settle()
    }

    /// Waits until each open NIC has a carrier if it has a cable, and the bond's
    /// link monitor knows it.
    fn settle(&mut self) -> Result<()> {
        let unplugged = self.unplugged.clone();
        let has_settled = |links: &[Link], link: &Link| {
            let cable = link.admin_up && !unplugged.contains(&link.ifindex);
            let carrier = link.admin_up && link.carrier;
            let bond = links
                .iter()
                .find(|bond| link.controller == Some(bond.ifindex));
            // The monitor of a closed bond rests.
            let monitored = match &link.port {
                Some(port) if bond.is_some_and(|bond| bond.admin_up) => port.mii_up == carrier,
                _ => true,
            };
            link.kind != LinkKind::Physical || (carrier == cable && monitored)
        };
        let waited = self
            .kernel
            .wait(&|links| links.iter().all(|link| has_settled(links, link)));
        waited.context("drivers and link monitor did not follow the cables")
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
        self.kernel.set_cable(standby, true)?;
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
