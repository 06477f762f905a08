//! One evacuation: probes run, the phases pass, what was lost is told.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use super::arrival::LinkMonitor;
use super::capture::{EndedCapture, SwitchoverCapture};
use super::report::{Carried, Evacuation, MeasuredSwitchover, PhaseLoss, TcpOutcome};
use super::subject::{HostPart, Subject};
use crate::carried::CarriedMove;
use crate::net::{ALL_V4, GUEST_V4, GUEST_V6, Host};
use crate::probe::{FrameOptions, FrameProbe, Pauses, ProbePair};
use crate::tandem::STEP_LIMIT;
use crate::{Lab, Mac, Vm};

/// What is done, in order: the VF leaves, the VM moves, another VF comes.
pub const PHASES: [&str; 3] = ["failover", "migration", "failback"];
const FAILOVER: &str = PHASES[0];
const MIGRATION: &str = PHASES[1];
const FAILBACK: &str = PHASES[2];
const AT_REST: &str = "before";
/// Before the phases and after them, and the end of each phase, so that what it caused late counts for it.
const SETTLE: Duration = Duration::from_millis(500);
/// Frames a second of those that go beside.
const OTHERS_HZ: u32 = 100;
/// Between two looks at the counters of a tap.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// After a migration so many frames leave the virtio NIC within so long: the probe sends them in a fraction of that.
const SENDS_FRAMES: u64 = 20;
const SENDS_LIMIT: Duration = Duration::from_secs(12);
/// Has the guest tell what it knows of its NICs and of what waits in them.
const STATE: &str = "ip -d -s link; ip neigh; for bql in /sys/class/net/*/queues/tx-0/byte_queue_limits; do \
     echo $bql $(cat $bql/inflight $bql/limit); done; cat /proc/net/bonding/* /proc/net/softnet_stat /proc/net/udp \
     /proc/net/tcp /proc/interrupts 2>/dev/null; dmesg | tail -40; true";

/// What the way there came to.
#[derive(Default)]
struct Moved {
    downtime_ms: u64,
    carried: Option<Carried>,
    vf_ready_ms: Option<f64>,
    /// Failover and failback.
    captures: Option<[EndedCapture; 2]>,
}

/// Frames that go beside the others, over another protocol or to another address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherFrames {
    /// What they are.
    pub name: &'static str,
    address: IpAddr,
}

impl OtherFrames {
    /// Over IPv6, and broadcasts to the guest.
    pub const ALL: [Self; 2] = [
        Self {
            name: "IPv6",
            address: IpAddr::V6(GUEST_V6),
        },
        Self {
            name: "broadcast",
            address: IpAddr::V4(ALL_V4),
        },
    ];

    fn probe(&self, lab: &Lab, vm: &Vm) -> Result<FrameProbe> {
        let seldom = FrameOptions {
            rate_hz: OTHERS_HZ,
            ..FrameOptions::default()
        };
        lab.probe_frames(vm, self.address, seldom)
    }
}

impl Moved {
    /// Of failover and failback.
    fn pauses(&self, vm: &Vm) -> Result<[Pauses; 2]> {
        match &self.captures {
            Some([away, back]) => Ok([away.pauses(vm)?, back.pauses(vm)?]),
            None => Ok([Pauses::default(); 2]),
        }
    }
}

