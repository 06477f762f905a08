//! Guests that speak the channel's dialect on real sockets, and somebody who watches them all.

use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_core::policy::{HostMay, Origin};
use tandem_core::status::{
    BondState, BondStatus, CheckItem, Event, Gap, PortStatus, SourceHealth, SourceStatus, Status,
    Switchover, SwitchoverCause, Traffic,
};
use tandem_core::types::{IfName, Ifindex, Time};
use tandem_host::control::{ControlReply, ControlRequest, Watching};
use tandem_wire::event::{EventMessage, Pushed, Timestamp};
use tandem_wire::message::{Call, Received, RequestLine};
use tandem_wire::reply::{
    Configured, Empty, GuestInfo, ReturnLine, StatusReport, delimited_sync_line,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

use super::name;

/// Between two changes, each in another guest.
const PACE: Duration = Duration::from_millis(5);
/// A change that is not seen within this is lost.
const LOST: Duration = Duration::from_secs(30);
/// Switchovers in each status.
const SWITCHOVERS: u64 = 8;

/// Serves all guests and does what standard input says.
pub(super) fn run(runtime: &tokio::runtime::Runtime, folder: PathBuf, count: usize) -> Result<()> {
    let mut guests = Vec::new();
    for number in 0..count {
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(folder.join(name(number)))?
        };
        let (changes, changed) = watch::channel(1);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One that breaks off is followed by another one.
                let _ = guest(stream, changed.clone()).await;
            }
        });
        guests.push(changes);
    }
    let (seen, sights) = channel();
    let socket = folder.join("serve.sock");
    // It has a thread of its own, so that the guests do not wait for it, nor it for them.
    std::thread::spawn(move || watch_all(&socket, &seen));
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        // Whoever waits for it is gone only when all is over.
        let _ = end.send(command(&guests, &sights));
    });
    runtime
        .block_on(ended)
        .unwrap_or_else(|_| anyhow::bail!("the thread of commands panicked"))
}

/// A domain and generation, and when it was seen.
type Sight = (String, u64, Instant);

fn watch_all(socket: &Path, seen: &Sender<Sight>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let request = ControlRequest::Watch {
            uri: "simulated:///".to_owned(),
            domain: None,
        };
        let mut watching = loop {
            match Watching::ask(socket, &request).await {
                Ok(watching) => break watching,
                // The service is about to begin.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        loop {
            if let ControlReply::Domain(shown) = watching.next().await?
                && let Some(guest) = shown.report.guest
            {
                let generation = guest.status.generation;
                seen.send((shown.report.domain, generation, Instant::now()))?;
            }
        }
    })
}

fn command(guests: &[watch::Sender<u64>], sights: &Receiver<Sight>) -> Result<()> {
    let mut known: HashMap<String, u64> = HashMap::new();
    while known.len() < guests.len() {
        let (name, generation, _) = sights.recv_timeout(LOST).context("not all subscribed")?;
        known.insert(name, generation);
    }
    println!("subscribed");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (word, number) = line.split_once(' ').context("a command")?;
        ensure!(word == "changes", "no command `{word}`");
        let latencies = change(guests, sights, number.parse()?)?;
        println!("{}", figures(latencies));
    }
    Ok(())
}

/// Changes one guest after the other; returns how long each took to be seen.
fn change(
    guests: &[watch::Sender<u64>],
    sights: &Receiver<Sight>,
    count: usize,
) -> Result<Vec<Duration>> {
    let mut begun: HashMap<(String, u64), Instant> = HashMap::new();
    let mut latencies = Vec::new();
    let mut take = |(domain, generation, at): Sight, begun: &mut HashMap<_, Instant>| {
        if let Some(since) = begun.remove(&(domain, generation)) {
            latencies.push(at - since);
        }
    };
    for number in 0..count {
        let place = number % guests.len();
        let guest = &guests[place];
        let generation = *guest.borrow() + 1;
        begun.insert((name(place), generation), Instant::now());
        guest.send_replace(generation);
        let next = Instant::now() + PACE;
        while let Some(rest) = next.checked_duration_since(Instant::now()) {
            if let Ok(sight) = sights.recv_timeout(rest) {
                take(sight, &mut begun);
            }
        }
    }
    while !begun.is_empty() {
        let sight = sights.recv_timeout(LOST);
        take(
            sight.with_context(|| format!("{} changes were never seen", begun.len()))?,
            &mut begun,
        );
    }
    Ok(latencies)
}

fn figures(mut latencies: Vec<Duration>) -> serde_json::Value {
    latencies.sort();
    let at = |share: usize| {
        let place = (latencies.len() * share / 1000).min(latencies.len().saturating_sub(1));
        latencies.get(place).map_or(0, Duration::as_micros) as u64
    };
    json!({ "changes": latencies.len(), "median_us": at(500), "p99_us": at(990), "max_us": at(1000) })
}

