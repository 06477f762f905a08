//! What a service that is gone left behind.

use std::fs;
use std::io;
use std::path::Path;

use tandem_core::IfName;

const NET: &str = "/sys/class/net";

/// Removes a bond that has no port; its name, MAC and addresses could keep a network manager from the NICs.
/// False if there is no such bond.
///
/// # Errors
/// The kernel refuses.
pub fn remove_empty_bond(name: &IfName) -> io::Result<bool> {
    let ports = Path::new(NET).join(name.as_str()).join("bonding/slaves");
    if !fs::read_to_string(ports).is_ok_and(|ports| ports.trim().is_empty()) {
        return Ok(false);
    }
    // A port that joins meanwhile is released as at any removal of a bond
    // (Documentation/networking/bonding.rst, 6.12, "Configuring Bonding Manually via Sysfs").
    let masters = Path::new(NET).join("bonding_masters");
    fs::write(masters, format!("-{name}"))?;
    Ok(true)
}
