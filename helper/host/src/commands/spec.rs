//! What the operator asked for, put together with what the source shows.

use std::borrow::Cow;

use anyhow::{Context as _, bail};
use tandem_core::types::Mac;

use super::args;
use super::text_file::DeviceFile;
use crate::evacuate::{AgentUse, Device, DeviceRole, Side, Spec, Vf, VfIdentity};
use crate::hypervisor::{DomainFacts, Nic, is_local_uri};
use crate::trust::{check_device, own_alias};
use crate::words::{printable, quoted};
use crate::xml::device::{from_its_network, read_device, with_alias, with_mac};
use crate::xml::{Bond, Bonds};

/// The spec of `migrate`. `vfs` and `given_back` are what `--vf` and `--device` name.
///
/// # Errors
/// If it is not clear which device is which, or a description can't be read.
pub fn spec_of(
    arguments: &args::Evacuation,
    facts: &DomainFacts,
    bonds: Option<&Bonds>,
    vfs: &[DeviceFile],
    given_back: &[DeviceFile],
) -> anyhow::Result<Spec> {
    let chosen = choose_bonds(arguments.bond.as_deref(), bonds)?;
    let let_go = let_go(arguments, given_back, &facts.nics)?;
    let stays: Vec<Nic> = facts
        .nics
        .iter()
        .filter(|nic| !let_go.iter().any(|gone| std::ptr::eq(*gone, *nic)))
        .cloned()
        .collect();
    let goes_without = arguments.carry.is_asked_for() || !let_go.is_empty();
    let alone = goes_without && has_no_vf(arguments, &chosen, &stays, vfs);
    let mut devices = if alone {
        Vec::new()
    } else {
        bond_devices(arguments, &chosen, &stays, &facts.nics)?
    };
    for file in vfs {
        let at = bond_meant(file, &chosen, &devices).context("--vf")?;
        let source = present(&devices[at], &facts.nics);
        let text = with_mac_of(&file.text, source.and_then(|nic| nic.mac));
        let text = with_own_alias(&text, devices[at].bond().unwrap_or("bond"));
        let vf = vf_of_device(&text, &facts.nics, source).context("--vf")?;
        if devices[at].destination.replace(vf).is_some() {
            bail!(
                "--vf: two files are named for {}",
                devices[at].describe(Side::Destination)
            );
        }
    }
    for nic in let_go {
        let mut files = given_back
            .iter()
            .filter(|file| file.name.as_deref() == Some(nic.alias.as_str()));
        let file = files.next();
        if files.next().is_some() {
            bail!("--device: two files are named for {}", nic.alias);
        }
        let file = file.map(|file| {
            let text = with_own_alias(&file.text, &nic.alias);
            vf_of_device(&text, &facts.nics, Some(nic))
        });
        devices.push(Device {
            role: DeviceRole::LetGo,
            source: Some(vf_of(nic, nic.xml.clone(), &facts.nics)),
            destination: file.transpose().context("--device")?,
        });
    }
    let spec = Spec {
        domain: arguments.domain.clone(),
        renamed: arguments
            .how
            .dname
            .clone()
            .filter(|name| *name != arguments.domain),
        source_uri: arguments.common.connect.uri.clone(),
        destination_uri: arguments.destination.clone(),
        devices,
        agent: if alone {
            AgentUse::Never
        } else {
            agent_use(arguments)?
        },
        reaches_destination_agent: is_local_uri(&arguments.destination),
        configure: bonds.is_some(),
        yes_degraded: arguments.yes_degraded,
    };
    spec.validate()?;
    Ok(spec)
}

/// Has VFs of a network come back from that network, and not by the function that it gave the guest: the network would
/// take it for free, and give it to another guest too. `configured` are the domain's NICs as they are configured; in all
/// else the VF comes back as it is now. One that only its function tells from other NICs stays as it is.
pub(super) fn from_their_networks(spec: &mut Spec, configured: &[Nic]) {
    for vf in spec
        .devices
        .iter_mut()
        .filter_map(|one| one.source.as_mut())
    {
        let known = VfIdentity {
            pci: None,
            ..vf.identity.clone()
        };
        let mut fitting = configured.iter().filter(|nic| known.is(nic));
        if let Some(device) = fitting.find_map(|nic| from_its_network(&vf.device, &nic.xml)) {
            vf.device = device;
            vf.identity = known;
        }
    }
}

/// A VF's description; one that names no MAC gets that of the VF in whose place it comes, which the guest knows.
pub(super) fn with_mac_of(text: &str, mac: Option<Mac>) -> Cow<'_, str> {
    let completed = mac.and_then(|mac| with_mac(text, mac));
    completed.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// A device's description, by which no look can take another one for it.
