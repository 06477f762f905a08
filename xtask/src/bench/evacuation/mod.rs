//! `cargo xtask bench --evacuation`: Tandem beside the systems it is compared with, in one run. Each round takes
//! all of them in turn, so that what else the machine does meets all alike.

mod claims;
mod machine;
mod page;
mod plot;
mod samples;
mod spread;
mod table;
mod tandem;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_lab::artifacts::cache;
use tandem_lab::evacuation::{Case, Cost, CostOptions, Evacuation, Stage, Subject, System, cost};
use tandem_lab::probe::FrameOptions;
use tandem_lab::{HotPlug, Lab, NicModel, command};

use claims::Claim;
use machine::Machine;
use samples::Samples;

/// Where the page is committed.
const RESULTS: &str = "tests/results";

/// A booted guest is moved there and back.
const EVACUATIONS_PER_BOOT: u32 = 2;

/// What `cargo xtask bench --evacuation` takes.
#[derive(Debug, clap::Args)]
pub(super) struct Comparison {
    /// Evacuations of each system
    #[arg(long, default_value_t = 5, requires = "evacuation")]
    rounds: u32,
    /// Evacuations of Tandem, if other than of the rest
    #[arg(long, requires = "evacuation")]
    tandem_rounds: Option<u32>,
    /// Frames a second in each direction
    #[arg(long, default_value_t = 1000, requires = "evacuation")]
    rate_hz: u32,
    /// Only these systems: floor, tandem-planned, …
    #[arg(long, value_delimiter = ',', requires = "evacuation")]
    systems: Vec<System>,
    /// What stands in for the VF
    #[arg(long, value_delimiter = ',', value_parser = model, default_value = "igb,e1000e", requires = "evacuation")]
    models: Vec<NicModel>,
    /// How hot-plug is signalled
    #[arg(long, value_delimiter = ',', value_parser = hot_plug, default_value = "acpi,native", requires = "evacuation")]
    hot_plug: Vec<HotPlug>,
    /// Pairs of unrelated interfaces made and removed beside each service; 0: its cost is not measured
    #[arg(long, default_value_t = 2000, requires = "evacuation")]
    pairs: u32,
    /// Also write the page tests/results/evacuation.md and its picture
    #[arg(long, requires = "evacuation")]
    write_results: bool,
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
    costs: Vec<(System, Cost)>,
    machine: Machine,
    rate_hz: u32,
    took: Duration,
}

impl Results {
    fn claims(&self) -> Vec<Claim> {
        claims::all(&self.samples, &self.costs, self.rate_hz)
    }

    fn print(&self) {
        println!("{}", table::losses(&self.samples).text());
        for line in tandem::lines(&self.samples, self.rate_hz) {
            println!("{line}");
        }
        println!("\n{}", tandem::summary(&self.samples, self.rate_hz).text());
        println!("{}", page::costs(&self.costs).text());
        for claim in self.claims() {
            println!("{}", claim.line());
        }
        for (name, value) in self.machine.facts() {
            println!("{name}: {value}");
        }
    }

    fn json(&self) -> Value {
        let costs = self.costs.iter().map(|(system, cost)| {
            json!({
                "system": system.key(),
                "cost": cost,
                "cpu-ms-per-link": cost.cpu_ms_per_link(),
            })
        });
        let claims = self.claims();
        let claims = claims
            .iter()
            .map(|claim| json!({ "claim": claim.text, "holds": claim.holds }));
        json!({
            "machine": self.machine.json(),
            "rate-hz": self.rate_hz,
            "took-s": self.took.as_secs(),
            "systems": self.samples.iter().map(Samples::json).collect::<Vec<_>>(),
            "costs": costs.collect::<Vec<_>>(),
            "claims": claims.collect::<Vec<_>>(),
        })
    }

