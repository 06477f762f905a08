//! What is asked of a hypervisor, whichever it is: libvirt or plain QEMU.
//!
//! Level-triggered like the guest's core: [`Look::look`] says what is so, and an
//! event only means that it is time to look again.

mod departed_host;
pub(crate) mod domain;
mod error;
mod events;
mod guest;
mod host;
mod migration;
mod socket;

pub(crate) use departed_host::DepartedHost;
pub use domain::{
    ActiveDomain, AgentChannel, Claim, DomainFacts, DomainLook, DomainState, FileDisk, Nic,
    NicKind, Unmigratable, UnmigratableKind, VolumeDisk,
};
pub use error::{Answer, HostError};
pub use events::{DomainEvent, EventKind, EventSender, Events, Lifecycle, event_queue};
pub(crate) use guest::reachable;
pub use guest::{Lack, channel_of, policy_of};
pub use host::{Host, Look, MAX_PROGRESS_BYTES};
pub use migration::{
    JobFacts, JobOperation, JobPhase, JobWhich, MigrateOptions, Migration, OnTimeout, StorageCopy,
};
pub use socket::{ChannelSocket, DomainSocket, NamedBy};

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
