//! `tandem-host recover`

use std::sync::Arc;

use anyhow::Context as _;

use super::connect::Connect;
use super::{args, session};
use crate::evacuate::{Cause, CauseCode, Evacuation, Outcome, Progress, Side, Verdict};
use crate::execute::{Hosts, Lock, Runner};
use crate::hypervisor::{DepartedHost, DomainState, Host, HostError, is_local_uri};

/// Finishes or undoes what another process left; returns the exit code.
///
/// # Errors
/// If neither host nor lock file tells what there is to recover.
pub async fn run(arguments: &args::Recover) -> anyhow::Result<u8> {
    let name = arguments.domain.as_str();
    let json = arguments.common.json;
    let lock = match Lock::take(&arguments.common.state_dir, "domain", name) {
        Ok(lock) => lock,
        Err(error) => return session::refuse(json, CauseCode::Claimed, error.to_string()),
    };
    let here = arguments.common.connect.open();
    let there = record_of(here.as_ref(), name).await;
    let Some(found) = there
        .as_ref()
        .ok()
        .cloned()
        .flatten()
        .or_else(|| lock.record())
    else {
        there.with_context(|| format!("no record of domain {name} is to be had"))?;
        let message = format!("nothing to recover: domain {name} has no record of an evacuation");
        if json {
            let cause = Cause::new(CauseCode::NothingToRecover, message);
            session::told(json, &Outcome::without_run(Verdict::Refused, cause))?;
        } else {
            println!("{message}");
        }
        return Ok(0);
    };
    let mut found = found;
    anyhow::ensure!(
        found.spec.domain == name,
        "the record is of domain {}, not of {name}; recover that one",
        found.spec.domain
    );
    let hosts = match hosts_of(&mut found, &here, &arguments.common.connect).await? {
        Ok(hosts) => hosts,
        Err(machine) => {
            let message = format!(
                "the evacuation of {name} was begun on {machine}, and the domain does not run on {} yet; \
                 run `tandem-host recover {name}` there",
                here.uri()
            );
            return session::refuse(json, CauseCode::OtherMachine, message);
        }
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
    let owner_is_dead = session::owner_is_dead(&newest, &lock);
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
        lease_client: arguments.common.connect.lease_client(),
    };
    let limits = arguments.timeouts.limits();
    let evacuation = Evacuation::recover(newest, session::owner()?, limits, owner_is_dead, 0);
    session::run(runner, evacuation, json).await
}

/// Both hosts as they are reached from here, or the machine where they can be.
async fn hosts_of(
    found: &mut Progress,
    here: &Arc<dyn Host>,
    connect: &Connect,
) -> anyhow::Result<Result<Hosts, String>> {
    let look = here.look(&found.spec.domain).await?;
    let record = look.progress.as_deref().map(Progress::parse);
    let same = matches!(record, Some(Ok(record)) if record.evacuation == found.evacuation);
    let is_here = same && look.facts.state == DomainState::Running;
    Ok(
        match reach(found, here.uri(), &session::host_name(), is_here) {
            Reach::AsRecorded => Ok(Hosts {
                source: connect.open_other(&found.spec.source_uri),
                destination: connect.open_other(&found.spec.destination_uri),
            }),
            Reach::DestinationOnly => {
                found.spec.reaches_destination_agent = is_local_uri(here.uri());
                Ok(Hosts {
                    source: Arc::new(DepartedHost::new(&found.spec.source_uri)),
                    destination: Arc::clone(here),
                })
            }
            Reach::Machine(machine) => Err(machine),
        },
    )
}

/// From where an evacuation's hosts can be reached.
#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// By the record's URIs.
    AsRecorded,
    /// The host that was asked is the destination, and the domain has left the source for good.
    DestinationOnly,
    /// From that machine.
    Machine(String),
}

/// What a record calls `qemu:///system` is the libvirt of the machine that wrote it: elsewhere
/// only the host that was asked can be acted on, and only where the domain has come to it.
fn reach(found: &Progress, here: &str, machine: &str, is_here: bool) -> Reach {
    let spec = &found.spec;
    let owner = found.owner.as_ref().map(|owner| owner.host.as_str());
    // A record without an owner does not say whose it was, but where the domain stayed.
    let stayed = found.home == Some(Side::Destination) && here != spec.destination_uri;
    let is_foreign = owner.map_or(stayed, |owner| owner != machine);
    let uris = [&spec.source_uri, &spec.destination_uri];
    if !is_foreign || !uris.iter().any(|uri| is_local_uri(uri)) {
        Reach::AsRecorded
    } else if is_here && found.migration_begun && is_local_uri(&spec.source_uri) {
        Reach::DestinationOnly
    } else {
        Reach::Machine(owner.unwrap_or("another machine").to_owned())
    }
}

async fn record_of(host: &dyn Host, name: &str) -> anyhow::Result<Option<Progress>> {
    match host.progress(name).await {
        Ok(Some(text)) => Ok(Some(Progress::parse(&text)?)),
        Ok(None) | Err(HostError::NoSuchDomain { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(owner: Option<&str>, source: &str, home: Option<Side>) -> Progress {
        let owner =
            owner.map(|host| json!({"token": "t", "host": host, "pid": 1, "started-at": ""}));
        let record = json!({"version": Progress::VERSION, "evacuation": "e", "owner": owner, "beat": 1,
            "stage": "plugging", "migration-begun": true, "home": home,
            "spec": {"domain": "g1", "source-uri": source, "destination-uri": "qemu+ssh://b/system",
                "bond": null, "source-vf": null, "destination-vf": null, "agent": "required",
                "reaches-destination-agent": false, "configure": true, "yes-degraded": false}});
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn the_uris_of_another_machine_are_not_ours() {
        let local = "qemu:///system";
        let ours = record(Some("a"), local, None);
        assert_eq!(reach(&ours, local, "a", true), Reach::AsRecorded);
        assert_eq!(reach(&ours, local, "b", true), Reach::DestinationOnly);
        let there = Reach::Machine("a".to_owned());
        assert_eq!(reach(&ours, local, "b", false), there);
        let mut early = ours;
        early.migration_begun = false;
        assert_eq!(reach(&early, local, "b", true), there);
        let by_ssh = record(Some("a"), "qemu+ssh://a/system", None);
        assert_eq!(reach(&by_ssh, local, "b", true), Reach::AsRecorded);
        let degraded = record(None, local, Some(Side::Destination));
        assert_eq!(reach(&degraded, local, "b", true), Reach::DestinationOnly);
        let on_source = record(None, local, Some(Side::Source));
        assert_eq!(reach(&on_source, local, "a", true), Reach::AsRecorded);
        let asked_from_there = "qemu+ssh://b/system";
        assert_eq!(
            reach(&degraded, asked_from_there, "a", true),
            Reach::AsRecorded
        );
    }
}
