//! `cargo xtask bench --costs`: what each system's service costs the guest, measured for itself: one that fails costs
//! the others nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tandem_lab::evacuation::{Cost, CostOptions, System, cost};
use tandem_lab::{Lab, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::{Spread, show};
use super::table::Table;

/// Every service that has costs: all of Tandem's cases run the same one.
const SYSTEMS: [System; 3] = [
    System::TandemPlanned,
    System::Networkd,
    System::NetworkManager,
];
/// Tandem's part of networkd's CPU time for a link that is none of its business.
const MOST_OF_NETWORKD: f64 = 0.1;
/// What has to be known to read the table.
const ABOUT: &str = "In Debian 13, with the same bond for each service. The links are pairs of veth interfaces, made in four \
    steps until all are there, or fewer if that took too long, then removed in as many; CPU is that of the service's control \
    group. Of a service that systemd watches (WatchdogSec=) the wake-ups with nothing to do are its signs of life, so they \
    are also counted with the watchdog off.";

/// What `cargo xtask bench --costs` takes.
#[derive(Debug, clap::Args)]
pub(super) struct CostsOptions {
    /// Pairs of unrelated interfaces made and removed beside each service
    #[arg(long, default_value_t = 2000, requires = "costs", value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Begin no further step of making interfaces once it took a service so many minutes
    #[arg(long, default_value_t = 60, requires = "costs")]
    pairs_minutes: u64,
    /// Only these services: tandem-planned, networkd, network-manager
    #[arg(long, value_delimiter = ',', requires = "costs")]
    services: Vec<System>,
}

/// What was measured, and of what it failed.
type Costs = Vec<(System, Result<Cost>)>;

/// Measures, prints and keeps them; fails if one can't be measured or is too high.
pub(super) fn run(options: &CostsOptions, idle: Duration, page: bool) -> Result<()> {
    let wanted = match options.services.as_slice() {
        [] => SYSTEMS.as_slice(),
        chosen => chosen,
    };
    let cost_options = CostOptions {
        pairs: options.pairs,
        making: Duration::from_secs(options.pairs_minutes * 60),
        idle,
    };
    let machine = Machine::look()?;
    let mut costs = Costs::new();
    for system in wanted.iter().copied() {
        command::progress(&format!("the cost of {}", system.key()));
        let measured = Lab::new("bench").and_then(|lab| cost(&lab, system, cost_options));
        costs.extend(measured.transpose().map(|cost| (system, cost)));
        // What an hour has come to is not lost by what comes next.
        report(&costs, &machine).keep()?;
    }
    report(&costs, &machine).publish(page)?;
    let failed: Vec<_> = costs.iter().filter(|(_, cost)| cost.is_err()).collect();
    ensure!(failed.is_empty(), "not measured: {failed:?}");
    Ok(())
}

fn report(costs: &Costs, machine: &Machine) -> Report {
    Report {
        name: "costs",
        title: "What the services cost",
        about: ABOUT.to_owned(),
        machine: machine.clone(),
        figures: costs.iter().map(json).collect(),
        table: table(costs),
        claims: unrelated_links(costs).into_iter().collect(),
        picture: None,
    }
}

fn json((system, cost): &(System, Result<Cost>)) -> Value {
    match cost {
        Ok(cost) => json!({ "system": system.key(), "cost": cost }),
        Err(error) => json!({ "system": system.key(), "failed": format!("{error:#}") }),
    }
}

fn table(costs: &Costs) -> Table {
    let mut table = Table::new(&[
        "service",
        "package, installed",
        "program MiB",
        "resident MiB",
        "wake-ups a minute",
        "signs of life a minute",
        "wake-ups without these",
        "pairs",
        "CPU ms for a link",
    ]);
    let head = table.head.len();
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    for (system, cost) in costs {
        let mut row = vec![name(*system).to_owned()];
        match cost {
            Err(_) => row.push("not measured".to_owned()),
            Ok(cost) => {
                let all =
                    |samples: &[f64], digits| show(Spread::of(samples.iter().copied()), digits);
                let resident = cost.resident_kib.iter();
                let resident = resident.map(|kib| *kib as f64 / 1024.0);
                row.extend([
                    cost.installed_kib
                        .map_or("–".to_owned(), |kib| format!("{} MiB", mib(kib << 10))),
                    mib(cost.program_bytes),
                    show(Spread::of(resident), 1),
                    all(&cost.wake_ups_per_minute, 0),
                    format!("{:.1}", cost.signs_of_life_per_minute),
                    all(&cost.unwatched_wake_ups_per_minute, 0),
                    cost.pairs.to_string(),
                    all(&cost.cpu_ms_per_link, 3),
                ]);
            }
        }
        row.resize(head, "–".to_owned());
        table.rows.push(row);
    }
    table
}

fn unrelated_links(costs: &Costs) -> Option<Claim> {
    let of = |wanted: fn(System) -> bool| {
        let (_, cost) = costs.iter().find(|(system, _)| wanted(*system))?;
        Spread::of(cost.as_ref().ok()?.cpu_ms_per_link.iter().copied())
    };
    let own = of(System::is_tandem)?;
    let networkd = of(|system| system == System::Networkd)?;
    Some(Claim {
        text: format!(
            "CPU for an unrelated link: {:.3} ms, systemd-networkd {:.3} ms: at most a tenth",
            own.median, networkd.median
        ),
        holds: own.median <= networkd.median * MOST_OF_NETWORKD,
    })
}

fn name(system: System) -> &'static str {
    match system {
        system if system.is_tandem() => "Tandem",
        System::Networkd => "systemd-networkd",
        System::NetworkManager => "NetworkManager",
        other => other.title(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(cpu_ms_per_link: &[f64]) -> Result<Cost> {
        Ok(Cost {
            resident_kib: vec![9 << 10, 10 << 10],
            wake_ups_per_minute: vec![8.0, 12.0],
            signs_of_life_per_minute: 4.0,
            unwatched_wake_ups_per_minute: vec![0.0],
            pairs: 2000,
            cpu_ms_per_link: cpu_ms_per_link.to_vec(),
            program_bytes: 3 << 20,
            installed_kib: Some(10 << 10),
        })
    }

    #[test]
    fn what_could_not_be_measured_stands_in_the_table_too() {
        let costs = vec![
            (System::Networkd, cost(&[1.0, 3.0])),
            (System::NetworkManager, Err(anyhow::anyhow!("no calm"))),
        ];
        let rows = table(&costs).rows;
        let expected = "systemd-networkd|10.0 MiB|3.0|9.5 (9.0..10.0)|10 (8..12)|4.0|0|2000|2.000 (1.000..3.000)";
        assert_eq!(rows[0].join("|"), expected);
        assert!(
            rows[1]
                .join("|")
                .starts_with("NetworkManager|not measured|–")
        );
        assert_eq!(json(&costs[1])["failed"], "no calm");
    }

    #[test]
    fn links_may_cost_a_tenth_of_networkds() {
        let held = |own| {
            let costs = vec![
                (System::TandemWarned, cost(&[own])),
                (System::Networkd, cost(&[1.0])),
            ];
            unrelated_links(&costs).unwrap().holds
        };
        assert!(held(0.1) && !held(0.101));
        assert_eq!(
            unrelated_links(&vec![(System::Networkd, cost(&[1.0]))]),
            None
        );
    }
}
