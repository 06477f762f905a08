//! What each NIC is: what was plugged in, whatever its driver made of its MAC since.

use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::PortMatch;
use tandem_core::types::Mac;

use super::stage::Stage;

/// The kernel's links, each NIC with the MAC that it was plugged in with.
pub(super) fn links(stage: &Stage) -> Vec<Link> {
    let mut links = stage.kernel.dump_links();
    for link in &mut links {
        let nic = stage.kernel.nic(link.ifindex);
        link.permanent_mac = nic.map(|(spec, _)| spec.mac);
    }
    links
}

/// The same where foreign NICs are what the service found, if that is something else: one that was in the bond, to which its
/// driver gave the MAC of a VF, and that the bond let go, is that VF for a service that begins after that. One that has seen it
/// before knows better.
pub(super) fn links_as_found(stage: &Stage) -> Option<Vec<Link>> {
    let mut links = links(stage);
    let mut is_other = false;
    for link in &mut links {
        let found = stage.found_macs.get(&link.ifindex);
        if let Some(found) = found
            && !is_described(stage, link)
            && link.permanent_mac != *found
        {
            link.permanent_mac = *found;
            is_other = true;
        }
    }
    is_other.then_some(links)
}

/// Some bond's policy describes it.
fn is_described(stage: &Stage, link: &Link) -> bool {
    let mut bonds = stage.policy().bonds.iter();
    bonds.any(|bond| {
        let mut ports = bond.vfs.iter().chain([&bond.standby]);
        ports.any(|port| fits(port, link))
    })
}

/// A policy's entry describes this NIC.
pub(super) fn fits(port: &PortMatch, link: &Link) -> bool {
    let mac: Option<Mac> = link.permanent_mac;
    link.kind == LinkKind::Physical
        && port.mac.is_none_or(|wanted| mac == Some(wanted))
        && port.pci.is_none_or(|pci| link.pci == Some(pci))
        && port
            .driver
            .as_ref()
            .is_none_or(|driver| link.driver.as_ref() == Some(driver))
}
