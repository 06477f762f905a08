//! The hold in front of one guest's tap.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use tandem_carry::Frame;
use tandem_carry_kernel::{Hold, HoldTap, Injected, Injector, LEASE_MS, Mode, TapCopy};

use crate::network::{
    GUEST, LIMIT, Network, PEER, aggregated, frame, number_of, send, until, wait_for,
};

/// Holds frames until there are some, then gives them back until the tap is open again. How many that were.
fn hold_and_give_back(hold: &mut Hold, tap: &mut HoldTap, back: &Injector, given: &mut u64) -> u64 {
    let before = *given;
    hold.beat().unwrap();
    hold.set_mode(Mode::Hold).unwrap();
    let begun = Instant::now();
    while hold.held().unwrap() < before + 20 {
        assert!(begun.elapsed() < LIMIT, "nothing is held");
        wait_for(tap);
    }
    hold.set_mode(Mode::Drain).unwrap();
    loop {
        while let Some(frame) = tap.read().unwrap() {
            while back.inject(&frame).unwrap() == Injected::Full {
                thread::yield_now();
            }
            *given += 1;
            hold.set_given(*given).unwrap();
        }
        hold.beat().unwrap();
        if hold.held().unwrap() == *given {
            return *given - before;
        }
        assert!(begun.elapsed() < LIMIT, "the tap does not open");
        wait_for(tap);
    }
}

#[test]
fn frames_that_were_held_come_once_and_in_order() {
    const FRAMES: u64 = 40_000;
    let mut network = Network::new();
    let mut tap = HoldTap::new().unwrap();
    let mut hold = network.hold(&tap, Mode::Drain);
    let back = Injector::new(network.guest.name()).unwrap();
    let sender = thread::spawn(|| {
        let peer = Injector::new("peer").unwrap();
        for number in 1..=FRAMES {
            send(&peer, &frame(GUEST, PEER, number));
            // Some at a time, as a network does.
            if number.is_multiple_of(16) {
                thread::sleep(Duration::from_micros(500));
            }
        }
    });
    let reader = thread::spawn(move || {
        let begun = Instant::now();
        let mut got = Vec::new();
        while (got.len() as u64) < FRAMES && begun.elapsed() < LIMIT {
            wait_for(&network.guest);
            got.extend(network.got());
        }
        got
    });
    let (mut given, mut holds) = (0, 0);
    while !sender.is_finished() && holds < 25 {
        assert!(hold_and_give_back(&mut hold, &mut tap, &back, &mut given) >= 20);
        holds += 1;
    }
    sender.join().unwrap();
    let got = reader.join().unwrap();
    println!("{holds} holds, {given} frames held");
    assert!(holds >= 3, "only {holds} holds");
    let wanted: Vec<u64> = (1..=FRAMES).collect();
    let first = got.iter().zip(&wanted).find(|(got, wanted)| got != wanted);
    assert_eq!((got.len(), first), (wanted.len(), None));
}

#[test]
fn a_hold_that_goes_leaves_the_tap_open() {
    let mut network = Network::new();
    let tap = HoldTap::new().unwrap();
    let hold = network.hold(&tap, Mode::Hold);
    let peer = Injector::new("peer").unwrap();
    send(&peer, &frame(GUEST, PEER, 1));
    until("the frame is held", || hold.held().unwrap() == 1);
    assert_eq!(network.got(), [0_u64; 0]);
    drop(hold);
    send(&peer, &frame(GUEST, PEER, 2));
    let mut got = Vec::new();
    until("the guest gets a frame", || {
        got.extend(network.got());
        !got.is_empty()
    });
    assert_eq!(got, [2]);
}

