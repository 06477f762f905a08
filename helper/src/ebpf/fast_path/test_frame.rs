//! Test frames: whether an armed fast path's programs would run. A frame is sent through the bond, as the guest sends;
//! the program at the bond's egress has the standby receive it, as from the network, the program there the VF, and the one
//! there eats it. Where it does not come, what somebody else has attached before ours ends its way, or ours was taken off.
//!
//! Ours are put last again then, so that they are reached after everybody's: a frame that somebody else refuses is
//! refused. Where it does not come all the same, that is told.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tandem_core::fast_path::{ArmedVf, Blocked, Way};
use tandem_core::types::{Ifindex, Mac};
use tandem_ebpf::{MAC_LEN, Test};

use super::{
    attach::{Attached, Place},
    chain,
    error::FastPathError,
    maps::Maps,
    system,
};
use crate::ebpf::{
    hooks::Program,
    load::{Programs, lock},
};
use crate::packet::frames::{number_by_chance, path_check_to};
use crate::packet::socket::packet_socket;

/// To the nearest bridge, and no further: no bridge forwards it (IEEE 802.1Q, 8.6.3), should it ever leave the guest.
const NEAREST_BRIDGE: Mac = Mac([0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e]);
/// Longest wait for a test frame at the ports: the kernel may receive it on another processor, or in its own time.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(300);
/// Between two looks whether it came.
const ARRIVAL_STEP: Duration = Duration::from_millis(1);
/// A fast path that was blocked is not tested again before this has passed, unless a chain has changed: its test frame may
/// go out to the wire, and whoever asks next would wait for it.
const BLOCKED_PAUSE: Duration = Duration::from_secs(10);

/// Why a bond is tested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    InTurn,
    /// The kernel told so, as it does of filters.
    ChainsChanged,
    Armed,
}

/// What an armed bond is tested with.
struct Tester {
    /// Stays open: to close one takes some ms (`packet_release`, `net/packet/af_packet.c`, 6.12).
    socket: OwnedFd,
    bond: u32,
    ports: Ports,
    mac: [u8; MAC_LEN],
    /// What came of the last test, and when that was.
    blocked: Option<Blocked>,
    tested_at: Instant,
    /// The chains then, where the kernel tells of them.
    chains: [Option<Vec<u32>>; 3],
}

/// The ports that a test frame has to come to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ports {
    standby: u32,
    vf: u32,
}

impl Ports {
    /// A frame that does not come to a port that has just vanished says nothing of anybody's programs.
    fn are_there(self) -> bool {
        [self.standby, self.vf]
            .iter()
            .all(|port| system::name_of(*port).is_ok())
    }
}

impl Tester {
    fn new(bond: u32, ports: Ports, mac: [u8; MAC_LEN]) -> io::Result<Self> {
        Ok(Self {
            // Protocol 0: nothing is received.
            socket: packet_socket(Ifindex(bond), 0)?,
            bond,
            ports,
            mac,
            blocked: None,
            tested_at: Instant::now(),
            chains: [None, None, None],
        })
    }

    /// Sends a test frame; where it ended before its time, if it did.
    fn send(&self, maps: &Mutex<Maps>, wait: Duration) -> Result<Option<Place>, FastPathError> {
        let number = number_by_chance();
        lock(maps).begin_test(self.bond, number)?;
        let begun = Instant::now();
        let frame = path_check_to(NEAREST_BRIDGE, Mac(self.mac), &[], &number.to_ne_bytes());
        // How it fared is asked of the programs. That the bond was down once is told with the first frame after.
        if send(&self.socket, &frame, SendFlags::DONTWAIT) == Err(Errno::NETDOWN) {
            let _ = send(&self.socket, &frame, SendFlags::DONTWAIT);
        }
        loop {
            let test = lock(maps).test(self.bond)?;
            let is_under_way = test.left_bond != 0 && test.reached_vf == 0;
            if !is_under_way || begun.elapsed() >= wait {
                return Ok(self.ended(test));
            }
            std::thread::sleep(ARRIVAL_STEP);
        }
    }

