//! ifupdown configures the bond by what its standby's stanza says: `ifup BOND=STANDBY` (ifup(8), ifupdown 0.8.44), so
//! nothing of the administrator's is changed or copied, and whichever DHCP client it uses asks on the bond.
//!
//! That it leaves the ports alone is its own doing too: brought up by stanzas that do nothing, they are configured
//! already when their turn comes. All of that is in /run; `helper/systemd/networking.conf` does it again where its
//! unit is restarted, and brings the bonds up at a boot.

pub(super) mod stanzas;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{BondPolicy, Policy};
use tandem_core::{IfName, role_of};

use self::stanzas::{INTERFACES, Stanzas, Use};
use crate::managers::network_manager;
use crate::networkd::{self, Followed, carries, is_plain};
use crate::nics::Readiness;
use crate::programs::{run, state_of};
use crate::runtime;
use crate::system_files::{SystemFiles, make_folder};

const UNIT: &str = "networking.service";
/// Stanzas that do nothing, for the ports.
const PORTS_PATH: &str = "/run/tandem-nics/interfaces";
/// The bonds that it configures: `BOND=STANDBY`, a line each.
const BONDS_PATH: &str = "/run/tandem-nics/ifupdown";
/// The bonds whose NICs are left to it, and why.
const LEFT_PATH: &str = "/run/tandem-nics/left-to-ifupdown.json";
/// What is up: `INTERFACE=STANZA`, a line each.
const STATE_PATH: &str = "/run/network/ifstate";
/// Where dhclient has its leases.
const LEASES: &str = "/var/lib/dhcp";
/// Where DHCP clients that it started have their numbers.
const CLIENTS: &[(&str, &[&str])] = &[
    (
        "dhclient",
        &["/run/dhclient.{}.pid", "/run/dhclient6.{}.pid"],
    ),
    (
        "dhcpcd",
        &[
            "/run/dhcpcd/{}.pid",
            "/run/dhcpcd/{}-4.pid",
            "/run/dhcpcd/{}-6.pid",
        ],
    ),
    ("udhcpc", &["/run/udhcpc.{}.pid"]),
];

/// Bonds and the standbys by whose stanzas they are configured.
type Bonds = BTreeMap<IfName, IfName>;
type Left = BTreeMap<IfName, String>;

fn pairs(text: &str) -> Bonds {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .filter_map(|(bond, standby)| Some((bond.parse().ok()?, standby.parse().ok()?)))
        .collect()
}

fn served(files: &SystemFiles) -> Bonds {
    pairs(&files.text(BONDS_PATH))
}

/// Whether ifupdown configures this bond.
pub(super) fn serves(files: &SystemFiles, bond: &IfName) -> bool {
    served(files).contains_key(bond)
}

/// Where the bond's configuration comes from, in words; nothing if it is not ifupdown's.
pub(super) fn told(files: &SystemFiles, bond: &IfName) -> Option<String> {
    let standby = served(files).remove(bond)?;
    Some(format!("ifupdown, as {INTERFACES} says of {standby}"))
}

/// Whether the bond gets an IPv4 address by its standby's stanza, or asks for one.
pub(super) fn gives_ipv4(files: &SystemFiles, bond: &IfName) -> bool {
    let standby = served(files).remove(bond);
    standby.is_some_and(|standby| Stanzas::read(files).gives_ipv4(standby.as_str()))
}

fn left(files: &SystemFiles) -> Left {
    let left = runtime::load(&files.path(LEFT_PATH));
    left.ok().flatten().unwrap_or_default()
}

/// Why no bond is made of NICs that it configures.
pub(super) fn left_alone(files: &SystemFiles, bond: &IfName) -> Option<String> {
    left(files).remove(bond)
}

enum Decision {
    /// It configures the bond by the stanzas of this standby.
    Serve(IfName),
    /// The NICs are left to it, and why.
    Leave(String),
    /// It has no part in it.
    None,
    /// What it depends on is not there now.
    Keep,
}

/// Has ifupdown follow. This needs root.
pub(super) fn follow(
    policy: &Policy,
    readiness: &Readiness,
    links: &[Link],
    followed: &mut Followed,
) {
    let files = readiness.files();
    if !is_used(files) && !files.exists(BONDS_PATH) {
        return;
    }
    if let Err(error) = follow_stanzas(policy, readiness, links, followed) {
        let error = format!("ifupdown is not told of all bonds: {error:#}");
        followed.done.push(error);
    }
}