/// One connection to one guest.
async fn guest(stream: UnixStream, mut changes: watch::Receiver<u64>) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    let mut subscribed = false;
    loop {
        tokio::select! {
            count = read.read_until(b'\n', &mut line) => {
                ensure!(count? > 0, "hung up");
                let text = std::str::from_utf8(line.strip_prefix(b"\xff").unwrap_or(&line))?;
                let request = RequestLine::parse(text.trim_end());
                let request = request.map_err(|refused| refused.error)?;
                subscribed |= matches!(request.call, Call::TandemSubscribe);
                let generation = *changes.borrow_and_update();
                write.write_all(&answer(request, generation)?).await?;
                line.clear();
            }
            changed = changes.changed(), if subscribed => {
                changed?;
                let generation = *changes.borrow();
                write.write_all(&event(generation)?).await?;
            }
        }
    }
}

fn answer(request: Received, generation: u64) -> Result<Vec<u8>> {
    let to = request.reply_to;
    Ok(match request.call {
        Call::GuestSyncDelimited(sync) => delimited_sync_line(sync.id, to),
        Call::GuestInfo(_) => ReturnLine::new(GuestInfo::new("simulated"), to).to_line(),
        Call::TandemConfigure(_) => {
            let configured = Configured {
                bonds: vec![bond_name()?],
                changed: true,
            };
            ReturnLine::new(configured, to).to_line()
        }
        Call::TandemSubscribe => ReturnLine::new(Empty {}, to).to_line(),
        _ => ReturnLine::new(status(generation)?, to).to_line(),
    })
}

fn bond_name() -> Result<IfName> {
    Ok("bond0".parse()?)
}

fn traffic(generation: u64) -> (BondState, Traffic) {
    if generation % 2 == 1 {
        (BondState::Accelerated, Traffic::Vf)
    } else {
        (BondState::Standby, Traffic::Standby)
    }
}

fn event(generation: u64) -> Result<Vec<u8>> {
    let (state, traffic) = traffic(generation);
    let message = EventMessage {
        event: Pushed::Bond(Event::StateChanged {
            bond: bond_name()?,
            state,
            traffic,
            reason: "simulated".to_owned(),
        }),
        timestamp: Timestamp::default(),
    };
    Ok(message.to_line())
}

/// As long as a real guest's.
fn status(generation: u64) -> Result<StatusReport> {
    let (state, traffic) = traffic(generation);
    let port = |name: &str, index: u32, active: bool| -> Result<PortStatus> {
        Ok(PortStatus {
            name: name.parse()?,
            ifindex: Ifindex(index),
            mac: "52:54:00:12:34:01".parse().ok(),
            pci: "0000:07:00.0".parse().ok(),
            driver: Some("igbvf".to_owned()),
            enslaved: true,
            active,
            carrier: true,
            held: None,
            unproved: None,
        })
    };
    let switchover = |number| Switchover {
        number,
        at: Time(number * 1_000_000),
        from: Traffic::Vf,
        to: Traffic::Standby,
        cause: SwitchoverCause::Planned,
        took_us: Some(900),
        lead_us: None,
        warned_by: None,
        reaction_us: None,
        gap: Some(Gap {
            receive_us: Some(5700),
            transmit_us: Some(4700),
            late_frames: 1,
            drain_us: Some(300),
        }),
    };
    let sources = tandem_core::input::Source::Links;
    let part = |number| CheckItem {
        name: format!("program-{number}"),
        ok: true,
        detail: "attached".to_owned(),
    };
    let bond = BondStatus {
        name: bond_name()?,
        ifindex: Some(Ifindex(7)),
        mac: "52:54:00:12:34:01".parse().ok(),
        state,
        traffic,
        reason: "the VF is ready".to_owned(),
        standby: Some(port("enp1s0", 2, traffic == Traffic::Standby)?),
        vf: Some(port("enp7s0", 3, traffic == Traffic::Vf)?),
        backup_vfs: Vec::new(),
        known_vfs: Vec::new(),
        addresses: Vec::new(),
        problems: Vec::new(),
        fast_path_armed: true,
        next_deadline: None,
        switchovers: (1..=SWITCHOVERS).map(switchover).collect(),
        switchover_count: SWITCHOVERS,
    };
    Ok(StatusReport {
        tandem_protocol: tandem_wire::PROTOCOL,
        version: "simulated".to_owned(),
        now: Time(1),
        status: Status {
            generation,
            policy: Origin::Host,
            host_may: HostMay::default(),
            problems: Vec::new(),
            bonds: vec![bond],
            sources: vec![SourceStatus {
                source: sources,
                health: SourceHealth::Working,
                lost: 0,
                parts: (0..8).map(part).collect(),
            }],
        },
    })
}
