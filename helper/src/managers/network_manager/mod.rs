//! NetworkManager makes the bond, configures it as it would have configured the standby, and takes the standby in,
//! by profiles that Tandem has it read; VFs stay Tandem's.
//!
//! It gives a bond that another made no addresses (1.52): it waits for a port that it knows as one of its own, which
//! one that udev marks as unmanaged never is, and where it sets a bond's options, which the kernel refuses while
//! there are ports, it takes all ports out. So the bond is its own, and Tandem adopts it.
//!
//! The profiles are in /run: without Tandem, NetworkManager has the standby again from the next boot on. As long as
//! they don't work, it goes back to the standby's own profile by itself. Which bonds have some stands in a file of
//! root's that the service may read, because NetworkManager's folders are for root alone.

mod copy;
mod crossing;
mod keyfile;
mod managed;
mod nic;
mod nmcli;
mod profile_files;
mod profiles;
mod telling;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use tandem_core::IfName;
use tandem_core::link::Link;
use tandem_core::policy::{BondPolicy, Policy};

use self::keyfile::{DEVICES, Keyfile, PREFIX, is_true};
use self::nic::Nic;
pub(crate) use self::nmcli::Nmcli;
pub(super) use self::profile_files::lock;
use self::profile_files::{ENDING, FOLDER, IN_NEED, file_names};
use self::profiles::Profile;
use self::telling::Moved;
pub(super) use self::telling::{has_left, is_due};
use crate::networkd::{self, Followed, carries, is_plain};
use crate::nics::Readiness;
use crate::programs::state_of;
use crate::runtime;
use crate::system_files::{SystemFiles, make_folder, text_of};
use crate::udev_state;

const UNIT: &str = "NetworkManager.service";
/// NetworkManager's own folder; there while it runs.
const OWN_FOLDER: &str = "/run/NetworkManager";
/// The bonds that have profiles, and what these were made from.
const SERVED_PATH: &str = "/run/tandem-nics/network-manager.json";

type Served = BTreeMap<IfName, String>;

fn served(files: &SystemFiles) -> Served {
    let bonds = runtime::load(&files.path(SERVED_PATH));
    bonds.ok().flatten().unwrap_or_default()
}

/// Whether NetworkManager makes and configures this bond.
pub(super) fn serves(files: &SystemFiles, bond: &IfName) -> bool {
    served(files).contains_key(bond)
}

/// Where the bond's configuration comes from, in words; nothing if it is not NetworkManager's.
pub(super) fn told(files: &SystemFiles, bond: &IfName) -> Option<String> {
    let source = served(files).remove(bond)?;
    Some(format!("NetworkManager, as {source} says of the standby"))
}

/// The profiles of a bond.
struct Wanted {
    source: String,
    /// File names and texts.
    profiles: Vec<(String, String)>,
    standby: String,
    /// The standby is at work, and the bond asks for an IPv4 address.
    crosses: bool,
}

enum Decision {
    Write(Wanted),
    /// NetworkManager is not to have it, and why; nothing if it has no part in it.
    Leave(Option<String>),
    /// What it depends on is not there now.
    Keep,
}

/// Writes the profiles of the bonds that NetworkManager is to have, and removes others. This needs root.
pub(super) fn follow(
    policy: &Policy,
    readiness: &Readiness,
    links: &[Link],
    followed: &mut Followed,
) {
    let files = readiness.files();
    if !is_used(files) && !files.exists(SERVED_PATH) {
        return;
    }
    if let Err(error) = write_profiles(policy, readiness, links, followed) {
        let error = format!("NetworkManager is not told of all bonds: {error:#}");
        followed.done.push(error);
    }
}

/// Has a running NetworkManager know of what was written. Says what it did.
pub(super) fn finish(files: &SystemFiles, nmcli: &mut Nmcli) -> Vec<String> {
    if !is_due(files) {
        return Vec::new();
    }
    match state(files).as_str() {
        // It reads all by itself when it is started.
        "inactive" | "failed" => telling::forget(files),
        "activating" | "deactivating" => {}
        // Also where systemd does not answer.
        _ => return telling::go_on(files, nmcli),
    }
    Vec::new()
}

