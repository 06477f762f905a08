//! Both halves with a stream between them, around a guest that is no more than who reads which tap.
//!
//! ```text
//!  tap - bra ---- sw ---- peer
//!  tap - brb -----+
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tandem_carry::{Destination, Frame, Limits, Source, destination, source};
use tandem_carry_kernel::{
    DestinationHalf, Guarded, Injector, Mode, Order, SourceHalf, StreamIo, TapCopy,
};

use crate::guest_tap::GuestTap;
use crate::network::{GUEST, LIMIT, PEER, enter, frame, ip, number_of, send, wait_for};
use crate::peer::{BROADCAST, GROUP, Peer};

/// From the stop until the migration is complete, and from the order to resume until the guest runs, in ms.
const DEVICE_MS: u64 = 15;
const RESUME_MS: u64 = 3;

pub(crate) struct Rig {
    begun: Instant,
    pub(crate) taps: [GuestTap; 2],
    limits: Limits,
    pub(crate) source: Option<SourceHalf>,
    pub(crate) destination: Option<DestinationHalf>,
    /// Which tap the guest reads.
    pub(crate) at: Option<usize>,
    /// It gets to no frame, as on a busy machine, until then.
    stalled_until_ms: u64,
    pub(crate) got: Vec<u64>,
    /// What the guest sends for a frame with that number, by the queue that has brought it.
    pub(crate) answer: Option<fn(u64) -> Frame>,
    /// Which queue of which tap has brought frames.
    pub(crate) brought: BTreeSet<(usize, usize)>,
    /// Bytes of the peer's frames that have no number, and the longest of them.
    pub(crate) got_bytes: usize,
    pub(crate) longest: usize,
    pub(crate) completes_ms: Option<u64>,
    pub(crate) runs_ms: Option<u64>,
    /// The network is not told when it runs there.
    silent: bool,
    pub(crate) to_source: Vec<source::Input>,
    to_destination: Vec<destination::Input>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with_queues(1)
    }

    pub(crate) fn with_queues(queues: usize) -> Self {
        Self::with(Limits::default().drain_ms, true, queues)
    }

    fn with(drain_ms: u64, sweeps: bool, queues: usize) -> Self {
        enter();
        let taps = [GuestTap::new(queues), GuestTap::new(queues)];
        ip("link add sw type bridge");
        for (bridge, tap) in ["bra", "brb"].into_iter().zip(&taps) {
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!(
                "link add {bridge}up type veth peer name {bridge}sw"
            ));
            ip(&format!("link set {bridge}up master {bridge}"));
            ip(&format!("link set {bridge}sw master sw"));
            ip(&format!("link set {} master {bridge}", tap.name()));
            for device in ["", "up", "sw"] {
                ip(&format!("link set {bridge}{device} up"));
            }
        }
        ip("link add peer type veth peer name port");
        ip("link set port master sw");
        for device in ["sw", "peer", "port"] {
            ip(&format!("link set {device} up"));
        }
        let limits = Limits {
            quiet_ms: 150,
            drain_ms,
            ..Limits::default()
        };
        let (a, b) = UnixStream::pair().unwrap();
        let link =
            |end: UnixStream| StreamIo::new(end.try_clone().unwrap().into(), end.into()).unwrap();
        let guarded = |at: usize, mode| Guarded::new(taps[at].name(), mode).unwrap();
        let source = SourceHalf::new(
            Source::new(limits, &[GUEST]),
            guarded(0, Mode::Drain),
            link(a),
        )
        .with_copy(sweeps.then(|| TapCopy::of(taps[0].name()).unwrap()));
        let destination =
            DestinationHalf::new(Destination::new(limits), guarded(1, Mode::Closed), link(b));
        let mut rig = Self {
            begun: Instant::now(),
            taps,
            limits,
            source: Some(source),
            destination: Some(destination),
            at: Some(0),
            stalled_until_ms: 0,
            got: Vec::new(),
            answer: None,
            brought: BTreeSet::new(),
            got_bytes: 0,
            longest: 0,
            completes_ms: None,
            runs_ms: None,
            silent: false,
            to_source: Vec::new(),
            to_destination: Vec::new(),
        };
        rig.announce();
        rig
    }

    /// The source's half has died, and another one takes what nobody reads from the tap's queue.
    fn follow_up(&mut self) {
        self.to_destination.push(destination::Input::SourceDied);
        let (end, _) = UnixStream::pair().unwrap();
        let link = StreamIo::new(end.try_clone().unwrap().into(), end.into()).unwrap();
        let machine = Source::new(self.limits, &[GUEST]).without_destination();
        let name = self.taps[0].name().to_owned();
        let half = SourceHalf::new(machine, Guarded::new(&name, Mode::Drain).unwrap(), link);
        self.source = Some(half.with_copy(Some(TapCopy::of(&name).unwrap())));
        self.to_source.push(source::Input::GuestStopped);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    /// The guest sends something from where it is, which the network learns from.
    fn announce(&mut self) {
        let announcement = frame(BROADCAST, GUEST, 0);
        let at = self.at.expect("the guest runs");
        self.taps[at].write(0, &announcement);
    }

    fn guest_reads(&mut self) {
        let Some(at) = self.at.filter(|_| self.now_ms() >= self.stalled_until_ms) else {
            return;
        };
        while let Some((queue, frame)) = self.taps[at].read() {
            // What the source's half gives to the network has a MAC of its own.
            let from_others = |frame: &Frame| frame.source() != GUEST;
            if frame.source() == PEER && number_of(&frame).is_none() {
                self.got_bytes += frame.ethernet().len();
                self.longest = self.longest.max(frame.ethernet().len());
            }
            let Some(number) = number_of(&frame).filter(|_| from_others(&frame)) else {
                continue;
            };
            self.got.push(number);
            self.brought.insert((at, queue));
            if let Some(answer) = self.answer {
                self.taps[at].write(queue, &answer(number));
            }
        }
    }

    fn step(&mut self) {
        let now_ms = self.now_ms();
        self.guest_reads();
        self.hypervise(now_ms);
        let mut orders = Vec::new();
        if let Some(half) = &mut self.source {
            let inputs = std::mem::take(&mut self.to_source);
            orders.extend(half.turn(now_ms, inputs).unwrap());
        }
        if let Some(half) = &mut self.destination {
            let inputs = std::mem::take(&mut self.to_destination);
            orders.extend(half.turn(now_ms, inputs).unwrap());
        }
        for order in orders {
            match order {
                Order::StopGuest => {
                    // What is in the tap's queue now is what a stop loses.
                    self.at = None;
                    self.to_source.push(source::Input::GuestStopped);
                    self.completes_ms = Some(now_ms + DEVICE_MS);
                }
                // It hears of the stop at once.
                Order::AskGuest => {}
                Order::ResumeGuest => {
                    self.runs_ms.get_or_insert(now_ms + RESUME_MS);
                }
            }
        }
        wait_for(&self.taps[0]);
    }

    fn hypervise(&mut self, now_ms: u64) {
        if self.completes_ms.is_some_and(|ms| ms <= now_ms) {
            self.completes_ms = None;
            self.to_source.push(source::Input::MigrationCompleted);
            self.to_destination.push(destination::Input::GuestPaused);
            if self.destination.is_none() {
                self.runs_ms = Some(now_ms + RESUME_MS);
            }
        }
        if self.runs_ms.is_some_and(|ms| ms <= now_ms) && self.at.is_none() {
            self.at = Some(1);
            if !self.silent {
                self.announce();
            }
            self.to_destination.push(destination::Input::GuestRuns);
        }
    }

    /// The migration fails after the stop, and the guest runs on at the source.
    pub(crate) fn migration_fails(&mut self) {
        self.completes_ms = None;
        self.to_source.push(source::Input::MigrationFailed);
        self.run_until("it is to run here again", |rig| rig.runs_ms.is_some());
        self.runs_ms = None;
        self.at = Some(0);
        self.to_source.push(source::Input::GuestRuns);
    }

    pub(crate) fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < LIMIT, "waited too long: {what}");
            self.step();
        }
    }

    /// The source holds, and has the guest stop.
    pub(crate) fn holds_until_the_stop(&mut self) {
        self.to_source.push(source::Input::HoldWanted);
        self.run_until("the guest stops", |rig| rig.at.is_none());
    }

    pub(crate) fn arrives(&mut self) {
        self.run_until("the guest runs at the destination", |rig| rig.at == Some(1));
    }

    /// The carry ends, and some time later the peer: what it has sent.
    pub(crate) fn ends(&mut self, peer: Peer) -> [u64; 2] {
        self.run_until("the carry ends", Self::ended);
        self.run_ms(100);
        let sent = peer.end();
        self.run_ms(100);
        sent
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let until = self.now_ms() + ms;
        self.run_until("time", |rig| rig.now_ms() >= until);
    }

    /// Frames that were never got, and those that came more than once, of each kind; and those out of order.
    pub(crate) fn judge(&self, sent: [u64; 2]) -> ([u64; 2], [u64; 2], u64) {
        let mut counts = BTreeMap::<u64, u64>::new();
        for number in &self.got {
            *counts.entry(*number).or_default() += 1;
        }
        let of = |kind: u64, count: u64| (1..=count).map(move |number| kind * GROUP + number);
        let times = |number| counts.get(&number).copied().unwrap_or_default();
        let lost = [0, 1].map(|kind| {
            of(kind as u64, sent[kind])
                .filter(|n| times(*n) == 0)
                .count() as u64
        });
        let twice = [0, 1].map(|kind| {
            of(kind as u64, sent[kind])
                .filter(|n| times(*n) > 1)
                .count() as u64
        });
        let unicast: Vec<_> = self.got.iter().filter(|number| **number < GROUP).collect();
        let disorder = unicast.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
        (lost, twice, disorder)
    }

    /// The guest reads nothing any more by nobody's order, and the half hears of it later.
    pub(crate) fn stop_by_itself(&mut self) {
        self.at = None;
        self.run_ms(10);
        self.to_source.push(source::Input::GuestStopped);
        let now_ms = self.now_ms();
        self.completes_ms = Some(now_ms + DEVICE_MS);
        self.runs_ms = Some(now_ms + DEVICE_MS + RESUME_MS);
    }

    pub(crate) fn ended(&self) -> bool {
        let source = self
            .source
            .as_ref()
            .is_none_or(|half| half.machine.outcome().is_some());
        let destination = self.destination.as_ref();
        source && destination.is_none_or(|half| half.machine.outcome().is_some())
    }
}