fn follow_stanzas(
    policy: &Policy,
    readiness: &Readiness,
    links: &[Link],
    followed: &mut Followed,
) -> Result<()> {
    let files = readiness.files();
    let stanzas = Stanzas::read(files);
    let (before, left_before) = (served(files), left(files));
    let (mut now, mut left_now) = (Bonds::new(), Left::new());
    for bond in &policy.bonds {
        let name = &bond.name;
        let keep = |now: &mut Bonds, left_now: &mut Left| {
            now.extend(
                before
                    .get_key_value(name)
                    .map(|(bond, standby)| (bond.clone(), standby.clone())),
            );
            left_now.extend(
                left_before
                    .get_key_value(name)
                    .map(|(bond, why)| (bond.clone(), why.clone())),
            );
        };
        match decide(policy, bond, readiness, links, &stanzas) {
            Decision::Serve(standby) => {
                now.insert(name.clone(), standby);
            }
            Decision::Keep => keep(&mut now, &mut left_now),
            // It has taken its course until the next boot.
            _ if carries(name, links) => keep(&mut now, &mut left_now),
            Decision::Leave(why) => {
                followed
                    .reasons
                    .push(format!("ifupdown does not configure {name}: {why}"));
                left_now.insert(name.clone(), why);
            }
            Decision::None => {}
        }
    }
    let kept = networkd::without_policy(&before, policy, links);
    now.extend(kept.map(|(bond, standby)| (bond.clone(), standby.clone())));
    let system = System::of(files);
    let gone = before.iter().filter(|(bond, _)| !now.contains_key(*bond));
    for (bond, standby) in gone.clone() {
        followed.done.extend(system.give_back(bond, standby));
    }
    let ports = ports(policy, links, &stanzas, &now);
    store(files, PORTS_PATH, &text_of_ports(&ports))?;
    if now != before {
        let mut lines = String::new();
        for (bond, standby) in &now {
            let _ = writeln!(lines, "{bond}={standby}");
        }
        store(files, BONDS_PATH, &lines)?;
        for (bond, standby) in now.iter().filter(|(bond, _)| !before.contains_key(*bond)) {
            let text = format!("ifupdown is to configure {bond} by the stanza of {standby}");
            followed.done.push(text);
            followed.changed.insert(bond.clone());
        }
        followed.changed.extend(gone.map(|(bond, _)| bond.clone()));
    }
    if left_now != left_before {
        runtime::store_for_service(&files.path(LEFT_PATH), &left_now)?;
    }
    for (bond, standby) in &now {
        followed.done.extend(keep_client(files, bond, standby));
        if !links.iter().any(|link| link.name == *bond) {
            followed.done.extend(system.forget(bond));
        }
    }
    followed.done.extend(system.keep_off(&ports));
    for (bond, standby) in now.iter().filter(|(bond, _)| carries(bond, links)) {
        followed.done.extend(system.bring_up(bond, standby));
    }
    Ok(())
}

fn decide(
    policy: &Policy,
    bond: &BondPolicy,
    readiness: &Readiness,
    links: &[Link],
    stanzas: &Stanzas,
) -> Decision {
    let files = readiness.files();
    let name = &bond.name;
    let is_anothers = networkd::serves(files, name) || network_manager::serves(files, name);
    if !bond.is_configured_as_standby() || is_anothers || !is_used(files) {
        return Decision::None;
    }
    let Some(standby) = networkd::standby_of(policy, bond, links) else {
        return Decision::Keep;
    };
    match is_its(stanzas, name, &standby.name) {
        Ok(false) => Decision::None,
        Err(why) => Decision::Leave(why),
        Ok(true) => match readiness.reason_to_leave(bond, &standby.name) {
            None => Decision::Serve(standby.name.clone()),
            Some(_) => Decision::None,
        },
    }
}

