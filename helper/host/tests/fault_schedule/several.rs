//! Domains with several devices, each with a course of its own.

use tandem_host::evacuate::{CauseCode, GuestVerdict, Phase, Side, Verdict};

use crate::script::{Course, DeviceScript, Script, Unplug};
use crate::table::{check, run};

fn device() -> DeviceScript {
    DeviceScript {
        let_go: false,
        unplug: Unplug::After(1_000),
        gone_already: false,
        attach_failures: [0; 2],
        named: true,
    }
}

fn gpu() -> DeviceScript {
    DeviceScript {
        let_go: true,
        ..device()
    }
}

fn with(more: Vec<DeviceScript>) -> Script {
    Script {
        more,
        ..Script::calm()
    }
}

#[test]
fn all_devices_of_the_domain_move() {
    for more in [vec![device()], vec![gpu()], vec![device(), device(), gpu()]] {
        let stage = run(with(more));
        let outcome = stage.processes[0].outcome.as_ref().unwrap();
        assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
        assert!(outcome.devices.iter().all(|one| one.attached));
        assert_eq!(outcome.guest, GuestVerdict::UsesVf);
        check(&stage, Side::Destination, true);
    }
    let stage = run(Script {
        no_device: true,
        ..Script::calm()
    });
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
}

/// They are asked to leave one right after the other, and waited for together.
#[test]
fn devices_leave_side_by_side() {
    let slow = DeviceScript {
        unplug: Unplug::After(5_000),
        ..device()
    };
    let mut script = with(vec![slow.clone(), slow]);
    script.unplug = Unplug::After(5_000);
    let stage = run(script);
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::Done);
    let unplug = outcome.phases.iter().find(|one| one.phase == Phase::Unplug);
    assert!(unplug.unwrap().ms < 7_500, "{outcome:#?}");
}

/// What has left already is put back when another one stays.
#[test]
fn one_that_does_not_leave_brings_the_others_back() {
    let stage = run(with(vec![DeviceScript {
        unplug: Unplug::Refused(100),
        ..device()
    }]));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::RolledBack);
    let cause = outcome.cause.as_ref().unwrap();
    assert_eq!(cause.code, CauseCode::UnplugRefused);
    assert!(cause.message.contains("bond1"), "{}", cause.message);
    check(&stage, Side::Source, true);
    let stage = run(Script {
        course: Course::FailsAt(50),
        ..with(vec![device(), gpu()])
    });
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::RolledBack);
    check(&stage, Side::Source, true);
}

/// Degraded names the one that is missing; the others are in use.
#[test]
fn one_that_does_not_come_does_not_keep_the_others() {
    let stage = run(with(vec![
        DeviceScript {
            attach_failures: [0, u32::MAX],
            ..device()
        },
        device(),
    ]));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::Degraded);
    let cause = outcome.cause.as_ref().unwrap();
    assert_eq!(cause.code, CauseCode::PlugFailed);
    assert!(cause.message.contains("of bond1"), "{}", cause.message);
    let attached: Vec<bool> = outcome.devices.iter().map(|one| one.attached).collect();
    assert_eq!(attached, [true, false, true]);
    let failure = outcome.devices[1].plug_failure.as_deref();
    assert!(
        failure.is_some_and(|text| text.contains("vfio")),
        "{failure:?}"
    );
    assert!(outcome.recovery_needed && !outcome.vf_attached);
    assert!(stage.world.uses(0, stage.now_ms) && stage.world.uses(2, stage.now_ms));
    // The guest takes the others at once, and each device has the time that one would have.
    let first = |words: &str| {
        let found = stage.history.iter().find(|(_, what)| what.contains(words));
        found
            .unwrap_or_else(|| panic!("{words}: {:#?}", stage.history))
            .0
    };
    let plugs_ms = first("is in verify");
    for resumed in ["Resume(0)", "Resume(2)"] {
        assert!(first(resumed) + 200_000 < plugs_ms, "{:#?}", stage.history);
    }
}

/// A guest that says no to one bond's announcement announces the others.
#[test]
fn one_that_is_not_announced_does_not_keep_the_others() {
    let stage = run(Script {
        refuses_announce: Some(0),
        ..with(vec![device(), device()])
    });
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
    for asked in ["Announce(0)", "Announce(1)", "Announce(2)"] {
        let asks = |(_, what): &&(u64, String)| what.contains("<-") && what.contains(asked);
        assert_eq!(stage.history.iter().filter(asks).count(), 1, "{asked}");
    }
}

/// A device that is let go and not given back is missed by nobody.
#[test]
fn one_that_is_let_go_may_stay_away() {
    let stage = run(with(vec![DeviceScript {
        named: false,
        ..gpu()
    }]));
    let outcome = stage.processes[0].outcome.as_ref().unwrap();
    assert_eq!(outcome.verdict, Verdict::Done, "{:#?}", stage.history);
    assert!(!outcome.devices[1].wanted && !outcome.devices[1].attached);
}