impl Subject {
    /// Moves the guest to `destination`, where it finds a VF with another MAC.
    ///
    /// # Errors
    /// A step fails or does not end in time. The guest is of no more use then.
    pub fn evacuate(
        &mut self,
        lab: &Lab,
        destination: &Host,
        options: FrameOptions,
        others: &[OtherFrames],
    ) -> Result<Evacuation> {
        let mut probes = ProbePair::start(lab, self.vm(), GUEST_V4.into(), options)?;
        let others = others
            .iter()
            .map(|one| Ok((one.name, one.probe(lab, self.vm())?)))
            .collect::<Result<Vec<_>>>()?;
        self.begin()?;
        probes.frames.mark(AT_REST);
        std::thread::sleep(SETTLE);
        let moved = match self.host_part() {
            HostPart::Nothing => {
                let (downtime_ms, carried) = self.migrate(lab, destination, &mut probes)?;
                Moved {
                    downtime_ms,
                    carried,
                    ..Moved::default()
                }
            }
            HostPart::UnplugsAndPlugs => {
                self.unplug_migrate_plug(lab, destination, &mut probes, options)?
            }
            HostPart::LeavesItToQemu => self.migrate_by_qemu(destination, &mut probes, options)?,
        };
        probes.frames.mark("after");
        std::thread::sleep(SETTLE);
        let sent_again = probes.sent_again()?;
        let (frames, stream) = probes.finish()?;
        let others = others
            .into_iter()
            .map(|(name, probe)| Ok(PhaseLoss::whole(name, &probe.finish()?)))
            .collect::<Result<_>>()?;
        let switchovers = self.take_switchovers()?;
        let pauses = moved.pauses(self.vm())?;
        Ok(Evacuation {
            phases: PHASES
                .iter()
                .filter_map(|name| PhaseLoss::of(&frames, name))
                .collect(),
            total: PhaseLoss::total(&frames),
            gap_at_rest_ms: PhaseLoss::of(&frames, AT_REST).map(|rest| rest.longest_gap_ms),
            tcp: TcpOutcome {
                stall_ms: stream.longest_stall_ms(),
                sent_again,
                broken: stream.broken().map(str::to_owned),
            },
            others,
            carried: moved.carried,
            downtime_ms: moved.downtime_ms,
            vf_ready_ms: moved.vf_ready_ms,
            switchovers: MeasuredSwitchover::all(switchovers, pauses),
            sent_per_s: [frames.to_guest.sent_per_s, frames.to_client.sent_per_s],
            losses_to_guest: frames.to_guest.losses,
            losses_from_guest: frames.to_client.losses,
        })
    }

    fn migrate(
        &mut self,
        lab: &Lab,
        destination: &Host,
        probes: &mut ProbePair,
    ) -> Result<(u64, Option<Carried>)> {
        probes.frames.mark(MIGRATION);
        let came_to = if self.case.system.is_carried() {
            let (downtime_ms, carried) = self.migrate_carried(lab, destination)?;
            (downtime_ms, Some(carried))
        } else {
            (self.vm_mut().migrate_to(destination)?.downtime_ms, None)
        };
        std::thread::sleep(SETTLE);
        self.sends_again()?;
        Ok(came_to)
    }

    /// How long the guest stood still, in ms, and what became of the frames for it.
    fn migrate_carried(&mut self, lab: &Lab, destination: &Host) -> Result<(u64, Carried)> {
        self.moves += 1;
        let (qmp, number) = (self.qmp.clone(), self.moves);
        let mut carried = CarriedMove::new(self.vm(), &qmp, destination, lab.folder(), number)?;
        carried.carry(self.vm(), destination)?;
        let (qmp, told) = carried.run(self.vm_mut())?;
        self.qmp = qmp;
        ensure!(told["reason"].is_null(), "frames were not carried: {told}");
        let pause_ms = told["pause-ms"].as_u64().context("the carry's report")?;
        Ok((pause_ms, Carried::deserialize(told)?))
    }

