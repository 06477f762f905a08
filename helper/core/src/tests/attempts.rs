use super::*;
use crate::bond::history::attempts::{Attempts, DeviceMark, Failure};
use crate::model::action::ActionKind;
use crate::model::status::ProblemCode;
use crate::model::types::Time;

const ENSLAVE: ActionKind = ActionKind::Enslave {
    port: VF,
    bond: BOND,
};
const RELEASE: ActionKind = ActionKind::Release {
    port: VF,
    bond: BOND,
};

fn failure() -> Option<Failure> {
    failed_as(ProblemCode::ActionFailed)
}

fn failed_as(code: ProblemCode) -> Option<Failure> {
    Some(Failure {
        code,
        device: None,
        message: "no".into(),
    })
}

fn wait_ms(attempts: &Attempts, now: Time) -> u64 {
    attempts.next_at(&ENSLAVE).since_ms(now)
}

#[test]
fn failures_wait_ever_longer_and_only_for_themselves() {
    let mut attempts = Attempts::default();
    let now = Time(1_000_000);
    let mut waits = Vec::new();
    for _ in 0..13 {
        attempts.failed(&ENSLAVE, failure(), None, now);
        waits.push(wait_ms(&attempts, now));
    }
    assert!(waits.is_sorted() && waits[0] == 200 && waits[12] == 300_000);
    assert_eq!(attempts.next_at(&RELEASE), Time(0));
    assert_eq!(attempts.standing().count(), 1);
    attempts.succeeded(&ENSLAVE, now);
    assert_eq!(attempts.failures(&ENSLAVE), 0);
    assert_eq!(wait_ms(&attempts, now), 0);
}

#[test]
fn a_driver_that_refuses_is_asked_less_often() {
    let mut attempts = Attempts::default();
    let now = Time(1_000_000);
    attempts.failed(&ENSLAVE, failed_as(ProblemCode::MacRefused), None, now);
    assert_eq!(wait_ms(&attempts, now), 2_000);
}

#[test]
fn what_somebody_undoes_is_repeated_ever_more_slowly() {
    let mut attempts = Attempts::default();
    let now = Time(1_000_000);
    attempts.succeeded(&ENSLAVE, now);
    assert_eq!(wait_ms(&attempts, now), 0);
    attempts.succeeded(&ENSLAVE, now);
    assert_eq!(wait_ms(&attempts, now), 200);
    attempts.succeeded(&ENSLAVE, now);
    assert_eq!(wait_ms(&attempts, now), 400);
    attempts.succeeded(&RELEASE, now);
    attempts.succeeded(&ENSLAVE, now);
    assert_eq!(
        wait_ms(&attempts, now),
        0,
        "in between it was wanted otherwise"
    );
    let later = now.plus_ms(61_000);
    attempts.succeeded(&ENSLAVE, later);
    assert_eq!(wait_ms(&attempts, later), 0, "it lasted");
}

#[test]
fn a_changed_device_is_tried_sooner_but_not_at_once() {
    let mark = |max_mtu| DeviceMark {
        permanent_mac: Some(VF_MAC),
        max_mtu,
        driver: None,
        bond_mac: None,
        bond_mtu: 1500,
    };
    let mut attempts = Attempts::default();
    let now = Time(1_000_000);
    for _ in 0..8 {
        attempts.failed(&ENSLAVE, failure(), Some(mark(1400)), now);
    }
    attempts.note_mark(&ENSLAVE, &mark(1400), now);
    assert!(wait_ms(&attempts, now) > 10_000);
    attempts.note_mark(&ENSLAVE, &mark(9000), now);
    assert_eq!(wait_ms(&attempts, now), 200);
}

#[test]
fn what_is_no_longer_wanted_is_no_problem_and_forgotten_in_time() {
    let mut attempts = Attempts::default();
    let now = Time(1_000_000);
    attempts.failed(&ENSLAVE, failure(), None, now);
    attempts.note_wanted(&[], now);
    assert_eq!(attempts.standing().count(), 0);
    assert_eq!(attempts.failures(&ENSLAVE), 1);
    attempts.note_wanted(&[], now.plus_ms(1_000));
    assert_eq!(attempts.failures(&ENSLAVE), 0);
}
