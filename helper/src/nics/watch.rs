//! `tandem udev --watch`: gives NICs back to their network manager if the service makes no bond of them.
//!
//! udev starts it with each NIC that is marked, and the service's unit with each start, so it works whatever
//! befalls the service. It ends once each bond has a port. Where NICs were given back it stays until the
//! service has done its work after all, or nothing would start it: then they are taken again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, BondPolicy, Ownership, Policy};
use tandem_core::{IfName, Role, role_of};
use tandem_wire::Call;
use tandem_wire::reply::StatusReport;

use super::{GivenBack, Obstacle, Readiness, UNIT, UnitState, given_back, remember};
use crate::client::Client;
use crate::config;
use crate::networkd::{self, wait_online};
use crate::observe::once;
use crate::runtime::SOCKET_PATH;
use crate::system_files::SystemFiles;
use crate::{act, logging, udev_marks};

/// How long a bond may have a NIC and no port. A guest that gives its NICs back after this has its network
/// within the 30 s that README promises.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long a service that nothing starts has to be so: one that is restarted is, for a moment, and would find this
/// still there and be without it soon after.
const AT_REST: Duration = Duration::from_secs(10);
/// Between two looks: a storm of changes costs one.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the service may take to say what is wrong.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// Changes of links (`RTMGRP_LINK`, include/uapi/linux/rtnetlink.h, 6.12).
const LINK_GROUP: u32 = 1;

/// Watches until there is nothing to wait for.
///
/// # Errors
/// The kernel does not answer, or this is not root.
pub fn watch(config: &Path) -> Result<()> {
    let changes = Changes::open().context("can't listen to the kernel's links")?;
    let files = SystemFiles::this();
    let mut waiting = Waiting::default();
    let mut in_place = Vec::new();
    let mut told_networkd = Vec::new();
    let mut rest = Rest::default();
    // Started anew, the service has a new chance.
    if !given_back(&files).is_empty() {
        remember(&GivenBack::new())?;
        refresh(config)?;
    }
    loop {
        // If the kernel can't be asked now, the unit begins anew.
        let links = once::links()?;
        let bonds = match look(config, &files, &links) {
            Ok(bonds) => bonds,
            Err(reason) => {
                logging::about_unit(
                    UNIT,
                    &format!("the NICs are left to their network manager: {reason}"),
                );
                return refresh(config);
            }
        };
        let before = given_back(&files);
        let next = waiting.next(&bonds, &before, Instant::now());
        let mut now_given_back = next.given_back;
        for (bond, obstacle) in next.left {
            tell_obstacle(&bond.policy.name, obstacle);
        }
        for bond in next.overdue {
            now_given_back.insert(bond.name(), give_back(bond));
        }
        if now_given_back != before {
            remember(&now_given_back)?;
        }
        let placed: Vec<_> = bonds
            .iter()
            .filter(|bond| bond.in_place)
            .map(Bond::name)
            .collect();
        if now_given_back != before || placed != in_place {
            refresh(config)?;
            in_place = placed;
        }
        instruct_networkd(config, &files, &links, &mut told_networkd)?;
        if next.is_over {
            return Ok(());
        }
        let is_settled = |bond: &Bond| {
            let is_given_back = now_given_back.contains_key(&bond.policy.name);
            bond.in_place || is_given_back && bond.obstacle.is_none()
        };
        let rests =
            bonds.iter().all(is_settled) && UnitState::ask().is_some_and(|unit| !unit.goes_on());
        let left = rest.left(rests, Instant::now());
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        changes.wait(next.limit.into_iter().chain(left).min())?;
    }
}

/// Since when nothing would start the service.
#[derive(Debug, Default)]
struct Rest {
    since: Option<Instant>,
}

impl Rest {
    /// How long it has to go on being so; nothing if something would start it.
    fn left(&mut self, rests: bool, now: Instant) -> Option<Duration> {
        self.since = rests.then(|| self.since.unwrap_or(now));
        let since = self.since?;
        Some(AT_REST.saturating_sub(now.saturating_duration_since(since)))
    }
}

/// A bond of the configuration that has a NIC here.
#[derive(Debug)]
struct Bond {
    policy: BondPolicy,
    /// It has a port.
    in_place: bool,
    /// What keeps the service from making it, so that its NICs are not marked.
    obstacle: Option<Obstacle>,
}

impl Bond {
    fn name(&self) -> IfName {
        self.policy.name.clone()
    }
}

/// The bonds that have a NIC; without a configuration, why.
fn look(config: &Path, files: &SystemFiles, links: &[Link]) -> Result<Vec<Bond>, String> {
    let loaded = config::load(config);
    let readiness = Readiness::look(files, &loaded);
    let loaded = loaded.map_err(|error| Obstacle::Configuration(error.to_string()).to_string())?;
    let policy = udev_marks::effective(&loaded).map_err(|error| format!("{error:#}"))?;
    let has_nic = |bond: &&BondPolicy| {
        let mut nics = links.iter().filter_map(|link| role_of(link, &policy));
        nics.any(|(of, _)| of.name == bond.name)
    };
    let Policy { bonds, .. } = &policy;
    Ok(bonds
        .iter()
        .filter(has_nic)
        .map(|bond| Bond {
            in_place: readiness.is_in_place(&bond.name),
            obstacle: readiness.obstacle.clone(),
            policy: bond.clone(),
        })
        .collect())
}

