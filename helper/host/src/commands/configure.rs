//! `configure`: gives a guest the bonds of its domain's XML.

use anyhow::Result;
use clap::Args;
use tandem_core::Policy;
use tandem_wire::reply::Configured;

use super::{connect::Connect, exit};
use crate::agent::{AgentError, Limits};
use crate::control::LeaseClient;
use crate::hypervisor::{
    AgentChannel, ChannelSocket, DomainFacts, DomainLook, DomainState, Host, HostError,
};
use crate::words::{printable, quoted};

/// `tandem-host configure`
#[derive(Debug, Args)]
pub struct Configure {
    /// Name of the domain
    pub domain: String,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as help")]
    pub connect: Connect,
}

/// Why a guest was not configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureFailure {
    /// The hypervisor can't tell what is needed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The guest can't be asked, or does not want it.
    #[error("domain {domain}: {failure}")]
    Agent {
        /// The domain.
        domain: String,
        /// What happened.
        failure: AgentError,
    },
    /// Its XML has no bonds.
    #[error(
        "domain {} has no bonds; give it some by `tandem-host xml set {} FILE`",
        printable(domain),
        quoted(domain)
    )]
    NoBonds {
        /// The domain.
        domain: String,
    },
    /// The bonds don't fit the domain's devices.
    #[error("the bonds of domain {domain}: {reason}")]
    Unsound {
        /// The domain.
        domain: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no way to the guest.
    #[error("domain {domain} {reason}")]
    NoChannel {
        /// The domain.
        domain: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// Hands a guest its bonds; the same twice changes nothing. Besides, what an older guest does not know of them.
///
/// # Errors
/// If there are none, or the guest can't be asked or refuses.
pub async fn configure(
    host: &dyn Host,
    domain: &str,
    lease_client: &LeaseClient,
) -> Result<(Configured, Option<String>), ConfigureFailure> {
    let look = host.look(domain).await?;
    let policy = policy_of(&look)?;
    let socket = channel_of(&look.facts)?;
    let asked = async {
        let limits = Limits::default();
        let mut agent = lease_client.connect(domain, &socket, limits).await?;
        agent.info().await?;
        agent.configure(policy).await
    };
    asked.await.map_err(|failure| ConfigureFailure::Agent {
        domain: domain.to_owned(),
        failure,
    })
}

/// What the guest is to be given.
///
/// # Errors
/// If the domain's XML has no bonds, or unsound ones.
pub fn policy_of(look: &DomainLook) -> Result<Policy, ConfigureFailure> {
    let facts = &look.facts;
    let domain = facts.name.clone();
    match &look.bonds {
        _ if facts.state == DomainState::Absent => Err(not_here(facts)),
        Err(reason) => Err(ConfigureFailure::Unsound {
            domain,
            reason: reason.clone(),
        }),
        Ok(None) => Err(ConfigureFailure::NoBonds { domain }),
        Ok(Some(bonds)) => {
            let policy = bonds.policy(&facts.nics);
            policy.map_err(|error| ConfigureFailure::Unsound {
                domain,
                reason: error.to_string(),
            })
        }
    }
}

/// The socket behind which the guest is.
///
/// # Errors
/// If there is none.
pub fn channel_of(facts: &DomainFacts) -> Result<ChannelSocket, ConfigureFailure> {
    if facts.state != DomainState::Running {
        return Err(not_here(facts));
    }
    let reason = match &facts.channel {
        Some(AgentChannel {
            socket: Some(socket),
            ..
        }) => return Ok(socket.clone()),
        Some(AgentChannel {
            refused: Some(reason),
            ..
        }) => format!("can't be asked: {reason}"),
        Some(_) => "has a channel that can't be opened here; run tandem-host on the domain's own machine, and make \
                    it <channel type='unix'>"
            .to_owned(),
        None => format!(
            "has no channel to its guest; add <channel type='unix'> with the target name {}",
            tandem_wire::PORT_NAME
        ),
    };
    let domain = facts.name.clone();
    Err(ConfigureFailure::NoChannel { domain, reason })
}

fn not_here(facts: &DomainFacts) -> ConfigureFailure {
    ConfigureFailure::NoChannel {
        domain: facts.name.clone(),
        reason: "does not run here; configure it where it runs".to_owned(),
    }
}

/// Hands a guest its bonds, and prints what it did with them.
///
/// # Errors
/// As [`configure`], but for a guest's refusal, which has an exit code of its own.
pub async fn run(arguments: &Configure) -> Result<u8> {
    let host = arguments.connect.open();
    let lease_client = arguments.connect.lease_client();
    match configure(host.as_ref(), &arguments.domain, &lease_client).await {
        Ok((configured, lacks)) => {
            for bond in &configured.bonds {
                let what = if configured.changed {
                    "configured"
                } else {
                    "as before"
                };
                println!("{bond}: {what}");
            }
            if let Some(lacks) = lacks {
                eprintln!(
                    "tandem-host: domain {}: {lacks}",
                    printable(&arguments.domain)
                );
            }
            Ok(0)
        }
        Err(
            refused @ ConfigureFailure::Agent {
                failure: AgentError::Refused { .. },
                ..
            },
        ) => {
            eprintln!("tandem-host: {refused}");
            Ok(exit::REFUSED)
        }
        Err(error) => Err(error.into()),
    }
}
