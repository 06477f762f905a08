//! Cares for all domains of a host: hands each guest its bonds once per boot, and keeps the latest
//! of what it says.
//!
//! A channel takes one client at a time, so it is never held for longer than a few questions take;
//! `migrate` and the others wait that long. A domain whose evacuation is recorded is left to it.

mod metrics;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::agent::AgentError;
use crate::commands::configure::{ConfigureFailure, configure};
use crate::commands::status::{DomainReport, report};
use crate::hypervisor::{DomainState, Event, EventKind, Events, Host, HostError};

/// Domains that are looked at in the same moment.
const AT_ONCE: usize = 16;
/// Most domains that are cared for; others are not looked at, and a warning says so.
const MAX_DOMAINS: usize = 4096;
/// Events come in bursts; one look serves a burst of this length.
const BURST: Duration = Duration::from_millis(200);
/// Longest time for one domain, hypervisor and guest together.
const LOOK: Duration = Duration::from_secs(60);

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// Every domain is looked at this often, whatever the events say.
    pub interval: Duration,
    /// File for `OpenMetrics`, written anew after each look.
    pub metrics: Option<PathBuf>,
}

/// What is kept of a domain.
#[derive(Debug, Default)]
struct Known {
    /// Which start of the domain it is about.
    run_id: String,
    /// The guest has its bonds, or does not want them.
    configured: bool,
    /// Why it was not configured, if it should have been.
    failure: Option<String>,
    /// The latest report.
    report: Option<DomainReport>,
}

/// All domains by name.
type Domains = BTreeMap<String, Known>;

/// Serves until `stop` ends.
///
/// # Errors
/// If the hypervisor has no events at all. One that can't be reached is tried again.
pub async fn serve(
    host: Arc<dyn Host>,
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(), HostError> {
    let mut events = host.events().await?;
    let mut domains = Domains::new();
    let mut due = Due::All;
    tokio::pin!(stop);
    loop {
        let next_look = Instant::now() + options.interval;
        let round = async {
            look(&host, &mut domains, due).await;
            publish(&options, &domains);
            wait(&mut events, &mut domains, next_look).await
        };
        tokio::select! {
            () = &mut stop => return Ok(()),
            more = round => due = more,
        }
    }
}

/// What to look at next.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    All,
    These(BTreeSet<String>),
}

/// Waits for a burst of events, or until everything is due.
async fn wait(events: &mut Events, domains: &mut Domains, next_look: Instant) -> Due {
    let mut due = BTreeSet::new();
    let mut deadline = next_look;
    loop {
        match timeout_at(deadline, events.next()).await {
            Ok(Some(event)) => {
                if !note(&event, domains, &mut due) {
                    return Due::All;
                }
                deadline = deadline.min(Instant::now() + BURST);
            }
            // The driver is gone: only the clock is left.
            Ok(None) => {
                tokio::time::sleep_until(next_look).await;
                return Due::All;
            }
            Err(_) if due.is_empty() => return Due::All,
            Err(_) => return Due::These(due),
        }
    }
}

/// Takes note of an event; false if everything has to be looked at.
fn note(event: &Event, domains: &mut Domains, due: &mut BTreeSet<String>) -> bool {
    let Some(name) = &event.domain else {
        // A guest may have restarted unseen; the same bonds twice change nothing.
        domains
            .values_mut()
            .for_each(|known| known.configured = false);
        return false;
    };
    if matches!(event.kind, EventKind::Agent { .. } | EventKind::Reboot)
        && let Some(known) = domains.get_mut(name)
    {
        known.configured = false;
    }
    due.insert(name.clone());
    true
}

/// Looks at domains, several at once, and keeps what they show.
async fn look(host: &Arc<dyn Host>, domains: &mut Domains, due: Due) {
    let names: Vec<String> = match due {
        Due::These(names) => names.into_iter().collect(),
        Due::All => match host.domains().await {
            Ok(names) => {
                domains.retain(|name, _| names.contains(name));
                names
            }
            Err(error) => {
                tracing::warn!("{error}");
                return;
            }
        },
    };
    if names.len() > MAX_DOMAINS {
        tracing::warn!("{} domains; only {MAX_DOMAINS} are cared for", names.len());
    }
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = JoinSet::new();
    for name in names.into_iter().take(MAX_DOMAINS) {
        let before = domains.remove(&name).unwrap_or_default();
        let (host, turns) = (Arc::clone(host), Arc::clone(&turns));
        looks.spawn(async move {
            let _turn = turns.acquire().await;
            let seen = timeout(LOOK, look_at(host.as_ref(), &name, before)).await;
            let known = match seen {
                Ok(Ok(known)) => known,
                Ok(Err(error)) => Some(failed(&name, error.to_string())),
                Err(_) => Some(failed(
                    &name,
                    format!("no answer within {} s", LOOK.as_secs()),
                )),
            };
            (name, known)
        });
    }
    while let Some(ended) = looks.join_next().await {
        if let Ok((name, Some(known))) = ended {
            domains.insert(name, known);
        }
    }
}

fn failed(name: &str, failure: String) -> Known {
    tracing::warn!("domain {name}: {failure}");
    Known {
        failure: Some(failure),
        ..Known::default()
    }
}

/// Looks at one domain; `None` if it does not run here.
async fn look_at(
    host: &dyn Host,
    name: &str,
    mut known: Known,
) -> Result<Option<Known>, HostError> {
    let mut facts = host.domain(name).await?;
    if !matches!(facts.state, DomainState::Running | DomainState::Paused) {
        return Ok(None);
    }
    if known.run_id != facts.run_id {
        known = Known {
            run_id: facts.run_id.clone(),
            ..Known::default()
        };
    }
    if host.progress(name).await?.is_some() {
        // Its evacuation talks to the guest.
        facts.channel = None;
    }
    let opened = facts
        .channel
        .as_ref()
        .is_some_and(|channel| channel.opened != Some(false));
    if facts.state == DomainState::Running && opened && !known.configured {
        (known.configured, known.failure) = match configure(host, name).await {
            Ok(configured) => {
                if configured.changed {
                    tracing::info!("domain {name}: the guest has its bonds");
                }
                (true, None)
            }
            Err(ConfigureFailure::NoBonds { .. }) => (true, None),
            // Asking again would not change the guest's mind.
            Err(
                error @ ConfigureFailure::Agent {
                    failure: AgentError::Refused { .. },
                    ..
                },
            ) => {
                tracing::warn!("{error}");
                (true, Some(error.to_string()))
            }
            Err(error) => {
                tracing::warn!("{error}");
                (false, Some(error.to_string()))
            }
        };
    }
    known.report = Some(report(host, facts).await?);
    Ok(Some(known))
}

/// Writes the metrics in one step, so that a reader never sees half of them.
fn publish(options: &Options, domains: &Domains) {
    let Some(path) = &options.metrics else { return };
    let mut new = path.clone().into_os_string();
    new.push(".new");
    let written =
        std::fs::write(&new, metrics::text(domains)).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = written {
        tracing::warn!("can't write {}: {error}", path.display());
    }
}
