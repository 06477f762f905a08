//! What the tests have in common: a network of their own, and frames with a number.

use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem_carry::{Frame, HEADER_BYTES, Mac};
use tandem_carry_kernel::{Hold, HoldTap, Injected, Injector, Mode};

pub(crate) const GUEST: Mac = [0x52, 0x54, 0, 0, 0, 1];
pub(crate) const PEER: Mac = [0x52, 0x54, 0, 0, 0, 2];
/// Local Experimental Ethertype 2 of IEEE 802, which nothing else here has.
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];
/// Nothing here takes nearly as long.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// In a network of its own: what sends to the guest is `peer`.
pub(crate) struct Network {
    pub(crate) guest: HoldTap,
}

impl Network {
    /// This thread, and those that it starts, are in it from now on.
    pub(crate) fn new() -> Self {
        enter();
        let guest = HoldTap::new().expect("a tap");
        ip("link add br0 type bridge");
        ip("link add peer type veth peer name port");
        ip("link set port master br0");
        ip(&format!("link set {} master br0", guest.name()));
        for device in ["br0", "peer", "port"] {
            ip(&format!("link set {device} up"));
        }
        let mut network = Self { guest };
        network.forwards();
        network
    }

    /// Waits until the bridge lets frames through: it turns its ports on some time after they are up.
    fn forwards(&mut self) {
        let peer = Injector::new("peer").expect("a packet socket");
        let mut probe = frame(GUEST, PEER, 0).bytes().to_vec();
        // No number, so that a second one counts for nothing.
        probe[HEADER_BYTES + 12..][..2].copy_from_slice(&[0x88, 0xb5]);
        let probe = Frame::new(&probe).expect("long enough");
        until("the bridge forwards", || {
            send(&peer, &probe);
            let sent = Instant::now();
            let mut came = false;
            while !came && sent.elapsed() < Duration::from_millis(50) {
                wait_for(&self.guest);
                let mut read = std::iter::from_fn(|| self.guest.read().expect("the guest's tap"));
                came = read.any(|frame| frame.source() == PEER);
            }
            came
        });
    }

    /// The guest's process has headers of so many bytes from now on.
    pub(crate) fn set_header(&self, bytes: libc::c_int) {
        #[expect(unsafe_code, reason = "no crate in use has it as a safe call")]
        // SAFETY: it reads one number.
        let result = unsafe {
            libc::ioctl(
                self.guest.as_fd().as_raw_fd(),
                libc::TUNSETVNETHDRSZ,
                &raw const bytes,
            )
        };
        assert_eq!(result, 0, "the tap takes a header of {bytes} bytes");
    }

    pub(crate) fn hold(&self, tap: &HoldTap, mode: Mode) -> Hold {
        Hold::attach(self.guest.name(), tap, mode).expect("the kernel takes the programs")
    }

    /// The numbers of what the guest has got so far.
    pub(crate) fn got(&mut self) -> Vec<u64> {
        let mut got = Vec::new();
        while let Some(frame) = self.guest.read().expect("the guest's tap") {
            got.extend(number_of(&frame));
        }
        got
    }
}

/// This thread, and those that it starts, have a network of their own from now on.
pub(crate) fn enter() {
    #[expect(unsafe_code, reason = "no crate in use has it as a safe call")]
    // SAFETY: only this thread's network namespace changes.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "a network namespace takes root");
    for which in ["all", "default"] {
        // Nothing else is to be on the wire than what the tests send.
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1")
            .expect("IPv6 can be turned off");
    }
}

pub(crate) fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.expect("ip(8)").success(), "ip {arguments}");
}

pub(crate) fn frame(to: Mac, from: Mac, number: u64) -> Frame {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(to);
    bytes.extend(from);
    bytes.extend(ETHERTYPE);
    bytes.extend(number.to_be_bytes());
    bytes.resize(HEADER_BYTES + 60, 0);
    Frame::new(&bytes).expect("long enough")
}

/// `None` if it is not one of the peer's.
pub(crate) fn number_of(frame: &Frame) -> Option<u64> {
    let bytes = frame.ethernet();
    let at = match [bytes[12], bytes[13]] {
        ETHERTYPE => 14,
        // After the headers of IPv4 and UDP; what a kernel sends by itself has others.
        [8, 0] if bytes.get(23) == Some(&17) => 14 + 20 + 8,
        _ => return None,
    };
    Some(u64::from_be_bytes(
        bytes.get(at..at + 8)?.try_into().unwrap(),
    ))
}

pub(crate) fn send(peer: &Injector, frame: &Frame) {
    let begun = Instant::now();
    while peer.inject(frame).expect("the peer sends") == Injected::Full {
        assert!(begun.elapsed() < LIMIT, "the peer's queue stays full");
        thread::yield_now();
    }
}

/// Waits for what a sent frame does: a busy kernel takes it from the wire only later.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "not so within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn is_readable(tap: &HoldTap) -> bool {
    let mut one = [PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut one, Some(&at_once)).expect("poll") > 0
}

pub(crate) fn wait_for(tap: &impl AsFd) {
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    let mut one = [PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)];
    poll(&mut one, Some(&limit)).expect("poll");
}

/// TCP's 20,000 bytes in one, tagged with VLAN 5, their checksum and segments still to be made.
pub(crate) fn aggregated() -> Frame {
    const PAYLOAD: u16 = 20_000;
    let mut bytes = vec![1, 1];
    // Header's length, segment's length, where the checksum starts and goes.
    for word in [18 + 20 + 20_u16, 1448, 18 + 20, 16] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(GUEST);
    bytes.extend(PEER);
    bytes.extend([0x81, 0, 0, 5, 8, 0]);
    bytes.extend([0x45, 0]);
    bytes.extend((20 + 20 + PAYLOAD).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([
        0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    bytes.resize(bytes.len() + usize::from(PAYLOAD), 7);
    Frame::new(&bytes).expect("not too long")
}
