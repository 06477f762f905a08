//! Evacuations with a real vfio-pci, a real PF and igbvf, between two emulated hypervisors: about five minutes each.

use anyhow::{Result, ensure};
use tandem_lab::probe::FrameOptions;
use tandem_lab::timeline::text::{self, Colour};
use tandem_lab::{Lab, vfio};

#[test]
fn an_untrusted_interface_with_the_standbys_mac_moves_there_and_back() {
    there_and_back(vfio::Form::SameMac).unwrap();
}

#[test]
fn a_trusted_interface_with_its_own_mac_moves_there_and_back() {
    there_and_back(vfio::Form::OwnMac).unwrap();
}

#[test]
fn an_interface_of_a_bond_that_follows_moves_there_and_back() {
    there_and_back(vfio::Form::Follow).unwrap();
}

#[test]
fn a_plain_hostdev_moves_there_and_back() {
    there_and_back(vfio::Form::Hostdev).unwrap();
}

#[test]
fn a_vf_of_a_network_moves_there_and_back() {
    there_and_back(vfio::Form::Network).unwrap();
}

#[test]
fn a_migration_that_fails_is_rolled_back_and_a_device_is_let_go() {
    let Some(lab) = Lab::for_libvirt_test("vfio") else {
        return;
    };
    rolled_back(&lab, vfio::Form::Network, true).unwrap();
}

/// igbvf makes the bond's MAC its permanent one when it comes back, and the VF is still known by its own.
#[test]
fn a_vf_with_its_own_mac_is_used_again_after_a_rollback() {
    let Some(lab) = Lab::for_libvirt_test("vfio") else {
        return;
    };
    rolled_back(&lab, vfio::Form::OwnMac, false).unwrap();
}

/// Frames for a guest whose NIC vhost-net serves, a second.
const VHOST_RATE_HZ: u32 = 100;
/// Moves, there and back by turns.
const ROUNDS: usize = 10;

#[test]
fn a_carried_guest_of_vhost_loses_no_frame() {
    let Some(lab) = Lab::for_libvirt_test("vfio, vhost") else {
        return;
    };
    carried_beside_plain(&lab).unwrap_or_else(|error| panic!("{error:?}"));
}

/// The hypervisor's kernel takes frames from the tap in batches, by a thread of its own.
fn carried_beside_plain(lab: &Lab) -> Result<()> {
    let mut stage = vfio::VhostStage::new(lab)?;
    for round in 1..=ROUNDS {
        let moved = stage.migrate(true, VHOST_RATE_HZ)?;
        let told = &moved.report["carry"];
        let all = format!("{}\n{}\n{told}", moved.frames, moved.broadcasts);
        eprintln!("round {round}: {all}");
        ensure!(told["reason"].is_null(), "it was not carried");
        ensure!(told["carried"].as_u64() > Some(0), "nothing was carried");
        let directions = [&moved.frames, &moved.broadcasts].map(|frames| &frames.to_guest.total);
        for count in directions
            .into_iter()
            .chain([&moved.frames.to_client.total])
        {
            let wrong = [count.lost, count.duplicated, count.reordered];
            ensure!(wrong == [0; 3], "lost, twice, out of order: {wrong:?}");
        }
    }
    let plain = stage.migrate(false, VHOST_RATE_HZ)?;
    let lost = plain.frames.to_guest.total.lost;
    eprintln!("plain: lost {lost} of {}", plain.frames.to_guest.total.sent);
    ensure!(lost > 0, "the frames don't tell: {}", plain.frames);
    Ok(())
}

/// Its VF, and with `lets_go` a device of no bond, come back, or come on the other side, each time.
fn rolled_back(lab: &Lab, form: vfio::Form, lets_go: bool) -> Result<()> {
    let (a, b, guest) = vfio::start(lab, form, lets_go)?;
    let mut arguments = guest.migrate_arguments(&a, &b)?;
    for argument in &mut arguments {
        if *argument == b.migrate_uri() {
            *argument = b.taken_migrate_uri();
        }
    }
    let ran = guest.evacuate(&arguments, &[&a, &b])?;
    ensure!(
        ran.code == Some(11),
        "it should have been rolled back: {ran:?}"
    );
    guest.check(&a, &b)?;
    if form == vfio::Form::Network {
        // It came back from its network, which gives it to nobody else.
        let network = a.virsh(&["net-dumpxml", vfio::NETWORK])?;
        ensure!(network.contains("connections='1'"), "{network}");
    }
    let arguments = guest.migrate_arguments(&a, &b)?;
    let ran = guest.evacuate(&arguments, &[&a, &b])?;
    ensure!(ran.code == Some(0), "after a rollback: {ran:?}");
    let report = ran.json()?;
    let there = |at: usize| report["devices"][at]["attached"] == true;
    let all = (0..=usize::from(lets_go)).all(there);
    ensure!(all, "not all devices: {report:#}");
    guest.check(&b, &a)
}

/// The story checks after each move that the guest uses the VF of the hypervisor that it is on.
fn there_and_back(form: vfio::Form) -> Result<()> {
    let Some(lab) = Lab::for_libvirt_test("vfio") else {
        return Ok(());
    };
    let options = FrameOptions {
        rate_hz: vfio::RATE_HZ,
        ..FrameOptions::default()
    };
    let timeline = vfio::demo(&lab, form, options)?;
    println!("{}", text::render(&timeline, Colour::Off));
    ensure!(timeline.tcp_alive, "the connection broke");
    Ok(())
}
