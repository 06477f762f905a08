//! What is asked of one hypervisor connection.

use std::fmt::Debug;

use super::domain::{ActiveDomain, DomainLook, Nic};
use super::error::Answer;
use super::events::Events;
use super::migration::{JobFacts, JobWhich, MigrateOptions, Migration};
use crate::xml::Bonds;

/// What a hypervisor shows: a libvirt URI's, or a plain QEMU's behind its QMP socket.
///
/// Every call is bounded in time and ends in [`super::HostError::TimedOut`] beyond. A
/// method may be called at any moment, and a call that is dropped leaves nothing
/// running on this side; what the hypervisor does with it is seen by [`Look::look`].
pub trait Look: Debug + Send + Sync {
    /// How the operator named this connection, such as `qemu:///system`.
    fn uri(&self) -> &str;

    /// What is so now, for as few questions to the hypervisor as it takes. A domain that does not exist
    /// here is [`super::DomainState::Absent`], not an error; bonds that can't be understood don't fail it.
    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook>;

    /// All domains that run or are paused: the cheapest answer to whether one has come or gone.
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>>;

    /// Where the domain's migration stands, or how the last one ended.
    fn job<'a>(&'a self, name: &'a str, which: JobWhich) -> Answer<'a, JobFacts>;

    /// Everything that happens from now on, to all domains of the connection. Never ends by
    /// itself: a broken source is mended, with [`super::EventKind::Lost`] in between.
    fn events(&self) -> Answer<'_, Events>;
}

/// A hypervisor that also does something, bounded like [`Look`].
pub trait Host: Look {
    /// Writes the bonds, or removes them; for now and, where the domain is persistent, for its next start.
    fn set_bonds<'a>(&'a self, name: &'a str, bonds: Option<&'a Bonds>) -> Answer<'a, ()>;

    /// Writes the record of an evacuation's progress, or removes it. Durable when it returns:
    /// another process finds it after this one was killed, and it comes along with a migration.
    /// Any text up to [`MAX_PROGRESS_BYTES`] without control characters.
    ///
    /// libvirt takes no change of a domain while it migrates: the call waits for the migration's
    /// end, or fails. So write what matters before [`Host::migrate`].
    fn set_progress<'a>(&'a self, name: &'a str, record: Option<&'a str>) -> Answer<'a, ()>;

    /// Asks the guest to release a device. A request only: it has left when [`Look::look`]
    /// no longer lists it. [`super::HostError::AlreadyGone`] if it is not there.
    fn detach<'a>(&'a self, name: &'a str, nic: &'a Nic) -> Answer<'a, ()>;

    /// Plugs in the device that the XML (plain QEMU: JSON) describes.
    /// [`super::HostError::AlreadyThere`] if the domain has it.
    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()>;

    /// What is wrong with plugging in that device here: it names a PCI function that does not
    /// exist on this host, or that a domain has, or a network that is missing or not active
    /// ([`super::HostError::Refused`]). A device that names neither, such as an emulated model on a
    /// bridge, has nothing to check. It may still be taken between this call and [`Host::attach`].
    fn check_device<'a>(&'a self, device: &'a str) -> Answer<'a, ()>;

    /// Starts a live migration to `destination` and returns once it was asked for.
    fn migrate<'a>(
        &'a self,
        name: &'a str,
        destination: &'a str,
        options: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>>;

    /// Cancels the domain's migration. [`super::HostError::AlreadyGone`] if there is none.
    fn cancel<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// Lets the domain's processors run again, after a migration that came to nothing left it paused.
    fn unpause<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;
}

/// Longest record of [`Host::set_progress`], in bytes.
pub const MAX_PROGRESS_BYTES: usize = 64 * 1024;
