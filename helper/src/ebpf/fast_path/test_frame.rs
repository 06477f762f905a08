//! Test frames: whether an armed fast path's programs would run. A frame is sent through the bond, as the guest sends;
//! the program at the bond's egress has the standby receive it, as from the network, and the program there
//! eats it. Where it does not come, what somebody else has attached before ours ends its way, or ours was taken off.
//!
//! Ours are put last again then, so that they are reached after everybody's: a frame that somebody else refuses is
//! refused. Where it does not come all the same, that is told.

use std::collections::{BTreeMap, hash_map::RandomState};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use tandem_core::Ifindex;
use tandem_core::fast_path::{ArmedVf, Blocked, Way};
use tandem_ebpf::{MAC_LEN, PATH_CHECK_ETHERTYPE, TEST_FRAME_LEN, Test};

use super::{
    attach::{Attached, Place},
    chain,
    error::FastPathError,
    maps::Maps,
};
use crate::ebpf::{
    hooks::Program,
    load::{Programs, lock},
};
use crate::packet::socket::packet_socket;

/// To the nearest bridge, and no further: no bridge forwards it (IEEE 802.1Q, 8.6.3), should it ever leave the guest.
const NEAREST_BRIDGE: [u8; MAC_LEN] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
/// Longest wait for a test frame at the standby: the kernel may receive it on another processor, or in its own time.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(300);
/// Between two looks whether it came.
const ARRIVAL_STEP: Duration = Duration::from_millis(1);
/// A fast path that was blocked is not tested again before this has passed: its test frame may go out to the wire.
const BLOCKED_PAUSE: Duration = Duration::from_secs(10);

/// What an armed bond is tested with.
struct Tester {
    /// Stays open: to close one takes some ms (`packet_release`, `net/packet/af_packet.c`, 6.12).
    socket: OwnedFd,
    bond: u32,
    standby: u32,
    mac: [u8; MAC_LEN],
    /// What came of the last test, and when that was.
    blocked: Option<Blocked>,
    tested_at: Instant,
}

impl Tester {
    fn new(bond: u32, standby: u32, mac: [u8; MAC_LEN]) -> io::Result<Self> {
        Ok(Self {
            // Protocol 0: nothing is received.
            socket: packet_socket(Ifindex(bond), 0)?,
            bond,
            standby,
            mac,
            blocked: None,
            tested_at: Instant::now(),
        })
    }

    /// Sends a test frame; where it ended before its time, if it did.
    fn send(&self, maps: &Mutex<Maps>, wait: Duration) -> Result<Option<Place>, FastPathError> {
        let number = RandomState::new().build_hasher().finish();
        lock(maps).begin_test(self.bond, number)?;
        let begun = Instant::now();
        let frame = frame(self.mac, number);
        // How it fared is asked of the programs. That the bond was down once is told with the first frame after.
        if send(&self.socket, &frame, SendFlags::DONTWAIT) == Err(Errno::NETDOWN) {
            let _ = send(&self.socket, &frame, SendFlags::DONTWAIT);
        }
        loop {
            let test = lock(maps).test(self.bond)?;
            let is_under_way = test.left_bond != 0 && test.reached_standby == 0;
            if !is_under_way || begun.elapsed() >= wait {
                return Ok(self.ended(test));
            }
            std::thread::sleep(ARRIVAL_STEP);
        }
    }

    /// Where the frame ended, if it is not where it should be.
    fn ended(&self, test: Test) -> Option<Place> {
        let [bond, standby] = self.places();
        if test.left_bond == 0 {
            Some(bond)
        } else {
            (test.reached_standby == 0).then_some(standby)
        }
    }

    /// Where it has to pass, in the order of its way.
    fn places(&self) -> [Place; 2] {
        [
            Place {
                ifindex: self.bond,
                program: Program::BondEgress,
            },
            Place {
                ifindex: self.standby,
                program: Program::PortIngress,
            },
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
    /// Gets what an armed bond is tested with.
    pub(super) fn have(&self, bond: u32, armed_vf: &ArmedVf) -> Result<(), FastPathError> {
        let mut testers = lock(&self.0);
        let (standby, mac) = (armed_vf.standby.0, armed_vf.mac.0);
        let before = testers.get(&bond);
        if before.is_some_and(|tester| (tester.standby, tester.mac) == (standby, mac)) {
            return Ok(());
        }
        let tester = Tester::new(bond, standby, mac).map_err(|error| FastPathError::System {
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

    /// What came of the last test; `None` where there is nothing to test.
    pub(super) fn last(&self, bond: u32) -> Option<Option<Blocked>> {
        let testers = lock(&self.0);
        testers.get(&bond).map(|tester| tester.blocked.clone())
    }

    /// Tests an armed bond, whose programs are put last in their chains before, where they are not.
    pub(super) fn test(
        &self,
        bond: u32,
        links: &mut Vec<Attached>,
        ours: Ours<'_>,
    ) -> Option<Blocked> {
        let mut testers = lock(&self.0);
        let tester = testers.get_mut(&bond)?;
        let places = tester.places();
        ours.put_last(links, &places, |place| ours.is_not_last(place));
        let mut ended = tester.send(ours.maps, ARRIVAL_LIMIT);
        // Where the kernel does not tell of its chains, ours may have been taken off. Once is enough.
        if matches!(ended, Ok(Some(_))) && tester.blocked.is_none() {
            ours.put_last(links, &places, |place| chain::programs(place).is_err());
            ended = tester.send(ours.maps, ARRIVAL_LIMIT);
        }
        tester.tested_at = Instant::now();
        tester.blocked = match ended {
            Ok(ended) => ended.map(|place| ours.blocked_at(place)),
            Err(error) => {
                tracing::warn!(bond, %error, "the fast path cannot be tested");
                None
            }
        };
        tester.blocked.clone()
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

fn frame(mac: [u8; MAC_LEN], number: u64) -> [u8; TEST_FRAME_LEN] {
    let mut frame = [0; TEST_FRAME_LEN];
    let parts: [&[u8]; 4] = [
        &NEAREST_BRIDGE,
        &mac,
        &PATH_CHECK_ETHERTYPE,
        &number.to_ne_bytes(),
    ];
    let bytes = parts.into_iter().flatten();
    for (place, byte) in frame.iter_mut().zip(bytes) {
        *place = *byte;
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_frame_goes_no_further_than_the_next_bridge_and_has_its_number() {
        let frame = frame([2, 0, 0, 0, 0, 7], 0x0102_0304_0506_0708);
        assert_eq!(frame[..6], NEAREST_BRIDGE);
        assert_eq!(frame[6..12], [2, 0, 0, 0, 0, 7]);
        assert_eq!(frame[12..14], PATH_CHECK_ETHERTYPE);
        assert_eq!(frame[14..22], 0x0102_0304_0506_0708_u64.to_ne_bytes());
    }
}