/// Whether it configures this standby, and so the bond; or why it can't.
fn is_its(stanzas: &Stanzas, bond: &IfName, standby: &IfName) -> Result<bool, String> {
    match stanzas.of_nic(standby.as_str()) {
        Ok(Use::None) => Ok(false),
        Err(why) => Err(format!("{INTERFACES}, {standby}: {why}")),
        Ok(Use::Configures) if stanzas.has(bond.as_str()) => Err(format!(
            "{INTERFACES} has a stanza for it too; with `addressing = \"none\"` that is used"
        )),
        Ok(Use::Configures) if !is_plain(bond) || !is_plain(standby) => {
            Err("its name, or its standby's, means something else to a shell".to_owned())
        }
        Ok(Use::Configures) => Ok(true),
    }
}

/// Whether it would configure a bond with this standby.
///
/// # Errors
/// It has the standby, and can't, and why.
pub(super) fn planned(files: &SystemFiles, bond: &IfName, standby: &Link) -> Result<bool, String> {
    Ok(is_used(files) && is_its(&Stanzas::read(files), bond, &standby.name)?)
}

/// The NICs of these bonds that it would bring up too.
fn ports(policy: &Policy, links: &[Link], stanzas: &Stanzas, bonds: &Bonds) -> BTreeSet<IfName> {
    let is_port = |link: &&Link| {
        let role = role_of(link, policy).filter(|_| link.kind == LinkKind::Physical);
        role.is_some_and(|(bond, _)| bonds.contains_key(&bond.name))
            && is_plain(&link.name)
            && stanzas.has(link.name.as_str())
    };
    let present = links.iter().filter(is_port).map(|link| link.name.clone());
    present.chain(bonds.values().cloned()).collect()
}

fn text_of_ports(ports: &BTreeSet<IfName>) -> String {
    let mut text = "# Written by tandem: ports of bonds, which get no addresses.\n".to_owned();
    for port in ports {
        let _ = write!(text, "auto {port}\niface {port} inet manual\n");
    }
    text
}

/// It is started by systemd, or has brought something up.
pub(super) fn is_used(files: &SystemFiles) -> bool {
    files.exists(INTERFACES) && (files.is_wanted(UNIT) || files.exists(STATE_PATH))
}

fn store(files: &SystemFiles, path: &str, text: &str) -> Result<()> {
    if files.text(path) == text {
        return Ok(());
    }
    let path = files.path(path);
    let write = || {
        make_folder(path.parent().unwrap_or(Path::new("/")))?;
        let temporary = runtime::temporary(&path);
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o644))?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// Has dhclient call itself on the bond as it did on the standby, or its server would take it for another: Debian's
/// keeps that in the file of the interface's leases (`-i` in dhclient(8), 4.4.3). dhcpcd has one name for all.
fn keep_client(files: &SystemFiles, bond: &IfName, standby: &IfName) -> Option<String> {
    const KEY: &str = "default-duid ";
    let mut said = None;
    for kind in ["dhclient", "dhclient6"] {
        let path = |name: &IfName| format!("{LEASES}/{kind}.{name}.leases");
        let (theirs, own) = (files.text(&path(standby)), files.text(&path(bond)));
        let mut lines = theirs.lines().rev();
        let name = lines.find(|line| line.starts_with(KEY));
        let Some(name) = name.filter(|_| !own.contains(KEY)) else {
            continue;
        };
        let text = format!("{name}\n{own}");
        said = match store(files, &path(bond), &text) {
            Ok(()) => Some(format!(
                "dhclient has the same name on {bond} as on {standby}"
            )),
            Err(error) => Some(format!("{error:#}")),
        };
    }
    said
}

/// The system that this is; nothing is run for another one.
struct System<'a> {
    files: &'a SystemFiles,
    is_this: bool,
}

impl<'a> System<'a> {
    fn of(files: &'a SystemFiles) -> Self {
        let is_this = files.root == Path::new("/");
        Self { files, is_this }
    }

    fn is_up(&self, name: &IfName) -> bool {
        let state = self.files.text(STATE_PATH);
        let mut names = state.lines().filter_map(|line| line.split('=').next());
        names.any(|up| up == name.as_str())
    }

    /// Its unit is in one of these states.
    fn unit_is(&self, states: &[&str]) -> bool {
        self.is_this && states.contains(&state_of(UNIT).as_str())
    }

