//! Everything that the machine may learn. Plain data, so that a journal can hold it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::model::fast_path::{Blocked, FastPath, PortFrames, Reaction};
use crate::model::link::{Addressing, Link};
use crate::model::path::{PathAnswer, PortTraffic};
use crate::model::policy::{HostMay, Policy};
use crate::model::removal::Removal;
use crate::model::source::{CheckItem, Source, SourceHealth};
use crate::model::types::{ActionId, CommandId, IfName, Ifindex, Mac, PciAddress, Time};

/// One thing learnt, or one thing asked for.
#[allow(missing_docs, reason = "a field's name and type say what it is")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Input {
    /// A new policy: at start, after a reload, from the host.
    Policy(Policy),
    /// What the host may do, where it is not what it was.
    HostMay(HostMay),
    /// What is wrong with the configuration's files, so that a reload left the policy
    /// as it was; `None` once they are good again.
    FilesRefused(Option<String>),
    /// Whose NICs are left to their network manager, or were given back, and why; `None` if all are taken.
    NicsGivenBack(Option<String>),
    /// All links there are; replaces what was known.
    Links(Vec<Link>),
    /// One link appeared or changed.
    Link(Link),
    /// One link is gone.
    LinkGone { ifindex: Ifindex },
    /// Addresses and routes of all links; replaces what was known.
    Addressings(Vec<Addressing>),
    /// Addresses and routes of one link; replaces what was known of that one.
    Addressing(Addressing),
    /// Whether the guest has an IPv4 route to everywhere, through whatever interface; until it is said, that is
    /// not known.
    WayOut(bool),
    /// A bond's upper devices, VLANs and macvlans, as one number that changes with them.
    UpperDevices {
        bond: Ifindex,
        /// The number; 0 for nothing.
        fingerprint: u64,
    },
    /// The kernel is about to take a PCI device away, or has begun to.
    Removal(Removal),
    /// The fast-path programs are being loaded; `FastPathSupported` follows.
    FastPathsLoading,
    /// Whether the kernel takes the fast-path programs; until it is said, not.
    FastPathSupported(bool),
    /// What the fast-path programs really do for a bond now.
    FastPathSet { bond: Ifindex, fast_path: FastPath },
    /// Whether an armed fast path's programs would run: what came of a test frame.
    FastPathTested {
        bond: Ifindex,
        /// Where it ended before its time; `None` if it came through.
        blocked: Option<Blocked>,
        /// Filters of a `clsact` on the bond's way out, which would not see the frames that the fast path redirects.
        #[serde(default)]
        passed_over: bool,
    },
    /// Somebody changed the filters or queueing disciplines of a link.
    ChainsChanged { link: Ifindex },
    /// What the fast-path programs counted.
    FramesCounted {
        bond: Ifindex,
        /// Each port that was counted on since the counters were cleared.
        ports: Vec<PortFrames>,
    },
    /// How many frames a port has sent.
    PortTraffic(PortTraffic),
    /// What came of asking the bond's neighbours through a port.
    PathAsked {
        bond: Ifindex,
        /// The port that was asked about.
        port: Ifindex,
        answer: PathAnswer,
    },
    /// A link lost its carrier, by the kernel's own time.
    CarrierLost { ifindex: Ifindex, at: Time },
    /// The fast path acted on a warning before the machine could.
    Reacted(Reaction),
    /// A source lost events; what it reports has to be read anew.
    Lost(Source),
    /// Health of a source of observations, for the status.
    SourceHealth {
        source: Source,
        health: SourceHealth,
        /// Its parts one by one, such as each eBPF program.
        parts: Vec<CheckItem>,
    },
    /// Somebody on the channel or the local socket asks for something.
    Command(Command),
    /// Promises made before the service was restarted, as `Machine::holds` gave
    /// them. Handed in before the first `Links`.
    Recall(Vec<Hold>),
    /// The clock jumped, as after a migration or a long pause.
    ClockJump {
        /// By how much, in ms.
        forward_ms: u64,
    },
    /// An action has ended.
    Done { action: ActionId, outcome: Outcome },
    /// A deadline has passed; carries nothing.
    Tick,
}

