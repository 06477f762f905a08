//! `cargo xtask bench --watch`: what it costs to watch the path of a VF that carries frames.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::net::{CLIENT_V4, GUEST_V4};
use tandem_lab::probe::{FrameOptions, ProbePair};
use tandem_lab::tandem::{CONFIG, Guest, Setup};
use tandem_lab::{Lab, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::{Spread, show};
use super::table::Table;
use super::tcp::inside;

/// Rounds of each state.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_secs(10);
/// What the change of the configuration and of the load does has passed.
const PAUSE: Duration = Duration::from_secs(3);
/// Frames a second each way, beside a TCP connection.
const RATE_HZ: u32 = 500;
/// The group that the service's processor time is counted by, of all its threads, past ones too.
const GROUP: &str = "/sys/fs/cgroup/tandem";
/// Most of TCP's throughput that the watch may take, in per cent, unless rounds without it differ more among themselves.
const TCP_LIMIT_PERCENT: f64 = 1.0;
/// A connection that has just begun has its speed after this.
const SLOW_START: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 128 << 10;
/// Most of the guest's processor time that the watch may take, in per cent.
const LIMIT_PERCENT: f64 = 1.0;
const ON: &str = "timing.health-ms = 2000";
const OFF: &str = "timing.health-ms = 0";

const ABOUT: &str = "Numbered frames and a TCP connection go both ways through the VF. Rounds with the watch (`health-ms = 2000`, \
    the default) and without it (`health-ms = 0`) take turns. *Service* is the processor time of the service by its control \
    group, *guest* what the guest's processors were busy with in all, the service included. *TCP* is what the guest sends over \
    another connection as fast as it can, in a time of its own after each round. The guest has one processor, and its clock counts \
    instructions, 10^9 a second: what else runs on the machine that measures does not show, and times are the guest's. A cell is the median, the least and the most.";

/// Processor time in a round, and what TCP moved in a second after it.
#[derive(Clone, Copy)]
struct Cost {
    service_us: f64,
    guest_us: f64,
    /// By the guest's clock.
    seconds: f64,
    mib_per_s: f64,
}

/// Measures, prints, writes JSON, and fails if the watch costs more than it may.
pub(super) fn run(page: bool) -> Result<()> {
    let lab = Lab::new("bench-watch")?;
    let setup = Setup {
        bond_lines: vec![ON.to_owned()],
        // Else what runs beside on this machine would count as the guest's.
        counts_instructions: true,
        ..Setup::new()?
    };
    let mut guest = setup.boot(&lab, &lab.host("a")?)?;
    guest.end_service(15)?;
    guest.vm.sh(&format!("mkdir -p {GROUP}"))?;
    let script = format!("echo $$ >{GROUP}/cgroup.procs && exec \"$@\"");
    guest.start_through(&["sh", "-c", &script, "sh"], &[("TANDEM_LOG", "info")])?;
    guest.reach_here(BondState::Accelerated)?;
    let options = FrameOptions {
        rate_hz: RATE_HZ,
        ..FrameOptions::default()
    };
    let probes = ProbePair::start(&lab, &guest.vm, GUEST_V4.into(), options)?;
    let sink = Sink::open(&lab)?;
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        on.push(cost(&guest, &sink, OFF, ON)?);
        off.push(cost(&guest, &sink, ON, OFF)?);
        let number = round + 1;
        command::progress(&format!("{number} of {ROUNDS} rounds of each state"));
    }
    let (_, stream) = probes.finish()?;
    ensure!(stream.broken().is_none(), "the connection broke");
    let rows = [("on", &on), ("off", &off)];
    let report = Report {
        name: "watch",
        title: "What watching the VF's path costs",
        about: ABOUT.to_owned(),
        machine: Machine::look()?,
        figures: rows
            .iter()
            .map(|(watch, costs)| json(watch, costs))
            .collect(),
        table: table(&rows),
        claims: vec![claim(&on, &off)?, tcp_claim(&on, &off)?],
        picture: None,
    };
    report.publish(page)
}

/// The cost of a round with this line in the configuration instead of the other one.
fn cost(guest: &Guest, sink: &Sink, before: &str, line: &str) -> Result<Cost> {
    guest
        .vm
        .sh(&format!("sed -i 's/{before}/{line}/' {CONFIG}"))?;
    guest.reload()?;
    // Nothing to wait for: what passes in this time is what is measured.
    std::thread::sleep(PAUSE);
    let begun = used(guest)?;
    std::thread::sleep(ROUND);
    let ended = used(guest)?;
    Ok(Cost {
        service_us: ended.service_us - begun.service_us,
        guest_us: ended.guest_us - begun.guest_us,
        seconds: ended.seconds - begun.seconds,
        mib_per_s: sink.throughput(guest)?,
    })
}

/// What takes in, at the other end, all that the guest sends.
struct Sink {
    port: u16,
    received: Arc<AtomicU64>,
}

impl Sink {
    fn open(lab: &Lab) -> Result<Self> {
        let listen = || Ok(TcpListener::bind((CLIENT_V4, 0))?);
        let listener = inside(lab.client()?.namespace(), listen)?;
        let port = listener.local_addr()?.port();
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        // Until this process ends: one connection after the other.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                take_in(stream, &count);
            }
        });
        Ok(Self { port, received })
    }

    /// MiB a second that the guest sends as fast as it can.
    fn throughput(&self, guest: &Guest) -> Result<f64> {
        let seconds = (SLOW_START + ROUND + SLOW_START).as_secs();
        let port = self.port;
        guest.vm.sh(&format!(
            "setsid timeout {seconds} nc {CLIENT_V4} {port} </dev/zero >/dev/null 2>&1 & echo $! >/tmp/sender"
        ))?;
        std::thread::sleep(SLOW_START);
        let (before, begun) = (self.received.load(Ordering::Relaxed), uptime_s(guest)?);
        std::thread::sleep(ROUND);
        let bytes = self.received.load(Ordering::Relaxed) - before;
        let took_s = uptime_s(guest)? - begun;
        guest
            .vm
            .sh("kill $(cat /tmp/sender); killall nc 2>/dev/null; true")?;
        ensure!(bytes > 0, "the guest sent nothing");
        Ok(bytes as f64 / f64::from(1 << 20) / took_s)
    }
}

