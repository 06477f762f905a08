//! `tandem-host migrate`, and `tandem-host check`, which does all of it up to the first change.

use std::sync::Arc;

use anyhow::{anyhow, bail};

use super::carry::OTHER_NAME;
use super::dry_run::{carry_text, dry_run_json, dry_run_text, steps};
use super::mac_form;
use super::obstacles::obstacles;
use super::spec::{from_their_networks, spec_of};
use super::storage::not_shared;
use super::text_file::{read, read_all};
use super::unmigratable::{snapshots, unmigratable};
use super::{args, exit, session};
use crate::carry::{CarrySettings, foresee};
use crate::evacuate::{
    AgentUse, Cause, CauseCode, Evacuation, Limits, Obstacles, PaceBefore, Spec, Start,
};
use crate::execute::{Hosts, Lock, Records, Runner, random_name, this_process};
use crate::hypervisor::{DomainLook, DomainState, HostError, MigrateOptions, Nic, NicKind};
use crate::trust::UriOrigin;
use crate::words::{printable, quoted};
use crate::xml::Bond;
use crate::xml::domain::DomainXml;

/// An evacuation, and what the source's look at the domain shows that stands in its way.
#[derive(Clone)]
struct Prepared {
    obstacles: Obstacles,
    hosts: Hosts,
    spec: Spec,
    limits: Limits,
    options: MigrateOptions,
    policy: Option<tandem_core::Policy>,
    carry: Option<CarrySettings>,
    /// What a carry would change, as it is.
    pace: Option<PaceBefore>,
    /// What stops nothing.
    warnings: Vec<String>,
}

/// Evacuates the domain; returns the exit code.
///
/// # Errors
/// If nothing could be begun.
pub async fn run(arguments: &args::Migrate) -> anyhow::Result<u8> {
    session::or_refused(arguments.evacuation.common.json, evacuate(arguments).await)
}

async fn evacuate(arguments: &args::Migrate) -> anyhow::Result<u8> {
    let evacuation = &arguments.evacuation;
    let json = evacuation.common.json;
    let prepared = prepare(evacuation).await?;
    if arguments.dry_run {
        let (runner, machine) = checked(evacuation, prepared.clone())?;
        let warnings = prepared.warnings.clone();
        // That all is well is left to be told by the plan.
        let code = session::run_until_ready(runner, machine, json, warnings).await?;
        if code == exit::READY {
            tell_steps(json, &prepared).await?;
        }
        return Ok(code);
    }
    let lock = evacuation.common.lock(&evacuation.domain)?;
    let machine = machine(&prepared, false)?;
    // Before anything is begun.
    let records = evacuation.common.records()?;
    records
        .rehearse(machine.record())
        .map_err(args::not_written)?;
    let warnings = prepared.warnings.clone();
    let runner = runner(evacuation, prepared, lock, Some(records));
    session::run(runner, machine, json, warnings).await
}

/// Says whether the domain could be evacuated; changes nothing. Returns the exit code.
///
/// # Errors
/// If it could not be asked.
pub async fn check(arguments: &args::Evacuation) -> anyhow::Result<u8> {
    let json = arguments.common.json;
    let run = async {
        let prepared = prepare(arguments).await?;
        let warnings = prepared.warnings.clone();
        let (runner, machine) = checked(arguments, prepared)?;
        session::run(runner, machine, json, warnings).await
    };
    session::or_refused(json, run.await)
}

fn checked(
    arguments: &args::Evacuation,
    prepared: Prepared,
) -> anyhow::Result<(Runner, Evacuation)> {
    let lock = arguments.common.lock(&arguments.domain)?;
    let machine = machine(&prepared, true)?;
    Ok((runner(arguments, prepared, lock, None), machine))
}

