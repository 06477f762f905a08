//! What must be true: always, and once everything has calmed down.

use tandem_core::Ifindex;
use tandem_core::fast_path::ArmedVf;
use tandem_core::link::{Address, BondMode, FailOverMac, Link, LinkKind, PrimaryReselect};
use tandem_core::policy::{
    AddressingPolicy, BondPolicy, MacPolicy, Ownership, PathCheck, PortMatch,
};
use tandem_core::status::{BondStatus, Held, Problem, ProblemCode, SwitchoverCause, Traffic};

use super::Stage;
use super::born::{self, fits};

/// What must be true of the kernel at every moment, whatever the service has yet to learn.
/// Returns what is not, in words.
pub fn faults_at_any_moment(stage: &Stage) -> Vec<String> {
    let links = stage.kernel.dump_links();
    let mut faults = Vec::new();
    for bond in &links {
        let Some(facts) = bond.bond.as_ref() else {
            continue;
        };
        if facts.mode != BondMode::ActiveBackup {
            continue;
        }
        let ports = links
            .iter()
            .filter(|link| link.controller == Some(bond.ifindex));
        let is_usable = |link: &&Link| link.port.as_ref().is_some_and(|port| port.mii_up);
        let usable: Vec<_> = ports.filter(is_usable).map(|link| link.ifindex).collect();
        match facts.active {
            None if !usable.is_empty() => faults.push(format!(
                "{} has no active port, and {usable:?} are usable",
                bond.name
            )),
            Some(active) if !usable.contains(&active) => faults.push(format!(
                "{} has {active:?} active, which is not usable",
                bond.name
            )),
            _ => {}
        }
    }
    faults
}

/// Checks that the status tells the truth, at a moment when the service has nothing to learn
/// and nothing under way.
pub fn faults_of_the_status(stage: &Stage) -> Vec<String> {
    judged(stage, |judge| {
        let device = judge.device().filter(|link| {
            let facts = link.bond.as_ref();
            facts.is_some_and(|facts| facts.mode == BondMode::ActiveBackup)
        });
        device.map_or_else(Vec::new, |bond| judge.faults_of_status(bond))
    })
}

/// Checks what must be true of a stage whose kernel no longer changes, with a
/// service that had time to settle. Returns what is not, in words.
pub fn faults_when_calm(stage: &Stage) -> Vec<String> {
    if stage.machine.is_none() {
        return vec!["the service does not run".into()];
    }
    let mut faults = judged(stage, |judge| judge.faults());
    let links = stage.kernel.dump_links();
    let bonds = stage.policy().bonds.iter();
    let names: Vec<_> = bonds.map(|bond| &bond.name).collect();
    let strays = stage.fast_paths.strays(&links, &names);
    if !strays.is_empty() {
        let text = "the fast-path programs still do something for";
        faults.push(format!("{text} {strays:?}, no bonds of the policy"));
    }
    faults
}

