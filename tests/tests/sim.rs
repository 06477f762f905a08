//! Simulation of the core over a fake kernel: at least 100,000 seeded steps that do something to the guest.
//! A seed that fails is run again by the command that its report ends with.

use tandem_lab::sim::chaos::{Tally, run, seed_of};
use tandem_lab::sim::contract;
use tandem_lab::sim::fake::FakeKernel;

/// Runs from different seeds.
const RUNS: u64 = 680;
/// Disturbances in each.
const STEPS: u64 = 240;

#[test]
fn promises_hold_in_a_rough_world() {
    let only = std::env::var("TANDEM_SIM_SEED").ok();
    let only: Option<u64> = only.map(|text| text.parse().expect("TANDEM_SIM_SEED is a number"));
    let seeds = match only {
        Some(seed) => vec![seed],
        None => (0..RUNS).map(seed_of).collect(),
    };
    let mut total = Tally::default();
    let mut failures = Vec::new();
    for result in run_all(&seeds) {
        match result {
            Ok(tally) => total.add(tally),
            Err(report) => failures.push(report),
        }
    }
    if let Some(first) = failures.first() {
        for report in &failures {
            let head: Vec<_> = report.lines().take(2).collect();
            println!("{}", head.join(" "));
        }
        panic!(
            "{} of {} runs failed; the first: {first}",
            failures.len(),
            seeds.len()
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
            "Reloaded",
        ];
        for kind in kinds {
            assert!(total.seen.contains_key(kind), "no {kind} in {total:#?}");
        }
    }
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
