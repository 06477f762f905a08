//! What is so and why: the one description of the guest's state that people,
//! programs and the host all get.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::model::link::Address;
use crate::model::policy::{HostMay, Origin, PortMatch};
use crate::model::removal::RemovalStage;
use crate::model::source::SourceStatus;
use crate::model::types::{IfName, Ifindex, Mac, PciAddress, Time};

/// Everything known, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Grows with each change; the same number means the same status, but for deadlines.
    pub generation: u64,
    /// Where the policy came from.
    pub policy: Origin,
    /// What the host may do to the guest; `bonds` where it is not said.
    #[serde(default, skip_serializing_if = "HostMay::is_default")]
    pub host_may: HostMay,
    /// What is wrong beyond a single bond, each with a remedy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// One entry for each bond of the policy, in its order.
    pub bonds: Vec<BondStatus>,
    /// Sources of observations.
    pub sources: Vec<SourceStatus>,
}

/// One bond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct BondStatus {
    /// Name of the bond device.
    pub name: IfName,
    /// Its index, once it exists.
    pub ifindex: Option<Ifindex>,
    /// The MAC that the network sees.
    pub mac: Option<Mac>,
    /// Where it stands.
    pub state: BondState,
    /// Who carries the traffic.
    pub traffic: Traffic,
    /// In one sentence, why it stands there.
    pub reason: String,
    /// The standby, if it is present.
    pub standby: Option<PortStatus>,
    /// The VF, if it is present: of several the one that carries the traffic, or is to get it.
    pub vf: Option<PortStatus>,
    /// Other VFs of the policy that are present, in the order in which they would get the traffic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backup_vfs: Vec<PortStatus>,
    /// What the guest's own files say of its VFs. Of bonds that the host gave, the host knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_vfs: Vec<PortMatch>,
    /// Addresses on the bond.
    pub addresses: Vec<Address>,
    /// What is wrong, each with a remedy.
    pub problems: Vec<Problem>,
    /// The kernel itself sends through another port, the standby or a ready backup, when the VF's removal begins,
    /// whether or not the service is in time.
    #[serde(default)]
    pub fast_path_armed: bool,
    /// When a retry or a timeout is due, if any.
    pub next_deadline: Option<Time>,
    /// The last switchovers, oldest first; at most [`BondStatus::MAX_SWITCHOVERS`].
    pub switchovers: Vec<Switchover>,
    /// Switchovers since the service started.
    pub switchover_count: u64,
}

impl BondStatus {
    /// Switchovers that are remembered.
    pub const MAX_SWITCHOVERS: usize = 32;
}

/// Where a bond stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BondState {
    /// Neither the bond nor a NIC for it is present.
    Waiting,
    /// The bond is being created or its standby added.
    Assembling,
    /// The VF carries the traffic, the standby is ready.
    Accelerated,
    /// The standby carries the traffic: as requested, or because no VF is usable.
    Standby,
    /// A switchover is under way.
    SwitchingOver,
    /// The VF carries the traffic and there is no usable standby: a removal would cut the guest off.
    Unprotected,
    /// No port is usable; the guest is cut off.
    Down,
    /// The configuration cannot be applied; see the problems.
    Blocked,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// Who carries a bond's traffic, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// Nobody.
    None,
    /// The VF.
    Vf,
    /// The standby.
    Standby,
    /// A port that is neither, in an adopted bond.
    Other,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// One port, present or candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct PortStatus {
    /// Present name.
    pub name: IfName,
    /// Index.
    pub ifindex: Ifindex,
    /// Permanent MAC, or the present one where there is none.
    pub mac: Option<Mac>,
    /// PCI address.
    pub pci: Option<PciAddress>,
    /// Driver.
    pub driver: Option<String>,
    /// It is a port of the bond.
    pub enslaved: bool,
    /// It carries the bond's traffic.
    pub active: bool,
    /// It has a carrier.
    pub carrier: bool,
    /// Why it is not in use, if it is not.
    pub held: Option<Held>,
    /// Why it is not known whether its frames pass in both directions, where it was tried: no problem, as many networks
    /// have nobody who could tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproved: Option<Unproved>,
}

