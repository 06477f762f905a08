//! `configure`: hands a guest the bonds of its domain's XML.

use anyhow::Result;
use clap::Args;
use tandem_wire::reply::Configured;

use super::{connect::Connect, exit};
use crate::agent::{Agent, AgentError, Limits};
use crate::hypervisor::{DomainState, Host, HostError};

/// `tandem-host configure`
#[derive(Debug, Args)]
pub struct Configure {
    /// The domain
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
    #[error("domain {domain} has no bonds; give it some by `tandem-host xml set {domain} FILE`")]
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

/// Hands a guest its bonds; the same twice changes nothing.
///
/// # Errors
/// If there are none, or the guest can't be asked or refuses.
pub async fn configure(host: &dyn Host, domain: &str) -> Result<Configured, ConfigureFailure> {
    let bonds = host.bonds(domain).await?;
    let domain = domain.to_owned();
    let Some(bonds) = bonds else {
        return Err(ConfigureFailure::NoBonds { domain });
    };
    let facts = host.domain(&domain).await?;
    let policy = match bonds.policy(&facts.nics) {
        Ok(policy) => policy,
        Err(error) => {
            let reason = error.to_string();
            return Err(ConfigureFailure::Unsound { domain, reason });
        }
    };
    let channel = match (facts.state, facts.channel) {
        (DomainState::Running, Some(channel)) => channel,
        (DomainState::Running, None) => {
            let reason = format!(
                "has no channel to its guest; add <channel type='unix'> with the target name {}",
                tandem_wire::PORT_NAME
            );
            return Err(ConfigureFailure::NoChannel { domain, reason });
        }
        (_, _) => {
            let reason = "does not run here; configure it where it runs".to_owned();
            return Err(ConfigureFailure::NoChannel { domain, reason });
        }
    };
    let Some(socket) = channel.socket else {
        let reason =
            "has a channel without a unix socket; make it <channel type='unix'>".to_owned();
        return Err(ConfigureFailure::NoChannel { domain, reason });
    };
    let asked = async {
        let mut agent = Agent::connect(&socket, Limits::default()).await?;
        agent.info().await?;
        agent.configure(policy).await
    };
    asked
        .await
        .map_err(|failure| ConfigureFailure::Agent { domain, failure })
}

/// Hands a guest its bonds, and prints what it did with them.
///
/// # Errors
/// As [`configure`], but for a guest's refusal, which has an exit code of its own.
pub async fn run(arguments: &Configure) -> Result<u8> {
    let host = arguments.connect.open();
    match configure(host.as_ref(), &arguments.domain).await {
        Ok(configured) => {
            for bond in &configured.bonds {
                let what = if configured.changed {
                    "configured"
                } else {
                    "as before"
                };
                println!("{bond}: {what}");
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
