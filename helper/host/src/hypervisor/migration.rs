//! A live migration: what is asked, and how it goes.

use std::fmt::Debug;

use super::error::Answer;

/// How to migrate; passed through to the hypervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrateOptions {
    /// The domain's XML on the destination, if it differs (`virsh migrate --xml`).
    pub xml: Option<String>,
    /// Where the memory goes, such as `tcp://192.0.2.1` (`--migrateuri`); QEMU: `tcp:…` or `unix:…`.
    pub migrate_uri: Option<String>,
    /// The hosts' libvirtds talk to each other (`--p2p`).
    pub peer_to_peer: bool,
    /// The domain becomes persistent on the destination (`--persistent`).
    pub persistent: bool,
    /// A file with its persistent XML there, if it differs (`--persistent-xml`).
    pub persistent_xml: Option<String>,
    /// Its definition is removed from the source (`--undefinesource`).
    pub undefine_source: bool,
    /// Its name there, if that is another one (`--dname`).
    pub dname: Option<String>,
    /// Not a new one: the memory of a post-copy that broke off goes on (`--postcopy-resume`).
    pub resume_postcopy: bool,
    /// Disks are copied too (`--copy-storage-…`).
    pub storage: Option<StorageCopy>,
    /// The guest's writes wait for the destination (`--copy-storage-synchronous-writes`).
    pub storage_synchronous: bool,
    /// Only these disks (`--migrate-disks`).
    pub disks: Option<String>,
    /// Several connections (`--parallel`).
    pub parallel: bool,
    /// How many (`--parallel-connections`).
    pub parallel_connections: Option<u32>,
    /// Compress the memory (`--compressed`).
    pub compressed: bool,
    /// How (`--comp-methods`).
    pub compression_methods: Option<String>,
    /// Post-copy (`--postcopy`), after the first pass over the memory (`--postcopy-after-precopy`) unless
    /// [`MigrateOptions::timeout`] begins it.
    pub postcopy: bool,
    /// Limit after the switch to it, in MiB/s (`--postcopy-bandwidth`).
    pub postcopy_bandwidth_mib_s: Option<u64>,
    /// What happens after so many s (`--timeout`).
    pub timeout: Option<(u64, OnTimeout)>,
    /// Slow the guest down until its memory converges (`--auto-converge`).
    pub auto_converge: bool,
    /// Limit in MiB/s (`--bandwidth`).
    pub bandwidth_mib_s: Option<u64>,
    /// Encrypt (`--tls`).
    pub tls: bool,
    /// The name in the destination's certificate (`--tls-destination`).
    pub tls_destination: Option<String>,
    /// Against libvirt's advice (`--unsafe`).
    pub is_unsafe: bool,
    /// Further words for `virsh migrate`, which have been checked.
    pub more: Vec<String>,
}

/// Which disks are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageCopy {
    /// Whole ones.
    All,
    /// What they have beyond a base image that both hosts have.
    Incremental,
}

/// What hurries a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    /// The guest is stopped for the rest of it.
    Suspend,
    /// The switch to post-copy.
    PostCopy,
}

/// A migration under way.
pub trait Migration: Debug + Send {
    /// Waits for its end. Cancel-safe: may be called again. An error does not tell where the
    /// domain runs; look at both hosts. Dropped before its end, the migration goes on.
    fn finished(&mut self) -> Answer<'_, ()>;

    /// Ends whatever this process runs to lead the migration. Only for one that has not begun: in
    /// post-copy this may cost the guest.
    fn give_up(&mut self) -> Answer<'_, ()>;
}

/// Which job is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobWhich {
    /// The one under way.
    Current,
    /// The last one that ended well.
    Completed,
}

/// How a job stands. A figure that the hypervisor does not tell is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Where it stands.
    pub phase: JobPhase,
    /// What it is; only a migration has a phase with figures.
    pub operation: JobOperation,
    /// Memory in all, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Memory that is still to be sent, in bytes.
    pub memory_remaining_bytes: Option<u64>,
    /// Speed in bytes per second.
    pub rate_bytes_per_s: Option<u64>,
    /// Memory that the guest changes, in bytes per second.
    pub dirty_bytes_per_s: Option<u64>,
    /// How long the guest stands still: expected, or as it was, in ms.
    pub downtime_ms: Option<u64>,
    /// Since its start, in ms.
    pub elapsed_ms: Option<u64>,
    /// How often the memory was gone over, the pass under way included.
    pub passes: Option<u64>,
}

impl JobFacts {
    /// It has begun and not ended.
    pub fn is_under_way(&self) -> bool {
        matches!(
            self.phase,
            JobPhase::Setup
                | JobPhase::PreCopy
                | JobPhase::PostCopy
                | JobPhase::PostCopyBroken
                | JobPhase::SwitchOver
                | JobPhase::Other
        )
    }
}

/// What a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum JobOperation {
    /// A migration, as far as the hypervisor says.
    #[default]
    Migration,
    /// A backup of its disks.
    Backup,
    /// A snapshot is made, removed or gone back to.
    Snapshot,
    /// Its memory is saved to a file.
    Save,
    /// Its memory is dumped.
    Dump,
    /// Something that this version has no word for.
    Other,
}

impl JobOperation {
    /// For people, with an article.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Migration => "a migration",
            Self::Backup => "a backup",
            Self::Snapshot => "a snapshot",
            Self::Save => "a save to a file",
            Self::Dump => "a memory dump",
            Self::Other => "a job of the hypervisor",
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum JobPhase {
    /// There is none.
    #[default]
    None,
    /// Connections are being made.
    Setup,
    /// Memory is copied while the guest runs on the source.
    PreCopy,
    /// The guest runs on the destination, the rest of its memory follows.
    PostCopy,
    /// The same, and the rest does not come: the connection is gone.
    PostCopyBroken,
    /// The guest stands still for the last part.
    SwitchOver,
    /// It ended well.
    Completed,
    /// It failed.
    Failed,
    /// It was cancelled, or is being cancelled.
    Cancelled,
    /// Something that this version has no words for.
    Other,
}
