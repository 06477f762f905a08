//! The demo's story on real VFs: there, and back.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::guest::{EVACUATION_LIMIT, STEP_LIMIT};
use super::{Form, Hypervisor, VfioGuest};
use crate::Lab;
use crate::artifacts::host_tools::{self, HostTool};
use crate::command::progress;
use crate::demo::Story;
use crate::libvirt::{Running, phase_of};
use crate::net::GUEST_V4;
use crate::probe::{FrameOptions, StreamProbe};
use crate::timeline::{PhaseKind, Timeline};

/// How long nothing is done, before and after.
const STEADY: Duration = Duration::from_secs(5);
/// Time between two records of the TCP stream.
const RECORD_INTERVAL: Duration = Duration::from_millis(50);

/// Two hypervisors, and their guest on the first one, at work on its VF. With `lets_go` it has a device of no bond too.
///
/// # Errors
/// Something does not come up.
pub fn start(
    lab: &Lab,
    form: Form,
    lets_go: bool,
) -> Result<(Hypervisor, Hypervisor, VfioGuest<'_>)> {
    host_tools::ensure(&HostTool::LIBVIRT)?;
    progress("starting two emulated hypervisors with a PF each");
    let (a, b) = Hypervisor::pair(lab, &VfioGuest::image(lab)?)?;
    progress("booting their guest on a, with a VF by vfio-pci");
    let guest = VfioGuest::boot(lab, &a, Some(form), lets_go)?;
    guest.configure(&a)?;
    guest.await_accelerated()?;
    guest.check(&a, &b)?;
    Ok((a, b, guest))
}

/// Runs the story and tells it.
///
/// # Errors
/// A step fails or does not end in time.
pub fn run(lab: &Lab, form: Form, frames: FrameOptions) -> Result<Timeline> {
    let begun = Instant::now();
    let (a, b, guest) = start(lab, form, false)?;
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
    for (here, there, name) in [(&a, &b, "there"), (&b, &a, "back")] {
        evacuate(&guest, (here, there), &mut story, name)?;
    }
    story.end();
    let stream = stream.finish()?;
    guest.check(&a, &b)?;
    story.notes.push(format!(
        "VF {} of a left its vfio-pci, VF {} of b came, and back; {} s in all, with the hypervisors' boot",
        a.vf(),
        b.vf(),
        begun.elapsed().as_secs()
    ));
    story.tell(
        "a real VF leaves hypervisor a, the VM moves to b, a real VF of b comes; and back"
            .to_owned(),
        stream.broken().map(str::to_owned),
        stream.longest_stall_ms(),
    )
}

fn evacuate(
    guest: &VfioGuest<'_>,
    (here, there): (&Hypervisor, &Hypervisor),
    story: &mut Story,
    name: &str,
) -> Result<()> {
    let arguments = guest.migrate_arguments(here, there)?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    guest.pause();
    let begun = Instant::now();
    let (running, lines) = Running::start_told(&words)?;
    while let Ok(line) = lines.recv_timeout(EVACUATION_LIMIT) {
        let Some(phase) = phase_of(&line) else {
            continue;
        };
        let phase = format!("{name}: {phase}");
        if story.current() != Some(&phase) {
            let kind = match phase_of(&line) {
                Some("migrate") => PhaseKind::Migration,
                _ => PhaseKind::Switchover,
            };
            story.begin(&phase, kind);
        }
    }
    let ran = running.wait(EVACUATION_LIMIT)?;
    let took = begun.elapsed().as_secs();
    story.begin(&format!("{name}: steady"), PhaseKind::Steady);
    guest.follow(&[there, here])?;
    ensure!(
        ran.code == Some(0),
        "tandem-host migrate: {ran:?}\n{}\n{}",
        guest.log_tail(),
        there.log_tail()
    );
    std::thread::sleep(STEADY);
    story.see(&guest.report()?)?;
    guest.check(there, here)?;
    let report = ran.json()?;
    let downtime = &report["downtime-ms"];
    story.notes.push(format!(
        "{name}: {took} s, the migration's downtime {downtime} ms by libvirt's count"
    ));
    Ok(())
}