/// Since when each bond is waited for.
#[derive(Debug, Default)]
struct Waiting {
    since: BTreeMap<IfName, Instant>,
}

/// What is to be done now.
struct Next<'a> {
    /// What stays given back, or was never taken.
    given_back: GivenBack,
    /// Bonds whose NICs were never taken, which is new.
    left: Vec<(&'a Bond, &'a Obstacle)>,
    /// Bonds whose NICs have to be given back.
    overdue: Vec<&'a Bond>,
    /// How long to wait for a change; without it, as long as it takes.
    limit: Option<Duration>,
    /// Nothing more is waited for.
    is_over: bool,
}

impl Waiting {
    fn next<'a>(&mut self, bonds: &'a [Bond], given_back: &GivenBack, now: Instant) -> Next<'a> {
        let missing = || bonds.iter().filter(|bond| !bond.in_place);
        self.since
            .retain(|name, _| missing().any(|bond| bond.policy.name == *name));
        let mut next = Next {
            given_back: given_back.clone(),
            left: Vec::new(),
            overdue: Vec::new(),
            limit: None,
            is_over: true,
        };
        next.given_back.retain(|name, _| {
            bonds
                .iter()
                .all(|bond| bond.policy.name != *name || !bond.in_place)
        });
        for bond in missing() {
            let since = *self.since.entry(bond.name()).or_insert(now);
            let left = PATIENCE.saturating_sub(now.saturating_duration_since(since));
            let is_given_back = given_back.contains_key(&bond.policy.name);
            if let (false, Some(obstacle)) = (is_given_back, &bond.obstacle) {
                next.given_back.insert(bond.name(), obstacle.to_string());
                next.left.push((bond, obstacle));
            }
            if !left.is_zero() {
                next.limit = next.limit.map_or(Some(left), |limit| Some(limit.min(left)));
            } else if !is_given_back && bond.obstacle.is_none() {
                next.overdue.push(bond);
            }
            // What is not marked needs nobody to give it back.
            next.is_over &= left.is_zero() && bond.obstacle.is_some();
        }
        next
    }
}

/// Says why a bond's NICs were never taken.
fn tell_obstacle(bond: &IfName, obstacle: &Obstacle) {
    let remedy = obstacle.remedy();
    let text =
        format!("the NICs of {bond} are left to their network manager: {obstacle}; {remedy}");
    logging::about_unit(UNIT, &text);
}

/// Makes way for the manager, and says why.
fn give_back(bond: &Bond) -> String {
    let name = &bond.policy.name;
    let unit = UnitState::ask();
    let seconds = PATIENCE.as_secs();
    let reason = match &unit {
        Some(unit) if unit.is_running() => {
            let problem =
                problem_of(name).unwrap_or_else(|| "it says nothing of a problem".to_owned());
            format!("the service runs and made no bond within {seconds} s: {problem}")
        }
        Some(unit) => format!("the service {}", unit.words()),
        None => format!("the service made no bond within {seconds} s"),
    };
    logging::about_unit(
        UNIT,
        &format!("the NICs of {name} are given back to their network manager: {reason}"),
    );
    // Tandem alone configures it, so nobody else made it. A service that runs would make it again.
    let is_ours = bond.policy.ownership == Ownership::Create
        && bond.policy.addressing != AddressingPolicy::None;
    if is_ours && unit.is_some_and(|unit| !unit.is_running()) {
        match act::left_over::remove_empty_bond(name) {
            Ok(false) => {}
            Ok(true) => logging::about_unit(UNIT, &format!("removed {name}, a bond without ports")),
            Err(error) => logging::about_unit(UNIT, &format!("can't remove {name}: {error}")),
        }
    }
    reason
}

/// The first problem that the service itself tells of a bond.
fn problem_of(bond: &IfName) -> Option<String> {
    let mut client = Client::connect(SOCKET_PATH.as_ref()).ok()?;
    let report: StatusReport = client.call(Call::TandemStatus, STATUS_LIMIT).ok()?;
    let mut bonds = report.status.bonds.into_iter();
    let found = bonds.find(|found| found.name == *bond)?;
    let mut problems = found.problems.into_iter().map(|problem| problem.message);
    problems.next().or(Some(found.reason))
}

fn refresh(config: &Path) -> Result<()> {
    for line in udev_marks::refresh(config)? {
        println!("{line}");
    }
    Ok(())
}

