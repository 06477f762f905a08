//! `configure`: gives a guest the bonds of its domain's XML.

use anyhow::Result;
use clap::Args;
use tandem_wire::reply::Configured;

use super::{connect::Connect, exit, mac_form};
use crate::agent::{AgentError, ChannelLimits};
use crate::control::LeaseClient;
use crate::hypervisor::{HostError, Lack, Look, channel_of, policy_of};
use crate::words::printable;

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
    /// The domain lacks what it takes.
    #[error(transparent)]
    Lack(#[from] Lack),
}

/// Hands a guest its bonds; the same twice changes nothing. `uri` is the host's. Besides, what an older guest does not know of them.
///
/// # Errors
/// If there are none, or the guest can't be asked or refuses.
pub async fn configure(
    host: &dyn Look,
    uri: &str,
    domain: &str,
    lease_client: &LeaseClient,
) -> Result<(Configured, Option<String>), ConfigureFailure> {
    let look = host.look(domain).await?;
    let policy = policy_of(&look)?;
    if let Ok(Some(bonds)) = &look.bonds {
        mac_form::warn(domain, uri, bonds, &look.facts.nics).await;
    }
    let socket = channel_of(&look.facts)?;
    let asked = async {
        let limits = ChannelLimits::default();
        let mut agent = lease_client.connect(domain, &socket, limits).await?;
        agent.configure(policy).await
    };
    asked.await.map_err(|failure| ConfigureFailure::Agent {
        domain: domain.to_owned(),
        failure,
    })
}

/// Hands a guest its bonds, and prints what it did with them.
///
/// # Errors
/// As [`configure`], but for a guest's refusal, which has an exit code of its own.
pub async fn run(arguments: &Configure) -> Result<u8> {
    let host = arguments.connect.open();
    let lease_client = arguments.connect.lease_client();
    match configure(
        host.as_ref(),
        &arguments.connect.uri,
        &arguments.domain,
        &lease_client,
    )
    .await
    {
        Ok((configured, lacks)) => {
            for bond in &configured.bonds {
                let what = if configured.changed {
                    "configured"
                } else {
                    "as before"
                };
                println!("{}: {what}", printable(bond.as_str()));
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
