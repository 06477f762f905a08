//! `cargo xtask bench --evacuation`: Tandem beside the systems it is compared with, in one run. Each round takes
//! all of them in turn, so that what else the machine does meets all alike.

mod claims;
pub(super) mod costs;
mod page;
mod plot;
mod samples;
mod table;
mod tandem;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::evacuation::{Case, Evacuation, Stage, Subject, System};
use tandem_lab::probe::FrameOptions;
use tandem_lab::{HotPlug, Lab, NicModel, command};

use super::machine::Machine;
use super::report::{self, Claim};
use costs::Costs;
use samples::Samples;

const FILE: &str = "evacuation.json";
const PAGE: &str = "evacuation.md";

/// Systems that are measured at all rates.
const FURTHER_RATES: [System; 2] = [System::TandemWarned, System::UnmanagedBond];

/// What `cargo xtask bench --evacuation` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Comparison {
    /// Evacuations of each system
    #[arg(long, default_value_t = 5, requires = "evacuation")]
    rounds: u32,
    /// Evacuations of Tandem, with all of its parts or the kernel's alone, and of the floor, if other than of the rest
    #[arg(long, requires = "evacuation")]
    tandem_rounds: Option<u32>,
    /// Evacuations of Tandem planned and of the floor, if other than that: what the migration itself loses varies, and
    /// these two are compared by it
    #[arg(long, requires = "evacuation")]
    floor_rounds: Option<u32>,
    /// Evacuations with a booted guest before all others have their turn
    #[arg(long, default_value_t = 3, requires = "evacuation", value_parser = clap::value_parser!(u32).range(1..))]
    rounds_per_boot: u32,
    /// Begin no further guest after so many minutes
    #[arg(long, requires = "evacuation")]
    minutes: Option<u64>,
    /// Frames a second in each direction; all but the first only for Tandem warned, and the bond by a script beside it
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000",
        requires = "evacuation"
    )]
    rates_hz: Vec<u32>,
    /// Only these systems: floor, tandem-planned, …
    #[arg(long, value_delimiter = ',', requires = "evacuation")]
    systems: Vec<System>,
    /// What stands in for the VF
    #[arg(long, value_delimiter = ',', value_parser = model, default_value = "igb,e1000e", requires = "evacuation")]
    models: Vec<NicModel>,
    /// How hot-plug is signalled
    #[arg(long, value_delimiter = ',', value_parser = hot_plug, default_value = "acpi,native", requires = "evacuation")]
    hot_plug: Vec<HotPlug>,
}

impl Comparison {
    fn rounds_of(&self, samples: &Samples) -> u32 {
        match samples.case.system {
            System::Floor | System::TandemPlanned => {
                let more = self.floor_rounds.or(self.tandem_rounds);
                more.unwrap_or(self.rounds)
            }
            System::TandemWarned | System::TandemKernelAlone => {
                self.tandem_rounds.unwrap_or(self.rounds)
            }
            _ => self.rounds,
        }
    }
}

fn model(text: &str) -> Result<NicModel, String> {
    match text {
        "igb" => Ok(NicModel::Igb),
        "e1000e" => Ok(NicModel::E1000e),
        _ => Err("it can be igb or e1000e".to_owned()),
    }
}

fn hot_plug(text: &str) -> Result<HotPlug, String> {
    match text {
        "acpi" => Ok(HotPlug::Acpi),
        "native" => Ok(HotPlug::Native),
        _ => Err("it can be acpi or native".to_owned()),
    }
}

/// Everything that was measured.
struct Results {
    samples: Vec<Samples>,
    costs: Costs,
    machine: Machine,
    took: Duration,
}

impl Results {
    fn claims(&self) -> Vec<Claim> {
        claims::all(&self.samples, &self.costs.known)
    }

    fn print(&self) {
        println!("{}", table::losses(&self.samples).text());
        for line in tandem::lines(&self.samples) {
            println!("{line}");
        }
        println!("\n{}", tandem::summary(&self.samples).text());
        println!("{}", self.costs.table().text());
        for claim in self.claims() {
            println!("{}", claim.line());
        }
        print!("{}", self.machine.text());
    }

    fn json(&self) -> Value {
        json!({
            "machine": self.machine.json(),
            "took-s": self.took.as_secs(),
            "systems": self.samples.iter().map(Samples::json).collect::<Vec<_>>(),
            "claims": report::json(&self.claims()),
        })
    }

    /// What [`Self::json`] gave.
    fn of_json(value: &Value, costs: Costs) -> Result<Self> {
        let systems = value["systems"].as_array().context("no systems")?;
        Ok(Self {
            samples: systems
                .iter()
                .map(Samples::of_json)
                .collect::<Result<_>>()?,
            costs,
            machine: Machine::of_json(&value["machine"])?,
            took: Duration::from_secs(value["took-s"].as_u64().context("no time")?),
        })
    }

    /// JSON and picture.
    fn write(&self) -> Result<()> {
        let folder = report::folder();
        report::write(&folder, FILE, &serde_json::to_string_pretty(&self.json())?)?;
        report::write(&folder, page::PICTURE, &plot::render(&self.samples))
    }

    fn write_page(&self) -> Result<()> {
        let folder = report::pages();
        report::write(&folder, page::PICTURE, &plot::render(&self.samples))?;
        report::write(&folder, PAGE, &page::render(self))
    }

    fn failures(&self) -> usize {
        self.samples.iter().map(|one| one.failures.len()).sum()
    }
}

/// Writes the page anew from what the last runs of `--evacuation` and `--costs` kept.
pub(super) fn write_page() -> Result<()> {
    let costs = Costs::read().unwrap_or_else(|error| {
        command::progress(&format!("a page without costs: {error:#}"));
        Costs::default()
    });
    let results = Results::of_json(&report::read(FILE)?, costs)?;
    results.print();
    results.write_page()?;
    report::hold(&results.claims())
}