/// What keeps a bond's traffic on the standby beyond a restart of the service, and what is to be undone after one.
/// Valid within one boot of the guest only. What a newer service noted besides is passed over: a hold is worth more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hold {
    /// The bond.
    pub bond: IfName,
    /// An operator moved the traffic to the standby.
    pub operator: bool,
    /// The VF that was prepared for its unplug.
    pub prepared: Option<PreparedVf>,
    /// Others that were prepared with it, or later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_prepared: Vec<PreparedVf>,
    /// Tandem had an adopted bond deliver the frames of all ports, for a switchover.
    #[serde(default)]
    pub draining: bool,
    /// VFs whose driver has made another MAC than their own the permanent one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<KnownVf>,
}

impl Hold {
    /// There is nothing to keep.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.operator && self.prepared.is_none() && !self.draining && self.rewritten.is_empty()
    }

    /// The VFs that have to be known again.
    pub(crate) fn known_vfs(&self) -> impl Iterator<Item = KnownVf> {
        let prepared = self.prepared.iter().chain(&self.also_prepared);
        let prepared = prepared.filter_map(|vf| {
            Some(KnownVf {
                ifindex: vf.ifindex,
                mac: vf.mac?,
                pci: vf.pci,
            })
        });
        self.rewritten.iter().copied().chain(prepared)
    }
}

/// A VF as it was before its driver rewrote its permanent MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KnownVf {
    /// Its index.
    pub ifindex: Ifindex,
    /// Its own MAC.
    pub mac: Mac,
    /// Its PCI address.
    pub pci: Option<PciAddress>,
}

/// A VF that was released because the host wants to unplug it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PreparedVf {
    /// Its index: another device that comes into its place is free of the hold.
    pub ifindex: Ifindex,
    /// Its permanent MAC.
    pub mac: Option<Mac>,
    /// Its PCI address.
    pub pci: Option<PciAddress>,
    /// Since when it is held.
    pub since: Time,
}

/// Something asked for, with an identity to answer to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Command {
    /// Chosen by the shell; unique while the command is open.
    pub id: CommandId,
    /// What is asked.
    pub request: Request,
    /// The host asks, and not somebody in the guest.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub by_host: bool,
}

/// What can be asked of the machine, by the command line and the channel as well. Without `bond`, the only bond there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Move the traffic to the standby and keep it there until `Failback`.
    Failover {
        /// Which bond; without it, the only one there is.
        bond: Option<IfName>,
    },
    /// Let the VF have the traffic again.
    Failback {
        /// Which bond; without it, the only one there is.
        bond: Option<IfName>,
    },
    /// Release VFs that will be unplugged, after the traffic has left them. Without `vf` all are, and the
    /// standby carries the traffic; with it another VF may, if it is known to work.
    PrepareUnplug {
        /// Which bond; without it, the only one there is.
        bond: Option<IfName>,
        /// Which VF, by permanent MAC; without it, all that are present.
        vf: Option<Mac>,
    },
    /// The unplug will not happen, or the migration is over: take a VF again.
    Resume {
        /// Which bond; without it, the only one there is.
        bond: Option<IfName>,
    },
    /// Tell the network again where the bond is.
    Announce {
        /// Which bond; without it, the only one there is.
        bond: Option<IfName>,
    },
}

impl Request {
    /// The bond that it names.
    pub(crate) fn bond(&self) -> Option<&IfName> {
        match self {
            Self::Failover { bond }
            | Self::Failback { bond }
            | Self::PrepareUnplug { bond, .. }
            | Self::Resume { bond }
            | Self::Announce { bond } => bond.as_ref(),
        }
    }
}

/// How an action ended. `Accepted` means acknowledged, not yet seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The kernel took it.
    Accepted,
    /// The device it was meant for is gone.
    Gone,
    /// The kernel refused it.
    Failed {
        /// The error number, positive; 0 if it was no system call that failed.
        errno: i32,
        /// The kernel's own words (extended ACK) or the reason, in one line.
        message: String,
    },
    /// No answer within the executor's deadline.
    TimedOut,
}
