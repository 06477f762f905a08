//! What a policy must not say.

use alloc::format;
use alloc::string::String;

use crate::model::link::Address;
use crate::model::policy::{AddressingPolicy, BondPolicy, Policy, PolicyError, PortMatch, Timing};
use crate::model::types::IfName;

/// Smallest MTU in bytes with which the kernel keeps IPv6 on a link (RFC 8200, section 5).
const MIN_MTU_IPV6: u32 = 1_280;
/// Smallest MTU in bytes of an Ethernet device (`ETH_MIN_MTU`, `include/uapi/linux/if_ether.h`).
const MIN_MTU: u32 = 68;
/// Largest MTU in bytes (`ETH_MAX_MTU`, same file).
const MAX_MTU: u32 = 65_535;
/// Longest driver name in bytes that is accepted.
const MAX_DRIVER_BYTES: usize = 64;
/// Longest time in ms that is accepted anywhere: one day.
const MAX_MS: u64 = 86_400_000;
/// Longest link monitoring interval in ms: longer ones would hide a failed link.
const MAX_MIIMON_MS: u32 = 10_000;
/// Shortest time in which a dead path can be told from a slow neighbour, in ms.
const MIN_HEALTH_MS: u64 = 500;
/// Most announcements after a switchover.
const MAX_ANNOUNCEMENTS: u8 = 30;

/// Names that mean something else to the kernel.
const RESERVED_NAMES: [&str; 4] = ["all", "default", "lo", "bonding_masters"];

/// A key and what is wrong with it.
type Fault = (&'static str, String);

impl Policy {
    /// Checks that the policy does not contradict itself.
    ///
    /// # Errors
    ///
    /// The first fault found, with the key at fault and what to do.
    pub fn validate(&self) -> Result<(), PolicyError> {
        for (index, bond) in self.bonds.iter().enumerate() {
            let fault = if index >= Self::MAX_BONDS {
                let problem = format!("more than {} bonds; remove some", Self::MAX_BONDS);
                Err(("name", problem))
            } else {
                check_bond(bond).and_then(|()| check_against(bond, &self.bonds[..index]))
            };
            fault.map_err(|(key, problem)| PolicyError {
                index,
                bond: bond.name.clone(),
                key,
                problem,
            })?;
        }
        Ok(())
    }
}

fn check_bond(bond: &BondPolicy) -> Result<(), Fault> {
    check_name(&bond.name)?;
    check_match("standby", &bond.standby)?;
    if bond.vfs.is_empty() {
        return Err(("vfs", "no VF is described; add one".into()));
    }
    if bond.vfs.len() > Policy::MAX_VFS {
        let problem = format!("more than {} VFs; remove some", Policy::MAX_VFS);
        return Err(("vfs", problem));
    }
    for (order, vf) in bond.vfs.iter().enumerate() {
        check_match("vfs", vf)?;
        if *vf == bond.standby {
            let problem = format!(
                "{} is the standby too; describe the VF by its own MAC, or both also by driver",
                shown(vf)
            );
            return Err(("vfs", problem));
        }
        if bond.vfs[..order].contains(vf) {
            let problem = format!("{} is listed twice; remove one", shown(vf));
            return Err(("vfs", problem));
        }
    }
    check_mtu(bond)?;
    check_addressing(&bond.addressing)?;
    check_timing(&bond.timing)
}

/// A name that every device may have, and that the kernel would take for something else. `%d` in it becomes a
/// number (`__dev_alloc_name`, net/core/dev.c, 6.12); `bonding_masters` is a file beside the devices in
/// sysfs, `all` and `default` are folders beside them in /proc/sys/net; programs take `-` for an option;
/// udev drops a property whose value begins with a quote and does not end with one (`get_property_from_string`,
/// src/udev/udev-rules.c, systemd 257), and takes the quotes off others.
fn check_name(name: &IfName) -> Result<(), Fault> {
    let text = name.as_str();
    if text.contains('%') || text.starts_with(['-', '"', '\'']) {
        let problem = format!(
            "`{name}` can't be a bond's name; use none with `%`, or with a `-` or a quote in front"
        );
        return Err(("name", problem));
    }
    if RESERVED_NAMES.contains(&text) {
        let problem = format!("`{name}` has a meaning of its own; give the bond another name");
        return Err(("name", problem));
    }
    Ok(())
}

fn check_match(key: &'static str, port: &PortMatch) -> Result<(), Fault> {
    if port.exactness() == 0 {
        let problem = "an entry that describes no NIC; give its mac, pci or driver";
        return Err((key, problem.into()));
    }
    if let Some(mac) = port.mac.filter(|mac| !mac.is_unicast()) {
        let problem = format!("{mac} is no address of one NIC; give its permanent MAC");
        return Err((key, problem));
    }
    let sound = |driver: &String| {
        !driver.is_empty()
            && driver.len() <= MAX_DRIVER_BYTES
            && driver.chars().all(|c| c.is_ascii_graphic())
    };
    if port.driver.as_ref().is_some_and(|driver| !sound(driver)) {
        let problem = "a driver's name is 1 to 64 printable characters, such as igbvf";
        return Err((key, problem.into()));
    }
    Ok(())
}

/// Two bonds must not share a name or a NIC.
fn check_against(bond: &BondPolicy, others: &[BondPolicy]) -> Result<(), Fault> {
    for other in others {
        if other.name == bond.name {
            let problem = "two bonds have this name; rename one";
            return Err(("name", problem.into()));
        }
        let shared = |port: &PortMatch| {
            let entries = core::iter::once(&other.standby).chain(&other.vfs);
            entries.into_iter().any(|entry| entry == port)
        };
        if shared(&bond.standby) {
            return Err(("standby", used_twice(&bond.standby, &other.name)));
        }
        if let Some(vf) = bond.vfs.iter().find(|vf| shared(vf)) {
            return Err(("vfs", used_twice(vf, &other.name)));
        }
    }
    Ok(())
}

fn used_twice(port: &PortMatch, other: &IfName) -> String {
    format!(
        "{} belongs to bond {other} already; a NIC can be in one bond only",
        shown(port)
    )
}

fn check_mtu(bond: &BondPolicy) -> Result<(), Fault> {
    let Some(mtu) = bond.mtu else { return Ok(()) };
    if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
        let problem = format!("{mtu} is no MTU; give {MIN_MTU} to {MAX_MTU} bytes");
        return Err(("mtu", problem));
    }
    let ipv6 = match &bond.addressing {
        AddressingPolicy::Static { addresses, .. } => {
            addresses.iter().any(|address| address.ip.is_ipv6())
        }
        AddressingPolicy::Auto | AddressingPolicy::Inherit | AddressingPolicy::None => false,
    };
    if ipv6 && mtu < MIN_MTU_IPV6 {
        let problem =
            format!("{mtu} is too small for IPv6 addresses; give at least {MIN_MTU_IPV6} bytes");
        return Err(("mtu", problem));
    }
    Ok(())
}

