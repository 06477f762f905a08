//! The whole story in one run: a VF leaves, the VM moves to another host, another VF arrives, and what an
//! open connection and a stream of numbered frames saw of it.

mod story;
mod words;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::status::BondState;

use crate::carried::{CARRIED, CarriedMove};
use crate::command::progress;
use crate::libvirt::host_program;
use crate::net::GUEST_V4;
use crate::probe::{FrameOptions, ProbePair};
use crate::qemu::named_with_control;
use crate::tandem::{Channel, Guest, STEP_LIMIT, Setup, switchover};
use crate::timeline::{PhaseKind, Timeline};
use crate::{Host, Lab, Mac};

pub use story::MOST_LOST;
pub(crate) use story::Story;

/// The control socket of the first QEMU for `tandem-host`, in the lab's folder.
const CONTROL: &str = "0.qmp";
/// How long nothing is done, before and after.
const STEADY: Duration = Duration::from_secs(2);

/// Whether the host tells the guest of the unplug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostManners {
    /// It asks the guest to prepare, and waits until the guest is ready.
    Asks,
    /// It takes the VF without a word, as `virsh detach-device` does.
    Silent,
}

/// How the VM moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migration {
    /// By QEMU alone, which loses some frames.
    Plain,
    /// By `tandem-host migrate --carry`.
    Carried,
}

/// Runs the story and tells it. The guest of `setup` gets its first other VF on the second host.
///
/// # Errors
/// A step fails or does not end in time; the error holds the end of the service's log.
pub fn run(
    setup: &Setup,
    manners: HostManners,
    migration: Migration,
    frames: FrameOptions,
) -> Result<Timeline> {
    let lab = Lab::new("demo")?;
    let mut setup = setup.clone();
    if migration == Migration::Carried {
        setup.control = named_with_control(CARRIED, &lab.folder().join(CONTROL));
        // Nobody shall wait for it while the VM moves.
        host_program()?;
    }
    let setup = &setup;
    let (here, there) = (lab.host("a")?, lab.host("b")?);
    progress("booting a guest on host a");
    let mut guest = setup.boot(&lab, &here)?;
    let mut channel = guest.channel()?;
    guest.await_state(&mut channel, BondState::Accelerated)?;

    let ProbePair {
        frames: probe,
        stream,
        ..
    } = ProbePair::start(&lab, &guest.vm, GUEST_V4.into(), frames)?;
    let mut story = Story::new(probe);
    story.see(&channel.report(STEP_LIMIT)?)?;

    story.begin("steady", PhaseKind::Steady);
    channel.listen(STEADY)?;
    end(&mut story, &mut channel)?;

    if manners == HostManners::Asks {
        story.begin("prepare", PhaseKind::Switchover);
        let answer = channel.call("tandem-prepare-unplug", json!({}), STEP_LIMIT)?;
        ensure!(
            answer["ready"] == json!(true),
            "the guest is not ready for the unplug: {answer}"
        );
        end(&mut story, &mut channel)?;
    }

    if manners == HostManners::Silent {
        channel.await_status("an armed fast path", STEP_LIMIT, switchover::is_armed)?;
    }
    story.begin("unplug", PhaseKind::Switchover);
    guest.vm.unplug_vf()?;
    end(&mut story, &mut channel)?;
    note_removal(&mut story, &mut channel);
    channel.await_status(
        "the first switchover's gap",
        STEP_LIMIT,
        switchover::is_measured,
    )?;
    drop(channel);

    story.begin("migrate", PhaseKind::Migration);
    let note = match migration {
        Migration::Plain => {
            let migration = guest.vm.migrate_to(&there)?;
            format!(
                "migration: {} ms in all, QEMU's own downtime {} ms",
                migration.total_ms, migration.downtime_ms
            )
        }
        Migration::Carried => carry(&lab, &mut guest, &there, &mut story)?,
    };
    let mut channel = guest.channel()?;
    end(&mut story, &mut channel)?;
    story.notes.push(note);

    let other_vf = *setup
        .later_vfs
        .first()
        .context("the set-up names no second VF")?;
    story.begin("plug", PhaseKind::Switchover);
    guest.vm.plug_vf(setup.model, other_vf)?;
    await_vf(&guest, &mut channel)?;
    end(&mut story, &mut channel)?;

    story.begin("failback", PhaseKind::Switchover);
    guest.await_state(&mut channel, BondState::Accelerated)?;
    end(&mut story, &mut channel)?;

    story.begin("steady again", PhaseKind::Steady);
    channel.listen(STEADY)?;
    end(&mut story, &mut channel)?;

    let stream = stream.finish()?;
    guest.check()?;
    ensure_vf(&mut channel, other_vf)?;
    let status = channel.await_status(
        "the last switchover's gap",
        STEP_LIMIT,
        switchover::is_measured,
    )?;
    story.note_switchovers(&status);
    story.tell(
        title(setup, manners),
        stream.broken().map(str::to_owned),
        stream.longest_stall_ms(),
    )
}

