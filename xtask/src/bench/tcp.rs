//! `cargo xtask bench --tcp`: what the fast-path programs cost TCP while they are attached.
//!
//! On this machine's own kernel, over a veth between two network namespaces. The guest's end of it has every
//! program that a frame of a bond passes, so that a frame passes all of them on one device: `bond_egress` of
//! the bond, and `port_egress` and `port_ingress` of its port. Sender and receiver share one processor: nothing
//! runs beside them that could hide what the programs take. Three states take turns, in short rounds:
//!
//! * `without`: nothing is attached;
//! * `armed`: as between switchovers, with the VF at work: the fast path is armed, and what the VF carries is counted;
//! * `counting`: as during a switchover, when the port is watched as well.
//!
//! The redirect itself is not measured: what raises it are hooks of the kernel's PCI and ACPI code.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tandem_lab::net::Namespace;
use tandem_lab::{Lab, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::Quartiles;
use super::table::Table;
use fast_path::{FastPaths, State};
pub(super) use stream::inside;
use stream::{Round, Stream, mib};

mod fast_path;
mod stream;

/// Rounds of each state, unless the command line says otherwise.
const ROUNDS: usize = 40;
/// Rounds in which the kernel takes the programs' own time, which costs time by itself.
const STATISTICS_ROUNDS: usize = 10;
/// How long a round is to take; how many bytes that is, is found out beforehand.
const ROUND: Duration = Duration::from_millis(80);
const FIRST_BYTES: u64 = 8 << 20;
/// Most that the programs may cost of TCP's throughput, in per cent.
const LIMIT_PERCENT: f64 = 5.0;

/// What has to be known to read the table.
const ABOUT: &str = "One TCP connection over a veth between two network namespaces of the machine itself; the guest's end \
    has every program that a frame of a bond passes; sender and receiver share one processor. *Without*: nothing is \
    attached; *armed*: as between switchovers, with the VF at work; *counting*: as during one, for its few hundred ms. A \
    cell is the median and the quartiles. *CPU ratio* is processor time for a byte, to that of the same turn's round \
    without programs. *Single frames* are one segment each, as without any offload, for comparison.";

const GUEST: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// The guest's end of the veth: bond and VF in one.
const BOND: &str = "bond";
/// A port that never carries anything.
const STANDBY: &str = "standby";

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    FromGuest,
    ToGuest,
}

/// What passes the programs at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    /// Up to 64 KiB, as NICs with segmentation offload get them.
    Aggregated,
    /// One segment each, as without any offload.
    Single,
}

/// What one state of one way came to.
struct Row {
    way: Way,
    frames: Frames,
    state: State,
    mib_per_s: Quartiles,
    cpu_us_per_mib: Quartiles,
    /// Of the same turn's round without programs: throughput, and processor time for a byte.
    throughput_ratio: Quartiles,
    cpu_ratio: Quartiles,
    programs: Programs,
}

/// What the kernel says that the programs took.
struct Programs {
    runs_per_mib: f64,
    ns_per_run: f64,
    /// Their share of all processor time, in per cent.
    share_percent: f64,
}

/// Measures, prints, writes JSON, and fails if the programs cost more than they may.
pub(crate) fn run(rounds: Option<usize>, page: bool) -> Result<()> {
    let rounds = rounds.unwrap_or(ROUNDS);
    ensure!(rounds >= 5, "less than five rounds tell nothing");
    let lab = Lab::new("bench-tcp")?;
    let (guest, peer) = (lab.host("g")?, lab.host("p")?);
    let (guest, peer) = (guest.namespace(), peer.namespace());
    connect(guest, peer)?;
    let mut rows = Vec::new();
    for frames in [Frames::Aggregated, Frames::Single] {
        for (namespace, device) in [(guest, BOND), (peer, "peer")] {
            let most = if frames == Frames::Single {
                "1"
            } else {
                "65535"
            };
            namespace.ip(&["link", "set", device, "gso_max_segs", most])?;
        }
        for way in [Way::FromGuest, Way::ToGuest] {
            command::progress(&format!(
                "{rounds} rounds of each state, {}, {}",
                way.name(),
                frames.name()
            ));
            rows.extend(measure(&lab, guest, peer, (way, frames), rounds)?);
        }
    }
    let report = Report {
        name: "tcp",
        title: "What the fast-path programs cost TCP",
        about: format!("{rounds} rounds of each state. {ABOUT}"),
        machine: Machine::without_guests()?,
        figures: json!({
            "rounds": rounds,
            "limit-percent": LIMIT_PERCENT,
            "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
        }),
        table: table(&rows),
        claims: rows.iter().filter_map(Row::claim).collect(),
        picture: None,
    };
    report.publish(page)
}

