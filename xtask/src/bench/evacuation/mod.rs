//! `cargo xtask bench --evacuation`: Tandem beside the systems it is compared with, in one run; `--carried`: guests whose frames are carried
//! beside those whose are not. Each round takes
//! all of them in turn, so that what else the machine does meets all alike.

mod claims;
mod plot;
mod samples;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tandem_lab::evacuation::{Case, Evacuation, OtherFrames, Stage, Subject, System};
use tandem_lab::probe::FrameOptions;
use tandem_lab::{HotPlug, Lab, NicModel, command};

use super::machine::Machine;
use super::report::{self, Report};
use super::table::Table;
use samples::Samples;

/// What has to be known to read the table.
const ABOUT: &str = "A VF leaves the guest, the VM moves to another host, a VF with another MAC comes. Meanwhile numbered \
    frames go each way, as many a second as a row says, and one TCP connection sends a record every 10 ms. networkd and \
    NetworkManager run in Debian 13 with 1 GiB, all others in a small guest with 384 MiB. A cell is the median, then the \
    least and the most. *Failover* is from the host's first word to half a second after the VF left, *failback* from the \
    new VF's plug to half a second after it carries the traffic; a *gap* is the longest time between the sendings of two \
    frames that arrived with none between them that did. *VF ready* is from the VF's registration until it can carry \
    traffic. Of the failover, by Tandem's own word: *lead* is from the warning to the moment at which the VF began to be \
    unregistered, *reaction* to the request for the switchover, *reported* the gap of the bond's unicast frames. *Carried*: `tandem-host \
    migrate --carry` moves the VM, and holds and carries the frames for it: [page of its own](carried.md). *Tandem's kernel \
    part alone*: the service stands still (SIGSTOP) while the VF is taken.";

/// Systems that are measured at all rates.
const FURTHER_RATES: [System; 5] = [
    System::Floor,
    System::FloorCarried,
    System::TandemCarried,
    System::TandemWarned,
    System::UnmanagedBond,
];

/// What has to be known to read the table of what is carried.
const ABOUT_CARRIED: &str = "A VM moves to another host: with a virtio NIC alone, or with a VF that leaves before and another that \
    comes afterwards. Where it is *carried*, `tandem-host migrate --carry` moves it, and holds and carries the frames for it; where it is \
    not, QEMU alone does. Meanwhile numbered frames go each way, as many a second as a row says; beside them 100 a second over IPv6 and \
    100 broadcasts to the guest, each of which has to come exactly once; and one TCP connection sends a record every 10 ms. The guest \
    is small, with 384 MiB. A cell is the median, then the least and the most. *Lost* to *out of order* count the frames of the row's \
    rate, both ways. A *gap* is the longest time between the sendings of two frames that arrived with none between them that did, of the worse \
    direction; for frames from the guest it begins and ends with their arrival. *TCP again* are the segments that either kernel sent \
    again. *Pause* is from the guest's stop until it was seen to run, by QEMU for the floor; *latest* the longest that a carried frame \
    waited on both hosts.";

/// A kind of comparison, with a page of its own.
pub(super) struct Comparing {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    systems: &'static [System],
    models: &'static [NicModel],
    hot_plug: &'static [HotPlug],
    rates_hz: &'static [u32],
    rounds: u32,
    others: &'static [OtherFrames],
    table: fn(&[Samples]) -> Table,
}

/// Tandem beside all others.
pub(super) const EVACUATION: Comparing = Comparing {
    name: "evacuation",
    title: "Evacuations, side by side",
    about: ABOUT,
    systems: &System::ALL,
    models: &[NicModel::Igb, NicModel::E1000e],
    hot_plug: &[HotPlug::Acpi, HotPlug::Native],
    rates_hz: &[1000],
    rounds: 5,
    others: &[],
    table: table::losses,
};

/// What is carried beside what is not.
pub(super) const CARRIED: Comparing = Comparing {
    name: "carried",
    title: "Frames carried after the guest",
    about: ABOUT_CARRIED,
    systems: &[System::Floor, System::FloorCarried, System::TandemCarried],
    models: &[NicModel::Igb],
    hot_plug: &[HotPlug::Acpi],
    rates_hz: &[1000, 4000],
    rounds: 12,
    others: &OtherFrames::ALL,
    table: table::carried,
};

