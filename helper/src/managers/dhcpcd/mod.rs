//! dhcpcd as a service of its own configures each interface that it finds: so the bond too, as its standby before, for
//! it names itself to servers by the MAC. It knows no marks of udev, and would configure the ports besides. What
//! keeps it off them is `denyinterfaces` (dhcpcd.conf(5), 10.1), in a copy of its file in /run that
//! `helper/systemd/dhcpcd.conf` has it read in that file's place. The copy is all there is to know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{BondPolicy, Policy};
use tandem_core::{IfName, role_of};

use crate::networkd::{self, Followed, carries, is_plain};
use crate::nics::Readiness;
use crate::programs::{run, state_of};
use crate::system_files::{SystemFiles, make_folder};

const UNIT: &str = "dhcpcd.service";
const CONFIG: &str = "/etc/dhcpcd.conf";
const COPY: &str = "/run/tandem-nics/dhcpcd.conf";
/// The copy's first line: `BOND=STANDBY` for each bond follows.
const HEADER: &str = "# Written by tandem:";
/// The copy's second one: the ports follow.
const DENY: &str = "denyinterfaces";

/// Bonds and their standbys.
type Bonds = BTreeMap<IfName, IfName>;

fn served(text: &str) -> Bonds {
    let line = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix(HEADER));
    let pairs = line.unwrap_or_default().split_whitespace();
    pairs
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(bond, standby)| Some((bond.parse().ok()?, standby.parse().ok()?)))
        .collect()
}

fn denied(text: &str) -> BTreeSet<IfName> {
    let line = text.lines().nth(1).and_then(|line| line.strip_prefix(DENY));
    let names = line.unwrap_or_default().split_whitespace();
    names.filter_map(|name| name.parse().ok()).collect()
}

/// Whether dhcpcd configures this bond.
pub(super) fn serves(files: &SystemFiles, bond: &IfName) -> bool {
    served(&files.text(COPY)).contains_key(bond)
}

/// Where the bond's configuration comes from, in words; nothing if it is not dhcpcd's.
pub(super) fn told(files: &SystemFiles, bond: &IfName) -> Option<String> {
    let standby = served(&files.text(COPY)).remove(bond)?;
    Some(format!("dhcpcd, as {CONFIG} says of {standby}"))
}

/// Whether it would configure a bond with this standby.
pub(super) fn planned(files: &SystemFiles, bond: &IfName, standby: &Link) -> bool {
    is_used(files) && configures(&files.text(CONFIG), bond, &standby.name)
}

/// Has dhcpcd follow. This needs root.
pub(super) fn follow(
    policy: &Policy,
    readiness: &Readiness,
    links: &[Link],
    followed: &mut Followed,
) {
    let files = readiness.files();
    if !is_used(files) && !files.exists(COPY) {
        return;
    }
    let before = files.text(COPY);
    let (bonds_before, denied_before) = (served(&before), denied(&before));
    let mut bonds = Bonds::new();
    for bond in &policy.bonds {
        let kept = bonds_before.get(&bond.name);
        let is_there = |name: &&IfName| links.iter().any(|link| link.name == **name);
        let standby = match networkd::standby_of(policy, bond, links) {
            // It has taken its course until the next boot. udev may have renamed the standby after the first look.
            Some(standby) if kept.is_some() && carries(&bond.name, links) => {
                kept.filter(is_there).or(Some(&standby.name)).cloned()
            }
            // The standby is not there now.
            None => kept.cloned(),
            Some(standby) => is_to_serve(readiness, bond, standby).then(|| standby.name.clone()),
        };
        bonds.extend(standby.map(|standby| (bond.name.clone(), standby)));
    }
    let kept = networkd::without_policy(&bonds_before, policy, links);
    bonds.extend(kept.map(|(bond, standby)| (bond.clone(), standby.clone())));
    let is_port = |link: &&Link| {
        let role = role_of(link, policy).filter(|_| link.kind == LinkKind::Physical);
        role.is_some_and(|(bond, _)| bonds.contains_key(&bond.name)) && is_plain(&link.name)
    };
    let mut ports: BTreeSet<_> = links
        .iter()
        .filter(is_port)
        .map(|link| link.name.clone())
        .collect();
    if !bonds.is_empty() {
        // A VF that left comes again.
        ports.extend(denied_before.iter().cloned());
    }
    let text = match bonds.is_empty() {
        true => String::new(),
        false => copy(&files.text(CONFIG), &bonds, &ports),
    };
    if text == before {
        return;
    }
    if let Err(error) = store(files, &text) {
        followed
            .done
            .push(format!("dhcpcd is not told of all bonds: {error:#}"));
        return;
    }
    for bond in bonds
        .keys()
        .filter(|bond| !bonds_before.contains_key(*bond))
    {
        followed.done.push(format!("dhcpcd is to configure {bond}"));
        followed.changed.insert(bond.clone());
    }
    let gone = bonds_before
        .keys()
        .filter(|bond| !bonds.contains_key(*bond));
    followed.changed.extend(gone.cloned());
    // Another text alone takes effect when its administrator restarts it, as without Tandem.
    if (bonds, ports) != (bonds_before, denied_before) {
        followed.done.extend(restart(files));
    }
}

