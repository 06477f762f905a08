//! The upper devices of the bonds: VLANs and macvlans have MACs of their own, of which a
//! fast path that is armed has to know.
//!
//! The machine gets one number for each bond, which changes with what is on it: nobody else
//! needs more, and a guest may have thousands of links.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use tandem_core::types::{Ifindex, Mac};

use super::netlink::link::Described;

/// Links on bonds that are looked after; those beyond are ignored.
const MAX_UPPERS: usize = 1024;
/// Kinds of links that lie on the one that `IFLA_LINK` names and send frames of their own
/// through it, as `helper/src/act/announce.rs` announces them.
const KINDS: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];

/// A link that lies on another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Upper {
    lower: Ifindex,
    mac: Option<Mac>,
    admin_up: bool,
    /// Others may lie on it in turn.
    vlan: bool,
}

impl Upper {
    pub(super) fn of(described: &Described) -> Option<Self> {
        let kind = described.info_kind.as_deref()?;
        KINDS.contains(&kind).then_some(Self {
            lower: described.lower?,
            mac: described.link.mac,
            admin_up: described.link.admin_up,
            vlan: kind == "vlan",
        })
    }
}

/// The known upper devices of the bonds there are.
#[derive(Debug, Default)]
pub(super) struct UpperDevices {
    uppers: BTreeMap<Ifindex, Upper>,
    /// What was last said of each bond.
    said: BTreeMap<Ifindex, u64>,
}

impl UpperDevices {
    /// Replaces everything.
    pub(super) fn replace(&mut self, all: BTreeMap<Ifindex, Upper>, bonds: &BTreeSet<Ifindex>) {
        self.uppers = all;
        self.keep_those_on(bonds);
    }

    /// Learns of one link.
    pub(super) fn put(&mut self, link: Ifindex, upper: Option<Upper>, bonds: &BTreeSet<Ifindex>) {
        let on_a_bond =
            |upper: &Upper| bonds.contains(&upper.lower) || self.uppers.contains_key(&upper.lower);
        if let Some(upper) = upper.filter(on_a_bond) {
            self.uppers.insert(link, upper);
            while self.uppers.len() > MAX_UPPERS {
                self.uppers.pop_last();
            }
        } else {
            self.uppers.remove(&link);
        }
    }

    /// Links on which others lie that matter.
    pub(super) fn lowers(&self, bonds: &BTreeSet<Ifindex>) -> BTreeSet<Ifindex> {
        let vlans = self.uppers.iter().filter(|(_, upper)| upper.vlan);
        let vlans = vlans.map(|(link, _)| *link);
        bonds.iter().copied().chain(vlans).collect()
    }

    /// Bonds with something else on them than was said, and the number that stands for it.
    pub(super) fn news(&mut self, bonds: &BTreeSet<Ifindex>) -> Vec<(Ifindex, u64)> {
        self.said.retain(|bond, _| bonds.contains(bond));
        let mut news = Vec::new();
        for &bond in bonds {
            let number = self.number(bond);
            if self.said.insert(bond, number).unwrap_or(0) != number {
                news.push((bond, number));
            }
        }
        news
    }

    /// 0 for nothing.
    fn number(&self, bond: Ifindex) -> u64 {
        let on_it: Vec<_> = self
            .uppers
            .iter()
            .filter(|(_, upper)| self.lies_on(upper, bond))
            .collect();
        if on_it.is_empty() {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        on_it.hash(&mut hasher);
        hasher.finish().max(1)
    }

    fn lies_on(&self, upper: &Upper, bond: Ifindex) -> bool {
        let mut lower = upper.lower;
        // A chain of links ends, but what is known of it need not fit together.
        for _ in 0..self.uppers.len() {
            match self.uppers.get(&lower) {
                _ if lower == bond => return true,
                Some(next) => lower = next.lower,
                None => return false,
            }
        }
        lower == bond
    }

    fn keep_those_on(&mut self, bonds: &BTreeSet<Ifindex>) {
        let kept: BTreeSet<Ifindex> = self
            .uppers
            .iter()
            .filter(|(_, upper)| bonds.iter().any(|bond| self.lies_on(upper, *bond)))
            .map(|(link, _)| *link)
            .take(MAX_UPPERS)
            .collect();
        self.uppers.retain(|link, _| kept.contains(link));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOND: Ifindex = Ifindex(3);

    fn upper(lower: u32, vlan: bool) -> Upper {
        Upper {
            lower: Ifindex(lower),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            admin_up: true,
            vlan,
        }
    }

    fn bonds() -> BTreeSet<Ifindex> {
        BTreeSet::from([BOND])
    }

    #[test]
    fn only_what_lies_on_a_bond_is_kept_at_any_height() {
        let mut upper_devices = UpperDevices::default();
        let all = BTreeMap::from([
            (Ifindex(5), upper(3, true)),
            (Ifindex(6), upper(5, false)),
            (Ifindex(7), upper(2, true)),
            // What does not fit together ends as well.
            (Ifindex(8), upper(9, true)),
            (Ifindex(9), upper(8, true)),
        ]);
        upper_devices.replace(all, &bonds());
        assert_eq!(
            Vec::from_iter(upper_devices.uppers.keys().copied()),
            [Ifindex(5), Ifindex(6)]
        );
        assert_eq!(upper_devices.lowers(&bonds()), [BOND, Ifindex(5)].into());
    }

    #[test]
    fn each_change_is_said_once() {
        let mut upper_devices = UpperDevices::default();
        assert_eq!(upper_devices.news(&bonds()), [], "nothing is no news");
        upper_devices.put(Ifindex(5), Some(upper(3, true)), &bonds());
        let [(BOND, first)] = upper_devices.news(&bonds())[..] else {
            panic!("no news of a VLAN");
        };
        upper_devices.put(Ifindex(5), Some(upper(3, true)), &bonds());
        assert_eq!(upper_devices.news(&bonds()), []);
        upper_devices.put(Ifindex(6), Some(upper(5, false)), &bonds());
        let [(BOND, second)] = upper_devices.news(&bonds())[..] else {
            panic!("no news of a macvlan on a VLAN");
        };
        assert!(first != second && second != 0);
        upper_devices.put(Ifindex(6), None, &bonds());
        upper_devices.put(Ifindex(5), None, &bonds());
        assert_eq!(upper_devices.news(&bonds()), [(BOND, 0)]);
        // Somebody else's.
        upper_devices.put(Ifindex(7), Some(upper(2, false)), &bonds());
        assert_eq!(upper_devices.news(&bonds()), []);
    }
}
