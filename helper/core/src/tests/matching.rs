use alloc::vec::Vec;

use super::*;
use crate::machine::Machine;
use crate::model::input::Input;
use crate::model::policy::PortMatch;
use crate::model::types::Time;
use crate::world::World;
use crate::world::identity::Identity;
use crate::world::matching::{Assignment, Role, assign};

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
    let found = roles(&policy(), Vec::from([enslaved]));
    assert_eq!(found, [(VF, 0, Role::Vf(0))]);
}

#[test]
fn a_nic_without_permanent_mac_goes_by_what_it_had_before_the_bond() {
    let mut enslaved = port(nic(VF, "enp2s0", VF_MAC), true);
    enslaved.permanent_mac = None;
    let before_bond = Identity::of(&enslaved).mac();
    assert_eq!(before_bond, Some(VF_MAC));
    enslaved.port = None;
    assert_eq!(Identity::of(&enslaved).mac(), Some(STANDBY_MAC));
    enslaved.mac = Some(Mac::ZERO);
    assert_eq!(Identity::of(&enslaved).mac(), None);
}

/// What a driver makes of a VF that is reset in the bond.
fn rewritten() -> Link {
    let mut vf = port(nic(VF, "enp2s0", VF_MAC), true);
    vf.permanent_mac = vf.mac;
    vf
}

/// And of one that is released then.
fn released() -> Link {
    Link {
        permanent_mac: Some(STANDBY_MAC),
        ..nic(VF, "enp2s0", VF_MAC)
    }
}

#[test]
fn a_vf_whose_driver_rewrote_its_permanent_mac_is_recognised_at_first_sight() {
    let standby = port(nic(STANDBY, "eth0", STANDBY_MAC), false);
    for vf in [rewritten(), released()] {
        let found = roles(&policy(), Vec::from([standby.clone(), vf]));
        assert_eq!(found, [(STANDBY, 0, Role::Standby), (VF, 0, Role::Vf(0))]);
    }
}

#[test]
fn a_nic_stays_what_it_was_before_a_bond_took_it() {
    // The bond has a MAC that no entry lists, so that nothing of a released VF but its past tells what it is.
    let foreign = Some(Mac([0x52, 0x54, 0, 0, 0, 9]));
    let mut world = World::default();
    world.replace_links(Time(0), Vec::from([nic(VF, "enp2s0", VF_MAC)]));
    world.put_link(Time(1), port(nic(VF, "enp2s0", VF_MAC), true));
    let vf = Link {
        permanent_mac: foreign,
        mac: foreign,
        ..nic(VF, "enp2s0", VF_MAC)
    };
    world.put_link(Time(1), vf.clone());
    let known = assign(&world, &policy());
    assert_eq!((known.len(), known[0].mac), (1, Some(VF_MAC)));
    world.replace_links(Time(2), Vec::from([vf.clone()]));
    assert_eq!(assign(&world, &policy()).len(), 1);
    // Another device that gets its index is itself.
    let other = Link {
        pci: Some(pci(Ifindex(8), 0)),
        ..vf.clone()
    };
    world.put_link(Time(3), other);
    assert!(assign(&world, &policy()).is_empty());
    world.remove_link(VF);
    world.put_link(Time(4), vf);
    assert!(assign(&world, &policy()).is_empty());
}

#[test]
fn until_then_it_is_what_it_is_now() {
    let mut world = World::default();
    let other = Mac([0x52, 0x54, 0, 0, 0, 9]);
    world.replace_links(Time(0), Vec::from([nic(VF, "enp2s0", other)]));
    assert!(assign(&world, &policy()).is_empty());
    world.put_link(Time(1), nic(VF, "enp2s0", VF_MAC));
    assert_eq!(assign(&world, &policy()).len(), 1);
    world.replace_links(Time(2), Vec::from([nic(VF, "enp2s0", other)]));
    assert!(assign(&world, &policy()).is_empty());
}

