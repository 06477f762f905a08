//! The fast path in user space, from a kernel hook to the switchover: a thread of its own,
//! which only the removal of an armed VF wakes. Everything it needs is open and
//! encoded beforehand.
//!
//! First the announcements, which need no RTNL: they move what the guest receives.
//! What it sends has been moved by the kernel programs before the thread woke. Then
//! the request for the switchover, which waits inside the system call if the removal
//! holds RTNL already, and is harmless then. Meanwhile another thread announces again: the
//! machine, which usually does that, waits for RTNL too.
//!
//! Where the kernel allows it, both threads run with a real-time priority and keep their
//! code in memory. Once a VF is armed they rehearse, so that code and sockets are warm.
//!
//! It decides nothing: what it sends was laid down when the VF was armed.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
};

use aya::maps::{MapData, RingBuf};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{Errno, read, write},
    net::{RecvFlags, recv},
};
use tandem_core::{Ifindex, fast_path::Reaction, input::Input};
use tandem_ebpf::{FAST_PATH_HOLD_NS, MAX_BONDS, WakeRecord};
use tokio::sync::mpsc;

use super::{
    maps::boot_ns,
    ready::{Armed, Ready, find},
    realtime::{self, Priority},
    repeat::{Again, repeat_announcements},
};
use crate::ebpf::{load::lock, support::give_up_loading};

/// Announcements that go out before the switchover is asked for; the rest follows. One
/// frame for each MAC and VLAN would do for the fabric.
const FIRST_LOT: usize = 64;
/// An answer is the error number and the header of the request.
const ANSWER_BYTES: usize = 256;
const NLMSG_HEADER_BYTES: usize = 16;
const NAME: &str = "tandem-fastpath";
const REPEATER_NAME: &str = "tandem-repeat";

/// What the fast path's thread did about an armed VF that leaves. Times are in microseconds since the
/// kernel's hook.
#[derive(Debug)]
struct Report {
    bond: u32,
    /// When its thread ran.
    #[expect(dead_code, reason = "only logged")]
    woken_us: u64,
    /// Announcements that left through the standby.
    announced: u32,
    /// When the first lot of them had left: what the fabric needs to send the
    /// bond's frames to the standby.
    announced_us: u64,
    /// When the request for the switchover was about to be written.
    requested_us: u64,
    /// When the kernel had answered it. Far behind `requested_us` if the removal
    /// held RTNL. Only logged.
    answered_us: u64,
    outcome: Outcome,
}

/// What came of the request for the switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The kernel made the standby the primary.
    Done,
    /// The kernel refused; its error number.
    Refused(i32),
    /// Not asked for: the thread ran so late that the fast path was over.
    TooLate,
    /// Not asked for: the fast path had been disarmed when the thread ran.
    Disarmed,
}

impl Report {
    /// What the machine learns of it.
    fn input(&self) -> Input {
        let asked = !matches!(self.outcome, Outcome::TooLate | Outcome::Disarmed);
        Input::Reacted(Reaction {
            bond: Ifindex(self.bond),
            announced_us: (self.announced > 0).then_some(self.announced_us),
            requested_us: asked.then_some(self.requested_us),
        })
    }
}

/// The fast path's threads, and what they are ready for.
pub(super) struct Threads {
    armed: Armed,
    wake: OwnedFd,
    stopping: Arc<AtomicBool>,
}

impl Threads {
    /// Starts the threads. They sleep until the ring has a record.
    pub(super) fn start(
        ring: RingBuf<MapData>,
        reactions: mpsc::Sender<Input>,
    ) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut netlink = Socket::new(NETLINK_ROUTE)?;
        netlink.bind_auto()?;
        netlink.connect(&SocketAddr::new(0, 0))?;
        netlink.set_cap_ack(true)?;
        let armed = Armed::default();
        let stopping = Arc::new(AtomicBool::new(false));
        let (repeat, wanted) = sync_channel(MAX_BONDS as usize);
        let mut runner = Runner {
            ring,
            wake: wake.try_clone()?,
            stopping: stopping.clone(),
            netlink,
            armed: armed.clone(),
            repeat,
            reactions,
        };
        let repeated = armed.clone();
        thread(REPEATER_NAME, Priority::Normal, move || {
            repeat_announcements(&wanted, &repeated);
        })?;
        thread(NAME, Priority::High, move || {
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the fast path's thread has ended; the kernel's part goes on without it");
            }
        })?;
        Ok(Self {
            armed,
            wake,
            stopping,
        })
    }

    /// From here on the removal of the bond's VF is acted upon.
    pub(super) fn arm(&self, bond: u32, ready: Ready) {
        let ready = Arc::new(ready);
        let before = {
            let mut armed = lock(&self.armed);
            let before = take(&mut armed, bond);
            armed.push((bond, ready));
            before
        };
        drop(before);
        self.wake("rehearse");
    }

    /// From here on it is not.
    pub(super) fn disarm(&self, bond: u32) {
        let before = take(&mut lock(&self.armed), bond);
        drop(before);
    }

    /// Ends the threads, without waiting: one may sit in a request that waits for RTNL.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake("end");
    }

    fn wake(&self, what_for: &str) {
        if let Err(error) = write(&self.wake, &1u64.to_ne_bytes()) {
            tracing::warn!(%error, "the fast path's thread can't be told to {what_for}");
        }
    }
}

