//! The whole story in one run: a VF leaves, the VM moves to another host, another VF arrives, and what an
//! open connection and a stream of numbered frames saw of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::status::{BondState, Handoff, Traffic};

use crate::command::progress;
use crate::net::GUEST_V4;
use crate::probe::{FrameOptions, FrameProbe, FrameReport, StreamProbe};
use crate::tandem::{Channel, Guest, STEP_LIMIT, Setup};
use crate::timeline::{Carrier, Frames, Handover, Phase, PhaseKind, Timeline, Verdict};
use crate::{Lab, Mac};

/// How long nothing is done, before and after.
const STEADY: Duration = Duration::from_secs(2);
/// Time between two records of the TCP stream.
const RECORD_INTERVAL: Duration = Duration::from_millis(10);

/// Runs the story and tells it. The guest of `setup` gets its first other VF on the second host.
///
/// # Errors
/// A step fails or does not end in time; the error holds the end of the service's log.
pub fn run(setup: &Setup, frames: FrameOptions) -> Result<Timeline> {
    let lab = Lab::new("demo")?;
    let (here, there) = (lab.host("a")?, lab.host("b")?);
    progress("booting a guest on host a");
    let mut guest = setup.boot(&lab, &here)?;
    let mut channel = guest.channel()?;
    guest.await_state(&mut channel, BondState::Accelerated)?;

    let client = lab.client()?;
    let guest_address = GUEST_V4.into();
    let stream = StreamProbe::start(
        client.agent(),
        (guest.vm.agent(), guest_address),
        RECORD_INTERVAL,
        STEP_LIMIT,
    )?;
    let probe = FrameProbe::start(
        (client.agent(), client.v4()),
        (guest.vm.agent(), guest_address),
        frames,
        lab.folder(),
    )?;
    let mut story = Story::new(probe);
    story.carriers.push(Handover {
        at_ms: 0,
        carrier: Carrier::Vf,
    });
    story.see(&mut channel)?;

    story.begin("steady", PhaseKind::Steady);
    channel.listen(STEADY)?;
    story.end(&mut channel)?;

    story.begin("prepare", PhaseKind::Planned);
    let answer = channel.call("tandem-prepare-unplug", json!({}), STEP_LIMIT)?;
    ensure!(
        answer["ready"] == json!(true),
        "the guest is not ready for the unplug: {answer}"
    );
    story.end(&mut channel)?;

    story.begin("unplug", PhaseKind::Planned);
    guest.vm.unplug_vf()?;
    story.end(&mut channel)?;
    story.note_removal(&mut channel);
    drop(channel);

    story.begin("migrate", PhaseKind::Migration);
    let migration = guest.vm.migrate_to(&there)?;
    let mut channel = guest.channel()?;
    story.end(&mut channel)?;
    story.notes.push(format!(
        "migration: {} ms in all, QEMU's own downtime {} ms",
        migration.total_ms, migration.downtime_ms
    ));

    let other_vf = *setup
        .later_vfs
        .first()
        .context("the set-up names no second VF")?;
    story.begin("plug", PhaseKind::Planned);
    guest.vm.plug_vf(setup.model, other_vf)?;
    await_vf(&guest, &mut channel)?;
    story.end(&mut channel)?;

    story.begin("failback", PhaseKind::Planned);
    guest.await_state(&mut channel, BondState::Accelerated)?;
    story.end(&mut channel)?;

    story.begin("steady again", PhaseKind::Steady);
    channel.listen(STEADY)?;
    story.end(&mut channel)?;

    let stream = stream.finish()?;
    guest.check()?;
    story.note_other_vf(&mut channel, other_vf)?;
    story.tell(
        title(setup),
        stream.broken().map(str::to_owned),
        stream.longest_stall_ms(),
    )
}

