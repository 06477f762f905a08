//! Runs the eBPF monitor alone and prints what it says, one line each: for the lab,
//! which starts it in a guest, and for looking at a kernel by hand.
//!
//! Usage: `ebpf_monitor [--parented] [--drop-to-bpf|--drop-all] [MAC…]`. Lines on standard output:
//! `support …`, `program NAME attached|missing REASON`, `memory rss_kib=… peak_kib=…`,
//! `ready`, then `event BOOT_NS …` until the process is ended;
//! messages on standard error, up to `RUST_LOG`.

use std::{
    fs,
    io::{self, Write},
};

use anyhow::{Context, Result, bail};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tandem_guest::ebpf::{Event, Monitor, Options, ProgramState, Support, TracedLink, What};
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    let mut options = Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--parented" => options.watch_parented = true,
            "--drop-to-bpf" => keep_only(CapabilitySet::BPF | CapabilitySet::PERFMON)?,
            "--drop-all" => keep_only(CapabilitySet::empty())?,
            mac => options.macs.push(parse_mac(mac)?),
        }
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    say(&format!("support {:?}", Support::probe()))?;
    let start = Monitor::start(&options);
    for report in &start.programs {
        match &report.state {
            ProgramState::Attached => say(&format!("program {} attached", report.program))?,
            ProgramState::Ready => say(&format!("program {} ready", report.program))?,
            ProgramState::Missing { reason } => {
                say(&format!("program {} missing {reason}", report.program))?;
            }
        }
    }
    say(&format!(
        "memory rss_kib={} peak_kib={}",
        status_kib("VmRSS")?,
        status_kib("VmHWM")?
    ))?;
    let Some(mut monitor) = start.monitor else {
        bail!("no program works");
    };
    say("ready")?;
    loop {
        let batch = monitor.next().await.context("cannot read events")?;
        for event in &batch.events {
            say(&shown(event))?;
        }
        if batch.lost > 0 {
            say(&format!("lost {}", batch.lost))?;
        }
        if let Some(error) = batch.malformed {
            say(&format!("malformed {error}"))?;
        }
    }
}

fn shown(event: &Event) -> String {
    let at = event.boot_ns;
    match &event.what {
        What::Warning { cause, pci_address } => format!("event {at} {cause:?} pci={pci_address}"),
        What::Link { change, link } => format!("event {at} {change:?} {}", shown_link(link)),
        What::BondPort { state, link } => {
            format!("event {at} BondPort {state:?} {}", shown_link(link))
        }
        What::FastPath(reaction) => format!("event {at} {reaction:?}"),
    }
}

fn shown_link(link: &TracedLink) -> String {
    format!(
        "name={} ifindex={} parent={} mac={} perm_mac={} netns={}",
        link.name,
        link.ifindex,
        link.parent,
        shown_mac(link.mac),
        shown_mac(link.perm_mac),
        link.netns_inum
    )
}

fn shown_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .with_context(|| format!("`{text}` is no MAC"))?;
    match bytes.try_into() {
        Ok(mac) => Ok(mac),
        Err(_) => bail!("`{text}` is no MAC of six bytes"),
    }
}

/// Gives up every other capability, as the service's unit does.
fn keep_only(wanted: CapabilitySet) -> Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective &= wanted;
    sets.permitted &= wanted;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).context("cannot drop capabilities")
}

fn status_kib(field: &str) -> Result<u64> {
    fs::read_to_string("/proc/self/status")?
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("/proc/self/status has no {field}"))
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
