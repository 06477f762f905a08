//! Slow hosts, and migrations whose leader or host is not heard of for a while.

use tandem_host::evacuate::{AgentUse, CauseCode, Outcome, Phase, Side, Verdict};

use crate::script::{Agent, Course, Script};
use crate::stage::Stage;

/// Runs it, checks what must be true of any run, and returns how the first process ended.
fn run(script: Script) -> (Stage, Outcome) {
    let mut stage = Stage::new(script, 7, true);
    let result = stage.run().and_then(|()| stage.judge_the_end());
    if let Err(fault) = result {
        panic!("{fault}\n{:#?}", stage.history);
    }
    let outcome = stage.processes[0].outcome.clone();
    (stage, outcome.expect("it ended"))
}

fn phase_ms(outcome: &Outcome, phase: Phase) -> u64 {
    let times = outcome.phases.iter().filter(|one| one.phase == phase);
    times.map(|one| one.ms).sum()
}

/// As over `qemu+ssh`.
#[test]
fn looks_that_take_long() {
    let slow = |look_ms| Script {
        look_ms: Some(look_ms),
        ..Script::calm()
    };
    let (_, outcome) = run(slow(1_200));
    assert_eq!(outcome.verdict, Verdict::Done);
    let script = Script {
        kills: vec![((Phase::Migrate, 2_000), 100)],
        ..slow(1_200)
    };
    let mut stage = Stage::new(script, 7, true);
    stage.run().and_then(|()| stage.judge_the_end()).unwrap();
    assert_eq!(stage.world.runs_on(), Some(Side::Destination));
    assert!(stage.world.has_vf(Side::Destination));
    // Too slow for a claim that would be safe: said after a while, and nothing is begun.
    let (_, outcome) = run(slow(3_000));
    assert_eq!(outcome.verdict, Verdict::Refused);
    assert!(phase_ms(&outcome, Phase::Claim) < 70_000, "{outcome:#?}");
}

/// The guest runs on the destination and its memory still comes, while the source is silent.
#[test]
fn one_failed_look_does_not_end_post_copy() {
    let script = Script {
        course: Course::PostCopy,
        migration_ms: 60_000,
        outages: vec![(Side::Source, (Phase::Announce, 100), 5_000)],
        ..Script::calm()
    };
    let (stage, outcome) = run(script);
    assert_eq!(outcome.verdict, Verdict::Done);
    // Nothing was plugged in before.
    let waited_ms = phase_ms(&outcome, Phase::Announce);
    assert!(waited_ms > 20_000, "{:#?}", stage.history);
}

#[test]
fn a_job_that_goes_on_without_its_handle_is_waited_for() {
    for percent in [0, 10, 50, 95] {
        let script = Script {
            course: Course::LosesHandle(percent),
            migration_ms: 10_000,
            ..Script::calm()
        };
        let (stage, outcome) = run(script);
        assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
        assert_eq!(outcome.runs_on, Some(Side::Destination));
    }
}

/// `--yes-degraded` is meant for a guest that does not answer, and not for one that says no.
#[test]
fn a_guest_that_is_not_ready_stays() {
    for agent_use in [AgentUse::Required, AgentUse::IfThere] {
        let script = Script {
            agent: Agent::NotReady,
            agent_use,
            yes_degraded: agent_use == AgentUse::IfThere,
            ..Script::calm()
        };
        let (_, outcome) = run(script);
        assert_eq!(outcome.verdict, Verdict::Refused);
        let cause = outcome.cause.map(|cause| cause.code);
        assert_eq!(cause, Some(CauseCode::GuestNotReady));
    }
}
