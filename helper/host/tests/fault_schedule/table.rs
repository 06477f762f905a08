//! Each fault by itself, with the same check after it.

use tandem_host::evacuate::{AgentUse, CauseCode, GuestVerdict, Phase, Side, Verdict};

use crate::script::{Agent, Course, PHASES, Script, Unplug};
use crate::stage::Stage;

/// How a run is to end: the first process, and the domain when all is over.
struct End {
    verdict: Verdict,
    exit_code: u8,
    cause: Option<CauseCode>,
    runs_on: Side,
    has_vf: bool,
}

const DONE: End = End {
    verdict: Verdict::Done,
    exit_code: 0,
    cause: None,
    runs_on: Side::Destination,
    has_vf: true,
};

fn refused(cause: CauseCode) -> End {
    End {
        verdict: Verdict::Refused,
        exit_code: 10,
        cause: Some(cause),
        runs_on: Side::Source,
        has_vf: true,
    }
}

fn rolled_back(cause: CauseCode) -> End {
    End {
        verdict: Verdict::RolledBack,
        exit_code: 11,
        ..refused(cause)
    }
}

fn degraded(cause: CauseCode) -> End {
    End {
        verdict: Verdict::Degraded,
        exit_code: 12,
        cause: Some(cause),
        has_vf: false,
        ..DONE
    }
}

/// Runs it and checks what must be true of any run; then where the domain runs, which NICs it
/// has, the guest, and that no claim and no record is left.
pub(crate) fn run(script: Script) -> Stage {
    let mut stage = Stage::new(script, 7, true);
    let result = stage.run().and_then(|()| stage.judge_the_end());
    if let Err(fault) = result {
        panic!("{fault}\n{:#?}", stage.history);
    }
    stage
}

/// Frames reach the guest: over the VF, unless it was told to leave that, or over the standby, if that has a carrier.
fn traffic_flows(stage: &Stage) -> bool {
    let world = &stage.world;
    let standby = !matches!(world.script.agent, Agent::NotReady | Agent::SaysNo);
    let runs_on = world.runs_on();
    runs_on.is_some_and(|side| standby || world.has_vf(side) && !world.is_prepared())
}

pub(crate) fn check(stage: &Stage, runs_on: Side, has_vf: bool) {
    let world = &stage.world;
    let history = &stage.history;
    assert_eq!(world.runs_on(), Some(runs_on), "{history:#?}");
    assert_eq!(world.has_vf(runs_on), has_vf, "{history:#?}");
    let honest = world.script.agent == Agent::Good;
    let boots = world.booting_until_ms > stage.now_ms;
    if honest && world.script.agent_use == AgentUse::Required && !boots {
        let settled_ms = stage.now_ms + 2_000;
        assert_eq!(world.uses_vf(settled_ms), has_vf, "{history:#?}");
    }
    assert!(traffic_flows(stage), "{history:#?}");
    let mine = |claim: &String| claim.starts_with("evacuation");
    let claims = &world.host(Side::Destination).claims;
    assert!(!claims.iter().flatten().any(mine), "{history:#?}");
    for side in Side::BOTH {
        let kept = !has_vf && side == runs_on;
        assert!(kept || world.record(side).is_none(), "{history:#?}");
    }
}

fn expect(script: Script, end: &End) -> Stage {
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().expect("it ended");
    let history = &stage.history;
    assert_eq!(outcome.verdict, end.verdict, "{history:#?}");
    assert_eq!(outcome.exit_code(), end.exit_code);
    let cause = outcome.cause.as_ref().map(|cause| cause.code);
    assert_eq!(cause, end.cause, "{history:#?}");
    check(&stage, end.runs_on, end.has_vf);
    stage
}

#[test]
fn all_is_well() {
    expect(Script::calm(), &DONE);
}

#[test]
fn destination_has_no_vf() {
    let script = Script {
        vf_is_taken: true,
        ..Script::calm()
    };
    expect(script, &refused(CauseCode::VfTaken));
    let script = Script {
        names_vf: false,
        ..Script::calm()
    };
    expect(script, &refused(CauseCode::NoVfNamed));
}

#[test]
fn destination_is_unreachable() {
    let script = Script {
        outages: vec![(Side::Destination, (Phase::Check, 0), 600_000)],
        ..Script::calm()
    };
    expect(script, &refused(CauseCode::Unreachable));
    // It goes away after the VF has left.
    let script = Script {
        outages: vec![(Side::Destination, (Phase::Unplug, 0), 600_000)],
        ..Script::calm()
    };
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::RolledBack);
    assert!(stage.world.has_vf(Side::Source));
}

#[test]
fn destination_lacks_memory() {
    let script = Script {
        course: Course::NoMemory,
        ..Script::calm()
    };
    expect(script, &rolled_back(CauseCode::MigrationFailed));
}

