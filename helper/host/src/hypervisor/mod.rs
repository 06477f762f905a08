//! What is asked of a hypervisor, whichever it is: libvirt or plain QEMU.
//!
//! Level-triggered like the guest's core: [`Host::domain`] says what is so, and an
//! event only means that it is time to look again.

mod departed_host;
mod domain;
mod error;
mod events;
mod migration;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

pub(crate) use departed_host::DepartedHost;
pub use domain::{ActiveDomain, AgentChannel, DomainFacts, DomainLook, DomainState, Nic, NicKind};
pub use error::HostError;
pub use events::{Event, EventKind, EventSender, Events, Lifecycle, event_queue};
pub use migration::{JobFacts, JobPhase, JobWhich, MigrateOptions, Migration};

use crate::xml::Bonds;

/// The URI names no other machine: what it says of files and sockets is true here.
pub fn is_local_uri(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return true;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    host.is_empty() || scheme.ends_with("+unix")
}

/// One name for the machine that a URI leads to, however it was typed: users, transports and drivers are
/// left out. Two hypervisors on one machine are told apart by their sockets.
pub fn machine_of(uri: &str) -> String {
    let (_, rest) = uri.split_once("://").unwrap_or((uri, ""));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    if !is_local_uri(uri) {
        return host.trim_end_matches('.').to_ascii_lowercase();
    }
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let socket = query.split('&').find_map(|one| one.strip_prefix("socket="));
    socket.map_or_else(|| "here".to_owned(), |socket| format!("here {socket}"))
}

/// The answer to one question or request; ends within the driver's own time limit.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, HostError>> + Send + 'a>>;

/// One hypervisor connection: a libvirt URI, or a plain QEMU's QMP socket.
///
/// Every call is bounded in time and ends in [`HostError::TimedOut`] beyond. A
/// method may be called at any moment, and a call that is dropped leaves nothing
/// running on this side; what the hypervisor does with it is seen by [`Host::domain`].
pub trait Host: Debug + Send + Sync {
    /// How the operator named this connection, such as `qemu:///system`.
    fn uri(&self) -> &str;

    /// Names of all domains that this connection knows, running or not.
    fn domains(&self) -> Answer<'_, Vec<String>>;

    /// What is so now. A domain that does not exist here is [`DomainState::Absent`], not an error.
    fn domain<'a>(&'a self, name: &'a str) -> Answer<'a, DomainFacts>;

    /// The bonds that the domain's XML asks for (plain QEMU: a file beside the socket).
    fn bonds<'a>(&'a self, name: &'a str) -> Answer<'a, Option<Bonds>>;

    /// [`Host::domain`], [`Host::bonds`] and [`Host::progress`] in one look, for as few questions
    /// to the hypervisor as it takes. Bonds that can't be understood don't fail it.
    fn look<'a>(&'a self, name: &'a str) -> Answer<'a, DomainLook> {
        Box::pin(async move {
            let facts = self.domain(name).await?;
            if facts.state == DomainState::Absent {
                return Ok(DomainLook {
                    facts,
                    bonds: Ok(None),
                    progress: None,
                });
            }
            let bonds = match self.bonds(name).await {
                Ok(bonds) => Ok(bonds),
                Err(HostError::InvalidXml { reason, .. }) => Err(reason),
                Err(error) => return Err(error),
            };
            let progress = self.progress(name).await?;
            Ok(DomainLook {
                facts,
                bonds,
                progress,
            })
        })
    }

