//! `tandem setup`: finds the NICs that belong together, and prints or writes the configuration for them.

mod effects;
mod propose;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tandem_core::IfName;
use tandem_core::link::{BondMode, Link, LinkKind, Occupant};
use tandem_core::policy::{BondPolicy, Ownership, PortMatch};

pub use propose::{Chosen, Nic, Pair, Part, Proposal, Seen, Taken, propose};

use crate::cli::{SetupArgs, exit};
use crate::config;
use crate::observe::once;
use crate::surroundings::pci;
use crate::system_files::SystemFiles;

/// Drivers of NICs that survive a migration.
const PARAVIRTUAL: [&str; 1] = ["virtio_net"];
/// Ethernet (`ARPHRD_ETHER`, `include/uapi/linux/if_arp.h`, 6.12).
const ETHERNET: &str = "1";
/// The driver made the MAC up (`NET_ADDR_RANDOM`, include/uapi/linux/netdevice.h, 6.12).
const MADE_UP: &str = "1";

/// Carries the command out on standard output and gives the exit status.
///
/// # Errors
/// The NICs can't be read, or the file not be written.
pub fn setup(arguments: &SetupArgs) -> Result<u8> {
    let files = SystemFiles::this();
    let links = once::links()?;
    let configured = configured(&arguments.config);
    let host = config::load_host_policy(config::HOST_POLICY_PATH.as_ref());
    let of_host = host.ok().flatten().map(|policy| policy.bonds);
    let of_host: BTreeSet<_> = of_host
        .into_iter()
        .flatten()
        .map(|bond| bond.name)
        .collect();
    let seen = look(
        &files,
        &links,
        configured.union(&of_host).cloned().collect(),
    );
    let chosen = Chosen {
        standby: arguments.standby.clone(),
        vfs: arguments.vfs.clone(),
    };
    let proposal = propose(&seen, &chosen);
    let mut text = comments(&seen, &proposal);
    if !configured.is_empty() {
        let names: Vec<_> = configured.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "# Configured already: {}", names.join(", "));
    }
    for bond in of_host {
        let _ = writeln!(
            text,
            "# The host defines {bond}; a file of your own takes the place of all that it defines."
        );
    }
    if arguments.dry_run || arguments.write {
        let addresses = once::addresses()?;
        for pair in &proposal.pairs {
            for line in effects::of(&files, &links, &addresses, pair) {
                let _ = writeln!(text, "# {line}");
            }
        }
    }
    let file = file(&proposal);
    let shown = arguments.config.display();
    if proposal.pairs.is_empty() {
        print(&text)?;
        return Ok(exit::FAILED);
    }
    if arguments.write {
        write(&arguments.config, &file, arguments.force)?;
        print(&format!(
            "{text}# Written: {shown}. Next: `systemctl restart tandem`, which starts it too, or the next boot; then `tandem status`.\n\n{file}"
        ))?;
        return Ok(exit::OK);
    }
    if arguments.dry_run {
        let _ = match arguments.config.exists() {
            true => writeln!(
                text,
                "# {shown} exists: `--write` keeps it, `--write --force` replaces it."
            ),
            false => writeln!(text, "# `--write` makes {shown}."),
        };
    }
    print(&format!("{text}\n{file}"))?;
    Ok(exit::OK)
}

/// Who reads only the beginning has seen enough.
fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("the output can't be written"),
    }
}

/// Names of bonds that the files define; none if they can't be read.
fn configured(path: &Path) -> BTreeSet<IfName> {
    let bonds = config::load(path).map(|config| config.policy.bonds);
    bonds
        .unwrap_or_default()
        .into_iter()
        .map(|bond| bond.name)
        .collect()
}

