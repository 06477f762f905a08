//! What is wrong around the bonds: with network managers, with who waits for the network, with devices that no
//! driver has. None of it shows in the kernel's links, and nothing tells of it when it changes: `tandem status`
//! and `tandem check` look when they are asked.

pub(crate) mod pci;

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, BondPolicy, Policy};
use tandem_core::status::{BondStatus, Problem, ProblemCode};
use tandem_core::types::Ifindex;
use tandem_core::{IfName, Role, role_of};

use self::pci::Driverless;
use crate::managers;
use crate::networkd::wait_online;
use crate::system_files::SystemFiles;

/// What the initramfs has configured, for whoever comes after it (klibc's ipconfig, Debian's initramfs-tools).
const INITRAMFS_NETWORK: &str = "/run/net-*.conf";
/// Most files of that kind that are looked at.
const MAX_FILES: usize = 64;

/// A problem of a bond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// The bond.
    pub bond: IfName,
    /// What is wrong, and what to do.
    pub problem: Problem,
}

/// Looks. `permanent` are the addresses without an end, with their interfaces.
pub fn concerns(
    files: &SystemFiles,
    policy: &Policy,
    links: &[Link],
    permanent: &[(Ifindex, IpAddr)],
) -> Vec<Concern> {
    let mut all = Vec::new();
    // All of the devices and what each module is for: read once, and only where a VF is missed.
    let driverless = LazyCell::new(|| pci::without_driver(files));
    for bond in &policy.bonds {
        let device = links
            .iter()
            .find(|link| link.kind == LinkKind::Bond && link.name == bond.name);
        let is_port = |link: &&Link| link.controller == device.map(|device| device.ifindex);
        let ports = links.iter().filter(is_port);
        let ports: BTreeSet<_> = ports.map(|port| &port.name).collect();
        let device = device.filter(|_| !ports.is_empty());
        let found = [
            device.and_then(|device| ignored(files, bond, device)),
            device.and_then(|device| left_by_the_initramfs(files, device, permanent)),
            device.and_then(|device| left_from_the_standby(files, device, permanent)),
            wait_online::named(files, &ports).map(|port| {
                let message = format!(
                    "{} waits for {port}, a port of {}, which gets no address",
                    wait_online::UNIT,
                    bond.name
                );
                problem(ProblemCode::WaitOnlineNamesPort, port, message)
            }),
            without_driver(&driverless, policy, bond, links),
        ];
        let concern = |problem| Concern {
            bond: bond.name.clone(),
            problem,
        };
        all.extend(found.into_iter().flatten().map(concern));
    }
    all
}

/// Adds them to what the service says of its bonds, unless it says the same.
pub(crate) fn add_to(bonds: &mut [BondStatus], concerns: Vec<Concern>) {
    for Concern { bond, problem } in concerns {
        let bond = bonds.iter_mut().find(|status| status.name == bond);
        let Some(bond) = bond else { continue };
        if bond.problems.iter().all(|told| told.code != problem.code) {
            bond.problems.push(problem);
        }
    }
}

fn problem(code: ProblemCode, device: &IfName, message: String) -> Problem {
    Problem {
        code,
        device: Some(device.clone()),
        message,
        remedy: code.remedy().to_owned(),
    }
}

/// Its manager has been told to configure the bond, and does not.
fn ignored(files: &SystemFiles, bond: &BondPolicy, device: &Link) -> Option<Problem> {
    if bond.addressing != AddressingPolicy::Auto {
        return None;
    }
    let manager = managers::ignoring(files, device)?;
    let message = format!("{manager} is to configure it and leaves it alone");
    Some(problem(
        ProblemCode::ManagerIgnoresBond,
        &bond.name,
        message,
    ))
}

/// The initramfs got the address from a DHCP server and is gone: whoever renews a lease gives the address an end.
fn left_by_the_initramfs(
    files: &SystemFiles,
    device: &Link,
    permanent: &[(Ifindex, IpAddr)],
) -> Option<Problem> {
    let pattern = files.path(INITRAMFS_NETWORK);
    let found = glob::glob(pattern.to_str()?)
        .ok()?
        .take(MAX_FILES)
        .flatten();
    let leased = found.filter_map(|path| leased_address(&crate::system_files::text_of(&path)));
    let here = |ip: &IpAddr| permanent.contains(&(device.ifindex, *ip));
    let ip = leased.into_iter().find(here)?;
    let message = format!("the initramfs got {ip} by DHCP, and nobody renews its lease");
    Some(problem(ProblemCode::LeaseUnrenewed, &device.name, message))
}

/// NetworkManager was given the address for a moment, and gives each that it leases an end.
fn left_from_the_standby(
    files: &SystemFiles,
    device: &Link,
    permanent: &[(Ifindex, IpAddr)],
) -> Option<Problem> {
    let is_here = |(on, ip): &&(Ifindex, IpAddr)| *on == device.ifindex && ip.is_ipv4();
    let (_, ip) = permanent.iter().find(is_here)?;
    if !managers::has_left(files, &device.name) {
        return None;
    }
    let message = format!(
        "it still has {ip}, as its standby had it, which ends with no lease; once it has one of its own, \
         `systemctl start tandem-refresh` leaves it that alone"
    );
    Some(problem(ProblemCode::LeaseUnrenewed, &device.name, message))
}

/// `KEY='value'`, a line each.
fn leased_address(text: &str) -> Option<IpAddr> {
    let value = |key: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim_matches(['\'', '"']))
    };
    let by_dhcp = value("PROTO").is_some_and(|how| how.to_ascii_lowercase().contains("dhcp"));
    let address = value("IPV4ADDR").filter(|_| by_dhcp)?;
    address.parse().ok()
}

/// A VF is missed, and there is a network device that no driver has.
fn without_driver(
    driverless: &LazyCell<Vec<Driverless>, impl FnOnce() -> Vec<Driverless>>,
    policy: &Policy,
    bond: &BondPolicy,
    links: &[Link],
) -> Option<Problem> {
    let is_vf = |link: &Link| {
        let role = role_of(link, policy);
        role.is_some_and(|(of, role)| of.name == bond.name && role != Role::Standby)
    };
    if links.iter().any(is_vf) {
        return None;
    }
    let message = driverless
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>();
    let code = ProblemCode::VfWithoutDriver;
    (!message.is_empty()).then(|| Problem {
        device: None,
        ..problem(code, &bond.name, message.join("; "))
    })
}

#[cfg(test)]
mod tests;
