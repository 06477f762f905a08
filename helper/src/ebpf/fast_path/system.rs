//! What the fast path needs to know of the running system, read without RTNL.

use std::{fs, io, os::unix::fs::MetadataExt};

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::FastPathError;

/// Inode number of this process's network namespace.
pub(super) fn netns_inum() -> Result<u32, FastPathError> {
    let metadata = fs::metadata("/proc/self/ns/net").map_err(|error| FastPathError::System {
        what: "this process's network namespace",
        error,
    })?;
    // `struct ns_common` has it as an unsigned int (include/linux/ns_common.h, 6.12).
    u32::try_from(metadata.ino()).map_err(|_| FastPathError::System {
        what: "the number of this process's network namespace",
        error: io::ErrorKind::InvalidData.into(),
    })
}

/// The name that a link has at this moment.
pub(super) fn name_of(ifindex: u32) -> io::Result<String> {
    Ok(netdevice::index_to_name(any_socket()?, ifindex)?)
}

/// The link that has a name at this moment.
pub(super) fn index_of(name: &str) -> io::Result<u32> {
    Ok(netdevice::name_to_index(any_socket()?, name)?)
}

/// Links are asked for by way of a socket, whatever its family.
fn any_socket() -> io::Result<rustix::fd::OwnedFd> {
    Ok(socket(AddressFamily::UNIX, SocketType::DGRAM, None)?)
}

/// Whether a link is up and has its carrier.
pub(super) fn carrier(ifindex: u32) -> bool {
    // Reading it of a link that is down is an error (`carrier_show`,
    // net/core/net-sysfs.c, 6.12).
    let read = |name: String| fs::read_to_string(format!("/sys/class/net/{name}/carrier"));
    name_of(ifindex)
        .and_then(read)
        .is_ok_and(|text| text.trim() == "1")
}

/// Ifindex of the port that a bond sends through; 0 if there is none.
pub(super) fn active_port(bond: u32) -> u32 {
    let read =
        |name: String| fs::read_to_string(format!("/sys/class/net/{name}/bonding/active_slave"));
    name_of(bond)
        .and_then(read)
        .and_then(|port| index_of(port.trim()))
        .unwrap_or(0)
}
