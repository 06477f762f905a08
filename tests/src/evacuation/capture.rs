//! A capture in the guest around one switchover: which port carried the traffic before and after it, by the kernel's
//! word, and what passed the ports meanwhile.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::proto::Op;
use crate::command;
use crate::probe::capture::CaptureSpec;
use crate::probe::{Capture, FrameProbe, Pauses};
use crate::tandem::BOND;
use crate::vm::Vm;

const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A capture under way.
#[derive(Debug)]
pub(super) struct SwitchoverCapture {
    phase: &'static str,
    old: u32,
}

/// One that has ended; what it holds is still in the guest.
#[derive(Debug)]
pub(super) struct EndedCapture {
    phase: &'static str,
    old: u32,
    new: u32,
    log: String,
}

impl SwitchoverCapture {
    /// Begins, before anything of the phase happens.
    pub(super) fn start(vm: &Vm, probe: &FrameProbe, phase: &'static str) -> Result<Self> {
        let [bond, old] = bond_and_port(vm)?;
        let spec = CaptureSpec {
            probe: probe.number(),
            bond,
        };
        vm.agent().call(Op::CaptureStart(spec), CALL_LIMIT)?;
        Ok(Self { phase, old })
    }

    /// Ends, once the traffic is on its new port. To read it now would cost the phases that follow.
    pub(super) fn finish(self, vm: &Vm) -> Result<EndedCapture> {
        let log = format!("/tmp/capture-{}", self.phase);
        vm.agent()
            .call(Op::CaptureEnd { log: log.clone() }, CALL_LIMIT)?;
        let [_, new] = bond_and_port(vm)?;
        Ok(EndedCapture {
            phase: self.phase,
            old: self.old,
            new,
            log,
        })
    }
}

impl EndedCapture {
    /// The switchover's pauses; unknown where the capture has holes.
    pub(super) fn pauses(&self, vm: &Vm) -> Result<Pauses> {
        let bytes = vm.agent().read_file(&self.log)?;
        let capture = Capture::decode(&bytes).context("a capture is damaged")?;
        let (phase, frames, missed) = (self.phase, capture.frames.len(), capture.missed);
        if missed > 0 {
            command::progress(&format!(
                "the capture of the {phase} has {frames} frames and missed {missed}"
            ));
            return Ok(Pauses::default());
        }
        Ok(capture.pauses(self.old, self.new))
    }
}

/// Ifindexes of the bond and of its active port.
fn bond_and_port(vm: &Vm) -> Result<[u32; 2]> {
    let said = vm.sh(&format!(
        "cd /sys/class/net && cat {BOND}/ifindex \"$(cat {BOND}/bonding/active_slave)/ifindex\""
    ))?;
    let numbers: Vec<u32> = said
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers
        .try_into()
        .ok()
        .with_context(|| format!("the guest's bond has no active port: {said}"))
}
