//! Which NICs make a bond, from what is seen of them. Looks at nothing by itself.

use std::collections::BTreeSet;

use tandem_core::policy::{AddressingPolicy, BondPolicy, Ownership, Policy, PortMatch};
use tandem_core::{IfName, Mac, PciAddress};

/// Names of bonds that are proposed begin so.
const BOND: &str = "bond";

/// What is seen of a guest.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// NICs that could be a standby or a VF.
    pub nics: Vec<Nic>,
    /// Names of all interfaces.
    pub names: BTreeSet<IfName>,
    /// Bonds that Tandem's configuration, or the host, defines.
    pub configured: BTreeSet<IfName>,
    /// Network devices that no driver has, in words.
    pub without_driver: Vec<String>,
}

/// A NIC that could be one of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its present name.
    pub name: IfName,
    /// What it could be.
    pub part: Part,
    /// Its permanent MAC.
    pub mac: Option<Mac>,
    /// Its driver made the MAC up, and makes up another one next time.
    pub is_mac_random: bool,
    /// Its PCI address.
    pub pci: Option<PciAddress>,
    /// Its driver.
    pub driver: String,
    /// What it belongs to already.
    pub taken: Option<Taken>,
}

/// What a NIC could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A paravirtual NIC.
    Standby,
    /// Any other NIC on the PCI bus.
    Vf,
}

/// What has a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// A bond in mode active-backup.
    Bond(IfName),
    /// A bridge or another device, or something that lies on the NIC; in words.
    Other(String),
}

/// What the command line says of the NICs.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// The standby.
    pub standby: Option<IfName>,
    /// Its VFs.
    pub vfs: Vec<IfName>,
}

/// A bond that could be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The bond's name.
    pub bond: IfName,
    /// The bond is there, and another manager made it.
    pub is_anothers: bool,
    /// Its standby.
    pub standby: Nic,
    /// Its VFs.
    pub vfs: Vec<Nic>,
    /// Why these.
    pub why: &'static str,
}

/// What is proposed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Bonds that could be made.
    pub pairs: Vec<Pair>,
    /// What keeps others from being made, and what to do about it.
    pub advice: Vec<String>,
}

const SAME_MAC: &str = "they have the same MAC";
const ONLY_ONES: &str =
    "there are no others that could be a pair; make sure that both are in the same network segment";
const CHOSEN: &str = "as you say";

/// Finds the NICs that belong together.
pub fn propose(seen: &Seen, chosen: &Chosen) -> Proposal {
    let mut proposal = Proposal::default();
    let found = match &chosen.standby {
        Some(standby) => match pick(seen, standby, &chosen.vfs) {
            Ok(found) => vec![found],
            Err(why) => {
                proposal.advice.push(why);
                Vec::new()
            }
        },
        None => find(seen, &mut proposal.advice),
    };
    let mut names: BTreeSet<_> = seen.names.union(&seen.configured).cloned().collect();
    for (standby, vfs, why) in found {
        let nics = || std::iter::once(standby).chain(vfs.iter().copied());
        let taken = nics().find_map(|nic| match &nic.taken {
            Some(Taken::Other(what)) => Some((nic, what)),
            _ => None,
        });
        if let Some((nic, what)) = taken {
            proposal.advice.push(format!(
                "{} would be left alone: {what}; put that onto the bond in its place",
                nic.name
            ));
            continue;
        }
        let bonds: BTreeSet<_> = nics()
            .filter_map(|nic| match &nic.taken {
                Some(Taken::Bond(bond)) => Some(bond),
                _ => None,
            })
            .collect();
        let (bond, is_anothers) = match bonds.first() {
            Some(&bond) if bonds.len() == 1 => (bond.clone(), !seen.configured.contains(bond)),
            Some(_) => {
                let advice = format!("{} and its VF are in different bonds", standby.name);
                proposal.advice.push(advice);
                continue;
            }
            None => match free_name(&names) {
                Some(bond) => (bond, false),
                None => continue,
            },
        };
        names.insert(bond.clone());
        proposal.pairs.push(Pair {
            bond,
            is_anothers,
            standby: standby.clone(),
            vfs: vfs.into_iter().cloned().collect(),
            why,
        });
    }
    proposal.advice.extend(seen.without_driver.iter().cloned());
    proposal
}

type Found<'a> = (&'a Nic, Vec<&'a Nic>, &'static str);

fn pick<'a>(seen: &'a Seen, standby: &IfName, vfs: &[IfName]) -> Result<Found<'a>, String> {
    let nic = |name: &IfName| {
        let found = seen.nics.iter().find(|nic| nic.name == *name);
        found.ok_or_else(|| format!("there is no NIC {name} that could be one of a pair"))
    };
    let vfs: Vec<_> = vfs.iter().map(nic).collect::<Result<_, _>>()?;
    Ok((nic(standby)?, vfs, CHOSEN))
}