/// Moves the VM with its frames carried; returns what there is to say of it.
fn carry(lab: &Lab, guest: &mut Guest, there: &Host, story: &mut Story) -> Result<String> {
    let from = lab.folder().join(CONTROL);
    let mut carried = CarriedMove::new(&guest.vm, &from, there, lab.folder(), 1)?;
    carried.carry(&guest.vm, there)?;
    let (_, told) = carried.run(&mut guest.vm)?;
    if let Some(reason) = told["reason"].as_str() {
        return Ok(format!("migration: frames were not carried: {reason}"));
    }
    let number = |name: &str| told[name].as_u64().context("the carry's report");
    story.carried(number("carried")?);
    Ok(format!(
        "migration: the guest stood still for {} ms; the latest frame came {} ms late, by `tandem-host`'s count",
        number("pause-ms")?,
        number("latest-ms")?
    ))
}

fn title(setup: &Setup, manners: HostManners) -> String {
    let leaves = match manners {
        HostManners::Asks => "leaves",
        HostManners::Silent => "is taken without a word",
    };
    format!(
        "VF {} on host a {leaves}, the VM moves to host b, VF {} arrives there (an {}, {})",
        setup.vf,
        setup
            .later_vfs
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        setup.model.device(),
        setup.kernel
    )
}

/// Waits until the guest has made the new VF a port.
fn await_vf(guest: &Guest, channel: &mut Channel) -> Result<()> {
    channel
        .await_status("a VF in the bond", STEP_LIMIT, |status| {
            let vf = status.bonds.first().and_then(|bond| bond.vf.as_ref());
            vf.is_some_and(|vf| vf.enslaved)
        })
        .with_context(|| format!("the service's log ends:\n{}", guest.log_tail()))?;
    Ok(())
}

fn end(story: &mut Story, channel: &mut Channel) -> Result<()> {
    story.end();
    story.see(&channel.report(STEP_LIMIT)?)
}

/// What the guest said of the VF's removal.
fn note_removal(story: &mut Story, channel: &mut Channel) {
    for (_, event) in channel.take_events() {
        let Some(removed) = event["data"]
            .get("vf-removed")
            .or_else(|| event["data"].get("lead-us").map(|_| &event["data"]))
        else {
            continue;
        };
        if let Some(lead_us) = removed["lead-us"].as_u64() {
            let stage = serde_json::from_value(removed["warned-by"].clone());
            story.notes.push(format!(
                "early warning by eBPF ({}): {} ms before the VF's driver began to stop",
                stage.map_or("unknown", tandem_core::words::warning),
                words::ms(lead_us)
            ));
        }
    }
}

fn ensure_vf(channel: &mut Channel, mac: Mac) -> Result<()> {
    let status = channel.report(STEP_LIMIT)?.status;
    let vf = status
        .bonds
        .first()
        .and_then(|bond| bond.vf.as_ref())
        .context("the VF is gone")?;
    ensure!(
        vf.mac == Some(mac),
        "the traffic is on {vf:?}, not on the VF {mac}"
    );
    Ok(())
}
