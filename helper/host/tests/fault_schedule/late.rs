//! What comes late, or has to come soon.

use tandem_host::evacuate::{CauseCode, Phase, Side, Verdict};

use crate::script::{Course, Script, Unplug};
use crate::table::{check, run};

/// A migration that hangs is cancelled when the operator says so, and not when its time is over.
#[test]
fn ctrl_c_does_not_wait_for_the_migration() {
    let script = Script {
        course: Course::Hangs,
        aborts: vec![(Phase::Migrate, 2_000)],
        ..Script::calm()
    };
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::RolledBack);
    let cause = outcome.cause.as_ref().map(|cause| cause.code);
    assert_eq!(cause, Some(CauseCode::Aborted));
    let migrate = outcome
        .phases
        .iter()
        .find(|one| one.phase == Phase::Migrate);
    assert!(migrate.unwrap().ms < 30_000, "{outcome:#?}");
}

/// The unplug was given up, and the VF leaves while all is being put in order: it is plugged in again.
#[test]
fn a_vf_that_leaves_late_is_put_back() {
    let mut put_back = 0;
    for after_ms in (59_000..68_000).step_by(100) {
        let script = Script {
            unplug: Unplug::After(after_ms),
            ..Script::calm()
        };
        let stage = run(script);
        let outcome = stage.processes[0].outcome.as_ref().unwrap();
        if outcome.verdict == Verdict::Done {
            continue;
        }
        assert_eq!(outcome.verdict, Verdict::RolledBack, "{after_ms}");
        let has_vf = stage.world.has_vf(Side::Source);
        assert!(has_vf || outcome.unplug_may_follow, "{after_ms}");
        let in_release = outcome
            .phases
            .iter()
            .position(|one| one.phase == Phase::Release);
        let restored = outcome
            .phases
            .iter()
            .rposition(|one| one.phase == Phase::Restore);
        put_back += usize::from(restored > in_release);
    }
    assert!(put_back > 0, "the VF never left late enough");
}

/// Whether the first request reached the guest is not known, and the hypervisor takes no second one: the device may
/// still leave, which is waited for, told, and mended.
#[test]
fn an_unplug_of_which_nothing_was_heard_is_not_forgotten_for_a_refusal() {
    for breaks_off in [false, true] {
        for after_ms in (0..120_000).step_by(500) {
            let script = Script {
                unplug: Unplug::After(after_ms),
                first_unplug_unheard: true,
                refuses_second_unplug: true,
                breaks_off,
                ..Script::calm()
            };
            let stage = run(script);
            let outcome = stage.processes[0].outcome.as_ref().unwrap();
            if outcome.verdict == Verdict::Done {
                continue;
            }
            assert_eq!(outcome.verdict, Verdict::RolledBack, "{after_ms}");
            let cause = outcome.cause.as_ref().map(|cause| cause.code);
            assert_eq!(cause, Some(CauseCode::UnplugFailed), "{after_ms}");
            let said = outcome.cause.as_ref().map(|cause| cause.message.as_str());
            let said = said.unwrap_or_default();
            assert!(
                said.contains("not known whether the guest was ever asked"),
                "{said}"
            );
            let has_vf = stage.world.has_vf(Side::Source);
            assert!(has_vf || outcome.unplug_may_follow, "{after_ms}");
        }
    }
}

/// QEMU says of a second request that the first one is under way, and both drivers take that for a word that the guest was
/// asked: then it is the guest that does not release the device, whatever was heard of the first.
#[test]
fn a_second_request_that_finds_the_first_under_way_shows_that_the_guest_was_asked() {
    let script = Script {
        unplug: Unplug::After(600_000),
        first_unplug_unheard: true,
        breaks_off: true,
        ..Script::calm()
    };
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    let cause = outcome.cause.as_ref().unwrap();
    assert_eq!(cause.code, CauseCode::UnplugTimedOut, "{cause:?}");
    assert!(cause.message.contains("asked 4 times"), "{cause:?}");
}

/// Requests that the hypervisor refused itself never reached the guest, and are none that it refused.
#[test]
fn the_guest_is_blamed_for_what_it_heard_alone() {
    let script = Script {
        unplug: Unplug::Refused(u32::MAX),
        busy_unplugs: 2,
        ..Script::calm()
    };
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    let cause = outcome.cause.as_ref().unwrap();
    assert_eq!(cause.code, CauseCode::UnplugRefused, "{:#?}", stage.history);
    let refusals = "refused to release PCI function 0000:03:10.0 3 times of 3";
    assert!(cause.message.contains(refusals), "{}", cause.message);
}

/// The longest plugs are those of whose end nothing is heard: they count in the report like all others.
#[test]
fn a_plug_of_which_nothing_was_heard_is_timed_all_the_same() {
    let script = Script {
        first_plug_unheard: true,
        ..Script::calm()
    };
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::Done);
    let plug_ms = outcome.devices[0].plug_ms.expect("it is timed");
    assert!((5_000..30_000).contains(&plug_ms), "{plug_ms} ms");
}

/// A guest that runs on half of its memory is gone on with, whatever became of the first call to do so.
#[test]
fn a_resume_of_which_nothing_was_heard_is_repeated() {
    for breaks_off in [false, true] {
        let script = Script {
            course: Course::PostCopyBreaks(1),
            first_resume_lost: true,
            breaks_off,
            ..Script::calm()
        };
        let stage = run(script);
        let outcome = stage.processes[0].outcome.as_ref().unwrap();
        assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
        check(&stage, Side::Destination, true);
    }
}

/// The record for a recovery was written, and nobody said so. Whoever wrote it leaves it to the recovery that has begun by it.
#[test]
fn a_record_is_not_written_again_over_that_of_the_recovery_that_it_began() {
    let script = |failures, after_ms| Script {
        attach_failures: [0, failures],
        keep_times_out: true,
        taken_up_after_ms: after_ms,
        ..Script::calm()
    };
    let stage = run(script(u32::MAX, None));
    let attached = |(_, what): &&(u64, String)| what.starts_with("process 0 <- Attach");
    let failures = stage.history.iter().filter(attached).count();
    let failures = u32::try_from(failures).unwrap();
    assert!(failures > 1, "{:#?}", stage.history);
    let mut taken_up = 0;
    for after_ms in (0..20_000).step_by(500) {
        let stage = run(script(failures, Some(after_ms)));
        let outcomes = stage
            .processes
            .iter()
            .map(|one| one.outcome.as_ref().unwrap());
        let outcomes: Vec<Verdict> = outcomes.map(|outcome| outcome.verdict).collect();
        let [first, recovery, ..] = outcomes[..] else {
            panic!("{after_ms}: {outcomes:?}");
        };
        // It may see that the VF has come.
        assert!(
            matches!(first, Verdict::Degraded | Verdict::Done),
            "{after_ms}: {first:?}"
        );
        assert_eq!(recovery, Verdict::Done, "{after_ms}: {:#?}", stage.history);
        check(&stage, Side::Destination, true);
        taken_up += usize::from(stage.ended[0] == 0);
    }
    assert!(taken_up > 0);
}
