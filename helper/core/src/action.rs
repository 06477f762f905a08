//! Everything that the machine may want done. Plain data; leaves the executor no choice.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::fast_path::FastPath;
use crate::input::{CommandId, Source};
use crate::link::{Address, FailOverMac, PrimaryReselect, Route};
use crate::status::{Answer, CommandError, Event};
use crate::types::{IfName, Ifindex, Mac};

/// Identity of an action; the executor answers to it with `Input::Done`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActionId(pub u64);

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Action {
    /// Identity.
    pub id: ActionId,
    /// What.
    pub kind: ActionKind,
}

/// What to do. After each change, successful or not, the executor reads what it
/// touched and hands it in before `Input::Done`: links as `Input::Link` (or
/// `Input::LinkGone`), for `MoveAddressing`, `AddAddressing` and
/// `FlushAddressing` also addresses and routes as `Input::Addressing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Create an active-backup bond, down, with these options.
    CreateBond {
        /// Its name.
        name: IfName,
        /// Its MAC from the start, so that the first port doesn't lend it one by chance.
        mac: Option<Mac>,
        /// All its options.
        options: BondOptions,
    },
    /// Change options of a bond; those not given stay.
    SetBondOptions {
        /// The bond.
        bond: Ifindex,
        /// New values.
        options: BondOptions,
    },
    /// Set or clear `IFF_UP`.
    SetAdminUp {
        /// The link.
        link: Ifindex,
        /// New state.
        up: bool,
    },
    /// Set the MTU in bytes.
    SetMtu {
        /// The link.
        link: Ifindex,
        /// New MTU in bytes.
        mtu: u32,
    },
    /// Set a bond's MAC; only while it has no port, so that the first one doesn't lend it another.
    SetMac {
        /// The bond.
        link: Ifindex,
        /// New MAC.
        mac: Mac,
    },
    /// Take a link down and make it a port of the bond, which opens it again.
    Enslave {
        /// The link.
        port: Ifindex,
        /// The bond.
        bond: Ifindex,
    },
    /// Take a port out of its bond and leave it down.
    Release {
        /// The port.
        port: Ifindex,
        /// The bond it is in.
        bond: Ifindex,
    },
    /// Move the traffic: make a port the primary, and the kernel moves it at once.
    SetPrimary {
        /// The bond.
        bond: Ifindex,
        /// The port to carry the traffic.
        port: Ifindex,
    },
    /// Move all addresses (IPv6 link-local ones excepted) and configured routes,
    /// with their lifetimes, metrics and flags, without a moment in which a
    /// destination has no route.
    MoveAddressing {
        /// From this link.
        from: Ifindex,
        /// To this one.
        to: Ifindex,
    },
    /// Add addresses and routes that are missing.
    AddAddressing {
        /// To this link.
        link: Ifindex,
        /// Addresses.
        addresses: Vec<Address>,
        /// Routes.
        routes: Vec<Route>,
    },
    /// Remove addresses and configured routes from a link that is to become a
    /// port, where no bond may inherit them.
    FlushAddressing {
        /// The link.
        link: Ifindex,
    },
    /// Tell the network where the bond's addresses are now: gratuitous ARP and
    /// unsolicited NA for the bond and its upper devices, sent out of `port`.
    Announce {
        /// The bond.
        bond: Ifindex,
        /// The active port.
        port: Ifindex,
    },
    /// See whether a broadcast frame that `from` sends reaches `to` through the
    /// network. Accepted only if one did; on a failure the network is told that the
    /// bond is still behind `to`.
    CheckPath {
        /// The bond.
        bond: Ifindex,
        /// The port that is checked, a backup.
        from: Ifindex,
        /// The port that carries the traffic.
        to: Ifindex,
    },
    /// Have the fast-path programs do exactly this for a bond. The executor hands in
    /// [`crate::Input::FastPathSet`] with what they really do then. A change starts
    /// the counters of the bond's ports anew. [`FastPath::default`] has them let go of a bond,
    /// whether it is still there or not.
    SetFastPath {
        /// The bond.
        bond: Ifindex,
        /// What they are to do.
        fast_path: FastPath,
    },
    /// Read what the fast-path programs counted; handed in as [`crate::Input::FramesCounted`].
    ReadFrames {
        /// The bond.
        bond: Ifindex,
        /// On these ports.
        ports: Vec<Ifindex>,
    },
    /// Read everything of a source anew.
    Observe {
        /// The source.
        source: Source,
    },
    /// Answer a command. The executor reports no `Done`.
    Reply {
        /// The command.
        command: CommandId,
        /// The answer.
        result: Result<Answer, CommandError>,
    },
    /// Tell subscribers and the log. The executor reports no `Done`.
    Notify(Event),
}

/// Options of a bond; `None` leaves the kernel's value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BondOptions {
    /// Link monitoring interval in ms.
    pub miimon_ms: Option<u32>,
    /// Only at creation: it can't change while ports exist (`ENOTEMPTY`).
    pub fail_over_mac: Option<FailOverMac>,
    /// Who decides the way back.
    pub primary_reselect: Option<PrimaryReselect>,
    /// Deliver what arrives on backup ports.
    pub all_ports_active: Option<bool>,
    /// Announcements that the kernel sends at a switchover.
    pub peer_notifications: Option<u8>,
}