fn write_profiles(
    policy: &Policy,
    readiness: &Readiness,
    links: &[Link],
    followed: &mut Followed,
) -> Result<()> {
    let files = readiness.files();
    let _lock = lock(files)?;
    let before = served(files);
    let mut now = Served::new();
    for bond in &policy.bonds {
        let name = &bond.name;
        let had = before
            .get(name)
            .map(|source| (name.clone(), source.clone()));
        // It has taken its course: NetworkManager would take away what it has given the bond.
        if carries(name, links) {
            if had.is_some() {
                follow_standby(policy, bond, readiness, links)?;
            }
            now.extend(had);
            continue;
        }
        match decide(policy, bond, readiness, links) {
            Decision::Keep => now.extend(had),
            Decision::Write(wanted) => {
                if had.is_none() {
                    let moved = Moved {
                        bond: name.clone(),
                        standby: wanted.standby.clone(),
                        crosses: wanted.crosses,
                    };
                    telling::note(files, Some(moved))?;
                }
                write_all(files, &wanted)?;
                if had.is_none() {
                    let source = &wanted.source;
                    let text =
                        format!("NetworkManager is to make and configure {name} by {source}");
                    followed.done.push(text);
                }
                now.insert(name.clone(), wanted.source);
            }
            Decision::Leave(why) => followed
                .reasons
                .extend(why.map(|why| format!("NetworkManager does not configure {name}: {why}"))),
        }
    }
    let kept = networkd::without_policy(&before, policy, links);
    now.extend(kept.map(|(bond, source)| (bond.clone(), source.clone())));
    remove_others(files, &now)?;
    if now != before {
        runtime::store_for_service(&files.path(SERVED_PATH), &now)?;
        let bonds = before.keys().chain(now.keys());
        let changed = bonds.filter(|bond| before.contains_key(bond) != now.contains_key(bond));
        followed.changed.extend(changed.cloned());
    }
    Ok(())
}

/// Of a bond that carries, the standby's profile alone follows a configuration that names another NIC.
fn follow_standby(
    policy: &Policy,
    bond: &BondPolicy,
    readiness: &Readiness,
    links: &[Link],
) -> Result<()> {
    let files = readiness.files();
    let Some(standby) = networkd::standby_of(policy, bond, links) else {
        return Ok(());
    };
    let [_, file, _] = file_names(bond.name.as_str());
    let path = files.path(FOLDER).join(file);
    let present = text_of(&path);
    let wanted = copy::for_standby(&present, &Nic::of(files, standby));
    let is_new = wanted.as_ref().is_some_and(|wanted| *wanted != present);
    // A port has had its present MAC from the bond, where it is not known by its permanent one.
    if !is_new || standby.controller.is_some() || !udev_state::has_handled(files, standby) {
        return Ok(());
    }
    let moved = Moved {
        bond: bond.name.clone(),
        standby: standby.name.to_string(),
        crosses: false,
    };
    telling::note(files, Some(moved))?;
    write(&path, &wanted.unwrap_or_default())
        .with_context(|| format!("can't write {}", path.display()))
}

fn decide(policy: &Policy, bond: &BondPolicy, readiness: &Readiness, links: &[Link]) -> Decision {
    let files = readiness.files();
    if !bond.is_configured_as_standby() || !is_used(files) || networkd::serves(files, &bond.name) {
        return Decision::Leave(None);
    }
    if !is_plain(&bond.name) {
        return Decision::Leave(Some("its name can't be that of a file".to_owned()));
    }
    let Some(standby) = networkd::standby_of(policy, bond, links) else {
        return Decision::Keep;
    };
    if readiness.reason_to_leave(bond, &standby.name).is_some() {
        return Decision::Leave(None);
    }
    // udev may still rename it.
    if !udev_state::has_handled(files, standby) {
        return Decision::Keep;
    }
    let nic = Nic::of(files, standby);
    let source = match source_for(files, &bond.name, &nic) {
        Ok(Some(source)) => source,
        Ok(None) => return Decision::Leave(None),
        Err(why) => return Decision::Leave(Some(why)),
    };
    let name = bond.name.as_str();
    let defaults = match copy::Defaults::read(files, &nic) {
        Ok(defaults) => defaults,
        Err(why) => return Decision::Leave(Some(why)),
    };
    let Some(port) = copy::of_standby(bond, &nic, &source) else {
        return Decision::Leave(Some(format!("{} has no MAC", nic.name)));
    };
    let in_need = copy::in_need(bond, &nic).filter(|_| source.path.is_none());
    let own = copy::uuid_of_standby(name);
    let is_at_work = profiles::active_now(files, &nic).is_some_and(|profile| profile != own);
    // What an earlier NetworkManager noted is no work.
    let crosses = is_at_work && source.is_leased() && is_running(files);
    let mine = copy::of_bond(bond, &nic, &source, &defaults);
    let texts = [Some(mine), Some(port), in_need];
    let names = file_names(name).into_iter().zip(texts);
    Decision::Write(Wanted {
        profiles: names
            .filter_map(|(name, text)| Some((name, text?)))
            .collect(),
        crosses,
        source: source.source(),
        standby: nic.name,
    })
}