/// Runs everything, prints it, writes it down, and fails if a claim does not hold or an evacuation came to no end.
pub(super) fn run(options: &Comparison, page: bool) -> Result<()> {
    let began = Instant::now();
    let mut results = Results {
        samples: all_samples(options),
        costs: Costs::read().unwrap_or_default(),
        machine: Machine::look()?,
        took: Duration::ZERO,
    };
    let is_time_up = || {
        let minutes = options
            .minutes
            .map(|minutes| Duration::from_secs(minutes * 60));
        minutes.is_some_and(|limit| began.elapsed() >= limit)
    };
    let most = results
        .samples
        .iter()
        .map(|one| options.rounds_of(one))
        .max();
    let per_boot = options.rounds_per_boot;
    // Once more at the end for rounds that a failed guest did not come to.
    for first in (0..most.unwrap_or(0) + per_boot).step_by(per_boot as usize) {
        for samples in &mut results.samples {
            let due = options.rounds_of(samples).min(first + per_boot);
            let left = (due as usize).saturating_sub(samples.rounds());
            if left > 0 && !is_time_up() {
                evacuate(samples, left.min(per_boot as usize));
            }
        }
        // A run of an hour that is ended early has not been for nothing.
        results.took = began.elapsed();
        results.write()?;
    }
    results.print();
    if page {
        results.write_page()?;
    }
    let failures = results.failures();
    ensure!(failures == 0, "{failures} guests failed in this run");
    report::hold(&results.claims())
}

/// Nothing measured yet: all cases at the first rate, and at the others those whose loss hangs on it.
fn all_samples(options: &Comparison) -> Vec<Samples> {
    let systems = match options.systems.as_slice() {
        [] => System::ALL.as_slice(),
        chosen => chosen,
    };
    let cases = Case::all(systems, &options.models, &options.hot_plug);
    let mut samples = Vec::new();
    for case in cases {
        for (index, rate_hz) in options.rates_hz.iter().copied().enumerate() {
            if index == 0 || FURTHER_RATES.contains(&case.system) {
                samples.push(Samples::new(case, rate_hz));
            }
        }
    }
    samples
}

/// Boots one guest and moves it so often. One that fails is no end of the comparison: it is part of it.
fn evacuate(samples: &mut Samples, count: usize) {
    let key = samples.key();
    if let Err(error) = try_evacuate(samples, count) {
        let text = format!("{error:#}");
        command::progress(&format!("{key}: FAILED: {text}"));
        // The page has its first line only.
        let number = samples.failures.len() + 1;
        let name = format!("{key}-failed-{number}.log");
        if let Err(error) = report::write(&report::folder(), &name, &text) {
            command::progress(&format!("{name} is not kept: {error:#}"));
        }
        samples.failures.push(text);
    }
}

fn try_evacuate(samples: &mut Samples, count: usize) -> Result<()> {
    let key = samples.key();
    command::progress(&format!("{key}: booting"));
    let lab = Lab::new("bench")?;
    let stage = Stage::new(&lab)?;
    let mut subject = stage.boot(samples.case)?;
    let options = FrameOptions {
        rate_hz: samples.rate_hz,
        ..FrameOptions::default()
    };
    for _ in 0..count {
        let destination = stage.other_host(&subject).clone();
        let evacuation = subject
            .evacuate(&lab, &destination, options)
            .with_context(|| format!("evacuation {} of {key}", samples.evacuations.len() + 1))?;
        command::progress(&format!("{key}: {}", told(&evacuation)));
        samples.evacuations.push(evacuation);
        keep_log(samples, &subject)?;
    }
    Ok(())
}

/// Where Tandem lost frames in a switchover, its log tells why.
fn keep_log(samples: &Samples, subject: &Subject) -> Result<()> {
    let lost = samples
        .evacuations
        .last()
        .map_or(0, Evacuation::loss_outside_migration);
    let log = match lost {
        0 => return Ok(()),
        _ => subject.log()?,
    };
    if !log.is_empty() {
        let name = format!("{}-{}.log", samples.key(), samples.evacuations.len());
        report::write(&report::folder(), &name, &String::from_utf8_lossy(&log))?;
    }
    Ok(())
}

fn told(evacuation: &Evacuation) -> String {
    let phases = evacuation.phases.iter().chain([&evacuation.total]);
    let phases: Vec<_> = phases
        .map(|phase| {
            format!(
                "{} {} in {} ms",
                phase.name,
                phase.lost(),
                phase.longest_gap_ms
            )
        })
        .collect();
    format!("lost: {}", phases.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_rates_are_for_silent_hosts_only() {
        let options = Comparison {
            rounds: 5,
            tandem_rounds: Some(10),
            floor_rounds: Some(20),
            rounds_per_boot: 5,
            minutes: None,
            rates_hz: vec![1000, 500],
            systems: vec![System::Floor, System::TandemWarned, System::UnmanagedBond],
            models: vec![NicModel::Igb],
            hot_plug: vec![HotPlug::Acpi],
        };
        let samples = all_samples(&options);
        let rounds: Vec<_> = samples
            .iter()
            .map(|one| (one.key(), options.rounds_of(one)))
            .collect();
        let expected = [
            ("floor-1000", 20),
            ("tandem-warned-igb-acpi-1000", 10),
            ("tandem-warned-igb-acpi-500", 10),
            ("unmanaged-bond-igb-acpi-1000", 5),
            ("unmanaged-bond-igb-acpi-500", 5),
        ];
        assert_eq!(
            rounds,
            expected.map(|(key, rounds)| (key.to_owned(), rounds))
        );
    }
}
