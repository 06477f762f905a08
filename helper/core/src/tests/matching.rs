use alloc::vec::Vec;

use super::*;
use crate::matching::{Assignment, Role, assign, identity_mac};
use crate::policy::PortMatch;
use crate::types::Time;
use crate::world::World;

fn roles(policy: &Policy, links: Vec<Link>) -> Vec<(Ifindex, usize, Role)> {
    let mut world = World::default();
    world.replace_links(Time(0), links);
    let all = assign(&world, policy);
    let parts = |one: Assignment| (one.ifindex, one.bond, one.role);
    all.into_iter().map(parts).collect()
}

#[test]
fn the_permanent_mac_identifies_a_nic_whatever_it_shows_now() {
    let enslaved = port(nic(VF, "enp2s0", VF_MAC), true);
    assert_eq!(enslaved.mac, Some(STANDBY_MAC));
    assert_eq!(identity_mac(&enslaved), Some(VF_MAC));
    let found = roles(&policy(), Vec::from([enslaved]));
    assert_eq!(found, [(VF, 0, Role::Vf(0))]);
}

#[test]
fn a_nic_without_permanent_mac_goes_by_what_it_had_before_the_bond() {
    let mut enslaved = port(nic(VF, "enp2s0", VF_MAC), true);
    enslaved.permanent_mac = None;
    assert_eq!(identity_mac(&enslaved), Some(VF_MAC));
    enslaved.port = None;
    assert_eq!(identity_mac(&enslaved), Some(STANDBY_MAC));
    enslaved.mac = Some(Mac::ZERO);
    assert_eq!(identity_mac(&enslaved), None);
}

#[test]
fn upper_devices_with_the_same_mac_are_never_matched() {
    let mut vlan = nic(Ifindex(9), "vlan5", VF_MAC);
    vlan.kind = LinkKind::Software;
    let mut other_bond = bond(None);
    other_bond.permanent_mac = Some(VF_MAC);
    assert!(roles(&policy(), Vec::from([vlan, other_bond])).is_empty());
}

#[test]
fn one_mac_for_both_is_told_apart_by_the_more_exact_entry() {
    let mut policy = policy();
    policy.bonds[0].standby = PortMatch {
        driver: Some("virtio_net".into()),
        ..by_mac(STANDBY_MAC)
    };
    policy.bonds[0].vfs = Vec::from([by_mac(STANDBY_MAC)]);
    assert_eq!(policy.validate(), Ok(()));
    let mut standby = nic(STANDBY, "eth0", STANDBY_MAC);
    standby.driver = Some("virtio_net".into());
    let vf = nic(VF, "enp2s0", STANDBY_MAC);
    let found = roles(&policy, Vec::from([standby, vf]));
    assert_eq!(found, [(STANDBY, 0, Role::Standby), (VF, 0, Role::Vf(0))]);
}

#[test]
fn a_nic_serves_one_bond_only() {
    let mut policy = policy();
    let mut second = bond_policy();
    second.name = name("bond1");
    second.standby = by_mac(Mac([0x52, 0x54, 0, 0, 0, 7]));
    second.vfs = Vec::from([PortMatch {
        driver: Some("igbvf".into()),
        ..PortMatch::default()
    }]);
    policy.bonds.push(second);
    let mut vf = nic(VF, "enp2s0", VF_MAC);
    vf.driver = Some("igbvf".into());
    let found = roles(&policy, Vec::from([vf]));
    assert_eq!(found, [(VF, 0, Role::Vf(0))], "the first of equals");
}

#[test]
fn every_field_given_has_to_fit() {
    let mut policy = policy();
    policy.bonds[0].vfs[0].pci = Some(pci(Ifindex(8), 0));
    let vf = nic(VF, "enp2s0", VF_MAC);
    assert!(roles(&policy, Vec::from([vf.clone()])).is_empty());
    policy.bonds[0].vfs[0].pci = vf.pci;
    assert_eq!(roles(&policy, Vec::from([vf])).len(), 1);
}
