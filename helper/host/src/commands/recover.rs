//! `tandem-host recover`

use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::connect::Connect;
use super::{args, named, session};
use crate::evacuate::{
    AgentUse, Cause, CauseCode, Evacuation, Outcome, Progress, Record, Side, Verdict,
};
use crate::execute::{Hosts, Records, RecordsError, Runner, owner_is_dead, this_process};
use crate::hypervisor::{DomainLook, DomainState, Host, MigrateOptions, is_local_uri};
use crate::trust::{UriError, UriOrigin, check_device};
use crate::words::printable;

/// Finishes or undoes what another process left; returns the exit code.
///
/// # Errors
/// If neither the domain nor this host's own record tells what there is to recover.
pub async fn run(arguments: &args::Recover) -> anyhow::Result<u8> {
    session::or_refused(arguments.common.json, recover(arguments).await)
}

async fn recover(arguments: &args::Recover) -> anyhow::Result<u8> {
    let name = arguments.domain.as_str();
    let json = arguments.common.json;
    let lock = arguments.common.lock(name)?;
    let here = arguments.common.connect.open();
    let look = here.look(name).await.map_err(anyhow::Error::from);
    let there = look.as_ref().ok().map(record_of).transpose();
    let found = there.as_ref().ok().cloned().flatten().flatten();
    let records = arguments.common.records()?;
    let first = first_name(&records, name, found.as_ref());
    let own = first.and_then(|first| {
        let name = first.as_deref().unwrap_or(name);
        Ok((first.clone(), records.read(name)?))
    });
    let (first, own) = own.map_err(|error| {
        let message = match error.is_newer() {
            true => error.to_string(),
            false => format!("{error}; look at it, and remove it if no newer program wrote it"),
        };
        Cause::new(CauseCode::RecordUnreadable, message)
    })?;
    let name = first.as_deref().unwrap_or(name);
    let (lock, _also) = match &first {
        None => (lock, None),
        Some(first) => (arguments.common.lock(first)?, Some(lock)),
    };
    let is_here = look
        .as_ref()
        .is_ok_and(|look| look.facts.state == DomainState::Running);
    // What is in the domain says which evacuation there is; what is here, what to do about it.
    let is_it = |own: &Record| {
        let found = found.as_ref();
        found.is_none_or(|found| found.evacuation == own.progress.evacuation)
    };
    let (record, hosts) = match (own.filter(is_it), found) {
        (Some(own), _) => with_named(own, arguments).await?,
        (None, Some(found)) => named::record(arguments, &here, is_here, found).await?,
        (None, None) => {
            look.and(there)
                .with_context(|| format!("no record of domain {} is to be had", printable(name)))?;
            return nothing(name, json);
        }
    };
    let (record, has_moved_on) = newest(record, &hosts).await?;
    if has_moved_on {
        // Somebody else ended it, and this host had not heard of that.
        records.forget(name)?;
        return nothing(name, json);
    }
    let owner_is_dead = owner_is_dead(&record, &lock);
    if owner_is_dead {
        set_back(&record, &hosts).await;
    }
    let policy = look.ok().and_then(|look| {
        let bonds = look.bonds.ok().flatten()?;
        let arriving = record.spec.arriving();
        bonds.policy_with(&look.facts.nics, &arriving).ok()
    });
    let runner = Runner {
        hosts,
        migrate: MigrateOptions {
            migrate_uri: arguments.migrate_uri.clone(),
            peer_to_peer: arguments.p2p,
            dname: record.spec.renamed.clone(),
            ..MigrateOptions::default()
        },
        policy,
        folder: arguments.common.state_dir.clone(),
        lock,
        records: Some(records),
        carry: None,
        lease_client: arguments.common.connect.lease_client(),
    };
    let limits = arguments.timeouts.limits();
    let evacuation = Evacuation::recover(record, this_process()?, limits, owner_is_dead, 0);
    session::run(runner, evacuation, json, Vec::new()).await
}

/// A carry slows its migration down and keeps the hypervisor from ending it: whoever did that is dead, and its halves may be. Where
/// the domain is not on the source any more, nothing is left of that.
async fn set_back(record: &Record, hosts: &Hosts) {
    let (Some(before), Some(source)) = (record.pace, &hosts.source) else {
        return;
    };
    let name = record.spec.name(Side::Source);
    let state = source.state(name).await;
    if !matches!(state, Ok(DomainState::Running | DomainState::Paused)) {
        return;
    }
    let set = [
        source.set_max_downtime(name, before.max_downtime_ms).await,
        source.set_speed(name, before.speed).await,
    ];
    for error in set.into_iter().filter_map(Result::err) {
        tracing::warn!("a carry's limits of the migration can't be set back: {error}");
    }
}