    /// Where the frame ended, if it is not where it should be.
    fn ended(&self, test: Test) -> Option<Place> {
        let came = [test.left_bond, test.reached_standby, test.reached_vf];
        let mut places = self.places().into_iter().zip(came);
        places.find_map(|(place, came)| (came == 0).then_some(place))
    }

    /// Where it was blocked a moment ago, only what shows of it is looked at, unless there is an occasion.
    fn test(
        &mut self,
        links: &mut Vec<Attached>,
        ours: Ours<'_>,
        occasion: Occasion,
    ) -> Option<Blocked> {
        let in_turn = occasion == Occasion::InTurn;
        if !self.ports.are_there() || in_turn && self.is_still_blocked() {
            return self.blocked.clone();
        }
        let places = self.places();
        ours.put_last(links, &places, |place| ours.is_not_last(place));
        let mut ended = self.send(ours.maps, ARRIVAL_LIMIT);
        // Where the kernel does not tell of its chains, ours may have been taken off. Once is enough.
        let may_be_off = occasion == Occasion::Armed || self.blocked.is_none();
        if matches!(ended, Ok(Some(_))) && may_be_off && self.ports.are_there() {
            ours.put_last(links, &places, |place| chain::programs(place).is_err());
            ended = self.send(ours.maps, ARRIVAL_LIMIT);
        }
        if !self.ports.are_there() {
            return self.blocked.clone();
        }
        self.tested_at = Instant::now();
        self.chains = self.chains();
        self.blocked = match ended {
            Ok(ended) => ended.map(|place| ours.blocked_at(place)),
            Err(error) => {
                tracing::warn!(bond = self.bond, %error, "the fast path cannot be tested");
                None
            }
        };
        self.blocked.clone()
    }

    /// It was blocked a moment ago, and nothing has changed since that shows.
    fn is_still_blocked(&self) -> bool {
        self.blocked.is_some()
            && self.tested_at.elapsed() < BLOCKED_PAUSE
            && self.chains() == self.chains
    }

    fn chains(&self) -> [Option<Vec<u32>>; 3] {
        self.places().map(|place| chain::programs(place).ok())
    }

    /// Where it has to pass, in the order of its way.
    fn places(&self) -> [Place; 3] {
        let place = |ifindex, program| Place { ifindex, program };
        let Ports { standby, vf } = self.ports;
        [
            place(self.bond, Program::BondEgress),
            place(standby, Program::PortIngress),
            place(vf, Program::PortIngress),
        ]
    }
}

/// What the armed bonds are tested with, by bond. Held while a test frame is waited for.
#[derive(Default)]
pub(super) struct Testers(Mutex<BTreeMap<u32, Tester>>);

/// Our programs and maps.
#[derive(Clone, Copy)]
pub(super) struct Ours<'a> {
    pub(super) programs: &'a Programs,
    pub(super) maps: &'a Mutex<Maps>,
}

impl Testers {
    /// Tests a bond that was armed just now: what came of its last test is of another time.
    pub(super) fn test_anew(
        &self,
        bond: u32,
        armed_vf: &ArmedVf,
        links: &mut Vec<Attached>,
        ours: Ours<'_>,
    ) -> Result<Option<Blocked>, FastPathError> {
        if let Err(error) = self.have(bond, armed_vf) {
            self.forget(bond);
            return Err(error);
        }
        let mut testers = lock(&self.0);
        let tester = testers.get_mut(&bond);
        Ok(tester.and_then(|tester| tester.test(links, ours, Occasion::Armed)))
    }

    /// Gets what an armed bond is tested with.
    fn have(&self, bond: u32, armed_vf: &ArmedVf) -> Result<(), FastPathError> {
        let mut testers = lock(&self.0);
        let mac = armed_vf.mac.0;
        let ports = Ports {
            standby: armed_vf.standby.0,
            vf: armed_vf.vf.0,
        };
        let before = testers.get(&bond);
        if before.is_some_and(|tester| tester.ports == ports && tester.mac == mac) {
            return Ok(());
        }
        let tester = Tester::new(bond, ports, mac).map_err(|error| FastPathError::System {
            what: "a socket for test frames",
            error,
        })?;
        testers.insert(bond, tester);
        Ok(())
    }