/// What can be known by one look at the source.
///
/// # Errors
/// If it can't be, or the evacuation may not be begun: that is a [`Cause`].
async fn prepare(arguments: &args::Evacuation) -> anyhow::Result<Prepared> {
    let vfs = read_all(&arguments.vf)?;
    let given_back = read_all(&arguments.device)?;
    let xml = arguments.xml.as_deref().map(read).transpose()?;
    let options = arguments.how.options(xml)?;
    if options.dname.is_some() && arguments.carry.is_asked_for() {
        bail!("{OTHER_NAME}; leave out --carry or --dname");
    }
    let persistent = arguments.how.persistent_xml.as_deref();
    let persistent = persistent.map(read).transpose()?;
    let source = arguments.common.connect.open();
    let hosts = Hosts {
        source: Some(Arc::clone(&source)),
        destination: arguments
            .common
            .connect
            .other(&arguments.destination, UriOrigin::CommandLine)?,
    };
    let name = arguments.domain.as_str();
    let look = match source.look(name).await {
        Ok(look) => look,
        Err(error @ (HostError::Unreachable { .. } | HostError::TimedOut { .. })) => {
            let message = format!("the source can't be asked: {error}");
            bail!(Cause::new(CauseCode::Unreachable, message));
        }
        Err(error) => return Err(error.into()),
    };
    let DomainLook { facts, bonds, .. } = look;
    if facts.state == DomainState::Absent {
        let message = format!(
            "there is no domain {} on {}; `virsh list --all` shows those that are",
            printable(name),
            arguments.common.connect.uri
        );
        bail!(Cause::new(CauseCode::NoSuchDomain, message));
    }
    let bonds =
        bonds.map_err(|reason| anyhow!("the XML of domain {}: {reason}", printable(name)))?;
    let files = [
        ("--xml", options.xml.as_deref()),
        ("--persistent-xml", persistent.as_deref()),
    ];
    let mut spec = spec_of(arguments, &facts, bonds.as_ref(), &vfs, &given_back)?;
    let is_of_interface = |nic: &Nic| nic.kind == NicKind::HostdevInterface;
    if facts.nics.iter().any(is_of_interface) {
        let configured = source.configured_nics(name).await;
        from_their_networks(&mut spec, &configured.unwrap_or_default());
    }
    let mut found = obstacles(&spec, &facts, bonds.as_ref(), &arguments.migratable);
    let not_shared = not_shared(source.as_ref(), &spec, &facts, &options).await;
    found.certain.extend(not_shared);
    let refused = unmigratable(&spec, &facts, &options, &arguments.migratable);
    found.certain.extend(refused);
    // A hypervisor that does not say it refuses by itself, if it has to.
    let taken = source.snapshots(name).await.unwrap_or_default();
    found.certain.extend(snapshots(&spec, &taken));
    let lacking = files.iter().filter(|(_, xml)| xml.is_some_and(lacks_bonds));
    found
        .certain
        .extend(lacking.filter(|_| bonds.is_some()).map(|(option, _)| {
        let message = format!(
            "the XML of {option} has no <bonds>, so {} would lose its bond there; add those that \
                 `tandem-host xml show {}` shows",
            printable(name),
            quoted(name)
        );
        Cause::new(CauseCode::BondsMissing, message)
    }));
    found
        .certain
        .extend(still_in_xml(options.xml.as_deref(), &arguments.migratable));
    let mut warnings = Vec::new();
    if let Some(bonds) = &bonds {
        warnings = mac_form::warn(name, &arguments.common.connect.uri, bonds, &facts.nics).await;
        for device in &spec.devices {
            let named = |bond: &&Bond| device.bond() == Some(bond.name.as_str());
            if let (Some(bond), Some(nic)) = (bonds.bonds.iter().find(named), device.arriving()) {
                let warning = mac_form::warn_of_arriving(name, bond, &nic, &facts.nics);
                warnings.extend(warning);
            }
        }
    }
    if let Err(error) = source.check_migration(&options).await {
        let cause = Cause::new(CauseCode::NotBegun, error.to_string());
        found.certain.push(cause);
    }
    let arriving = spec.arriving();
    let policy = bonds.filter(|_| spec.agent != AgentUse::Never);
    let policy = policy.map(|bonds| bonds.policy_with(&facts.nics, &arriving));
    let policy = policy.transpose().unwrap_or_else(|error| {
        let message = format!("the guest can't be told of the bonds in the domain's XML: {error}");
        let cause = Cause::new(CauseCode::UnknownVf, message);
        found.certain.push(cause);
        None
    });
    let carry = arguments.carry.settings(
        &facts.nics,
        [&arguments.common.connect.uri, &arguments.destination],
        &options,
    );
    let pace = match &carry {
        Some(carry) => source.speed(name).await.ok().map(|speed| PaceBefore {
            speed,
            max_downtime_ms: carry.max_pause_ms,
        }),
        None => None,
    };
    Ok(Prepared {
        obstacles: found,
        pace,
        hosts,
        spec,
        limits: arguments.timeouts.limits(),
        policy,
        carry,
        options,
        warnings,
    })
}

fn machine(prepared: &Prepared, check_only: bool) -> anyhow::Result<Evacuation> {
    let start = Start {
        spec: prepared.spec.clone(),
        limits: prepared.limits.clone(),
        evacuation: random_name()?,
        owner: this_process()?,
        check_only,
        obstacles: prepared.obstacles.clone(),
    };
    let machine = Evacuation::new(start, 0);
    Ok(if prepared.carry.is_some() {
        machine.with_carry(prepared.pace)
    } else {
        machine
    })
}

fn runner(
    arguments: &args::Evacuation,
    prepared: Prepared,
    lock: Lock,
    records: Option<Records>,
) -> Runner {
    Runner {
        hosts: prepared.hosts,
        migrate: prepared.options,
        policy: prepared.policy,
        carry: prepared.carry,
        folder: arguments.common.state_dir.clone(),
        lock,
        records,
        lease_client: arguments.common.connect.lease_client(),
    }
}

async fn tell_steps(json: bool, prepared: &Prepared) -> anyhow::Result<()> {
    let spec = &prepared.spec;
    let carry = match (&prepared.carry, &prepared.hosts.source) {
        (Some(carry), Some(source)) => Some(foresee(carry, source.as_ref(), &spec.domain).await),
        _ => None,
    };
    let carry = carry_text(carry);
    let steps = steps(spec, &prepared.limits, &prepared.options, &carry);
    if json {
        let steps = dry_run_json(spec, &steps, &prepared.warnings);
        println!("{}", serde_json::to_string_pretty(&steps)?);
    } else {
        print!("{}", dry_run_text(&steps));
    }
    Ok(())
}

/// libvirt wants the devices in this XML that the domain has when it is migrated, and tells it only then.
fn still_in_xml(xml: Option<&str>, migratable: &[String]) -> Option<Cause> {
    let domain = DomainXml::parse(xml?).ok()?;
    let leaves = |nic: &&Nic| nic.kind.is_passed_through() && !migratable.contains(&nic.alias);
    let nic = domain.nics.iter().find(leaves)?;
    let message = format!(
        "the XML of --xml has the pass-through device {}, which is unplugged before the migration; take it out of the \
         file, the VF comes by --vf",
        match (nic.alias.as_str(), nic.pci_source) {
            ("", Some(function)) => function.to_string(),
            (alias, _) => printable(alias),
        }
    );
    Some(Cause::new(CauseCode::NotBegun, message))
}

/// libvirt takes the metadata on the destination from this XML. One that can't be read
/// is refused by whoever reads it next.
fn lacks_bonds(xml: &str) -> bool {
    DomainXml::parse(xml).is_ok_and(|domain| domain.bonds.is_none())
}