/// The name under which this host has its own record of a domain that was given another one. The domain's metadata only
/// says where to look: what it names counts if that record says the same.
///
/// # Errors
/// If there is one that can't be read.
fn first_name(
    records: &Records,
    name: &str,
    found: Option<&Progress>,
) -> Result<Option<String>, RecordsError> {
    let Some(found) = found.filter(|found| found.domain != name) else {
        return Ok(None);
    };
    let own = records.read(&found.domain)?;
    let is_it = own.is_some_and(|own| {
        own.spec.name(Side::Destination) == name && own.progress.evacuation == found.evacuation
    });
    Ok(is_it.then(|| found.domain.clone()))
}

fn nothing(name: &str, json: bool) -> anyhow::Result<u8> {
    let message = format!(
        "nothing to recover: domain {} has no record of an evacuation",
        printable(name)
    );
    if !json {
        println!("{message}");
    }
    let cause = Cause::new(CauseCode::NothingToRecover, message);
    session::told(json, &Outcome::without_run(Verdict::Refused, cause))
}

/// This host's own record, with what the command line says instead.
///
/// # Errors
/// If it is not acted on: that is a [`Cause`]; or what is named can't be read.
async fn with_named(
    mut record: Record,
    arguments: &args::Recover,
) -> anyhow::Result<(Record, Hosts)> {
    let spec = &mut record.spec;
    let connect = &arguments.common.connect;
    let source = way(connect, &spec.source_uri, arguments.source.as_deref());
    let typed = arguments.destination.as_deref();
    let destination = way(connect, &spec.destination_uri, typed);
    let unreadable = |why: String| {
        let message = format!("this host's own record{why}");
        Cause::new(CauseCode::RecordUnreadable, message)
    };
    let refused = |error: &dyn std::error::Error| {
        unreadable(format!(": {error}; name --source, --destination and --vf"))
    };
    let no_destination =
        || unreadable(" names no destination; name it by --destination".to_owned());
    let hosts = Hosts {
        source: source.map_err(|error| refused(&error))?,
        destination: destination
            .map_err(|error| refused(&error))?
            .ok_or_else(no_destination)?,
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
    for vf in spec
        .devices
        .iter()
        .filter_map(|one| one.destination.as_ref())
    {
        check_device(&vf.device).map_err(|error| refused(&error))?;
    }
    if !arguments.vf.is_empty() || !arguments.device.is_empty() {
        let names = Side::BOTH.map(|side| spec.name(side));
        let (side, look) = named::home(&hosts, names).await?;
        named::name_vfs(spec, side, &look, &arguments.vf)?;
        named::name_devices(spec, side, &look, &arguments.device, 0)?;
    }
    Ok((record, hosts))
}

/// The way to a host: as it was typed, or else as it is recorded here; none if the domain had left it by then.
fn way(
    connect: &Connect,
    recorded: &str,
    typed: Option<&str>,
) -> Result<Option<Arc<dyn Host>>, UriError> {
    let (uri, origin) = match typed {
        Some(uri) => (uri, UriOrigin::CommandLine),
        None if recorded.is_empty() => return Ok(None),
        None => (recorded, UriOrigin::OwnRecord),
    };
    connect.other(uri, origin).map(Some)
}

/// Another machine may have gone on with the same evacuation since: its record, and whether the domain has
/// moved on from where this evacuation had left it to stay, and bears no mark of it any more.
async fn newest(mut record: Record, hosts: &Hosts) -> anyhow::Result<(Record, bool)> {
    let mut is_marked = false;
    let mut looks = Vec::new();
    for side in Side::BOTH {
        let look = hosts.seen(side).look(record.spec.name(side)).await;
        match look.as_ref().map_or(Ok(None), record_of) {
            Ok(Some(found)) if found.evacuation == record.progress.evacuation => {
                is_marked = true;
                if found.beat > record.progress.beat {
                    record.progress = found;
                }
            }
            Ok(_) => {}
            // It may be of this evacuation, and what can't be read ends none.
            Err(_) => is_marked = true,
        }
        looks.push((side, look));
    }
    let Some(home) = record.progress.home.filter(|_| !is_marked) else {
        return Ok((record, false));
    };
    let mut has_moved_on = true;
    for (side, look) in looks {
        let state = look?.facts.state;
        has_moved_on &= match side == home {
            true => matches!(state, DomainState::Absent | DomainState::ShutOff),
            false => state == DomainState::Running,
        };
    }
    Ok((record, has_moved_on))
}

fn record_of(look: &DomainLook) -> anyhow::Result<Option<Progress>> {
    if look.facts.state == DomainState::Incoming {
        bail!("domain {} is still coming in", printable(&look.facts.name));
    }
    let text = look.progress.as_deref();
    Ok(text
        .map(|text| Progress::parse_for(text, &look.facts.name))
        .transpose()?)
}
