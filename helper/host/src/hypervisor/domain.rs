//! What is so about a domain.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tandem_core::types::{Mac, PciAddress};

use super::socket::ChannelSocket;
use crate::xml::types::Bonds;

/// A domain as its hypervisor describes it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFacts {
    /// Its name.
    pub name: String,
    /// Its UUID; empty where it has none (absent, or a plain QEMU without `-uuid`).
    pub uuid: String,
    /// Whether it runs.
    pub state: DomainState,
    /// Why, in the hypervisor's words, such as `migrated` or `user`; empty if it says nothing.
    pub reason: String,
    /// Another one after each start of its process on this host; empty while it does not run.
    /// A reboot inside the same process does not change it: that is [`super::EventKind::Reboot`].
    pub run_id: String,
    /// Its network devices and host devices, in the hypervisor's order.
    pub nics: Vec<Nic>,
    /// Its disks that are files, and that it may write to.
    pub disks: Vec<FileDisk>,
    /// Those that are volumes of the host's storage pools.
    pub volumes: Vec<VolumeDisk>,
    /// What the hypervisor would refuse to migrate, besides pass-through devices.
    pub unmigratable: Vec<Unmigratable>,
    /// The channel to Tandem in the guest, if the domain has that device.
    pub channel: Option<AgentChannel>,
}

impl DomainFacts {
    /// A domain that does not exist here.
    pub fn absent(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            uuid: String::new(),
            state: DomainState::Absent,
            reason: String::new(),
            run_id: String::new(),
            nics: Vec::new(),
            disks: Vec::new(),
            volumes: Vec::new(),
            unmigratable: Vec::new(),
            channel: None,
        }
    }
}

/// Everything that a hypervisor shows of a domain in one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainLook {
    /// What is so.
    pub facts: DomainFacts,
    /// The bonds of its XML, if it has any; or what is wrong with them.
    pub bonds: Result<Option<Bonds>, String>,
    /// The record of an evacuation, as [`super::Host::set_progress`] wrote it.
    pub progress: Option<String>,
    /// Who claims the domain at this moment, as [`super::Host::set_claim`] wrote it; at most [`Claim::MOST`].
    pub claims: Vec<Claim>,
}

/// The word of one who claims a domain, until its record is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is: ASCII letters and digits.
    pub token: String,
    /// What it says of itself.
    pub text: String,
}

impl Claim {
    /// More of one domain are not looked at.
    pub const MOST: usize = 16;
    /// The longest token, in bytes.
    pub const MAX_TOKEN_BYTES: usize = 64;

    /// A token as processes of this program have it.
    pub fn is_token(text: &str) -> bool {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        plain && !text.is_empty() && text.len() <= Self::MAX_TOKEN_BYTES
    }
}

impl DomainLook {
    /// A domain of whose XML nothing is to be had.
    pub fn without_xml(facts: DomainFacts) -> Self {
        Self {
            facts,
            bonds: Ok(None),
            progress: None,
            claims: Vec::new(),
        }
    }
}

/// A disk that is a file on the hypervisor's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDisk {
    /// Its name in the guest, such as `vda`.
    pub target: String,
    /// The file.
    pub path: PathBuf,
}

/// A disk that is a volume of a storage pool of the hypervisor's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDisk {
    /// Its name in the guest, such as `vda`.
    pub target: String,
    /// The pool's name.
    pub pool: String,
    /// The volume's name in it.
    pub volume: String,
}

/// Something of a domain that the hypervisor would refuse to migrate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmigratable {
    /// A disk's name in the guest, such as `vda`; any other device's alias. May be empty.
    pub name: String,
    /// What it is.
    pub kind: UnmigratableKind,
}

impl Unmigratable {
    /// More of one domain are not looked at.
    pub const MOST: usize = 16;
}

/// What a hypervisor refuses to migrate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmigratableKind {
    /// A file system by virtiofs, unless the other end can.
    Virtiofs,
    /// A file system by 9p, while the guest has it mounted.
    NinePfs,
    /// Shared memory that other guests write to.
    SharedMemory,
    /// A disk whose changes end with the domain.
    TransientDisk,
    /// A disk that is being copied.
    BlockJob,
    /// A disk that is an `NVMe` drive of the host, unless it is copied.
    NvmeDisk,
    /// A processor's clock whose frequency the other host may not have.
    InvariantTsc,
    /// A GPU that renders on the host.
    RenderingGpu,
    /// Memory that the host can't read.
    EncryptedMemory,
}

/// A domain that runs or is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveDomain {
    /// Its name.
    pub name: String,
    /// As [`DomainFacts::run_id`].
    pub run_id: String,
}

/// Whether a domain runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// There is no such domain here.
    Absent,
    /// It runs.
    Running,
    /// It exists and its processors stand still.
    Paused,
    /// It is defined and does not run.
    ShutOff,
    /// It waits for, or receives, its memory from another host.
    Incoming,
}

/// A device that can be a VF or a standby, or that a migration may have to leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its name in the hypervisor: libvirt's alias or QEMU's device id. Empty if it has none.
    pub alias: String,
    /// Its MAC, where the hypervisor knows it; a `<hostdev>` does not tell.
    pub mac: Option<Mac>,
    /// What kind of device it is.
    pub kind: NicKind,
    /// The host's PCI function behind it, if it is passed through.
    pub pci_source: Option<PciAddress>,
    /// Its description, enough to detach it and to attach it again.
    pub xml: String,
}

/// How a NIC is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NicKind {
    /// `<interface>` that the hypervisor emulates or paravirtualises.
    Interface,
    /// `<interface type='hostdev'>`, or `type='network'` on a pool of VFs.
    HostdevInterface,
    /// `<hostdev>`, PCI.
    Hostdev,
    /// Any other `<hostdev>`, such as USB, SCSI or a mediated device: no VF.
    OtherHostdev,
}

impl NicKind {
    /// The host's device itself is in the guest.
    pub fn is_passed_through(self) -> bool {
        self != Self::Interface
    }

    /// It can be a VF.
    pub fn can_be_vf(self) -> bool {
        matches!(self, Self::HostdevInterface | Self::Hostdev)
    }
}

/// The host's end of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentChannel {
    /// Where the hypervisor listens; known only while the domain runs.
    pub socket: Option<ChannelSocket>,
    /// Why a socket that the domain's XML names is not opened: it may be another one's.
    pub refused: Option<String>,
    /// Whether the guest has opened its end; `None` if the hypervisor does not say.
    pub opened: Option<bool>,
}
