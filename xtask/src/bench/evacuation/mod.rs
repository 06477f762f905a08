//! `cargo xtask bench --evacuation`: Tandem beside the systems it is compared with, in one run. Each round takes
//! all of them in turn, so that what else the machine does meets all alike.

mod samples;
mod spread;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_lab::evacuation::{Case, Stage, System};
use tandem_lab::probe::FrameOptions;
use tandem_lab::{HotPlug, Lab, NicModel, command};

use samples::Samples;

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

/// Runs everything, prints it, and writes it down.
pub(super) fn run(options: &Comparison, idle: Duration) -> Result<()> {
    let _ = idle;
    let systems = match options.systems.as_slice() {
        [] => System::ALL.as_slice(),
        chosen => chosen,
    };
    let cases = Case::all(systems, &options.models, &options.hot_plug);
    let mut all: Vec<_> = cases.into_iter().map(Samples::new).collect();
    let began = Instant::now();
    let rounds = |case: &Case| match options.tandem_rounds {
        Some(rounds) if case.system.is_tandem() => rounds,
        _ => options.rounds,
    };
    let most = all.iter().map(|samples| rounds(&samples.case)).max();
    for first in (0..most.unwrap_or(0)).step_by(EVACUATIONS_PER_BOOT as usize) {
        for samples in &mut all {
            let left = rounds(&samples.case).saturating_sub(first);
            if left > 0 {
                evacuate(samples, left.min(EVACUATIONS_PER_BOOT), options.rate_hz);
            }
        }
    }
    print!("{}", table::losses(&all).text());
    println!("took {} s", began.elapsed().as_secs());
    Ok(())
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
    }
    Ok(())
}

fn told(evacuation: &tandem_lab::evacuation::Evacuation) -> String {
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