fn judged(stage: &Stage, faults_of: impl Fn(&Judge<'_>) -> Vec<String>) -> Vec<String> {
    let faults = faults_among(stage, &born::links(stage), &faults_of);
    if faults.is_empty() {
        return faults;
    }
    match born::links_as_found(stage) {
        Some(links) => faults_among(stage, &links, &faults_of),
        None => faults,
    }
}

fn faults_among(
    stage: &Stage,
    links: &[Link],
    faults_of: impl Fn(&Judge<'_>) -> Vec<String>,
) -> Vec<String> {
    let Some(machine) = &stage.machine else {
        return Vec::new();
    };
    let status = machine.status();
    let mut faults = Vec::new();
    for (policy, bond) in stage.policy().bonds.iter().zip(&status.bonds) {
        let judge = Judge {
            stage,
            links,
            policy,
            status: bond,
        };
        let found = faults_of(&judge).into_iter();
        faults.extend(found.map(|fault| format!("{}: {fault}", policy.name)));
    }
    faults
}

/// An address that was guarded is on no link any more.
pub fn is_lost(stage: &Stage, address: &Address) -> bool {
    let all = stage.kernel.dump_addressings();
    !all.iter().any(|one| one.addresses.contains(address))
}

struct Judge<'a> {
    stage: &'a Stage,
    links: &'a [Link],
    policy: &'a BondPolicy,
    status: &'a BondStatus,
}

impl Judge<'_> {
    fn faults(&self) -> Vec<String> {
        match self.device() {
            Some(link) if link.kind != LinkKind::Bond => Vec::new(),
            Some(link) => match &link.bond {
                Some(facts) if facts.mode == BondMode::ActiveBackup => self.faults_of(link),
                _ => Vec::new(),
            },
            None => self.faults_without_bond(),
        }
    }

    fn device(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.name == self.policy.name)
    }

    fn faults_without_bond(&self) -> Vec<String> {
        let is_free = |link: &&Link| link.occupant.is_none();
        let standby = self.standby();
        let waits = standby.is_some_and(|link| link.occupant.is_some())
            && self.policy.mac == MacPolicy::Standby;
        let vf = self.vfs().into_iter().find(is_free);
        let known =
            !waits && (standby.filter(is_free).is_some() || (vf.is_some() && self.mac_is_known()));
        let due = self.policy.ownership == Ownership::Create && self.stage.kernel.has_bonding;
        let mut faults = Vec::new();
        if known && due {
            faults.push("a NIC is there and the bond is not".into());
        }
        if self.status.ifindex.is_some() {
            faults.push("the status shows a bond that is not there".into());
        }
        faults
    }

    fn mac_is_known(&self) -> bool {
        self.policy.mac == MacPolicy::Follow || self.policy.standby.mac.is_some()
    }

    fn is_port_of(&self, port: Ifindex, bond: Ifindex) -> bool {
        let found = self.links.iter().find(|link| link.ifindex == port);
        found.is_some_and(|link| link.controller == Some(bond))
    }

    /// A standby that no bond takes keeps its addresses and works on its own, unless another port carries the bond's
    /// traffic: then it stays closed, since it has the bond's MAC.
    fn faults_of_outsider(&self) -> Option<String> {
        let standby = self.standby()?;
        let ours = self.policy.ownership == Ownership::Create;
        let carried = self.status.traffic != Traffic::None;
        let bond = self.status.addresses.iter().any(|one| !one.is_link_local());
        let alone = standby.controller.is_none() && !carried;
        let cut_off = alone && (bond || !standby.admin_up);
        // By the other policies a VF may join without the standby, also one without a carrier.
        let is_empty = !self
            .links
            .iter()
            .any(|link| link.controller.is_some() && link.controller == self.status.ifindex);
        // A VF that is a port already keeps the bond's addresses, though it has lost its carrier, where the standby has come
        // back with a program of somebody's.
        let waits = self.policy.addressing.inherits() && standby.occupant.is_none();
        let concerns = is_empty || waits;
        (ours && concerns && cut_off).then(|| format!("the guest is cut off: {standby:?}"))
    }

    fn faults_of(&self, bond: &Link) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(self.faults_of_outsider());
        faults.extend(self.faults_of_status(bond));
        let Some(facts) = &bond.bond else {
            return faults;
        };
        let mut check = |ok: bool, text: String| {
            if !ok {
                faults.push(text);
            }
        };
        let active = facts.active;
        let unchecked = self.is_unchecked(active);
        let active_since = self.stage.kernel.active_since(bond.ifindex);
        let moved = self.status.switchovers.last().filter(|last| {
            // What was moved before was moved to another port, or in a bond of before.
            let is_this_move = active_since.is_some_and(|since| last.at >= since);
            // A check that was asked for later does not take the traffic away again.
            let asked = last.took_us.is_some() && last.at > self.stage.policy_at;
            is_this_move
                && asked
                && last.cause == SwitchoverCause::Arrival
                && last.from == Traffic::Standby
        });
        check(
            !unchecked || moved.is_none(),
            format!("the traffic moved to a VF whose frames do not pass: {moved:?}"),
        );
        let expected = self.expected(bond);
        check(
            expected.contains(&active),
            format!("active is {active:?} and should be one of {expected:?}"),
        );
        check(
            !self.is_found_dead(active),
            format!("active is {active:?}, through which nobody can be reached"),
        );
        let waiting: Vec<_> = self.waiting(bond).iter().map(|vf| vf.ifindex).collect();
        check(
            waiting.is_empty(),
            format!("VFs are not in the bond: {waiting:?}"),
        );
        // A port that the policy does not describe (any more) is nobody's to pin.
        let described = active.is_some_and(|port| {
            self.is_vf(port) || self.standby().is_some_and(|link| link.ifindex == port)
        });
        check(
            !described || facts.primary == active,
            format!("primary is {:?}, active {active:?}", facts.primary),
        );
        check(
            !facts.all_ports_active || self.policy.ownership == Ownership::Adopt,
            "frames are still taken from all ports".into(),
        );
        let status = self.status;
        let reported = |code| status.problems.iter().any(|one| one.code == code);
        let shares = self.policy.mac == MacPolicy::Standby
            && self.policy.ownership == Ownership::Create
            && facts.active.is_some();
        check(
            !shares || bond.mac == self.policy.standby.mac || reported(ProblemCode::BondMismatch),
            format!("the bond's MAC is {:?} and nobody says so", bond.mac),
        );
        let ours = self.policy.ownership == Ownership::Create;
        let timing = &self.policy.timing;
        check(
            !ours
                || (facts.miimon_ms == timing.miimon_ms
                    && facts.peer_notifications == timing.announcements
                    && facts.primary_reselect == PrimaryReselect::Failure),
            format!("options are not as they should be: {facts:?}"),
        );
        check(
            !ours
                || self.policy.mtu.is_none_or(|mtu| bond.mtu == mtu)
                || reported(ProblemCode::MtuRefused),
            format!("the MTU is {} and nobody says so", bond.mtu),
        );
        let ports = self.standby().into_iter().chain(self.vfs());
        let differs = |link: &&Link| {
            let nic = self.stage.kernel.nic(link.ifindex);
            let takes = nic.is_some_and(|(spec, _)| spec.max_mtu >= bond.mtu);
            link.controller == Some(bond.ifindex) && link.mtu != bond.mtu && takes
        };
        let other: Vec<_> = ports.filter(differs).map(|link| link.mtu).collect();
        check(
            !ours || other.is_empty(),
            format!("the bond's MTU is {}, that of a port {other:?}", bond.mtu),
        );
        let fast_path = self.stage.fast_paths.of(bond.ifindex, self.links);
        check(
            active.is_none_or(|active| !fast_path.ports.contains(&active)),
            format!("frames are still counted on the active port: {fast_path:?}"),
        );
        let right = |armed_vf: &ArmedVf| {
            active == Some(armed_vf.vf)
                && self.is_port_of(armed_vf.standby, bond.ifindex)
                && !self.is_unchecked(Some(armed_vf.standby))
        };
        check(
            fast_path.armed_vf.as_ref().is_none_or(right),
            format!("the fast path is armed for {fast_path:?}, active is {active:?}"),
        );
        let blocked = self.stage.fast_paths.is_blocked(bond.ifindex);
        check(
            status.fast_path_armed == (fast_path.armed_vf.is_some() && !blocked),
            "the status is wrong about the fast path".into(),
        );
        check(
            fast_path.armed_vf.is_none() || !blocked || reported(ProblemCode::NotArmed),
            "the fast path would not run, and nobody says so".into(),
        );
        let addresses = self.addresses(bond);
        // That nothing acts by itself at a removal keeps no address anywhere.
        let troubles = |one: &Problem| one.code != ProblemCode::NotArmed;
        let trouble = status.problems.iter().any(troubles);
        if let AddressingPolicy::Static {
            addresses: wanted, ..
        } = &self.policy.addressing
        {
            check(
                trouble || wanted.iter().all(|one| addresses.contains(one)),
                format!("addresses of the policy are missing: {addresses:?}"),
            );
        }
        let standby = self.standby().filter(|link| link.controller.is_some());
        let left = standby.and_then(|link| self.stage.kernel.dump_addressing(link.ifindex));
        let left = left.map(|one| one.addresses).unwrap_or_default();
        check(
            !ours || trouble || left.iter().all(Address::is_link_local),
            format!("addresses were left on the standby: {left:?}"),
        );
        let shown = status.standby.as_ref().map(|port| port.ifindex);
        let standby = self.standby().map(|link| link.ifindex);
        check(
            shown == standby,
            format!("the status shows the standby {shown:?} for {standby:?}"),
        );
        let shown = status.vf.iter().chain(&status.backup_vfs);
        let mut shown: Vec<_> = shown.map(|port| port.ifindex).collect();
        let first = shown.first().copied();
        shown.sort_unstable();
        let mut vfs: Vec<_> = self.vfs().iter().map(|link| link.ifindex).collect();
        vfs.sort_unstable();
        let carrier = active.filter(|port| self.is_vf(*port));
        check(
            shown == vfs && (carrier.is_none() || carrier == first),
            format!("the status shows the VFs {shown:?}, {first:?} first, for {vfs:?}"),
        );
        faults
    }

    fn addresses(&self, bond: &Link) -> Vec<Address> {
        let found = self.stage.kernel.dump_addressing(bond.ifindex);
        found.map(|one| one.addresses).unwrap_or_default()
    }

    /// What the status says of the kernel's bond and is not so.
    fn faults_of_status(&self, bond: &Link) -> Vec<String> {
        let status = self.status;
        let active = bond.bond.as_ref().and_then(|facts| facts.active);
        let claims = [
            (
                status.ifindex == Some(bond.ifindex) && status.mac == bond.mac,
                "the status has another bond or MAC than the kernel".to_owned(),
            ),
            (
                status.traffic == self.traffic(active),
                format!("the status says {:?}, active is {active:?}", status.traffic),
            ),
            (
                status.addresses == self.addresses(bond),
                "the status has other addresses than the kernel".to_owned(),
            ),
        ];
        let wrong = claims.into_iter().filter(|(holds, _)| !holds);
        wrong.map(|(_, text)| text).collect()
    }

    /// The ports of which one has to carry the traffic, by the rules a person would state.
    fn expected(&self, bond: &Link) -> Vec<Option<Ifindex>> {
        let cabled = |link: &&Link| {
            let nic = self.stage.kernel.nic(link.ifindex);
            nic.is_some_and(|(_, cable)| cable)
        };
        let free = |link: &&Link| {
            let nic = self.stage.kernel.nic(link.ifindex);
            let free = nic.is_some() && !self.stage.kernel.is_in_use(link.ifindex);
            free || link.controller.is_some()
        };
        let active = bond.bond.as_ref().and_then(|facts| facts.active);
        if self.standby().is_some_and(|link| link.controller.is_none()) {
            // The VFs wait for a standby that is there and cannot join.
            return vec![active];
        }
        let standby = self.standby().filter(cabled).filter(free);
        let standby = standby.map(|link| link.ifindex);
        let vfs = self.vfs().into_iter().filter(cabled);
        let able = vfs.filter(|vf| self.is_acceptable(vf, bond));
        let able: Vec<_> = able.map(|vf| Some(vf.ifindex)).collect();
        let passes = |vf: &&Option<Ifindex>| !self.is_unchecked(**vf) && !self.is_dead(**vf);
        let mut shown = self.status.vf.iter().chain(&self.status.backup_vfs);
        let held = shown.any(|vf| vf.held == Some(Held::Operator));
        // Calm lasts longer than the host's hold and any warning: only an operator's lasts.
        match standby {
            Some(_) if held => vec![standby],
            // One that took over from a standby that failed keeps the traffic.
            // Against a standby through which nothing passes no VF can be checked.
            Some(standby) if !self.stage.kernel.reaches_others(standby) => {
                able.into_iter().chain([Some(standby)]).collect()
            }
            _ if able.iter().any(|vf| passes(&vf)) || standby.is_none() && !able.is_empty() => able,
            Some(_) => able.into_iter().chain([standby]).collect(),
            // Foreign ports carry traffic if nothing else does.
            None => vec![active],
        }
    }

    /// VFs that the bond should have by now.
    fn waiting(&self, bond: &Link) -> Vec<&Link> {
        let standby_waits = self.standby().is_some_and(|link| link.controller.is_none());
        let vfs = self.vfs().into_iter().filter(|_| !standby_waits);
        vfs.filter(|vf| vf.controller.is_none() && self.is_acceptable(vf, bond))
            .collect()
    }

    /// A VF that has to show that its frames pass, and can't.
    fn is_unchecked(&self, port: Option<Ifindex>) -> bool {
        let checks = self.policy.path_check == PathCheck::Standby;
        let cut_off = |port| self.stage.kernel.was_always_cut_off(port);
        checks && port.is_some_and(|port| self.is_vf(port) && cut_off(port))
    }

    /// Nobody can be reached through this VF: it may have been left at any time, and be tried again.
    fn is_dead(&self, port: Option<Ifindex>) -> bool {
        let reaches = |port| self.stage.kernel.reaches_others(port);
        port.is_some_and(|port| self.is_vf(port) && !reaches(port))
    }

    /// Frames flow, nobody can be reached through this VF, and somebody could be through the standby.
    fn is_found_dead(&self, port: Option<Ifindex>) -> bool {
        let kernel = &self.stage.kernel;
        let flow = kernel.flow;
        let is_watched = self.policy.timing.health_ms > 0 && flow.sent_per_s > 0;
        let standby = self.standby().is_some_and(|standby| {
            standby.controller.is_some() && kernel.reaches_others(standby.ifindex)
        });
        let dead = |port| self.is_vf(port) && !kernel.reaches_others(port);
        is_watched && flow.has_neighbour && standby && port.is_some_and(dead)
    }

    /// The kernel would make this VF a port of the bond.
    fn is_acceptable(&self, vf: &Link, bond: &Link) -> bool {
        let shared = bond
            .bond
            .as_ref()
            .is_some_and(|facts| facts.fail_over_mac == FailOverMac::None);
        let Some((spec, _)) = self.stage.kernel.nic(vf.ifindex) else {
            return false;
        };
        let free = !self.stage.kernel.is_in_use(vf.ifindex) || vf.controller.is_some();
        let mac_fits = !shared || bond.mac == Some(spec.mac) || !spec.refuses_mac;
        free && mac_fits && spec.max_mtu >= bond.mtu
    }

    fn traffic(&self, active: Option<Ifindex>) -> Traffic {
        match active {
            None => Traffic::None,
            Some(port) if self.standby().is_some_and(|l| l.ifindex == port) => Traffic::Standby,
            Some(port) if self.is_vf(port) => Traffic::Vf,
            Some(_) => Traffic::Other,
        }
    }

    fn standby(&self) -> Option<&Link> {
        self.find(std::slice::from_ref(&self.policy.standby))
    }

    fn vfs(&self) -> Vec<&Link> {
        let links = self.links.iter();
        links.filter(|link| self.is_vf(link.ifindex)).collect()
    }

    /// It fits an entry for the VF, chosen or not.
    fn is_vf(&self, port: Ifindex) -> bool {
        let found = self.links.iter().find(|link| link.ifindex == port);
        found.is_some_and(|link| {
            !self.is_standby(link) && self.policy.vfs.iter().any(|vf| fits(vf, link))
        })
    }

    fn find(&self, matches: &[PortMatch]) -> Option<&Link> {
        let exclude = |link: &&Link| !self.is_standby(link) || matches.len() == 1;
        matches.iter().find_map(|one| {
            let mut links = self.links.iter().filter(exclude);
            links.find(|link| fits(one, link))
        })
    }

    fn is_standby(&self, link: &Link) -> bool {
        fits(&self.policy.standby, link)
    }
}