/// A row for each state of each way.
fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "way",
        "frames",
        "state",
        "MiB/s",
        "CPU µs/MiB",
        "throughput ratio",
        "CPU ratio",
        "programs' runs/MiB",
        "ns a run",
        "% of all CPU",
    ]);
    table.rows.extend(rows.iter().map(Row::cells));
    table
}

fn connect(guest: &Namespace, peer: &Namespace) -> Result<()> {
    guest.ip(&[
        "link",
        "add",
        BOND,
        "type",
        "veth",
        "peer",
        "name",
        "peer",
        "netns",
        peer.name(),
    ])?;
    guest.ip(&[
        "link", "add", STANDBY, "type", "veth", "peer", "name", "unused",
    ])?;
    for (namespace, device, address) in [(guest, BOND, GUEST), (peer, "peer", PEER)] {
        namespace.ip(&["address", "add", &format!("{address}/24"), "dev", device])?;
        namespace.ip(&["link", "set", device, "up"])?;
    }
    guest.ip(&["link", "set", STANDBY, "up"])?;
    guest.ip(&["link", "set", "unused", "up"]).map(|_| ())
}

fn measure(
    lab: &Lab,
    guest: &Namespace,
    peer: &Namespace,
    (way, frames): (Way, Frames),
    rounds: usize,
) -> Result<Vec<Row>> {
    let mut stream = Stream::open(guest, peer, way)?;
    let mut fast_paths = FastPaths::start(lab, guest, false)?;
    // Also warms the connection up.
    let first = stream.round(FIRST_BYTES)?;
    let second = stream.round((FIRST_BYTES as f64 * ROUND.as_secs_f64() / first.wall_s) as u64)?;
    let bytes = (second.bytes as f64 * ROUND.as_secs_f64() / second.wall_s) as u64;
    let mut turns: Vec<[Round; 3]> = Vec::new();
    for turn in 0..rounds {
        let mut one = [second; 3];
        for step in 0..3 {
            let which = (turn + step) % 3;
            fast_paths.set(State::ALL[which])?;
            one[which] = stream.round(bytes)?;
        }
        turns.push(one);
    }
    drop(fast_paths);

    let mut fast_paths = FastPaths::start(lab, guest, true)?;
    let mut rows = Vec::new();
    for (which, state) in State::ALL.into_iter().enumerate() {
        let of =
            |value: fn(&Round) -> f64| Quartiles::of(turns.iter().map(|turn| value(&turn[which])));
        let to_without = |value: fn(&Round) -> f64| {
            Quartiles::of(
                turns
                    .iter()
                    .map(|turn| value(&turn[which]) / value(&turn[0])),
            )
        };
        fast_paths.set(state)?;
        let programs = programs_of(&fast_paths, &mut stream, bytes)?;
        ensure!(
            state == State::Without || programs.runs_per_mib > 0.0,
            "the programs did not run: nothing was measured"
        );
        rows.push(Row {
            way,
            frames,
            state,
            mib_per_s: of(Round::mib_per_s),
            cpu_us_per_mib: of(Round::cpu_us_per_mib),
            throughput_ratio: to_without(Round::mib_per_s),
            cpu_ratio: to_without(Round::cpu_us_per_mib),
            programs,
        });
    }
    Ok(rows)
}