#[test]
fn a_carried_guest_loses_nothing() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(200);
    rig.to_source.push(source::Input::HoldWanted);
    rig.arrives();
    let sent = rig.ends(peer);
    let source = rig.source.as_ref().unwrap().machine.outcome().unwrap();
    let destination = rig.destination.as_ref().unwrap().machine.outcome().unwrap();
    println!("sent {sent:?}, {source:?}, {destination:?}");
    assert_eq!((source.cause, destination.cause), (None, None));
    assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0));
    assert!(source.counts.carried > 0);
    assert_eq!(source.counts.confirmed, source.counts.carried);
    let lost = [source.counts.abandoned, destination.counts.abandoned];
    assert_eq!(lost, [0, 0], "counted as lost, and the guest has them");
}

#[test]
fn a_migration_that_fails_after_the_stop_loses_nothing() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(100);
    rig.holds_until_the_stop();
    rig.run_ms(10);
    rig.migration_fails();
    let sent = rig.ends(peer);
    let source = rig.source.as_ref().unwrap().machine.outcome().unwrap();
    println!("sent {sent:?}, {source:?}");
    assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0));
    assert!(source.counts.given_back > 0);
}

#[test]
fn a_half_that_dies_leaves_its_tap_open() {
    for source_dies in [true, false] {
        let mut rig = Rig::new();
        rig.run_ms(50);
        rig.holds_until_the_stop();
        if source_dies {
            rig.source = None;
        } else {
            rig.destination = None;
        }
        rig.arrives();
        rig.run_until("the other half ends", Rig::ended);
        let peer = Injector::new("peer").unwrap();
        for number in 1..=20 {
            send(&peer, &frame(GUEST, PEER, number));
        }
        rig.run_ms(50);
        let wanted: Vec<u64> = (1..=20).collect();
        assert_eq!(rig.got, wanted, "source_dies: {source_dies}");
    }
}

