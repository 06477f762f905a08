//! What each system's service costs the guest, measured for itself: one that fails costs the others nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::evacuation::{Cost, CostOptions, System, cost};
use tandem_lab::{Lab, command};

use super::super::machine::Machine;
use super::super::report;
use super::super::spread::Spread;
use super::super::table::Table;
use super::claims;

/// Where they are kept for the page.
const FILE: &str = "costs.json";
/// Every service that has costs: all of Tandem's cases run the same one.
const SYSTEMS: [System; 3] = [
    System::TandemPlanned,
    System::Networkd,
    System::NetworkManager,
];

/// What `cargo xtask bench --costs` takes.
#[derive(Debug, clap::Args)]
pub(in super::super) struct CostsOptions {
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

/// All that were measured.
#[derive(Debug, Default)]
pub(super) struct Costs {
    pub(super) known: Vec<(System, Cost)>,
    /// What could not be measured, and why.
    failures: Vec<(System, String)>,
    machine: Machine,
}

/// Measures, prints and keeps them; fails if one can't be measured or is too high.
pub(in super::super) fn run(options: &CostsOptions, idle: Duration) -> Result<()> {
    let wanted = match options.services.as_slice() {
        [] => SYSTEMS.as_slice(),
        chosen => chosen,
    };
    let mut costs = Costs {
        machine: Machine::look()?,
        ..Costs::default()
    };
    let cost_options = CostOptions {
        pairs: options.pairs,
        making: Duration::from_secs(options.pairs_minutes * 60),
        idle,
    };
    for system in wanted.iter().copied() {
        command::progress(&format!("the cost of {}", system.key()));
        let measured = Lab::new("bench").and_then(|lab| cost(&lab, system, cost_options));
        match measured {
            Ok(cost) => costs.known.extend(cost.map(|cost| (system, cost))),
            Err(error) => {
                command::progress(&format!("{}: FAILED: {error:#}", system.key()));
                costs.failures.push((system, format!("{error:#}")));
            }
        }
        // What another run knows of the others stays, if it was of the same programs on the same machine: an earlier
        // one, or one beside this.
        if !options.services.is_empty()
            && let Ok(kept) = Costs::read()
            && kept.machine == costs.machine
        {
            costs.known.retain(|(system, _)| wanted.contains(system));
            let others = kept.known.into_iter();
            costs
                .known
                .extend(others.filter(|(system, _)| !wanted.contains(system)));
        }
        let text = serde_json::to_string_pretty(&costs.json())?;
        report::write(&report::folder(), FILE, &text)?;
    }
    println!("{}", costs.table().text());
    let claims = claims::all(&[], &costs.known);
    for claim in &claims {
        println!("{}", claim.line());
    }
    ensure!(
        costs.failures.is_empty(),
        "{} services were not measured",
        costs.failures.len()
    );
    report::hold(&claims)
}

impl Costs {
    /// What the last run kept.
    pub(super) fn read() -> Result<Self> {
        Self::of_json(&report::read(FILE)?)
    }

    fn json(&self) -> Value {
        let known = self.known.iter();
        let known = known.map(|(system, cost)| json!({ "system": system.key(), "cost": cost }));
        let failures = self.failures.iter();
        let failures = failures.map(|(system, why)| json!({ "system": system.key(), "why": why }));
        json!({
            "machine": self.machine.json(),
            "costs": known.collect::<Vec<_>>(),
            "failures": failures.collect::<Vec<_>>(),
        })
    }

    fn of_json(value: &Value) -> Result<Self> {
        let each = |name: &str| value[name].as_array().cloned().unwrap_or_default();
        let system = |one: &Value| one["system"].as_str().unwrap_or_default().parse::<System>();
        let known = each("costs").into_iter().map(|one| {
            let cost = serde_json::from_value(one["cost"].clone()).context("a cost")?;
            Ok((system(&one)?, cost))
        });
        let failures = each("failures").into_iter().map(|one| {
            let why = one["why"].as_str().unwrap_or_default().to_owned();
            Ok((system(&one)?, why))
        });
        Ok(Self {
            known: known.collect::<Result<_>>()?,
            failures: failures.collect::<Result<_>>()?,
            machine: Machine::of_json(&value["machine"])?,
        })
    }