/// Those with the same MAC; of the others those of which there is no choice.
fn find<'a>(seen: &'a Seen, advice: &mut Vec<String>) -> Vec<Found<'a>> {
    let of = |part| seen.nics.iter().filter(move |nic| nic.part == part);
    let same = |one: &Nic, other: &Nic| one.mac.is_some() && one.mac == other.mac;
    let mut found: Vec<Found<'a>> = Vec::new();
    for standby in of(Part::Standby) {
        let vfs: Vec<_> = of(Part::Vf).filter(|vf| same(standby, vf)).collect();
        if !vfs.is_empty()
            && !of(Part::Standby).any(|it| it.name != standby.name && same(it, standby))
        {
            found.push((standby, vfs, SAME_MAC));
        }
    }
    let is_left = |nic: &&Nic| {
        let mut nics = found
            .iter()
            .flat_map(|(standby, vfs, _)| vfs.iter().chain([standby]));
        !nics.any(|used| used.name == nic.name)
    };
    let standbys: Vec<_> = of(Part::Standby).filter(is_left).collect();
    let vfs: Vec<_> = of(Part::Vf).filter(is_left).collect();
    match (&standbys[..], &vfs[..]) {
        ([standby], [vf]) => found.push((standby, vec![vf], ONLY_ONES)),
        ([], []) if !found.is_empty() => {}
        (_, []) if found.is_empty() => advice.push(
            "there is no VF: pass one through, and run this again".to_owned(),
        ),
        ([], _) if found.is_empty() => advice.push(
            "there is no virtio NIC to be the standby: give the VM one in the VF's network segment"
                .to_owned(),
        ),
        ([], _) | (_, []) => {}
        _ => advice.push(format!(
            "which of {} belongs to which of {} can't be told: say so, as in `tandem setup --standby {} --vf {}`",
            names(&standbys),
            names(&vfs),
            standbys[0].name,
            vfs[0].name
        )),
    }
    found
}

fn names(nics: &[&Nic]) -> String {
    let names: Vec<_> = nics.iter().map(|nic| nic.name.to_string()).collect();
    names.join(", ")
}

fn free_name(taken: &BTreeSet<IfName>) -> Option<IfName> {
    let mut names = (0..=Policy::MAX_BONDS).filter_map(|n| format!("{BOND}{n}").parse().ok());
    names.find(|name| !taken.contains(name))
}

impl Pair {
    /// The bond as the file describes it.
    pub fn policy(&self) -> BondPolicy {
        let has_twin = |nic: &Nic| {
            let all = std::iter::once(&self.standby).chain(&self.vfs);
            all.filter(|other| other.mac == nic.mac).count() > 1
        };
        let described = |nic: &Nic| {
            let by_mac = nic.mac.is_some() && !nic.is_mac_random;
            PortMatch {
                mac: nic.mac.filter(|_| by_mac),
                pci: nic.pci.filter(|_| !by_mac),
                driver: (!by_mac || has_twin(nic)).then(|| nic.driver.clone()),
            }
        };
        let vfs = self.vfs.iter().map(described).collect();
        BondPolicy {
            // Who made it goes on making it.
            ownership: match self.is_anothers {
                true => Ownership::Adopt,
                false => Ownership::Create,
            },
            addressing: match self.is_anothers {
                true => AddressingPolicy::None,
                false => AddressingPolicy::Auto,
            },
            ..BondPolicy::new(self.bond.clone(), described(&self.standby), vfs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn nic(text: &str, part: Part, last: u8) -> Nic {
        Nic {
            name: name(text),
            part,
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, last])),
            is_mac_random: false,
            pci: Some(format!("0000:{last:02x}:00.0").parse().unwrap()),
            driver: match part {
                Part::Standby => "virtio_net".to_owned(),
                Part::Vf => "iavf".to_owned(),
            },
            taken: None,
        }
    }

    fn seen(nics: &[Nic]) -> Seen {
        Seen {
            nics: nics.to_vec(),
            names: nics.iter().map(|nic| nic.name.clone()).collect(),
            configured: BTreeSet::new(),
            without_driver: Vec::new(),
        }
    }

    /// Bond, standby and VFs of each pair, and how much advice there is.
    fn shown(seen: &Seen) -> (Vec<String>, usize) {
        let proposal = propose(seen, &Chosen::default());
        let pairs = proposal.pairs.iter().map(|pair| {
            let vfs: Vec<_> = pair.vfs.iter().map(|vf| vf.name.to_string()).collect();
            format!("{}: {} {}", pair.bond, pair.standby.name, vfs.join(" "))
        });
        (pairs.collect(), proposal.advice.len())
    }

