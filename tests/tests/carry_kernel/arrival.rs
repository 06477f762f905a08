//! A tap is closed for a guest that is coming in, and left as it was for one that has come.

use tandem_carry_kernel::{Guarded, Injector, NotClosed, TapCopy};

use crate::network::{GUEST, Network, PEER, frame, is_readable, send, until};

/// In the tap's queue before, and while the hypervisor is asked each time.
const FRAMES: u64 = 20;
const MOST_BYTES: usize = 1 << 20;

/// What the guest gets of three times as many frames, if it is found to be coming in so often.
fn gets(incoming: usize) -> Vec<u64> {
    let mut network = Network::new();
    let peer = Injector::new("peer").unwrap();
    let name = network.guest.name().to_owned();
    let mut next = 0;
    let mut send_some = || {
        for _ in 0..FRAMES {
            next += 1;
            send(&peer, &frame(GUEST, PEER, next));
        }
    };
    let before = came();
    send_some();
    // The kernel brings them to the tap together, and a little later.
    until("the frames come", || {
        came() >= before + FRAMES && is_readable(&network.guest)
    });
    let mut copy = TapCopy::of(&name).unwrap();
    let mut asked = 0;
    let closed = Guarded::close_before_arrival(&name, Some(&mut copy), MOST_BYTES, || {
        asked += 1;
        send_some();
        asked <= incoming
    });
    let closed = match closed {
        Ok(closed) => {
            assert_eq!(incoming, 2);
            // A bridge sends some of its own.
            assert!(
                (FRAMES..FRAMES + 5).contains(&closed.emptied),
                "{}",
                closed.emptied
            );
            Some(closed)
        }
        Err(NotClosed::HasArrived) => {
            assert!(incoming < 2);
            None
        }
        Err(error) => panic!("{error}"),
    };
    // It passes again.
    send_some();
    let last = next;
    until("the last frames come", || came() >= before + last);
    let mut got = Vec::new();
    until("the guest has them", || {
        got.extend(network.got());
        incoming == 2 || got.last() == Some(&last)
    });
    drop(closed);
    got
}

/// Frames that have come to the bridge.
fn came() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("port:"));
    let columns: Vec<u64> = line
        .unwrap()
        .split_whitespace()
        .map(|one| one.parse().unwrap())
        .collect();
    columns[1]
}

#[test]
fn a_guest_that_has_come_gets_all_that_its_tap_was_kept_from() {
    for incoming in [0, 1] {
        let all: Vec<u64> = (1..=FRAMES * (incoming as u64 + 3)).collect();
        assert_eq!(gets(incoming), all, "coming in {incoming} times");
    }
}

#[test]
fn a_tap_is_empty_and_closed_for_a_guest_that_is_coming_in() {
    assert_eq!(gets(2), [0_u64; 0]);
}
