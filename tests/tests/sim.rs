//! Simulation of the core over a fake kernel: at least 100,000 seeded steps that do something to the guest.
//! A seed that fails is run again by the command that its report ends with. `TANDEM_SIM_STEPS` goes on with further
//! seeds until there were so many such steps, and `TANDEM_SIM_FIRST` begins with that run instead of the first.

use std::fmt::Debug;
use std::str::FromStr;

use tandem_core::Mac;
use tandem_core::policy::{BondPolicy, Origin, Policy, PortMatch};
use tandem_core::status::BondState;
use tandem_lab::sim::chaos::{Tally, run, seed_of};
use tandem_lab::sim::fake::{self, FakeKernel, Flow};
use tandem_lab::sim::{Disorder, Stage, contract};

/// Runs from different seeds.
const RUNS: u64 = 680;
/// Disturbances in each.
const STEPS: u64 = 240;

/// Seeds that broke a promise once, or that the oracle judged wrongly.
const BROKE_ONCE: [u64; 22] = [
    // A VF to which its driver gave the bond's MAC was taken for another VF that has the standby's.
    8_850_055_554_841_577_095,
    12_272_642_098_318_195_619,
    15_595_896_902_103_581_971,
    3_177_635_075_952_676_228,
    1_738_313_749_660_212_108,
    // The same, after the service died while the VF was taken in and a policy then left it out.
    16_581_209_857_545_899_572,
    // The VF at work was shown as a backup, as the bond could not take it in once.
    6_303_757_968_030_696_703,
    // A VF was on its way out of the bond when the only other port vanished.
    9_489_959_857_166_741_838,
    6_534_903_690_272_947_804,
    17_714_740_908_824_779_851,
    9_152_343_798_631_713_702,
    6_578_489_562_848_356_500,
    // The bond had an MTU that could not be changed, and a port that was given another kept that.
    1_281_519_124_908_641_741,
    // The oracle: what was begun in the millisecond in which a policy left its bond out is none of the new policy's.
    14_576_174_892_384_250_362,
    12_789_707_584_980_809_926,
    11_328_149_590_298_837_019,
    182_868_425_215_895_884,
    // The oracle: a path check that is made each minute was under way when it judged.
    750_891_092_559_028_358,
    // The oracle: the last switchover was in the bond before this one, to another VF.
    2_509_879_032_992_345_871,
    // The oracle: the bond of a port with a VLAN on it vanished while the port's stray address was being removed.
    2_631_310_351_101_581_867,
    // The oracle: the driver of a foreign port had given it a VF's MAC, and the service began anew after that.
    12_655_017_681_807_040_773,
    // The oracle: the standby came back with an XDP program, and the VF in the bond had no carrier.
    10_486_700_464_853_857_932,
];

#[test]
fn what_broke_once_holds() {
    for result in run_all(&BROKE_ONCE) {
        result.unwrap_or_else(|report| panic!("{report}"));
    }
}

