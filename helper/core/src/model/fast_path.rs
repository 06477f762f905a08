//! The fast path of a bond: what its programs in the kernel are
//! to do, and what they counted.

use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::types::{Ifindex, Mac, PciAddress, Time};

/// What the fast-path programs do for one bond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FastPath {
    /// Ports whose frames they count, by index. A port that carries the traffic is
    /// among them only during a switchover; an armed VF is counted on in any case, so
    /// that its last frames are known.
    pub ports: Vec<Ifindex>,
    /// Number of the switchover that is counted; another one starts the counters anew.
    pub period: u64,
    /// The bond's MAC: what comes from it by broadcast or multicast the guest itself has sent.
    pub mac: Option<Mac>,
    /// Whom to step in for when the kernel begins to remove it.
    pub armed_vf: Option<ArmedVf>,
}

impl FastPath {
    /// They do nothing for the bond, and keep nothing of it.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What to do at once, inside the kernel, when a VF's removal begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArmedVf {
    /// The VF that carries the traffic, or is about to get it.
    pub vf: Ifindex,
    /// Its PCI address: what a removal is about.
    pub pci: PciAddress,
    /// The port above it, which takes it along when it goes.
    pub slot: Option<PciAddress>,
    /// The port that takes over: a backup VF that is known to work, else the standby.
    pub standby: Ifindex,
    /// The MAC that the network knows the bond by.
    pub mac: Mac,
    /// The bond's own addresses, to be announced from the port that takes over.
    pub addresses: Vec<IpAddr>,
    /// The bond's upper devices, to be announced too, as one number that changes with them.
    pub upper_devices: u64,
}

/// Where a frame on the fast path's way does not come to its program, because what somebody else has attached there comes
/// first and ends the frame's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Blocked {
    /// The bond, the port that takes over, or the VF.
    pub link: Ifindex,
    /// Which way frames pass there.
    pub way: Way,
    /// The programs before it, by the kernel's number; none where the kernel does not tell.
    pub programs: Vec<u32>,
}

/// Which way frames pass a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Out of the guest.
    Out,
    /// Into it.
    In,
}

/// What a port carried since its counters were started. Frames to and from
/// the bond's own MAC only: broadcasts say nothing about where the network sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortFrames {
    /// The port.
    pub port: Ifindex,
    /// What came in while it carried the traffic.
    pub received: Frames,
    /// What went out.
    pub sent: Frames,
    /// What came in while another port carried the traffic.
    pub late: Frames,
}

/// Frames of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Frames {
    /// How many.
    pub count: u64,
    /// When the first one passed.
    pub first: Option<Time>,
    /// When the last one passed.
    pub last: Option<Time>,
}

/// What the fast path did after a warning, without the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reaction {
    /// The bond.
    pub bond: Ifindex,
    /// From the warning to the moment the announcements were out, in µs.
    pub announced_us: Option<u64>,
    /// From the warning to the moment the switchover was asked of the kernel, in µs.
    pub requested_us: Option<u64>,
}
