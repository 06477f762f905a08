//! systemd-networkd configures the bond as it would have configured the standby: by the same file, with the same
//! client identifiers, so that the same leases come.
//!
//! networkd looks for the first `.network` file that fits an interface. Where one fits the standby of a bond with
//! `addressing = "auto"`, a copy of it that fits the bond is written beside those of other programs, in /run. The
//! copy is all there is to know: where it stands, networkd has the bond (`serves`); where it does not, Tandem
//! moves addresses as with `inherit`. It goes away with whatever gives the NICs back.

mod copy;
pub(crate) mod iaid;
mod ini;
mod matching;
mod nic;
mod readers;
mod refresh_path;
pub(crate) mod wait_online;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tandem_core::link::{Link, LinkKind};
use tandem_core::policy::{AddressingPolicy, BondPolicy, Ownership, Policy};
use tandem_core::{IfName, Role, role_of};

use self::ini::Section;
use self::matching::Fit;
use self::nic::Nic;
use crate::nics::Readiness;
use crate::programs::{run, state_of};
use crate::system_files::{SystemFiles, make_folder, text_of};

/// Where systemd-networkd looks (systemd.network(5)).
pub(crate) const FOLDERS: &[&str] = &[
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];
/// Where files that are made at run time are.
const RUN_FOLDER: &str = "/run/systemd/network";
/// What keeps networkd before 255 off the ports.
pub(crate) const UNMANAGED_FILE: &str = "01-tandem-unmanaged.network";
/// Names of the copies begin so: before those of others, so that none of them is asked first.
const PREFIX: &str = "02-tandem-";
const ENDING: &str = ".network";
const UNIT: &str = "systemd-networkd.service";
/// Most files that are looked at.
const MAX_FILES: usize = 1024;

/// Whether networkd configures this bond.
pub(crate) fn serves(files: &SystemFiles, bond: &IfName) -> bool {
    files.exists(&path_of(bond))
}

/// Where the bond's configuration comes from, in words; nothing if networkd does not configure it.
pub fn told(files: &SystemFiles, bond: &IfName) -> Option<String> {
    if !serves(files, bond) {
        return None;
    }
    let text = files.text(&path_of(bond));
    let source = copy::source(&text).map(|source| format!(", as {source} says of the standby"));
    Some(format!("systemd-networkd{}", source.unwrap_or_default()))
}

/// Whether by its file the bond gets an IPv4 address, or asks for one and for no other.
pub(crate) fn gives_ipv4(files: &SystemFiles, bond: &IfName) -> bool {
    copy::gives_ipv4(&ini::parse(&files.text(&path_of(bond))))
}

fn path_of(bond: &IfName) -> String {
    format!("{RUN_FOLDER}/{PREFIX}{bond}{ENDING}")
}

/// A file that networkd is to have.
struct Wanted {
    text: String,
    /// Whose owner and mode it gets: it may hold secrets.
    source: PathBuf,
}

/// What is to become of a bond's file.
enum Decision {
    /// It is to be this.
    Write(Wanted),
    /// There is to be none, and why; nothing if networkd has no part in it.
    Remove(Option<String>),
    /// What it depends on is not there now.
    Keep,
}

/// What became of the bonds' files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// Bonds that networkd configures from now on, or no longer.
    pub(crate) changed: BTreeSet<IfName>,
    /// What was done, and what failed.
    pub(crate) done: Vec<String>,
    /// Why networkd configures a bond no longer, or not at all; the same each time as long as it is so.
    pub(crate) reasons: Vec<String>,
}

/// Writes the files of the bonds that networkd is to configure, removes those of others, and has networkd read
/// them anew if it runs. This needs root.
pub(crate) fn follow(policy: &Policy, readiness: &Readiness, links: &[Link]) -> Followed {
    let mut followed = Followed::default();
    let result = follow_files(policy, readiness, links, &mut followed);
    if !followed.done.is_empty() {
        followed.done.extend(reload());
    }
    if let Err(error) = result {
        let error = format!("systemd-networkd is not told of all bonds: {error:#}");
        followed.done.push(error);
    }
    let files = readiness.files();
    let watched = refresh_path::follow(files, is_used(files));
    let watched = watched.unwrap_or_else(|error| vec![format!("{error:#}")]);
    followed.done.extend(watched);
    followed
}