/// Nothing but broadcasts goes with a destination that dies while the guest stands still: the source gives it to the network.
#[test]
fn what_a_dead_destination_had_goes_to_the_guest_through_the_network() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(200);
    rig.holds_until_the_stop();
    rig.run_ms(5);
    rig.destination = None;
    rig.to_source.push(source::Input::DestinationDied);
    rig.arrives();
    rig.run_until("the source ends", Rig::ended);
    rig.run_ms(100);
    let sent = peer.end();
    rig.run_ms(100);
    let source = rig.source.as_ref().unwrap().machine.outcome().unwrap();
    let (lost, twice, disorder) = rig.judge(sent);
    println!("sent {sent:?}, lost {lost:?}, {disorder} out of order, {source:?}");
    assert_eq!((lost[0], twice), (0, [0, 0]));
    assert!(source.counts.forwarded > 0);
}

/// What a source had sent that dies while the guest stands still comes, and what the network brings there afterwards too.
#[test]
fn a_dead_source_is_followed_by_another() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(200);
    rig.holds_until_the_stop();
    rig.run_ms(5);
    // What comes in the half's last turn, and while the kernel takes its hold off, dies with it.
    let first = peer.sent[0].load(Ordering::Relaxed);
    rig.step();
    rig.source = None;
    let last = peer.sent[0].load(Ordering::Relaxed);
    rig.follow_up();
    rig.arrives();
    rig.run_until("the halves end", Rig::ended);
    rig.run_ms(100);
    let sent = peer.end();
    rig.run_ms(100);
    let source = rig.source.as_ref().unwrap().machine.outcome().unwrap();
    let (lost, twice, disorder) = rig.judge(sent);
    println!(
        "sent {sent:?}, {first} to {last}, lost {lost:?}, {disorder} out of order, {source:?}"
    );
    assert_eq!(twice, [0, 0]);
    // One is under way on either side.
    assert!(lost[0] <= last - first + 2, "{lost:?}");
    assert!(source.counts.forwarded > 0);
}