/// What `cargo xtask bench --evacuation` and `--carried` take.
#[derive(Debug, clap::Args)]
pub(super) struct Comparison {
    /// Evacuations of each system [default: 5, with --carried 12]
    #[arg(long, requires = "moves")]
    rounds: Option<u32>,
    /// Evacuations of Tandem, with all of its parts or the kernel's alone, and of the floor, if other than of the rest
    #[arg(long, requires = "moves")]
    tandem_rounds: Option<u32>,
    /// Evacuations of Tandem planned and of the floor, if other than that: what the migration itself loses varies, and
    /// these two are compared by it
    #[arg(long, requires = "moves")]
    floor_rounds: Option<u32>,
    /// Evacuations with a booted guest before all others have their turn
    #[arg(long, default_value_t = 3, requires = "moves", value_parser = clap::value_parser!(u32).range(1..))]
    rounds_per_boot: u32,
    /// Begin no further guest after so many minutes
    #[arg(long, requires = "moves")]
    minutes: Option<u64>,
    /// Frames a second in each direction; all but the first only for Tandem warned and the bond by a script beside it, and for what
    /// is carried and the floor beside it [default: 1000, with --carried 4000 too]
    #[arg(long, value_delimiter = ',', requires = "moves")]
    rates_hz: Vec<u32>,
    /// Only these systems: floor, tandem-planned, …
    #[arg(long, value_delimiter = ',', requires = "moves")]
    systems: Vec<System>,
    /// What stands in for the VF: igb, e1000e [default: both, with --carried igb]
    #[arg(long, value_delimiter = ',', value_parser = model, requires = "moves")]
    models: Vec<NicModel>,
    /// How hot-plug is signalled: acpi, native [default: both, with --carried acpi]
    #[arg(long, value_delimiter = ',', value_parser = hot_plug, requires = "moves")]
    hot_plug: Vec<HotPlug>,
}