/// The profile that the bond's is made from; nothing if NetworkManager would not configure the NIC.
fn source_for(files: &SystemFiles, bond: &IfName, nic: &Nic) -> Result<Option<Profile>, String> {
    let own = profiles::of_bond(files, bond.as_str());
    match (own, profiles::for_nic(files, nic)?) {
        (Some(own), Some(_)) => Err(format!(
            "{} is there; with `ownership = \"adopt\"` that is used",
            own.display()
        )),
        (_, source) => Ok(source),
    }
}

/// The profile by which it would make and configure a bond with this standby, in words; nothing if it would not.
///
/// # Errors
/// It has the standby and is not to make the bond, and why.
pub(super) fn planned(
    files: &SystemFiles,
    bond: &IfName,
    standby: &Link,
) -> Result<Option<String>, String> {
    if !is_used(files) {
        return Ok(None);
    }
    let source = source_for(files, bond, &Nic::of(files, standby))?;
    Ok(source.map(|source| source.source()))
}

/// It leaves this interface alone, as its state files say (`nm_config_device_state_write`, 1.52).
pub(super) fn ignores(files: &SystemFiles, link: &Link) -> bool {
    let state = Keyfile::parse(&files.text(&format!("{DEVICES}/{}", link.ifindex)));
    let managed = state.get(&["device"], &["managed"]);
    managed.is_some_and(|managed| !is_true(managed))
}

/// NetworkManager is started by systemd, or runs.
pub(super) fn is_used(files: &SystemFiles) -> bool {
    files.is_wanted(UNIT) || files.runs(UNIT)
}

/// It has been started since the boot; that of an initrd has left its files too.
pub(super) fn has_started(files: &SystemFiles) -> bool {
    files.exists(DEVICES) && is_used(files)
}

/// It can be asked.
fn is_running(files: &SystemFiles) -> bool {
    state(files) == "active"
}

fn state(files: &SystemFiles) -> String {
    match files.root == Path::new("/") {
        true => state_of(UNIT),
        false => "inactive".to_owned(),
    }
}

fn write_all(files: &SystemFiles, wanted: &Wanted) -> Result<()> {
    let folder = files.path(FOLDER);
    for (name, text) in &wanted.profiles {
        let path = folder.join(name);
        if text_of(&path) == *text {
            continue;
        }
        telling::note(files, None)?;
        let written = make_folder(&folder).and_then(|()| write(&path, text));
        written.with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// Whole or not at all; NetworkManager reads only what is for root alone.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("new-{}~", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

/// Removes the profiles of bonds that are not served. A standby's without the bond stays: what it replaces NetworkManager
/// makes only when it meets a NIC.
fn remove_others(files: &SystemFiles, now: &Served) -> Result<()> {
    let bonds = now.keys();
    let wanted: Vec<_> = bonds.flat_map(|bond| file_names(bond.as_str())).collect();
    let present = keyfile::files_in(files, &[FOLDER], ENDING);
    for (name, path) in present {
        let is_others = name.starts_with(PREFIX) && !wanted.contains(&name);
        if is_others && !name.ends_with(&format!("{IN_NEED}{ENDING}")) {
            telling::note(files, None)?;
            fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether it is still to be told of profiles: it has not failed yet.
pub(super) fn is_told(files: &SystemFiles) -> bool {
    telling::is_pending(files)
}

/// Has NetworkManager, if it runs, take or let go of an interface. Letting go, it leaves addresses and bonds as
/// they are (1.52).
pub(crate) fn tell_managed(nmcli: &mut Nmcli, name: &IfName, managed: bool) -> Option<String> {
    if !Path::new(OWN_FOLDER).exists() {
        return None;
    }
    let managed = if managed { "yes" } else { "no" };
    let device = ["device", "set", "ifname", name.as_str()];
    let arguments = [&["--wait", "5"][..], &device, &["managed", managed]].concat();
    Some(match nmcli.run(&arguments) {
        Ok(()) => format!("told NetworkManager: {name} managed {managed}"),
        Err(error) => format!("NetworkManager is not told of {name}: {error}"),
    })
}

#[cfg(test)]
mod tests;
