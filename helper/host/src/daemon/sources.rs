//! What may be plugged into a domain that came without its VF: by this host's own record, or by the file of
//! networks. The domain's metadata only says which evacuation it is, and of which bond.

use super::options::Sources;
use crate::evacuate::{AgentUse, Device, DeviceRole, Progress, Record, Side, Spec, Vf, VfIdentity};
use crate::execute::{Records, RecordsError};
use crate::hypervisor::{DomainLook, Nic, is_local_uri, machine_of};
use crate::qemu::URI_PREFIX;
use crate::trust::{ReplugFile, check_device};
use crate::words::{printable, quoted};
use crate::xml::{Bond, Bonds};

/// What a recovery shall go by, and where it keeps its own record; or why nothing is allowed. `uri` is the
/// host's.
///
/// # Errors
/// If nothing on this host says what may be plugged in.
pub(super) fn allowed(
    sources: &Sources,
    uri: &str,
    found: Progress,
    look: &DomainLook,
) -> Result<(Record, Option<Records>), String> {
    let name = &look.facts.name;
    let command = format!("run `tandem-host recover {} --vf FILE`", quoted(name));
    let own = own(sources, uri, name, &found);
    let why = match own {
        Ok(Some((mut record, records))) => {
            if found.beat > record.progress.beat {
                record.progress = found;
            }
            return Ok((record, Some(records)));
        }
        Ok(None) => "this host has no record of its own of that evacuation".to_owned(),
        Err(error) => error.to_string(),
    };
    let file = sources.file.display();
    let by_file = match ReplugFile::read(&sources.file) {
        Ok(Some(file)) => by_file(&file, uri, &found, look),
        Ok(None) => Err("is not there".to_owned()),
        Err(error) => return Err(format!("{why}, and {error}; {command}")),
    };
    match by_file {
        Ok(spec) => {
            let progress = found;
            // Made anew each time, so that a change of the file counts at once.
            let record = Record {
                progress,
                spec,
                pace: None,
            };
            Ok((record, None))
        }
        Err(reason) => Err(format!("{why}, and {file}: {reason}; {command}")),
    }
}

/// This host's own record of that evacuation, if it names a VF for this very host.
fn own(
    sources: &Sources,
    uri: &str,
    name: &str,
    found: &Progress,
) -> Result<Option<(Record, Records)>, RecordsError> {
    let records = Records::open(&sources.records)?;
    let Some(record) = records.read(&found.domain)? else {
        return Ok(None);
    };
    let wanted = record.spec.devices.iter();
    let mut wanted = wanted.filter_map(|one| one.destination.as_ref()).peekable();
    let fits = record.progress.evacuation == found.evacuation
        && record.spec.name(Side::Destination) == name
        && is_same_host(&record.spec.destination_uri, uri)
        && wanted.peek().is_some()
        && wanted.all(|vf| check_device(&vf.device).is_ok());
    Ok(fits.then_some((record, records)))
}

/// Both name one hypervisor of this machine.
fn is_same_host(recorded: &str, uri: &str) -> bool {
    let is_qmp = |uri: &str| uri.starts_with(URI_PREFIX);
    let socket = |uri: &str| uri.split(",agent=").next().map(str::to_owned);
    if is_qmp(recorded) || is_qmp(uri) {
        return socket(recorded) == socket(uri);
    }
    recorded == uri
        || (is_local_uri(recorded) && is_local_uri(uri) && machine_of(recorded) == machine_of(uri))
}

fn by_file(
    file: &ReplugFile,
    uri: &str,
    found: &Progress,
    look: &DomainLook,
) -> Result<Spec, String> {
    let bonds = match &look.bonds {
        Ok(bonds) => bonds.as_ref(),
        Err(reason) => return Err(format!("the domain's bonds: {}", printable(reason))),
    };
    if found.let_go > 0 {
        return Err(format!(
            "it names none of the {} devices of no bond that the evacuation moved too",
            found.let_go
        ));
    }
    let names: Vec<Option<&str>> = match found.bonds().count() {
        0 => vec![None],
        _ => found.bonds().map(|name| Some(name.as_str())).collect(),
    };
    // All of them or none: what is not in the spec would be given up for good.
    let devices = names.into_iter().map(|name| {
        let bond = bonds.and_then(|bonds| bond_of(bonds, name));
        let bond = bond.ok_or("the domain's XML has no such bond")?;
        let vf = match bond.vf(&look.facts.nics) {
            Some(nic) => present(nic),
            None => file
                .vf(&look.facts.name, bond, &look.facts.nics)
                .map_err(|reason| format!("{}: {reason}", bond.name))?,
        };
        Ok(Device {
            role: DeviceRole::Vf {
                bond: Some(bond.name.to_string()),
            },
            source: None,
            destination: Some(vf),
        })
    });
    let devices = devices.collect::<Result<Vec<Device>, String>>()?;
    let spec = Spec {
        // Another name that the metadata has may be that of anybody's domain.
        domain: look.facts.name.clone(),
        renamed: None,
        source_uri: String::new(),
        destination_uri: uri.to_owned(),
        devices,
        agent: match look.facts.channel {
            Some(_) => AgentUse::IfThere,
            None => AgentUse::Never,
        },
        reaches_destination_agent: is_local_uri(uri),
        configure: true,
        yes_degraded: false,
    };
    spec.validate().map_err(|error| error.to_string())?;
    Ok(spec)
}

/// The VF is there by now: only the rest is to be done, and nothing is plugged in.
fn present(nic: &Nic) -> Vf {
    Vf {
        identity: VfIdentity {
            pci: nic.pci_source,
            alias: Some(nic.alias.clone()).filter(|alias| !alias.is_empty()),
            mac: nic.mac,
        },
        guest_mac: nic.mac,
        device: String::new(),
    }
}

fn bond_of<'a>(bonds: &'a Bonds, name: Option<&str>) -> Option<&'a Bond> {
    match (name, bonds.bonds.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), all) => all.iter().find(|bond| bond.name.as_str() == name),
    }
}
