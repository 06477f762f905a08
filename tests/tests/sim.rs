//! Simulation of the core over a fake kernel: at least 100,000 seeded steps that do something to the guest.
//! A seed that fails is run again by the command that its report ends with. `TANDEM_SIM_MINUTES` goes on with further
//! seeds for so long.

use std::fmt::Debug;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tandem_lab::sim::chaos::{Tally, run, seed_of};
use tandem_lab::sim::contract;
use tandem_lab::sim::fake::FakeKernel;

/// Runs from different seeds.
const RUNS: u64 = 680;
const MINUTE: Duration = Duration::from_secs(60);
/// Disturbances in each.
const STEPS: u64 = 240;

#[test]
fn promises_hold_in_a_rough_world() {
    let only = number("TANDEM_SIM_SEED");
    let until =
        number::<u32>("TANDEM_SIM_MINUTES").map(|minutes| Instant::now() + minutes * MINUTE);
    let mut total = Tally::default();
    let mut failures = Vec::new();
    let mut runs = 0;
    loop {
        let seeds: Vec<_> = match only {
            Some(seed) => vec![seed],
            None => (runs..runs + RUNS).map(seed_of).collect(),
        };
        for result in run_all(&seeds) {
            match result {
                Ok(tally) => total.add(tally),
                Err(report) => failures.push(report),
            }
        }
        runs += seeds.len() as u64;
        let goes_on = until.is_some_and(|until| Instant::now() < until);
        if !goes_on || !failures.is_empty() {
            break;
        }
    }
    if let Some(first) = failures.first() {
        for report in &failures {
            let head: Vec<_> = report.lines().take(2).collect();
            println!("{}", head.join(" "));
        }
        panic!(
            "{} of {runs} runs failed; the first: {first}",
            failures.len()
        );
    }
    println!("{total:#?}");
    if only.is_none() {
        assert!(total.effects >= 100_000, "{total:#?}");
        assert!(total.at_rest >= 10_000, "{total:#?}");
        let kinds = [
            "SetFastPath",
            "ReadFrames",
            "SwitchoverMeasured",
            "CheckPath",
            "Reacted",
            "CarrierLost",
            "TwoVfs",
            "TwoBonds",
            "Occupied",
            "CheckFree",
            "Reloaded",
        ];
        for kind in kinds {
            assert!(total.seen.contains_key(kind), "no {kind} in {total:#?}");
        }
    }
}

/// The number in an environment variable, if it is set.
fn number<N: FromStr<Err: Debug>>(variable: &str) -> Option<N> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect(variable))
}

/// Shares the seeds out to the processors.
fn run_all(seeds: &[u64]) -> Vec<Result<Tally, String>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = seeds.len().div_ceil(threads).max(1);
    let one_share = |seeds: &[u64]| -> Vec<_> {
        let runs = seeds.iter().map(|seed| run(*seed, STEPS));
        runs.collect()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = seeds
            .chunks(share)
            .map(|seeds| scope.spawn(move || one_share(seeds)))
            .collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results
            .flat_map(|result| result.expect("a worker panicked"))
            .collect()
    })
}

#[test]
fn fake_kernel_keeps_the_contract() {
    let results = contract::examine(&mut FakeKernel::new());
    assert_eq!(results.len(), contract::CASES.len());
    for (case, result) in results {
        if let Err(error) = result {
            panic!("{case}: {error:#}");
        }
    }
}
