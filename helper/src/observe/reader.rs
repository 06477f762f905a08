//! Reads the kernel's state, blocking; runs on a thread of its own.

use std::collections::BTreeSet;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use tandem_core::link::{Addressing, Link};
use tandem_core::types::Ifindex;

use super::netlink::link::Described;
use super::netlink::request::{RequestError, Requests};
use super::netlink::{address, link, route};
use super::sysfs::Sysfs;
use super::upper_devices::Upper;

/// Addresses, and routes, that are reported of one link; more are left out.
const MAX_PER_LINK: usize = 4096;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    AllLinks,
    Links(BTreeSet<Ifindex>),
    /// All addressing, which is that of these links.
    AllAddressing(BTreeSet<Ifindex>),
    Addressing(BTreeSet<Ifindex>),
}

/// What was read.
#[derive(Debug)]
pub(super) enum Found {
    /// All links.
    AllLinks(Vec<ReadLink>),
    /// Links that were asked for; `None` if gone.
    Links(Vec<(Ifindex, Option<ReadLink>)>),
    /// All addressing.
    AllAddressing(Vec<Addressing>),
    /// Addressing of the links that were asked for and are still there.
    Addressing(Vec<Addressing>),
}

/// A link, and how it lies on another one.
#[derive(Debug)]
pub(super) struct ReadLink {
    pub(super) link: Link,
    pub(super) upper: Option<Upper>,
}

impl ReadLink {
    fn complete(described: Described, sysfs: &Sysfs) -> Self {
        let upper = Upper::of(&described);
        Self {
            link: sysfs.complete(described),
            upper,
        }
    }
}

/// Does a job.
pub(super) fn read(job: &Job, sysfs: &Sysfs) -> Result<Found, RequestError> {
    let mut requests = Requests::open()?;
    match job {
        Job::AllLinks => {
            let links = all_links(&mut requests)?;
            let complete = |link| ReadLink::complete(link, sysfs);
            Ok(Found::AllLinks(links.into_iter().map(complete).collect()))
        }
        Job::Links(wanted) => {
            let mut found = Vec::new();
            for &ifindex in wanted {
                let link = one_link(&mut requests, ifindex)?;
                found.push((ifindex, link.map(|link| ReadLink::complete(link, sysfs))));
            }
            Ok(Found::Links(found))
        }
        Job::AllAddressing(wanted) => {
            addressing_of(&mut requests, wanted).map(Found::AllAddressing)
        }
        Job::Addressing(wanted) => addressing_of(&mut requests, wanted).map(Found::Addressing),
    }
}

fn addressing_of(
    requests: &mut Requests,
    links: &BTreeSet<Ifindex>,
) -> Result<Vec<Addressing>, RequestError> {
    let mut found = Vec::new();
    for &ifindex in links {
        found.extend(addressing(requests, ifindex)?);
    }
    Ok(found)
}

/// Reads all links of the namespace, without what sysfs knows.
pub(crate) fn all_links(requests: &mut Requests) -> Result<Vec<Described>, RequestError> {
    let request = RouteNetlinkMessage::GetLink(without_statistics(LinkMessage::default()));
    requests.dump(&request, link::decode)
}

/// Reads one link, without what sysfs knows; `None` if it is gone.
pub(crate) fn one_link(
    requests: &mut Requests,
    ifindex: Ifindex,
) -> Result<Option<Described>, RequestError> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex.0;
    let request = RouteNetlinkMessage::GetLink(without_statistics(message));
    requests.get(&request, link::decode)
}

/// Statistics are most of a link's message and cost the driver work.
fn without_statistics(mut message: LinkMessage) -> LinkMessage {
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

/// Reads addresses and configured routes of one link; `None` if it is gone.
pub(crate) fn addressing(
    requests: &mut Requests,
    ifindex: Ifindex,
) -> Result<Option<Addressing>, RequestError> {
    // Also a barrier: it takes the RTNL lock, so a change whose notification is out
    // is complete after it. Address and route dumps need no lock since 6.10, and
    // routes go silently with an address or with the link.
    let Some(link) = one_link(requests, ifindex)? else {
        return Ok(None);
    };
    let mut addresses = address::dump(requests, Some(ifindex), |payload| {
        address::decode(payload)
            .filter(|assigned| assigned.ifindex == ifindex)
            .map(|assigned| assigned.address)
    })?;
    let mut routes = route::dump(requests, ifindex, |payload| route::decode(payload, ifindex))?;
    for (what, found) in [("addresses", addresses.len()), ("routes", routes.len())] {
        if found > MAX_PER_LINK {
            tracing::warn!(
                link = %link.link.name,
                "{found} {what}; only the first {MAX_PER_LINK} are looked at"
            );
        }
    }
    addresses.truncate(MAX_PER_LINK);
    routes.truncate(MAX_PER_LINK);
    addresses.sort_unstable();
    routes.sort_unstable();
    Ok(Some(Addressing {
        ifindex,
        addresses,
        routes,
    }))
}