fn take_in(mut stream: TcpStream, count: &AtomicU64) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(bytes @ 1..) = stream.read(&mut chunk) {
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The guest's clock, in s.
fn uptime_s(guest: &Guest) -> Result<f64> {
    let said = guest.vm.sh("cat /proc/uptime")?;
    let first = said.split_whitespace().next().context("no uptime")?;
    Ok(first.parse()?)
}

/// Processor time so far.
fn used(guest: &Guest) -> Result<Cost> {
    let said = guest
        .vm
        .sh(&format!("cat {GROUP}/cpu.stat; grep '^cpu ' /proc/stat"))?;
    let service = said
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))
        .context("no processor time is counted")?;
    let all = said.lines().find_map(|line| line.strip_prefix("cpu "));
    // User, nice, system, idle, waiting, interrupts, software interrupts; in hundredths of a second (proc_stat(5)).
    let fields: Vec<f64> = all
        .context("no processors")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let busy = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|place| fields.get(*place));
    Ok(Cost {
        service_us: service.trim().parse()?,
        guest_us: busy.sum::<f64>() * 1e4,
        seconds: uptime_s(guest)?,
        mib_per_s: 0.0,
    })
}

/// The service's part of the guest's busy time, in per cent.
fn shares(costs: &[Cost]) -> impl Iterator<Item = f64> + '_ {
    costs
        .iter()
        .map(|cost| cost.service_us / cost.guest_us * 100.0)
}

fn claim(on: &[Cost], off: &[Cost]) -> Result<Claim> {
    let median =
        |costs| Ok::<_, anyhow::Error>(Spread::of(shares(costs)).context("no rounds")?.median);
    let costs = median(on)? - median(off)?;
    Ok(Claim {
        text: format!(
            "the watch takes {costs:.2} % of what the guest's processors do: at most {LIMIT_PERCENT} %"
        ),
        holds: costs <= LIMIT_PERCENT,
    })
}

fn tcp_claim(on: &[Cost], off: &[Cost]) -> Result<Claim> {
    let spread =
        |costs: &[Cost]| Spread::of(costs.iter().map(|cost| cost.mib_per_s)).context("no rounds");
    let (on, off) = (spread(on)?, spread(off)?);
    let percent = (1.0 - on.median / off.median) * 100.0;
    let among = (1.0 - off.min / off.median) * 100.0;
    Ok(Claim {
        text: format!(
            "TCP moves {percent:.1} % less with the watch: at most {TCP_LIMIT_PERCENT} %, or {among:.1} % as rounds without it \
             differ among themselves"
        ),
        holds: percent <= TCP_LIMIT_PERCENT.max(among),
    })
}

fn json(watch: &str, costs: &[Cost]) -> Value {
    let of = |value: fn(&Cost) -> f64| costs.iter().map(value).collect::<Vec<_>>();
    json!({
        "watch": watch,
        "service-us": of(|cost| cost.service_us),
        "guest-us": of(|cost| cost.guest_us),
        "tcp-mib-per-s": of(|cost| cost.mib_per_s),
    })
}

fn table(rows: &[(&str, &Vec<Cost>)]) -> Table {
    let mut table = Table::new(&[
        "watch",
        "rounds",
        "service, ms a second",
        "guest, ms a second",
        "service, % of guest",
        "TCP, MiB/s",
    ]);
    for (watch, costs) in rows {
        let ms = |value: fn(&Cost) -> f64| {
            let each = costs.iter().map(|cost| value(cost) / 1e3 / cost.seconds);
            show(Spread::of(each), 1)
        };
        let tcp = costs.iter().map(|cost| cost.mib_per_s);
        table.rows.push(vec![
            (*watch).to_owned(),
            costs.len().to_string(),
            ms(|cost| cost.service_us),
            ms(|cost| cost.guest_us),
            show(Spread::of(shares(costs)), 2),
            show(Spread::of(tcp), 1),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_takes_too_much_is_a_claim_missed() {
        let costs = |service_us| {
            [Cost {
                service_us,
                guest_us: 1e6,
                seconds: 1.0,
                mib_per_s: 0.0,
            }; 3]
        };
        let held = claim(&costs(12e3), &costs(5e3)).unwrap();
        assert!(held.holds && held.text.contains("0.70 %"), "{}", held.text);
        assert!(!claim(&costs(16e3), &costs(5e3)).unwrap().holds);
    }

    #[test]
    fn a_loss_of_throughput_counts_if_it_is_more_than_rounds_differ() {
        let rounds = |all: [f64; 3]| {
            all.map(|mib_per_s| Cost {
                service_us: 0.0,
                guest_us: 1e6,
                seconds: 1.0,
                mib_per_s,
            })
        };
        let holds = |on, off| tcp_claim(&rounds(on), &rounds(off)).unwrap().holds;
        assert!(holds([99.5; 3], [100.0; 3]));
        assert!(!holds([98.0; 3], [100.0; 3]));
        assert!(holds([98.0; 3], [97.0, 100.0, 101.0]));
        assert!(!holds([96.0; 3], [97.0, 100.0, 101.0]));
    }
}