#[test]
fn promises_hold_in_a_rough_world() {
    let only = number("TANDEM_SIM_SEED");
    let wanted = number::<u64>("TANDEM_SIM_STEPS");
    let mut total = Tally::default();
    let mut failures = Vec::new();
    let first = number::<u64>("TANDEM_SIM_FIRST").unwrap_or(0);
    let mut runs = 0;
    loop {
        let begin = first + runs;
        let seeds: Vec<_> = match only {
            Some(seed) => vec![seed],
            None => (begin..begin + RUNS).map(seed_of).collect(),
        };
        for result in run_all(&seeds) {
            match result {
                Ok(tally) => total.add(tally),
                Err(report) => failures.push(report),
            }
        }
        runs += seeds.len() as u64;
        if wanted.is_some() {
            println!("{runs} runs, {} steps", total.effects);
        }
        let goes_on = wanted.is_some_and(|wanted| total.effects < wanted);
        if !goes_on || only.is_some() || !failures.is_empty() {
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
    println!("{runs} runs from run {first} on: {total:#?}");
    if only.is_none() {
        assert!(total.effects >= 100_000, "{total:#?}");
        assert!(total.at_rest >= 10_000, "{total:#?}");
        let kinds = [
            "SetFastPath",
            "ReadFrames",
            "SwitchoverMeasured",
            "CheckPath",
            "ReadTraffic",
            "AskPath",
            "SwitchedOver PathLost",
            "ProblemRaised PathLost",
            "ProblemRaised StandbyDeaf",
            "Reacted",
            "CarrierLost",
            "TwoVfs",
            "PolicysOrder",
            "FastPathsLoading",
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

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// A network in which nobody answers what the guest sends, for one reason or another.
struct Quiet {
    name: &'static str,
    flow: Flow,
    /// Its neighbours are known, and do not answer any more.
    is_dead: bool,
}

#[test]
fn a_day_of_a_quiet_network_raises_no_alarm() {
    let sends = |sent_per_s| Flow {
        sent_per_s,
        ..Flow::IDLE
    };
    let nobody = |sent_per_s| Flow {
        has_neighbour: false,
        ..sends(sent_per_s)
    };
    let quiet = |name, flow, is_dead| Quiet {
        name,
        flow,
        is_dead,
    };
    let networks = [
        quiet("an idle guest", Flow::IDLE, false),
        quiet("a sender that gets nothing back", sends(1_000), false),
        quiet("no gateway", nobody(1_000), false),
        quiet("no gateway, and hardly a frame", nobody(1), false),
        quiet("a dead gateway", sends(1_000), true),
    ];
    std::thread::scope(|scope| {
        for network in &networks {
            scope.spawn(|| stays_accelerated_for_a_day(network));
        }
    });
}

fn stays_accelerated_for_a_day(network: &Quiet) {
    let name = network.name;
    let standby = Mac([0x52, 0x54, 0, 0, 0, 1]);
    let vf = Mac([0x52, 0x54, 0, 0, 0, 2]);
    let by_mac = |mac| PortMatch {
        mac: Some(mac),
        ..PortMatch::default()
    };
    let bond = BondPolicy::new(fake::name("bond0"), by_mac(standby), vec![by_mac(vf)]);
    let policy = Policy {
        origin: Origin::File,
        bonds: vec![bond],
    };
    let mut kernel = FakeKernel::new();
    let nics = [fake::standby_nic(standby), fake::vf_nic(vf)].map(|nic| kernel.plug(nic));
    let mut stage = Stage::new(kernel, policy, Disorder::default(), 1);
    stage.start_service();
    stage.run_ms(10_000);
    stage.kernel.flow = network.flow;
    if network.is_dead {
        let deaf = fake::Path {
            out: true,
            back: false,
            ..fake::Path::WHOLE
        };
        for nic in nics {
            stage.kernel.set_path(nic, deaf);
        }
    }
    let count = |stage: &Stage, kind: &str| stage.seen.get(kind).copied().unwrap_or(0);
    let before = ["ReadTraffic", "AskPath"].map(|kind| count(&stage, kind));
    stage.run_ms(DAY_S * 1_000);
    assert_eq!(stage.violations, Vec::<String>::new(), "{name}");
    let machine = stage.machine.as_ref().expect("the service runs");
    let bond = &machine.status().bonds[0];
    assert_eq!(bond.state, BondState::Accelerated, "{name}");
    assert_eq!(bond.problems, [], "{name}");
    assert_eq!(bond.switchover_count, 1, "{name}: only the VF's arrival");
    let looks = count(&stage, "ReadTraffic") - before[0];
    let asked = count(&stage, "AskPath") - before[1];
    let of_standby = DAY_S / 60 + 10;
    let (most_looks, most_asked) = match (network.flow.sent_per_s, network.flow.has_neighbour) {
        (0, _) => (DAY_S / 10 + 10, 0),
        // After each question the counters are read once more: what it sent is not the guest's.
        (1, _) => (2 * DAY_S / 10 + 10, DAY_S / 10 + 10),
        // Who answers is asked three times in 2 s, who does not every 10 s.
        (_, true) if !network.is_dead => (2 * DAY_S + 10, 2 * DAY_S + 10),
        _ => (2 * DAY_S + 10, DAY_S / 10 + 10),
    };
    assert!(looks <= most_looks, "{name}: {looks} looks");
    assert!(
        asked <= most_asked + of_standby,
        "{name}: {asked} questions"
    );
}