#[test]
fn a_stop_that_nobody_ordered_loses_nothing() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(200);
    rig.stop_by_itself();
    rig.arrives();
    let sent = rig.ends(peer);
    let half = rig.source.as_ref().unwrap();
    let (source, drain) = (half.machine.outcome().unwrap(), half.drain_end());
    println!("sent {sent:?}, {source:?}, {drain:?}");
    assert_eq!(source.cause, None);
    assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0));
    assert!(source.counts.swept > 0);
    // As a guest's process might have taken some, which this one does not.
    assert_eq!((drain.left, drain.unseen), (0, 2));
}

#[test]
fn what_was_swept_comes_back_first_when_the_guest_stays() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(100);
    rig.stop_by_itself();
    rig.run_ms(10);
    (rig.completes_ms, rig.runs_ms) = (None, None);
    rig.to_source.push(source::Input::MigrationFailed);
    rig.run_ms(5);
    rig.at = Some(0);
    rig.to_source.push(source::Input::GuestRuns);
    let sent = rig.ends(peer);
    let half = rig.source.as_ref().unwrap();
    let source = half.machine.outcome().unwrap();
    println!("sent {sent:?}, {source:?}");
    assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0));
    assert!(source.counts.swept > 0);
    assert_eq!(half.drain_end().unseen, 0);
}

/// The source's process goes with its end of the tap, while the network still sends there.
#[test]
fn the_copy_keeps_the_tap_until_the_network_has_learnt() {
    let mut rig = Rig::new();
    let peer = Peer::start();
    rig.run_ms(100);
    rig.silent = true;
    rig.to_source.push(source::Input::HoldWanted);
    rig.arrives();
    let name = rig.taps[0].name().to_owned();
    rig.taps[0] = GuestTap::new(1);
    rig.run_ms(300);
    rig.announce();
    let sent = rig.ends(peer);
    let source = rig.source.as_ref().unwrap().machine.outcome().unwrap();
    println!("sent {sent:?}, {source:?}");
    assert_eq!(source.cause, None);
    assert_eq!(rig.judge(sent), ([0, 0], [0, 0], 0));
    let left = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(!left.contains(&format!("{name}:")), "{left}");
}

/// A guest that gets to nothing for 60 ms has frames in its tap's queue. It is waited for; where that is too long, they are
/// swept, or lost by the stop and counted.
#[test]
fn what_the_guest_leaves_in_its_queue_is_waited_for_or_swept_or_counted() {
    const FRAMES: u64 = 30;
    for (drain_ms, sweeps, lost) in [(5, true, 0), (5, false, FRAMES), (10_000, false, 0)] {
        let mut rig = Rig::with(drain_ms, sweeps, 1);
        rig.run_ms(50);
        rig.stalled_until_ms = rig.now_ms() + 60;
        let peer = Injector::new("peer").unwrap();
        for number in 1..=FRAMES {
            send(&peer, &frame(GUEST, PEER, number));
        }
        rig.holds_until_the_stop();
        rig.arrives();
        rig.run_until("the carry ends", Rig::ended);
        assert_eq!(rig.judge([FRAMES, 0]), ([lost, 0], [0, 0], 0));
        let half = rig.source.as_ref().unwrap();
        let (end, swept) = (half.drain_end(), half.machine.counts().swept);
        println!("{drain_ms} ms: {end:?}, {swept} swept");
        assert_eq!(swept >= FRAMES, sweeps);
        assert_eq!(end.unseen > 0, drain_ms == 5);
        // A bridge sends some of its own.
        assert!((lost..lost + 5).contains(&end.left), "{end:?}");
        assert!(end.after_ms >= Some(5), "{end:?}");
    }
}