#[test]
fn guest_ignores_the_unplug() {
    let script = Script {
        unplug: Unplug::Ignored,
        ..Script::calm()
    };
    let stage = expect(script, &rolled_back(CauseCode::UnplugTimedOut));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert!(outcome.unplug_may_follow);
}

#[test]
fn guest_refuses_the_unplug() {
    let script = Script {
        unplug: Unplug::Refused(100),
        ..Script::calm()
    };
    let stage = expect(script, &rolled_back(CauseCode::UnplugRefused));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    let unplug = outcome.phases.iter().find(|one| one.phase == Phase::Unplug);
    // It was asked as often as it may be, and then not waited for.
    assert!(unplug.unwrap().ms < 30_000, "{outcome:#?}");
    // Twice, and then it obeys.
    let script = Script {
        unplug: Unplug::Refused(2),
        ..Script::calm()
    };
    expect(script, &DONE);
}

#[test]
fn device_is_gone_already() {
    let script = Script {
        vf_gone_already: true,
        ..Script::calm()
    };
    expect(script, &DONE);
}

#[test]
fn migration_fails_or_is_cancelled_half_way() {
    let script = Script {
        course: Course::FailsAt(50),
        ..Script::calm()
    };
    expect(script, &rolled_back(CauseCode::MigrationFailed));
    let script = Script {
        course: Course::CancelledAt(50),
        ..Script::calm()
    };
    expect(script, &rolled_back(CauseCode::MigrationCancelled));
    let script = Script {
        course: Course::Hangs,
        ..Script::calm()
    };
    expect(script, &rolled_back(CauseCode::MigrationTimedOut));
    for stranded in [false, true] {
        let script = Script {
            course: Course::FailsInSwitchOver { stranded },
            ..Script::calm()
        };
        expect(script, &rolled_back(CauseCode::MigrationFailed));
    }
}

#[test]
fn post_copy() {
    for course in [Course::PostCopy, Course::PostCopyBreaks(3)] {
        let script = Script {
            course,
            migration_ms: 60_000,
            ..Script::calm()
        };
        expect(script, &DONE);
    }
}

/// Phases that a run without faults, or with a migration that fails, comes through.
fn reached(course: Course) -> impl Iterator<Item = Phase> {
    PHASES.into_iter().filter(move |phase| match phase {
        Phase::Takeover => false,
        Phase::Restore => course != Course::Works,
        Phase::Announce | Phase::Plug => course == Course::Works,
        _ => true,
    })
}

#[test]
fn ctrl_c_in_each_phase() {
    for course in [Course::Works, Course::FailsAt(50)] {
        for phase in reached(course) {
            for after_ms in [0, 30, 700] {
                let script = Script {
                    aborts: vec![(phase, after_ms)],
                    course,
                    ..Script::calm()
                };
                let stage = run(script);
                let hit = PHASES.into_iter().find(|one| {
                    let text = format!("abort in {}", one.as_str());
                    stage.hits.contains(&text)
                });
                // A short phase may be over by then; at its beginning it is not.
                assert!(after_ms > 0 || hit == Some(phase), "{phase:?}: {hit:?}");
                let outcome = stage.processes[0].outcome.as_ref().unwrap();
                let cause = outcome.cause.as_ref().map(|cause| cause.code);
                let ended = (outcome.verdict, outcome.exit_code(), cause);
                let wanted = aborted(course, hit);
                let history = &stage.history;
                assert_eq!(ended, wanted, "{phase:?}, {after_ms} ms: {history:#?}");
                let side = outcome.runs_on.expect("its place is known");
                // A degraded end is one that a recovery could mend, and did.
                check(&stage, side, true);
            }
        }
    }
}

/// How it ends if Ctrl-C comes in this phase, or when all is over.
fn aborted(course: Course, hit: Option<Phase>) -> (Verdict, u8, Option<CauseCode>) {
    let failed = Some(CauseCode::MigrationFailed);
    let stopped = Some(CauseCode::Aborted);
    let works = course == Course::Works;
    match hit {
        Some(Phase::Check | Phase::Claim) => (Verdict::Refused, 10, stopped),
        Some(Phase::Prepare | Phase::Unplug | Phase::Migrate) => (Verdict::RolledBack, 11, stopped),
        // Too late to go back.
        Some(Phase::Announce | Phase::Plug | Phase::Verify) if works => {
            (Verdict::Degraded, 12, stopped)
        }
        // What is under way is what Ctrl-C asks for.
        _ if works => (Verdict::Done, 0, None),
        _ => (Verdict::RolledBack, 11, failed),
    }
}

