//! What lies on NICs. A VLAN or macvlan would lose its frames if the NIC below it became a port, so the machine
//! hears of it with the NIC.
//!
//! A device in another network namespace is not seen here; the kernel tells of most when it is asked
//! (`ActionKind::CheckFree`).

use std::collections::{BTreeMap, BTreeSet};

use tandem_core::link::{Link, LinkKind, Occupant};
use tandem_core::types::Ifindex;

use crate::netlink::link::Described;

/// Devices that are remembered of one NIC; one is enough to leave it alone.
const MAX_PER_NIC: usize = 16;

/// A device that lies on another one, whatever that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resting {
    lower: Ifindex,
    occupant: Occupant,
}

impl Resting {
    pub(super) fn of(described: &Described) -> Option<Self> {
        Some(Self {
            lower: described.lower?,
            occupant: Occupant::Device {
                name: described.link.name.clone(),
                kind: described.info_kind.clone()?,
            },
        })
    }
}

/// What a change of one device means for the NIC below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that matters.
    None,
    /// The NIC has to be told of anew.
    Occupied(Ifindex),
    /// Nothing that is remembered lies on the NIC any more; a dump tells whether anything does.
    Cleared,
}

/// Devices that lie on NICs.
#[derive(Debug, Default)]
pub(super) struct Occupants(BTreeMap<Ifindex, BTreeMap<Ifindex, Occupant>>);

impl Occupants {
    /// Replaces everything by what a dump shows.
    pub(super) fn replace(&mut self, all: Vec<(Ifindex, Resting)>, nics: &BTreeSet<Ifindex>) {
        self.0.clear();
        for (device, resting) in all {
            self.insert(device, resting, nics);
        }
    }

    /// Learns of one device, which lies on something or does not.
    pub(super) fn put(
        &mut self,
        device: Ifindex,
        resting: Option<Resting>,
        nics: &BTreeSet<Ifindex>,
    ) -> Change {
        let before = self.lower_of(device);
        let lower = resting.as_ref().map(|resting| resting.lower);
        if let Some(nic) = before.filter(|nic| lower != Some(*nic)) {
            let told = self.of(nic).cloned();
            let left = self.0.entry(nic).or_default();
            left.remove(&device);
            if left.is_empty() {
                self.0.remove(&nic);
                return Change::Cleared;
            }
            if resting.is_none() && told.as_ref() != self.of(nic) {
                return Change::Occupied(nic);
            }
        }
        let Some(resting) = resting else {
            return Change::None;
        };
        let nic = resting.lower;
        let told = self.of(nic).cloned();
        self.insert(device, resting, nics);
        if told.as_ref() == self.of(nic) {
            Change::None
        } else {
            Change::Occupied(nic)
        }
    }

    /// Completes what is told of a NIC. A device counts before an XDP program.
    pub(super) fn complete(&self, link: &mut Link) {
        if link.kind == LinkKind::Physical
            && let Some(occupant) = self.of(link.ifindex)
        {
            link.occupant = Some(occupant.clone());
        }
    }

    fn of(&self, nic: Ifindex) -> Option<&Occupant> {
        self.0.get(&nic)?.values().next()
    }

    fn lower_of(&self, device: Ifindex) -> Option<Ifindex> {
        let mut nics = self.0.iter();
        let (nic, _) = nics.find(|(_, devices)| devices.contains_key(&device))?;
        Some(*nic)
    }

    fn insert(&mut self, device: Ifindex, resting: Resting, nics: &BTreeSet<Ifindex>) {
        if !nics.contains(&resting.lower) {
            return;
        }
        let devices = self.0.entry(resting.lower).or_default();
        if devices.len() < MAX_PER_NIC || devices.contains_key(&device) {
            devices.insert(device, resting.occupant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: Ifindex = Ifindex(2);

    fn resting(lower: Ifindex, name: &str) -> Resting {
        Resting {
            lower,
            occupant: Occupant::Device {
                name: name.parse().unwrap(),
                kind: "vlan".to_owned(),
            },
        }
    }

    fn nics() -> BTreeSet<Ifindex> {
        BTreeSet::from([NIC, Ifindex(3)])
    }

    #[test]
    fn a_nic_is_told_of_when_something_comes_to_lie_on_it_and_looked_at_when_the_last_is_gone() {
        let mut occupants = Occupants::default();
        let mut put =
            |device: u32, on: Option<Resting>| occupants.put(Ifindex(device), on, &nics());
        assert_eq!(put(7, Some(resting(NIC, "v1"))), Change::Occupied(NIC));
        assert_eq!(put(7, Some(resting(NIC, "v1"))), Change::None);
        assert_eq!(put(8, Some(resting(NIC, "v2"))), Change::None);
        assert_eq!(
            put(7, Some(resting(NIC, "w"))),
            Change::Occupied(NIC),
            "renamed"
        );
        assert_eq!(put(9, None), Change::None);
        assert_eq!(put(10, Some(resting(NIC, "v4"))), Change::None);
        assert_eq!(put(10, None), Change::None, "another one was named");
        assert_eq!(put(7, None), Change::Occupied(NIC), "another one is there");
        assert_eq!(put(8, None), Change::Cleared);
        // On a bond it is nobody's concern.
        assert_eq!(put(9, Some(resting(Ifindex(5), "v3"))), Change::None);
    }

    #[test]
    fn a_dump_replaces_and_each_nic_has_bounds() {
        let mut occupants = Occupants::default();
        let many = (10..2_000).map(|index| (Ifindex(index), resting(NIC, "v")));
        occupants.replace(many.collect(), &nics());
        assert_eq!(occupants.0[&NIC].len(), MAX_PER_NIC);
        occupants.replace(vec![(Ifindex(7), resting(Ifindex(3), "v"))], &nics());
        assert_eq!(occupants.of(NIC), None);
        assert!(occupants.of(Ifindex(3)).is_some());
    }
}
