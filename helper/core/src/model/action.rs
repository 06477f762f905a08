//! Everything that the machine may want done. Plain data; leaves the executor no choice.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::model::fast_path::FastPath;
use crate::model::link::{Address, BondFacts, FailOverMac, PrimaryReselect, Route};
use crate::model::source::Source;
use crate::model::types::{ActionId, IfName, Ifindex, Mac};

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
#[allow(missing_docs, reason = "a field's name and type say what it is")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActionKind {
    /// Create an active-backup bond, down, with these options.
    CreateBond {
        name: IfName,
        /// Its MAC from the start, so that the first port doesn't lend it one by chance.
        mac: Option<Mac>,
        options: BondOptions,
    },
    /// Change options of a bond; those not given stay.
    SetBondOptions { bond: Ifindex, options: BondOptions },
    /// Set or clear `IFF_UP`.
    SetAdminUp { link: Ifindex, up: bool },
    /// Set the MTU in bytes.
    SetMtu { link: Ifindex, mtu: u32 },
    /// Set a bond's MAC; only while it has no port, so that the first one doesn't lend it another.
    SetMac { link: Ifindex, mac: Mac },
    /// Ask the kernel whether it would make a NIC that is up a port of the bond, without touching the NIC:
    /// what has its frames already may lie in another network namespace, where no dump shows it.
    CheckFree { port: Ifindex, bond: Ifindex },
    /// Take a link down and make it a port of the bond, which opens it again. One that is not free is refused
    /// and left as it is.
    Enslave { port: Ifindex, bond: Ifindex },
    /// Take a port out of its bond and leave it down.
    Release { port: Ifindex, bond: Ifindex },
    /// Move the traffic: make a port the primary, and the kernel moves it at once. Where the bond delivers the frames of all
    /// ports by then, the network is told with it, as an [`Self::Announce`] that follows comes some ms later.
    SetPrimary { bond: Ifindex, port: Ifindex },
    /// Move all addresses (IPv6 link-local ones excepted) and configured routes,
    /// with their lifetimes, metrics and flags, without a moment in which a
    /// destination has no route.
    MoveAddressing { from: Ifindex, to: Ifindex },
    /// Add addresses and routes that are missing.
    AddAddressing {
        link: Ifindex,
        addresses: Vec<Address>,
        routes: Vec<Route>,
    },
    /// Remove addresses and configured routes from a link that is to become a
    /// port, where no bond may inherit them.
    FlushAddressing { link: Ifindex },
    /// Tell the network where the bond's addresses are now: gratuitous ARP and
    /// unsolicited NA for the bond and its upper devices, sent out of `port`.
    Announce { bond: Ifindex, port: Ifindex },
    /// See whether a broadcast frame that `from` sends reaches `to` through the
    /// network. Accepted only if one did; on a failure the network is told that the
    /// bond is still behind `to`.
    CheckPath {
        bond: Ifindex,
        /// The port that is checked, a backup.
        from: Ifindex,
        /// The port that carries the traffic.
        to: Ifindex,
        /// What has to be shown.
        proof: PathProof,
    },
    /// Read how many frames a port has sent; handed in as [`crate::Input::PortTraffic`]. An armed fast path of
    /// the bond is tested too: what came of it is handed in as [`crate::Input::FastPathTested`], but where it fares as before at
    /// once.
    ReadTraffic {
        bond: Ifindex,
        port: Ifindex,
        /// Whether it is gone on with, by who can do so cheaply; others read once.
        go_on: Option<GoOn>,
        /// A chain of filters has changed: what came of the last test of the fast path says nothing.
        anew: bool,
    },
    /// Ask neighbours of the bond through a port, and, if none answers, through another one. One of them carries the
    /// traffic and asks as the bond; the other never has the bond's MAC as the source. Handed in as
    /// [`crate::Input::PathAsked`]. But on trial an armed fast path of the bond is tested after, and what came of it handed in
    /// as [`crate::Input::FastPathTested`].
    AskPath {
        bond: Ifindex,
        /// The port that is asked about.
        port: Ifindex,
        /// The one to compare with.
        other: Ifindex,
        /// How much is done for an answer.
        how: Asking,
    },
    /// Have the fast-path programs do exactly this for a bond. The executor hands in
    /// [`crate::Input::FastPathSet`] with what they really do then, after [`crate::Input::FastPathTested`] if it
    /// is armed. A change starts
    /// the counters of the bond's ports anew. [`FastPath::default`] has them let go of a bond,
    /// whether it is still there or not.
    SetFastPath { bond: Ifindex, fast_path: FastPath },
    /// Read what the fast-path programs counted; handed in as [`crate::Input::FramesCounted`].
    ReadFrames { bond: Ifindex, ports: Vec<Ifindex> },
    /// Read everything of a source anew.
    Observe { source: Source },
}

impl ActionKind {
    /// The devices without which the action makes no sense, the one it is about first.
    pub fn devices(&self) -> Vec<Ifindex> {
        match *self {
            Self::SetBondOptions { bond, .. } | Self::SetFastPath { bond, .. } => Vec::from([bond]),
            Self::SetAdminUp { link, .. }
            | Self::SetMtu { link, .. }
            | Self::SetMac { link, .. }
            | Self::AddAddressing { link, .. }
            | Self::FlushAddressing { link } => Vec::from([link]),
            Self::CheckFree { port, bond }
            | Self::Enslave { port, bond }
            | Self::Release { port, bond }
            | Self::SetPrimary { bond, port } => Vec::from([port, bond]),
            Self::Announce { bond, port } => Vec::from([bond, port]),
            Self::CheckPath { bond, from, to, .. } => Vec::from([from, to, bond]),
            Self::ReadTraffic { bond, port, .. } => Vec::from([port, bond]),
            Self::AskPath {
                bond, port, other, ..
            } => Vec::from([port, other, bond]),
            Self::MoveAddressing { from, to } => Vec::from([from, to]),
            Self::CreateBond { .. } | Self::ReadFrames { .. } | Self::Observe { .. } => Vec::new(),
        }
    }
}

/// Looks that go on for as long as each of them finds that frames to one station went out and came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GoOn {
    /// Time between two of them, in ms.
    pub each_ms: u64,
    /// At most for so long, in ms.
    pub for_ms: u64,
}

/// How neighbours are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asking {
    /// Each of them several times.
    Fully,
    /// One of them, and once through each port: nobody answered the last time, and nothing was heard since.
    Briefly,
    /// The port got the traffic just now: what passed before proves nothing, there is little time, and an answer may
    /// come in through the other port, which delivers too.
    OnTrial,
}

/// What a path check has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathProof {
    /// A frame reaches the other port.
    Standby,
    /// Whoever answers through the other port answers through this one too, or may do so once it has the traffic; where
    /// nobody answers there, a frame reaches the other port.
    Neighbours,
    /// The same, but where nobody answers nothing has to be shown.
    NoFault,
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

impl BondOptions {
    /// Those that the bond does not have.
    pub(crate) fn missing_in(&self, facts: &BondFacts) -> Self {
        Self {
            miimon_ms: self.miimon_ms.filter(|one| *one != facts.miimon_ms),
            fail_over_mac: self.fail_over_mac.filter(|one| *one != facts.fail_over_mac),
            primary_reselect: self
                .primary_reselect
                .filter(|one| *one != facts.primary_reselect),
            all_ports_active: self
                .all_ports_active
                .filter(|one| *one != facts.all_ports_active),
            peer_notifications: self
                .peer_notifications
                .filter(|one| *one != facts.peer_notifications),
        }
    }
}
