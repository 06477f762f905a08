//! What `recover` acts on where this host has no record of its own: the command line alone. What the
//! domain's metadata says only tells which evacuation it is, and how far it may have come.

use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::args;
use super::spec::{bond_meant, choose_bonds, vf_of, vf_of_device, with_mac_of};
use super::text_file::{NamedFile, read_all};
use crate::evacuate::{
    AgentUse, Cause, CauseCode, Device, DeviceRole, Progress, Record, Side, Spec, Vf,
};
use crate::execute::Hosts;
use crate::hypervisor::{DomainLook, DomainState, Host, HostError, is_local_uri};
use crate::trust::UriOrigin;
use crate::words::{printable, quoted};
use crate::xml::device::read_device;

/// The record that the command line makes of what was found in the domain.
///
/// # Errors
/// If that is not enough: that is a [`Cause`]; or a host can't be asked, or the file is no VF.
pub(super) async fn record(
    arguments: &args::Recover,
    here: &Arc<dyn Host>,
    is_here: bool,
    found: Progress,
) -> anyhow::Result<(Record, Hosts)> {
    let name = arguments.domain.as_str();
    let connected = arguments.common.connect.uri.clone();
    let open = |uri: &String| arguments.common.connect.other(uri, UriOrigin::CommandLine);
    let (source_uri, destination_uri, hosts) = match (&arguments.source, &arguments.destination) {
        (Some(source), destination) => {
            let there = destination.as_ref().unwrap_or(&connected);
            let hosts = Hosts {
                source: Some(open(source)?),
                destination: open(there)?,
            };
            (source.clone(), there.clone(), hosts)
        }
        (None, Some(destination)) => {
            let hosts = Hosts {
                source: Some(Arc::clone(here)),
                destination: open(destination)?,
            };
            (connected, destination.clone(), hosts)
        }
        // It has come from elsewhere, and does not go back.
        (None, None) if is_here && found.migration_begun => {
            let hosts = Hosts {
                source: None,
                destination: Arc::clone(here),
            };
            (String::new(), connected, hosts)
        }
        (None, None) => bail!(begun_elsewhere(name, here.uri(), &found)),
    };
    if arguments.vf.is_empty() && !arguments.yes_degraded {
        bail!(no_vf(arguments, &found));
    }
    let (side, look) = home(&hosts, [name; 2]).await?;
    let devices = devices(&found, side, &look)?;
    let mut spec = Spec {
        domain: name.to_owned(),
        // Another name that the metadata has may be that of anybody's domain.
        renamed: None,
        source_uri,
        reaches_destination_agent: is_local_uri(&destination_uri),
        destination_uri,
        devices,
        agent: match look.facts.channel {
            Some(_) if !arguments.no_agent => AgentUse::Required,
            _ => AgentUse::Never,
        },
        configure: matches!(look.bonds, Ok(Some(_))),
        yes_degraded: arguments.yes_degraded,
    };
    name_vfs(&mut spec, side, &look, &arguments.vf)?;
    name_devices(&mut spec, side, &look, &arguments.device, found.let_go)?;
    let mut lacking = spec.devices.iter().filter(|one| one.vf(side).is_none());
    if let Some(device) = lacking.next().filter(|_| !arguments.yes_degraded) {
        let bond = device.bond().unwrap_or_default();
        let message = format!(
            "no VF is named for {} of domain {}; name it: --vf {}=FILE, or leave it without one by --yes-degraded",
            printable(bond),
            printable(name),
            quoted(bond)
        );
        bail!(Cause::new(CauseCode::NoVfNamed, message));
    }
    if usize::from(found.let_go) > arguments.device.len() && !arguments.yes_degraded {
        let message = format!(
            "the evacuation of domain {} moved {} devices of no bond too, and this host has no record of which; name \
             what it is to have where it runs: --device ALIAS=FILE for each, or go on with --yes-degraded",
            printable(name),
            found.let_go
        );
        bail!(Cause::new(CauseCode::NoVfNamed, message));
    }
    let record = Record {
        progress: found,
        spec,
        pace: None,
    };
    Ok((record, hosts))
}

