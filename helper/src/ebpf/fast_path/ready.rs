//! What the fast path's part in user space needs, open and encoded beforehand.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use rustix::net::{SendFlags, send};
use tandem_core::fast_path::ArmedVf;
use tandem_core::types::Ifindex;

use crate::ebpf::load::lock;
use crate::netlink::bond::primary_request;
use crate::packet::socket::{packet_socket, take_in};

/// Announcements kept for one bond; the machine's own announcements, which follow,
/// have all of them.
const MAX_ANNOUNCEMENTS: usize = 1024;
/// MACs that the standby takes in besides the bond's; a NIC that has no room for more
/// takes in everything then.
const MAX_UPPER_MACS: usize = 256;

/// What is armed, by bond.
pub(super) type Armed = Arc<Mutex<Vec<(u32, Arc<Ready>)>>>;

/// What is armed for a bond.
pub(super) fn find(armed: &Armed, bond: u32) -> Option<Arc<Ready>> {
    let armed = lock(armed);
    let found = armed.iter().find(|(other, _)| *other == bond);
    found.map(|(_, ready)| ready.clone())
}

/// Everything for one bond, ready to be written.
pub(super) struct Ready {
    pub(super) standby: u32,
    /// `None` where the kernel refuses packet sockets (it takes `CAP_NET_RAW`): the
    /// network learns by the guest's own frames then.
    pub(super) socket: Option<OwnedFd>,
    pub(super) announcements: Vec<Vec<u8>>,
    pub(super) switchover: Vec<u8>,
}

impl Ready {
    /// Opens and encodes.
    pub(super) fn prepare(bond: Ifindex, armed_vf: &ArmedVf, announcements: &[Vec<u8>]) -> Self {
        // Protocol 0: nothing is received.
        let socket = packet_socket(armed_vf.standby, 0);
        if let Err(error) = &socket {
            tracing::warn!(%error, "the fast path will not announce");
        }
        let socket = socket.ok();
        if let Some(socket) = &socket {
            for mac in upper_macs(armed_vf.mac.0, announcements) {
                if let Err(error) = take_in(socket, armed_vf.standby, mac) {
                    tracing::warn!(%error, "the fast path will not reach an upper device of the bond");
                }
            }
        }
        let announcements = announcements.iter().take(MAX_ANNOUNCEMENTS);
        Self {
            standby: armed_vf.standby.0,
            socket,
            announcements: announcements.cloned().collect(),
            switchover: primary_request(bond, armed_vf.standby),
        }
    }

    /// Sends some of the announcements; how many left. A full queue loses some, which
    /// is no failure: the machine repeats them.
    pub(super) fn announce(&self, lot: &[Vec<u8>]) -> u32 {
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
fn upper_macs(own: [u8; 6], announcements: &[Vec<u8>]) -> BTreeSet<[u8; 6]> {
    let sources = announcements.iter().filter_map(|frame| {
        let source = frame.get(6..12)?;
        source.try_into().ok()
    });
    let others = sources.filter(|mac| *mac != own);
    let mut others: BTreeSet<[u8; 6]> = others.collect();
    while others.len() > MAX_UPPER_MACS {
        others.pop_last();
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upper_macs_are_those_announced_that_are_not_the_bonds() {
        let frame = |mac: [u8; 6]| [&[0xff; 6][..], &mac, &[8, 6]].concat();
        let (own, other) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let announcements = [frame(own), frame(other), frame(other), vec![0; 8]];
        assert_eq!(Vec::from_iter(upper_macs(own, &announcements)), [other]);
    }
}
