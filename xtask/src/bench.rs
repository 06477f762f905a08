//! `cargo xtask bench`: what the service costs a guest that has nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tandem_core::input::Source;
use tandem_core::status::{BondState, SourceHealth, Status};
use tandem_lab::artifacts::cache;
use tandem_lab::tandem::{self, Channel, Guest, STEP_LIMIT, Setup};
use tandem_lab::{Lab, command};

use crate::{bench_growth, bench_tcp};

/// Largest stripped program, in bytes.
const MAX_BINARY_BYTES: u64 = 8 << 20;
/// Most resident memory with eBPF loaded, in KiB.
const MAX_RESIDENT_KIB: u64 = 16 << 10;
/// Most wake-ups without events.
const MAX_WAKE_UPS: u64 = 0;

/// The service has calmed down when it has not woken for this long: longer than the 10 s that an idle thread of
/// tokio's pool lives on (tokio 1.54, `runtime/blocking/pool.rs`, `KEEP_ALIVE`).
const CALM: Duration = Duration::from_secs(12);

/// What `cargo xtask bench` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Watch the idle service for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle_s: u64,
    /// Measure how the service's costs grow with the guest, and nothing else
    #[arg(long, conflicts_with = "tcp")]
    growth: bool,
    /// With --growth: along this axis only
    #[arg(long, value_enum, requires = "growth")]
    axis: Option<bench_growth::Axis>,
    /// Measure what the hand-over programs cost TCP, and nothing else
    #[arg(long)]
    tcp: bool,
    /// Rounds of each state with --tcp
    #[arg(long, value_name = "NUMBER", requires = "tcp")]
    rounds: Option<usize>,
}

