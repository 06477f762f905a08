//! `tandem-host recover`

use anyhow::Context as _;

use super::{args, connect, exit, session};
use crate::act::{Hosts, Lock, Runner};
use crate::decide::{Evacuation, Progress};
use crate::hypervisor::{Host, HostError};

/// Finishes or undoes what another process left; returns the exit code.
///
/// # Errors
/// If neither host nor lock file tells what there is to recover.
pub async fn run(arguments: &args::Recover) -> anyhow::Result<u8> {
    let name = arguments.domain.as_str();
    let lock = match Lock::take(&arguments.common.state_dir, "domain", name) {
        Ok(lock) => lock,
        Err(error) => {
            eprintln!("refused: {error}");
            return Ok(exit::REFUSED);
        }
    };
    let here = arguments.common.connect.open();
    let there = record_of(here.as_ref(), name).await;
    let Some(found) = there
        .as_ref()
        .ok()
        .cloned()
        .flatten()
        .or_else(|| lock.record())
        .filter(|record| record.plan.domain == name)
    else {
        there.with_context(|| format!("no record of domain {name} is to be had"))?;
        println!("nothing to recover: domain {name} has no record of an evacuation");
        return Ok(0);
    };
    let hosts = Hosts {
        source: connect::open(&found.plan.source_uri),
        destination: connect::open(&found.plan.destination_uri),
    };
    // The other host may have a newer one.
    let mut newest = found;
    for host in [&hosts.source, &hosts.destination] {
        if let Ok(Some(record)) = record_of(host.as_ref(), name).await
            && record.evacuation == newest.evacuation
            && record.beat > newest.beat
        {
            newest = record;
        }
    }
    // This machine's lock is free, so a process of this machine is gone.
    let owner = newest.owner.as_ref();
    let owner_is_dead = owner.is_none_or(|owner| owner.host == session::host_name());
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
        lessor: arguments.common.connect.lessor(),
    };
    let limits = arguments.timeouts.limits();
    let evacuation = Evacuation::recover(newest, session::owner()?, limits, owner_is_dead, 0);
    session::run(runner, evacuation, arguments.common.json).await
}

async fn record_of(host: &dyn Host, name: &str) -> anyhow::Result<Option<Progress>> {
    match host.progress(name).await {
        Ok(Some(text)) => Ok(Some(Progress::parse(&text)?)),
        Ok(None) | Err(HostError::NoSuchDomain { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
