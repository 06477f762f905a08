//! `tandem udev --watch`: gives NICs back to their network manager if the service makes no bond of them.
//!
//! udev starts it with each NIC that is marked, and the service's unit with each start, so it works whatever
//! befalls the service. It ends once each bond has a port. Where NICs were given back it stays until the
//! service has done its work after all, or nothing would start it: then they are taken again.

mod changes;
mod rest;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, BondPolicy, Ownership};
use tandem_core::{IfName, Role, role_of};
use tandem_wire::Call;
use tandem_wire::reply::StatusReport;
use tandem_wire::words::shortened;

use self::changes::Changes;
use self::rest::Rest;
use crate::client::Client;
use crate::managers::{self, Teller};
use crate::networkd;
use crate::networkd::wait_online::{WaitOnline, Waits};
use crate::nics::{GivenBack, Obstacle, UNIT, UnitState, given_back, remember};
use crate::runtime::SOCKET_PATH;
use crate::system_files::SystemFiles;
use crate::udev_marks::{Marks, Situation};
use crate::{act, logging};

/// How long a bond may have a NIC and no port. A guest that gives its NICs back after this has its network
/// within the 30 s that README promises.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long a manager may take that makes the bond itself: until then it has the guest's network in its hands.
const PATIENCE_WITH_MANAGERS: Duration = Duration::from_secs(30);
/// Between two looks: a storm of changes costs one.
const PAUSE: Duration = Duration::from_millis(200);
/// How long udev may take for an interface's first event until it counts as one that never comes.
const UDEV_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether that has come, or a manager was told all: no change of a link tells.
const UDEV_PAUSE: Duration = Duration::from_secs(1);
/// How long the service may take to say what is wrong.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// So much of that is kept and logged, in characters.
const MAX_WORDS: usize = 200;

/// Watches until there is nothing to wait for.
///
/// # Errors
/// The kernel does not answer, or this is not root.
pub fn watch(config: &Path) -> Result<()> {
    let mut teller = Teller::default();
    let files = SystemFiles::this();
    let watched = watch_and_tell(config, &files, &mut teller);
    // A try that ends with this process would count as one.
    say(teller.finish(&files));
    watched
}

fn watch_and_tell(config: &Path, files: &SystemFiles, teller: &mut Teller) -> Result<()> {
    let changes = Changes::open().context("can't listen to the kernel's links")?;
    let mut waiting = Waiting::default();
    let mut marks = Marks::default();
    let mut wait_online = WaitOnline::default();
    let mut rest = Rest::default();
    let began = Instant::now();
    // Started anew, the service has a new chance.
    if !given_back(files).is_empty() {
        remember(&GivenBack::new())?;
    }
    loop {
        // If the kernel can't be asked now, the unit begins anew.
        let mut situation = Situation::now(config)?;
        let bonds = match bonds(&situation) {
            Ok(bonds) => bonds,
            Err(reason) => {
                logging::about_unit(
                    UNIT,
                    &format!("the NICs are left to their network manager: {reason}"),
                );
                say(marks.refresh(&situation)?);
                return Ok(());
            }
        };
        let before = situation.readiness.given_back.clone();
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
            situation.readiness.given_back.clone_from(&now_given_back);
        }
        let marked = marks.refresh(&situation);
        // Beside this: bonds that nobody makes wait for nothing.
        say(teller.go_on(files));
        say(marked?);
        let waits = waits(&situation);
        say(wait_online.follow(files, &waits)?);
        let waits_for_udev = marks.waits_for_udev() || waits.is_any_managed.is_none();
        let is_early = waits_for_udev && began.elapsed() < UDEV_LIMIT;
        // What a manager did not do it is told again.
        let is_telling = managers::is_told(files) || teller.is_at_work();
        let is_over = next.is_over && !is_early && !is_telling;
        // What has changed since the look may have another name, or need another mark.
        if wait_online.is_due() || is_over && changes.wait(Some(Duration::ZERO))? {
            std::thread::sleep(PAUSE);
            continue;
        }
        if is_over {
            return Ok(());
        }
        let is_settled = |bond: &Bond| {
            let is_given_back = now_given_back.contains_key(&bond.policy.name);
            bond.in_place || is_given_back && bond.obstacle.is_none()
        };
        let rests = !is_telling
            && bonds.iter().all(is_settled)
            && UnitState::ask().is_some_and(|unit| !unit.goes_on());
        let left = rest.left(rests, Instant::now());
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        let unheard = (waits_for_udev || is_telling).then_some(UDEV_PAUSE);
        changes.wait(next.limit.into_iter().chain(left).chain(unheard).min())?;
    }
}