/// As one that is stopped, or that its host has no time for.
#[test]
fn a_process_that_stands_still_keeps_nothing_from_the_guest_after_a_while() {
    let mut network = Network::new();
    let tap = HoldTap::new().unwrap();
    let mut hold = network.hold(&tap, Mode::Hold);
    let peer = Injector::new("peer").unwrap();
    let mut number = 0;
    until("a frame passes", || {
        number += 1;
        send(&peer, &frame(GUEST, PEER, number));
        thread::sleep(Duration::from_millis(20));
        hold.passed().unwrap() > 0
    });
    assert!(hold.held().unwrap() > 50, "none was held before");
    until("the guest gets it", || !network.got().is_empty());
    // It goes on.
    assert!(hold.beat().unwrap() && !hold.beat().unwrap());
    let before = hold.held().unwrap();
    send(&peer, &frame(GUEST, PEER, number + 1));
    until("one is held again", || hold.held().unwrap() == before + 1);
}

/// What passed before the guest has come would wait for it, and it has that from elsewhere.
#[test]
fn a_closed_tap_of_a_process_that_stands_still_opens_with_the_guests_first_frame() {
    let mut network = Network::new();
    let tap = HoldTap::new().unwrap();
    let hold = network.hold(&tap, Mode::Closed);
    let peer = Injector::new("peer").unwrap();
    let begun = Instant::now();
    let mut number = 0;
    let mut send_one = || {
        number += 1;
        send(&peer, &frame(GUEST, PEER, number));
        thread::sleep(Duration::from_millis(20));
        number
    };
    while begun.elapsed() < Duration::from_millis(LEASE_MS * 5 / 4) {
        send_one();
    }
    assert_eq!((hold.passed().unwrap(), hold.held().unwrap()), (0, 0));
    let last_before = send_one();
    let announcement = frame([0xff; 6], GUEST, 0);
    rustix::io::write(network.guest.as_fd(), announcement.bytes()).expect("the guest sends");
    let mut got = Vec::new();
    until("the guest gets a frame", || {
        send_one();
        got.extend(network.got());
        !got.is_empty()
    });
    assert!(got[0] >= last_before, "{got:?}, after {last_before}");
}

#[test]
fn a_closed_tap_holds_from_the_guests_first_frame_on() {
    let mut network = Network::new();
    let mut tap = HoldTap::new().unwrap();
    let hold = network.hold(&tap, Mode::Closed);
    let peer = Injector::new("peer").unwrap();
    send(&peer, &frame(GUEST, PEER, 1));
    until("a frame is kept out", || hold.closed_to().unwrap() >= 1);
    assert_eq!((hold.held().unwrap(), hold.early().unwrap()), (0, None));

    let announcement = frame([0xff; 6], GUEST, 0);
    rustix::io::write(network.guest.as_fd(), announcement.bytes()).expect("the guest sends");
    send(&peer, &frame(GUEST, PEER, 2));
    until("a frame is held", || hold.held().unwrap() == 1);
    assert_eq!(hold.early().unwrap(), Some(0));
    let held = tap.read().unwrap().expect("a frame is held");
    assert_eq!(number_of(&held), Some(2));
    assert_eq!(network.got(), [0_u64; 0]);
}

#[test]
fn a_frame_of_many_segments_and_its_tag_come_through_whole() {
    let mut network = Network::new();
    let mut tap = HoldTap::new().unwrap();
    let mut hold = network.hold(&tap, Mode::Hold);
    let peer = Injector::new("peer").unwrap();
    let sent = aggregated();
    send(&peer, &sent);
    let held = of_peer(&mut tap);
    assert!(held.ethernet() == sent.ethernet(), "another frame");
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_TCPV4 (include/uapi/linux/virtio_net.h).
    assert_eq!(held.bytes()[..2], [1, 1]);
    let back = Injector::new(network.guest.name()).unwrap();
    assert_eq!(back.inject(&held).unwrap(), Injected::Done);
    hold.set_mode(Mode::Drain).unwrap();
    hold.set_given(hold.held().unwrap()).unwrap();
    let got = of_peer(&mut network.guest);
    assert_eq!(got.bytes().len(), held.bytes().len());
    // How long the headers are is a hint, and each kernel's own.
    let differs = |at: &usize| !(2..4).contains(at) && got.bytes()[*at] != held.bytes()[*at];
    let places: Vec<usize> = (0..got.bytes().len()).filter(differs).take(20).collect();
    let heads = (&got.bytes()[..10], &held.bytes()[..10]);
    assert!(places.is_empty(), "other bytes at {places:?}: {heads:?}");
}

