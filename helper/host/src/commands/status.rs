//! `status`: a domain as its hypervisor and its guest describe it.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tandem_core::status::{BondStatus, Traffic};
use tandem_wire::reply::StatusReport;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connect::Connect;
use super::xml::{device, present};
use crate::agent::{Agent, AgentError, Limits, printable};
use crate::hypervisor::{DomainFacts, DomainState, Host, HostError};

/// Guests that are asked at the same time.
const AT_ONCE: usize = 16;

/// `tandem-host status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The domain; without it, all that run
    pub domain: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// What is known about a domain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DomainReport {
    /// Its name.
    pub domain: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether it runs.
    pub state: DomainState,
    /// Why, in the hypervisor's words.
    pub reason: String,
    /// Its bonds.
    pub bonds: Vec<BondReport>,
    /// What is wrong with the bonds in its XML.
    pub bonds_error: Option<String>,
    /// What its guest says; nothing vouches for it.
    pub guest: Option<StatusReport>,
    /// Why its guest says nothing.
    pub guest_error: Option<String>,
}

/// A bond of the domain's XML.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BondReport {
    /// Its name.
    pub name: String,
    /// The device that is its standby, as the hypervisor shows it.
    pub standby: Option<String>,
    /// The device that is its VF.
    pub vf: Option<String>,
}

/// Asks hypervisor and guest.
///
/// # Errors
/// If the hypervisor does not answer. A guest that does not is reported.
pub async fn report(host: &dyn Host, facts: DomainFacts) -> Result<DomainReport, HostError> {
    let (bonds, bonds_error) = match host.bonds(&facts.name).await {
        Ok(bonds) => (bonds.unwrap_or_default(), None),
        Err(HostError::InvalidXml { reason, .. }) => (Default::default(), Some(reason)),
        Err(error) => return Err(error),
    };
    let (guest, guest_error) = match ask(&facts).await {
        Ok(status) => (Some(status), None),
        Err(reason) => (None, Some(reason)),
    };
    let bonds = bonds.bonds.iter().map(|bond| BondReport {
        name: bond.name.to_string(),
        standby: bond.standby_device(&facts.nics).map(device),
        vf: bond.vf(&facts.nics).map(device),
    });
    Ok(DomainReport {
        bonds: bonds.collect(),
        domain: facts.name,
        uuid: facts.uuid,
        state: facts.state,
        reason: facts.reason,
        bonds_error,
        guest,
        guest_error,
    })
}

async fn ask(facts: &DomainFacts) -> Result<StatusReport, String> {
    if facts.state != DomainState::Running {
        return Err("it does not run here".to_owned());
    }
    let Some(channel) = &facts.channel else {
        return Err("the domain has no channel to it".to_owned());
    };
    let Some(socket) = &channel.socket else {
        return Err("its channel has no unix socket".to_owned());
    };
    if channel.opened == Some(false) {
        return Err("it has not opened the channel; is tandem running there?".to_owned());
    }
    let asked = async {
        let mut agent = Agent::connect(socket, Limits::default()).await?;
        agent.info().await?;
        agent.status().await
    };
    asked.await.map_err(|error: AgentError| error.to_string())
}

/// Prints what is known about a domain, or about all that run.
///
/// # Errors
/// If the hypervisor does not answer, or there is no such domain.
pub async fn run(arguments: &StatusArgs) -> Result<u8> {
    let host = arguments.connect.open();
    let reports = match &arguments.domain {
        Some(domain) => {
            let facts = present(host.as_ref(), domain).await?;
            vec![report(host.as_ref(), facts).await?]
        }
        None => all(&host).await?,
    };
    if arguments.json {
        let text = match &arguments.domain {
            Some(_) => serde_json::to_string_pretty(&reports.first())?,
            None => serde_json::to_string_pretty(&reports)?,
        };
        println!("{text}");
    } else {
        for report in &reports {
            print!("{}", render(report));
        }
    }
    Ok(0)
}

/// All domains that run, by name.
async fn all(host: &Arc<dyn Host>) -> Result<Vec<DomainReport>> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for name in host.domains().await? {
        let (host, turns) = (Arc::clone(host), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            let facts = host.domain(&name).await?;
            match facts.state {
                DomainState::Absent | DomainState::ShutOff => Ok(None),
                _ => report(host.as_ref(), facts).await.map(Some),
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

/// For people.
pub fn render(report: &DomainReport) -> String {
    let mut text = format!("{}: {}", printable(&report.domain), word(&report.state));
    if !report.reason.is_empty() {
        text.push_str(&format!(" ({})", printable(&report.reason)));
    }
    text.push('\n');
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {args}");
    };
    if let Some(error) = &report.bonds_error {
        line(format_args!("its XML: {}", printable(error)));
    }
    for bond in &report.bonds {
        let shown = |device: &Option<String>| device.clone().unwrap_or("not there now".to_owned());
        line(format_args!(
            "{}: standby {}; VF {}",
            bond.name,
            shown(&bond.standby),
            shown(&bond.vf)
        ));
    }
    if let Some(error) = &report.guest_error {
        line(format_args!("guest: {}", printable(error)));
    }
    let bonds = report.guest.iter().flat_map(|guest| &guest.status.bonds);
    for bond in bonds {
        line(format_args!("guest: {}", guest_line(bond)));
        for problem in &bond.problems {
            line(format_args!(
                "guest: {}: {}; {}",
                word(&problem.code),
                printable(&problem.message),
                printable(&problem.remedy)
            ));
        }
    }
    text
}

fn guest_line(bond: &BondStatus) -> String {
    let traffic = match bond.traffic {
        Traffic::None => "nobody carries its traffic",
        Traffic::Vf => "the VF carries its traffic",
        Traffic::Standby => "the standby carries its traffic",
        Traffic::Other => "a port that is neither VF nor standby carries its traffic",
    };
    format!(
        "{} is {}, {traffic}: {}",
        bond.name,
        word(&bond.state),
        printable(&bond.reason)
    )
}

/// A variant's name, as JSON has it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => "unknown".to_owned(),
    }
}