/// systemd-networkd, and who waits for it, follow what is decided by now. `told` is what was said of it last.
fn instruct_networkd(
    config: &Path,
    files: &SystemFiles,
    links: &[Link],
    told: &mut Vec<String>,
) -> Result<()> {
    let loaded = config::load(config);
    let readiness = Readiness::look(files, &loaded);
    // A wrong configuration changes nothing of what is in use.
    let Some(policy) = loaded
        .ok()
        .and_then(|config| udev_marks::effective(&config).ok())
    else {
        return Ok(());
    };
    let said = networkd::follow(&policy, &readiness, links)?;
    if !said.is_empty() && said != *told {
        said.iter().for_each(|line| println!("{line}"));
        *told = said;
        // A bond's mark depends on it.
        refresh(config)?;
    }
    let is_ours = |(bond, _): &(&BondPolicy, Role), link: &Link| {
        bond.ownership == Ownership::Create && readiness.reason_to_leave(bond, &link.name).is_none()
    };
    let ports = links
        .iter()
        .filter(|link| link.kind == LinkKind::Physical)
        .filter_map(|link| {
            let role = role_of(link, &policy).filter(|role| is_ours(role, link));
            let bond = role.map(|(bond, _)| bond.name.clone());
            Some((link.name.clone(), bond.filter(networkd::is_plain)?))
        });
    for line in wait_online::follow(files, &ports.collect())? {
        println!("{line}");
    }
    Ok(())
}

/// The kernel's changes of links, as a reason to look again.
struct Changes(Socket);

impl Changes {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, 1 << (LINK_GROUP - 1)))?;
        Ok(Self(socket))
    }

    /// Waits for a change, at most `limit`, and takes all there are. Lost ones are changes too.
    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit
            .map(Timespec::try_from)
            .transpose()
            .map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut buffer = Vec::with_capacity(16 * 1024);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nics::testing::Folder;

    fn bond(in_place: bool, obstacle: Option<Obstacle>) -> Vec<Bond> {
        vec![Bond {
            policy: Folder::complete().bond(),
            in_place,
            obstacle,
        }]
    }

    fn reasons(text: &str) -> GivenBack {
        [("bond0".parse().unwrap(), text.to_owned())].into()
    }

    #[test]
    fn a_service_that_is_restarted_does_not_rest() {
        let (mut rest, start) = (Rest::default(), Instant::now());
        assert_eq!(rest.left(true, start), Some(AT_REST));
        assert_eq!(rest.left(true, start + AT_REST / 2), Some(AT_REST / 2));
        assert_eq!(rest.left(false, start + AT_REST / 2), None);
        let again = start + AT_REST;
        assert_eq!(rest.left(true, again), Some(AT_REST));
        assert_eq!(rest.left(true, again + AT_REST), Some(Duration::ZERO));
    }

    #[test]
    fn nics_are_given_back_when_patience_ends_and_taken_again_when_the_bond_is_there() {
        let mut waiting = Waiting::default();
        let (missing, placed) = (bond(false, None), bond(true, None));
        let start = Instant::now();
        let next = waiting.next(&missing, &GivenBack::new(), start);
        assert!(next.overdue.is_empty() && !next.is_over);
        assert_eq!(next.limit, Some(PATIENCE));

        let next = waiting.next(&missing, &GivenBack::new(), start + PATIENCE / 3);
        assert_eq!(next.limit, Some(PATIENCE - PATIENCE / 3));
        let next = waiting.next(&missing, &GivenBack::new(), start + PATIENCE);
        assert_eq!(next.overdue.len(), 1);

        // Once is enough; then only a change matters.
        let next = waiting.next(&missing, &reasons("x"), start + 2 * PATIENCE);
        assert!(next.overdue.is_empty() && next.limit.is_none() && !next.is_over);
        assert_eq!(next.given_back, reasons("x"));
        let next = waiting.next(&placed, &reasons("x"), start + 3 * PATIENCE);
        assert!(next.given_back.is_empty());
    }

    #[test]
    fn a_bond_that_comes_later_has_its_own_time() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        waiting.next(&bond(false, None), &GivenBack::new(), start);
        // It was there, and is gone again.
        waiting.next(&bond(true, None), &GivenBack::new(), start + PATIENCE / 2);
        let missing = bond(false, None);
        let next = waiting.next(&missing, &GivenBack::new(), start + PATIENCE);
        assert!(next.overdue.is_empty());
        assert_eq!(next.limit, Some(PATIENCE));
    }

    #[test]
    fn what_was_never_taken_is_not_given_back_and_not_waited_for_long() {
        let mut waiting = Waiting::default();
        let missing = bond(false, Some(Obstacle::NoUser));
        let start = Instant::now();
        let next = waiting.next(&missing, &GivenBack::new(), start);
        let reason = reasons("the user `tandem` does not exist");
        assert!(!next.is_over && next.left.len() == 1);
        assert_eq!(next.given_back, reason);
        // Said once.
        let next = waiting.next(&missing, &reason, start + PATIENCE);
        assert!(next.overdue.is_empty() && next.left.is_empty() && next.is_over);
    }

    #[test]
    fn no_bond_with_a_nic_is_nothing_to_wait_for() {
        let next = Waiting::default().next(&[], &reasons("x"), Instant::now());
        assert!(next.is_over && next.given_back == reasons("x"));
    }
}