fn look(files: &SystemFiles, links: &[Link], configured: BTreeSet<IfName>) -> Seen {
    let nics = links.iter().filter_map(|link| nic(files, links, link));
    Seen {
        nics: nics.collect(),
        names: links.iter().map(|link| link.name.clone()).collect(),
        configured,
        without_driver: pci::without_driver(files)
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

/// A link that could be one of a pair.
fn nic(files: &SystemFiles, links: &[Link], link: &Link) -> Option<Nic> {
    let folder = format!("/sys/class/net/{}", link.name);
    let text = |file: &str| files.text(&format!("{folder}/{file}")).trim().to_owned();
    let driver = link.driver.clone()?;
    let is_paravirtual = PARAVIRTUAL.contains(&driver.as_str());
    let is_wireless = files.exists(&format!("{folder}/wireless"));
    if link.kind != LinkKind::Physical || text("type") != ETHERNET || is_wireless {
        return None;
    }
    let part = match (is_paravirtual, link.pci) {
        (true, _) => Part::Standby,
        (false, Some(_)) => Part::Vf,
        (false, None) => return None,
    };
    Some(Nic {
        name: link.name.clone(),
        part,
        mac: link.permanent_mac.or(link.mac),
        is_mac_random: text("addr_assign_type") == MADE_UP,
        pci: link.pci,
        driver,
        taken: taken(links, link),
    })
}

fn taken(links: &[Link], link: &Link) -> Option<Taken> {
    if let Some(index) = link.controller {
        let controller = links.iter().find(|one| one.ifindex == index);
        let name = controller.map_or_else(|| index.to_string(), |one| one.name.to_string());
        let bond = controller.filter(|one| {
            let mode = one.bond.as_ref().map(|facts| facts.mode);
            mode == Some(BondMode::ActiveBackup)
        });
        return Some(match bond {
            Some(bond) => Taken::Bond(bond.name.clone()),
            None => Taken::Other(format!("it is a port of {name}")),
        });
    }
    match link.occupant.as_ref()? {
        Occupant::Device { name, kind } => {
            Some(Taken::Other(format!("{name} ({kind}) lies on it")))
        }
        Occupant::Xdp => Some(Taken::Other("it has an XDP program of its own".to_owned())),
    }
}

/// What was found, as comments of the file.
fn comments(seen: &Seen, proposal: &Proposal) -> String {
    let mut text = String::new();
    for nic in &seen.nics {
        let part = match nic.part {
            Part::Standby => "standby",
            Part::Vf => "VF",
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let _ = writeln!(
            text,
            "# {:<15} {:<17} {:<12} {:<12} could be a {part}",
            nic.name.to_string(),
            or_dash(nic.mac.map(|mac| mac.to_string())),
            or_dash(nic.pci.map(|pci| pci.to_string())),
            nic.driver
        );
    }
    for pair in &proposal.pairs {
        let vfs: Vec<_> = pair.vfs.iter().map(|vf| vf.name.to_string()).collect();
        let (standby, vfs) = (&pair.standby.name, vfs.join(", "));
        let _ = writeln!(text, "# {}: {standby} with {vfs}; {}.", pair.bond, pair.why);
    }
    for advice in &proposal.advice {
        let _ = writeln!(text, "# Not used: {advice}.");
    }
    text
}

/// The configuration file.
fn file(proposal: &Proposal) -> String {
    let bonds = proposal.pairs.iter().map(|pair| table(&pair.policy()));
    bonds.collect::<Vec<_>>().join("\n")
}

fn table(bond: &BondPolicy) -> String {
    let vfs: Vec<_> = bond.vfs.iter().map(described).collect();
    let mut text = format!(
        "[[bond]]\nname = \"{}\"\nstandby = {}\n# One entry for each host the VM may come to.\nvfs = [{}]\n",
        bond.name,
        described(&bond.standby),
        vfs.join(", ")
    );
    if bond.ownership == Ownership::Adopt {
        text.push_str("# Another manager made it, and configures it.\nownership = \"adopt\"\naddressing = \"none\"\n");
    }
    text
}

fn described(nic: &PortMatch) -> String {
    let mac = nic.mac.map(|mac| format!("mac = \"{mac}\""));
    let pci = nic.pci.map(|pci| format!("pci = \"{pci}\""));
    let driver = nic
        .driver
        .as_ref()
        .map(|driver| format!("driver = \"{driver}\""));
    let parts: Vec<_> = [mac, driver, pci].into_iter().flatten().collect();
    format!("{{ {} }}", parts.join(", "))
}

/// Whole or not at all, and over another file only if `force` says so. What would be refused is not written.
fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let shown = path.display();
    if path.exists() && !force {
        bail!("{shown} exists and is kept; `--force` replaces it");
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let temporary = folder.join(format!(".tandem.toml.new-{}", std::process::id()));
    let result = write_through(&temporary, path, text, force);
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.with_context(|| format!("can't write {shown}"))
}

fn write_through(temporary: &Path, path: &Path, text: &str, force: bool) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    config::load(temporary)?;
    let flags = match force {
        true => RenameFlags::empty(),
        false => RenameFlags::NOREPLACE,
    };
    Ok(renameat_with(CWD, temporary, CWD, path, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal() -> Proposal {
        let nic = |name: &str, part, driver: &str| Nic {
            name: name.parse().unwrap(),
            part,
            mac: Some("52:54:00:00:00:01".parse().unwrap()),
            is_mac_random: false,
            pci: None,
            driver: driver.to_owned(),
            taken: None,
        };
        let seen = Seen {
            nics: vec![
                nic("eth0", Part::Standby, "virtio_net"),
                nic("eth1", Part::Vf, "iavf"),
            ],
            ..Seen::default()
        };
        propose(&seen, &Chosen::default())
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etc/tandem.toml");
        let text = file(&proposal());
        write(&path, &text, false).unwrap();
        let bonds = config::load(&path).unwrap().policy.bonds;
        assert_eq!(bonds, [proposal().pairs[0].policy()]);

        fs::write(&path, "# mine\n").unwrap();
        let error = write(&path, &text, false).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
        // A file that the service would refuse is none.
        assert!(write(&path, "[[bond]\n", true).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "# mine\n");
        write(&path, &text, true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_bond_that_is_there_is_described_as_anothers() {
        let mut pair = proposal().pairs.remove(0);
        pair.is_anothers = true;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tandem.toml");
        write(&path, &table(&pair.policy()), false).unwrap();
        assert_eq!(config::load(&path).unwrap().policy.bonds, [pair.policy()]);
    }
}
