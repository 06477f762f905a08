//! The carry's decisions between two fake hosts with their taps, a switch, hypervisors and a stream: thousands of
//! seeded runs in which anything may fail. A seed that fails is run again by the command that its report ends with.

mod halves;
mod hypervisor;
mod network;
mod oracle;
mod pipe;
mod plan;
mod rng;
mod tap;
mod world;

use std::collections::BTreeMap;

use rng::Rng;
use world::World;

/// Runs from different seeds.
const RUNS: u64 = 6_000;

/// How long the network sends to the guest, in ms.
const SENDS_MS: u64 = 600;

/// All limits are over by then, in ms.
const LONGEST_MS: u64 = 2_600;

/// How often something happened.
type Tally = BTreeMap<String, u64>;

#[test]
fn frames_come_once_in_order_and_none_is_lost_uncounted() {
    let only = std::env::var("TANDEM_CARRY_SEED").ok();
    if let Some(seed) = only {
        let seed = seed.parse().expect("TANDEM_CARRY_SEED is a number");
        let tally = one(seed, true).unwrap_or_else(|report| panic!("{report}"));
        println!("{tally:#?}");
        return;
    }
    let mut total = Tally::new();
    let mut failed = Vec::new();
    for number in 0..RUNS {
        let seed = Rng::new(number).bits();
        let seen = one(seed, false).unwrap_or_else(|report| {
            failed.push(report);
            Tally::new()
        });
        for (what, count) in seen {
            *total.entry(what).or_default() += count;
        }
    }
    println!("{total:#?}");
    let first: Vec<_> = failed.iter().take(10).map(String::as_str).collect();
    assert!(
        failed.is_empty(),
        "{} runs failed: {}",
        failed.len(),
        first.join("")
    );
    assert_eq!(total["runs"], RUNS);
    // A schedule in which these don't happen proves nothing of them.
    for what in [
        "carried",
        "given back",
        "forwarded",
        "twins",
        "own",
        "swept",
        "left to the network",
        "left to the source",
        "over a limit",
        "late",
    ] {
        assert!(total[what] > 0, "never seen: {what}");
    }
    for cause in [
        "done",
        "HoldTooLong",
        "TooMuch",
        "StopRefused",
        "MigrationFailed",
        "NeverResumed",
        "StreamEnded",
        "Foreign",
        "OtherHalf",
    ] {
        let ended = total.get(&format!("ended: {cause}")).copied();
        assert!(ended > Some(0), "no carry ended so: {cause}");
    }
}

fn one(seed: u64, with_history: bool) -> Result<Tally, String> {
    let mut world = World::new(seed, with_history);
    let verdict = run(&mut world);
    verdict.map(|()| tally(&world)).map_err(|what| {
        let history = world.history.take().unwrap_or_default().join("\n");
        format!("{history}\n{:?}: {what}\nTANDEM_CARRY_SEED={seed} cargo test -p tandem-carry --test fault_schedule", world.plan.fault)
    })
}

fn run(world: &mut World) -> Result<(), String> {
    for ms in 0..LONGEST_MS {
        world.step(ms < SENDS_MS);
        world.check_step()?;
        if ms > SENDS_MS + 50 && world.is_over() && world.is_quiet() {
            break;
        }
    }
    // The guest reads what waits for it.
    for _ in 0..200 {
        world.step(false);
    }
    let mut last = Vec::new();
    for _ in 0..20 {
        last.push(world.network.send_to_guest(&world.plan, world.now_ms));
        world.step(false);
    }
    for _ in 0..600 {
        world.step(false);
    }
    world.check_step()?;
    world.check_end(&last)
}

fn tally(world: &World) -> Tally {
    let mut tally = Tally::from([("runs".to_owned(), 1)]);
    let mut add = |what: &str, count: u64| *tally.entry(what.to_owned()).or_default() += count;
    add(&format!("fault: {:?}", world.plan.fault), 1);
    if let Some(outcome) = world.source.as_ref().and_then(|half| half.outcome()) {
        let cause = outcome
            .cause
            .map_or("done".into(), |cause| format!("{cause:?}"));
        add(&format!("ended: {cause}"), 1);
        add("carried", outcome.counts.carried);
        add("given back", outcome.counts.given_back);
        add("forwarded", outcome.counts.forwarded);
        add("own", outcome.counts.own);
        add("swept", outcome.counts.swept);
        add("left to the network", outcome.counts.left_to_the_network);
        add("over a limit", outcome.counts.over_limit);
    }
    if let Some(outcome) = world.destination.as_ref().and_then(|half| half.outcome()) {
        let counts = outcome.counts;
        add("twins", counts.twins);
        add("left to the source", counts.left_to_the_source);
        add("late", counts.late);
    }
    tally
}