/// Why nothing shows whether a port's frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Unproved {
    /// The bond has no gateway and no neighbour that has ever answered.
    NobodyKnown,
    /// None of those that were asked answers, on either port.
    NobodyAnswers,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// Why a port that is present is not in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Waiting for a stable carrier (`hold-ms`).
    Holding,
    /// It has no carrier.
    NoCarrier,
    /// The host prepared it for its unplug.
    UnplugPrepared,
    /// The kernel announced its removal.
    RemovalExpected,
    /// An operator moved the traffic to the standby.
    Operator,
    /// The kernel or its driver refused it; retried later.
    Refused,
    /// Something else has its frames, so it is left alone.
    InUse,
    /// The kernel programs are being loaded that act when it is taken without a word; it waits for them, at most 30 s.
    Unarmed,
    /// Another VF carries the traffic; this one is ready to.
    Backup,
    /// Another VF carries the traffic; this one's path is checked once the standby carries it.
    Unchecked,
    /// Its path is lost: nobody answers through it, and through the standby somebody does; retried later.
    PathLost,
    /// Its path check failed: its frames do not pass the network; retried later.
    PathBroken,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// For programs.
    pub code: ProblemCode,
    /// The device it is about.
    pub device: Option<IfName>,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// No NIC matches the standby.
    StandbyMissing,
    /// The standby has no carrier: a removal of the VF would cut the guest off.
    StandbyNoCarrier,
    /// More than one NIC matches the standby, or one entry of `vfs`.
    AmbiguousMatch,
    /// A device of that name exists and is not a bond.
    NameTaken,
    /// The bond exists in another mode, or with options that the kernel does not change while it has ports.
    BondMismatch,
    /// A NIC belongs to another bond or bridge.
    PortTaken,
    /// Something else lies on a NIC and has its frames: a VLAN, macvlan, ipvlan, VXLAN, tunnel or XDP program.
    /// The NIC is left alone.
    NicInUse,
    /// The VF's host does not let it have the bond's MAC; the traffic stays on the standby.
    MacRefused,
    /// A NIC does not take the bond's MTU.
    MtuRefused,
    /// The kernel refused a step; the message says which.
    ActionFailed,
    /// The kernel acknowledged a step and did nothing.
    NoEffect,
    /// The VF's carrier comes and goes; each loss doubles the hold time (hold-ms).
    Flapping,
    /// The bonding driver is missing.
    BondingMissing,
    /// No port is usable: the guest is cut off.
    NothingUsable,
    /// The kernel programs cannot be attached: no fast path, no measured gaps, and a broadcast may arrive
    /// twice during a switchover.
    SwitchoverUnmeasured,
    /// A VF carries the traffic, and nothing can act by itself when it is taken without a word: frames are lost then
    /// until the bond has followed.
    NotArmed,
    /// Filters of a `clsact` on the bond's way out do not see the frames that the fast path redirects when the VF is taken
    /// without a word.
    FiltersPassedOver,
    /// The VF's frames do not pass the network: a neighbour answers through the standby only, or, with
    /// `path-check = "standby"`, no frame reaches the standby.
    PathBroken,
    /// A VF's carrier is there and its path is dead: nobody answers through it, and through the standby somebody does; or
    /// the answers come to the standby, as the network does not learn that the bond is behind the VF.
    PathLost,
    /// The standby's carrier is there, and it hears nothing of what the VF at work hears: a failover would lead nowhere.
    StandbyDeaf,
    /// A reload found an error in the configuration files; the previous configuration stays in effect.
    ConfigurationRefused,
    /// NICs are left to their network manager, or were given back, because no bond is made of them.
    NicsGivenBack,
    /// The bond carries traffic and has had no address for a minute, or none of IPv4 where one was or should be.
    NoAddress,
    /// The bond's IPv4 default route is gone for a minute, and no other interface has one.
    NoDefaultRoute,
    /// Nobody renews the lease of an address on the bond.
    LeaseUnrenewed,
    /// Another network manager puts addresses on a port of the bond again and again; they are taken off.
    PortContested,
    /// A network manager that was to configure the bond leaves it alone.
    ManagerIgnoresBond,
    /// What a boot waits for is a port of the bond, which never has an address of its own.
    WaitOnlineNamesPort,
    /// A PCI network device has no driver: perhaps the VF that is missed.
    VfWithoutDriver,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}

/// One switchover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Switchover {
    /// Number since the service started, from 1.
    pub number: u64,
    /// When the traffic was seen on the new port.
    pub at: Time,
    /// Who carried the traffic before.
    pub from: Traffic,
    /// Who carries it now.
    pub to: Traffic,
    /// Why.
    pub cause: SwitchoverCause,
    /// From the decision to the moment the new port was seen active, in µs;
    /// `None` if the kernel moved the traffic by itself.
    pub took_us: Option<u64>,
    /// From the first warning to the moment at which the link began to be unregistered, upon which
    /// its driver stops, or was closed before, in µs, once both are known. Where neither was seen, to
    /// the moment at which it was seen gone.
    pub lead_us: Option<u64>,
    /// The first warning of the removal, if there was one.
    pub warned_by: Option<RemovalStage>,
    /// From the warning to the moment the switchover was asked of the kernel, in µs,
    /// where the fast path did that.
    pub reaction_us: Option<u64>,
    /// What the kernel's own count says, once it is known.
    pub gap: Option<Gap>,
}

/// How long a bond was without frames in a switchover, counted in the kernel by the
/// frames to and from its MAC; it includes pauses of the traffic itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub struct Gap {
    /// From the last frame received on the old port to the first one on the new port,
    /// in µs; 0 if they overlapped, `None` if either port had none.
    pub receive_us: Option<u64>,
    /// The same for frames sent, in µs.
    pub transmit_us: Option<u64>,
    /// Frames that arrived on the old port when another carried the traffic already.
    pub late_frames: u64,
    /// From the switchover, as the first frame sent through the new port or the first late one
    /// shows it, to the last late frame, in µs; `None` if there was none.
    pub drain_us: Option<u64>,
}

/// Why a switchover happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SwitchoverCause {
    /// The host asked before the VF left.
    Planned,
    /// The kernel warned before the VF left.
    Warned,
    /// The VF left without a warning.
    Abrupt,
    /// A carrier was lost.
    Carrier,
    /// The VF's frames no longer passed, though its carrier was there.
    PathLost,
    /// An operator asked.
    Operator,
    /// A VF arrived and held its carrier.
    Arrival,
    /// Something that this version has no word for: a newer guest says it.
    #[cfg_attr(feature = "schema", schemars(skip))]
    #[serde(other)]
    Unknown,
}
