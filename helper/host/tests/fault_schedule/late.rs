//! What comes late, or has to come soon.

use tandem_host::evacuate::{CauseCode, Phase, Side, Verdict};

use crate::script::{Course, Script, Unplug};
use crate::table::run;

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
