//! Reads links for programs that look once and end.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use tandem_core::IfName;
use tandem_core::link::Link;
use tandem_core::types::Ifindex;

use super::sysfs::Sysfs;
use crate::netlink::request::{RequestError, Requests};
use crate::netlink::{address, link};

const SYSFS: &str = "/sys";

/// The kernel's tables can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's links can't be read: {0}")]
pub struct OnceError(#[from] RequestError);

/// The link of this name; `None` if it is gone, perhaps under another name by now.
///
/// # Errors
/// The kernel does not answer.
pub fn link_named(name: &IfName) -> Result<Option<Link>, OnceError> {
    let path = Path::new(SYSFS)
        .join("class/net")
        .join(name.as_str())
        .join("ifindex");
    let Some(index) = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    else {
        return Ok(None);
    };
    let described = link::get(&mut Requests::open()?, Ifindex(index))?;
    Ok(described.map(|described| Sysfs::new(SYSFS.into()).complete(described)))
}

/// Addresses that are valid for ever, with their interfaces.
///
/// # Errors
/// The kernel does not answer.
pub fn permanent_addresses() -> Result<Vec<(Ifindex, IpAddr)>, OnceError> {
    let found = address::dump(&mut Requests::open()?, None, |payload| {
        let assigned = address::decode(payload)?;
        let is_permanent = assigned.valid_s.is_none();
        is_permanent.then_some((assigned.ifindex, assigned.address.ip))
    })?;
    Ok(found)
}

/// Addresses by which others reach this machine, with their interfaces: those of a link alone are left out.
///
/// # Errors
/// The kernel does not answer.
pub fn addresses() -> Result<Vec<(Ifindex, IpAddr)>, OnceError> {
    let found = address::dump(&mut Requests::open()?, None, |payload| {
        let assigned = address::decode(payload)?;
        let ip = assigned.address.ip;
        let is_of_link = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_loopback(),
        };
        (!is_of_link).then_some((assigned.ifindex, ip))
    })?;
    Ok(found)
}

/// All links of the network namespace.
///
/// # Errors
/// The kernel does not answer.
pub fn links() -> Result<Vec<Link>, OnceError> {
    let sysfs = Sysfs::new(SYSFS.into());
    let described = link::dump(&mut Requests::open()?, link::decode)?;
    Ok(described
        .into_iter()
        .map(|described| sysfs.complete(described))
        .collect())
}