    /// From now on these are configured, as far as it knows. A DHCP client that it started for one would go on asking.
    fn keep_off(&self, ports: &BTreeSet<IfName>) -> Vec<String> {
        if !self.is_this || ports.is_empty() {
            return Vec::new();
        }
        let mut said: Vec<_> = ports.iter().flat_map(end_clients).collect();
        if !ports.iter().all(|port| self.is_up(port)) {
            let ports = ports.iter().map(IfName::as_str);
            let mark = ["--no-scripts", "-i", PORTS_PATH].into_iter().chain(ports);
            said.extend(run("ifup", &mark.collect::<Vec<_>>()).err());
        }
        said
    }

    /// Has it configure a bond that is there, where its unit did not.
    fn bring_up(&self, bond: &IfName, standby: &IfName) -> Option<String> {
        if self.is_up(bond) || !self.unit_is(&["active", "failed"]) {
            return None;
        }
        start(bond, &format!("{bond}={standby}"))
    }

    /// The bond is gone, or to be nobody's: one of this name that comes later is to be configured anew. Its state names
    /// the standby's stanza, which the file of ports has.
    fn forget(&self, bond: &IfName) -> Vec<String> {
        if !self.is_this || !self.is_up(bond) {
            return Vec::new();
        }
        let mut said = end_clients(bond);
        let unmark = ["--no-scripts", "-i", PORTS_PATH, bond.as_str()];
        said.extend(run("ifdown", &unmark).err());
        said
    }

    /// Has it configure a standby as without Tandem.
    fn give_back(&self, bond: &IfName, standby: &IfName) -> Vec<String> {
        if !self.is_this {
            return Vec::new();
        }
        let mut said = end_clients(bond);
        said.extend(self.forget(bond));
        let unmark = ["--no-scripts", "-i", PORTS_PATH, standby.as_str()];
        said.extend(run("ifdown", &unmark).err());
        // It may have passed over it just now; twice is no harm.
        if self.unit_is(&["activating", "active", "failed"]) {
            said.extend(start(standby, standby.as_str()));
        }
        said
    }
}

/// Has systemd run `ifup`, apart from whoever asks: what it starts stays.
fn start(name: &IfName, interface: &str) -> Option<String> {
    let unit = format!("tandem-ifup-{name}");
    if matches!(
        state_of(&format!("{unit}.service")).as_str(),
        "active" | "activating"
    ) {
        return None;
    }
    // The DHCP client stays when `ifup` has ended, and the unit does not: it may be wanted again.
    let arguments = [
        "--no-block",
        "--collect",
        "--quiet",
        "--property=KillMode=process",
    ];
    let unit = format!("--unit={unit}");
    let command = [&unit, "--property=Type=oneshot", "--", "ifup", interface];
    Some(
        match run("systemd-run", &[&arguments[..], &command].concat()) {
            Ok(()) => format!("ifupdown is asked to configure {interface}"),
            Err(error) => format!("ifupdown is not asked to configure {interface}: {error}"),
        },
    )
}

/// Ends the DHCP clients of an interface. They give nothing back to their server then, and leave the addresses.
fn end_clients(interface: &IfName) -> Vec<String> {
    let mut said = Vec::new();
    for (program, paths) in CLIENTS {
        for path in *paths {
            let path = path.replace("{}", interface.as_str());
            let number = fs::read_to_string(&path).unwrap_or_default();
            let Some(process) = number.trim().parse().ok().and_then(Pid::from_raw) else {
                continue;
            };
            let name = fs::read_to_string(format!("/proc/{}/comm", process.as_raw_nonzero()));
            if name.is_ok_and(|name| name.trim() == *program) {
                let ended = match kill_process(process, Signal::KILL) {
                    // It has another user, such as dhcpcd's own, and these units may end no process of another.
                    Err(Errno::PERM) => {
                        let number = process.as_raw_nonzero().to_string();
                        let kill = ["--quiet", "--collect", "--", "kill", "-KILL", &number];
                        run("systemd-run", &kill)
                    }
                    ended => ended.map_err(|errno| errno.to_string()),
                };
                said.push(match ended {
                    Ok(()) => format!("ended {program} of {interface}"),
                    Err(error) => format!("can't end {program} of {interface}: {error}"),
                });
            }
        }
    }
    said
}

#[cfg(test)]
mod tests;