/// Whatever header the guest's process has asked for.
#[test]
fn a_copy_reads_what_is_left_in_the_queue() {
    for header_bytes in [10, 12, 24] {
        let network = Network::new();
        network.set_header(header_bytes);
        let mut copy = TapCopy::of(network.guest.name()).unwrap();
        assert_eq!(copy.queues(), 1);
        let peer = Injector::new("peer").unwrap();
        let sent = [frame(GUEST, PEER, 1), aggregated(), frame(GUEST, PEER, 2)];
        for frame in &sent {
            send(&peer, frame);
        }
        let mut read = Vec::new();
        until("all are read", || {
            let more = std::iter::from_fn(|| copy.read().unwrap());
            read.extend(more.filter(|frame| frame.source() == PEER));
            read.len() >= sent.len()
        });
        let whole = |frames: &[Frame]| -> Vec<_> {
            let bytes = |frame: &Frame| (frame.bytes()[..2].to_vec(), frame.ethernet().to_vec());
            frames.iter().map(bytes).collect()
        };
        assert!(whole(&read) == whole(&sent), "{header_bytes}: {read:?}");
    }
}

/// As libvirt opens a tap, so that QEMU has it before it has set that itself: the queue of a guest that is coming in is emptied then.
#[test]
fn a_copy_of_a_tap_whose_reader_waits_does_not_wait() {
    let network = Network::new();
    rustix::fs::fcntl_setfl(network.guest.as_fd(), rustix::fs::OFlags::RDWR).unwrap();
    let mut copy = TapCopy::of(network.guest.name()).unwrap();
    let peer = Injector::new("peer").unwrap();
    send(&peer, &frame(GUEST, PEER, 7));
    let mut read = Vec::new();
    until("the frame is read", || {
        let more = std::iter::from_fn(|| copy.read().unwrap());
        read.extend(more.filter(|frame| frame.source() == PEER));
        !read.is_empty()
    });
    assert_eq!(number_of(&read[0]), Some(7));
    assert_eq!(
        copy.read().unwrap().filter(|frame| frame.source() == PEER),
        None
    );
}

/// Its name says nothing: each host has a `tap0`.
#[test]
fn a_tap_of_another_network_is_not_copied() {
    let here = Network::new();
    let name = here.guest.name().to_owned();
    let copied = || TapCopy::of(&name).map(|copy| copy.queues());
    assert_eq!(copied().unwrap(), 1);
    let there = thread::scope(|scope| {
        let other = scope.spawn(|| {
            crate::network::enter();
            copied().map_err(|error| error.to_string())
        });
        other.join().expect("it does not panic")
    });
    let error = there.unwrap_err();
    assert!(error.contains("no process"), "{error}");
    assert_eq!(copied().unwrap(), 1, "it is there all the while");
}

#[test]
fn a_tap_that_nobody_has_open_has_no_copy() {
    let network = Network::new();
    // Other tests have one of this name, in other networks.
    let name = network.guest.name().to_owned();
    drop(network);
    let error = TapCopy::of(&name).unwrap_err().to_string();
    assert!(error.contains("no process"), "{error}");
}

/// The next that this tap gets of the peer's; a bridge sends some of its own, such as IGMP's.
fn of_peer(tap: &mut HoldTap) -> Frame {
    let mut found = None;
    until("a frame of the peer's comes", || {
        found = std::iter::from_fn(|| tap.read().unwrap()).find(|frame| frame.source() == PEER);
        found.is_some()
    });
    found.expect("it was waited for")
}