/// Something measured, and what it may be at most.
struct Figure {
    what: String,
    key: &'static str,
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
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.growth {
        return bench_growth::run(options.axis);
    }
    if options.tcp {
        return bench_tcp::run(options.rounds);
    }
    let figures = measure(Duration::from_secs(options.idle_s))?;
    for figure in &figures {
        println!("{}", figure.line());
    }
    let folder = cache::target_folder().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("steady-state.json");
    let document: serde_json::Map<_, _> = figures
        .iter()
        .map(|figure| {
            (
                figure.key.to_owned(),
                json!({ "value": figure.value, "limit": figure.limit }),
            )
        })
        .collect();
    fs::write(&path, serde_json::to_vec_pretty(&document)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    match figures.iter().filter(|figure| !figure.holds()).count() {
        0 => Ok(()),
        count => bail!("{count} figures are over their limit"),
    }
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

    let before = wake_ups(&guest)?;
    command::progress(&format!(
        "watching the idle service for {} s",
        idle.as_secs()
    ));
    // Nothing to wait for: that nothing happens meanwhile is what is measured.
    std::thread::sleep(idle);
    let after = wake_ups(&guest)?;
    let woken = woken_between(&before, &after);
    if woken > MAX_WAKE_UPS {
        println!("wake-ups by thread, before: {before:?}, after: {after:?}");
    }
    let memory = |key| memory_kib(&guest, key).map(|kib| kib << 10);
    Ok(vec![
        Figure {
            what: format!("wake-ups in {} s without events", idle.as_secs()),
            key: "wake-ups",
            value: woken,
            limit: Some(MAX_WAKE_UPS),
            unit: Unit::Count,
        },
        Figure {
            what: "resident memory with eBPF loaded".to_owned(),
            key: "resident-bytes",
            value: memory("VmRSS")?,
            limit: Some(MAX_RESIDENT_KIB << 10),
            unit: Unit::Bytes,
        },
        Figure {
            what: "resident memory at its peak".to_owned(),
            key: "peak-resident-bytes",
            value: memory("VmHWM")?,
            limit: None,
            unit: Unit::Bytes,
        },
        Figure {
            what: "stripped program".to_owned(),
            key: "binary-bytes",
            value: binary_bytes,
            limit: Some(MAX_BINARY_BYTES),
            unit: Unit::Bytes,
        },
    ])
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
    let mut before = wake_ups(guest)?;
    // One that never calms down is measured all the same, and found over its limit.
    while Instant::now() < deadline {
        std::thread::sleep(CALM);
        let after = wake_ups(guest)?;
        if after == before {
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

/// How often each thread of the service gave up its CPU to wait, and so was woken again.
fn wake_ups(guest: &Guest) -> Result<BTreeMap<String, u64>> {
    let pid = guest.pid()?;
    let said = guest.vm.sh(&format!(
        "grep -H voluntary_ctxt_switches /proc/{pid}/task/*/status"
    ))?;
    let counts = parse_wake_ups(&said);
    ensure!(!counts.is_empty(), "the service has no thread");
    Ok(counts)
}

/// Wake-ups of all threads; one that ended woke for that, and one that began woke as often as it says.
fn woken_between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let ended = before
        .keys()
        .filter(|thread| !after.contains_key(*thread))
        .count();
    let counted: u64 = after
        .iter()
        .map(|(thread, count)| count.saturating_sub(*before.get(thread).unwrap_or(&0)))
        .sum();
    counted + ended as u64
}

/// Lines such as `/proc/7/task/9/status:voluntary_ctxt_switches: 12`.
fn parse_wake_ups(said: &str) -> BTreeMap<String, u64> {
    said.lines()
        .filter(|line| !line.contains("nonvoluntary"))
        .filter_map(|line| {
            let (thread, count) = line.split_once("voluntary_ctxt_switches:")?;
            let thread = thread.split('/').rev().nth(1)?;
            Some((thread.to_owned(), count.trim().parse().ok()?))
        })
        .collect()
}

fn memory_kib(guest: &Guest, key: &str) -> Result<u64> {
    let said = guest
        .vm
        .sh(&format!("grep {key}: /proc/{}/status", guest.pid()?))?;
    said.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("`{said}` is not a size in KiB"))
}

impl Figure {
    fn holds(&self) -> bool {
        self.limit.is_none_or(|limit| self.value <= limit)
    }

    fn line(&self) -> String {
        let limit = match self.limit {
            Some(limit) => format!("at most {}", self.unit.show(limit)),
            None => "no limit".to_owned(),
        };
        let mark = if self.holds() { "ok" } else { "OVER" };
        format!(
            "{mark:4}  {:36} {:>10}  ({limit})",
            self.what,
            self.unit.show(self.value)
        )
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
    fn wake_ups_are_read_by_thread() {
        let said = "/proc/7/task/7/status:voluntary_ctxt_switches:\t12\n\
                    /proc/7/task/7/status:nonvoluntary_ctxt_switches:\t3\n\
                    /proc/7/task/9/status:voluntary_ctxt_switches:\t1\n";
        let counts = parse_wake_ups(said);
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [("7".to_owned(), 12), ("9".to_owned(), 1)]
        );
    }

    #[test]
    fn threads_that_come_and_go_count() {
        let counts =
            |list: &[(&str, u64)]| list.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect();
        let before: BTreeMap<String, u64> = counts(&[("7", 12), ("9", 1)]);
        assert_eq!(woken_between(&before, &before), 0);
        assert_eq!(woken_between(&before, &counts(&[("7", 14), ("9", 1)])), 2);
        assert_eq!(woken_between(&before, &counts(&[("7", 12)])), 1);
        assert_eq!(
            woken_between(&before, &counts(&[("7", 12), ("9", 1), ("11", 3)])),
            3
        );
    }

    #[test]
    fn a_figure_over_its_limit_says_so() {
        let figure = |value| Figure {
            what: "stripped program".to_owned(),
            key: "binary-bytes",
            value,
            limit: Some(MAX_BINARY_BYTES),
            unit: Unit::Bytes,
        };
        let held = figure(MAX_BINARY_BYTES);
        assert!(
            held.holds() && held.line().contains("8.0 MiB  (at most 8.0 MiB)"),
            "{}",
            held.line()
        );
        let over = figure(MAX_BINARY_BYTES + 1);
        assert!(!over.holds() && over.line().starts_with("OVER"));
    }
}
