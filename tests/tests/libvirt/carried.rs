//! A whole evacuation of a domain with a VF, its frames carried: libvirt tells where its taps are, takes the stop during the
//! migration, and resumes the domain by itself.

use anyhow::{Result, ensure};
use tandem_core::status::BondState;
use tandem_lab::libvirt::{DomainSpec, LibvirtGuest, LibvirtHost, host_program};
use tandem_lab::probe::FrameOptions;
use tandem_lab::{Lab, test_mac};

/// Frames a second in each direction.
const RATE_HZ: u32 = 1_000;

pub(crate) fn loses_nothing(lab: &Lab) -> Result<()> {
    let (a, b) = LibvirtHost::pair(lab)?;
    let guest = LibvirtGuest::boot(lab, &a, DomainSpec::new(super::DOMAIN))?;
    guest.configure(&a)?;
    guest.await_state(BondState::Accelerated)?;
    let options = FrameOptions {
        rate_hz: RATE_HZ,
        ..FrameOptions::default()
    };
    let program = host_program()?.display().to_string();
    let [from, to] = [&a, &b].map(|host| {
        let namespace = host.host().namespace().name();
        format!("ip netns exec {namespace} {program}")
    });
    let carry = ["--carry", "--carry-from", &from, "--carry-to", &to];
    let frames = guest.probe_frames(options)?;
    let ran = guest.migrate(&a, &b, test_mac(3), &carry)?;
    let frames = frames.finish()?;
    let report = ran.json()?;
    let told = &report["carry"];
    eprintln!("{told}\n{frames}");
    let all = format!("{frames}\n{ran:#?}");
    ensure!(ran.code == Some(0), "{all}");
    ensure!(told["reason"].is_null(), "it was not carried: {all}");
    ensure!(
        told["carried"].as_u64() > Some(0),
        "nothing was carried: {all}"
    );
    ensure!(
        told["no-sweep"].is_null(),
        "libvirt's tap can't be copied: {all}"
    );
    // A QEMU that stopped by itself before frames were held may have taken two in vain; the report says so.
    let unseen = told["maybe-lost"].as_u64().unwrap_or(u64::MAX);
    let most = if told["stop-was-ours"] == true { 0 } else { 2 };
    ensure!(unseen <= most, "one queue's QEMU takes two frames: {all}");
    // Order is for lab-carry to hold: here a VF leaves and comes besides, and two NICs deliver for a moment.
    let ways = [
        ("to the guest", &frames.to_guest.total, unseen),
        ("from it", &frames.to_client.total, 0),
    ];
    for (name, way, lost) in ways {
        eprintln!("{name}: {} out of order", way.reordered);
        ensure!(
            way.lost <= lost && way.duplicated == 0,
            "{name}, {} are lost, not {lost}, and {} came twice: {all}",
            way.lost,
            way.duplicated
        );
    }
    for host in [&a, &b] {
        let links = host.host().namespace().ip(&["-brief", "link"])?;
        ensure!(
            !links.contains("tdm"),
            "left on {}: {links}",
            host.host().name()
        );
    }
    // The copy of the source's tap kept it for a while.
    let taps = a
        .host()
        .namespace()
        .ip(&["-brief", "link", "show", "type", "tun"])?;
    ensure!(taps.trim().is_empty(), "the source has a tap left: {taps}");
    guest.check(&b, &a, Some(test_mac(3)))
}