    pub(super) fn forget(&self, bond: u32) {
        lock(&self.0).remove(&bond);
    }

    /// Whether a frame comes through that came through before, as far as that shows at once; also where there is nothing
    /// to test.
    pub(super) fn fares_as_before(&self, bond: u32, maps: &Mutex<Maps>) -> bool {
        // Somebody tests at this moment otherwise.
        let Ok(testers) = self.0.try_lock() else {
            return true;
        };
        let Some(tester) = testers.get(&bond) else {
            return true;
        };
        if tester.blocked.is_some() {
            return tester.tested_at.elapsed() < BLOCKED_PAUSE;
        }
        matches!(tester.send(maps, Duration::ZERO), Ok(None))
    }

    /// Tests an armed bond, whose programs are put last in their chains before, where they are not. `None`: there is nothing
    /// to test.
    pub(super) fn test(
        &self,
        bond: u32,
        links: &mut Vec<Attached>,
        ours: Ours<'_>,
        occasion: Occasion,
    ) -> Option<Option<Blocked>> {
        let mut testers = lock(&self.0);
        let tester = testers.get_mut(&bond)?;
        Some(tester.test(links, ours, occasion))
    }
}

impl Ours<'_> {
    /// Takes programs off and attaches them anew, which puts them behind all others.
    fn put_last(
        self,
        links: &mut Vec<Attached>,
        places: &[Place],
        is_stale: impl Fn(Place) -> bool,
    ) {
        let stale = places.iter().copied().filter(|place| is_stale(*place));
        let stale: Vec<Place> = stale.collect();
        if stale.is_empty() {
            return;
        }
        links.retain(|link| !stale.contains(&link.place));
        let mut programs = lock(self.programs);
        let Some(ebpf) = programs.as_mut() else {
            return;
        };
        for place in stale {
            match Attached::new(ebpf, place) {
                Ok(link) => links.push(link),
                Err(reason) => {
                    let ifindex = place.ifindex;
                    tracing::warn!(
                        ifindex,
                        reason,
                        "a program of the fast path is not attached"
                    );
                }
            }
        }
    }

    /// The kernel tells of the chain, and our program is not the last one there.
    fn is_not_last(self, place: Place) -> bool {
        let Some(ours) = self.number_of(place.program) else {
            return false;
        };
        chain::programs(place).is_ok_and(|programs| programs.last() != Some(&ours))
    }

    /// The kernel's number of a program of ours.
    fn number_of(self, program: Program) -> Option<u32> {
        let programs = lock(self.programs);
        let info = programs.as_ref()?.program(program.name())?.info().ok()?;
        Some(info.id())
    }

    fn blocked_at(self, place: Place) -> Blocked {
        let ours = self.number_of(place.program);
        let mut programs = chain::programs(place).unwrap_or_default();
        programs.retain(|number| Some(*number) != ours);
        Blocked {
            link: Ifindex(place.ifindex),
            way: match place.program {
                Program::PortIngress => Way::In,
                _ => Way::Out,
            },
            programs,
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_ebpf::{PATH_CHECK_ETHERTYPE, TEST_FRAME_LEN};

    use super::*;

    #[test]
    fn a_test_frame_goes_no_further_than_the_next_bridge_and_is_as_the_programs_read_it() {
        let number = 0x0102_0304_0506_0708_u64.to_ne_bytes();
        let frame = path_check_to(NEAREST_BRIDGE, Mac([2, 0, 0, 0, 0, 7]), &[], &number);
        assert_eq!(frame[..6], NEAREST_BRIDGE.0);
        assert_eq!(frame[6..12], [2, 0, 0, 0, 0, 7]);
        assert_eq!(frame[12..14], PATH_CHECK_ETHERTYPE);
        assert_eq!(frame[14..22], number);
        assert_eq!(frame.len(), TEST_FRAME_LEN);
    }
}