    /// All domains that run or are paused: the cheapest answer to whether one has come or gone.
    fn active(&self) -> Answer<'_, Vec<ActiveDomain>> {
        Box::pin(async move {
            let mut active = Vec::new();
            for name in self.domains().await? {
                let facts = self.domain(&name).await?;
                if matches!(facts.state, DomainState::Running | DomainState::Paused) {
                    let run_id = facts.run_id;
                    active.push(ActiveDomain { name, run_id });
                }
            }
            Ok(active)
        })
    }

    /// Writes the bonds, or removes them; for now and, where the domain is persistent, for its next start.
    fn set_bonds<'a>(&'a self, name: &'a str, bonds: Option<&'a Bonds>) -> Answer<'a, ()>;

    /// The record that [`Host::set_progress`] wrote, as it was written. It comes along with a migration.
    fn progress<'a>(&'a self, name: &'a str) -> Answer<'a, Option<String>>;

    /// Writes the record of an evacuation's progress, or removes it. Durable when it returns:
    /// another process finds it after this one was killed. Any text up to
    /// [`MAX_PROGRESS_BYTES`] without control characters.
    ///
    /// libvirt takes no change of a domain while it migrates: the call waits for the migration's
    /// end, or fails. So write what matters before [`Host::migrate`].
    fn set_progress<'a>(&'a self, name: &'a str, record: Option<&'a str>) -> Answer<'a, ()>;

    /// Asks the guest to release a device. A request only: it has left when [`Host::domain`]
    /// no longer lists it. [`HostError::AlreadyGone`] if it is not there.
    fn detach<'a>(&'a self, name: &'a str, nic: &'a Nic) -> Answer<'a, ()>;

    /// Plugs in the device that the XML (plain QEMU: JSON) describes.
    /// [`HostError::AlreadyThere`] if the domain has it.
    fn attach<'a>(&'a self, name: &'a str, device: &'a str) -> Answer<'a, ()>;

    /// What is wrong with plugging in that device here: it names a PCI function that does not
    /// exist on this host, or that a domain has ([`HostError::Refused`]). A device that names
    /// no PCI function of the host, such as an emulated model, has nothing to check. It may
    /// still be taken between this call and [`Host::attach`].
    fn check_device<'a>(&'a self, device: &'a str) -> Answer<'a, ()>;

    /// Starts a live migration to `destination` and returns once it was asked for.
    fn migrate<'a>(
        &'a self,
        name: &'a str,
        destination: &'a str,
        options: &'a MigrateOptions,
    ) -> Answer<'a, Box<dyn Migration>>;

    /// Where the domain's migration stands, or how the last one ended.
    fn job<'a>(&'a self, name: &'a str, which: JobWhich) -> Answer<'a, JobFacts>;

    /// Cancels the domain's migration. [`HostError::AlreadyGone`] if there is none.
    fn cancel<'a>(&'a self, name: &'a str) -> Answer<'a, ()>;

    /// Lets the domain's processors run again, after a migration that came to nothing left it paused.
    fn unpause<'a>(&'a self, name: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            Err(HostError::Refused {
                host: self.uri().to_owned(),
                what: format!("run domain {name} again"),
                reason: "this driver can't; do it by hand".to_owned(),
            })
        })
    }

    /// Everything that happens from now on, to all domains of the connection. Never ends by
    /// itself: a broken source is mended, with [`EventKind::Lost`] in between.
    fn events(&self) -> Answer<'_, Events>;
}

/// Longest record of [`Host::set_progress`], in bytes.
pub const MAX_PROGRESS_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_name_however_it_is_typed() {
        for same in [
            ["qemu+ssh://b/system", "qemu+ssh://root@B./system"],
            ["qemu+ssh://b/system", "qemu+tls://b/session?no_verify=1"],
            ["qemu:///system", "qemu:///session"],
            ["qemu:///system", "qmp:/run/a"],
            [
                "qemu+ssh://[2001:db8::1]/system",
                "qemu://u@[2001:DB8::1]/system",
            ],
        ] {
            assert_eq!(machine_of(same[0]), machine_of(same[1]), "{same:?}");
        }
        for different in [
            ["qemu+ssh://a/system", "qemu+ssh://b/system"],
            ["qemu:///system", "qemu+ssh://b/system"],
            ["qemu+ssh://b/system", "qemu+ssh://b:2222/system"],
            [
                "qemu+unix:///system?socket=/a",
                "qemu+unix:///system?socket=/b",
            ],
        ] {
            assert_ne!(
                machine_of(different[0]),
                machine_of(different[1]),
                "{different:?}"
            );
        }
    }

    #[test]
    fn a_uri_with_a_host_is_another_machine() {
        for local in [
            "qemu:///system",
            "qemu+unix:///system?socket=/run/a",
            "qmp:/run/a",
            "test:///default",
        ] {
            assert!(is_local_uri(local), "{local}");
        }
        for remote in ["qemu+ssh://b/system", "qemu+tls://192.0.2.1/system"] {
            assert!(!is_local_uri(remote), "{remote}");
        }
    }
}
