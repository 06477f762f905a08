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
    for look_ms in [3_000, 8_000, 30_000] {
        let (stage, outcome) = run(slow(look_ms));
        assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
    }
}

/// However slow their hosts are, one of two has the domain, and the other one changes nothing.
#[test]
fn two_that_begin_at_once() {
    for look_ms in [10, 1_200, 8_000, 30_000] {
        for latency_ms in [10, 4_000] {
            for after_ms in (0..80_000).step_by(1_300) {
                let (stage, first) = run(Script {
                    look_ms: Some(look_ms),
                    latency_ms,
                    second_after_ms: Some(after_ms),
                    ..Script::calm()
                });
                let second = stage.processes[1].outcome.as_ref().unwrap();
                let rivals = Side::BOTH.map(|side| stage.world.host(side).rivals.len());
                assert_eq!(rivals, [0, 0], "a claim is left: {:#?}", stage.history);
                let mut verdicts = [first.verdict, second.verdict];
                verdicts.sort_by_key(|verdict| *verdict != Verdict::Done);
                let one = [Verdict::Done, Verdict::Refused];
                assert_eq!(
                    verdicts, one,
                    "{look_ms} {latency_ms} {after_ms}: {:#?}",
                    stage.history
                );
            }
        }
    }
}

/// What a process that was killed leaves of its claim keeps nobody for good.
#[test]
fn a_claim_whose_process_was_killed() {
    for after_ms in (0..4_000).step_by(100) {
        let mut stage = Stage::new(
            Script {
                look_ms: Some(600),
                latency_ms: 600,
                kills: vec![((Phase::Claim, after_ms), 1_000)],
                death_is_known: after_ms % 200 == 0,
                ..Script::calm()
            },
            7,
            true,
        );
        let ended = stage.run().and_then(|()| stage.judge_the_end());
        ended.unwrap_or_else(|fault| panic!("{fault}\n{:#?}", stage.history));
    }
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