    /// JSON and picture; the page too if it is wanted.
    fn write(&self, page: bool) -> Result<()> {
        let folder = cache::target_folder().join("bench");
        let picture = plot::render(&self.samples, self.rate_hz);
        let json = serde_json::to_string_pretty(&self.json())?;
        write(&folder, "evacuation.json", &json)?;
        write(&folder, page::PICTURE, &picture)?;
        if page {
            let folder = cache::workspace_folder().join(RESULTS);
            write(&folder, page::PICTURE, &picture)?;
            write(&folder, "evacuation.md", &page::render(self))?;
        }
        Ok(())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    command::progress(&format!("written: {}", path.display()));
    Ok(())
}

/// Runs everything, prints it, writes it down, and fails if a claim does not hold.
pub(super) fn run(options: &Comparison, idle: Duration) -> Result<()> {
    let systems = match options.systems.as_slice() {
        [] => System::ALL.as_slice(),
        chosen => chosen,
    };
    let cases = Case::all(systems, &options.models, &options.hot_plug);
    let began = Instant::now();
    let mut results = Results {
        samples: cases.into_iter().map(Samples::new).collect(),
        costs: Vec::new(),
        machine: Machine::look()?,
        rate_hz: options.rate_hz,
        took: Duration::ZERO,
    };
    let rounds = |case: &Case| match options.tandem_rounds {
        Some(rounds) if case.system.is_tandem() => rounds,
        _ => options.rounds,
    };
    let most = results.samples.iter().map(|one| rounds(&one.case)).max();
    for first in (0..most.unwrap_or(0)).step_by(EVACUATIONS_PER_BOOT as usize) {
        for samples in &mut results.samples {
            let left = rounds(&samples.case).saturating_sub(first);
            if left > 0 {
                evacuate(samples, left.min(EVACUATIONS_PER_BOOT), options.rate_hz);
            }
        }
        // A run of an hour that is ended early has not been for nothing.
        results.took = began.elapsed();
        results.write(false)?;
    }
    if options.pairs > 0 {
        let cost = CostOptions {
            pairs: options.pairs,
            idle,
        };
        results.costs = costs(systems, cost)?;
    }
    results.took = began.elapsed();
    results.print();
    results.write(options.write_results)?;
    let missed = results.claims().iter().filter(|claim| !claim.holds).count();
    ensure!(missed == 0, "{missed} claims do not hold in this run");
    Ok(())
}

/// What each service costs; Tandem's once, however often it is compared.
fn costs(systems: &[System], options: CostOptions) -> Result<Vec<(System, Cost)>> {
    let mut costs: Vec<(System, Cost)> = Vec::new();
    for system in systems.iter().copied() {
        if system.is_tandem() && costs.iter().any(|(known, _)| known.is_tandem()) {
            continue;
        }
        let lab = Lab::new("bench")?;
        let cost =
            cost(&lab, system, options).with_context(|| format!("the cost of {}", system.key()))?;
        costs.extend(cost.map(|cost| (system, cost)));
    }
    Ok(costs)
}

/// Boots one guest and moves it so often. One that fails is no end of the comparison: it is part of it.
fn evacuate(samples: &mut Samples, count: u32, rate_hz: u32) {
    let key = samples.case.key();
    if let Err(error) = try_evacuate(samples, count, rate_hz) {
        command::progress(&format!("{key}: FAILED: {error:#}"));
        samples.failures.push(format!("{error:#}"));
    }
}

fn try_evacuate(samples: &mut Samples, count: u32, rate_hz: u32) -> Result<()> {
    let key = samples.case.key();
    command::progress(&format!("{key}: booting"));
    let lab = Lab::new("bench")?;
    let stage = Stage::new(&lab)?;
    let mut subject = stage.boot(samples.case)?;
    let options = FrameOptions {
        rate_hz,
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

/// Where Tandem lost frames in a hand-over, its log tells why.
fn keep_log(samples: &Samples, subject: &Subject) -> Result<()> {
    let lost = samples
        .evacuations
        .last()
        .map_or(0, Evacuation::hand_over_loss);
    let log = match lost {
        0 => return Ok(()),
        _ => subject.log()?,
    };
    if !log.is_empty() {
        let name = format!("{}-{}.log", samples.case.key(), samples.evacuations.len());
        let folder = cache::target_folder().join("bench");
        write(&folder, &name, &String::from_utf8_lossy(&log))?;
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
