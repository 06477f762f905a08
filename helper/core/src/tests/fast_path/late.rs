//! What the fast-path programs did too late, or still do: for a switchover that another one overtook, for a bond that
//! is gone or given up.

use super::*;
use crate::link::BondMode;

#[test]
fn counters_that_the_next_switchover_overtook_say_nothing_of_it() {
    let mut guest = Guest::new(true);
    guest.frames = Vec::new();
    guest.prepare();
    guest.told.clear();
    // Asked for, not answered yet: the standby's cable is pulled.
    let mut asked = false;
    while let Some(deadline) = guest.machine.next_deadline() {
        guest.now = guest.now.max(deadline);
        guest.feed(Input::Tick);
        let next = guest.machine.next_action();
        if let Some(Action { id, kind }) = next {
            asked = matches!(kind, ActionKind::ReadFrames { .. });
            if asked {
                break;
            }
            let outcome = Outcome::Accepted;
            guest.feed(Input::Done {
                action: id,
                outcome,
            });
        }
    }
    assert!(asked, "nobody reads the counters");
    guest.now = guest.now.plus_ms(1);
    guest.activate(VF);
    let links = guest.links.clone();
    guest.feed(Input::Links(links));
    let ports = Vec::from([VF, STANDBY].map(|port| PortFrames {
        port,
        received: frames(1, 0, 1),
        sent: frames(1, 0, 1),
        late: Frames::default(),
    }));
    guest.feed(Input::FramesCounted { bond: BOND, ports });
    let switchovers = &guest.machine.status().bonds[0].switchovers;
    assert_eq!(switchovers.len(), 2, "{switchovers:?}");
    assert!(
        switchovers
            .iter()
            .all(|switchover| switchover.gap.is_none()),
        "{switchovers:?}"
    );
}

/// What is asked of the programs after this.
fn asked_after(guest: &mut Guest, input: Input) -> Vec<ActionKind> {
    guest.feed(input);
    let mut asked = Vec::new();
    while let Some(Action { kind, .. }) = guest.machine.next_action() {
        asked.extend(Some(kind).filter(|kind| matches!(kind, ActionKind::SetFastPath { .. })));
    }
    asked
}

fn let_go() -> ActionKind {
    let fast_path = FastPath::default();
    ActionKind::SetFastPath {
        bond: BOND,
        fast_path,
    }
}

#[test]
fn the_programs_let_go_of_a_bond_that_is_gone_and_of_one_that_left_the_policy() {
    let gone = Input::LinkGone { ifindex: BOND };
    let unread = Input::Links(healthy()[..2].to_vec());
    let unnamed = Input::Policy(Policy::default());
    let mut other_mode = healthy();
    other_mode[2].bond.as_mut().unwrap().mode = BondMode::Other;
    let other_mode = Input::Links(other_mode);
    for input in [gone, unread, unnamed, other_mode] {
        let mut guest = Guest::new(true);
        assert!(guest.machine.status().bonds[0].fast_path_armed);
        assert_eq!(asked_after(&mut guest, input.clone()), [let_go()]);
        // They did so.
        let (bond, fast_path) = (BOND, FastPath::default());
        let done = Input::FastPathSet { bond, fast_path };
        assert_eq!(asked_after(&mut guest, done), []);
        assert_eq!(asked_after(&mut guest, Input::Tick), []);
    }
}

#[test]
fn what_was_attached_in_part_or_too_late_is_let_go_of_as_well() {
    let armed = fast_path(&[STANDBY], 1, Some(armed_vf()));
    let mut guest = Guest::new(true);
    guest.refuses = true;
    guest.prepare();
    let gone = Input::LinkGone { ifindex: BOND };
    assert_eq!(asked_after(&mut guest, gone), [let_go()]);
    let ActionKind::SetFastPath { bond, fast_path } = fast_path(&[VF], 2, None) else {
        unreachable!("that is what it makes");
    };
    let late = Input::FastPathSet { bond, fast_path };
    assert_eq!(asked_after(&mut guest, late), [let_go()]);

    // Given up before anybody heard how the first attempt ended.
    let mut guest = Guest::new(false);
    let asked = asked_after(&mut guest, Input::FastPathSupported(true));
    assert_eq!(asked, [armed]);
    let unnamed = Input::Policy(Policy::default());
    assert_eq!(asked_after(&mut guest, unnamed), [let_go()]);
}