/// Starts a thread that is to run as soon as it is woken. Where the kernel does not allow
/// that, it runs like any other.
fn thread(
    name: &'static str,
    priority: Priority,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let prepared = move || {
        // It comes from the thread that is still loading.
        give_up_loading();
        if let Err(error) = realtime::run_first(priority) {
            tracing::debug!(%error, name, "without a real-time priority");
        }
        if let Err(error) = realtime::stay_in_memory() {
            tracing::debug!(%error, name, "not locked in memory");
        }
        work();
    };
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(prepared).map(|_| ())
}

/// Takes out what is there for a bond. To be dropped without the lock: closing its socket
/// may wait for RTNL, and that of another bond must not wait with it.
fn take(armed: &mut Vec<(u32, Arc<Ready>)>, bond: u32) -> Vec<(u32, Arc<Ready>)> {
    armed.extract_if(.., |(other, _)| *other == bond).collect()
}

/// What the thread has.
struct Runner {
    ring: RingBuf<MapData>,
    wake: OwnedFd,
    stopping: Arc<AtomicBool>,
    netlink: Socket,
    armed: Armed,
    repeat: SyncSender<Again>,
    reactions: mpsc::Sender<Input>,
}

impl Runner {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let mut wanted = [
                PollFd::new(&self.ring, PollFlags::IN),
                PollFd::new(&self.wake, PollFlags::IN),
            ];
            match poll(&mut wanted, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let woken = !wanted[1].revents().is_empty();
            while let Some(record) = self.ring.next().and_then(|record| {
                // The ring has no other records.
                WakeRecord::from_bytes(&record)
            }) {
                let report = react(&self.netlink, &self.armed, &self.repeat, &record);
                tracing::info!(
                    ?report,
                    "the removal of an armed VF woke the fast path's thread"
                );
                if self.reactions.try_send(report.input()).is_err() {
                    tracing::warn!("nobody reads what the fast path's thread did");
                }
            }
            if woken {
                if self.stopping.load(Ordering::Acquire) {
                    return Ok(());
                }
                let _ = read(&self.wake, &mut [0u8; 8])?;
                self.rehearse();
            }
        }
    }

    /// Goes the fast path's way without a frame or a change, so that the next time it finds
    /// everything in memory and in the caches.
    fn rehearse(&self) {
        for (_, ready) in &*lock(&self.armed) {
            // The kernel refuses a frame without a header (`packet_snd`,
            // net/packet/af_packet.c, 6.12).
            ready.announce(&[Vec::new()]);
        }
        let _ = self.repeat.try_send(Again::REHEARSAL);
        let answer = switch_over(&self.netlink, &no_request());
        if answer != Outcome::Done {
            tracing::debug!(?answer, "the fast path's thread could not rehearse");
        }
    }
}

/// Carries out what was laid down for the bond.
fn react(
    netlink: &Socket,
    armed: &Armed,
    repeat: &SyncSender<Again>,
    record: &WakeRecord,
) -> Report {
    let since_hook_us = || boot_ns().saturating_sub(record.boot_ns) / 1000;
    let woken_us = since_hook_us();
    let mut report = Report {
        bond: record.bond,
        woken_us,
        announced: 0,
        announced_us: woken_us,
        requested_us: woken_us,
        answered_us: woken_us,
        outcome: Outcome::TooLate,
    };
    // The machine knows by now, and may have decided otherwise.
    if woken_us >= FAST_PATH_HOLD_NS / 1000 {
        return report;
    }
    let Some(ready) = find(armed, record.bond) else {
        report.outcome = Outcome::Disarmed;
        return report;
    };
    let (first, rest) = ready
        .announcements
        .split_at(ready.announcements.len().min(FIRST_LOT));
    report.announced = ready.announce(first);
    report.announced_us = since_hook_us();
    let again = Again {
        bond: record.bond,
        standby: ready.standby,
    };
    // Full only if that thread is stuck; the first lot is out.
    let _ = repeat.try_send(again);
    report.requested_us = since_hook_us();
    report.outcome = switch_over(netlink, &ready.switchover);
    report.answered_us = since_hook_us();
    report.announced += ready.announce(rest);
    report
}