#[test]
fn kill_in_each_phase_and_recover() {
    for course in [Course::Works, Course::FailsAt(50)] {
        for phase in reached(course) {
            for after_ms in [0, 30, 700] {
                for migration_survives in [false, true] {
                    for death_is_known in [false, true] {
                        let script = Script {
                            kills: vec![((phase, after_ms), 100)],
                            migration_survives,
                            death_is_known,
                            course,
                            ..Script::calm()
                        };
                        let stage = run(script);
                        let side = stage.world.runs_on().expect("it runs");
                        check(&stage, side, true);
                    }
                }
            }
        }
    }
}

#[test]
fn attach_fails_three_times_or_for_ever() {
    let script = Script {
        attach_failures: [0, 3],
        ..Script::calm()
    };
    expect(script, &DONE);
    let script = Script {
        attach_failures: [0, u32::MAX],
        ..Script::calm()
    };
    let stage = expect(script, &degraded(CauseCode::PlugFailed));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert!(outcome.recovery_needed);
    // The same on the way back.
    let script = Script {
        attach_failures: [u32::MAX, 0],
        course: Course::FailsAt(50),
        ..Script::calm()
    };
    let end = End {
        runs_on: Side::Source,
        ..degraded(CauseCode::MigrationFailed)
    };
    expect(script, &end);
}

#[test]
fn libvirtd_restarts_while_it_migrates() {
    for side in Side::BOTH {
        let script = Script {
            outages: vec![(side, (Phase::Migrate, 2_000), 8_000)],
            ..Script::calm()
        };
        expect(script, &rolled_back(CauseCode::MigrationFailed));
    }
}

#[test]
fn guest_reboots_while_it_migrates() {
    // It still boots when it is asked, or is up by then and lacks its bond.
    for migration_ms in [10_000, 50_000] {
        let script = Script {
            reboot: Some((Phase::Migrate, 2_000)),
            migration_ms,
            ..Script::calm()
        };
        expect(script, &DONE);
    }
}

#[test]
fn the_second_of_two_evacuations_is_refused() {
    for after_ms in [0, 1, 10, 60, 100, 300, 4_000, 8_000] {
        let script = Script {
            second_after_ms: Some(after_ms),
            ..Script::calm()
        };
        let stage = run(script);
        let verdicts: Vec<Verdict> = stage
            .processes
            .iter()
            .map(|one| one.outcome.as_ref().unwrap().verdict)
            .collect();
        let done = verdicts.iter().filter(|one| **one == Verdict::Done).count();
        let refused = verdicts.iter().filter(|one| **one == Verdict::Refused);
        assert_eq!((done, refused.count()), (1, 1), "{after_ms}: {verdicts:?}");
        check(&stage, Side::Destination, true);
    }
}

#[test]
fn agent_is_missing() {
    let script = Script {
        agent: Agent::Missing,
        ..Script::calm()
    };
    expect(script.clone(), &refused(CauseCode::AgentMissing));
    let agreed = Script {
        agent_use: AgentUse::IfThere,
        yes_degraded: true,
        ..script
    };
    expect(agreed, &DONE);
}

#[test]
fn agent_is_hostile_or_says_no() {
    let script = Script {
        agent: Agent::Hostile,
        ..Script::calm()
    };
    expect(script, &refused(CauseCode::AgentHostile));
    let script = Script {
        agent: Agent::SaysNo,
        ..Script::calm()
    };
    expect(script, &rolled_back(CauseCode::AgentRefused));
}

/// Its channel can't be opened from here, so the domain's XML alone tells how it ended.
#[test]
fn destination_is_another_machine() {
    let script = Script {
        destination_is_remote: true,
        ..Script::calm()
    };
    let stage = expect(script.clone(), &DONE);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.guest, GuestVerdict::NotAsked);
    let script = Script {
        course: Course::FailsAt(50),
        ..script
    };
    let stage = expect(script, &rolled_back(CauseCode::MigrationFailed));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.guest, GuestVerdict::UsesVf);
}

#[test]
fn agent_lies() {
    // It says that the VF may go, and holds on to it.
    let script = Script {
        agent: Agent::Liar,
        unplug: Unplug::Ignored,
        ..Script::calm()
    };
    expect(script, &rolled_back(CauseCode::UnplugTimedOut));
    // It says that the VF is in use, and there is none.
    let script = Script {
        agent: Agent::Liar,
        attach_failures: [0, u32::MAX],
        ..Script::calm()
    };
    expect(script, &degraded(CauseCode::PlugFailed));
}

#[test]
fn guest_powers_off() {
    for phase in [Phase::Prepare, Phase::Unplug, Phase::Migrate, Phase::Plug] {
        let script = Script {
            shutdown: Some((phase, 10)),
            ..Script::calm()
        };
        let stage = run(script);
        let outcome = stage.processes[0].outcome.as_ref().unwrap();
        assert_eq!(outcome.verdict, Verdict::Stopped, "{phase:?}");
        assert_eq!(outcome.exit_code(), 1);
        assert_eq!(stage.world.runs_on(), None);
    }
}