/// The bonds that the record names, or else the domain's only one; of several, those whose VF is there have it.
fn devices(found: &Progress, side: Side, look: &DomainLook) -> anyhow::Result<Vec<Device>> {
    let bonds = look.bonds.as_ref().ok().and_then(Option::as_ref);
    let device = |bond: Option<String>| Device {
        role: DeviceRole::Vf { bond },
        source: None,
        destination: None,
    };
    let names: Vec<&String> = found.bonds().collect();
    if names.len() < 2 {
        let chosen = choose_bonds(names.first().map(|name| name.as_str()), bonds)?;
        let name = match chosen.as_slice() {
            [only] => Some(only.name.to_string()),
            [] => found.bond.clone(),
            several => bail!(
                "the domain's XML has {} bonds, and the record names none of them",
                several.len()
            ),
        };
        return Ok(vec![device(name)]);
    }
    let nics = &look.facts.nics;
    let devices = names.into_iter().map(|name| {
        let chosen = choose_bonds(Some(name), bonds)?;
        let there = chosen.first().and_then(|bond| bond.vf(nics));
        let mut device = device(Some(name.clone()));
        let vf = there.map(|nic| vf_of(nic, nic.xml.clone(), nics));
        *slot(&mut device, side) = vf;
        Ok(device)
    });
    devices.collect()
}

fn slot(device: &mut Device, side: Side) -> &mut Option<Vf> {
    match side {
        Side::Source => &mut device.source,
        Side::Destination => &mut device.destination,
    }
}

/// Puts the VFs of files into the plan, for the host where the domain runs now and looks so.
///
/// # Errors
/// If a file is no VF, or it is not clear for which bond.
pub(super) fn name_vfs(
    spec: &mut Spec,
    side: Side,
    look: &DomainLook,
    files: &[NamedFile],
) -> anyhow::Result<()> {
    let nics = &look.facts.nics;
    let bonds = look.bonds.as_ref().ok().and_then(Option::as_ref);
    let bonds = choose_bonds(None, bonds)?;
    for file in read_all(files)? {
        let at = bond_meant(&file, &bonds, &spec.devices).context("--vf")?;
        // The VF may be there by now, and is no stranger to itself.
        let device = &spec.devices[at];
        let known = device.source.as_ref().or(device.destination.as_ref());
        let text = with_mac_of(&file.text, known.and_then(|vf| vf.guest_mac));
        let same = vf_of_device(&text, &[], None).context("--vf")?;
        let present = nics.iter().find(|nic| same.identity.is(nic));
        let vf = vf_of_device(&text, nics, present).context("--vf")?;
        *slot(&mut spec.devices[at], side) = Some(vf);
    }
    spec.validate()?;
    Ok(())
}

/// Puts the devices of no bond into the plan in the same way. `unknown` is how many there are whose aliases nobody
/// here knows.
///
/// # Errors
/// If a file is no device, or there is none for it.
pub(super) fn name_devices(
    spec: &mut Spec,
    side: Side,
    look: &DomainLook,
    files: &[NamedFile],
    mut unknown: u8,
) -> anyhow::Result<()> {
    let nics = &look.facts.nics;
    for file in read_all(files)? {
        let name = file.name.as_deref();
        let name = name.context("--device: name the device that it is for: --device ALIAS=FILE")?;
        let same = vf_of_device(&file.text, &[], None).context("--device")?;
        let present = nics.iter().find(|nic| same.identity.is(nic));
        let vf = vf_of_device(&file.text, nics, present).context("--device")?;
        let has_alias = |vf: &Option<Vf>| {
            let nic = vf.as_ref().and_then(|vf| read_device(&vf.device).ok());
            nic.is_some_and(|nic| nic.alias == name)
        };
        let is_it = |one: &&mut Device| {
            !one.is_of_bond() && (has_alias(&one.source) || has_alias(&one.destination))
        };
        match spec.devices.iter_mut().find(is_it) {
            Some(device) => *slot(device, side) = Some(vf),
            None if unknown > 0 => {
                unknown -= 1;
                let mut device = Device {
                    role: DeviceRole::LetGo,
                    source: None,
                    destination: None,
                };
                *slot(&mut device, side) = Some(vf);
                spec.devices.push(device);
            }
            None => bail!(
                "--device: the evacuation let go of no device {}",
                printable(name)
            ),
        }
    }
    spec.validate()?;
    Ok(())
}