fn title(setup: &Setup) -> String {
    format!(
        "VF {} on host a leaves, the VM moves to host b, VF {} arrives there ({:?}, kernel {})",
        setup.vf,
        setup
            .later_vfs
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
        setup.model,
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

/// What is known of the run so far.
struct Story {
    start: Instant,
    probe: FrameProbe,
    phases: Vec<(String, PhaseKind, u64, u64)>,
    open: Option<(String, PhaseKind, u64)>,
    carriers: Vec<Handover>,
    last_handoff: u64,
    notes: Vec<String>,
}

impl Story {
    fn new(probe: FrameProbe) -> Self {
        Self {
            start: Instant::now(),
            probe,
            phases: Vec::new(),
            open: None,
            carriers: Vec::new(),
            last_handoff: 0,
            notes: Vec::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn begin(&mut self, name: &str, kind: PhaseKind) {
        progress(name);
        self.probe.mark(name);
        self.open = Some((name.to_owned(), kind, self.now_ms()));
    }

    fn end(&mut self, channel: &mut Channel) -> Result<()> {
        if let Some((name, kind, start_ms)) = self.open.take() {
            self.phases.push((name, kind, start_ms, self.now_ms()));
        }
        self.see(channel)
    }

    /// Takes the handoffs that the guest reports since the last time.
    fn see(&mut self, channel: &mut Channel) -> Result<()> {
        let report = channel.report(STEP_LIMIT)?;
        let now_ms = self.now_ms();
        let bond = report
            .status
            .bonds
            .first()
            .context("the guest knows no bond")?;
        let known = self.last_handoff;
        let new = bond
            .handoffs
            .iter()
            .filter(|handoff| handoff.number > known);
        let carriers = new.clone().map(|handoff: &Handoff| Handover {
            at_ms: now_ms.saturating_sub(report.now.since_ms(handoff.at)),
            carrier: match handoff.to {
                Traffic::Vf => Carrier::Vf,
                Traffic::Standby => Carrier::Standby,
                Traffic::None | Traffic::Other => Carrier::Nobody,
            },
        });
        // Those from before the run are part of the first look only.
        if known > 0 || !self.phases.is_empty() {
            self.carriers.extend(carriers);
        }
        self.last_handoff = bond.handoff_count;
        Ok(())
    }

    /// What the guest said of the VF's removal.
    fn note_removal(&mut self, channel: &mut Channel) {
        for (_, event) in channel.take_events() {
            let Some(removed) = event["data"]
                .get("vf-removed")
                .or_else(|| event["data"].get("lead-us").map(|_| &event["data"]))
            else {
                continue;
            };
            if let Some(lead_us) = removed["lead-us"].as_u64() {
                self.notes.push(format!(
                    "early warning by eBPF ({}): {:.1} ms before the VF was gone",
                    removed["warned-by"].as_str().unwrap_or("unknown"),
                    Duration::from_micros(lead_us).as_secs_f64() * 1e3
                ));
            }
        }
    }

    fn note_other_vf(&mut self, channel: &mut Channel, mac: Mac) -> Result<()> {
        let status = channel.report(STEP_LIMIT)?.status;
        let vf = status
            .bonds
            .first()
            .and_then(|bond| bond.vf.as_ref())
            .context("the VF is gone")?;
        ensure!(
            vf.mac
                .is_some_and(|found| found.to_string() == mac.to_string()),
            "the traffic is on {vf:?}, not on the VF {mac}"
        );
        Ok(())
    }

    fn tell(self, title: String, broken: Option<String>, tcp_stall_ms: u64) -> Result<Timeline> {
        let frames = self.probe.finish()?;
        let phases: Vec<_> = self
            .phases
            .into_iter()
            .map(|(name, kind, start_ms, end_ms)| phase(&frames, name, kind, (start_ms, end_ms)))
            .collect::<Result<_>>()?;
        let lost = |kind| -> u64 {
            let phases = phases.iter().filter(|phase| phase.kind == kind);
            phases
                .map(|phase| phase.from_guest.lost + phase.to_guest.lost)
                .sum()
        };
        let text = match &broken {
            None => format!(
                "the connection lived through it; frames lost: {} in the planned phases, {} by the migration itself",
                lost(PhaseKind::Planned),
                lost(PhaseKind::Migration)
            ),
            Some(reason) => format!("the connection broke: {reason}"),
        };
        Ok(Timeline {
            title,
            phases,
            carriers: self.carriers,
            tcp_alive: broken.is_none(),
            tcp_stall_ms,
            notes: self.notes,
            verdict: Verdict {
                passed: broken.is_none(),
                text,
            },
        })
    }
}

fn phase(
    frames: &FrameReport,
    name: String,
    kind: PhaseKind,
    span_ms: (u64, u64),
) -> Result<Phase> {
    let missing = || format!("the probe knows no phase {name}");
    let to_guest = frames.to_guest.phase(&name).with_context(missing)?;
    let from_guest = frames.to_client.phase(&name).with_context(missing)?;
    Ok(Phase {
        kind,
        start_ms: span_ms.0,
        end_ms: span_ms.1,
        from_guest: Frames {
            sent: from_guest.sent,
            lost: from_guest.lost,
        },
        to_guest: Frames {
            sent: to_guest.sent,
            lost: to_guest.lost,
        },
        longest_gap_ms: from_guest.longest_gap_ms.max(to_guest.longest_gap_ms),
        name,
    })
}
