//! User space's shortest way from a kernel hook to the switch: a thread of its own,
//! which only the removal of an armed VF wakes. Everything it needs is open and
//! encoded beforehand.
//!
//! First the announcements, which need no RTNL: they move what the guest receives.
//! What it sends has been moved by the kernel programs before the thread woke. Then
//! the request for the switch, which waits inside the system call if the removal
//! holds RTNL already, and is harmless then.
//!
//! It decides nothing: what it sends was laid down when the rescue was armed.

use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use aya::maps::{MapData, RingBuf};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{Errno, write},
    net::{RecvFlags, SendFlags, recv, send},
};
use tandem_core::types::Ifindex;
use tandem_ebpf::{RESCUE_HOLD_NS, ReflexRecord};
use tokio::sync::mpsc;

use super::{Rescue, lock, maps::boot_ns};
use crate::{
    act::{packet_socket, primary_request, take_in},
    ebpf::{Event, Reaction, Switch, What},
};

/// Announcements that go out before the switch is asked for; the rest follows. One
/// frame for each MAC and VLAN would do for the fabric.
const FIRST_LOT: usize = 64;
/// Announcements kept for one bond; the machine's own announcements, which follow,
/// have all of them.
const MAX_ANNOUNCEMENTS: usize = 1024;
/// MACs that the standby takes in besides the bond's; a NIC that has no room for more
/// takes in everything then.
const MAX_STATIONS: usize = 256;
/// An answer is the error number and the header of the request.
const ANSWER_BYTES: usize = 256;
const NAME: &str = "tandem-reflex";

/// Everything for one bond, ready to be written. The switch's bytes need the
/// bond's ifindex, so they are added when the rescue is armed.
pub(super) struct Ready {
    standby: u32,
    /// `None` where the kernel refuses packet sockets (it takes `CAP_NET_RAW`): the
    /// network learns by the guest's own frames then.
    socket: Option<OwnedFd>,
    announcements: Vec<Vec<u8>>,
    switch: Vec<u8>,
}

impl Ready {
    /// Opens and encodes.
    pub(super) fn prepare(rescue: &Rescue) -> Self {
        // Protocol 0: nothing is received.
        let socket = packet_socket(Ifindex(rescue.standby), 0);
        if let Err(error) = &socket {
            tracing::warn!(%error, "a rescue will not be announced");
        }
        let socket = socket.ok();
        if let Some(socket) = &socket {
            for mac in stations(rescue) {
                if let Err(error) = take_in(socket, Ifindex(rescue.standby), mac) {
                    tracing::warn!(%error, "a rescue will not reach a station on the bond");
                }
            }
        }
        let announcements = rescue.announcements.iter().take(MAX_ANNOUNCEMENTS);
        Self {
            standby: rescue.standby,
            socket,
            announcements: announcements.cloned().collect(),
            switch: Vec::new(),
        }
    }

    /// Sends some of the announcements; how many left. A full queue loses some, which
    /// is no failure: the machine repeats them.
    fn announce(&self, lot: &[Vec<u8>]) -> u32 {
        let Some(socket) = &self.socket else {
            return 0;
        };
        let sent = |frame: &&Vec<u8>| send(socket, frame, SendFlags::DONTWAIT).is_ok();
        lot.iter().filter(sent).count() as u32
    }
}

/// MACs on the bond other than its own, a macvlan's for one: the bonding driver has only
/// the active port's NIC take them in (`bond_hw_addr_swap`,
/// `drivers/net/bonding/bond_main.c`, 6.12), so that the standby's would drop their frames until the bond has followed.
fn stations(rescue: &Rescue) -> BTreeSet<[u8; 6]> {
    let sources = rescue.announcements.iter().filter_map(|frame| {
        let source = frame.get(6..12)?;
        source.try_into().ok()
    });
    let others = sources.filter(|mac| *mac != rescue.mac);
    let mut others: BTreeSet<[u8; 6]> = others.collect();
    while others.len() > MAX_STATIONS {
        others.pop_last();
    }
    others
}

type Armed = Arc<Mutex<Vec<(u32, Arc<Ready>)>>>;

/// The reflex's thread, and what it is ready for.
pub(super) struct Reflex {
    armed: Armed,
    stop: OwnedFd,
}

impl Reflex {
    /// Starts the thread. It sleeps until the ring has a record.
    pub(super) fn start(
        ring: RingBuf<MapData>,
        reactions: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let mut netlink = Socket::new(NETLINK_ROUTE)?;
        netlink.bind_auto()?;
        netlink.connect(&SocketAddr::new(0, 0))?;
        netlink.set_cap_ack(true)?;
        let armed = Armed::default();
        let mut runner = Runner {
            ring,
            stop: stop.try_clone()?,
            netlink,
            armed: armed.clone(),
            reactions,
        };
        std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || {
                if let Err(error) = runner.run() {
                    tracing::error!(%error, "the reflex has ended; the kernel's rescue goes on without it");
                }
            })?;
        Ok(Self { armed, stop })
    }

    /// From here on the removal of the bond's VF is acted upon.
    pub(super) fn arm(&self, bond: u32, mut ready: Ready) {
        ready.switch = primary_request(Ifindex(bond), Ifindex(ready.standby));
        let ready = Arc::new(ready);
        let before = {
            let mut armed = lock(&self.armed);
            let before = take(&mut armed, bond);
            armed.push((bond, ready));
            before
        };
        drop(before);
    }

    /// From here on it is not.
    pub(super) fn disarm(&self, bond: u32) {
        let before = take(&mut lock(&self.armed), bond);
        drop(before);
    }

    /// Ends the thread, without waiting: it may sit in a request that waits for RTNL.
    pub(super) fn stop(&self) {
        if let Err(error) = write(&self.stop, &1u64.to_ne_bytes()) {
            tracing::warn!(%error, "the reflex can't be told to end");
        }
    }
}