fn is_to_serve(readiness: &Readiness, bond: &BondPolicy, standby: &Link) -> bool {
    let (files, name) = (readiness.files(), &bond.name);
    let is_anothers = networkd::serves(files, name)
        || super::network_manager::serves(files, name)
        || super::ifupdown::serves(files, name)
        || super::ifupdown::left_alone(files, name).is_some();
    bond.is_configured_as_standby()
        && !is_anothers
        && is_used(files)
        && is_plain(name)
        && is_plain(&standby.name)
        && configures(&files.text(CONFIG), name, &standby.name)
        && readiness.reason_to_leave(bond, &standby.name).is_none()
}

/// It is started by systemd, for all interfaces.
fn is_used(files: &SystemFiles) -> bool {
    files.is_wanted(UNIT) && files.exists(CONFIG)
}

/// By this file it would configure the standby, and not leave out a bond of this name.
fn configures(text: &str, bond: &IfName, standby: &IfName) -> bool {
    let denies = |name: &IfName| patterns(text, DENY).any(|pattern| is_like(pattern, name));
    let mut allowed = patterns(text, "allowinterfaces").peekable();
    let is_allowed = allowed.peek().is_none() || allowed.any(|pattern| is_like(pattern, standby));
    is_allowed && !denies(standby) && !denies(bond)
}

/// The names and patterns that all lines with this key have.
fn patterns<'a>(text: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    let values = text.lines().filter_map(move |line| value_of(line, key));
    values.flat_map(|value| {
        value
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty())
    })
}

fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let value = line.trim().strip_prefix(key)?;
    value.starts_with([' ', '\t']).then(|| value.trim())
}

/// A shell's pattern, as fnmatch(3) reads it.
fn is_like(pattern: &str, name: &IfName) -> bool {
    glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name.as_str()))
}

/// The file with the ports denied, and with bonds where it speaks of their standbys.
fn copy(text: &str, bonds: &Bonds, ports: &BTreeSet<IfName>) -> String {
    let mut copy = HEADER.to_owned();
    for (bond, standby) in bonds {
        let _ = write!(copy, " {bond}={standby}");
    }
    let _ = write!(copy, "\n{DENY}");
    for port in ports {
        let _ = write!(copy, " {port}");
    }
    copy.push('\n');
    for line in text.lines() {
        let block = value_of(line, "interface");
        let bond =
            block.and_then(|name| bonds.iter().find(|(_, standby)| standby.as_str() == name));
        if let Some((bond, _)) = bond {
            let _ = writeln!(copy, "interface {bond}");
            continue;
        }
        copy.push_str(line);
        if value_of(line, "allowinterfaces").is_some() {
            for bond in bonds.keys() {
                let _ = write!(copy, " {bond}");
            }
        }
        copy.push('\n');
    }
    copy
}

/// The same file with another content, where dhcpcd reads it already: it may be mounted over its own.
fn store(files: &SystemFiles, text: &str) -> Result<()> {
    let path = files.path(COPY);
    let write = || {
        if text.is_empty() {
            return fs::remove_file(&path);
        }
        make_folder(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, text)?;
        // Whatever this process's umask is: without its rights dhcpcd reads it too.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// A running one reads its file only then, and lets go of the ports.
fn restart(files: &SystemFiles) -> Option<String> {
    let is_this = files.root == Path::new("/");
    if !is_this || !matches!(state_of(UNIT).as_str(), "active" | "activating") {
        return None;
    }
    let told = run("systemctl", &["try-restart", "--no-block", UNIT]);
    Some(match told {
        Ok(()) => "dhcpcd is restarted".to_owned(),
        Err(error) => format!("dhcpcd can't be restarted: {error}"),
    })
}

#[cfg(test)]
mod tests;
