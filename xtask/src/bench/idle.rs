//! What the service costs a guest that has nothing to do.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::input::Source;
use tandem_core::status::{BondState, SourceHealth, Status};
use tandem_lab::tandem::{self, Channel, Guest, STEP_LIMIT, Setup};
use tandem_lab::{Lab, command, usage};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::table::Table;

/// Largest stripped program, in bytes.
const MAX_BINARY_BYTES: u64 = 8 << 20;
/// Most resident memory with eBPF loaded, in KiB.
const MAX_RESIDENT_KIB: u64 = 16 << 10;
/// At rest the service looks this often whether the bond's VF sends, in s. It wakes up once for that.
const LOOK_INTERVAL_S: u64 = 15;
/// So often it asks through the standby, in s.
const QUESTION_INTERVAL_S: u64 = 60;
/// Most wake-ups for one question: for its answer, and for its end.
const QUESTION_WAKE_UPS: u64 = 2;

/// At most a frame is sent in so long, in s.
const FRAME_INTERVAL_S: u64 = 10;

/// The service has calmed down when it has not woken more often than it may for this long: longer than the 10 s that
/// an idle thread of tokio's pool lives on (tokio 1.54, `runtime/blocking/pool.rs`, `KEEP_ALIVE`).
const CALM: Duration = Duration::from_secs(12);

/// Most wake-ups in that time in which nothing happens.
fn most_wake_ups(time: Duration) -> u64 {
    let often = |interval_s| time.as_secs() / interval_s + 1;
    often(LOOK_INTERVAL_S) + often(QUESTION_INTERVAL_S) * QUESTION_WAKE_UPS
}

/// Something measured, and what it may be at most.
struct Figure {
    what: &'static str,
    value: u64,
    limit: Option<u64>,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    Count,
    Bytes,
}

/// Measures, prints, writes JSON, and fails if a figure is over its limit.
pub(super) fn run(idle: Duration, page: bool) -> Result<()> {
    let figures = measure(idle)?;
    let mut table = Table::new(&["figure", "", "is"]);
    for one in &figures {
        let row = [one.what, "", &one.unit.show(one.value)];
        table.rows.push(row.map(str::to_owned).to_vec());
    }
    let report = Report {
        name: "idle",
        title: "What the service costs a guest that has nothing to do",
        about: format!(
            "It was watched for {} s, its VF carrying the traffic of a bond with a gateway. Frames are those that VF and standby \
             sent in this time, whoever made them.",
            idle.as_secs()
        ),
        machine: Machine::look()?,
        figures: figures
            .iter()
            .map(|one| json!({ "figure": one.what, "value": one.value, "limit": one.limit }))
            .collect(),
        table,
        claims: figures.iter().filter_map(Figure::claim).collect(),
        picture: None,
    };
    report.publish(page)
}

fn measure(idle: Duration) -> Result<Vec<Figure>> {
    let binary = tandem::binary()?;
    let binary_bytes = fs::metadata(&binary)
        .with_context(|| format!("cannot read {}", binary.display()))?
        .len();
    let lab = Lab::new("bench")?;
    let host = lab.host("a")?;
    let guest = Setup::new()?.boot(&lab, &host)?;
    let mut channel = guest.channel()?;
    await_idle(&guest, &mut channel)?;

    let pid = guest.pid()?;
    let before = usage::wake_ups(&guest.vm, pid)?;
    let sent_before = sent(&guest)?;
    let seconds = idle.as_secs();
    command::progress(&format!("watching the idle service for {seconds} s"));
    // Nothing to wait for: that nothing happens meanwhile is what is measured.
    std::thread::sleep(idle);
    let after = usage::wake_ups(&guest.vm, pid)?;
    let frames = sent(&guest)?.saturating_sub(sent_before);
    let woken = usage::woken_between(&before, &after);
    if woken > most_wake_ups(idle) {
        println!("wake-ups by thread, before: {before:?}, after: {after:?}");
    }
    let memory = |key| usage::memory_kib(&guest.vm, pid, key).map(|kib| kib << 10);
    let figure = |what, value, limit, unit| Figure {
        what,
        value,
        limit,
        unit,
    };
    let most = Some(MAX_RESIDENT_KIB << 10);
    Ok(vec![
        figure(
            "wake-ups without events",
            woken,
            Some(most_wake_ups(idle)),
            Unit::Count,
        ),
        figure(
            "frames sent",
            frames,
            Some(idle.as_secs() / FRAME_INTERVAL_S + 1),
            Unit::Count,
        ),
        figure(
            "resident memory with eBPF loaded",
            memory("VmRSS")?,
            most,
            Unit::Bytes,
        ),
        figure(
            "resident memory at its peak",
            memory("VmHWM")?,
            None,
            Unit::Bytes,
        ),
        figure(
            "stripped program",
            binary_bytes,
            Some(MAX_BINARY_BYTES),
            Unit::Bytes,
        ),
    ])
}

/// Frames that VF and standby have sent.
fn sent(guest: &Guest) -> Result<u64> {
    let counters = guest.vm.sh(
        "for nic in /sys/class/net/*/device; do cat ${nic%/device}/statistics/tx_packets; done",
    )?;
    let counts = counters.lines().map(str::parse::<u64>);
    Ok(counts.collect::<Result<Vec<_>, _>>()?.into_iter().sum())
}

/// Waits until the VF has the traffic, the eBPF monitor runs, and what that set off has calmed down.
fn await_idle(guest: &Guest, channel: &mut Channel) -> Result<()> {
    let status = guest.await_state(channel, BondState::Accelerated)?;
    let ebpf = ebpf_health(&status).context("the status does not mention eBPF")?;
    ensure!(
        *ebpf == SourceHealth::Working,
        "the eBPF monitor is not whole: {ebpf:?}"
    );
    let deadline = Instant::now() + STEP_LIMIT;
    let pid = guest.pid()?;
    let mut before = usage::wake_ups(&guest.vm, pid)?;
    // One that never calms down is measured all the same, and found over its limit.
    while Instant::now() < deadline {
        std::thread::sleep(CALM);
        let after = usage::wake_ups(&guest.vm, pid)?;
        if usage::woken_between(&before, &after) <= most_wake_ups(CALM) {
            break;
        }
        before = after;
    }
    Ok(())
}

fn ebpf_health(status: &Status) -> Option<&SourceHealth> {
    status
        .sources
        .iter()
        .find(|source| source.source == Source::Ebpf)
        .map(|source| &source.health)
}

impl Figure {
    fn claim(&self) -> Option<Claim> {
        let limit = self.limit?;
        let (value, most) = (self.unit.show(self.value), self.unit.show(limit));
        Some(Claim {
            text: format!("{}: {value}, at most {most}", self.what),
            holds: self.value <= limit,
        })
    }
}

impl Unit {
    fn show(self, value: u64) -> String {
        match self {
            Self::Count => value.to_string(),
            Self::Bytes => format!("{:.1} MiB", value as f64 / f64::from(1 << 20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_over_its_limit_is_a_claim_missed() {
        let claim = |value| {
            let figure = Figure {
                what: "stripped program",
                value,
                limit: Some(MAX_BINARY_BYTES),
                unit: Unit::Bytes,
            };
            figure.claim().unwrap()
        };
        let held = claim(MAX_BINARY_BYTES);
        assert_eq!(held.text, "stripped program: 8.0 MiB, at most 8.0 MiB");
        assert!(held.holds && !claim(MAX_BINARY_BYTES + 1).holds);
    }
}