/// Each change of a file is told in `done`.
fn follow_files(
    policy: &Policy,
    readiness: &Readiness,
    links: &[Link],
    followed: &mut Followed,
) -> Result<()> {
    let files = readiness.files();
    let mut stale: BTreeMap<String, PathBuf> = ini::list(files, &[RUN_FOLDER], "network")
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    for bond in &policy.bonds {
        let path = files.path(&path_of(&bond.name));
        let name = format!("{PREFIX}{}{ENDING}", bond.name);
        let is_there = stale.remove(&name);
        match decide(policy, bond, readiness, links) {
            Decision::Keep => {}
            // networkd would take away what it has given the bond. The next boot has no copy.
            Decision::Remove(_) if carries(&bond.name, links) => {}
            Decision::Write(wanted) => {
                if is_there.is_none()
                    || text_of(&path) != wanted.text
                    || !readers::are_the_same(&path, &wanted.source)
                {
                    write(&path, &wanted)
                        .with_context(|| format!("can't write {}", path.display()))?;
                    if is_there.is_none() {
                        followed.changed.insert(bond.name.clone());
                    }
                    let source = wanted.source.display();
                    followed.done.push(format!(
                        "systemd-networkd is to configure {} by {source}",
                        bond.name
                    ));
                }
            }
            Decision::Remove(why) => {
                stale.extend(is_there.map(|path| (name, path)));
                followed.reasons.extend(why.map(|why| {
                    format!("systemd-networkd does not configure {}: {why}", bond.name)
                }));
            }
        }
    }
    for (name, path) in stale {
        let bond = bond_of(&name);
        if bond.as_ref().is_some_and(|bond| carries(bond, links)) {
            continue;
        }
        fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        followed.changed.extend(bond);
        followed.done.push(format!("removed {}", path.display()));
    }
    Ok(())
}

/// The bond that a copy of this name is for.
fn bond_of(name: &str) -> Option<IfName> {
    name.strip_prefix(PREFIX)?
        .strip_suffix(ENDING)?
        .parse()
        .ok()
}

/// Of the bonds that a manager configures, those that carry and that the policy no longer names: they go on as they are
/// until the next boot.
pub(crate) fn without_policy<'a, T>(
    before: &'a BTreeMap<IfName, T>,
    policy: &'a Policy,
    links: &'a [Link],
) -> impl Iterator<Item = (&'a IfName, &'a T)> {
    let is_named = |bond: &IfName| policy.bonds.iter().any(|named| named.name == *bond);
    let goes_on = move |bond: &IfName| !is_named(bond) && carries(bond, links);
    before.iter().filter(move |(bond, _)| goes_on(bond))
}

/// The bond is there and has a port.
pub(crate) fn carries(bond: &IfName, links: &[Link]) -> bool {
    let mut bonds = links
        .iter()
        .filter(|link| link.kind == LinkKind::Bond && link.name == *bond);
    bonds.any(|bond| {
        links
            .iter()
            .any(|link| link.controller == Some(bond.ifindex))
    })
}

/// The NIC that is this bond's standby.
pub(crate) fn standby_of<'a>(
    policy: &Policy,
    bond: &BondPolicy,
    links: &'a [Link],
) -> Option<&'a Link> {
    links.iter().find(|link| {
        let role = role_of(link, policy).filter(|_| link.kind == LinkKind::Physical);
        role.is_some_and(|(of, role)| of.name == bond.name && role == Role::Standby)
    })
}

fn decide(policy: &Policy, bond: &BondPolicy, readiness: &Readiness, links: &[Link]) -> Decision {
    let files = readiness.files();
    if !bond.is_configured_as_standby() || !is_used(files) {
        return Decision::Remove(None);
    }
    if !is_plain(&bond.name) {
        return Decision::Remove(Some("its name means something else to systemd".to_owned()));
    }
    let Some(standby) = standby_of(policy, bond, links) else {
        return Decision::Keep;
    };
    if readiness.reason_to_leave(bond, &standby.name).is_some() {
        return Decision::Remove(None);
    }
    let Some(nic) = Nic::of(files, standby) else {
        return Decision::Keep;
    };
    match source_for(files, &bond.name, &nic) {
        Ok(Some(found)) => Decision::Write(Wanted {
            text: copy::copy(
                bond.name.as_str(),
                &found.name,
                &found.sections,
                iaid::of(&nic),
            ),
            source: found.path,
        }),
        Ok(None) => Decision::Remove(None),
        Err(why) => Decision::Remove(Some(why)),
    }
}

/// The file for the bond: the administrator's own one comes first, then the standby's.
fn source_for(files: &SystemFiles, bond: &IfName, standby: &Nic) -> Result<Option<Found>, String> {
    match file_for(files, &Nic::bond(bond.as_str(), standby), true) {
        Ok(None) => file_for(files, standby, false),
        found => found,
    }
}

/// It leaves this interface alone (`ADMIN_STATE` in its state files, systemd 257).
pub(crate) fn ignores(files: &SystemFiles, link: &Link) -> bool {
    let state = files.text(&format!("/run/systemd/netif/links/{}", link.ifindex));
    state.lines().any(|line| line == "ADMIN_STATE=unmanaged")
}