#[test]
fn a_present_mac_alone_makes_no_vf() {
    let mut stranger = nic(VF, "enp2s0", Mac([0x52, 0x54, 0, 0, 0, 9]));
    stranger.mac = Some(VF_MAC);
    assert!(roles(&policy(), Vec::from([stranger.clone()])).is_empty());
    // Nor one that another port had before it joined, if its permanent MAC is still its own.
    let stranger = port(stranger, false);
    let before_bond = |link: Link, mac| Link {
        port: link.port.clone().map(|port| PortFacts {
            permanent_mac: Some(mac),
            ..port
        }),
        ..link
    };
    assert!(roles(&policy(), Vec::from([before_bond(stranger, VF_MAC)])).is_empty());
    // A standby with another MAC before the bond is still the standby.
    let standby = port(nic(STANDBY, "eth0", STANDBY_MAC), false);
    let cloned = before_bond(standby, Mac([0x52, 0x54, 0, 0, 0, 9]));
    assert_eq!(
        roles(&policy(), Vec::from([cloned])),
        [(STANDBY, 0, Role::Standby)]
    );
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

/// The MAC that its driver gave it is then another VF's own.
#[test]
fn of_two_vfs_one_of_which_has_the_standbys_mac_each_is_what_it_was() {
    let mut policy = policy();
    policy.bonds[0].standby.driver = Some("virtio_net".into());
    policy.bonds[0].vfs = Vec::from([by_mac(VF_MAC), by_mac(STANDBY_MAC)]);
    assert_eq!(policy.validate(), Ok(()));
    let second = Ifindex(VF.0 + 10);
    let same = port(nic(second, "enp3s0", STANDBY_MAC), false);
    for vf in [rewritten(), released()] {
        let found = roles(&policy, Vec::from([vf, same.clone()]));
        assert_eq!(found, [(VF, 0, Role::Vf(0)), (second, 0, Role::Vf(1))]);
    }
}

/// Else a restart would take what the driver made of it for its own.
#[test]
fn one_that_was_seen_rewritten_first_is_not_rewritten_when_it_has_its_own_mac_again() {
    let mut world = World::default();
    world.replace_links(Time(0), Vec::from([rewritten()]));
    world.put_link(Time(1), nic(VF, "enp2s0", VF_MAC));
    assert_eq!(world.rewritten().count(), 0);
    // One that was seen before is.
    let mut world = World::default();
    world.replace_links(Time(0), Vec::from([nic(VF, "enp2s0", VF_MAC)]));
    world.put_link(Time(1), rewritten());
    let known: Vec<_> = world.rewritten().map(|known| known.mac).collect();
    assert_eq!(known, [VF_MAC]);
}

/// Zeros are no permanent MAC that somebody rewrote: what it is goes by its present one until a bond takes it.
#[test]
fn a_vf_without_a_permanent_mac_is_not_held_for_rewritten() {
    let mut vf = nic(VF, "eth0", VF_MAC);
    vf.permanent_mac = Some(Mac::ZERO);
    let mut bare = vf.clone();
    (bare.mac, bare.permanent_mac) = (None, None);
    let mut machine = Machine::new(Time(1));
    machine.handle(Time(1), Input::Policy(policy()));
    machine.handle(Time(1), Input::Addressings(Vec::new()));
    machine.handle(Time(1), Input::Links(Vec::from([vf])));
    let shown = |machine: &Machine| machine.status().bonds[0].vf.clone().map(|vf| vf.ifindex);
    assert_eq!(shown(&machine), Some(VF));
    assert_eq!(machine.holds(), []);
    machine.handle(Time(1), Input::Link(bare.clone()));
    assert_eq!(shown(&machine), None);
    while machine.next_output().is_some() {}
    let status = machine.status().clone();
    machine.handle(Time(1), Input::Link(bare));
    assert_eq!(machine.next_output(), None);
    assert_eq!(machine.status(), &status);
}

/// As it would be after a restart: the policy then makes no other VF of it.
#[test]
fn what_a_vf_was_recognised_as_stays_when_the_policy_leaves_it_out() {
    let mut policy = policy();
    policy.bonds[0].standby.driver = Some("virtio_net".into());
    policy.bonds[0].vfs = Vec::from([by_mac(VF_MAC), by_mac(STANDBY_MAC)]);
    for vf in [rewritten(), released()] {
        let mut machine = Machine::new(Time(1));
        let mut left_out = policy.clone();
        left_out.bonds[0].vfs.remove(0);
        machine.handle(Time(1), Input::Policy(policy.clone()));
        machine.handle(Time(1), Input::Links(Vec::from([vf, bond(Some(VF))])));
        let shown = |machine: &Machine| {
            let vf = machine.status().bonds[0].vf.as_ref();
            vf.map(|vf| vf.ifindex)
        };
        assert_eq!(shown(&machine), Some(VF));
        machine.handle(Time(2), Input::Policy(left_out));
        assert_eq!(shown(&machine), None);
        machine.handle(Time(3), Input::Policy(policy.clone()));
        assert_eq!(shown(&machine), Some(VF));
    }
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
