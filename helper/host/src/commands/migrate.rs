//! `tandem-host migrate`

use std::sync::Arc;

use anyhow::anyhow;

use super::dry_run::{dry_run_json, dry_run_text};
use super::spec::spec_of;
use super::text_file::read;
use super::{args, session};
use crate::evacuate::{CauseCode, Evacuation, Start};
use crate::execute::{Hosts, Lock, Records, Runner, random_name, this_process};
use crate::hypervisor::{DomainLook, DomainState};
use crate::trust::Origin;
use crate::words::{printable, quoted};
use crate::xml::domain::DomainXml;

/// Evacuates the domain; returns the exit code.
///
/// # Errors
/// If nothing could be begun.
pub async fn run(arguments: &args::Migrate) -> anyhow::Result<u8> {
    let json = arguments.common.json;
    let device = arguments.vf.as_deref().map(read).transpose()?;
    let xml = arguments.xml.as_deref().map(read).transpose()?;
    let options = arguments.how.options(xml);
    let limits = arguments.timeouts.limits();
    let source = arguments.common.connect.open();
    let hosts = Hosts {
        source: Some(Arc::clone(&source)),
        destination: arguments
            .common
            .connect
            .other(&arguments.destination, Origin::CommandLine)?,
    };
    let name = arguments.domain.as_str();
    let DomainLook { facts, bonds, .. } = source.look(name).await?;
    if facts.state == DomainState::Absent {
        let message = format!(
            "there is no domain {} on {}; `virsh list --all` shows those that are",
            printable(name),
            arguments.common.connect.uri
        );
        return session::refuse(json, CauseCode::NoSuchDomain, message);
    }
    let bonds =
        bonds.map_err(|reason| anyhow!("the XML of domain {}: {reason}", printable(name)))?;
    if bonds.is_some() && options.xml.as_deref().is_some_and(lacks_bonds) {
        let message = format!(
            "the XML of --xml has no <bonds>, so {} would lose its bond there; add those that \
             `tandem-host xml show {}` shows",
            printable(name),
            quoted(name)
        );
        return session::refuse(json, CauseCode::BondsMissing, message);
    }
    let spec = spec_of(arguments, &facts, bonds.as_ref(), device.as_deref())?;
    if arguments.dry_run {
        if json {
            let spec = dry_run_json(&spec, &limits, &options);
            println!("{}", serde_json::to_string_pretty(&spec)?);
        } else {
            print!("{}", dry_run_text(&spec, &limits, &options));
        }
        return Ok(0);
    }
    let policy = bonds.map(|bonds| bonds.policy(&facts.nics)).transpose()?;
    let lock = match Lock::take(&arguments.common.state_dir, "domain", name) {
        Ok(lock) => lock,
        Err(error) => return session::refuse(json, CauseCode::Claimed, error.to_string()),
    };
    let start = Start {
        spec,
        limits,
        evacuation: random_name()?,
        owner: this_process()?,
    };
    let evacuation = Evacuation::new(start, 0);
    // Before anything is begun: without it, nothing that was begun could be finished after a kill.
    let records = Records::open(&arguments.common.records_dir)
        .and_then(|records| records.rehearse(evacuation.record()).map(|()| records));
    let records = match records {
        Ok(records) => records,
        Err(error) => {
            return session::refuse(json, CauseCode::RecordNotWritten, error.to_string());
        }
    };
    let runner = Runner {
        hosts,
        migrate: options,
        policy,
        folder: arguments.common.state_dir.clone(),
        lock,
        records: Some(records),
        lease_client: arguments.common.connect.lease_client(),
    };
    session::run(runner, evacuation, json).await
}

/// libvirt takes the metadata on the destination from this XML. One that can't be read
/// is refused by whoever reads it next.
fn lacks_bonds(xml: &str) -> bool {
    DomainXml::parse(xml).is_ok_and(|domain| domain.bonds.is_none())
}
