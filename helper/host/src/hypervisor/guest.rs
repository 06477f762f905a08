//! What a domain's guest is to be given, and where it is asked.

use tandem_core::Policy;

use super::domain::{AgentChannel, DomainFacts, DomainLook, DomainState};
use super::socket::ChannelSocket;
use crate::words::{printable, quoted};

/// What a domain lacks for its guest to be configured or asked.
#[derive(Debug, thiserror::Error)]
pub enum Lack {
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

/// What the guest is to be given.
///
/// # Errors
/// If the domain's XML has no bonds, or unsound ones.
pub fn policy_of(look: &DomainLook) -> Result<Policy, Lack> {
    let facts = &look.facts;
    let domain = facts.name.clone();
    match &look.bonds {
        _ if facts.state == DomainState::Absent => Err(not_here(facts)),
        Err(reason) => Err(Lack::Unsound {
            domain,
            reason: reason.clone(),
        }),
        Ok(None) => Err(Lack::NoBonds { domain }),
        Ok(Some(bonds)) => {
            let policy = bonds.policy(&facts.nics);
            policy.map_err(|error| Lack::Unsound {
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
pub fn channel_of(facts: &DomainFacts) -> Result<ChannelSocket, Lack> {
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
    Err(Lack::NoChannel { domain, reason })
}

fn not_here(facts: &DomainFacts) -> Lack {
    Lack::NoChannel {
        domain: facts.name.clone(),
        reason: "does not run here; configure it where it runs".to_owned(),
    }
}

/// The socket of a guest that listens, or why there is none.
pub(crate) fn reachable(facts: &DomainFacts) -> Result<ChannelSocket, String> {
    let opened = facts.channel.as_ref().and_then(|channel| channel.opened);
    let socket = channel_of(facts).map_err(|error| error.to_string())?;
    if opened == Some(false) {
        return Err("it has not opened the channel; is tandem running there?".to_owned());
    }
    Ok(socket)
}
