//! `cargo xtask bench --watch`: what it costs to watch the path of a VF that carries frames.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::net::GUEST_V4;
use tandem_lab::probe::{FrameOptions, ProbePair};
use tandem_lab::tandem::{CONFIG, Guest, Setup};
use tandem_lab::{Lab, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::Spread;
use super::table::Table;

/// Rounds of each state.
const ROUNDS: usize = 8;
const ROUND: Duration = Duration::from_secs(10);
/// What the change of the configuration and of the load does has passed.
const PAUSE: Duration = Duration::from_secs(3);
/// Frames a second each way, beside a TCP connection.
const RATE_HZ: u32 = 500;
/// The group that the service's processor time is counted by, of all its threads, past ones too.
const GROUP: &str = "/sys/fs/cgroup/tandem";
/// Most of the guest's processor time that the watch may take, in per cent.
const LIMIT_PERCENT: f64 = 1.0;
const ON: &str = "health-ms = 2000";
const OFF: &str = "health-ms = 0";

const ABOUT: &str = "Numbered frames and a TCP connection go both ways through the VF. Rounds with the watch (`health-ms = 2000`, \
    the default) and without it (`health-ms = 0`) take turns. *Service* is the processor time of the service by its control \
    group, *guest* what the guest's processors were busy with in all, the service included.";

/// Processor time in a round.
#[derive(Clone, Copy)]
struct Cost {
    service_us: f64,
    guest_us: f64,
}

/// Measures, prints, writes JSON, and fails if the watch costs more than it may.
pub(super) fn run(page: bool) -> Result<()> {
    let lab = Lab::new("bench-watch")?;
    let setup = Setup {
        bond_lines: vec![ON.to_owned()],
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
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        on.push(cost(&guest, OFF, ON)?);
        off.push(cost(&guest, ON, OFF)?);
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
        claims: vec![claim(&on, &off)?],
        picture: None,
    };
    report.publish(page)
}

/// The cost of a round with this line in the configuration instead of the other one.
fn cost(guest: &Guest, before: &str, line: &str) -> Result<Cost> {
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
    })
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

fn json(watch: &str, costs: &[Cost]) -> Value {
    let of = |value: fn(&Cost) -> f64| costs.iter().map(value).collect::<Vec<_>>();
    json!({ "watch": watch, "service-us": of(|cost| cost.service_us), "guest-us": of(|cost| cost.guest_us) })
}

fn table(rows: &[(&str, &Vec<Cost>)]) -> Table {
    let mut table = Table::new(&[
        "watch",
        "rounds",
        "service, ms a second",
        "guest, ms a second",
        "service, % of guest",
    ]);
    let seconds = ROUND.as_secs_f64();
    for (watch, costs) in rows {
        let ms = |value: fn(&Cost) -> f64| {
            let spread = Spread::of(costs.iter().map(|cost| value(cost) / 1e3 / seconds));
            spread.map_or_else(String::new, |spread| spread.show(1))
        };
        let shares = Spread::of(shares(costs));
        table.rows.push(vec![
            (*watch).to_owned(),
            costs.len().to_string(),
            ms(|cost| cost.service_us),
            ms(|cost| cost.guest_us),
            shares.map_or_else(String::new, |spread| spread.show(2)),
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
            }; 3]
        };
        let held = claim(&costs(12e3), &costs(5e3)).unwrap();
        assert!(held.holds && held.text.contains("0.70 %"), "{}", held.text);
        assert!(!claim(&costs(16e3), &costs(5e3)).unwrap().holds);
    }
}
