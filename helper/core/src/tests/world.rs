use alloc::vec::Vec;

use super::*;
use crate::model::removal::{Removal, RemovalStage};
use crate::model::types::Time;
use crate::world::World;

fn removal(stage: RemovalStage, at: Time) -> Removal {
    let function = u8::from(stage <= RemovalStage::ButtonCancelled);
    let pci = pci(VF, function);
    Removal { stage, pci, at }
}

fn world_with_vf(at: Time) -> World {
    let mut world = World::default();
    world.replace_links(Time(0), Vec::new());
    world.put_link(at, nic(VF, "enp2s0", VF_MAC));
    world
}

#[test]
fn a_warning_finds_its_device_by_slot_or_function() {
    for stage in [RemovalStage::ButtonPressed, RemovalStage::EjectRequested] {
        let mut world = world_with_vf(Time(10));
        world.warn(Time(20), removal(stage, Time(20)));
        assert_eq!(world.warning(VF).map(|warning| warning.first), Some(stage));
        let mut other = removal(stage, Time(30));
        other.pci.bus = 99;
        let mut world = world_with_vf(Time(10));
        world.warn(Time(30), other);
        assert_eq!(world.warning(VF), None);
    }
}

#[test]
fn a_warning_older_than_the_device_was_for_its_predecessor() {
    let mut world = world_with_vf(Time(10));
    world.warn(Time(20), removal(RemovalStage::RemovalStarted, Time(9)));
    assert_eq!(world.warning(VF), None);
}

#[test]
fn only_the_button_can_be_cancelled() {
    let mut world = world_with_vf(Time(10));
    world.warn(Time(20), removal(RemovalStage::ButtonPressed, Time(20)));
    world.warn(Time(21), removal(RemovalStage::ButtonCancelled, Time(21)));
    assert_eq!(world.warning(VF), None);
    world.warn(Time(22), removal(RemovalStage::EjectRequested, Time(22)));
    world.warn(Time(23), removal(RemovalStage::ButtonCancelled, Time(23)));
    assert!(world.warning(VF).is_some());
}

#[test]
fn later_stages_keep_the_first_and_a_dump_keeps_all() {
    let mut world = world_with_vf(Time(10));
    world.warn(Time(20), removal(RemovalStage::EjectRequested, Time(19)));
    world.warn(Time(30), removal(RemovalStage::DriverStopping, Time(29)));
    world.replace_links(Time(40), Vec::from([nic(VF, "renamed", VF_MAC)]));
    let warning = world.warning(VF).unwrap();
    assert_eq!(warning.first_at, Time(19));
    assert_eq!(warning.stopping_at, Some(Time(29)));
    assert_eq!(warning.last, RemovalStage::DriverStopping);
    world.remove_link(VF);
    world.put_link(Time(50), nic(VF, "enp2s0", VF_MAC));
    assert_eq!(world.warning(VF), None, "a new device is free of it");
}

#[test]
fn a_dump_replaces_and_links_are_bounded() {
    let mut world = world_with_vf(Time(10));
    world.replace_links(Time(20), Vec::new());
    assert!(world.link(VF).is_none());
    for index in 0..crate::world::picture::MAX_LINKS + 10 {
        let index = u32::try_from(index).unwrap();
        let mut link = nic(VF, "enp2s0", VF_MAC);
        link.ifindex = Ifindex(index);
        world.put_link(Time(30), link);
    }
    assert_eq!(world.links().count(), crate::world::picture::MAX_LINKS);
}

#[test]
fn while_a_rename_is_half_seen_the_newer_link_has_the_name() {
    let mut world = world_with_vf(Time(10));
    world.put_link(Time(11), nic(Ifindex(9), "enp2s0", STANDBY_MAC));
    let found = world.link_named(&name("enp2s0")).map(|link| link.ifindex);
    assert_eq!(found, Some(Ifindex(9)));
}
