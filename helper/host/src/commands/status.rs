//! `status`: a domain as its hypervisor and its guest describe it.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use tandem_wire::reply::StatusReport;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connect::Connect;
use crate::agent::{AgentError, ChannelLimits};
use crate::control::{ControlError, ControlReply, ControlRequest, LeaseClient, Shown, Watching};
use crate::hypervisor::{DomainFacts, DomainLook, DomainState, Host, reachable};
use crate::report::{ChannelUse, DomainReport, domain_text};

/// Guests that are asked at the same time.
const AT_ONCE: usize = 16;
/// `serve` knows without asking, so it answers at once, or something is wrong with it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// `tandem-host status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name of the domain; by default all that run
    pub domain: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Ask hypervisor and guests, even if `serve` runs
    #[arg(long)]
    pub ask: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// Prints what is known about a domain, or about all that run.
///
/// # Errors
/// If the hypervisor does not answer, or there is no such domain.
pub async fn run(arguments: &StatusArgs) -> Result<u8> {
    let known = match from_serve(arguments).await {
        _ if arguments.ask => None,
        Ok(known) => known,
        Err(ControlError::NotRunning { .. }) => None,
        Err(error) => {
            eprintln!("tandem-host: {error}; asking the hypervisor instead");
            None
        }
    };
    let reports = match known {
        Some(known) => known,
        None => asked(arguments).await?,
    };
    if arguments.json {
        let values: Vec<serde_json::Value> = reports.iter().map(json).collect();
        let text = match &arguments.domain {
            Some(_) => serde_json::to_string_pretty(&values.first())?,
            None => serde_json::to_string_pretty(&values)?,
        };
        println!("{text}");
    } else {
        for shown in &reports {
            print!("{}", domain_text(&shown.report, Some(shown.age_ms)));
        }
    }
    Ok(0)
}

/// The report, with its age beside the other keys.
pub(super) fn json(shown: &Shown) -> serde_json::Value {
    let mut value = serde_json::to_value(&shown.report).unwrap_or_default();
    if let Some(keys) = value.as_object_mut() {
        keys.insert("age-ms".to_owned(), shown.age_ms.into());
    }
    value
}

/// What `serve` knows; `None` if it cares for another hypervisor, or not for this domain.
async fn from_serve(arguments: &StatusArgs) -> Result<Option<Vec<Shown>>, ControlError> {
    if arguments.ask {
        return Ok(None);
    }
    let request = ControlRequest::Status {
        uri: arguments.connect.open().uri().to_owned(),
        domain: arguments.domain.clone(),
    };
    let mut serve = Watching::ask(&arguments.connect.serve_socket, &request).await?;
    let mut known = Vec::new();
    loop {
        match serve.next_within(PATIENCE).await? {
            ControlReply::Domain(shown) => known.push(*shown),
            ControlReply::Current {} => break,
            ControlReply::OtherHost { .. } => return Ok(None),
            _ => {}
        }
    }
    let unknown = arguments.domain.is_some() && known.is_empty();
    Ok(Some(known).filter(|_| !unknown))
}

async fn asked(arguments: &StatusArgs) -> Result<Vec<Shown>> {
    let host = arguments.connect.open();
    let reports = match &arguments.domain {
        Some(domain) => {
            let look = host.look(domain).await?;
            if look.facts.state == DomainState::Absent {
                anyhow::bail!("domain {domain} does not exist on {}", host.uri());
            }
            vec![report(&look, &arguments.connect.lease_client()).await]
        }
        None => all(&host, &arguments.connect).await?,
    };
    let new = |report| Shown { age_ms: 0, report };
    Ok(reports.into_iter().map(new).collect())
}

/// What a look shows, and what the guest answers now.
async fn report(look: &DomainLook, lease_client: &LeaseClient) -> DomainReport {
    let mut report = DomainReport::of(look);
    report.channel = ChannelUse::Asked;
    match ask(&look.facts, lease_client).await {
        Ok(status) => report.guest = Some(status),
        Err(reason) => report.guest_error = Some(reason),
    }
    report
}

async fn ask(facts: &DomainFacts, lease_client: &LeaseClient) -> Result<StatusReport, String> {
    let socket = reachable(facts)?;
    let asked = async {
        let limits = ChannelLimits::default();
        let mut agent = lease_client.connect(&facts.name, &socket, limits).await?;
        agent.status().await
    };
    asked.await.map_err(|error: AgentError| error.to_string())
}

/// All domains that run, by name.
async fn all(host: &Arc<dyn Host>, connect: &Connect) -> Result<Vec<DomainReport>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for domain in host.active().await? {
        let (host, turns) = (Arc::clone(host), Arc::clone(&turns));
        let lease_client = connect.lease_client();
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            let look = host.look(&domain.name).await?;
            match look.facts.state {
                DomainState::Absent | DomainState::ShutOff => anyhow::Ok(None),
                _ => Ok(Some(report(&look, &lease_client).await)),
            }
        });
    }
    let mut reports = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        reports.extend(ended??);
    }
    reports.sort_by(|a, b| a.domain.cmp(&b.domain));
    Ok(reports)
}