/// Where it runs, as far as that can be seen, and what is seen there. `names` are its names on source and destination.
///
/// # Errors
/// If a host can't be asked.
pub(super) async fn home(hosts: &Hosts, names: [&str; 2]) -> Result<(Side, DomainLook), HostError> {
    let there = match hosts.destination.look(names[1]).await {
        Ok(there) if there.facts.state == DomainState::Running => {
            return Ok((Side::Destination, there));
        }
        there => there,
    };
    let source = hosts.seen(Side::Source).look(names[0]).await?;
    // Where it runs it is, whatever the other host does not say.
    if source.facts.state != DomainState::Running {
        there?;
    }
    Ok((Side::Source, source))
}

fn begun_elsewhere(name: &str, here: &str, found: &Progress) -> Cause {
    let machine = found.owner.as_ref().map(|owner| printable(&owner.host));
    let message = format!(
        "the evacuation of {} was begun on {}, this host has no record of its own of it, and the domain has \
         not come to {} yet; run `tandem-host recover {}` there, or name its hosts by --source and \
         --destination, and its VF by --vf",
        printable(name),
        machine.unwrap_or_else(|| "another machine".to_owned()),
        printable(here),
        quoted(name)
    );
    Cause::new(CauseCode::OtherMachine, message)
}

fn no_vf(arguments: &args::Recover, found: &Progress) -> Cause {
    let name = arguments.domain.as_str();
    let message = format!(
        "this host has no record of its own of the evacuation of {} (driven by {}), and the domain's metadata \
         names no device; name the VF that it shall have where it runs: `tandem-host recover {} --vf FILE`, \
         or leave it without one by --yes-degraded",
        printable(name),
        found.owner_in_words(),
        quoted(name)
    );
    Cause::new(CauseCode::NoVfNamed, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::libvirt::Virsh;

    /// A host by what its `virsh` does.
    fn host(folder: &std::path::Path, name: &str, script: &str) -> Arc<dyn Host> {
        let program = folder.join(name);
        let text = folder.join(format!("{name}.text"));
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // By another process: what this one has open for writing, the kernel does not run.
        let copied = std::process::Command::new("cp")
            .args([&text, &program])
            .status();
        assert!(copied.unwrap().success());
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Arc::new(Virsh::with_program("test:///fake", program))
    }

    #[tokio::test]
    async fn a_domain_that_runs_on_the_source_is_there_whatever_the_destination_says() {
        let folder = tempfile::tempdir().unwrap();
        let runs = "case \"$*\" in *domstate*) echo 'running (booted)' ;; *dumpxml*) echo '<domain><name>g1</name></domain>' ;; \
                    *) exit 1 ;; esac";
        let stands = runs.replace("running (booted)", "shut off (migrated)");
        let gone = "echo 'error: failed to connect to the hypervisor' >&2; exit 1";
        let folder = folder.path();
        let destination = host(folder, "gone", gone);
        let with = |source| Hosts {
            source: Some(source),
            destination: Arc::clone(&destination),
        };
        let (side, look) = home(&with(host(folder, "runs", runs)), ["g1"; 2])
            .await
            .unwrap();
        assert_eq!(
            (side, look.facts.state),
            (Side::Source, DomainState::Running)
        );
        // It may have gone there.
        let error = home(&with(host(folder, "stands", &stands)), ["g1"; 2]).await;
        assert!(
            matches!(error, Err(HostError::Unreachable { .. })),
            "{error:?}"
        );
    }
}