    pub(super) fn table(&self) -> Table {
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
        let in_order = SYSTEMS.iter().flat_map(|wanted| {
            self.known
                .iter()
                .filter(move |(system, _)| system == wanted)
        });
        for (system, cost) in in_order {
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            let show = |samples: &mut dyn Iterator<Item = f64>, digits| {
                Spread::of(samples).map_or("–".to_owned(), |one| one.show(digits))
            };
            let wake_ups = |samples: &[f64]| show(&mut samples.iter().copied(), 0);
            table.rows.push(vec![
                name(*system).to_owned(),
                cost.installed_kib
                    .map_or("–".to_owned(), |kib| format!("{} MiB", mib(kib << 10))),
                mib(cost.program_bytes),
                show(
                    &mut cost.resident_kib.iter().map(|kib| *kib as f64 / 1024.0),
                    1,
                ),
                wake_ups(&cost.wake_ups_per_minute),
                format!("{:.1}", cost.signs_of_life_per_minute),
                wake_ups(&cost.unwatched_wake_ups_per_minute),
                cost.pairs.to_string(),
                show(&mut cost.cpu_ms_per_link.iter().copied(), 3),
            ]);
        }
        table
    }

    /// When they were measured, and of which programs: it is not the evacuations' run.
    fn when(&self) -> String {
        let of = |name: &str| self.machine.fact(name);
        match (of("Date"), of("Commit")) {
            (Some(date), Some(commit)) => format!(" of {date}, commit {commit}"),
            _ => String::new(),
        }
    }

    /// A chapter of the page; none without figures.
    pub(super) fn markdown(&self) -> String {
        if self.known.is_empty() && self.failures.is_empty() {
            return String::new();
        }
        let failures = self.failures.iter().map(|(system, why)| {
            let why = why.lines().next().unwrap_or("");
            format!("\nNot measured: {}: {why}\n", name(*system))
        });
        format!(
            "## What the services cost\n\n\
             By `cargo xtask bench --costs`{when}, in Debian 13 with the same bond. The links are pairs of veth interfaces, made in \
             four steps until all are there, or fewer if that took too long, then removed in as many; CPU is that of the \
             service's control group; PID 1 makes no units of them, and udev starts no program for them. Of a service that \
             systemd watches (WatchdogSec=) the wake-ups with nothing to do are its signs of life; a timer of tokio's wakes it \
             up to three times for one (a turn of each wheel), so they are also counted with the watchdog off.\n\n\
             {table}{failures}\n",
            when = self.when(),
            table = self.table().markdown(),
            failures = failures.collect::<String>()
        )
    }
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

    #[test]
    fn costs_are_written_read_and_shown() {
        let cost = Cost {
            resident_kib: vec![9 << 10, 10 << 10],
            wake_ups_per_minute: vec![8.0, 12.0],
            signs_of_life_per_minute: 4.0,
            unwatched_wake_ups_per_minute: vec![0.0],
            pairs: 2000,
            cpu_ms_per_link: vec![1.0, 3.0],
            program_bytes: 3 << 20,
            installed_kib: Some(10 << 10),
        };
        let costs = Costs {
            known: vec![(System::Networkd, cost)],
            failures: vec![(
                System::NetworkManager,
                "it does not calm down\nlog".to_owned(),
            )],
            machine: Machine::of_json(&json!([["Date", "2026-01-31"], ["Commit", "abc"]])).unwrap(),
        };
        let read = Costs::of_json(&costs.json()).unwrap();
        let page = read.markdown();
        for text in [
            "| systemd-networkd | 10.0 MiB | 3.0 | 9.5 (9.0..10.0) | 10 (8..12) | 4.0 | 0 | 2000 | 2.000 (1.000..3.000) |",
            "Not measured: NetworkManager: it does not calm down\n",
            "`cargo xtask bench --costs` of 2026-01-31, commit abc, in Debian 13",
        ] {
            assert!(page.contains(text), "`{text}` is not in:\n{page}");
        }
        assert_eq!(Costs::default().markdown(), "");
    }
}
