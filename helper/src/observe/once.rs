//! Reads links for programs that look once and end.

use std::fs;
use std::path::Path;

use tandem_core::IfName;
use tandem_core::link::Link;
use tandem_core::types::Ifindex;

use super::sysfs::Sysfs;
use crate::netlink::link;
use crate::netlink::request::{RequestError, Requests};

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
