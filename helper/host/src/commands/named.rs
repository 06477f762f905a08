//! What `recover` acts on where this host has no record of its own: the command line alone. What the
//! domain's metadata says only tells which evacuation it is, and how far it may have come.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use super::args;
use super::spec::{choose_bond, vf_of_device};
use super::text_file::read;
use crate::evacuate::{AgentUse, Cause, CauseCode, Progress, Record, Side, Spec};
use crate::execute::Hosts;
use crate::hypervisor::{DomainLook, DomainState, Host, HostError, Nic, is_local_uri};
use crate::trust::Origin;
use crate::words::{printable, quoted};

/// The record that the command line makes of what was found in the domain; or why it is not enough.
///
/// # Errors
/// If a host can't be asked, or the file is no VF.
pub(super) async fn record(
    arguments: &args::Recover,
    here: &Arc<dyn Host>,
    is_here: bool,
    found: Progress,
) -> anyhow::Result<Result<(Record, Hosts), Cause>> {
    let name = arguments.domain.as_str();
    let connected = arguments.common.connect.uri.clone();
    let open = |uri: &String| arguments.common.connect.other(uri, Origin::CommandLine);
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
        (None, None) => return Ok(Err(begun_elsewhere(name, here.uri(), &found))),
    };
    if arguments.vf.is_none() && !arguments.yes_degraded {
        return Ok(Err(no_vf(arguments, &found)));
    }
    let (side, look) = home(&hosts, name).await?;
    let bonds = look.bonds.ok().flatten();
    let bond = choose_bond(found.bond.as_deref(), bonds.as_ref())?;
    let bond = bond.map(|bond| bond.name.to_string());
    let mut spec = Spec {
        domain: name.to_owned(),
        source_uri,
        reaches_destination_agent: is_local_uri(&destination_uri),
        destination_uri,
        bond: bond.or_else(|| found.bond.clone()),
        source_vf: None,
        destination_vf: None,
        agent: match look.facts.channel {
            Some(_) if !arguments.no_agent => AgentUse::Required,
            _ => AgentUse::Never,
        },
        configure: bonds.is_some(),
        yes_degraded: arguments.yes_degraded,
    };
    if let Some(file) = &arguments.vf {
        name_vf(&mut spec, side, &look.facts.nics, file)?;
    }
    let record = Record {
        progress: found,
        spec,
    };
    Ok(Ok((record, hosts)))
}

/// Puts the VF of a file into the plan, for the host where the domain runs now, with these NICs.
///
/// # Errors
/// If the file is no VF.
pub(super) fn name_vf(
    spec: &mut Spec,
    side: Side,
    nics: &[Nic],
    file: &Path,
) -> anyhow::Result<()> {
    let text = read(file)?;
    let slot = match side {
        Side::Source => &mut spec.source_vf,
        Side::Destination => &mut spec.destination_vf,
    };
    // The VF may be there by now, and is no stranger to itself.
    let same = vf_of_device(&text, &[], None).context("--vf")?;
    let present = nics.iter().find(|nic| same.identity.is(nic));
    *slot = Some(vf_of_device(&text, nics, present).context("--vf")?);
    spec.validate()?;
    Ok(())
}

/// Where it runs, as far as that can be seen, and what is seen there.
///
/// # Errors
/// If a host can't be asked.
pub(super) async fn home(hosts: &Hosts, name: &str) -> Result<(Side, DomainLook), HostError> {
    let there = hosts.destination.look(name).await?;
    if there.facts.state == DomainState::Running {
        return Ok((Side::Destination, there));
    }
    Ok((Side::Source, hosts.seen(Side::Source).look(name).await?))
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