/// Writes the request. The kernel carries it out inside the call and has answered
/// when it returns (`netlink_unicast_kernel`, `net/netlink/af_netlink.c`, 6.12).
fn switch_over(netlink: &Socket, request: &[u8]) -> Outcome {
    if let Err(error) = netlink.send(request, 0) {
        return Outcome::Refused(error.raw_os_error().unwrap_or(libc::EIO));
    }
    let mut answer = [0; ANSWER_BYTES];
    let received = match recv(netlink, &mut answer[..], RecvFlags::DONTWAIT) {
        Ok((received, _)) => received,
        Err(error) => return Outcome::Refused(error.raw_os_error()),
    };
    match errno_of(&answer[..received]) {
        Some(0) => Outcome::Done,
        Some(errno) => Outcome::Refused(errno),
        None => Outcome::Refused(libc::EPROTO),
    }
}

/// A request that the kernel answers without doing anything, and without RTNL: a `struct
/// nlmsghdr` of type `NLMSG_NOOP` with `NLM_F_REQUEST | NLM_F_ACK` (`netlink_rcv_skb`,
/// `net/netlink/af_netlink.c`, 6.12).
fn no_request() -> [u8; NLMSG_HEADER_BYTES] {
    const NLMSG_NOOP: u16 = 1;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    let mut header = [0; NLMSG_HEADER_BYTES];
    header[..4].copy_from_slice(&(NLMSG_HEADER_BYTES as u32).to_ne_bytes());
    header[4..6].copy_from_slice(&NLMSG_NOOP.to_ne_bytes());
    header[6..8].copy_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
    header
}

/// The error number in an answer, positive; 0 for an acknowledgement.
fn errno_of(answer: &[u8]) -> Option<i32> {
    const NLMSG_ERROR: u16 = 2;
    let kind = answer.get(4..6)?.try_into().ok()?;
    let number = answer.get(16..20)?.try_into().ok()?;
    (u16::from_ne_bytes(kind) == NLMSG_ERROR).then(|| i32::from_ne_bytes(number).wrapping_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answer = |kind: u16, number: i32| {
            let mut bytes = vec![0; 36];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&number.to_ne_bytes());
            bytes
        };
        assert_eq!(errno_of(&answer(2, 0)), Some(0));
        assert_eq!(errno_of(&answer(2, -libc::EPERM)), Some(libc::EPERM));
        assert_eq!(errno_of(&answer(16, 0)), None);
        assert_eq!(errno_of(&answer(2, 0)[..19]), None);
        assert_eq!(errno_of(&[]), None);
    }

    #[test]
    fn a_late_or_disarmed_removal_is_left_to_the_machine() {
        let netlink = Socket::new(NETLINK_ROUTE).unwrap();
        let armed = Armed::default();
        let (repeat, wanted) = sync_channel(1);
        let mut record = WakeRecord {
            boot_ns: boot_ns(),
            bond: 7,
            padding: 0,
        };
        assert_eq!(
            react(&netlink, &armed, &repeat, &record).outcome,
            Outcome::Disarmed
        );
        record.boot_ns -= FAST_PATH_HOLD_NS;
        let late = react(&netlink, &armed, &repeat, &record);
        assert_eq!((late.outcome, late.announced), (Outcome::TooLate, 0));
        assert!(wanted.try_recv().is_err(), "nothing is announced again");
    }

    #[test]
    fn the_rehearsal_asks_the_kernel_for_nothing() {
        let mut netlink = Socket::new(NETLINK_ROUTE).unwrap();
        netlink.bind_auto().unwrap();
        netlink.connect(&SocketAddr::new(0, 0)).unwrap();
        netlink.set_cap_ack(true).unwrap();
        assert_eq!(switch_over(&netlink, &no_request()), Outcome::Done);
    }
}
