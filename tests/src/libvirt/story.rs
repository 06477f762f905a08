//! The demo's story over libvirt: `tandem-host migrate` does it, from the domain's XML alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::tool::{Running, phase_of};
use super::{DomainSpec, EVACUATION_LIMIT, LibvirtGuest, LibvirtHost};
use crate::Lab;
use crate::NicModel;
use crate::command::progress;
use crate::demo::Story;
use crate::net::GUEST_V4;
use crate::probe::{FrameOptions, StreamProbe};
use crate::tandem::STEP_LIMIT;
use crate::timeline::{PhaseKind, Timeline};
use tandem_core::status::BondState;

/// How long nothing is done, before and after.
const STEADY: Duration = Duration::from_secs(2);
/// Time between two records of the TCP stream.
const RECORD_INTERVAL: Duration = Duration::from_millis(10);

/// Runs the story and tells it.
///
/// # Errors
/// A step fails or does not end in time.
pub fn run(model: NicModel, frames: FrameOptions) -> Result<Timeline> {
    let lab = Lab::new("demo")?;
    progress("starting two libvirt hosts");
    let (a, b) = LibvirtHost::pair(&lab)?;
    let mut spec = DomainSpec::new("guest");
    spec.model = model;
    let other = *spec.other_vfs.first().context("no second VF")?;
    let title = format!(
        "VF {} on libvirt host a leaves, `tandem-host migrate` moves the domain to b, VF {other} arrives there (an {})",
        spec.vf,
        model.device()
    );
    progress("booting a domain without any configuration of its own on host a");
    let guest = LibvirtGuest::boot(&lab, &a, spec)?;
    guest.configure(&a)?;
    guest.await_state(BondState::Accelerated)?;

    let stream = StreamProbe::start(
        lab.client()?.agent(),
        (guest.agent(), GUEST_V4.into()),
        RECORD_INTERVAL,
        STEP_LIMIT,
    )?;
    let mut story = Story::new(guest.probe_frames(frames)?);
    story.see(&guest.report()?)?;
    story.begin("steady", PhaseKind::Steady);
    std::thread::sleep(STEADY);

    let arguments = guest.migrate_arguments(&a, &b, other)?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    guest.pause();
    let (running, lines) = Running::start_told(&words)?;
    while let Ok(line) = lines.recv_timeout(EVACUATION_LIMIT) {
        let Some(phase) = phase_of(&line) else {
            continue;
        };
        if story.current() != Some(phase) {
            let kind = match phase {
                "migrate" => PhaseKind::Migration,
                _ => PhaseKind::Switchover,
            };
            story.begin(phase, kind);
        }
    }
    let ran = running.wait(EVACUATION_LIMIT)?;
    story.begin("steady again", PhaseKind::Steady);
    guest.follow(&[&b, &a])?;
    ensure!(ran.code == Some(0), "tandem-host migrate: {ran:?}");
    std::thread::sleep(STEADY);
    story.end();
    story.see(&guest.report()?)?;

    let stream = stream.finish()?;
    guest.check(&b, &a, Some(other))?;
    story.note_switchovers(&guest.status()?);
    let report = ran.json()?;
    if let Some(downtime_ms) = report["downtime-ms"].as_u64() {
        story.notes.push(format!(
            "migration: downtime {downtime_ms} ms by libvirt's count"
        ));
    }
    story.tell(
        title,
        stream.broken().map(str::to_owned),
        stream.longest_stall_ms(),
    )
}