/// A bond of the configuration that has a NIC here.
#[derive(Debug)]
struct Bond {
    policy: BondPolicy,
    /// It has a port.
    in_place: bool,
    /// Who has to give it one.
    maker: Maker,
    /// What keeps the service from making it, so that its NICs are not marked.
    obstacle: Option<Obstacle>,
}

/// Who makes a bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// Tandem.
    Service,
    /// The manager, which can do so by now, or not; not yet too where nobody can tell whether it has to.
    Manager { is_ready: bool },
}

impl Maker {
    fn patience(self) -> Duration {
        match self {
            Self::Service => PATIENCE,
            Self::Manager { .. } => PATIENCE_WITH_MANAGERS,
        }
    }
}

impl Bond {
    fn name(&self) -> IfName {
        self.policy.name.clone()
    }
}

/// The bonds that have a NIC; without a configuration, why.
fn bonds(situation: &Situation) -> Result<Vec<Bond>, String> {
    let Situation {
        policy,
        readiness,
        links,
    } = situation;
    let policy = policy.as_ref().map_err(Clone::clone)?;
    let has_nic = |bond: &&BondPolicy| {
        let mut nics = links.iter().filter_map(|link| role_of(link, policy));
        nics.any(|(of, _)| of.name == bond.name)
    };
    let files = readiness.files();
    let waiting = managers::decided::waiting_for_udev(policy, files, links);
    let maker = |bond: &BondPolicy| match managers::is_made_by_manager(files, &bond.name) {
        false if waiting.contains(&bond.name) => Maker::Manager { is_ready: false },
        false => Maker::Service,
        true => {
            let standby = networkd::standby_of(policy, bond, links);
            let is_ready = managers::can_make(files, standby);
            Maker::Manager { is_ready }
        }
    };
    Ok(policy
        .bonds
        .iter()
        .filter(has_nic)
        .map(|bond| Bond {
            in_place: readiness.is_in_place(&bond.name),
            maker: maker(bond),
            obstacle: readiness.obstacle.clone().or_else(|| {
                let why = managers::left_alone(files, &bond.name);
                why.map(Obstacle::LeftToManager)
            }),
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
        let is_idle = |bond: &&Bond| bond.maker == Maker::Manager { is_ready: false };
        self.since
            .retain(|name, _| missing().any(|bond| bond.policy.name == *name && !is_idle(&bond)));
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
        // What begins to run, or gets a carrier, changes a link.
        next.is_over &= !missing().any(|bond| is_idle(&bond));
        for bond in missing().filter(|bond| !is_idle(bond)) {
            let since = *self.since.entry(bond.name()).or_insert(now);
            let patience = bond.maker.patience();
            let left = patience.saturating_sub(now.saturating_duration_since(since));
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
    let seconds = bond.maker.patience().as_secs();
    let reason = match &unit {
        _ if bond.maker != Maker::Service => {
            format!("NetworkManager did not take the standby into {name} within {seconds} s")
        }
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
        && bond.policy.addressing != AddressingPolicy::None
        && bond.maker == Maker::Service;
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
    problem_at(SOCKET_PATH.as_ref(), bond)
}

/// The same of the service that has this socket. It is another user's: its words are cut to what a line holds.
fn problem_at(socket: &Path, bond: &IfName) -> Option<String> {
    let mut client = Client::connect(socket).ok()?;
    let report: StatusReport = client.call(Call::TandemStatus, STATUS_LIMIT).ok()?;
    let mut bonds = report.status.bonds.into_iter();
    let found = bonds.find(|found| found.name == *bond)?;
    let mut problems = found.problems.into_iter().map(|problem| problem.message);
    let said = problems.next().unwrap_or(found.reason);
    Some(shortened(&said, MAX_WORDS))
}

fn say(lines: Vec<String>) {
    for line in lines {
        println!("{line}");
    }
}

/// What the network waits for: not for the NICs that are a bond's now, or will be.
fn waits(situation: &Situation) -> Waits {
    let Ok(policy) = &situation.policy else {
        return Waits::default();
    };
    let readiness = &situation.readiness;
    let is_ours = |(bond, _): &(&BondPolicy, Role), link: &Link| {
        bond.ownership == Ownership::Create && readiness.reason_to_leave(bond, &link.name).is_none()
    };
    let bond_of = |link: &Link| {
        let nic = Some(link).filter(|link| link.kind == LinkKind::Physical)?;
        let role = role_of(nic, policy).filter(|role| is_ours(role, nic));
        role.map(|(bond, _)| &bond.name)
    };
    let ports = situation.links.iter().filter_map(|link| {
        let bond = bond_of(link).filter(|bond| networkd::is_plain(bond))?;
        Some((link.name.clone(), bond.clone()))
    });
    let files = readiness.files();
    Waits {
        ports: ports.collect(),
        is_any_managed: networkd::manages_any(files, policy, &situation.links, bond_of),
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
            maker: Maker::Service,
            obstacle,
        }]
    }

    fn reasons(text: &str) -> GivenBack {
        [("bond0".parse().unwrap(), text.to_owned())].into()
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
    fn a_manager_that_makes_the_bond_has_time_from_when_it_can() {
        let made = |is_ready| {
            let mut bonds = bond(false, None);
            bonds[0].maker = Maker::Manager { is_ready };
            bonds
        };
        let (idle, ready) = (made(false), made(true));
        let (mut waiting, start) = (Waiting::default(), Instant::now());
        let next = waiting.next(&idle, &GivenBack::new(), start);
        assert!(next.limit.is_none() && !next.is_over);
        let begins = start + 2 * PATIENCE_WITH_MANAGERS;
        let next = waiting.next(&ready, &GivenBack::new(), begins);
        assert_eq!(next.limit, Some(PATIENCE_WITH_MANAGERS));
        // Its carrier was away.
        waiting.next(&idle, &GivenBack::new(), begins + PATIENCE_WITH_MANAGERS);
        let begins = begins + 2 * PATIENCE_WITH_MANAGERS;
        let next = waiting.next(&ready, &GivenBack::new(), begins);
        assert!(next.overdue.is_empty());
        let next = waiting.next(&ready, &GivenBack::new(), begins + PATIENCE_WITH_MANAGERS);
        assert_eq!(next.overdue.len(), 1);
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
    fn what_the_service_says_of_a_bond_is_a_short_line() {
        use std::io::{BufRead, BufReader, Write};
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("tandem.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let service = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            BufReader::new(&stream)
                .read_line(&mut String::new())
                .unwrap();
            let frozen = include_str!("../../../tests/frozen/0.1.0/guest.jsonl");
            let mut lines = frozen.lines();
            let said = lines.find_map(|line| line.strip_prefix("tandem-status "));
            let words = format!("\\u001b[2J{}", "x".repeat(MAX_WORDS));
            let said = said.unwrap().replace("what happened", &words);
            let said = said.replace("\"id\":4}", "\"id\":1}") + "\n";
            (&stream).write_all(said.as_bytes()).unwrap();
        });
        let told = problem_at(&socket, &"bond0".parse().unwrap()).unwrap();
        service.join().unwrap();
        assert!(told.starts_with(" [2Jxxx"), "{told}");
        assert_eq!(told.len(), MAX_WORDS);
    }

    #[test]
    fn no_bond_with_a_nic_is_nothing_to_wait_for() {
        let next = Waiting::default().next(&[], &reasons("x"), Instant::now());
        assert!(next.is_over && next.given_back == reasons("x"));
    }
}
