//! Sets up fast paths by hand, for the lab and for looking at a kernel.
//!
//! Usage: `fast_path FIFO`. Keeps the capabilities of the service's unit only, prints
//! `program NAME STATE…` and `ready`, then obeys the lines that are written into the FIFO:
//! `apply BOND [watch=PORT,PORT…] [vf=PORT device=NAME standby=PORT mac=MAC [slot=NAME]
//! [announce=HEX]]`, `forget BOND`, `reset BOND`, `frames PORT`, `running BOND`. Links are named.
//! With `FAST_PATH_STATISTICS` set, the kernel takes the programs' time meanwhile.
//! Each command is answered by one line `done COMMAND: …`; inputs of the machine are lines `input …`.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};

use anyhow::{Context, Result, bail};
use aya::sys::{Stats, enable_stats};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tandem_core::fast_path::{ArmedVf, FastPath};
use tandem_core::{Ifindex, Input};
use tandem_guest::ebpf::EbpfSource;
use tandem_guest::ebpf::fast_path::FastPaths;
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

/// Commands that wait.
const QUEUE: usize = 16;

fn main() -> Result<()> {
    let fifo = std::env::args().nth(1).context("usage: fast_path FIFO")?;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::from_default_env())
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    // For as long as this runs; takes a capability that the service has not.
    let statistics = std::env::var_os("FAST_PATH_STATISTICS").map(|_| enable_stats(Stats::RunTime));
    let _statistics = statistics.transpose().context("no statistics")?;
    take_the_units_limits();
    keep_the_units_capabilities()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(run(&fifo))
}

async fn run(fifo: &str) -> Result<()> {
    let mut source = EbpfSource::start();
    source.next().await;
    if let Input::SourceHealth { parts, .. } = source.health() {
        for part in parts {
            let state = if part.ok {
                part.detail.split(' ').next().unwrap_or_default()
            } else {
                &part.detail
            };
            say(&format!("program {} {state}", part.name))?;
        }
    }
    let fast_paths = source.fast_paths().context("no fast path works")?;
    // Also for writing: else the FIFO would end with its first writer.
    let fifo = OpenOptions::new().read(true).write(true).open(fifo)?;
    let (sender, mut commands) = mpsc::channel(QUEUE);
    std::thread::spawn(move || {
        for line in BufReader::new(fifo).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    say("ready")?;
    let mut order = 0;
    loop {
        tokio::select! {
            inputs = source.next() => {
                for input in inputs {
                    say(&format!("input {input:?}"))?;
                }
            }
            Some(command) = commands.recv() => {
                order += 1;
                let answer = obey(&fast_paths, order, &command);
                let answer = answer.unwrap_or_else(|error| format!("error {error:#}"));
                say(&format!("done {command}: {answer}"))?;
            }
        }
    }
}

fn obey(fast_paths: &FastPaths, order: u64, command: &str) -> Result<String> {
    let mut words = command.split_whitespace();
    let name = words.next().context("an empty command")?;
    let link = index(words.next().context("which link?")?)?;
    Ok(match name {
        "apply" => {
            let (fast_path, announcements) = wanted(words)?;
            let applied = fast_paths.apply(Ifindex(link), &fast_path, &announcements, order)?;
            format!("{applied:?}")
        }
        "forget" => {
            fast_paths.forget(link, order);
            "forgotten".to_owned()
        }
        "reset" => {
            fast_paths.reset(link)?;
            "reset".to_owned()
        }
        "frames" => match fast_paths.frames(link) {
            Some(frames) => format!(
                "rx={} rx_group={} rx_first={} rx_last={} tx={} tx_group={} tx_first={} tx_last={} duplicates={}",
                frames.rx.frames,
                frames.rx.group_frames,
                frames.rx.first_boot_ns,
                frames.rx.last_boot_ns,
                frames.tx.frames,
                frames.tx.group_frames,
                frames.tx.first_boot_ns,
                frames.tx.last_boot_ns,
                frames.duplicates
            ),
            None => "unwatched".to_owned(),
        },
        "running" => fast_paths.is_running(link).to_string(),
        other => bail!("no such command: {other}"),
    })
}

/// What is wanted, and what is announced when the VF leaves.
fn wanted<'a>(words: impl Iterator<Item = &'a str>) -> Result<(FastPath, Vec<Vec<u8>>)> {
    let mut fast_path = FastPath {
        period: 1,
        ..FastPath::default()
    };
    let (mut vf, mut pci, mut slot, mut standby) = (None, None, None, None);
    let mut announcements = Vec::new();
    for word in words {
        let (key, value) = word.split_once('=').context("KEY=VALUE is expected")?;
        let link = |name| index(name).map(Ifindex);
        match key {
            "watch" => fast_path.ports = value.split(',').map(link).collect::<Result<_>>()?,
            "vf" => vf = Some(link(value)?),
            "device" => pci = Some(value.parse()?),
            "slot" => slot = Some(value.parse()?),
            "standby" => standby = Some(link(value)?),
            "mac" => fast_path.mac = Some(value.parse()?),
            "announce" => announcements.push(hex(value)?),
            other => bail!("no such key: {other}"),
        }
    }
    if let Some(vf) = vf {
        fast_path.armed_vf = Some(ArmedVf {
            vf,
            pci: pci.context("device=NAME is missing")?,
            slot,
            standby: standby.context("standby=PORT is missing")?,
            mac: fast_path.mac.context("mac=MAC is missing")?,
            addresses: Vec::new(),
            upper_devices: 0,
        });
    }
    Ok((fast_path, announcements))
}

fn index(name: &str) -> Result<u32> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    netdevice::name_to_index(any, name).with_context(|| format!("there is no link {name}"))
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<char> = text.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    let bytes: Result<_, _> = digits.chunks(2).map(byte).collect();
    bytes.with_context(|| format!("`{text}` is not hexadecimal"))
}

/// As helper/systemd/tandem.service has them: without `CAP_SYS_NICE` and `CAP_IPC_LOCK` they
/// decide what its threads may have. Where a limit can't be raised, it goes without.
fn take_the_units_limits() {
    for (resource, limit) in [(Resource::Rtprio, 2), (Resource::Memlock, 64 * 1024 * 1024)] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        if let Err(error) = setrlimit(resource, limit) {
            tracing::warn!(%error, ?resource, "a limit stays as it is");
        }
    }
}

/// As helper/systemd/tandem.service has them.
fn keep_the_units_capabilities() -> Result<()> {
    let wanted = CapabilitySet::BPF
        | CapabilitySet::PERFMON
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW;
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