/// Takes out what is there for a bond. To be dropped without the lock: closing its socket
/// may wait for RTNL, and the reflex of another bond must not wait with it.
fn take(armed: &mut Vec<(u32, Arc<Ready>)>, bond: u32) -> Vec<(u32, Arc<Ready>)> {
    armed.extract_if(.., |(other, _)| *other == bond).collect()
}

/// What the thread has.
struct Runner {
    ring: RingBuf<MapData>,
    stop: OwnedFd,
    netlink: Socket,
    armed: Armed,
    reactions: mpsc::Sender<Event>,
}

impl Runner {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let mut wanted = [
                PollFd::new(&self.ring, PollFlags::IN),
                PollFd::new(&self.stop, PollFlags::IN),
            ];
            match poll(&mut wanted, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !wanted[1].revents().is_empty() {
                return Ok(());
            }
            while let Some(record) = self.ring.next().and_then(|record| {
                // The ring has no other records.
                ReflexRecord::from_bytes(&record)
            }) {
                let reaction = react(&self.netlink, &self.armed, &record);
                tracing::info!(?reaction, "the removal of an armed VF woke the reflex");
                let event = Event {
                    boot_ns: record.boot_ns,
                    what: What::Reaction(reaction),
                };
                if self.reactions.try_send(event).is_err() {
                    tracing::warn!("nobody reads what the reflex did");
                }
            }
        }
    }
}

/// Carries out what was laid down for the bond.
fn react(netlink: &Socket, armed: &Armed, record: &ReflexRecord) -> Reaction {
    let since_hook_us = || boot_ns().saturating_sub(record.boot_ns) / 1000;
    let woken_us = since_hook_us();
    let mut reaction = Reaction {
        bond: record.bond,
        woken_us,
        announced: 0,
        announced_us: woken_us,
        requested_us: woken_us,
        answered_us: woken_us,
        switch: Switch::TooLate,
    };
    // The machine knows by now, and may have decided otherwise.
    if woken_us >= RESCUE_HOLD_NS / 1000 {
        return reaction;
    }
    let ready = lock(armed)
        .iter()
        .find(|(bond, _)| *bond == record.bond)
        .map(|(_, ready)| ready.clone());
    let Some(ready) = ready else {
        reaction.switch = Switch::Disarmed;
        return reaction;
    };
    let (first, rest) = ready
        .announcements
        .split_at(ready.announcements.len().min(FIRST_LOT));
    reaction.announced = ready.announce(first);
    reaction.announced_us = since_hook_us();
    reaction.requested_us = reaction.announced_us;
    reaction.switch = switch(netlink, &ready.switch);
    reaction.answered_us = since_hook_us();
    reaction.announced += ready.announce(rest);
    reaction
}

/// Writes the request. The kernel carries it out inside the call and has answered
/// when it returns (`netlink_unicast_kernel`, `net/netlink/af_netlink.c`, 6.12).
fn switch(netlink: &Socket, request: &[u8]) -> Switch {
    if let Err(error) = netlink.send(request, 0) {
        return Switch::Refused(error.raw_os_error().unwrap_or(libc::EIO));
    }
    let mut answer = [0; ANSWER_BYTES];
    let received = match recv(netlink, &mut answer[..], RecvFlags::DONTWAIT) {
        Ok((received, _)) => received,
        Err(error) => return Switch::Refused(error.raw_os_error()),
    };
    match errno_of(&answer[..received]) {
        Some(0) => Switch::Done,
        Some(errno) => Switch::Refused(errno),
        None => Switch::Refused(libc::EPROTO),
    }
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
    fn stations_are_those_who_announce_and_are_not_the_bond() {
        let frame = |mac: [u8; 6]| [&[0xff; 6][..], &mac, &[8, 6]].concat();
        let (own, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let rescue = Rescue {
            vf: 3,
            device: "0000:01:00.0".to_owned(),
            slot: None,
            standby: 2,
            mac: own,
            announcements: vec![frame(own), frame(other), frame(other), vec![0; 8]],
        };
        assert_eq!(Vec::from_iter(stations(&rescue)), [other]);
    }

    #[test]
    fn a_late_or_disarmed_removal_is_left_to_the_machine() {
        let netlink = Socket::new(NETLINK_ROUTE).unwrap();
        let armed = Armed::default();
        let mut record = ReflexRecord {
            boot_ns: boot_ns(),
            bond: 7,
            kind: 2,
        };
        assert_eq!(react(&netlink, &armed, &record).switch, Switch::Disarmed);
        record.boot_ns -= RESCUE_HOLD_NS;
        let late = react(&netlink, &armed, &record);
        assert_eq!((late.switch, late.announced), (Switch::TooLate, 0));
    }
}