    /// The virtio NIC carries all there is now, and its frames have to leave QEMU. Its tap is new.
    fn sends_again(&self) -> Result<()> {
        let tap = self.vm().tap("standby")?;
        let deadline = Instant::now() + SENDS_LIMIT;
        while self.vm().host().tap_frames(tap)?.from_guest < SENDS_FRAMES {
            if Instant::now() >= deadline {
                bail!(
                    "the guest's virtio NIC sends nothing after the migration; the guest says:\n{}",
                    self.state()?
                );
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    /// What the guest and QEMU know of the NICs and of what waits in them.
    fn state(&self) -> Result<String> {
        let qmp = self.vm().qmp();
        let devices = qmp.execute("x-query-virtio", json!({}))?;
        let devices = devices.as_array().into_iter().flatten();
        let mut text = String::new();
        for device in devices.filter(|device| device["name"] == "virtio-net") {
            for queue in [0, 1] {
                let which = json!({ "path": device["path"], "queue": queue });
                let said = qmp.execute("x-query-virtio-queue-status", which)?;
                writeln!(text, "queue {queue}: {said}")?;
            }
        }
        Ok(text + &self.vm().sh(STATE)?)
    }

    fn unplug_migrate_plug(
        &mut self,
        lab: &Lab,
        destination: &Host,
        probes: &mut ProbePair,
        options: FrameOptions,
    ) -> Result<Moved> {
        let (model, _) = self.case.vf.context("this system has no VF")?;
        let capture = self.capture(probes, FAILOVER)?;
        probes.frames.mark(FAILOVER);
        self.prepare()?;
        self.lose_vf()?;
        std::thread::sleep(SETTLE);
        self.failed_over()?;
        let away = self.end(capture)?;

        let (downtime_ms, carried) = self.migrate(lab, destination, probes)?;

        let vf = self.other_vf();
        let monitor = LinkMonitor::start(self.vm())?;
        let capture = self.capture(probes, FAILBACK)?;
        probes.frames.mark(FAILBACK);
        self.vm_mut().plug_vf(model, vf)?;
        self.await_traffic(vf, options)?;
        self.failed_back()?;
        std::thread::sleep(SETTLE);
        let back = self.end(capture)?;
        self.present_vf = vf;
        Ok(Moved {
            downtime_ms,
            carried,
            vf_ready_ms: monitor.finish(self.vm())?,
            captures: away.zip(back).map(|(away, back)| [away, back]),
        })
    }

    /// Tandem's own count of a switchover is held against a capture of it.
    fn capture(
        &self,
        probes: &ProbePair,
        phase: &'static str,
    ) -> Result<Option<SwitchoverCapture>> {
        let wanted = self.case.system.is_tandem();
        wanted
            .then(|| SwitchoverCapture::start(self.vm(), &probes.frames, phase))
            .transpose()
    }

    fn end(&self, capture: Option<SwitchoverCapture>) -> Result<Option<EndedCapture>> {
        capture.map(|capture| capture.finish(self.vm())).transpose()
    }

    /// QEMU has the guest give up the VF when the migration begins, and plugs one in on the other side.
    fn migrate_by_qemu(
        &mut self,
        destination: &Host,
        probes: &mut ProbePair,
        options: FrameOptions,
    ) -> Result<Moved> {
        let monitor = LinkMonitor::start(self.vm())?;
        probes.frames.mark(FAILOVER);
        let report = self.vm_mut().migrate_to(destination)?;
        probes.frames.mark_at(MIGRATION, report.began);
        probes.frames.mark_at(FAILBACK, report.resumed);
        self.await_traffic(self.present_vf, options)?;
        std::thread::sleep(SETTLE);
        Ok(Moved {
            downtime_ms: report.downtime_ms,
            vf_ready_ms: monitor.finish(self.vm())?,
            ..Moved::default()
        })
    }

    /// Waits until the probe's frames go through the VF in both directions, as the host's end of it counts.
    fn await_traffic(&self, vf: Mac, options: FrameOptions) -> Result<()> {
        let tap = self.vm().tap("vf")?;
        let host = self.vm().host();
        // Half of what is sent: a busy machine sends less than it should.
        let enough = u64::from(options.rate_hz) * LOOK_INTERVAL.as_millis() as u64 / 2000;
        let deadline = Instant::now() + STEP_LIMIT;
        let mut before = host.tap_frames(tap)?;
        loop {
            std::thread::sleep(LOOK_INTERVAL);
            let now = host.tap_frames(tap)?;
            let grew = |count: fn(&crate::net::TapFrames) -> u64| count(&now) - count(&before);
            if grew(|frames| frames.from_guest) >= enough
                && grew(|frames| frames.to_guest) >= enough
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "the VF {vf} carries no traffic within {} s, lastly {} frames from the guest and {} to it in {} ms; the \
                 guest's interfaces and neighbours:\n{}\n{}",
                STEP_LIMIT.as_secs(),
                grew(|frames| frames.from_guest),
                grew(|frames| frames.to_guest),
                LOOK_INTERVAL.as_millis(),
                self.state()?,
                self.log_tail()
            );
            before = now;
        }
    }
}