impl Comparison {
    fn rounds_of(&self, comparing: &Comparing, samples: &Samples) -> u32 {
        let rounds = self.rounds.unwrap_or(comparing.rounds);
        match samples.case.system {
            System::Floor
            | System::FloorCarried
            | System::TandemPlanned
            | System::TandemCarried => {
                let more = self.floor_rounds.or(self.tandem_rounds);
                more.unwrap_or(rounds)
            }
            System::TandemWarned | System::TandemKernelAlone => {
                self.tandem_rounds.unwrap_or(rounds)
            }
            _ => rounds,
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

/// What was measured so far.
fn report(comparing: &Comparing, samples: &[Samples], machine: &Machine, took: Duration) -> Report {
    let failures: String = samples
        .iter()
        .flat_map(|one| one.failures.iter().map(move |why| (one.key(), why)))
        .map(|(key, why)| {
            let first = why.lines().next().unwrap_or("");
            format!(" `{key}` came to no end: {first}.")
        })
        .collect();
    let minutes = took.as_secs().div_ceil(60);
    Report {
        name: comparing.name,
        title: comparing.title,
        about: format!(
            "{} All were measured in one run of {minutes} minutes, in turn. QEMU was to keep a migration's stop below \
             {} ms.{failures}",
            comparing.about,
            tandem_lab::DOWNTIME_LIMIT_MS
        ),
        machine: machine.clone(),
        figures: json!({
            "took-s": took.as_secs(),
            "systems": samples.iter().map(Samples::json).collect::<Vec<_>>(),
        }),
        table: (comparing.table)(samples),
        claims: claims::all(samples),
        picture: Some(plot::render(samples)),
    }
}

/// Runs everything, prints it, writes it down, and fails if a claim does not hold or an evacuation came to no end.
pub(super) fn run(options: &Comparison, comparing: &Comparing, page: bool) -> Result<()> {
    let began = Instant::now();
    let mut all = all_samples(options, comparing);
    let machine = Machine::look()?;
    let is_time_up = || {
        let minutes = options
            .minutes
            .map(|minutes| Duration::from_secs(minutes * 60));
        minutes.is_some_and(|limit| began.elapsed() >= limit)
    };
    let most = all
        .iter()
        .map(|one| options.rounds_of(comparing, one))
        .max();
    let per_boot = options.rounds_per_boot;
    // Once more at the end for rounds that a failed guest did not come to.
    for first in (0..most.unwrap_or(0) + per_boot).step_by(per_boot as usize) {
        for samples in &mut all {
            let due = options.rounds_of(comparing, samples).min(first + per_boot);
            let left = (due as usize).saturating_sub(samples.rounds());
            if left > 0 && !is_time_up() {
                evacuate(samples, comparing.others, left.min(per_boot as usize));
            }
        }
        // A run of an hour that is ended early has not been for nothing.
        report(comparing, &all, &machine, began.elapsed()).keep()?;
    }
    report(comparing, &all, &machine, began.elapsed()).publish(page)?;
    let failures: usize = all.iter().map(|one| one.failures.len()).sum();
    ensure!(failures == 0, "{failures} guests failed in this run");
    Ok(())
}

/// Nothing measured yet: all cases at the first rate, and at the others those whose loss hangs on it.
fn all_samples(options: &Comparison, comparing: &Comparing) -> Vec<Samples> {
    let cases = Case::all(
        chosen(&options.systems, comparing.systems),
        chosen(&options.models, comparing.models),
        chosen(&options.hot_plug, comparing.hot_plug),
    );
    let rates_hz = chosen(&options.rates_hz, comparing.rates_hz);
    let mut samples = Vec::new();
    for case in cases {
        for (index, rate_hz) in rates_hz.iter().copied().enumerate() {
            if index == 0 || FURTHER_RATES.contains(&case.system) {
                samples.push(Samples::new(case, rate_hz));
            }
        }
    }
    samples
}

/// These, or what is meant without them.
const fn chosen<'all, T>(these: &'all [T], otherwise: &'all [T]) -> &'all [T] {
    if these.is_empty() { otherwise } else { these }
}

/// Boots one guest and moves it so often. One that fails is no end of the comparison: it is part of it.
fn evacuate(samples: &mut Samples, others: &[OtherFrames], count: usize) {
    let key = samples.key();
    if let Err(error) = try_evacuate(samples, others, count) {
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

fn try_evacuate(samples: &mut Samples, others: &[OtherFrames], count: usize) -> Result<()> {
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
            .evacuate(&lab, &destination, options, others)
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
                "{} {} in {} ms, late {} and {}",
                phase.name,
                phase.lost(),
                phase.longest_gap_ms,
                phase.late_to_guest,
                phase.late_from_guest
            )
        })
        .collect();
    let whole = std::iter::once(&evacuation.total).chain(&evacuation.others);
    let wrong: Vec<_> = whole
        .map(|one| {
            let (lost, twice) = (one.lost(), one.twice);
            format!("{} {lost} {twice} {}", one.name, one.out_of_order())
        })
        .collect();
    let carried = evacuation.carried.as_ref();
    let carried = carried.map_or(String::new(), |carried| format!("; {carried:?}"));
    format!(
        "lost: {}; lost, twice, out of order: {}; TCP sent {} again{carried}",
        phases.join(", "),
        wrong.join(", "),
        evacuation.tcp.sent_again
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_rates_are_for_silent_hosts_only() {
        let options = Comparison {
            rounds: None,
            tandem_rounds: Some(10),
            floor_rounds: Some(20),
            rounds_per_boot: 5,
            minutes: None,
            rates_hz: vec![1000, 500],
            systems: vec![System::Floor, System::TandemWarned, System::UnmanagedBond],
            models: vec![NicModel::Igb],
            hot_plug: vec![HotPlug::Acpi],
        };
        let samples = all_samples(&options, &EVACUATION);
        let rounds: Vec<_> = samples
            .iter()
            .map(|one| (one.key(), options.rounds_of(&EVACUATION, one)))
            .collect();
        let expected = [
            ("floor-1000", 20),
            ("floor-500", 20),
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
