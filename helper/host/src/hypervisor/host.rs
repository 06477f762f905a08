//! What is asked of one hypervisor connection.

use std::fmt::Debug;
use std::path::PathBuf;

use super::domain::{ActiveDomain, Claim, DomainLook, DomainState, Nic, VolumeDisk};
use super::error::{Answer, HostError};
use super::events::Events;
use super::migration::{JobFacts, JobWhich, MigrateOptions, Migration};
use crate::xml::types::Bonds;

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

    /// The domain's state alone, for fewer questions than a whole look takes.
    fn state<'a>(&'a self, name: &'a str) -> Answer<'a, DomainState> {
        Box::pin(async move { Ok(self.look(name).await?.facts.state) })
    }

    /// The host's devices behind the domain's emulated NICs, in its order; also while the domain comes in.
    fn taps<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        let _ = name;
        Box::pin(async { Err(not_by_this_driver(self.uri(), "a domain's taps")) })
    }

    /// The process that runs the domain, if this connection leads to that itself.
    fn process<'a>(&'a self, name: &'a str) -> Answer<'a, Option<i32>> {
        let _ = name;
        Box::pin(async { Ok(None) })
    }

    /// Its NICs as they are configured, and not as they are now: one of a network names that network, and not the host's
    /// function that it was given. None where the hypervisor knows no such difference.
    fn configured_nics<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<Nic>> {
        let _ = name;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Names of the domain's snapshots; none where the hypervisor knows no such thing.
    fn snapshots<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>> {
        let _ = name;
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Where on the host that volume is.
    fn volume_path<'a>(&'a self, disk: &'a VolumeDisk) -> Answer<'a, PathBuf> {
        let _ = disk;
        Box::pin(async { Err(not_by_this_driver(self.uri(), "the path of a volume")) })
    }

    /// The name of the domain here that has that UUID, whether it runs or not; none where the hypervisor knows no others.
    fn name_of<'a>(&'a self, uuid: &'a str) -> Answer<'a, Option<String>> {
        let _ = uuid;
        Box::pin(async { Ok(None) })
    }

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

    /// Writes a claim, or with an empty text removes it; each token has a place of its own, so that no claim
    /// overwrites another one, and a look shows all. Else as [`Host::set_progress`].
    fn set_claim<'a>(&'a self, name: &'a str, claim: &'a Claim) -> Answer<'a, ()>;

    /// Asks the guest to release a device. A request only: it has left when [`Look::look`]
    /// no longer lists it. [`super::HostError::AlreadyGone`] if it is not there.
    fn detach<'a>(&'a self, name: &'a str, nic: &'a Nic) -> Answer<'a, ()>;

    /// Plugs in the device that the XML (plain QEMU: JSON) describes.
    /// [`super::HostError::AlreadyThere`] if the domain has it.
    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()>;

    /// What is wrong with plugging in that device here: it names a PCI function that does not
    /// exist on this host, or that a domain has, or a network that is missing, not active or full
    /// ([`super::HostError::Refused`]). A device that names neither, such as an emulated model on a
    /// bridge, has nothing to check. It may still be taken between this call and [`Host::attach`]. `together` devices are
    /// to come from the same network, if it names one.
    fn check_device<'a>(&'a self, device: &'a str, together: usize) -> Answer<'a, ()>;

    /// What is wrong with migrating like that, as far as it is known without a try: an option that the hypervisor
    /// does not have ([`super::HostError::Refused`]).
    fn check_migration<'a>(&'a self, options: &'a MigrateOptions) -> Answer<'a, ()> {
        let _ = options;
        Box::pin(async { Ok(()) })
    }

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

    /// Has the domain's processors stand still; they do when it returns. A migration under way then comes to its end; a
    /// plain QEMU leaves the domain paused where it arrives.
    fn pause<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        let _ = name;
        Box::pin(async { Err(not_by_this_driver(self.uri(), "the stop of a domain")) })
    }

    /// How fast migrations of the domain may copy, in bytes per second.
    fn speed<'a>(&'a self, name: &'a str) -> Answer<'a, u64> {
        let _ = name;
        Box::pin(async { Err(not_by_this_driver(self.uri(), "a migration's speed")) })
    }

    /// Sets it, also for a migration under way; what the hypervisor can't be told exactly is rounded.
    fn set_speed<'a>(&'a self, name: &'a str, bytes_per_s: u64) -> Answer<'a, ()> {
        let _ = (name, bytes_per_s);
        Box::pin(async { Err(not_by_this_driver(self.uri(), "a migration's speed")) })
    }

    /// How long the hypervisor may let the domain stand still at the end of a migration, in ms: sooner it does not stop it by
    /// itself. 0 is never, as long as its memory changes.
    fn set_max_downtime<'a>(&'a self, name: &'a str, ms: u64) -> Answer<'a, ()> {
        let _ = (name, ms);
        Box::pin(async { Err(not_by_this_driver(self.uri(), "a limit of the downtime")) })
    }
}

fn not_by_this_driver(uri: &str, what: &str) -> HostError {
    HostError::Refused {
        host: uri.to_owned(),
        what: what.to_owned(),
        reason: "this hypervisor is not asked for it yet".to_owned(),
    }
}

/// Longest record of [`Host::set_progress`], in bytes.
pub const MAX_PROGRESS_BYTES: usize = 64 * 1024;