fn with_own_alias<'a>(text: &'a str, of: &str) -> Cow<'a, str> {
    let named = with_alias(text, &own_alias(of));
    named.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// A domain that has nothing to do with a bond's VF.
fn has_no_vf(
    arguments: &args::Evacuation,
    chosen: &[&Bond],
    stays: &[Nic],
    vfs: &[DeviceFile],
) -> bool {
    let names_one = arguments.source_vf.is_some() || arguments.bond.is_some() || !vfs.is_empty();
    let has_one = !chosen.is_empty() || stays.iter().any(|nic| nic.kind.can_be_vf());
    !names_one && !has_one
}

/// The VF of each bond.
fn bond_devices(
    arguments: &args::Evacuation,
    chosen: &[&Bond],
    stays: &[Nic],
    nics: &[Nic],
) -> anyhow::Result<Vec<Device>> {
    let named = arguments.source_vf.as_deref();
    if named.is_some() && chosen.len() > 1 {
        bail!(
            "--source-vf names one VF, and there are {} bonds; write the aliases of their VFs into the bonds, or \
             choose one by --bond",
            chosen.len()
        );
    }
    let device = |bond: Option<String>, nic: Option<&Nic>| Device {
        role: DeviceRole::Vf { bond },
        source: nic.map(|nic| vf_of(nic, nic.xml.clone(), nics)),
        destination: None,
    };
    if chosen.is_empty() {
        let nic = source_vf(named, None, stays)?;
        return Ok(vec![device(arguments.bond.clone(), nic)]);
    }
    let devices = chosen.iter().copied().map(|bond| {
        let nic = source_vf(named, Some(bond), stays)?;
        Ok(device(Some(bond.name.to_string()), nic))
    });
    devices.collect()
}

/// Devices of no bond that the operator lets go: those of `--detach`, and those that `--device` gives back.
fn let_go<'a>(
    arguments: &args::Evacuation,
    given_back: &[DeviceFile],
    nics: &'a [Nic],
) -> anyhow::Result<Vec<&'a Nic>> {
    let mut aliases: Vec<&str> = Vec::new();
    for file in given_back {
        let name = file.name.as_deref();
        aliases
            .push(name.context("--device: name the device that it is for: --device ALIAS=FILE")?);
    }
    aliases.extend(arguments.detach.iter().map(String::as_str));
    aliases.sort_unstable();
    aliases.dedup();
    let found = aliases.into_iter().map(|alias| {
        let is_it = |nic: &&Nic| nic.alias == alias && nic.kind.is_passed_through();
        let nic = nics.iter().find(is_it);
        let nic = nic.with_context(|| {
            format!("--detach: the domain has no pass-through device {alias}; see `virsh dumpxml`")
        })?;
        // What can't be plugged in again would not come back on a rollback.
        if !nic.kind.can_be_vf() {
            let domain = quoted(&arguments.domain);
            bail!(
                "--detach: {} is no PCI device, and only PCI devices can be let go, as no other comes back if the \
                 evacuation is rolled back; detach it by hand first (`virsh detach-device-alias {domain} {} --live`)",
                printable(alias),
                quoted(alias)
            );
        }
        Ok(nic)
    });
    found.collect()
}

/// The device that is there now.
fn present<'a>(device: &Device, nics: &'a [Nic]) -> Option<&'a Nic> {
    let identity = &device.source.as_ref()?.identity;
    nics.iter().find(|nic| identity.is(nic))
}

/// The number of the device whose VF a file describes: by the bond that the operator names, or else by what the
/// bonds say of their VFs.
///
/// # Errors
/// If that is not clear.
pub(super) fn bond_meant(
    file: &DeviceFile,
    bonds: &[&Bond],
    devices: &[Device],
) -> anyhow::Result<usize> {
    let of_bonds = || {
        devices
            .iter()
            .enumerate()
            .filter(|(_, one)| one.is_of_bond())
    };
    if let Some(name) = &file.name {
        let found = of_bonds().find(|(_, one)| one.bond() == Some(name.as_str()));
        let found = found.map(|(device, _)| device);
        return found.with_context(|| format!("the evacuation has no bond {name}"));
    }
    let all: Vec<usize> = of_bonds().map(|(device, _)| device).collect();
    if let [only] = all.as_slice() {
        return Ok(*only);
    }
    let nic = read_device(&file.text)?;
    let means = |(_, one): &(usize, &Device)| {
        let bond = bonds
            .iter()
            .find(|bond| one.bond() == Some(bond.name.as_str()));
        bond.is_some_and(|bond| bond.names(&nic))
    };
    let fits: Vec<usize> = of_bonds().filter(means).map(|(device, _)| device).collect();
    match fits.as_slice() {
        [one] => Ok(*one),
        _ => bail!(
            "neither the alias nor the MAC of the VF shows to which of {} bonds it belongs; name the bond: --vf BOND=FILE",
            all.len()
        ),
    }
}

