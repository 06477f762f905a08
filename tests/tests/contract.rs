//! What the core relies on of a kernel, on a real one: the suite that the simulation's fake kernel
//! passes too (`sim.rs`).

use anyhow::Result;
use tandem_lab::Lab;
use tandem_lab::sim::contract;
use tandem_lab::sim::fake::FakeKernel;
use tandem_lab::sim::real::RealKernel;

#[test]
fn real_kernel_keeps_the_contract() {
    let Some(lab) = Lab::for_test("contract") else {
        return;
    };
    let broken = broken(&lab).unwrap();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The cases that the kernel fails, with the reason.
fn broken(lab: &Lab) -> Result<Vec<String>> {
    let mut kernel = RealKernel::boot(lab)?;
    println!("Linux {}", kernel.release()?);
    let mut broken = Vec::new();
    for (case, result) in contract::examine(&mut kernel) {
        match result {
            Ok(()) => println!("kept: {case}"),
            Err(error) => broken.push(format!("{case}: {error:#}")),
        }
    }
    Ok(broken)
}

/// Walks, each from a clean kernel.
const WALKS: u64 = 3;
/// Steps of each.
const STEPS: u32 = 40;

#[test]
fn fake_and_real_kernel_stay_alike() {
    let Some(lab) = Lab::for_test("twins") else {
        return;
    };
    let differences = differences(&lab).unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn differences(lab: &Lab) -> Result<Vec<String>> {
    let only = std::env::var("TANDEM_SIM_SEED").ok();
    let seeds: Vec<u64> = match only {
        Some(seed) => vec![seed.parse()?],
        None => (1..=WALKS).collect(),
    };
    let mut real = RealKernel::boot(lab)?;
    println!("Linux {}", real.release()?);
    let mut differences = Vec::new();
    for seed in seeds {
        let result = contract::walk([&mut FakeKernel::new(), &mut real], seed, STEPS);
        differences.extend(result.err().map(|error| {
            let again = "cargo test --package tandem-lab --test contract stay_alike";
            format!("{error:#}\nrun it again: TANDEM_SIM_SEED={seed} {again}")
        }));
    }
    Ok(differences)
}