/// The programs' own time, as the kernel takes it; its clock readings are in it too.
fn programs_of(fast_paths: &FastPaths, stream: &mut Stream, bytes: u64) -> Result<Programs> {
    let before = fast_paths.run_time()?;
    let mut cpu_s = 0.0;
    for _ in 0..STATISTICS_ROUNDS {
        cpu_s += stream.round(bytes)?.cpu_s;
    }
    let after = fast_paths.run_time()?;
    let runs = after.runs - before.runs;
    let ns = (after.ns - before.ns) as f64;
    Ok(Programs {
        runs_per_mib: runs as f64 / mib(bytes * STATISTICS_ROUNDS as u64),
        ns_per_run: ns / runs.max(1) as f64,
        share_percent: ns / 1e9 / cpu_s * 100.0,
    })
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::FromGuest => "from the guest",
            Self::ToGuest => "to the guest",
        }
    }
}

impl Frames {
    fn name(self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::Single => "single frames",
        }
    }
}

impl Row {
    /// Throughput of one processor that does nothing else is the inverse of its time for a byte.
    fn cost_percent(&self) -> f64 {
        (1.0 - 1.0 / self.cpu_ratio.median) * 100.0
    }

    /// The limit is one for a veth as it comes; without any offload the figures are for comparison.
    fn is_over(&self) -> bool {
        self.frames == Frames::Aggregated && self.cost_percent() > LIMIT_PERCENT
    }

    /// None of what has no limit.
    fn claim(&self) -> Option<Claim> {
        let (way, state) = (self.way.name(), self.state.name());
        match (self.state, self.frames) {
            (State::Without, _) => Some(Claim {
                text: format!(
                    "{way}, {}, {state}: no program runs, so that they cost nothing",
                    self.frames.name()
                ),
                holds: self.programs.runs_per_mib == 0.0,
            }),
            (_, Frames::Aggregated) => Some(Claim {
                text: format!(
                    "{way}, {state}: {:.1} % of TCP's throughput: at most {LIMIT_PERCENT} %",
                    self.cost_percent()
                ),
                holds: !self.is_over(),
            }),
            (_, Frames::Single) => None,
        }
    }

    fn cells(&self) -> Vec<String> {
        let programs = &self.programs;
        vec![
            self.way.name().to_owned(),
            self.frames.name().to_owned(),
            self.state.name().to_owned(),
            self.mib_per_s.show(0),
            self.cpu_us_per_mib.show(0),
            self.throughput_ratio.show(3),
            self.cpu_ratio.show(3),
            format!("{:.0}", programs.runs_per_mib),
            format!("{:.0}", programs.ns_per_run),
            format!("{:.2}", programs.share_percent),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "way": self.way.name(),
            "frames": self.frames.name(),
            "state": self.state.name(),
            "mib-per-s": self.mib_per_s,
            "cpu-us-per-mib": self.cpu_us_per_mib,
            "throughput-ratio": self.throughput_ratio,
            "cpu-ratio": self.cpu_ratio,
            "cost-percent": self.cost_percent(),
            "programs": {
                "runs-per-mib": self.programs.runs_per_mib,
                "ns-per-run": self.programs.ns_per_run,
                "share-of-cpu-percent": self.programs.share_percent,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_time_for_a_byte_is_less_throughput() {
        let flat = |value| Quartiles {
            low: value,
            median: value,
            high: value,
        };
        let row = |cpu_ratio, frames| Row {
            way: Way::FromGuest,
            frames,
            state: State::Armed,
            mib_per_s: flat(1000.0),
            cpu_us_per_mib: flat(300.0),
            throughput_ratio: flat(1.0),
            cpu_ratio: flat(cpu_ratio),
            programs: Programs {
                runs_per_mib: 0.0,
                ns_per_run: 0.0,
                share_percent: 0.0,
            },
        };
        assert!((row(1.25, Frames::Aggregated).cost_percent() - 20.0).abs() < 1e-9);
        assert!(row(1.06, Frames::Aggregated).is_over());
        let claim = row(1.06, Frames::Aggregated).claim().unwrap();
        assert!(
            !claim.holds && claim.text.contains("armed: 5.7 %"),
            "{}",
            claim.text
        );
        assert_eq!(row(1.06, Frames::Single).claim(), None);
        assert!(!row(1.05, Frames::Aggregated).is_over());
        assert!(!row(1.25, Frames::Single).is_over());
    }
}