/// The path of a channel on another machine may be another domain's here, so it is never opened.
fn agent_use(arguments: &args::Evacuation) -> anyhow::Result<AgentUse> {
    let source = &arguments.common.connect.uri;
    match (arguments.no_agent, arguments.yes_degraded) {
        (true, _) => Ok(AgentUse::Never),
        (false, true) if !is_local_uri(source) => Ok(AgentUse::Never),
        (false, false) if !is_local_uri(source) => bail!(
            "the guest's channel is on the machine of {source}, which can't be opened from here: run \
             tandem-host there, or go on without the guest by --no-agent"
        ),
        (false, true) => Ok(AgentUse::IfThere),
        (false, false) => Ok(AgentUse::Required),
    }
}

/// The bonds of the domain's XML that are meant: all, or the one of that name. None if it has none.
///
/// # Errors
/// If it has none of that name.
pub(super) fn choose_bonds<'a>(
    name: Option<&str>,
    bonds: Option<&'a Bonds>,
) -> anyhow::Result<Vec<&'a Bond>> {
    let Some(bonds) = bonds else {
        return Ok(Vec::new());
    };
    let Some(name) = name else {
        return Ok(bonds.bonds.iter().collect());
    };
    let found = bonds.bonds.iter().find(|bond| bond.name.as_str() == name);
    let found = found.with_context(|| {
        format!("the domain's XML has no bond {name}; see `tandem-host xml show`")
    })?;
    Ok(vec![found])
}

/// The VF that the domain has now, if it has one.
fn source_vf<'a>(
    named: Option<&str>,
    bond: Option<&Bond>,
    nics: &'a [Nic],
) -> anyhow::Result<Option<&'a Nic>> {
    if let Some(named) = named {
        let mac: Option<Mac> = named.parse().ok();
        let fits = |nic: &&Nic| nic.alias == named || (mac.is_some() && nic.mac == mac);
        let fitting: Vec<&Nic> = nics.iter().filter(fits).collect();
        return match fitting.as_slice() {
            [one] => Ok(Some(one)),
            [] => bail!("--source-vf: the domain has no NIC {named}; see `virsh dumpxml`"),
            _ => bail!(
                "--source-vf: {named} fits {} NICs; name an alias",
                fitting.len()
            ),
        };
    }
    if let Some(bond) = bond {
        return Ok(bond.vf(nics));
    }
    let passed: Vec<&Nic> = nics.iter().filter(|nic| nic.kind.can_be_vf()).collect();
    match passed.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => bail!(
            "the domain has {} pass-through devices and no bond in its XML; name the VF with --source-vf, and the \
             others with --detach",
            passed.len()
        ),
    }
}

pub(super) fn vf_of(nic: &Nic, device: String, nics: &[Nic]) -> Vf {
    // A MAC that another NIC has too says nothing, such as one that VF and standby share.
    let same = nics.iter().filter(|other| other.mac == nic.mac);
    let others = same.filter(|other| other.alias != nic.alias || other.xml != nic.xml);
    let mac = nic.mac.filter(|_| others.count() == 0);
    // libvirt gives out other aliases again and again; QEMU's are all chosen by people.
    let chosen = nic.alias.starts_with("ua-") || device.trim_start().starts_with('{');
    Vf {
        identity: VfIdentity {
            pci: nic.pci_source,
            alias: Some(nic.alias.clone()).filter(|alias| chosen && !alias.is_empty()),
            mac,
        },
        guest_mac: nic.mac,
        device,
    }
}

/// The VF that a file describes. It may have the MAC of the source's.
pub(super) fn vf_of_device(text: &str, nics: &[Nic], source: Option<&Nic>) -> anyhow::Result<Vf> {
    check_device(text)?;
    let nic = read_device(text)?;
    let others: Vec<Nic> = nics
        .iter()
        .filter(|nic| source.is_none_or(|source| source != *nic))
        .cloned()
        .collect();
    Ok(vf_of(&nic, text.to_owned(), &others))
}

#[cfg(test)]
mod tests;