/// The name of the file by which networkd would configure a bond with this standby; nothing if it would not.
///
/// # Errors
/// That can't be told, and why.
pub(crate) fn planned(
    files: &SystemFiles,
    bond: &IfName,
    standby: &Link,
) -> Result<Option<String>, String> {
    if !is_used(files) {
        return Ok(None);
    }
    let nic = Nic::of(files, standby).ok_or("udev has not handled the standby yet")?;
    Ok(source_for(files, bond, &nic)?.map(|found| found.name))
}

/// Whether networkd configures one of these interfaces by a file; nothing if that is not known yet, as udev has not
/// handled all of them. `bond_of` gives the bond that has one of them as its NIC.
pub(crate) fn manages_any<'a>(
    files: &SystemFiles,
    policy: &Policy,
    links: &[Link],
    bond_of: impl Fn(&Link) -> Option<&'a IfName>,
) -> Option<bool> {
    // wait-online passes over that one.
    let links = links.iter().filter(|link| link.name.as_str() != "lo");
    let nics: Option<Vec<_>> = links
        .map(|link| Some((link, Nic::of(files, link)?)))
        .collect();
    let is_managed = |(link, nic): &(&Link, Nic)| {
        let is_made_here = |bond: &&BondPolicy| {
            bond.name == link.name && nic.kind.is_some() && bond.ownership == Ownership::Create
        };
        let bond = policy.bonds.iter().find(is_made_here);
        match bond.map(|bond| &bond.addressing) {
            Some(AddressingPolicy::Auto) => serves(files, &link.name),
            Some(AddressingPolicy::Inherit | AddressingPolicy::Static { .. }) => false,
            Some(AddressingPolicy::None) | None => {
                bond_of(link).is_none() && !matches!(file_for(files, nic, false), Ok(None))
            }
        }
    };
    Some(nics?.iter().any(is_managed))
}

/// A name that stands for itself in systemd's files and as a word of a command: the host may have chosen it, or who
/// holds the service.
pub(crate) fn is_plain(name: &IfName) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.as_str().starts_with('-') && name.as_str().chars().all(is_plain)
}

/// networkd is started by systemd, or runs.
fn is_used(files: &SystemFiles) -> bool {
    files.is_wanted(UNIT) || files.runs(UNIT)
}

struct Found {
    name: String,
    path: PathBuf,
    sections: Vec<Section>,
}

/// The file that networkd would use for this interface without Tandem; an error if that can't be told. `by_name`:
/// only one that asks for the interface's name.
fn file_for(files: &SystemFiles, nic: &Nic, by_name: bool) -> Result<Option<Found>, String> {
    let all = ini::list(files, FOLDERS, "network");
    let others = all
        .into_iter()
        .filter(|(name, _)| name != UNMANAGED_FILE && !name.starts_with(PREFIX));
    for (name, path) in others.take(MAX_FILES) {
        let sections = ini::read(files, FOLDERS, &path, &name);
        if by_name && !asks_for_a_name(&sections) {
            continue;
        }
        match matching::fit(&sections, nic) {
            Fit::No => {}
            Fit::Yes if copy::leaves_alone(&sections) && by_name => {
                return Err(format!("{} says so", path.display()));
            }
            Fit::Yes if copy::leaves_alone(&sections) => return Ok(None),
            Fit::Yes => {
                return Ok(Some(Found {
                    name,
                    path,
                    sections,
                }));
            }
            Fit::Unknown(what) => {
                return Err(format!(
                    "whether {} is for {} depends on {what}",
                    path.display(),
                    nic.name
                ));
            }
        }
    }
    Ok(None)
}

/// The file is for one interface, by its name.
fn asks_for_a_name(sections: &[Section]) -> bool {
    let mut entries = sections
        .iter()
        .filter(|section| section.name == "Match")
        .flat_map(|section| &section.entries);
    entries.any(|(key, value)| key == "Name" && !value.contains(['*', '!', '?', '[']))
}

/// Whole or not at all, for the eyes of those who may read the source.
fn write(path: &Path, wanted: &Wanted) -> io::Result<()> {
    let source = fs::metadata(&wanted.source)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    make_folder(folder)?;
    // The service's start and the NICs' watch may both be at it.
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(wanted.text.as_bytes())?;
    readers::let_read(&file, source.mode(), source.gid())?;
    fs::rename(&temporary, path)
}

/// Has networkd read its files anew, if it runs. Before D-Bus is there it can't be asked; a restart keeps what it
/// has configured.
fn reload() -> Vec<String> {
    let is_active = matches!(
        state_of(UNIT).as_str(),
        "active" | "activating" | "reloading"
    );
    if !is_active {
        return Vec::new();
    }
    let told = run("networkctl", &["reload"])
        .or_else(|_| run("systemctl", &["try-restart", "--no-block", UNIT]));
    vec![match told {
        Ok(()) => "systemd-networkd has read its files anew".to_owned(),
        Err(error) => format!("systemd-networkd can't be told: {error}"),
    }]
}

#[cfg(test)]
mod tests;