    #[test]
    fn where_there_is_no_choice_the_two_are_a_pair() {
        let (eth0, eth1) = (nic("eth0", Part::Standby, 1), nic("eth1", Part::Vf, 2));
        let both = seen(&[eth0.clone(), eth1.clone()]);
        assert_eq!(shown(&both), (vec!["bond0: eth0 eth1".to_owned()], 0));
        let policy = propose(&both, &Chosen::default()).pairs[0].policy();
        assert_eq!(policy.standby.mac, eth0.mac);
        assert!(policy.standby.driver.is_none() && policy.vfs[0].pci.is_none());
        let mut taken = both;
        taken.names.insert(name("bond0"));
        assert_eq!(shown(&taken), (vec!["bond1: eth0 eth1".to_owned()], 0));
        assert_eq!(shown(&seen(&[eth0])), (vec![], 1));
        assert_eq!(shown(&seen(&[eth1])), (vec![], 1));
        assert_eq!(shown(&Seen::default()), (vec![], 1));
    }

    #[test]
    fn same_macs_are_pairs_and_told_apart_by_their_drivers() {
        let pairs = seen(&[
            nic("eth0", Part::Standby, 1),
            nic("eth1", Part::Standby, 2),
            nic("eth2", Part::Vf, 2),
            nic("eth3", Part::Vf, 1),
        ]);
        let expected = ["bond0: eth0 eth3", "bond1: eth1 eth2"].map(str::to_owned);
        assert_eq!(shown(&pairs), (expected.to_vec(), 0));
        let policy = propose(&pairs, &Chosen::default()).pairs[0].policy();
        assert_eq!(policy.standby.driver.as_deref(), Some("virtio_net"));
        assert_eq!(policy.vfs[0].driver.as_deref(), Some("iavf"));
        assert_eq!(policy.standby.mac, policy.vfs[0].mac);
        // Of what is left there is no choice.
        let mut more = pairs;
        more.nics
            .extend([nic("eth4", Part::Standby, 4), nic("eth5", Part::Vf, 5)]);
        assert_eq!(shown(&more).0[2], "bond2: eth4 eth5");
    }

    #[test]
    fn what_is_ambiguous_is_not_guessed() {
        let three = seen(&[
            nic("eth0", Part::Standby, 1),
            nic("eth1", Part::Standby, 2),
            nic("eth2", Part::Vf, 3),
        ]);
        assert_eq!(shown(&three), (vec![], 1));
        let chosen = Chosen {
            standby: Some(name("eth1")),
            vfs: vec![name("eth2")],
        };
        let proposal = propose(&three, &chosen);
        assert_eq!(proposal.pairs[0].standby.name, name("eth1"));
        let unknown = Chosen {
            standby: Some(name("eth1")),
            vfs: vec![name("eth9")],
        };
        let proposal = propose(&three, &unknown);
        assert!(proposal.pairs.is_empty() && proposal.advice[0].contains("eth9"));
    }

    #[test]
    fn a_nic_that_something_has_is_not_proposed() {
        let mut standby = nic("eth0", Part::Standby, 1);
        standby.taken = Some(Taken::Other("it is a port of br0".to_owned()));
        let nics = [standby.clone(), nic("eth1", Part::Vf, 2)];
        let proposal = propose(&seen(&nics), &Chosen::default());
        assert!(proposal.pairs.is_empty() && proposal.advice[0].contains("br0"));
        // A bond that is there is adopted.
        standby.taken = Some(Taken::Bond(name("lan")));
        let nics = [standby.clone(), nic("eth1", Part::Vf, 2)];
        assert_eq!(shown(&seen(&nics)).0, ["lan: eth0 eth1"]);
        let mut both = seen(&nics);
        let ownership = |seen: &Seen| {
            propose(seen, &Chosen::default()).pairs[0]
                .policy()
                .ownership
        };
        assert_eq!(ownership(&both), Ownership::Adopt);
        both.configured.insert(name("lan"));
        assert_eq!(ownership(&both), Ownership::Create);
        let mut vf = nic("eth1", Part::Vf, 2);
        vf.taken = Some(Taken::Bond(name("other")));
        assert_eq!(shown(&seen(&[standby, vf])), (vec![], 1));
    }

    #[test]
    fn a_made_up_mac_describes_nothing_and_a_lack_of_drivers_is_told() {
        let mut vf = nic("eth1", Part::Vf, 2);
        vf.is_mac_random = true;
        let mut both = seen(&[nic("eth0", Part::Standby, 1), vf.clone()]);
        both.without_driver
            .push("0000:07:00.0 has no driver".to_owned());
        let proposal = propose(&both, &Chosen::default());
        let described = &proposal.pairs[0].policy().vfs[0];
        assert_eq!((described.mac, described.pci), (None, vf.pci));
        assert_eq!(described.driver.as_deref(), Some("iavf"));
        assert_eq!(proposal.advice, both.without_driver);
    }
}
