//! Runs the eBPF monitor alone and prints what the machine would be told, one input as JSON a
//! line: for the lab, which starts it in a guest, and for looking at a kernel by hand.
//!
//! Usage: `ebpf_monitor [--drop-to-bpf|--drop-all]`; messages on standard error, up to `RUST_LOG`.

use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tandem_core::Input;
use tandem_guest::ebpf::EbpfSource;
use tracing_subscriber::EnvFilter;

fn main() -> Result<()> {
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--drop-to-bpf" => keep_only(CapabilitySet::BPF | CapabilitySet::PERFMON)?,
            "--drop-all" => keep_only(CapabilitySet::empty())?,
            other => bail!("no such option: {other}"),
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
        .block_on(run())
}

async fn run() -> Result<()> {
    let mut source = EbpfSource::start();
    loop {
        say_all(&source.next().await)?;
    }
}

fn say_all(inputs: &[Input]) -> Result<()> {
    for input in inputs {
        say(&serde_json::to_string(input)?)?;
    }
    Ok(())
}

/// Gives up every other capability, as the service's unit does.
fn keep_only(wanted: CapabilitySet) -> Result<()> {
    let mut sets = capabilities(None)?;
    sets.effective &= wanted;
    sets.permitted &= wanted;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).context("cannot drop capabilities")
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