fn check_addressing(addressing: &AddressingPolicy) -> Result<(), Fault> {
    let AddressingPolicy::Static { addresses, routes } = addressing else {
        return Ok(());
    };
    let limit = Policy::MAX_ADDRESSES;
    for (key, count) in [
        ("addressing.static.addresses", addresses.len()),
        ("addressing.static.routes", routes.len()),
    ] {
        if count > limit {
            return Err((key, format!("more than {limit} entries; remove some")));
        }
    }
    let key = "addressing.static.addresses";
    for address in addresses {
        let ip = address.ip;
        if !has_prefix(address) || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            let problem = format!("{ip}/{} is no address of a NIC", address.prefix);
            return Err((key, problem));
        }
    }
    let key = "addressing.static.routes";
    for route in routes {
        let destination = &route.destination;
        let text = format!("{}/{}", destination.ip, destination.prefix);
        if !has_prefix(destination) {
            return Err((key, format!("{text} is no network")));
        }
        if let Some(gateway) = route.gateway
            && gateway.is_ipv4() != destination.ip.is_ipv4()
        {
            let problem = format!("{text} and its gateway {gateway} are of different families");
            return Err((key, problem));
        }
    }
    Ok(())
}

fn has_prefix(address: &Address) -> bool {
    address.prefix <= if address.ip.is_ipv4() { 32 } else { 128 }
}

fn check_timing(timing: &Timing) -> Result<(), Fault> {
    if !(1..=MAX_MIIMON_MS).contains(&timing.miimon_ms) {
        let problem = format!(
            "without link monitoring no failed link is noticed; give 1 to {MAX_MIIMON_MS} ms, 100 is usual"
        );
        return Err(("timing.miimon-ms", problem));
    }
    for (key, value) in [
        ("timing.hold-ms", timing.hold_ms),
        ("timing.hold-max-ms", timing.hold_max_ms),
        ("timing.health-ms", timing.health_ms),
        ("timing.settle-ms", timing.settle_ms),
        ("timing.removal-timeout-ms", timing.removal_timeout_ms),
        ("timing.prepared-timeout-ms", timing.prepared_timeout_ms),
        ("timing.command-timeout-ms", timing.command_timeout_ms),
        (
            "timing.announcement-interval-ms",
            timing.announcement_interval_ms,
        ),
    ] {
        if value > MAX_MS {
            return Err((key, format!("{value} ms is more than a day; give less")));
        }
    }
    if timing.hold_ms > timing.hold_max_ms {
        let problem = format!(
            "{} ms is more than hold-max-ms, {} ms; lower it or raise that",
            timing.hold_ms, timing.hold_max_ms
        );
        return Err(("timing.hold-ms", problem));
    }
    if (1..MIN_HEALTH_MS).contains(&timing.health_ms) {
        let problem = format!(
            "{} ms leaves no time to ask twice; give at least {MIN_HEALTH_MS}, or 0 for no watch",
            timing.health_ms
        );
        return Err(("timing.health-ms", problem));
    }
    for (key, value) in [
        ("timing.removal-timeout-ms", timing.removal_timeout_ms),
        ("timing.command-timeout-ms", timing.command_timeout_ms),
    ] {
        if value == 0 {
            return Err((key, "0 ms leaves no time at all; give at least 1".into()));
        }
    }
    if timing.announcements > MAX_ANNOUNCEMENTS {
        let problem = format!("more than {MAX_ANNOUNCEMENTS} announcements flood the network");
        return Err(("timing.announcements", problem));
    }
    if timing.announcements > 1 && timing.announcement_interval_ms == 0 {
        let problem = "announcements without a pause are one; give at least 1 ms";
        return Err(("timing.announcement-interval-ms", problem.into()));
    }
    Ok(())
}

/// An entry as the reader of an error recognises it.
fn shown(port: &PortMatch) -> String {
    let mac = port.mac.map(|mac| format!("mac {mac}"));
    let pci = port.pci.map(|pci| format!("pci {pci}"));
    let driver = port.driver.as_ref().map(|name| format!("driver {name}"));
    let fields = [mac, pci, driver].into_iter().flatten();
    fields.collect::<alloc::vec::Vec<_>>().join(", ")
}
