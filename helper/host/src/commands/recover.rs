//! `tandem-host recover`

use std::sync::Arc;

use anyhow::Context as _;

use super::connect::Connect;
use super::{args, named, session};
use crate::evacuate::{
    AgentUse, Cause, CauseCode, Evacuation, Outcome, Progress, Record, Side, Verdict,
};
use crate::execute::{Hosts, Lock, Records, Runner};
use crate::hypervisor::{DepartedHost, DomainState, Host, HostError, is_local_uri};
use crate::trust::{Origin, UriError, check_device};
use crate::words::printable;

/// Finishes or undoes what another process left; returns the exit code.
///
/// # Errors
/// If neither the domain nor this host's own record tells what there is to recover.
pub async fn run(arguments: &args::Recover) -> anyhow::Result<u8> {
    let name = arguments.domain.as_str();
    let json = arguments.common.json;
    let lock = match Lock::take(&arguments.common.state_dir, "domain", name) {
        Ok(lock) => lock,
        Err(error) => return session::refuse(json, CauseCode::Claimed, error.to_string()),
    };
    let records = match Records::open(&arguments.common.records_dir) {
        Ok(records) => records,
        Err(error) => {
            return session::refuse(json, CauseCode::RecordNotWritten, error.to_string());
        }
    };
    let own = match records.read(name) {
        Ok(own) => own,
        Err(error) => {
            let message = match error.is_newer() {
                true => error.to_string(),
                false => format!("{error}; look at it, and remove it if no newer program wrote it"),
            };
            return session::refuse(json, CauseCode::RecordUnreadable, message);
        }
    };
    let here = arguments.common.connect.open();
    let there = record_of(here.as_ref(), name).await;
    let found = there.as_ref().ok().cloned().flatten();
    // What is in the domain says which evacuation there is; what is here, what to do about it.
    let is_it = |own: &Record| {
        let found = found.as_ref();
        found.is_none_or(|found| found.evacuation == own.progress.evacuation)
    };
    let (record, hosts) = match (own.filter(is_it), found) {
        (Some(own), _) => match with_named(own, arguments).await? {
            Ok(both) => both,
            Err(why) => return session::refuse(json, CauseCode::RecordUnreadable, why),
        },
        (None, Some(found)) => match named::record(arguments, &here, found).await? {
            Ok(both) => both,
            Err(cause) => return session::refuse(json, cause.code, cause.message),
        },
        (None, None) => {
            there
                .with_context(|| format!("no record of domain {} is to be had", printable(name)))?;
            return nothing(name, json);
        }
    };
    let (record, is_marked) = newest(record, &hosts).await;
    if !is_marked && has_moved_on(&record, &hosts).await? {
        // Somebody else ended it, and this host had not heard of that.
        records.forget(name)?;
        return nothing(name, json);
    }
    let owner_is_dead = session::owner_is_dead(&record.progress, &lock);
    let mut policy = None;
    if let Ok(Some(bonds)) = here.bonds(name).await {
        let facts = here.domain(name).await?;
        policy = bonds.policy(&facts.nics).ok();
    }
    let runner = Runner {
        hosts,
        migrate: Default::default(),
        policy,
        folder: arguments.common.state_dir.clone(),
        lock,
        records: Some(records),
        lease_client: arguments.common.connect.lease_client(),
    };
    let limits = arguments.timeouts.limits();
    let evacuation = Evacuation::recover(record, session::owner()?, limits, owner_is_dead, 0);
    session::run(runner, evacuation, json).await
}

fn nothing(name: &str, json: bool) -> anyhow::Result<u8> {
    let message = format!(
        "nothing to recover: domain {} has no record of an evacuation",
        printable(name)
    );
    if json {
        let cause = Cause::new(CauseCode::NothingToRecover, message);
        session::told(json, &Outcome::without_run(Verdict::Refused, cause))?;
    } else {
        println!("{message}");
    }
    Ok(0)
}

/// This host's own record, with what the command line says instead; or why it is not acted on.
async fn with_named(
    mut record: Record,
    arguments: &args::Recover,
) -> anyhow::Result<Result<(Record, Hosts), String>> {
    let spec = &mut record.spec;
    let ways = (
        way(
            &arguments.common.connect,
            &spec.source_uri,
            arguments.source.as_deref(),
        ),
        way(
            &arguments.common.connect,
            &spec.destination_uri,
            arguments.destination.as_deref(),
        ),
    );
    let refused = |error: &dyn std::error::Error| {
        let why = format!("this host's own record: {error}; name --source, --destination and --vf");
        Ok(Err(why))
    };
    let hosts = match ways {
        (Ok(source), Ok(destination)) => Hosts {
            source,
            destination,
        },
        (Err(error), _) | (_, Err(error)) => return refused(&error),
    };
    if let Some(uri) = &arguments.source {
        spec.source_uri.clone_from(uri);
    }
    if let Some(uri) = &arguments.destination {
        spec.destination_uri.clone_from(uri);
        spec.reaches_destination_agent = is_local_uri(uri);
    }
    if arguments.no_agent {
        spec.agent = AgentUse::Never;
    }
    // An older program, or one with other lists, may have written it.
    let device = spec.destination_vf.as_ref().map(|vf| vf.device.as_str());
    if let Some(Err(error)) = device.map(check_device) {
        return refused(&error);
    }
    if let Some(file) = &arguments.vf {
        named::name_vf(spec, &hosts, file).await?;
    }
    Ok(Ok((record, hosts)))
}

/// The way to a host: as it was typed, or else as it is recorded here.
fn way(connect: &Connect, recorded: &str, typed: Option<&str>) -> Result<Arc<dyn Host>, UriError> {
    match typed {
        Some(uri) => connect.other(uri, Origin::CommandLine),
        // The domain had left it when it was recorded.
        None if recorded.is_empty() => Ok(Arc::new(DepartedHost::new("the source"))),
        None => connect.other(recorded, Origin::OwnRecord),
    }
}

/// Another machine may have gone on with the same evacuation since. And whether the domain has its mark at all.
async fn newest(mut record: Record, hosts: &Hosts) -> (Record, bool) {
    let domain = record.spec.domain.clone();
    let mut is_marked = false;
    for host in [&hosts.source, &hosts.destination] {
        if let Ok(Some(found)) = record_of(host.as_ref(), &domain).await
            && found.evacuation == record.progress.evacuation
        {
            is_marked = true;
            if found.beat > record.progress.beat {
                record.progress = found;
            }
        }
    }
    (record, is_marked)
}

/// The domain runs on the other host than the one where this evacuation had left it to stay.
async fn has_moved_on(record: &Record, hosts: &Hosts) -> anyhow::Result<bool> {
    let (home, other) = match record.progress.home {
        None => return Ok(false),
        Some(Side::Source) => (&hosts.source, &hosts.destination),
        Some(Side::Destination) => (&hosts.destination, &hosts.source),
    };
    let name = record.spec.domain.as_str();
    let (home, other) = (home.domain(name).await?, other.domain(name).await?);
    let is_gone = matches!(home.state, DomainState::Absent | DomainState::ShutOff);
    Ok(is_gone && other.state == DomainState::Running)
}

async fn record_of(host: &dyn Host, name: &str) -> anyhow::Result<Option<Progress>> {
    match host.progress(name).await {
        Ok(Some(text)) => Ok(Some(Progress::parse_for(&text, name)?)),
        Ok(None) | Err(HostError::NoSuchDomain { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
