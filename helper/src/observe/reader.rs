//! Reads the kernel's state, blocking; runs on a thread of its own.

use tandem_core::link::{Addressing, Expiry, Link};
use tandem_core::types::Ifindex;

use super::agenda::{Job, Wanted};
use super::clock;
use super::occupants::Resting;
use super::sysfs::Sysfs;
use super::upper_devices::Upper;
use crate::netlink::link::Described;
use crate::netlink::request::{RequestError, Requests};
use crate::netlink::{address, link, route};

/// Addresses, and routes, that are reported of one link; more are left out.
const MAX_PER_LINK: usize = 4096;

/// What was read.
#[derive(Debug)]
pub(super) enum Found {
    /// All links, or those that were asked for; `None` if gone.
    Links(Vec<(Ifindex, Option<ReadLink>)>),
    /// Addressing of the links that were asked for and are still there, and whether the guest has an IPv4 route
    /// to everywhere.
    Addressing(Vec<Addressing>, bool),
}

/// A link, and how it lies on another one.
#[derive(Debug)]
pub(super) struct ReadLink {
    pub(super) link: Link,
    pub(super) upper: Option<Upper>,
    pub(super) resting: Option<Resting>,
}

/// Does a job.
pub(super) fn read(job: &Job, sysfs: &Sysfs) -> Result<Found, RequestError> {
    let mut requests = Requests::open()?;
    let complete = |described: Described| ReadLink {
        upper: Upper::of(&described),
        resting: Resting::of(&described),
        link: sysfs.complete(described),
    };
    match job {
        Job::Links(Wanted { all: true, .. }) => {
            let links = link::dump(&mut requests, link::decode)?.into_iter();
            let links = links.map(|found| (found.link.ifindex, Some(complete(found))));
            Ok(Found::Links(links.collect()))
        }
        Job::Links(wanted) => {
            let mut found = Vec::new();
            for &ifindex in &wanted.links {
                let link = link::get(&mut requests, ifindex)?;
                found.push((ifindex, link.map(complete)));
            }
            Ok(Found::Links(found))
        }
        Job::Addressing(wanted) => {
            let mut found = Vec::new();
            for &ifindex in &wanted.links {
                found.extend(addressing(&mut requests, ifindex)?);
            }
            Ok(Found::Addressing(found, route::way_out(&mut requests)?))
        }
    }
}

/// Reads addresses and configured routes of one link; `None` if it is gone.
fn addressing(
    requests: &mut Requests,
    ifindex: Ifindex,
) -> Result<Option<Addressing>, RequestError> {
    // Also a barrier: it takes the RTNL lock, so a change whose notification is out
    // is complete after it. Address and route dumps need no lock since 6.10, and
    // routes go silently with an address or with the link.
    let Some(link) = link::get(requests, ifindex)? else {
        return Ok(None);
    };
    let assigned = address::dump(requests, Some(ifindex), |payload| {
        address::decode(payload).filter(|assigned| assigned.ifindex == ifindex)
    })?;
    let now = clock::now();
    let leased = assigned.iter().filter(|assigned| assigned.is_leased());
    let mut expiries: Vec<_> = leased
        .filter_map(|assigned| {
            Some(Expiry {
                ip: assigned.address.ip,
                at: now.plus_ms(u64::from(assigned.valid_s?) * 1000),
            })
        })
        .collect();
    let mut addresses: Vec<_> = assigned.iter().map(|assigned| assigned.address).collect();
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
    expiries.truncate(MAX_PER_LINK);
    expiries.sort_unstable();
    addresses.sort_unstable();
    routes.sort_unstable();
    Ok(Some(Addressing {
        ifindex,
        addresses,
        routes,
        expiries,
    }))
}
